"""`Reproduction`: what came out of a paper's experiments, as a report, as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import outputs
from ..drawing.tables import Cell, Column, Table
from ..recipes import Recipe
from .claims import FAILS, HOLDS, OPEN, Claim, count
from .papers import Paper
from .registration import Experiment, Found

SCHEMA = "convscope.reproduction/1"
"""The name and number of what `json` holds: it counts up when a reader of an older one would go wrong."""


@dataclass(frozen=True)
class Looked:
    """A network that was looked at: its name, the hash of its weights, its note, and which pictures of where."""

    name: str
    weights: str
    note: str
    data: str
    pictures: int
    classes: int
    learnt: int = 0
    others: int = 0

    def __str__(self) -> str:
        classes = f" of {self.classes:,} classes" if self.classes else ""
        more = [f"{self.learnt:,} that it was trained on"] if self.learnt else []
        more += [f"{self.others:,} of other classes"] if self.others else []
        beside = f"; beside them {' and '.join(more)}" if more else ""
        note = f" {self.note[:1].upper()}{self.note[1:]}." if self.note else ""
        return f"`{self.name}`: {self.pictures:,} pictures{classes} ({self.data}){beside}.{note}"


@dataclass(frozen=True)
class Reproduction:
    """What came out of a paper's experiments: of every experiment, what was found on every network.

    `failures` says which pictures could not be read, `remarks` what else a reader must know.
    """

    paper: Paper
    networks: tuple[Looked, ...]
    results: tuple[tuple[Experiment, tuple[Found, ...]], ...]
    recipe: Recipe = Recipe()  # noqa: RUF009  it is frozen
    failures: tuple[str, ...] = ()
    quick: bool = False

    @property
    def claims(self) -> tuple[Claim, ...]:
        """All claims, in the order of the paper."""
        return tuple(claim for _, claims in self.judged() for claim in claims)

    def judged(self) -> Iterator[tuple[Experiment, list[Claim]]]:
        """Yield experiments with their claims: each statement on all networks, before the next one."""
        for experiment, founds in self.results:
            order = {each.name: number for number, each in enumerate(experiment.claims)}
            claims = [claim for found in founds for claim in found.claims]
            yield experiment, sorted(claims, key=lambda claim: order[claim.name])

    @property
    def headline(self) -> str:
        """How many claims hold, and how many do not, in one line."""
        found = count(self.claims)
        same = sum(each.untrained == HOLDS == each.verdict for each in self.claims)
        control = f" ({same} of them in an untrained copy too)" if same else ""
        names = ", ".join(each.name for each in self.networks)
        return (
            f"{self.paper.name} on {names}: {found[HOLDS]} claims hold{control}, {found[FAILS]} do not, "
            f"{found[OPEN]} cannot be judged here"
        )

    def json(self) -> str:
        """Return all verdicts as JSON (docs/reproduce.md)."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "paper": self.paper.name,
            "citation": self.paper.citation,
            "quick": self.quick,
            "seed": self.recipe.options.get("seed"),
            "networks": [vars(each) for each in self.networks],
            "remarks": list(self.recipe.remarks),
            "claims": [claim.record() for claim in self.claims],
        }
        return json.dumps(document, indent=1, ensure_ascii=False)

    def table(self) -> Table:
        """Return a row for each claim and network."""
        columns = (
            Column("figure"),
            Column("claim"),
            Column("network", unbroken=True),
            Column("verdict"),
            Column("ours"),
            Column("paper", head="the paper"),
        )
        rows: list[tuple[Cell, ...]] = [
            (each.figure, each.sentence, each.network, each.told, each.ours or each.reason, each.paper)
            for each in self.claims
        ]
        return Table(columns, tuple(rows), self.recipe, f"Verdicts: {self.paper.title}", note=f"{self.headline}.")

    def save(self, path: str | Path, *, paper: Literal["a4", "letter"] = "a4") -> Path:
        """Write the verdicts by the ending: a report (.html, .pdf), .json, or a table (.csv, .md ...).

        `paper` is that of a PDF. Raises OutputError for another ending, or a place that cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() == ".json":
            return outputs.write_text(path, self.json() + "\n")
        if path.suffix.lower() in outputs.REPORT_ENDINGS:
            from .page import write_report

            return write_report(self, path, paper)
        return self.table().save(path)

    def of(self, name: str) -> Sequence[Claim]:
        """Return the claims of a statement's name, one for each network. The order is that of the networks."""
        return [claim for claim in self.claims if claim.name == name]
