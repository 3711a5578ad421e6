"""Segmentation without supervision: the object that a method's map marks, cut out of the picture.

Simonyan, Vedaldi and Zisserman (arXiv:1312.6034, sec. 3.2). The graph cut is in `graph_cut`; here are the map that
seeds it and the drawing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from .. import outputs, registry
from ..context import say
from ..data.images import PictureSource
from ..drawing import layout
from ..drawing.drawings import Drawing, Heatmap
from ..drawing.layout import Sheet, Tile
from ..errors import OutputError
from ..net import Net
from ..options import Range, Unrecorded
from ..predictions import ObjectiveLike
from ..recipes import Recipe
from ..registry import view
from ..running import explain
from .graph_cut import Segment, check_cut, resized, segment_map
from .opencv import opencv

_SIDE = 290
_OBJECT, _BACKGROUND, _LINE = (226, 88, 34), (92, 134, 196), (255, 214, 10)


@dataclass(frozen=True, eq=False)
class Segmentation(Drawing):
    """A picture, the map that marked an object in it, and the object.

    `mask`, `box` and `seeds` have the size of the original picture; `saliency` is the map that the seeds come from, in
    pixels of the network's input.
    """

    segment: Segment
    heatmap: Heatmap
    recipe: Recipe = field(default_factory=Recipe)
    title: str = ""
    subtitle: str = ""
    note: str = ""

    def numbers(self) -> dict[str, np.ndarray]:
        segment = self.segment
        arrays = {"mask": segment.mask, "box": np.array(segment.box), "seeds": segment.seeds}
        return arrays | {"saliency": self.heatmap.flat}

    def sheet(self) -> Sheet:
        segment = self.segment
        picture = layout.enlarged(segment.image, _SIDE)
        top, left, bottom, right = segment.box
        shares = [f"{100 * float((segment.seeds == kind).mean()):.3g}%" for kind in (1, -1)]
        seeds = (
            f"seeds of the foreground (orange, {shares[0]} of the picture) and the background (blue, {shares[1]}); "
            "grey: the map"
        )
        extent = f"{100 * float(segment.mask.mean()):.3g}% of the picture; box: rows {top} to {bottom - 1}, "
        tiles = (
            Tile(picture, f"{segment.image.width} × {segment.image.height}"),
            Tile(_marked(self.heatmap, segment.seeds, picture.size), seeds),
            Tile(_outlined(segment, picture), f"{extent}columns {left} to {right - 1}"),
            Tile(_on_squares(segment.cutout(), picture.size), "cut out"),
        )
        return Sheet(self.title, (tiles,), self.subtitle, self.note)


def _marked(heatmap: Heatmap, seeds: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Paint a map from white to dark grey, and the seeds over it."""
    values = np.nan_to_num(heatmap.spread(size))
    base = (245 - 190 * (np.abs(values) / heatmap.scale.high).clip(0, 1) ** 0.7)[..., None].repeat(3, 2)
    for kind, colour in ((1, _OBJECT), (-1, _BACKGROUND)):
        share = Image.fromarray((seeds == kind).astype(np.float32)).resize(size, Image.Resampling.BOX)
        alpha = np.asarray(share)[..., None] * (0.95 if kind > 0 else 0.6)
        base = base * (1 - alpha) + np.array(colour) * alpha
    return Image.fromarray(np.rint(base).astype(np.uint8))


def _outlined(segment: Segment, picture: Image.Image) -> Image.Image:
    """Draw the mask's outline and its box on a picture that is paler outside."""
    from skimage.morphology import dilation, disk

    mask = resized(segment.mask, picture.size)
    pale = 0.45 * np.asarray(picture, dtype=np.float32) + 0.55 * 235
    shown = np.where(mask[..., None], np.asarray(picture), np.rint(pale)).astype(np.uint8)
    shown[dilation(mask, disk(2)) & ~mask] = _LINE
    image = Image.fromarray(shown)
    ratio = picture.height / segment.mask.shape[0], picture.width / segment.mask.shape[1]
    top, left, bottom, right = (round(edge * r) for edge, r in zip(segment.box, ratio * 2, strict=True))
    corners = (left, top, max(right - 1, left), max(bottom - 1, top))
    ImageDraw.Draw(image).rectangle(corners, outline=_OBJECT, width=2)
    return image


def _on_squares(cut: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Lay a picture with alpha on a checkerboard."""
    rows, columns = np.indices(size[::-1]) // 10
    squares = np.where((rows + columns) % 2, 255, 222).astype(np.uint8)
    board = Image.fromarray(squares).convert("RGBA")
    method = Image.Resampling.NEAREST if size[0] >= 2 * cut.width else Image.Resampling.LANCZOS
    return Image.alpha_composite(board, cut.resize(size, method)).convert("RGB")


@view(
    "Segmentation",
    paper="Simonyan et al. 2013, arXiv:1312.6034, sec. 3.2",
    caveat="the outline follows colours in the picture; the network only provides the seeds",
)
def segment(
    net: Net,
    picture: PictureSource,
    *,
    of: Annotated[ObjectiveLike, "the objective; the top-1 class by default"] = None,
    method: Annotated[str, "the method whose map marks the object"] = "saliency",
    layer: Annotated[str | None, "the layer that the method reads, where it has the option"] = None,
    foreground: Annotated[float, "quantile of the map above which pixels are foreground seeds"] = 0.95,
    background: Annotated[float, "quantile of the map below which pixels are background seeds"] = 0.3,
    rounds: Annotated[
        int, "number of graph cuts; after the first, each refits the colour models to the last one", Range(1)
    ] = 1,
    smooth: Annotated[
        float,
        "blur of the map before its quantiles are taken, as a fraction of its side; the paper's 0 leaves specks",
        Range(0, 1),
    ] = 0.02,
    size: Annotated[int | None, "side of the network's input in pixels, where it takes more than one", Range(1)] = None,
    seed: Annotated[int, "seed of the colour models"] = 0,
    cutout: Annotated[
        Path | None, "also write the object with alpha: a .png or .webp file, or a folder", Unrecorded
    ] = None,
    cartoon: Annotated[
        Path | None, "also write the object as a cartoon: a .png or .webp file, or a folder", Unrecorded
    ] = None,
) -> Segmentation:
    """Segment the object that a method's map marks by a graph cut: outline, box, cut-out and cartoon.

    The seeds are quantiles of the map, the rest is colour; of a map with colour channels the largest magnitude counts.
    Raises OptionError when the map marks nothing, ConvscopeError without OpenCV.
    """
    check_cut(foreground, background, rounds)
    files = {"cutout": cutout, "cartoon": cartoon}
    _check_files(files)
    opencv()
    layers: dict[str, Any] = {"layer": layer} if layer else {}
    heatmap = _by_magnitude(explain(net, picture, method, of, size=size, **layers))
    for remark in heatmap.recipe.remarks:
        say(remark)
    original = heatmap.picture.original
    values = _smoothed(heatmap, smooth).spread(original.size)
    cut = segment_map(values, original, foreground=foreground, background=background, seed=seed, rounds=rounds)
    marker = registry.find(method)
    drawing = Segmentation(
        cut,
        heatmap,
        Recipe(objective=heatmap.recipe.objective),
        f"{heatmap.title.rpartition(': ')[0]}: cut out",
        f"Segmentation by {heatmap.subtitle}",
        f"{marker.title}: {marker.caveat}." if marker.caveat else "",
    )
    _write(drawing, files)
    return drawing


def _by_magnitude(heatmap: Heatmap) -> Heatmap:
    """Reduce a map with colour channels to its largest magnitude, as saliency does."""
    if not heatmap.projects:
        return heatmap
    return replace(heatmap, values=heatmap.values.abs().amax(0, keepdim=True), signed=False, projects=False)


def _smoothed(heatmap: Heatmap, share: float) -> Heatmap:
    """Blur a map, so that the specks of a gradient become regions."""
    from skimage.filters import gaussian

    sigma = share * min(heatmap.flat.shape)
    blurred = np.asarray(gaussian(heatmap.flat, sigma)) if sigma else heatmap.flat
    return replace(heatmap, values=torch.from_numpy(blurred)[None])


def _check_files(files: Mapping[str, Path | None]) -> None:
    for option, path in files.items():
        if path is not None and Path(path).suffix.lower() not in ("", ".png", ".webp"):
            raise OutputError(f"{option}={path} has no transparency: give a .png or .webp file, or a folder")
        if path is not None:
            outputs.check_folder(Path(path) if not Path(path).suffix else Path(path).parent)


def _write(drawing: Segmentation, files: Mapping[str, Path | None]) -> None:
    """Write the additional files; in a folder they are named after the picture."""
    for option, path in files.items():
        if path is None:
            continue
        image = drawing.segment.cutout() if option == "cutout" else drawing.segment.cartoon()
        name = Path(drawing.heatmap.picture.name or "picture").stem
        outputs.write_image(Path(path) if Path(path).suffix else Path(path) / f"{name}.png", image)
