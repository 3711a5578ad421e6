"""How sure, and how bad: intervals of shares, and severities."""

from __future__ import annotations

from collections.abc import Sequence

from ..studies.intervals import wilson
from .finding import LEAST


def share_interval(count: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of a share that was found `count` times in `n`, by Wilson's score.

    Where it was found never, or always, the other end is exact: 1 - 0.05^(1/n), about 3/n.
    """
    if n and count in (0, n):
        end = 1 - 0.05 ** (1 / n)
        return (0.0, end) if count == 0 else (1 - end, 1.0)
    found = wilson(count, n)
    return found.low, found.high


def severity(value: float, least: float, worst: float) -> float:
    """Return how severe a value is: 0.2 at `least`, where it is only just worth reporting, and 1 from `worst` on."""
    share = (value - least) / (worst - least)
    return LEAST + (1 - LEAST) * min(max(share, 0.0), 1.0)


def percent(share: float) -> str:
    """Write a share for a reader: "0.06%", "12%"."""
    return f"{100 * share:.1f}%" if 0.99 <= share < 1 else f"{100 * share:.2g}%" if share < 0.99 else "100%"


def counted(units: int, of: int) -> str:
    """Write how many units of a layer: "1 of 192 units"."""
    return f"{units:,} of {of:,} unit{'s' * (of != 1)}"


def listed(units: Sequence[int], most: int = 4) -> str:
    """Write numbers of units, the first ones of many: "3, 17 and 5 more"."""
    shown = ", ".join(map(str, units[:most]))
    return f"{shown} and {len(units) - most:,} more" if len(units) > most else shown
