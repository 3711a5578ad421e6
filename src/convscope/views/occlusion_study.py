"""Zeiler and Fergus' occlusion figure: a sliding square's effect on a feature map, a probability and the top-1 class.

arXiv:1311.2901v3, sec. 4.2, Fig. 7: (a) the picture; for every position of the square (b) the total activity of the
feature map of a late layer that is strongest without occlusion, (d) the probability of the class, (e) the top-1 class;
and (c) the feature map's projection down to pixels. If the feature map is really excited by the parts that its
projection shows, occluding them makes its activity fall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import baselines
from ..attribution.deconvnet import deconvnet
from ..attribution.occlusion import BaselineOption, Memory, Patch, Stride, squares_over
from ..batching import budget
from ..context import listen, say
from ..data.images import InputPicture
from ..drawing import colours
from ..drawing.drawings import Gallery, as_picture
from ..drawing.layout import Scale, Sheet, Tile, legend, number
from ..errors import LayerError, RuleError
from ..incremental.occlusions import Occluder, Occlusions, report
from ..layers import last_spatial_layer, spatial_layer
from ..net import Net
from ..objectives import Unit, as_objective
from ..predictions import ObjectiveLike, answers
from ..recipes import Recipe
from ..registry import view
from ..tapping import tap
from ..tracing import OUTPUT, Layer
from .inputs import class_asked

_SIDE = 230
_NAMED = 8
_OUTSIDE = 225
_OTHER = (150, 150, 150)


@dataclass(frozen=True)
class _Study:
    """What is watched while a square slides over pixels (1, c, h, w)."""

    net: Net
    pixels: Tensor
    target: int
    layer: Layer
    channel: int
    squares: Occluder
    baseline: str

    @property
    def unit(self) -> str:
        return f"{self.layer.name}:{self.channel}"

    @property
    def number(self) -> str:
        """The name of the values of the output."""
        return "score" if self.net.head.kind == "value" else "probability"


@view("Occlusion study", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, sec. 4.2, Fig. 7")
def occlusion_study(
    net: Net,
    picture: InputPicture,
    *,
    of: Annotated[ObjectiveLike, "the class whose probability is shown; the top-1 class by default"] = None,
    unit: Annotated[
        str | None, "layer:channel whose activity is shown, or a layer; by default the strongest of the last layer"
    ] = None,
    patch: Patch = None,
    stride: Stride = None,
    baseline: BaselineOption = "grey",
    memory: Memory = None,
) -> Gallery:
    """Show a channel's activity, the class's probability and the top-1 class for every position of a sliding square.

    The values are (rows, columns) of positions: `activity` is summed over the channel's spatial positions,
    `probability` that of the class, `first` the index of the top-1 class; where the output is no probability, `score`
    stands in its place. Raises LayerError for a layer without spatial
    positions, OptionError for a patch that does not fit.
    """
    pixels = net.pixels(picture)
    target = class_asked(net, pixels, of)
    squares = squares_over(pixels, patch, stride)
    study = _Study(net, pixels, target, *_unit(net, pixels, unit), squares, baseline)
    maps = _slide(study, memory)
    sheet = Sheet(
        f"{net.class_name(target)} under occlusion",
        _tiles(study, maps, picture),
        f"Occlusion study · {net.name} · {squares.patch} px squares, stride {squares.stride} px, baseline {baseline}"
        + (f" · {picture.name}" if picture.name else ""),
    )
    settled = {"unit": study.unit, "patch": squares.patch, "stride": squares.stride}
    return Gallery(sheet, maps, Recipe(objective=str(target), settled=settled))


def _unit(net: Net, pixels: Tensor, unit: str | None) -> tuple[Layer, int]:
    """Find the channel to watch: the strongest of its layer unless it is named."""
    if unit is not None and ":" in unit:
        _, term = as_objective(net, unit).terms[0]
        if not isinstance(term, Unit) or term.channel is None or not net.layer(term.layer).spatial:
            raise LayerError(f"unit is layer:channel of a layer with spatial positions, or a layer, not {unit!r}")
        return net.layer(term.layer), term.channel
    layer = spatial_layer(net, last_spatial_layer(net).name if unit is None else unit)
    return layer, int(_activity(net, pixels, layer).sum((1, 2)).argmax())


def _activity(net: Net, pixels: Tensor, layer: Layer) -> Tensor:
    with torch.inference_mode():
        return tap(net, pixels, [layer.name])[layer.name][0].float()


def _slide(study: _Study, memory: str | None) -> dict[str, Tensor]:
    """Compute the three maps, one number per position of the square."""
    net, pixels, layer = study.net, study.pixels, study.layer.name
    replacement = baselines.baseline_pixels(net, pixels, study.baseline)
    with torch.inference_mode(False):
        covered = Occlusions(net, pixels, [layer, OUTPUT], study.squares, replacement, budget(memory, pixels.device))
        report(covered)
        maps = {name: torch.zeros(covered.count) for name in ("activity", study.number, "first")}
        for numbers, readings in covered.read("occlusion study"):
            shares, at = net.head.read(readings[OUTPUT].float()), torch.from_numpy(numbers)
            maps["activity"][at] = readings[layer][:, study.channel].float().sum((1, 2)).cpu()
            maps[study.number][at] = shares[:, study.target].cpu()
            maps["first"][at] = shares.argmax(1).float().cpu()
    several = net.output.shape[0] > 1
    return {name: map_.view(study.squares.grid) for name, map_ in maps.items() if several or name != "first"}


def _tiles(study: _Study, maps: dict[str, Tensor], picture: InputPicture) -> tuple[tuple[Tile, ...], ...]:
    net, pixels, squares = study.net, study.pixels, study.squares
    activity = float(_activity(net, pixels, study.layer)[study.channel].sum())
    head, numbers = answers(net, pixels)
    above = (
        Tile(_picture(study, picture), "(a) the picture, with one square to scale"),
        _map(maps["activity"], squares, f"(b) activity of {study.unit}, {number(activity)} without occlusion"),
        _projection(study),
    )
    share = number(float(numbers[0, study.target]))
    title = f"(d) {head.word} of {net.class_name(study.target)}, {share} without occlusion"
    choices = _top_1(study, maps["first"].long(), exclusive=head.exclusive(numbers)) if "first" in maps else ()
    return above, (_map(maps[study.number], squares, title), *choices)


def _picture(study: _Study, picture: InputPicture) -> Image.Image:
    pixels, squares = study.pixels.clone(), study.squares
    rows, columns = squares.box((squares.grid[0] // 2) * squares.grid[1] + squares.grid[1] // 2)
    replacement = baselines.baseline_pixels(study.net, study.pixels, study.baseline)
    pixels[:, :, rows, columns] = replacement[:, :, rows, columns]
    return _fitted(picture.image(pixels[0].float().cpu().numpy()))


def _fitted(image: Image.Image) -> Image.Image:
    """Bring an image to the size of a tile; pixels become visible squares from twice their size on."""
    ratio = _SIDE / max(image.size)
    method = Image.Resampling.NEAREST if ratio >= 2 else Image.Resampling.LANCZOS
    return image.resize((round(image.width * ratio), round(image.height * ratio)), method)


def _projection(study: _Study) -> Tile:
    pixels = study.pixels
    try:
        with listen() as remarks:
            projection = deconvnet(study.net, pixels, as_objective(study.net, f"{study.unit}@max"))
    except RuleError as error:
        grey = Image.new("RGB", (pixels.shape[3], pixels.shape[2]), (_OUTSIDE,) * 3)
        return Tile(_fitted(grey), f"(c) no projection: {error}")
    for remark in remarks:
        say(remark)
    picture, limit = as_picture(projection[0].float().cpu().numpy(), study.net.show)
    return Tile(_fitted(picture), f"(c) projection of the channel's strongest activation: white is {number(limit)}")


def _map(values: Tensor, squares: Occluder, caption: str) -> Tile:
    """Draw one number per position where the square's middle was."""
    array = values.numpy()
    low, high = float(array.min()), float(array.max())
    scale = Scale("fire", low, high if high > low else low + 1.0)
    nearest, outside = _nearest(squares)
    painted = colours.paint(array.reshape(-1)[nearest], scale.low, scale.high, scale.colours)
    painted[outside] = _OUTSIDE
    return Tile(_fitted(Image.fromarray(painted)), caption, scale)


def _nearest(squares: Occluder) -> tuple[np.ndarray, np.ndarray]:
    """Return for every pixel the number of the square with the nearest middle, and whether that is too far away."""
    axes = []
    for spans, extent in ((squares.rows, squares.height), (squares.columns, squares.width)):
        distance = np.abs(np.arange(extent)[:, None] - (spans.mean(0) - 0.5))
        axes.append((distance.argmin(1), distance.min(1) > max(squares.stride, 2) / 2 + 1))
    (rows, above), (columns, beside) = axes
    return rows[:, None] * squares.grid[1] + columns, above[:, None] | beside


def _top_1(study: _Study, first: Tensor, *, exclusive: bool) -> tuple[Tile, Tile]:
    """Draw the top-1 class at every position, of labels the most confident one, and its legend."""
    net, squares = study.net, study.squares
    classes, counts = first.unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:_NAMED]
    named, palette = classes[order].tolist(), colours.distinct(min(len(order), _NAMED))
    painted = np.full((*first.shape, 3), _OTHER, dtype=np.uint8)
    for colour, index in zip(palette, named, strict=True):
        painted[(first == index).numpy()] = colour
    what = "top-1 class" if exclusive else "largest output" if net.head.kind == "value" else "most confident label"
    nearest, outside = _nearest(squares)
    whole = painted.reshape(-1, 3)[nearest]
    whole[outside] = _OUTSIDE
    shares = [_share(share) for share in (counts[order] / first.numel()).tolist()]
    entries = [
        (tuple(colour.tolist()), f"{net.class_name(index)}, {share}")
        for colour, index, share in zip(palette, named, shares, strict=True)
    ]
    if len(classes) > len(named):
        entries.append((_OTHER, f"{len(classes) - len(named)} other classes"))
    return (
        Tile(_fitted(Image.fromarray(whole)), f"(e) the {what} at each position"),
        Tile(legend(entries, (_SIDE, _SIDE)), "its classes, with their share of the positions"),
    )


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "under 1%"
