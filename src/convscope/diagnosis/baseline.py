"""Baselines: findings of an earlier diagnosis that are known, and so no reason to fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..context import say
from ..errors import DataError
from ..parsing import Document
from .diagnosis import SCHEMA, Diagnosis
from .finding import Finding

_WORSE = 0.05
"""By how much a known finding may be more severe than before: other pictures, or another machine, move it a little."""


@dataclass(frozen=True)
class Known:
    """A finding of a baseline."""

    kind: str
    layer: str
    units: list[int]
    severity: float

    def covers(self, finding: Finding) -> bool:
        """Whether a finding is this one: the same, or of fewer units, and not much more severe."""
        same = (self.kind, self.layer) == (finding.kind, finding.layer)
        return same and set(finding.units) <= set(self.units) and finding.severity <= self.severity + _WORSE


@dataclass(frozen=True)
class Baseline:
    """What a file of `convscope diagnose --json FILE` says: of which network, and what was found."""

    schema: str
    network: str
    findings: list[Known]


def read_baseline(path: str | Path) -> Baseline:
    """Read a baseline, which is what `--json FILE` writes. Raises DataError."""
    path = Path(path)
    if not path.exists():
        raise DataError(
            f"there is no baseline {path}: convscope diagnose with --json {path} writes one of what is found today"
        )
    baseline = Document.read(path, DataError).json(Baseline)
    if baseline.schema != SCHEMA:
        raise DataError(
            f"{path} is no baseline: its schema is {baseline.schema!r}, not {SCHEMA!r}; write it anew by --json"
        )
    return baseline


def accepted(diagnosis: Diagnosis, baseline: Baseline) -> Diagnosis:
    """Return a diagnosis in which the findings that the baseline holds are marked as known."""
    if baseline.network != diagnosis.network:
        say(f"the baseline is of {baseline.network}, and this is {diagnosis.network}")
    return replace(diagnosis, findings=tuple(_marked(each, baseline.findings) for each in diagnosis.findings))


def _marked(finding: Finding, known: Sequence[Known]) -> Finding:
    return replace(finding, known=any(each.covers(finding) for each in known))
