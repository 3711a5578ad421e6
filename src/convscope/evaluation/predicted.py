"""Predictions of many pictures: as a sequence, as a table, as JSON, and how right they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, overload

from ..drawing.tables import Cell, Column, Table
from ..heads import Head
from ..recipes import Recipe
from .prediction import Prediction
from .quality import Quality

SCHEMA = "convscope.predictions/1"
"""The name and number of what `json` and `table` hold: it counts up when a reader of an older one would go wrong."""


@dataclass(frozen=True)
class Predictions(Sequence[Prediction]):
    """What a network says of many pictures, in their order.

    `head` says what the numbers are, `classes` the names that choices are numbers of, `labelled` whether it is known
    what is true.
    """

    network: str
    head: Head
    classes: tuple[str, ...]
    all: tuple[Prediction, ...]
    labelled: bool
    recipe: Recipe

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Prediction, ...]: ...

    def __getitem__(self, index: int | slice) -> Prediction | tuple[Prediction, ...]:
        return self.all[index]

    def __len__(self) -> int:
        return len(self.all)

    @property
    def wrong(self) -> tuple[Prediction, ...]:
        """The pictures whose first choice is not their class."""
        return tuple(each for each in self.all if each.wrong)

    @property
    def failed(self) -> tuple[Prediction, ...]:
        """The pictures of which nothing could be said."""
        return tuple(each for each in self.all if each.error)

    @cached_property
    def quality(self) -> Quality | None:
        """How right it is; None without labels."""
        known = tuple(each for each in self.all if each.rank is not None)
        return Quality(self.classes, known, self.recipe) if known else None

    def name(self, index: int | None) -> str | None:
        """Return the name of a class."""
        return None if index is None else self.classes[index]

    def table(self, chosen: Sequence[Prediction] | None = None) -> Table:
        """Return the predictions as a table, a row for each picture; those that are `chosen`, or all."""
        shown = self.all if chosen is None else chosen
        deep = max((len(each.choices) for each in self.all), default=0)
        number, digits = ("value", ".3g") if self.head.kind == "value" else ("p", ".3f")
        known: tuple[Column, ...] = ()
        if self.labelled:
            known = (Column("truth"), Column("wrong", "flag"), Column(f"{number}_truth", "number", format=digits))
            known += (Column("rank", "whole"),)
        choices = [
            column
            for place in range(1, deep + 1)
            for column in (Column(f"class_{place}"), Column(f"{number}_{place}", "number", format=digits))
        ]
        columns = (Column("picture"), *known, *choices, Column("error"))
        rows = tuple(self._row(each, deep) for each in shown)
        return Table(columns, rows, self.recipe, f"What {self.network} says", note="\n".join(self.recipe.remarks))

    def _row(self, each: Prediction, deep: int) -> tuple[Cell, ...]:
        rank = None if each.rank is None else each.rank + 1
        known = (self.name(each.truth), each.wrong, each.truth_value, rank) if self.labelled else ()
        pairs: list[Cell] = []
        for index, value in zip(each.choices, each.values, strict=True):
            pairs += [self.classes[index], value]
        return (each.where, *known, *pairs, *[None] * (2 * deep - len(pairs)), each.error or None)

    def json(self, chosen: Sequence[Prediction] | None = None) -> str:
        """Return everything as JSON (docs/predict.md): network, head, pictures and, with labels, how right it is."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "network": self.recipe.network.get("name", self.network),
            "weights": self.recipe.weights,
            "head": {"kind": self.head.kind, "certain": self.head.certain, "numbers": self.head.word},
            "remarks": list(self.recipe.remarks),
            "pictures": [self._record(each) for each in (self.all if chosen is None else chosen)],
        }
        if self.labelled:
            document["quality"] = None if self.quality is None else _quality(self.quality)
        return json.dumps(document, indent=1, ensure_ascii=False)

    def _record(self, each: Prediction) -> dict[str, Any]:
        said = [
            {"index": index, "class": self.classes[index], "value": value}
            for index, value in zip(each.choices, each.values, strict=True)
        ]
        record: dict[str, Any] = {"picture": each.where, "said": said, "error": each.error or None}
        if self.labelled:
            record["truth"] = None if each.truth is None else {"index": each.truth, "class": self.name(each.truth)}
            record |= {"wrong": each.wrong, "truth_value": each.truth_value}
            record["rank"] = None if each.rank is None else each.rank + 1
        return record


def _quality(quality: Quality) -> dict[str, Any]:
    return {
        "pictures": quality.pictures,
        "top_1": quality.top_1,
        "top_5": quality.top_5,
        "classes": [asdict(each) for each in quality.by_class],
        "confusion": [
            {"truth": quality.classes[truth], "said": quality.classes[said], "pictures": count}
            for truth, said, count in quality.confusion
        ],
        "calibration_error": quality.calibration_error,
        "reliability": [asdict(each) for each in quality.reliability],
    }
