"""Merging: the tables of an atlas, as a pure function of the set of its shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..context import track
from ..data.storage import Place, Remote, below, check_room, local
from .manifest import Manifest
from .selection import Selection, shuffled
from .shards import FOLDER, ScannedPicture, columns, open_shard, shard_file
from .statistics import BINS, SIDE, Statistics, edges

BANDS = ("strongest", "effect", "strong", "middle", "weak", "weakest", "random")
"""What pictures of a unit an atlas keeps, from most to least active; the last is drawn at random."""

_QUARTERS = {"strong": (0.75, 1.0), "middle": (0.375, 0.625), "weak": (0.0, 0.25)}
"""Between which shares of the examples, in the order of their maxima, a band is drawn evenly."""

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
"""Quantiles of a unit's maxima over pictures."""


@dataclass
class Merged:
    """What all shards gave together, for some units.

    `class_sums` are (labels, units), and `class_counts` (labels,). `sample` are the numbers of the sample's pictures
    (n,), with the units' `maxima` in them (n, units), `examples` those of the examples, with the `places` of maxima.
    """

    selections: dict[str, Selection]
    statistics: Statistics
    class_sums: Tensor
    class_counts: Tensor
    sample: np.ndarray
    maxima: np.ndarray
    examples: np.ndarray
    places: np.ndarray

    def of(self, units: slice) -> Merged:
        """Return what was merged of some of the units."""
        return replace(
            self,
            selections={name: selection.of(units) for name, selection in self.selections.items()},
            statistics=Statistics(*(values[units] for values in vars(self.statistics).values())),
            class_sums=self.class_sums[:, units],
            maxima=self.maxima[:, units],
            places=self.places[:, units],
        )


class _Rows:
    """Arrays that grow by rows inside memory that was taken for all of them: pictures' numbers, and their values."""

    def __init__(self, most: int, units: int, dtype: torch.dtype) -> None:
        self.numbers, self.values = torch.empty(most, dtype=torch.int64), torch.empty(most, units, dtype=dtype)
        self.filled = 0

    def add(self, numbers: Tensor, values: Tensor) -> None:
        """Copy rows behind those that are there."""
        rows = slice(self.filled, self.filled + len(numbers))
        self.numbers[rows], self.values[rows] = numbers, values
        self.filled = rows.stop

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers (n,) and the values (n, units)."""
        return self.numbers[: self.filled].numpy(), self.values[: self.filled].numpy()


class Merging:
    """All shards of a scan; each is opened when it is read, since a system lets few files be open at a time."""

    def __init__(self, folder: Place, manifest: Manifest) -> None:
        self.manifest, self._folder = manifest, folder
        starts = [manifest.range(number).start for number in range(manifest.shards)]
        self.files = {start: shard_file(folder, manifest, start) for start in starts}

    def fetch(self) -> None:
        """Copy shards that lie in a storage, each once: all are read several times. Raises DataError without room."""
        if isinstance(self._folder, Remote):
            check_room(sum(max(0, size) for _, size in below(self._folder / FOLDER)))
            for file in track(list(self.files.values()), "copying shards"):
                local(file)

    def pictures(self) -> Iterator[ScannedPicture]:
        """Yield all pictures, by number."""
        for start, file in self.files.items():
            with open_shard(file, self.manifest, start) as shard:
                yield from shard.pictures()

    def merged(self, units: slice, labels: Sequence[str]) -> Merged:
        """Merge what is kept of some units, in the order of the shards; memory does not depend on how many there are.

        Floating point sums are added in that order; all else merges to the same in any. `labels` are those of the
        pictures, in the order that their sums shall have.
        """
        settings, count = self.manifest.settings, units.stop - units.start
        selections: dict[str, Selection] = {}
        statistics, rows = Statistics.empty(count), {label: row for row, label in enumerate(labels)}
        sums, counts = torch.zeros(len(rows), count).double(), torch.zeros(len(rows), dtype=torch.int64)
        sample = _Rows(min(settings.sample, self.manifest.pictures), count, torch.float32)
        examples = _Rows(min(settings.examples, self.manifest.pictures), count, torch.int32)
        for start, file in track(list(self.files.items()), "merging shards"):
            with open_shard(file, self.manifest, start) as shard:
                shard.add_to(statistics, units)
                for name in BANDS:
                    found, before = shard.selection(name, units), selections.get(name)
                    if found is not None:
                        selections[name] = found if before is None else before.merged(found)
                for label, total, pictures in shard.classes(units):
                    sums[rows[label]] += total
                    counts[rows[label]] += pictures
                sample.add(*shard.columns("sample", "maxima", units))
                examples.add(*shard.columns("examples", "places", units))
        return Merged(selections, statistics, sums, counts, *sample.whole(), *examples.whole())

    def maxima(self, units: slice) -> np.ndarray:
        """Return the maxima (n, units) of some units in the sample's pictures."""
        return torch.cat([columns(file, "maxima", units) for file in self.files.values()]).numpy()


@dataclass(frozen=True)
class Candidates:
    """Pictures of units in a band, each an entry of arrays of one length."""

    unit: np.ndarray
    band: np.ndarray
    rank: np.ndarray
    value: np.ndarray
    picture: np.ndarray
    place: np.ndarray

    @classmethod
    def grid(cls, band: str, units: np.ndarray, *columns: np.ndarray) -> Candidates:
        """Return candidates of units (m,), from values, pictures and places (m, k), of which k ranks are counted."""
        count, ranks = columns[0].shape
        unit, rank = np.repeat(units, ranks), np.tile(np.arange(ranks), count)
        return cls(unit, np.full(len(unit), BANDS.index(band)), rank, *(column.ravel() for column in columns))

    def sorted(self) -> Candidates:
        """Return them by unit, band and rank."""
        return self.at(np.lexsort((self.rank, self.band, self.unit)))

    def at(self, which: np.ndarray) -> Candidates:
        """Return some of them."""
        return Candidates(*(values[which] for values in vars(self).values()))

    @classmethod
    def joined(cls, several: Sequence[Candidates]) -> Candidates:
        """Return all of several."""
        return cls(*(np.concatenate(parts) for parts in zip(*(vars(each).values() for each in several), strict=True)))


def banded(maxima: np.ndarray, places: np.ndarray, pictures: np.ndarray, k: int, first: int) -> Iterator[Candidates]:
    """Yield the pictures of some units that are drawn from the examples (n,), numbered from 0.

    `maxima` and `places` are (n, units). Bands are drawn evenly from a quarter of the examples, in the order of their
    maxima; random ones by the unit's number, `first` and on.
    """
    # Equal maxima stand in the order of the pictures, those that are no number at the end.
    order = np.argsort(-maxima, axis=0, kind="stable")
    counts = (~np.isnan(maxima)).sum(0)
    shuffles = _shuffled_rows(maxima, first)
    for count in np.unique(counts):
        units = np.flatnonzero(counts == count)
        chosen = {band: order[rows][:, units].T for band, rows in _drawn(int(count), k)}
        for band, rows in {**chosen, "random": shuffles[: min(k, count)][:, units].T}.items():
            yield Candidates.grid(
                band, units, maxima[rows, units[:, None]], pictures[rows], places[rows, units[:, None]]
            )


def _drawn(count: int, k: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each band with the ranks of its pictures among `count`, the strongest first."""
    for band, (low, high) in _QUARTERS.items():
        start, stop = round((1 - high) * count), round((1 - low) * count)
        yield band, start + np.unique(np.round(np.linspace(0, stop - start - 1, min(k, stop - start))).astype(int))


def _shuffled_rows(maxima: np.ndarray, first: int) -> np.ndarray:
    """Return the rows (n, units) in an order without pattern, another for each unit; those of no number at the end."""
    units = torch.arange(first + 1, first + 1 + maxima.shape[1])
    keys = shuffled(torch.arange(len(maxima))[:, None] + units * 0x9E3779B9).numpy()
    return np.argsort(np.where(np.isnan(maxima), 2**32, keys), axis=0, kind="stable")


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
