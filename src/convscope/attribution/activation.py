"""Mean activation: where a layer is active, whatever the objective.

Zagoruyko and Komodakis, "Paying more attention to attention" (arXiv:1612.03928, sec. 3.1): flatten a layer's activity
A (c, h, w) along its channels by the sum of magnitudes, F(A) = sum_k |A_k|. Here it is the mean, so that layers with
different numbers of channels can be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..context import say
from ..layers import last_spatial_layer, layers_named
from ..net import Net
from ..objectives import Objective
from ..registry import method
from ..tapping import tap
from .cam_layers import Align, Layers, fuse


@method(
    "Mean activation",
    paper="Zagoruyko & Komodakis 2017, arXiv:1612.03928, sec. 3.1",
    signed=False,
    linear=False,
    unit="activity",
    caveat="does not depend on the objective: the same map for every class",
)
def activation(
    net: Net, pixels: Tensor, objective: Objective, *, layer: Layers = None, align: Align = "field"
) -> Tensor:
    """Mean magnitude of a layer's activity over its channels.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), interpolated from the layer's grid, in the layer's own units, never
    negative. Raises LayerError when the layer has no spatial positions.
    """
    layers = [last_spatial_layer(net)] if layer is None else layers_named(net, layer)
    with torch.inference_mode():
        # The objective is not used, but its layers run: a network that fails on this picture fails here as elsewhere.
        readings = tap(net, pixels, (*(one.name for one in layers), *objective.layers))
        maps = [(one, one.by_position(readings[one.name]).abs().mean(1, keepdim=True)) for one in layers]
        active = torch.stack([map_.flatten(1).any(1) for _, map_ in maps]).any(0).tolist()
        say(["" if any_ else "no unit of this layer is active in this picture" for any_ in active])
        return fuse(net, maps, pixels, align).clone()
