"""The pictures of a style transfer: whole, at their own aspect, and the style pictures with their shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..context import say
from ..data.images import InputPicture
from ..data.limits import check_pixels
from ..errors import OptionError
from ..net import Net
from .likeness import scale_to


@dataclass(frozen=True)
class StylePictures:
    """The style pictures, their shares, which add up to 1, and their size relative to the result's."""

    pictures: list[InputPicture]
    shares: list[float]
    scale: float

    @classmethod
    def of(cls, net: Net, sources: Sequence[Any], mix: Sequence[float] | None, scale: float) -> StylePictures:
        """Open the pictures and normalise their weights. Raises OptionError for weights that do not fit."""
        if not any(str(source) for source in sources):
            raise OptionError("there is no style picture: use style=['gravel.png'] or --style gravel.png")
        weights = list(mix) if mix else [1.0] * len(sources)
        if len(weights) != len(sources) or sum(weights) == 0:
            raise OptionError(
                f"style_mix needs a weight for each of the {len(sources)} style pictures, not all 0: "
                f"not {', '.join(f'{weight:g}' for weight in weights)}"
            )
        total = sum(weights)
        return cls([net.prepare_whole(source) for source in sources], [weight / total for weight in weights], scale)


def longer_side(content: InputPicture, size: int | None, most: int) -> int:
    """Return the longer side of the result in pixels; a remark says where it is not the picture's own."""
    if size is not None:
        return size
    own = max(content.original.size)
    if own > most:
        say(f"reduced to {most} px from {own}: use size for more")
    return min(own, most)


def scaled(net: Net, picture: InputPicture, side: int) -> Tensor:
    """Return a picture's pixels (1, c, h, w), its longer side `side`, on the network's device."""
    pixels = net.pixels(picture)
    ratio = side / max(pixels.shape[-2:])
    height, width = (max(1, round(length * ratio)) for length in pixels.shape[-2:])
    check_pixels(width, height, "a picture scaled to that size")
    return scale_to(pixels, (height, width))
