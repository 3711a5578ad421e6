"""Saturated units: those that stand at an end of their gate nearly everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from ..drawn import ranked
from ..evidence import Evidence
from ..finding import Finding, Healthy, Said
from ..grading import counted, listed, percent, severity, share_interval
from ..observing import Answers
from ..registration import kind

_NEARLY = 0.95
"""A unit is saturated where this share of its answers is at an end of its gate."""

_WORST = 0.5
_MEASURE = "share of the answers at an end of the activation function"


@kind(
    "saturated",
    "Saturated units",
    helps="Normalisation before the activation function, smaller initial weights, or a function without an upper end.",
    disproof="Pictures of what the network is meant for on which the units' answers lie between both ends.",
)
def saturated(evidence: Evidence) -> Iterator[Said]:
    """Look for units whose answers are at an end of a sigmoid, or at the lid of a ReLU6, nearly everywhere."""
    looked = units = n = 0
    found, highest = False, 0.0
    for site in evidence.sites:
        if site.gate.full == inf:
            continue
        answers = evidence.answers[site.name]
        looked, units, n = looked + 1, units + site.units, max(n, answers.pictures)
        highest = max(highest, float(answers.full.max()))
        if float(answers.full.max()) >= _NEARLY:
            found = True
            yield _finding(answers)
    if not looked:
        yield Healthy(
            "saturated", 0, "no activation function of the network has an upper end, so that no unit can saturate"
        )
    elif not found:
        told = (
            f"none of {units:,} units in {looked} layers is at an end of its activation function in {percent(_NEARLY)}"
        )
        yield Healthy(
            "saturated", n, f"{told} of its answers to {n:,} pictures; the highest share is {percent(highest)}"
        )


def _finding(answers: Answers) -> Finding:
    site, n = answers.site, answers.pictures
    units = (answers.full >= _NEARLY).nonzero().flatten().tolist()
    least = float(answers.full[units].min())
    are = "is" if len(units) == 1 else "are"
    told = (
        f"{counted(len(units), site.units)} of {site.title} ({listed(units)}) {are} at an end of the {site.gate.name}, "
        f"where no gradient passes, in {percent(least)} or more of the answers to {n:,} pictures"
    )
    return Finding(
        "saturated",
        site.name,
        tuple(units),
        severity(len(units) / site.units, 0, _WORST),
        n,
        told,
        _MEASURE,
        least,
        share_interval(round(least * n), n),
        evidence=ranked(answers.full, units, _MEASURE, site.title),
    )
