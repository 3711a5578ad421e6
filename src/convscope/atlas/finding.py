"""Finding a unit's strongest picture among pictures in memory, as a scan finds it in a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..batching import Halving
from ..layouts import laid_out
from ..net import Net
from ..tracing import Layer
from .reduction import Kept, Reduction

_BATCH = {"cpu": 8}
_BATCH_ELSEWHERE = 64


class Best(NamedTuple):
    """A unit's strongest picture."""

    picture: int
    value: float
    y: int | None
    x: int | None


class Found:
    """What a scan of pictures in memory (n, c, h, w) finds, the strongest of each unit."""

    def __init__(self, net: Net, pixels: Tensor, layers: Sequence[Layer], batch: int = 0) -> None:
        batch = batch or _BATCH.get(net.device.type, _BATCH_ELSEWHERE)
        self.net, self._pixels = net, pixels
        self._reduction = Reduction.empty(net, layers, Kept(1))
        halving = Halving("evolution")
        for start in range(0, len(pixels), batch):
            for _ in halving.over(self._take, slice(start, min(start + batch, len(pixels)))):
                pass

    def _take(self, piece: slice) -> None:
        device = self.net.device
        pixels = laid_out(self.net, self._pixels[piece].to(device))
        pictures = torch.arange(piece.start, piece.stop, device=device)
        self._reduction.take(pixels, pictures, torch.zeros(len(pixels), dtype=torch.bool, device=device))

    def top(self, layer: str, unit: int, k: int | None = None, *, band: str = "strongest") -> list[Best]:
        """Return the strongest picture of a unit; none where all its values are NaN."""
        found, units = self._reduction.layers[layer]
        one = self._reduction.strongest.of(slice(units.start + unit, units.start + unit + 1))
        picture, place, value = int(one.pictures[0, 0]), int(one.places[0, 0]), float(one.values[0, 0])
        if np.isnan(value):
            return []
        y, x = divmod(place, found.grid[1]) if found.positions else (None, None)
        return [Best(picture, value, y, x)]

    def read(self, picture: int) -> Tensor:
        """Return the pixels (1, c, h, w) of a picture."""
        return self._pixels[picture : picture + 1].to(self.net.device)
