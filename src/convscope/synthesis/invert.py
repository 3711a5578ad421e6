"""Inversion: the picture that a layer's activity still allows.

Mahendran and Vedaldi, "Understanding Deep Image Representations by Inverting Them" (arXiv:1412.0035): among the
pictures x that a layer sees as it sees the photograph x0, find one that is natural,

    x* = argmin  |A(x) - A(x0)|^2 / |A(x0)|^2  +  lambda_a R_a(x)  +  lambda_V R_V(x)

    R_a(x) = sum |x - m|^a,    R_V(x) = sum ((x[i,j+1] - x[i,j])^2 + (x[i+1,j] - x[i,j])^2)^(b/2)

What comes back is what the layer has kept; what does not, it has thrown away. Deeper layers keep less, so that the
priors must say more: as in the paper's experiments, their strength rises by one step from a third of the depth to the
next. Made from the spectrum of independent colours (lucid's parametrisation) and with L-BFGS, pictures come nearer to
the photograph than by the paper's own descent in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from .. import registry
from ..context import listen, say
from ..data.images import InputPicture, to_image
from ..drawing import layout
from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile
from ..errors import LayerError, OptionError
from ..layers import bottlenecks
from ..net import Net
from ..objectives import Objective
from ..registry import view
from ..running import footnote, recipe
from ..tapping import tap
from ..terms import total_variation
from ..tracing import PIXELS, Layer
from .ascent import Preview, PreviewEvery, Seed, Steps, Watch, ascend
from .likeness import Content
from .parametrizations import begin

Space = Literal["fourier", "pixels"]

_FEWEST, _MOST = 3, 8
"""Layers that are shown when none are named."""

_SIDE, _SMALL, _PER_ROW = 256, 150, 5

_STRENGTHS = (0.002, 0.005, 0.02)
"""The priors' strength in the first, second and last third of a network's depth."""

_NORM = 0.1
"""The strength of the norm for one of total variation."""

_USUAL_STEP = 0.1
"""What a difference between neighbours of 1 costs is counted from, in pixels in [0, 1]."""

_RATES = {"lbfgs": 1.0, "adam": 0.05}

_THROUGH = frozenset(("Dropout", "Dropout2d", "Identity", "Flatten", "Unflatten"))


@dataclass(frozen=True)
class Natural:
    """What an unnatural picture costs: values far from the network's mean, and neighbours that differ.

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
        """Return the cost of every picture, (n, c, h, w) to (n,)."""
        away = (activity - activity.new_tensor(self.mean)[:, None, None]).flatten(1)
        norm = (2 * away).abs().pow(self.alpha).mean(1)
        rough = total_variation(activity / _USUAL_STEP, self.beta) / away.shape[1]
        return self.norm * norm + self.tv * rough

    def __str__(self) -> str:
        return "natural()"

    def title(self, net: Net) -> str:
        """Say in plain words what is asked for."""
        return "how unnatural it is"


@view(
    "Inversion",
    paper="Mahendran & Vedaldi 2014, arXiv:1412.0035",
    caveat="shows one of many pictures that a layer takes for the photograph; colours and smoothness that it does not "
    "fix come from the priors",
)
def invert(
    net: Net,
    picture: Any,
    *,
    layers: Annotated[
        list[str] | None, "the layers to invert; by default up to eight, spread over the network, and always the last"
    ] = None,
    repeats: Annotated[int, "how many pictures for every layer, from other noise: what differs, the layer ignores"] = 1,
    steps: Annotated[int, "how often a layer's picture is looked at, at most"] = 150,
    strength: Annotated[float, "factor of the priors, which say what is natural: more is smoother"] = 1.0,
    beta: Annotated[float, "exponent of the total variation: 2 is smooth, 1 has sharp edges and spikes"] = 2.0,
    space: Annotated[Space, "what is changed: 'fourier', the spectrum, or 'pixels' as in the paper"] = "fourier",
    optimiser: Annotated[Literal["lbfgs", "adam"], "'lbfgs' or 'adam'"] = "lbfgs",
    rate: Annotated[float | None, "the optimiser's rate; 1 for lbfgs and 0.05 for adam by default"] = None,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 50,
) -> Gallery:
    """Make the picture that a layer's activity still allows, for layer after layer: what each has kept of a photograph.

    The error under a picture is |A(x) - A(x0)| / |A(x0)| in the layer's activity A. The values are `picture` (c, h, w),
    `inversions` (layers, repeats, c, h, w) in [0, 1] and `errors` (layers, repeats). Raises LayerError for a layer that
    is zero for this picture, OptionError for settings out of range.
    """
    if repeats < 1 or strength < 0 or beta <= 0:
        raise OptionError(
            f"repeats is at least 1, strength at least 0, beta above 0, not {repeats}, {strength}, {beta}"
        )
    if space not in ("fourier", "pixels") or optimiser not in _RATES:
        raise OptionError(f"space is fourier or pixels, optimiser lbfgs or adam, not {space!r} and {optimiser!r}")
    how = Steps(steps, by=optimiser, rate=_RATES[optimiser] if rate is None else rate)
    seen = net.prepare(picture)
    chosen = [net.layer(name) for name in layers] if layers else bottlenecks(net)
    priors = [_prior(net, layer, strength, beta) for layer in chosen]
    with listen() as remarks:
        seeds = range(seed, seed + repeats)
        values = _invert_each(net, net.pixels(seen), chosen, priors, space, how, seeds, (preview, preview_every))
    options = {
        "layers": [layer.name for layer in chosen],
        "repeats": repeats,
        "strength": strength,
        "alpha": priors[0].alpha,
        "beta": beta,
        "total_variation": [prior.tv for prior in priors],
        "norm": [prior.norm for prior in priors],
        "space": space,
        "optimiser": optimiser,
        "steps": steps,
        "rate": how.rate,
        "seed": seed,
    }
    sheet = _sheet(net, seen, chosen, values, seeds, remarks)
    return Gallery(sheet, values, recipe(net, "invert", [seen], "", options, remarks))


def _targets(net: Net, pixels: Tensor, chosen: Sequence[Layer]) -> list[Content]:
    with torch.no_grad():
        readings = tap(net, pixels, [layer.name for layer in chosen])
    for layer in chosen:
        if not readings[layer.name].any():
            raise LayerError(
                f"{layer.name or 'the output'} of {net.name} is zero for this picture: there is nothing to invert. "
                "Leave it out of layers"
            )
    return [Content(layer.name, readings[layer.name].detach()) for layer in chosen]


def _prior(net: Net, layer: Layer, strength: float, beta: float) -> Natural:
    names = list(net.layers)
    depth = names.index(layer.name) / len(names)
    tv = strength * _STRENGTHS[int(depth * len(_STRENGTHS))]
    return Natural(tv, _NORM * tv, net.mean, beta=beta)


def _invert_each(
    net: Net,
    pixels: Tensor,
    chosen: Sequence[Layer],
    priors: Sequence[Natural],
    space: Space,
    how: Steps,
    seeds: Sequence[int],
    shown: tuple[Path | None, int],
) -> dict[str, Tensor]:
    """Invert layer after layer, each as far as the network must run for it, until all are done or it is interrupted."""
    targets = _targets(net, pixels, chosen)
    grey = torch.full_like(pixels, 0.5).repeat(len(seeds), 1, 1, 1)
    inversions = list[Tensor]()
    for target, prior in zip(targets, priors, strict=True):
        objective = Objective(((-1.0, target), (-1.0, prior)))
        start = begin(space, grey, list(seeds))
        watch = Watch(f"inverting {target.layer or 'the output'}", *shown)
        made = ascend(net, [objective], start, steps=how, seeds=seeds, redirect=False, watch=watch)
        inversions.append(made.pixels)
        if made.interrupted:
            break
    if len(inversions) < len(chosen):
        say(f"not inverted: {', '.join(layer.name or 'the output' for layer in chosen[len(inversions) :])}")
    found = [errors(net, target, one) for target, one in zip(targets, inversions, strict=False)]
    return {"picture": pixels[0], "inversions": torch.stack(inversions), "errors": torch.stack(found)}


def errors(net: Net, target: Content, pixels: Tensor) -> Tensor:
    """Return |A(x) - A(x0)| / |A(x0)| of pictures (n, c, h, w) in the target's layer, (n,)."""
    with torch.no_grad():
        return target.read(tap(net, pixels, [target.layer])[target.layer]).float().sqrt()


def _sheet(
    net: Net,
    seen: InputPicture,
    chosen: Sequence[Layer],
    values: dict[str, Tensor],
    seeds: Sequence[int],
    remarks: list[str],
) -> Sheet:
    inversions, found = values["inversions"].float().cpu(), values["errors"].cpu()
    names = [layer.name or "output" for layer in chosen[: len(inversions)]]
    several = len(seeds) > 1
    side = _SMALL if several else _SIDE
    first = Tile(_shown(values["picture"].float().cpu(), side), "" if several else "the photograph, as seen")
    rows = list[tuple[Tile | None, ...]]()
    if several:
        for i in range(len(seeds)):
            tiles = [
                Tile(_shown(one[i], side), _percent(float(e[i]))) for one, e in zip(inversions, found, strict=True)
            ]
            rows.append((first if i == 0 else None, *tiles))
    else:
        tiles = [first]
        for name, one, error in zip(names, inversions, found, strict=True):
            tiles.append(Tile(_shown(one[0], side), f"{name}\nerror {_percent(float(error[0]))}"))
        across = -(-len(tiles) // -(-len(tiles) // _PER_ROW))
        rows += [tuple(tiles[i : i + across]) for i in range(0, len(tiles), across)]
    return Sheet(
        f"What each layer of {net.name} has kept of the photograph",
        tuple(rows),
        "made to have the same activity in one layer · error: distance from the photograph's, as a share of that"
        + (f" · {seen.name}" if seen.name else ""),
        footnote(net, registry.VIEWS["invert"], remarks),
        ("the photograph", *names) if several else (),
        tuple(f"seed {seed}" for seed in seeds) if several else (),
    )


def _shown(pixels: Tensor, side: int) -> Any:
    return layout.enlarged(to_image(pixels.numpy()), side)


def _percent(share: float) -> str:
    return f"{layout.number(100 * share)} %"
