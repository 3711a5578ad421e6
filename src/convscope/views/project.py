"""Strongest activations: what excites the channels of a layer, projected down to pixels.

After Zeiler and Fergus (arXiv:1311.2901v3, Fig. 2): the deconvnet projection of single activations, each beside the
part of the picture inside its receptive field.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..attribution.deconvnet import project_down
from ..context import say
from ..data.images import InputPicture
from ..drawing.drawings import Gallery, as_grey_picture, as_picture
from ..drawing.layout import Sheet, Tile, number
from ..drawing.tiles import fitted
from ..errors import LayerError
from ..layers import layer_at, spatial_layer
from ..net import Net
from ..options import Range
from ..registry import view
from ..tapping import tap
from ..tracing import Layer

_SIDE, _PER_ROW = 150, 3
_OUTSIDE = (225, 225, 225)

Position = tuple[int, int, int]
"""A unit of a layer: channel, row, column."""


@view(
    "Strongest activations",
    paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Fig. 2",
    caveat="shows what excites a unit, not what the prediction is based on",
)
def project(
    net: Net,
    picture: InputPicture,
    *,
    layer: Annotated[str, "the layer whose strongest channels are projected"],
    top: Annotated[int, "maximum number of channels", Range(1)] = 9,
    grey: Annotated[bool, "without colours and on one contrast, as calm as the papers' figures"] = False,
) -> Gallery:
    """Project the strongest activation of each of a layer's k strongest channels down to pixels by the deconvnet.

    Each projection stands beside the part of the picture inside the unit's receptive field. Raises LayerError for a
    layer without spatial positions or without an active unit.
    """
    chosen, pixels = spatial_layer(net, layer), net.pixels(picture)
    with torch.inference_mode():
        activity = tap(net, pixels, [chosen.name])[chosen.name][0].float()
    units = _strongest(activity, min(top, chosen.shape[0]), chosen)
    projections, report = project_down(net, pixels, chosen, lambda a: [isolated(a, unit) for unit in units])
    inactive = f" (of {top}: the others are not active)" if len(units) < min(top, chosen.shape[0]) else ""
    say(report)
    if chosen.field.shared and not chosen.shown_field.shared:
        say(
            "left is what a unit sees through convolutions alone; by a normalisation or gate it reads the whole picture"
        )
    limit = float(projections.abs().max()) or 1.0 if grey else None
    contrast = "grey is 0" if limit is None else f"one contrast: grey is 0, white {number(limit)}"
    sheet = Sheet(
        f"Strongest activations of {chosen.name}",
        _rows(activity, projections.float().cpu().numpy(), units, layer_at(net, chosen, pixels), picture, limit),
        f"{len(units)} strongest channels{inactive} · left: receptive field, right: deconvnet projection, "
        f"{contrast} · {net.name}" + (f" · {picture.name}" if picture.name else ""),
    )
    return Gallery(sheet, {"projections": projections, "units": torch.tensor(units)})


def _strongest(activity: Tensor, count: int, layer: Layer) -> list[Position]:
    """Choose the strongest unit of each of the strongest channels of activity (c, h, w), if it is active."""
    channels = activity.flatten(1).amax(1).topk(count).indices.tolist()
    units = [(k, *divmod(int(activity[k].argmax()), activity.shape[2])) for k in channels]
    active = [unit for unit in units if activity[unit] > 0]
    if not active:
        raise LayerError(f"no unit of {layer.name!r} is active in this picture: there is nothing to project")
    return active


def isolated(activity: Tensor, unit: Position) -> Tensor:
    """Set everything but one activation to zero."""
    alone = torch.zeros_like(activity)
    alone[0][unit] = activity[0][unit]
    return alone


def _rows(
    activity: Tensor,
    projections: np.ndarray,
    units: list[Position],
    layer: Layer,
    picture: InputPicture,
    limit: float | None,
) -> tuple[tuple[Tile, ...], ...]:
    """Lay out, for each unit, the part of the picture in its receptive field and its projection there."""
    tiles: list[Tile] = []
    for (k, y, x), projection in zip(units, projections, strict=True):
        part, projected = in_field(picture, projection, layer, (y, x), limit)
        tiles += [
            Tile(part, f"channel {k}, row {y}, column {x}"),
            Tile(projected, number(float(activity[k, y, x]))),
        ]
    return tuple(tuple(tiles[i : i + 2 * _PER_ROW]) for i in range(0, len(tiles), 2 * _PER_ROW))


def in_field(
    picture: InputPicture, projection: np.ndarray, layer: Layer, position: tuple[int, int], limit: float | None
) -> tuple[Image.Image, Image.Image]:
    """Cut the receptive field out of the picture and out of a projection, at the size of a tile."""
    extent = (picture.pixels.shape[1], picture.pixels.shape[2])
    top, left, bottom, right = layer.shown_field.box(position, extent)
    part = picture.image(picture.pixels[:, top:bottom, left:right])
    inside = projection[:, top:bottom, left:right]
    projected = as_picture(inside, picture.display.bands)[0] if limit is None else as_grey_picture(inside, limit)
    part, projected = (
        fitted(_framed(image, layer, position, (top, left), extent), _SIDE) for image in (part, projected)
    )
    return part, projected


def _framed(
    image: Image.Image, layer: Layer, position: tuple[int, int], corner: tuple[int, int], extent: tuple[int, int]
) -> Image.Image:
    """Give a receptive field its full size at the picture's border too, pale grey beyond the picture."""
    size, at, field = [], [], layer.shown_field
    for axis, index, low, cut, whole in zip(
        (field.y, field.x), field.along(position), corner, (image.height, image.width), extent, strict=True
    ):
        limited = axis.size <= whole and not axis.shared
        size.append(round(axis.size) if limited else cut)
        at.append(low - round(axis.start + index * axis.step) if limited else 0)
    frame = Image.new("RGB", (size[1], size[0]), _OUTSIDE)
    frame.paste(image.convert("RGB"), (at[1], at[0]))
    return frame
