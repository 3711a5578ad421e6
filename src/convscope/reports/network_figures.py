"""Figures of a network itself, for a lesson: its layers one after the other, and how its units came about.

After Zeiler and Fergus (arXiv:1311.2901v3, Fig. 3 and Fig. 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..atlas.evolution import evolution_in
from ..atlas.snapshots import snapshots_of
from ..attribution.deconvnet import project_down
from ..context import track
from ..data.images import InputPicture
from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile
from ..drawing.tiles import fitted, magnitude_scale, painted, tile_side
from ..layers import default_convolutions, layer_at, spatial_layer
from ..net import Net
from ..tapping import tap
from ..tracing import Layer
from ..views.inputs import input_tile, stem
from ..views.project import in_field, isolated
from .chapters import Figure

_SIDE, _MOST, _ACROSS = 150, 11, 6
_UNITS = 3
"""Units of a layer whose evolution is shown."""


def units_of(net: Net, contents: Sequence[Any]) -> Figure:
    """Show, for pictures and convolutions, the strongest unit projected down."""
    layers, pictures = default_convolutions(net), [net.prepare(content) for content in contents]
    side = tile_side(len(layers) + 1)
    rows = list[tuple[Tile, ...]]()
    for picture in track(pictures, "units"):
        with torch.inference_mode():
            maps = tap(net, net.pixels(picture), [layer.name for layer in layers])
        strongest = [int(maps[layer.name][0].flatten(1).amax(1).argmax()) for layer in layers]
        rows.append((input_tile(picture, side), *(
            replace(_projected(net, [picture], layer, channel, side), caption=f"channel {channel}")
            for layer, channel in zip(layers, strongest, strict=True)
        )))  # fmt: skip
    sheet = Sheet(
        f"The strongest unit of each layer of {net.name}, projected down",
        tuple(rows),
        "deconvnet projection of one activation, all others set to zero, inside its receptive field · each on its own "
        "scale, grey is 0",
        "",
        ("picture", *(f"{layer.name}, sees {layer.seen}" for layer in layers)),
        tuple(stem(picture) or str(number) for number, picture in enumerate(pictures, 1)),
    )
    return Figure(lambda: sheet)


def layers_of(net: Net, content: Any) -> Figure:
    """Show a picture on its way: of every convolution, eleven at most, the channel that responds most."""
    picture, layers = net.prepare(content), default_convolutions(net, _MOST)
    with torch.inference_mode():
        readings = tap(net, net.pixels(picture), [layer.name for layer in layers])
    size = "{} × {}".format(*picture.pixels.shape[1:])
    tiles = [input_tile(picture, _SIDE, f"the picture\n{net.channels} × {size}")]
    tiles += [_strongest(layer, readings[layer.name][0].float().cpu().numpy()) for layer in layers]
    across = -(-len(tiles) // -(-len(tiles) // _ACROSS))
    count = sum(layer.number is not None for layer in net.layers.values())
    shown = "every convolution" if len(layers) == count else f"{len(layers)} of {count} convolutions"
    sheet = Sheet(
        f"The convolutions of {net.name}",
        tuple(tuple(tiles[start : start + across]) for start in range(0, len(tiles), across)),
        f"{shown}: the channel that responds most · each on its own scale · "
        f"{sum(parameter.numel() for parameter in net.body.parameters()):,} parameters",
    )
    return Figure(lambda: sheet)


def _strongest(layer: Layer, activity: np.ndarray) -> Tile:
    rectified = activity.clip(min=0)
    channel = int(rectified.reshape(len(activity), -1).sum(1).argmax())
    shape = " × ".join(map(str, layer.shape))
    shown = painted(np.atleast_2d(rectified[channel]), magnitude_scale(rectified[channel]), _SIDE)
    return Tile(shown, f"{layer.name}\n{shape}, channel {channel}\neach sees {layer.seen}")


def evolution_of(net: Net, contents: Sequence[Any], layers: Sequence[str]) -> Gallery:
    """Show how units came about: for every snapshot of the training, what excites them most, projected down.

    Raises WeightsError for a network without snapshots.
    """
    snapshots, pictures = snapshots_of(net), [net.prepare(content) for content in contents]
    wanted = {name: _chosen(net, pictures, spatial_layer(net, name)) for name in layers}
    return evolution_in(snapshots, net.pixels(*pictures), wanted)


def _chosen(net: Net, pictures: Sequence[InputPicture], layer: Layer) -> list[int]:
    """Return the channels of a layer that respond most to any of the pictures."""
    with torch.inference_mode():
        strongest = [
            tap(net, net.pixels(picture), [layer.name])[layer.name][0].flatten(1).amax(1) for picture in pictures
        ]
    return torch.stack(strongest).amax(0).topk(min(_UNITS, layer.shape[0])).indices.tolist()


def _projected(net: Net, pictures: Sequence[InputPicture], layer: Layer, channel: int, side: int) -> Tile:
    """Project a channel's strongest activation over pictures down, inside its receptive field."""
    with torch.inference_mode():
        maps = [tap(net, net.pixels(picture), [layer.name])[layer.name][0, channel].cpu() for picture in pictures]
    best = max(range(len(maps)), key=lambda number: float(maps[number].max()))
    if float(maps[best].max()) <= 0:
        return Tile(Image.new("RGB", (side, side), "#e1e1e1"), "not active")
    picture, (row, column) = pictures[best], divmod(int(maps[best].argmax()), maps[best].shape[1])
    pixels = net.pixels(picture)
    projection, _ = project_down(net, pixels, layer, lambda activity: [isolated(activity, (channel, row, column))])
    there = layer_at(net, layer, pixels)
    values = projection[0].float().cpu().numpy()
    _, shown = in_field(picture, values, there, (row, column), None)
    return Tile(fitted(shown, side), f"picture {best + 1}")
