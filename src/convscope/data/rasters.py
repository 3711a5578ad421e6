"""Rasters: pictures of more than 8 bits, or of other bands than grey and RGB, with the values that were stored."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..errors import PictureError
from .display import to_image
from .strips import strips

ValueRange = tuple[float, float]
"""The values of a picture that are black and white to the network: what becomes 0 and 1."""

_GREY = (0.299, 0.587, 0.114)
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Raster:
    """Values (h, w, n) as they were stored.

    `alpha` says that the last band is opacity; `top` is the value of white where the type does not say it; `own` that
    nobody else holds the values, so that what is computed from them may be written over them.
    """

    values: np.ndarray
    alpha: bool = False
    top: float | None = None
    own: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """The (width, height) in pixels."""
        height, width = self.values.shape[:2]
        return width, height

    def pixels(self, value_range: ValueRange | None, name: str) -> tuple[Raster, ValueRange, str]:
        """Return the same raster in [0, 1], float32, with the values that became 0 and 1 and what must be said of them.

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
        remark = f"the picture holds values from {low:g} to {high:g}; no value_range is given, so {top:g} is read as 1"
        return self._scaled((0.0, top)), (0.0, top), remark

    def _own_top(self, low: float, high: float, name: str) -> float:
        """Return the largest value that there can be. Raises PictureError where nobody can know it."""
        kind = self.values.dtype
        top = self.top or (float(np.iinfo(kind).max) if kind.itemsize <= 2 else None)
        if top is None or low < 0 or high > top:
            eight = "convert them to uint8 or " if low >= 0 and high <= 255 else ""
            raise PictureError(
                f"{name} holds values from {low:g} to {high:g} of type {kind}: {eight}say which are black and white, "
                "as in Net(..., value_range=(0, 4095)) or --value-range 0,4095"
            )
        return top

    def _scaled(self, value_range: ValueRange) -> Raster:
        black, white = value_range
        scaled = self._room(self.values.shape[2])
        for rows in strips(*self.values.shape[:2]):
            values = (self.values[rows].astype(np.float64) - black) / (white - black)
            scaled[rows] = values.clip(0, 1)
        return replace(self, values=scaled, top=None, own=True)

    def _room(self, bands: int) -> np.ndarray:
        """Return memory for float32 of so many bands, not more than there are.

        It is that of the values themselves where they may be written over: from strip to strip what is written ends
        before what is still to be read.
        """
        values, shape = self.values, (*self.values.shape[:2], bands)
        if self.own and values.dtype.itemsize >= 4 and values.flags.writeable and values.flags.c_contiguous:
            return values.reshape(-1).view(np.float32)[: math.prod(shape)].reshape(shape)
        return np.empty(shape, np.float32)

    def with_bands(self, channels: int, name: str) -> tuple[Raster, str]:
        """Return pixels in [0, 1] with as many bands as a network reads, and what must be said of them.

        Grey becomes RGB and RGB grey, opacity is laid on white; a network of as many bands as there are gets all,
        opacity included. Raises PictureError for any other number.
        """
        count = self.values.shape[2]
        if count == channels:
            return replace(self, alpha=False), "its opacity is read as the last band" if self.alpha else ""
        opaque = self._on_white() if self.alpha else self
        count = opaque.values.shape[2]
        if channels == 3 and count == 1:
            return replace(opaque, values=np.broadcast_to(opaque.values, (*opaque.values.shape[:2], 3))), ""
        if channels == 1 and count == 3:
            grey = opaque.values @ np.array(_GREY, np.float32)
            return replace(opaque, values=grey[:, :, None]), ""
        if count == channels:
            return opaque, ""
        raise PictureError(wrong_bands(name, count, channels))

    def _on_white(self) -> Raster:
        height, width, bands = self.values.shape
        opaque = self._room(bands - 1)
        for rows in strips(height, width):
            colour, opacity = self.values[rows, :, :-1], self.values[rows, :, -1:]
            opaque[rows] = colour * opacity + (1 - opacity)
        return Raster(opaque, own=True)

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
        bands = np.moveaxis(self.values, 2, 0)
        across = [_scaled_across(band, size[0], filter, (left, right)) for band in bands]
        scaled = [_scaled_down(band, size[1], filter, (top, bottom)) for band in across]
        return replace(self, values=np.stack(scaled, 2).clip(0, 1), own=True)  # bicubic and Lanczos overshoot

    def in_8_bits(self, name: str) -> Image.Image:
        """Return it as an 8-bit grey or RGB picture, opacity laid on white. Raises PictureError for other bands."""
        whole, _, _ = self.pixels(None, name)
        count = self.values.shape[2] - self.alpha
        raster, _ = whole.with_bands(count if count in (1, 3) else 3, name)
        return to_image(raster.values.transpose(2, 0, 1))


def _scaled_across(band: np.ndarray, width: int, filter: Image.Resampling, part: tuple[float, float]) -> np.ndarray:
    """Scale columns of values (h, w) to another width, as Pillow does before it scales them to another height."""
    height, before = band.shape
    scaled = np.empty((height, width), np.float32)
    for rows in strips(height, max(before, width)):
        strip = Image.fromarray(np.ascontiguousarray(band[rows]))
        scaled[rows] = np.asarray(strip.resize((width, strip.height), filter, (part[0], 0, part[1], strip.height)))
    return scaled


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
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        if low < 0 or high <= 2:
            hint = "give the pixels before normalisation: Net normalises them itself"
        elif high <= 255:
            hint = "divide by 255"
        else:
            hint = "divide by the value of white, or, for an array or a file, give it: Net(..., value_range=(0, 65535))"
        raise PictureError(f"{name} holds values from {low:.3g} to {high:.3g}, but pixels are in [0, 1]: {hint}")
