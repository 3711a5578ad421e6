"""Patches: windows of pictures that a class's score depends on most, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .evidence import Evidence
from .labelled import Sample, probabilities

_SIDE = 4
"""A patch's side is this part of the picture's."""

_WINDOWS = 3
"""Windows of a picture that are covered, one after the other."""

_EACH, _BUDGET = (4, 16), 400
"""Patches of each class, at least and at most, and of all classes together."""

_SELDOM = 0.01
"""The share of other classes' pictures that may have something as like the patch as the class's own."""

_SAME = 0.05
"""The root mean square difference, in units of white, below which a patch is the same wherever it is."""


@dataclass(frozen=True, eq=False)
class Patch:
    """A window of a picture: its content (c, h, w), where it lies, and the class that it may decide."""

    content: Tensor
    top: int
    left: int
    decides: int

    @property
    def height(self) -> int:
        return self.content.shape[1]

    @property
    def width(self) -> int:
        return self.content.shape[2]

    def into(self, pixels: Tensor) -> Tensor:
        """Return pictures (n, c, h, w) with the patch put in."""
        changed = pixels.clone()
        self.of(changed).copy_(self.content)
        return changed

    def without(self, pixels: Tensor, others: Tensor) -> Tensor:
        """Return pictures (n, c, h, w) with what others (n, c, h, w) have in its place."""
        changed = pixels.clone()
        self.of(changed).copy_(self.of(others))
        return changed

    def of(self, pixels: Tensor) -> Tensor:
        """Return what is at its place in pictures, (n, c, h, w)."""
        return pixels[:, :, self.top : self.top + self.height, self.left : self.left + self.width]

    def had(self, own: Tensor, others: Tensor) -> Tensor:
        """Return the rows of pictures that have the patch, near its place, more alike than 99% of others do."""
        return (self._nearest(own) < self._nearest(others).quantile(_SELDOM)).nonzero().flatten()

    def is_same(self, pixels: Tensor) -> bool:
        """Whether it is the same in most of the pictures (n, c, h, w): what belongs to an object never is."""
        return len(pixels) > 0 and float(self._nearest(pixels).median()) < _SAME**2

    def _nearest(self, pixels: Tensor) -> Tensor:
        """Return how far pictures are from having the patch: the mean square difference where it is least, (n,).

        It is looked for near its place; anywhere where it is the same but for a little noise.
        """
        kernel = self.content[None]
        squares = F.conv2d(pixels**2, torch.ones_like(kernel)) - 2 * F.conv2d(pixels, kernel) + (kernel**2).sum()
        squares = squares.clamp(min=0) / kernel.numel()
        rows, columns = (
            slice(max(0, at - size // 4), at + size // 4 + 1)
            for at, size in ((self.top, self.height), (self.left, self.width))
        )
        near, anywhere = (each.flatten(1).amin(1) for each in (squares[:, :, rows, columns], squares))
        return torch.where(anywhere < _SAME**2, anywhere, near)


def strongest(evidence: Evidence, sample: Sample, classes: list[int]) -> Iterator[Patch]:
    """Yield of some pictures of every class the window that costs the class most when it is covered."""
    count = min(_EACH[1], max(_EACH[0], _BUDGET // len(classes)))
    rows = torch.cat([(sample.truths == each).nonzero().flatten()[:count] for each in classes])
    some = sample.only(rows)
    height, width = (max(1, side // _SIDE) for side in some.pixels.shape[2:])
    grey = some.pixels.mean((0, 2, 3))[:, None, None].expand(-1, height, width)
    places = [_windows(each, height, width) for each in _worth(evidence, some)]
    patches = [
        [Patch(pixels[:, y : y + height, x : x + width], y, x, truth) for y, x in each]
        for pixels, truth, each in zip(some.pixels, some.truths.tolist(), places, strict=True)
    ]
    covered = torch.cat(
        [
            Patch(grey, patch.top, patch.left, 0).into(pixels[None])
            for pixels, each in zip(some.pixels, patches, strict=True)
            for patch in each
        ]
    )
    left = probabilities(evidence, covered)
    start = 0
    for each in patches:
        kept = left[start : start + len(each), each[0].decides]
        start += len(each)
        yield each[int(kept.argmin())]


def _worth(evidence: Evidence, sample: Sample) -> Tensor:
    """Return gradient times input, less the mean colour, of the class of each picture, (n, h, w), never negative."""
    found: list[Tensor] = []
    truths = iter(sample.truths.split(1))
    for batch in evidence.batches(sample.pixels):
        pixels = batch.clone().requires_grad_()
        own = torch.cat([next(truths) for _ in range(len(batch))]).to(batch.device)
        with torch.enable_grad():
            scores = evidence.net(pixels).flatten(1)
            score = scores.gather(1, own.clamp(max=scores.shape[1] - 1)[:, None]).sum()
            [gradient] = torch.autograd.grad(score, [pixels])
        middle = batch.mean((0, 2, 3), keepdim=True)
        found.append((gradient * (batch - middle)).sum(1).clamp(min=0).detach().cpu())
    return torch.cat(found)


def _windows(worth: Tensor, height: int, width: int) -> list[tuple[int, int]]:
    """Return where the windows with the largest sums lie that overlap by less than half, as (top, left)."""
    sums = F.avg_pool2d(worth[None, None], (height, width), 1)[0, 0].clone()
    found: list[tuple[int, int]] = []
    for _ in range(_WINDOWS):
        y, x = divmod(int(sums.argmax()), sums.shape[1])
        found.append((y, x))
        sums[max(0, y - height // 2) : y + height // 2 + 1, max(0, x - width // 2) : x + width // 2 + 1] = -torch.inf
        if not bool(sums.isfinite().any()):
            break
    return found
