"""`Diagnosis`: what was found, what is in order, and what could not be looked at; as JSON and as a table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import outputs
from ..drawing.tables import Column, Table
from ..recipes import Recipe
from .finding import Finding, Healthy, Unseen

SCHEMA = "convscope.diagnosis/1"
"""The name and number of what `json` holds: it counts up when a reader of an older one would go wrong."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a network: findings, the most severe first, what is in order, and what was not looked at.

    `network` and `data` name what was looked at (pictures in memory have no name), `pictures` counts what could be
    read; `failures` says why others could not be, by address.
    """

    network: str
    data: str
    pictures: int
    findings: tuple[Finding, ...]
    healthy: tuple[Healthy, ...]
    unseen: tuple[Unseen, ...]
    recipe: Recipe = Recipe()  # noqa: RUF009  it is frozen
    failures: tuple[tuple[str, str], ...] = ()

    def of(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of one kind."""
        return tuple(each for each in self.findings if each.kind == kind)

    def json(self) -> str:
        """Return everything as JSON (docs/diagnosis.md)."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "network": self.network,
            "weights": self.recipe.weights,
            "data": self.data,
            "pictures": self.pictures,
            "remarks": list(self.recipe.remarks),
            "findings": [each.record() for each in self.findings],
            "healthy": [vars(each) for each in self.healthy],
            "unseen": [vars(each) for each in self.unseen],
        }
        return json.dumps(document, indent=1, ensure_ascii=False)

    def save(self, path: str | Path) -> Path:
        """Write the diagnosis by the ending: .json, a report (.html, .pdf), or the findings as a table (.csv, .md ...).

        Raises OutputError for another ending, or a place that cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            return outputs.write_text(path, self.json() + "\n")
        if path.suffix.lower() in outputs.REPORT_ENDINGS:
            from .page import write_report

            return write_report(self, path)
        return self.table().save(path)

    def table(self) -> Table:
        """Return the findings as a table."""
        columns = (
            Column("kind", unbroken=True),
            Column("layer"),
            Column("units", "whole"),
            Column("severity", "number", format=".2f"),
            Column("n", "whole"),
            Column("sentence", head="what was found"),
            *((Column("known", "flag"),) if any(each.known for each in self.findings) else ()),
        )
        wide = len(columns)
        rows = tuple(
            (f.kind, f.layer, len(f.units), f.severity, f.n, f.sentence, f.known)[:wide] for f in self.findings
        )
        return Table(columns, rows, self.recipe, f"What was found in {self.network}", note=self.headline)

    @property
    def headline(self) -> str:
        """How much was found, and how much was not, in one line."""
        known = sum(each.known for each in self.findings)
        kinds = len({each.kind for each in self.findings})
        found = f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}"
        found += f" of {kinds} kind{'s' * (kinds != 1)}" if kinds > 1 else ""
        found += f", {known} of them known" if known else ""
        return (
            f"{found}; {len(self.healthy)} checks in order, {len(self.unseen)} not made; "
            f"{self.pictures:,} picture{'s' * (self.pictures != 1)}{f' of {self.data}' if self.data else ''}"
        )
