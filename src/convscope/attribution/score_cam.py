"""Score-CAM: what becomes of the score when a channel alone stays.

Score-CAM (Wang et al., arXiv:1910.01279, sec. 3): lay channel k of a layer over the picture X, scale it to [0, 1] as a
mask H_k, and weigh the channel by the increase C_k = S(X H_k + X_b (1 - H_k)) - S(X_b) over the baseline picture X_b:

    max(0, sum_k softmax_k(C) A^k)
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import torch
from torch import Tensor

from ..baselines import HELP, baseline_pixels
from ..batching import in_batches
from ..errors import OptionError
from ..net import Net
from ..objectives import Objective
from ..registry import method
from ..tracing import Layer
from .cam_layers import Align, Held, Layers, held, lay_over, with_unread_alone
from .channel_weights import Batch, weighed_by_channel


@method("Score-CAM", paper="Wang et al. 2020, arXiv:1910.01279, sec. 3", signed=False, linear=False, unit="activity")
def score_cam(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    layer: Layers = None,
    align: Align = "field",
    softmax: Annotated[
        bool, "weigh channels by the softmax over their increases, as in the paper, or by the increases themselves"
    ] = True,
    channels: Annotated[int | None, "only the k channels that vary the most over the picture; by default all"] = None,
    baseline: Annotated[str, HELP] = "mean",
    seed: Annotated[int, "of the noise that fills"] = 0,
    batch: Batch = 16,
) -> Tensor:
    """Weigh the channels of a late layer by the score that the picture keeps where they are active.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), interpolated from the layer's grid, never negative. One forward pass
    per picture and channel; channels without contrast mask nothing and are left out. Raises as `grad_cam` does.
    """
    if channels is not None and channels < 1:
        raise OptionError(f"channels is at least 1, not {channels}")
    found = held(net, pixels, objective, layer)
    with torch.inference_mode():
        behind = baseline_pixels(net, pixels, baseline, seed=seed)
        clean = objective(net, behind)

        def weigh(position: int, one: Held) -> Tensor:
            activity = one.activity[position]
            kept = _with_contrast(activity, channels)
            own = objective.rows(position)
            scores = _masked_scores(
                net, pixels[position], behind[position], own, activity[kept], (one.layer, align), batch
            )
            weight = activity.new_zeros(len(activity), dtype=clean.dtype)
            increase = scores - clean[position]
            weight[kept] = increase.softmax(0) if softmax else increase
            return weight

        maps = weighed_by_channel(net, pixels, found, align, weigh)
    options = {"layer": layer, "align": align, "softmax": softmax, "channels": channels, "baseline": baseline}
    again = partial(score_cam, net, seed=seed, batch=batch, **options)
    return with_unread_alone(maps.clone(), found, lambda row: again(pixels[row : row + 1], objective.rows(row)))


def _with_contrast(activity: Tensor, most: int | None) -> Tensor:
    """Choose channels (c, rows, columns) that differ from place to place, at most so many, those that vary the most."""
    flat = activity.flatten(1)
    kept = (flat.amax(1) > flat.amin(1)).nonzero()[:, 0]
    if most is None or most >= len(kept):
        return kept
    return kept[flat[kept].float().var(1).topk(most).indices].sort().values


def _masked_scores(
    net: Net,
    picture: Tensor,
    behind: Tensor,
    objective: Objective,
    activity: Tensor,
    where: tuple[Layer, str],
    batch: int,
) -> Tensor:
    """Return the scores of a picture (c, h, w) seen through each channel of an activity (k, rows, columns) alone."""
    layer, align = where

    def seen(piece: slice) -> Tensor:
        mask = lay_over(activity[piece, None], layer, picture[None], align)
        low = mask.amin((2, 3), keepdim=True)
        mask = ((mask - low) / (mask.amax((2, 3), keepdim=True) - low)).to(picture)
        # The layout in which convolutions are quickest on most machines.
        masked = torch.lerp(behind, picture, mask).contiguous(memory_format=torch.channels_last)
        return objective(net, masked)

    found = list(in_batches(seen, len(activity), batch, "Score-CAM"))
    return torch.cat(found) if found else activity.new_zeros(0)
