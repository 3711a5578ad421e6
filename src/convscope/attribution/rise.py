"""RISE: randomized input sampling for explanation; the score of randomly masked pictures, averaged by pixel.

Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models" (arXiv:1806.07421, sec.
3). A mask M in [0, 1] keeps the picture where it is one. Masks are drawn as s x s cells, each kept with probability p,
enlarged bilinearly to (s + 1) cells of C = ceil(side / s) pixels and cropped at a random offset below C pixels. The
paper's map is the mean score of the masks that show a pixel (eq. 6),

    S(i) = 1 / (N p) sum_k f(x, M_k) M_k(i),

here with a choice of baseline for hidden pixels (the paper: black). For an additive score, f = sum_j v_j M_j with
independent M_j, its expectation is v_i + p sum_{j != i} v_j: a pixel's own contribution is lost in that of all others,
and a constant added to the score changes the map. The regression of the score on the mask,

    S(i) = Cov(f, M(i)) / Var(M(i)),

is v_i there, has a sign, and is in units of the score: how much showing the neighbourhood of a pixel, about a cell,
adds to it. Both come from the same three sums. The variance of the masks is known, so that the estimate has no bias: a
mask is A_y G A_x^T, where G holds the cells and the rows of A the weights of the interpolation, and its variance at
(y, x) is p (1 - p) E|A_y|^2 E|A_x|^2, the mean taken over the random cuts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from numpy.random import Philox
from torch import Tensor
from torch.nn import functional as F

from ..baselines import HELP, baseline_pixels
from ..batching import in_batches
from ..context import say
from ..errors import OptionError
from ..net import Net
from ..objectives import Objective
from ..options import Range
from ..registry import method


@method("RISE", paper="Petsiuk et al. 2018, arXiv:1806.07421, sec. 3", signed=True)
def rise(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    masks: Annotated[int, "number of random masks (the paper: 4000 for VGG-16, 8000 for ResNet-50)", Range(2)] = 2000,
    cells: Annotated[int, "number of mask cells along each side of the picture", Range(1)] = 7,
    keep: Annotated[float, "probability that a cell is shown", Range(0, 1)] = 0.5,
    centred: Annotated[
        bool, "regress the score on the masks, which gives a sign; False: the paper's mean of score times mask"
    ] = True,
    baseline: Annotated[str, HELP] = "mean",
    seed: Annotated[int, "random seed of the masks"] = 0,
    batch: Annotated[int, "masked pictures per forward pass; halved when memory runs out", Range(1)] = 64,
) -> Tensor:
    """RISE: the effect on the score of showing each pixel, estimated from randomly masked pictures.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), in score: positive where showing raises it. Needs no gradient, and
    no more memory for more masks. The paper asks for a probability, p(class). Raises OptionError where keep is
    0 or 1, or for more cells than pixels.
    """
    samples = Masks(tuple(pixels.shape[-2:]), cells, keep, seed, pixels)
    with torch.inference_mode():
        hidden = baseline_pixels(net, pixels, baseline, seed=seed)
        apart = pixels - hidden
        whole = objective(net, pixels)

        def work(piece: slice) -> tuple[int, Tensor, Tensor]:
            shown = samples[piece]
            scores = [
                objective.rows(row)(net, torch.addcmul(under, shown[:, None].to(pixels), over))
                for row, (under, over) in enumerate(zip(hidden, apart, strict=True))
            ]
            return piece.start, torch.stack(scores, 1).to(shown) - whole.to(shown), shown.flatten(1) - keep

        sums = _Sums(samples.variance.new_zeros(2, 1 + len(pixels), 1 + samples.variance.numel()))
        for start, scores, shown in in_batches(work, masks, batch, "rise"):
            sums.add(start, scores, shown)
        maps = (sums.covariances() / samples.variance.flatten()) if centred else sums.averages(whole, keep)
        say(f"{masks} masks of {cells} x {cells} cells, {keep:g} of them shown, baseline {baseline}")
        say([_agreement(maps[:, row : row + 1], masks) for row in range(len(pixels))])
    return maps[0].clone().unflatten(-1, pixels.shape[-2:])[:, None]


@dataclass
class _Sums:
    """Sums over the even and the odd masks: of 1, scores, masks and their products, as a table (2, 1 + n, 1 + h * w).

    The agreement of the two halves shows whether there are enough masks. Scores are relative to that of the whole
    picture, masks to their mean, so that the sums lose nothing to rounding.
    """

    table: Tensor

    def add(self, start: int, scores: Tensor, masks: Tensor) -> None:
        """Add the scores (b, n) of consecutive masks (b, h * w), the first of which has the number `start`."""
        scores, masks = (F.pad(values, (1, 0), value=1.0) for values in (scores, masks))
        for half, table in enumerate(self.table):
            these = slice((start + half) % 2, None, 2)
            table.addmm_(scores[these].T, masks[these])

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        table = torch.cat([self.table.sum(0, keepdim=True), self.table])
        return table[:, :1, :1], table[:, 1:, :1], table[:, :1, 1:], table[:, 1:, 1:]

    def covariances(self) -> Tensor:
        """Return the covariance of scores and masks over all masks and over each half, (3, n, h * w)."""
        count, scores, masks, products = self._parts()
        return (products - scores * masks / count) / (count - 1).clamp(min=1)

    def averages(self, whole: Tensor, keep: float) -> Tensor:
        """Return eq. 6 over all masks and over each half, (3, n, h * w)."""
        count, scores, masks, products = self._parts()
        return (products + keep * scores + whole[:, None] * (masks + keep * count)) / (count * keep)


_ENOUGH = 0.9
"""A correlation of two halves of the masks above which more masks change little."""


def _agreement(maps: Tensor, masks: int) -> str:
    """Say how well two halves of the masks agree for a picture, and how many masks would be enough."""
    whole, even, odd = maps / maps[0].abs().amax(-1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    if not whole.any():
        return "the score does not change with the masks"
    likeness = float(F.cosine_similarity(even - even.mean(-1, True), odd - odd.mean(-1, True), -1).min())
    noise = float((even - odd).square().mean(-1).sqrt().max()) / 2
    agreement = f"two halves of the masks agree by r = {likeness:.2f}, noise {noise:.0%} of the strongest value"
    if likeness >= _ENOUGH:
        return agreement
    # The noise's variance falls as 1 / masks: r = signal / (signal + noise).
    enough = masks * (1 / max(likeness, 0.05) - 1) / (1 / _ENOUGH - 1)
    return f"{agreement}: too few for fine detail, masks={math.ceil(enough / 100) * 100} would reach {_ENOUGH}"


class Masks:
    """Random masks for pictures of a (height, width), made on access; mask i depends on the seed and i alone.

    `masks[3:8]` is a tensor (5, h, w) in [0, 1] on the device of `like`; `variance` (h, w) is that of every pixel.
    """

    def __init__(self, size: tuple[int, ...], cells: int, keep: float, seed: int, like: Tensor) -> None:
        if not 1 <= cells <= min(size):
            raise OptionError(
                f"{cells} cells do not fit a picture of {size[0]}x{size[1]}: rise(..., cells={min(7, *size)})"
            )
        if not 0 < keep < 1:
            raise OptionError(f"keep is a probability between 0 and 1, not {keep}: rise(..., keep=0.5)")
        self.cells, self.keep, self.seed = cells, keep, seed
        kind = torch.promote_types(like.dtype, torch.float32)
        self.cuts = [_cuts(side, cells).to(like.device, kind) for side in size]
        rows, columns = (cuts.square().sum(2).mean(0) for cuts in self.cuts)
        self.variance = keep * (1 - keep) * rows[:, None] * columns

    def __getitem__(self, which: slice) -> Tensor:
        # A counter-based generator: any mask can be drawn without those before it, alike on every device.
        blocks = math.ceil((self.cells**2 + 2) / 4)
        numbers = Philox(key=self.seed % 2**64, counter=which.start * blocks)
        random = numbers.random_raw((which.stop - which.start) * 4 * blocks)
        uniform = torch.from_numpy((random >> 11) * 2.0**-53).view(-1, 4 * blocks)
        rows, columns = self.cuts
        grid = (uniform[:, 2 : self.cells**2 + 2] < self.keep).to(rows).view(-1, self.cells, self.cells)
        y, x = ((at * len(cuts)).long().to(cuts.device) for at, cuts in zip(uniform.T, self.cuts, strict=False))
        return rows[y] @ grid @ columns[x].mT


def _cuts(side: int, cells: int) -> Tensor:
    """Return the weights of the bilinear interpolation for every cut, (cuts, side, cells)."""
    cell = math.ceil(side / cells)
    at = (torch.arange((cells + 1) * cell, dtype=torch.float64) + 0.5) * cells / ((cells + 1) * cell) - 0.5
    weights = (1 - (at.clamp(0, cells - 1)[:, None] - torch.arange(cells)).abs()).clamp(min=0)
    return weights.unfold(0, side, 1)[:cell].mT.contiguous()
