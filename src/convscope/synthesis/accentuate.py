"""Feature accentuation: a photograph, changed a little so that a unit responds more to it.

Hamblin, Fel, Saha, Konkle and Alvarez, "Feature Accentuation: Revealing 'What' Features Respond to in Natural Images"
(arXiv:2402.10039). A heatmap says where a unit looks. What it responds to there shows when a photograph x0 is changed
until the unit responds more, while the activity of an earlier layer A is preserved:

    x* = argmax  strength * f(x) / u  -  |A(x) - A(x0)|^2 / |A(x0)|^2

As in the paper the spectrum is optimized under random transforms, and what did not matter is faded out. Two things
differ. The unit u of the score is fixed beforehand, N |g|_2^2 / |g|_1 for its gradient g with respect to N values at
x0, so that a strength means the same for a class as for a single unit. And what mattered is not the sum of gradients
along the way but the integral of the gradient times the change: the contributions of all pixels to f(x*) - f(x0).
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import rules
from ..attribution.gradient import gradient_at_pixels, weighted_gradient
from ..attribution.integrated import path_points
from ..baselines import blurred
from ..context import running, say
from ..data.images import InputPicture
from ..drawing import colours, layout
from ..drawing.drawings import Gallery, as_picture, robust_limit
from ..drawing.layout import Scale, Sheet, Tile, number
from ..errors import ObjectiveError, RuleError, SynthesisError
from ..layers import bottlenecks, find_layer, layer_at
from ..net import Net
from ..objectives import WHOLE_OUTPUT, Objective, Unit, as_objective
from ..options import Range
from ..predictions import ObjectiveLike, answers, first_choices
from ..recipes import Recipe
from ..registry import view
from ..tapping import tap
from ..terms import judges_making
from ..tracing import PIXELS
from .ascent import Seed, ascend
from .likeness import Content
from .monitor import Monitor, Preview, PreviewEvery
from .optimizers import Optimizer
from .parametrizations import Fourier, Parametrization
from .transforms import transform_for

_PUSH = 20.0
"""What strength 1 means: relative distance in the kept layer per root mean square of change."""

_DECAY = 1.5
"""Exponent of the frequency by which changes fall: steeper than from noise, because a photograph has its detail."""

_BLUR = 0.7
"""Standard deviation, in pixels, of a Gaussian over changes: strides leave checkerboards."""

_POINTS, _BATCH = 16, 4
"""Gradients on the path from the photograph that contributions are integrated from, and how many at a time."""

_INCOMPLETE = 0.05
"""The relative error of the sum of contributions above which a remark is made."""

_FINE, _OPAQUE = 40, 0.95
"""Contributions are smoothed over the side divided by the first; the second is the quantile that is fully opaque."""

_SIDE = 256
_GREY = 0.5


@dataclass(frozen=True, eq=False)
class UntransformedContent:
    """The distance of a layer's activity, without transform, to the photograph's; of pixels for PIXELS."""

    net: Net
    content: Content
    layer: str = PIXELS

    def read(self, activity: Tensor) -> Tensor:
        """Return the cost of each picture, (n, c, h, w) to (n,)."""
        return self.content.read(tap(self.net, activity, [self.content.layer])[self.content.layer])

    def __str__(self) -> str:
        return f"untransformed_content({self.content.layer})"

    def title(self, net: Net) -> str:
        """Describe the term in plain words."""
        return f"content in {self.content.layer}"


class Perturbation(Parametrization):
    """A photograph plus a perturbation within a window; at first none.

    `window` (1, 1, h, w) in [0, 1] is multiplied with the perturbation.
    """

    def __init__(self, photograph: Tensor, window: Tensor) -> None:
        self.photograph, self.window = photograph, window
        self.spectrum = Fourier(photograph, decay=_DECAY)
        self.free = self.spectrum.free
        with torch.no_grad():
            self.initial = self.spectrum.pixels()

    def pixels(self) -> Tensor:
        return self.photograph + self.window * blurred(self.spectrum.pixels() - self.initial, _BLUR)


@view(
    "Feature accentuation",
    paper="Hamblin et al. 2024, arXiv:2402.10039",
    caveat="shows what would excite the unit more, which need not be what excites it now",
    group="make",
)
def accentuate(
    net: Net,
    picture: InputPicture,
    *,
    of: Annotated[
        str | None, "the objective: a class, layer:channel, layer:channel@y,x, ...; default: the top-1 class"
    ] = None,
    strength: Annotated[float, "how far: 1 is a little, 3 is much; below 0 suppresses the unit instead"] = 1.0,
    keep: Annotated[str | None, "layer whose activity is kept, or pixels; default: one at a third of the depth"] = None,
    steps: Annotated[int, "number of steps of Adam", Range(1)] = 60,
    rate: Annotated[float, "learning rate of Adam", Range(0, open=True)] = 0.05,
    transform: Annotated[
        str | None,
        "random transform before every step: none, light, standard, jitter, crops, or parts such as 'jitter=8 "
        "rotate=10'; default: light, and none for a unit at a position",
    ] = None,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 20,
) -> Gallery:
    """Change a photograph a little so that a unit responds more to it, or less.

    For a unit at a position nothing changes beyond its receptive field. The values are `picture` and `accentuated`
    (c, h, w) in [0, 1]; `contributions` (1, h, w), of each pixel's change to the score, and `smoothed`, the same
    summed over the neighbourhood; `opacity` (1, h, w) in [0, 1]. Raises ObjectiveError for an objective with
    regularizers of synthesis, SynthesisError where no gradient reaches the picture.
    """
    pixels = net.pixels(picture)
    objective = _objective(net, pixels, of)
    layer = _kept_layer(net, objective, keep)
    window, positioned = _window(net, objective, pixels)
    chosen = transform or ("none" if positioned else "light")
    how, optimizer = transform_for(chosen, max(pixels.shape[-2:])), Optimizer(steps, rate=rate)
    cost = Objective(((1.0, UntransformedContent(net, _content(net, pixels, layer))),))
    weight = strength * _PUSH / _unit(net, objective, pixels, strength)
    monitor = Monitor(f"accentuating {objective.title(net)}", preview, preview_every)
    target, start = [objective * weight - cost], Perturbation(pixels, window)
    result = ascend(net, target, start, transform=how, optimizer=optimizer, seeds=[seed], monitor=monitor)
    # What was kept of a cancelled run is still measured.
    with running(cancel=Event() if result.interrupted else None):
        values = _values(net, objective, pixels, result.pixels.clamp(0, 1), window)
    settled = {"keep": "pixels" if layer == PIXELS else layer, "transform": chosen, "weight": weight}
    subtitle = f"Feature accentuation · {net.name} · strength {number(strength)}, keeping {settled['keep']}"
    subtitle += f" · {picture.name}" if picture.name else ""
    sheet = Sheet(
        _title(net, objective, strength), (_tiles(net, objective, picture, values, _shown_part(window)),), subtitle
    )
    return Gallery(sheet, values, Recipe(objective=str(objective), settled=settled))


def _objective(net: Net, pixels: Tensor, of: ObjectiveLike) -> Objective:
    if of is None and not net.output.shape:
        of = WHOLE_OUTPUT
    if of is None:
        return as_objective(net, first_choices(net, pixels)[0])
    objective = as_objective(net, of)
    for _, term in objective.terms:
        if judges_making(term):
            raise ObjectiveError(
                f"{term} is a regularizer for synthesis from noise, not for a given photograph: use a class or unit"
            )
    return objective


def _kept_layer(net: Net, objective: Objective, keep: str | None) -> str:
    """Return the layer that is kept: by default one at a third of the way to the objective's first layer."""
    if keep is not None:
        return PIXELS if keep == "pixels" else find_layer(net, keep).name
    order = list(net.layers)
    first = min(order.index(name) for name in objective.layers)
    earlier = [layer.name for layer in bottlenecks(net, len(order)) if order.index(layer.name) < first]
    return earlier[len(earlier) // 3] if earlier else PIXELS


def _window(net: Net, objective: Objective, pixels: Tensor) -> tuple[Tensor, bool]:
    """Return where the picture may change, (1, 1, h, w), and whether that is the field of units at positions."""
    window = torch.zeros_like(pixels[:1, :1])
    for _, term in objective.terms:
        position = term.position if isinstance(term, Unit) and term.channel is not None else None
        if position is None or position in ("mean", "max"):
            return torch.ones_like(window), False
        layer = layer_at(net, net.layer(term.layer), pixels)
        at = position if isinstance(position, tuple) else (layer.grid[0] // 2, layer.grid[1] // 2)
        top, left, bottom, right = layer.field.box(at, (pixels.shape[2], pixels.shape[3]))
        window[..., top:bottom, left:right] = 1
    return window, True


def _unit(net: Net, objective: Objective, pixels: Tensor, strength: float) -> float:
    """Return the score that counts as one, N |g|_2^2 / |g|_1 of its gradient g with respect to N values.

    Raises SynthesisError when there is no gradient.
    """
    gradient = gradient_at_pixels(net, pixels, objective)
    if not gradient.any() and strength > 0:
        try:
            with rules.relu_rule(rules.redirected):
                gradient = gradient_at_pixels(net, pixels, objective)
        except RuleError:
            # Only rectifiers can be redirected.
            pass
    magnitude = gradient.cpu().double().abs()
    if not magnitude.any():
        raise SynthesisError(
            f"{objective} is silent for this picture and has no gradient: use another unit, or the layer before its "
            "rectifier"
        )
    return float(magnitude.numel() * magnitude.square().sum() / magnitude.sum())


def _content(net: Net, pixels: Tensor, layer: str) -> Content:
    with torch.no_grad():
        return Content(layer, tap(net, pixels, [layer])[layer])


def _values(net: Net, objective: Objective, before: Tensor, after: Tensor, window: Tensor) -> dict[str, Tensor]:
    contributions = _contributions(net, objective, before, after)
    with torch.no_grad():
        ends = objective(net, torch.cat([before, after])).cpu().double()
    change, total = float(ends[1] - ends[0]), float(contributions.cpu().double().sum())
    if not change:
        say("the score has not changed: try more strength")
    elif abs(total - change) > _INCOMPLETE * abs(change):
        say(f"the contributions add up to {number(total)}, the score changed by {number(change)}")
    smoothed = _smoothed(contributions, window)
    magnitude, inside = smoothed.abs(), window[0].cpu() > 0
    top = float(np.quantile(magnitude[inside].numpy(), _OPAQUE)) or float(magnitude.max()) or 1.0
    opacity = (magnitude / top).clamp(0, 1).sqrt() * inside
    return {
        "picture": before[0],
        "accentuated": after[0],
        "contributions": contributions,
        "smoothed": smoothed,
        "opacity": opacity,
    }


def _contributions(net: Net, objective: Objective, before: Tensor, after: Tensor) -> Tensor:
    """Return each pixel's contribution to the change of the score, (1, h, w), by integrated gradients."""
    points, weights = path_points("gauss-legendre", _POINTS)
    path = after - before

    def on_path(piece: slice) -> Tensor:
        return before + torch.tensor(points[piece]).to(path)[:, None, None, None] * path

    gradient = weighted_gradient(net, objective, on_path, weights, _BATCH, "contributions")
    return (gradient * path[0]).sum(0, keepdim=True)


def _smoothed(contributions: Tensor, window: Tensor) -> Tensor:
    """Return the contributions (1, h, w) blurred: those of single pixels are as noisy as any gradient."""
    rows, columns = _extent(window)
    sigma = min(rows.stop - rows.start, columns.stop - columns.start) / _FINE
    return blurred(contributions[None].float().cpu(), max(1.0, sigma))[0]


def _extent(window: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns where a window is open."""
    open_ = window[0, 0] > 0
    rows, columns = open_.any(1).nonzero(), open_.any(0).nonzero()
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _shown_part(window: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns that are shown: the window with a quarter of its size around it."""
    parts = list[slice]()
    for part, most in zip(_extent(window), window.shape[-2:], strict=True):
        margin = (part.stop - part.start) // 4
        parts.append(slice(max(part.start - margin, 0), min(part.stop + margin, most)))
    return parts[0], parts[1]


def _title(net: Net, objective: Objective, strength: float) -> str:
    title = objective.title(net)
    return f"{title[:1].upper()}{title[1:]}: {'suppressed' if strength < 0 else 'accentuated'}"


def _response(net: Net, objective: Objective, pixels: Tensor) -> str:
    """Write the score of a picture (1, c, h, w), and the probability of a class where there is one."""
    with torch.no_grad():
        score = number(float(objective(net, pixels)))
    index = objective.class_index
    if index is None or len(net.output.shape) != 1:
        return f"activity {score}"
    head, shares = answers(net, pixels)
    if head.kind == "value":
        return f"{head.word} {score}"
    return f"{head.word} {number(float(shares[0, index]))}, score {score}"


def _tiles(
    net: Net, objective: Objective, picture: InputPicture, values: dict[str, Tensor], part: tuple[slice, slice]
) -> tuple[Tile, ...]:
    shown = {name: value.float().cpu()[(slice(None), *part)] for name, value in values.items()}
    before, after, opacity = shown["picture"], shown["accentuated"], shown["opacity"]
    change, white = as_picture((after - before).numpy(), net.show)
    smoothed = shown["smoothed"][0].numpy()
    limit = robust_limit(smoothed)
    scale = Scale("polar", -limit, limit, "score", bool(smoothed.min() < -limit), bool(smoothed.max() > limit))
    painted = Image.fromarray(colours.paint(smoothed, scale.low, scale.high, scale.colours))
    responses = [_response(net, objective, values[name][None]) for name in ("picture", "accentuated")]
    whole = shown["picture"].shape == values["picture"].shape

    def tile(image: Image.Image, caption: str, scale: Scale | None = None) -> Tile:
        return Tile(layout.enlarged(image, _SIDE), caption, scale)

    return (
        tile(
            picture.image(before.numpy()), f"photograph{'' if whole else ' around the receptive field'}: {responses[0]}"
        ),
        tile(picture.image(after.numpy()), f"accentuated: {responses[1]}"),
        tile(change, f"change: grey is 0, white {number(white)}"),
        tile(painted, "contribution of the change to the score, smoothed", scale),
        tile(picture.image((_GREY + opacity * (after - _GREY)).numpy()), "accentuated, grey where no change mattered"),
    )
