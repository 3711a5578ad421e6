"""The pictures that a view is given, as its sheet shows them."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from torch import Tensor

from ..data.images import InputPicture, to_image
from ..drawing.layout import Tile
from ..drawing.tiles import fitted
from ..errors import PictureError
from ..net import Net


def same_size(net: Net, pictures: Any) -> list[InputPicture]:
    """Prepare one picture or several. Raises PictureError when the network reads them at different sizes."""
    many = isinstance(pictures, (list, tuple)) or (isinstance(pictures, Tensor) and pictures.ndim == 4)
    inputs = [net.prepare(picture) for picture in (pictures if many else [pictures])]
    sizes = sorted({picture.pixels.shape[1:] for picture in inputs})
    if len(sizes) != 1:
        raise PictureError(f"one sheet shows pictures of one size, not {' and '.join(map(str, sizes)) or 'none'}")
    return inputs


def stem(picture: InputPicture) -> str:
    """Return a picture's name without its folder and ending."""
    return PurePath(picture.name).stem


def input_tile(picture: InputPicture, side: int, caption: str = "") -> Tile:
    """Show a picture as the network reads it."""
    return Tile(fitted(to_image(picture.pixels), side), caption)
