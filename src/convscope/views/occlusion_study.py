"""Zeiler and Fergus' occlusion figure: what a sliding square does to a feature map, to a probability, to the answer.

arXiv:1311.2901v3, sec. 4.2, Fig. 7: (a) the picture; for every position of the square (b) the total activity of the one
map of a late layer that is strongest in the uncovered picture, (d) the probability of the class, (e) the most probable
class; and (c) the map's projection down to pixels. If the map is really excited by the parts that its projection
shows, covering those parts makes its activity fall.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import baselines, registry
from ..attribution.deconvnet import deconvnet
from ..attribution.occlusion import BaselineOption, Memory, Patch, Stride, squares_over
from ..batching import budget
from ..context import listen, say
from ..data.images import to_image
from ..drawing import colours
from ..drawing.drawings import Gallery, as_picture
from ..drawing.layout import Scale, Sheet, Tile, legend, number
from ..errors import LayerError, NetworkError, ObjectiveError, RuleError
from ..incremental.covering import Covered, Squares, report
from ..layers import last_spatial_layer, spatial_layer
from ..net import Net
from ..objectives import Unit, as_objective, probabilities
from ..predictions import ObjectiveLike, predict
from ..registry import view
from ..running import footnote, recipe
from ..tapping import tap
from ..tracing import OUTPUT, Layer

_SIDE = 230
_NAMED = 8
_NOWHERE = 225


@view("Occlusion study", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, sec. 4.2, Fig. 7")
def occlusion_study(
    net: Net,
    picture: Any,
    *,
    of: Annotated[str | None, "the class whose probability is shown; the network's first choice by default"] = None,
    unit: Annotated[
        str | None, "layer:channel whose activity is shown, or a layer; by default the strongest of the last layer"
    ] = None,
    patch: Patch = None,
    stride: Stride = None,
    baseline: BaselineOption = "grey",
    memory: Memory = None,
) -> Gallery:
    """Show for every position of a sliding square a channel's activity, the class's probability, and the answer.

    The values are (rows, columns) of positions: `activity` is summed over the channel's places, `probability` that of
    the class, `first` the index of the most probable class. Raises LayerError for a layer without places, OptionError
    for a patch that does not fit.
    """
    seen = net.prepare(picture)
    pixels = net.pixels(seen)
    class_ = _class(net, pixels, of)
    layer, channel = _unit(net, pixels, unit)
    squares = squares_over(pixels, patch, stride)
    with listen() as remarks:
        found = _slide(net, pixels, layer, channel, class_, squares, baseline, memory)
        tiles = _tiles(net, pixels, layer, channel, class_, squares, baseline, found)
    options = {
        "of": of,
        "unit": f"{layer.name}:{channel}",
        "patch": squares.patch,
        "stride": squares.stride,
        "baseline": baseline,
    }
    sheet = Sheet(
        f"{net.class_name(class_)}: what happens when a square covers it?",
        tiles,
        f"Occlusion study · {net.name} · {squares.patch} px squares, {squares.stride} px apart, filled with {baseline}"
        + (f" · {seen.name}" if seen.name else ""),
        footnote(net, registry.VIEWS["occlusion_study"], remarks),
    )
    return Gallery(sheet, found, recipe(net, "occlusion_study", [seen], str(class_), options, remarks))


def _class(net: Net, pixels: Tensor, of: ObjectiveLike) -> int:
    if len(net.output.shape) != 1:
        raise NetworkError(
            f"{net.name} has outputs of shape {net.output.shape}, not classes: use occlusion with of=..."
        )
    if of is None:
        return int(predict(net, pixels)[0].argmax())
    index = as_objective(net, of).class_index
    if index is None:
        raise ObjectiveError(f"of names one class here, not {of!r}; a layer's channel is given as unit=layer:channel")
    return index


def _unit(net: Net, pixels: Tensor, unit: str | None) -> tuple[Layer, int]:
    """Find the channel to watch: the strongest of its layer unless it is named."""
    if unit is not None and ":" in unit:
        _, term = as_objective(net, unit).terms[0]
        if not isinstance(term, Unit) or term.channel is None or not net.layer(term.layer).spatial:
            raise LayerError(f"unit is layer:channel of a layer with spatial positions, or a layer, not {unit!r}")
        return net.layer(term.layer), term.channel
    layer = spatial_layer(net, last_spatial_layer(net).name if unit is None else unit)
    activity = _read(net, pixels, layer)
    return layer, int(activity.sum((1, 2)).argmax())


def _read(net: Net, pixels: Tensor, layer: Layer) -> Tensor:
    with torch.inference_mode():
        return tap(net, pixels, [layer.name])[layer.name][0].float()


def _slide(
    net: Net,
    pixels: Tensor,
    layer: Layer,
    channel: int,
    class_: int,
    squares: Squares,
    baseline: str,
    memory: str | None,
) -> dict[str, Tensor]:
    """Compute the three maps, one number per position."""
    covering = baselines.baseline_pixels(net, pixels, baseline)
    with torch.inference_mode(False):
        covered = Covered(net, pixels, [layer.name, OUTPUT], squares, covering, budget(memory, pixels.device))
        report(covered)
        found = {name: torch.zeros(covered.count) for name in ("activity", "probability", "first")}
        for numbers, readings in covered.read("occlusion study"):
            shares = probabilities(readings[OUTPUT].float())
            at = torch.from_numpy(numbers)
            found["activity"][at] = readings[layer.name][:, channel].float().sum((1, 2)).cpu()
            found["probability"][at] = shares[:, class_].cpu()
            found["first"][at] = shares.argmax(1).float().cpu()
    return {name: values.view(squares.grid) for name, values in found.items()}


def _tiles(
    net: Net,
    pixels: Tensor,
    layer: Layer,
    channel: int,
    class_: int,
    squares: Squares,
    baseline: str,
    found: dict[str, Tensor],
) -> tuple[tuple[Tile, ...], ...]:
    name = net.class_name(class_)
    clean = float(_read(net, pixels, layer)[channel].sum())
    before = float(predict(net, pixels)[0, class_])
    tiles = [
        Tile(_picture(net, pixels, squares, baseline), "(a) the picture, with one square to scale"),
        _map(found["activity"], squares, f"(b) activity of {layer.name}:{channel}, {number(clean)} when uncovered"),
        _projection(net, pixels, layer, channel),
        _map(found["probability"], squares, f"(d) probability of {name}, {number(before)} when uncovered"),
    ]
    tiles += _answers(net, found["first"].long(), squares)
    return tuple(tiles[:3]), tuple(tiles[3:])


def _picture(net: Net, pixels: Tensor, squares: Squares, baseline: str) -> Image.Image:
    shown = pixels.clone()
    rows, columns = squares.box((squares.grid[0] // 2) * squares.grid[1] + squares.grid[1] // 2)
    shown[:, :, rows, columns] = baselines.baseline_pixels(net, pixels, baseline)[:, :, rows, columns]
    return _fitted(to_image(shown[0].float().cpu().numpy()))


def _fitted(image: Image.Image) -> Image.Image:
    ratio = _SIDE / max(image.size)
    method = Image.Resampling.NEAREST if ratio >= 2 else Image.Resampling.LANCZOS
    return image.resize((round(image.width * ratio), round(image.height * ratio)), method)


def _projection(net: Net, pixels: Tensor, layer: Layer, channel: int) -> Tile:
    try:
        with listen() as remarks:
            projected = deconvnet(net, pixels, as_objective(net, f"{layer.name}:{channel}@max"))
    except RuleError as error:
        grey = Image.new("RGB", (pixels.shape[3], pixels.shape[2]), (_NOWHERE,) * 3)
        return Tile(_fitted(grey), f"(c) no projection: {error}")
    for remark in remarks:
        say(remark)
    picture, limit = as_picture(projected[0].float().cpu().numpy())
    return Tile(_fitted(picture), f"(c) the channel's strongest place projected down: white is {number(limit)}")


def _map(values: Tensor, squares: Squares, caption: str) -> Tile:
    """Draw one number per position where the square's middle was."""
    array = values.numpy()
    low, high = float(array.min()), float(array.max())
    scale = Scale("fire", low, high if high > low else low + 1.0)
    where, outside = _nearest(squares)
    painted = colours.paint(array.reshape(-1)[where], scale.low, scale.high, scale.colours)
    painted[outside] = _NOWHERE
    return Tile(_fitted(Image.fromarray(painted)), caption, scale)


def _nearest(squares: Squares) -> tuple[np.ndarray, np.ndarray]:
    """Return for every pixel the number of the square whose middle is nearest, and where that is none's business."""
    lines = []
    for spans, extent in ((squares.rows, squares.height), (squares.columns, squares.width)):
        distance = np.abs(np.arange(extent)[:, None] - (spans.mean(0) - 0.5))
        lines.append((distance.argmin(1), distance.min(1) > max(squares.stride, 2) / 2 + 1))
    (rows, above), (columns, beside) = lines
    return rows[:, None] * squares.grid[1] + columns, above[:, None] | beside


def _answers(net: Net, first: Tensor, squares: Squares) -> tuple[Tile, ...]:
    """Draw the most probable class at every position, and its legend."""
    classes, counts = first.unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:_NAMED]
    shown, palette = classes[order], colours.distinct(min(len(order), _NAMED))
    painted = np.full((*first.shape, 3), 150, dtype=np.uint8)
    for colour, class_ in zip(palette, shown.tolist(), strict=True):
        painted[(first == class_).numpy()] = colour
    where, outside = _nearest(squares)
    whole = painted.reshape(-1, 3)[where]
    whole[outside] = _NOWHERE
    share = (counts[order] / first.numel()).tolist()
    entries = [
        (
            tuple(colour.tolist()),
            f"{net.class_name(class_)}, {part:.0%}" if part >= 0.005 else f"{net.class_name(class_)}, under 1%",
        )
        for colour, class_, part in zip(palette, shown.tolist(), share, strict=True)
    ]
    if len(classes) > len(shown):
        entries.append(((150, 150, 150), f"{len(classes) - len(shown)} other classes"))
    return (
        Tile(_fitted(Image.fromarray(whole)), "(e) the most probable class at each position"),
        Tile(legend(entries, (_SIDE, _SIDE)), "its classes, and at how many of the positions"),
    )
