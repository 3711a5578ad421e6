"""What services that run tests read: JUnit's XML, and lines that GitHub shows beside a commit."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import visible
from ..evaluation.junit import Case, document
from .conditions import Condition
from .diagnosis import Diagnosis
from .finding import Finding


def junit(diagnosis: Diagnosis, conditions: Sequence[Condition]) -> str:
    """Return a diagnosis as JUnit's XML: a test for each kind that was looked at, a failure where a condition says so.

    What was not looked at is skipped, but where a condition asks about it.
    """
    failing = failing_findings(diagnosis, conditions)
    unseen = {c.kind: reason for c in conditions if (reason := c.unseen(diagnosis))}
    cases: list[Case] = []
    for finding in diagnosis.findings:
        told = f"severity {finding.severity:.2f}: {finding.sentence}"
        name = f"{finding.kind} {finding.layer}".strip()
        cases.append(Case(finding.kind, name, told, "failure" if finding in failing else ""))
    cases += [Case(each.kind, each.kind, each.sentence) for each in diagnosis.healthy]
    for each in diagnosis.unseen:
        cases.append(Case(each.kind, each.kind, each.reason, "failure" if each.kind in unseen else "skipped"))
    return document(f"convscope diagnose {diagnosis.network}", cases)


def github(diagnosis: Diagnosis, conditions: Sequence[Condition]) -> list[str]:
    """Return a line for each finding, as GitHub's runners read them.

    An error where a condition says so, a notice where a baseline holds it, else a warning.
    """
    failing = failing_findings(diagnosis, conditions)
    lines = [_line(each, "error" if each in failing else "notice" if each.known else "warning")
             for each in diagnosis.findings]  # fmt: skip
    for condition in conditions:
        if reason := condition.unseen(diagnosis):
            lines.append(f"::error title={_property(condition.kind)}::{_message('not looked at: ' + reason)}")
    return lines


def failing_findings(diagnosis: Diagnosis, conditions: Sequence[Condition]) -> list[Finding]:
    """Return the findings by which a diagnosis fails."""
    return [each for condition in conditions for each in condition.findings(diagnosis)]


def _line(finding: Finding, level: str) -> str:
    title = f"{finding.kind} {finding.layer}".strip()
    return f"::{level} title={_property(title)}::{_message(f'severity {finding.severity:.2f}: {finding.sentence}')}"


def _message(text: str) -> str:
    return visible(text).replace("%", "%25")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
