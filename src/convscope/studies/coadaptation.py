"""Co-adaptation: whether units of a layer answer together, and whether one is of use only with another.

Two questions, which need not have one answer. Units whose activity is correlated see the same things; that says nothing
of what is made of them. Of a pair of units a and b, with the drops d of a score without one of them and without both,

    synergy  =  (d_a + d_b - d_ab) / max(|d_a|, |d_b|, |d_ab|)

is 1 where each is of use only together with the other (co-adapted), 0 where each does its part alone (always so where
the score is a sum), and -1 where one does what the other did, so that only both are missed (redundant). Each number is
a mean over pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..batching import in_batches
from ..incremental.changes import Batch, by_channel
from ..objectives import Objective
from .intervals import Interval, bootstrap


def correlations(activity: Tensor) -> Tensor:
    """Return the correlation (units, units) of units' activity (n, units); 0 with a unit that is constant."""
    centred = activity.double() - activity.double().mean(0)
    lengths = centred.norm(dim=0)
    # Rounding leaves something of a constant unit.
    varies = lengths > 1e-9 * activity.double().norm(dim=0).clamp(min=1e-300)
    unit = torch.where(varies, centred / lengths.clamp(min=1e-300), torch.zeros_like(centred))
    return (unit.T @ unit).clamp(-1, 1)


def correlated_pairs(correlation: Tensor, most: int, least: float = 0.0) -> list[tuple[int, int]]:
    """Return the pairs of units of largest correlation, of which each is at least `least`, strongest first."""
    above = correlation.triu(1)
    order = above.flatten().argsort(descending=True, stable=True)[:most].tolist()
    pairs = [divmod(one, len(correlation)) for one in order]
    return [(a, b) for a, b in pairs if a < b and float(correlation[a, b]) >= max(least, 1e-12)]


@dataclass(frozen=True)
class Joint:
    """What scores of pictures lose without the first unit of each pair, the second, and both; all (n, pairs)."""

    first: Tensor
    second: Tensor
    both: Tensor

    def synergy(self, pair: int, *, seed: int = 0) -> Interval:
        """Return the synergy of a pair with its bootstrap interval over pictures; NaN where neither is of any use."""
        first, second, both = (each[:, pair].double().cpu().numpy() for each in (self.first, self.second, self.both))

        def statistic(rows: np.ndarray) -> float:
            a, b, ab = (float(each[rows].mean()) for each in (first, second, both))
            largest = max(abs(a), abs(b), abs(ab))
            return (a + b - ab) / largest if largest > 0 else float("nan")

        return bootstrap(statistic, len(first), seed=seed)


@torch.no_grad()
def joint_drops(batch: Batch, objective: Objective, layer: str, pairs: Sequence[tuple[int, int]]) -> Joint:
    """Return what the scores of a batch's pictures lose without one unit of each pair of a layer, and without both."""
    clean = objective.score(batch.readings)
    whole = batch.activity(layer)
    units = torch.tensor(pairs, device=whole.device).reshape(-1, 2)
    groups = torch.cat([units[:, [0, 0]], units[:, [1, 1]], units])
    rows = torch.arange(len(whole), device=whole.device).repeat(len(groups))
    without = groups.repeat_interleave(len(whole), 0)

    def work(part: slice) -> Tensor:
        activity = whole.index_select(0, rows[part])
        at = torch.arange(len(activity), device=whole.device)
        channels = by_channel(batch.changes.layers[layer], activity)
        for place in (0, 1):
            channels[at, without[part, place]] = 0
        score = objective.rows(rows[part].tolist()).score(batch.replace(layer, rows[part], activity))
        return clean[rows[part]] - score

    size = batch.changes.batch_of(layer)
    drops = torch.cat([clean[:0], *in_batches(work, len(rows), size, f"pairs of {layer}")])
    return Joint(*drops.view(3, len(pairs), len(whole)).mT)


@dataclass(frozen=True)
class Uses:
    """What channels of a layer do to scores of pictures, activation x gradient: with all there, and without one.

    `whole` is (n, channels); `without` (n, dropped, channels), the dropped one's own use being 0.
    """

    whole: Tensor
    without: Tensor

    @property
    def remaining(self) -> Tensor:
        """The share of each channel's use that is left without each of the dropped, (dropped, channels).

        1 where they do not depend on one another, less where the channel is of use with the dropped one only, more
        where it takes its place; NaN for a channel that is of no use.
        """
        total = self.whole.abs().sum(0)
        left = (self.without * self.whole.sign()[:, None]).sum(0)
        return torch.where(total > 0, left / total.clamp(min=1e-300), torch.nan)


def uses_without(batch: Batch, objective: Objective, layer: str, dropped: Sequence[int]) -> Uses:
    """Return what every channel of a layer does to the scores of a batch's pictures, as it is and without some units.

    One backward pass for each picture and each dropped unit: what follows the layer is computed, nothing below it.
    """
    whole = batch.activity(layer).detach()
    one, count = batch.changes.layers[layer], len(dropped) + 1
    rows = torch.arange(len(whole), device=whole.device).repeat_interleave(count)
    units = torch.tensor([-1, *dropped], device=whole.device).repeat(len(whole))

    def work(part: slice) -> Tensor:
        activity = whole.index_select(0, rows[part])
        gone = (units[part] >= 0).nonzero()[:, 0]
        by_channel(one, activity)[gone, units[part][gone]] = 0
        with torch.inference_mode(False), torch.enable_grad():
            leaf = activity.clone().requires_grad_()
            score = objective.rows(rows[part].tolist()).score(batch.replace(layer, rows[part], leaf))
            gradient = torch.autograd.grad(score.sum(), leaf)[0]
        use = by_channel(one, activity * gradient)
        return use.flatten(2).sum(2) if use.ndim > 2 else use

    size = max(1, batch.changes.batch_of(layer) // 2)  # the backward pass keeps what the forward pass made
    found = torch.cat(list(in_batches(work, len(rows), size, f"uses of {layer}"))).unflatten(0, (len(whole), count))
    return Uses(found[:, 0], found[:, 1:])
