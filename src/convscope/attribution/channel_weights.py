"""Class activation maps that weigh the channels of one picture at a time by scores rather than by gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from ..net import Net
from ..tracing import Layer
from .cam_layers import Held, laid

Batch = Annotated[int, "how many channels go through the network at once"]
Weights = Callable[[int, Held], Tensor]
"""From the place of a picture in the batch, and what a layer holds, to one weight per channel."""


def weighed_by_channel(net: Net, pixels: Tensor, found: list[Held], align: str, weights: Weights) -> Tensor:
    """Weigh the channels of layers picture by picture, rectify, and lay the sums over the pictures, (n, 1, h, w)."""
    maps: list[tuple[Layer, Tensor]] = []
    for one in found:
        weight = torch.stack([weights(position, one) for position in range(len(pixels))]).to(one.activity)
        maps.append((one.layer, (weight[:, :, None, None] * one.activity).sum(1, keepdim=True).clamp(min=0)))
    return laid(maps, pixels, align)
