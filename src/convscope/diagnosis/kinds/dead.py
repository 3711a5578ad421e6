"""Dead units: those that answer no picture.

A unit that was silent on n pictures may still answer up to 3 of n (the rule of three). Its distance from the gate tells
whether it is dead or only seldom answers: with the strongest answers d of their deviations below the gate, no more than
exp(-d/2) of that share is to be expected. An exponential tail would give exp(-d); some are heavier.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import torch
from torch import Tensor

from ..drawn import ranked
from ..evidence import Evidence
from ..finding import Finding, Healthy, Said, Unseen
from ..grading import counted, listed, percent, severity, share_interval
from ..observing import Answers
from ..registration import kind
from ..sites import Site
from ..weights import zeroed

_ALIVE = 0.001
"""A unit that answers this share of the pictures, or more, is not dead."""

_FEWEST = 20
"""Pictures that tell how far a unit is from its gate."""

_WORST = 0.5
"""The share of a layer's units that, dead, is as bad as it can be."""

_MEASURE = "share of the pictures that a unit answers"


@kind(
    "dead",
    "Dead units",
    helps="A lower learning rate, or a warm-up, in training; normalisation before the rectifier, or a leaky one; a "
    "smaller weight decay on biases. In a trained network dead units can be taken out without any loss.",
    disproof="A picture of what the network is meant for that one of the units answers.",
)
def dead(evidence: Evidence) -> Iterator[Said]:
    """Look for units that let nothing through their gate on any picture, or whose weights are all zero."""
    looked = units = n = 0
    gone = unsure = 0
    above = torch.zeros(0, dtype=torch.bool)
    for site in evidence.sites:
        answers, empty = evidence.answers[site.name], zeroed(site)
        if site.gate.off == -inf and not bool(empty.any()):
            continue
        silent, expected = answers.silent & ~empty, _expected(answers)
        found = empty | (silent & (expected <= _ALIVE))
        looked, units, n = looked + 1, units + site.units, max(n, answers.pictures)
        gone, unsure = gone + int(found.sum()), unsure + int((silent & ~found).sum())
        if bool((new := found & ~above if _channel_by_channel(site, len(above)) else found).any()):
            yield _finding(answers, new, empty)
        above = found
    if not looked:
        yield Unseen("dead", "no unit of the network passes a rectifier that could shut it off")
        return
    alive = units - gone - unsure
    each = f"each of {units:,}" if alive == units else f"{alive:,} of {units:,}"
    if n >= _FEWEST:
        told = f"units in {looked} layers {'answers' if alive == units else 'answer'} at least one of {n:,} pictures"
        yield Healthy("dead", n, f"{each} {told}")
    if unsure or n < _FEWEST:
        yield Unseen("dead", _too_few(unsure, n))


def _too_few(unsure: int, n: int) -> str:
    be = "are" if n != 1 else "is"
    told = f"{n:,} picture{'s' * (n != 1)}"
    if unsure:
        told = f"{unsure:,} {'units answer' if unsure != 1 else 'unit answers'} none of {told}, which"
    room = percent(share_interval(0, n)[1])
    return (
        f"{told} {be} too few to tell a dead unit from one that seldom answers, up to {room} of all; give 3,000 or more"
    )


def _channel_by_channel(site: Site, inputs: int) -> bool:
    """Whether each unit reads one unit above: what is dead there has been said."""
    return getattr(site.layer.module, "groups", 1) == site.units == inputs


def _expected(answers: Answers) -> Tensor:
    """Return which share of all pictures each silent unit may be expected to answer, at most, (units,)."""
    limit = share_interval(0, answers.pictures)[1]
    if answers.pictures < _FEWEST:
        return answers.largest.double() * 0 + 1
    distance = answers.site.gate.off - answers.largest.double()
    return limit * (-distance.clamp(min=0) / (2 * answers.peak_deviation).clamp(min=1e-12)).exp()


def _finding(answers: Answers, found: Tensor, empty: Tensor) -> Finding:
    site, n = answers.site, answers.pictures
    units, count = found.nonzero().flatten().tolist(), int(found.sum())
    without = (found & empty).nonzero().flatten().tolist()
    one, limit = count == 1, share_interval(0, n)
    of = f"{counted(count, site.units)} of {site.title} ({listed(units)})"
    if len(without) == count:
        told = f"{of} {'has' if one else 'have'} no weight but 0: no picture can change what {'it' if one else 'they'} "
        told += "gives" if one else "give"
    else:
        told = f"{of} {'answers' if one else 'answer'} none of {n:,} pictures; "
        told += f"{'it' if one else 'each'} may still answer up to {percent(limit[1])} of all"
        told += f"; {listed(without)} {'has' if len(without) == 1 else 'have'} no weight but 0" if without else ""
    return Finding(
        "dead",
        site.name,
        tuple(units),
        severity(count / site.units, 0, _WORST),
        n,
        told,
        _MEASURE,
        0.0,
        (0.0, 0.0) if len(without) == count else limit,
        evidence=ranked(answers.active.double() / max(n, 1), units, _MEASURE, site.title),
    )
