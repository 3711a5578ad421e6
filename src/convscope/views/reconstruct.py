"""Layers projected down: what of a picture the whole activity of a layer keeps.

After Zeiler and Fergus (arXiv:1311.2901v3, sec. 2.1): the deconvnet started from all feature maps of a layer at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from ..attribution.deconvnet import project_down
from ..context import track
from ..data.images import InputPicture
from ..drawing.drawings import Gallery, as_grey_picture, as_picture
from ..drawing.layout import Sheet, Tile, number
from ..drawing.tiles import fitted, tile_side
from ..layers import default_convolutions, spatial_layer
from ..net import Net
from ..recipes import Recipe
from ..registry import view
from ..tracing import Layer
from .inputs import input_tile, stem


@view(
    "Layers projected down",
    paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, sec. 2.1",
    caveat="shows the joint activity of a layer: the projection of many units is not the sum of their projections",
)
def reconstruct(
    net: Net,
    pictures: list[InputPicture],
    *,
    layers: Annotated[list[str] | None, "the layers, one column each; by default up to five convolutions"] = None,
    grey: Annotated[bool, "without colours and on one contrast, as calm as the papers' figures"] = False,
) -> Gallery:
    """Project the whole activity of a layer down to pixels at once: a row per picture, a column per layer.

    The projection starts from the rectified activity, max(A, 0), as the paper's feature maps are. Raises LayerError
    for a layer without spatial positions.
    """
    chosen = [spatial_layer(net, name) for name in layers] if layers else default_convolutions(net)
    projections = [_projections(net, picture, chosen) for picture in track(pictures, "reconstructing")]
    limit = max(float(maps.abs().max()) for maps in projections) or 1.0 if grey else None
    rows = tuple(_row(picture, maps, limit) for picture, maps in zip(pictures, projections, strict=True))
    draft = Recipe(settled={"layers": [layer.name for layer in chosen]})
    return Gallery(_sheet(net, rows, chosen, pictures, limit), {"projections": torch.stack(projections)}, draft)


def _projections(net: Net, picture: InputPicture, layers: Sequence[Layer]) -> Tensor:
    """Project each layer's rectified activity down, (layers, c, h, w)."""
    pixels = net.pixels(picture)
    return torch.cat([project_down(net, pixels, layer, lambda a: [a.clamp(min=0)])[0] for layer in layers])


def _row(picture: InputPicture, projections: Tensor, limit: float | None) -> tuple[Tile, ...]:
    side = tile_side(len(projections) + 1)
    maps = projections.float().cpu().numpy()
    return input_tile(picture, side), *(_tile(map_, side, picture, limit) for map_ in maps)


def _tile(projection: np.ndarray, side: int, picture: InputPicture, limit: float | None) -> Tile:
    caption = "" if projection.any() else "zero everywhere"
    vivid = as_picture(projection, picture.display.bands)[0] if limit is None else as_grey_picture(projection, limit)
    return Tile(fitted(vivid, side), caption)


def _sheet(
    net: Net,
    rows: tuple[tuple[Tile, ...], ...],
    layers: Sequence[Layer],
    pictures: Sequence[InputPicture],
    limit: float | None,
) -> Sheet:
    contrast = (
        "each on its own scale, grey is 0" if limit is None else f"one contrast: grey is 0, white {number(limit)}"
    )
    names = tuple(map(stem, pictures))
    return Sheet(
        f"Layers of {net.name} projected down",
        rows,
        f"deconvnet projection of each layer's rectified activity · {contrast}",
        "",
        ("picture", *(f"{layer.number}: {layer.name}" if layer.number else layer.name for layer in layers)),
        names if len(pictures) > 1 and any(names) else (),
    )
