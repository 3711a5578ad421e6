"""Which pictures were classified correctly, in several draws, and the mean of the classes' accuracies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .intervals import Interval, bootstrap


def mean_per_class(hits: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of the classes' accuracies, of hits (n,) between 0 and 1 or NaN where a picture is not tested."""
    known = ~np.isnan(hits)
    counts = np.bincount(targets[known])
    sums = np.bincount(targets[known], hits[known])
    return float((sums[counts > 0] / counts[counts > 0]).mean())


@dataclass(frozen=True)
class Hits:
    """Which pictures are classified correctly: (draws, pictures), NaN where one is not tested, and their classes."""

    hits: np.ndarray
    targets: np.ndarray

    @property
    def accuracies(self) -> list[float]:
        """The mean of the classes' accuracies in every draw."""
        return [mean_per_class(hits, self.targets) for hits in self.hits]

    @property
    def per_class(self) -> list[float]:
        """The accuracy of every class, over all draws."""
        return [float(np.nanmean(self.hits[:, self.targets == target])) for target in np.unique(self.targets)]

    def interval(self, seed: int, less: Hits | None = None) -> Interval:
        """Return the mean over all draws with a bootstrap interval over the tested pictures of each class.

        `less` is another's result on the same pictures, whose mean is subtracted.
        """
        known = ~np.isnan(self.hits)
        tested = np.flatnonzero(known.any(0))
        labels, times = np.unique(self.targets[tested], return_inverse=True)[1], known[:, tested].sum(0)
        sums = np.nansum(self.hits[:, tested] - (0 if less is None else less.hits[:, tested]), 0)

        def mean(rows: np.ndarray) -> float:
            return float((np.bincount(labels[rows], sums[rows]) / np.bincount(labels[rows], times[rows])).mean())

        return bootstrap(mean, len(tested), groups=labels, seed=seed)
