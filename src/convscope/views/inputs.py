"""What views are given: the pictures, as their sheets show them, and the class that they are asked about."""

from __future__ import annotations

from pathlib import PurePath

from torch import Tensor

from ..data.images import InputPicture
from ..drawing.layout import Tile
from ..drawing.tiles import fitted
from ..errors import NetworkError, ObjectiveError
from ..net import Net
from ..objectives import as_objective
from ..predictions import ObjectiveLike, first_choices


def stem(picture: InputPicture) -> str:
    """Return a picture's name without its folder and ending."""
    return PurePath(picture.name).stem


def input_tile(picture: InputPicture, side: int, caption: str = "") -> Tile:
    """Show a picture as the network reads it."""
    return Tile(fitted(picture.image(), side), caption)


def class_asked(net: Net, pixels: Tensor, of: ObjectiveLike) -> int:
    """Return the class that is asked about, the top-1 class by default.

    Raises NetworkError where outputs are no classes, ObjectiveError for an objective that names none.
    """
    if len(net.output.shape) != 1:
        raise NetworkError(
            f"{net.name} has outputs of shape {net.output.shape}, not classes: make one number of each, as "
            "Net(..., output=lambda output: output.mean((2, 3))), or explain a part by occlusion with of=..."
        )
    if of is None:
        return first_choices(net, pixels)[0]
    index = as_objective(net, of).class_index
    if index is None:
        raise ObjectiveError(
            f"of names one class here, not {of!r}; the channel of an occlusion study is given as unit=layer:channel"
        )
    return index
