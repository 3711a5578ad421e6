"""Reduction: what a scan keeps of a batch, computed while the forward pass runs; no map is stored.

Inside the pass each layer's output becomes a few numbers per picture and unit. Where an extreme lies is looked for only
where it may be among the best so far, since then the map is still there. What is left is done for all layers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..net import Net
from ..tapping import tap
from ..tracing import Layer
from .effects import Effects
from .selection import Order, Selection
from .statistics import Histograms, Statistics
from .units import Activity, Extreme, count_units


@dataclass(frozen=True)
class Kept:
    """What a scan keeps of every unit: the `k` best pictures, with `full` the weakest and the histograms, too.

    With `effect` also the `k` pictures where the unit mattered most.
    """

    k: int = 9
    full: bool = False
    effect: bool = False


class _Batch:
    """What the units of all layers gave for the pictures (n,) of a batch, (n, units), as it comes in."""

    def __init__(self, pictures: Tensor, examples: Tensor, reduction: Reduction) -> None:
        self.pictures, self.examples, self.reduction = pictures, examples[:, None], reduction
        self.has_examples = bool(examples.any())
        self.orders: tuple[Order, ...] = ("largest",) if reduction.weakest is None else ("largest", "smallest")
        shape, device = (len(pictures), reduction.units), pictures.device
        self.largest, self.sums = torch.empty(shape, device=device), torch.empty(shape, device=device)
        self.places = torch.full(shape, -1, dtype=torch.int32, device=device)
        self.smallest, self.low_places = torch.empty_like(self.largest), torch.full_like(self.places, -1)
        self.squares = torch.empty_like(self.largest)
        self.beaten = reduction.strongest.last
        self.undercut = reduction.weakest.last if reduction.weakest is not None else self.beaten
        self.effects, self.effect_places = torch.zeros_like(self.largest), torch.full_like(self.places, -1)
        self.outdone = reduction.mattered.last if reduction.mattered is not None else self.beaten
        self.rows = dict.fromkeys(reduction.layers, 0)

    def take(self, name: str, output: Tensor) -> Tensor:
        """Take in a layer's output (n, ...) of the next pictures, and return its maxima.

        Rows beyond the last picture, with which a batch was filled up, count for nothing.
        """
        layer, units = self.reduction.layers[name]
        first = self.rows[name]
        self.rows[name] = first + len(output)
        here = slice(first, min(self.rows[name], len(self.pictures)))
        if here.stop <= here.start:  # of a network that is run picture by picture, one that fills up the batch
            return output.new_zeros(len(output), units.stop - units.start)
        activity = Activity(layer, output.detach()[: here.stop - here.start])
        strongest, *weakest = activity.extremes(*self.orders)
        largest = self.largest[here, units] = strongest.values
        sample = activity.sample()
        self.sums[here, units] = sample.sum(1)
        if layer.positions:
            # Pictures come in order: of equal values the first one stays.
            asked = largest > self.beaten[units]
            strongest.find(asked | self.examples[here] if self.has_examples else asked, self.places[here, units])
        for extreme in weakest:
            self._take_more(name, extreme, sample.clone(memory_format=torch.contiguous_format), here)
        return largest

    def _take_more(self, name: str, extreme: Extreme, sample: Tensor, here: slice) -> None:
        layer, units = self.reduction.layers[name]
        smallest = self.smallest[here, units] = extreme.values
        if layer.positions:
            asked = smallest < self.undercut[units]
            ties = smallest == self.undercut[units]
            if ties.any():
                weakest = self.reduction.weakest.of(units)  # type: ignore[union-attr]
                asked |= ties & weakest.better(weakest.keys_of(smallest, self.pictures[here]))
            extreme.find(asked, self.low_places[here, units])
        self.reduction.histograms[name].add(sample)
        self.squares[here, units] = sample.square_().sum(1)

    def take_effect(self, name: str, effects: Tensor, rows: slice) -> None:
        """Take in a layer's activity times gradient (n, rows, columns, units) of some rows of the batch."""
        layer, units = self.reduction.layers[name]
        here = slice(rows.start, min(rows.stop, len(self.pictures)))
        if here.stop <= here.start:
            return
        effects = effects[: here.stop - here.start]
        sums = self.effects[here, units] = effects.sum((1, 2))
        if layer.positions:
            extreme = Extreme(effects, effects.amax(2), "largest")
            extreme.find(sums > self.outdone[units], self.effect_places[here, units])


@dataclass
class Reduction:
    """What is kept of the units of all layers, over all pictures so far; `layers` says which units are whose."""

    net: Net
    layers: dict[str, tuple[Layer, slice]]
    strongest: Selection
    weakest: Selection | None
    histograms: dict[str, Histograms]
    sums: Statistics
    mattered: Selection | None = None
    effects: Effects | None = None

    @classmethod
    def empty(cls, net: Net, layers: Sequence[Layer], kept: Kept) -> Reduction:
        """Return a reduction of no picture."""
        named: dict[str, tuple[Layer, slice]] = {}
        units = 0
        for layer in layers:
            named[layer.name] = (layer, slice(units, units + count_units(layer)))
            units += count_units(layer)
        strongest, weakest = (Selection.empty(order, units, kept.k, net.device) for order in ("largest", "smallest"))
        histograms = {layer.name: Histograms(count_units(layer), net.device) for layer in layers if kept.full}
        sums = Statistics.empty(units, net.device)
        reduction = cls(net, named, strongest, weakest if kept.full else None, histograms, sums)
        if kept.effect:
            reduction.mattered = Selection.empty("largest", units, kept.k, net.device)
            reduction.effects = Effects(net, {layer.name: layer for layer in layers})
        return reduction

    @property
    def units(self) -> int:
        """How many units all layers have."""
        return len(self.strongest.keys)

    @property
    def statistics(self) -> Statistics:
        """Sums and histograms of all pictures so far."""
        if not self.histograms:
            return self.sums
        return replace(self.sums, counts=torch.cat([each.whole() for each in self.histograms.values()]))

    def take(self, pixels: Tensor, pictures: Tensor, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on pixels (n, c, h, w) of pictures (m,), of which those beyond m fill up the batch.

        Pictures are numbers that rise from call to call. Returns the maximum of each unit in each picture (m, units),
        and its place, which is known of `examples` (m,) only.
        """
        batch = _Batch(pictures, examples, self)
        if self.effects is not None:
            self.effects.run(pixels, batch.take, batch.take_effect)
        else:
            with torch.inference_mode():
                tap(self.net, pixels, list(self.layers), reduce=batch.take)
        with torch.no_grad():
            self._add(batch)
        return batch.largest, batch.places

    def _add(self, batch: _Batch) -> None:
        sums = self.sums
        finite = batch.largest.isfinite() & batch.sums.isfinite()
        whole = bool(finite.all())
        sums.pictures += len(finite) if whole else finite.sum(0)
        sums.broken += 0 if whole else (~finite).sum(0)
        largest = batch.largest if whole else batch.largest.masked_fill(~finite, torch.nan)
        self.strongest.offer(largest, batch.pictures, batch.places)
        _add_each(sums.sums, batch.sums, finite)
        for name, histograms in self.histograms.items():
            histograms.count(None if whole else finite[:, self.layers[name][1]])
        if self.weakest is not None:
            smallest = batch.smallest if whole else batch.smallest.masked_fill(~finite, torch.nan)
            self.weakest.offer(smallest, batch.pictures, batch.low_places)
            _add_each(sums.squares, batch.squares, finite)
        if self.mattered is not None:
            finite = batch.effects.isfinite()
            self.mattered.offer(batch.effects.masked_fill(~finite, torch.nan), batch.pictures, batch.effect_places)
            _add_each(sums.effects, batch.effects, finite)


def _add_each(sums: Tensor, rows: Tensor, finite: Tensor) -> None:
    """Add rows one by one, so that the sum does not depend on what was computed together."""
    for row in torch.where(finite, rows.double(), 0):
        sums += row
