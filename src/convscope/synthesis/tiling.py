"""The gradient of a picture too large for one pass, in overlapping tiles that fade into each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..batching import out_of_memory, release_memory
from ..context import check_cancelled, say
from ..errors import OptionError, OutOfMemory

_SMALLEST = 128
"""The side of the smallest tiles, in pixels."""

_MARGIN = 16
"""The fraction of a tile's side that each of its margins takes is one over this."""

Differentiate = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Returns the gradient at pixels, of their shape, and the scores (n,)."""


class TiledGradient:
    """Differentiates a picture tile by tile; halves the tiles when memory runs out."""

    def __init__(self, side: int) -> None:
        if side < 1:
            raise OptionError(f"tile must be at least 1 pixel, not {side}")
        self.side, self.first_side = side, side

    def over(self, pixels: Tensor, differentiate: Differentiate) -> tuple[Tensor, Tensor]:
        """Return the gradient at pixels (n, c, h, w), of that shape, and the scores (n,), averaged over the area."""
        while True:
            try:
                return self._attempt(pixels, differentiate)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self.side <= _SMALLEST:
                    raise OutOfMemory(
                        f"out of memory with tiles of {self.side} pixels: make a smaller picture, or use another device"
                    ) from error
                self.side //= 2
            release_memory()
            say(f"out of memory with tiles of {self.first_side} pixels; continued with smaller ones")

    def _attempt(self, pixels: Tensor, differentiate: Differentiate) -> tuple[Tensor, Tensor]:
        gradient, total, area = torch.zeros_like(pixels), torch.zeros(()), 0.0
        height, width = pixels.shape[-2:]
        for rows, columns in self.cuts(height, width):
            check_cancelled()
            tall, wide = self._with_margin(rows, height), self._with_margin(columns, width)
            tile = pixels[..., tall, wide].clone()
            # From a mean over the tile to a mean over the picture.
            share = tile[0, 0].numel() / (height * width)
            part, scores = differentiate(tile)
            weights = self._fade(rows, tall)[:, None] * self._fade(columns, wide)
            gradient[..., tall, wide] += part * (share * weights).to(part)
            total, area = total + scores * share, area + share
        return gradient, total / area

    def cuts(self, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        """Cut a picture into tiles of nearly equal sides that, with their margins, are no longer than allowed."""
        most = self.side - 2 * self.margin
        for top, bottom in _parts(height, most if height > self.side else height):
            for left, right in _parts(width, most if width > self.side else width):
                yield slice(top, bottom), slice(left, right)

    @property
    def margin(self) -> int:
        """The pixels read beyond each border of a tile: there it fades into its neighbour and leaves no seam."""
        return self.side // _MARGIN

    def _with_margin(self, tile: slice, length: int) -> slice:
        return slice(max(0, tile.start - self.margin), min(length, tile.stop + self.margin))

    def _fade(self, tile: slice, around: slice) -> Tensor:
        """Return the weight of a tile along its length: the weights of neighbours add up to 1."""
        positions, width = torch.arange(around.start, around.stop, dtype=torch.float64) + 0.5, 2 * self.margin or 1
        rising = ((positions - tile.start) / width + 0.5) if around.start < tile.start else torch.ones(len(positions))
        falling = ((tile.stop - positions) / width + 0.5) if around.stop > tile.stop else torch.ones(len(positions))
        return rising.clamp(0, 1) * falling.clamp(0, 1)


def _parts(length: int, most: int) -> Iterator[tuple[int, int]]:
    count = -(-length // most)
    for i in range(count):
        yield i * length // count, (i + 1) * length // count
