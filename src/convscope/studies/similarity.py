"""How alike two representations of the same pictures are: debiased CKA, and neighbours, which no outlier moves."""

from __future__ import annotations

import numpy as np

from .intervals import LEVEL, Interval

NEIGHBOURS = 10
_HALVES = 100


def gram(features: np.ndarray) -> np.ndarray:
    """Return the products of the features (n, f) of pictures, centred: (n, n); as many at once as take 64 MB."""
    n, count = features.shape
    found, step = np.zeros((n, n)), max(1, 2**23 // n)
    for start in range(0, count, step):
        piece = features[:, start : start + step].astype(np.float64)
        piece -= piece.mean(0)
        found += piece @ piece.T
    return found


def debiased_cka(first: np.ndarray, second: np.ndarray) -> float:
    """Return debiased linear CKA of two Gram matrices (n, n): 1 for the same up to rotation and scale, else about 0.

    By the unbiased estimator of HSIC (Song et al. 2012), which does not rise where there are fewer pictures than
    features. NaN for fewer than four pictures, or where features do not vary.
    """
    n = len(first)
    if n < 4:
        return float("nan")
    own = _hsic(first, first) * _hsic(second, second)
    return _hsic(first, second) / float(np.sqrt(own)) if own > 0 else float("nan")


def _hsic(first: np.ndarray, second: np.ndarray) -> float:
    n = len(first)
    k, m = (each - np.diag(np.diag(each)) for each in (first, second))
    whole = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k.sum(0) @ m.sum(0))
    return float(whole / (n * (n - 3)))


def common_neighbours(first: np.ndarray, second: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Return which share of each picture's k nearest ones are the same in two Gram matrices: (n,)."""
    k = min(k, len(first) - 2)
    near = [_nearest(each, k) for each in (first, second)]
    return np.array([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)])


def _nearest(matrix: np.ndarray, k: int) -> np.ndarray:
    own = np.diag(matrix)
    distances = own[:, None] + own - 2 * matrix
    np.fill_diagonal(distances, np.inf)
    return distances.argsort(1, kind="stable")[:, :k]


def cka_interval(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Interval:
    """Return debiased CKA with an interval of random halves of the pictures, whose spread is that of a bootstrap."""
    n = len(first)
    value = debiased_cka(first, second)
    random = np.random.default_rng(seed)
    rows = [random.permutation(n)[: n // 2] for _ in range(_HALVES if n >= 8 else 0)]
    found = [debiased_cka(first[np.ix_(some, some)], second[np.ix_(some, some)]) for some in rows]
    if not found or np.isnan(value):
        return Interval(value, float("nan"), float("nan"), n)
    low, high = np.nanquantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(min(low, value)), float(max(high, value)), n)
