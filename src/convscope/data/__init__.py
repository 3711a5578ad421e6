"""Data: pictures from wherever they are, one by one or many, and data sets to learn from."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loading import Loaded as Loaded
    from .loading import read_ahead as read_ahead
    from .opening import open_picture as open_picture
    from .pictures import Picture as Picture
    from .pictures import Pictures as Pictures
    from .pictures import read_pictures as read_pictures

# Loaded on first use: the command line looks for pictures without numpy.
_HOMES = {
    "Loaded": "loading",
    "Picture": "pictures",
    "Pictures": "pictures",
    "open_picture": "opening",
    "read_ahead": "loading",
    "read_pictures": "pictures",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'convscope.data' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
