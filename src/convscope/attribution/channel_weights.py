"""Class activation maps whose channel weights come from scores, one picture at a time, and not from gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from ..net import Net
from ..options import Range
from ..tracing import Layer
from .cam_layers import CamInput, fuse

Batch = Annotated[int, "channels per forward pass; halved when memory runs out", Range(1)]
ChannelWeights = Callable[[int, CamInput], Tensor]
"""From the index of a picture in the batch and a layer's activity to one weight per channel."""


def weighted_maps(net: Net, pixels: Tensor, inputs: list[CamInput], align: str, weights: ChannelWeights) -> Tensor:
    """Return the rectified weighted sums of the layers' channels, upsampled to the pictures, (n, 1, h, w)."""
    maps: list[tuple[Layer, Tensor]] = []
    for one in inputs:
        weight = torch.stack([weights(row, one) for row in range(len(pixels))]).to(one.activity)
        maps.append((one.layer, (weight[:, :, None, None] * one.activity).sum(1, keepdim=True).clamp(min=0)))
    return fuse(net, maps, pixels, align)
