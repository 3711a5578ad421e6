"""The tables, the figure and the words of a study of invariance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..drawing import charts
from ..drawing.layout import Sheet, Tile
from ..drawing.tables import Cell, Column, Table
from ..drawing.tiles import fitted
from ..net import Net
from .changing import Change
from .intervals import Interval, bootstrap, bootstrap_means, wilson
from .labelled import Labelled
from .reading import BEFORE

_SIDE, _CHART = 78, (230, 178)
_SHOWN = 6
_EACH = 5
"""Up to so many pictures have a line each."""


@dataclass(frozen=True)
class Measured:
    """What was measured, with what the axes of its arrays stand for (see `invariance`)."""

    net: Net
    data: Labelled
    targets: tuple[int, ...]
    layers: tuple[str, ...]
    pools: tuple[str, ...]
    kinds: tuple[Change, ...]
    word: str
    values: Mapping[str, Tensor]
    seed: int
    shift: int

    @property
    def n(self) -> int:
        """How many pictures."""
        return len(self.data)

    def curves(self) -> Iterator[tuple[int, str, np.ndarray, np.ndarray | None]]:
        """Yield a change's number, a layer's title, and its distances (pictures, steps), relative and raw."""
        relative, raw, pooled = (self.values[name].double().numpy() for name in ("distances", "raw", "pooling"))
        for i, _ in enumerate(self.kinds):
            for j, name in enumerate(self.layers):
                yield i, _title(name), relative[i, j], raw[i, j]
            for j, name in enumerate(self.pools):
                yield i, BEFORE.format(name), pooled[i, j, 0], None
                yield i, name, pooled[i, j, 1], None

    def bought(self, change: int, pool: int) -> np.ndarray:
        """Return distances after a pooling layer divided by those before it (pictures, steps); NaN where none is."""
        before, after = self.values["pooling"][change, pool].double().numpy()
        return np.divide(after, before, out=np.full_like(after, np.nan), where=before > 0)

    @cached_property
    def changed(self) -> Interval | None:
        """The share of shifts by a few pixels under which the first choice changes."""
        if "stays" not in self.values:
            return None
        moved = 1 - self.values["stays"].double().mean(1).numpy()
        return bootstrap(lambda rows: float(moved[rows].mean()), self.n, seed=self.seed)

    @cached_property
    def gist(self) -> str:
        """What it shows, in words."""
        parts = list[str]()
        if self.kinds:
            kind, first, last = self.kinds[0], self.layers[0], self.layers[-1]
            halves = [half(kind, self.values["distances"][0, j].double().mean(0).numpy()) for j in (0, -1)]
            later = f", those of {_title(last)} after {halves[1]:.0%}" if first != last else ""
            parts.append(
                f"{_sentence(kind)}, the features of {_title(first)} are half of their way from those of the picture "
                f"after {halves[0]:.0%} of the range{later} (a straight line: 50%)."
            )
        if self.changed is not None:
            some = self.changed
            pixels = "1 pixel" if self.shift == 1 else f"{self.shift} pixels"
            parts.append(
                f"The first choice changes under {_share(some)} of shifts by {pixels} ({self.n:,} "
                f"picture{'s' * (self.n != 1)}, 8 directions): a network whose strided layers alias loses answers so, "
                "and what the border brings in adds to it."
            )
        if self.n < 2:
            parts.append("One picture says nothing about others: there is no interval.")
        return " ".join(parts)


def half(kind: Change, curve: np.ndarray) -> float:
    """Return after which share of the range a curve (steps) has half of its largest value; NaN where it stays zero."""
    places, means = _by_distance(kind, len(curve))
    heights = np.insert(means @ curve, 0, 0.0)
    if not heights.max() > 0:
        return float("nan")
    aim = heights.max() / 2
    at = int((heights >= aim).argmax())
    share = (aim - heights[at - 1]) / (heights[at] - heights[at - 1])
    return float((places[at - 1] + share * (places[at] - places[at - 1])) / places[-1])


@cache
def _by_distance(kind: Change, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how far amounts go, zero first, and what takes the mean of the steps that go as far (distances, steps)."""
    far = np.array([kind.far(amount) for amount in kind.amounts(steps)]).round(9)
    places = np.unique(far)
    same = (far == places[:, None]).astype(float)
    return np.insert(places, 0, 0.0), same / same.sum(1, keepdims=True)


_TIDY = (
    Column("what"),
    Column("change"),
    Column("amount", "number", format=".4g"),
    Column("layer", unbroken=True),
    Column("value", "number", format=".4f"),
    Column("low", "number", format=".4f"),
    Column("high", "number", format=".4f"),
    Column("raw", "number"),
    Column("n", "whole"),
)


def table_of(measured: Measured) -> Table:
    """Return every number: means over pictures with intervals, of each change, amount and layer."""
    return Table(_TIDY, tuple(_rows(measured)), title=f"Invariance of {measured.net.name}", subtitle=_SUBTITLE)


_SUBTITLE = (
    "means over pictures with 95% bootstrap intervals; distance: of features to those of the picture itself, divided "
    "by their norm; raw: undivided; pooling: distance after the layer divided by that before it"
)


def _rows(measured: Measured) -> Iterator[tuple[Cell, ...]]:
    for i, layer, relative, raw in measured.curves():
        yield from _means(measured, "distance", i, layer, relative, raw)
    for i, _ in enumerate(measured.kinds):
        for j, pool in enumerate(measured.pools):
            yield from _means(measured, "pooling", i, pool, measured.bought(i, j), None)
        yield from _means(measured, measured.word, i, "", measured.values[measured.word][i].double().numpy(), None)
    if measured.changed is not None:
        change = f"shift by {measured.shift}"
        for what, each in (("answer changes", measured.changed), ("answer changes once or more", _once(measured))):
            yield what, change, None, "", each.value, _finite(each.low), _finite(each.high), None, each.n


def _once(measured: Measured) -> Interval:
    """Return the share of pictures whose first choice changes in one direction at least."""
    return wilson(int((measured.values["stays"].min(1).values == 0).sum()), measured.n)


def _means(
    measured: Measured, what: str, i: int, layer: str, values: np.ndarray, raw: np.ndarray | None
) -> Iterator[tuple[Cell, ...]]:
    kind = measured.kinds[i]
    low, high = bootstrap_means(values, seed=measured.seed)
    for step, amount in enumerate(kind.amounts(values.shape[1])):
        value = float(values[:, step].mean())
        own = None if raw is None else float(raw[:, step].mean())
        if not np.isnan(value):
            yield (
                what, kind.name, amount, layer, value, _finite(low[step]), _finite(high[step]), own, measured.n
            )  # fmt: skip


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def summary_of(measured: Measured) -> Table:
    """Return a row for each change and layer: the first step, the last, and how soon half of the way is gone."""
    columns = (
        Column("change"),
        Column("of", unbroken=True),
        Column("step", "number", "first step", format=".3g"),
        Column("first", "number", "there", format=".3f"),
        Column("last", "number", "largest", format=".3f"),
        Column("half", head="half of the way after"),
        Column("n", "whole"),
    )
    rows = [_summed(measured, i, layer, relative) for i, layer, relative, _ in measured.curves()]
    for i, kind in enumerate(measured.kinds):
        said = measured.values[measured.word][i].double().numpy().mean(0)
        at, amount = _first_step(kind, said.size)
        rows.append(
            (kind.name, f"{measured.word} of its class", amount, float(said[at]), float(said.min()), "", measured.n)
        )
    if measured.changed is not None:
        once = _once(measured)
        rows.append(
            (
                f"shift by {measured.shift}",
                "first choice",
                None,
                None,
                None,
                f"changes: {_share(measured.changed)}",
                once.n,
            )
        )
        rows.append(
            (f"shift by {measured.shift}", "first choice", None, None, None, f"in a direction: {_share(once)}", once.n)
        )
    note = (
        "distance: of features, divided by the norm of the picture's own; of a probability the least stands as largest."
    )
    return Table(columns, tuple(rows), title=f"Invariance of {measured.net.name}", note=note)


def _summed(measured: Measured, i: int, layer: str, values: np.ndarray) -> tuple[Cell, ...]:
    kind, curve = measured.kinds[i], values.mean(0)
    at, amount = _first_step(kind, curve.size)
    soon = bootstrap(lambda rows: half(kind, values[rows].mean(0)), measured.n, seed=measured.seed, draws=200)
    return kind.name, layer, amount, float(curve[at]), float(curve.max()), _share(soon), measured.n


def _first_step(kind: Change, steps: int) -> tuple[int, float]:
    """Return the number and the amount of the smallest change that is one."""
    amounts = kind.amounts(steps)
    at = min(
        (step for step in range(steps) if kind.far(amounts[step]) > 1e-9), key=lambda step: kind.far(amounts[step])
    )
    return at, amounts[at]


def _share(interval: Interval) -> str:
    within = "" if np.isnan(interval.low) else f" [{interval.low:.1%}, {interval.high:.1%}]"
    return "" if np.isnan(interval.value) else f"{interval.value:.1%}{within}"


def _sentence(kind: Change) -> str:
    verbs = {"vertical": "move down and up", "horizontal": "move right and left", "scale": "are enlarged"}
    return f"While pictures {verbs.get(kind.name, 'are rotated')}"


def _title(layer: str) -> str:
    return layer or "the output"


# The figure ---------------------------------------------------------------------------------------------------------


def sheet_of(measured: Measured, samples: Sequence[Tensor], fills: str) -> Sheet:
    """Lay out, for each change, the first picture changed, a chart per layer and for the class; then pooling layers."""
    names = _lines(measured)
    rows = [tuple(_of_change(measured, i, sample, names)) for i, sample in enumerate(samples)]
    rows += list(_legend(names, len(rows[0]) if rows else 4)) if len(names) > 1 else []
    rows += _of_pooling(measured)
    said = f"{measured.word} of its class"
    alone = f" · {names[0]}" if len(names) == 1 else ""
    return Sheet(
        f"Invariance of {measured.net.name}",
        tuple(rows),
        "Euclidean distance of features to those of the picture itself, divided by their norm · 0: nothing changed · "
        f"beyond the border: {fills}{alone}",
        "",
        ("the picture, changed", *(f"distance in {_title(name)}" for name in measured.layers), said),
        (*(kind.name for kind in measured.kinds), *("",) * (len(rows) - len(measured.kinds))),
    )  # fmt: skip


def _lines(measured: Measured) -> list[str]:
    """Name the lines of a chart: pictures where they are few, else their mean and their spread."""
    if measured.n > _EACH:
        return [f"mean of {measured.n:,} pictures", "a tenth is below", "a tenth is above"]
    each = zip(measured.data.pictures, measured.targets, strict=True)
    return [
        f"{number} {picture.name or number}: {measured.net.class_name(target)}"
        for number, (picture, target) in enumerate(each, 1)
    ]


def _series(names: Sequence[str], values: np.ndarray) -> dict[str, list[float]]:
    """Return the lines of values (pictures, steps)."""
    drawn = values if len(values) <= _EACH else [values.mean(0), *np.quantile(values, (0.1, 0.9), axis=0)]
    return {name: line.tolist() for name, line in zip(names, drawn, strict=True)}


def _of_change(measured: Measured, i: int, sample: Tensor, names: Sequence[str]) -> Iterator[Tile]:
    kind = measured.kinds[i]
    low, high = (f"{amount:.3g}".replace("-", "−") for amount in (kind.low, kind.high))
    yield Tile(_shown(measured, sample), f"{low} to {high} {kind.unit}")
    for values in (*measured.values["distances"][i], measured.values[measured.word][i]):
        series = _series(names, values.double().numpy())
        yield Tile(charts.lines(kind.amounts(values.shape[1]), series, (kind.axis, ""), _CHART, legend=False))


def _of_pooling(measured: Measured) -> list[tuple[Tile, ...]]:
    """Draw mean distances before and after each pooling layer, of the first change, four in a row."""
    tiles = list[Tile]()
    for j, pool in enumerate(measured.pools if measured.kinds else ()):
        kind, pooled = measured.kinds[0], measured.values["pooling"][0, j].double().mean(1).numpy()
        series = {"before": pooled[0].tolist(), "after": pooled[1].tolist()}
        chart = charts.lines(kind.amounts(pooled.shape[1]), series, (kind.axis, ""), _CHART)
        tiles.append(Tile(chart, f"distance before and after {pool}"))
    return [tuple(tiles[start : start + 4]) for start in range(0, len(tiles), 4)]


def _legend(names: Sequence[str], across: int) -> Iterator[tuple[Tile, ...]]:
    """Name the lines: strips of their colours, with captions, which have room at any size."""
    strips = [Tile(Image.new("RGB", (3 * _SIDE, 6), charts.colour(number)), text) for number, text in enumerate(names)]
    for start in range(0, len(strips), across):
        yield tuple(strips[start : start + across])


def _shown(measured: Measured, changed: Tensor) -> Image.Image:
    """Show a few of the changed pictures, from the first to the last amount, in two rows."""
    chosen = torch.linspace(0, len(changed) - 1, min(_SHOWN, len(changed))).round().long().tolist()
    frames = [fitted(measured.net.image(changed[index]), _SIDE) for index in chosen]
    across = -(-len(frames) // 2)
    whole = Image.new("RGB", (across * _SIDE + 2 * (across - 1), 2 * _SIDE + 2), "white")
    for number, frame in enumerate(frames):
        row, column = divmod(number, across)
        whole.paste(frame.convert("RGB"), (column * (_SIDE + 2), row * (_SIDE + 2)))
    return whole
