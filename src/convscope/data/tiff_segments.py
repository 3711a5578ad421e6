"""The strips and tiles of a TIFF, looked at before tifffile decodes them: how many they are, and what they unpack to.

Without imagecodecs, tifffile unpacks whatever a strip holds, however large the strip was declared.
"""

from __future__ import annotations

import lzma
import math
import zlib
from importlib.util import find_spec
from typing import Any

from ..errors import PictureError

_MOST = 200_000
"""Strips or tiles: each takes some microseconds, whatever is in it."""

_HARMLESS = {"zlib": 1 << 17, "lzma": 1 << 13, "": 1 << 18}
"""Bytes of a strip that cannot unpack to much more than 100 million, by what unpacks them."""

_UNPACKED_BY = {8: "zlib", 32946: "zlib", 50013: "zlib", 34925: "lzma"}
_UNCOMPRESSED = 1

_COPIES = 2
"""A strip is unpacked, and what was stored as differences is summed up, before it is laid in its place."""


def check_segments(page: Any, name: str) -> None:
    """Refuse a page of too many strips or tiles, or of one that unpacks to more than it may. Raises PictureError."""
    if len(page.dataoffsets) > _MOST:
        count = len(page.dataoffsets)
        raise PictureError(
            f"{name} is cut into {count:,} strips or tiles, more than {_MOST:,}: save it with larger ones"
        )
    if page.compression == _UNCOMPRESSED or find_spec("imagecodecs") is not None:
        return
    by = _UNPACKED_BY.get(int(page.compression), "")
    most = math.prod(page.chunks) * page.dtype.itemsize
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=False):
        if size > _HARMLESS[by]:
            file = page.parent.filehandle
            file.seek(offset)
            _check_unpacked(file.read(size), by, most, name)


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
