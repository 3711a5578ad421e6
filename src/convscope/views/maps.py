"""Feature maps: the activity of every channel of a layer.

After Yosinski et al. (arXiv:1506.06579, sec. 2): the channels of a layer side by side, for one picture or several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from ..data.images import InputPicture
from ..drawing.drawings import Gallery
from ..drawing.layout import Scale, Sheet, Tile, number
from ..drawing.tiles import magnitude_scale, painted, signed_scale, tile_side
from ..errors import OptionError
from ..layers import channelled_layer
from ..net import Net
from ..options import Range
from ..registry import view
from ..tapping import tap
from ..tracing import Layer
from .inputs import input_tile, stem

_MOST = 256
"""Channels of a layer that are shown without `top`."""
_HEADED = 24
"""Channels that fit in one row, under their numbers."""
_PER_ROW = 16


@view("Feature maps", paper="Yosinski et al. 2015, arXiv:1506.06579, sec. 2")
def maps(
    net: Net,
    pictures: list[InputPicture],
    *,
    layer: Annotated[str, "the layer to show"],
    top: Annotated[
        int | None, "show only the k channels with the largest total activity, strongest first", Range(1)
    ] = None,
    side_by_side: Annotated[bool, "the same channel of all pictures side by side, a column per picture"] = False,
) -> Gallery:
    """Show the activity of every channel of a layer for a picture, or for several, each in rows of its own.

    All tiles share one colour scale. A layer of more than 256 channels shows the 256 with the largest total activity.
    Raises LayerError for a layer without channels, OptionError for `top` beyond the layer's channels.
    """
    chosen = channelled_layer(net, layer)
    with torch.inference_mode():
        readings = [tap(net, net.pixels(picture), [chosen.name])[chosen.name] for picture in pictures]
    activity = torch.cat(readings).float().cpu()
    arranged = _by_channel if side_by_side else _by_picture
    return Gallery(_sheet(net, chosen, activity, _channels(activity, top), pictures, arranged), {"maps": activity})


def _channels(activity: Tensor, top: int | None) -> list[int]:
    """Choose the channels to show of activity (n, channels, ...): all in order, or the strongest."""
    count = activity.shape[1]
    if top is not None and not 1 <= top <= count:
        raise OptionError(f"top is 1 to {count}, the layer's channels, not {top}")
    if top is None and count <= _MOST:
        return list(range(count))
    strength = activity.reshape(*activity.shape[:2], -1).sum((0, 2))
    return strength.topk(top or _MOST).indices.tolist()


Rows = tuple[tuple[Tile | None, ...], ...]
Arranged = Callable[
    [np.ndarray, list[int], Scale, Sequence[InputPicture]], tuple[Rows, tuple[str, ...], tuple[str, ...]]
]
"""Lays feature maps (pictures, channels, h, w) out in rows, with labels before these and heads above the columns."""


def _sheet(
    net: Net,
    layer: Layer,
    activity: Tensor,
    channels: list[int],
    pictures: Sequence[InputPicture],
    arranged: Arranged,
) -> Sheet:
    shown = activity[:, channels].numpy()
    scale = signed_scale(shown) if shown.min() < 0 else magnitude_scale(shown)
    rows, labels, columns = arranged(shown, channels, scale, pictures)
    count = "" if len(channels) == activity.shape[1] else f", the {len(channels)} strongest shown"
    extent = f"from {number(float(activity.min()))} to {number(float(activity.max()))}"
    return Sheet(
        f"Feature maps of {layer.name}, {net.name}",
        rows,
        f"{activity.shape[1]} channels{count} · {_grid(layer)} · one colour scale, activity {extent}",
        "",
        columns,
        labels,
        scale,
    )


def _grid(layer: Layer) -> str:
    if not layer.spatial:
        return "no spatial positions"
    stride = "" if layer.lattice.moved else f", stride {abs(layer.lattice.step[0]):g} px"
    return f"{layer.shape[1]} × {layer.shape[2]} positions, receptive field {layer.seen}{stride}"


def _by_picture(
    activity: np.ndarray, channels: list[int], scale: Scale, pictures: Sequence[InputPicture]
) -> tuple[Rows, tuple[str, ...], tuple[str, ...]]:
    """Lay feature maps out: one picture as a block, several in rows under the channels' numbers."""
    several = len(pictures) > 1
    headed = several and len(channels) <= _HEADED
    width = len(channels) if headed else min(_PER_ROW, len(channels))
    side = tile_side(width + 1)
    rows: list[tuple[Tile | None, ...]] = []
    labels: list[str] = []
    for values, picture in zip(activity, pictures, strict=True):
        captions = ["" if headed else str(k) for k in channels]
        images = [painted(np.atleast_2d(map_), scale, side) for map_ in values]
        tiles = [Tile(image, caption) for image, caption in zip(images, captions, strict=True)]
        first = input_tile(picture, side, "" if headed else "input")
        for start in range(0, len(tiles), width):
            rows.append((None if start else first, *tiles[start : start + width]))
            labels.append(stem(picture) if several and not start else "")
    return tuple(rows), tuple(labels) if any(labels) else (), ("", *map(str, channels)) if headed else ()


def _by_channel(
    activity: np.ndarray, channels: list[int], scale: Scale, pictures: Sequence[InputPicture]
) -> tuple[Rows, tuple[str, ...], tuple[str, ...]]:
    """Lay the same channel of all pictures out side by side, below the pictures; many channels in several columns."""
    across = 1 if len(channels) <= _HEADED else max(1, _PER_ROW // len(pictures))
    side = tile_side(across * len(pictures) + 1)
    groups = [
        [Tile(painted(np.atleast_2d(values[i]), scale, side), "" if across == 1 else str(k)) for values in activity]
        for i, k in enumerate(channels)
    ]
    inputs = tuple(input_tile(picture, side) for picture in pictures)
    lines = [groups[start : start + across] for start in range(0, len(groups), across)]
    rows = (inputs, *(tuple(tile for group in line for tile in group) for line in lines))
    labels = ("", *map(str, channels)) if across == 1 else ()
    return rows, labels, tuple(map(stem, pictures))
