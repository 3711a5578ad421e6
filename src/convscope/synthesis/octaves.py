"""Gradient ascent over octaves: what one size adds to a picture is enlarged and added to the next."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..context import Parts, keep_part, say, track
from ..data.images import Whole, pixels_of
from ..errors import OptionError, SynthesisError
from ..layers import trunk_layer
from ..net import Net
from ..objectives import Objective
from .ascent import AscentResult, ascend
from .likeness import scale_to
from .monitor import Monitor
from .optimizers import Optimizer
from .parametrizations import Pixels
from .transforms import Transform

_SMALL = 10_000
"""The pixels that take as long as what a step costs at any size."""


def octave_sizes(height: int, width: int, count: int, scale: float) -> list[tuple[int, int]]:
    """Return the sizes (height, width) of octaves in pixels, smallest first; each side is the next's over the scale."""
    sizes = [(height, width)]
    while len(sizes) < count:
        sizes.append((round(sizes[-1][0] / scale), round(sizes[-1][1] / scale)))
    return sizes[::-1]


def octave_count(net: Net, image: Whole, count: int | None, scale: float) -> int:
    """Return the number of octaves: by default the first has at least half the side that the network was trained on.

    Raises OptionError for more octaves than the picture has room for.
    """
    width, height = image.size
    shorter = min(width, height)
    if count is None:
        return max(1, 1 + math.floor(math.log(2 * shorter / min(net.size), scale)))
    most = 1 + math.floor(math.log(shorter, scale))
    if not 1 <= count <= most:
        raise OptionError(f"octaves of scale {scale:g} must be 1 to {most} for {width} × {height} pixels, not {count}")
    return count


@dataclass(frozen=True)
class OctaveAscent:
    """Everything about a dream but the picture."""

    net: Net
    objective: Objective
    octaves: int
    octave_scale: float
    optimizer: Optimizer
    jitter: int
    tile: int
    seed: int
    monitor: Monitor

    def dream(self, image: Whole, frame: int = 0) -> tuple[Tensor, bool]:
        """Return the dream of an image, pixels (1, c, h, w) of its size, and whether it was interrupted."""
        sizes = octave_sizes(image.size[1], image.size[0], self.octaves, self.octave_scale)
        detail: Tensor | None = None
        interrupted, reached = False, False
        for number, size in enumerate(track(Parts(sizes, [_work(size) for size in sizes]), "octaves")):
            try:
                # The scaled picture is not kept: one copy more of a large picture is much memory.
                base = self._base(image, size)
                start = Pixels(base if detail is None else _enlarged(detail, size).add_(base))
                del base
                result = self._ascend(start, number, frame)
                del start
                interrupted, reached = result.interrupted, reached or any(result.reached)
                if interrupted:
                    say(f"interrupted in octave {number + 1} of {len(sizes)}; kept what was there")
                detail = result.pixels.sub_(self._base(image, size))
            except KeyboardInterrupt as end:
                if detail is None:
                    raise
                interrupted = True
                keep_part(end, f"interrupted before octave {number + 1} of {len(sizes)}; kept what was there")
            if interrupted:
                break
        if not reached and not interrupted:
            raise SynthesisError(
                f"no gradient of {self.objective.title(self.net)} reaches this picture: choose another layer, such as "
                f"{trunk_layer(self.net).name!r}"
            )
        assert detail is not None
        return _enlarged(detail, sizes[-1]).add_(self._base(image, sizes[-1])).clamp_(0, 1), interrupted

    def _base(self, image: Whole, size: tuple[int, int]) -> Tensor:
        return scale_to(torch.from_numpy(pixels_of(image))[None].to(self.net.device), size)

    def _ascend(self, start: Pixels, octave: int, frame: int) -> AscentResult:
        tiled = self.tile < max(start.free.shape[-2:])
        # Borders of tiles move by half a tile, so that none shows.
        roll = max(self.jitter, self.tile // 2) if self.jitter and tiled else self.jitter
        return ascend(
            self.net,
            [self.objective],
            start,
            transform=Transform(roll=roll),
            optimizer=self.optimizer,
            seeds=[self.seed + frame * self.octaves + octave],
            tile=self.tile,
            # A photograph excites something from the start: the gradient is the true one.
            redirect=False,
            monitor=self.monitor,
        )


def _work(size: tuple[int, int]) -> float:
    """Return what a step costs, in pixels: of a small octave more than its own."""
    return size[0] * size[1] + _SMALL


def _enlarged(detail: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(detail, size=size, mode="bilinear", align_corners=False)
