"""Images of units: many on one sheet, so that a page of hundreds is a dozen requests; a unit's number says its cell."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor

from ..atlas.atlas import Atlas, Example
from ..atlas.crops import Method, Projected
from ..atlas.tiles import Frame, Shown, contrast, grey_zero, projected, shown_as
from ..data.opening import open_picture
from ..drawing import colours
from ..drawing.drawings import robust_limit
from ..drawing.tiles import magnitude_scale, signed_scale
from ..errors import ConvscopeError
from ..net import Net
from ..tracing import Layer
from ..views.filters import filters

CELL = 96
"""Pixels of the side of a feature map."""

PITCH = (104, 122)
"""Pixels from one feature map of a sheet to the next, across and down: a gap, and room for its number below."""

ACROSS = 8
PER_SHEET = ACROSS * ACROSS

Kind = Literal["patches", "projections", "filters"]

_NOTHING = (255, 255, 255, 0)


@dataclass(frozen=True)
class Cell:
    """Where an image lies on a sheet: the sheet's number and size, the cell's corner and side."""

    sheet: int
    width: int
    height: int
    x: int
    y: int
    side: int

    @classmethod
    def of(cls, number: int, count: int, side: int) -> Cell:
        """Return the cell of one of so many images."""
        sheet, at = divmod(number, PER_SHEET)
        here = min(count - sheet * PER_SHEET, PER_SHEET)
        rows = -(-here // ACROSS)
        return cls(sheet, min(ACROSS, here) * side, rows * side, at % ACROSS * side, at // ACROSS * side, side)


def on_sheet(number: int, count: int) -> range:
    """Return which of so many units lie on a sheet; none on one that there is not."""
    return range(0) if number < 0 else range(number * PER_SHEET, min((number + 1) * PER_SHEET, count))


def parts(count: int) -> list[range]:
    """Return which of so many units lie on each sheet."""
    return [on_sheet(number, count) for number in range(-(-count // PER_SHEET))]


def side_of(net: Net, layer: Layer) -> int:
    """Return the side of the cells that hold what a layer's units see."""
    return max(Frame.of(layer, (0, 0), (0, 0, 0, 0), net.size).tile)


def encoded(image: Image.Image) -> bytes:
    """Return an image as WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=90, method=2)
    return buffer.getvalue()


def laid_out(
    images: Sequence[Image.Image | None], side: int, across: int = ACROSS, pitch: tuple[int, int] | None = None
) -> Image.Image:
    """Lay images out in cells, row by row, each in the middle of its cell; `pitch` is from one cell to the next."""
    wide, high = pitch or (side, side)
    rows = -(-len(images) // across)
    sheet = Image.new("RGBA", (min(across, len(images)) * wide, rows * high), _NOTHING)
    for at, image in enumerate(images):
        if image is not None:
            fitted = _fitted(image, side)
            left, top = at % across * wide, at // across * high
            sheet.paste(fitted, (left + (side - fitted.width) // 2, top + (side - fitted.height) // 2))
    return sheet


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """Bring an image to a cell's size: small ones by a whole factor, without blur."""
    longest = max(image.size)
    if longest > side:
        size = (max(1, image.width * side // longest), max(1, image.height * side // longest))
        return image.resize(size, Image.Resampling.BOX)
    factor = side // longest
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def atlas_sheets(atlas: Atlas, layer: Layer, units: Sequence[int], method: Method = "deconvnet") -> dict[Kind, bytes]:
    """Return the sheets of some units' strongest patches, and of their projections, each on its own contrast."""
    examples = {unit: atlas.top(layer.name, unit, 1) for unit in units}
    shown, _ = projected(atlas, layer, examples, method)
    firsts = [next(iter(shown[unit]), None) for unit in units]
    show, side = atlas.net.show, side_of(atlas.net, layer)
    return {
        "patches": encoded(laid_out([one and shown_as(one.patch, show) for one in firsts], side)),
        "projections": encoded(laid_out([one and _grey([one], show)[0] for one in firsts], side)),
    }


def strip(
    atlas: Atlas, layer: Layer, unit: int, examples: Sequence[Example], method: Method, *, patches: bool = True
) -> bytes:
    """Return a unit's patches in a row, unless they are left out, and below them their projections on one contrast."""
    shown, _ = projected(atlas, layer, {unit: examples}, method)
    show = atlas.net.show
    tiles = shown[unit]
    images = [*([shown_as(one.patch, show) for one in tiles] if patches else ()), *_grey(tiles, show)]
    return encoded(laid_out(images, side_of(atlas.net, layer), len(tiles)))


def _grey(shown: Sequence[Shown], show: Sequence[int]) -> list[Image.Image]:
    finite = [one.projection[np.isfinite(one.projection)] for one in shown]
    limit = contrast(np.concatenate(finite)) if finite else 1.0
    return [grey_zero(one.projection, limit, show) for one in shown]


def filter_sheet(net: Net, layer: Layer, units: Sequence[int]) -> bytes:
    """Return the filters of a layer that reads pixels, on one scale. Raises LayerError for another layer."""
    weights = filters(net, layer=layer.name).values["filters"].numpy()
    limit = robust_limit(weights)
    return encoded(laid_out([grey_zero(weights[unit], limit, net.show) for unit in units], side_of(net, layer)))


def has_filters(net: Net, layer: Layer) -> bool:
    """Whether a layer's weights can be shown as pictures."""
    try:
        filters(net, layer=layer.name)
    except ConvscopeError:
        return False
    return True


def map_sheet(activity: Tensor, units: Sequence[int]) -> bytes:
    """Return the feature maps of some units, activity (channels, rows, columns), on the scale of all."""
    values = activity.numpy()
    scale = signed_scale(values) if values.min() < 0 else magnitude_scale(values)
    painted = [Image.fromarray(colours.paint(values[unit], scale.low, scale.high, scale.colours)) for unit in units]
    return encoded(laid_out(painted, CELL, pitch=PITCH))


def map_sheet_size(count: int) -> tuple[int, int]:
    """Return the width and height of a sheet of so many feature maps."""
    return min(ACROSS, count) * PITCH[0], -(-count // ACROSS) * PITCH[1]


def map_at(x: int, y: int) -> tuple[int, int, int]:
    """Return which map of a sheet lies at a pixel of it, or nearest to it, and where in the map's cell that is."""
    column, row = min(x // PITCH[0], ACROSS - 1), y // PITCH[1]
    return row * ACROSS + column, min(x - column * PITCH[0], CELL - 1), min(y - row * PITCH[1], CELL - 1)


def map_factor(rows: int, columns: int) -> float:
    """Return how many pixels of a cell stand for a position of a map of that size."""
    longest = max(rows, columns)
    return CELL / longest if longest > CELL else CELL // longest


def position_in_cell(x: int, y: int, rows: int, columns: int) -> tuple[int, int]:
    """Return the row and column of a map that lie at a pixel of its cell, the nearest ones beside the map."""
    factor = map_factor(rows, columns)
    left, top = (CELL - int(columns * factor)) // 2, (CELL - int(rows * factor)) // 2
    row, column = int((y - top) // factor), int((x - left) // factor)
    return min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)


_SPOT = 288


def spot_images(net: Net, found: Projected) -> tuple[bytes, bytes]:
    """Return what a unit sees of a picture, and its projection there, each enlarged without blur."""
    pixels, projection = found.pixels.float().cpu().numpy(), found.projection.float().cpu().numpy()
    grey = grey_zero(projection, contrast(projection), net.show)
    return _enlarged(shown_as(pixels, net.show)), _enlarged(grey)


def _enlarged(image: Image.Image) -> bytes:
    factor = max(1, _SPOT // max(image.size))
    return encoded(image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST))


def thumbnail(content: bytes, name: str) -> bytes:
    """Return a picture in small."""
    image = open_picture(content, name=name)
    image.thumbnail((2 * CELL, 2 * CELL))
    return encoded(image)
