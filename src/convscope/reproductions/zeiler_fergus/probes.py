"""Table 7: how well classes can be told apart by the features of each layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...drawing.study import Study
from ...layers import before_classes
from ...net import Net
from ...ranks import rank_correlation
from ...studies.features import readings
from ...studies.intervals import Interval
from ...studies.probe import probe
from ...tracing import OUTPUT, PIXELS
from ..claims import Statement, above, every
from ..numbers import of_row
from ..registration import Found, experiment
from ..sampling import of_classes
from ..subject import Subject

_RISES = Statement(
    "accuracy-rises-with-depth",
    "Features tell classes apart the better, the deeper the layer",
    rule="by a linear softmax, the rank correlation of depth and accuracy, from the first layer to the last before the "
    "classes, is 0.7 or above, and the last layer's interval lies above the first layer's value.",
    paper="a linear SVM on layers 1, 2, 3, 4, 5 and 7 with 30 pictures of each class of Caltech-101: 44.8%, 66.2%, "
    "72.3%, 76.6%, 86.2% and 85.5%; with 60 of Caltech-256: 24.6%, 39.6%, 46.0%, 51.3%, 65.6% and 71.7%.",
)

_CLEARLY, _MOST = 0.7, 7


@experiment(
    "zeiler-fergus",
    110,
    "Table 7",
    "Layer by layer",
    did="for each number of layers kept, a linear SVM or a softmax was trained on what they give, on Caltech-101 (30 "
    "pictures of each class) and Caltech-256 (60).",
    differs="the classes of these pictures, which may be those that the network was taught; fewer pictures; layers "
    "reduced to about 1,000 numbers each, so that a larger one has no advantage.",
    claims=(_RISES,),
    work=4,
)
def probes(subject: Subject) -> Found:
    """Fit linear classifiers to the features of layers, and of the same layers with random weights."""
    labelled = subject.labelled()
    classes, train, test = subject.number(50, 20, 5), subject.number(20, 12, 5), subject.number(20, 12, 5)
    data = of_classes(labelled, classes, train + test, subject.seed)
    counts = [count for count in data.counts.values() if count]
    train = min(train, max(1, min(counts) * 3 // 5))
    layers = _layers(subject.net)
    folds = 1 if subject.quick else 3
    study = probe(
        subject.net,
        data,
        layers=["pixels", *layers],
        train=train,
        test=test,
        folds=folds,
        seed=subject.seed,
        keep=subject.keep,
    )
    own = _softmax(study, len(counts) * min(test, min(counts) - train))[1:]
    values = {
        name: study.values[name][1:, 0].mean(1).numpy() for name in ("accuracy", "untrained") if name in study.values
    }
    control = values.get("untrained")
    told = ", ".join(f"{each.value:.1%} ({name})" for name, each in zip(layers, own, strict=True))
    claim = _RISES.judged(
        rises([each.value for each in own], own[-1]),
        f"Softmax: {told}; last [{own[-1].low:.1%}, {own[-1].high:.1%}]"
        + ("" if control is None else f"; untrained, {control[0]:.1%} to {control[-1]:.1%}")
        + ".",
        numbers={"first": own[0], "last": own[-1]},
        untrained=None if control is None else rises(control, _exactly(float(control[-1]), own[-1].n)),
    )
    did = (
        f"{len(counts)} classes, {train} pictures of each to learn from and at most {test} to test on, {folds} "
        f"draw{'s' * (folds > 1)}, seed {subject.seed}. {study.gist}"
    )
    return Found(did, [claim], figures=[study], tables=[study.readable])


def rises(accuracies: Sequence[float] | np.ndarray, last: Interval) -> bool | None:
    """Judge accuracies of layers in order, the last with its interval."""
    values = torch.tensor([float(each) for each in accuracies], dtype=torch.float64)
    if len(values) < 3:
        return None
    trend = rank_correlation(torch.arange(len(values), dtype=torch.float64), values)
    return every([trend >= _CLEARLY, above(last, float(values[0]))])


def _layers(net: Net) -> list[str]:
    """Return what layers with weights read, from the first layer to the last before the classes, seven at most."""
    last = before_classes(net).name
    names = [each.name for each in readings(net, None, 1) if each.name not in (PIXELS, OUTPUT, last)]
    if names and names[-1] not in net.layers:
        names = names[:-1]
    found = [*names, last]
    if len(found) <= _MOST:
        return found
    return [found[round(at * (len(found) - 1) / (_MOST - 1))] for at in range(_MOST)]


def _softmax(study: Study, tested: int) -> list[Interval]:
    rows = [row for row in study.table.records if row["classifier"] == "softmax"]
    return [of_row(row, ("accuracy", "low", "high"), tested) for row in rows]


def _exactly(value: float, n: int) -> Interval:
    return Interval(value, value, value, n)
