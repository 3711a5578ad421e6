"""Maps of several methods while the network loses its weights, in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from ..drawing import colours, layout
from ..drawing.drawings import Gallery, Heatmap, as_picture, robust_limit
from ..drawing.layout import Sheet, Tile
from ..errors import OptionError
from ..net import Net
from ..predictions import ObjectiveLike
from .random_weights import Initialisation
from .randomisation import Cascade, cascade

_TILE = 132


def cascades(
    net: Net,
    heatmaps: Sequence[Heatmap],
    *,
    stages: int = 6,
    independent: bool = False,
    weights: Initialisation = "he",
    seed: int = 0,
    of: ObjectiveLike = None,
) -> Gallery:
    """Draw maps of one picture by several methods while the network loses its weights: a row per method.

    The options are those of `cascade`. Raises OptionError when there is no map.
    """
    if not heatmaps:
        raise OptionError("cascades draws one row per map: give at least one map")
    rows = [
        cascade(net, heatmap, stages=stages, independent=independent, weights=weights, seed=seed, of=of)
        for heatmap in heatmaps
    ]
    return draw_cascades(net, rows)


def draw_cascades(net: Net, rows: Sequence[Cascade]) -> Gallery:
    """Draw cascades of one picture, all of the same stages."""
    first, methods = rows[0].heatmap, [row.heatmap.recipe.method for row in rows]
    maps = {row.heatmap.recipe.method: torch.stack([map_.float() for map_ in row.maps]) for row in rows}
    options = {"stages": len(rows[0].stages)}
    recipe = replace(first.recipe, method=f"check: {', '.join(methods)}", options=options, remarks=())
    return Gallery(_sheet(net, rows), maps, recipe)


def _sheet(net: Net, rows: Sequence[Cascade]) -> Sheet:
    first, independent = rows[0].heatmap, rows[0].independent
    picture = Tile(layout.enlarged(first.picture.image(), _TILE))
    tiles = [[_tile(row, stage) for stage in range(len(row.maps))] for row in rows]
    names = [name or "all" for name in rows[0].stages]
    return Sheet(
        title="Independent randomisation, group by group" if independent else "Cascading randomisation, output first",
        rows=tuple((None if number else picture, *line) for number, line in enumerate(tiles)),
        subtitle=f"{first.title} · {net.name}" + (f" · {first.picture.name}" if first.picture.name else ""),
        note="Similarity to the original map: rank correlation of the values · of their magnitudes · structural "
        "similarity. A map that depends on the weights loses all three. Each map is on its own colour scale.",
        columns=("picture", "original", *(f"{'only ' if independent else 'to '}{name}" for name in names)),
        labels=tuple(row.heatmap.subtitle.partition(" · ")[0] for row in rows),
    )


def _tile(row: Cascade, stage: int) -> Tile:
    values = row.maps[stage].detach().float().cpu().numpy()
    if row.heatmap.projects:
        return Tile(
            layout.enlarged(as_picture(values, row.heatmap.picture.display.bands)[0], _TILE), _caption(row, stage)
        )
    flat = values.sum(0)
    limit = robust_limit(flat)
    low, colour = (-limit, "polar") if row.heatmap.signed else (0.0, "fire")
    return Tile(layout.enlarged(Image.fromarray(colours.paint(flat, low, limit, colour)), _TILE), _caption(row, stage))


def _caption(row: Cascade, stage: int) -> str:
    figures = [each[stage - 1] for each in (row.signed, row.magnitude, row.ssim)] if stage else []
    return " · ".join(f"{round(figure, 2) + 0.0:.2f}".replace("-", "−") for figure in figures)
