"""Prints: what pictures of a class have in common at fixed places, such as a watermark, a border or a letter.

No two objects lie alike on their pixels; a mark does. Of pictures without their coarse parts, what the class's have on
average and others do not is taken as a template, and every picture is compared with the template of the others. Where a
mark is in some of them, those agree with it many times better than any other picture does; of objects that are only
like one another, a few agree a little better.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_COARSE = 5
"""Pixels of the mean that is taken off, so that light and shade of backgrounds agree with nothing."""

_NOISE = 0.03
"""What is added to the deviation of every pixel, in units of white: none is weighed for being the same everywhere."""

_ROUNDS = 3
_SELDOM = 0.01
"""The share of other classes' pictures that may agree as well as one that has the print."""

_APART = 3.0
"""How many times better the middle one of those that have it agrees with the print than the best of the others."""

_HALF = 0.5
"""The agreement, 1 for a picture that has just the print, that the middle one of those that have it must reach."""

_OPAQUE = 0.5
"""The share of other pictures' deviation that must be gone where a print covers what is behind it."""

_FEWEST = 10
"""Pictures that have a print, at least: a few objects may lie alike by chance, digits most of all."""


@dataclass(frozen=True, eq=False)
class Print:
    """A print of class `decides`: what it adds (c, h, w), where it covers what is behind, and `rows` that have it.

    `mean` is the mean of those, `shift` that less the mean of pictures of other classes and the tint, `cover` 0 to 1.
    """

    mean: Tensor
    shift: Tensor
    cover: Tensor
    rows: Tensor
    decides: int

    def into(self, pixels: Tensor) -> Tensor:
        """Return pictures (n, c, h, w) with the print put in."""
        return ((1 - self.cover) * (pixels + self.shift) + self.cover * self.mean).clamp(0, 1)

    def without(self, pixels: Tensor, others: Tensor) -> Tensor:
        """Return pictures (n, c, h, w) with the print taken out; what it covered comes from others (n, c, h, w)."""
        return ((1 - self.cover) * (pixels - self.shift) + self.cover * others).clamp(0, 1)

    def had(self, own: Tensor, others: Tensor) -> Tensor:
        """Return the rows of the class's pictures that have the print; they are those that it was found in."""
        return self.rows

    @property
    def fine(self) -> Tensor:
        """What the print adds without its coarse parts, (c, h, w)."""
        return _fine(self.shift[None])[0]


def printed(own: Tensor, others: Tensor, decides: int) -> Print | None:
    """Return what pictures of a class (n, c, h, w) have in common that others have not; None where there is nothing."""
    if min(len(own), len(others)) < 2 * _FEWEST or min(own.shape[2:]) <= _COARSE:
        return None
    mine, theirs = _fine(own).flatten(1), _fine(others).flatten(1)
    middle = theirs.mean(0)
    mine, theirs = mine - middle, theirs - middle
    weight = (theirs.std(0) + _NOISE).square().reciprocal()
    have = torch.ones(len(own), dtype=torch.bool)
    agreed, limit = torch.zeros(len(own)), 0.0
    for _ in range(_ROUNDS):
        count, total = int(have.sum()), mine[have].sum(0)
        # A picture is compared with what the others have in common.
        rest = torch.where(have[:, None], (total - mine) / (count - 1), total / count)
        agreed = _agreement(mine, rest, weight)
        limit = float(_agreement(theirs, (total / count)[None], weight).quantile(1 - _SELDOM))
        have = agreed > limit
        if int(have.sum()) < _FEWEST:
            return None
    middling = float(agreed[have].median())
    if middling < max(_HALF, _APART * limit):
        return None
    rows = (agreed > max(limit, middling / 2)).nonzero().flatten()
    mean, elsewhere = own[rows].mean(0), others.mean(0)
    covered = 1 - own[rows].std(0) / (others.std(0) + 1e-3)
    cover = torch.where(covered > _OPAQUE, covered, torch.zeros(()))
    shift = mean - elsewhere
    shift = shift - shift.flatten(1).median(1).values[:, None, None]  # the tint of the class is no print
    return Print(mean, shift, cover, rows, decides)


def _fine(pixels: Tensor) -> Tensor:
    side = _COARSE // 2
    return pixels - F.avg_pool2d(F.pad(pixels, (side,) * 4, mode="reflect"), _COARSE, 1)


def _agreement(pixels: Tensor, template: Tensor, weight: Tensor) -> Tensor:
    """Return how far pictures (n, d) agree with templates (n or 1, d): 1 for one that is the template itself."""
    strength = (template * weight * template).sum(1)
    return (pixels * weight * template).sum(1) / strength.clamp(min=1e-12)


# Tints --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tint:
    """What the mean colour of a class's pictures differs by from that of others, (c, 1, 1)."""

    shift: Tensor
    decides: int

    def into(self, pixels: Tensor) -> Tensor:
        """Return pictures (n, c, h, w) in the tint."""
        return (pixels + self.shift).clamp(0, 1)

    def without(self, pixels: Tensor, others: Tensor) -> Tensor:
        """Return pictures (n, c, h, w) with the tint taken off."""
        return (pixels - self.shift).clamp(0, 1)

    def had(self, own: Tensor, others: Tensor) -> Tensor:
        """Return the rows of pictures whose mean colour is more of the tint than that of 99% of others."""
        mine, theirs = own.mean((2, 3)), others.mean((2, 3))
        spread = torch.cov(theirs.T).reshape(mine.shape[1], -1) + 1e-6 * torch.eye(mine.shape[1])
        across = torch.linalg.solve(spread, self.shift.flatten())
        return (mine @ across > (theirs @ across).quantile(1 - _SELDOM)).nonzero().flatten()


def tinted(own: Tensor, others: Tensor, decides: int) -> Tint:
    """Return how pictures of a class (n, c, h, w) are tinted, against those of others."""
    return Tint((own.mean((0, 2, 3)) - others.mean((0, 2, 3)))[:, None, None], decides)
