"""Class model: the picture that a class score is highest for.

Simonyan, Vedaldi and Zisserman (arXiv:1312.6034, sec. 2): starting from the zero image, maximize

    S_c(I) - lambda ||I||^2

with the score S_c before the softmax (the probability could also be raised by lowering the other classes), and add the
mean picture at the end. I is the difference from the network's mean, in units of pixels, black to white being 1. For
a linear score w . I the class model is w / (2 lambda).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from ..context import listen
from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile, enlarged, in_rows, number
from ..errors import ObjectiveError
from ..net import Net
from ..objectives import Objective, as_objective
from ..options import Range
from ..predictions import answers
from ..recipes import Recipe
from ..registry import view
from ..terms import Penalty
from .ascent import AscentResult, Seed, ascend
from .many import Settings, maximize_many, refuse_dead
from .monitor import Monitor, Preview, PreviewEvery
from .optimizers import Optimizer
from .parametrizations import Pixels
from .presets import OptimizerOption, ParametrizationOption, Preset, RateOption, StepsOption, TransformOption

PRESETS = {
    "clear": Preset("fourier", "standard", Optimizer(256, rate=0.02), init="zero", deviation=0.0, bounded=False),
    "paper": Preset("pixels", "none", Optimizer(256, rate=0.01), init="zero", deviation=0.0, bounded=False),
}
_CONTRAST = 0.2
_MOST_CONTRAST = 4.0


@view(
    "Class model",
    paper="Simonyan et al. 2013, arXiv:1312.6034, sec. 2",
    caveat="shows what raises the score, which need not be what the class looks like to us",
    group="make",
)
def class_model(
    net: Net,
    *,
    of: Annotated[str | int | Sequence[str | int], "a class, by name or index; several separated by semicolons"],
    l2: Annotated[
        float | None,
        "lambda of the paper: weight of the squared L2 norm, in units of the score; default: measured for each class, "
        "so that values stay in the range of pixels",
        Range(0),
    ] = None,
    preset: Annotated[
        Literal["clear", "paper"], "clear: Fourier spectrum, with transforms; paper: pixels, without"
    ] = "clear",
    parametrization: ParametrizationOption = None,
    transform: TransformOption = None,
    steps: StepsOption = None,
    rate: RateOption = None,
    optimizer: OptimizerOption = None,
    batch: Annotated[int | None, "classes at once; default: what a short measurement finds fastest", Range(1)] = None,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 50,
) -> Gallery:
    """Maximize the class score minus lambda times the squared L2 norm, starting from the zero image.

    Returns a Gallery with `models` (n, c, h, w), the mean added and not clipped to [0, 1]; `pictures`, the same in
    [0, 1] and with more contrast; their `scores` and `lambdas` (n,). Raises ObjectiveError for an objective that is no
    class, OptionError for an unknown preset or a lambda below 0.
    """
    classes = _classes(net, of)
    chosen = PRESETS[preset].with_options(
        parametrization=parametrization, transform=transform, steps=steps, rate=rate, optimizer=optimizer
    )
    settings = Settings(chosen, seed, batch, Monitor("class model", preview, preview_every))
    lambdas = [_fitting(net, objective) if l2 is None else l2 for objective in classes]
    results, settings = regularised(net, classes, lambdas, settings)
    pictures = {i: with_contrast(net, result.pixels[0]) for i, result in sorted(results.items())}
    values = {
        "models": torch.cat([results[i].pixels for i in pictures]),
        "pictures": torch.stack([picture for picture, _ in pictures.values()]),
        "scores": torch.cat([results[i].scores for i in pictures]),
        "lambdas": torch.tensor([lambdas[i] for i in pictures]),
    }
    tiles = [_tile(net, classes[i], lambdas[i], *picture) for i, picture in pictures.items()]
    sheet = _sheet(net, classes, tiles, settings)
    settled = {**settings.settled(), "lambdas": lambdas}
    return Gallery(sheet, values, Recipe(objective="; ".join(map(str, classes)), settled=settled))


def regularised(
    net: Net, objectives: Sequence[Objective], lambdas: Sequence[float], settings: Settings
) -> tuple[dict[int, AscentResult], Settings]:
    """Maximize objectives minus lambda times the squared L2 norm; by the objective's number, with what was settled."""
    penalty = Objective(((1.0, Penalty("l2", net.mean)),))
    targets = [objective - penalty * weight for objective, weight in zip(objectives, lambdas, strict=True)]
    results, settings = maximize_many(net, targets, settings)
    refuse_dead(net, targets, results)
    return results, settings


def _sheet(net: Net, classes: list[Objective], tiles: list[Tile], settings: Settings) -> Sheet:
    what = net.class_name(_index(classes[0])) if len(classes) == 1 else f"{len(classes)} classes"
    return Sheet(
        f"Class model of {what} by {net.name}",
        in_rows(tiles),
        f"class score minus lambda times the squared L2 norm; mean added, contrast raised · {_meaning(net)} · "
        f"{settings.summary(net)}",
    )


def _classes(net: Net, of: str | int | Sequence[str | int]) -> list[Objective]:
    pieces = [of] if isinstance(of, (str, int)) else of
    texts = [part for piece in pieces for part in (piece.split(";") if isinstance(piece, str) else [piece])]
    classes = [as_objective(net, text) for text in texts]
    for text, objective in zip(texts, classes, strict=True):
        if objective.class_index is None:
            raise ObjectiveError(f"{text!r} is not a class: use maximize for other units")
    return classes


def _index(objective: Objective) -> int:
    assert objective.class_index is not None
    return objective.class_index


def _fitting(net: Net, objective: Objective) -> float:
    """Return the lambda at which a linear score with the measured gradient would give a picture of modest contrast.

    The gradient is taken after a few steps without penalty: at the zero image many units are silent.
    """
    mean = torch.tensor(net.mean, device=net.device)[None, :, None, None].expand(1, net.channels, *net.size)
    few = Optimizer(8, kind="ascent", scaling="mean", rate=0.02)
    with listen():
        result = ascend(
            net, [objective], Pixels(mean, bounded=False), optimizer=few, monitor=Monitor("measuring lambda")
        )
    pixels = result.finished().pixels.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(net, pixels).sum(), pixels)
    return float(gradient.square().mean().sqrt()) / (2 * _CONTRAST)


def with_contrast(net: Net, model: Tensor, factor: float | None = None) -> tuple[Tensor, float]:
    """Return a model (c, h, w) as a picture in [0, 1], and the factor by which its difference from the mean grew.

    The factor is that at which nearly all of it stays within the range, unless it is given.
    """
    mean = torch.tensor(net.mean, device=model.device)[:, None, None].clamp(0.05, 0.95)
    difference = model - mean
    if factor is None:
        room = torch.where(difference > 0, 1 - mean, mean) / difference.abs().clamp(min=1e-6)
        factor = min(_MOST_CONTRAST, float(room.flatten().kthvalue(1 + room.numel() // 100).values))
    return (mean + difference * factor).clamp(0, 1), factor


def _tile(net: Net, objective: Objective, weight: float, picture: Tensor, factor: float) -> Tile:
    index = _index(objective)
    head, numbers = answers(net, picture[None])
    shown, rank = float(numbers[0, index]), 1 + int((numbers[0] > numbers[0, index]).sum())
    said = f"{head.equals} {shown:.2g}" + (f", rank {rank} of {numbers.shape[1]:,}" if numbers.shape[1] > 1 else "")
    return Tile(
        enlarged(net.image(picture), 280),
        f"{index} {net.class_name(index)} · {said} · lambda {number(weight)} · contrast × {factor:.2g}",
    )


def _meaning(net: Net) -> str:
    """Say what the number under a picture is, and of which picture."""
    word = f"p: {net.head.word}" if net.head.equals.startswith("p") else net.head.word
    return f"{word} that {net.name} gives the picture shown, and its rank among the outputs"
