"""Maps without a network, beside which a method's localisation is read: the centre, the picture's edges, random."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Reference = Callable[[Tensor, Sequence[int], int], Tensor]
"""Pixels (n, c, h, w), the pictures' numbers in the data set and a seed to maps (n, 1, h, w)."""


def centre(pixels: Tensor, numbers: Sequence[int], seed: int) -> Tensor:
    """Return a Gaussian in the middle, its standard deviation a quarter of the sides."""
    height, width = pixels.shape[-2:]
    y, x = ((torch.arange(extent) + 0.5) / extent - 0.5 for extent in (height, width))
    return torch.exp(-8 * (y[:, None] ** 2 + x[None] ** 2)).to(pixels).expand(len(pixels), 1, -1, -1)


def edges(pixels: Tensor, numbers: Sequence[int], seed: int) -> Tensor:
    """Return the magnitude of the grey picture's gradient."""
    y, x = torch.gradient(pixels.mean(1, keepdim=True), dim=(2, 3))
    return (y**2 + x**2).sqrt()


def uniform_noise(pixels: Tensor, numbers: Sequence[int], seed: int) -> Tensor:
    """Return random numbers that depend on the seed and on the picture's number, not on its batch."""
    noise = [
        torch.rand(1, *pixels.shape[-2:], generator=torch.Generator().manual_seed(seed * 1_000_003 + number))
        for number in numbers
    ]
    return torch.stack(noise).to(pixels)


REFERENCES: dict[str, Reference] = {"centre": centre, "edges": edges, "random": uniform_noise}
