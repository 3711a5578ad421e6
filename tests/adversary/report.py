"""What was tried and how it ended: counted, kept in a file, printed as one table."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from . import pool
from .pool import FINE, Outcome

_BLOCK = 200
"""Cases after which counts are kept, so that a run that was ended goes on there."""


@dataclass(frozen=True)
class Part:
    """A part of the attacks: its cases, and what runs one."""

    name: str
    count: int
    short: int
    cases: Callable[..., Iterator[Any]]
    attempt: pool.Attempt
    prepare: Callable[[Sequence[str]], None] = lambda kinds: None
    batch: int = 50
    watched: bool = True


def parts() -> dict[str, Part]:
    """Return the parts in the order in which they run."""
    names = ("files", "commands", "environments", "explorer", "interruptions", "kills", "faults")
    found = (Path(__file__).with_name(f"{name}.py") for name in names)
    return {path.stem: import_module(f".{path.stem}", __package__).PART for path in found if path.exists()}


class Report:
    """Counts and faults, in a JSON file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        kept = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self.rows: dict[str, dict[str, Any]] = kept.get("rows", {})
        self.faults: dict[str, dict[str, Any]] = kept.get("faults", {})
        self.next: dict[str, int] = kept.get("next", {})

    def run(self, part: Part, given: Any) -> None:
        """Run a part from where it stopped, or one case of it."""
        only = [name for name in given.kinds.split(",") if name]
        part.prepare(only)
        count = given.count or (part.short if given.short else part.count)
        cases = part.cases(count, given.seed, only)
        key = f"{part.name} {given.kinds} {count} {given.seed}"
        if given.only is not None:
            cases = (
                case
                for case in part.cases(max(given.only + 1, part.count) * 40, given.seed, only)
                if case[2] == given.only
            )
        cases = islice(cases, self.next.get(key, 0) if given.only is None else 0, None)
        while block := list(islice(cases, _BLOCK)):
            began = time.monotonic()
            for outcome in pool.run(block, part.attempt, workers=given.workers, batch=part.batch, watched=part.watched):
                self.count(part.name, outcome, show=given.only is not None)
            self.rows[part.name]["minutes"] += (time.monotonic() - began) / 60
            if given.only is not None:
                return
            self.next[key] = self.next.get(key, 0) + len(block)
            self.save()
            print(f"{part.name}: {self.rows[part.name]['tried']} tried, {len(self.faults)} kinds of faults", flush=True)

    def count(self, part: str, outcome: Outcome, *, show: bool = False) -> None:
        """Count an outcome, for its part and its kind."""
        for name in (part, f"{part} {outcome.case[0]}"):
            new = {"tried": 0, "refused": 0, "worked": 0, "faults": {}, "slowest": 0.0, "largest": 0, "minutes": 0.0}
            row = self.rows.setdefault(name, new)
            row["tried"] += 1
            if outcome.ending in FINE:
                row[outcome.ending] += 1
            else:
                row["faults"][outcome.ending] = row["faults"].get(outcome.ending, 0) + 1
            row["slowest"] = max(row["slowest"], outcome.seconds)
            row["largest"] = max(row["largest"], outcome.memory)
        if show:
            print(outcome)
        if outcome.ending not in FINE:
            kind, seed, number = outcome.case
            again = f"python -m adversary {part} --kinds {kind} --seed {seed} --only {number}"
            new = {"count": 0, "words": outcome.words, "again": again}
            fault = self.faults.setdefault(_alike(part, outcome), new)
            fault["count"] += 1
            if fault["count"] == 1:
                print(f"FAULT {outcome.ending}: {outcome.words}\n  {again}", flush=True)

    def save(self) -> None:
        """Keep all counts."""
        whole = {"rows": self.rows, "faults": self.faults, "next": self.next}
        self.path.write_text(json.dumps(whole, indent=1), encoding="utf-8")

    def table(self) -> str:
        """Return the counts as a Markdown table, and the faults below it."""
        lines = [
            "| what | tried | refused in words | worked | faults | slowest, s | largest, MiB | minutes |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for name, row in self.rows.items():
            faults = ", ".join(f"{count} {ending}" for ending, count in row["faults"].items()) or "0"
            counts = " | ".join(f"{row[key]:,}" for key in ("tried", "refused", "worked"))
            lines.append(
                f"| {name} | {counts} | {faults} | {row['slowest']:.1f} | {row['largest']} | {row['minutes']:.1f} |"
            )
        lines += [f"\n{fault['count']} x {fault['words']}\n  {fault['again']}" for fault in self.faults.values()]
        return "\n".join(lines)


def _alike(part: str, outcome: Outcome) -> str:
    """Return what faults of one cause have in common: how they ended, and where."""
    where = outcome.words.rpartition(", in ")[2] if ", in " in outcome.words else ""
    first = re.sub(r"[\d'\"\[].*", "", re.sub(r"^['\"]?<?", "", outcome.words))[:50]
    return f"{part} {outcome.ending} {first} {where[:80]}"
