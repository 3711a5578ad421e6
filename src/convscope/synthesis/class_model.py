"""What a class looks like to the network.

Simonyan, Vedaldi and Zisserman (arXiv:1312.6034, sec. 2): from the zero image climb

    argmax over I of   S_c(I) - lambda ||I||^2

with the score S_c before the softmax (its probability could also be raised by lowering all other classes), and add the
mean picture at the end. I is what a picture adds to the network's mean, in units of pixels, black to white being 1. Of
a linear score w . I the class model is w / (2 lambda).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from .. import registry
from ..context import listen
from ..data.images import to_image
from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile, enlarged, in_rows, number
from ..errors import ObjectiveError, OptionError
from ..net import Net
from ..objectives import Objective, as_objective
from ..predictions import predict
from ..registry import view
from ..running import footnote, recipe
from ..terms import Penalty
from .ascent import Preview, PreviewEvery, Seed, Steps, Watch, ascend
from .many import Settings, make_many, refuse_dead, settle_settings
from .parametrizations import Pixels
from .presets import OptimiserOption, Preset, RateOption, SpaceOption, StepsOption, TransformOption

_PRESETS = {
    "clear": Preset("fourier", "standard", Steps(256, rate=0.02), start="zero", spread=0.0, bounded=False),
    "paper": Preset("pixels", "none", Steps(256, rate=0.01), start="zero", spread=0.0, bounded=False),
}
_CONTRAST = 0.2
_MOST_CONTRAST = 4.0


@view(
    "Class model",
    paper="Simonyan et al. 2013, arXiv:1312.6034, sec. 2",
    caveat="shows what raises the score, which need not be what the class looks like to us",
)
def class_model(
    net: Net,
    *,
    of: Annotated[str | int | Sequence[str | int], "a class, by name or index; several with semicolons between"],
    l2: Annotated[
        float | None,
        "the paper's lambda: what a unit of the squared norm of the picture costs, in units of the score; by default "
        "what keeps the values near those of pixels, as measured for each class",
    ] = None,
    preset: Annotated[
        Literal["clear", "paper"], "clear changes the spectrum and is shaken; paper changes pixels and is not"
    ] = "clear",
    space: SpaceOption = None,
    transform: TransformOption = None,
    steps: StepsOption = None,
    rate: RateOption = None,
    optimiser: OptimiserOption = None,
    batch: Annotated[int | None, "classes at once; by default what a short measurement finds quickest"] = None,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 50,
) -> Gallery:
    """Climb the class score less lambda times the squared norm, from the zero image, and add the mean at the end.

    Returns a Gallery with the models (n, c, h, w), the mean added and not cut to [0, 1], the pictures shown of them, in
    [0, 1] and with more contrast, their scores and lambdas.
    Raises ObjectiveError for what is no class, OptionError for an unknown preset or a lambda below 0.
    """
    if preset not in _PRESETS:
        raise OptionError(f"there is no preset {preset!r} of class models; there are 'clear' and 'paper'")
    if l2 is not None and not l2 >= 0:
        raise OptionError(f"l2 is the paper's lambda, at least 0, not {l2}")
    classes = _classes(net, of)
    chosen = settle_settings(
        _PRESETS[preset], space=space, transform=transform, steps=steps, rate=rate, optimiser=optimiser
    )
    settings = Settings(chosen, seed, batch, Watch("class model", preview, preview_every))
    with listen() as remarks:
        lambdas = [_fitting(net, objective) if l2 is None else l2 for objective in classes]
        penalty = Objective(((1.0, Penalty("l2", net.mean)),))
        asked = [objective - penalty * weight for objective, weight in zip(classes, lambdas, strict=True)]
        made, settings = make_many(net, asked, settings)
        refuse_dead(net, asked, made)
    pictures = {i: _in_contrast(net, one.pixels[0]) for i, one in sorted(made.items())}
    values = {
        "models": torch.cat([made[i].pixels for i in pictures]),
        "pictures": torch.stack([picture for picture, _ in pictures.values()]),
        "scores": torch.cat([made[i].scores for i in pictures]),
        "lambdas": torch.tensor([lambdas[i] for i in pictures]),
    }
    tiles = [_tile(net, classes[i], lambdas[i], *shown) for i, shown in pictures.items()]
    sheet = _sheet(net, classes, tiles, settings, footnote(net, registry.VIEWS["class_model"], remarks))
    options = {"preset": preset, "l2": l2, **settings.to_dict(), "size": list(net.size)}
    return Gallery(sheet, values, recipe(net, "class_model", [], "; ".join(map(str, classes)), options, remarks))


def _sheet(net: Net, classes: list[Objective], tiles: list[Tile], settings: Settings, note: str) -> Sheet:
    what = net.class_name(_index(classes[0])) if len(classes) == 1 else f"{len(classes)} classes"
    return Sheet(
        f"What {what} look{'s' * (len(classes) == 1)} like to {net.name}",
        in_rows(tiles),
        f"score less lambda times the squared norm, mean added · {settings.summary(net)}",
        note,
    )


def _classes(net: Net, of: str | int | Sequence[str | int]) -> list[Objective]:
    pieces = [of] if isinstance(of, (str, int)) else of
    texts = [part for piece in pieces for part in (piece.split(";") if isinstance(piece, str) else [piece])]
    found = [as_objective(net, text) for text in texts]
    for text, objective in zip(texts, found, strict=True):
        if objective.class_index is None:
            raise ObjectiveError(f"{text!r} is not a class: class_model is asked for classes, maximize for other units")
    return found


def _index(objective: Objective) -> int:
    assert objective.class_index is not None
    return objective.class_index


def _fitting(net: Net, objective: Objective) -> float:
    """Return the lambda at which a score linear with the gradient found would be a picture of modest contrast.

    The gradient is taken after a few steps without penalty: at the zero image many networks are hardly awake.
    """
    mean = torch.tensor(net.mean, device=net.device)[None, :, None, None].expand(1, net.channels, *net.size)
    few = Steps(8, by="ascent", scaling="mean", rate=0.02)
    with listen():
        reached = ascend(net, [objective], Pixels(mean, bounded=False), steps=few, watch=Watch("weighing"))
    pixels = reached.finished().pixels.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(net, pixels).sum(), pixels)
    return float(gradient.square().mean().sqrt()) / (2 * _CONTRAST)


def _in_contrast(net: Net, model: Tensor) -> tuple[Tensor, float]:
    """Return a model (c, h, w) as a picture in [0, 1], its difference from the mean times the factor that fills it."""
    mean = torch.tensor(net.mean, device=model.device)[:, None, None].clamp(0.05, 0.95)
    away = model - mean
    room = torch.where(away > 0, 1 - mean, mean) / away.abs().clamp(min=1e-6)
    factor = min(_MOST_CONTRAST, float(room.flatten().kthvalue(1 + room.numel() // 100).values))
    return (mean + away * factor).clamp(0, 1), factor


def _tile(net: Net, objective: Objective, weight: float, picture: Tensor, factor: float) -> Tile:
    index = _index(objective)
    chance = float(predict(net, picture[None])[0, index])
    return Tile(
        enlarged(to_image(picture.float().cpu().numpy()), 280),
        f"{index} {net.class_name(index)} · p = {chance:.2f} · lambda {number(weight)} · contrast × {factor:.2g}",
    )
