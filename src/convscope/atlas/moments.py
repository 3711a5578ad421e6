"""Moments of a training: what units respond to most at each, and the figure of several one after the other.

After Zeiler and Fergus (arXiv:1311.2901v3, Fig. 4): the strongest activation of a unit over a data set, projected down,
at several epochs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile, number, written
from ..errors import AtlasError
from ..layers import output_or_layer
from ..net import Net
from ..outputs import write_bytes
from ..parsing import Document
from ..provenance import footnote, network_record, versions, with_remarks
from ..recipes import Recipe
from ..registry import Entry
from .crops import Method
from .tiles import Example, Examples, Shown, contrast, grey_zero, projected, shown_as

_HEADER = "moment"
_GAP = 2
_EMPTY = (80, 162)

MOST = 8
"""Moments beside each other, where nobody says which."""

_SPOKEN = (
    "above: what the unit sees of the strongest of {:,} pictures, with its value there; new: another picture than "
    "before · below: its {} projection, grey is 0, each on its own contrast"
)


@dataclass(frozen=True)
class Strongest:
    """What a unit responds to most at one moment: the number of the picture, the unit's value there, and both shown.

    `shown` is None, and the picture -1, where no picture excites the unit.
    """

    picture: int
    value: float
    shown: Shown | None


@dataclass(frozen=True)
class Moment:
    """A network at one moment of its training: a name, the hash of its weights, and its units by "layer:unit"."""

    name: str
    weights: str
    units: Mapping[str, Strongest]


def label(layer: str, unit: int) -> str:
    """Return how a unit is written: "conv3:5"."""
    return f"{layer or 'output'}:{unit}"


def labels(wanted: Mapping[str, Sequence[int]]) -> list[str]:
    """Return how units are written, by layer."""
    return [label(layer, unit) for layer, units in wanted.items() for unit in units]


def moment_of(
    name: str, found: Examples, wanted: Mapping[str, Sequence[int]], method: Method
) -> tuple[Moment, list[str]]:
    """Return what units, by layer, respond to most, and what must be said of it."""
    units: dict[str, Strongest] = {}
    remarks: list[str] = []
    for layer, numbers in wanted.items():
        best = {unit: _active(found.top(layer, unit, 1)) for unit in numbers}
        shown, said = projected(found, output_or_layer(found.net, layer), best, method)
        remarks += [f"{layer or 'output'}: {one}" for one in said] if len(wanted) > 1 else said
        for unit, examples in best.items():
            one = Strongest(-1, 0.0, None)
            if examples:
                one = Strongest(examples[0].picture, examples[0].value, shown[unit][0])
            units[label(layer, unit)] = one
    return Moment(name, found.net.digest, units), remarks


@dataclass(frozen=True)
class _Header:
    """What a moment's file says beside its tiles: `key` tells which moments may stand beside each other."""

    key: str
    name: str
    weights: str
    pictures: dict[str, int]
    values: dict[str, float]


def save_moment(path: Path, moment: Moment, key: str) -> Path:
    """Write a moment's file, whole or not at all."""
    pictures = {unit: one.picture for unit, one in moment.units.items()}
    values = {unit: one.value for unit, one in moment.units.items()}
    header = _Header(key, moment.name, moment.weights, pictures, values)
    tensors: dict[str, torch.Tensor] = {}
    for unit, one in moment.units.items():
        if one.shown is not None:
            tensors[f"{unit}.patch"] = torch.from_numpy(one.shown.patch)
            tensors[f"{unit}.projection"] = torch.from_numpy(one.shown.projection)
    return write_bytes(path, save(tensors, {_HEADER: json.dumps(vars(header))}))


def read_moment(path: Path, key: str) -> Moment:
    """Read a moment's file. Raises AtlasError for one that is damaged, or of other units, pictures or settings."""
    try:
        with safe_open(path, "np") as file:
            header = Document(str(path), (file.metadata() or {}).get(_HEADER, ""), AtlasError).json(_Header)
            if header.key != key:
                raise AtlasError(
                    f"{path.parent} holds the evolution of other units, or over other pictures: give another folder, "
                    "or the layers, units, method and pictures as before"
                )
            held = set(file.keys())
            shown = {
                unit: Shown(file.get_tensor(f"{unit}.patch"), file.get_tensor(f"{unit}.projection"))
                for unit in header.values
                if {f"{unit}.patch", f"{unit}.projection"} <= held
            }
    except (SafetensorError, OSError) as error:
        raise AtlasError(f"{path} cannot be read: {error}; delete it to go on without that epoch") from None
    units = {unit: Strongest(header.pictures[unit], value, shown.get(unit)) for unit, value in header.values.items()}
    return Moment(header.name, header.weights, units)


def _active(examples: Sequence[Example]) -> list[Example]:
    """Leave out the picture of a unit that is 0 in all of them, which is any."""
    return [one for one in examples if one.value != 0]


def spread(count: int, most: int = MOST) -> list[int]:
    """Choose moments by number, more of the first ones, since most changes early; the last one always."""
    if count <= most:
        return list(range(count))
    return sorted({round(at) - 1 for at in np.geomspace(1, count, most)})


def drawn(
    net: Net,
    moments: Sequence[Moment],
    wanted: Mapping[str, Sequence[int]],
    method: Method,
    pictures: int,
    content: str,
    remarks: Sequence[str] = (),
) -> Gallery:
    """Draw the same units at several moments, a row each; `pictures` and `content` say of what the strongest is."""
    rows = labels(wanted)
    sheet = Sheet(
        f"How {len(rows)} units of {net.name} came about" if len(rows) > 1 else f"How {rows[0]} came about",
        tuple(_row([moment.units[row] for moment in moments], net.show) for row in rows),
        f"{net.name} · {_SPOKEN.format(pictures, method)}",
        "",
        tuple(moment.name for moment in moments),
        tuple(rows),
    )
    made = Recipe(
        method=_ENTRY.name,
        network=network_record(net),
        weights=net.digest,
        options={
            "units": {layer: list(units) for layer, units in wanted.items()},
            "method": method,
            "snapshots": {moment.name: moment.weights for moment in moments},
            "pictures": {"count": pictures, "sha256": content},
        },
        versions=versions(),
    )
    made = with_remarks(net, made, list(dict.fromkeys(remarks)))
    values = {
        "values": torch.tensor([[moment.units[row].value for moment in moments] for row in rows]),
        "pictures": torch.tensor([[moment.units[row].picture for moment in moments] for row in rows]),
    }
    return Gallery(sheet, values).with_recipe(made, footnote(net, _ENTRY, made))


def _row(moments: Sequence[Strongest], show: Sequence[int]) -> tuple[Tile, ...]:
    tiles: list[Tile] = []
    size = next((tile_image(one.shown, show).size for one in moments if one.shown), _EMPTY)
    before: int | None = None
    for one in moments:
        if one.shown is None:
            tiles.append(Tile(written("not active", size)))
            continue
        changed = before is not None and one.picture != before
        tiles.append(Tile(tile_image(one.shown, show), number(one.value) + (" · new" if changed else "")))
        before = one.picture
    return tuple(tiles)


def tile_image(shown: Shown, show: Sequence[int]) -> Image.Image:
    """Show a patch, and its projection below it."""
    limit = contrast(shown.projection[np.isfinite(shown.projection)])
    above, below = shown_as(shown.patch, show), grey_zero(shown.projection, limit, show)
    both = Image.new("RGB", (above.width, above.height + _GAP + below.height), "white")
    both.paste(above, (0, 0))
    both.paste(below, (0, above.height + _GAP))
    return both


_ENTRY = Entry(
    "evolution",
    "Evolution",
    drawn,
    kind="view",
    paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Fig. 4",
    caveat="where a projection changes all at once, another picture has become the strongest; the unit may have "
    "changed little",
)
