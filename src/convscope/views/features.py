"""Views of features: what a layer holds, what its units saw, and what its filters look like.

After Zeiler and Fergus (arXiv:1311.2901v3, Fig. 2 and 6): feature maps; the strongest activations projected down to
pixels beside the piece of the picture that each could see; whole layers projected at once; first-layer filters.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .. import registry
from ..attribution.deconvnet import project_down
from ..context import track
from ..data.images import InputPicture, to_image
from ..drawing import colours
from ..drawing.drawings import Gallery, as_picture, robust_limit
from ..drawing.layout import Scale, Sheet, Tile, number
from ..errors import LayerError, OptionError, PictureError
from ..net import Layer, Net
from ..registry import view
from ..running import footnote, recipe
from ..tapping import tap

_MANY = 256
_WIDE = 24


def _views(net: Net, pictures: Any) -> list[InputPicture]:
    many = isinstance(pictures, (list, tuple)) or (isinstance(pictures, Tensor) and pictures.ndim == 4)
    views = [net.prepare(picture) for picture in (pictures if many else [pictures])]
    sizes = sorted({one.pixels.shape[1:] for one in views})
    if len(sizes) != 1:
        raise PictureError(f"one sheet shows pictures of one size, not {' and '.join(map(str, sizes)) or 'none'}")
    return views


def _gallery(
    net: Net, name: str, sheet: Sheet, values: dict[str, Tensor], views: list[InputPicture], **options: Any
) -> Gallery:
    return Gallery(sheet, values, recipe(net, name, views, "", options, []))


def _side(count: int) -> int:
    """The side of a tile, in pixels, when `count` of them stand in a row."""
    return max(56, min(160, 960 // max(count, 1)))


def _spatial(net: Net, name: str) -> Layer:
    layer = net.layer(name)
    if not layer.spatial:
        shaped = [other.name for other in net.layers.values() if other.spatial and other.leaf]
        raise LayerError(
            f"layer {layer.name!r} has shape {layer.shape}, without places: name one with, as {', '.join(shaped[:5])}"
        )
    return layer


@view("Feature maps", paper="Yosinski et al. 2015, arXiv:1506.06579, sec. 2")
def maps(
    net: Net,
    pictures: Any,
    *,
    layer: Annotated[str, "the layer to show"],
    top: Annotated[int | None, "show the k channels with the largest sum only, strongest first"] = None,
) -> Gallery:
    """Show what every channel of a layer holds for a picture; for several, one row each.

    All tiles share one colour scale. A layer of more than 256 channels shows the 256 strongest.
    """
    chosen, views = net.layer(layer), _views(net, pictures)
    if len(chosen.shape) != 1 and not chosen.spatial:
        raise LayerError(
            f"layer {chosen.name!r} has shape {chosen.shape}, without channels: name one with (c, h, w) or (c,)"
        )
    with torch.inference_mode():
        activity = torch.cat([tap(net, net.pixels(one), [chosen.name])[chosen.name] for one in views]).float().cpu()
    order = _channels(activity, top)
    scale = _shared_scale(activity[:, order])
    rows, labels, columns = _map_rows(activity, order, scale, views)
    limits = f"from {number(float(activity.min()))} to {number(float(activity.max()))}"
    shown = "" if len(order) == activity.shape[1] else f", the {len(order)} strongest shown"
    sheet = Sheet(
        f"What {chosen.name} of {net.name} holds",
        rows,
        f"{activity.shape[1]} channels{shown} · {_grid(chosen)} · one scale for all, {limits}",
        footnote(net, registry.VIEWS["maps"], []),
        columns,
        labels,
        scale,
    )
    return _gallery(net, "maps", sheet, {"maps": activity}, views, layer=chosen.name, top=top)


def _grid(layer: Layer) -> str:
    if not layer.spatial:
        return "no places"
    size, step = layer.field.size, layer.field.step
    seen = "the whole picture" if layer.field.shared else f"{size[0]:g} × {size[1]:g} px"
    return f"{layer.shape[1]} × {layer.shape[2]} places, each sees {seen}, {step[0]:g} px apart"


def _channels(activity: Tensor, top: int | None) -> list[int]:
    count = activity.shape[1]
    if top is not None and not 1 <= top <= count:
        raise OptionError(f"top is 1 to {count}, the layer's channels, not {top}")
    if top is None and count <= _MANY:
        return list(range(count))
    strength = activity.reshape(*activity.shape[:2], -1).sum((0, 2))
    return strength.topk(top or _MANY).indices.tolist()


def _shared_scale(values: Tensor) -> Scale:
    array = values.numpy()
    limit = robust_limit(array)
    low = -limit if array.min() < 0 else 0.0
    return Scale("polar" if low < 0 else "fire", low, limit, "", bool(array.min() < low), bool(array.max() > limit))


def _painted(values: np.ndarray, scale: Scale, side: int) -> Image.Image:
    values = np.atleast_2d(values)
    if values.shape == (1, 1):
        values = np.repeat(np.repeat(values, 8, 0), 8, 1)
    return _fitted(Image.fromarray(colours.paint(values, scale.low, scale.high, scale.colours)), side)


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """Fit an image into a square of `side` without distorting it: pixels when enlarged, smooth when reduced."""
    ratio = side / max(image.size)
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.resize(size, Image.Resampling.NEAREST if ratio >= 1 else Image.Resampling.LANCZOS)


def _map_rows(activity: Tensor, order: list[int], scale: Scale, views: list[InputPicture]) -> tuple[Any, Any, Any]:
    """Lay feature maps out: one picture as a block, several as rows under the channels' numbers."""
    headed = len(views) > 1 and len(order) <= _WIDE
    width = len(order) if headed else min(16, len(order))
    side = _side(width + 1)
    rows: list[tuple[Tile | None, ...]] = []
    labels: list[str] = []
    for values, one in zip(activity.numpy(), views, strict=True):
        tiles = [Tile(_painted(values[k], scale, side), "" if headed else str(k)) for k in order]
        first = Tile(_fitted(_seen(one), side), "" if headed else "seen")
        for start in range(0, len(tiles), width):
            rows.append((first if start == 0 else None, *tiles[start : start + width]))
            labels.append(_label(one) if len(views) > 1 and start == 0 else "")
    columns = ("", *(str(k) for k in order)) if headed else ()
    return tuple(rows), tuple(labels) if any(labels) else (), columns


def _label(one: InputPicture) -> str:
    return PurePath(one.name).stem


def _seen(one: InputPicture) -> Image.Image:
    return to_image(one.pixels)


@view(
    "Strongest activations",
    paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Fig. 2",
    caveat="shows what a unit can be excited by, not why the network decided",
)
def project(
    net: Net,
    picture: Any,
    *,
    layer: Annotated[str, "the layer whose strongest channels are projected"],
    top: Annotated[int, "how many channels, at most"] = 9,
) -> Gallery:
    """Project the strongest activation of each of a layer's k strongest channels down by the deconvnet.

    Each projection stands beside the piece of the picture that the unit could see, its receptive field.
    """
    chosen, one = _spatial(net, layer), net.prepare(picture)
    if top < 1:
        raise OptionError(f"top is how many channels to show, at least 1, not {top}")
    top = min(top, chosen.shape[0])
    pixels = net.pixels(one)
    with torch.inference_mode():
        activity = tap(net, pixels, [chosen.name])[chosen.name][0].float()
    strongest = activity.flatten(1).amax(1).topk(top).indices.tolist()
    positions = [(k, *divmod(int(activity[k].argmax()), activity.shape[2])) for k in strongest]
    positive = [position for position in positions if activity[position] > 0]
    if not positive:
        raise LayerError(f"no unit of {chosen.name!r} is active in this picture: there is nothing to project")
    projections, report = project_down(net, pixels, chosen, lambda a: [_isolated(a, position) for position in positive])
    rows = _project_rows(activity, projections.float().cpu(), positive, chosen, one)
    skipped = f" (of {top} asked for: the others are not active)" if len(positive) < top else ""
    sheet = Sheet(
        f"What the strongest channels of {chosen.name} saw",
        rows,
        f"{len(positive)} strongest channels{skipped} · left: what the unit can see, right: its deconvnet projection, "
        f"grey is 0 · {net.name}" + (f" · {one.name}" if one.name else ""),
        footnote(net, registry.VIEWS["project"], [report]),
    )
    values = {"projections": projections, "units": torch.tensor(positive)}
    return _gallery(net, "project", sheet, values, [one], layer=chosen.name, top=top)


def _isolated(activity: Tensor, position: tuple[int, int, int]) -> Tensor:
    """Set everything but one activation to zero."""
    alone = torch.zeros_like(activity)
    alone[0][position] = activity[0][position]
    return alone


def _project_rows(
    activity: Tensor, projections: Tensor, positions: Any, layer: Layer, one: InputPicture
) -> tuple[Any, ...]:
    side, per_row = 150, 3
    extent = (one.pixels.shape[1], one.pixels.shape[2])
    tiles: list[Tile] = []
    for (k, y, x), projection in zip(positions, projections.numpy(), strict=True):
        top, left, bottom, right = layer.field.box((y, x), extent)
        piece = to_image(one.pixels[:, top:bottom, left:right])
        painted = as_picture(projection[:, top:bottom, left:right])[0]
        images = [_fitted(_framed(image, layer, (y, x), (top, left), extent), side) for image in (piece, painted)]
        tiles += [
            Tile(images[0], f"channel {k}, row {y}, column {x}"),
            Tile(images[1], number(float(activity[k, y, x]))),
        ]
    return tuple(tuple(tiles[i : i + 2 * per_row]) for i in range(0, len(tiles), 2 * per_row))


def _framed(
    image: Image.Image, layer: Layer, position: tuple[int, int], corner: tuple[int, int], extent: tuple[int, int]
) -> Image.Image:
    """Give what a unit sees its full size at the picture's border too, pale grey beyond the picture."""
    size, at = [], []
    for axis, index, low, seen, whole in zip(
        (layer.field.y, layer.field.x), position, corner, (image.height, image.width), extent, strict=True
    ):
        inside = axis.size <= whole and not axis.shared
        size.append(round(axis.size) if inside else seen)
        at.append(low - round(axis.start + index * axis.step) if inside else 0)
    frame = Image.new("RGB", (size[1], size[0]), (225, 225, 225))
    frame.paste(image.convert("RGB"), (at[1], at[0]))
    return frame


@view(
    "Layers projected down",
    paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, sec. 2.1",
    caveat="shows the joint activity of a layer: the projection of many units is not the sum of their projections",
)
def reconstruct(
    net: Net,
    pictures: Any,
    *,
    layers: Annotated[list[str] | None, "the layers, one column each; by default up to five convolutions"] = None,
) -> Gallery:
    """Project a layer's whole activity down to pixels at once: pictures as rows, layers as columns.

    The seed is the layer's rectified activity, max(A, 0), as it is in the paper's feature maps.
    """
    chosen = [_spatial(net, name) for name in layers] if layers else _some_convolutions(net)
    views = _views(net, pictures)
    rows, stacked = [], []
    for one in track(views, "reconstructing"):
        pixels = net.pixels(one)
        projections = torch.cat([project_down(net, pixels, layer, lambda a: [a.clamp(min=0)])[0] for layer in chosen])
        stacked.append(projections)
        rows.append(_reconstruction_row(one, projections.float().cpu().numpy()))
    sheet = Sheet(
        f"What each layer of {net.name} keeps",
        tuple(rows),
        "each layer's rectified activity projected down by the deconvnet · each scaled by itself, grey is 0",
        footnote(net, registry.VIEWS["reconstruct"], []),
        ("picture", *(f"{layer.number}: {layer.name}" if layer.number else layer.name for layer in chosen)),
        tuple(map(_label, views)) if len(views) > 1 and any(map(_label, views)) else (),
    )
    names = [layer.name for layer in chosen]
    return _gallery(net, "reconstruct", sheet, {"projections": torch.stack(stacked)}, views, layers=names)


def _reconstruction_row(one: InputPicture, projections: np.ndarray) -> tuple[Tile, ...]:
    side = _side(len(projections) + 1)
    tiles = [Tile(_fitted(as_picture(p)[0], side), "" if p.any() else "nothing gets through") for p in projections]
    return Tile(_fitted(_seen(one), side)), *tiles


def _some_convolutions(net: Net) -> list[Layer]:
    found = [layer for layer in net.layers.values() if layer.number is not None]
    if not found:
        raise LayerError(f"{net.name} has no convolution: name layers")
    count = min(5, len(found))
    return [found[round(i * (len(found) - 1) / max(count - 1, 1))] for i in range(count)]


@view("First-layer filters", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Fig. 6")
def filters(
    net: Net,
    *,
    layer: Annotated[str | None, "a convolution that reads pixels; the first by default"] = None,
    own_scale: Annotated[bool, "give each filter its own contrast: shows the weak ones, hides which are weak"] = False,
) -> Gallery:
    """Show the filters that read pixels directly, each as a small picture with grey as zero.

    All share one scale, so that a filter that dominates is seen to; the caption gives each filter's RMS.
    """
    chosen = net.convolution(1) if layer is None else net.layer(layer)
    module = dict(net.body.named_modules())[chosen.name.partition("#")[0]]
    weight = getattr(module, "weight", None)
    if not isinstance(module, nn.Conv2d) or not isinstance(weight, Tensor) or weight.shape[1] != net.channels:
        raise LayerError(
            f"layer {chosen.name!r} does not read pixels: its filters have no colours to show. For deeper layers use "
            "`project`"
        )
    values = weight.detach().float().cpu()
    values = values.flip(1) if net.order == "BGR" else values
    limit = robust_limit(values.numpy())
    limits = [float(v.abs().max()) if own_scale else limit for v in values]
    count = len(values)
    per_row = min(16, max(4, round(count**0.5 * 1.4)))
    side = max(48, min(110, 960 // per_row))
    rms = values.flatten(1).square().mean(1).sqrt().tolist()
    tiles = [
        Tile(_fitted(to_image(0.5 + v.numpy() * 0.5 / (limit or 1)), side), f"{k} · {r:.2g}")
        for k, (v, r, limit) in enumerate(zip(values, rms, limits, strict=True))
    ]
    rows = tuple(tuple(tiles[i : i + per_row]) for i in range(0, count, per_row))
    size = " × ".join(map(str, values.shape[2:]))
    scale = "each scaled by itself: grey is 0" if own_scale else f"one scale: grey is 0, white {limit:.3g}"
    sheet = Sheet(
        f"First-layer filters of {net.name}",
        rows,
        f"{count} filters of {size} in {chosen.name} · channel · RMS · {scale}",
        footnote(net, registry.VIEWS["filters"], []),
    )
    return _gallery(net, "filters", sheet, {"filters": values}, [], layer=chosen.name, own_scale=own_scale or None)
