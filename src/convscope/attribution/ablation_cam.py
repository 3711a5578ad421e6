"""Ablation-CAM: channels weighted by the drop of the score without them.

Desai and Ramaswamy, "Ablation-CAM" (WACV 2020, sec. 3): set channel k of a layer to zero and weigh it by the drop of
the score S:

    max(0, sum_k (S - S_k) A^k)

The paper divides the drop by S, one number per picture: that changes only the scale of the map, and would invert it
where S is negative, so it is left out. Everything below the layer is the same for every k, and so it runs on one
picture, whose activity is replaced at the layer by a batch of ablated ones; where a network does not allow that, the
whole network runs on the whole batch.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..batching import in_batches, out_of_memory
from ..context import say
from ..cuts import replaced
from ..net import Net
from ..objectives import Objective
from ..registry import method
from ..tapping import tap
from ..tracing import Layer
from .cam_layers import Align, CamInput, Layers, cam_inputs, redo_unread
from .channel_weights import Batch, weighted_maps


@method(
    "Ablation-CAM",
    paper="Desai & Ramaswamy 2020, WACV, doi:10.1109/WACV45572.2020.9093360",
    signed=False,
)
def ablation_cam(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    layer: Layers = None,
    align: Align = "field",
    batch: Batch = 128,
) -> Tensor:
    """Ablation-CAM: channels of a layer weighted by the drop of the score without them, rectified.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), interpolated from the layer's grid, in score, never negative. Runs
    the network above the layer once per picture and channel; channels that are zero everywhere are left out. Raises
    as `grad_cam` does, and ObjectiveError for an objective about one place.
    """
    inputs = cam_inputs(net, pixels, objective, layer, forward="ablation_cam")
    with torch.inference_mode():

        def weigh(row: int, one: CamInput) -> Tensor:
            return _drops(net, pixels[row : row + 1], objective.rows(row), one.layer, batch)

        maps = weighted_maps(net, pixels, inputs, align, weigh)
    again = partial(ablation_cam, net, layer=layer, align=align, batch=batch)
    return redo_unread(maps.clone(), inputs, lambda row: again(pixels[row : row + 1], objective.rows(row)))


def _drops(net: Net, picture: Tensor, objective: Objective, layer: Layer, batch: int) -> Tensor:
    """Return the drop of the score of a picture (1, c, h, w) without each channel of a layer."""
    readings = tap(net, picture, (layer.name, *objective.layers))
    activity, clean = readings[layer.name], objective.score(readings)
    active = layer.by_position(activity)[0].flatten(1).any(1).nonzero()[:, 0]

    def without(piece: slice) -> Tensor:
        ablated = activity.repeat(piece.stop - piece.start, *(1,) * (activity.ndim - 1))
        layer.by_position(ablated)[torch.arange(len(ablated), device=ablated.device), active[piece]] = 0
        return ablated

    alone = net.behaviour(picture).alone
    batch = 1 if alone else batch
    grows = alone or (len(active) > 1 and _grows(net, picture, objective, layer, without(slice(0, 2))))
    if not grows:
        say("the batch cannot grow at this layer: the whole network ran for every channel")

    def scores(piece: slice) -> Tensor:
        ablated = without(piece)
        pictures = picture if grows else picture.expand(len(ablated), -1, -1, -1)
        return _scores_above(net, pictures, objective, layer, ablated)

    drops = clean.new_zeros(layer.by_position(activity).shape[1])
    ablation_scores = list(in_batches(scores, len(active), batch, "Ablation-CAM"))
    if ablation_scores:
        drops[active] = clean - torch.cat(ablation_scores)
    return drops


def _scores_above(net: Net, pixels: Tensor, objective: Objective, layer: Layer, activity: Tensor) -> Tensor:
    """Return the scores of pictures when a layer's output is replaced by `activity`."""
    with replaced(net, layer, activity):
        return objective(net, pixels)


def _grows(net: Net, picture: Tensor, objective: Objective, layer: Layer, activity: Tensor) -> bool:
    """Whether a pass over one picture continues correctly with two activities (2, ...) at a layer.

    It does where parallel branches broadcast. Where they do not, there is an error or another number.
    """
    alone = torch.cat([_scores_above(net, picture, objective, layer, one[None]) for one in activity])
    try:
        together = _scores_above(net, picture, objective, layer, activity)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        if out_of_memory(error):
            raise
        return False
    close = torch.finfo(alone.dtype).eps ** 0.5
    return together.shape == alone.shape and torch.allclose(together, alone, rtol=close, atol=close)
