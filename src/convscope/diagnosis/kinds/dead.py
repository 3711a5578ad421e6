"""Dead units: those that answer no picture."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from torch import Tensor

from ..drawn import ranked
from ..evidence import Evidence
from ..finding import Finding, Healthy, Said, Unseen
from ..grading import counted, listed, percent, severity, share_interval
from ..observing import Answers
from ..registration import kind
from ..weights import zeroed

MOST_ALIVE = 0.05
"""A unit is called dead only where the pictures leave room for no more than this share that it might answer."""

_WORST = 0.5
"""The share of a layer's units that, dead, is as bad as it can be."""


@kind(
    "dead",
    "Dead units",
    helps="A lower learning rate, or a warm-up, in training; normalisation before the rectifier, or a leaky one; a "
    "smaller weight decay on biases. In a trained network dead units can be taken out without any loss.",
    disproof="A picture of what the network is meant for that one of the units answers.",
)
def dead(evidence: Evidence) -> Iterator[Said]:
    """Look for units that let nothing through their gate on any picture, or whose weights are all zero."""
    looked = units = most = 0
    found = False
    for site in evidence.sites:
        answers = evidence.answers[site.name]
        empty = zeroed(site)
        n, limit = answers.pictures, share_interval(0, answers.pictures)
        sure = n > 0 and limit[1] <= MOST_ALIVE
        gone = empty | answers.silent if sure else empty
        if site.gate.off > -inf or bool(empty.any()):
            looked, units, most = looked + 1, units + site.units, max(most, n)
        if bool(gone.any()):
            found = True
            yield _finding(answers, gone, empty, limit)
    few = share_interval(0, most)[1] if most else 1.0
    if not looked:
        yield Unseen(
            "dead", "no unit of the network passes a rectifier that could shut it off, and none has weights of 0"
        )
    elif few > MOST_ALIVE:
        yield Unseen(
            "dead",
            f"{most} pictures are too few: a unit that answers none of them may still answer {percent(few)} of all; "
            "give 100 or more",
        )
    elif not found:
        yield Healthy(
            "dead", most, f"each of {units:,} units in {looked} layers answers at least one of {most:,} pictures"
        )


def _finding(answers: Answers, gone: Tensor, empty: Tensor, limit: tuple[float, float]) -> Finding:
    site, n = answers.site, answers.pictures
    units, count = gone.nonzero().flatten().tolist(), int(gone.sum())
    of = f"{counted(count, site.units)} of {site.name} ({listed(units)})"
    if bool(empty[gone].all()):
        told = f"{of} {'has' if count == 1 else 'have'} no weight but 0: no picture can change what they give"
        told = told.replace("they give", "it gives") if count == 1 else told
        interval = (0.0, 0.0)
    else:
        told = (
            f"{of} {'answers' if count == 1 else 'answer'} none of {n:,} pictures; "
            f"{'it' if count == 1 else 'each'} may still answer up to {percent(limit[1])} of all"
        )
        interval = limit
    heights = answers.active.double() / max(n, 1)
    return Finding(
        "dead",
        site.name,
        tuple(units),
        severity(count / site.units, 0, _WORST),
        n,
        told,
        "share of the pictures that a unit answers",
        0.0,
        interval,
        evidence=ranked(heights, units, "share of the pictures that a unit answers", site.name),
    )
