"""Fig. 4: how units came about, and which layers settle first."""

from __future__ import annotations

import numpy as np
import torch

from ...atlas.evolution import evolution as drawn
from ...data.pictures import Pictures
from ...ranks import rank_correlation
from ...studies.evolution import evolution_study
from ...studies.intervals import Interval
from ..claims import ENOUGH, Statement, above, every
from ..numbers import minus, of_row
from ..registration import Found, experiment
from ..subject import Subject

_FIRST = Statement(
    "low-layers-first",
    "Low layers settle in a few epochs, high ones late",
    rule="similarity to the last snapshot, as a mean over the earlier ones, falls with depth: a rank correlation of "
    "−0.7 or below both by debiased CKA and by common neighbours; and at the first snapshot the lowest layer's "
    "interval of CKA lies above the highest layer's value.",
    paper="lower layers converge within a few epochs, upper ones need 40 to 50; pictures alone, at epochs 1, 2, 5, 10, "
    "20, 30, 40 and 64.",
)

_CLEARLY = -0.7


@experiment(
    "zeiler-fergus",
    30,
    "Fig. 4",
    "How units came about",
    did="for a random subset of units the strongest activation over all training pictures, projected down, at eight "
    "epochs from 1 to 64, the contrast of colours enhanced. It says that a sudden jump comes of another picture that "
    "has become the strongest.",
    differs="the paper shows pictures; here layers are compared with themselves at the end by two measures of "
    "similarity. The figure is over some pictures, not all that were learnt.",
    claims=(_FIRST,),
    work=3,
)
def evolution(subject: Subject) -> Found:
    """Compare every snapshot of the training with the last one, and draw units over it."""
    data = subject.some(200, 60)
    study = evolution_study(subject.net, data, limit=0, seed=subject.seed, keep=subject.keep)
    shown = subject.some(1000, 200, of=subject.learnt)
    with subject.folder("evolution", shown) as place:
        figure = drawn(subject.net, Pictures([list(shown.pictures)]), place)
    numbers = {name: study.values[name].numpy() for name in ("cka", "neighbours")}
    trends = {name: trend(values) for name, values in numbers.items()}
    rows = [row for row in study.table.records if row["snapshot"] == study.table.records[0]["snapshot"]]
    lowest, highest = (of_row(row, ("cka", "cka_low", "cka_high"), len(data)) for row in (rows[0], rows[-1]))
    claim = _FIRST.judged(
        settled_first(trends, lowest, highest),
        minus(
            f"Rank correlation of depth and similarity {trends['cka']:+.2f} by CKA and {trends['neighbours']:+.2f} by "
            f"neighbours; at {rows[0]['snapshot']} the CKA of {rows[0]['layer']} is {lowest}, that of "
            f"{rows[-1]['layer']} {highest.value:.2f}."
        ),
        numbers={"lowest": lowest, "highest": highest},
    )
    source = "that were learnt from" if subject.learnt is not None else "that were not learnt from"
    did = (
        f"{len(data)} pictures for the study, {len(shown):,} {source} for the figure, seed {subject.seed}. {study.gist}"
    )
    return Found(did, [claim], figures=[figure, study])


def trend(similarity: np.ndarray) -> float:
    """Return the rank correlation of depth and the mean similarity to the end, of (snapshots, layers)."""
    means = torch.from_numpy(similarity[:-1].mean(0)).double()
    return rank_correlation(torch.arange(len(means), dtype=torch.float64), means)


def settled_first(trends: dict[str, float], lowest: Interval, highest: Interval) -> bool | None:
    """Judge trends of two measures, and the first snapshot's CKA of the lowest layer against the highest's."""
    clearly = every([each <= _CLEARLY for each in trends.values()])
    return every([above(lowest, highest.value), None if lowest.n < ENOUGH and clearly else clearly])
