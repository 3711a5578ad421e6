"""How well one map localises an object, by the boxes around it.

Zhang et al., "Top-down neural attention by excitation backprop" (arXiv:1608.00507, sec. 4.1), the pointing game: a hit
when the map's maximum lies in a box of the class, or nearer to one than a tolerance (15 pixels there, on pictures of
about 500; here 3% of the picture's longer side, strictly). Several maxima count as one at their centroid; a map that
is zero everywhere is a miss.

Selvaraju et al. (arXiv:1610.02391, sec. 4.1), box localisation: the box of the largest connected component (corners
connect) above a fraction of the maximum (15%); an error unless its intersection over union with a true box is at
least one half. The best fraction differs between methods, so the best of a sweep is given as well (Choe et al. 2020,
arXiv:2001.07437).

Wang et al. (arXiv:1910.01279, sec. 4.3), energy: the fraction of the map inside the boxes. For a map that is the same
everywhere it is the fraction of the picture that the boxes cover, so the quotient of the two, the lift, is what counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.boxes import Box
from ..errors import OptionError

SWEEP = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""The fractions of the maximum among which the best box is looked for."""

_TOLERANCE = 0.03
"""The default tolerance, as a fraction of the picture's longer side."""


@dataclass(frozen=True)
class Criteria:
    """How maps are scored.

    `tolerance` is in pixels of the original picture (None: 3% of its longer side), `threshold` a fraction of the map's
    maximum, `smooth` the standard deviation of the Gaussian blur as a fraction of the input's shorter side; `segment`
    adds the box of Simonyan et al.'s segmentation, which takes a graph cut per map.
    """

    tolerance: float | None = None
    threshold: float = 0.15
    smooth: float = 0.02
    segment: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise OptionError(
                f"threshold is a fraction of the map's maximum, above 0 and at most 1, not {self.threshold}"
            )
        if (self.tolerance is not None and self.tolerance < 0) or self.smooth < 0:
            raise OptionError(f"tolerance and smooth are at least 0, not {self.tolerance} and {self.smooth}")


@dataclass(frozen=True)
class BoxScores:
    """The scores of one map.

    `hit` is the pointing game's; `ious` holds the box's intersection over union by threshold; `energy` is the fraction
    of the map inside the boxes, `area` the fraction of the picture that they cover, `segment_iou` that of the segment's
    box.
    """

    hit: bool
    ious: Mapping[float, float]
    energy: float
    area: float
    segment_iou: float | None = None


def score_map(map_: np.ndarray, boxes: Sequence[Box], criteria: Criteria = Criteria()) -> BoxScores:
    """Score a map (h, w), never negative, NaN where the network saw nothing, by boxes in its own pixels."""
    visible = ~np.isnan(map_)
    values = np.where(visible, map_, 0.0).astype(np.float64)
    inside = _inside(map_.shape, boxes)
    area, peak = float(inside[visible].mean()), float(values.max())
    thresholds = sorted({*SWEEP, criteria.threshold})
    if peak <= 0:
        return BoxScores(False, dict.fromkeys(thresholds, 0.0), 0.0, area)
    components = {share: largest_component_box(values >= share * peak) for share in thresholds}
    ious = {share: max(iou(component, box) for box in boxes) for share, component in components.items()}
    tolerance = criteria.tolerance if criteria.tolerance is not None else _TOLERANCE * max(map_.shape)
    hit = _points_at(visible & (values == peak), boxes, tolerance)
    return BoxScores(hit, ious, float(values[inside].sum() / values.sum()), area)


def _inside(shape: tuple[int, ...], boxes: Sequence[Box]) -> np.ndarray:
    inside = np.zeros(shape, dtype=bool)
    for left, top, right, bottom in boxes:
        inside[max(math.floor(top), 0) : math.ceil(bottom), max(math.floor(left), 0) : math.ceil(right)] = True
    return inside


def _points_at(maxima: np.ndarray, boxes: Sequence[Box], tolerance: float) -> bool:
    """Whether the centroid of the maxima lies in a box, or nearer to one than the tolerance."""
    rows, columns = np.nonzero(maxima)
    point = (float(columns.mean()) + 0.5, float(rows.mean()) + 0.5)
    distances = [_distance(point, box) for box in boxes]
    return any(distance == 0 or distance < tolerance for distance in distances)


def _distance(point: tuple[float, float], box: Box) -> float:
    """The distance of a point from a box, 0 inside."""
    x, y = point
    return math.hypot(max(box[0] - x, 0, x - box[2]), max(box[1] - y, 0, y - box[3]))


def largest_component_box(mask: np.ndarray) -> Box:
    """Return the box (left, top, right, bottom) of the largest connected component of a mask, corners connecting.

    Of equally large components the first in reading order; an empty mask gives a box without extent.
    """
    from skimage.measure import label

    components = np.asarray(label(mask, connectivity=2))
    sizes = np.bincount(components.ravel())[1:]
    if not len(sizes):
        return (0.0, 0.0, 0.0, 0.0)
    rows, columns = np.nonzero(components == sizes.argmax() + 1)
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def iou(one: Box, other: Box) -> float:
    """Return the intersection of two boxes over their union, in [0, 1]."""
    width, height = (max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height) if areas > 0 else 0.0
