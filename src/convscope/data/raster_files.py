"""Files that Pillow reads in 8 bits or not at all: PNG in 16-bit colour, deep or many-banded TIFF, NumPy's .npy."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import PictureError
from .image_files import check_directories, open_image
from .limits import check_pixels, shown_bytes
from .rasters import Raster
from .strips import image_blocks
from .tiff_segments import check_segments, unpacking_bytes

_PNG, _NPY = b"\x89PNG\r\n\x1a\n", b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OPACITY = (1, 2)  # TIFF's codes of extra samples: premultiplied and plain alpha
_WHITE_IS_ZERO = 0
_MOST_BANDS = 32  # a page of so few columns is no picture

_TRANSPOSED, _ROWS_FLIPPED, _COLUMNS_FLIPPED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)
"""Exif's numbers of orientations that are turned upright by each of these, in this order."""


def kind_of(file: Path | io.BytesIO) -> str:
    """Return "png" for PNG in 16-bit colour, "tiff", "npy", or "" for what Pillow reads as it is."""
    head = _head(file)
    if head.startswith(_NPY):
        return "npy"
    if head.startswith(_PNG) and len(head) == 26:
        depth, colours = head[24], head[25]
        return "png" if depth == 16 and colours in (2, 4, 6) else ""
    return "tiff" if head[:4] in _TIFF else ""


def _head(file: Path | io.BytesIO) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(26)
    return file.getvalue()[:26]


def read_array(file: Path | io.BytesIO, name: str) -> np.ndarray:
    """Read a .npy file without running code. Raises PictureError."""
    try:
        if isinstance(file, Path):
            _check_shape(np.load(file, mmap_mode="r", allow_pickle=False), name)  # nothing of it is read yet
        array = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PictureError(f"{name} is no .npy file of numbers, or cut short: {reason}") from None
    _check_shape(array, name)
    return array


def _check_shape(array: np.ndarray, name: str) -> None:
    """Refuse too many pixels: the smallest of three sides is the bands."""
    if array.ndim >= 2:
        *_, height, width = sorted(array.shape)
        count = math.prod(sorted(array.shape)[:-2])
        again = count == 4 or array.dtype.kind == "b"  # opacity is laid on white, truth becomes black and white
        check_pixels(width, height, name, each=count * array.dtype.itemsize + shown_bytes(count) * (1 + again))


def read_png(file: Path | io.BytesIO, name: str) -> Raster:
    """Read a PNG in 16-bit colour, or grey with opacity."""
    # Pillow keeps the upper byte of each value. Told that the bytes are in the other order, it keeps the lower one.
    with open_image(file, name) as image:
        grey = image.tile[0].args == "LA;16B"  # its four bytes of grey and opacity are read as they are
        count = 2 if grey else len(image.getbands())
        check_pixels(*image.size, name, each=2 * count + 4)
        values = np.zeros((image.height, image.width, count), np.uint16)
    orientation = 1
    for order, place, shift in (("16B", 0, 8), ("16L", 1, 0)):
        eight = _png_in_8_bits(file, order, name)
        for where, block in image_blocks(eight):
            part = np.asarray(block)[:, :, place::2] if grey else np.asarray(block)
            values[where] |= part.astype(np.uint16) << shift
        orientation = int(eight.getexif().get(274, 1))
        del eight  # before the next
    return Raster(_upright(values, orientation), alpha=values.shape[2] in (2, 4))


def _png_in_8_bits(file: Path | io.BytesIO, order: str, name: str) -> Image.Image:
    with open_image(file, name) as image:
        (tile,) = image.tile
        stored = str(tile.args)
        image.tile = [tile._replace(args="RGBA" if stored == "LA;16B" else stored.replace("16B", order))]
        image.load()
        return image


def read_tiff(file: Path | io.BytesIO, name: str, frame: int | None, bands: int | None) -> Raster | None:
    """Read a TIFF that is deeper than 8 bits or has other bands than Pillow's modes; None for what Pillow reads whole.

    Pages of one band that are as many as the network's bands are its bands. Overviews and masks are no frames.
    """
    import tifffile

    check_directories(file, name)
    with tifffile.TiffFile(file, is_ome=False) as tiff:
        if frame is None and _written_by_rows(tiff, bands):
            height, width, count = tiff.series[0].shape
            each = count * tiff.series[0].dtype.itemsize + shown_bytes(count)
            check_pixels(width, height, name, each=each)
            for page in tiff.pages:
                check_segments(page, name)
            return Raster(tiff.series[0].asarray())
        pages: list[Any] = [page for page in tiff.pages if not (page.is_reduced or page.is_mask)]  # type: ignore[union-attr]
        first = pages[frame or 0] if (frame or 0) < len(pages) else None
        stacked = frame is None and len(pages) > 1 and len(pages) == bands and _alone(pages)
        if first is None or (len(pages) > 1 and frame is None and not stacked):
            return None  # Pillow's path says what frames there are
        if not stacked and not _beyond_pillow(first, bands):
            return None
        count = len(pages) if stacked else first.samplesperpixel
        each = count * first.dtype.itemsize + max(shown_bytes(count), unpacking_bytes(first))
        check_pixels(first.imagewidth, first.imagelength, name, each=each)
        orientation = first.tags.valueof(274, 1)
        alpha = not stacked and bool(first.extrasamples) and first.extrasamples[-1] in _OPACITY
        values = _stacked(pages, name) if stacked else _values(first, name)
        return Raster(_upright(values, int(orientation)), alpha=alpha)


def _written_by_rows(tiff: Any, bands: int | None) -> bool:
    """Whether the pages are rows of an array (h, w, n): so tifffile writes one that nobody told it to be a picture."""
    if not tiff.is_shaped:
        return False
    shape = tiff.series[0].shape
    rows = len(tiff.series) == 1 and len(shape) == 3 and len(tiff.pages) == shape[0]
    if not rows or tiff.series[0].kind != "shaped" or tiff.pages[0].shape != shape[1:]:
        return False
    return shape[2] == bands or (shape[0] != bands and shape[2] <= _MOST_BANDS)


def _alone(pages: list[Any]) -> bool:
    return all(page.samplesperpixel == 1 and page.shape == pages[0].shape for page in pages)


def _stacked(pages: list[Any], name: str) -> np.ndarray:
    """Return the values of pages of one band as the bands of one picture."""
    values = np.empty((*pages[0].shape, len(pages)), pages[0].dtype)
    for band, page in enumerate(pages):
        values[:, :, band] = _values(page, name)[:, :, 0]
    return values


def _beyond_pillow(page: Any, bands: int | None) -> bool:
    """Whether a page holds more than Pillow's 8-bit grey, RGB and RGBA; colour maps and other colour spaces do not."""
    if page.photometric not in (0, 1, 2):
        return False
    usual = (1, 2) if page.photometric != 2 else (3, 4)
    return page.bitspersample > 8 or page.samplesperpixel not in usual or page.samplesperpixel == bands not in (1, 3)


def _values(page: Any, name: str) -> np.ndarray:
    """Return a page's values (h, w, n), white above black."""
    check_segments(page, name)
    try:
        values: np.ndarray = page.asarray()
    except ValueError as error:
        if "imagecodecs" in str(error):
            raise PictureError(f"{name} is compressed in a way that needs: pip install imagecodecs") from None
        raise
    values = values[:, :, None] if page.axes == "YX" else values
    values = np.moveaxis(values, 0, 2) if page.axes == "SYX" else values
    if values.ndim != 3:
        raise PictureError(f"{name} holds values of shape {values.shape}, not a picture's")
    if page.photometric == _WHITE_IS_ZERO and values.dtype.kind == "u":
        np.subtract(np.iinfo(values.dtype).max, values, out=values)
    return values


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn values (h, w, n) upright."""
    values = values.swapaxes(0, 1) if orientation in _TRANSPOSED else values
    values = values[::-1] if orientation in _ROWS_FLIPPED else values
    return values[:, ::-1] if orientation in _COLUMNS_FLIPPED else values
