"""Clusters: which occluder positions are computed together.

All positions of one batch must have regions of the same size at every layer. Sizes differ with a position's phase
against the strides, and near borders. Along each axis positions with the same sizes form a cluster; clusters are
merged, giving each region the largest size among its own, as long as that saves more than it costs. A region that is
larger than it need be is still exact: it repeats what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

CALL = 3e6
"""What a call costs beside its work, in multiplications; measured roughly, and only ever a matter of speed."""


@dataclass(frozen=True)
class Axis:
    """The reach of every position along one axis: [low, high) in every layer, (layers, positions)."""

    order: dict[int, int]
    low: np.ndarray
    high: np.ndarray
    extents: np.ndarray

    @property
    def count(self) -> int:
        return self.low.shape[1]

    def sizes(self, members: np.ndarray) -> np.ndarray:
        """Return the largest region among some positions, per layer."""
        return np.maximum((self.high[:, members] - self.low[:, members]).max(1), 1)


@dataclass(frozen=True)
class Pair:
    """A cluster of rows with a cluster of columns: positions that are computed together."""

    axes: Sequence[Axis]
    members: tuple[np.ndarray, np.ndarray]
    sizes: list[np.ndarray] = field(init=False)
    offsets: list[np.ndarray] = field(init=False)
    lows: list[np.ndarray] = field(init=False)
    highs: list[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        both = list(zip(self.axes, self.members, strict=True))
        sizes = [axis.sizes(members) for axis, members in both]
        limits = [(axis.extents - size)[:, None] for (axis, _), size in zip(both, sizes, strict=True)]
        lows = [axis.low[:, members] for axis, members in both]
        for name, value in (
            ("sizes", sizes),
            ("lows", lows),
            ("highs", [axis.high[:, members] for axis, members in both]),
            ("offsets", [np.minimum(low, limit) for low, limit in zip(lows, limits, strict=True)]),
        ):
            object.__setattr__(self, name, value)

    def positions(self) -> np.ndarray:
        """Return all positions as (place among the rows, place among the columns)."""
        rows, columns = (np.arange(len(members)) for members in self.members)
        return np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)

    def numbers(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers of positions, counted row by row over the whole picture."""
        return self.members[0][positions[:, 0]] * self.axes[1].count + self.members[1][positions[:, 1]]

    def work(self, works: np.ndarray) -> float:
        """Return the multiplications that these positions take."""
        each = float((works * self.sizes[0] * self.sizes[1]).sum())
        return each * len(self.members[0]) * len(self.members[1])


def clustered(axes: Sequence[Axis], works: np.ndarray, calls: int) -> list[Pair]:
    """Divide all positions into clusters, weighing larger regions against more calls."""
    lines = [_Line.of(axis) for axis in axes]
    while True:
        merges = [
            line.best_merge(works * other.total, CALL * calls * len(other.counts))
            for line, other in zip(lines, lines[::-1], strict=True)
        ]
        gain, which = max((merge[0], which) for which, merge in enumerate(merges))
        if gain <= 0:
            break
        lines[which] = lines[which].merged(*merges[which][1:])
    return [Pair(axes, (rows, columns)) for rows in lines[0].members for columns in lines[1].members]


@dataclass(frozen=True)
class _Line:
    """The clusters along one axis: their members, how many, and their regions' sizes (clusters, layers)."""

    members: list[np.ndarray]
    counts: np.ndarray
    sizes: np.ndarray

    @staticmethod
    def of(axis: Axis) -> _Line:
        """Begin with one cluster for every combination of sizes."""
        sizes, inverse = np.unique(np.maximum(axis.high - axis.low, 1), axis=1, return_inverse=True)
        members = [np.flatnonzero(inverse.reshape(-1) == n) for n in range(sizes.shape[1])]
        return _Line(members, np.array([len(m) for m in members]), sizes.T.astype(float))

    @property
    def total(self) -> np.ndarray:
        """The regions' sizes summed over all positions, per layer."""
        return self.counts @ self.sizes

    def best_merge(self, weights: np.ndarray, saved: float) -> tuple[float, int, int]:
        """Return what the best merge of two clusters gains, and which; `weights` are the work per unit of size."""
        if len(self.counts) == 1:
            return -1.0, 0, 0
        alone = self.counts * (self.sizes @ weights)
        joined = np.maximum(self.sizes[:, None], self.sizes) @ weights * (self.counts[:, None] + self.counts)
        gains = saved - (joined - alone[:, None] - alone)
        np.fill_diagonal(gains, -np.inf)
        a, b = np.unravel_index(int(gains.argmax()), gains.shape)
        return float(gains[a, b]), int(a), int(b)

    def merged(self, a: int, b: int) -> _Line:
        """Return the clusters with two of them merged."""
        rest = [n for n in range(len(self.counts)) if n not in (a, b)]
        return _Line(
            [*(self.members[n] for n in rest), np.sort(np.concatenate([self.members[a], self.members[b]]))],
            np.append(self.counts[rest], self.counts[a] + self.counts[b]),
            np.vstack([self.sizes[rest], np.maximum(self.sizes[a], self.sizes[b])]),
        )
