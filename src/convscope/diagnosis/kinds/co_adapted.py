"""Co-adapted units: pairs that answer together, and of which one is of use only with the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ...errors import ConvscopeError
from ...incremental.changes import Changes
from ...objectives import Objective
from ...studies.coadaptation import Joint, correlated_pairs, correlations, joint_drops
from ...studies.intervals import Interval
from ...tracing import OUTPUT
from ..drawn import ranked
from ..evidence import Evidence
from ..finding import Finding, Healthy, Said
from ..grading import severity
from ..registration import kind
from ..sites import Site

TOGETHER = 0.5
"""The correlation from which on a pair is looked at."""

SYNERGY = 0.5
"""How much of what a pair's units do alone must surely be undone, or done again, by the other."""

USE = 0.05
"""By how much the log-probability must change, at least, without one of the two."""

_WORST = 1.5
_PAIRS = 8
"""Pairs of a layer that are looked at, those of the largest correlation."""

_PICTURES = 32
_MEMORY = 2**28


@dataclass(frozen=True, eq=False)
class _Certainty:
    """The log-probability of what the network says of each picture of a batch."""

    choices: Tensor

    def score(self, readings: dict[str, Tensor]) -> Tensor:
        """Return the log-probability of each picture's class; of one output, of its side of a half."""
        output = readings[OUTPUT].flatten(1)
        if output.shape[1] == 1:
            return torch.nn.functional.logsigmoid(torch.where(self.choices[:, None] > 0, output, -output))[:, 0]
        return output.log_softmax(1).gather(1, self.choices[:, None])[:, 0]

    def rows(self, rows: Sequence[int]) -> _Certainty:
        """Return the same of some pictures, in which one may occur several times."""
        return _Certainty(self.choices[torch.tensor(rows, device=self.choices.device)])


@kind(
    "co-adapted",
    "Co-adapted units",
    helps="Dropout on the layer, or batch normalisation, in training; weight decay; a narrower layer.",
    disproof="Pictures on which the network is as sure without either of the two units alone.",
)
def co_adapted(evidence: Evidence) -> Iterator[Said]:
    """Look for pairs of units that answer together, and whose single loss hurts more than that of both."""
    sites = [site for site in evidence.sites if not site.is_output]
    passed = evidence.passed(sites)
    _, pixels = evidence.sample()
    pixels = pixels[torch.linspace(0, len(pixels) - 1, min(_PICTURES, len(pixels))).long()].to(evidence.net.device)
    looked, found = 0, False
    for site in sites:
        together = correlations(passed.pop(site.name)).abs()
        pairs = correlated_pairs(together, _PAIRS, TOGETHER)
        if pairs and (joint := _without(evidence, site, pixels, pairs)) is not None:
            looked += len(pairs)
            finding = _finding(evidence, site, pairs, together, joint)
            found = found or finding is not None
            if finding is not None:
                yield finding
    if not found:
        yield Healthy(
            "co-adapted",
            len(pixels),
            f"of {looked} pairs of units whose answers have a correlation of {TOGETHER} or more, none is of use only "
            "together",
        )


def _without(evidence: Evidence, site: Site, pixels: Tensor, pairs: Sequence[tuple[int, int]]) -> Joint | None:
    """Return what the pictures' log-probabilities lose without one unit, and without both; None where nobody can."""
    try:
        batch = Changes(evidence.net, pixels, [site.read], [OUTPUT], _MEMORY).of(pixels)
        output = batch.readings[OUTPUT].flatten(1)
        choices = output.argmax(1) if output.shape[1] > 1 else (output[:, 0] > 0).long()
        return joint_drops(batch, cast(Objective, _Certainty(choices)), site.read.name, pairs)
    except ConvscopeError:
        return None


def _finding(
    evidence: Evidence, site: Site, pairs: Sequence[tuple[int, int]], together: Tensor, joint: Joint
) -> Finding | None:
    """Return what is to be said of a layer's pairs, the worst in words; None where none is co-adapted."""
    drops = [
        torch.stack([each[:, at].mean() for each in (joint.first, joint.second, joint.both)])
        for at in range(len(pairs))
    ]
    used = [at for at, each in enumerate(drops) if float(each[:2].abs().amin()) >= USE]
    synergies: dict[int, Interval] = {at: joint.synergy(at, seed=evidence.seed) for at in used}
    bad: list[int] = []
    for at in sorted(used, key=lambda at: -synergies[at].value):
        # What goes with one of a pair goes a little with the other, too.
        if synergies[at].low >= SYNERGY and not any({*pairs[at]} & {*pairs[worse]} for worse in bad):
            bad.append(at)
    if not bad:
        return None
    (a, b), synergy, lost = pairs[bad[0]], synergies[bad[0]], drops[bad[0]].tolist()
    units = tuple(sorted({unit for at in bad for unit in pairs[at]}))
    others = f" ({len(bad)} such pairs)" if len(bad) > 1 else ""
    return Finding(
        "co-adapted",
        site.name,
        units,
        severity(synergy.value, SYNERGY, _WORST),
        synergy.n,
        f"Units {a} and {b} of {site.title} answer together (correlation {float(together[a, b]):.2f}) and need one "
        f"another{others}: the log-probability of the answer falls by {lost[0]:.2f} and {lost[1]:.2f} without one of "
        f"them, and by {lost[2]:.2f} without both",
        "synergy of the pair",
        synergy.value,
        (synergy.low, synergy.high),
        evidence=ranked(together.fill_diagonal_(0).amax(1), units, "correlation with the most alike unit", site.title),
    )
