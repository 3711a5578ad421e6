"""Fig. 6: the filters of the first layer, and what is wrong with them."""

from __future__ import annotations

from ...data.pictures import Pictures
from ...diagnosis.diagnosing import diagnose
from ...diagnosis.diagnosis import Diagnosis
from ...layers import default_convolutions, picture_layers
from ...views.filters import filters
from ..claims import Claim, Statement
from ..registration import Found, experiment
from ..subject import Subject

_ALIVE = Statement(
    "first-filters-healthy",
    "No filter of the first layer is dead or dominates the others",
    rule="`convscope diagnose` finds neither dead units nor outliers in the first convolution.",
    paper="without a limit on their size one filter dominates, and in Krizhevsky's first layer some are dead; with the "
    "limit (root mean square 0.1) and smaller filters more of them are distinct. Pictures alone.",
)
_FINE = Statement(
    "no-aliasing",
    "The first layer steps finely enough: no aliasing",
    rule="`convscope diagnose` finds no aliasing in the first convolution.",
    paper="11 × 11 filters at every fourth pixel leave aliasing in the second layer; 7 × 7 at every second one do not.",
)

_KINDS = {_ALIVE.name: ("dead", "outlier"), _FINE.name: ("aliasing",)}


@experiment(
    "zeiler-fergus",
    50,
    "Fig. 6",
    "The first filters",
    did="it compared filters of the first and projections of the second layer of Krizhevsky's network with its own: "
    "dead and dominating filters, a mix of very high and low frequencies with few between, and traces of the coarse "
    "steps. So it made the filters 7 × 7 instead of 11 × 11, and the steps 2 instead of 4.",
    differs="what the paper saw is looked for here by the measures of `convscope diagnose`, each with its threshold.",
    claims=(_ALIVE, _FINE),
    work=1,
)
def first_layer(subject: Subject) -> Found:
    """Draw the filters of the first layer, and ask the diagnosis about them."""
    data = subject.some(1000, 200)
    kinds = [kind for each in _KINDS.values() for kind in each]
    diagnosis = diagnose(subject.net, Pictures([list(data.pictures)]), kinds=kinds, seed=subject.seed)
    first = _first(subject)
    claims = [_claim(statement, diagnosis, first) for statement in (_ALIVE, _FINE)]
    did = f"The filters of {first[0]}, and the diagnosis of {len(data):,} pictures, seed {subject.seed}."
    return Found(did, claims, figures=[filters(subject.net)])


def _first(subject: Subject) -> list[str]:
    """Return the names of the first convolution and of what follows it up to the next, such as its rectifier."""
    first = default_convolutions(subject.net)[0].name
    leaves = [layer for layer in picture_layers(subject.net) if layer.leaf]
    names = [layer.name for layer in leaves]
    found = [first]
    for layer in leaves[names.index(first) + 1 :]:
        if layer.number is not None:
            break
        found.append(layer.name)
    return found


def _claim(statement: Statement, diagnosis: Diagnosis, first: list[str]) -> Claim:
    kinds = _KINDS[statement.name]
    unseen = [each.reason for each in diagnosis.unseen if each.kind in kinds]
    found = [each for each in diagnosis.findings if each.kind in kinds and each.layer in first]
    healthy = [each.sentence for each in diagnosis.healthy if each.kind in kinds]
    if unseen and not found:
        return statement.unjudged("; ".join(unseen))
    told = [each.sentence for each in found] or healthy or ["nothing was found"]
    return statement.judged(not found, " ".join(f"{each[:1].upper()}{each[1:]}." for each in told))
