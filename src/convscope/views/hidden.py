"""Gradients at hidden layers: the backward pass on its way down.

The gradient of the objective with respect to a layer's activity says which of its units would have to be more active,
and which less, for a higher score. Each layer's is the one above sent through one more transposed layer (Simonyan et
al., arXiv:1312.6034, sec. 4), so one backward pass computes all of them; it ends at the lowest layer.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..context import say
from ..cuts import independent
from ..data.images import InputPicture
from ..drawing import colours, layout
from ..drawing.drawings import Gallery
from ..drawing.layout import Scale, Sheet, Tile, number
from ..drawing.tiles import magnitude_scale, painted, signed_scale
from ..drawing.typesetting import EDGE, FAINT, INK, Block, Box, Inset, Item, Words
from ..layers import between, channelled_layer, telling_layers
from ..net import Net
from ..objectives import Objective
from ..options import Range
from ..predictions import ObjectiveLike, settle
from ..recipes import Recipe
from ..registry import view
from ..tapping import tap
from ..tracing import OUTPUT, Layer

_PICTURE = 176
_CELL = 84
_PER_ROW = 8
_LINE = 17


@view("Gradients at hidden layers", paper="Simonyan et al. 2013, arXiv:1312.6034, sec. 4")
def hidden_gradients(
    net: Net,
    picture: InputPicture,
    *,
    of: Annotated[ObjectiveLike, "the objective; the top-1 class by default"] = None,
    layers: Annotated[
        list[str] | None,
        "the layers, first..last for all with channels from one to the other; by default the last convolution of every "
        "resolution and the last hidden layer without spatial positions",
    ] = None,
    top: Annotated[int, "number of channels per layer, those with the strongest gradient", Range(1)] = 16,
) -> Gallery:
    """Show the gradient of an objective at hidden layers, from the output down.

    Left, where a layer's gradient is strong, over all channels; right, its strongest channels. Raises LayerError for a
    layer that does not exist, or on which the objective does not depend.
    """
    pixels = net.pixels(picture)
    objective, title = settle(net, pixels, of)
    chosen = (telling_layers(net, objective.layers) if layers is None else between(net, layers))[::-1]
    for layer in chosen:
        channelled_layer(net, layer.name)
    gradients = {
        layer.name: gradient[0]
        for layer, gradient in zip(chosen, gradients_at(net, pixels, objective, chosen), strict=True)
    }
    if not any(gradient.any() for gradient in gradients.values()):
        say("the gradient is zero in all of these layers")
    first = Tile(layout.enlarged(picture.image(), _PICTURE), "input")
    rows = [_layer_row(net, layer, gradients[layer.name].float().cpu().numpy(), top) for layer in chosen]
    sheet = Sheet(
        title,
        ((first, None), *rows),
        f"Gradients at hidden layers · {net.name} · in score per unit of activity, each layer on its own scale"
        + (f" · {PurePath(picture.name).name}" if picture.name else ""),
    )
    return Gallery(sheet, gradients, Recipe(objective=str(objective), settled={"layers": list(gradients)}))


def gradients_at(net: Net, pixels: Tensor, objective: Objective, layers: list[Layer]) -> list[Tensor]:
    """Return the objective's gradient at layers, each of the shape (n, ...) of its activity, in one backward pass.

    Pixels (n, c, h, w) in [0, 1]. Raises LayerError where the objective does not depend on a layer.
    """
    names = [layer.name for layer in layers]
    with torch.inference_mode(False), torch.enable_grad():
        # The output alone has no layer below it to begin the graph at.
        pixels = pixels.detach().clone().requires_grad_(names == [OUTPUT])
        readings = tap(net, pixels, objective.layers, leaf=names)
        score = objective.score(readings).sum()
        sources = [readings[name] for name in names]
        connected = score.requires_grad and all(source.requires_grad for source in sources)
        gradients = torch.autograd.grad(score, sources, allow_unused=True) if connected else [None] * len(names)
    for layer, gradient in zip(layers, gradients, strict=True):
        if gradient is None:
            raise independent(net, pixels, objective, layer)
    return [gradient for gradient in gradients if gradient is not None]


def _layer_row(net: Net, layer: Layer, gradient: np.ndarray, top: int) -> tuple[Tile, Tile]:
    """Lay one layer out: its gradient over all channels, and its strongest channels."""
    name = f"{layer.name or 'output'}, {' × '.join(map(str, gradient.shape))}"
    strength = np.sqrt(np.square(gradient.reshape(len(gradient), -1), dtype=np.float64).mean(1))
    order = np.argsort(-strength, kind="stable")[: min(top, len(gradient))]
    order = [int(k) for k in order if strength[k] > 0]
    if not order:
        blank = Image.new("RGB", (_PICTURE, _LINE), "white")
        return Tile(blank, name), Tile(blank, "the gradient is zero everywhere in this layer")
    nonzero = int((strength > 0).sum())
    if gradient.ndim == 1:
        caption = _caption("units", len(order), nonzero, len(gradient))
        return _all_units(gradient, name), Tile(_bars(net, layer, gradient, order), caption)
    caption = _caption("channels", len(order), nonzero, len(gradient))
    return _over_channels(gradient, name), _strongest(gradient, order, caption)


def _caption(kind: str, shown: int, nonzero: int, count: int) -> str:
    if nonzero == 1:
        return f"the only one of {count} {kind} with a gradient other than zero"
    of = f"{nonzero} with a gradient other than zero, of {count}" if nonzero < count else str(count)
    what = kind.removesuffix("s") if shown == 1 else f"{shown} {kind}"
    return f"the {what} with the strongest gradient, of {of}"


def _over_channels(gradient: np.ndarray, name: str) -> Tile:
    """Paint the root mean square of a gradient (c, h, w) over its channels."""
    values = np.sqrt(np.square(gradient, dtype=np.float64).mean(0))
    scale = magnitude_scale(values)
    return Tile(painted(values, scale, _PICTURE), f"{name}: root mean square over channels", scale)


def _strongest(gradient: np.ndarray, order: list[int], caption: str) -> Tile:
    channels = gradient[order]
    scale = signed_scale(channels)
    return Tile(_mosaic(channels, order, scale), caption, scale)


def _cells(count: int, height: int) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Return the size of cells of that height in rows, and their corners."""
    columns = min(_PER_ROW, max(count, 4))  # never narrower than what is written below
    rows = -(-count // columns)
    corners = [((i % columns) * (_CELL + 6), (i // columns) * (height + 6)) for i in range(count)]
    return (columns * (_CELL + 6) - 6, rows * (height + 6) - 6), corners


def _mosaic(channels: np.ndarray, order: list[int], scale: Scale) -> Inset:
    """Paint channels (k, h, w) side by side, each above its number."""
    tiles = [painted(values, scale, _CELL) for values in channels]
    height = tiles[0].height
    size, corners = _cells(len(tiles), height + _LINE)
    items: list[Item] = []
    for k, tile, (x, y) in zip(order, tiles, corners, strict=True):
        number_ = Words(x + tile.width / 2, y + height + 2, str(k), "caption", INK, "ma")
        items += [Block(x, y, tile), Box(x, y, tile.width, tile.height, "#d8d8de"), number_]
    return Inset.scaled(size, items)


def _all_units(gradient: np.ndarray, name: str) -> Tile:
    """Paint all units of a layer without spatial positions in rows, as nearly a square as they fill."""
    width = int(np.ceil(np.sqrt(len(gradient))))
    scale = signed_scale(gradient)
    square = np.zeros(width * -(-len(gradient) // width))
    square[: len(gradient)] = gradient
    return Tile(painted(square.reshape(-1, width), scale, _PICTURE), f"{name}: all units, row by row", scale)


def _bars(net: Net, layer: Layer, gradient: np.ndarray, order: list[int]) -> Inset:
    """Paint units as bars up and down from a line, each above its number and value."""
    reach, room = float(np.abs(gradient).max()), 34
    size, corners = _cells(len(order), 2 * room + 2 * _LINE)
    items: list[Item] = []
    for k, (x, y) in zip(order, corners, strict=True):
        value, middle = float(gradient[k]), y + room
        tip = round(middle - value / reach * (room - 2))
        top, bottom = min(middle, tip), max(middle, tip)
        items.append(Box(x + 22, top, _CELL - 44, bottom - top + 1, _colour(value), filled=True))
        items.append(Box(x, middle, _CELL, 1, EDGE, filled=True))
        name = net.class_name(k) if layer.name == OUTPUT and net.classes else str(k)
        for line, (text, ink) in enumerate(((name[:13], INK), (number(value), FAINT))):
            items.append(Words(x + _CELL / 2, y + 2 * room + line * _LINE, text, "caption", ink, "ma"))
    return Inset.scaled(size, items)


def _colour(value: float) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colours.table("polar")[230 if value > 0 else 25])
