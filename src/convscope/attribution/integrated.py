"""Integrated gradients: the gradient along the straight path from a baseline picture to the picture.

Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (arXiv:1703.01365, sec. 3): where a unit has
saturated, the gradient at the picture misses how it came to respond. So take the straight path from a baseline x' to
the picture x and attribute to each pixel

    IG_i = (x_i - x'_i) * integral from 0 to 1 of dF/dx_i(x' + a (x - x')) da.

By the fundamental theorem of calculus these add up to F(x) - F(x') ("completeness"), whatever the network; the caption
states the error of the finite sum. The paper finds 20 to 300 steps enough, and advises to check that the sum is within
5%. The gradients of ReLU networks jump, so no quadrature rule converges at its textbook rate: midpoints and
Gauss-Legendre points are the best of those here, one-sided sums the worst.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from .. import baselines
from ..context import say
from ..errors import OptionError
from ..net import Net
from ..objectives import Objective
from ..options import Range
from ..registry import method
from .gradient import Batch, weighted_gradient

Rule = Literal["gauss-legendre", "midpoint", "left", "right", "trapezoid"]


@method(
    "Integrated gradients",
    paper="Sundararajan et al. 2017, arXiv:1703.01365, sec. 3",
    signed=True,
    caveat="is relative to its baseline: pixels of the baseline's colour get zero; it contains the picture as a "
    "factor, so it looks like the picture",
)
def integrated_gradients(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    baseline: Annotated[
        str,
        "the picture at which the path begins: 'mean' (the network's mean colour, zero after normalisation), 'grey', "
        "'blur', 'noise', or a value in [0, 1]; 0 is the paper's black",
    ] = "mean",
    steps: Annotated[int, "number of points on the path at which the gradient is computed", Range(1)] = 50,
    rule: Annotated[
        Rule, "quadrature rule: 'gauss-legendre', 'midpoint', 'left', 'right' or 'trapezoid'"
    ] = "gauss-legendre",
    seed: Annotated[int, "random seed of the baseline 'noise'"] = 0,
    batch: Batch = 10,
) -> Tensor:
    """Integrated gradients: the gradient integrated along the straight path from a baseline, times the difference.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), summed over colour channels, in score. The caption says how far the
    map's sum is from F(x) - F(x'). Raises OptionError for an unknown baseline, or a single step of the trapezoid rule.
    """
    points, weights = path_points(rule, steps)
    pixels = pixels.detach()
    start = baselines.baseline_pixels(net, pixels, str(baseline), seed=seed)
    apart = pixels - start

    def integral(row: int) -> Tensor:
        origin, way = start[row], apart[row]

        def on_the_path(piece: slice) -> Tensor:
            return origin + torch.tensor(points[piece], dtype=torch.float64).to(way)[:, None, None, None] * way

        return weighted_gradient(net, objective.rows(row), on_the_path, weights, batch, "integrated gradients")

    maps = (torch.stack([integral(row) for row in range(len(pixels))]) * apart).sum(1, keepdim=True)
    say(f"from the baseline {baseline} to the picture in {steps} steps ({rule})")
    _say_completeness(net, pixels, start, objective, maps)
    return maps


def path_points(rule: str, steps: int) -> tuple[list[float], list[float]]:
    """Return the points in [0, 1] of a quadrature rule and their weights, which add up to 1."""
    least = 2 if rule == "trapezoid" else 1
    if steps < least:
        raise OptionError(f"steps is at least {least} for the rule {rule!r}, not {steps}")
    numbers = np.arange(steps)
    even = np.full(steps, 1 / steps)
    if rule == "gauss-legendre":
        # Its points are made for [-1, 1].
        points, weights = np.polynomial.legendre.leggauss(steps)
        points, weights = (points + 1) / 2, weights / 2
    elif rule in ("left", "midpoint", "right"):
        points, weights = (numbers + {"left": 0, "midpoint": 0.5, "right": 1}[rule]) / steps, even
    elif rule == "trapezoid":
        points, weights = numbers / (steps - 1), np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
    else:
        rules = "'gauss-legendre', 'midpoint', 'left', 'right' or 'trapezoid'"
        raise OptionError(f"rule is {rules}, not {rule!r}")
    return points.tolist(), weights.tolist()


def _say_completeness(net: Net, pixels: Tensor, start: Tensor, objective: Objective, maps: Tensor) -> None:
    """Note in the caption what the maps add up to, and what they should."""
    flat = "the map is zero everywhere: the score does not change along the path, or the picture is its baseline"
    say(["" if any_ else flat for any_ in maps.flatten(1).any(1).tolist()])
    with torch.inference_mode():
        ends = objective.rows([*range(len(pixels))] * 2)(net, torch.cat([pixels, start])).cpu().double()
    changes, sums = (ends[: len(pixels)] - ends[len(pixels) :]).tolist(), maps.cpu().double().sum((1, 2, 3)).tolist()
    remarks: list[str] = []
    for change, total in zip(changes, sums, strict=True):
        error = abs(total - change)
        share = f", {100 * error / abs(change):.2g}%" if change else ""
        more = ": use more steps" if error > 0.05 * abs(change) else ""
        remarks.append(f"adds up to {total:.3g} of F(x) − F(x') = {change:.3g}, off by {error:.2g}{share}{more}")
    say(remarks)
