"""Which picture it is: its address, and the hash of its content."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import addresses
from .opening import Located, locate
from .strips import strips


def where_of(source: Any) -> str:
    """Name a picture's source: its address as it was written, or what kind of object it is."""
    return addresses.public(source) if isinstance(source, (str, Path)) else type(source).__name__.lower()


def content_hash(source: Any) -> str:
    """Return the SHA-256 of a picture's content: a file's bytes, or an image's or array's values, shape and type.

    Of a frame of an animation it is that of the file and the frame's number. Whoever has located an address already
    gives what was found. Raises PictureError for an address at which nothing is.
    """
    whole = hashlib.sha256()
    if isinstance(source, (str, Path)):
        source = locate(source)
    if isinstance(source, Located):
        source, frame, _ = source
        whole.update(b"" if frame is None else f"frame {frame} ".encode())
    if isinstance(source, Path):
        with source.open("rb") as file:
            return hashlib.file_digest(file, lambda: whole).hexdigest()
    if isinstance(source, (bytes, bytearray)):
        whole.update(source)
    elif isinstance(source, Image.Image):
        whole.update(f"{source.mode} {source.size} ".encode())
        for rows in strips(source.height, source.width):
            whole.update(source.crop((0, rows.start, source.width, rows.stop)).tobytes())
    else:
        # A tensor on any device, or anything that numpy reads.
        array = np.asarray(source.detach().cpu() if hasattr(source, "detach") else source)
        whole.update(f"{array.dtype} {array.shape} ".encode())
        whole.update(np.ascontiguousarray(array).data)
    return whole.hexdigest()
