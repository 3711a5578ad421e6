"""Rasters: pictures of more than 8 bits, or of other bands than grey and RGB, with the values that were stored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..assumptions import Assumption
from ..errors import PictureError
from .strips import blocks, strips

ValueRange = tuple[float, float]
"""The values of a picture that are black and white to the network: what becomes 0 and 1."""

_GREY = (0.299, 0.587, 0.114)
_TOLERANCE = 1e-6
_NORMALISED = 10
_OVERSHOT = 1.1
"""Magnitudes up to which values are taken for normalised pixels, and for an interpolation's beyond white."""

_WHITES = (1, 255, 1023, 4095, 16383, 65535)
"""White in 1, 8, 10, 12, 14 and 16 bits."""
_ALL = slice(None)


@dataclass(frozen=True)
class Raster:
    """Values (h, w, n) as they were stored; what a network reads of them is computed a few rows at a time.

    `alpha` says that the last band is opacity; `top` is the value of white where the type does not say it; `ends` are
    the values that are read as 0 and 1, None where values are in [0, 1]; `channels` is in how many bands they are read.
    """

    values: np.ndarray
    alpha: bool = False
    top: float | None = None
    ends: ValueRange | None = None
    channels: int = 0

    @classmethod
    def of(cls, pixels: np.ndarray) -> Raster:
        """Take pixels in [0, 1], (h, w) or (c, h, w)."""
        return cls(pixels[:, :, None] if pixels.ndim == 2 else pixels.transpose(1, 2, 0))

    @property
    def size(self) -> tuple[int, int]:
        """The (width, height) in pixels."""
        height, width = self.values.shape[:2]
        return width, height

    def pixels(self, value_range: ValueRange | None, name: str) -> tuple[Raster, ValueRange, str]:
        """Return the same raster read in [0, 1], with the values that become 0 and 1 and what must be said of them.

        8-bit and Boolean values keep their type's range; others are read by `value_range` where it is given. Raises
        PictureError for values beyond the range, and for types that have none.
        """
        values = self.values
        low, high = float(values.min()), float(values.max())
        if values.dtype.itemsize == 1 and values.dtype.kind in "ub":
            return self._scaled((0.0, 1.0 if values.dtype.kind == "b" else 255.0)), (0.0, 255.0), ""
        if not (math.isfinite(low) and math.isfinite(high)):
            raise PictureError(f"{name} contains NaN or infinite values")
        if value_range is not None:
            black, white = value_range
            slack = _TOLERANCE * (white - black)
            if low < black - slack or high > white + slack:
                raise PictureError(
                    f"{name} holds values from {low:g} to {high:g}, beyond value_range=({black:g}, {white:g}): give a "
                    "wider one and the mean and std that belong to it, or cut the values off yourself"
                )
            return self._scaled(value_range), value_range, ""
        if values.dtype.kind == "f" and self.top is None:
            check_range(low, high, name)
            return self._scaled((0.0, 1.0)), (0.0, 1.0), ""
        top = self._own_top(low, high, name)
        remark = Assumption(
            f"the picture holds values from {low:g} to {high:g}; no value_range is given, so {top:.10g} is read as 1: "
            f"state it, as in Net(..., value_range=(0, {top:.10g})) or --value-range "
            f"0,{top:.10g}",
            f"{top:.10g} is white",
        )
        return self._scaled((0.0, top)), (0.0, top), remark

    def _own_top(self, low: float, high: float, name: str) -> float:
        """Return the largest value that there can be. Raises PictureError where nobody can know it."""
        kind = self.values.dtype
        top = self.top or (float(np.iinfo(kind).max) if kind.itemsize <= 2 else None)
        if top is None or low < 0 or high > top:
            eight = "convert them to uint8 or " if low >= 0 and 1 < high <= 255 else ""
            black, white = _likely_range(low, high)
            raise PictureError(
                f"{name} holds values from {low:g} to {high:g} of type {kind}: {eight}say which are black and white, "
                f"as in Net(..., value_range=({black:.10g}, {white:.10g})) or --value-range {black:.10g},{white:.10g}"
            )
        return top

    def _scaled(self, value_range: ValueRange) -> Raster:
        return replace(self, top=None, ends=value_range)

    def with_bands(self, channels: int, name: str) -> tuple[Raster, str]:
        """Return the same raster read in as many bands as a network reads, and what must be said of them.

        Grey becomes RGB and RGB grey, opacity is laid on white; a network of as many bands as there are gets all,
        opacity included. Raises PictureError for any other number.
        """
        count = self.values.shape[2]
        if count == channels:
            return replace(self, alpha=False), "its opacity is read as the last band" if self.alpha else ""
        count -= self.alpha
        if count != channels and {count, channels} != {1, 3}:
            raise PictureError(wrong_bands(name, count, channels))
        return replace(self, channels=channels), ""

    def read(self, rows: slice, columns: slice = _ALL) -> np.ndarray:
        """Return pixels (rows, columns, n) in [0, 1], float32."""
        values = self.values[rows, columns]
        if self.ends is not None:
            black, white = self.ends
            exact = values.astype(np.float64)
            exact -= black
            exact /= white - black
            values = exact.clip(0, 1, out=exact)
        values = values.astype(np.float32, copy=False)
        if self.alpha:
            colour, opacity = values[:, :, :-1], values[:, :, -1:]
            values = colour * opacity + (1 - opacity)
        if self.channels == 1 and values.shape[2] == 3:
            return (values @ np.array(_GREY, np.float32))[:, :, None]
        if self.channels == 3 and values.shape[2] == 1:
            return np.broadcast_to(values, (*values.shape[:2], 3))
        return values

    @property
    def bands(self) -> int:
        """In how many bands it is read."""
        return self.channels or self.values.shape[2] - self.alpha

    def strips(self) -> Iterator[slice]:
        """Yield the rows of strips, less high where there are many bands."""
        return strips(*self.values.shape)

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yield rows and columns of small parts."""
        return blocks(*self.values.shape)

    def cropped(self, box: tuple[int, int, int, int]) -> Raster:
        """Return the part inside a box (left, top, right, bottom)."""
        left, top, right, bottom = box
        return replace(self, values=self.values[top:bottom, left:right])

    def resized(
        self, size: tuple[int, int], filter: Image.Resampling, box: tuple[float, float, float, float] | None = None
    ) -> Raster:
        """Scale to (width, height), each band by itself in floating point, with Pillow's filters.

        `box` is the part that is scaled, by default all of it.
        """
        left, top, right, bottom = box or (0, 0, *self.size)
        if size == self.size and box is None:
            return self
        across = np.empty((self.bands, self.size[1], size[0]), np.float32)
        for rows in self.strips():
            for band, values in zip(across, np.moveaxis(self.read(rows), 2, 0), strict=True):
                band[rows] = _scaled_across(values, size[0], filter, (left, right))
        scaled = [_scaled_down(band, size[1], filter, (top, bottom)) for band in across]
        return Raster(np.stack(scaled, 2).clip(0, 1))  # bicubic and Lanczos overshoot


def _scaled_across(band: np.ndarray, width: int, filter: Image.Resampling, part: tuple[float, float]) -> np.ndarray:
    """Scale columns of values (h, w) to another width, as Pillow does before it scales them to another height."""
    strip = Image.fromarray(np.ascontiguousarray(band))
    return np.asarray(strip.resize((width, strip.height), filter, (part[0], 0, part[1], strip.height)))


def _scaled_down(band: np.ndarray, height: int, filter: Image.Resampling, part: tuple[float, float]) -> np.ndarray:
    """Scale rows of values (h, w) to another height."""
    width = band.shape[1]
    return np.asarray(Image.fromarray(band).resize((width, height), filter, (0, part[0], width, part[1])))


def wrong_bands(name: str, there: int, wanted: int) -> str:
    """Say that a picture has another number of bands than a network reads."""
    bands = f"{there} band{'s' * (there != 1)}"
    return (
        f"{name} has {bands}, and the network reads {wanted}: give a picture of {wanted}, as an array "
        f"(h, w, {wanted}), a tensor ({wanted}, h, w), a .npy file or a TIFF"
    )


def check_range(low: float, high: float, name: str) -> None:
    """Refuse values outside [0, 1], with the usual reasons for them."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise PictureError(f"{name} contains NaN or infinite values")
    if low >= -_TOLERANCE and high <= 1 + _TOLERANCE:
        return
    black, white = _likely_range(low, high)
    stated = (
        f"for an array or a file, say which are black and white: Net(..., value_range=({black:.10g}, {white:.10g}))"
    )
    if low < 0 and max(-low, high) <= _NORMALISED:
        hint = f"give the pixels before normalisation, Net normalises them itself; or, {stated}"
    elif low >= 0 and high <= _OVERSHOT:
        hint = "cut off what is beyond 1, as of an interpolation: pixels.clip(0, 1)"
    elif low >= 0 and white == 255:
        hint = f"divide by 255; or, {stated}"
    else:
        hint = f"divide by the value of white; or, {stated}" if low >= 0 else stated
    raise PictureError(f"{name} holds values from {low:.3g} to {high:.3g}, but pixels are in [0, 1]: {hint}")


def _likely_range(low: float, high: float) -> ValueRange:
    """Guess which values are black and white: those of a usual depth, of normalised pixels -1 and 1, else the ends."""
    if low < 0:
        ends = max(-low, high)
        return (-1.0, 1.0) if ends <= 1 else (float(math.floor(low)), float(math.ceil(high)))
    return 0.0, next((float(white) for white in _WHITES if high <= white), float(math.ceil(high)))
