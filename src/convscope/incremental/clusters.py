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
"""Overhead of a call, in multiplications. A rough measurement: it affects speed only."""


@dataclass(frozen=True)
class AxisReach:
    """What every position can reach along one axis: [low, high) in every layer, (layers, positions)."""

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
class Cluster:
    """Positions that are computed together: some rows of them, crossed with some columns."""

    axes: Sequence[AxisReach]
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
        """Return all positions as (index among the cluster's rows, index among its columns)."""
        rows, columns = (np.arange(len(members)) for members in self.members)
        return np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)

    def numbers(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers of positions, counted row by row over the whole picture."""
        return self.members[0][positions[:, 0]] * self.axes[1].count + self.members[1][positions[:, 1]]

    def work(self, works: np.ndarray) -> float:
        """Return the multiplications that these positions take."""
        area = float((works * self.sizes[0] * self.sizes[1]).sum())
        return area * len(self.members[0]) * len(self.members[1])


def clusters_of(axes: Sequence[AxisReach], works: np.ndarray, calls: int) -> list[Cluster]:
    """Divide all positions into clusters, weighing larger regions against more calls."""
    sides = [_AxisClusters.of(axis) for axis in axes]
    while True:
        merges = [
            side.best_merge(works * other.total, CALL * calls * len(other.counts))
            for side, other in zip(sides, sides[::-1], strict=True)
        ]
        gain, which = max((merge[0], which) for which, merge in enumerate(merges))
        if gain <= 0:
            break
        sides[which] = sides[which].with_merged(*merges[which][1:])
    return [Cluster(axes, (rows, columns)) for rows in sides[0].members for columns in sides[1].members]


@dataclass(frozen=True)
class _AxisClusters:
    """The clusters along one axis: their members, how many, and their regions' sizes (clusters, layers)."""

    members: list[np.ndarray]
    counts: np.ndarray
    sizes: np.ndarray

    @staticmethod
    def of(axis: AxisReach) -> _AxisClusters:
        """Begin with one cluster for every combination of sizes."""
        sizes, inverse = np.unique(np.maximum(axis.high - axis.low, 1), axis=1, return_inverse=True)
        members = [np.flatnonzero(inverse.reshape(-1) == n) for n in range(sizes.shape[1])]
        return _AxisClusters(members, np.array([len(m) for m in members]), sizes.T.astype(float))

    @property
    def total(self) -> np.ndarray:
        """The sum of the regions' sizes over all positions, per layer."""
        return self.counts @ self.sizes

    def best_merge(self, weights: np.ndarray, saved: float) -> tuple[float, int, int]:
        """Return what the best merge of two clusters gains, and which; `weights` are the work per unit of size."""
        if len(self.counts) == 1:
            return -1.0, 0, 0
        separate = self.counts * (self.sizes @ weights)
        together = np.maximum(self.sizes[:, None], self.sizes) @ weights * (self.counts[:, None] + self.counts)
        gains = saved - (together - separate[:, None] - separate)
        np.fill_diagonal(gains, -np.inf)
        a, b = np.unravel_index(int(gains.argmax()), gains.shape)
        return float(gains[a, b]), int(a), int(b)

    def with_merged(self, a: int, b: int) -> _AxisClusters:
        """Return the clusters with clusters `a` and `b` as one."""
        rest = [n for n in range(len(self.counts)) if n not in (a, b)]
        return _AxisClusters(
            [*(self.members[n] for n in rest), np.sort(np.concatenate([self.members[a], self.members[b]]))],
            np.append(self.counts[rest], self.counts[a] + self.counts[b]),
            np.vstack([self.sizes[rest], np.maximum(self.sizes[a], self.sizes[b])]),
        )
