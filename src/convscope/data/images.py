"""Pictures in: from any file, array or tensor to pixels in [0, 1], remembering how they were cut.

`Fit` is a network's preprocessing without the normalisation; `InputPicture` is a picture as a network sees it, with the
way back to the original.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import PictureError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
_LARGEST = 200_000_000
_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
INTERPOLATIONS = tuple(_RESAMPLE)


@dataclass(frozen=True)
class Fit:
    """How a picture becomes a network's input: the shorter side scaled to `resize`, then the centre `size` cut out.

    A `resize` of (height, width) scales both sides to those, whatever the picture's proportions, as Caffe does.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: str = "bilinear"

    def scaled(self, side: int) -> Fit:
        """Return the same preprocessing for another input size, in the same proportion."""
        if side < 1:
            raise PictureError(f"size is the side of the network's input in pixels, at least 1, not {side}")
        if isinstance(self.resize, tuple):
            ratios = (whole / cut for whole, cut in zip(self.resize, self.size, strict=True))
            high, wide = (max(side, round(side * ratio)) for ratio in ratios)
            return Fit((side, side), (high, wide), self.interpolation)
        return Fit((side, side), round(side * self.resize / min(self.size)), self.interpolation)

    def before_the_cut(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) to which a picture of `width` x `height` is scaled before its centre is cut."""
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        shorter = min(width, height)
        return max(1, int(self.resize * width / shorter)), max(1, int(self.resize * height / shorter))


@dataclass(frozen=True)
class InputPicture:
    """A picture and the part of it that a network saw.

    `original` is the picture in RGB or grey; `pixels` the network's input, values in [0, 1], shape (c, h, w);
    `box` the seen part (left, top, right, bottom) in pixels of the original.
    """

    original: Image.Image
    pixels: np.ndarray
    box: tuple[float, float, float, float]
    name: str = ""

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the pixels that the network saw."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes()).hexdigest()[:16]


def open_picture(source: Any, *, name: str = "") -> Image.Image:
    """Open a picture as 8-bit RGB or grey, upright, without alpha.

    `source` is a path (a frame of an animation as "file.gif[0]"), the bytes of a file, a PIL image or an array
    (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), uint8 or floating point in [0, 1]. Grey, palette, alpha (laid on white),
    CMYK, 16-bit and EXIF-rotated pictures are converted. Raises PictureError for anything else.
    """
    if isinstance(source, Image.Image):
        return _guarded(lambda: _plain(source, name or "the picture"), name or "the picture")
    if isinstance(source, np.ndarray):
        return _from_array(source, name or "the array")
    if isinstance(source, (bytes, bytearray)):
        return _from_file(io.BytesIO(source), name or "the picture", None)
    if not isinstance(source, (str, Path)):
        raise PictureError(
            f"cannot read a picture from {type(source).__name__}: give a path, bytes, a PIL image, an array or a tensor"
        )
    try:
        path, frame = _path_and_frame(source)
        if path.is_dir():
            raise PictureError(f"{path} is a folder: name a picture in it")
        if not path.exists():
            raise PictureError(f"there is no picture {path}")
        empty = path.stat().st_size == 0
    except (OSError, ValueError) as error:
        raise PictureError(f"there is no picture {str(source)[:80]!r}: {error.__class__.__name__}") from None
    if empty:
        raise PictureError(f"{path} is empty (0 bytes)")
    return _from_file(path, str(path), frame)


def _path_and_frame(source: str | Path) -> tuple[Path, int | None]:
    path = Path(source)
    match = re.fullmatch(r"(.+)\[(\d+)\]", str(source))
    if match and not path.exists():
        return Path(match[1]), int(match[2])
    return path, None


def _from_file(file: Path | io.BytesIO, name: str, frame: int | None) -> Image.Image:
    def decode() -> Image.Image:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                _refuse_bomb(image, name)
                _choose_frame(image, name, frame)
                image.load()
                return _plain(image, name)

    return _guarded(decode, name)


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


def _from_array(array: np.ndarray, name: str) -> Image.Image:
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


def prepare(source: Any, fit: Fit, *, channels: int = 3, name: str = "") -> InputPicture:
    """Read a picture and cut it as a network's preprocessing does, keeping the way back to the original."""
    image = open_picture(source, name=name)
    image = image.convert("L" if channels == 1 else "RGB")
    height, width = fit.size
    scaled = fit.before_the_cut(image.width, image.height)
    if scaled[0] * scaled[1] > _LARGEST:
        raise PictureError(f"a picture of {image.width} x {image.height} pixels is too long: cut a part of it out")
    resized = image.resize(scaled, _RESAMPLE[fit.interpolation]) if scaled != image.size else image
    left, top = (round((side - cut) / 2.0) for side, cut in zip(scaled, (width, height), strict=True))
    seen = resized.crop((left, top, left + width, top + height))
    ratio = (image.width / scaled[0], image.height / scaled[1])
    box = (left * ratio[0], top * ratio[1], (left + width) * ratio[0], (top + height) * ratio[1])
    pixels = np.asarray(seen, dtype=np.float32) / 255
    pixels = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    if not name and isinstance(source, (str, Path)):
        name = Path(source).name
    return InputPicture(image, np.ascontiguousarray(pixels), box, name)


def find_pictures(folder: Path) -> list[Path]:
    """List the pictures in a folder and below it, by name."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise PictureError(f"there is no picture in {folder} (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def to_image(pixels: np.ndarray) -> Image.Image:
    """Turn values in [0, 1] of shape (h, w), (1, h, w) or (3, h, w) into an 8-bit image."""
    if pixels.ndim == 3:
        pixels = pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0)
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
