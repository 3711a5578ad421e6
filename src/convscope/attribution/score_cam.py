"""Score-CAM: channels weighted by the score of the picture masked with them.

Wang et al., "Score-CAM" (arXiv:1910.01279, sec. 3): upsample channel k of a layer to the picture X, scale it to [0, 1]
as a mask H_k, and weigh the channel by the increase C_k = S(X H_k + X_b (1 - H_k)) - S(X_b) over the baseline X_b:

    max(0, sum_k softmax_k(C) A^k)
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from ..baselines import HELP, baseline_pixels
from ..batching import in_batches
from ..layouts import laid_out
from ..net import Net
from ..objectives import Objective
from ..options import Range
from ..registry import method
from .cam_layers import Align, CamInput, Layers, cam_inputs, redo_unread, upsample
from .channel_weights import Batch, weighted_maps
from .places import Places, places


@method("Score-CAM", paper="Wang et al. 2020, arXiv:1910.01279, sec. 3", signed=False, linear=False, unit="activity")
def score_cam(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    layer: Layers = None,
    align: Align = "field",
    softmax: Annotated[
        bool, "weigh channels by the softmax of the increases of the score, as in the paper; False: by the increases"
    ] = True,
    channels: Annotated[
        int | None, "number of channels, those with the largest variance over the picture; by default all", Range(1)
    ] = None,
    baseline: Annotated[str, HELP] = "mean",
    seed: Annotated[int, "random seed of the baseline 'noise'"] = 0,
    batch: Batch = 16,
) -> Tensor:
    """Score-CAM: channels of a layer weighted by the score of the picture masked with them, rectified.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), interpolated from the layer's grid, never negative. One forward pass
    per picture and channel; constant channels mask nothing and are left out. Raises as `grad_cam` does,
    and ObjectiveError for an objective about one place.
    """
    inputs = cam_inputs(net, pixels, objective, layer, forward="score_cam")
    with torch.inference_mode():
        hidden = baseline_pixels(net, pixels, baseline, seed=seed)
        clean = objective(net, hidden)
        lies = {one.layer: places(net, one.layer, pixels, align) for one in inputs}

        def weigh(row: int, one: CamInput) -> Tensor:
            activity = one.activity[row]
            used = _with_contrast(activity, channels)
            own = objective.rows(row)
            scores = _masked_scores(net, pixels[row], hidden[row], own, activity[used], lies[one.layer], batch)
            weight = activity.new_zeros(len(activity), dtype=clean.dtype)
            increase = scores - clean[row]
            weight[used] = increase.softmax(0) if softmax else increase
            return weight

        maps = weighted_maps(net, pixels, inputs, align, weigh)
    options = {"layer": layer, "align": align, "softmax": softmax, "channels": channels, "baseline": baseline}
    again = partial(score_cam, net, seed=seed, batch=batch, **options)
    return redo_unread(maps.clone(), inputs, lambda row: again(pixels[row : row + 1], objective.rows(row)))


def _with_contrast(activity: Tensor, most: int | None) -> Tensor:
    """Return the channels (c, rows, columns) that are not constant, at most so many, those of the largest variance."""
    flat = activity.flatten(1)
    varying = (flat.amax(1) > flat.amin(1)).nonzero()[:, 0]
    if most is None or most >= len(varying):
        return varying
    return varying[flat[varying].float().var(1).topk(most).indices].sort().values


def _masked_scores(
    net: Net,
    picture: Tensor,
    hidden: Tensor,
    objective: Objective,
    activity: Tensor,
    lies: Places,
    batch: int,
) -> Tensor:
    """Return the scores of a picture (c, h, w) masked with each channel of an activity (k, rows, columns)."""

    def masked_scores(piece: slice) -> Tensor:
        mask = upsample(activity[piece, None], lies, picture[None])
        low = mask.amin((2, 3), keepdim=True)
        mask = ((mask - low) / (mask.amax((2, 3), keepdim=True) - low)).to(picture)
        masked = laid_out(net, torch.lerp(hidden, picture, mask))
        return objective(net, masked)

    scores = list(in_batches(masked_scores, len(activity), batch, "Score-CAM"))
    return torch.cat(scores) if scores else activity.new_zeros(0)
