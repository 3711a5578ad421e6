"""Likeness: how near a picture that is being made comes to another one, as a layer sees both.

Content: the activity itself (Mahendran & Vedaldi 2014, arXiv:1412.0035; Gatys et al. 2015, arXiv:1508.06576, eq. 1). Style: which
channels are active together, wherever (eq. 3-5). Both are divided by what the target itself weighs, so that a layer's cost is 1 for a
picture that excites nothing, and weights mean the same on any network. Costs are positive: subtract them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import LayerError, nearest
from ..net import Layer, Net

_TINY = 1e-12


def gram(activity: Tensor) -> Tensor:
    """Return how channels are active together, (n, c, h, w) to (n, c, c): F F^T / (c h w).

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
        """Return the cost of every picture, (n, ...) to (n,)."""
        away = (activity - self.target).square().flatten(1).sum(1)
        return away / (self.target.square().flatten(1).sum(1) + _TINY)

    def __str__(self) -> str:
        return f"content({self.layer})"

    def title(self, net: Net) -> str:
        """Say in plain words what is asked for."""
        return f"likeness in {self.layer or 'the output'}"


@dataclass(frozen=True, eq=False)
class Style:
    """||G - target||^2 / ||target||^2 for a layer's Gram matrix G, per picture."""

    layer: str
    target: Tensor

    def read(self, activity: Tensor) -> Tensor:
        """Return the cost of every picture, (n, c, h, w) to (n,)."""
        away = (gram(activity) - self.target).square().flatten(1).sum(1)
        return away / (self.target.square().flatten(1).sum(1) + _TINY)

    def __str__(self) -> str:
        return f"style({self.layer})"

    def title(self, net: Net) -> str:
        """Say in plain words what is asked for."""
        return f"style in {self.layer}"


def placed_layer(net: Net, name: str, purpose: str) -> Layer:
    """Return a layer with channels and places, or raise LayerError that says what it is needed for."""
    layer = net.layer(name)
    if not layer.spatial:
        with_places = [other.name for other in net.layers.values() if other.spatial and other.leaf]
        raise LayerError(
            f"{purpose} needs a layer with places, and {layer.name or 'the output'} of {net.name} has shape "
            f"{layer.shape}: name another, as {nearest(name, with_places)}"
        )
    return layer


def stages(net: Net) -> list[Layer]:
    """Return the first rectified (or last) layer of every size that a picture goes through, finest first.

    On VGG these are relu1_1, relu2_1, ..., Gatys et al.'s choice for style.
    """
    placed = [layer for layer in net.layers.values() if layer.spatial and layer.leaf and min(layer.grid) > 1]
    found: list[Layer] = []
    for size in dict.fromkeys(layer.grid for layer in placed):
        same = [layer for layer in placed if layer.grid == size]
        rectified = [layer for layer in same if "ReLU" in layer.kind or "GELU" in layer.kind or "SiLU" in layer.kind]
        found.append((rectified or same[-1:])[0])
    return found


def scale_to(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring pictures (n, c, h, w) to another (height, width), smoothly and without new frequencies."""
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    scaled = torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False)
    return scaled.clamp(0, 1)
