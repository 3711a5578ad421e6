"""Features of many pictures: a row of numbers for each, reduced where a layer has more than a classifier needs.

Layers are reduced while they are read, so that a pass over many pictures never holds a whole layer of all of them.
Every layer is reduced to about as many numbers, so that layers are compared by what they hold, not by how much.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..context import say
from ..errors import NetworkError
from ..layers import between, picture_layers
from ..net import Net
from ..tapping import tap
from ..tracing import OUTPUT, PIXELS, Layer
from .labelled import Labelled

_IN_MEMORY = 2**30
"""Bytes of features up to which they are held in memory; more lie in a temporary file."""

_MOST_LAYERS = 12


@dataclass(frozen=True)
class Reading:
    """A layer to read features of, or the pixels themselves, and to at most how many numbers it is reduced.

    `shape` is the layer's, without the batch; `layer` is None for pixels.
    """

    name: str
    shape: tuple[int, ...]
    most: int
    layer: Layer | None = None

    @property
    def title(self) -> str:
        """What tables call it."""
        return {OUTPUT: "output", PIXELS: "pixels"}.get(self.name, self.name)

    @property
    def cells(self) -> tuple[int, int] | None:
        """Over how many rows and columns of cells it is averaged; None where all fits, or has no positions."""
        positions = self.layer is None or self.layer.positions > 0
        if not positions or math.prod(self.shape) <= self.most:
            return None
        rows, columns = self.shape[1:] if self.layer is None else self.layer.grid
        channels = math.prod(self.shape) // (rows * columns)
        scale = math.sqrt(min(1.0, self.most / channels / (rows * columns)))
        return max(1, int(rows * scale)), max(1, int(columns * scale))

    @property
    def count(self) -> int:
        """How many numbers it is reduced to."""
        whole = math.prod(self.shape)
        if self.cells is None:
            return min(whole, self.most)
        rows, columns = self.shape[1:] if self.layer is None else self.layer.grid
        return whole // (rows * columns) * math.prod(self.cells)

    @property
    def said(self) -> str:
        """How it is reduced, in words; "" where it is not."""
        if self.cells:
            return f"averaged over {self.cells[0]} × {self.cells[1]} cells"
        return "hashed at random" if math.prod(self.shape) > self.most else ""

    def of(self, values: Tensor) -> Tensor:
        """Return the features (n, numbers) of a layer's values (n, ...)."""
        if self.cells:
            placed = values if self.layer is None else self.layer.by_position(values)
            return F.adaptive_avg_pool2d(placed.float(), self.cells).flatten(1)
        flat = values.float().flatten(1)
        return _hashed(flat, self.most) if flat.shape[1] > self.most else flat


def _hashed(flat: Tensor, most: int) -> Tensor:
    """Add every number, with a sign drawn at random, to one of `most`: products stay what they are on average."""
    generator = torch.Generator().manual_seed(flat.shape[1])
    places = torch.randint(most, (flat.shape[1],), generator=generator).to(flat.device)
    signs = (torch.randint(2, (flat.shape[1],), generator=generator) * 2 - 1).to(flat)
    return flat.new_zeros(len(flat), most).index_add_(1, places, flat * signs)


def readings(net: Net, names: Sequence[str] | None, most: int) -> list[Reading]:
    """Return what is read: named layers and ranges (`between`); by default pixels, what layers pass on, and the output.

    What a layer passes on is what the next one with weights reads: rectified, pooled and normalised.
    """
    if names:
        pixels = [PIXELS] if PIXELS in names or "pixels" in names else []
        others = [name for name in names if name not in (PIXELS, "pixels")]
        layers = between(net, others) if others else []
    else:
        pixels, layers = [PIXELS], _passed_on(net)
    found = [Reading(PIXELS, (net.channels, *net.size), most)] if pixels else []
    return [*found, *(Reading(layer.name, layer.shape, most, layer) for layer in layers)]


def _passed_on(net: Net) -> list[Layer]:
    leaves = [layer for layer in picture_layers(net) if layer.leaf and layer.name]
    read = [before for before, layer in pairwise(leaves) if _weighs(layer) and before.shape]
    found = [*dict.fromkeys(read), net.output]
    if len(found) <= _MOST_LAYERS:
        return found
    say(f"{_MOST_LAYERS} of the {len(found)} layers that others with weights read, evenly over the network")
    return [found[round(i * (len(found) - 1) / (_MOST_LAYERS - 1))] for i in range(_MOST_LAYERS)]


def _weighs(layer: Layer) -> bool:
    return layer.number is not None or isinstance(layer.module, nn.Linear)


def features_of(data: Labelled, wanted: Sequence[Reading], label: str) -> list[np.ndarray]:
    """Return the features (pictures, numbers) of every reading, from one pass over the pictures.

    Raises NetworkError where they are not finite.
    """
    by_name = {reading.name: reading for reading in wanted}
    inside = [name for name in by_name if name != PIXELS]
    found = dict[str, np.ndarray]()
    for rows, pixels in data.batches(label=label):
        with torch.inference_mode():
            values = tap(data.net, pixels, inside, reduce=lambda name, value: by_name[name].of(value))
        if PIXELS in by_name:
            values[PIXELS] = by_name[PIXELS].of(pixels)
        for name, value in values.items():
            if name in by_name:
                room = found.setdefault(name, _room(found, (len(data), value.shape[1]), len(wanted)))
                room[rows] = value.cpu().numpy()
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise NetworkError(
                f"features of {by_name[name].title} hold NaN or infinity: nothing can be learnt from them"
            )
    return [found[reading.name] for reading in wanted]


def _room(found: dict[str, np.ndarray], shape: tuple[int, int], layers: int) -> np.ndarray:
    if math.prod(shape) * 4 * layers <= _IN_MEMORY:
        return np.empty(shape, np.float32)
    if not found:
        say("the features are too large for memory and lie in temporary files")
    return np.memmap(tempfile.TemporaryFile(), np.float32, "w+", shape=shape)
