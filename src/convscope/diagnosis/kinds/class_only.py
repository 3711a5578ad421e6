"""Units that one class alone uses: what they see may be a mark of the class's pictures rather than of its objects."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...evaluation.truth import outcomes
from ..drawn import bars_of
from ..evidence import Evidence
from ..finding import LEAST, Finding, Healthy, Missing, Said, Unseen
from ..grading import counted, listed, percent, share_interval
from ..observing import Answers
from ..registration import kind

_NEARLY = 0.8
"""The share of a unit's activity on one class from which on only this class uses it; each class counts alike."""

_FEWEST_CLASSES = 3
_FEWEST_OF_CLASS = 5
_FEWEST_ACTIVE = 10
_MEASURE = "share of a unit's activity on its class, every class counted alike"


@kind(
    "class-only",
    "Units that one class alone uses",
    helps="Look at the pictures that excite such a unit most (convscope scan, patches): in the last layers a good "
    "network has units for classes; in early ones they point to a mark that only this class's pictures have.",
    disproof="Pictures of other classes that excite the unit as much.",
)
def class_only(evidence: Evidence) -> Iterator[Said]:
    """Look for hidden units whose activity belongs to the pictures of one class."""
    if not evidence.data.counts:
        raise Missing("it needs to know which class each picture is of: a folder for each class, or --labels FILE.csv")
    networks = len(outcomes(evidence.net)) if evidence.data.labelled else 0
    if 2 * len(evidence.data.counts) < networks:
        there = len(evidence.data.counts)
        raise Missing(f"the pictures are of {there} of the network's {networks:,} classes: give some of half of them")
    counts = {name: count for name, count in evidence.data.counts.items() if count >= _FEWEST_OF_CLASS}
    if len(counts) < _FEWEST_CLASSES:
        there = len(evidence.data.counts)
        yield Unseen(
            "class-only",
            f"it needs {_FEWEST_OF_CLASS} pictures or more of each of {_FEWEST_CLASSES} classes, and of {there} "
            f"class{'es' * (there != 1)} there are {len(counts)} with as many",
        )
        return
    sites = [
        site for site in evidence.sites if not site.is_output and site.gate.off > -torch.inf and not site.gate.both
    ]
    found, most, where, units = False, 0.0, "", 0
    for number, site in enumerate(sites):
        answers = evidence.answers[site.name]
        classes, shares = _shares(answers, counts)
        enough = answers.active >= _FEWEST_ACTIVE
        units += site.units
        only = (shares >= _NEARLY) & enough
        if bool(only.any()):
            found = True
            depth = number / max(len(sites) - 1, 1)
            yield _finding(answers, only, classes, shares, 1 - depth, counts)
        elif bool(enough.any()) and float(shares[enough].max()) > most:
            most, where = float(shares[enough].max()), site.title
    if not found:
        told = f"none of {units:,} hidden units is used by one of {len(counts)} classes alone"
        more = f"; the highest share of one class is {percent(most)}, in {where}" if where else ""
        yield Healthy("class-only", sum(counts.values()), told + more)


def _shares(answers: Answers, counts: dict[str, int]) -> tuple[list[str], Tensor]:
    """Return each unit's class, and its share of the activity."""
    names = list(counts)
    means = torch.stack([answers.by_class[name] / counts[name] for name in names])
    return [names[best] for best in means.argmax(0).tolist()], means.amax(0) / means.sum(0).clamp(min=1e-20)


def _finding(
    answers: Answers,
    only: Tensor,
    classes: list[str],
    shares: Tensor,
    early: float,
    counts: dict[str, int],
) -> Finding:
    site, units = answers.site, only.nonzero().flatten().tolist()
    unit = units[int(shares[units].argmax())]
    active = int(answers.active[unit])
    of = {classes[each]: [other for other in units if classes[other] == classes[each]] for each in units}
    told = "; ".join(f"{name}: {listed(numbers)}" for name, numbers in list(of.items())[:3])
    told += "; ..." if len(of) > 3 else ""
    return Finding(
        "class-only",
        site.name,
        tuple(units),
        LEAST + (1 - LEAST) * early,
        active,
        f"{counted(len(units), site.units)} of {site.title}, each used by one class alone ({told}): of unit {unit}, "
        f"{percent(float(shares[unit]))} of the activity is on {classes[unit]}",
        _MEASURE,
        float(shares[unit]),
        share_interval(round(float(shares[unit]) * active), active),
        evidence=bars_of(
            {name: float(answers.by_class[name][unit] / counts[name]) for name in counts},
            f"what unit {unit} of {site.title} lets through on average",
        ),
    )
