"""Decoding: a file, a PIL image or an array becomes 8-bit RGB or grey, or a raster where that is too little."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..errors import PictureError
from . import image_files, raster_files
from .limits import check_pixels
from .rasters import Raster
from .strips import blocks, image_blocks, to_array

Content = Image.Image | Raster
"""A decoded picture, upright: 8-bit RGB or grey without alpha, or a raster of other depth or bands."""

_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


def decode_file(file: Path | io.BytesIO, name: str, frame: int | None = None, *, bands: int | None = None) -> Content:
    """Decode a file, or one frame of an animation; `bands` is how many a network reads. Raises PictureError."""

    def decode() -> Content:
        kind = raster_files.kind_of(file)
        if kind == "npy":
            return decode_array(raster_files.read_array(file, name), name, bands=bands)
        if kind == "tiff":
            raster = raster_files.read_tiff(file, name, frame, bands)
            if raster is not None:
                return raster
        if kind == "png" and not frame:
            return raster_files.read_png(file, name)
        image = _loaded(file, name, frame)
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            check_pixels(*image.size, name, each=2 * image_files.core_bytes(image))
            ImageOps.exif_transpose(image, in_place=True)
        return _plain(image, name, bands)

    return _guarded(decode, name)


def _loaded(file: Path | io.BytesIO, name: str, frame: int | None) -> Image.Image:
    with image_files.open_image(file, name) as image:
        count = image_files.count_frames(image, file, name)
        image_files.check_memory(image, count, name)
        _choose_frame(image, count, name, frame)
        image.load()
        # A decoder of films keeps what the next frame is made of, and a raw file may be mapped, not read.
        return image.copy() if count > 1 or image.format == "WEBP" or image.readonly else image


def decode_image(image: Image.Image, name: str, *, bands: int | None = None) -> Content:
    """Convert a PIL image of any mode. Raises PictureError."""

    def convert() -> Content:
        image_files.check_opened(image, name)
        return _plain(ImageOps.exif_transpose(image), name, bands)

    return _guarded(convert, name)


def _guarded(decode: Callable[[], Content], name: str) -> Content:
    """Turn whatever Pillow raises on a bad file into a PictureError."""
    try:
        with image_files.quiet_readers():
            return decode()
    except PictureError:
        raise
    except Exception as error:  # Pillow's decoders raise anything: struct.error, KeyError, NotImplementedError, ...
        reason = str(error) or type(error).__name__
        raise PictureError(f"{name} is damaged or cut short: {reason}") from None


def _choose_frame(image: Image.Image, count: int, name: str, frame: int | None) -> None:
    if count > 1 and frame is None:
        raise PictureError(f"{name} has {count} frames: name one, as in '{name}[0]'")
    if frame is not None:
        if frame >= count:
            raise PictureError(
                f"{name} has {count} frame{'s' * (count > 1)}, numbered from 0: there is no frame {frame}"
            )
        image.seek(frame)


def _plain(image: Image.Image, name: str, bands: int | None) -> Content:
    if image.width == 0 or image.height == 0:
        raise PictureError(f"{name} has no pixels ({image.width} x {image.height})")
    if image.mode in _DEEP:
        return Raster(to_array(image)[:, :, None], top=None if image.mode == "F" else 65535.0)
    if image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    if bands not in (None, 1, 3) and image.mode in ("LA", "RGBA", "RGBX") and len(image.getbands()) == bands:
        return Raster(to_array(image), alpha=image.mode != "RGBX")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        return _on_white(image)
    mode = "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image) -> Image.Image:
    """Lay an image with opacity on white, as RGB."""
    laid = Image.new("RGB", image.size)
    for (rows, columns), block in image_blocks(image):
        rgba = block.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        laid.paste(Image.alpha_composite(white, rgba).convert("RGB"), (columns.start, rows.start))
    return laid


def decode_array(array: np.ndarray, name: str, *, bands: int | None = None) -> Content:
    """Convert an array (h, w), (h, w, n), or (n, h, w) where that alone has as many bands as the network reads.

    Four bands are red, green, blue and opacity unless the network reads four. Raises PictureError.
    """
    if array.dtype.kind not in "uifb":
        raise PictureError(f"{name} has type {array.dtype}: expected integers, Booleans, or floating point in [0, 1]")
    values = _channels_last(array, name, bands)
    count = values.shape[2]
    if array.dtype == np.bool_:
        values = values.astype(np.uint8) * 255
    alpha = count == 4 and bands != 4
    if values.dtype != np.uint8 or count not in (1, 3, 4) or (count == 4 and not alpha):
        return Raster(values, alpha)
    return _plain(_image_of(values), name, bands)


def _image_of(values: np.ndarray) -> Image.Image:
    """Return 8-bit values (h, w, 1), (h, w, 3) or (h, w, 4) as an image, in memory of its own."""
    height, width, count = values.shape
    image = Image.new({1: "L", 3: "RGB", 4: "RGBA"}[count], (width, height))
    for rows, columns in blocks(height, width):
        block = np.ascontiguousarray(values[rows, columns])
        image.paste(Image.fromarray(block[:, :, 0] if count == 1 else block), (columns.start, rows.start))
    return image


def _channels_last(array: np.ndarray, name: str, bands: int | None) -> np.ndarray:
    """Return an array as (h, w, n). Raises PictureError where its shape is none of a picture."""
    usual = {1, 3, 4} if bands in (None, 1, 3) else {bands}
    if array.size and array.ndim == 2:
        return array[:, :, None]
    if array.size and array.ndim == 3:
        last, first = array.shape[2] in usual, array.shape[0] in usual
        if first and last and bands not in (None, 1, 3):
            raise PictureError(
                f"{name} has shape {array.shape}, which is {bands} bands first or last: give a tensor ({bands}, h, w)"
            )
        if last:
            return array
        if first:
            return np.moveaxis(array, 0, 2)
        if min(array.shape[0], array.shape[2]) <= 32 and bands is not None:
            there = min(array.shape[0], array.shape[2])
            raise PictureError(f"{name} has shape {array.shape}, {there} bands, and the network reads {bands}")
    wanted = "(h, w, 1), (h, w, 3) or (h, w, 4)" if bands in (None, 1, 3) else f"(h, w, {bands}) or ({bands}, h, w)"
    raise PictureError(f"{name} has shape {array.shape}: expected (h, w), {wanted}")
