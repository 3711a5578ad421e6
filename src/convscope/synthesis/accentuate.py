"""Accentuation: a photograph, changed a little so that one unit sees more of what it looks for.

Hamblin, Fel, Saha, Konkle and Alvarez, "Feature Accentuation: Revealing 'What' Features Respond to in Natural Images"
(arXiv:2402.10039). A heatmap says where a unit looks. What it sees there shows when a photograph x0 is changed until
the unit sees more of it, while for an earlier layer A it must stay what it is:

    x* = argmax  strength * f(x) / u  -  |A(x) - A(x0)|^2 / |A(x0)|^2

As in the paper the spectrum is changed, a shaken picture is looked at, and what did not matter is faded out. Two things
are done otherwise. The unit u of the score is fixed beforehand, N |g|_2^2 / |g|_1 for its gradient g by N values at x0,
so that one strength means as much for a class as for a single unit. And what mattered is not the sum of the gradients
on the way but the integral of the gradient times the change: the shares of all pixels in f(x*) - f(x0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import registry, rules
from ..attribution.gradient import gradient_at_pixels, weighted_gradient
from ..attribution.integrated import path_points
from ..baselines import blurred
from ..context import listen, say
from ..data.images import to_image
from ..drawing import colours, layout
from ..drawing.drawings import Gallery, as_picture, robust_limit
from ..drawing.layout import Scale, Sheet, Tile, number
from ..errors import ObjectiveError, RuleError, SynthesisError
from ..layers import bottlenecks
from ..net import Net
from ..objectives import WHOLE_OUTPUT, Objective, Unit, as_objective
from ..predictions import ObjectiveLike, predict
from ..registry import view
from ..running import footnote, recipe
from ..tapping import tap
from ..terms import judges_making
from ..tracing import PIXELS
from .ascent import Preview, PreviewEvery, Seed, Steps, Watch, ascend
from .likeness import Content
from .parametrizations import Fourier, Parametrization
from .transforms import transform_for

_PUSH = 20.0
"""What strength 1 is, in shares of the layer that is kept per root mean square of change."""

_DECAY = 1.5
"""Changes fall with frequency to this power: more steeply than in pictures made from nothing, which have no detail."""

_BLUR = 0.7
"""Standard deviation, in pixels, of a Gaussian that changes are seen through: networks with strides draw meshes."""

_POINTS, _BATCH = 16, 4
"""Gradients on the way from the photograph, of which the shares are made, and how many at a time."""

_INCOMPLETE = 0.05
"""How far the shares' sum may be from the change of the score without a remark."""

_FINE, _OPAQUE = 40, 0.95
"""Shares are gathered over one part in so many of the side; that share of the pixels is more or less transparent."""

_SIDE = 256
_GREY = 0.5


@dataclass(frozen=True, eq=False)
class Kept:
    """How far a layer's activity is from the photograph's, seen without shaking; of the picture itself for PIXELS."""

    net: Net
    content: Content
    layer: str = PIXELS

    def read(self, activity: Tensor) -> Tensor:
        """Return the cost of every picture, (n, c, h, w) to (n,)."""
        return self.content.read(tap(self.net, activity, [self.content.layer])[self.content.layer])

    def __str__(self) -> str:
        return f"kept({self.content.layer})"

    def title(self, net: Net) -> str:
        """Say in plain words what is asked for."""
        return f"likeness in {self.content.layer}"


class Change(Parametrization):
    """A photograph and what has been added to it within a window; at first nothing.

    `window` (1, 1, h, w) in [0, 1] says how much of a change is let through.
    """

    def __init__(self, photograph: Tensor, window: Tensor) -> None:
        self.photograph, self.window = photograph, window
        self.made = Fourier(photograph, decay=_DECAY)
        self.free = self.made.free
        with torch.no_grad():
            self.before = self.made.pixels()

    def pixels(self) -> Tensor:
        return self.photograph + self.window * blurred(self.made.pixels() - self.before, _BLUR)


@view(
    "Accentuation",
    paper="Hamblin et al. 2024, arXiv:2402.10039",
    caveat="shows what would excite the unit more, which need not be what excites it now",
)
def accentuate(
    net: Net,
    picture: Any,
    *,
    of: Annotated[
        str | None,
        "the objective: a class, layer:channel, layer:channel@y,x, ...; the network's first choice by default",
    ] = None,
    strength: Annotated[float, "how far: 1 is a little, 3 is much; below 0 towards what silences the unit"] = 1.0,
    keep: Annotated[
        str | None, "the layer that must stay alike, or 'pixels'; by default one at a third of the depth"
    ] = None,
    steps: Annotated[int, "how many steps of Adam"] = 60,
    rate: Annotated[float, "Adam's learning rate"] = 0.05,
    transform: Annotated[
        str | None,
        "random changes before every look: none, light, standard, jitter, crops, or parts as 'jitter=8 rotate=10'; by "
        "default light, and none for a unit at a place",
    ] = None,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 20,
) -> Gallery:
    """Change a photograph a little so that a unit sees more of what it looks for, or less.

    For a unit at a place nothing changes beyond its receptive field. The values are `picture` and `accentuated`
    (c, h, w) in [0, 1]; `shares` (1, h, w), what each pixel's change has added to the score, and `around`, the
    same gathered from its neighbours; `opacity` (1, h, w) in [0, 1]. Raises ObjectiveError for an objective about
    pictures that are being made, SynthesisError where nothing moves the unit.
    """
    seen = net.prepare(picture)
    pixels = net.pixels(seen)
    objective = _objective(net, pixels, of)
    kept = _kept(net, objective, keep)
    window, placed = _window(net, objective, pixels)
    chosen = transform or ("none" if placed else "light")
    shaken, how = transform_for(chosen, max(pixels.shape[-2:])), Steps(steps, rate=rate)
    with listen() as remarks:
        cost = Objective(((1.0, Kept(net, _content(net, pixels, kept))),))
        weight = strength * _PUSH / _unit(net, objective, pixels, strength)
        watch = Watch(f"accentuating {objective.title(net)}", preview, preview_every)
        asked, start = [objective * weight - cost], Change(pixels, window)
        made = ascend(net, asked, start, transform=shaken, steps=how, seeds=[seed], watch=watch)
        values = _values(net, objective, pixels, made.pixels.clamp(0, 1), window)
        tiles = _tiles(net, objective, values, _looked_at(window))
    options = {"strength": strength, "keep": "pixels" if kept == PIXELS else kept, "weight": weight}
    options |= {"steps": steps, "rate": rate, "transform": chosen, "decay": _DECAY, "blur": _BLUR, "seed": seed}
    subtitle = f"Accentuation · {net.name} · strength {number(strength)}, kept alike in {options['keep']}"
    subtitle += f" · {seen.name}" if seen.name else ""
    sheet = Sheet(
        _title(net, objective, strength), (tiles,), subtitle, footnote(net, registry.VIEWS["accentuate"], remarks)
    )
    return Gallery(sheet, values, recipe(net, "accentuate", [seen], str(objective), options, remarks))


def _objective(net: Net, pixels: Tensor, of: ObjectiveLike) -> Objective:
    if of is None and not net.output.shape:
        of = WHOLE_OUTPUT
    if of is None:
        return as_objective(net, int(predict(net, pixels)[0].argmax()))
    objective = as_objective(net, of)
    for _, term in objective.terms:
        if judges_making(term):
            raise ObjectiveError(
                f"{term} judges a picture that is being made, not a given one: ask for a class or unit"
            )
    return objective


def _kept(net: Net, objective: Objective, keep: str | None) -> str:
    """Return the layer that stays alike: by default one at a third of the way to the first layer asked for."""
    if keep is not None:
        return PIXELS if keep == "pixels" else net.layer(keep).name
    order = list(net.layers)
    first = min(order.index(name) for name in objective.layers)
    earlier = [layer.name for layer in bottlenecks(net, len(order)) if order.index(layer.name) < first]
    return earlier[len(earlier) // 3] if earlier else PIXELS


def _window(net: Net, objective: Objective, pixels: Tensor) -> tuple[Tensor, bool]:
    """Return where the picture may change, (1, 1, h, w), and whether all units have places: only what they see may."""
    window = torch.zeros_like(pixels[:1, :1])
    for _, term in objective.terms:
        position = term.position if isinstance(term, Unit) and term.channel is not None else None
        if position is None or position in ("mean", "max"):
            return torch.ones_like(window), False
        layer = net.layer(term.layer)
        at = position if isinstance(position, tuple) else (layer.grid[0] // 2, layer.grid[1] // 2)
        top, left, bottom, right = layer.field.box(at, (pixels.shape[2], pixels.shape[3]))
        window[..., top:bottom, left:right] = 1
    return window, True


def _unit(net: Net, objective: Objective, pixels: Tensor, strength: float) -> float:
    """Return the score that counts as one, N |g|_2^2 / |g|_1 of its gradient g by N values.

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
            f"{objective} is silent for this picture and nothing moves it: ask for another unit, or for the layer "
            "before its rectifier"
        )
    return float(magnitude.numel() * magnitude.square().sum() / magnitude.sum())


def _content(net: Net, pixels: Tensor, layer: str) -> Content:
    with torch.no_grad():
        return Content(layer, tap(net, pixels, [layer])[layer])


def _values(net: Net, objective: Objective, before: Tensor, after: Tensor, window: Tensor) -> dict[str, Tensor]:
    shares = _shares(net, objective, before, after)
    with torch.no_grad():
        ends = objective(net, torch.cat([before, after])).cpu().double()
    change, total = float(ends[1] - ends[0]), float(shares.cpu().double().sum())
    if not change:
        say("the score has not changed: more strength may move it")
    elif abs(total - change) > _INCOMPLETE * abs(change):
        say(f"what the changes have added is {number(total)} in sum, where the score rose by {number(change)}")
    around = _around(shares, window)
    top = float(np.quantile(around.abs()[window[0].cpu() > 0].numpy(), _OPAQUE)) or float(around.abs().max()) or 1.0
    opacity = (around.abs() / top).clamp(0, 1).sqrt() * (window[0].cpu() > 0)
    return {"picture": before[0], "accentuated": after[0], "shares": shares, "around": around, "opacity": opacity}


def _shares(net: Net, objective: Objective, before: Tensor, after: Tensor) -> Tensor:
    """Return what each pixel's change has added to the score, (1, h, w): integrated gradients from the photograph."""
    points, weights = path_points("gauss-legendre", _POINTS)
    way = after - before

    def on_the_way(piece: slice) -> Tensor:
        return before + torch.tensor(points[piece]).to(way)[:, None, None, None] * way

    gradient = weighted_gradient(net, objective, on_the_way, weights, _BATCH, "what mattered")
    return (gradient * way[0]).sum(0, keepdim=True)


def _around(shares: Tensor, window: Tensor) -> Tensor:
    """Return the shares, (1, h, w), gathered from the pixels around: single ones are as ragged as any gradient."""
    rows, columns = _extent(window)
    sigma = min(rows.stop - rows.start, columns.stop - columns.start) / _FINE
    return blurred(shares[None].float().cpu(), max(1.0, sigma))[0]


def _extent(window: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns where a window is open."""
    open_ = window[0, 0] > 0
    rows, columns = open_.any(1).nonzero(), open_.any(0).nonzero()
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _looked_at(window: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns that are shown: the window with a quarter of its size around it."""
    parts = list[slice]()
    for part, most in zip(_extent(window), window.shape[-2:], strict=True):
        margin = (part.stop - part.start) // 4
        parts.append(slice(max(part.start - margin, 0), min(part.stop + margin, most)))
    return parts[0], parts[1]


def _title(net: Net, objective: Objective, strength: float) -> str:
    title = objective.title(net)
    return f"{title[:1].upper()}{title[1:]}: what would {'silence it' if strength < 0 else 'excite it more'} here?"


def _answer(net: Net, objective: Objective, pixels: Tensor) -> str:
    """Write the score of a picture (1, c, h, w), and the probability of a class."""
    with torch.no_grad():
        score = number(float(objective(net, pixels)))
    index = objective.class_index
    if index is None or len(net.output.shape) != 1:
        return f"activity {score}"
    return f"probability {number(float(predict(net, pixels)[0, index]))}, score {score}"


def _tiles(
    net: Net, objective: Objective, values: dict[str, Tensor], looked_at: tuple[slice, slice]
) -> tuple[Tile, ...]:
    shown = {name: value.float().cpu()[(slice(None), *looked_at)] for name, value in values.items()}
    before, after, opacity = shown["picture"], shown["accentuated"], shown["opacity"]
    change, white = as_picture((after - before).numpy())
    added = shown["around"][0].numpy()
    limit = robust_limit(added)
    scale = Scale("polar", -limit, limit, "score", bool(added.min() < -limit), bool(added.max() > limit))
    painted = Image.fromarray(colours.paint(added, scale.low, scale.high, scale.colours))
    answers = [_answer(net, objective, values[name][None]) for name in ("picture", "accentuated")]
    part = "as seen" if shown["picture"].shape == values["picture"].shape else "around what the unit sees"
    tiles = [
        Tile(to_image(before.numpy()), f"the photograph, {part}: {answers[0]}"),
        Tile(to_image(after.numpy()), f"accentuated: {answers[1]}"),
        Tile(change, f"the change: grey is 0, white {number(white)}"),
        Tile(painted, "what the changes around each pixel have added", scale),
        Tile(to_image((_GREY + opacity * (after - _GREY)).numpy()), "accentuated, grey where no change mattered"),
    ]
    return tuple(Tile(layout.enlarged(tile.image, _SIDE), tile.caption, tile.scale) for tile in tiles)
