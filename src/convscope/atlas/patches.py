"""Patches: what excites the units of a layer over a whole data set, beside what they project down to.

After Zeiler and Fergus (arXiv:1311.2901v3, Fig. 2): of each unit the patches of its strongest pictures, cut out to its
receptive field, in one block, and their projections in another.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..context import listen
from ..data.display import to_image
from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile, number
from ..errors import OptionError
from ..layers import output_or_layer
from ..net import Net
from ..options import separated
from ..provenance import footnote, network_record, versions, with_remarks
from ..recipes import Recipe
from ..registry import Entry
from ..tracing import Layer
from .cropping import Box
from .crops import Method, Spot, projections

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

_SIDE = 80
"""Pixels of a figure along a patch, about: small patches are enlarged by a whole factor."""

_GAP, _BETWEEN, _AFTER = 2, 6, 14
_OUTSIDE = 225
_CLIPPED = 0.99
_UNITS = 16


class Example(Protocol):
    """A picture of a unit: its number, the unit's value there, and the row and column, if the layer has any."""

    @property
    def picture(self) -> int: ...
    @property
    def value(self) -> float: ...
    @property
    def y(self) -> int | None: ...
    @property
    def x(self) -> int | None: ...


class Examples(Protocol):
    """What knows the pictures of units, such as an Atlas."""

    @property
    def net(self) -> Net: ...
    def top(self, layer: str, unit: int, k: int | None = None, *, band: str = "strongest") -> Sequence[Example]: ...
    def read(self, picture: int) -> Tensor: ...


def patches(
    atlas: Examples,
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
        units: their numbers, also as a text with commas, or "random:16" for so many at random, which is the default.
        band: which pictures of a unit: "strongest", "weakest", "strong", "middle", "weak", "random", or "effect", those
            in which the unit mattered most.
        k: pictures of each unit.
        method: how a unit is projected: "deconvnet", "guided" or "gradient".

    A patch is what the unit sees of a picture, as the network reads it; pale grey lies beyond the picture. The
    projections of a unit share one contrast. Raises OptionError for units that do not exist, and what `atlas` raises.
    """
    net, chosen = atlas.net, output_or_layer(atlas.net, layer)
    numbers = units_named(chosen, units)
    examples = {unit: atlas.top(chosen.name, unit, k, band=band) for unit in numbers}
    with listen() as remarks:
        shown, said = _projected(atlas, chosen, examples, method)
    tiles = [_tile(unit, examples[unit], shown[unit], net.show) for unit in numbers]
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
        options={"layer": chosen.name, "units": numbers, "band": band, "k": k, "method": method},
        versions=versions(),
    )
    made = with_remarks(net, made, [*remarks, *said])
    values = {
        "units": torch.tensor(numbers),
        "values": torch.tensor([_padded([one.value for one in examples[unit]], k) for unit in numbers]),
        "pictures": torch.tensor([_padded([one.picture for one in examples[unit]], k) for unit in numbers]),
    }
    return Gallery(sheet, values).with_recipe(made, footnote(net, _ENTRY, made))


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
        raise OptionError(f"units are numbers, as 0,5,12, or so many at random, as random:{_UNITS}; not {text!r}")
    return units_named(layer, [int(part) for part in parts])


def _padded(values: Sequence[float], count: int) -> list[float]:
    return [*values, *[math.nan] * (count - len(values))]


@dataclass(frozen=True)
class _Shown:
    """A patch and its projection at the size of a tile, (c, h, w), NaN beyond the picture."""

    patch: np.ndarray
    projection: np.ndarray


def _projected(
    atlas: Examples, layer: Layer, examples: Mapping[int, Sequence[Example]], method: Method
) -> tuple[dict[int, list[_Shown]], list[str]]:
    """Project all units, and return what is shown of each, and what must be said of it."""
    listed = [(unit, one) for unit, each in examples.items() for one in each]
    extents: dict[int, tuple[int, int]] = {}

    def read(picture: int) -> Tensor:
        pixels = atlas.read(picture)
        extents[picture] = (pixels.shape[2], pixels.shape[3])
        return pixels

    spots = [Spot(one.picture, unit, one.y, one.x) for unit, one in listed]
    shown: dict[int, _Shown] = {}
    said: Counter[str] = Counter()
    for at, found in projections(atlas.net, layer.name, spots, read, method):
        one = listed[at][1]
        frame = _Frame.of(layer, (one.y or 0, one.x or 0), found.box, extents[one.picture])
        # Only this much is kept: whole pictures of many units would fill the memory.
        shown[at] = _Shown(frame.around(found.pixels), frame.around(found.projection))
        said.update(found.remarks)
    by_unit: dict[int, list[_Shown]] = {unit: [] for unit in examples}
    for at, (unit, _) in enumerate(listed):
        by_unit[unit].append(shown[at])
    remarks = [text if times == len(spots) else f"{text} ({times} of {len(spots)})" for text, times in said.items()]
    return by_unit, remarks


@dataclass(frozen=True)
class _Frame:
    """Where a patch lies in the whole receptive field, or in the picture where units see more than that, in pixels."""

    size: tuple[int, int]
    corner: tuple[int, int]

    @classmethod
    def of(cls, layer: Layer, position: tuple[int, int], box: Box, picture: tuple[int, int]) -> _Frame:
        """Frame the patch `box` of the unit at a row and column, in a picture of (height, width)."""
        field = layer.shown_field
        sides = list[tuple[int, int]]()
        for axis, index, low, extent in zip((field.y, field.x), field.along(position), box[:2], picture, strict=True):
            limited = not axis.shared and axis.size <= extent
            sides.append((round(axis.size), low - round(axis.start + index * axis.step)) if limited else (extent, low))
        return cls((sides[0][0], sides[1][0]), (sides[0][1], sides[1][1]))

    def around(self, values: Tensor) -> np.ndarray:
        """Bring a patch (c, h, w) to the size of a tile, NaN around it: small ones without blur, large ones down."""
        longest = max(self.size)
        factor = max(1, round(_SIDE / longest)) if longest < 1.25 * _SIDE else _SIDE / longest

        def scaled(*pixels: int) -> list[int]:
            return [max(1, round(extent * factor)) for extent in pixels]

        tile = np.full((len(values), *scaled(*self.size)), np.nan, np.float32)
        mode = "nearest" if factor >= 1 else "bilinear"
        size = scaled(*values.shape[1:])
        batch = values.detach().float().cpu()[None]
        small = F.interpolate(batch, size=size, mode=mode, antialias=factor < 1)[0].numpy()
        top, left = (round(at * factor) for at in self.corner)
        room = tile[:, top : top + small.shape[1], left : left + small.shape[2]]
        room[:] = small[:, : room.shape[1], : room.shape[2]]
        return tile


def _tile(unit: int, examples: Sequence[Example], shown: Sequence[_Shown], show: Sequence[int]) -> Tile | None:
    """Return a unit's block of patches with the block of its projections to the right."""
    if not shown:
        return None
    limit = _contrast(np.concatenate([one.projection[np.isfinite(one.projection)] for one in shown]))
    seen = _block([_image(one.patch, show) for one in shown])
    projected = _block([_image(0.5 + one.projection * (0.5 / limit), show) for one in shown])
    # Room to the right, so that what belongs together lies together.
    both = Image.new("RGB", (2 * seen.width + _BETWEEN + _AFTER, seen.height), "white")
    both.paste(seen, (0, 0))
    both.paste(projected, (seen.width + _BETWEEN, 0))
    ends = dict.fromkeys(number(examples[at].value) for at in (0, -1))
    return Tile(both, f"unit {unit} · {' to '.join(ends)}")


def _contrast(values: np.ndarray) -> float:
    """Return the magnitude that becomes white: of what a projection is, leaving aside the much that is zero."""
    magnitude = np.abs(values[values != 0])
    return float(np.quantile(magnitude, _CLIPPED)) if magnitude.size else 1.0


def _image(values: np.ndarray, show: Sequence[int]) -> Image.Image:
    """Show pixels (c, h, w) in [0, 1], pale grey where there are none."""
    beyond = np.isnan(values[0])
    image = to_image(np.where(beyond, 0.5, values), show).convert("RGB")
    image.paste((_OUTSIDE,) * 3, mask=Image.fromarray(beyond))
    return image


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
