"""A diagnosis as a report: what was found, kind by kind with its evidence, what is in order, what was not looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .. import outputs
from ..drawing.charts import Bar, bars
from ..drawing.layout import Sheet, Tile
from ..reports.chapters import Chapter, Contents, Figure, Row, Said
from ..reports.reporting import write_contents
from .diagnosis import Diagnosis
from .finding import Finding
from .registration import all_kinds

_COLOUR = "#d62728"

_MANY, _FIRST = 4, 3
"""Findings of one kind that are all drawn, at most, and how many of more: the others are listed in a line each."""

_SCALE = (
    "Severity goes from 0.2, only just worth knowing, over 0.5, worth mending, to 1, as bad as it can be. It says how "
    "much is wrong, and the interval how sure that is. A finding is no proof: each says what would disprove it."
)


def write_report(diagnosis: Diagnosis, path: Path) -> Path:
    """Write a diagnosis as .html or .pdf. Raises OutputError where that cannot be written."""
    outputs.check_report(path)
    return write_contents(_contents(diagnosis), path)


def _contents(diagnosis: Diagnosis) -> Contents:
    lead = [f"{diagnosis.network}: {diagnosis.headline}.", _SCALE, *diagnosis.recipe.remarks]
    return Contents(f"Diagnosis of {diagnosis.network}", "\n\n".join(lead), list(_chapters(diagnosis)))


def _chapters(diagnosis: Diagnosis) -> Iterator[Chapter]:
    kinds = {name: diagnosis.of(name) for name in all_kinds()}
    shown = {name: found if len(found) <= _MANY else found[:_FIRST] for name, found in kinds.items()}
    if diagnosis.findings:
        cards = [
            (each.severity, _card(_named(each), each.severity, each.sentence))
            for found in shown.values()
            for each in found
        ]
        for name, found in kinds.items():
            if rest := found[len(shown[name]) :]:
                told = f"Less severe: {_units(rest)}, listed below"
                cards.append((rest[0].severity, _card(f"{name} · {len(rest)} more layers", rest[0].severity, told)))
        ordered = sorted(cards, key=lambda each: -each[0])
        yield Chapter("What was found", "The most severe first.", said=tuple(card for _, card in ordered))
    for name, kind in all_kinds().items():
        found = kinds[name]
        if found:
            shared = len({(each.helps, each.disproof) for each in found}) == 1
            rest = [
                f"`{each.layer}`, severity {each.severity:.2f}: {each.sentence}." for each in found[len(shown[name]) :]
            ]
            told = [_advice(found[0])] if shared else []
            told += [f"The {len(shown[name])} most severe are drawn; the others:", *rest] if rest else []
            yield Chapter(
                kind.title,
                "\n\n".join(told),
                figures=tuple(Figure(lambda each=each, shared=shared: _sheet(each, shared)) for each in shown[name]),
            )
    if diagnosis.healthy:
        yield Chapter("What is in order", "\n\n".join(f"`{each.kind}`: {each.sentence}." for each in diagnosis.healthy))
    if diagnosis.unseen:
        told = "\n\n".join(f"`{each.kind}`: {each.reason}." for each in diagnosis.unseen)
        yield Chapter("What was not looked at", told)
    if diagnosis.failures:
        told = "\n\n".join(f"{where}: {reason}" for where, reason in diagnosis.failures[:50])
        yield Chapter(f"{len(diagnosis.failures):,} pictures that could not be read", told)


def _card(name: str, severity: float, told: str) -> Said:
    return Said(None, name, (Row("severity", severity, f"{severity:.2f}"),), told)


def _units(findings: Sequence[Finding]) -> str:
    count = sum(len(each.units) for each in findings)
    return f"{count:,} unit{'s' * (count != 1)} of {len(findings)} layers"


def _named(finding: Finding) -> str:
    layer = f"layer {finding.layer}" if finding.layer.isdigit() else finding.layer
    name = " · ".join(filter(None, (finding.kind, layer)))
    return f"{name} (known)" if finding.known else name


def _advice(finding: Finding) -> str:
    return f"What usually helps: {finding.helps}\n\nWhat would disprove it: {finding.disproof}"


def _sheet(finding: Finding, shared: bool) -> Sheet:
    """Lay out a finding: its sentence, its numbers, and its evidence."""
    numbers = f"severity {finding.severity:.2f} · n = {finding.n:,}"
    if finding.measure and finding.value is not None:
        numbers += f" · {finding.measure}: {_interval(finding)}"
    sheet = finding.evidence() if finding.evidence is not None else _severity(finding)
    note = "\n".join(
        filter(None, (sheet.subtitle, sheet.note, "" if shared else _advice(finding).replace("\n\n", " ")))
    )
    sentence = finding.sentence[0].upper() + finding.sentence[1:]
    return replace(sheet, title=f"{_named(finding)}: {sentence}", subtitle=numbers, note=note)


def _interval(finding: Finding) -> str:
    value = f"{finding.value:.3g}"
    if finding.interval is None:
        return value
    low, high = finding.interval
    return f"{value} (95% interval {low:.3g} to {high:.3g})"


def _severity(finding: Finding) -> Sheet:
    """Draw the severity alone, where nothing else is drawn."""
    panel: dict[str, Sequence[Bar]] = {"severity": [Bar(finding.severity, float("nan"), _COLOUR)]}
    return Sheet("", ((Tile(bars([finding.layer or "network"], panel, 360)),),))
