"""The table of a localisation check: a row per method, means over pictures with their standard errors."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .. import outputs
from ..drawing.drawings import Drawing
from ..drawing.layout import Sheet, Tile
from ..recipes import Recipe
from .box_scores import BoxScores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OVERLAP = 0.5
"""The intersection over union below which a box is an error."""
_TABLES = (".csv", ".md")
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
        return self.to_text(3)

    def to_text(self, digits: int) -> str:
        """Write the mean and its error with that many decimals."""
        return f"{self.value:.{digits}f}" + ("" if math.isnan(self.error) else f" ± {self.error:.{digits}f}")


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
    """How well methods localise, as a table: methods first, maps without a network last."""

    rows: tuple[Row, ...]
    recipe: Recipe
    title: str = ""
    subtitle: str = ""
    note: str = ""
    threshold: float = 0.15

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads of the columns."""
        error = f"box error at {self.threshold:.0%}"
        last = ("segment error",) if self._segments else ()
        return "map", "pictures", "pointing", "by class", error, "best box error", "at", "energy", "lift", *last

    @property
    def _segments(self) -> bool:
        return any(row.segment_error is not None for row in self.rows)

    @property
    def _means(self) -> tuple[str, ...]:
        last = ("segment_error",) if self._segments else ()
        return "pointing", "box_error", "best_box_error", "energy", "lift", *last

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table's rows as texts."""
        return [
            (
                row.title,
                str(row.pictures),
                str(row.pointing),
                f"{row.by_class:.3f}",
                str(row.box_error),
                str(row.best_box_error),
                f"{row.best_threshold:.0%}",
                str(row.energy),
                row.lift.to_text(2),
                *([str(row.segment_error)] if self._segments else []),
            )
            for row in self.rows
        ]

    def markdown(self) -> str:
        """Write the table in Markdown."""
        lines = [self.heads, tuple("---" for _ in self.heads), *self.cells()]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{self.title}. {self.subtitle}\n\n{table}\n\n{self.note}\n"

    def csv(self) -> str:
        """Write the raw figures as comma-separated values, a standard error beside every mean."""
        heads = ("name", "pictures", "by_class", "best_threshold", *(h for m in self._means for h in (m, f"{m}_se")))
        lines = [",".join(heads)]
        for row in self.rows:
            lines.append(",".join(f"{x:.6g}" if isinstance(x, float) else str(x) for x in self._figures(row)))
        return "\n".join(lines) + "\n"

    def _figures(self, row: Row) -> Iterator[str | int | float]:
        yield from (row.name, row.pictures, row.by_class, row.best_threshold)
        for name in self._means:
            mean: Mean = getattr(row, name)
            yield from (mean.value, mean.error)

    def save(self, path: str | Path, *, image: Image.Image | None = None) -> Path:
        """Write the table: .csv, .md, or a chart in any ending of a picture. Raises OutputError."""
        path = Path(path)
        if path.suffix.lower() not in _TABLES:
            return super().save(path, image=image)
        text = self.csv() if path.suffix.lower() == ".csv" else self.markdown()
        return outputs.write(path, lambda to: to.write_text(text, encoding="utf-8"))

    def numbers(self) -> dict[str, np.ndarray]:
        return {name: np.array([vars(getattr(row, name))["value"] for row in self.rows]) for name in self._means}

    def figure(self) -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 1.1 + 0.27 * len(self.rows)), layout="constrained", dpi=150)
        positions = np.arange(len(self.rows))[::-1]
        methods = self.recipe.options.get("methods", ())
        shades = ["#3b6ea8" if row.name in methods else "#b8b8c0" for row in self.rows]
        for axes, (name, head) in zip(figure.subplots(1, 3, sharey=True), _PANELS, strict=True):
            means = [getattr(row, name) for row in self.rows]
            errors = np.nan_to_num([mean.error for mean in means])
            axes.barh(positions, [mean.value for mean in means], xerr=errors, color=shades, error_kw={"lw": 1})
            axes.set_yticks(positions, [row.title for row in self.rows])
            axes.set_title(head, fontsize=10, loc="left")
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(length=0)
            axes.grid(axis="x", alpha=0.25)
        return figure

    def sheet(self) -> Sheet:
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png")
        return Sheet(self.title, ((Tile(Image.open(buffer).convert("RGB")),),), self.subtitle, self.note)
