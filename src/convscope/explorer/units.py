"""What an atlas says of units, as rows of plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..atlas.atlas import Atlas
from ..atlas.statistics import SIDE, edges
from ..data.class_names import wordnet_names

_BARS = 64


@dataclass(frozen=True)
class UnitRow:
    """A unit in numbers: its largest value, mean and share of positions above zero, and the class it tells best."""

    unit: int
    strongest: float | None = None
    mean: float | None = None
    active: float | None = None
    auc: float | None = None
    tells: str = ""
    pictures: int = 0

    @property
    def dead(self) -> bool:
        """Whether it was never above zero."""
        return self.strongest is not None and self.strongest <= 0


@dataclass(frozen=True)
class ClassOf:
    """A class and a unit: its mean over the class's pictures, and its AUC as a detector of the class."""

    name: str
    mean: float
    auc: float | None
    pictures: int


@dataclass(frozen=True)
class Histogram:
    """How often a unit gave which values: bars from `low` to `high`, as shares of the highest, and how many values."""

    low: float
    high: float
    bars: list[float]
    values: int


def rows_of(atlas: Atlas | None, layer: str, units: int, unit: int | None = None) -> list[UnitRow]:
    """Return a row for each unit of a layer, or for one; with numbers where there is an atlas."""
    numbers = range(units) if unit is None else (unit,)
    if atlas is None:
        return [UnitRow(number) for number in numbers]
    best = _best_classes(atlas, layer, unit)
    rows: list[UnitRow] = []
    for row in atlas.statistics(layer, unit).to_pylist():
        auc, tells = best.get(row["unit"], (None, ""))
        rows.append(UnitRow(row["unit"], row["maximum"], row["mean"], row.get("active"), auc, tells, row["pictures"]))
    return rows


def _best_classes(atlas: Atlas, layer: str, unit: int | None) -> dict[int, tuple[float, str]]:
    table = atlas.classes(layer, unit)
    if table is None or "auc" not in table.column_names:
        return {}
    best: dict[int, tuple[float, str]] = {}
    for number, name, auc in zip(*(table[each].to_pylist() for each in ("unit", "class", "auc")), strict=True):
        if auc is not None and auc > best.get(number, (0.0, ""))[0]:
            best[number] = auc, name
    return best


def class_rows(atlas: Atlas, layer: str, unit: int) -> list[ClassOf]:
    """Return the classes of a unit, those that it tells best first; by mean where no AUC is known."""
    table = atlas.classes(layer, unit)
    rows: list[dict[str, Any]] = [] if table is None else table.to_pylist()
    found = [ClassOf(row["class"], row["mean"], row.get("auc"), row["pictures"]) for row in rows]
    return sorted(found, key=lambda one: (-(one.auc or 0.0), -one.mean))


def class_labels(atlas: Atlas) -> list[str]:
    """Return what the class of each picture is called; "" where it has none."""
    return [wordnet_names().get(label, label) if label else "" for label in atlas.labels]


def histogram(atlas: Atlas, layer: str, unit: int) -> Histogram | None:
    """Return a unit's histogram in bars of one width, between the ends that hold all values but 1 of 1,000 at each."""
    rows = atlas.statistics(layer, unit).to_pylist()
    if not rows or "bins" not in rows[0] or not rows[0]["bins"]:
        return None
    ends = edges().clip(-(2.0**16), 2.0**16)
    at = np.array(rows[0]["bins"]) + SIDE
    counts = np.array(rows[0]["counts"], float)
    low, high, share = ends[at], ends[at + 1], counts.cumsum() / counts.sum()
    least = float(low[np.searchsorted(share, 0.001)])
    most = float(high[min(np.searchsorted(share, 0.999), len(at) - 1)])
    borders = np.linspace(least, most, _BARS + 1)
    # A bin's values are spread evenly over its width.
    heights = np.zeros(_BARS)
    for a, b, count in zip(low, high, counts, strict=True):
        overlap = (np.minimum(borders[1:], b) - np.maximum(borders[:-1], a)).clip(0)
        heights += count * overlap / (b - a)
    return Histogram(least, most, [float(each) for each in heights / (heights.max() or 1.0)], int(counts.sum()))
