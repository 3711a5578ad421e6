"""Gradients at hidden layers: the backward pass, watched on its way down.

The gradient of the objective with respect to a layer's activity says which of its units would have to be more, and
which less active for a higher score. Each layer's is the one above sent through one more transposed layer (Simonyan
et al., arXiv:1312.6034, sec. 4), so one backward pass passes through all of them; it ends at the lowest layer asked
for.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .. import registry
from ..data.images import to_image
from ..drawing import colours, layout, typesetting
from ..drawing.drawings import Gallery, robust_limit
from ..drawing.layout import Scale, Sheet, Tile, number
from ..errors import OptionError
from ..layers import between, channelled_layer, independent, telling_layers
from ..net import Net
from ..objectives import Objective
from ..predictions import settle
from ..registry import view
from ..running import footnote, recipe
from ..tapping import tap
from ..tracing import OUTPUT, Layer

_PICTURE = 176
_CELL = 84
_PER_ROW = 8
_LINE = 17


@view("Gradients at hidden layers", paper="Simonyan et al. 2013, arXiv:1312.6034, sec. 4")
def hidden_gradients(
    net: Net,
    picture: Any,
    *,
    of: Annotated[str | None, "the objective; the network's first choice by default"] = None,
    layers: Annotated[
        list[str] | None,
        "the layers to look at, first..last for all with channels from one to the other; by default the last "
        "convolution of every grid, and units without places",
    ] = None,
    top: Annotated[int, "how many channels of each layer, those with the strongest gradient"] = 16,
) -> Gallery:
    """Show the gradient of an objective at hidden layers, from the answer down: how much each unit matters.

    Left, where a layer's gradient is strong, over all channels; right, its strongest channels. Raises LayerError for a
    layer that does not exist, or on which the objective does not depend.
    """
    if top < 1:
        raise OptionError(f"top is how many channels to show, at least 1, not {top}")
    one = net.prepare(picture)
    pixels = net.pixels(one)
    objective, title = settle(net, pixels, of)
    chosen = (telling_layers(net, objective.layers) if layers is None else between(net, layers))[::-1]
    for layer in chosen:
        channelled_layer(net, layer.name)
    gradients = gradients_at(net, pixels, objective, chosen)
    rows = [(Tile(layout.enlarged(to_image(one.pixels), _PICTURE), "what the network sees"), None)]
    rows += [
        _layer_row(net, layer, gradient[0].float().cpu().numpy(), top)
        for layer, gradient in zip(chosen, gradients, strict=True)
    ]
    flat = [] if any(gradient.any() for gradient in gradients) else ["the gradient is zero in all of these layers"]
    sheet = Sheet(
        title,
        tuple(rows),
        f"{registry.VIEWS['hidden_gradients'].title} · {net.name} · in score per unit of activity, each layer on "
        "its own scale" + (f" · {PurePath(one.name).name}" if one.name else ""),
        footnote(net, registry.VIEWS["hidden_gradients"], flat),
    )
    names = [layer.name for layer in chosen]
    options = {"of": of, "layers": names, "top": top}
    made = recipe(net, "hidden_gradients", [one], str(objective), options, flat)
    return Gallery(sheet, {name: gradient[0] for name, gradient in zip(names, gradients, strict=True)}, made)


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
            raise independent(objective, layer)
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
    said = _said("units" if gradient.ndim == 1 else "channels", len(order), int((strength > 0).sum()), len(gradient))
    if gradient.ndim == 1:
        left = _square_of_units(gradient)
        right = _bars(net, layer, gradient, order)
        return Tile(left[0], f"{name}: all units, row by row", left[1]), Tile(right, said)
    everywhere = np.sqrt(np.square(gradient, dtype=np.float64).mean(0))
    limit = robust_limit(everywhere)
    where = Scale("fire", 0.0, limit, "", clipped_high=bool(everywhere.max() > limit))
    shown = gradient[order]
    limit = robust_limit(shown)
    scale = Scale("polar", -limit, limit, "", bool(shown.min() < -limit), bool(shown.max() > limit))
    left = _fitted(everywhere, where, (_PICTURE, _PICTURE))
    return Tile(left, f"{name}: root mean square over channels", where), Tile(_mosaic(shown, order, scale), said, scale)


def _said(kind: str, shown: int, live: int, count: int) -> str:
    if live == 1:
        return f"the only one of {count} {kind} whose gradient is not zero"
    of = f"{live} whose gradient is not zero, of {count}" if live < count else str(count)
    what = kind.removesuffix("s") if shown == 1 else f"{shown} {kind}"
    return f"the {what} with the strongest gradient, of {of}"


def _fitted(values: np.ndarray, scale: Scale, room: tuple[int, int]) -> Image.Image:
    """Paint values (h, w) as large as they fit into (width, height): pixels when enlarged, smooth when reduced."""
    image = Image.fromarray(colours.paint(values, scale.low, scale.high, scale.colours))
    ratio = min(room[0] / image.width, room[1] / image.height)
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.resize(size, Image.Resampling.NEAREST if ratio >= 1 else Image.Resampling.BOX)


def _cells(count: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw, list[tuple[int, int]]]:
    """Return a white image with room for cells of that height in rows, and their corners."""
    columns = min(_PER_ROW, max(count, 4))  # never narrower than what is written below
    rows = -(-count // columns)
    image = Image.new("RGB", (columns * (_CELL + 6) - 6, rows * (height + 6) - 6), "white")
    corners = [((i % columns) * (_CELL + 6), (i // columns) * (height + 6)) for i in range(count)]
    return image, ImageDraw.Draw(image), corners


def _mosaic(shown: np.ndarray, order: list[int], scale: Scale) -> Image.Image:
    """Paint channels (k, h, w) side by side, each above its number."""
    tiles = [_fitted(values, scale, (_CELL, _CELL)) for values in shown]
    height = tiles[0].height
    image, draw, corners = _cells(len(tiles), height + _LINE)
    for k, tile, (x, y) in zip(order, tiles, corners, strict=True):
        image.paste(tile, (x, y))
        draw.rectangle((x, y, x + tile.width - 1, y + tile.height - 1), outline="#d8d8de")
        draw.text(
            (x + tile.width / 2, y + height + 2), str(k), font=typesetting.font("caption"), fill="#1b1b1f", anchor="ma"
        )
    return image


def _square_of_units(gradient: np.ndarray) -> tuple[Image.Image, Scale]:
    """Paint all units of a layer without places in rows, as nearly a square as they fill."""
    width = int(np.ceil(np.sqrt(len(gradient))))
    limit = robust_limit(gradient)
    scale = Scale("polar", -limit, limit, "", bool(gradient.min() < -limit), bool(gradient.max() > limit))
    square = np.zeros(width * -(-len(gradient) // width))
    square[: len(gradient)] = gradient
    return _fitted(square.reshape(-1, width), scale, (_PICTURE, _PICTURE)), scale


def _bars(net: Net, layer: Layer, gradient: np.ndarray, order: list[int]) -> Image.Image:
    """Paint units as bars up and down from a line, each above its number and value."""
    reach, room = float(np.abs(gradient).max()), 34
    image, draw, corners = _cells(len(order), 2 * room + 2 * _LINE)
    for k, (x, y) in zip(order, corners, strict=True):
        value, middle = float(gradient[k]), y + room
        colour = tuple(int(c) for c in colours.table("polar")[230 if value > 0 else 25])
        tip = round(middle - value / reach * (room - 2))
        draw.rectangle((x + 22, min(middle, tip), x + _CELL - 22, max(middle, tip)), fill=colour)
        draw.line((x, middle, x + _CELL, middle), fill="#b8b8c0")
        name = net.class_name(k) if layer.name == OUTPUT and net.classes else str(k)
        for line, (text, ink) in enumerate(((name[:13], "#1b1b1f"), (number(value), "#62626b"))):
            at = (x + _CELL / 2, y + 2 * room + line * _LINE)
            draw.text(at, text, font=typesetting.font("caption"), fill=ink, anchor="ma")
    return image
