"""Occlusion square by square and pixel by pixel (Zeiler & Fergus, arXiv:1311.2901v3, sec. 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def starts(extent: int, patch: int, stride: int) -> list[int]:
    """Return where squares begin: at the border, and on until one reaches the other border or beyond."""
    edges = [0]
    while edges[-1] + patch < extent:
        edges.append(edges[-1] + stride)
    return edges


def occlusion_by_loops(
    score: Callable[[Tensor], Tensor], picture: Tensor, *, patch: int, stride: int, colour: Sequence[float]
) -> Tensor:
    """For every pixel of a picture (c, h, w): the mean drop of the score over the squares that hide it."""
    _, height, width = picture.shape
    clean = float(score(picture[None]))
    drops: list[list[list[float]]] = [[[] for _ in range(width)] for _ in range(height)]
    for top in starts(height, patch, stride):
        for left in starts(width, patch, stride):
            occluded = picture.clone()
            inside = [
                (y, x) for y in range(top, min(top + patch, height)) for x in range(left, min(left + patch, width))
            ]
            for y, x in inside:
                for channel, value in enumerate(colour):
                    occluded[channel, y, x] = value
            drop = clean - float(score(occluded[None]))
            for y, x in inside:
                drops[y][x].append(drop)
    return torch.tensor([[sum(d) / len(d) if d else 0.0 for d in row] for row in drops], dtype=picture.dtype)
