"""What a diagnosis says: findings, what was found in order, and what could not be looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..drawing.layout import Sheet

LEAST = 0.2
"""The severity of what is only just worth reporting."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a network, or with what it was given.

    `layer` is "" where it is about the network as a whole, `units` are numbers of its units. `severity` goes from 0.2,
    only just worth reporting, to 1. `n` is how many pictures (or weights) it was found on; `value` is what was
    measured, `measure` its name, and `interval` its 95% interval, None where it was not estimated but is known.
    `sentence` says it in plain words, `helps` what usually helps, `disproof` what would show that it is not so; where
    the last two are empty, the kind's own are taken. `evidence` draws it. `known` says that a baseline holds it.
    """

    kind: str
    layer: str
    units: tuple[int, ...]
    severity: float
    n: int
    sentence: str
    measure: str = ""
    value: float | None = None
    interval: tuple[float, float] | None = None
    helps: str = ""
    disproof: str = ""
    evidence: Callable[[], Sheet] | None = field(default=None, repr=False, compare=False)
    known: bool = False

    def record(self) -> dict[str, Any]:
        """Return the finding as JSON holds it."""
        return {
            "kind": self.kind,
            "layer": self.layer,
            "units": list(self.units),
            "severity": round(self.severity, 3),
            "n": self.n,
            "sentence": self.sentence,
            "measure": self.measure,
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "helps": self.helps,
            "disproof": self.disproof,
            "known": self.known,
        }


@dataclass(frozen=True)
class Healthy:
    """What was looked at and found in order: of which kind, on how many pictures, with the numbers in a sentence."""

    kind: str
    n: int
    sentence: str


@dataclass(frozen=True)
class Unseen:
    """What was not looked at, and why."""

    kind: str
    reason: str


Said = Finding | Healthy | Unseen
"""What a kind says."""


class Missing(Exception):  # noqa: N818  reads as what happened
    """Evidence that there is not, such as labels: what needs it is not looked at, for the reason that this says."""
