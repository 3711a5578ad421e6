"""Input pictures: from any picture to pixels in [0, 1], remembering how they were cut.

`Fit` is a network's preprocessing without the normalisation; `InputPicture` is a picture as a network sees it, with the
way back to the original.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import PictureError
from ..renames import renamed
from .hashing import content_hash, where_of
from .opening import open_picture

PictureSource = str | Path | bytes | Image.Image | np.ndarray | Any
"""What a picture can be given as: an address, a file's bytes, a PIL image, an array or a tensor."""

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
    source: Any = field(default=None, repr=False, compare=False)

    seen = renamed("seen", "pixels")

    @property
    def where(self) -> str:
        """Where the picture was, as it was named; what kind of object it was where it had no address."""
        return where_of(self.source)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file's content, or of the values of what was no file."""
        return content_hash(self.pixels if self.source is None else self.source)


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
    return InputPicture(image, np.ascontiguousarray(pixels), box, name, source)


def to_image(pixels: np.ndarray) -> Image.Image:
    """Turn values in [0, 1] of shape (h, w), (1, h, w) or (3, h, w) into an 8-bit image."""
    if pixels.ndim == 3:
        pixels = pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0)
    return Image.fromarray(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
