"""Class activation maps: which places of a late layer speak for the question.

Selvaraju et al., "Grad-CAM" (arXiv:1610.02391, sec. 3): weight each channel of a layer by the mean of the question's
gradient over its places, alpha_k = 1/Z sum_ij dS/dA^k_ij, and keep what is positive, L = max(0, sum_k alpha_k A^k).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from ..errors import LayerError, OptionError
from ..net import Layer, Net
from ..objectives import Objective
from ..registry import method
from ..reporting import say
from ..tapping import tap

Align = Literal["field", "stretch"]


@method("Grad-CAM", paper="Selvaraju et al. 2017, arXiv:1610.02391, sec. 3", signed=False)
def grad_cam(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    layer: Annotated[str | None, "the layer whose places are weighed; by default the last one with places"] = None,
    align: Annotated[
        Align,
        "how the layer's grid is laid over the picture: 'field' puts each unit at the middle of its receptive field, "
        "'stretch' spreads the grid evenly, as most packages do (half a step too far right and down on ResNets)",
    ] = "field",
) -> Tensor:
    """Weigh the channels of a late layer by the question's mean gradient and keep the places that speak for it.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), interpolated from the layer's grid, in score, never negative.
    Raises LayerError when the layer has no places or the question does not depend on it.
    """
    chosen = last_places(net) if layer is None else net.layer(layer)
    activity, slope = activity_and_slope(net, pixels, objective, chosen)
    alpha = slope.mean((2, 3), keepdim=True)
    map_ = (alpha * activity).sum(1, keepdim=True).clamp(min=0)
    say(f"layer {chosen.name}, {map_.shape[-2]} x {map_.shape[-1]} places")
    if not map_.any():
        say("nothing in this layer speaks for the question: all contributions are negative or zero")
    return lay_over(map_, chosen, pixels, align)


def last_places(net: Net) -> Layer:
    """Return the last layer with places: where the last convolution's grid is last seen before it is pooled away.

    Where nearly all of the network comes after that, it is no convolutional network (a vision transformer's only
    convolution cuts the picture into patches): then the last layer with places of any kind, or LayerError.
    """
    spatial = [layer for layer in net.layers.values() if layer.spatial and min(layer.shape[1:]) > 1 and layer.name]
    convolutions = [layer for layer in spatial if layer.number is not None]
    if convolutions:
        grid = convolutions[-1].shape[1:]
        spatial = spatial if _early(net, convolutions[-1]) else [s for s in spatial if s.shape[1:] == grid]
    found = [layer for layer in spatial if "Pool" not in layer.kind]
    if not found or _early(net, found[-1]):
        raise LayerError(f"{net.name} has no late layer with places (c, h, w) that could be found: name a layer")
    return found[-1]


def _early(net: Net, layer: Layer) -> bool:
    """Whether more than four fifths of the layers with parameters come after a layer."""
    names = [other.name for other in net.layers.values() if other.parameters or other.name == layer.name]
    return names.index(layer.name) < 0.2 * (len(names) - 1)


def activity_and_slope(net: Net, pixels: Tensor, objective: Objective, layer: Layer) -> tuple[Tensor, Tensor]:
    """Return a layer's activity and the question's gradient there, both (n, c, h, w), computing nothing below it."""
    if not layer.spatial:
        raise LayerError(f"layer {layer.name!r} has shape {layer.shape}, without places: name one with shape (c, h, w)")
    with torch.inference_mode(False), torch.enable_grad():
        pixels = pixels.detach().clone()
        readings = tap(net, pixels, (layer.name, *objective.layers), leaf=layer.name)
        activity = readings[layer.name]
        score = objective.score(readings).sum()
        slope = torch.autograd.grad(score, activity, allow_unused=True)[0] if score.requires_grad else None
    if slope is None:
        raise LayerError(f"{objective} does not depend on layer {layer.name!r}: name a layer that runs before it")
    return activity.detach(), slope


def lay_over(map_: Tensor, layer: Layer, pixels: Tensor, align: Align) -> Tensor:
    """Interpolate a layer's grid (n, 1, h, w) linearly to the picture's pixels, constant beyond the outermost units."""
    if align not in ("field", "stretch"):
        raise OptionError(f"align is 'field' or 'stretch', not {align!r}")
    mixes = []
    for axis, units, extent in zip((layer.field.y, layer.field.x), map_.shape[-2:], pixels.shape[-2:], strict=True):
        step, centre = (axis.step, axis.centre) if align == "field" else (extent / units, (extent / units - 1) / 2)
        at = ((torch.arange(extent, dtype=torch.float64) - centre) / step).clamp(0, units - 1)
        distance = (at[:, None] - torch.arange(units, dtype=torch.float64)).abs()
        mixes.append((1 - distance).clamp(min=0).to(map_))
    return mixes[0] @ map_ @ mixes[1].T
