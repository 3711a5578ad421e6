"""Maps on the grid of a layer: which layer, what it holds and what the objective asks of it, and where it lies.

The grid is that of a convolutional layer, of channels last, or of a transformer's patch tokens (`Layer.by_position`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from ..context import say
from ..errors import LayerError, OptionError
from ..layers import check_positions, independent, last_spatial_layers, layers_named
from ..net import Net
from ..objectives import Objective
from ..tapping import tap
from ..tracing import OUTPUT, Layer

Layers = Annotated[
    list[str] | str | None,
    "the layer whose places are weighed, or several, whose maps are fused: at every pixel the largest in magnitude "
    "counts, each map scaled to the same peak; by default the last layer with places",
]
Align = Annotated[
    Literal["field", "stretch"],
    "how the layer's grid is laid over the picture: 'field' puts each unit at the middle of its receptive field, "
    "'stretch' spreads the grid evenly, as most packages do (half a step too far right and down on ResNets)",
]

_FEW = 0.05
"""The share of a layer's places below which the caption says that the objective reads no more of them."""


@dataclass(frozen=True)
class Held:
    """What a layer holds for some pictures, and the objective's gradient there, both (n, channels, rows, columns)."""

    layer: Layer
    activity: Tensor
    gradient: Tensor


def held(net: Net, pixels: Tensor, objective: Objective, names: list[str] | str | None) -> list[Held]:
    """Return what the layers asked for hold, computing nothing below the first of them, in one pass for all.

    Raises LayerError when a layer has no places or the objective does not depend on it.
    """
    if names is not None:
        return _with_remark(activities_and_gradients(net, pixels, objective, layers_named(net, names)))
    layers = last_spatial_layers(net)
    if len(layers) == 1:
        return _with_remark([_held_last(net, pixels, objective, layers[0])])
    found = [one for one in activities_and_gradients(net, pixels, objective, layers) if one.gradient.any()][-1:]
    if not found:
        raise LayerError(f"{objective} asks nothing of the patches in the last layers of {net.name}: name a layer")
    return found


def _held_last(net: Net, pixels: Tensor, objective: Objective, last: Layer) -> Held:
    """Return what the last layer holds; where it is on a branch that the answer does not read, the last that is not.

    Detectors end in branches: of several scales, and of boxes beside scores.
    """
    try:
        (found,) = activities_and_gradients(net, pixels, objective, [last])
        reason = None
    except LayerError as error:
        found, reason = None, error
    if OUTPUT in objective.layers and (found is None or not found.gradient.any()):
        placed = [one for one in net.layers.values() if one.spatial and one.positions > 1 and one.leaf and one.name]
        others = _held(net, pixels, objective, [one for one in placed if "Pool" not in one.kind])
        found = next((one for one in reversed(others) if one is not None and _positions_read(one) > 1), found)
    if found is None:
        raise reason or independent(objective, last)
    return found


def _positions_read(one: Held) -> int:
    """Count the places of a layer at which the objective's gradient is not zero, in any picture."""
    return int(one.gradient.ne(0).any(1).any(0).sum())


def _with_remark(found: list[Held]) -> list[Held]:
    for one in found:
        read = _positions_read(one)
        if 0 < read < _FEW * one.layer.positions:
            say(
                f"the objective reads {read} of {one.layer.positions} places of this layer: an earlier layer shows more"
            )
    return found


def activities_and_gradients(net: Net, pixels: Tensor, objective: Objective, layers: Sequence[Layer]) -> list[Held]:
    """Return what layers hold and the objective's gradient there, from one pass that computes nothing below them."""
    found = _held(net, pixels, objective, layers)
    for layer, one in zip(layers, found, strict=True):
        if one is None:
            raise independent(objective, layer)
    return [one for one in found if one is not None]


def _held(net: Net, pixels: Tensor, objective: Objective, layers: Sequence[Layer]) -> list[Held | None]:
    """Return what layers hold, and None for one that the objective does not depend on."""
    with torch.inference_mode(False), torch.enable_grad():
        score, activities = scored(net, pixels, objective, layers)
        gradients = torch.autograd.grad(score.sum(), activities, allow_unused=True)
    reached: list[Tensor | None] = list(gradients)
    triples = zip(layers, activities, reached, strict=True)
    return [g if g is None else Held(one, one.by_position(a.detach()), one.by_position(g)) for one, a, g in triples]


def scored(net: Net, pixels: Tensor, objective: Objective, layers: Sequence[Layer]) -> tuple[Tensor, list[Tensor]]:
    """Return the scores (n,) with the graph that leads from them down to some layers, and what these hold."""
    for layer in layers:
        check_positions(net, layer)
    names = [layer.name for layer in layers]
    readings = tap(net, pixels.detach().clone(), (*names, *objective.layers), leaf=names)
    score = objective.score(readings)
    if not score.requires_grad:
        raise independent(objective, layers[-1])
    return score, [readings[name] for name in names]


def with_unread_alone(maps: Tensor, layers: list[Held], alone: Callable[[int], Tensor]) -> Tensor:
    """Make the maps of those pictures `alone` again whose gradient is zero in a layer.

    Only alone can it be told whether a picture's objective depends on the layer at all, and another layer be chosen.
    """
    unread = torch.stack([~one.gradient.flatten(1).any(1) for one in layers]).any(0)
    if len(maps) == 1 or not unread.any():
        return maps
    rows = [alone(row) if unread[row] else maps[row : row + 1] for row in range(len(maps))]
    return torch.cat(rows)


def laid(maps: list[tuple[Layer, Tensor]], pixels: Tensor, align: str) -> Tensor:
    """Lay maps (n, 1, rows, columns) of some layers over the picture and fuse them, and say which layers they are."""
    for layer, map_ in maps:
        say(f"layer {layer.name}, {map_.shape[-2]} x {map_.shape[-1]} places")
    if not any(bool(map_.any()) for _, map_ in maps):
        say("nothing in this layer speaks for the objective: all contributions are negative or zero")
    over = torch.stack([lay_over(map_, layer, pixels, align) for layer, map_ in maps])
    if len(maps) == 1:
        return over[0]
    say("fused: at every pixel the largest in magnitude, each map scaled to the same peak")
    peaks = over.abs().amax((2, 3, 4), keepdim=True)
    scaled = over * (peaks.amax(0) / peaks.where(peaks > 0, torch.ones_like(peaks)))
    return scaled.gather(0, scaled.abs().argmax(0, keepdim=True))[0]


def lay_over(map_: Tensor, layer: Layer, pixels: Tensor, align: str) -> Tensor:
    """Interpolate a layer's grid (..., rows, columns) linearly to the picture's pixels, constant beyond its edges."""
    if align not in ("field", "stretch"):
        raise OptionError(f"align is 'field' or 'stretch', not {align!r}")
    mixes = []
    lies = layer.lies or layer.field
    for axis, units, extent in zip((lies.y, lies.x), map_.shape[-2:], pixels.shape[-2:], strict=True):
        step, centre = (axis.step, axis.centre) if align == "field" else (extent / units, (extent / units - 1) / 2)
        at = ((torch.arange(extent, dtype=torch.float64) - centre) / step).clamp(0, units - 1)
        distance = (at[:, None] - torch.arange(units, dtype=torch.float64)).abs()
        mixes.append((1 - distance).clamp(min=0).to(map_))
    return mixes[0] @ map_ @ mixes[1].T
