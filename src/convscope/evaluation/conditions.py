"""Conditions on a table of maps, as `--fail-on "wrong>0.2, min(centre_share)<0.1"` states them."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..drawing.tables import Table
from ..errors import OptionError, nearest

SHARES = ("wrong", "errors")
"""What is a share of all pictures, rather than a column."""
COLUMNS = ("p_1", "in_regions", "in_boxes", "centre_share", "check", "seconds")
"""The columns of numbers that a condition may be about."""

FORM = (
    "conditions are NAME>NUMBER or NAME<NUMBER (also >=, <=, and percent as 20%), with commas between; NAME is wrong "
    f"or errors (shares of the pictures), or a column, {', '.join(COLUMNS)}: its mean, or min(...) or max(...) of it"
)
_ONE = re.compile(
    r"(?:(\w+)\s*\(\s*(\w+)\s*\)|(\w+))\s*(<=|>=|<|>)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*(%?)", re.IGNORECASE
)
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OVER: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: math.fsum(values) / len(values),
    "min": min,
    "max": max,
}


@dataclass(frozen=True)
class Condition:
    """A condition under which a run is said to have failed: `over` (mean, min, max) of `name` compares so."""

    text: str
    over: str
    name: str
    sign: str
    limit: float

    def value(self, table: Table) -> float | None:
        """Return the number that is compared; None where no picture has one."""
        rows = table.records
        if self.name == "errors":
            return sum(row["error"] is not None for row in rows) / len(rows) if rows else None
        values = [float(cell) for row in rows if isinstance(cell := row[self.name], (int, float))]
        return _OVER[self.over](values) if values else None

    def told(self, table: Table) -> str:
        """Return the condition with the number that it is about."""
        what = self.name if self.name in SHARES else f"{self.over} of {self.name}"
        value = self.value(table)
        return f"{self.text} ({what} is {'unknown' if value is None else format(value, '.4g')})"

    def holds(self, table: Table) -> bool:
        """Whether the run failed by it; of nothing nobody can say that it is well."""
        value = self.value(table)
        return value is None or _COMPARE[self.sign](value, self.limit)


def parse(text: str) -> tuple[Condition, ...]:
    """Read conditions with commas between. Raises OptionError, which says what there is."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise OptionError(f"--fail-on is empty: {FORM}")
    return tuple(_condition(part) for part in parts)


def _condition(text: str) -> Condition:
    match = _ONE.fullmatch(text)
    if match is None:
        raise OptionError(f"--fail-on has {text!r}: {FORM}")
    over, name = (match[1] or "mean").lower(), (match[2] or match[3]).lower()
    if name not in (*SHARES, *COLUMNS):
        near = nearest(name, (*SHARES, *COLUMNS))
        raise OptionError(f"--fail-on has {name!r}, which nothing measures; nearest: {near}. {FORM}")
    if over not in _OVER or (name in SHARES and match[1]):
        raise OptionError(f"--fail-on has {text!r}, and there are min, max and mean, of columns: {FORM}")
    try:
        limit = float(match[5]) / (100 if match[6] else 1)
    except ValueError:
        raise OptionError(f"--fail-on has {match[5]!r}, which is no number: {FORM}") from None
    return Condition(text, over, name, match[4], limit)


def check_known(conditions: Sequence[Condition], *, labelled: bool, boxed: bool, checked: bool) -> None:
    """Refuse conditions about what this run will not know. Raises OptionError."""
    known = {"wrong": labelled, "in_boxes": boxed, "check": checked}
    ways = {
        "wrong": "labels: class folders named as the network's classes are, or --labels FILE.csv",
        "in_boxes": "boxes: --boxes FILE",
        "check": "the randomisation check of every map: --check",
    }
    for condition in conditions:
        if not known.get(condition.name, True):
            raise OptionError(f"--fail-on {condition.text!r} needs {ways[condition.name]}")
