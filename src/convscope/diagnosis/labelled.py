"""Samples of pictures with labels, and what a network says of pictures that were changed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..predictions import answers
from .evidence import Evidence
from .finding import Missing

MOST = 512
"""Pictures of a sample, where they are small."""

_VALUES = 2**25
"""Values of pixels in a sample, at most: 223 pictures of 224 x 224."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Some labelled pictures: their numbers, pixels (n, c, h, w), classes (n,), and whether they are of training."""

    numbers: tuple[int, ...]
    pixels: Tensor
    truths: Tensor
    train: bool = False

    def __len__(self) -> int:
        return len(self.numbers)

    def only(self, rows: Tensor) -> Sample:
        """Return those of some rows (k,)."""
        return Sample(
            tuple(self.numbers[row] for row in rows.tolist()), self.pixels[rows], self.truths[rows], self.train
        )


def labelled(evidence: Evidence, count: int = MOST, *, train: bool = False, least: int = 2) -> Sample:
    """Draw pictures whose class is known. Raises Missing where none is, or all belong to fewer than `least` classes."""
    observed = evidence.train if train else evidence.data
    _ = observed.known  # raises Missing
    height, width = evidence.net.size
    room = max(2, _VALUES // (evidence.net.channels * height * width))
    numbers, pixels = evidence.sample(min(count, room), train=train)
    truths = [observed.predictions[number].truth for number in numbers]
    rows = [row for row, truth in enumerate(truths) if truth is not None]
    found = sorted({truth for truth in truths if truth is not None})
    if len(found) < least:
        raise Missing(
            f"it compares classes, and the pictures all belong to one, {observed.classes[found[0]]!r}: give others too"
            if found
            else "it needs labels, and the pictures that were drawn have none"
        )
    chosen = torch.tensor([truth for truth in truths if truth is not None])
    return Sample(tuple(numbers[row] for row in rows), pixels[rows], chosen, train)


def probabilities(evidence: Evidence, pixels: Tensor) -> Tensor:
    """Return what the network says of pixels (n, c, h, w): (n, classes), on the CPU."""
    with evidence.net.held():
        said = torch.cat([answers(evidence.net, batch)[1].cpu() for batch in evidence.batches(pixels)])
    return torch.cat([1 - said, said], 1) if said.shape[1] == 1 else said
