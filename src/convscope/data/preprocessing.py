"""Preprocessing: how a network reads pictures, without the normalisation, as Net's options say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..errors import NetworkError, PictureError, nearest
from .display import Window
from .limits import check_pixels
from .rasters import ValueRange

Size = int | tuple[int, int]
"""The side of a network's input in pixels, or its (height, width)."""

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
FITS = ("cover", "contain", "stretch")


def sides(size: Size) -> tuple[int, int]:
    """Return a size as (height, width). Raises PictureError for what is none."""
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or any(type(side) is not int or side < 1 for side in pair):
        raise PictureError(
            f"size is the side of the network's input in pixels, at least 1, or its (height, width), not {size}"
        )
    return pair


@dataclass(frozen=True)
class Fit:
    """How a picture becomes a network's input of `size` (height, width).

    "cover" scales the shorter side to `resize`, further where the input would not be covered, and cuts out the centre;
    a `resize` of (height, width) scales both sides to those, whatever the picture's proportions, as Caffe does.
    "contain" scales the whole picture into the input and pads the rest, "stretch" scales both sides to the input's.
    Raises PictureError for an input of too many pixels.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: str = "bilinear"
    mode: str = "cover"

    def __post_init__(self) -> None:
        check_pixels(self.size[1], self.size[0], "the network's input")

    def scaled(self, size: Size) -> Fit:
        """Return the same preprocessing for another input size, in the same proportion."""
        size = sides(size)
        if isinstance(self.resize, tuple):
            ratios = (whole / cut for whole, cut in zip(self.resize, self.size, strict=True))
            high, wide = (max(side, round(side * ratio)) for side, ratio in zip(size, ratios, strict=True))
            return replace(self, size=size, resize=(high, wide))
        return replace(self, size=size, resize=round(min(size) * self.resize / min(self.size)))

    def before_the_cut(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) to which a picture of `width` x `height` is scaled before its centre is cut."""
        high, wide = self.size
        if self.mode == "stretch":
            return wide, high
        if self.mode == "contain":
            scale = min(wide / width, high / height)
            return max(1, min(wide, round(width * scale))), max(1, min(high, round(height * scale)))
        if isinstance(self.resize, tuple):
            return max(wide, self.resize[1]), max(high, self.resize[0])
        shorter = min(width, height)
        scaled = max(1, int(self.resize * width / shorter)), max(1, int(self.resize * height / shorter))
        if scaled[0] >= wide and scaled[1] >= high:
            return scaled
        scale = max(wide / width, high / height)
        return max(wide, round(width * scale)), max(high, round(height * scale))


@dataclass(frozen=True)
class Preprocessing:
    """How a network reads pictures: their cut, number of bands and values, and how they are shown.

    Without a `fit` they keep their size; `padding` is the colour, one value per band in [0, 1], around a picture that
    is contained.
    """

    fit: Fit | None
    channels: int = 3
    value_range: ValueRange | None = None
    show: tuple[int, ...] = ()
    padding: tuple[float, ...] = ()
    window: Window | None = None


def fit_of(size: int | tuple[int, int], resize: int | tuple[int, int] | None, interpolation: str, mode: str) -> Fit:
    """Return how pictures are cut. Raises NetworkError for what is no size, filter or fit."""
    height, width = _sides(size)
    scaled = resize or min(height, width)
    sides = _sides(scaled)
    if min(height, width, *sides) < 1:
        raise NetworkError(f"size and resize are in pixels, at least 1, not {size} and {resize}")
    if interpolation not in FILTERS:
        raise NetworkError(f"interpolation is one of {nearest('', FILTERS)}, not {interpolation!r}")
    if mode not in FITS:
        raise NetworkError(f"fit is one of {', '.join(FITS)}, not {mode!r}")
    return Fit((height, width), scaled, interpolation, mode)


def checked_range(value: Sequence[float] | None) -> ValueRange | None:
    """Return the values of black and white, None for the type's own. Raises NetworkError for what is no range."""
    if value is None:
        return None
    try:
        black, white = (float(end) for end in value)
    except (TypeError, ValueError):
        raise NetworkError(f"value_range is the values of black and white, as (0, 4095), not {value!r}") from None
    if not (np.isfinite(black) and np.isfinite(white) and black < white):
        raise NetworkError(f"value_range is the values of black and white, the first below the other, not {value!r}")
    return black, white


def checked_window(value: Sequence[float] | str | None) -> Window | None:
    """Return the values that are shown as black and white, or "auto". Raises NetworkError for what is neither."""
    if value is None or value == "auto":
        return "auto" if value else None
    try:
        black, white = map(float, value)
    except (TypeError, ValueError):
        black = white = np.nan
    if not (np.isfinite(black) and np.isfinite(white) and black < white):
        raise NetworkError(
            "window is the values that are shown as black and white, as pictures store them, the first below the "
            f"other, as (3500, 23000), or 'auto'; not {value!r}"
        )
    return black, white


def checked_bands(show: int | Sequence[int] | None, channels: int) -> tuple[int, ...]:
    """Return the bands that are shown, () for the usual ones. Raises NetworkError for bands that there are not."""
    if show is None:
        return ()
    bands = (show,) if isinstance(show, int) else tuple(show)
    if len(bands) not in (1, 3) or any(type(band) is not int or not 0 <= band < channels for band in bands):
        raise NetworkError(
            f"show is one band, or three for red, green and blue, numbered from 0 to {channels - 1}; not {show!r}"
        )
    return bands


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    sides = size if isinstance(size, tuple) else (size, size)
    if [type(side) for side in sides] != [int, int]:
        raise NetworkError(f"size and resize are a number of pixels or (height, width), not {size!r}")
    return sides


def per_channel(value: float | Sequence[float], channels: int, name: str) -> tuple[float, ...]:
    """Return a mean or std per channel. Raises NetworkError for another number of values, or impossible ones."""
    try:
        values = tuple(float(v) for v in np.atleast_1d(np.asarray(value)))
    except (TypeError, ValueError):
        raise NetworkError(f"{name} is a number, or one per channel, not {value!r}") from None
    if len(values) == 1:
        values *= channels
    if len(values) != channels:
        raise NetworkError(f"{name} has {len(values)} values for a network of {channels} channels")
    if name == "std" and min(values) <= 0:
        raise NetworkError(f"std must be positive, not {min(values)}")
    if not np.isfinite(values).all():
        raise NetworkError(f"{name} must be finite, not {values}")
    if name == "mean" and max(values) > 1:
        raise NetworkError(f"mean is of pixels in [0, 1], not {max(values):g}: divide mean and std by 255")
    return values
