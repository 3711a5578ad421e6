"""Methods side by side: one picture, one objective, every method's answer at the same size.

Maps of different methods have different units, so each is shown up to its own limit. Two numbers do not depend on the
unit: how much of the map's magnitude lies in the strongest 5 % of the picture (5 % for a flat map, all for a dot), and
Spearman's rank correlation of the magnitudes with those of the first map (1 for the same order of pixels, 0 for none).
Neither says which map is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch

from .. import registry
from ..context import track
from ..data.images import to_image
from ..drawing import layout
from ..drawing.drawings import Gallery, Heatmap, robust_limit
from ..drawing.layout import Sheet, Tile, number
from ..errors import ConvscopeError, OptionError, OutOfMemory
from ..net import Net
from ..predictions import ObjectiveLike
from ..ranks import rank_correlation
from ..registry import Entry, view
from ..running import explain, footnote, recipe

_USUAL = ("saliency", "guided_backprop", "integrated_gradients", "grad_cam", "occlusion")
_PER_ROW = 6
_SIDE = 200
_TOP = 0.05


@dataclass(frozen=True)
class _Asked:
    """One method at one layer, and its answer or its refusal."""

    entry: Entry
    layer: str | None
    answer: Heatmap | ConvscopeError
    randomised: float | None = None

    @property
    def name(self) -> str:
        return self.entry.name + (f"@{self.layer}" if self.layer else "")


@view(
    "Methods compared",
    paper="Adebayo et al. 2018, arXiv:1810.03292, sec. 3",
    caveat="methods that agree may all be wrong: neither number says that a map follows the network",
)
def compare(
    net: Net,
    picture: Any,
    *,
    methods: Annotated[list[str] | None, "the methods, one tile each; by default a handful of different kinds"] = None,
    layers: Annotated[list[str] | None, "layers, one row each, for the methods that have a layer option"] = None,
    of: Annotated[ObjectiveLike, "the objective, as for every method; the network's first choice by default"] = None,
    size: Annotated[int | None, "side of the network's input in pixels, where it takes more than one"] = None,
    shared_scale: Annotated[bool, "one scale for all layers of a method; by default each map has its own"] = False,
    check: Annotated[
        bool, "also how like each map is to maps of random weights: near 0 follows the weights, 1 ignores them"
    ] = False,
) -> Gallery:
    """Lay the maps of several methods, and of several layers, side by side for one picture and one objective.

    Under each tile: its range, the share of its magnitude in the strongest 5 % of the picture, and the rank correlation
    of magnitudes with the first map. A method that refuses shows why; when all do, the first refusal is raised.
    """
    entries = _entries(methods)
    rows = [net.layer(name).name for name in dict.fromkeys(layers)] if layers else [None]
    layered = [entry for entry in entries if "layer" in entry.options]
    if layers and not layered:
        known = [entry.name for entry in registry.METHODS.values() if "layer" in entry.options]
        raise OptionError(f"layers={','.join(layers)}: none of these methods reads a layer; those that do: {known}")
    if shared_scale and not layers:
        raise OptionError("shared_scale is for the layers of a method, whose units are equal: give layers as well")
    plan = [(entry, layer if entry in layered else None) for layer in rows for entry in entries]
    plan = list(dict.fromkeys(plan))
    asked = [_ask(net, picture, entry, layer, of, size) for entry, layer in track(plan, "comparing")]
    maps = {one.name: one.answer for one in asked if isinstance(one.answer, Heatmap)}
    if not maps:
        raise next(one.answer for one in asked if isinstance(one.answer, ConvscopeError))
    if check:
        asked = [_checked(net, one, of) for one in track(asked, "randomising")]
    limits = _limits(maps, shared_scale)
    sheet = _sheet(net, asked, maps, limits, rows)
    if shared_scale:
        sheet = replace(sheet, subtitle=f"the layers of a method on one scale · {sheet.subtitle}")
    names = [entry.name for entry in entries]
    options = {
        "methods": names,
        "layers": layers,
        "size": size,
        "shared_scale": shared_scale or None,
        "check": check or None,
    }
    remarks = [f"{one.name} refused: {one.answer}" for one in asked if one.name not in maps]
    first = next(iter(maps.values()))
    made = recipe(net, "compare", [first.picture], first.recipe.objective, options, remarks)
    return Gallery(sheet, {name: heatmap.values for name, heatmap in maps.items()}, made)


def _entries(methods: Sequence[str] | None) -> list[Entry]:
    known = registry.load_all()
    if methods is None:
        methods = [name for name in _USUAL if name in known]
    if not methods:
        raise OptionError("there is no method to compare: give methods, as methods=['saliency', 'grad_cam']")
    return [registry.find(name) for name in dict.fromkeys(methods)]


def _ask(net: Net, picture: Any, entry: Entry, layer: str | None, of: ObjectiveLike, size: int | None) -> _Asked:
    try:
        options = {"layer": layer} if layer is not None else {}
        return _Asked(entry, layer, explain(net, picture, entry.name, of, size=size, **options))
    except OutOfMemory:
        raise
    except ConvscopeError as refusal:
        return _Asked(entry, layer, refusal)


def _checked(net: Net, one: _Asked, of: ObjectiveLike) -> _Asked:
    """Add the randomisation score of a map, the mean over three stages."""
    # Checks stand above methods: they repeat any map.
    from ..checks import cascade

    if isinstance(one.answer, ConvscopeError):
        return one
    return replace(one, randomised=cascade(net, one.answer, stages=3, of=of if callable(of) else None).score)


def _limits(maps: dict[str, Heatmap], shared: bool) -> dict[str, float]:
    """Say where each map's colours end; when shared, where those of its method's other layers do."""
    limits = {
        name: robust_limit(heatmap.numbers()["map"] if heatmap.projects else heatmap.flat)
        for name, heatmap in maps.items()
    }
    if not shared:
        return limits
    # Units are surely equal within a method only.
    of = {name: heatmap.recipe.method for name, heatmap in maps.items()}
    return {name: max(limits[other] for other in maps if of[other] == of[name]) for name in maps}


def _sheet(
    net: Net, asked: list[_Asked], maps: dict[str, Heatmap], limits: dict[str, float], rows: Sequence[str | None]
) -> Sheet:
    name, first = next(iter(maps.items()))
    original = first.picture.original
    picture = Tile(layout.enlarged(original, _SIDE), f"{original.width} × {original.height}")
    tiles = [_tile(one, first, limits.get(one.name), picture.image.size) for one in asked]
    told = f"share of the magnitude in the strongest {100 * _TOP:g} % of the pixels · ρ: rank correlation with {name}"
    if any(one.randomised is not None for one in asked):
        told += " · likeness to maps of random weights: 0 follows the weights, 1 ignores them"
    subtitle = " · ".join(filter(None, (f"under each: range · {told}", net.name, first.picture.name)))
    note = footnote(net, registry.VIEWS["compare"], []) + _remarks(asked)
    heads = ("", *dict.fromkeys(one.entry.title for one in asked))
    if rows != [None]:
        return Sheet(first.title, _grid(picture, asked, tiles, rows), subtitle, note, heads, tuple(map(str, rows)))
    if len(tiles) < _PER_ROW:
        return Sheet(first.title, ((picture, *tiles),), subtitle, note, heads)
    titled = [
        replace(tile, caption=f"{one.entry.title}\n{tile.caption}") for one, tile in zip(asked, tiles, strict=True)
    ]
    block = [picture, *titled]
    lines = tuple(tuple(block[start : start + _PER_ROW]) for start in range(0, len(block), _PER_ROW))
    return Sheet(first.title, lines, subtitle, note)


def _grid(
    picture: Tile, asked: Sequence[_Asked], tiles: Sequence[Tile], rows: Sequence[str | None]
) -> tuple[tuple[Tile | None, ...], ...]:
    """Put layers in rows and methods in columns; a method without layers stands in the first row only."""
    entries = list(dict.fromkeys(one.entry.name for one in asked))
    found = {
        (one.layer or rows[0], one.entry.name): tile
        if one.layer
        else replace(tile, caption=f"no layer\n{tile.caption}")
        for one, tile in zip(asked, tiles, strict=True)
    }
    lines = [[found.get((row, name)) for name in entries] for row in rows]
    return tuple((None if index else picture, *line) for index, line in enumerate(lines))


def _tile(one: _Asked, first: Heatmap, limit: float | None, size: tuple[int, int]) -> Tile:
    heatmap = one.answer
    if isinstance(heatmap, ConvscopeError) or limit is None:
        return Tile(layout.written(f"refused: {heatmap}", size), "no map")
    lines = _scores(heatmap, first, one.randomised)
    if heatmap.projects:
        painted = to_image(0.5 + heatmap.numbers()["map"] * (0.5 / limit))
        return Tile(heatmap.placed(painted, size), "\n".join([f"grey is 0, white {number(limit)}", *lines]))
    heatmap = replace(heatmap, limit=limit)
    return Tile(heatmap.overlay(size), "\n".join(lines), heatmap.scale)


def _scores(heatmap: Heatmap, first: Heatmap, randomised: float | None) -> list[str]:
    """Say what can be compared between maps of different units."""
    values, strength = heatmap.numbers()["map"], _strength(heatmap)
    if not strength.any():
        return ["zero everywhere"]
    top = f"{100 * concentration(strength):.0f} % in the top {100 * _TOP:g} %"
    lines = [f"from {number(values.min())} to {number(values.max())}", top]
    if heatmap is not first:
        lines.append(
            f"ρ = {number(round(rank_correlation(torch.from_numpy(strength), torch.from_numpy(_strength(first))), 2))}"
        )
    if randomised is not None:
        lines.append(f"with random weights {randomised:.2f}")
    return lines


def _strength(heatmap: Heatmap) -> np.ndarray:
    """The magnitude of every pixel; of a map with colour channels, the largest."""
    return np.abs(heatmap.numbers()["map"]).max(0)


def concentration(strength: np.ndarray, share: float = _TOP) -> float:
    """Return how much of a map's magnitude lies in the strongest share of its pixels, from `share` to 1; 0 for none."""
    count, whole = max(1, round(share * strength.size)), float(strength.sum(dtype=np.float64))
    top = np.sort(strength, axis=None)[-count:].sum(dtype=np.float64)
    return float(top) / whole if whole else 0.0


def _remarks(asked: Sequence[_Asked]) -> str:
    """Write what the methods said and their caveats, one line for each method."""
    said: dict[str, list[str]] = {}
    for one in asked:
        lines = said.setdefault(one.entry.title, [])
        if isinstance(one.answer, Heatmap):
            lines += [remark for remark in one.answer.recipe.remarks if remark not in lines]
        if one.entry.caveat and one.entry.caveat not in lines:
            lines.append(one.entry.caveat)
    return "".join(f"\n{title}: {'; '.join(lines)}." for title, lines in said.items() if lines)
