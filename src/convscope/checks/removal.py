"""Deletion and insertion: does the score change where the map says that it would?

Petsiuk, Das and Saenko, "RISE" (arXiv:1806.07421, sec. 4.1): remove the most important pixels first and follow the
probability of the class as it falls (deletion), or insert them first into a blurred picture and follow it as it rises
(insertion). The area under the curve, by trapezoids, is one number: low for deletion, high for insertion. Samek et al.
(arXiv:1509.06321, eq. 12) average the drop along the same path, AOPC = 1/(L+1) sum_k f(x0) - f(xk).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..baselines import baseline_pixels
from ..batching import in_batches
from ..context import say
from ..drawing.drawings import Heatmap
from ..errors import OptionError
from ..interruptions import orderly
from ..net import Net
from ..objectives import Objective, Unit, probability
from ..predictions import ObjectiveLike
from ..tracing import OUTPUT
from .cases import Case

First = Literal["most", "least"]


@dataclass(frozen=True)
class Removal:
    """Scores along a path from one picture to another: `shares` of the pixels exchanged, from 0 to 1."""

    kind: str
    objective: str
    shares: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def auc(self) -> float:
        """The area under the curve, by trapezoids: the mean score along the path."""
        scores, shares = np.asarray(self.scores), np.asarray(self.shares)
        return float((np.diff(shares) * (scores[1:] + scores[:-1]) / 2).sum())

    @property
    def aopc(self) -> float:
        """The mean drop of the score from its first value (Samek et al., eq. 12)."""
        return float(np.mean(self.scores[0] - np.asarray(self.scores)))


@orderly
def deletion(
    net: Net,
    heatmap: Heatmap,
    *,
    baseline: str = "mean",
    first: First = "most",
    steps: int = 32,
    seed: int = 0,
    batch: int = 32,
    of: ObjectiveLike = None,
) -> Removal:
    """Remove pixels, the most important first, and follow the score.

    Args:
        net, heatmap: a map and the network that made it.
        baseline: what replaces removed pixels, as in `convscope.baselines`; the mean colour is the paper's zero.
        first: "most" or "least" important pixels first.
        steps: number of steps from the whole picture to none of it.
        seed: seed of the order among pixels of equal importance, and of the baseline where it is noise.
        batch: number of pictures per pass.
        of: the score; by default the probability of the map's class, or else the map's objective, which has to be
            given again where it was a function.

    The importance of a pixel is the map there, colour channels summed; its magnitude where the map is a picture.
    """
    case, objective = _case(net, heatmap, of)
    removed = baseline_pixels(net, case.pixels, baseline, seed=seed)
    order = ranking(importance(case), first=first, seed=seed)
    return _follow("deletion", net, objective, case.pixels, removed, order, steps, batch)


@orderly
def insertion(
    net: Net,
    heatmap: Heatmap,
    *,
    baseline: str = "blur",
    first: First = "most",
    steps: int = 32,
    seed: int = 0,
    batch: int = 32,
    of: ObjectiveLike = None,
) -> Removal:
    """Insert pixels into a blurred picture, the most important first, and follow the score.

    The options are those of `deletion`; `baseline` is the picture at the start of the path.
    """
    case, objective = _case(net, heatmap, of)
    start = baseline_pixels(net, case.pixels, baseline, seed=seed)
    order = ranking(importance(case), first=first, seed=seed)
    return _follow("insertion", net, objective, start, case.pixels, order, steps, batch)


def _case(net: Net, heatmap: Heatmap, of: ObjectiveLike) -> tuple[Case, Objective]:
    """Read a map's recipe back, and settle the score: for a class, its probability where there is one."""
    case = Case.of(net, heatmap, of)
    index = case.objective.class_index
    if of is not None or index is None or len(net.output.shape) != 1:
        return case, case.objective
    if net.head.kind == "value":
        say(f"deletion and insertion follow the {net.head.word}, which is no probability: areas have its unit")
        return case, case.objective
    return case, Objective(((1.0, probability(net, Unit(OUTPUT, index))),))


def importance(case: Case) -> Tensor:
    """Return the importance of each pixel (h, w): the map, channels summed, or the magnitude of one that is a picture.

    The sign of a gradient says in which direction a pixel would have to change, not whether it matters.
    """
    return (case.values.abs() if case.entry.projects else case.values).sum(0)


def ranking(values: Tensor, *, first: First = "most", seed: int = 0) -> Tensor:
    """Order the pixels of a map (h, w) by value, flat indices (h*w,); equal values in a random, seeded order.

    Rectified maps are zero over large parts of the picture; reading order would remove those from the top.
    """
    if first not in ("most", "least"):
        raise OptionError(f"first is 'most' or 'least', not {first!r}")
    flat = values.flatten()
    shuffled = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed)).to(flat.device)
    order = flat[shuffled].argsort(descending=True, stable=True)
    ranked = shuffled[order]
    return ranked if first == "most" else ranked.flip(0)


def path_scores(
    net: Net, objective: Objective, start: Tensor, end: Tensor, order: Tensor, counts: Sequence[int], batch: int
) -> Tensor:
    """Score pictures in which the first pixels of an order come from `end`, the others from `start`.

    `start` and `end` are (1, c, h, w), `order` flat indices (h*w,), `counts` numbers of pixels; returns (len(counts),).
    """
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    rank = rank.view(start.shape[-2:])
    limits = torch.tensor(counts, device=order.device)

    def scores(piece: slice) -> Tensor:
        exchanged = rank < limits[piece, None, None]
        return objective(net, torch.where(exchanged[:, None], end, start))

    with torch.inference_mode():
        return torch.cat(list(in_batches(scores, len(counts), batch, "exchanging pixels"))).clone()


def _follow(
    kind: str, net: Net, objective: Objective, start: Tensor, end: Tensor, order: Tensor, steps: int, batch: int
) -> Removal:
    if steps < 1:
        raise OptionError(f"steps is at least 1, not {steps}")
    counts = [round(step * len(order) / steps) for step in range(steps + 1)]
    scores = path_scores(net, objective, start, end, order, counts, batch)
    shares = tuple(count / len(order) for count in counts)
    return Removal(kind, str(objective), shares, tuple(scores.cpu().double().tolist()))
