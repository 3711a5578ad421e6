"""Extremal perturbations: the region of a given area whose pixels alone keep the score highest.

Fong, Patrick and Vedaldi, "Understanding Deep Networks via Extremal Perturbations and Smooth Masks" (arXiv:1910.08485,
sec. 3). A mask m in [0, 1] keeps the picture where it is one; elsewhere is a baseline b (the paper: the picture
blurred). Of all masks of area a the extremal one has the highest score,

    m_a = argmax f(m x + (1 - m) b)   over smooth m in [0, 1] with mean(m) = a,

or, where the region is deleted instead of kept, the lowest f((1 - m) x + m b). Two inventions make that tractable.

*Area as a ranking.* The sorted values of the mask, vecsort(m), should be (1 - a)|m| zeros followed by a|m| ones, r_a.
The penalty lambda |vecsort(m) - r_a|^2 has a gradient everywhere, favours binary masks, and becomes a constraint as
lambda grows.

*Smooth by construction.* The mask is the max-convolution of a coarse grid g with a bump,

    m(u) = max_v k(|u - v|) g(v),   k(z) = exp(-max(0, z - 1)^2 / 4),  z in steps of the grid,

so that nothing in it is finer than the bump, and yet, unlike a blurred mask, it can be one over any area. The maximum
is the smooth one: the mean weighted with softmax(value / T), T = 1/20. Between the steps of the grid m is linear.

The grid is optimized by gradient ascent with momentum 0.9, as in the paper. Three choices differ, and save most of its
800 steps: the score is divided by its drop at the baseline, |f(x) - f(b)|, so that one rate and one lambda serve every
network and objective; lambda begins low and grows 64-fold, so that the score chooses the position before the area is
enforced; and the baseline is blended in, where the paper's blur widens gradually.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..baselines import HELP, baseline_pixels
from ..context import keep_part, say, track
from ..cuts import no_gradient
from ..errors import OptionError
from ..net import Net
from ..objectives import Objective
from ..options import Range
from ..registry import method

Game = Literal["preserve", "delete"]

_START = 0.8125
"""Initial value of the grid: below one, so that values can rise as well as fall."""

_RATE = 3e-4
"""Step size per point of the grid, as a single point's share of the score falls with their number."""

_MOMENTUM = 0.9
_WEIGHT, _GROWTH = 2.0, 64.0
"""Initial weight of the area penalty, and the factor by which it grows."""

_LEVELS = 2**20
_TEMPERATURE = 1 / 20
_REACH = 5
"""Steps of the grid after which the bump is below a fiftieth."""


@method(
    "Extremal perturbation",
    paper="Fong, Patrick & Vedaldi 2019, arXiv:1910.08485",
    signed=False,
    linear=False,
    unit="fraction kept",
    caveat="a local optimum: one region of the given area; another area or initial mask may give another region",
)
def extremal(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    area: Annotated[float, "area of the region, as a fraction of the picture", Range(0, 1, open=True)] = 0.1,
    game: Annotated[
        Game,
        "'preserve': the region that alone keeps the score highest; 'delete': the one whose removal lowers it most",
    ] = "preserve",
    steps: Annotated[int, "gradient ascent steps, each a forward and backward pass", Range(1)] = 100,
    step: Annotated[
        int | None,
        "spacing of the mask's grid points, in pixels; by default a 32nd of the shorter side, at least 2",
        Range(1),
    ] = None,
    baseline: Annotated[str, HELP] = "blur",
    seed: Annotated[int, "random seed of the baseline 'noise'"] = 0,
) -> Tensor:
    """Extremal perturbation: the smooth region of a given area that alone keeps the score highest.

    Pixels (n, c, h, w) in [0, 1] to a mask (n, 1, h, w) in [0, 1]. Raises OptionError for an area of 1, or
    a grid step larger than the picture.
    """
    side = min(pixels.shape[-2:])
    step = step if step is not None else min(side, max(2, round(side / 32)))
    _check(area, step, pixels)
    with torch.inference_mode(False), torch.enable_grad():
        pixels = pixels.detach().clone()
        hidden = baseline_pixels(net, pixels, baseline, seed=seed).clone()
        inside, outside, sign = (pixels, hidden, 1) if game == "preserve" else (hidden, pixels, -1)

        def score_under(mask: Tensor) -> Tensor:
            score = objective(net, torch.lerp(outside, inside, mask.to(pixels)))
            if not score.requires_grad and mask.requires_grad:
                raise no_gradient(net, pixels, objective)
            return score.to(mask)

        first = pixels.new_full((len(pixels), 1, *(math.ceil(extent / step) for extent in pixels.shape[-2:])), _START)
        first = first.to(torch.promote_types(pixels.dtype, torch.float32))
        with torch.no_grad():
            nothing, whole = (
                score_under(torch.zeros_like(first[..., :1, :1])),
                score_under(torch.ones_like(first[..., :1, :1])),
            )
        unit = sign * _unit(nothing, whole)
        mask = _climb(lambda mask: score_under(mask) / unit, first, pixels.shape[-2:], area, steps)
        with torch.no_grad():
            reached = score_under(mask)
    _report(game, baseline, mask, reached, *((whole, nothing) if sign == 1 else (nothing, whole)))
    return mask


def _unit(one: Tensor, other: Tensor) -> Tensor:
    """Return the unit of reward: the distance of two scores (n,), bounded away from zero."""
    unit = (one - other).abs().maximum(1e-3 * one.abs().maximum(other.abs()))
    return torch.where(unit > 0, unit, torch.ones_like(unit))


def _climb(reward: Callable[[Tensor], Tensor], grid: Tensor, size: tuple[int, ...], area: float, steps: int) -> Tensor:
    """Maximize the reward (n,) over masks of an area, from a grid (n, 1, rows, columns) to masks (n, 1, h, w)."""
    positions = grid[0].numel()
    ranking = (torch.arange(1, positions + 1) - (1 - area) * positions).clamp(0, 1).to(grid)
    speed, moved = torch.zeros_like(grid), grid.new_ones(len(grid), dtype=torch.bool)
    done = 0
    try:
        for step in track(range(steps), "extremal perturbation"):
            leaf = grid.detach().requires_grad_()
            mask = smooth(leaf)
            misfit = (mask.flatten(1).sort(dim=1, stable=True).values - ranking).square().mean(1)
            # The first step follows the score alone: it breaks the tie between equal values.
            weight = _WEIGHT * _GROWTH ** (step / steps) if step else 0
            gain = reward(_enlarge(mask, size)) - weight * misfit
            speed = _MOMENTUM * speed + torch.autograd.grad(gain.sum(), leaf)[0]
            # Rounded, so that errors of the last digit, which differ with the batch, do not grow from step to step.
            grid = ((leaf.detach() + _RATE * positions * speed).clamp(0, 1) * _LEVELS).round() / _LEVELS
            moved = moved if done else (grid != _START).flatten(1).any(1)
            done = step + 1
    except KeyboardInterrupt as end:
        if not done:
            raise
        keep_part(end, f"interrupted after {done} of {steps} steps; kept the mask so far, whose area is not settled")
    still = "the score does not change with the mask: no region can be found"
    say(["" if any_ else still for any_ in moved.tolist()])
    return _enlarge(smooth(grid.detach()), size) * moved.to(grid)[:, None, None, None]


def smooth(grid: Tensor) -> Tensor:
    """Return the smooth max-convolution of a grid (n, 1, rows, columns) in [0, 1] with the bump, of the same shape."""
    at = torch.arange(-_REACH, _REACH + 1, device=grid.device, dtype=grid.dtype)
    distance = (at[:, None].square() + at.square()).sqrt()
    bump = torch.exp(-(distance - 1).clamp(min=0).square() / 4)
    values = F.unfold(grid, 2 * _REACH + 1, padding=_REACH) * bump.view(-1, 1)
    return ((values / _TEMPERATURE).softmax(1) * values).sum(1).view(grid.shape)


def _enlarge(mask: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(mask, size=list(size), mode="bilinear")


def _report(game: Game, baseline: str, mask: Tensor, reached: Tensor, whole: Tensor, nothing: Tensor) -> None:
    shares = (mask.mean((1, 2, 3)) * 100).tolist()
    say([f"the region is {share:.3g}% of the picture, baseline {baseline}" for share in shares])
    region = "with this region alone" if game == "preserve" else "without this region"
    scores = zip(reached.tolist(), whole.tolist(), nothing.tolist(), strict=True)
    say([f"score {own:.3g} {region}, {all_:.3g} for the whole picture, {none:.3g} for the baseline"
         for own, all_, none in scores])  # fmt: skip


def _check(area: float, step: int, pixels: Tensor) -> None:
    height, width = pixels.shape[-2:]
    if area >= 1:
        raise OptionError(f"area is a fraction of the picture, between 0 and 1, not {area}: extremal(..., area=0.1)")
    if not 1 <= step <= min(height, width):
        raise OptionError(f"step is in pixels, 1 to {min(height, width)} for a picture of {height}x{width}, not {step}")
