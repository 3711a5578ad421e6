"""Painting a picture of any size in little memory, with the very result of painting it at once.

Instance normalisation looks at all of a layer, so tiles painted one by one would differ in colour. Here every layer's
mean and variance are those of the whole picture: a chain of layers is run over the tiles once per layer, each time one
layer further, with the statistics found so far; the last time its result is kept. Kept are only the inner layers, which
have one place for every 4 x 4 pixels. A tile reads, beyond its border, what its layers see: nothing is blended, nothing
has a seam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ..batching import out_of_memory, release_memory
from ..context import say, track
from ..errors import OptionError, OutOfMemory
from .network import STEP, Block, Layer, StyleNet, to_pixels, whole

_SMALLEST = 64

Span = tuple[int, int]
"""From, and up to but without."""

Scale = tuple[Tensor, Tensor]
"""What a normalisation multiplies by, and what it adds, each (1, c, 1, 1)."""


def paint(net: StyleNet, pixels: Tensor, *, tile: int) -> Tensor:
    """Paint pixels (1, 3, h, w) in [0, 1], sides multiples of STEP, seeing at most `tile` x `tile` of them at once.

    Returns as many, in [0, 1]: those that the whole network gives, but for rounding. When memory runs out, tiles are
    halved, which a remark says. Raises OptionError for a tile below 64 pixels, OutOfMemory when the smallest do not fit
    either.
    """
    if tile < _SMALLEST:
        raise OptionError(f"tile is a side in pixels, at least {_SMALLEST}, not {tile}")
    side = tile
    while True:
        try:
            with torch.inference_mode():
                return whole(net, pixels) if max(pixels.shape[-2:]) <= side else _in_tiles(net, pixels, side)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if side == _SMALLEST:
                raise OutOfMemory(
                    f"memory ran out with tiles of {side} pixels: the inner layers of a picture of "
                    f"{pixels.shape[-1]} x {pixels.shape[-2]} pixels do not fit. Scale it down, or use another device"
                ) from error
            side = max(_SMALLEST, min(side, max(pixels.shape[-2:])) // 2)
        # Outside the handler: until the error is gone, its traceback holds what did not fit.
        release_memory()
        say(f"memory ran out with tiles of {tile} pixels: went on with smaller ones")


def _in_tiles(net: StyleNet, pixels: Tensor, side: int) -> Tensor:
    inner = max(side // STEP, 1)
    activity = _through(_layers(net.down), pixels - 0.5, side, "painting: layers before")
    for number, block in enumerate(net.blocks, 1):
        first, second = _layers(cast(Block, block).layers)
        label = f"painting: block {number} of {len(net.blocks)}"
        activity += _through([second], _through([first], activity, inner, label), inner, label)
    return to_pixels(_through(_layers(net.up), activity, inner, "painting: layers after")).clamp_(0, 1)


def _layers(modules: torch.nn.Module) -> list[Layer]:
    return [cast(Layer, module) for module in modules.children()]


def _through(layers: Sequence[Layer], below: Tensor, side: int, label: str) -> Tensor:
    """Return what a chain of layers makes of what is below, (1, c, h, w), in tiles of `side` of its places."""
    sizes = _sizes(layers, (below.shape[-2], below.shape[-1]))
    above = below.new_empty(1, layers[-1].conv.out_channels, *sizes[-1])
    scales: list[Scale | None] = []
    for depth, layer in enumerate(layers, 1):
        seen = _Statistics()
        for rows, columns in track(_tiles(sizes[depth], side * sizes[depth][0] // sizes[0][0]), label):
            part = _part(layers[:depth], scales, below, sizes, rows, columns)
            if layer.norm is not None:
                seen.add(part)
            if depth == len(layers):
                above[..., slice(*rows), slice(*columns)] = part
        scales.append(seen.scale(layer))
    return _normalised(above, layers[-1], scales[-1])


def _sizes(layers: Sequence[Layer], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the rows and columns below a chain of layers and after each of them."""
    sizes = [size]
    for layer in layers:
        sizes.append((sizes[-1][0] * layer.up // layer.down, sizes[-1][1] * layer.up // layer.down))
    return sizes


def _tiles(size: tuple[int, int], side: int) -> list[tuple[Span, Span]]:
    """Cut rows and columns into spans of nearly equal lengths, none above `side`."""
    rows, columns = (
        [(i * length // count, (i + 1) * length // count) for i in range(count)]
        for length, count in ((length, -(-length // side)) for length in size)
    )
    return [(high, wide) for high in rows for wide in columns]


def _part(
    layers: Sequence[Layer],
    scales: Sequence[Scale | None],
    below: Tensor,
    sizes: Sequence[tuple[int, int]],
    rows: Span,
    columns: Span,
) -> Tensor:
    """Return a tile of the last layer's convolution, not yet normalised, from what lies below the first."""
    high, wide = (_cuts(layers, [size[axis] for size in sizes], span) for axis, span in enumerate((rows, columns)))
    activity = below[..., slice(*high[0].source), slice(*wide[0].source)]
    for depth, layer in enumerate(layers):
        if depth:
            activity = _normalised(activity, layers[depth - 1], scales[depth - 1])
        activity = _convolved(layer, activity, high[depth], wide[depth])
    return activity


def _convolved(layer: Layer, activity: Tensor, high: _Cut, wide: _Cut) -> Tensor:
    if layer.up > 1:
        activity = F.interpolate(activity, scale_factor=layer.up)[..., high.kept, wide.kept]
    # Reflected at the picture's borders only: there, and nowhere else, a tile has nothing to read.
    return layer.conv(F.pad(activity, (wide.before, wide.after, high.before, high.after), mode="reflect"))


@dataclass(frozen=True)
class _Cut:
    """What a layer reads along one axis to give a span of its places.

    `source` are places below; `kept` is what is needed of them once they are doubled; `before` and `after` are
    reflected.
    """

    source: Span
    kept: slice
    before: int
    after: int


def _cuts(layers: Sequence[Layer], sizes: Sequence[int], span: Span) -> list[_Cut]:
    """Return what every layer reads for a span of the last one's places, first layer first."""
    cuts: list[_Cut] = []
    for layer, size in reversed(list(zip(layers, sizes, strict=False))):
        start = span[0] * layer.down - layer.kernel // 2
        stop = (span[1] - 1) * layer.down + layer.kernel // 2 + 1
        low, high = max(start, 0), min(stop, size * layer.up)
        span = (low // layer.up, -(-high // layer.up))
        skipped = low - span[0] * layer.up
        cuts.append(_Cut(span, slice(skipped, skipped + high - low), low - start, stop - high))
    return cuts[::-1]


def _normalised(activity: Tensor, layer: Layer, scale: Scale | None) -> Tensor:
    """Normalise and rectify a layer's convolution, in place."""
    if scale is not None:
        activity.mul_(scale[0]).add_(scale[1])
    return activity.relu_() if layer.rectified else activity


@dataclass
class _Statistics:
    """Mean and variance of channels that come in parts, exact (Chan et al. 1979): the parts' own and their distance."""

    count: int = 0
    mean: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, part: Tensor) -> None:
        """Take a part of a layer into account, (1, c, h, w)."""
        count = part[0, 0].numel()
        variance, mean = (value.cpu().double() for value in torch.var_mean(part, (2, 3), correction=0, keepdim=True))
        away, everything = mean - self.mean, self.count + count
        self.squares = self.squares + variance * count + away.square() * (self.count * count / everything)
        self.mean = self.mean + away * (count / everything)
        self.count = everything

    def scale(self, layer: Layer) -> Scale | None:
        """Return what the layer's normalisation does; None where it has none."""
        if layer.norm is None or not isinstance(self.squares, Tensor) or not isinstance(self.mean, Tensor):
            return None
        weight, bias = (value.cpu().double()[:, None, None] for value in (layer.norm.weight, layer.norm.bias))
        factor = weight / (self.squares / self.count + layer.norm.eps).sqrt()
        like = layer.conv.weight
        return factor.to(like), (bias - self.mean * factor).to(like)
