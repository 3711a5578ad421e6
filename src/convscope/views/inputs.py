"""The pictures that a view is given, as its sheet shows them."""

from __future__ import annotations

from pathlib import PurePath

from ..data.images import InputPicture
from ..drawing.layout import Tile
from ..drawing.tiles import fitted


def stem(picture: InputPicture) -> str:
    """Return a picture's name without its folder and ending."""
    return PurePath(picture.name).stem


def input_tile(picture: InputPicture, side: int, caption: str = "") -> Tile:
    """Show a picture as the network reads it."""
    return Tile(fitted(picture.image(), side), caption)
