"""How right predictions are: top-1 and top-5 by class, what is taken for what, and whether probabilities hold.

Calibration as in Guo et al., "On calibration of modern neural networks" (arXiv:1706.04599): the pictures are put into
15 bins by the probability of their first choice; the expected calibration error is the mean distance between that
probability and the share of right ones, weighted by the number of pictures in each bin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..drawing.tables import Column, Table
from ..recipes import Recipe
from .prediction import Prediction

BINS = 15
_SHOWN = 12
"""Up to how many classes the confusion is a whole matrix in the terminal, and how many rows it has beyond."""


@dataclass(frozen=True)
class Bin:
    """Pictures whose first choice has a probability above `low` up to `high`: how many, the mean, the share right."""

    low: float
    high: float
    pictures: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ClassQuality:
    """How right predictions are on pictures of one class, and how often it is said of any."""

    name: str
    pictures: int
    said: int
    top_1: float
    top_5: float | None
    taken_for: str
    """What it is most often taken for instead, "" where it never is."""


@dataclass(frozen=True)
class Quality:
    """How right predictions are, over all pictures that have a label and could be read."""

    classes: tuple[str, ...]
    predictions: tuple[Prediction, ...]
    recipe: Recipe = Recipe()  # noqa: RUF009  it is frozen

    @property
    def pictures(self) -> int:
        """How many pictures are counted."""
        return len(self.predictions)

    @property
    def top_1(self) -> float:
        """The share of pictures whose first choice is right."""
        return self._within(self.predictions, 1)

    @property
    def top_5(self) -> float | None:
        """The share of pictures whose class is among the first five; None where there are five classes or fewer."""
        return self._within(self.predictions, 5) if len(self.classes) > 5 else None

    def _within(self, predictions: Sequence[Prediction], first: int) -> float:
        return sum(each.rank is not None and each.rank < first for each in predictions) / len(predictions)

    @cached_property
    def by_class(self) -> tuple[ClassQuality, ...]:
        """The quality of every class that pictures have, in the order of the network's classes."""
        said = Counter(each.choices[0] for each in self.predictions)
        of_class: dict[int, list[Prediction]] = {}
        for each in self.predictions:
            of_class.setdefault(each.truth or 0, []).append(each)
        instead = {truth: other for truth, other, _ in reversed(self.confusion)}
        return tuple(
            ClassQuality(
                self.classes[truth],
                len(of_class[truth]),
                said[truth],
                self._within(of_class[truth], 1),
                self._within(of_class[truth], 5) if len(self.classes) > 5 else None,
                self.classes[instead[truth]] if truth in instead else "",
            )
            for truth in sorted(of_class)
        )

    @cached_property
    def confusion(self) -> tuple[tuple[int, int, int], ...]:
        """Which class was taken for which other, and how often: (truth, said, pictures), the most frequent first."""
        pairs = Counter((each.truth or 0, each.choices[0]) for each in self.predictions if each.rank)
        return tuple((*pair, count) for pair, count in sorted(pairs.items(), key=lambda item: (-item[1], item[0])))

    @cached_property
    def reliability(self) -> tuple[Bin, ...]:
        """The bins of the probability of the first choice that hold pictures."""
        bins: dict[int, list[Prediction]] = {}
        for each in self.predictions:
            bins.setdefault(min(BINS - 1, max(0, -int(-each.values[0] * BINS // 1) - 1)), []).append(each)
        return tuple(
            Bin(
                number / BINS,
                (number + 1) / BINS,
                len(inside),
                sum(each.values[0] for each in inside) / len(inside),
                self._within(inside, 1),
            )
            for number, inside in sorted(bins.items())
        )

    @property
    def calibration_error(self) -> float:
        """The expected calibration error, in [0, 1]."""
        return sum(abs(b.confidence - b.accuracy) * b.pictures for b in self.reliability) / self.pictures

    @property
    def headline(self) -> str:
        """The figures in one line."""
        five = "" if self.top_5 is None else f", top-5 {self.top_5:.1%}"
        return (
            f"{self.pictures:,} picture{'s' * (self.pictures != 1)}: top-1 {self.top_1:.1%}{five}; "
            f"calibration error {self.calibration_error:.3f}"
        )

    def class_table(self) -> Table:
        """Return the quality of every class as a table."""
        columns = (
            Column("class", unbroken=True),
            Column("pictures", "whole"),
            Column("said", "whole"),
            Column("top_1", "number", head="top-1", format=".1%"),
            *((Column("top_5", "number", head="top-5", format=".1%"),) if self.top_5 is not None else ()),
            Column("taken_for", head="most often taken for"),
        )
        rows = [
            (c.name, c.pictures, c.said, c.top_1, *((c.top_5,) if self.top_5 is not None else ()), c.taken_for)
            for c in self.by_class
        ]
        return Table(columns, tuple(rows), self.recipe, "By class")

    def confusion_table(self) -> Table:
        """Return what was taken for what: a matrix of few classes, the most frequent pairs of many."""
        counts = Counter((each.truth or 0, each.choices[0]) for each in self.predictions)
        truths, present = sorted({truth for truth, _ in counts}), sorted({index for pair in counts for index in pair})
        if len(present) <= _SHOWN:
            columns = (Column("truth", unbroken=True), *(Column(self.classes[said], "whole") for said in present))
            rows = [(self.classes[truth], *(counts[truth, said] for said in present)) for truth in truths]
            return Table(columns, tuple(rows), self.recipe, "Confusion: truth in rows, what was said in columns")
        columns = (Column("truth", unbroken=True), Column("said", unbroken=True), Column("pictures", "whole"))
        rows = [(self.classes[truth], self.classes[said], count) for truth, said, count in self.confusion[:_SHOWN]]
        more = len(self.confusion) - _SHOWN
        return Table(columns, tuple(rows), self.recipe, "Confusion", note=f"and {more} pairs more" if more > 0 else "")

    def reliability_table(self) -> Table:
        """Return the bins of the probability of the first choice as a table."""
        columns = (
            Column("above", "number", format=".2f"),
            Column("up_to", "number", format=".2f"),
            Column("pictures", "whole"),
            Column("confidence", "number", head="mean probability", format=".1%"),
            Column("accuracy", "number", head="share right", format=".1%"),
        )
        rows = [(b.low, b.high, b.pictures, b.confidence, b.accuracy) for b in self.reliability]
        title = f"Calibration: expected error {self.calibration_error:.3f}"
        return Table(columns, tuple(rows), self.recipe, title)
