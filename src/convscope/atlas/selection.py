"""Selections: of every unit the k best pictures by one total order, merged in any order, and twice, to the same.

A candidate is one integer: the value in the upper 32 bits, which picture comes first among equals in the lower. No two
candidates of a unit are equal, so the best k of any number of them are a set, whoever finds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Order = Literal["largest", "smallest"]

_EMPTY = -(2**63)
"""The key of no candidate: below that of any number."""

_LOW = 2**32 - 1


def first_among_equals(pictures: Tensor, order: Order) -> Tensor:
    """Return the lower half of keys of pictures (n,), larger for the one that comes first among equal values.

    Of the largest it is the picture's number, lower numbers first. Of the smallest, where a rectifier makes thousands
    of zeros, it is a fixed shuffle of the numbers, so that they are not all of the first class.
    """
    return _LOW - (pictures if order == "largest" else shuffled(pictures))


def shuffled(numbers: Tensor, seed: int = 0) -> Tensor:
    """Map whole numbers below 2^32 one to one to others, without any pattern."""
    mixed = (numbers + seed * 0x9E3779B9) & _LOW
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & _LOW
    return mixed ^ (mixed >> 16)


def _sortable(values: Tensor) -> Tensor:
    """Return 32-bit integers in the order of float32 values; equal for 0 and -0."""
    bits = (values.float() + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@dataclass
class Selection:
    """The best candidates of each of some units so far: the larger the key, the better.

    `keys` (units, k) are in descending order; `pictures` are their numbers, `places` their positions in the layer's
    grid, counted by rows, -1 where the layer has none.
    """

    order: Order
    keys: Tensor
    pictures: Tensor
    places: Tensor

    @classmethod
    def empty(cls, order: Order, units: int, k: int, device: torch.device | str = "cpu") -> Selection:
        """Return a selection without candidates."""
        keys = torch.full((units, k), _EMPTY, dtype=torch.int64, device=device)
        return cls(
            order, keys, torch.full_like(keys, -1, dtype=torch.int32), torch.full_like(keys, -1, dtype=torch.int32)
        )

    @property
    def k(self) -> int:
        return self.keys.shape[1]

    @property
    def values(self) -> Tensor:
        """The values (units, k) in float32, NaN where there are fewer candidates."""
        bits = (self.keys >> 32).int()
        values = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32)
        values = torch.where(self.keys == _EMPTY, torch.nan, values)
        return -values if self.order == "smallest" else values

    def keys_of(self, values: Tensor, pictures: Tensor) -> Tensor:
        """Return the keys of values (n, units) in pictures (n,); a value that is NaN is no candidate."""
        upper = _sortable(-values if self.order == "smallest" else values).long()
        keys = (upper << 32) | first_among_equals(pictures, self.order)[:, None]
        return keys.masked_fill_(values.isnan(), _EMPTY)

    @property
    def last(self) -> Tensor:
        """The value (units,) that one must beat to be among the best; infinite as long as any number is."""
        lowest = torch.inf if self.order == "smallest" else -torch.inf
        return self.values[:, -1].nan_to_num_(lowest, torch.inf, -torch.inf)

    def better(self, keys: Tensor) -> Tensor:
        """Say which candidates (n, units) are among the best so far, each compared with those of before alone."""
        return keys > self.keys[:, -1]

    def offer(self, values: Tensor, pictures: Tensor, places: Tensor) -> None:
        """Take in values (n, units) of pictures (n,) at places (n, units)."""
        # Most are worse by far, and to compare them takes a fifth of what their keys do.
        near = values <= self.last if self.order == "smallest" else values >= self.last
        units = near.any(0).nonzero()[:, 0]
        keys = self.keys_of(values[:, units], pictures)
        better = (keys > self.keys[units, -1]).any(0)
        units, keys = units[better], keys[:, better]
        if len(units) == 0:
            return
        rows = pictures.int()[:, None].expand(-1, len(units))
        merged = self.of(units).joined([keys.T, rows.T, places[:, units].T])
        self.keys[units], self.pictures[units], self.places[units] = merged.keys, merged.pictures, merged.places

    def of(self, units: Tensor | slice) -> Selection:
        """Return the selection of some units."""
        return Selection(self.order, self.keys[units], self.pictures[units], self.places[units])

    def joined(self, candidates: Sequence[Tensor]) -> Selection:
        """Return the best k of these and of candidates: keys, pictures and places, each (units, n)."""
        own = (self.keys, self.pictures, self.places)
        keys, pictures, places = (torch.cat(pair, 1) for pair in zip(own, candidates, strict=True))
        best, where = keys.topk(self.k, 1)
        return Selection(self.order, best, pictures.gather(1, where), places.gather(1, where))

    def merged(self, other: Selection) -> Selection:
        """Return the best k of two selections of the same units; a candidate that both hold counts once."""
        again = (other.keys[:, :, None] == self.keys[:, None]).any(2)
        return self.joined([other.keys.masked_fill(again, _EMPTY), other.pictures, other.places])
