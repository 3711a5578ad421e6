"""Activation maximization: pictures that excite a unit most, optimized from noise.

Erhan et al. 2009 proposed x* = argmax a(x). By itself that gives noise: Yosinski et al. (arXiv:1506.06579) regularize
the picture after every step, lucid (Olah et al., Distill 2017) optimizes its spectrum under random transforms, Fel et
al. (arXiv:2306.06805) optimize the phase alone. All of them are settings of one loop, `synthesis.ascent`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor

from ..context import listen
from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile, enlarged, in_rows, number
from ..errors import LayerError, ObjectiveError, OptionError
from ..layers import picture_layers
from ..net import Net
from ..objectives import Objective, as_objective
from ..options import Range
from ..predictions import answers
from ..recipes import Recipe
from ..registry import view
from ..terms import Diversity
from ..tracing import Layer
from .ascent import AscentResult, Seed
from .many import Settings, maximize_many, refuse_dead
from .monitor import Monitor, Preview, PreviewEvery
from .presets import (
    InitOption,
    OptimizerOption,
    ParametrizationOption,
    PresetName,
    RateOption,
    StepsOption,
    TransformOption,
    find_preset,
)

_PROBE = 24
"""Steps of the short run that measures how large a unit's score is, against which diversity is weighted."""

Batch = Annotated[int | None, "objectives at once; default: what a short measurement finds fastest", Range(1)]


@view(
    "Activation maximization",
    paper="Olah et al. 2017, doi:10.23915/distill.00007; Fel et al. 2023, arXiv:2306.06805",
    group="make",
)
def maximize(
    net: Net,
    *,
    of: Annotated[
        str | int | Objective | Sequence[str | int | Objective],
        "what to maximize: a class, layer:channel (its spatial mean), layer:channel@centre, layer:0-15, a layer, "
        "sums with penalties such as 'conv5:7 - 0.001*tv()'; several separated by semicolons",
    ],
    variants: Annotated[int, "number of different pictures for each objective", Range(1)] = 1,
    diversity: Annotated[float, "weight of the diversity term between variants, relative to the unit's score"] = 0.2,
    between: Annotated[
        int | None, "number of pictures on the way from the first of two objectives to the second"
    ] = None,
    preset: PresetName = "lucid",
    parametrization: ParametrizationOption = None,
    init: InitOption = None,
    transform: TransformOption = None,
    steps: StepsOption = None,
    rate: RateOption = None,
    optimizer: OptimizerOption = None,
    batch: Batch = None,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 50,
) -> Gallery:
    """Synthesize the pictures that maximize units, channels, layers or classes, many at once.

    Returns a Gallery with `pictures` (n, c, h, w) in [0, 1] and `scores` (n,), those of the pictures without transform.
    The network stops at the layer that the objective reads. Raises SynthesisError where no gradient reaches a picture,
    OptionError for an unknown preset, ObjectiveError.
    """
    chosen = find_preset(preset).with_options(
        parametrization=parametrization, init=init, transform=transform, steps=steps, rate=rate, optimizer=optimizer
    )
    settings = Settings(chosen, seed, batch, Monitor("maximizing", preview, preview_every))
    objectives = _objectives(net, of)
    titles = [str(objective).replace("@mean", "") for objective in objectives]
    if between is not None:
        objectives, titles = _between(objectives, titles, between)
    targets = objectives if variants == 1 else _diverse(net, objectives, settings, diversity)
    results, settings = maximize_many(net, targets, settings, copies=variants)
    refuse_dead(net, objectives, results)
    sheet = Sheet(
        f"Maximally activating pictures of {titles[0] if len(titles) == 1 else f'{len(titles)} units of {net.name}'}",
        _rows(net, objectives, titles, results),
        settings.summary(net),
    )
    draft = Recipe(objective="; ".join(map(str, objectives)), settled=settings.settled())
    return Gallery(sheet, gathered(results), draft)


def gathered(results: Mapping[int, AscentResult]) -> dict[str, Tensor]:
    """Return the pictures (n, c, h, w) and scores (n,) of all objectives, in their order."""
    ordered = [results[i] for i in sorted(results)]
    return {
        "pictures": torch.cat([result.pixels for result in ordered]),
        "scores": torch.cat([result.scores for result in ordered]),
    }


def _objectives(net: Net, of: Any) -> list[Objective]:
    """Read one objective or several; "layer:0-15" stands for these channels, a channel for its spatial mean."""
    parts = of if isinstance(of, (list, tuple)) else [of]
    pieces = [piece for part in parts for piece in (part.split(";") if isinstance(part, str) else [part])]
    return [objective for piece in pieces for objective in _of_piece(net, piece)]


def _of_piece(net: Net, piece: Any) -> list[Objective]:
    match = re.fullmatch(r"\s*(.+):(\d+)-(\d+)((?:@\w+)?)\s*", piece) if isinstance(piece, str) else None
    if match is None:
        return [as_objective(net, piece).at("mean")]
    layer, first, last, position = match.groups()
    if int(last) < int(first):
        raise ObjectiveError(f"{piece.strip()!r} is an empty range: use {layer}:{last}-{first}{position}")
    return [as_objective(net, f"{layer}:{k}{position}").at("mean") for k in range(int(first), int(last) + 1)]


def _between(objectives: list[Objective], titles: list[str], count: int) -> tuple[list[Objective], list[str]]:
    """Interpolate from the first objective to the second in equal steps."""
    if len(objectives) != 2 or count < 2:
        raise OptionError(
            f"between=5 makes 5 pictures on the way between two units, such as of='conv5:1; conv5:2', not {count} of "
            f"{len(objectives)}"
        )
    first, second = objectives
    fractions = [i / (count - 1) for i in range(count)]
    mixed = [first * (1 - fraction) + second * fraction for fraction in fractions]
    ends = [first, *mixed[1:-1], second]
    return ends, [f"{titles[0]} → {titles[1]}, {fraction:.0%}" for fraction in fractions]


def _diverse(net: Net, objectives: list[Objective], settings: Settings, weight: float) -> list[Objective]:
    """Add a diversity term to each objective, weighted by the score that a short run reaches."""
    probe = replace(settings, preset=settings.preset.with_steps(_PROBE), monitor=Monitor("measuring scores"))
    with listen():
        results, _ = maximize_many(net, objectives, probe)
    scores = {i: abs(float(result.finished().scores.mean())) for i, result in sorted(results.items())}
    return [
        objectives[i] + Objective(((weight * score, Diversity(_comparing_layer(net, objectives[i]))),))
        for i, score in scores.items()
    ]


def _comparing_layer(net: Net, objective: Objective) -> str:
    """Return the layer in which variants are compared: the objective's own, or the last with spatial positions."""
    layer: Layer | None = net.layers.get(objective.layers[0])
    if layer is not None and layer.spatial and layer.positions > 1:
        return layer.name
    spatial = [layer.name for layer in picture_layers(net) if layer.spatial and layer.leaf and layer.positions > 1]
    if not spatial:
        raise LayerError(
            f"{net.name} has no layer with spatial positions in which variants could differ: use variants=1"
        )
    return spatial[-1]


def _rows(
    net: Net, objectives: list[Objective], titles: list[str], results: Mapping[int, AscentResult]
) -> tuple[tuple[Tile, ...], ...]:
    """Lay pictures out: variants of one objective as a row, single ones as a block."""
    side = 280 if len(results) <= 6 else 200
    tiles = [
        tuple(
            Tile(enlarged(net.image(pixels), side), caption)
            for pixels, caption in zip(
                results[i].pixels.float().cpu().numpy(),
                _captions(net, objectives[i], titles[i], results[i]),
                strict=True,
            )
        )
        for i in sorted(results)
    ]
    if len(tiles[0]) > 1:
        return tuple(tiles)
    return in_rows([row[0] for row in tiles])


def _captions(net: Net, objective: Objective, title: str, result: AscentResult) -> list[str]:
    """Caption each picture with its objective and score; for a class also with its probability, if there is one."""
    index = objective.class_index
    name = f"{title} {net.class_name(index)}" if index is not None and net.classes else title
    values = [number(float(score)) for score in result.scores]
    if index is not None and net.head.kind != "value" and len(net.output.shape) == 1:
        head, shares = answers(net, result.pixels)
        values = [f"{v}, {head.equals} {p:.2g}" for v, p in zip(values, shares[:, index].tolist(), strict=True)]
    endings = ["" if reached else " · no gradient" for reached in result.reached]
    return [f"{name} · {value}{ending}" for value, ending in zip(values, endings, strict=True)]
