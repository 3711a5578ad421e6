"""How certain a number is: intervals for shares, for anything computed of pictures, and for a few repeated runs.

Every interval says of what it is: pictures (Wilson, bootstrap) or repetitions (Student's t). One of pictures says how
far the number would move with other pictures, not how far with another network or another training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean, stdev

import numpy as np

from ..context import check_cancelled
from ..errors import OptionError

LEVEL = 0.95
"""How often such intervals hold the true value."""

DRAWS = 1000
"""How often pictures are drawn anew."""


@dataclass(frozen=True)
class Interval:
    """A number of `n` pictures or repetitions, with the bounds of its 95% interval; NaN where nothing is known."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}], n = {self.n:,}".replace("-", "−")


def wilson(hits: int, n: int) -> Interval:
    """Return the share `hits / n` with Wilson's score interval, which holds for few pictures and for shares of 0 and 1.

    Raises OptionError unless 0 <= hits <= n.
    """
    if not 0 <= hits <= n:
        raise OptionError(f"a share is of 0 to n pictures, not {hits} of {n}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    z, share = NormalDist().inv_cdf((1 + LEVEL) / 2), hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding must not put a share of 0 or 1 outside its own interval.
    return Interval(share, min(max(middle - reach, 0.0), share), max(min(middle + reach, 1.0), share), n)


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    groups: Sequence[int] | np.ndarray | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Interval:
    """Return a statistic of n pictures with its percentile bootstrap interval.

    Args:
        statistic: a function of the pictures' indices (n,), in which a picture may occur several times.
        n: number of pictures.
        groups: the group of every picture (n,), such as its class; each keeps its number of pictures.
        seed: of the draws.
        draws: how often the pictures are drawn anew.

    Draws of which the statistic is NaN are left out. With fewer than two pictures the bounds are NaN. Raises
    OptionError for another number of groups than pictures.
    """
    if groups is not None and len(groups) != n:
        raise OptionError(f"there are {len(groups)} groups for {n} pictures: give one for each")
    everything = np.arange(n)
    value = float(statistic(everything)) if n else math.nan
    if n < 2:
        return Interval(value, math.nan, math.nan, n)
    random = np.random.default_rng(seed)
    labels = np.zeros(n, int) if groups is None else np.asarray(groups)
    order = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    first, many = starts.repeat(sizes), sizes.repeat(sizes)
    found = np.empty(draws)
    for draw in range(draws):
        check_cancelled()
        found[draw] = statistic(order[first + (random.random(n) * many).astype(int)])
    found = found[~np.isnan(found)]
    if not len(found):
        return Interval(value, math.nan, math.nan, n)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), n)


def bootstrap_means(values: np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds (k,) of percentile bootstrap intervals for the means of many numbers, from values (n, k).

    The same pictures are drawn for all of them. With fewer than two pictures the bounds are NaN.
    """
    n = len(values)
    if n < 2:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), draws)
    low, high = np.quantile(counts @ values / n, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def repeated(values: Sequence[float]) -> tuple[Interval, float]:
    """Return the mean of a few repetitions (seeds, folds) with Student's t interval, and their standard deviation.

    One repetition has neither: both are NaN.
    """
    n = len(values)
    if n < 2:
        return Interval(values[0] if n else math.nan, math.nan, math.nan, n), math.nan
    from scipy.stats import t

    middle, spread = mean(values), stdev(values)
    reach = float(t.ppf((1 + LEVEL) / 2, n - 1)) * spread / math.sqrt(n)
    return Interval(middle, middle - reach, middle + reach, n), spread
