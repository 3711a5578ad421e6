"""Transforms: small random changes before every look, so that only what survives them is drawn.

Jitter, scaling, rotation, padding and cropping are one affine map and so one resampling per step; every picture of a
batch is shaken by its own, drawn from its own seed before the first step. After lucid's transforms and MaCo's crops.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import OptionError, nearest

_DRAWN = 7


@dataclass(frozen=True)
class Transform:
    """How a picture is changed at random before the network sees it.

    jitter: shift, up to so many pixels each way. scale: enlarge by up to this share, or shrink. rotate: turn, up to so
    many degrees each way. pad: pixels of grey seen beyond each border. crop: the shares of the sides, least and most,
    of a window that is cut out anywhere and enlarged. noise: standard deviation added to pixels. roll: shift by whole
    pixels, what leaves on one side coming back on the other. views: how many shaken copies of a picture are seen per
    step.
    """

    jitter: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    pad: float = 0.0
    crop: tuple[float, float] | None = None
    noise: float = 0.0
    roll: int = 0
    views: int = 1

    def __post_init__(self) -> None:
        if min(self.jitter, self.scale, self.rotate, self.pad, self.noise, self.roll) < 0 or self.scale >= 1:
            raise OptionError(f"a transform has no negative part, and scale is below 1: not {self}")
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise OptionError(f"crop is two shares of the side, as 0.3-0.6, not {self.crop}")
        if self.views < 1:
            raise OptionError(f"views is at least 1, not {self.views}")

    @property
    def resamples(self) -> bool:
        """Whether pixels come to lie between pixels."""
        return bool(self.jitter or self.scale or self.rotate or self.pad or self.crop)

    def draw(self, seeds: Sequence[int], steps: int) -> Tensor:
        """Draw what every picture is shaken by at every step: (steps, pictures * views, numbers) in [-1, 1]."""
        drawn = [torch.rand(steps, self.views, _DRAWN, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn, 1).flatten(1, 2) * 2 - 1

    def __call__(self, pixels: Tensor, drawn: Tensor) -> Tensor:
        """Transform pictures (n, c, h, w) by one step's numbers (n * views, numbers), to (n * views, c, h, w)."""
        if self.views > 1:
            pixels = pixels.repeat_interleave(self.views, 0)
        if self.resamples:
            pixels = self._resample(pixels, drawn.to(pixels))
        if self.roll:
            # One shift for all: it is a change of where tiles and windows begin, not of the picture.
            shift = (drawn[0, 4:6] * self.roll).round().int().tolist()
            pixels = pixels.roll(shift, (2, 3))
        if self.noise:
            seeds = [int((number + 1) * 2**30) for number in drawn[:, 6].tolist()]
            normal = [torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            pixels = pixels + torch.stack(normal).to(pixels) * self.noise
        return pixels

    def _resample(self, pixels: Tensor, drawn: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        if self.crop:
            low, high = self.crop
            window = low + (high - low) * (drawn[:, 2] + 1) / 2
            free = torch.stack((1 - window, 1 - window), 1)
        else:
            window, free = torch.ones_like(drawn[:, 2]), torch.zeros_like(drawn[:, :2])
        zoom = window / (1 + self.scale * drawn[:, 3])
        sides = drawn.new_tensor([width, height])
        shift = (free + 2 * self.jitter / sides) * drawn[:, :2]
        across = (1 + 2 * self.pad / sides) * zoom[:, None]
        angle = drawn[:, 4] * math.radians(self.rotate)
        cos, sin = angle.cos(), angle.sin()
        # Turned in pixels, not in shares of unequal sides.
        rows = [
            torch.stack((cos * across[:, 0], -sin * across[:, 1] * height / width, shift[:, 0]), 1),
            torch.stack((sin * across[:, 0] * width / height, cos * across[:, 1], shift[:, 1]), 1),
        ]
        # As affine_grid, in a quarter of the time: what the column adds, and what the row adds.
        matrix = torch.stack(rows, 1)[:, None, None]
        x, y = ((2 * torch.arange(side, device=pixels.device) + 1).to(pixels) / side - 1 for side in (width, height))
        grid = (matrix[..., 0] * x[:, None] + matrix[..., 2]) + matrix[..., 1] * y[:, None, None]
        # Beyond the border lies mid-grey.
        return _sampled(pixels - 0.5, grid) + 0.5


def _sampled(pixels: Tensor, grid: Tensor) -> Tensor:
    """Read pictures (n, c, h, w) at a grid (n, h, w, 2), zero beyond them."""
    count, channels, height, width = pixels.shape
    parts = torch.get_num_threads() if count == 1 and pixels.device.type == "cpu" else 1
    if height % parts:
        parts = 1
    # Threads take whole pictures: a single one is cut into as many stripes as there are threads.
    stripes = grid.view(count * parts, height // parts, width, 2)
    read = F.grid_sample(pixels.expand(count * parts, -1, -1, -1), stripes, mode="bilinear", align_corners=False)
    return read if parts == 1 else read.transpose(0, 1).reshape(1, channels, height, width)


def _none(side: int) -> Transform:
    return Transform()


def _standard(side: int) -> Transform:
    """lucid's transforms at 128 pixels, scaled with the side."""
    share = side / 128
    return Transform(jitter=12 * share, scale=0.1 if side >= 64 else 0.05, rotate=10 if side >= 64 else 5)


def _light(side: int) -> Transform:
    return replace(_standard(side), jitter=4 * side / 128, scale=0.05, rotate=3)


def _jitter(side: int) -> Transform:
    return Transform(jitter=max(1.0, side / 16))


def _crops(side: int) -> Transform:
    """MaCo's: many windows of a quarter to a half of the side, with noise."""
    return Transform(crop=(0.3, 0.7), noise=0.05, views=4)


PRESETS = {"none": _none, "standard": _standard, "light": _light, "jitter": _jitter, "crops": _crops}


def transform_for(asked: str | Transform, side: int) -> Transform:
    """Return a transform: a preset scaled to pictures of that side, or what "jitter=8 rotate=10 crop=0.3-0.6" says.

    Raises OptionError for an unknown preset or part.
    """
    if isinstance(asked, Transform):
        return asked
    if asked in PRESETS:
        return PRESETS[asked](side)
    given = dict[str, object]()
    known = [field.name for field in fields(Transform)]
    for piece in re.split(r"[\s,]+", asked.strip()):
        name, _, value = piece.partition("=")
        if name not in known or not value:
            raise OptionError(
                f"cannot read the transform {asked!r}: it is one of {nearest(asked, PRESETS)}, or parts as "
                f"'jitter=8 rotate=10 crop=0.3-0.6' of {', '.join(known)}"
            )
        try:
            numbers = [float(number) for number in value.split("-")]
        except ValueError:
            raise OptionError(f"cannot read {piece!r} of the transform: give a number, as {name}=8") from None
        if (name == "crop") != (len(numbers) == 2):
            raise OptionError(
                f"cannot read {piece!r} of the transform: crop is two shares, as 0.3-0.6, others one number"
            )
        whole = name in ("roll", "views")
        given[name] = tuple(numbers) if name == "crop" else int(numbers[0]) if whole else numbers[0]
    return Transform(**given)  # type: ignore[arg-type]
