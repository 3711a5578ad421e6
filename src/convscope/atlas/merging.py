"""Merging: the tables of an atlas, as a pure function of the set of its shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .manifest import Manifest
from .selection import Selection, shuffled
from .shards import ScannedPicture, StoredShard, columns, open_shard, shard_file
from .statistics import BINS, SIDE, Statistics, edges

BANDS = ("strongest", "effect", "strong", "middle", "weak", "weakest", "random")
"""What pictures of a unit an atlas keeps, from most to least active; the last is drawn at random."""

_QUARTERS = {"strong": (0.75, 1.0), "middle": (0.375, 0.625), "weak": (0.0, 0.25)}
"""Between which shares of the examples, in the order of their maxima, a band is drawn evenly."""

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
"""Quantiles of a unit's maxima over pictures."""


@dataclass
class Merged:
    """What all shards gave together, for the units of all layers."""

    pictures: list[ScannedPicture]
    computed: list[Mapping[str, Any]]
    selections: dict[str, Selection]
    statistics: Statistics
    class_sums: dict[str, Tensor]
    class_counts: dict[str, int]


class Merging:
    """All shards of a scan; each is opened when it is read, since a system lets few files be open at a time."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        starts = [manifest.range(number).start for number in range(manifest.shards)]
        self.files = {start: shard_file(folder, manifest, start) for start in starts}

    def merged(self) -> Merged:
        """Merge what is kept of each unit, in the order of the shards."""
        merged = Merged([], [], {}, Statistics.empty(self.manifest.units), {}, {})
        for start, file in self.files.items():
            with open_shard(file, self.manifest, start) as shard:
                _add(merged, shard)
        return merged

    def sample(self, units: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the sample's pictures (n,), and some units' maxima in them (n, units)."""
        return self._joined("sample", "maxima", units)

    def examples(self, units: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the examples (n,), and where some units' maxima lie in them (n, units)."""
        return self._joined("examples", "places", units)

    def _joined(self, pictures: str, values: str, units: slice) -> tuple[np.ndarray, np.ndarray]:
        parts = [columns(file, pictures, values, units) for file in self.files.values()]
        numbers, found = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        return numbers, found


def _add(merged: Merged, shard: StoredShard) -> None:
    """Add a shard to what those before it gave."""
    merged.pictures += shard.pictures
    if shard.header.computed not in merged.computed:
        merged.computed.append(shard.header.computed)
    merged.statistics = merged.statistics.merged(shard.statistics())
    for name in BANDS:
        found, before = shard.selection(name), merged.selections.get(name)
        if found is not None:
            merged.selections[name] = found if before is None else before.merged(found)
    _add_classes(merged, shard)


def _add_classes(merged: Merged, shard: StoredShard) -> None:
    if not shard.header.labels:
        return
    sums, counts = shard.tensor("class_sums"), shard.tensor("class_counts").tolist()
    for label, total, count in zip(shard.header.labels, sums, counts, strict=True):
        before = merged.class_sums.get(label)
        merged.class_sums[label] = total if before is None else before + total
        merged.class_counts[label] = merged.class_counts.get(label, 0) + count


def banded(
    maxima: np.ndarray, places: np.ndarray, pictures: np.ndarray, k: int, first: int
) -> Iterator[tuple[str, int, int, float, int, int]]:
    """Yield (band, unit, rank, value, picture, place) of some units, drawn from the examples (n,).

    `maxima` and `places` are (n, units). Bands are drawn evenly from a quarter of the examples, in the order of their
    maxima; random ones by the unit's number, `first` and on, from the examples in their shuffled order.
    """
    order = np.lexsort((np.broadcast_to(pictures[:, None], maxima.shape), -maxima), axis=0)
    for unit in range(maxima.shape[1]):
        ranked = order[np.isfinite(maxima[order[:, unit], unit]), unit]
        for band, rows in (*_drawn(ranked, k), ("random", _random(ranked, k, first + unit))):
            for rank, row in enumerate(rows):
                yield band, unit, rank, float(maxima[row, unit]), int(pictures[row]), int(places[row, unit])


def _drawn(ranked: np.ndarray, k: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each band with the rows of its pictures, the strongest first."""
    count = len(ranked)
    for band, (low, high) in _QUARTERS.items():
        start, stop = round((1 - high) * count), round((1 - low) * count)
        inside = ranked[start:stop]
        steps = np.linspace(0, len(inside) - 1, min(k, len(inside)))
        yield band, inside[np.unique(np.round(steps).astype(int))] if len(inside) else inside


def _random(ranked: np.ndarray, k: int, unit: int) -> np.ndarray:
    """Draw rows at random, others for each unit, the same every time."""
    keys = shuffled(torch.from_numpy(np.sort(ranked)), unit + 1).numpy()
    return np.sort(ranked)[np.argsort(keys, kind="stable")[:k]]


def auc(maxima: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Return the AUC of units (n, units) as detectors of classes (n,), numbered below `count`: (count, units).

    The probability that a picture of the class has a larger maximum than one of another class; equal ones count half.
    NaN for a class without pictures, or without others. Pictures of no class are -1.
    """
    order = np.argsort(maxima, axis=0, kind="stable")
    ranked = np.take_along_axis(maxima, order, 0)
    result = np.full((count, maxima.shape[1]), np.nan)
    sizes = np.bincount(classes[classes >= 0], minlength=count).astype(float)
    for unit in range(maxima.shape[1]):
        ranks = _mean_ranks(ranked[:, unit])[np.argsort(order[:, unit], kind="stable")]
        sums = np.bincount(classes[classes >= 0], ranks[classes >= 0], count)
        with np.errstate(invalid="ignore", divide="ignore"):
            result[:, unit] = (sums - sizes * (sizes + 1) / 2) / (sizes * (len(maxima) - sizes))
    return result


def _mean_ranks(ranked: np.ndarray) -> np.ndarray:
    """Return the ranks, from 1, of sorted numbers; equal ones share their mean."""
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    ends = np.r_[starts[1:], len(ranked)]
    return np.repeat((starts + 1 + ends) / 2, ends - starts)


def positive_share(counts: np.ndarray) -> np.ndarray:
    """Return which share of counted positions (units, BINS) is active, above 2^-24."""
    return counts[:, SIDE + 1 :].sum(1) / np.maximum(counts.sum(1), 1)


def quantiles_of(counts: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Return quantiles (units, shares) from histograms (units, BINS): the middle of the bin that each lies in."""
    ends = edges()
    ends[0], ends[-1] = ends[1], ends[-2]
    middles = (ends[:-1] + ends[1:]) / 2
    middles[BINS // 2] = 0.0
    summed = counts.cumsum(1)
    wanted = np.maximum(1, np.ceil(np.array(shares) * summed[:, -1:]))
    return middles[(summed[:, None, :] < wanted[:, :, None]).sum(2).clip(max=BINS - 1)]
