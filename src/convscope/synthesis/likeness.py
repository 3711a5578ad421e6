"""Likeness: how near a picture that is being made comes to another one, as a layer sees both.

Content: the activity itself (Mahendran & Vedaldi 2014, arXiv:1412.0035; Gatys et al. 2015, arXiv:1508.06576, eq. 1).
Style: which channels are active together, wherever (eq. 3-5). Both are divided by what the target itself weighs, so
that a layer's cost is 1 for a picture that excites nothing, and weights mean the same on any network. Costs are
positive: subtract them.
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
        spatial_only = [other.name for other in net.layers.values() if other.spatial and other.leaf]
        raise LayerError(
            f"{purpose} needs a layer with places, and {layer.name or 'the output'} of {net.name} has shape "
            f"{layer.shape}: name another, as {nearest(name, spatial_only)}"
        )
    return layer


def stages(net: Net) -> list[Layer]:
    """Return the first rectified layer of every size that a picture goes through, finest first.

    On VGG these are relu1_1, relu2_1, ..., Gatys et al.'s choice for style.
    """
    return [same[0] for same in stage_layers(net)]


def stage_layers(net: Net) -> list[list[Layer]]:
    """Return the rectified layers of every size that a picture goes through, finest first.

    A block that keeps its size, as SqueezeNet's fire module, stands for the layers inside it. A network whose
    rectifiers are not modules is read at its blocks, and one without blocks at the last layer of every size.
    """
    placed = [layer for layer in net.layers.values() if layer.spatial and layer.name and min(layer.grid) > 1]
    leaves = [layer for layer in placed if layer.leaf]
    # A Sequential is a list of layers: it stands for its last one only.
    inside = {layer: _inside(layer, leaves) for layer in placed if layer.kind != "Sequential"}
    whole = {layer: parts for layer, parts in inside.items() if {part.grid for part in parts} == {layer.grid}}
    found = [layer for layer, parts in whole.items() if any(map(_rectifies, parts))]
    found = found or [layer for layer in whole if not layer.leaf]
    found = found or list({layer.grid: layer for layer in leaves}.values())
    sizes = [[layer for layer in found if layer.grid == size] for size in dict.fromkeys(layer.grid for layer in leaves)]
    return [_outermost(same) for same in sizes if same]


def _inside(layer: Layer, leaves: list[Layer]) -> list[Layer]:
    if layer.leaf:
        return [layer]
    module = layer.name.partition("#")[0]
    return [leaf for leaf in leaves if leaf.name.startswith(f"{module}.")]


def _rectifies(layer: Layer) -> bool:
    return "LU" in layer.kind or layer.kind in ("Hardswish", "Mish")


def _outermost(layers: list[Layer]) -> list[Layer]:
    depth = min(layer.name.count(".") for layer in layers)
    return [layer for layer in layers if layer.name.count(".") == depth]


def scale_to(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring pictures (n, c, h, w) to another (height, width), smoothly and without new frequencies."""
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    scaled = torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False)
    return scaled.clamp(0, 1)
