"""Decoding: the file of a picture, a PIL image or an array becomes 8-bit RGB or grey, upright, without alpha."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import PictureError
from ..quiet import FILTERS


def decode_file(file: Path | io.BytesIO, name: str, frame: int | None = None) -> Image.Image:
    """Decode a file, or one frame of an animation. Raises PictureError."""

    def decode() -> Image.Image:
        with _open(file) as image:
            _refuse_bomb(image, name)
            _choose_frame(image, name, frame)
            image.load()
            return _plain(image, name)

    return _guarded(decode, name)


def decode_image(image: Image.Image, name: str) -> Image.Image:
    """Convert a PIL image of any mode. Raises PictureError."""
    return _guarded(lambda: _plain(image, name), name)


def _open(file: Path | io.BytesIO) -> Image.Image:
    """Read a picture's header, without Pillow's warning of pictures that are large but allowed."""
    with FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file)


def _guarded(decode: Callable[[], Image.Image], name: str) -> Image.Image:
    """Turn whatever Pillow raises on a bad file into a PictureError."""
    try:
        return decode()
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(
            f"{name} is not a picture that Pillow can read (PNG, JPEG, WebP, TIFF, BMP, GIF, ...)"
        ) from None
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} is refused: {error}") from None
    except Exception as error:  # Pillow's decoders raise anything: struct.error, KeyError, NotImplementedError, ...
        reason = str(error) or type(error).__name__
        raise PictureError(f"{name} is damaged or cut short: {reason}") from None


def _refuse_bomb(image: Image.Image, name: str) -> None:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or math.inf)
    if image.width * image.height > limit:
        raise PictureError(
            f"{name} has {image.width} x {image.height} pixels, above the limit of {limit / 1e6:.0f} million: "
            "scale it down, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        )


def _choose_frame(image: Image.Image, name: str, frame: int | None) -> None:
    # The second picture inside a phone's photograph (MPO) is a preview, not a frame.
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if count > 1 and frame is None:
        raise PictureError(f"{name} has {count} frames: name one, as in '{name}[0]'")
    if frame is not None:
        if frame >= count:
            raise PictureError(
                f"{name} has {count} frame{'s' * (count > 1)}, numbered from 0: there is no frame {frame}"
            )
        image.seek(frame)


def _plain(image: Image.Image, name: str) -> Image.Image:
    if image.width == 0 or image.height == 0:
        raise PictureError(f"{name} has no pixels ({image.width} x {image.height})")
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return _deep(image, name)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _deep(image: Image.Image, name: str) -> Image.Image:
    """Bring 16-bit and floating point grey pictures to 8 bits."""
    values = np.asarray(image).astype(np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise PictureError(
            f"{name} holds values from {values.min():g} to {values.max():g}: mode {image.mode} is read as 0 to {top:g}"
        )
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))


def decode_array(array: np.ndarray, name: str) -> Image.Image:
    """Convert an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), uint8, uint16, bool or floating point in [0, 1].

    Raises PictureError.
    """
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise PictureError(f"{name} has shape {shape}: expected (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)")
    if np.issubdtype(array.dtype, np.floating):
        check_range(float(np.min(array)), float(np.max(array)), name)
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype == np.uint16:
        array = np.rint(array / 257).astype(np.uint8)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise PictureError(f"{name} has type {array.dtype}: expected uint8, or floating point in [0, 1]")
    return _plain(Image.fromarray(np.ascontiguousarray(array)), name)


def check_range(low: float, high: float, name: str) -> None:
    """Refuse values outside [0, 1], with the usual reasons for them."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise PictureError(f"{name} contains NaN or infinite values")
    if low < -1e-6 or high > 1 + 1e-6:
        hint = (
            "divide by 255"
            if low >= 0 and high > 2
            else "give the pixels before normalisation: Net normalises them itself"
        )
        raise PictureError(f"{name} holds values from {low:.3g} to {high:.3g}, but pixels are in [0, 1]: {hint}")
