"""Ranks: what two maps have in common when only the order of their pixels counts."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Return Spearman's rank correlation of two maps of one shape; ties get their mean rank.

    A constant map is like another constant one (1) and unlike all others (0).
    """
    ranks = [_ranks(map_.cpu().double().flatten()) for map_ in (one, other)]
    ranks = [rank - rank.mean() for rank in ranks]
    lengths = [float(rank.norm()) for rank in ranks]
    if min(lengths) == 0:
        return float(max(lengths) == 0)
    return float(ranks[0] @ ranks[1]) / (lengths[0] * lengths[1])


def _ranks(values: Tensor) -> Tensor:
    _, position, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[position]
