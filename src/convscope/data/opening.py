"""Opening one picture: by its address, or from what a program holds.

An address says where a picture is, and opens it again later: a path ("cat.jpg", or "film.gif[0]" for one frame of an
animation or video), a member of a tar file ("shard-0.tar#000123.jpg"), a row of a Parquet or Arrow file
("data.parquet#17"), an item of one of torchvision's data sets ("torchvision:MNIST:FOLDER#17"), or a sample picture
("sample:chelsea"). Files may lie in a storage: "s3://bucket/cat.jpg", "s3://bucket/shard-0.tar#000123.jpg".
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .. import addresses
from ..errors import DataError, PictureError, StorageError
from . import films, folders, image_files, parquet, samples, shards, storage, torchvision_sets
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
    return in_8_bits(content, name or (addresses.public(source) if isinstance(source, (str, Path)) else "the picture"))


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
    content, frame, called = locate(source)
    if isinstance(content, Image.Image):
        return decode_image(content, called, bands=bands)
    if isinstance(content, bytes):
        return decode_file(io.BytesIO(content), called, frame, bands=bands)
    with storage.called(content, called):
        if films.is_video(content):
            return decode_image(films.video_frame(content, frame), called, bands=bands)
        return decode_file(content, called, frame, bands=bands)


def mode_and_size(address: str | Path) -> tuple[str, tuple[int, int]]:
    """Return the mode of a picture, such as "L" or "RGB", and its (width, height), from its header alone."""
    content, _, called = locate(address)
    if isinstance(content, Image.Image):
        return content.mode, content.size
    try:
        file = io.BytesIO(content) if isinstance(content, bytes) else content
        with image_files.open_image(file, called) as image:
            return image.mode, image.size
    except image_files.UnreadableError:  # more bands than Pillow knows, or a .npy file
        raster = open_content(address)
        return "L" if isinstance(raster, Raster) and raster.values.shape[2] == 1 else "RGB", raster.size


class Located(NamedTuple):
    """What is at an address: a file, the bytes of one, or a data set's image; which frame of it; what it is called."""

    content: Path | bytes | Image.Image
    frame: int | None
    called: str


def locate(address: str | Path) -> Located:
    """Find what is at an address, and which frame of it is meant.

    Raises PictureError where there is none, and StorageError for a storage that does not answer.
    """
    text = addresses.public(address)
    if addresses.is_remote(text):
        return _remote(text)
    content, frame = _here(text)
    return Located(content, frame, str(content) if isinstance(content, Path) else text)


def _here(text: str) -> tuple[Path | bytes | Image.Image, int | None]:
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
        if path.is_symlink():
            raise PictureError(f"{path} is a link to {path.readlink()}, which is not there")
        raise PictureError(f"there is no picture {path}")
    if not path.is_file():
        raise PictureError(f"{path} is a pipe, a socket or a device: name a file")
    if path.stat().st_size == 0:
        raise PictureError(f"{path} is empty (0 bytes)")
    return path, frame


def _remote(text: str) -> Located:
    """Fetch what is in a storage; whether something is inside a file or a frame is seen by the endings alone."""
    marks = [match.start() for match in re.finditer("#", text)]
    place = storage.Remote(text)
    try:
        for mark in reversed(marks):
            file = storage.Remote(text[:mark])
            if (shards.is_shard(file) or parquet.is_table(file)) and file.is_file():
                return Located(_inside(file, text[mark + 1 :]), None, text)
        match = re.fullmatch(r"(.+)\[(\d+)\]", text)
        film = storage.Remote(match[1]) if match else None
        if match and film and (films.is_video(film) or film.suffix.lower() in folders.SUFFIXES):
            return Located(storage.local(film), int(match[2]), str(film))
        if films.is_video(place):
            return Located(storage.local(place), None, text)
        content = place.read_bytes(lambda head: _check_beginning(head, text))
    except StorageError:
        raise
    except DataError as error:
        raise PictureError(str(error)) from None
    except PictureError:
        if not place.suffix and place.is_dir():
            raise PictureError(f"{text} is a folder: name a picture in it") from None
        raise
    if not content:
        raise PictureError(f"{text} is empty (0 bytes)")
    if re.match(rb"\s*<(!doctype html|html)", content[:200], re.IGNORECASE):
        hint = "perhaps one to log in" if place.suffix else f"a folder's address ends with a slash, {text}/"
        raise PictureError(f"{text} is a page of the web, no picture: {hint}")
    return Located(content, None, text)


def _check_beginning(head: bytes, name: str) -> None:
    """Refuse a large file of too many pixels before the rest of it is fetched. Raises PictureError."""
    try:
        image_files.open_image(io.BytesIO(head), name).close()
    except image_files.UnreadableError:
        return  # what says so may be in the rest
    except PictureError:
        raise
    except Exception:
        return


def _inside(file: Path | storage.Remote, key: str) -> bytes:
    if shards.is_shard(file):
        return shards.read_member(file, key)
    if parquet.is_table(file):
        return parquet.read_row(file, key)
    raise PictureError(f"cannot look for {key} in {file}: pictures inside files are those of .tar, .parquet and .arrow")
