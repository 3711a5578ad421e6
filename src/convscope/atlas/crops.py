"""Projections of many units down to pixels, in batches, from crops that hold what each unit sees.

One pass over a whole picture for every unit computes mostly what cannot reach the unit. Where the network can be
followed (`cropping`), a unit's projection is computed from a crop instead. A crop at each border of the picture is
computed both ways before the result is trusted; where that differs, or no crops are known, whole pictures go through
the network, several at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..attribution.deconvnet import deconvnet, guided_backprop
from ..attribution.gradient import gradient
from ..batching import Halving
from ..context import listen, remarks_about, track
from ..errors import LayerError, OptionError
from ..incremental.tape import CannotFollow
from ..layers import layer_at, output_or_layer
from ..net import Net
from ..objectives import Objective, check_position
from ..running import check_repeatable
from ..tracing import Layer
from .cropping import Box, Cropping

Method = Literal["deconvnet", "guided", "gradient"]
"""How a unit is projected down to pixels; all of them send nothing outside what the unit sees."""

METHODS: dict[Method, Callable[[Net, Tensor, Objective], Tensor]] = {
    "deconvnet": deconvnet,
    "guided": guided_backprop,
    "gradient": gradient,
}

_AREA = 4
"""A batch holds the pixels of so many whole pictures."""

_MOST = 256
"""More crops at once are not quicker."""

_ROUNDING = 1000
"""By so many units of rounding two ways to compute a projection may differ."""

_GATED = "a unit reads the whole picture, by a normalisation or gate; shown is what it sees through convolutions alone"


@dataclass(frozen=True)
class Spot:
    """A unit of a layer, at a place of one picture.

    `picture` is whatever `read` takes; `y` and `x` are the row and column in the layer's grid for that picture, None
    for a layer without spatial positions.
    """

    picture: Any
    unit: int
    y: int | None = None
    x: int | None = None


@dataclass(frozen=True)
class Projected:
    """What a unit sees of a picture, and its projection there.

    `pixels` (c, h, w) in [0, 1] and `projection` of the same shape lie in `box`, (top, left, bottom, right) in pixels
    of the network's input, cut off at the picture's border.
    """

    pixels: Tensor
    projection: Tensor
    box: Box
    remarks: tuple[str, ...] = ()


def project_spots(
    net: Net,
    layer: str | int,
    spots: Sequence[Spot],
    read: Callable[[Any], Tensor],
    method: Method = "deconvnet",
    *,
    batch: int | None = None,
) -> list[Projected]:
    """Project units of one layer down to pixels, each at its place of its picture.

    Args:
        net: the network.
        layer: a layer's name or number.
        spots: the units and their places.
        read: returns the pixels (1, c, h, w) of a spot's picture, as `net.read` does; called once for each picture.
        method: "deconvnet", "guided" or "gradient".
        batch: whole pictures, or crops, per pass; chosen by their size when not given, halved when memory runs out.

    Returns one Projected per spot, in their order: the objective is the unit's value, as in
    `explain(net, picture, method, "layer:unit@y,x")`. Raises LayerError for a layer or place that does not exist.
    """
    done = dict(projections(net, layer, spots, read, method, batch=batch))
    return [done[number] for number in range(len(spots))]


def projections(
    net: Net,
    layer: str | int,
    spots: Sequence[Spot],
    read: Callable[[Any], Tensor],
    method: Method = "deconvnet",
    *,
    batch: int | None = None,
) -> Iterator[tuple[int, Projected]]:
    """Yield the number of a spot and its Projected as soon as it is known, as `project_spots` would return it."""
    if method not in METHODS:
        raise OptionError(f"method is {', '.join(METHODS)}, not {method!r}")
    projector = _Projector(net, output_or_layer(net, layer), method, batch)
    pictures: dict[Any, list[int]] = {}
    for number, spot in enumerate(spots):
        key = spot.picture if isinstance(spot.picture, Hashable) else id(spot.picture)
        pictures.setdefault(key, []).append(number)
    for numbers in track(list(pictures.values()), f"projecting {projector.layer.title}"):
        pixels = net.checked(read(spots[numbers[0]].picture)).detach().to(net.device)
        for number in numbers:
            yield from projector.add(number, spots[number], pixels)
    yield from projector.finish()


@dataclass(frozen=True)
class _Places:
    """Single units of a layer, one for each picture of a batch; a term of objectives."""

    of: Layer
    units: tuple[int, ...]
    positions: tuple[tuple[int, int], ...]

    @property
    def layer(self) -> str:
        return self.of.name

    def read(self, activity: Tensor) -> Tensor:
        """Return the units' values, from the layer's activity to (n,)."""
        rows, units = torch.arange(len(activity)), torch.tensor(self.units)
        if not self.of.positions:
            return activity[rows, units]
        y, x = torch.tensor([self.of.lattice.along(position) for position in self.positions]).unbind(1)
        return self.of.by_position(activity)[rows, units, y, x]

    def title(self, net: Net) -> str:
        return f"units of {self.of.title}"


@dataclass(frozen=True)
class _Part:
    """The part of a picture that goes through the network for a spot.

    `pixels` (c, h, w) begin at `corner` of the picture; `position` is the unit's in their grid; `box`, in the picture,
    is what is shown of it.
    """

    pixels: Tensor
    corner: tuple[int, int]
    unit: int
    position: tuple[int, int]
    box: Box

    def shown(self, values: Tensor) -> Tensor:
        """Cut what is shown out of pixels or a projection (c, h, w)."""
        (top, left), (y0, x0, y1, x1) = self.corner, self.box
        return values[:, y0 - top : y1 - top, x0 - left : x1 - left].clone()


_Result = tuple[Tensor, tuple[str, ...]]
"""A projection (c, h, w), and what must be said of it."""


class _Pictures:
    """Pictures of one size: the layer as it is for them, crops where there are any, and what waits for its batch."""

    def __init__(self, net: Net, layer: Layer, pixels: Tensor) -> None:
        check_repeatable(net, pixels)
        self.layer = layer_at(net, layer, pixels)
        self.waiting: dict[tuple[int, ...], dict[int, _Part]] = {}
        self.checked: set[tuple[bool, ...]] = set()
        self.cropping: Cropping | None = None
        self.remark = ""
        self.gated = self.layer.field.shared and not self.layer.shown_field.shared
        with self.whole_if_it_fails():
            self.cropping = Cropping(net, pixels, self.layer.name)

    @contextmanager
    def whole_if_it_fails(self) -> Generator[None]:
        """Take whole pictures from here on where crops are not sure to give the same."""
        try:
            yield
        except CannotFollow as error:
            self.cropping, self.remark = None, f"computed from whole pictures: {error}"
        except Exception as error:  # whole pictures need nothing of what failed
            self.cropping, self.remark = None, f"computed from whole pictures: crops raise {type(error).__name__}"

    def whole(self, pixels: Tensor, unit: int, position: tuple[int, int]) -> _Part:
        """Return a picture (1, c, h, w) as what goes through the network for a unit."""
        extent = (pixels.shape[2], pixels.shape[3])
        return _Part(pixels[0], (0, 0), unit, position, self.layer.shown_field.box(position, extent))


class _Projector:
    """Collects spots, and projects as many at once as make a batch."""

    def __init__(self, net: Net, layer: Layer, method: Method, batch: int | None) -> None:
        self.net, self.layer, self.method, self.batch = net, layer, METHODS[method], batch
        self.sizes: dict[tuple[int, ...], _Pictures] = {}
        self.halving = Halving("projecting")

    def add(self, number: int, spot: Spot, pixels: Tensor) -> Iterator[tuple[int, Projected]]:
        """Take a spot of a picture (1, c, h, w), and yield the spots that have become a batch."""
        size = tuple(pixels.shape[2:])
        pictures = self.sizes.get(size) or self.sizes.setdefault(size, _Pictures(self.net, self.layer, pixels))
        part = self._part(pictures, spot.unit, checked_position(spot, pictures.layer, size), pixels)
        batch = pictures.waiting.setdefault(tuple(part.pixels.shape), {})
        batch[number] = part
        if len(batch) >= (self.batch or min(_AREA * pixels[0].numel() // part.pixels.numel(), _MOST)):
            yield from self._project(pictures, batch)

    def finish(self) -> Iterator[tuple[int, Projected]]:
        """Yield the spots that are left."""
        for pictures in self.sizes.values():
            for batch in pictures.waiting.values():
                yield from self._project(pictures, batch)
        self.halving.report()

    def _part(self, pictures: _Pictures, unit: int, position: tuple[int, int], pixels: Tensor) -> _Part:
        """Return the crop for a unit, or the whole picture where that is not sure to give the same, or saves little."""
        whole = pictures.whole(pixels, unit, position)
        with pictures.whole_if_it_fails():
            cropping = pictures.cropping
            box = cropping and cropping.box(position)
            if cropping is None or box is None:
                return whole
            top, left, bottom, right = box
            # A copy: the picture itself need not be kept.
            seen = whole.pixels[:, top:bottom, left:right].clone()
            crop = replace(whole, pixels=seen, corner=(top, left), position=cropping.within(position))
            borders = (top == 0, left == 0, bottom == pixels.shape[2], right == pixels.shape[3])
            if borders not in pictures.checked and not self._same(pictures.layer, crop, whole):
                raise CannotFollow("a crop gave another projection")
            pictures.checked.add(borders)
            return crop
        return whole

    def _same(self, layer: Layer, crop: _Part, whole: _Part) -> bool:
        """Whether a unit's projection is the same from a crop as from the whole picture."""
        (part, _), (expected, _) = (self._projected(layer, [one])[0] for one in (crop, whole))
        (top, left), (height, width) = crop.corner, part.shape[1:]
        around = torch.zeros_like(expected)
        around[:, top : top + height, left : left + width] = part
        # A GPU may round products to ten bits.
        unit = max(torch.finfo(part.dtype).eps, 2.0**-17 if part.is_cuda else 0.0)
        tolerance = _ROUNDING * unit * float(expected.abs().amax())
        return float((around - expected).abs().amax()) <= tolerance

    def _project(self, pictures: _Pictures, batch: dict[int, _Part]) -> Iterator[tuple[int, Projected]]:
        """Project a batch of parts of one shape, and empty it."""
        parts, more = list(batch.values()), (pictures.remark, _GATED if pictures.gated else "")

        def work(piece: slice) -> list[_Result]:
            return self._projected(pictures.layer, parts[piece])

        results = [result for piece in self.halving.over(work, slice(0, len(parts))) for result in piece]
        for number, part, (projection, remarks) in zip(list(batch), parts, results, strict=True):
            said = tuple(filter(None, (*remarks, *more)))
            yield number, Projected(part.shown(part.pixels), part.shown(projection), part.box, said)
        batch.clear()

    def _projected(self, layer: Layer, parts: Sequence[_Part]) -> list[_Result]:
        """Return the projection (c, h, w) of every part, from one pass, and what must be said of it."""
        term = _Places(layer, tuple(part.unit for part in parts), tuple(part.position for part in parts))
        with listen() as remarks:
            maps = self.method(self.net, torch.stack([part.pixels for part in parts]), Objective(((1.0, term),)))
        return [(one, remarks_about(remarks, row)) for row, one in enumerate(maps)]


def checked_position(spot: Spot, layer: Layer, size: tuple[int, ...]) -> tuple[int, int]:
    """Return the row and column of a spot, 0 for a layer without any. Raises LayerError for what the layer lacks."""
    channels = layer.shape[0] if layer.channelled else layer.shape[-1]
    if not 0 <= spot.unit < channels:
        raise LayerError(f"{layer.title} has units 0 to {channels - 1}: there is no {spot.unit}")
    if not layer.positions:
        if spot.y is not None or len(layer.shape) != 1:
            raise LayerError(
                f"{layer.title} has shape {layer.shape}, without spatial positions: "
                f"write Spot(picture, {spot.unit}) for a layer of shape (c,), or name another layer"
            )
        return 0, 0
    if spot.y is None or spot.x is None:
        raise LayerError(f"{layer.title} has spatial positions: say at which, as Spot(picture, {spot.unit}, 0, 0)")
    check_position((spot.y, spot.x), layer.grid, layer.name, size)
    return spot.y, spot.x
