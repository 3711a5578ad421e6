"""JUnit's XML, which every service that runs tests can show: a test for each condition and each picture."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

from ..drawing.tables import Cell, Table
from ..errors import visible
from .conditions import Condition

_NAMED = 50
"""Pictures that the message of a condition about wrong ones names, at most."""


@dataclass(frozen=True)
class Case:
    """One test: its class and name, what is said of it, and how it went.

    `outcome` is "" where it passed, "failure", "error" or "skipped"; `body` is what a failure says at length, in lines.
    """

    group: str
    name: str
    told: str
    outcome: Literal["", "failure", "error", "skipped"] = ""
    body: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def xml(self) -> str:
        """The test as XML."""
        inside = f"<system-out>{_text(self.told)}</system-out>"
        if self.outcome:
            body = "\n".join(map(_text, self.body))
            rest = f">{body}</{self.outcome}>" if body else "/>"
            inside = f'<{self.outcome} message="{_text(self.told)}"{rest}'
        start = f'<testcase classname="{_text(self.group)}" name="{_text(self.name)}" time="{self.seconds:.3f}">'
        return f"{start}{inside}</testcase>"


def document(name: str, cases: Sequence[Case]) -> str:
    """Return tests as one suite."""
    count = Counter(case.outcome for case in cases)
    skipped = f' skipped="{count["skipped"]}"' if count["skipped"] else ""
    head = (
        f'tests="{len(cases)}" failures="{count["failure"]}" errors="{count["error"]}"{skipped} '
        f'time="{sum(case.seconds for case in cases):.3f}"'
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites {head}>\n<testsuite name="{_text(name)}" {head}>\n'
        + "\n".join(case.xml for case in cases)
        + "\n</testsuite>\n</testsuites>\n"
    )


def junit(table: Table, conditions: Sequence[Condition], name: str) -> str:
    """Return a table of maps as JUnit's XML.

    A condition that failed is a failure, a picture that could not be read or explained an error.
    """
    return document(name, [*(_condition(each, table) for each in conditions), *map(_picture, table.records)])


def _condition(condition: Condition, table: Table) -> Case:
    name, told = f"not {condition.text}", condition.told(table)
    if not condition.holds(table):
        return Case("conditions", name, told)
    wrong = [_wrong(row) for row in table.records if row["wrong"]] if condition.name == "wrong" else []
    more = [f"and {len(wrong) - _NAMED} more"] if len(wrong) > _NAMED else []
    return Case("conditions", name, told, "failure", (told, *wrong[:_NAMED], *more))


def _wrong(row: dict[str, Cell]) -> str:
    return f"{row['picture']}: {row['class_1']}, is {row['truth']}"


def _picture(row: dict[str, Cell]) -> Case:
    where = str(row["picture"])
    case = Case(PurePath(where).parent.name or "pictures", where, "", seconds=float(row["seconds"] or 0))  # type: ignore[arg-type]
    if row["error"] is not None:
        return replace(case, told=str(row["error"]), outcome="error")
    said = f"{row['class_1']} {row['p_1']:.3f}" if isinstance(row["p_1"], float) else str(row["class_1"] or "")
    truth = f"; {'wrong' if row['wrong'] else 'right'}: is {row['truth']}" if row["truth"] is not None else ""
    return replace(case, told=said + truth)


def _text(text: str) -> str:
    """Return a text as XML may hold it: what XML has no way to write is written out as JSON does."""
    return html.escape(visible(text)).replace("\ufffe", "").replace("\uffff", "")
