"""Fig. 5: what shifts, scale and rotation do to features and to the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ...drawing.study import Study
from ...studies.changing import changes
from ...studies.intervals import Interval, bootstrap
from ...studies.invariance import invariance as study_of
from ...studies.invariance_sheet import half
from ...studies.labelled import Labelled
from ..claims import Claim, Statement, above, below, every
from ..numbers import percent
from ..registration import Found, experiment
from ..subject import Subject

_FASTER = Statement(
    "first-layer-moves-faster",
    "Small shifts change features of the first layer much, those of the last layer little",
    rule="while pictures are shifted up and down, the first layer is half of its way from the picture's own features "
    "after a smaller share of the range than the last layer before the classes: the interval of the difference lies "
    "above 0.",
    paper="curves without a scale: a small change has a large effect in layer 1, and a lesser one in layer 7.",
)
_LINEAR = Statement(
    "last-layer-quasi-linear",
    "Features of the last layer move nearly in proportion to shift and scale",
    rule="under vertical shift and under scale, the last layer is half of its way after 35% to 65% of the range (a "
    "straight line: 50%), with its interval.",
    paper="the curves of layer 7 are called quasi-linear for translation and scale.",
)
_STABLE = Statement(
    "stable-but-for-rotation",
    "The answer withstands shift and scale, but not rotation",
    rule="the mean probability of the picture's class over all rotations is below that over all vertical shifts, and "
    "below that over all scales, with the intervals of both differences.",
    paper="curves without numbers; but for objects that look the same when they are turned.",
)

_LOW, _HIGH = 0.35, 0.65
_SHIFT, _SCALE, _ROTATION = 0, 2, 3


@experiment(
    "zeiler-fergus",
    40,
    "Fig. 5 (arXiv v3)",
    "Shifted, enlarged and rotated",
    did="five pictures were shifted up and down by up to 60 of 224 pixels, enlarged up to 1.8 times, and rotated by "
    "up to 350 degrees; it shows the Euclidean distance of features to those of the picture itself in layers 1 and 7, "
    "and the probability of the true class.",
    differs="the same ranges, as shares of the picture's side. The paper does not say what lies beyond a picture's "
    "border, here the mean colour, nor how distances are scaled, here by the norm of the picture's own features.",
    claims=(_FASTER, _LINEAR, _STABLE),
    work=3,
)
def invariance(subject: Subject) -> Found:
    """Measure how features and the answer change, and set the first layer against the last."""
    data = subject.some(60, 16)
    study = _study(subject, data)
    untrained = subject.untrained
    control = None if untrained is None else _study(subject, data.read_by(untrained), pooling=False, shift=0)
    size, seed, n = subject.net.size, subject.seed, len(data)
    other = None if control is None else _Curves(control.numbers(), size, seed)
    own = _Curves(study.numbers(), size, seed)
    later = own.later()
    claims = [
        _FASTER.judged(
            above(later),
            f"The first layer after {own.half(_SHIFT, 0).value:.0%} of the range, the last after "
            f"{own.half(_SHIFT, -1).value:.0%} (difference {percent(later)})"
            + ("" if other is None else f"; untrained, a difference of {percent(other.later())}")
            + ".",
            numbers={"difference": later},
            untrained=None if other is None else above(other.later()),
        ),
        _LINEAR.judged(
            own.linear,
            f"Half of the way after {percent(own.half(_SHIFT, -1))} of the shifts and "
            f"{percent(own.half(_SCALE, -1))} of the scales.",
            numbers={"shift": own.half(_SHIFT, -1), "scale": own.half(_SCALE, -1)},
            untrained=None if other is None else other.linear,
        ),
        _stable(own),
    ]
    did = f"{n} pictures, seed {subject.seed}, and a copy with random weights. {study.gist}"
    return Found(did, claims, figures=[study])


def _stable(own: _Curves) -> Claim:
    if own.said is None:
        return _STABLE.unjudged("the network's output is no probability")
    gaps = {name: own.gap(kind) for name, kind in (("shift", _SHIFT), ("scale", _SCALE))}
    means = own.said.mean((1, 2))
    return _STABLE.judged(
        every([below(gap) for gap in gaps.values()]),
        f"Mean probability {means[_ROTATION]:.2f} over rotations, {means[_SHIFT]:.2f} over shifts and "
        f"{means[_SCALE]:.2f} over scales (differences {gaps['shift']} and {gaps['scale']}).",
        numbers=gaps,
    )


def _study(subject: Subject, data: Labelled, **options: Any) -> Study:
    return study_of(data.net, data, limit=0, seed=subject.seed, keep=subject.keep, **options)


class _Curves:
    """Numbers of a study: distances (changes, layers, pictures, steps), and probabilities where there are any."""

    def __init__(self, numbers: Mapping[str, np.ndarray], size: tuple[int, int], seed: int) -> None:
        self.distances, self.seed = numbers["distances"].astype(float), seed
        self.said = numbers["probability"].astype(float) if "probability" in numbers else None
        self.kinds = changes(*size, {})
        self.n = self.distances.shape[2]

    def _half(self, kind: int, layer: int, rows: np.ndarray) -> float:
        return half(self.kinds[kind], self.distances[kind, layer, rows].mean(0))

    def _interval(self, statistic: Callable[[np.ndarray], float]) -> Interval:
        return bootstrap(statistic, self.n, seed=self.seed, draws=300)

    def half(self, kind: int, layer: int) -> Interval:
        """Return after which share of the range a layer is half of its way."""
        return self._interval(partial(self._half, kind, layer))

    def later(self) -> Interval:
        """Return by which share of the range the last layer is later than the first, under vertical shift."""

        def difference(rows: np.ndarray) -> float:
            return self._half(_SHIFT, -1, rows) - self._half(_SHIFT, 0, rows)

        return self._interval(difference)

    @property
    def linear(self) -> bool | None:
        """Whether the last layer is half of its way in the middle, under shift and under scale."""
        halves = [self.half(kind, -1) for kind in (_SHIFT, _SCALE)]
        return every([part for each in halves for part in (above(each, _LOW), below(each, _HIGH))])

    def gap(self, kind: int) -> Interval:
        """Return the mean probability over rotations less that over another change."""
        assert self.said is not None
        each = self.said[_ROTATION].mean(1) - self.said[kind].mean(1)
        return self._interval(lambda rows: float(each[rows].mean()))
