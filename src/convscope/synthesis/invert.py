"""Inversion: a picture reconstructed from a layer's activity.

Mahendran and Vedaldi, "Understanding Deep Image Representations by Inverting Them" (arXiv:1412.0035): among the
pictures x with the same activity A as the photograph x0, find a natural one,

    x* = argmin  |A(x) - A(x0)|^2 / |A(x0)|^2  +  lambda_a R_a(x)  +  lambda_V R_V(x)

    R_a(x) = sum |x - m|^a,    R_V(x) = sum ((x[i,j+1] - x[i,j])^2 + (x[i+1,j] - x[i,j])^2)^(b/2)

What is reconstructed is what the layer preserves; the rest is lost. Deeper layers preserve less, so that the priors
must be stronger: as in the paper's experiments, their weight rises from each third of the depth to the next. With a
decorrelated spectrum (lucid's parametrization) and L-BFGS, reconstructions come closer to the photograph than with the
paper's own descent in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from ..context import say
from ..data.images import InputPicture
from ..drawing import layout
from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile
from ..errors import LayerError
from ..layers import bottlenecks, find_layer
from ..net import Net
from ..objectives import Objective
from ..options import Range
from ..recipes import Recipe
from ..registry import view
from ..tapping import tap
from ..terms import total_variation
from ..tracing import PIXELS, Layer
from .ascent import Seed, ascend
from .likeness import Content
from .monitor import Monitor, Preview, PreviewEvery
from .optimizers import Optimizer
from .parametrizations import parametrize

Space = Literal["fourier", "pixels"]
Solver = Literal["lbfgs", "adam"]

_SIDE, _SMALL, _PER_ROW = 256, 150, 5

_WEIGHTS = (0.002, 0.005, 0.02)
"""The weight of the total variation in the first, second and last third of a network's depth."""

_NORM = 0.1
"""The weight of the norm relative to that of the total variation."""

_USUAL_STEP = 0.1
"""The difference of neighbouring pixels in [0, 1] that counts as 1 in the total variation."""

_RATES = {"lbfgs": 1.0, "adam": 0.05}


@dataclass(frozen=True)
class NaturalPrior:
    """The two priors on natural pictures: values near the network's mean, and neighbours alike.

    norm * mean (2 |x - m|)^alpha + tv * mean (10 |gradient of x|)^beta, means over all values, so that weights mean the
    same for pictures of any size. Mahendran & Vedaldi 2014, arXiv:1412.0035, sec. 3.
    """

    tv: float
    norm: float
    mean: tuple[float, ...] = (0.5,)
    alpha: float = 6.0
    beta: float = 2.0
    layer: str = PIXELS

    def read(self, activity: Tensor) -> Tensor:
        """Return the cost of each picture, (n, c, h, w) to (n,)."""
        difference = (activity - activity.new_tensor(self.mean)[:, None, None]).flatten(1)
        norm = (2 * difference).abs().pow(self.alpha).mean(1)
        rough = total_variation(activity / _USUAL_STEP, self.beta) / difference.shape[1]
        return self.norm * norm + self.tv * rough

    def __str__(self) -> str:
        return "natural()"

    def title(self, net: Net) -> str:
        """Describe the term in plain words."""
        return "prior on natural pictures"


@view(
    "Inversion",
    paper="Mahendran & Vedaldi 2014, arXiv:1412.0035",
    caveat="shows one of many pictures with this activity; colours and smoothness that the layer does not fix come "
    "from the priors",
    group="make",
)
def invert(
    net: Net,
    picture: InputPicture,
    *,
    layers: Annotated[
        list[str] | None, "layers to invert; default: up to eight, spread over the network, including the output"
    ] = None,
    repeats: Annotated[
        int, "reconstructions of each layer, from different noise: what differs, the layer ignores", Range(1)
    ] = 1,
    steps: Annotated[int, "maximum steps per layer", Range(1)] = 150,
    strength: Annotated[float, "factor of the priors: more is smoother", Range(0)] = 1.0,
    beta: Annotated[
        float, "exponent of the total variation: 2 is smooth, 1 allows sharp edges and spikes", Range(0, open=True)
    ] = 2.0,
    parametrization: Annotated[
        Space, "image parametrization: fourier (decorrelated spectrum) or pixels, as in the paper"
    ] = "fourier",
    optimizer: Annotated[Solver, "lbfgs or adam"] = "lbfgs",
    rate: Annotated[float | None, "learning rate; default: 1 for lbfgs, 0.05 for adam", Range(0, open=True)] = None,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 50,
) -> Gallery:
    """Reconstruct a photograph from the activity of layer after layer: what each preserves of it.

    The error under a picture is |A(x) - A(x0)| / |A(x0)| in the layer's activity A. The values are `picture` (c, h, w),
    `inversions` (layers, repeats, c, h, w) in [0, 1] and `errors` (layers, repeats). Raises LayerError for a layer
    without activity for this picture, OptionError for settings out of range.
    """
    how = Optimizer(steps, optimizer, _RATES[optimizer] if rate is None else rate)
    chosen = [find_layer(net, name) for name in layers] if layers else bottlenecks(net)
    priors = [_prior(net, layer, strength, beta) for layer in chosen]
    inversion = _Inversion(net, chosen, priors, parametrization, how, range(seed, seed + repeats))
    values = inversion.of(net.pixels(picture), Monitor("inverting", preview, preview_every))
    settled = {
        "layers": [layer.name for layer in chosen],
        "rate": how.rate,
        "alpha": priors[0].alpha,
        "total_variation": [prior.tv for prior in priors],
        "norm": [prior.norm for prior in priors],
    }
    return Gallery(_sheet(net, picture, inversion, values), values, Recipe(settled=settled))


def _prior(net: Net, layer: Layer, strength: float, beta: float) -> NaturalPrior:
    names = list(net.layers)
    depth = names.index(layer.name) / len(names)
    tv = strength * _WEIGHTS[int(depth * len(_WEIGHTS))]
    return NaturalPrior(tv, _NORM * tv, net.mean, beta=beta)


@dataclass(frozen=True)
class _Inversion:
    """Everything about an inversion but the photograph."""

    net: Net
    layers: Sequence[Layer]
    priors: Sequence[NaturalPrior]
    parametrization: Space
    optimizer: Optimizer
    seeds: Sequence[int]

    def of(self, pixels: Tensor, monitor: Monitor) -> dict[str, Tensor]:
        """Invert layer after layer, each as far as the network must run for it, until done or interrupted."""
        targets = self._targets(pixels)
        grey = torch.full_like(pixels, 0.5).repeat(len(self.seeds), 1, 1, 1)
        inversions = list[Tensor]()
        for target, prior in zip(targets, self.priors, strict=True):
            objective = Objective(((-1.0, target), (-1.0, prior)))
            start = parametrize(self.parametrization, grey, list(self.seeds))
            own = replace(monitor, label=f"{monitor.label} {target.layer or 'the output'}")
            result = ascend(
                self.net, [objective], start, optimizer=self.optimizer, seeds=self.seeds, redirect=False, monitor=own
            )
            inversions.append(result.pixels)
            if result.interrupted:
                break
        if len(inversions) < len(self.layers):
            names = [layer.name or "the output" for layer in self.layers[len(inversions) :]]
            say(f"not inverted: {', '.join(names)}")
        distances = [
            relative_error(self.net, target, pictures) for target, pictures in zip(targets, inversions, strict=False)
        ]
        return {"picture": pixels[0], "inversions": torch.stack(inversions), "errors": torch.stack(distances)}

    def _targets(self, pixels: Tensor) -> list[Content]:
        with torch.no_grad():
            readings = tap(self.net, pixels, [layer.name for layer in self.layers])
        for layer in self.layers:
            if not readings[layer.name].any():
                raise LayerError(
                    f"{layer.name or 'the output'} of {self.net.name} is zero for this picture: there is nothing to "
                    "invert. Leave it out of layers"
                )
        return [Content(layer.name, readings[layer.name].detach()) for layer in self.layers]


def relative_error(net: Net, target: Content, pixels: Tensor) -> Tensor:
    """Return |A(x) - A(x0)| / |A(x0)| of pictures (n, c, h, w) in the target's layer, (n,)."""
    with torch.no_grad():
        return target.read(tap(net, pixels, [target.layer])[target.layer]).float().sqrt()


def _sheet(net: Net, picture: InputPicture, inversion: _Inversion, values: dict[str, Tensor]) -> Sheet:
    several = len(inversion.seeds) > 1
    names = [layer.name or "output" for layer in inversion.layers[: len(values["inversions"])]]
    return Sheet(
        f"What each layer of {net.name} preserves of the photograph",
        tuple(_rows_of_repeats(picture, values) if several else _rows_of_layers(picture, names, values)),
        "reconstructions from one layer's activity · error: relative distance to the photograph's activity"
        + (f" · {picture.name}" if picture.name else ""),
        columns=("the photograph", *names) if several else (),
        labels=tuple(f"seed {seed}" for seed in inversion.seeds) if several else (),
    )


def _rows_of_repeats(picture: InputPicture, values: dict[str, Tensor]) -> list[tuple[Tile | None, ...]]:
    """Return a row for each seed, a column for each layer, the photograph before the first."""
    inversions, distances = values["inversions"].float().cpu(), values["errors"].cpu()
    first = Tile(_image(picture, values["picture"], _SMALL), "")
    rows = list[tuple[Tile | None, ...]]()
    for i in range(inversions.shape[1]):
        tiles = [
            Tile(_image(picture, pictures[i], _SMALL), _percent(float(errors[i])))
            for pictures, errors in zip(inversions, distances, strict=True)
        ]
        rows.append((first if i == 0 else None, *tiles))
    return rows


def _rows_of_layers(
    picture: InputPicture, names: list[str], values: dict[str, Tensor]
) -> list[tuple[Tile | None, ...]]:
    """Return the photograph and a tile for each layer, in a block."""
    tiles = [Tile(_image(picture, values["picture"], _SIDE), "the photograph, as the network sees it")]
    for name, pictures, errors in zip(names, values["inversions"], values["errors"].cpu(), strict=True):
        tiles.append(Tile(_image(picture, pictures[0], _SIDE), f"{name}\nerror {_percent(float(errors[0]))}"))
    across = -(-len(tiles) // -(-len(tiles) // _PER_ROW))
    return [tuple(tiles[i : i + across]) for i in range(0, len(tiles), across)]


def _image(picture: InputPicture, pixels: Tensor, side: int) -> Any:
    return layout.enlarged(picture.image(pixels.float().cpu().numpy()), side)


def _percent(share: float) -> str:
    return f"{layout.number(100 * share)}%"
