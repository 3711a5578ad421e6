"""JUnit's XML, which every service that runs tests can show: a test for each condition and each picture."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import PurePath

from ..drawing.tables import Cell, Table
from ..errors import visible
from .conditions import Condition

_NAMED = 50
"""Pictures that the message of a condition about wrong ones names, at most."""


def junit(table: Table, conditions: Sequence[Condition], name: str) -> str:
    """Return a table of maps as JUnit's XML.

    A condition that failed is a failure, a picture that could not be read or explained an error.
    """
    rows = table.records
    failed = sum(condition.holds(table) for condition in conditions)
    errors = sum(row["error"] is not None for row in rows)
    count = len(rows) + len(conditions)
    seconds = sum(float(row["seconds"] or 0) for row in rows)  # type: ignore[arg-type]
    head = f'tests="{count}" failures="{failed}" errors="{errors}" time="{seconds:.3f}"'
    cases = [_condition(condition, table) for condition in conditions]
    cases += [_picture(row) for row in rows]
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites {head}>\n<testsuite name="{_text(name)}" {head}>\n'
        + "\n".join(cases)
        + "\n</testsuite>\n</testsuites>\n"
    )


def _condition(condition: Condition, table: Table) -> str:
    start = f'<testcase classname="conditions" name="not {_text(condition.text)}" time="0"'
    told = condition.told(table)
    if not condition.holds(table):
        return f"{start}><system-out>{_text(told)}</system-out></testcase>"
    wrong = [_wrong(row) for row in table.records if row["wrong"]] if condition.name == "wrong" else []
    more = [f"and {len(wrong) - _NAMED} more"] if len(wrong) > _NAMED else []
    body = "\n".join(map(_text, [told, *wrong[:_NAMED], *more]))
    return f'{start}><failure message="{_text(told)}">{body}</failure></testcase>'


def _wrong(row: dict[str, Cell]) -> str:
    return f"{row['picture']}: {row['class_1']}, is {row['truth']}"


def _picture(row: dict[str, Cell]) -> str:
    folder = PurePath(str(row["picture"])).parent.name or "pictures"
    start = (
        f'<testcase classname="{_text(folder)}" name="{_text(str(row["picture"]))}" time="{row["seconds"] or 0:.3f}"'
    )
    if row["error"] is not None:
        return f'{start}><error message="{_text(str(row["error"]))}"/></testcase>'
    said = f"{row['class_1']} {row['p_1']:.3f}" if isinstance(row["p_1"], float) else str(row["class_1"] or "")
    truth = f"; {'wrong' if row['wrong'] else 'right'}: is {row['truth']}" if row["truth"] is not None else ""
    return f"{start}><system-out>{_text(said + truth)}</system-out></testcase>"


def _text(text: str) -> str:
    """Return a text as XML may hold it: what XML has no way to write is written out as JSON does."""
    return html.escape(visible(text)).replace("\ufffe", "").replace("\uffff", "")
