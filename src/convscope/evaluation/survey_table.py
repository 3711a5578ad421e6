"""The table of a survey: a row for each picture, with what the network says and what the map shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..data.boxes import Box
from ..drawing.tables import Cell, Column, Table
from ..heads import Head
from ..recipes import Recipe
from .conditions import Condition

SCHEMA = "convscope.explanations/1"
"""The name and number of what `json` and `table` hold: it counts up when a reader of an older one would go wrong."""

PAGE = "index.html"
TABLES = ("table.csv", "table.parquet")

COLUMNS = (
    Column("picture"),
    Column("file"),
    Column("truth"),
    Column("wrong", "flag"),
    *(
        column
        for place in (1, 2, 3)
        for column in (Column(f"class_{place}"), Column(f"p_{place}", "number", format=".3f"))
    ),
    Column("explained"),
    Column("regions", head="strongest regions"),
    Column("in_regions", "number", format=".2f"),
    Column("in_boxes", "number", format=".2f"),
    Column("centre_share", "number", format=".2f"),
    Column("check", "number", format=".2f"),
    Column("seconds", "number", format=".3f"),
    Column("error"),
)


@dataclass(frozen=True)
class Row:
    """One picture: what the network says, what is true, and what the map shows; or why there is none."""

    picture: str
    file: str
    truth: int | None
    choices: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    explained: str = ""
    regions: tuple[Box, ...] = ()
    in_regions: float | None = None
    in_boxes: float | None = None
    centre_share: float | None = None
    check: float | None = None
    seconds: float | None = None
    error: str = ""

    @property
    def wrong(self) -> bool | None:
        """Whether the first choice is not the true class."""
        return None if self.truth is None or not self.choices else self.choices[0] != self.truth


@dataclass(frozen=True)
class Surveyed:
    """What a survey has found, in the order of the pictures."""

    network: str
    method: str
    head: Head
    classes: tuple[str, ...]
    rows: tuple[Row, ...]
    labelled: bool
    recipe: Recipe

    @property
    def failed(self) -> tuple[Row, ...]:
        """The pictures that could not be read or explained."""
        return tuple(row for row in self.rows if row.error)

    @property
    def headline(self) -> str:
        """What there is, in one line."""
        known = [row.wrong for row in self.rows if row.wrong is not None]
        right = f", {known.count(False) / len(known):.1%} of {len(known):,} right" if known else ""
        failed = f", {len(self.failed):,} failed" if self.failed else ""
        return f"{len(self.rows):,} picture{'s' * (len(self.rows) != 1)}{right}{failed}"

    @cached_property
    def table(self) -> Table:
        """The rows as a table; its columns are always the same."""
        recipe = Recipe(
            method=self.recipe.method,
            network=self.recipe.network,
            weights=self.recipe.weights,
            options=self.recipe.options,
            versions=self.recipe.versions,
        )
        return Table(COLUMNS, tuple(map(self._cells, self.rows)), recipe, f"{self.method} · {self.network}")

    def _cells(self, row: Row) -> tuple[Cell, ...]:
        pairs: list[Cell] = []
        for index, value in zip(row.choices, row.values, strict=True):
            pairs += [self.classes[index], value]
        pairs += [None] * (6 - len(pairs))
        regions = "; ".join(",".join(f"{edge:g}" for edge in box) for box in row.regions)
        truth = None if row.truth is None else self.classes[row.truth]
        measured = (row.in_regions, row.in_boxes, row.centre_share, row.check, row.seconds)
        texts = (row.explained or None, regions or None)
        return (row.picture, row.file or None, truth, row.wrong, *pairs, *texts, *measured, row.error or None)

    def json(self, conditions: Sequence[Condition]) -> str:
        """Return everything as JSON (docs/predict.md)."""
        rows = [
            record | {"regions": [list(box) for box in row.regions]}
            for record, row in zip(self.table.records, self.rows, strict=True)
        ]
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "network": self.recipe.network.get("name", self.network),
            "weights": self.recipe.weights,
            "method": self.method,
            "head": {"kind": self.head.kind, "certain": self.head.certain, "numbers": self.head.word},
            "conditions": [
                {"condition": each.text, "value": each.value(self.table), "failed": each.holds(self.table)}
                for each in conditions
            ],
            "pictures": rows,
        }
        return json.dumps(document, indent=1, ensure_ascii=False)
