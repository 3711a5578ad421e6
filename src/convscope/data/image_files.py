"""Image files: the one place where Pillow opens a file, and how many frames there are in it.

Left alone, Pillow tries some forty formats whatever a file is called, and starts Ghostscript on a PostScript file.
"""

from __future__ import annotations

import ctypes
import io
import logging
import re
import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..errors import PictureError
from ..quiet import quiet
from .limits import MOST_FRAMES, check_file, check_frames, check_pixels, most_pixels, shown_bytes, too_large

FORMATS = tuple(
    str(kind.format)
    for kind in (PngImageFile, JpegImageFile, WebPImageFile, GifImageFile, TiffImageFile, BmpImageFile, PpmImageFile)
)
"""What is read. MPO, of which phones make photographs, is a JPEG to Pillow until it is open."""

_SCAN, _PADDING = b"\xff\xda\0", b"\xff" * (1 << 16)
_EXIF = b"Exif\0\0"
_MOST_SCANS = 150
_PART = 1 << 20

_CORE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Bytes of a pixel in Pillow's memory, where they are not four."""

_FILM = {"GIF": 17, "PNG": 16, "WEBP": 13}
"""Bytes of a pixel that a decoder of frames keeps beside the picture: the frame before, what it is laid on, copies."""

_IN_PYTHON = {"ppm": 6, "ppm_plain": 6, "bmp_rle": 2}
"""Decoders of Pillow's that are written in Python and hold all bytes twice."""

_FOREIGN = ("EPS",)
"""Formats of Pillow's for which it starts another program."""

_READERS = r"PIL\.|tifffile|numpy\."

_closed: ContextVar[bool] = ContextVar("closed", default=False)

Source = Path | BinaryIO


def _silence_readers() -> None:
    """Let what Pillow, tifffile and libtiff log of a damaged file go to a program's own handlers, not to the terminal.

    libtiff writes to the process's standard error, where no redirection would be safe among threads. Where Pillow is
    linked to it in a way that hides its functions, as on Windows, it goes on writing.
    """
    for name in ("PIL", "tifffile"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    try:
        libraries = ctypes.CDLL(str(Image.core.__file__))
        for kind in ("Error", "Warning"):
            libraries[f"TIFFSet{kind}Handler"](None)
    except (AttributeError, OSError, TypeError):
        return


_silence_readers()


def quiet_readers() -> AbstractContextManager[None]:
    """Ignore what Pillow and tifffile warn of inside the block; an error says what is wrong with a file."""
    return quiet(_READERS)


def open_image(file: Source, name: str) -> ImageFile:
    """Read a picture's header; its size is within the limit.

    Raises PictureError for another format than those of FORMATS, and for too many pixels.
    """
    limit = most_pixels()
    scans = _check_jpeg(file, name)
    _check_webp(file, name)
    with quiet_readers():
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            kinds = "PNG, JPEG, WebP, GIF, TIFF, BMP or PPM"
            raise UnreadableError(f"{name} is not a picture that can be read: {kinds}, or an array in .npy") from None
        except Image.DecompressionBombError as error:
            count = re.search(r"\d+", str(error))
            raise PictureError(too_large(f"{name} has {count[0] if count else 'too many'} pixels", limit)) from None
    try:
        check_pixels(*image.size, name, each=core_bytes(image) + _coefficients(image) if scans > 1 else 0)
    except PictureError:
        image.close()
        raise
    return image


def _check_jpeg(file: Source, name: str) -> int:
    """Return how many scans a JPEG has, 0 for another file. Raises PictureError where it takes far longer than usual.

    Each scan goes through all of the picture, each piece of Exif copies those before it, and Pillow reads padding byte
    by byte.
    """
    with _reading(file) as stream:
        if stream.read(3) != b"\xff\xd8\xff":
            return 0
        scans, exif, padded = _jpeg_parts(stream)
    if max(scans, exif) > _MOST_SCANS or padded:
        raise PictureError(
            f"{name} is no usual JPEG: it has {scans} scans, {exif} pieces of Exif or much padding between them; save "
            "it again with another program"
        )
    return scans


def _check_webp(file: Source, name: str) -> None:
    """Refuse a WebP file too large to be held three times, as Pillow does. Raises PictureError."""
    with _reading(file) as stream:
        head, size = stream.read(12), stream.seek(0, io.SEEK_END)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        check_file(size, 3, name)


def _jpeg_parts(stream: BinaryIO) -> tuple[int, int, bool]:
    """Count a JPEG's scans and pieces of Exif, a part of the file at a time, and see whether it is padded before them.

    Inside a scan no byte 0xFF stands before another than 0 or a restart, so that counting is enough.
    """
    scans, exif, padded, tail = 0, 0, False, b""
    while part := stream.read(_PART):
        content = tail + part
        if not scans:
            padded |= content.find(_PADDING, 0, content.find(_SCAN)) >= 0
        scans += content.count(_SCAN) - tail.count(_SCAN)
        exif += content.count(_EXIF) - tail.count(_EXIF)
        tail = content[1 - len(_PADDING) :]
    return scans, exif, padded


def check_memory(image: ImageFile, count: int, name: str) -> None:
    """Refuse an open file of which decoding takes too much memory; `count` is how many frames it has.

    Raises PictureError.
    """
    check_pixels(*image.size, name, each=_bytes_each(image, count))


def _bytes_each(image: ImageFile, count: int) -> float:
    """Return how many bytes a pixel takes while a file is decoded and becomes 8-bit grey, RGB, or a raster."""
    core = core_bytes(image)
    codec = image.tile[0][0] if image.tile else ""
    decoding: float = _IN_PYTHON.get(codec, 0)
    if image.format == "WEBP" or (count > 1 and image.format in _FILM):
        decoding = _FILM[image.format]
    elif codec == "libtiff":
        tags: Any = getattr(image, "tag_v2", {})
        rows = tags.get(278) or image.height
        decoding = core * min(1, rows / image.height)
    plain = image.mode in ("L", "RGB") and "transparency" not in image.info
    return core + max(decoding, 0 if plain else shown_bytes(1 if image.mode == "1" else 3))


def _coefficients(image: Image.Image) -> float:
    """Return the bytes per pixel that a JPEG's coefficients take, all of which are held where it has several scans."""
    layers = getattr(image, "layer", None) or [(0, 1, 1)] * len(image.getbands())
    most = max(1, *(h for _, h, *_ in layers)) * max(1, *(v for _, _, v, *_ in layers))
    return 2 * sum(h * v for _, h, v, *_ in layers) / most


def core_bytes(image: Image.Image) -> int:
    """Return how many bytes a pixel takes in Pillow's memory."""
    return _CORE.get(image.mode, 4)


class UnreadableError(PictureError):
    """A file that is no picture of a format that is read."""


def check_opened(image: Image.Image, name: str) -> None:
    """Refuse an image that a program opened and did not decode, where decoding it would start another program."""
    if image.format in _FOREIGN and getattr(image, "tile", None):
        raise PictureError(
            f"{name} is {image.format}, which another program must draw: load() it first if you trust it"
        )


@contextmanager
def foreign_closed() -> Generator[None]:
    """Let no data set open a file for which Pillow starts another program, inside the block and in this thread."""
    _close_foreign()
    token = _closed.set(True)
    try:
        with quiet_readers():
            yield
    finally:
        _closed.reset(token)


def _close_foreign() -> None:
    """Register Pillow's foreign formats again, once, as formats that no file has inside `foreign_closed`."""
    Image.init()
    for kind in _FOREIGN:
        factory, accept = Image.OPEN[kind]
        if not isinstance(accept, _Closable):
            Image.register_open(kind, factory, _Closable(accept))


class _Closable:
    """Whether a file is of a format, asked by Pillow with its first bytes."""

    def __init__(self, accept: Callable[[bytes], bool | str] | None) -> None:
        self.accept = accept

    def __call__(self, head: bytes) -> bool | str:
        return not _closed.get() and (self.accept is None or self.accept(head))


# Frames -------------------------------------------------------------------------------------------------------------


def count_frames(image: Image.Image, file: Source, name: str) -> int:
    """Return how many frames an open file has. Raises PictureError for more than MOST_FRAMES."""
    if image.format == "MPO":  # the second picture inside a phone's photograph is a preview
        return 1
    if image.format == "GIF":
        with _reading(file) as stream:
            check_frames(_count(_gif_frames(stream)), name)
    elif image.format == "TIFF":
        check_directories(file, name)
    elif not hasattr(image, "n_frames"):
        return 1
    with quiet_readers():
        count: int = getattr(image, "n_frames", 1)
    check_frames(count, name)
    return count


def check_directories(file: Source, name: str) -> None:
    """Refuse a TIFF of more than MOST_FRAMES directories, or whose directories go in a circle. Raises PictureError."""
    with _reading(file) as stream:
        seen = set[int]()
        for offset in _tiff_directories(stream):
            if offset in seen:
                raise PictureError(f"{name} is damaged: its directories go in a circle")
            seen.add(offset)
            check_frames(len(seen), name)


@contextmanager
def _reading(file: Source) -> Generator[BinaryIO]:
    """Read a file from its beginning, without moving where someone else reads it."""
    if isinstance(file, Path):
        with file.open("rb") as stream:
            yield stream
        return
    place = file.tell()
    file.seek(0)
    try:
        yield file
    finally:
        file.seek(place)


def _count(frames: Iterator[Any]) -> int:
    """Count frames, as far as it matters."""
    count = 0
    for _ in frames:
        count += 1
        if count > MOST_FRAMES:
            break
    return count


def _gif_frames(stream: BinaryIO) -> Iterator[int]:
    """Yield where each frame of a GIF begins, until its end or its first damage."""
    head = stream.read(13)
    _skip_colours(stream, head[10:11])
    while (mark := stream.read(1)) in (b"\x2c", b"\x21"):
        if mark == b"\x2c":
            yield stream.tell()
            _skip_colours(stream, stream.read(9)[8:9])
        stream.seek(1, io.SEEK_CUR)  # the least size of a code, or what kind of extension it is
        while size := stream.read(1)[:1]:
            if size == b"\0":
                break
            stream.seek(size[0], io.SEEK_CUR)


def _skip_colours(stream: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        stream.seek(3 << ((flags[0] & 7) + 1), io.SEEK_CUR)


def _tiff_directories(stream: BinaryIO) -> Iterator[int]:
    """Yield where each directory of a TIFF begins, until the last one or the first damage."""
    head = stream.read(16)
    order, big = "<" if head[:2] == b"II" else ">", b"\x2b" in head[2:4]
    count, entry, offset = ("Q", 20, "Q") if big else ("H", 12, "I")
    try:
        (at,) = struct.unpack_from(order + offset, head, 8 if big else 4)
        while at:
            yield at
            stream.seek(at)
            (entries,) = struct.unpack(order + count, stream.read(struct.calcsize(count)))
            stream.seek(entries * entry, io.SEEK_CUR)
            (at,) = struct.unpack(order + offset, stream.read(struct.calcsize(offset)))
    except (struct.error, OSError, OverflowError, ValueError):
        return
