"""Conditions under which a diagnosis fails, as `--fail-on dead=0.2,overfit=0.5` states them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import OptionError, nearest
from .diagnosis import Diagnosis
from .finding import LEAST, Finding
from .registration import all_kinds

ANY = "any"
"""Stands for every kind."""

FORM = (
    "conditions are KIND=SEVERITY with commas between, as dead=0.2,overfit=0.5: the run fails by a finding of that "
    f"kind and severity, or above; KIND alone means {LEAST:g}, any finding of it, and {ANY} every kind"
)


@dataclass(frozen=True)
class Condition:
    """A kind of finding, or any, and the severity from which on the run fails by it."""

    kind: str
    severity: float

    def __str__(self) -> str:
        return f"{self.kind}={self.severity:g}"

    def findings(self, diagnosis: Diagnosis) -> list[Finding]:
        """Return the findings by which a diagnosis fails: those that no baseline holds."""
        return [
            each
            for each in diagnosis.findings
            if self.kind in (each.kind, ANY) and each.severity >= self.severity and not each.known
        ]

    def unseen(self, diagnosis: Diagnosis) -> str:
        """Return why nobody can say that the network is well in this, "" where it was looked at."""
        if any(each.kind == self.kind for each in (*diagnosis.healthy, *diagnosis.findings)):
            return ""
        return next((each.reason for each in diagnosis.unseen if each.kind == self.kind), "")

    def told(self, diagnosis: Diagnosis) -> str:
        """Say why the diagnosis fails by this condition; "" where it does not."""
        found = self.findings(diagnosis)
        if not found:
            reason = self.unseen(diagnosis)
            return f"{self}: {self.kind} was not looked at: {reason}" if reason else ""
        first = f"{found[0].layer}: {found[0].sentence}" if found[0].layer else found[0].sentence
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        return f"{self}: {found[0].kind} {found[0].severity:.2f}, {first}{more}"


def parse(text: str, kinds: Sequence[str] = ()) -> tuple[Condition, ...]:
    """Read conditions with commas between; `kinds` are those that are looked for, all by default.

    Raises OptionError, which says what there is.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise OptionError(f"--fail-on is empty: {FORM}")
    return tuple(_condition(part, kinds) for part in parts)


def _condition(text: str, kinds: Sequence[str]) -> Condition:
    name, equals, number = (part.strip() for part in text.partition("="))
    kind, known = name.lower().replace("_", "-"), [*all_kinds(), ANY]
    if kind not in known:
        raise OptionError(
            f"--fail-on has {name!r}, which is no kind of finding; nearest: {nearest(kind, known)}. {FORM}"
        )
    if kinds and kind != ANY and kind not in kinds:
        raise OptionError(
            f"--fail-on has {kind!r}, which --kinds {','.join(kinds)} does not look for: name it there, too"
        )
    try:
        severity = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1) if equals else LEAST
    except ValueError:
        severity = -1.0
    if not 0 <= severity <= 1:
        raise OptionError(f"--fail-on has {text!r}, and a severity goes from 0 to 1: {FORM}")
    return Condition(kind, severity)
