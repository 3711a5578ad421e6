"""Opening one picture: by its address, or from what a program holds.

An address says where a picture is, and opens it again later: a path ("cat.jpg", or "film.gif[0]" for one frame of an
animation or video), a member of a tar file ("shard-0.tar#000123.jpg"), a row of a Parquet or Arrow file
("data.parquet#17"), an item of one of torchvision's data sets ("torchvision:MNIST:FOLDER#17"), or a sample picture
("sample:chelsea").
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError, PictureError
from . import films, image_files, parquet, samples, shards, torchvision_sets
from .decoding import Content, decode_array, decode_file, decode_image
from .display import in_8_bits
from .rasters import Raster


def open_picture(source: Any, *, name: str = "") -> Image.Image:
    """Open a picture as 8-bit RGB or grey, upright, without alpha.

    `source` is an address, the bytes of a file, a PIL image or an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4),
    uint8, uint16 or floating point in [0, 1]. An address is a path ("film.gif[0]" for one frame of an animation),
    "shard.tar#member.jpg", "data.parquet#17", "torchvision:MNIST:FOLDER#17" or "sample:chelsea". Grey, palette, alpha
    (laid on white), CMYK, 16-bit and EXIF-rotated pictures are converted. Raises PictureError for anything else.
    """
    content = open_content(source, name=name)
    if isinstance(content, Image.Image):
        return content
    return in_8_bits(content, name or (str(source) if isinstance(source, (str, Path)) else "the picture"))


def open_content(source: Any, *, name: str = "", bands: int | None = None) -> Content:
    """Open a picture with all that it holds: in 8-bit RGB or grey, or as a raster where that would be too little.

    `bands` is how many a network reads: what opacity is, and which axis of an array holds the bands, depends on it.
    Raises PictureError.
    """
    if isinstance(source, Image.Image):
        return decode_image(source, name or "the picture", bands=bands)
    if isinstance(source, np.ndarray):
        return decode_array(source, name or "the array", bands=bands)
    if isinstance(source, (bytes, bytearray)):
        return decode_file(io.BytesIO(source), name or "the picture", bands=bands)
    if not isinstance(source, (str, Path)):
        raise PictureError(
            f"cannot read a picture from {type(source).__name__}: give a path, bytes, a PIL image, an array or a tensor"
        )
    content, frame = locate(source)
    if isinstance(content, Image.Image):
        return decode_image(content, str(source), bands=bands)
    if isinstance(content, bytes):
        return decode_file(io.BytesIO(content), str(source), frame, bands=bands)
    if films.is_video(content):
        return decode_image(films.video_frame(content, frame), str(content), bands=bands)
    return decode_file(content, str(content), frame, bands=bands)


def mode_and_size(address: str | Path) -> tuple[str, tuple[int, int]]:
    """Return the mode of a picture, such as "L" or "RGB", and its (width, height), from its header alone."""
    content, _ = locate(address)
    if isinstance(content, Image.Image):
        return content.mode, content.size
    try:
        file = io.BytesIO(content) if isinstance(content, bytes) else content
        with image_files.open_image(file, str(address)) as image:
            return image.mode, image.size
    except image_files.UnreadableError:  # more bands than Pillow knows, or a .npy file
        raster = open_content(address)
        return "L" if isinstance(raster, Raster) and raster.values.shape[2] == 1 else "RGB", raster.size


def locate(address: str | Path) -> tuple[Path | bytes | Image.Image, int | None]:
    """Find what is at an address, and which frame of it is meant.

    Returns the picture's file, the bytes of one inside another file, or a data set's image. Raises PictureError where
    there is none.
    """
    text = str(address)
    file, mark, inside = text.rpartition("#")
    try:
        if text.startswith(samples.PREFIX):
            return samples.sample(text.removeprefix(samples.PREFIX)), None
        if mark and text.startswith(torchvision_sets.PREFIX):
            return torchvision_sets.image(file, inside), None
        if mark and Path(file).is_file() and not Path(text).exists():
            return _inside(Path(file), inside), None
        return _file_and_frame(text)
    except DataError as error:
        raise PictureError(str(error)) from None
    except (OSError, ValueError) as error:
        raise PictureError(f"there is no picture {text[:80]!r}: {error.__class__.__name__}") from None


def _file_and_frame(text: str) -> tuple[Path, int | None]:
    path, frame = Path(text), None
    match = re.fullmatch(r"(.+)\[(\d+)\]", text)
    if match and not path.exists():
        path, frame = Path(match[1]), int(match[2])
    if path.is_dir():
        raise PictureError(f"{path} is a folder: name a picture in it")
    if not path.exists():
        raise PictureError(f"there is no picture {path}")
    if not path.is_file():
        raise PictureError(f"{path} is a pipe, a socket or a device: name a file")
    if path.stat().st_size == 0:
        raise PictureError(f"{path} is empty (0 bytes)")
    return path, frame


def _inside(file: Path, key: str) -> bytes:
    if shards.is_shard(file):
        return shards.read_member(file, key)
    if parquet.is_table(file):
        return parquet.read_row(file, key)
    raise PictureError(f"cannot look for {key} in {file}: pictures inside files are those of .tar, .parquet and .arrow")
