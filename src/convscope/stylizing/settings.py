"""Options of stylizing, in a module without torch: the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ..errors import OptionError
from ..options import separated


def _option(text: str) -> typer.models.OptionInfo:
    return typer.Option(help=text)


Tile = Annotated[int, _option("longest side painted at once, in pixels; larger pictures are tiled")]
Strength = Annotated[float, _option("weight of the painted picture in the result, 0 to 1; the rest is the original")]
KeepColour = Annotated[
    bool, typer.Option("--keep-colour", help="change the luminance alone and keep the picture's colours")
]


@dataclass(frozen=True)
class Settings:
    """Settings of a training of a style. Raises OptionError for values out of range."""

    steps: Annotated[int, _option("number of steps, 40000 in the paper; a finished training resumes for more")] = 4000
    size: Annotated[int, _option("side of the training crops, in pixels")] = 256
    style_size: Annotated[
        int | None,
        _option("shorter side that the style picture is scaled to, in pixels: larger is coarser; default: --size"),
    ] = None
    width: Annotated[int, _option("channels at full resolution; time grows with the square")] = 32
    blocks: Annotated[int, _option("residual blocks")] = 5
    content_layer: Annotated[
        str | None,
        _option(
            "layer of the content cost; default: the first rectified one of the last size with a stride of at most 4 "
            "pixels (VGG: relu3_1)"
        ),
    ] = None
    style_layers: Annotated[
        list[str] | None,
        _option(
            "layers of the style cost, with commas between or by repeating the option; default: the first rectified "
            "one of each size, up to a stride of 8 pixels (VGG: relu1_1 to relu4_1)"
        ),
    ] = None
    content_weight: Annotated[float, _option("weight of the content cost")] = 1.0
    style_weight: Annotated[float, _option("weight of the style cost")] = 5.0
    tv_weight: Annotated[float, _option("weight of the total variation: more is smoother")] = 10.0
    colour_weight: Annotated[
        float, _option("weight of the style's colours, for networks nearly blind to brightness; 0 is the paper's")
    ] = 1.0
    batch: Annotated[int, _option("pictures per step")] = 4
    rate: Annotated[float, _option("learning rate of Adam")] = 1e-3
    amp: Annotated[bool, typer.Option("--amp", help="mixed precision (bf16)")] = False
    seed: Annotated[int, _option("seed of initial weights, order and crops")] = 0

    def __post_init__(self) -> None:
        given = self.style_layers
        if given is not None:
            texts = [given] if isinstance(given, str) else given
            object.__setattr__(self, "style_layers", [name for text in texts for name in separated(text)] or None)
        for name, least in {"steps": 1, "size": 32, "width": 1, "blocks": 1, "batch": 1}.items():
            if getattr(self, name) < least:
                raise OptionError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.style_size is not None and self.style_size < 32:
            raise OptionError(f"style_size must be at least 32 pixels, not {self.style_size}")
        from ..data.limits import check_pixels

        for side in (self.size, self.style_size or 0):
            check_pixels(side, side, "a crop to train on")
        if self.size % 4:
            raise OptionError(f"size must be a multiple of 4, not {self.size}: use {self.size // 4 * 4 + 4}")
        if not 0 < self.rate < float("inf"):
            raise OptionError(f"rate must be above 0, not {self.rate}")
        for name in ("content_weight", "style_weight", "tv_weight", "colour_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise OptionError(f"{name} must be at least 0, not {getattr(self, name)}")
        if not -(2**63) <= self.seed < 2**63:
            raise OptionError(f"seed must be a whole number of 64 bits, not {self.seed}")
