"""Patches: what excites the units of a layer over a whole data set, beside what they project down to.

After Zeiler and Fergus (arXiv:1311.2901v3, Fig. 2): of each unit the patches of its strongest pictures, cut out to its
receptive field, in one block, and their projections in another.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image

from ..context import listen, say
from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile, number
from ..errors import OptionError
from ..layers import output_or_layer
from ..options import separated
from ..provenance import footnote, network_record, versions, with_remarks
from ..recipes import PictureRecord, Recipe
from ..registry import Entry
from ..tracing import Layer
from .crops import Method
from .tiles import Example, Examples, Shown, contrast, grey_zero, projected, shown_as

Band = Literal["strongest", "effect", "strong", "middle", "weak", "weakest", "random"]

_WORDS: dict[Band, str] = {
    "strongest": "strongest pictures",
    "effect": "pictures in which it mattered most",
    "strong": "strong pictures, of its upper quarter",
    "middle": "middling pictures",
    "weak": "weak pictures, of its lower quarter",
    "weakest": "weakest pictures",
    "random": "pictures at random",
}

_ACROSS = 3
"""Units beside each other."""

_GAP, _BETWEEN, _AFTER = 2, 6, 14
_UNITS = 16


class Atlas(Examples, Protocol):
    """What also knows which units tell classes, and where it lies, such as a convscope.Atlas."""

    @property
    def record(self) -> PictureRecord: ...
    def detectors(self, layer: str, k: int) -> Sequence[tuple[int, str, float]]: ...


def patches(
    atlas: Atlas,
    layer: str | int,
    units: Sequence[int] | str | None = None,
    *,
    band: Band = "strongest",
    k: int = 9,
    method: Method = "deconvnet",
) -> Gallery:
    """Draw the patches that excite the units of a layer, beside their projections down to pixels.

    Args:
        atlas: what `scan` found, an Atlas.
        layer: the layer's name or number.
        units: their numbers, also as a text with commas; "random:16" for so many at random, which is the default; or
            "top:AUC:16" for those that tell a class best from all others, where the scan knew labels.
        band: which pictures of a unit: "strongest", "weakest", "strong", "middle", "weak", "random", or "effect", those
            in which the unit mattered most.
        k: pictures of each unit.
        method: how a unit is projected: "deconvnet", "guided" or "gradient".

    A patch is what the unit sees of a picture, as the network reads it; pale grey lies beyond the picture. The
    projections of a unit share one contrast. Raises OptionError for units that do not exist, and what `atlas` raises.
    """
    net, chosen = atlas.net, output_or_layer(atlas.net, layer)
    detectors = _detectors(atlas, chosen, units)
    numbers = units_asked(atlas, chosen, units)
    examples = {unit: atlas.top(chosen.name, unit, k, band=band) for unit in numbers}
    if not any(examples.values()):
        raise OptionError(f"no {band!r} pictures of {chosen.title} were kept: scan again with what keeps them")
    with listen() as remarks:
        most = max(map(len, examples.values()))
        say(f"{most} pictures of each unit were kept, not {k}" if most < k else "")
        shown, said = projected(atlas, chosen, examples, method)
    tiles = [_tile(f"unit {u}{detectors.get(u, '')}", examples[u], shown[u], net.show) for u in numbers]
    sheet = Sheet(
        f"What excites {len(numbers)} of {_count(chosen)} units of {chosen.name or 'the output'}",
        tuple(tuple(tiles[start : start + _ACROSS]) for start in range(0, len(tiles), _ACROSS)),
        f"{net.name} · left: what each unit sees of its {_WORDS[band]}, with its values there · right: their {method} "
        "projections, grey is 0, those of a unit on one contrast",
    )
    made = Recipe(
        method=_ENTRY.name,
        network=network_record(net),
        weights=net.digest,
        options={"atlas": atlas.record, "layer": chosen.name, "units": numbers, "band": band, "k": k, "method": method},
        versions=versions(),
    )
    made = with_remarks(net, made, [*remarks, *said])
    values = {
        "units": torch.tensor(numbers),
        "values": torch.tensor([_padded([one.value for one in examples[unit]], k) for unit in numbers]),
        "pictures": torch.tensor([_padded([one.picture for one in examples[unit]], k) for unit in numbers]),
    }
    return Gallery(sheet, values).with_recipe(made, footnote(net, _ENTRY, made))


def _detectors(atlas: Atlas, layer: Layer, units: Sequence[int] | str | None) -> dict[int, str]:
    """Return the units that are best at telling a class, with what they tell, where an option asks for them."""
    asked = re.fullmatch(r"top:AUC(?::(\d+))?", units.strip(), re.IGNORECASE) if isinstance(units, str) else None
    if asked is None:
        return {}
    found = atlas.detectors(layer.name, int(asked[1] or _UNITS))
    return {unit: f" · {name}, AUC {auc:.3f}" for unit, name, auc in found}


def units_asked(atlas: Atlas, layer: Layer, units: Sequence[int] | str | None) -> list[int]:
    """Return the units of a layer that an option names, also by what they tell. Raises OptionError."""
    return list(_detectors(atlas, layer, units)) or units_named(layer, units)


def units_named(layer: Layer, units: Sequence[int] | str | None) -> list[int]:
    """Return the units of a layer that an option names, in its order. Raises OptionError."""
    count = _count(layer)
    if units is None or isinstance(units, str):
        return _named(layer, units or f"random:{_UNITS}", count)
    wrong = [unit for unit in units if not 0 <= unit < count]
    if wrong or not units:
        what = f"no unit {wrong[0]}" if wrong else "none named"
        raise OptionError(f"{layer.title} has units 0 to {count - 1}: there is {what}")
    return list(dict.fromkeys(units))


def _count(layer: Layer) -> int:
    return layer.shape[0] if layer.channelled else layer.shape[-1]


def _named(layer: Layer, text: str, count: int) -> list[int]:
    drawn = re.fullmatch(r"random:(\d+)", text.strip())
    if drawn and int(drawn[1]):
        return sorted(random.Random(0).sample(range(count), min(int(drawn[1]), count)))
    parts = [part.strip() for part in separated(text)]
    if not all(re.fullmatch(r"\d+", part) for part in parts):
        raise OptionError(
            f"units are numbers, as 0,5,12, so many at random, as random:{_UNITS}, or so many that tell a class best, "
            f"as top:AUC:{_UNITS}; not {text!r}"
        )
    return units_named(layer, [int(part) for part in parts])


def _padded(values: Sequence[float], count: int) -> list[float]:
    return [*values, *[math.nan] * (count - len(values))]


def _tile(name: str, examples: Sequence[Example], shown: Sequence[Shown], show: Sequence[int]) -> Tile | None:
    """Return a unit's block of patches with the block of its projections to the right."""
    if not shown:
        return None
    limit = contrast(np.concatenate([one.projection[np.isfinite(one.projection)] for one in shown]))
    seen = _block([shown_as(one.patch, show) for one in shown])
    projected = _block([grey_zero(one.projection, limit, show) for one in shown])
    # Room to the right, so that what belongs together lies together.
    both = Image.new("RGB", (2 * seen.width + _BETWEEN + _AFTER, seen.height), "white")
    both.paste(seen, (0, 0))
    both.paste(projected, (seen.width + _BETWEEN, 0))
    ends = dict.fromkeys(number(examples[at].value) for at in (0, -1))
    return Tile(both, f"{name} · {' to '.join(ends)}")


def _block(images: Sequence[Image.Image]) -> Image.Image:
    """Lay images out as a square block, row by row."""
    across = math.ceil(math.sqrt(len(images)))
    down = math.ceil(len(images) / across)
    width, height = (max(sides) for sides in zip(*(image.size for image in images), strict=True))
    block = Image.new("RGB", (across * (width + _GAP) - _GAP, down * (height + _GAP) - _GAP), "white")
    for at, image in enumerate(images):
        block.paste(image, (at % across * (width + _GAP), at // across * (height + _GAP)))
    return block


_ENTRY = Entry(
    "patches",
    "Patches",
    patches,
    kind="view",
    paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Fig. 2",
    caveat="a unit's strongest pictures are not its typical ones, and need not be those that it decides",
)
