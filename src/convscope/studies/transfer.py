"""Transfer: what pretrained features are worth where there are few pictures of each class.

After Zeiler and Fergus (arXiv:1311.2901v3, Tables 4 to 6 and Fig. 9): the network's layers are kept as they are and a
new softmax classifier is fitted on top, against the same network trained from random weights on the same pictures, for
several numbers of pictures of each class. A copy with random weights whose layers are kept as well is the control: what
the architecture gives without any training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from ..checks.random_weights import randomised
from ..context import listen, say, track
from ..drawing import charts
from ..drawing.layout import Sheet, Tile
from ..drawing.study import Study
from ..drawing.tables import Cell, Column, Table
from ..errors import DataError, NetworkError, OptionError
from ..layers import before_classes, find_layer
from ..net import Net
from ..options import Range
from ..registry import view
from ..zoo.blueprints import Blueprint, blueprint_of
from .features import Reading, features_of
from .hits import Hits
from .intervals import repeated
from .keeping import Keep, kept
from .labelled import Labelled, Labels, PerClass, Seed
from .linear import Fitting, check_sklearn
from .probe import C, Test
from .splits import Split, checked, draws

Epochs = Annotated[int | None, "passes over the pictures; by default enough for 150 steps, 100 at most", Range(1)]
Repeats = Annotated[int, "number of times that pictures are drawn and networks trained anew", Range(1)]
Rate = Annotated[float | None, "peak of the learning rate; the recipe's by default", Range(0, open=True)]

_NUMBERS = (1, 5, 20)
"""Pictures of each class to learn from, where nobody says."""

_ALONE = "; with scratch=False (--no-scratch) the features are studied alone"

_MOST = 2**20
"""Features are not reduced, unless there are more of them."""

_CHART, _COLOUR = (560, 330), "#1f77b4"

PRETRAINED, SCRATCH, RANDOM = "pretrained", "from scratch", "random features"


@view("Transfer", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Tables 4 to 6, Fig. 9", kind="study", group="study")
def transfer(
    net: Net,
    data: Labelled,
    *,
    train: Annotated[
        list[int] | None, "numbers of pictures of each class to learn from; by default 1, 5 and 20, as far as they go"
    ] = None,
    test: Test = 50,
    repeats: Repeats = 3,
    layer: Annotated[
        str | None, "the layer whose features are kept; by default the last one before the classes"
    ] = None,
    scratch: Annotated[bool, "also train the same network from random weights"] = True,
    epochs: Epochs = None,
    rate: Rate = None,
    c: C = 1.0,
    labels: Labels = None,
    per_class: PerClass = 0,
    seed: Seed = 0,
    keep: Keep = None,
) -> Study:
    """Compare pretrained features with the same network trained from scratch, at few pictures of each class.

    Classes are the labels of the data; where the network has learnt to tell these very classes apart, that is said. The
    values are `pretrained`, `random_features`, `from_scratch` and `fitted` (numbers of pictures, repeats): means of the
    classes' accuracies, the last of the network from scratch on the pictures that it has learnt from. Raises DataError
    for fewer than two classes, or too few pictures of one.
    """  # fmt: skip
    check_sklearn()
    blueprint = blueprint_of(net, _ALONE) if scratch else None
    labelled = checked(data)
    numbers = _numbers(labelled, train)
    chosen = before_classes(net) if layer is None else find_layer(net, layer)
    study = _Transfer(labelled, numbers, Reading(chosen.name, chosen.shape, _MOST, chosen), test, repeats, seed)
    _say_if_known(labelled)
    results = {PRETRAINED: study.features(net, PRETRAINED, c, keep)}
    try:
        results[RANDOM] = study.features(randomised(net, seed=seed), RANDOM, c, keep)
    except NetworkError as error:
        say(f"no control with random weights: {error}")
    fitted: list[list[float]] = []
    if blueprint is not None:
        results[SCRATCH], fitted = study.scratch(blueprint, epochs, rate, keep)
    return _drawn(study, results, fitted)


def _numbers(data: Labelled, asked: Sequence[int] | None) -> list[int]:
    """Settle the numbers of pictures of each class. Raises DataError where a class has too few, OptionError."""
    if asked is not None and (not asked or min(asked) < 1):
        raise OptionError(f"train is numbers of pictures of each class, from 1 on, such as 1,5,20, not {asked}")
    if asked is not None:
        numbers = sorted({*asked})
        Split.of(data, numbers[-1], 1)
        return numbers
    smallest = min(count for count in data.counts.values() if count)
    Split.of(data, 1, 1)
    numbers = [number for number in _NUMBERS if 2 * number <= smallest] or [1]
    if len(numbers) < len(_NUMBERS):
        say(f"pictures of each class to learn from: at most {numbers[-1]}, because the smallest class has {smallest}")
    return numbers


def _say_if_known(data: Labelled) -> None:
    """Say where the network was trained to tell these very classes apart."""
    try:
        with listen():  # that labels are no classes of the network is the rule here
            known = data.net.classes and any(answer is not None for answer in data.answers)
    except DataError:  # some labels are classes of the network, others are none
        known = True
    if known:
        say(
            f"{data.net.name} has learnt classes that the data has: pretrained features have an advantage from that too"
        )


@dataclass(frozen=True)
class _Transfer:
    """What is compared: pictures, how many of each class are learnt from, and the layer that is kept."""

    data: Labelled
    numbers: Sequence[int]
    reading: Reading
    test: int
    repeats: int
    seed: int

    @property
    def targets(self) -> np.ndarray:
        return np.array(self.data.targets)

    def parts(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for every repeat the rows to learn from and those to test on: the same whatever the number."""
        targets = self.targets
        found: list[tuple[np.ndarray, np.ndarray]] = []
        for learn, test in draws(self.data, Split(self.numbers[-1], self.test), self.repeats, self.seed):
            first = [learn[targets[learn] == target][:number] for target in np.unique(targets)]
            found.append((np.concatenate(first), test))
        return found

    def features(self, net: Net, name: str, c: float, keep: Keep) -> list[Hits]:
        """Fit a softmax classifier to the features of a network, for every number of pictures."""

        def make() -> dict[str, Tensor]:
            (values,) = features_of(self.data.read_by(net), [self.reading], f"features, {name}")
            targets = self.targets
            hits = np.full((len(self.numbers), self.repeats, len(targets)), np.nan, np.float32)
            for i, number in enumerate(self.numbers):
                for j, (learn, test) in enumerate(self.parts(number)):
                    answers, converged = Fitting("softmax", c).answers(values[learn], targets[learn], values[test])
                    hits[i, j, test] = answers == targets[test]
                    if not converged:
                        say(f"a softmax classifier on {name} did not converge")
            return {"hits": torch.from_numpy(hits)}

        return [Hits(hits, self.targets) for hits in kept(keep, name, make)["hits"].numpy()]

    def scratch(
        self, blueprint: Blueprint, epochs: int | None, rate: float | None, keep: Keep
    ) -> tuple[list[Hits], list[list[float]]]:
        """Train the network anew for every number of pictures and repeat; also return accuracies on what is learnt."""
        from ..training.recipes import recipe  # with torchvision, which nothing else here needs
        from .training import Lesson, recipe_for

        targets, plain = self.targets, recipe(blueprint)
        steps = [(i, j) for i in range(len(self.numbers)) for j in range(self.repeats)]
        hits = np.full((len(self.numbers), self.repeats, len(targets)), np.nan, np.float32)
        fitted = np.empty((len(self.numbers), self.repeats))
        for i, j in track(steps, "trainings from scratch"):
            learn, test = self.parts(self.numbers[i])[j]
            lesson = Lesson(blueprint, recipe_for(plain, len(learn), epochs, rate), self.data, learn, self.seed + j)
            ranks = lesson.ranks(test, keep, f"scratch {self.numbers[i]} {j}")
            hits[i, j, test] = ranks[test] == 0
            fitted[i, j] = (ranks[learn] == 0).mean()
        return [Hits(each, targets) for each in hits], fitted.tolist()


_COLUMNS = (
    Column("train", "whole", "n per class"),
    Column("network", unbroken=True),
    Column("accuracy", "number", format=".1%"),
    Column("low", "number", "from", ".1%"),
    Column("high", "number", "to", ".1%"),
    Column("deviation", "number", "s.d.", ".1%"),
    Column("fitted", "number", "on its own", ".1%"),
    Column("margin", "number", "behind by", ".1%"),
    Column("margin_low", "number", "from", ".1%"),
    Column("margin_high", "number", "to", ".1%"),
)


def _drawn(study: _Transfer, results: dict[str, list[Hits]], fitted: list[list[float]]) -> Study:
    data, classes = study.data, len({*study.data.targets})
    values = {
        name.replace(" ", "_"): torch.tensor([each.accuracies for each in found]) for name, found in results.items()
    }
    values |= {"train": torch.tensor(study.numbers)} | ({"fitted": torch.tensor(fitted)} if fitted else {})
    rows: list[tuple[Cell, ...]] = []
    for i, number in enumerate(study.numbers):
        for name, found in results.items():
            sure, spread = found[i].interval(study.seed), repeated(found[i].accuracies)[1]
            more = results[PRETRAINED][i].interval(study.seed, less=found[i]) if name != PRETRAINED else None
            margin = (more.value, more.low, more.high) if more else (None, None, None)
            own = float(np.mean(fitted[i])) if name == SCRATCH else None
            rows.append((number, name, sure.value, sure.low, sure.high, spread, own, *margin))
    tested = len(study.parts(1)[0][1])
    title = f"Transfer of {data.net.name} to {classes} classes"
    subtitle = f"features of {study.reading.title} kept, a softmax fitted on top · chance {1 / classes:.1%}"
    note = (
        f"Mean of the accuracies of {classes} classes on {tested:,} pictures, over {study.repeats} "
        f"repeat{'s' * (study.repeats > 1)}."
    )
    meaning = (
        "From, to: 95% interval, a bootstrap over tested pictures; s.d.: of the repeats; on its own: on pictures that "
        "it learnt from; behind by: what pretrained features are better by."
    )
    table = Table(_COLUMNS, tuple(rows), title=title, subtitle=subtitle, note=f"{note} {meaning}")
    series = {name: [each.interval(study.seed).value for each in found] for name, found in results.items()}
    chart = charts.lines(study.numbers, series, ("pictures of each class to learn from", "mean accuracy"), _CHART)
    if len(study.numbers) == 1:
        shown = [charts.Bar(each[0], math.nan, _COLOUR) for each in series.values()]
        chart = charts.bars(list(series), {"mean accuracy": shown}, _CHART[0])
    sheet = Sheet(title, ((Tile(chart),),), subtitle, note)
    return Study(_gist(study, results), table, sheet, values)


def _gist(study: _Transfer, results: dict[str, list[Hits]]) -> str:
    """Say by how much pretrained features are better at the fewest and at the most pictures."""
    word = partial("{:.1%}".format)
    if SCRATCH not in results:
        each = zip(study.numbers, results[PRETRAINED], strict=True)
        found = [f"{word(hits.interval(0).value)} at {number}" for number, hits in each]
        pictures = f"picture{'s' * (study.numbers[-1] > 1)} of each class"
        return f"Pretrained features: {', '.join(found)} {pictures}."
    sentences: list[str] = []
    for i in dict.fromkeys((0, len(study.numbers) - 1)):
        ours, theirs = results[PRETRAINED][i], results[SCRATCH][i]
        more = ours.interval(study.seed, less=theirs)
        verdict = "better" if more.low > 0 else "worse" if more.high < 0 else "not clearly better or worse"
        pictures = f"{study.numbers[i]} picture{'s' * (study.numbers[i] > 1)} of each class"
        own, other = word(ours.interval(study.seed).value), word(theirs.interval(study.seed).value)
        sentences.append(f"With {pictures} pretrained features are {verdict}: {own}, from scratch {other}.")
    return " ".join(sentences)
