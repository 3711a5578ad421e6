"""Limits: how large a picture may be, looked at before anything is decoded or allocated."""

from __future__ import annotations

import math
import os

from PIL import Image

from ..errors import PictureError

MOST_PIXELS = "CONVSCOPE_MAX_PIXELS"
"""The environment variable that says how many pixels a picture may have."""

MOST_FRAMES = 10_000
"""How many frames a file may have: all that stand before one are gone through to reach it."""

_USUAL_BYTES = 5
"""So many bytes a pixel may take without counting as more than one: 0.9 GiB for all that there may be by default."""


def most_pixels() -> float:
    """Return how many pixels a picture may have: what the environment says, or else what Pillow takes.

    Raises PictureError where the environment says no number.
    """
    text = os.environ.get(MOST_PIXELS, "").strip()
    if not text:
        return 2 * (Image.MAX_IMAGE_PIXELS or math.inf)  # Pillow warns from one on, and refuses from two on
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not limit >= 1:
        raise PictureError(f"{MOST_PIXELS} is a number of pixels, such as 500000000 or 5e8, not {text[:40]!r}")
    if Image.MAX_IMAGE_PIXELS is not None and limit > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = None if limit == math.inf else math.ceil(limit / 2)
    return limit


def check_pixels(width: int, height: int, name: str, *, each: float = 0) -> None:
    """Refuse a picture of too many pixels. Raises PictureError.

    `each` is how many bytes a pixel takes at most while it is read; one that takes more than usual counts as several.
    """
    counted = max(1, each / _USUAL_BYTES)
    if width * height * counted > (limit := most_pixels()):
        of = f" that take {each:.0f} bytes each to read, as {counted:.1f} usual ones do" if counted > 1 else ""
        raise PictureError(too_large(f"{name} has {width} x {height} pixels{of}", limit))


def check_file(size: int, copies: int, name: str) -> None:
    """Refuse a file of so many bytes that is held in memory so many times. Raises PictureError."""
    pixels = size * copies / _USUAL_BYTES
    if pixels > (limit := most_pixels()):
        as_many = (
            f"{name} has {size / 1e6:,.0f} MB, which take as much memory to read as {pixels / 1e6:,.4g} million pixels"
        )
        raise PictureError(too_large(as_many, limit))


def most_bytes() -> float:
    """Return how many bytes a file may have that is held in memory once."""
    return most_pixels() * _USUAL_BYTES


def shown_bytes(bands: int) -> int:
    """Return how many bytes a pixel of an 8-bit image takes, grey or in colour."""
    return 1 if bands == 1 else 4


def too_large(what: str, limit: float) -> str:
    """Say that a picture has too many pixels, and how the limit is raised."""
    return (
        f"{what}, above the limit of {limit / 1e6:,.4g} million: scale it down, or, if you trust it and have the "
        f"memory, set the environment variable {MOST_PIXELS} to a larger number"
    )


def check_frames(count: int, name: str) -> None:
    """Refuse a file of too many frames. Raises PictureError."""
    if count > MOST_FRAMES:
        raise PictureError(f"{name} has more than {MOST_FRAMES:,} frames: split it into files of fewer")
