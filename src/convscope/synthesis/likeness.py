"""Distances between what a layer computes for two pictures: of content and of style, as objective terms.

Content: the activity itself (Mahendran & Vedaldi 2014, arXiv:1412.0035; Gatys et al. 2015, arXiv:1508.06576, eq. 1).
Style: correlations between channels, wherever (eq. 3-5). Both are divided by the target's squared norm, so that
a layer costs 1 for a picture without activity, and weights mean the same on any network. Costs are positive: subtract
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..net import Net

_TINY = 1e-12


def gram(activity: Tensor) -> Tensor:
    """Return the Gram matrix of channels, (n, c, h, w) to (n, c, c): F F^T / (c h w).

    Gatys et al. 2015, eq. 3, divided by the number of values, so that sizes can be compared.
    """
    flat = activity.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


@dataclass(frozen=True, eq=False)
class Content:
    """||A - target||^2 / ||target||^2 for a layer's activity A, per picture."""

    layer: str
    target: Tensor

    def read(self, activity: Tensor) -> Tensor:
        """Return the cost of each picture, (n, ...) to (n,)."""
        distance = (activity - self.target).square().flatten(1).sum(1)
        return distance / (self.target.square().flatten(1).sum(1) + _TINY)

    def __str__(self) -> str:
        return f"content({self.layer})"

    def title(self, net: Net) -> str:
        """Describe the term in plain words."""
        return f"content in {self.layer or 'the output'}"


@dataclass(frozen=True, eq=False)
class Style:
    """||G - target||^2 / ||target||^2 for a layer's Gram matrix G, per picture."""

    layer: str
    target: Tensor

    def read(self, activity: Tensor) -> Tensor:
        """Return the cost of each picture, (n, c, h, w) to (n,)."""
        distance = (gram(activity) - self.target).square().flatten(1).sum(1)
        return distance / (self.target.square().flatten(1).sum(1) + _TINY)

    def __str__(self) -> str:
        return f"style({self.layer})"

    def title(self, net: Net) -> str:
        """Describe the term in plain words."""
        return f"style in {self.layer}"


def scale_to(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale pictures (n, c, h, w) to another (height, width), bicubic and antialiased, in [0, 1]."""
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    scaled = torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False)
    return scaled.clamp(0, 1)
