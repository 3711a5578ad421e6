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
from .limits import MOST_FRAMES, check_frames, check_pixels, most_pixels, too_large

FORMATS = tuple(
    str(kind.format)
    for kind in (PngImageFile, JpegImageFile, WebPImageFile, GifImageFile, TiffImageFile, BmpImageFile, PpmImageFile)
)
"""What is read. MPO, of which phones make photographs, is a JPEG to Pillow until it is open."""

_SCAN, _PADDING = b"\xff\xda\0", b"\xff" * (1 << 16)
_MOST_SCANS = 150

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
    _check_jpeg(file, name)
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
        check_pixels(*image.size, name)
    except PictureError:
        image.close()
        raise
    return image


def _check_jpeg(file: Source, name: str) -> None:
    """Refuse a JPEG that takes far longer than its size lets expect. Raises PictureError.

    Each scan goes through all of the picture, each piece of Exif copies those before it, and Pillow reads padding byte
    by byte. Inside a scan no byte 0xFF stands before another than 0 or a restart, so that counting is enough.
    """
    with _reading(file) as stream:
        if stream.read(3) != b"\xff\xd8\xff":
            return
        content = stream.read()
    scans, exif = content.count(_SCAN), content.count(b"Exif\0\0")
    padded = content.find(_PADDING, 0, content.find(_SCAN)) >= 0
    if max(scans, exif) > _MOST_SCANS or padded:
        raise PictureError(
            f"{name} is no usual JPEG: it has {scans} scans, {exif} pieces of Exif or much padding between them; save "
            "it again with another program"
        )


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
