"""Statistics of units that merge exactly: counts, sums and histograms over pictures and positions.

Integers add up to the same in any order. Sums of floating point numbers do not: each picture's is added in the order of
the pictures, in float64, so that it does not depend on what was computed together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

STRIDE = 16
"""Every so many-th position of a layer's grid, counted by rows, is on the lattice of means and histograms."""

_FEWEST = 32
"""Positions of a lattice at least, where the layer has as many."""

_LOWEST, _EXPONENTS, _STEPS = -24, 40, 8
"""Bins begin at 2^-24 and end at 2^16; each power of two is parted into eight."""

SIDE = _EXPONENTS * _STEPS
"""Bins of positive numbers, and of negative ones; one between them holds what is smaller than 2^-24 either way."""

BINS = 2 * SIDE + 1

_WAITING = 4 * BINS
"""Values of each unit that wait to be counted, at most: 5 kB a unit."""

_SHIFT = 4
"""Bits of the upper half of a float32 below its sign, exponent and the first three of its fraction."""


def lattice(positions: int) -> slice:
    """Return which of a layer's positions are on the lattice."""
    step = min(STRIDE, max(1, positions // _FEWEST))
    return slice(step // 2, None, step)


def edges() -> np.ndarray:
    """Return the BINS + 1 edges of the histogram's bins, infinite at both ends."""
    ends = 2.0**_LOWEST * 2.0 ** (np.arange(SIDE) // _STEPS) * (1 + np.arange(SIDE) % _STEPS / _STEPS)
    return np.concatenate([[-np.inf], -ends[::-1], ends, [np.inf]])


def bins(values: Tensor) -> Tensor:
    """Return the number of the bin that each of the values (m, units) lies in, less SIDE, as int16.

    Bins are told by the bits of float32, so that no rounding is in the way, and in half as many of them: three times as
    fast. NaN counts as the largest or smallest number.
    """
    upper = (values.view(torch.int32) >> 16).short()
    beyond = (upper & 0x7FFF).bitwise_right_shift_(_SHIFT)
    beyond.sub_((127 + _LOWEST) * _STEPS - 1).clamp_(0, SIDE)
    sign = upper >> 15
    return beyond.bitwise_xor_(sign).sub_(sign)


class Histograms:
    """Counts of units' values in bins, added up as they come.

    The bins of many batches are counted together: one count of few values would take as long as its bins are many.
    """

    def __init__(self, units: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(units, BINS, dtype=torch.int64, device=device)
        self._zero = torch.arange(units, dtype=torch.int32, device=device) * BINS + SIDE
        self._fresh: list[Tensor] = []
        self._waiting: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """Take in values (n, positions, units), contiguous, of the next pictures of a batch."""
        self._fresh.append(bins(values))

    def count(self, finite: Tensor | None = None) -> None:
        """Count what was taken in of a batch; of pictures and units (n, units) where all is finite, by default all."""
        if finite is not None:
            for each, pictures in zip(self._fresh, finite.split([len(each) for each in self._fresh]), strict=True):
                each.masked_fill_(~pictures[:, None], 0)
                self.counts[:, SIDE] -= (~pictures).sum(0) * each.shape[1]
        self._waiting += [each.flatten(0, 1) for each in self._fresh]
        self._fresh = []
        if sum(map(len, self._waiting)) > _WAITING:
            self.whole()

    def whole(self) -> Tensor:
        """Return the counts (units, BINS) of all values so far."""
        if self._waiting:
            waiting = self._waiting[0] if len(self._waiting) == 1 else torch.cat(self._waiting)
            where = (waiting + self._zero).flatten()
            self.counts += torch.bincount(where, minlength=self.counts.numel()).view_as(self.counts)
            self._waiting = []
        return self.counts


@dataclass
class Statistics:
    """Sums over pictures, and over the lattice's positions, for each of some units.

    `pictures` counts those with finite activity, `broken` those with NaN or infinite activity, which no sum and no
    histogram holds. `effects` adds up activity times gradient, where a scan asks for it. `sums` and `squares` add up
    the activity and its square over the lattice's positions, and `counts` (units, BINS) counts it there.
    """

    pictures: Tensor
    broken: Tensor
    sums: Tensor
    squares: Tensor
    effects: Tensor
    counts: Tensor

    @classmethod
    def empty(cls, units: int, device: torch.device | str = "cpu") -> Statistics:
        """Return statistics of no picture."""
        whole = torch.zeros(units, dtype=torch.int64, device=device)
        sums = torch.zeros(units, dtype=torch.float64, device=device)
        return cls(
            whole,
            whole.clone(),
            sums,
            sums.clone(),
            sums.clone(),
            torch.zeros(units, BINS, dtype=torch.int64, device=device),
        )
