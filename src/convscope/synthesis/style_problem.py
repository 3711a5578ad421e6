"""The optimization problem of style transfer: its costs, and the run that minimizes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..batching import out_of_memory
from ..context import say
from ..data.images import InputPicture
from ..errors import LayerError, OptionError, OutOfMemory, PictureError
from ..layers import first_of_stages, spatial_layer, stage_layers
from ..net import Net
from ..objectives import Objective, Term
from ..tapping import tap
from ..terms import Penalty
from .ascent import AscentResult, ascend
from .colour import luminance, match_luminance
from .likeness import Content, Style, gram
from .monitor import Monitor
from .optimizers import Optimizer
from .parametrizations import noise, parametrize
from .style_pictures import StylePictures, scaled

_NOISE = 0.02
_RATES = {"fourier": 0.05, "pixels": 0.02}
"""Adam's learning rate, by parametrization."""

_NARROW = 24
"""The shorter side of a style picture, in pixels, below which a remark is made."""

_FEWEST = 4
"""The positions of a style picture that a Gram matrix needs at least."""

Space = Literal["fourier", "pixels"]
Solver = Literal["lbfgs", "adam"]
Init = Literal["content", "noise", "zero"]


@dataclass(frozen=True)
class Search:
    """How the picture is optimized."""

    init: Init
    optimizer: Solver
    parametrization: Space
    steps: int
    scales: int
    seed: int


@dataclass(frozen=True)
class Weights:
    """The weights of content, style and total variation."""

    content: float
    style: float
    tv: float

    def __post_init__(self) -> None:
        if self.content + self.style == 0:
            raise OptionError(
                "content_weight and style_weight are both 0: nothing is left to optimize; set one above 0"
            )


@dataclass(frozen=True)
class StyleLayers:
    """The layers in which content and style are compared."""

    content: list[str]
    style: list[str]

    @classmethod
    def of(cls, net: Net, content: list[str] | None, style: list[str] | None) -> StyleLayers:
        """Check the layers, or choose the defaults. Raises LayerError for layers without spatial positions."""
        sizes = stage_layers(net)
        if not sizes and not (content and style):
            raise LayerError(
                f"{net.name} has no layer with spatial positions: style transfer needs a convolutional network"
            )
        if not content:
            last_but_one = sizes[max(0, len(sizes) - 2)]
            content = [last_but_one[min(1, len(last_but_one) - 1)].name]
        style = style or [layer.name for layer in first_of_stages(net)]
        return cls(
            [spatial_layer(net, name, purpose="content").name for name in content],
            [spatial_layer(net, name, purpose="style").name for name in style],
        )


@dataclass(frozen=True, eq=False)
class StyleProblem:
    """Everything that is settled before the first step."""

    net: Net
    content: InputPicture
    styles: StylePictures
    layers: StyleLayers
    weights: Weights
    search: Search
    size: int
    keep_colour: bool
    monitor: Monitor

    def __post_init__(self) -> None:
        if self.keep_colour and self.net.channels != 3:
            there = "grey pictures" if self.net.channels == 1 else f"{self.net.channels} bands"
            raise OptionError(f"{self.net.name} reads {there}, not red, green and blue: there is no colour to keep")

    def pixels(self, side: int) -> Tensor:
        """Return the content, its longer side `side` pixels; its luminance where colours are kept."""
        pixels = scaled(self.net, self.content, side)
        return luminance(pixels).expand(-1, 3, -1, -1) if self.keep_colour else pixels

    def content_terms(self, pixels: Tensor, layers: Sequence[str]) -> list[Term]:
        """Return the content cost of each layer (eq. 1)."""
        activity = _activity(self.net, pixels, layers)
        return [Content(name, activity[name]) for name in layers]

    def style_terms(self, side: int, layers: Sequence[str]) -> list[Term]:
        """Return the style cost of each layer (eq. 4), for a picture whose longer side is `side`."""
        grams: dict[str, Tensor] = {}
        for picture, share in zip(self.styles.pictures, self.styles.shares, strict=True):
            activities = self._style_activity(picture, side, layers) if share else {}
            for name, activity in activities.items():
                grams[name] = grams.get(name, 0.0) + share * gram(activity)
        return [Style(name, grams[name]) for name in layers]

    def _style_activity(self, picture: InputPicture, side: int, layers: Sequence[str]) -> dict[str, Tensor]:
        pixels = scaled(self.net, picture, max(1, round(side * self.styles.scale)))
        height, width = pixels.shape[-2:]
        enlargement = width / picture.original.width
        if enlargement > 2 and side == self.size:
            say(f"{picture.name or 'the style picture'} is enlarged {enlargement:.1f} times: its texture is blurred")
        elif min(height, width) < _NARROW and side == self.size:
            say(f"{picture.name or 'the style picture'} is only {width} × {height} px here: little texture is left")
        if self.keep_colour:
            pixels = match_luminance(luminance(pixels), luminance(self.pixels(side))).expand(-1, 3, -1, -1)
        try:
            activities = _activity(self.net, pixels, layers)
            if any(activity[0, 0].numel() < _FEWEST for activity in activities.values()):
                raise PictureError(f"{layers[-1]} has fewer than {_FEWEST} positions of it")
        except PictureError as error:
            raise PictureError(
                f"the style picture {picture.name} is too narrow at {width} × {height} px: {error}. Use one that is "
                "less elongated, a larger style_scale or size, or leave out the deepest style_layers"
            ) from error
        return activities

    def minimize(self, terms: list[tuple[float, Term]], first: Tensor, label: str) -> AscentResult:
        """Minimize the weighted costs, starting from `first`. Raises OutOfMemory with advice."""
        search = self.search
        if self.weights.tv:
            terms = [*terms, (self.weights.tv / first.numel(), Penalty("tv"))]
        objective = Objective(tuple((-weight, term) for weight, term in terms))
        rate = 1.0 if search.optimizer == "lbfgs" else _RATES[search.parametrization]
        start = parametrize(search.parametrization, first.contiguous(), [search.seed], deviation=0.0)
        optimizer = Optimizer(search.steps, search.optimizer, rate)
        try:
            # The gradient is that of the cost itself: nothing is led past rectifiers.
            return ascend(
                self.net, [objective], start, optimizer=optimizer, redirect=False, seeds=[search.seed],
                monitor=replace(self.monitor, label=label),
            )  # fmt: skip
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise OutOfMemory(
                f"out of memory at {first.shape[3]} × {first.shape[2]} px, and a Gram matrix needs the whole picture: "
                "use a smaller size, optimizer='adam', or leave out the finest style_layers"
            ) from error

    def initial(self, like: Tensor, init: Init) -> Tensor:
        """Return the initial picture, of the shape of another."""
        if init == "content":
            return like
        mean = like.new_tensor(self.net.mean)[:, None, None].expand_as(like)
        if init == "zero":
            return mean
        channels, height, width = like.shape[1:]
        return (mean + noise((channels, height, width), [self.search.seed], _NOISE).to(like)).clamp(0, 1)


def _activity(net: Net, pixels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Read layers of a picture. Raises PictureError where it is too small for them."""
    with torch.no_grad():
        return tap(net, pixels, layers)
