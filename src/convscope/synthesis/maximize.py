"""What would excite a unit most: pictures made from nothing.

Erhan et al. 2009 asked x* = argmax a(x). By itself that gives noise: Yosinski et al. (arXiv:1506.06579) tidy the
picture after every step, lucid (Olah et al., Distill 2017) changes its spectrum and transforms it before every look,
Fel et al. (arXiv:2306.06805) change the phase alone. All of them are settings of one loop, `synthesis.ascent`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor

from .. import registry
from ..context import listen
from ..data.images import to_image
from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile, enlarged, in_rows, number
from ..errors import LayerError, ObjectiveError, OptionError
from ..layers import channelled_layer
from ..net import Net
from ..objectives import Objective, Unit, as_objective
from ..predictions import predict
from ..registry import view
from ..running import footnote, recipe
from ..terms import Diversity
from ..tracing import OUTPUT, Layer
from .ascent import Made, Preview, PreviewEvery, Seed, Watch
from .many import Settings, make_many, refuse_dead, settle_settings
from .presets import (
    OptimiserOption,
    ParametrizationOption,
    PresetName,
    RateOption,
    SpaceOption,
    StepsOption,
    TransformOption,
)
from .presets import preset as find_preset

_PROBE = 24
"""Steps of the picture that says how large a score is, against which diversity is weighed."""

Batch = Annotated[int | None, "units at once; by default what a short measurement finds quickest, noted in the recipe"]


@view("What excites a unit", paper="Olah et al. 2017, doi:10.23915/distill.00007; Fel et al. 2023, arXiv:2306.06805")
def maximize(
    net: Net,
    *,
    of: Annotated[
        str | int | Objective | Sequence[str | int | Objective],
        "what to excite: a class, layer:channel (its mean over places), layer:channel@centre, layer:0-15, a layer, "
        "sums with penalties as 'conv5:7 - 0.001*tv()'; several with semicolons between",
    ],
    variants: Annotated[int, "how many different pictures for each"] = 1,
    diversity: Annotated[float, "how much the variants of one unit are driven apart, in shares of its score"] = 0.2,
    between: Annotated[int | None, "of two units: this many pictures on the way from the first to the second"] = None,
    preset: PresetName = "lucid",
    space: SpaceOption = None,
    start: ParametrizationOption = None,
    transform: TransformOption = None,
    steps: StepsOption = None,
    rate: RateOption = None,
    optimiser: OptimiserOption = None,
    batch: Batch = None,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 50,
) -> Gallery:
    """Make the pictures that excite units, channels, layers or classes most, many at once.

    Returns a Gallery with the pictures (n, c, h, w) in [0, 1] and the scores they reach, not shaken. The network stops
    at the layer asked for. Raises SynthesisError where no gradient reaches a picture, OptionError for unknown presets.
    """
    chosen = settle_settings(
        find_preset(preset), space=space, start=start, transform=transform, steps=steps, rate=rate, optimiser=optimiser
    )
    settings = Settings(chosen, seed, batch, Watch("making", preview, preview_every))
    objectives = _objectives(net, of)
    if variants < 1:
        raise OptionError(f"variants is how many pictures for each unit, at least 1, not {variants}")
    titles = [str(objective).replace("@mean", "") for objective in objectives]
    if between is not None:
        objectives, titles = _between(objectives, titles, between)
    with listen() as remarks:
        asked = objectives if variants == 1 else _apart(net, objectives, settings, diversity)
        made, settings = make_many(net, asked, settings, copies=variants)
        refuse_dead(net, objectives, made)
    sheet = Sheet(
        f"What excites {titles[0]}" if len(titles) == 1 else f"What excites {len(titles)} units of {net.name}",
        _rows(net, objectives, titles, made),
        settings.summary(net),
        footnote(net, registry.VIEWS["maximize"], remarks),
    )
    own = {"variants": variants, "diversity": diversity if variants > 1 else None, "between": between}
    options = {"preset": preset, **settings.to_dict(), **own, "size": list(net.size)}
    return Gallery(sheet, _values(made), recipe(net, "maximize", [], "; ".join(map(str, objectives)), options, remarks))


def _values(made: Mapping[int, Made]) -> dict[str, Tensor]:
    ordered = [made[i] for i in sorted(made)]
    return {
        "pictures": torch.cat([one.pixels for one in ordered]),
        "scores": torch.cat([one.scores for one in ordered]),
    }


def _objectives(net: Net, of: Any) -> list[Objective]:
    """Read one objective or several; "layer:0-15" stands for these channels, and a channel for its mean over places."""
    texts = of if isinstance(of, (list, tuple)) else [of]
    found = list[Objective]()
    for text in texts:
        for piece in text.split(";") if isinstance(text, str) else [text]:
            match = re.fullmatch(r"\s*(.+):(\d+)-(\d+)((?:@\w+)?)\s*", piece) if isinstance(piece, str) else None
            if match is None:
                found.append(as_objective(net, piece).at("mean"))
                continue
            layer, first, last, position = match.groups()
            if int(last) < int(first):
                raise ObjectiveError(
                    f"{piece.strip()!r} ends before it begins: ask as {layer}:{last}-{first}{position}"
                )
            found += [as_objective(net, f"{layer}:{k}{position}").at("mean") for k in range(int(first), int(last) + 1)]
    return found


def _between(objectives: list[Objective], titles: list[str], count: int) -> tuple[list[Objective], list[str]]:
    """Return the way from the first unit to the second in equal steps."""
    if len(objectives) != 2 or count < 2:
        raise OptionError(
            f"between=5 makes 5 pictures on the way between two units, as of='conv5:1; conv5:2', not {count} of "
            f"{len(objectives)}"
        )
    first, second = objectives
    shares = [i / (count - 1) for i in range(count)]
    mixed = [first * (1 - share) + second * share for share in shares]
    ends = [first, *mixed[1:-1], second]
    return ends, [f"{titles[0]} → {titles[1]}, {share:.0%}" for share in shares]


def _apart(net: Net, objectives: list[Objective], settings: Settings, weight: float) -> list[Objective]:
    """Add the objective term to differ, as heavy as a share of what each unit's score comes to."""
    probe = replace(settings, preset=replace(settings.preset, steps=replace(settings.preset.steps, count=_PROBE)))
    with listen():
        scales, _ = make_many(net, objectives, replace(probe, watch=Watch("weighing")))
    return [
        objective + Objective(((weight * abs(float(one.scores.mean())), Diversity(_spatial_only(net, objective))),))
        for objective, one in ((objectives[i], scales[i].finished()) for i in sorted(scales))
    ]


def _spatial_only(net: Net, objective: Objective) -> str:
    """Return the layer in which pictures for an objective are compared: its own, or the last with places."""
    layer: Layer | None = net.layers.get(objective.layers[0])
    if layer is not None and layer.spatial and layer.positions > 1:
        return layer.name
    placed = [one.name for one in net.layers.values() if one.spatial and one.leaf and one.positions > 1]
    if not placed:
        raise LayerError(
            f"{net.name} has no layer with spatial positions in which pictures could differ: use variants=1"
        )
    return placed[-1]


def _rows(
    net: Net, objectives: list[Objective], titles: list[str], made: Mapping[int, Made]
) -> tuple[tuple[Tile, ...], ...]:
    """Lay pictures out: those of one unit as a row, single ones as a block."""
    side = 280 if len(made) <= 6 else 200
    tiles = [
        tuple(
            Tile(enlarged(to_image(pixels), side), caption)
            for pixels, caption in zip(
                made[i].pixels.float().cpu().numpy(), _captions(net, objectives[i], titles[i], made[i]), strict=True
            )
        )
        for i in sorted(made)
    ]
    if len(tiles[0]) > 1:
        return tuple(tiles)
    return in_rows([row[0] for row in tiles])


def _captions(net: Net, objective: Objective, title: str, one: Made) -> list[str]:
    """Say of every picture what it is for and how strongly it excites that; of a class how sure the network is."""
    index = objective.class_index
    named = f"{title} {net.class_name(index)}" if index is not None and net.classes else title
    values = [number(float(score)) for score in one.scores]
    if index is not None:
        chances = predict(net, one.pixels)[:, index].tolist()
        values = [f"{value}, p = {chance:.2f}" for value, chance in zip(values, chances, strict=True)]
    still = ["" if moved else " · never moved" for moved in one.moved]
    return [f"{named} · {value}{end}" for value, end in zip(values, still, strict=True)]


@view("Every filter of a layer", paper="Erhan et al. 2009; Olah et al. 2017, doi:10.23915/distill.00007")
def filters_by_ascent(
    net: Net,
    *,
    layer: Annotated[str, "the layer whose channels are to be seen"],
    channels: Annotated[str | None, "which, as 0-31 or 3,17,40; all by default"] = None,
    size: Annotated[int | None, "side of every picture in pixels; by default what the layer's field asks for"] = None,
    preset: PresetName = "lucid",
    steps: StepsOption = None,
    rate: RateOption = None,
    transform: TransformOption = None,
    batch: Batch = None,
    seed: Seed = 0,
    preview: Preview = None,
    preview_every: PreviewEvery = 50,
) -> Gallery:
    """Make the picture that excites each channel of a layer most, as one mosaic: what deep filters look like.

    Where `filters` shows the weights of the first layer, this works for any layer. Returns a Gallery with the pictures
    (channels, c, h, w) in [0, 1] and their scores. Raises LayerError for a layer without channels.
    """
    chosen = channelled_layer(net, layer)
    numbers = _channels(chosen, channels)
    sized = net.sized(size or _fitting(net, chosen)) if chosen.spatial else net if size is None else net.sized(size)
    objectives = [Objective(((1.0, Unit(chosen.name, k, "mean" if chosen.spatial else None)),)) for k in numbers]
    settings = Settings(
        settle_settings(find_preset(preset), steps=steps, rate=rate, transform=transform),
        seed,
        batch,
        Watch(f"filters of {chosen.name or 'the output'}", preview, preview_every),
    )
    with listen() as remarks:
        made, settings = make_many(sized, objectives, settings)
        refuse_dead(sized, objectives, made)
    sheet = _mosaic(sized, chosen, numbers, made, settings, footnote(net, registry.VIEWS["filters_by_ascent"], remarks))
    options = {
        "layer": chosen.name,
        "channels": channels,
        "size": sized.size[0],
        "preset": preset,
        **settings.to_dict(),
    }
    return Gallery(sheet, _values(made), recipe(net, "filters_by_ascent", [], "", options, remarks))


def _channels(layer: Layer, asked: str | None) -> list[int]:
    count = layer.shape[0]
    if asked is None:
        return list(range(count))
    found = list[int]()
    for piece in asked.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", piece)
        if match is None:
            raise OptionError(f"channels are given as 0-31 or 3,17,40, not {asked!r}")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if not found or max(found) >= count:
        raise ObjectiveError(f"layer {layer.name!r} has channels 0 to {count - 1}: cannot show {asked}")
    return found


def _fitting(net: Net, layer: Layer) -> int:
    """Return a side that shows a unit's field about twice, and no more than the network reads."""
    field = max(layer.field.size)
    return int(min(max(48, 16 * round(field * 2 / 16)), *net.size))


def _mosaic(
    net: Net, layer: Layer, numbers: list[int], made: Mapping[int, Made], settings: Settings, note: str
) -> Sheet:
    most = 16 if len(made) > 64 else 8
    side = 64 if len(made) > 64 else 130
    tiles = [
        Tile(
            enlarged(to_image(made[i].pixels[0].float().cpu().numpy()), side),
            f"{numbers[i]} · {number(float(made[i].scores[0]))}"
            if any(made[i].moved)
            else f"{numbers[i]} · never moved",
        )
        for i in sorted(made)
    ]
    what = "classes" if layer.name == OUTPUT else f"channels of {layer.name}"
    return Sheet(
        f"What the {what} of {net.name} look for",
        in_rows(tiles, most=most),
        f"channel · mean activity · {settings.summary(net)}",
        note,
    )
