"""Input pictures: from any picture to pixels in [0, 1], remembering how they were cut.

`InputPicture` is a picture as a network sees it, with the way back to the original.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..renames import renamed
from . import storage
from .display import Display
from .hashing import content_hash, where_of
from .opening import open_content
from .preprocessing import FILTERS, Fit, Preprocessing
from .rasters import Raster
from .strips import blocks, to_array

PictureSource = str | Path | bytes | Image.Image | np.ndarray | Any
"""What a picture can be given as: an address, a file's bytes, a PIL image, an array or a tensor."""

_SLIVER, _NEAR = 32, 4
"""How many times as large as its seen part a picture is called long, and how many times is then shown."""

_SCALED_WHOLE = 1 << 24
"""Pixels to which any picture is scaled whole."""

_FILTERS_REACH = 4
"""More pixels than Pillow's widest filter, Lanczos, reads to either side."""

Whole = Image.Image | Raster
"""A picture at its own size, in a network's bands: an 8-bit image, or a raster in [0, 1]."""


@dataclass(frozen=True)
class InputPicture:
    """A picture and the part of it that a network saw.

    `original` is the picture in RGB or grey; `pixels` the network's input, values in [0, 1], shape (c, h, w);
    `box` the seen part (left, top, right, bottom) in pixels of the original, beyond it where it was padded; `remarks`
    is what a reader must know of how it was read, `display` how its pixels are shown.
    """

    original: Image.Image
    pixels: np.ndarray
    box: tuple[float, float, float, float]
    name: str = ""
    source: Any = field(default=None, repr=False, compare=False)
    remarks: tuple[str, ...] = ()
    display: Display = field(default_factory=Display)

    seen = renamed("seen", "pixels")

    @property
    def where(self) -> str:
        """Where the picture was, as it was named; what kind of object it was where it had no address."""
        return where_of(self.source)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file's content, or of the values of what was no file."""
        return content_hash(self.pixels if self.source is None else self.source)

    def image(self, pixels: np.ndarray | None = None) -> Image.Image:
        """Show what the network read, or other pixels (c, h, w) in the same way, as an 8-bit image."""
        return self.display.image(self.pixels if pixels is None else pixels)

    def near(self) -> InputPicture:
        """Return the picture with less around the seen part where that is a sliver of a long one; else itself."""
        left, top, right, bottom = self.box
        width, height = self.original.size
        if width * height <= _SLIVER * (right - left) * (bottom - top):
            return self
        across, down = ((end - start) * (_NEAR - 1) / 2 for start, end in ((left, right), (top, bottom)))
        x, y = max(0, math.floor(left - across)), max(0, math.floor(top - down))
        ends = min(width, math.ceil(right + across)), min(height, math.ceil(bottom + down))
        box = (left - x, top - y, right - x, bottom - y)
        return replace(self, original=self.original.crop((x, y, *ends)), box=box)


def prepare(source: Any, preprocessing: Preprocessing, *, name: str = "") -> InputPicture:
    """Read a picture and cut it as a network's preprocessing does, keeping the way back to the original."""
    whole, display, remarks = _opened(source, preprocessing, name)
    fit = preprocessing.fit or Fit((whole.size[1], whole.size[0]), min(whole.size))
    height, width = fit.size
    scaled = fit.before_the_cut(*whole.size)
    left, top = (round((side - cut) / 2.0) for side, cut in zip(scaled, (width, height), strict=True))
    ratio = (whole.size[0] / scaled[0], whole.size[1] / scaled[1])
    box = (left * ratio[0], top * ratio[1], (left + width) * ratio[0], (top + height) * ratio[1])
    cut = (max(0, left), max(0, top), min(scaled[0], left + width), min(scaled[1], top + height))
    seen = _scaled_and_cut(whole, scaled, cut, FILTERS[fit.interpolation])
    original = _shown_whole(whole, preprocessing, display)
    if len(seen) < preprocessing.channels:
        seen = np.repeat(seen, preprocessing.channels, 0)
    if seen.shape[1:] != fit.size:
        seen = _padded(seen, fit.size, (-top, -left), preprocessing.padding)
        remarks.append(_padding_remark(left, preprocessing))
    if not name and isinstance(source, (str, Path)):
        name = storage.at(source).name
    return InputPicture(original, seen, box, name, source, tuple(remarks), display)


def open_whole(source: Any, preprocessing: Preprocessing, *, name: str = "") -> tuple[Whole, Display, list[str]]:
    """Open a picture in a network's bands, at its own size; return it, how it is shown, and what must be said of both.

    8-bit grey and RGB stay images; whatever else there is becomes a raster in [0, 1].
    """
    whole, display, remarks = _opened(source, preprocessing, name)
    return in_bands(whole, preprocessing.channels), display, remarks


def open_shown(source: Any, preprocessing: Preprocessing, *, name: str = "") -> tuple[Image.Image, list[str]]:
    """Open a picture in colour as figures show it, at its own size; return it and what must be said of it."""
    whole, display, remarks = _opened(source, preprocessing, name)
    return _shown_whole(whole, preprocessing, display).convert("RGB"), remarks


def in_bands(whole: Whole, channels: int) -> Whole:
    """Return a picture in a network's bands: grey, which one band holds as well, in three."""
    if channels != 3 or len(whole.getbands() if isinstance(whole, Image.Image) else range(whole.bands)) == 3:
        return whole
    return whole.convert("RGB") if isinstance(whole, Image.Image) else replace(whole, channels=3)


def _opened(source: Any, preprocessing: Preprocessing, name: str) -> tuple[Whole, Display, list[str]]:
    """Do what `open_whole` does, but leave grey in one band for a network of three."""
    channels = preprocessing.channels
    content = open_content(source, name=name, bands=channels)
    if isinstance(content, Image.Image):
        if channels in (1, 3):
            grey = channels == 1 and content.mode != "L"
            content = content.convert("L") if grey else content
            if preprocessing.window is None:
                return content, Display(preprocessing.show), []
            display = Display.of(_raster(content), preprocessing.show, preprocessing.window, (0.0, 255.0))
            return content, display, _shown_from(display, 0.0, 255.0)
        content = _raster(content)
    called = name or (str(source) if isinstance(source, (str, Path)) else "the picture")
    content, (zero, one), assumed = content.pixels(preprocessing.value_range, called)
    only_grey = channels == 3 and content.bands == 1 and not preprocessing.show
    content, opacity = content.with_bands(1 if only_grey else channels, called)
    display = Display.of(content, preprocessing.show, preprocessing.window, (zero, one))
    remarks = [assumed, opacity, *_shown_from(display, zero, one)]
    return content, display, list(filter(None, remarks))


def _shown_from(display: Display, zero: float, one: float) -> list[str]:
    """Say which values are shown as black and white, where that are not those that are read as 0 and 1."""
    if not display.stretched:
        return []
    ends = [zero + end * (one - zero) for end in (display.black, display.white)]
    # Stored values are often whole and of five digits.
    black, white = (f"{end:.0f}" if abs(end) >= 1000 else f"{end:.4g}" for end in ends)
    return [f"shown from {black} (black) to {white} (white)"]


def _scaled_and_cut(
    whole: Whole, size: tuple[int, int], cut: tuple[int, int, int, int], method: Image.Resampling
) -> np.ndarray:
    """Return the pixels (c, h, w) inside `cut` (left, top, right, bottom) of a picture scaled to (width, height)."""
    left, top, right, bottom = cut
    if size[0] * size[1] <= max(_SCALED_WHOLE, _SLIVER * (right - left) * (bottom - top)):
        return pixels_of(resized(whole, size, method), cut)
    # Of a long picture, only what is cut out is scaled, from what the filter reaches: the same but for rounding.
    x, y = (before / after for before, after in zip(whole.size, size, strict=True))
    reach = [_FILTERS_REACH * max(1.0, ratio) for ratio in (x, y)]
    near = (
        max(0, math.floor(left * x - reach[0])),
        max(0, math.floor(top * y - reach[1])),
        min(whole.size[0], math.ceil(right * x + reach[0])),
        min(whole.size[1], math.ceil(bottom * y + reach[1])),
    )
    box = (left * x - near[0], top * y - near[1], right * x - near[0], bottom * y - near[1])
    if isinstance(whole, Raster):
        part: Whole = whole.cropped(near).resized((right - left, bottom - top), method, box)
    else:
        part = whole.crop(near).resize((right - left, bottom - top), method, box)
    return pixels_of(part)


def resized(whole: Whole, size: tuple[int, int], method: Image.Resampling) -> Whole:
    """Scale a picture to (width, height)."""
    if isinstance(whole, Raster):
        return whole.resized(size, method)
    return whole.resize(size, method) if size != whole.size else whole


def pixels_of(whole: Whole, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """Return the pixels (c, h, w) in [0, 1] inside a box (left, top, right, bottom)."""
    left, top, right, bottom = box or (0, 0, *whole.size)
    if isinstance(whole, Raster):
        whole = whole.cropped((left, top, right, bottom))
        pixels = np.empty((whole.bands, bottom - top, right - left), np.float32)
        for rows, columns in whole.blocks():
            pixels[:, rows, columns] = whole.read(rows, columns).transpose(2, 0, 1)
        return pixels
    pixels = np.empty((len(whole.getbands()), bottom - top, right - left), np.float32)
    for rows, columns in blocks(bottom - top, right - left):
        block = whole.crop((left + columns.start, top + rows.start, left + columns.stop, top + rows.stop))
        part = np.asarray(block, dtype=np.float32) / 255
        pixels[:, rows, columns] = part if part.ndim == 2 else part.transpose(2, 0, 1)
    return pixels


def _shown_whole(whole: Whole, preprocessing: Preprocessing, display: Display) -> Image.Image:
    """Return a picture as figures show it."""
    if isinstance(whole, Image.Image) and not (preprocessing.show or display.stretched):
        return whole
    whole = in_bands(whole, preprocessing.channels) if preprocessing.show else whole
    return display.image(whole if isinstance(whole, Raster) else _raster(whole))


def _raster(image: Image.Image) -> Raster:
    values = to_array(image)
    return Raster(values[:, :, None] if values.ndim == 2 else values, ends=(0.0, 255.0))


def _padded(pixels: np.ndarray, size: tuple[int, int], corner: tuple[int, int], colour: Sequence[float]) -> np.ndarray:
    """Put pixels (c, h, w) on a ground of one colour, their upper left corner at (row, column)."""
    ground = np.empty((len(pixels), *size), np.float32)
    ground[:] = np.reshape(colour or [0.0], (-1, 1, 1))
    top, left = (max(0, edge) for edge in corner)
    ground[:, top : top + pixels.shape[1], left : left + pixels.shape[2]] = pixels
    return ground


def _padding_remark(left: int, preprocessing: Preprocessing) -> str:
    where = "to the left and right" if left < 0 else "above and below"
    colour = "the mean colour" if any(preprocessing.padding) else "black"
    return f"padded {where} with {colour} to contain all of the picture"
