"""Constant units: those that give the same answer to every picture, and so say nothing of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..drawn import ranked
from ..evidence import Evidence
from ..finding import Finding, Healthy, Said, Unseen
from ..grading import counted, listed, percent, severity, share_interval
from ..observing import Answers
from ..registration import kind
from ..weights import zeroed

_SAME = 1e-3
"""A unit is constant where its extremes move less than this share of what they move in the layer's middle unit."""

_FEWEST = 100
"""Pictures below which a unit that seldom changes would pass for one that never does."""

_WORST = 0.5
_MEASURE = "share of the pictures to which it answers otherwise"
_MOVES = "how far its extremes move from picture to picture; 1 is the middle unit"


@kind(
    "constant",
    "Constant units",
    helps="As with dead units: normalisation, a lower learning rate. What a constant unit adds can be moved into the "
    "biases of the next layer, and the unit taken out, without any loss.",
    disproof="Two pictures of what the network is meant for to which one of the units answers differently.",
)
def constant(evidence: Evidence) -> Iterator[Said]:
    """Look for units whose largest and smallest answers are the same for all pictures, and which are not dead."""
    n = max((each.pictures for each in evidence.answers.values()), default=0)
    if n < _FEWEST:
        yield Unseen(
            "constant", f"{n} pictures are too few to say that an answer never changes: give {_FEWEST} or more"
        )
        return
    units = 0
    found, least = False, float("inf")
    for site in evidence.sites:
        answers = evidence.answers[site.name]
        moves = _moves(answers)
        alive = ~(answers.silent | zeroed(site))
        units += site.units
        still = (moves <= _SAME) & alive
        least = min(least, float(moves[alive].min())) if bool(alive.any()) else least
        if bool(still.any()):
            found = True
            yield _finding(answers, moves, still.nonzero().flatten().tolist())
    if not found:
        told = f"the answers of all {units:,} units change from picture to picture, those of the calmest by {least:.2g}"
        yield Healthy("constant", n, f"{told} times what is usual in its layer")


def _moves(answers: Answers) -> Tensor:
    """Return how far extremes move over pictures, of how far the layer's middle unit's do, (units,)."""
    spread = torch.maximum(answers.largest - answers.least_peak, answers.highest_floor - answers.smallest).double()
    middle = float(spread.median())
    return spread / middle if middle > 0 else spread.sign()


def _finding(answers: Answers, moves: Tensor, units: list[int]) -> Finding:
    site, n = answers.site, answers.pictures
    one, limit = len(units) == 1, share_interval(0, n)
    told = (
        f"{counted(len(units), site.units)} of {site.title} ({listed(units)}) {'gives' if one else 'give'} the same "
        f"answer to all of {n:,} pictures, and {'says' if one else 'say'} nothing of them; up to {percent(limit[1])} "
        "of others may get another"
    )
    return Finding(
        "constant",
        site.name,
        tuple(units),
        severity(len(units) / site.units, 0, _WORST),
        n,
        told,
        _MEASURE,
        0.0,
        limit,
        evidence=ranked(moves, units, _MOVES, site.title),
    )
