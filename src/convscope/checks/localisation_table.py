"""The table of a localisation check: a row per method, means over pictures with their standard errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Unpack

import numpy as np

from ..drawing.charts import Bar, bars
from ..drawing.drawings import Drawing
from ..drawing.layout import Sheet, Tile
from ..drawing.paper import PaperOptions
from ..drawing.tables import Column, Table
from ..outputs import TABLE_ENDINGS
from ..recipes import Recipe
from .box_scores import BoxScores

_OVERLAP = 0.5
"""The intersection over union below which a box is an error."""
_CHART = 900
_FOR_READERS = (".md", ".html", ".txt")
_PANELS = (("pointing", "pointing accuracy"), ("best_box_error", "best box error"), ("lift", "energy lift"))


@dataclass(frozen=True)
class Mean:
    """A mean over pictures with its standard error, NaN for a single picture."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        return cls(float(np.mean(values)), deviation / math.sqrt(len(values)))

    def __str__(self) -> str:
        return f"{self.value:.2f}" + ("" if math.isnan(self.error) else f" ± {self.error:.2f}")


@dataclass(frozen=True)
class Row:
    """One method's figures: fractions in [0, 1], except `lift`, which is 1 for a map that is the same everywhere.

    `pointing` is over all pictures, `by_class` the mean over classes; `box_error` at the criteria's threshold,
    `best_box_error` at `best_threshold`, the best of the sweep; `segment_error` is that of the segment's box.
    """

    name: str
    title: str
    pictures: int
    pointing: Mean
    by_class: float
    box_error: Mean
    best_box_error: Mean
    best_threshold: float
    energy: Mean
    lift: Mean
    segment_error: Mean | None = None


def summarised(name: str, title: str, scores: Sequence[BoxScores], labels: Sequence[str], threshold: float) -> Row:
    """Summarise the scores of one method's maps, whose pictures have those labels, in a row."""
    hits = [float(score.hit) for score in scores]
    errors = {share: Mean.of([float(s.ious[share] < _OVERLAP) for s in scores]) for share in scores[0].ious}
    segments = [score.segment_iou for score in scores if score.segment_iou is not None]
    best = min(errors, key=lambda share: errors[share].value)
    return Row(
        name=name,
        title=title,
        pictures=len(scores),
        pointing=Mean.of(hits),
        by_class=_mean_over_classes(hits, labels),
        box_error=errors[threshold],
        best_box_error=errors[best],
        best_threshold=best,
        energy=Mean.of([score.energy for score in scores]),
        lift=Mean.of([score.energy / score.area if score.area else 0.0 for score in scores]),
        segment_error=Mean.of([float(each < _OVERLAP) for each in segments]) if segments else None,
    )


def _mean_over_classes(hits: Sequence[float], labels: Sequence[str]) -> float:
    of_class: dict[str, list[float]] = {}
    for label, hit in zip(labels, hits, strict=True):
        of_class.setdefault(label, []).append(hit)
    return float(np.mean([np.mean(each) for each in of_class.values()]))


@dataclass(frozen=True, eq=False)
class Localisation(Drawing):
    """How well methods localise, as a table and a chart: methods first, maps without a network last."""

    rows: tuple[Row, ...]
    recipe: Recipe
    title: str = ""
    subtitle: str = ""
    note: str = ""
    threshold: float = 0.15

    endings: ClassVar[tuple[str, ...]] = Table.endings

    @property
    def _means(self) -> tuple[str, ...]:
        segments = any(row.segment_error is not None for row in self.rows)
        return "pointing", "box_error", "best_box_error", "energy", "lift", *(("segment_error",) if segments else ())

    @property
    def table(self) -> Table:
        """All figures, for files: a standard error in a column of its own beside every mean."""
        heads = {"box_error": f"box error at {self.threshold:.0%}"}
        means = [
            column
            for name in self._means
            for column in (
                Column(name, "number", heads.get(name, ""), format=".3f"),
                Column(f"{name}_se", "number", "±", format=".3f"),
            )
        ]
        columns = (
            Column("name", unbroken=True),
            Column("map", unbroken=True),
            Column("pictures", "whole"),
            Column("by_class", "number", "pointing by class", format=".3f"),
            Column("best_threshold", "number", format=".0%"),
            *means,
        )
        rows = tuple(tuple(self._figures(row)) for row in self.rows)
        return Table(columns, rows, self.recipe, self.title, self.subtitle, self.note)

    @property
    def summary(self) -> Table:
        """The figures for readers: means with their standard errors, as wide as a terminal."""
        heads = {"box_error": f"box error at {self.threshold:.0%}"}
        columns = (
            Column("map", unbroken=True),
            Column("pictures", "whole", "n"),
            *(Column(name, head=heads.get(name, "")) for name in self._means),
            Column("best_threshold", "number", "at", format=".0%"),
            Column("by_class", "number", format=".2f"),
        )
        rows = tuple(
            (
                row.title,
                row.pictures,
                *(str(getattr(row, name)) for name in self._means),
                row.best_threshold,
                row.by_class,
            )
            for row in self.rows
        )
        note = (
            f"n: pictures; at: threshold of the best box error; by class: mean of pointing over classes.\n{self.note}"
        )
        return Table(columns, rows, self.recipe, self.title, self.subtitle, note)

    def _figures(self, row: Row) -> Iterator[str | int | float]:
        yield from (row.name, row.title, row.pictures, row.by_class, row.best_threshold)
        for name in self._means:
            mean: Mean = getattr(row, name)
            yield from (mean.value, mean.error)

    def save(self, path: str | Path, **paper: Unpack[PaperOptions]) -> Path:
        """Write all figures (.csv, .json, .parquet), the summary (.md, .html, .txt), or a chart in a picture's ending.

        Raises OutputError when it cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix in TABLE_ENDINGS:
            return (self.summary if suffix in _FOR_READERS else self.table).save(path, **paper)
        return super().save(path, **paper)

    def numbers(self) -> dict[str, np.ndarray]:
        return {name: np.array([vars(getattr(row, name))["value"] for row in self.rows]) for name in self._means}

    def sheet(self) -> Sheet:
        methods = self.recipe.options.get("methods", ())
        shades = ["#3b6ea8" if row.name in methods else "#b8b8c0" for row in self.rows]
        panels = {
            head: [
                Bar(getattr(row, name).value, getattr(row, name).error, shade)
                for row, shade in zip(self.rows, shades, strict=True)
            ]
            for name, head in _PANELS
        }
        chart = bars([row.title for row in self.rows], panels, _CHART)
        return Sheet(self.title, ((Tile(chart),),), self.subtitle, self.note)
