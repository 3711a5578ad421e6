"""Tiles of units: the patch of a picture that a unit sees, and its projection, at the size of a figure's tile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..data.display import to_image
from ..net import Net
from ..tracing import Layer
from .cropping import Box
from .crops import Method, Spot, projections

_SIDE = 80
"""Pixels of a figure along a patch, about: small patches are enlarged by a whole factor."""

_OUTSIDE = 225
_CLIPPED = 0.99


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


@dataclass(frozen=True)
class Shown:
    """A patch and its projection at the size of a tile, (c, h, w), NaN beyond the picture."""

    patch: np.ndarray
    projection: np.ndarray


def projected(
    atlas: Examples, layer: Layer, examples: Mapping[int, Sequence[Example]], method: Method
) -> tuple[dict[int, list[Shown]], list[str]]:
    """Project all units, and return what is shown of each, and what must be said of it."""
    listed = [(unit, one) for unit, each in examples.items() for one in each]
    extents: dict[int, tuple[int, int]] = {}

    def read(picture: int) -> Tensor:
        pixels = atlas.read(picture)
        extents[picture] = (pixels.shape[2], pixels.shape[3])
        return pixels

    spots = [Spot(one.picture, unit, one.y, one.x) for unit, one in listed]
    shown: dict[int, Shown] = {}
    said: Counter[str] = Counter()
    for at, found in projections(atlas.net, layer.name, spots, read, method):
        one = listed[at][1]
        frame = Frame.of(layer, (one.y or 0, one.x or 0), found.box, extents[one.picture])
        # Only this much is kept: whole pictures of many units would fill the memory.
        shown[at] = Shown(frame.around(found.pixels), frame.around(found.projection))
        said.update(found.remarks)
    by_unit: dict[int, list[Shown]] = {unit: [] for unit in examples}
    for at, (unit, _) in enumerate(listed):
        by_unit[unit].append(shown[at])
    remarks = [text if times == len(spots) else f"{text} ({times} of {len(spots)})" for text, times in said.items()]
    return by_unit, remarks


@dataclass(frozen=True)
class Frame:
    """Where a patch lies in the whole receptive field, or in the picture where units see more than that, in pixels."""

    size: tuple[int, int]
    corner: tuple[int, int]

    @classmethod
    def of(cls, layer: Layer, position: tuple[int, int], box: Box, picture: tuple[int, int]) -> Frame:
        """Frame the patch `box` of the unit at a row and column, in a picture of (height, width)."""
        field = layer.shown_field
        sides = list[tuple[int, int]]()
        for axis, index, low, extent in zip((field.y, field.x), field.along(position), box[:2], picture, strict=True):
            limited = not axis.shared and axis.size <= extent
            sides.append((round(axis.size), low - round(axis.start + index * axis.step)) if limited else (extent, low))
        return cls((sides[0][0], sides[1][0]), (sides[0][1], sides[1][1]))

    @property
    def factor(self) -> float:
        """How many pixels of a tile stand for one of the picture: a whole number, or less than 1."""
        longest = max(self.size)
        return max(1, round(_SIDE / longest)) if longest < 1.25 * _SIDE else _SIDE / longest

    @property
    def tile(self) -> list[int]:
        """The height and width of the tile."""
        return self._scaled(*self.size)

    def _scaled(self, *pixels: int) -> list[int]:
        return [max(1, round(extent * self.factor)) for extent in pixels]

    def around(self, values: Tensor) -> np.ndarray:
        """Bring a patch (c, h, w) to the size of a tile, NaN around it: small ones without blur, large ones down."""
        tile = np.full((len(values), *self.tile), np.nan, np.float32)
        mode = "nearest" if self.factor >= 1 else "bilinear"
        size = self._scaled(*values.shape[1:])
        batch = values.detach().float().cpu()[None]
        small = F.interpolate(batch, size=size, mode=mode, antialias=self.factor < 1)[0].numpy()
        top, left = (round(at * self.factor) for at in self.corner)
        room = tile[:, top : top + small.shape[1], left : left + small.shape[2]]
        room[:] = small[:, : room.shape[1], : room.shape[2]]
        return tile


def contrast(values: np.ndarray) -> float:
    """Return the magnitude that becomes white: of what a projection is, leaving aside the much that is zero."""
    magnitude = np.abs(values[values != 0])
    return float(np.quantile(magnitude, _CLIPPED)) if magnitude.size else 1.0


def shown_as(values: np.ndarray, show: Sequence[int]) -> Image.Image:
    """Show pixels (c, h, w) in [0, 1], pale grey where there are none."""
    beyond = np.isnan(values[0])
    image = to_image(np.where(beyond, 0.5, values), show).convert("RGB")
    image.paste((_OUTSIDE,) * 3, mask=Image.fromarray(beyond))
    return image


def grey_zero(projection: np.ndarray, limit: float, show: Sequence[int]) -> Image.Image:
    """Show a projection (c, h, w): grey is 0, and a magnitude of `limit` is white or black."""
    return shown_as(0.5 + projection * (0.5 / limit), show)
