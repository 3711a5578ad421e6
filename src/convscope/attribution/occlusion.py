"""Occlusion: slide a square over the picture and measure how far the score drops.

Zeiler and Fergus (arXiv:1311.2901v3, sec. 4.2, Fig. 7) use a grey square, here the occluder. A pixel's value is the
mean drop of the score over the squares that cover it.

Nearly all of the computation is the same for every square. So only what a square can reach is recomputed
(`convscope.incremental`), which is exact; coarse-to-fine (`approximate`) is not, and states its error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from .. import baselines
from ..batching import budget
from ..context import about, say
from ..errors import OptionError
from ..incremental.occlusions import Occluder, Occlusions, occluded_scores, report
from ..net import Net
from ..objectives import Objective
from ..options import Range
from ..registry import method

Patch = Annotated[
    int | None, "side of the square, in pixels; by default a seventh of the picture's shorter side", Range(1)
]
Stride = Annotated[int | None, "step between squares, in pixels; by default half the patch", Range(1)]
Memory = Annotated[
    str | None,
    "memory for batches, such as '500 MB' or '2 GiB'; by default 32 MiB on a CPU, where more is no faster, and a "
    "quarter of the free memory on a GPU",
]
BaselineOption = Annotated[str, baselines.HELP]

_COARSE = 4
"""Coarse-to-fine begins with every fourth square along y and x ..."""
_REFINED = 0.25
"""... and computes the quarter of all squares where the drop is largest; 16 others are computed to state the error."""
_TRIED = 16


@method("Occlusion", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, sec. 4.2", signed=True, unit="drop of score")
def occlusion(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    patch: Patch = None,
    stride: Stride = None,
    baseline: BaselineOption = "mean",
    approximate: Annotated[
        bool, "coarse to fine: every fourth square, then the quarter of all with the largest drop; states the error"
    ] = False,
    memory: Memory = None,
) -> Tensor:
    """Drop of the score when a square occludes each part of the picture.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), in score: positive where occlusion lowers it. Raises OptionError
    for a patch larger than the picture or an unknown baseline.
    """
    squares = squares_over(pixels, patch, stride)
    amount, occluders = budget(memory, pixels.device), baselines.baseline_pixels(net, pixels, baseline)
    rows, columns = squares.grid
    say(f"patch {squares.patch} px, stride {squares.stride} px, {rows * columns} squares, baseline {baseline}")
    maps: list[Tensor] = []
    with torch.inference_mode(False), torch.no_grad():
        base = objective(net, pixels)
        for row, (picture, occluder, clean) in enumerate(zip(pixels, occluders, base, strict=True)):
            own = objective.rows(row)
            with about(row, len(pixels)):
                occlusions = Occlusions(net, picture[None], own.layers, squares, occluder[None], amount)
                maps.append(_map_of(occlusions, own, squares, clean, approximate))
    return torch.stack(maps)[:, None]


def _map_of(occlusions: Occlusions, own: Objective, squares: Occluder, clean: Tensor, approximate: bool) -> Tensor:
    """Return the map (h, w) of one picture, whose score is `clean`."""
    report(occlusions)

    def scores(only: np.ndarray | None = None) -> Tensor:
        return occluded_scores(occlusions, own.score, "occlusion", only)

    occluded = _coarse_to_fine(scores, squares, clean) if approximate else scores()
    return mean_over_squares(clean - occluded, squares)


def squares_over(pixels: Tensor, patch: int | None, stride: int | None) -> Occluder:
    """Return the squares that cover pixels (n, c, h, w). Raises OptionError when the patch does not fit."""
    height, width = pixels.shape[-2:]
    patch = patch if patch is not None else max(1, round(min(height, width) / 7))
    stride = stride if stride is not None else max(1, patch // 2)
    if not 1 <= patch <= min(height, width):
        raise OptionError(
            f"a patch of {patch} px does not fit a picture of {height}x{width}: give 1 to {min(height, width)}"
        )
    return Occluder(height, width, patch, stride)


def mean_over_squares(drops: Tensor, squares: Occluder) -> Tensor:
    """Return the mean over the squares that cover a pixel, (squares,) to (h, w); 0 where none does."""
    total = drops.new_zeros(squares.height, squares.width)
    count = torch.zeros_like(total)
    for number, drop in enumerate(drops):
        rows, columns = squares.box(number)
        total[rows, columns] += drop
        count[rows, columns] += 1
    return total / count.clamp(min=1)


def _coarse_to_fine(scores: Callable[[np.ndarray], Tensor], squares: Occluder, clean: Tensor) -> Tensor:
    """Compute a coarse grid, then where the drop is largest; interpolate the rest and state the error."""
    rows, columns = (np.unique(np.r_[0:n:_COARSE, n - 1]) for n in squares.grid)
    first = (rows[:, None] * squares.grid[1] + columns).reshape(-1)
    coarse = scores(first)
    guess = _interpolated(coarse[torch.from_numpy(first)].view(len(rows), len(columns)), rows, columns, squares.grid)
    # Computed squares rank by their scores, the others by interpolated ones.
    result = torch.where(coarse.isnan(), guess, coarse)
    rest = torch.from_numpy(np.setdiff1d(np.arange(len(result)), first))
    drops = (clean - result)[rest]
    chosen = rest[drops.argsort(descending=True, stable=True)[: round(_REFINED * len(result))]]
    left = np.setdiff1d(rest.numpy(), chosen.numpy())
    tried = left[np.unique(np.linspace(0, len(left) - 1, min(_TRIED, len(left))).astype(int))] if len(left) else left
    fine = scores(np.sort(np.concatenate([chosen.numpy(), tried])))
    off = (fine - guess)[torch.from_numpy(tried)].abs()
    result = torch.where(fine.isnan(), result, fine)
    computed = len(first) + len(chosen) + len(tried)
    error = (
        f"; error on {len(tried)} others: {off.mean():.2g} on average, {off.max():.2g} at most" if len(tried) else ""
    )
    say(f"approximate: {computed} of {len(result)} squares computed, the rest interpolated{error}")
    return result


def _interpolated(values: Tensor, rows: np.ndarray, columns: np.ndarray, grid: tuple[int, int]) -> Tensor:
    """Interpolate linearly between computed squares, (some rows, some columns) to (all squares,)."""
    down, across = (
        torch.from_numpy(np.stack([np.interp(np.arange(count), at, line) for line in np.eye(len(at))])).to(values)
        for at, count in ((rows, grid[0]), (columns, grid[1]))
    )
    return (down.T @ values @ across).reshape(-1)
