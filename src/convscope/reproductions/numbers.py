"""Numbers of studies' tables as intervals, and intervals in words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..drawing.tables import Cell
from ..studies.intervals import Interval


def of_row(row: Mapping[str, Cell], names: tuple[str, str, str], n: int) -> Interval:
    """Return a value of a table's row with its bounds, from the columns of three names; NaN where a cell is empty."""
    value, low, high = (math.nan if row[name] is None else float(str(row[name])) for name in names)
    return Interval(value, low, high, n)


def percent(interval: Interval) -> str:
    """Write an interval in whole percent."""
    within = "" if math.isnan(interval.low) else f" [{interval.low:.0%}, {interval.high:.0%}]"
    return minus(f"{interval.value:.0%}{within}")


def minus(text: str) -> str:
    """Write negative numbers with a minus sign, as tables do."""
    return "".join(
        "−" if sign == "-" and after.isdigit() else sign for sign, after in zip(text, [*text[1:], ""], strict=True)
    )
