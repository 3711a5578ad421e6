"""Linear probes: how well classes can be told from the features of every layer.

After Zeiler and Fergus (arXiv:1311.2901v3, Table 7): a linear softmax and a linear SVM on the features of layers, some
pictures of each class to learn from, up to 50 others to test on, the mean of the accuracies of the classes, over five
draws. The paper does not say how features are scaled or reduced; here each is standardised, and layers are averaged
over cells to about as many numbers each. A copy with random weights is the control: its depth alone tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ..checks.random_weights import randomised
from ..context import check_cancelled, say, track
from ..drawing import charts
from ..drawing.layout import Sheet, Tile, legend
from ..drawing.study import Study
from ..drawing.tables import Cell, Column, Table
from ..errors import NetworkError
from ..net import Net
from ..options import Range
from ..ranks import rank_correlation
from ..registry import view
from .features import Reading, features_of, readings
from .hits import Hits
from .intervals import repeated
from .keeping import Keep, kept
from .labelled import Labelled, Labels, PerClass, Seed
from .linear import KINDS, TITLES, Fitting, check_sklearn
from .splits import Split, checked, draws

Train = Annotated[
    int | None,
    "pictures of each class to learn from; by default 30, or two thirds of the smallest class",
    Range(1),
]
Test = Annotated[int, "at most so many others of each class to test on", Range(1)]
Folds = Annotated[int, "number of times that both are drawn anew", Range(1)]
C = Annotated[float, "inverse of the weight of the penalty on large weights", Range(0, open=True)]
Iterations = Annotated[int, "maximum steps of a fit", Range(1)]
Most = Annotated[int, "numbers to which a layer's features are reduced at most, where it has positions", Range(1)]


_CHART, _NAMES = (560, 330), 150


@dataclass(frozen=True)
class _Result(Hits):
    """What the fits to a layer classified correctly, and which of them converged."""

    converged: np.ndarray


_CLEARLY = 0.7
"""A rank correlation beyond which accuracy is said to rise or fall."""

_Results = Sequence[Sequence[_Result]]
"""A result for every layer and classifier."""


@view("Linear probes", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Table 7", kind="study", group="study")
def probe(
    net: Net,
    data: Labelled,
    *,
    layers: Annotated[
        list[str] | None,
        "layers to probe, ranges as first..last, and 'pixels'; by default pixels, what layers with weights read, and "
        "the output",
    ] = None,
    classifier: Annotated[Literal["both", "softmax", "svm"], "which linear classifiers are fitted"] = "both",
    train: Train = None,
    test: Test = 50,
    folds: Folds = 5,
    untrained: Annotated[bool, "also probe a copy with random weights, as a control"] = True,
    features: Most = 1024,
    c: C = 1.0,
    iterations: Iterations = 1000,
    labels: Labels = None,
    per_class: PerClass = 0,
    seed: Seed = 0,
    keep: Keep = None,
) -> Study:
    """Fit linear classifiers to the features of layers, to see where classes can be told apart.

    Classes are the labels of the data, whatever the network's own classes are. The values are `accuracy` and
    `untrained` (layers, classifiers, folds), means of the classes' accuracies, and `per_class` (layers, classifiers,
    classes) of the network itself. Raises DataError for fewer than two classes, or too few pictures of one.
    """
    check_sklearn()
    labelled = checked(data)
    split = Split.of(labelled, train, test)
    fittings = [Fitting(kind, c, iterations) for kind in KINDS if classifier in ("both", kind)]
    for fitting in fittings:
        fitting.check(split.train * len(labelled.classes))
    wanted = readings(net, layers, features)
    parts = draws(labelled, split, folds, seed)
    study = _Probe(labelled, wanted, fittings, parts)
    trained = study.over(labelled, "trained", keep)
    control = study.control(seed, keep) if untrained else None
    return _drawn(study, trained, control, split, seed)


@dataclass(frozen=True)
class _Probe:
    """What is probed: pictures, layers, classifiers, and which pictures are learnt from and tested on."""

    data: Labelled
    wanted: Sequence[Reading]
    fittings: Sequence[Fitting]
    parts: Sequence[tuple[np.ndarray, np.ndarray]]

    @property
    def targets(self) -> np.ndarray:
        return np.array(self.data.targets)

    def control(self, seed: int, keep: Keep) -> _Results | None:
        """Probe a copy with random weights, where the network can be copied."""
        try:
            twin = randomised(self.data.net, seed=seed)
        except NetworkError as error:
            say(f"no control with random weights: {error}")
            return None
        return self.over(self.data.read_by(twin), "untrained", keep)

    def over(self, data: Labelled, name: str, keep: Keep) -> _Results:
        """Probe every layer of a network by every classifier."""
        computed: list[np.ndarray] = []

        def made(number: int, fitting: Fitting) -> dict[str, Tensor]:
            if not computed:  # not where all is kept from an earlier run
                computed.extend(features_of(data, self.wanted, f"features, {name}"))
            return self._fitted(computed[number], fitting)

        found: list[list[_Result]] = []
        for number in track([*range(len(self.wanted))], f"probes, {name}"):
            parts = [
                kept(keep, f"{name} {number} {fitting.kind}", partial(made, number, fitting))
                for fitting in self.fittings
            ]
            found.append([_Result(part["hits"].numpy(), self.targets, part["converged"].numpy()) for part in parts])
        return found

    def _fitted(self, values: np.ndarray, fitting: Fitting) -> dict[str, Tensor]:
        targets = self.targets
        hits = np.full((len(self.parts), len(targets)), np.nan, np.float32)
        converged = np.ones(len(self.parts), bool)
        for fold, (learn, test) in enumerate(self.parts):
            check_cancelled()
            answers, converged[fold] = fitting.answers(values[learn], targets[learn], values[test])
            hits[fold, test] = answers == targets[test]
        return {"hits": torch.from_numpy(hits), "converged": torch.from_numpy(converged)}


_COLUMNS = (
    Column("layer", unbroken=True),
    Column("shape", "size"),
    Column("features", "whole"),
    Column("classifier", unbroken=True),
    Column("accuracy", "number", format=".1%"),
    Column("low", "number", "95% from", ".1%"),
    Column("high", "number", "to", ".1%"),
    Column("deviation", "number", "s.d. of folds", ".1%"),
    Column("untrained", "number", "random weights", ".1%"),
    Column("converged", unbroken=True),
)


def _drawn(study: _Probe, trained: _Results, control: _Results | None, split: Split, seed: int) -> Study:
    classes = {*study.data.targets}
    accuracy = np.array([[each.accuracies for each in row] for row in trained])
    values = {"accuracy": torch.from_numpy(accuracy)}
    values["per_class"] = torch.tensor([[each.per_class for each in row] for row in trained])
    if control is not None:
        random = np.array([[each.accuracies for each in row] for row in control])
        values["untrained"] = torch.from_numpy(random)
    rows: list[tuple[Cell, ...]] = []
    for i, (reading, results) in enumerate(zip(study.wanted, trained, strict=True)):
        for j, (fitting, result) in enumerate(zip(study.fittings, results, strict=True)):
            sure = result.interval(seed)
            mean, spread = repeated(accuracy[i, j].tolist())
            other = float(values["untrained"][i, j].mean()) if control is not None else None
            done, of = int(result.converged.sum()), len(result.converged)
            converged = "yes" if done == of else f"{done} of {of}"
            numbers = (mean.value, sure.low, sure.high, spread, other)
            rows.append((reading.title, reading.shape, reading.count, TITLES[fitting.kind], *numbers, converged))
    _say_what_failed(study, trained)
    note = _note(study, split, len(classes))
    gist = _gist(study, values)
    title = f"Linear probes of {study.data.net.name}"
    subtitle = f"{len(classes)} classes, {split.train} pictures of each to learn from · chance {1 / len(classes):.1%}"
    table = Table(_COLUMNS, tuple(rows), title=title, subtitle=subtitle, note=note)
    return Study(gist, table, Sheet(title, _tiles(study, values), subtitle, note), values)


def _say_what_failed(study: _Probe, trained: _Results) -> None:
    """Say which fits did not converge: their numbers are of where they stopped."""
    stopped = [
        f"{TITLES[fitting.kind]} on {reading.title}"
        for reading, results in zip(study.wanted, trained, strict=True)
        for fitting, result in zip(study.fittings, results, strict=True)
        if not result.converged.all()
    ]
    if stopped:
        shown = ", ".join(stopped[:3]) + (f", and {len(stopped) - 3} more" if len(stopped) > 3 else "")
        say(f"did not converge in {study.fittings[0].iterations:,} steps: {shown}; more iterations, or a smaller c, do")


def _note(study: _Probe, split: Split, classes: int) -> str:
    tested = sorted({len(test) for _, test in study.parts})
    reduced = [f"{reading.title} {reading.said}" for reading in study.wanted if reading.said]
    lines = [
        f"Mean of the accuracies of {classes} classes, over {len(study.parts)} draws of {split.train} pictures of each "
        f"class to learn from and {tested[-1]:,} others to test on. 95% interval: bootstrap over those.",
        f"Reduced: {', '.join(reduced)}." if reduced else "",
    ]
    return "\n".join(filter(None, lines))


def _gist(study: _Probe, values: dict[str, Tensor]) -> str:
    """Say whether accuracy rises with depth, and what of it the control has too."""
    mean = values["accuracy"].mean(2)
    titles = [reading.title for reading in study.wanted]
    sentences: list[str] = []
    for j, fitting in enumerate(study.fittings):
        best = int(mean[:, j].argmax())
        if len(titles) == 1:
            sentences.append(f"A {TITLES[fitting.kind]} on {titles[0]}: {float(mean[0, j]):.1%}.")
            continue
        rises = rank_correlation(torch.arange(len(titles)), mean[:, j])
        verb = "rises" if rises > _CLEARLY else "falls" if rises < -_CLEARLY else "neither rises nor falls clearly"
        sentences.append(
            f"Accuracy of a {TITLES[fitting.kind]} {verb} with depth (rank correlation {rises:.2f}): "
            f"{float(mean[0, j]):.1%} on {titles[0]}, {float(mean[-1, j]):.1%} on {titles[-1]}, best "
            f"{float(mean[best, j]):.1%} on {titles[best]}."
        )
    if "untrained" in values:
        sentences.append(f"With random weights at most {float(values['untrained'].mean(2).max()):.1%}.")
    return " ".join(sentences)


def _tiles(study: _Probe, values: dict[str, Tensor]) -> tuple[tuple[Tile, ...], ...]:
    places = [*range(1, len(study.wanted) + 1)]
    series = {TITLES[fit.kind]: values["accuracy"][:, j].mean(1).tolist() for j, fit in enumerate(study.fittings)}
    if "untrained" in values:
        series |= {
            f"{TITLES[fit.kind]}, random weights": values["untrained"][:, j].mean(1).tolist()
            for j, fit in enumerate(study.fittings)
        }
    chart = charts.lines(places, series, ("layer", "mean accuracy of the classes"), _CHART)
    named = zip(places, study.wanted, strict=True)
    names = [((255, 255, 255), f"{place}  {reading.title}") for place, reading in named]
    return ((Tile(chart), Tile(legend(names, (_NAMES, _CHART[1])))),)
