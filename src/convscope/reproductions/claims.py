"""Claims: what a paper shows, the rule by which the shape of a result holds, and what the rule says here.

A rule is stated before anything is computed, and can fail. An interval that holds the bound leaves a claim open where
it is of few pictures; of many it means that the claim does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..studies.intervals import Interval

Verdict = Literal["holds", "does not hold", "cannot be judged here"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
OPEN: Verdict = "cannot be judged here"

ENOUGH = 20
"""Pictures from which on an interval that holds the bound means that a claim does not hold."""


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, judged on one network.

    `ours` are our numbers in words and `numbers` the same with intervals; `reason` says why nothing can be judged.
    `untrained` is what the same rule says of a copy with random weights, None where that is no control or there is
    none: a claim that holds there too is no sign of what was learnt. `figure` names the paper's figure or table.
    """

    name: str
    sentence: str
    rule: str
    paper: str
    verdict: Verdict
    ours: str = ""
    reason: str = ""
    untrained: Verdict | None = None
    numbers: Mapping[str, Interval] = field(default_factory=dict[str, Interval])
    network: str = ""
    figure: str = ""

    @property
    def told(self) -> str:
        """The verdict in words, with what the control says."""
        same = {HOLDS: "holds, and in an untrained copy too", FAILS: "does not hold, but in an untrained copy it does"}
        return same[self.verdict] if self.untrained == HOLDS and self.verdict in same else self.verdict

    def record(self) -> dict[str, Any]:
        """Return the claim as JSON holds it."""
        texts = {name: getattr(self, name) for name in _RECORDED}
        return texts | {"untrained": self.untrained, "numbers": {key: _plain(one) for key, one in self.numbers.items()}}


_RECORDED = ("figure", "name", "network", "verdict", "sentence", "rule", "paper", "ours", "reason")


def _plain(interval: Interval) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    return {
        "value": finite(interval.value),
        "low": finite(interval.low),
        "high": finite(interval.high),
        "n": interval.n,
    }


@dataclass(frozen=True)
class Statement:
    """What a paper shows, before it is judged: a name for files, a sentence, a rule, and the paper's numbers."""

    name: str
    sentence: str
    rule: str
    paper: str

    def judged(
        self,
        holds: bool | None,
        ours: str,
        *,
        numbers: Mapping[str, Interval] | None = None,
        untrained: bool | None = None,
        reason: str = "",
    ) -> Claim:
        """Return the claim; `holds` is None where the pictures are too few to tell, or for a reason that is given."""
        why = "" if holds is not None else reason or "too few pictures to tell"
        texts = (self.name, self.sentence, self.rule, self.paper)
        control = None if untrained is None else _verdict(untrained)
        return Claim(*texts, _verdict(holds), ours, why, control, numbers or {})

    def unjudged(self, reason: str, ours: str = "") -> Claim:
        """Return the claim as one that cannot be judged here."""
        return self.judged(None, ours, reason=reason)


def _verdict(holds: bool | None) -> Verdict:
    return OPEN if holds is None else HOLDS if holds else FAILS


def above(interval: Interval, bound: float = 0.0) -> bool | None:
    """Say whether a number is above a bound by its 95% interval; None where few pictures leave it open."""
    if math.isnan(interval.low) or math.isnan(interval.value):
        return None
    if interval.low > bound:
        return True
    return None if interval.high > bound and interval.n < ENOUGH else False


def below(interval: Interval, bound: float = 0.0) -> bool | None:
    """Say whether a number is below a bound by its 95% interval; None where few pictures leave it open."""
    return above(Interval(-interval.value, -interval.high, -interval.low, interval.n), -bound)


def every(parts: Sequence[bool | None]) -> bool | None:
    """Return whether all parts of a rule hold: False where one does not, else None where one is open."""
    return False if False in parts else None if None in parts or not parts else True


def count(claims: Sequence[Claim]) -> dict[Verdict, int]:
    """Return how many claims have each verdict."""
    return {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in (HOLDS, FAILS, OPEN)}
