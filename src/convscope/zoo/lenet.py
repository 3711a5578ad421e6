"""LeNet-5 (LeCun et al. 1998): as published, and with the rectifiers and max pooling that deconvnets need."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize


def lenet5(classes: int = 10) -> nn.Sequential:
    """Build LeNet-5 with rectifiers and max pooling for 28x28 grey digits: 61,706 parameters."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(16, 120, 5),
            relu3=nn.ReLU(),
            flatten=nn.Flatten(),
            fc4=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc5=nn.Linear(84, classes),
        )
    )


def lenet5_1998() -> nn.Sequential:
    """Build LeNet-5 as published, for 32x32 grey digits: 60,000 trainable parameters, 340,908 connections.

    Its output is the negative of the paper's: the larger, the nearer to the digit's code.
    """
    partial = nn.Conv2d(6, 16, 5)
    parametrize.register_parametrization(partial, "weight", Partial())
    return nn.Sequential(
        OrderedDict(
            c1=nn.Conv2d(1, 6, 5),
            squash1=Squash(),
            s2=Subsample(6),
            squash2=Squash(),
            c3=partial,
            squash3=Squash(),
            s4=Subsample(16),
            squash4=Squash(),
            c5=nn.Conv2d(16, 120, 5),
            squash5=Squash(),
            flatten=nn.Flatten(),
            f6=nn.Linear(120, 84),
            squash6=Squash(),
            output=Codes(),
        )
    )


# Table I: which maps of S2 each map of C3 reads.
_READS = (
    *((k, (k + 1) % 6, (k + 2) % 6) for k in range(6)),
    *((k, (k + 1) % 6, (k + 2) % 6, (k + 3) % 6) for k in range(6)),
    *((k, (k + 1) % 6, (k + 3) % 6, (k + 4) % 6) for k in range(3)),
    tuple(range(6)),
)


class Partial(nn.Module):
    """Keep only the 60 kernels of Table I of a (16, 6, 5, 5) weight; the others are zero and not trained."""

    def __init__(self) -> None:
        super().__init__()
        pairs = [(above, below) for above, reads in enumerate(_READS) for below in reads]
        self.pairs = tuple(torch.tensor(pairs).T)

    def forward(self, kernels: Tensor) -> Tensor:
        weight = kernels.new_zeros(16, 6, 5, 5)
        return weight.index_put(self.pairs, kernels)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight[self.pairs]


class Squash(nn.Module):
    """Squash as the paper does: 1.7159 tanh(2/3 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsample(nn.Module):
    """Add 2x2 neighbours, times one trained coefficient and plus one bias per map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return 4 * F.avg_pool2d(x, 2) * self.coefficient + self.bias


class Codes(nn.Module):
    """Measure the squared distance from the 84 values of F6 to each digit's fixed code, its 7x12 drawing."""

    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        drawn = [[1.0 if dot == "#" else -1.0 for dot in "".join(rows)] for rows in _drawn()]
        self.register_buffer("codes", torch.tensor(drawn), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.codes).square().sum(2)


def _drawn() -> list[list[str]]:
    """Cut the ten drawings, 7 wide and 12 high, out of the sheet below."""
    rows = [line.split() for line in _SHEET.strip().splitlines()]
    return [[row[digit] for row in rows] for digit in range(10)]


# The paper prints its codes as a figure only; these are drawn anew, in the same manner.
_SHEET = """
..###.. ...##.. .#####. .#####. .....#. ####### ..####. ####### ..###.. .#####.
.#...#. ..###.. ##...## ##...## ....##. ##..... .##.... .....## .#...#. ##...##
##...## .####.. .....## .....## ...###. ##..... ##..... ....##. ##...## ##...##
##...## ...##.. .....## .....## ..##.#. ##..... ##..... ....##. ##...## ##...##
##...## ...##.. ....##. ....##. .##..#. #####.. ##.###. ...##.. .#...#. ##...##
##...## ...##.. ...##.. ..###.. ##...#. ##..##. ###..## ...##.. ..###.. .######
##...## ...##.. ..##... ....##. ####### .....## ##...## ..##... .#...#. ..##.##
##...## ...##.. .##.... .....## .....#. .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## .....#. .....## ##...## .##.... ##...## .....##
##...## ...##.. ##..... .....## .....#. ##...## ##...## .##.... ##...## .....##
.#...#. ...##.. ##..... ##...## .....#. ##..##. .##.##. ##..... .#...#. ....##.
..###.. .###### ####### .#####. .....#. .####.. ..###.. ##..... ..###.. .####..
"""
