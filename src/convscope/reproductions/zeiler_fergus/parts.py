"""Fig. 8 and Table 1: does the network know that one dog's eye corresponds to another's?"""

from __future__ import annotations

from ...drawing.study import Study
from ...errors import OptionError
from ...studies.correspondence import FACES, correspondence
from ...studies.correspondence_sheet import NULLS, Compared
from ...studies.intervals import Interval
from ...studies.parts import marked
from ..claims import Statement, below
from ..registration import Found, Unfit, experiment
from ..subject import Subject

_BETTER = Statement(
    "parts-correspond",
    "Covering the same part of several animals changes features more alike than covering random places",
    rule="at a convolution in the middle, all parts together differ less than random places do: the interval of the "
    "difference lies below 0.",
    paper="in layer 5, eyes and nose 0.067 ± 0.007, 0.069 ± 0.007 and 0.079 ± 0.017, random places 0.107 ± 0.017.",
)
_SHRINKS = Statement(
    "correspondence-shrinks",
    "At the top the difference from random places shrinks",
    rule="the difference of all parts from random places is smaller in the last layer before the classes than in the "
    "middle: its interval lies above the middle's.",
    paper="in layer 7, eyes and nose 0.069 ± 0.015, 0.068 ± 0.013 and 0.069 ± 0.011, random places 0.073 ± 0.014.",
)
_KNOWN = Statement(
    "parts-are-known",
    "It is the part that corresponds, and not the place",
    rule="at the middle, all parts together differ less than one random place that is the same in all pictures, whose "
    "changes fall on the same units whatever it shows: the interval of the difference lies below 0. This null is ours.",
    paper="it has no such null.",
)

_RANDOM, _SAME = -1, -2


@experiment(
    "zeiler-fergus",
    70,
    "Fig. 8 and Table 1 (arXiv v3)",
    "The same part in several pictures",
    did="in five pictures of dogs that face the camera the same part was covered, and the signs of what this changes "
    "of every feature compared between pictures, in layers 5 and 7: the mean share that differs, for right eye, left "
    "eye, nose and random places.",
    differs="cats and dogs of 64 × 64 pixels, moved and scaled so that their parts lie at the same places, and more of "
    "them; two nulls more, and a copy with random weights.",
    claims=(_BETTER, _SHRINKS, _KNOWN),
    work=2,
)
def parts(subject: Subject) -> Found:
    """Cover parts, and compare what that changes between pictures."""
    study = correspondence(
        subject.net, subject.source, boxes=_boxes(subject), seed=subject.seed, keep=subject.keep, limit=0
    )
    own = _compared(study, subject.seed)
    networks = range(len(own.networks))
    middle, top = 0, len(own.layers) - 1
    gaps = {(network, layer): _gap(own, network, layer, _RANDOM) for network in networks for layer in (middle, top)}
    same = [_gap(own, network, middle, _SAME) for network in networks]
    random = len(own.networks) > 1
    claims = [
        _BETTER.judged(
            below(gaps[0, middle]),
            f"In {own.layers[middle]} {_mean(own, 0, middle)}, random places {_mean(own, 0, middle, _RANDOM)} "
            f"(difference {gaps[0, middle]})"
            + (f"; untrained, a difference of {gaps[1, middle].value:.3f}" if random else "")
            + ".",
            numbers={"difference": gaps[0, middle]},
            untrained=below(gaps[1, middle]) if random else None,
        ),
        _SHRINKS.judged(
            shrinks(gaps[0, middle], gaps[0, top]) if top else None,
            f"In {own.layers[top]} {_mean(own, 0, top)}, random places {_mean(own, 0, top, _RANDOM)} (difference "
            f"{gaps[0, top]}).",
            numbers={"middle": gaps[0, middle], "top": gaps[0, top]},
            untrained=shrinks(gaps[1, middle], gaps[1, top]) if random and top else None,
            reason="" if top else "one layer alone can be read",
        ),
        _KNOWN.judged(
            below(same[0]),
            f"One place that is the same in all pictures {_mean(own, 0, middle, _SAME)} (difference {same[0]}).",
            numbers={"difference": same[0]},
            untrained=below(same[1]) if random else None,
        ),
    ]
    did = f"{own.pictures} pictures with marked parts, seed {subject.seed}. {study.gist}"
    return Found(did, claims, figures=[study])


def _boxes(subject: Subject) -> str:
    """Return the table of parts that marks pictures of the source. Raises Unfit where there is none."""
    if subject.parts is not None:
        return str(subject.parts)
    try:
        marked(FACES, list(subject.source))
    except OptionError:
        raise Unfit(
            "no parts are marked in these pictures: the table that ships marks eyes and noses in validation pictures "
            "of Tiny ImageNet; give one of yours, --parts FILE"
        ) from None
    return "faces"


def shrinks(middle: Interval, top: Interval) -> bool | None:
    """Judge whether a difference below 0 is smaller at the top: its interval lies above the middle's."""
    if middle.n < 2:
        return None
    return top.low > middle.high


def _compared(study: Study, seed: int) -> Compared:
    """Return the shares behind a study: rows are parts, all of them before the nulls."""
    values = study.values["differences"]
    records = study.table.records
    networks, layers = (tuple(dict.fromkeys(str(row[name]) for row in records)) for name in ("weights", "layer"))
    named = [str(row["part"]) for row in records if row["weights"] == networks[0] and row["layer"] == layers[0]]
    own = [name for name in named if name not in (*NULLS, "all parts")]
    return Compared(networks, (*own, *NULLS), layers, values, seed)


def _gap(compared: Compared, network: int, layer: int, null: int) -> Interval:
    return compared.mean(compared.parts(network, layer) - compared.of(network, null, layer))


def _mean(compared: Compared, network: int, layer: int, null: int | None = None) -> str:
    pairs = compared.parts(network, layer) if null is None else compared.of(network, null, layer)
    return f"{compared.mean(pairs).value:.3f}"
