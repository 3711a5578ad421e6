"""Painting a picture of any size in little memory, with the result of painting it at once.

Instance normalisation reads all of a layer, so tiles painted one by one would differ in colour. Here the mean and
variance of each layer are those of the whole picture: a chain of layers is run over the tiles once per layer, each time
one layer further, with the statistics so far, and the last run's result is kept. Only the inner layers, at a stride of
4 pixels, are kept whole. A tile reads as far beyond its border as its layers do: nothing is blended and nothing has a
seam.
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
from .network import STEP, ConvBlock, ResidualBlock, StyleNet, to_pixels, whole

_SMALLEST = 64

Span = tuple[int, int]
"""Start, and end, exclusive."""

Scale = tuple[Tensor, Tensor]
"""The factor and the offset of a normalisation, each (1, c, 1, 1)."""


def paint(net: StyleNet, pixels: Tensor, *, tile: int) -> Tensor:
    """Paint pixels (1, 3, h, w) in [0, 1], sides multiples of STEP, reading at most `tile` x `tile` of them at once.

    Returns as many, in [0, 1], equal to one pass over the whole picture except for rounding. When memory runs out,
    tiles are halved, and a remark says so. Raises OptionError for a tile below 64 pixels, OutOfMemory when the smallest
    do not fit either.
    """
    if tile < _SMALLEST:
        raise OptionError(f"tile must be at least {_SMALLEST} pixels, not {tile}")
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
                    f"out of memory with tiles of {side} pixels: the inner layers of a picture of {pixels.shape[-1]} x "
                    f"{pixels.shape[-2]} pixels do not fit. Scale it down, or use another device"
                ) from error
            side = max(_SMALLEST, min(side, max(pixels.shape[-2:])) // 2)
        # Outside the handler: until the error is gone, its traceback holds what did not fit.
        release_memory()
        say(f"out of memory with tiles of {tile} pixels; continued with smaller ones")


def _in_tiles(net: StyleNet, pixels: Tensor, side: int) -> Tensor:
    inner = max(side // STEP, 1)
    activity = _through(_layers(net.down), pixels - 0.5, side, "painting: layers before")
    for number, block in enumerate(net.blocks, 1):
        first, second = _layers(cast(ResidualBlock, block).layers)
        label = f"painting: block {number} of {len(net.blocks)}"
        activity += _through([second], _through([first], activity, inner, label), inner, label)
    return to_pixels(_through(_layers(net.up), activity, inner, "painting: layers after")).clamp_(0, 1)


def _layers(modules: torch.nn.Module) -> list[ConvBlock]:
    return [cast(ConvBlock, module) for module in modules.children()]


def _through(layers: Sequence[ConvBlock], below: Tensor, side: int, label: str) -> Tensor:
    """Apply a chain of layers to an activity (1, c, h, w), in tiles of `side` of its positions."""
    sizes = _sizes(layers, (below.shape[-2], below.shape[-1]))
    above = below.new_empty(1, layers[-1].conv.out_channels, *sizes[-1])
    scales: list[Scale | None] = []
    for depth, layer in enumerate(layers, 1):
        statistics = _Statistics()
        for rows, columns in track(_tiles(sizes[depth], side * sizes[depth][0] // sizes[0][0]), label):
            part = _part(layers[:depth], scales, below, sizes, rows, columns)
            if layer.norm is not None:
                statistics.add(part)
            if depth == len(layers):
                above[..., slice(*rows), slice(*columns)] = part
        scales.append(statistics.scale(layer))
    return _normalised(above, layers[-1], scales[-1])


def _sizes(layers: Sequence[ConvBlock], size: tuple[int, int]) -> list[tuple[int, int]]:
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
    layers: Sequence[ConvBlock],
    scales: Sequence[Scale | None],
    below: Tensor,
    sizes: Sequence[tuple[int, int]],
    rows: Span,
    columns: Span,
) -> Tensor:
    """Return a tile of the last layer's convolution, not yet normalised, from the activity below the first."""
    high, wide = (_cuts(layers, [size[axis] for size in sizes], span) for axis, span in enumerate((rows, columns)))
    activity = below[..., slice(*high[0].source), slice(*wide[0].source)]
    for depth, layer in enumerate(layers):
        if depth:
            activity = _normalised(activity, layers[depth - 1], scales[depth - 1])
        activity = _convolved(layer, activity, high[depth], wide[depth])
    return activity


def _convolved(layer: ConvBlock, activity: Tensor, high: _Cut, wide: _Cut) -> Tensor:
    if layer.up > 1:
        activity = F.interpolate(activity, scale_factor=layer.up)[..., high.kept, wide.kept]
    # Reflection at the borders of the picture only: elsewhere a tile reads its neighbourhood.
    return layer.conv(F.pad(activity, (wide.before, wide.after, high.before, high.after), mode="reflect"))


@dataclass(frozen=True)
class _Cut:
    """What a layer reads along one axis for a span of its positions.

    `source` is the span of positions below; `kept` the part of them needed after upsampling; `before` and `after` the
    reflected positions.
    """

    source: Span
    kept: slice
    before: int
    after: int


def _cuts(layers: Sequence[ConvBlock], sizes: Sequence[int], span: Span) -> list[_Cut]:
    """Return what each layer reads for a span of the last one's positions, first layer first."""
    cuts: list[_Cut] = []
    for layer, size in reversed(list(zip(layers, sizes, strict=False))):
        start = span[0] * layer.down - layer.kernel // 2
        stop = (span[1] - 1) * layer.down + layer.kernel // 2 + 1
        low, high = max(start, 0), min(stop, size * layer.up)
        span = (low // layer.up, -(-high // layer.up))
        skipped = low - span[0] * layer.up
        cuts.append(_Cut(span, slice(skipped, skipped + high - low), low - start, stop - high))
    return cuts[::-1]


def _normalised(activity: Tensor, layer: ConvBlock, scale: Scale | None) -> Tensor:
    """Normalise and rectify a layer's convolution, in place."""
    if scale is not None:
        activity.mul_(scale[0]).add_(scale[1])
    return activity.relu_() if layer.rectified else activity


@dataclass
class _Statistics:
    """Mean and variance of channels from parts, exact (Chan et al. 1979): within the parts and between them."""

    count: int = 0
    mean: Tensor | float = 0.0
    squares: Tensor | float = 0.0

    def add(self, part: Tensor) -> None:
        """Add a part of a layer, (1, c, h, w)."""
        count = part[0, 0].numel()
        variance, mean = (value.cpu().double() for value in torch.var_mean(part, (2, 3), correction=0, keepdim=True))
        difference, total = mean - self.mean, self.count + count
        self.squares = self.squares + variance * count + difference.square() * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    def scale(self, layer: ConvBlock) -> Scale | None:
        """Return the layer's normalisation as factor and offset; None where it has none."""
        if layer.norm is None or not isinstance(self.squares, Tensor) or not isinstance(self.mean, Tensor):
            return None
        weight, bias = (value.cpu().double()[:, None, None] for value in (layer.norm.weight, layer.norm.bias))
        factor = weight / (self.squares / self.count + layer.norm.eps).sqrt()
        like = layer.conv.weight
        return factor.to(like), (bias - self.mean * factor).to(like)
