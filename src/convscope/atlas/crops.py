"""Projections of many units down to pixels, in batches, from crops that hold what each unit sees.

One pass over a whole picture for every unit computes mostly what cannot reach the unit. Where the network can be
followed (`cropping`), a unit's projection is computed from a crop instead. A crop at each border of the picture is
computed both ways before the result is trusted; where that differs, or no crops are known, whole pictures go through
the network, several at a time. Units that see the same crop share its forward pass, and go back one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..attribution.deconvnet import deconvnets, guided_backprops
from ..attribution.gradient import gradients
from ..batching import Halving
from ..context import listen, remarks_about, track
from ..errors import LayerError, OptionError
from ..incremental.tape import CannotFollow
from ..layers import layer_at, output_or_layer
from ..layouts import laid_out
from ..net import Net
from ..objectives import Objective, check_position
from ..running import check_repeatable
from ..tracing import Layer
from .cropping import Box, Cropping

Method = Literal["deconvnet", "guided", "gradient"]
"""How a unit is projected down to pixels; all of them send nothing outside what the unit sees."""

METHODS: dict[Method, Callable[[Net, Tensor, Sequence[Objective]], Tensor]] = {
    "deconvnet": deconvnets,
    "guided": guided_backprops,
    "gradient": gradients,
}

_AREA, _NUMBERS = 4, 3 * 2**16
"""A batch holds so many whole pictures, and more of small ones: as many as have so many numbers."""

_MOST = 256
"""More crops at once are not quicker."""

_SERVED = 16
"""Units at most that one forward pass of a crop serves: more would save little, and their projections take memory."""

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
    # Those with as many spots stand together: what is in a batch goes back as often as the one with most.
    with net.held():
        for numbers in track(sorted(pictures.values(), key=len), f"projecting {projector.layer.title}"):
            pixels = net.checked(read(spots[numbers[0]].picture)).detach().to(net.device)
            yield from projector.add({number: spots[number] for number in numbers}, pixels)
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
class _Aim:
    """A spot in the part of a picture that goes through: its number, the unit and its place in the part's grid.

    `box`, in the picture, is what is shown.
    """

    number: int
    unit: int
    position: tuple[int, int]
    box: Box


@dataclass(frozen=True)
class _Part:
    """The part of a picture that goes through the network, and the spots that are projected from it.

    `pixels` (c, h, w) begin at `corner` of the picture.
    """

    pixels: Tensor
    corner: tuple[int, int]
    aims: tuple[_Aim, ...]

    def shown(self, values: Tensor, box: Box) -> Tensor:
        """Cut what is shown out of pixels or a projection (c, h, w)."""
        (top, left), (y0, x0, y1, x1) = self.corner, box
        return values[:, y0 - top : y1 - top, x0 - left : x1 - left].clone()

    def pieces(self, most: int) -> list[_Part]:
        """Return it once for each so many of its spots."""
        return [replace(self, aims=self.aims[at : at + most]) for at in range(0, len(self.aims), most)]


_Result = tuple[Tensor, tuple[str, ...]]
"""A projection (c, h, w), and what must be said of it."""


class _Pictures:
    """Pictures of one size: the layer as it is for them, crops where there are any, and what waits for its batch."""

    def __init__(self, net: Net, layer: Layer, pixels: Tensor) -> None:
        check_repeatable(net, pixels)
        self.layer, self.numel = layer_at(net, layer, pixels), pixels[0].numel()
        self.waiting: dict[tuple[int, ...], list[_Part]] = {}
        self.checked: set[tuple[bool, ...]] = set()
        self.cropping: Cropping | None = None
        self.remark = ""
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

    def whole(self, pixels: Tensor, number: int, unit: int, position: tuple[int, int]) -> _Part:
        """Return a picture (1, c, h, w) as what goes through the network for a spot."""
        box = self.layer.shown_field.box(position, (pixels.shape[2], pixels.shape[3]))
        return _Part(pixels[0], (0, 0), (_Aim(number, unit, position, box),))


class _Projector:
    """Collects spots, and projects as many at once as make a batch."""

    def __init__(self, net: Net, layer: Layer, method: Method, batch: int | None) -> None:
        self.net, self.layer, self.method, self.batch = net, layer, METHODS[method], batch
        self.sizes: dict[tuple[int, ...], _Pictures] = {}
        self.halving = Halving("projecting")

    def add(self, spots: Mapping[int, Spot], pixels: Tensor) -> Iterator[tuple[int, Projected]]:
        """Take spots of a picture (1, c, h, w), by number, and yield those that have become a batch."""
        size = tuple(pixels.shape[2:])
        pictures = self.sizes.get(size) or self.sizes.setdefault(size, _Pictures(self.net, self.layer, pixels))
        parts: dict[tuple[Any, ...], _Part] = {}
        for number, spot in spots.items():
            position = checked_position(spot, pictures.layer, size)
            part = self._part(pictures, pictures.whole(pixels, number, spot.unit, position), len(spots))
            same = (part.corner, part.pixels.shape)
            parts[same] = replace(part, aims=parts[same].aims + part.aims) if same in parts else part
        for part in parts.values():
            batch = pictures.waiting.setdefault(tuple(part.pixels.shape), [])
            batch.append(part)
            if len(batch) >= self._most(pictures, part):
                yield from self._project(pictures, batch)

    def _most(self, pictures: _Pictures, part: _Part) -> int:
        """Return how many parts of the shape of one are a batch."""
        return self.batch or min(max(_AREA * pictures.numel, _NUMBERS) // part.pixels.numel(), _MOST)

    def finish(self) -> Iterator[tuple[int, Projected]]:
        """Yield the spots that are left."""
        for pictures in self.sizes.values():
            for batch in filter(None, pictures.waiting.values()):
                yield from self._project(pictures, batch)
        self.halving.report()

    def _part(self, pictures: _Pictures, whole: _Part, spots: int) -> _Part:
        """Return the crop for one of so many spots, or the whole picture where a crop may differ, or saves little."""
        (aim,), (height, width) = whole.aims, whole.pixels.shape[1:]
        with pictures.whole_if_it_fails():
            cropping = pictures.cropping
            box = cropping and cropping.box(aim.position, spots)
            if cropping is None or box is None:
                return whole
            top, left, bottom, right = box
            # A copy: the picture itself need not be kept.
            seen = whole.pixels[:, top:bottom, left:right].clone()
            crop = _Part(seen, (top, left), (replace(aim, position=cropping.within(aim.position)),))
            borders = (top == 0, left == 0, bottom == height, right == width)
            if borders not in pictures.checked and not self._same(pictures.layer, crop, whole):
                raise CannotFollow("a crop gave another projection")
            pictures.checked.add(borders)
            return crop
        return whole

    def _same(self, layer: Layer, crop: _Part, whole: _Part) -> bool:
        """Whether a unit's projection is the same from a crop as from the whole picture."""
        (part, _), (expected, _) = (self._projected(layer, [one])[0][0] for one in (crop, whole))
        (top, left), (height, width) = crop.corner, part.shape[1:]
        around = torch.zeros_like(expected)
        around[:, top : top + height, left : left + width] = part
        # A GPU may round products to ten bits.
        unit = max(torch.finfo(part.dtype).eps, 2.0**-17 if part.is_cuda else 0.0)
        tolerance = _ROUNDING * unit * float(expected.abs().amax())
        return float((around - expected).abs().amax()) <= tolerance

    def _project(self, pictures: _Pictures, batch: list[_Part]) -> Iterator[tuple[int, Projected]]:
        """Project a batch of parts of one shape, and empty it."""
        together, more = self._most(pictures, batch[0]), (pictures.remark, gate_remark(pictures.layer))
        parts = _served(batch)
        batch.clear()

        def work(piece: slice) -> list[list[_Result]]:
            return self._projected(pictures.layer, parts[piece])

        for start in range(0, len(parts), together):
            piece = slice(start, min(start + together, len(parts)))
            results = [result for some in self.halving.over(work, piece) for result in some]
            for part, found in zip(parts[piece], results, strict=True):
                for aim, (projection, remarks) in zip(part.aims, found, strict=True):
                    said = tuple(filter(None, (*remarks, *more)))
                    pixels, shown = (part.shown(values, aim.box) for values in (part.pixels, projection))
                    yield aim.number, Projected(pixels, shown, aim.box, said)

    def _projected(self, layer: Layer, parts: Sequence[_Part]) -> list[list[_Result]]:
        """Return the projections (c, h, w) of every part, from one pass, and what must be said of each."""
        count, rounds = len(parts), range(max(len(part.aims) for part in parts))
        with listen() as remarks:
            # A part of fewer spots takes its last again.
            aims = [[part.aims[min(at, len(part.aims) - 1)] for part in parts] for at in rounds]
            terms = [_Places(layer, tuple(a.unit for a in row), tuple(a.position for a in row)) for row in aims]
            pixels = laid_out(self.net, torch.stack([part.pixels for part in parts]))
            maps = self.method(self.net, pixels, [Objective(((1.0, term),)) for term in terms])
        rows = [[at * count + number for at in range(len(part.aims))] for number, part in enumerate(parts)]
        return [[(maps[row], remarks_about(remarks, row)) for row in each] for each in rows]


def _served(parts: Sequence[_Part]) -> list[_Part]:
    """Return parts with so many spots each, at most, that the passes forward and back are fewest."""

    def passes(most: int) -> int:
        return sum(-(-len(part.aims) // most) for part in parts) * (1 + most)

    most = min(max(len(part.aims) for part in parts), _SERVED)
    best = min(range(1, most + 1), key=passes)
    return [piece for part in parts for piece in part.pieces(best)]


def gate_remark(layer: Layer) -> str:
    """Return what a reader must know of a layer whose units see more than is shown; "" for all others."""
    return _GATED if layer.field.shared and not layer.shown_field.shared else ""


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
