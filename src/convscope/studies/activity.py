"""Activity: how strongly every unit answers the pictures of each class, and whether it prefers one.

A unit's answer to a picture is its mean over positions. Which class a unit prefers is found on one half of each class's
pictures and measured on the other, because the largest of many noisy means is always too large. Selectivity (Morcos et
al. 2018, arXiv:1803.06959) is (m - r) / (m + r), where m is the mean for the preferred class, r for all others: 0 for a
unit that answers all alike, 1 for one that answers a single class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..context import say
from ..drawing import colours
from ..drawing.layout import Sheet, Tile
from ..drawing.study import Study
from ..drawing.tables import Cell, Column, Table
from ..drawing.tiles import magnitude_scale
from ..errors import DataError
from ..incremental.changes import by_channel
from ..net import Net
from ..recipes import Recipe
from ..registry import view
from ..tapping import tap
from ..tracing import Layer
from .ablating import over_positions
from .intervals import bootstrap_means
from .labelled import HOW_LABELLED, Labelled, Labels, Limit, PerClass, Seed
from .units import Layers, chosen_layers

_WIDTH, _ROW, _LEAST = 340, 3, 90
_PICTURES = 10
"""Pictures of a class below which the note says that they are few."""


@view("Activity per class", kind="study", group="study", paper="Morcos et al. 2018, arXiv:1803.06959")
def activity(
    net: Net,
    data: Labelled,
    *,
    layers: Layers = None,
    labels: Labels = None,
    per_class: PerClass = 0,
    limit: Limit = 0,
    seed: Seed = 0,
) -> Study:
    """Show how strongly every unit answers the pictures of each class, and how selective it is.

    The table has a row for each unit: the class it prefers, its mean there with a 95% interval and its mean for all
    others, on pictures by which the class was not chosen. The values are the means (units, classes) by layer. Raises
    DataError for fewer than two classes of two pictures.
    """
    chosen = chosen_layers(net, layers)
    targets = torch.tensor(data.targets)
    halves = _halves(targets, len(data.classes), seed)
    if len({*targets[halves[1]].tolist()} & {*targets[halves[0]].tolist()}) < 2:
        raise DataError(
            f"activity compares classes of two pictures or more, and of {len(data):,} pictures here there are "
            f"{sum(count > 1 for count in data.counts.values())}: {HOW_LABELLED}"
        )
    smallest = min(count for count in data.counts.values() if count)
    if smallest < _PICTURES:
        say(f"some classes have only {smallest} pictures: their means are uncertain")
    answers = _answers(net, data, chosen)
    found = [
        _Units(layer.name or "output", answers[layer.name], targets, halves, data.class_names, seed) for layer in chosen
    ]
    values = {one.layer: one.means for one in found}
    settled = {"layers": [layer.name for layer in chosen], "classes": list(data.classes)}
    return Study(_gist(found), _table(found, net, len(data)), _sheet(found, net, data), values, Recipe(settled=settled))


def _answers(net: Net, data: Labelled, layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Return the mean over positions of every unit in every picture, (pictures, units), by layer."""
    by_name = {layer.name: layer for layer in layers}
    found: dict[str, Tensor] = {}
    for rows, pixels in data.batches(label="activity"):
        with torch.inference_mode():
            reduced = tap(
                net, pixels, list(by_name), reduce=lambda name, x: over_positions(by_channel(by_name[name], x))
            )
        for name, values in reduced.items():
            if name not in found:
                found[name] = torch.zeros(len(data), values.shape[1])
            found[name][rows] = values.float().cpu()
    return found


def _halves(targets: Tensor, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return rows of two halves of each class's pictures, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    first, second = list[Tensor](), list[Tensor]()
    for number in range(classes):
        rows = (targets == number).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator)]
        first.append(rows[: len(rows) // 2])
        second.append(rows[len(rows) // 2 :])
    return torch.cat([*first, targets.new_empty(0)]), torch.cat([*second, targets.new_empty(0)])


@dataclass(frozen=True)
class _Unit:
    preferred: int
    mean: float
    low: float
    high: float
    others: float
    n: int

    @property
    def selectivity(self) -> float:
        total = abs(self.mean) + abs(self.others)
        return (self.mean - self.others) / total if total > 0 else 0.0


class _Units:
    """The units of a layer: their means per class over all pictures, and what the second half says of each."""

    def __init__(
        self,
        layer: str,
        answers: Tensor,
        targets: Tensor,
        halves: tuple[Tensor, Tensor],
        classes: Sequence[str],
        seed: int,
    ) -> None:
        self.layer, self.classes = layer, classes
        self.means = _means(answers, targets, len(classes))
        choosing, measuring = halves
        preferred = _means(answers[choosing], targets[choosing], len(classes)).nan_to_num(-torch.inf).argmax(1)
        values, known = answers[measuring].double().numpy(), targets[measuring].numpy()
        self.units: list[_Unit] = [_Unit(0, 0, 0, 0, 0, 0)] * answers.shape[1]
        for number in range(len(classes)):
            mine = np.flatnonzero((preferred == number).numpy())
            inside = values[known == number][:, mine]
            if not len(mine) or not len(inside):
                continue
            low, high = bootstrap_means(inside, seed=seed)
            outside = values[known != number][:, mine].mean(0)
            for at, unit in enumerate(mine.tolist()):
                numbers = (float(each[at]) for each in (inside.mean(0), low, high, outside))
                self.units[unit] = _Unit(number, *numbers, n=len(inside))

    def order(self) -> list[int]:
        """Return the units by the class they prefer, the most selective first."""
        return sorted(range(len(self.units)), key=lambda u: (self.units[u].preferred, -self.units[u].selectivity))

    @property
    def selectivity(self) -> float:
        """The median over units."""
        return float(np.median([unit.selectivity for unit in self.units]))


def _means(answers: Tensor, targets: Tensor, classes: int) -> Tensor:
    """Return the mean of each class, (units, classes); NaN for a class without pictures."""
    return torch.stack([answers[targets == number].mean(0) for number in range(classes)], 1)


_COLUMNS = (
    Column("layer", unbroken=True),
    Column("unit", "whole"),
    Column("prefers"),
    Column("mean", "number", head="mean there", format=".3g"),
    Column("low", "number", head="95% from", format=".3g"),
    Column("high", "number", head="to", format=".3g"),
    Column("others", "number", head="for all others", format=".3g"),
    Column("selectivity", "number", format=".2f"),
    Column("n", "whole"),
)


def _table(layers: Sequence[_Units], net: Net, count: int) -> Table:
    rows = tuple(row for layer in layers for row in _rows(layer))
    return Table(_COLUMNS, rows, title=f"Activity per class of {net.name}", subtitle=f"{count:,} pictures")


def _rows(layer: _Units) -> Iterator[tuple[Cell, ...]]:
    for number in layer.order():
        unit = layer.units[number]
        numbers = (unit.mean, unit.low, unit.high, unit.others, unit.selectivity)
        yield layer.layer, number, layer.classes[unit.preferred], *numbers, unit.n


def _gist(layers: Sequence[_Units]) -> str:
    parts = ", ".join(f"{one.layer} {one.selectivity:.2f}" for one in layers).replace("-", "−").replace("−0.00", "0.00")
    return f"Median selectivity of the units: {parts} (0 answers all classes alike, 1 a single one)."


def _sheet(layers: Sequence[_Units], net: Net, data: Labelled) -> Sheet:
    names = ", ".join(data.class_names)
    columns = f"columns: {names}" if len(names) < 80 else f"columns: the {len(data.classes)} classes in order"
    tiles = [_tile(one) for one in layers]
    rows = tuple(tuple(tiles[at : at + 2]) for at in range(0, len(tiles), 2))
    subtitle = f"{net.name} · {len(data):,} pictures · mean activity over positions and pictures · {columns}"
    return Sheet("Activity per class", rows, subtitle)


def _tile(layer: _Units) -> Tile:
    order = layer.order()
    peaks = layer.means.abs().nan_to_num(0).amax(1, keepdim=True).clamp(min=1e-30)
    shares = (layer.means.nan_to_num(0) / peaks)[order].numpy()
    scale = magnitude_scale(shares, "share of the unit's largest mean")
    height = max(_LEAST, min(_ROW * len(order), 3 * _WIDTH))
    colour = Image.fromarray(colours.paint(shares, scale.low, scale.high, scale.colours))
    image = colour.resize((_WIDTH, height), Image.Resampling.NEAREST if height >= len(order) else Image.Resampling.BOX)
    return Tile(image, f"{layer.layer}: {len(order)} units, a row each, by the class they prefer", scale)
