"""Fig. 2: the nine pictures that excite units most, and their projections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from ...atlas.atlas import Atlas
from ...atlas.patches import patches
from ...atlas.scanning import scan
from ...data.pictures import Pictures
from ...layers import default_convolutions
from ...ranks import rank_correlation
from ...studies.intervals import Interval, bootstrap
from ...studies.labelled import Labelled
from ..claims import Claim, Statement, above, every
from ..numbers import percent
from ..registration import Found, experiment
from ..subject import Subject

_ALIKE = Statement(
    "classes-with-depth",
    "The deeper a layer, the more the pictures that excite a unit are of one kind",
    rule="of the nine strongest pictures of a unit, the share that is of the most frequent class rises with depth: the "
    "interval of its mean in the last layer less that in the first lies above 0, and the rank correlation of depth and "
    "mean is 0.7 or above. The measure is ours.",
    paper="nine pictures each of a random subset of units of layers 2 to 5, over the validation pictures of ImageNet; "
    "pictures alone, and no number.",
)

_K, _UNITS, _SHOWN, _LEAST = 9, 64, 6, 90
_CLEARLY = 0.7


@experiment(
    "zeiler-fergus",
    20,
    "Fig. 2",
    "What excites units most",
    did="for a random subset of the units of layers 2 to 5, the nine validation pictures of ImageNet whose activation "
    "is largest, each projected down to the pixels by itself, beside the patches that the unit sees of them.",
    claims=(_ALIKE,),
    work=4,
)
def top_patches(subject: Subject) -> Found:
    """Scan for every unit's strongest pictures, draw some, and count their classes."""
    layers = [layer.name for layer in default_convolutions(subject.net, 5)]
    with subject.folder("atlas", subject.data, layers=layers) as place:
        atlas = _atlas(subject.data, place, layers, subject.seed)
        drawn = [patches(atlas, name, f"random:{_SHOWN}", k=_K) for name in _some(layers)]
        own = _shares(atlas, subject.data, layers, subject.seed)
    did = (
        f"Every unit of {', '.join(layers)} over {len(subject.data):,} pictures; the figures show {_SHOWN} units each, "
        f"drawn at random (seed {subject.seed})."
    )
    return Found(did, [_judged(subject, layers, own)], figures=drawn)


def _judged(subject: Subject, layers: Sequence[str], own: Sequence[np.ndarray]) -> Claim:
    data = subject.data
    if len({*data.targets} - {-1}) < 2:
        return _ALIKE.unjudged("the pictures have no labels of several classes")
    if len(data) < _LEAST:
        return _ALIKE.unjudged(f"of {len(data)} pictures nine are no choice: {_LEAST} or more are needed")
    if len(layers) < 3:
        return _ALIKE.unjudged(f"{subject.net.name} has {len(layers)} convolutions: too few for a trend")
    other = None
    if (untrained := subject.untrained) is not None:
        twin = data.read_by(untrained)
        with subject.folder("atlas", twin, layers=layers) as place:
            other = _shares(_atlas(twin, place, layers, subject.seed), twin, layers, subject.seed)
    means = [float(each.mean()) for each in own]
    more = _more(own, subject.seed)
    told = ", ".join(f"{mean:.0%} in {name}" for name, mean in zip(layers, means, strict=True))
    control = f"; untrained, {float(other[0].mean()):.0%} to {float(other[-1].mean()):.0%}" if other else ""
    return _ALIKE.judged(
        rises(own, subject.seed),
        f"Of nine pictures {told} (last less first: {percent(more)}, n = {more.n} units){control}.",
        numbers={"last less first": more},
        untrained=None if other is None else rises(other, subject.seed),
    )


def rises(shares: Sequence[np.ndarray], seed: int) -> bool | None:
    """Judge the shares (units,) of layers in order: whether they rise from the first to the last."""
    means = torch.tensor([float(each.mean()) for each in shares])
    trend = rank_correlation(torch.arange(len(means), dtype=torch.float64), means.double())
    return every([above(_more(shares, seed)), trend >= _CLEARLY])


def _more(shares: Sequence[np.ndarray], seed: int) -> Interval:
    """Return the mean of the last layer less that of the first, with a bootstrap over the units of both."""
    first, last = shares[0], shares[-1]
    both, groups = np.concatenate([first, last]), [0] * len(first) + [1] * len(last)
    of_last = np.array(groups) == 1

    def difference(rows: np.ndarray) -> float:
        return float(both[rows[of_last[rows]]].mean() - both[rows[~of_last[rows]]].mean())

    return bootstrap(difference, len(both), groups=groups, seed=seed)


def _atlas(data: Labelled, place: object, layers: Sequence[str], seed: int) -> Atlas:
    pictures = Pictures([list(data.pictures)])
    scan(data.net, pictures, str(place), layers=layers, k=_K, statistics="basic", sample=1, seed=seed)
    return Atlas(str(place), net=data.net)


def _some(layers: Sequence[str]) -> list[str]:
    """Return four layers at most, as in the paper: the first is drawn as filters."""
    return list(layers[1:] or layers)


def _shares(atlas: Atlas, data: Labelled, layers: Sequence[str], seed: int) -> list[np.ndarray]:
    """Return, for some units of each layer, the share of their strongest pictures of the most frequent class."""
    generator, found = np.random.default_rng(seed), list[np.ndarray]()
    for name in layers:
        units = generator.permutation(atlas.layers[name].units)[:_UNITS].tolist()
        tops = [[data.targets[each.picture] for each in atlas.top(name, unit, _K)] for unit in units]
        found.append(np.array([max(Counter(top).values()) / len(top) for top in tops if top]))
    return found
