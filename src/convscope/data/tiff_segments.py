"""The strips and tiles of a TIFF, looked at before tifffile decodes them: how many they are, and what they unpack to.

Without imagecodecs, tifffile unpacks whatever a strip holds, however large the strip was declared. With it, that holds
for strips that are pictures themselves.
"""

from __future__ import annotations

import lzma
import math
import re
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from ..errors import PictureError

_MOST = 200_000
"""Strips or tiles: each takes some microseconds, whatever is in it."""

_HARMLESS = {"zlib": 1 << 17, "lzma": 1 << 13, "": 1 << 18}
"""Bytes of a strip that cannot unpack to much more than 100 million, by what unpacks them."""

_UNPACKED_BY = {8: "zlib", 32946: "zlib", 50013: "zlib", 34925: "lzma"}
_UNCOMPRESSED = 1

_BOUNDED = frozenset((2, 3, 4, 5, 8, 32946, 50013, 32773, 34925, 34926, 50000))
"""CCITT, LZW, Deflate, PackBits, LZMA and Zstandard, which imagecodecs unpacks to as much as there may be."""

_JPEG = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]\0.[\2-\x10](..)(..)", re.DOTALL)
_JPEG_2000 = re.compile(rb"\xff\x4f\xff\x51.{4}(.{4})(.{4})", re.DOTALL)
_PNG = re.compile(rb"IHDR(.{4})(.{4})", re.DOTALL)
_HEADERS = {
    **dict.fromkeys((6, 7, 33007, 34892), _JPEG),
    **dict.fromkeys((33003, 33004, 33005, 34712), _JPEG_2000),
    34933: _PNG,
}
"""Where strips that are pictures say how large they are."""

_COPIES = 2
"""A strip is unpacked, and what was stored as differences is summed up, before it is laid in its place."""


def check_segments(page: Any, name: str) -> None:
    """Refuse a page of too many strips or tiles, or of one that unpacks to more than it may. Raises PictureError."""
    if len(page.dataoffsets) > _MOST:
        count = len(page.dataoffsets)
        raise PictureError(
            f"{name} is cut into {count:,} strips or tiles, more than {_MOST:,}: save it with larger ones"
        )
    if page.compression == _UNCOMPRESSED:
        return
    if find_spec("imagecodecs") is not None:
        _check_pictures(page, name)
        return
    by = _UNPACKED_BY.get(int(page.compression), "")
    most = math.prod(page.chunks) * page.dtype.itemsize
    for content in _segments(page, _HARMLESS[by]):
        _check_unpacked(content, by, most, name)


def _segments(page: Any, least: int) -> Iterator[bytes]:
    """Yield the content of each strip or tile of more than so many bytes."""
    file = page.parent.filehandle
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=False):
        if size > least:
            file.seek(offset)
            yield file.read(size)


def _check_pictures(page: Any, name: str) -> None:
    """Refuse strips that are pictures larger than they may be, or of a kind that does not say so in a plain way."""
    code = int(page.compression)
    if code in _BOUNDED:
        return
    if code not in _HEADERS:
        raise PictureError(f"{name} is compressed in a way that is not read ({code}): save it with Deflate or LZW")
    most = math.prod(page.chunks)
    for content in _segments(page, 0):
        for said in _HEADERS[code].finditer(content):  # the largest counts, wherever it stands
            height, width = (int.from_bytes(side) for side in said.groups())
            if height * width > most:
                raise PictureError(
                    f"{name} is damaged: a strip of it says that it is a picture of {height:,} x {width:,}, more than "
                    f"the {most:,} values that it may hold"
                )


def unpacking_bytes(page: Any) -> float:
    """Return how many bytes per pixel of a page it takes to unpack a strip or tile, beside what the page holds."""
    if page.compression == _UNCOMPRESSED:
        return 0
    pixels = max(1, page.imagewidth * page.imagelength)
    return _COPIES * math.prod(page.chunks) * page.dtype.itemsize / pixels


def _check_unpacked(content: bytes, by: str, most: int, name: str) -> None:
    if not by:
        raise PictureError(f"{name} is compressed in a way that needs: pip install imagecodecs")
    unpacker: Any = zlib.decompressobj() if by == "zlib" else lzma.LZMADecompressor()
    if len(unpacker.decompress(content, most + 1)) > most:
        raise PictureError(f"{name} is damaged: a strip of it unpacks to more than the {most:,} bytes that it may hold")
