"""What a map shows, in numbers: its strongest regions as boxes, and the share of it that lies in places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.boxes import Box
from ..drawing.drawings import Heatmap

REGIONS = 3
"""How many regions are told, at most."""
_STRONG = 0.5
"""The fraction of the maximum from which on a map belongs to a region."""


def evidence(heatmap: Heatmap) -> np.ndarray:
    """Return what speaks for the objective (h, w), never negative: of a signed map its positive part."""
    values = heatmap.numbers()["map"].astype(np.float64)
    if heatmap.projects:
        return np.abs(values).sum(0)
    return values.sum(0).clip(min=0)


def strongest_regions(map_: np.ndarray) -> list[Box]:
    """Return boxes (left, top, right, bottom) around where a map (h, w) is at least half its maximum.

    Three connected regions at most (corners connect), that with the largest sum first, in pixels of the map.
    """
    from skimage.measure import label

    peak = float(map_.max(initial=0.0))
    if peak <= 0:
        return []
    components = np.asarray(label(map_ >= _STRONG * peak, connectivity=2))
    sums = np.bincount(components.ravel(), map_.ravel())[1:]
    # Stable, so that equal regions stand in reading order.
    strongest = np.argsort(-sums, kind="stable")[:REGIONS]
    places = [np.nonzero(components == number + 1) for number in strongest]
    return [
        (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
        for rows, columns in places
    ]


def share_inside(map_: np.ndarray, boxes: Sequence[Box]) -> float | None:
    """Return the share of a map (h, w), never negative, inside boxes in its own pixels; None where it is zero.

    A pixel that a box cuts counts for the part inside.
    """
    total = float(map_.sum())
    if total <= 0:
        return None
    inside = np.zeros(map_.shape)
    for left, top, right, bottom in boxes:
        rows, columns = _covered(top, bottom, map_.shape[0]), _covered(left, right, map_.shape[1])
        inside = np.maximum(inside, rows[:, None] * columns)
    return float((map_ * inside).sum()) / total


def _covered(start: float, end: float, count: int) -> np.ndarray:
    """Return how much of each of `count` pixels in a row lies between two places."""
    edges = np.arange(count)
    return (np.minimum(end, edges + 1) - np.maximum(start, edges)).clip(0, 1)


def centre_share(map_: np.ndarray) -> float | None:
    """Return the share of a map in the middle half of its height and width: 0.25 where it is the same everywhere."""
    height, width = map_.shape
    return share_inside(map_, [(width / 4, height / 4, width * 3 / 4, height * 3 / 4)])


def to_picture(box: Box, seen: Box, shape: tuple[int, ...]) -> Box:
    """Return a box in pixels of a map as one in pixels of the picture, whose part `seen` the map covers."""
    x, y = (seen[2] - seen[0]) / shape[1], (seen[3] - seen[1]) / shape[0]
    return (seen[0] + box[0] * x, seen[1] + box[1] * y, seen[0] + box[2] * x, seen[1] + box[3] * y)


def to_map(box: Box, seen: Box, shape: tuple[int, ...]) -> Box:
    """Return a box in pixels of a picture as one in pixels of the map that covers the part `seen`."""
    x, y = shape[1] / (seen[2] - seen[0]), shape[0] / (seen[3] - seen[1])
    return ((box[0] - seen[0]) * x, (box[1] - seen[1]) * y, (box[2] - seen[0]) * x, (box[3] - seen[1]) * y)
