"""What can be asked for, where nothing imports torch: the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ..errors import OptionError


def _option(text: str) -> typer.models.OptionInfo:
    return typer.Option(help=text)


Tile = Annotated[int, _option("longest side, in pixels, that is painted at once; larger pictures are painted in tiles")]
Strength = Annotated[float, _option("share of the painted picture in the result, the rest is the original: 0 to 1")]
KeepColour = Annotated[
    bool, typer.Option("--keep-colour", help="take brightness from the painting, colour from the original")
]


@dataclass(frozen=True)
class Settings:
    """What decides a trained style, pictures and network apart. Raises OptionError for a number that makes no sense."""

    steps: Annotated[int, _option("steps, 40000 in the paper; asked for more, a finished training goes on")] = 4000
    size: Annotated[int, _option("side of the crops to learn from, in pixels")] = 256
    style_size: Annotated[
        int | None, _option("shorter side that the style picture is scaled to: larger is coarser. --size by default")
    ] = None
    width: Annotated[int, _option("channels at full size; the time goes with its square")] = 32
    blocks: Annotated[int, _option("residual blocks")] = 5
    content_layer: Annotated[
        str | None,
        _option(
            "layer that must see the same as in the original; by default the first rectified one of the last size with "
            "a place for every 4 x 4 pixels or less (VGG: relu3_1)"
        ),
    ] = None
    style_layers: Annotated[
        str | None,
        _option(
            "layers that must see the style, with commas between; by default the first rectified one of every size "
            "down to a place for 8 x 8 pixels (VGG: relu1_1 to relu4_1)"
        ),
    ] = None
    content_weight: Annotated[float, _option("weight of the content")] = 1.0
    style_weight: Annotated[float, _option("weight of the style: more is more of it")] = 5.0
    tv_weight: Annotated[float, _option("weight of the total variation: more is smoother")] = 10.0
    colour_weight: Annotated[
        float, _option("weight of the style's colours, for networks that see brightness badly; 0 is the paper's")
    ] = 1.0
    batch: Annotated[int, _option("pictures per step")] = 4
    rate: Annotated[float, _option("learning rate of Adam")] = 1e-3
    amp: Annotated[bool, typer.Option("--amp", help="compute in 16 bits (bf16) where that is enough")] = False
    seed: Annotated[int, _option("of initial weights, order and crops")] = 0

    def __post_init__(self) -> None:
        for name, least in {"steps": 1, "size": 32, "width": 1, "blocks": 1, "batch": 1}.items():
            if getattr(self, name) < least:
                raise OptionError(f"{name} is at least {least}, not {getattr(self, name)}")
        if self.style_size is not None and self.style_size < 32:
            raise OptionError(f"style_size is at least 32 pixels, not {self.style_size}")
        if self.size % 4:
            raise OptionError(f"size is a multiple of 4, not {self.size}: take {self.size // 4 * 4 + 4}")
        if not 0 < self.rate < float("inf"):
            raise OptionError(f"rate is a positive number, not {self.rate}")
        for name in ("content_weight", "style_weight", "tv_weight", "colour_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise OptionError(f"{name} is a number from 0 on, not {getattr(self, name)}")
        if not -(2**63) <= self.seed < 2**63:
            raise OptionError(f"seed is a whole number of 64 bits, not {self.seed}")
