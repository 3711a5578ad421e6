"""Segmentation by graph cut: from a map that marks parts of an object to the whole object.

Simonyan, Vedaldi and Zisserman (arXiv:1312.6034, sec. 3.2): a saliency map marks only the most discriminative part of
an object; continuity of colour propagates it to the rest. The colours of the pixels above the 95% quantile of the map
are modelled by a mixture of Gaussians, the foreground's, those below the 30% quantile by another, the background's;
pixels between belong to neither. A graph cut then labels every pixel z_i with a_i so that

    E(a) = sum_i -log p(z_i | model of a_i) + sum_{i, j neighbours, a_i != a_j} gamma exp(-beta |z_i - z_j|^2) / |i - j|

is least (Rother et al. 2004, GrabCut, eq. 2-4 and 8-11), and the object is the largest connected component. The paper
does not give the number of Gaussians nor gamma; here they are OpenCV's, 5 and 50.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from ..context import say
from ..errors import OptionError
from .cartoon import cartoon
from .opencv import opencv

_LARGEST = 1000


@dataclass(frozen=True, eq=False)
class Segment:
    """One object in a picture.

    `mask` (h, w) is True on the object; `seeds` (h, w) is 1 on the pixels whose colours model the foreground, -1 on
    those that model the background, 0 elsewhere. Both have the size of `image`.
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
        return cartoon(self.image, self.mask, colours=colours, seed=seed)


def segment_map(
    values: np.ndarray,
    image: Image.Image,
    *,
    foreground: float = 0.95,
    background: float = 0.3,
    seed: int = 0,
    rounds: int = 1,
) -> Segment:
    """Segment the object that a map marks in a picture: seeds by quantiles, colours, graph cut, largest component.

    `values` (h, w) has a number for every pixel of `image`, NaN where the network did not see it (`Heatmap.spread`).
    Pictures above 1000 pixels are cut on a reduced copy. Raises OptionError when the map marks nothing, ConvscopeError
    without OpenCV.
    """
    check_cut(foreground, background, rounds)
    if values.shape != (image.height, image.width):
        raise OptionError(
            f"a map of shape {values.shape} does not cover a picture of {image.height} x {image.width}: "
            "give Heatmap.spread(image.size)"
        )
    small = _reduced(image)
    if small.size != image.size:
        say(f"cut on a copy of {small.width} x {small.height} pixels, then enlarged to {image.width} x {image.height}")
        values = _sampled(values, small.height, small.width)
    seeds = _seeds(values, foreground, background)
    mask = _largest_component(_cut(np.asarray(small), seeds, rounds, seed))
    return Segment(image.convert("RGB"), resized(mask, image.size), _enlarged(seeds, image.size))


def check_cut(foreground: float, background: float, rounds: int) -> None:
    """Raise OptionError for quantiles out of order and for less than one graph cut."""
    if not 0 < background < foreground < 1:
        raise OptionError(
            f"the quantiles are 0 < background < foreground < 1, not background={background:g} and "
            f"foreground={foreground:g}: the paper's are background=0.3, foreground=0.95"
        )
    if rounds < 1:
        raise OptionError(f"rounds is the number of graph cuts, at least 1, not {rounds}")


def _reduced(image: Image.Image) -> Image.Image:
    ratio = min(1.0, _LARGEST / max(image.size))
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS) if ratio < 1 else image.convert("RGB")


def _sampled(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Take the values at the centres of the pixels of a smaller picture."""
    rows, columns = (
        ((np.arange(few) + 0.5) * (many / few)).astype(int)
        for few, many in zip((height, width), values.shape, strict=True)
    )
    return values[np.ix_(rows, columns)]


def _enlarged(seeds: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    whole = Image.fromarray(seeds.astype(np.int8).view(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.asarray(whole).astype(np.int8)


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring a mask (h, w) to (width, height)."""
    if mask.shape == size[::-1]:
        return mask
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize(size, Image.Resampling.BILINEAR)) >= 128


def _seeds(values: np.ndarray, foreground: float, background: float) -> np.ndarray:
    """Mark the foreground's seeds by 1 and the background's by -1: pixels beyond the quantiles of the finite values."""
    values = np.where(np.isfinite(values), values, np.nan)
    finite = values[~np.isnan(values)]
    if finite.size == 0:
        raise OptionError("the map holds no number over this picture: give values where the network saw the picture")
    if finite.min() == finite.max():
        raise OptionError(
            f"the map is the same everywhere ({finite[0]:.3g}), so it marks no object: "
            "choose another objective (of=...) or another method=..."
        )
    high, low = np.quantile(finite, [foreground, background])
    above = _above(values, float(high), finite.size)
    return above.astype(np.int8) - _below(values, float(low), above, round(background * finite.size)).astype(np.int8)


def _above(values: np.ndarray, high: float, count: int) -> np.ndarray:
    """Return where values exceed a quantile; where the quantile is their maximum, all that share it."""
    above = values > high
    if not above.any():
        above = values >= high
        say(f"{100 * above.sum() / count:.3g}% of the pixels share the map's highest value: all are foreground seeds")
    return above


def _below(values: np.ndarray, low: float, above: np.ndarray, count: int) -> np.ndarray:
    """Return where values are under a quantile; of many that share the minimum, the farthest from the foreground."""
    below = values < low
    if not below.any():
        below = _farthest(values <= low, above, count)
        say("many pixels share the map's lowest value: those farthest from the foreground are the background seeds")
    return below


def _farthest(among: np.ndarray, start: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` pixels, at least one, of those that are farthest from where `start` is True."""
    from scipy.ndimage import distance_transform_edt

    distance = np.where(among, np.asarray(distance_transform_edt(~start)), -1.0)
    chosen = np.zeros_like(among)
    chosen.flat[np.argsort(-distance, axis=None, kind="stable")[: max(1, min(count, int(among.sum())))]] = True
    return chosen


def _cut(image: np.ndarray, seeds: np.ndarray, rounds: int, seed: int) -> np.ndarray:
    """Label every pixel by the colours of the seeds and of its neighbours; the seeds keep their label."""
    cv2 = opencv()
    colours = [np.zeros((1, 65)), np.zeros((1, 65))]
    chosen = np.flatnonzero(seeds)
    labels = np.where(seeds.flat[chosen] > 0, cv2.GC_FGD, cv2.GC_BGD).astype(np.uint8)
    # OpenCV would fit its models to every pixel of a picture: it is shown the seeds alone, as a picture of one row.
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
