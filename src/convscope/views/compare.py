"""Methods side by side: the maps of one picture and objective by several methods, at the same size.

Maps of different methods have different units, so each is shown on its own scale. Two numbers do not depend on the
unit: the fraction of the map's magnitude in the strongest 5% of the picture (5% for a flat map, all for a dot), and
Spearman's rank correlation of the magnitudes with those of the first map (1 for the same order of pixels, 0 for none).
Neither says which map is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image

from .. import registry
from ..context import say, track
from ..data.display import to_image
from ..data.images import PictureSource
from ..drawing import layout
from ..drawing.drawings import Gallery, Heatmap, robust_limit
from ..drawing.layout import Scale, Sheet, Tile, number
from ..errors import ConvscopeError, OptionError, OutOfMemory
from ..layers import find_layer
from ..net import Net
from ..options import Range
from ..predictions import ObjectiveLike
from ..ranks import rank_correlation
from ..recipes import Recipe
from ..registry import Entry, view
from ..running import explain

_USUAL = ("saliency", "guided_backprop", "integrated_gradients", "grad_cam", "occlusion")
_PER_ROW = 6
_SIDE = 200
_TOP = 0.05


@dataclass(frozen=True)
class _Cell:
    """One method at one layer: its map, or the error with which it refused."""

    entry: Entry
    layer: str | None
    result: Heatmap | ConvscopeError
    randomisation: float | None = None

    @property
    def name(self) -> str:
        return self.entry.name + (f"@{self.layer}" if self.layer else "")


@view(
    "Methods compared",
    paper="Adebayo et al. 2018, arXiv:1810.03292, sec. 3",
    caveat="methods that agree may all be wrong: neither number says that a map depends on the network",
)
def compare(
    net: Net,
    picture: PictureSource,
    *,
    methods: Annotated[list[str] | None, "the methods, one column each; by default five of different kinds"] = None,
    layers: Annotated[list[str] | None, "layers, one row each, for the methods with a layer option"] = None,
    of: Annotated[ObjectiveLike, "the objective; the top-1 class by default"] = None,
    size: Annotated[int | None, "side of the network's input in pixels, where it takes more than one", Range(1)] = None,
    shared_scale: Annotated[bool, "one scale for all layers of a method; by default each map has its own"] = False,
    check: Annotated[
        bool, "also the rank correlation with maps of the network with randomised weights: 0 depends on the weights"
    ] = False,
) -> Gallery:
    """Lay the maps of several methods, and of several layers, side by side for one picture and one objective.

    Under each tile: its range, the fraction of its magnitude in the strongest 5% of the picture, and the rank
    correlation of magnitudes with the first map. A method that refuses shows its error; when all do, the first is
    raised.
    """
    entries = _entries(methods)
    rows = [find_layer(net, name).name for name in dict.fromkeys(layers)] if layers else [None]
    plan = _plan(entries, rows, shared_scale)
    cells = [_cell(net, picture, entry, layer, of, size) for entry, layer in track(plan, "comparing")]
    maps = {cell.name: cell.result for cell in cells if isinstance(cell.result, Heatmap)}
    if not maps:
        raise next(cell.result for cell in cells if isinstance(cell.result, ConvscopeError))
    for cell in cells:
        if isinstance(cell.result, ConvscopeError):
            say(f"{cell.name} refused: {cell.result}")
    if check:
        cells = [_checked(net, cell, of) for cell in track(cells, "randomising")]
    sheet = _sheet(net, cells, maps, _limits(maps, shared_scale), rows)
    if shared_scale:
        sheet = replace(sheet, subtitle=f"the layers of a method on one scale · {sheet.subtitle}")
    draft = Recipe(objective=next(iter(maps.values())).recipe.objective)
    return Gallery(sheet, {name: heatmap.values for name, heatmap in maps.items()}, draft)


def _entries(methods: Sequence[str] | None) -> list[Entry]:
    registered = registry.load_all()
    if methods is None:
        methods = [name for name in _USUAL if name in registered]
    if not methods:
        raise OptionError("there is no method to compare: give methods, as methods=['saliency', 'grad_cam']")
    return [registry.find(name) for name in dict.fromkeys(methods)]


def _plan(entries: Sequence[Entry], rows: Sequence[str | None], shared_scale: bool) -> list[tuple[Entry, str | None]]:
    """List what is computed: every method at every layer, those without a layer option once."""
    with_layer = [entry for entry in entries if "layer" in entry.options]
    if rows != [None] and not with_layer:
        others = [entry.name for entry in registry.METHODS.values() if "layer" in entry.options]
        raise OptionError(f"layers={list(rows)}: none of these methods reads a layer; those that do: {others}")
    if rows == [None] and shared_scale:
        raise OptionError("shared_scale is for the layers of a method, whose units are equal: give layers as well")
    plan = [(entry, layer if entry in with_layer else None) for layer in rows for entry in entries]
    return list(dict.fromkeys(plan))


def _cell(net: Net, picture: Any, entry: Entry, layer: str | None, of: ObjectiveLike, size: int | None) -> _Cell:
    try:
        options: dict[str, Any] = {"layer": layer} if layer is not None else {}
        return _Cell(entry, layer, explain(net, picture, entry.name, of, size=size, **options))
    except OutOfMemory:
        raise
    except ConvscopeError as refusal:
        return _Cell(entry, layer, refusal)


def _checked(net: Net, cell: _Cell, of: ObjectiveLike) -> _Cell:
    """Add the randomisation score of a map, the mean over three stages."""
    # Checks stand above methods: they repeat any map.
    from ..checks import cascade

    if isinstance(cell.result, ConvscopeError):
        return cell
    score = cascade(net, cell.result, stages=3, of=of if callable(of) else None).score
    return replace(cell, randomisation=score)


def _limits(maps: dict[str, Heatmap], shared: bool) -> dict[str, float]:
    """Return where each map's colours end; when shared, where those of its method's other layers do."""
    limits = {
        name: robust_limit(heatmap.numbers()["map"] if heatmap.projects else heatmap.flat)
        for name, heatmap in maps.items()
    }
    if not shared:
        return limits
    # Units are surely equal within a method only.
    method = {name: heatmap.recipe.method for name, heatmap in maps.items()}
    return {name: max(limits[other] for other in maps if method[other] == method[name]) for name in maps}


def _sheet(
    net: Net, cells: list[_Cell], maps: dict[str, Heatmap], limits: dict[str, float], rows: Sequence[str | None]
) -> Sheet:
    name, first = next(iter(maps.items()))
    original = first.picture.original
    picture = Tile(layout.enlarged(original, _SIDE), f"{original.width} × {original.height}")
    tiles = [_tile(cell, first, limits.get(cell.name), picture.image.size) for cell in cells]
    subtitle = " · ".join(filter(None, (_legend(name, cells), net.name, first.picture.name)))
    note = "\n".join(_notes(cells))
    heads = ("", *dict.fromkeys(cell.entry.title for cell in cells))
    if rows != [None]:
        return Sheet(first.title, _grid(picture, cells, tiles, rows), subtitle, note, heads, tuple(map(str, rows)))
    if len(tiles) < _PER_ROW:
        return Sheet(first.title, ((picture, *tiles),), subtitle, note, heads)
    return Sheet(first.title, _block(picture, cells, tiles), subtitle, note)


def _legend(first: str, cells: Sequence[_Cell]) -> str:
    """Say what stands under each tile."""
    legend = (
        f"under each: range · fraction of the magnitude in the strongest {100 * _TOP:g}% of the pixels · "
        f"ρ: rank correlation with {first}"
    )
    if any(cell.randomisation is not None for cell in cells):
        legend += " · rank correlation with maps of randomised weights: 0 depends on the weights, 1 does not"
    return legend


def _block(picture: Tile, cells: Sequence[_Cell], tiles: Sequence[Tile]) -> tuple[tuple[Tile, ...], ...]:
    """Lay many methods out in several rows, each tile under its method's title."""
    titled = [
        replace(tile, caption=f"{cell.entry.title}\n{tile.caption}") for cell, tile in zip(cells, tiles, strict=True)
    ]
    block = [picture, *titled]
    return tuple(tuple(block[start : start + _PER_ROW]) for start in range(0, len(block), _PER_ROW))


def _grid(
    picture: Tile, cells: Sequence[_Cell], tiles: Sequence[Tile], rows: Sequence[str | None]
) -> tuple[tuple[Tile | None, ...], ...]:
    """Put layers in rows and methods in columns; a method without a layer option stands in the first row only."""
    entries = list(dict.fromkeys(cell.entry.name for cell in cells))
    placed = {
        (cell.layer or rows[0], cell.entry.name): tile
        if cell.layer
        else replace(tile, caption=f"no layer\n{tile.caption}")
        for cell, tile in zip(cells, tiles, strict=True)
    }
    lines = [[placed.get((row, name)) for name in entries] for row in rows]
    return tuple((None if index else picture, *line) for index, line in enumerate(lines))


def _tile(cell: _Cell, first: Heatmap, limit: float | None, size: tuple[int, int]) -> Tile:
    heatmap = cell.result
    if isinstance(heatmap, ConvscopeError) or limit is None:
        return Tile(layout.written(f"refused: {heatmap}", size), "no map")
    lines = _scores(heatmap, first, cell.randomisation)
    if heatmap.projects:
        painted = to_image(0.5 + heatmap.numbers()["map"] * (0.5 / limit), heatmap.picture.display.bands)
        return Tile(heatmap.placed(painted, size), "\n".join([f"grey is 0, white {number(limit)}", *lines]))
    heatmap = replace(heatmap, limit=limit)

    def repainted(scale: Scale) -> Image.Image:
        return replace(heatmap, limit=scale.high).overlay(size)

    return Tile(heatmap.overlay(size), "\n".join(lines), heatmap.scale, repainted)


def _scores(heatmap: Heatmap, first: Heatmap, randomisation: float | None) -> list[str]:
    """Write what can be compared between maps of different units."""
    values, strength = heatmap.numbers()["map"], _strength(heatmap)
    if not strength.any():
        return ["zero everywhere"]
    top = f"{100 * concentration(strength):.0f}% in the top {100 * _TOP:g}%"
    lines = [f"from {number(values.min())} to {number(values.max())}", top]
    if heatmap is not first:
        correlation = rank_correlation(torch.from_numpy(strength), torch.from_numpy(_strength(first)))
        lines.append(f"ρ = {number(round(correlation, 2))}")
    if randomisation is not None:
        lines.append(f"randomised {randomisation:.2f}")
    return lines


def _strength(heatmap: Heatmap) -> np.ndarray:
    """The magnitude of every pixel; of a map with colour channels, the largest."""
    return np.abs(heatmap.numbers()["map"]).max(0)


def concentration(strength: np.ndarray, share: float = _TOP) -> float:
    """Return the fraction of a map's magnitude in the strongest `share` of its pixels, 0 for a zero map."""
    count, whole = max(1, round(share * strength.size)), float(strength.sum(dtype=np.float64))
    top = np.sort(strength, axis=None)[-count:].sum(dtype=np.float64)
    return float(top) / whole if whole else 0.0


def _notes(cells: Sequence[_Cell]) -> list[str]:
    """Write each method's remarks and caveat, one line for each method."""
    remarks: dict[str, list[str]] = {}
    for cell in cells:
        own = remarks.setdefault(cell.entry.title, [])
        if isinstance(cell.result, Heatmap):
            own += [remark for remark in cell.result.recipe.remarks if remark not in own]
        if cell.entry.caveat and cell.entry.caveat not in own:
            own.append(cell.entry.caveat)
    return [f"{title}: {'; '.join(own)}." for title, own in remarks.items() if own]
