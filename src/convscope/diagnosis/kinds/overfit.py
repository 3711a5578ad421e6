"""Overfitting: a network that knows the pictures that it was trained on, and others much less."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ...drawing.charts import lines
from ...drawing.layout import Sheet, Tile
from ...evaluation.prediction import Prediction
from ...studies.intervals import Interval, bootstrap
from ..evidence import Evidence
from ..finding import Finding, Healthy, Said, Unseen
from ..grading import percent, severity
from ..labelled import Sample, labelled
from ..registration import kind

LOST = 0.3
"""The share of the accuracy on training pictures that others surely lack, from which on it is reported."""

_WORST = 0.8
_FEWEST = 20
"""Pictures, of training and others, with fewer of which nothing is said."""

_SALIENT = 64
"""Pictures of each folder whose gradient is taken."""

_STRONGEST = 0.1
"""The share of pixels with the largest gradients, which hold more of it the more pointed it is."""


@kind(
    "overfit",
    "Overfitting",
    helps="More pictures, or more varied ones; augmentation, weight decay, dropout, label smoothing; fewer epochs, or "
    "the snapshot of an earlier one; a smaller network.",
    disproof="New pictures of the kind that the training pictures were: where the accuracy on those is as high, the "
    "data folder is of another kind, and the network not overfitted.",
)
def overfit(evidence: Evidence) -> Iterator[Said]:
    """Compare what the network says of training pictures with what it says of others, class by class alike."""
    learnt, held = _alike(evidence)
    if min(len(learnt), len(held)) < _FEWEST:
        yield Unseen(
            "overfit",
            f"{len(learnt)} training pictures and {len(held)} others of the same classes are too few: give at least "
            f"{_FEWEST} of each",
        )
        return
    right = _right(learnt), _right(held)
    lost = _between(right, lambda one, other: 1 - other / one if one else 0.0, evidence.seed)
    told = (
        f"{percent(float(right[0].mean()))} of {len(learnt):,} training pictures are right, and "
        f"{percent(float(right[1].mean()))} of {len(held):,} others"
    )
    shared = len(evidence.overlap)
    told += f" ({shared} that are in both folders left out)" if shared else ""
    if lost.low < LOST:
        yield Healthy("overfit", len(held), told)
        return
    sample = labelled(evidence, least=1, train=True), labelled(evidence, least=1)
    yield Finding(
        "overfit",
        "",
        (),
        severity(lost.value, LOST, _WORST),
        len(held),
        f"{told}: {percent(lost.value)} of what it learnt does not carry over{_also(evidence, learnt, held, *sample)}",
        "share of the accuracy on training pictures that others lack",
        lost.value,
        (lost.low, lost.high),
        evidence=_confidences(learnt, held),
    )


def _alike(evidence: Evidence) -> tuple[list[Prediction], list[Prediction]]:
    """Return predictions of training pictures and of others, of classes that both have, without shared pictures."""
    both = evidence.train.known, evidence.data.known
    shared = {*evidence.overlap}
    classes = {each.truth for each in both[0]} & {each.truth for each in both[1]}
    learnt = [each for each in both[0] if each.truth in classes]
    return learnt, [each for each in both[1] if each.truth in classes and each.where not in shared]


def _right(said: Sequence[Prediction]) -> np.ndarray:
    return np.array([each.rank == 0 for each in said], float)


def _between(both: tuple[np.ndarray, np.ndarray], compare: Callable[[float, float], float], seed: int) -> Interval:
    """Compare the means of numbers of training pictures and of others, with a bootstrap interval over pictures."""
    numbers = np.concatenate(both)
    first = np.repeat((True, False), (len(both[0]), len(both[1])))

    def statistic(rows: np.ndarray) -> float:
        return compare(float(numbers[rows][first[rows]].mean()), float(numbers[rows][~first[rows]].mean()))

    return bootstrap(statistic, len(numbers), groups=first, seed=seed)


# What else differs --------------------------------------------------------------------------------------------------


def _also(
    evidence: Evidence, learnt: Sequence[Prediction], held: Sequence[Prediction], train: Sample, others: Sample
) -> str:
    """Say how the confidence, the activations and the saliency differ, each with its interval."""
    sure = _between((_sure(learnt), _sure(held)), lambda one, other: one - other, evidence.seed)
    name, apart = _activations(evidence, train, others)
    layer = next(site.title for site in evidence.sites if site.name == name)
    pointed = _between(
        (_pointed(evidence, train), _pointed(evidence, others)), lambda one, other: one / other - 1, evidence.seed
    )
    units = f"{apart.value:.2f} standard deviations beyond chance [{apart.low:.2f} to {apart.high:.2f}]"
    return (
        f". On training pictures its confidence is {_signed(sure, ' points')} higher; mean activations differ most in "
        f"{layer}, by {units}; and the gradient of the strongest tenth of the pixels has {_signed(pointed, '%')} more "
        "of the whole"
    )


def _signed(gap: Interval, unit: str) -> str:
    return f"{100 * gap.value:.0f}{unit} [{100 * gap.low:.0f} to {100 * gap.high:.0f}]".replace("-", "−")


def _sure(said: Sequence[Prediction]) -> np.ndarray:
    return np.array([each.values[0] for each in said])


def _activations(evidence: Evidence, train: Sample, others: Sample) -> tuple[str, Interval]:
    """Return the layer whose units' means differ most between training pictures and others, and by how much.

    The root mean square over units of the difference, in standard deviations over pictures, less what chance gives.
    """
    both = [evidence.means(sample.pixels) for sample in (train, others)]
    first = np.repeat((True, False), (len(train), len(others)))

    def apart(numbers: np.ndarray, rows: np.ndarray, times: int = 1) -> float:
        one, other = numbers[rows][first[rows]], numbers[rows][~first[rows]]
        spread = (one.var(0, ddof=1) + other.var(0, ddof=1)) / 2
        alive = spread > 0
        squares = (one.mean(0) - other.mean(0))[alive] ** 2 / spread[alive]
        by_chance = times * (1 / len(one) + 1 / len(other))
        return float(np.sqrt(max(0.0, squares.mean() - by_chance))) if alive.any() else 0.0

    everything = np.arange(len(first))
    numbers = {name: np.concatenate([each[name].double().numpy() for each in both]) for name in both[0]}
    layer = max(numbers, key=lambda name: apart(numbers[name], everything))
    # What is drawn anew differs by chance once more.
    drawn = bootstrap(
        lambda rows: apart(numbers[layer], rows, 2), len(first), groups=first, seed=evidence.seed, draws=200
    )
    value = apart(numbers[layer], everything)
    return layer, Interval(value, min(drawn.low, value), max(drawn.high, value), drawn.n)


def _pointed(evidence: Evidence, sample: Sample) -> np.ndarray:
    """Return the share of each picture's gradient that the tenth of its pixels with the largest gradients holds."""
    chance = np.random.default_rng(evidence.seed).permutation(len(sample))[:_SALIENT]
    found: list[Tensor] = []
    for batch in evidence.batches(sample.pixels[torch.from_numpy(chance)]):
        pixels = batch.clone().requires_grad_()
        with torch.enable_grad():
            score = evidence.net(pixels).flatten(1).amax(1).sum()
            [gradient] = torch.autograd.grad(score, [pixels])
        strength = gradient.abs().amax(1).flatten(1).sort(1, descending=True).values
        strongest = strength[:, : max(1, round(_STRONGEST * strength.shape[1]))].sum(1)
        found.append((strongest / strength.sum(1).clamp(min=1e-30)).cpu())
    return torch.cat(found).double().numpy()


def _confidences(learnt: Sequence[Prediction], held: Sequence[Prediction]) -> Callable[[], Sheet]:
    """Draw how many pictures have at least which probability of their class."""
    shares = {name: _of_truth(said) for name, said in (("training", learnt), ("others", held))}

    def draw() -> Sheet:
        x = [at / 50 for at in range(51)]
        series = {name: [float((values >= at).mean()) for at in x] for name, values in shares.items()}
        axes = ("probability of the true class", "share of pictures with at least that")
        return Sheet("", ((Tile(lines(x, series, axes, (440, 220))),),))

    return draw


def _of_truth(said: Sequence[Prediction]) -> np.ndarray:
    return np.array([each.truth_value or 0.0 for each in said])
