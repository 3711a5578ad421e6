"""Segmentation without supervision: from a map that marks parts of an object to the whole object.

Simonyan, Vedaldi and Zisserman (arXiv:1312.6034, sec. 3.2): a saliency map marks only the most telling part of an
object; continuity of colour takes it to the rest. The colours of the pixels above the 95 % quantile of the map are
learnt as a mixture of Gaussians, the object's, those below the 30 % quantile as another, the background's; pixels
between belong to neither. A graph cut then labels every pixel z_i with a_i so that

    E(a) = sum_i -log p(z_i | model of a_i) + sum_{i, j neighbours, a_i != a_j} gamma exp(-beta |z_i - z_j|^2) / |i - j|

is least (Rother et al. 2004, GrabCut, eq. 2-4 and 8-11), and the object is the largest connected component. The paper
does not give the number of Gaussians nor gamma; here they are OpenCV's, 5 and 50.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from .. import outputs, registry
from ..context import listen, say
from ..drawing import layout
from ..drawing.drawings import Drawing, Heatmap, Recipe
from ..drawing.layout import Sheet, Tile
from ..errors import ConvscopeError, OptionError, OutputError
from ..net import Net
from ..registry import view
from ..running import ObjectiveLike, explain, footnote, recipe

_LARGEST = 1000
_CARTOON = 800
_SIDE = 290
_OBJECT, _BACKGROUND, _LINE = (226, 88, 34), (92, 134, 196), (255, 214, 10)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise ConvscopeError("segmentation needs OpenCV: pip install 'convscope[segment]'") from None
    return cv2


@dataclass(frozen=True, eq=False)
class Segment:
    """One object in a picture.

    `mask` (h, w) is True on the object; `seeds` (h, w) is 1 where the object's colours were learnt, -1 where the
    background's were, 0 elsewhere. Both have the size of `image`.
    """

    image: Image.Image
    mask: np.ndarray
    seeds: np.ndarray

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """The mask's (top, left, bottom, right) in pixels: mask[top:bottom, left:right] holds all of it."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

    def cutout(self) -> Image.Image:
        """Return the picture as RGBA, transparent where the mask is False."""
        cut = self.image.convert("RGB")
        cut.putalpha(Image.fromarray(self.mask.astype(np.uint8) * 255))
        return cut

    def cartoon(self, *, colours: int = 10, seed: int = 0) -> Image.Image:
        """Return the object as RGBA in a few flat colours with dark outlines, transparent around it.

        The longer side is 800 pixels, whatever the picture's. Raises OptionError for fewer than two colours.
        """
        if colours < 2:
            raise OptionError(f"a cartoon has at least 2 colours, not {colours}")
        ratio = _CARTOON / max(self.image.size)
        size = max(1, round(self.image.width * ratio)), max(1, round(self.image.height * ratio))
        mask = _rounded(self.mask, size)
        large = self.image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        painted = Image.fromarray(_inked(np.asarray(large), mask >= 0.5, colours, seed))
        painted.putalpha(Image.fromarray(np.rint(255 * ((mask - 0.5) * 6 + 0.5).clip(0, 1)).astype(np.uint8)))
        return painted


def segment_map(
    values: np.ndarray,
    image: Image.Image,
    *,
    foreground: float = 0.95,
    baseline_pixels: float = 0.3,
    seed: int = 0,
    rounds: int = 1,
) -> Segment:
    """Find the object that a map marks in a picture: seeds by quantiles, colours, graph cut, largest component.

    `values` (h, w) has a number for every pixel of `image`, NaN where nothing is known (`Heatmap.spread`). Pictures
    above 1000 pixels are cut on a reduced copy. Raises OptionError when the map marks nothing, ConvscopeError without
    OpenCV.
    """
    _check(foreground, baseline_pixels, rounds)
    if values.shape != (image.height, image.width):
        raise OptionError(
            f"a map of shape {values.shape} does not lie over a picture of {image.height} x {image.width}: "
            "give Heatmap.spread(image.size)"
        )
    small = _reduced(image)
    if small.size != image.size:
        say(f"cut on a copy of {small.width} x {small.height} pixels, then enlarged to {image.width} x {image.height}")
        rows, columns = (
            ((np.arange(few) + 0.5) * (many / few)).astype(int)
            for few, many in zip((small.height, small.width), values.shape, strict=True)
        )
        values = values[np.ix_(rows, columns)]
    seeds = _seeds(values, foreground, baseline_pixels)
    mask = _largest_component(_cut(np.asarray(small), seeds, rounds, seed))
    whole = Image.fromarray(seeds.astype(np.int8).view(np.uint8)).resize(image.size, Image.Resampling.NEAREST)
    return Segment(image.convert("RGB"), _resized(mask, image.size), np.asarray(whole).astype(np.int8))


def _check(foreground: float, baseline_pixels: float, rounds: int) -> None:
    if not 0 < baseline_pixels < foreground < 1:
        raise OptionError(
            f"the quantiles are 0 < background < foreground < 1, not background={baseline_pixels:g} and "
            f"foreground={foreground:g}: the paper's are background=0.3, foreground=0.95"
        )
    if rounds < 1:
        raise OptionError(f"rounds is how many graph cuts are made, at least 1, not {rounds}")


def _reduced(image: Image.Image) -> Image.Image:
    ratio = min(1.0, _LARGEST / max(image.size))
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS) if ratio < 1 else image.convert("RGB")


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if mask.shape == size[::-1]:
        return mask
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize(size, Image.Resampling.BILINEAR)) >= 128


def _seeds(values: np.ndarray, foreground: float, baseline_pixels: float) -> np.ndarray:
    """Mark pixels above one quantile of what is known by 1, those below the other by -1, the rest by 0."""
    values = np.where(np.isfinite(values), values, np.nan)
    known = values[~np.isnan(values)]
    if known.size == 0:
        raise OptionError("the map holds no number over this picture: give values where the network looked")
    if known.min() == known.max():
        raise OptionError(
            f"the map is the same everywhere ({known[0]:.3g}), so it marks no object: "
            "ask another objective (of=...) or take another method=..."
        )
    high, low = np.quantile(known, [foreground, baseline_pixels])
    certain = values > high
    if not certain.any():
        certain = values >= high
        say(f"{100 * certain.sum() / known.size:.3g} % of the pixels share the map's highest value: all are seeds")
    below = values < low
    if not below.any():
        below = _farthest(values <= low, certain, round(baseline_pixels * known.size))
        say("many pixels share the map's lowest value: those farthest from the object's seeds are the background's")
    return certain.astype(np.int8) - below.astype(np.int8)


def _farthest(among: np.ndarray, start: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` pixels, at least one, of those that are farthest from where `start` is True."""
    from scipy.ndimage import distance_transform_edt

    distance = np.where(among, np.asarray(distance_transform_edt(~start)), -1.0)
    chosen = np.zeros_like(among)
    chosen.flat[np.argsort(-distance, axis=None, kind="stable")[: max(1, min(count, int(among.sum())))]] = True
    return chosen


def _cut(image: np.ndarray, seeds: np.ndarray, rounds: int, seed: int) -> np.ndarray:
    """Label every pixel by the colours of the seeds and of its neighbours; the seeds keep their label."""
    cv2 = _opencv()
    colours = [np.zeros((1, 65)), np.zeros((1, 65))]
    chosen = np.flatnonzero(seeds)
    labels = np.where(seeds.flat[chosen] > 0, cv2.GC_FGD, cv2.GC_BGD).astype(np.uint8)
    # OpenCV would learn from every pixel of a picture: it is shown the seeds alone, as a picture of one row.
    pixels = np.ascontiguousarray(image.reshape(-1, 3)[chosen][None])
    cv2.setRNGSeed(seed)
    cv2.grabCut(pixels, labels[None], None, *colours, 0, cv2.GC_INIT_WITH_MASK)
    mask = np.select([seeds > 0, seeds < 0], [cv2.GC_FGD, cv2.GC_BGD], cv2.GC_PR_BGD).astype(np.uint8)
    cv2.grabCut(image, mask, None, *colours, 1, cv2.GC_EVAL_FREEZE_MODEL)
    if rounds > 1:
        cv2.grabCut(image, mask, None, *colours, rounds - 1, cv2.GC_EVAL)
    return (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)


def _largest_component(mask: np.ndarray) -> np.ndarray:
    """Keep the largest group of pixels that touch along their sides; of equals, the first in reading order."""
    from skimage.measure import label

    groups = np.asarray(label(mask, connectivity=1))
    sizes = np.bincount(groups.ravel())
    sizes[0] = 0
    return groups == sizes.argmax()


def _rounded(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a mask to values in [0, 1] whose 0.5 is an outline without the steps of its pixels."""
    cv2 = _opencv()
    large = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    soft = cv2.GaussianBlur(large, (0, 0), max(1.5, 0.6 * size[0] / mask.shape[1]))
    return soft if (soft >= 0.5).any() else large


def _inked(image: np.ndarray, mask: np.ndarray, colours: int, seed: int) -> np.ndarray:
    """Paint an object (h, w, 3) in flat colours, with ink where it is darker than around and along its rim."""
    cv2 = _opencv()
    smooth = image
    for _ in range(5):
        smooth = cv2.bilateralFilter(smooth, 9, 24, 7)
    lab = cv2.cvtColor(smooth, cv2.COLOR_RGB2LAB)
    points = (lab[mask] if mask.any() else lab.reshape(-1, 3)).astype(np.float32)
    sample = points[:: max(1, len(points) // 20000)]
    cv2.setRNGSeed(seed)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    centres = cv2.kmeans(sample, min(colours, len(sample)), None, stop, 3, cv2.KMEANS_PP_CENTERS)[2]
    # Ordered by lightness, so that the median of neighbouring numbers is a colour between them.
    centres = centres[centres[:, 0].argsort()]
    distance = [((lab.astype(np.float32) - centre) ** 2).sum(2) for centre in centres]
    region = cv2.medianBlur(np.argmin(distance, 0).astype(np.uint8), 7)
    painted = np.rint(centres).astype(np.uint8)[region]
    flat = cv2.cvtColor(painted, cv2.COLOR_LAB2RGB).astype(np.float32)
    grey = cv2.cvtColor(smooth, cv2.COLOR_RGB2GRAY).astype(np.float32)
    darker = cv2.GaussianBlur(grey, (0, 0), 3.5) - cv2.GaussianBlur(grey, (0, 0), 1.2)
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    ink = np.maximum(np.clip((darker - 5) / 5, 0, 1), np.clip(4.5 - depth, 0, 1))[..., None]
    return np.rint(flat * (1 - ink) + 24 * ink).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Segmentation(Drawing):
    """A picture, the map that marked an object in it, and the object.

    `mask`, `box` and `seeds` have the size of the original picture; `saliency` is the map that the seeds come from, in
    pixels of the network's input.
    """

    segment: Segment
    heatmap: Heatmap
    recipe: Recipe
    title: str = ""
    subtitle: str = ""
    note: str = ""

    def numbers(self) -> dict[str, np.ndarray]:
        segment = self.segment
        found = {"mask": segment.mask, "box": np.array(segment.box), "seeds": segment.seeds}
        return found | {"saliency": self.heatmap.flat}

    def sheet(self) -> Sheet:
        segment = self.segment
        picture = layout.enlarged(segment.image, _SIDE)
        top, left, bottom, right = segment.box
        shares = [f"{100 * float((segment.seeds == kind).mean()):.3g} %" for kind in (1, -1)]
        tiles = (
            Tile(picture, f"{segment.image.width} × {segment.image.height}"),
            Tile(_marked(self.heatmap, segment.seeds, picture.size), f"seeds of the object (orange, {shares[0]} of the "
                 f"picture) and the background (blue, {shares[1]}); grey: the map"),
            Tile(_outlined(segment, picture), f"{100 * float(segment.mask.mean()):.3g} % of the picture; box: rows "
                 f"{top} to {bottom - 1}, columns {left} to {right - 1}"),
            Tile(_on_squares(segment.cutout(), picture.size), "cut out"),
        )  # fmt: skip
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

    mask = _resized(segment.mask, picture.size)
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
    caveat="the outline follows colours in the picture, not the network: the network only chose the seeds",
)
def segment(
    net: Net,
    picture: Any,
    *,
    of: Annotated[ObjectiveLike, "the objective, as for every method; the network's first choice by default"] = None,
    method: Annotated[str, "the method whose map marks the object"] = "saliency",
    layer: Annotated[str | None, "the layer that the method reads, where it has one"] = None,
    foreground: Annotated[float, "pixels above this quantile of the map are certainly the object's"] = 0.95,
    baseline_pixels: Annotated[float, "pixels below this quantile of the map are certainly background"] = 0.3,
    rounds: Annotated[int, "how many graph cuts; after the first, colours are learnt anew from the last one"] = 1,
    smooth: Annotated[
        float, "blur of the map before its quantiles are taken, as a share of its side; 0 as in the paper: more specks"
    ] = 0.02,
    size: Annotated[int | None, "side of the network's input in pixels, where it takes more than one"] = None,
    seed: Annotated[int, "of the random start of the colour models"] = 0,
    cutout: Annotated[Path | None, "also write the object with alpha: a .png or .webp file, or a folder"] = None,
    cartoon: Annotated[Path | None, "also write the object as a cartoon: a .png or .webp file, or a folder"] = None,
) -> Segmentation:
    """Cut out the object that a method's map marks: outline, box, cut-out and cartoon, without any supervision.

    The seeds are quantiles of the map, the rest is colour; a map with colour channels counts by its largest magnitude.
    Raises OptionError when the map marks nothing, ConvscopeError without OpenCV.
    """
    _check(foreground, baseline_pixels, rounds)
    if not 0 <= smooth < 1:
        raise OptionError(f"smooth is a share of the map's side, from 0 to below 1, not {smooth:g}")
    paths = {"cutout": cutout, "cartoon": cartoon}
    _check_paths(paths)
    _opencv()
    own = {"layer": layer} if layer else {}
    heatmap = _by_magnitude(explain(net, picture, method, of, size=size, **own))
    original = heatmap.picture.original
    with listen() as remarks:
        found = segment_map(
            _smoothed(heatmap, smooth).spread(original.size),
            original,
            foreground=foreground,
            baseline_pixels=baseline_pixels,
            seed=seed,
            rounds=rounds,
        )
    remarks = [*heatmap.recipe.remarks, *remarks]
    options = {"method": method, "foreground": foreground, "background": baseline_pixels, "rounds": rounds}
    options |= own | {"seed": seed, "smooth": smooth, "size": size}
    marker = registry.METHODS[method]
    drawing = Segmentation(
        found,
        heatmap,
        recipe(net, "segment", [heatmap.picture], heatmap.recipe.objective, options, remarks),
        f"{heatmap.title.rpartition(': ')[0]}: cut out",
        f"Segmentation by {heatmap.subtitle}",
        footnote(net, registry.VIEWS["segment"], remarks)
        + (f"\n{marker.title}: {marker.caveat}." if marker.caveat else ""),
    )
    _write(drawing, paths)
    return drawing


def _by_magnitude(heatmap: Heatmap) -> Heatmap:
    """Count a map with colour channels by its largest magnitude, as saliency does."""
    if not heatmap.projects:
        return heatmap
    return replace(heatmap, values=heatmap.values.abs().amax(0, keepdim=True), signed=False, projects=False)


def _smoothed(heatmap: Heatmap, share: float) -> Heatmap:
    """Blur a map, so that the specks of a gradient become regions."""
    from skimage.filters import gaussian

    sigma = share * min(heatmap.flat.shape)
    blurred = np.asarray(gaussian(heatmap.flat, sigma)) if sigma else heatmap.flat
    return replace(heatmap, values=torch.from_numpy(blurred)[None])


def _check_paths(paths: Mapping[str, Path | None]) -> None:
    for option, path in paths.items():
        if path is not None and Path(path).suffix.lower() not in ("", ".png", ".webp"):
            raise OutputError(f"{option}={path} has no transparency: give a .png or .webp file, or a folder")
        if path is not None:
            outputs.check_folder(Path(path) if not Path(path).suffix else Path(path).parent)


def _write(drawing: Segmentation, paths: Mapping[str, Path | None]) -> None:
    """Write the extra pictures that were asked for; in a folder they are named after the picture."""
    for option, path in paths.items():
        if path is None:
            continue
        image = drawing.segment.cutout() if option == "cutout" else drawing.segment.cartoon()
        name = Path(drawing.heatmap.picture.name or "picture").stem
        outputs.write(Path(path) if Path(path).suffix else Path(path) / f"{name}.png", image.save)
