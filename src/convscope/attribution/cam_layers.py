"""The layers of class activation maps: their activity, the gradient there, and maps upsampled to the picture.

The grid is that of a convolutional layer, of channels last, or of a transformer's patch tokens (`Layer.by_position`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from ..context import about, say
from ..cuts import CutError, independent
from ..errors import LayerError
from ..layers import check_positions, last_spatial_layers, layers_named, picture_layers
from ..net import Net
from ..objectives import Objective
from ..rules import graph_below
from ..tapping import tap
from ..tracing import OUTPUT, Layer
from .local import local_rows, read_share, refuse_local
from .places import Places, places

Layers = Annotated[
    list[str] | str | None,
    "layer of the map, or several whose maps are fused: the largest magnitude at every pixel, each map scaled to the "
    "same peak; by default the last layer with spatial positions",
]
Align = Annotated[
    Literal["field", "stretch"],
    "upsampling of the layer's grid: 'field' centres each unit on its receptive field, 'stretch' resizes the grid to "
    "the picture, as most packages do (off by half a step on ResNets), also where it is not known where units lie",
]

_FEW = 0.05
"""The fraction of a layer's positions below which the caption says that the objective reads no more of them."""


@dataclass(frozen=True)
class CamInput:
    """A layer's activity for some pictures and the objective's gradient there, both (n, channels, rows, columns).

    `local` (n,) says which pictures have a local objective: one about a part of the positions of its own layer.
    """

    layer: Layer
    activity: Tensor
    gradient: Tensor
    local: Tensor

    @property
    def read(self) -> Tensor:
        """The number of positions (n,) at which each picture's gradient is not zero."""
        return self.gradient.ne(0).any(1).flatten(1).sum(1)

    @property
    def few(self) -> Tensor:
        """Which pictures' objectives (n,) depend on few of the layer's positions, and on some."""
        return (self.read > 0) & (self.read < _FEW * self.gradient[0, 0].numel())


def cam_inputs(
    net: Net, pixels: Tensor, objective: Objective, names: list[str] | str | None, *, forward: str = ""
) -> list[CamInput]:
    """Return activity and gradient at the named layers, or at the last with spatial positions, in one pass.

    Nothing is computed below the first of them. Of the method that `forward` names only the activity is of use: where
    the network cuts the gradient, it is one everywhere, and a local objective, for which such a method has no map, is
    refused. Raises LayerError when a layer has no spatial positions or the objective does not depend on it.
    """
    try:
        inputs = _inputs(net, pixels, objective, names)
    except CutError:
        if not forward:
            raise
        inputs = _inputs_without_gradient(net, pixels, objective, names)
    if forward:
        # In a batch, a picture that reads no layer is tried alone (`redo_unread`), and refused for that.
        read = torch.stack([one.read > 0 for one in inputs]).any(0) if len(pixels) > 1 else True
        refuse_local(forward, objective, inputs[0].local & read)
    return inputs


def _inputs_without_gradient(
    net: Net, pixels: Tensor, objective: Objective, names: list[str] | str | None
) -> list[CamInput]:
    layers = last_spatial_layers(net)[-1:] if names is None else layers_named(net, names)
    readings = tap(net, pixels, [*(layer.name for layer in layers), *objective.layers])
    local = local_rows(net, objective, readings)
    read = [(layer, layer.by_position(readings[layer.name])) for layer in layers]
    return [CamInput(layer, activity, torch.ones_like(activity), local) for layer, activity in read]


def _inputs(net: Net, pixels: Tensor, objective: Objective, names: list[str] | str | None) -> list[CamInput]:
    if names is not None:
        return _with_remark(activities_and_gradients(net, pixels, objective, layers_named(net, names)))
    layers = last_spatial_layers(net)
    if len(layers) == 1:
        return _with_remark([_last_input(net, pixels, objective, layers[0])])
    inputs = [one for one in activities_and_gradients(net, pixels, objective, layers) if one.gradient.any()]
    if not inputs:
        raise LayerError(
            f"{objective} does not depend on the patch tokens of the last layers of {net.name}: name an earlier layer"
        )
    return inputs[-1:]


def _last_input(net: Net, pixels: Tensor, objective: Objective, last: Layer) -> CamInput:
    """Return activity and gradient at the last layer, or where the objective does not read it, at the last it reads.

    Detectors end in branches: of several scales, and of boxes beside scores. Of the last layer of a segmenter, one
    position of the output reads one position: then it is the last layer of which it reads more than a few, and that no
    skip connection leads past.
    """
    (candidate,) = _inputs_if_read(net, pixels, objective, [last])
    if OUTPUT not in objective.layers:
        pass
    elif candidate is None or not candidate.gradient.any():
        others = _inputs_if_read(net, pixels, objective, _candidates(net))
        candidate = next((one for one in reversed(others) if one and int(one.read.max()) > 1), candidate)
    elif candidate.few.all() and candidate.local.all():
        (other,) = _inputs_if_read(net, pixels, objective, [_read_widely(net, pixels, objective)])
        candidate = candidate if other is None or not other.gradient.any() else other
    if candidate is None:
        raise independent(net, pixels, objective, last)
    return candidate


def _read_widely(net: Net, pixels: Tensor, objective: Objective) -> Layer:
    """Return the last layer of which one position of the output reads more than a few, else the most.

    A layer that a skip connection leads past explains only what goes through it, of a U-Net's narrowest often less than
    nothing: it stands back behind those that all goes through.
    """
    candidates = _candidates(net)
    layers = _on_every_way(net, pixels[:1], objective, candidates) or candidates
    shares = [(min(read_share(net.output, one), _FEW), one) for one in reversed(layers)]
    return max(shares, key=lambda pair: pair[0])[1]


def _on_every_way(net: Net, pixels: Tensor, objective: Objective, layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers that every way from some layers to the objective leads through."""
    with torch.inference_mode(False), torch.enable_grad():
        score, activities, _ = score_and_activities(net, pixels, objective, layers)
        if not score.requires_grad:
            return []
        nodes = [get_gradient_edge(activity).node for activity in activities]
    ends = {node for node in nodes if not node.next_functions}
    ways = ((layer, set(graph_below([score.grad_fn], until=node))) for layer, node in zip(layers, nodes, strict=True))
    return [
        layer for (layer, below), node in zip(ways, nodes, strict=True) if node in below and not ends & below - {node}
    ]


def _candidates(net: Net) -> list[Layer]:
    """Return the layers that may stand for the last one, in execution order."""
    spatial = [one for one in picture_layers(net) if one.spatial and one.positions > 1 and one.leaf and one.name]
    return [one for one in spatial if "Pool" not in one.kind]


def _with_remark(inputs: list[CamInput]) -> list[CamInput]:
    """Note in the caption where the objective depends on few positions of a layer."""
    for one in inputs:
        few = f"of {one.gradient[0, 0].numel()} positions of this layer: an earlier layer shows more"
        pictures = zip(one.read.tolist(), one.few.tolist(), strict=True)
        say([f"the objective depends on {read} {few}" if is_few else "" for read, is_few in pictures])
    return inputs


def activities_and_gradients(net: Net, pixels: Tensor, objective: Objective, layers: Sequence[Layer]) -> list[CamInput]:
    """Return activity and gradient at layers, from one pass that computes nothing below them."""
    inputs = _inputs_if_read(net, pixels, objective, layers)
    for layer, one in zip(layers, inputs, strict=True):
        if one is None:
            raise independent(net, pixels, objective, layer)
    return [one for one in inputs if one is not None]


def _inputs_if_read(net: Net, pixels: Tensor, objective: Objective, layers: Sequence[Layer]) -> list[CamInput | None]:
    """Return activity and gradient at layers, None for one that the objective does not depend on."""
    with torch.inference_mode(False), torch.enable_grad():
        score, activities, local = score_and_activities(net, pixels, objective, layers)
        if not score.requires_grad:
            return [None for _ in layers]
        gradients = torch.autograd.grad(score.sum(), activities, allow_unused=True)
    none_if_unread: list[Tensor | None] = list(gradients)
    triples = zip(layers, activities, none_if_unread, strict=True)
    return [
        g if g is None else CamInput(one, one.by_position(a.detach()), one.by_position(g), local)
        for one, a, g in triples
    ]


def score_and_activities(
    net: Net, pixels: Tensor, objective: Objective, layers: Sequence[Layer]
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return the scores (n,) with the graph from them down to the activities of some layers, and these activities.

    The last says which pictures' objectives are local.
    """
    for layer in layers:
        check_positions(net, layer)
    names = [layer.name for layer in layers]
    readings = tap(net, pixels.detach().clone(), (*names, *objective.layers), leaf=names)
    score = objective.score(readings)
    return score, [readings[name] for name in names], local_rows(net, objective, readings)


def redo_unread(maps: Tensor, inputs: list[CamInput], alone: Callable[[int], Tensor]) -> Tensor:
    """Return maps (n, 1, h, w) with those computed `alone` of pictures whose gradient is zero in a layer.

    In a batch it cannot be told whether such a picture's objective depends on the layer at all. Alone it is refused, or
    gets another layer; so does one with a local objective beside others.
    """
    unread = torch.stack([~one.gradient.flatten(1).any(1) for one in inputs]).any(0)
    local = inputs[0].local
    unread |= local & ~local.all()
    if len(maps) == 1 or not unread.any():
        return maps
    rows: list[Tensor] = []
    for row in range(len(maps)):
        with about(row, len(maps)):
            rows.append(alone(row) if unread[row] else maps[row : row + 1])
    return torch.cat(rows)


def fuse(net: Net, maps: list[tuple[Layer, Tensor]], pixels: Tensor, align: str) -> Tensor:
    """Upsample maps (n, 1, rows, columns) of layers to the picture, fuse them, and name the layers in the caption."""
    for layer, map_ in maps:
        say(f"layer {layer.name}, {map_.shape[-2]} x {map_.shape[-1]} positions")
    positive = torch.stack([map_.flatten(1).any(1) for _, map_ in maps]).any(0).tolist()
    none = "no positive evidence in this layer: all contributions are negative or zero"
    say(["" if any_ else none for any_ in positive])
    upsampled = torch.stack([upsample(map_, places(net, layer, pixels, align), pixels) for layer, map_ in maps])
    if len(maps) == 1:
        return upsampled[0]
    say("fused: the largest magnitude at every pixel, each map scaled to the same peak")
    peaks = upsampled.abs().amax((2, 3, 4), keepdim=True)
    scaled = upsampled * (peaks.amax(0) / peaks.where(peaks > 0, torch.ones_like(peaks)))
    return scaled.gather(0, scaled.abs().argmax(0, keepdim=True))[0]


def upsample(map_: Tensor, places: Places, pixels: Tensor) -> Tensor:
    """Interpolate a layer's grid (..., rows, columns) linearly at the picture's pixels, constant beyond its edges."""
    rows, columns = (_mix(at, extent).to(map_) for at, extent in zip(places, pixels.shape[-2:], strict=True))
    return rows @ map_ @ columns.T


def _mix(positions: Sequence[float], extent: int) -> Tensor:
    """Return how pixels (extent,) mix units (units,) that lie at some positions, in any order."""
    at, order = torch.tensor(positions, dtype=torch.float64).sort()
    pixels = torch.arange(extent, dtype=torch.float64).clamp(at[0], at[-1])
    above = torch.searchsorted(at, pixels).clamp(min(1, len(at) - 1), len(at) - 1)
    below = (above - 1).clamp(0)
    gap = at[above] - at[below]
    share = (pixels - at[below]) / gap.where(gap > 0, torch.ones_like(gap))
    mix, every = torch.zeros(extent, len(at), dtype=torch.float64), torch.arange(extent)
    mix[every, order[below]] += 1 - share
    mix[every, order[above]] += share
    return mix
