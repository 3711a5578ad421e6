"""First-layer filters: the weights that read pixels, as pictures.

After Zeiler and Fergus (arXiv:1311.2901v3, Fig. 6): dead and dominating filters show at a glance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from torch import Tensor, nn

from ..data.display import to_image
from ..drawing.drawings import Gallery, robust_limit
from ..drawing.layout import Sheet, Tile
from ..drawing.tiles import fitted
from ..errors import LayerError
from ..net import Net
from ..recipes import Recipe
from ..registry import view
from ..tracing import Layer


@view("First-layer filters", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Fig. 6")
def filters(
    net: Net,
    *,
    layer: Annotated[str | None, "a convolution that reads pixels; the first by default"] = None,
    own_scale: Annotated[bool, "scale each filter by itself: makes weak filters visible"] = False,
) -> Gallery:
    """Show the filters that read pixels directly, each as a small picture with grey as zero.

    All share one scale, so that a dominating filter stands out; the caption gives each filter's root mean square.
    Raises LayerError for a layer that does not read pixels.
    """
    chosen = net.convolution(1) if layer is None else net.layer(layer)
    weights = _weights(net, chosen)
    scale = (
        "each on its own scale: grey is 0"
        if own_scale
        else f"one scale: grey is 0, white {robust_limit(weights.numpy()):.3g}"
    )
    size = " × ".join(map(str, weights.shape[2:]))
    sheet = Sheet(
        f"First-layer filters of {net.name}",
        _rows(weights.numpy(), net.show, own_scale=own_scale),
        f"{len(weights)} filters of {size} in {chosen.name} · below each its channel and root mean square · {scale}",
    )
    return Gallery(sheet, {"filters": weights}, Recipe(settled={"layer": chosen.name}))


def _weights(net: Net, layer: Layer) -> Tensor:
    """Return a convolution's weights (filters, c, h, w), channels in RGB order."""
    weight = getattr(layer.module, "weight", None)
    if not isinstance(layer.module, nn.Conv2d) or not isinstance(weight, Tensor) or weight.shape[1] != net.channels:
        raise LayerError(
            f"layer {layer.name!r} does not read pixels: its filters have no colours to show. For deeper layers use "
            "`project`"
        )
    values = weight.detach().float().cpu()
    return values.flip(1) if net.order == "BGR" else values


def _rows(weights: np.ndarray, bands: Sequence[int], *, own_scale: bool) -> tuple[tuple[Tile, ...], ...]:
    count, shared = len(weights), robust_limit(weights)
    per_row = min(16, max(4, round(count**0.5 * 1.4)))
    side = max(48, min(110, 960 // per_row))
    tiles = [
        _tile(number, weight, float(np.abs(weight).max()) if own_scale else shared, side, bands)
        for number, weight in enumerate(weights)
    ]
    return tuple(tuple(tiles[i : i + per_row]) for i in range(0, count, per_row))


def _tile(number: int, weight: np.ndarray, limit: float, side: int, bands: Sequence[int]) -> Tile:
    rms = float(np.sqrt(np.square(weight).mean()))
    return Tile(fitted(to_image(0.5 + weight * 0.5 / (limit or 1), bands), side), f"{number}\n{rms:.2g}")
