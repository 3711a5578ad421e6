"""Where a layer's units lie in the picture: as the dry run followed them, or measured by gradients, or refused.

A unit lies where its receptive field is centred. Where an operation moved pixels in a way that is not followed, the
centroids of the gradients of a few units tell whether they lie evenly over the picture all the same, maybe mirrored; if
they do not, no map can be laid over the picture.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..context import say
from ..errors import ConvscopeError, LayerError, OptionError
from ..kept import Kept
from ..layers import layer_at
from ..net import Net
from ..objectives import Objective
from ..tracing import Layer
from .gradient import gradient_at_pixels

Places = tuple[Sequence[float], Sequence[float]]
"""The pixel coordinates of the middles of a layer's rows and columns."""

_PROBES, _BATCH = 5, 5
"""Rows and columns of the grid of units that are measured, and how many in one pass."""

_FOLLOWS = 0.95
"""The correlation between where units are taken to lie and where their gradients are below which they do not."""

_MEASURED = 64
"""Layers and sizes of pictures of which what was measured is kept."""

_measured: weakref.WeakKeyDictionary[Net, Kept[tuple[Layer, tuple[int, int]], tuple[int, int] | None]] = (
    weakref.WeakKeyDictionary()
)


def places(net: Net, layer: Layer, pixels: Tensor, align: str) -> Places:
    """Return where the rows and columns of `layer.by_position` lie in pictures (n, c, h, w).

    `align` is "field", by their receptive fields, or "stretch", evenly over the picture in the same order. Raises
    LayerError where "field" is not known and gradients do not tell.
    """
    if align not in ("field", "stretch"):
        raise OptionError(f"align is 'field' or 'stretch', not {align!r}")
    layer = layer_at(net, layer, pixels)
    units, extent = _grid(layer), (pixels.shape[-2], pixels.shape[-1])
    moved = layer.lattice.moved if max(units) > 1 else None
    if moved is None:
        return places_by_field(layer) if align == "field" else stretched(layer, extent)
    evenly = [_spread(range(n), most) for n, most in zip(units, extent, strict=True)]
    if align == "stretch":
        say(f"the layer's grid is laid evenly: where its units lie is not known after {moved.operation!r}")
        return evenly[0], evenly[1]
    signs = None if moved.by_picture else _signs(net, layer, pixels)
    if signs is None:
        raise _unknown(net, layer)
    say(f"where units lie after {moved.operation!r} was measured: evenly over the picture{_mirrored(signs)}")
    rows, columns = (at[::sign] for at, sign in zip(evenly, signs, strict=True))
    return rows, columns


def places_by_field(layer: Layer) -> Places:
    """Return the middles of the fields of a layer's rows and columns."""
    rows, columns = _grid(layer)
    return layer.lattice.y.positions(rows), layer.lattice.x.positions(columns)


def stretched(layer: Layer, extent: tuple[int, int]) -> Places:
    """Return a layer's rows and columns spread evenly over a picture of (height, width), in the order of their places.

    Other packages lay the grid so.
    """
    rows, columns = (_spread(at, most) for at, most in zip(places_by_field(layer), extent, strict=True))
    return rows, columns


def _grid(layer: Layer) -> tuple[int, int]:
    """Return the rows and columns of `layer.by_position`."""
    rows, columns = layer.grid
    return (columns, rows) if layer.lattice.swapped else (rows, columns)


def _spread(at: Sequence[float], extent: int) -> list[float]:
    """Return positions spread evenly over `extent` pixels, in the order of others."""
    step = extent / len(at)
    order = sorted(range(len(at)), key=at.__getitem__)
    return [(rank + 0.5) * step - 0.5 for rank in sorted(range(len(at)), key=order.__getitem__)]


def _mirrored(signs: tuple[int, int]) -> str:
    ways = [way for way, sign in zip(("upside down", "mirrored"), signs, strict=True) if sign < 0]
    return ", " + " and ".join(ways) if ways else ""


def _unknown(net: Net, layer: Layer) -> LayerError:
    """Return the error for a layer whose units lie nobody knows where."""
    moved = layer.lattice.moved
    assert moved is not None
    known = [one for one in net.layers.values() if one.positions > 1 and one.leaf and one.lattice.moved is None]
    before = [one.name for one in known if one.name and min(one.grid) > 1]
    how = "moves units as the picture decides" if moved.by_picture else "moves or mixes units"
    earlier = f"name a layer before that, such as {before[-1]!r}" if before else "no earlier layer has positions"
    return LayerError(
        f"where the units of {layer.title} of {net.name} lie in the picture is not known: {moved.operation!r}, which "
        f"runs before, {how}. {earlier[:1].upper()}{earlier[1:]}, take a method without a layer (saliency, occlusion), "
        "or lay its grid evenly with align='stretch'"
    )


def _signs(net: Net, layer: Layer, pixels: Tensor) -> tuple[int, int] | None:
    """Measure whether units lie evenly over the picture: per axis 1, or -1 where they are mirrored; None if not."""
    key = (layer, (pixels.shape[-2], pixels.shape[-1]))
    return _measured.setdefault(net, Kept(_MEASURED)).of(key, lambda: _measure(net, layer, pixels))


@dataclass(frozen=True)
class _Probe:
    """A term that reads one unit of a layer in every picture of a batch, all channels with different weights."""

    of: Layer
    units: tuple[tuple[int, int], ...]

    @property
    def layer(self) -> str:
        return self.of.name

    def read(self, activity: Tensor) -> Tensor:
        by_position = self.of.by_position(activity)
        each = torch.stack([one[:, y, x] for one, (y, x) in zip(by_position, self.units, strict=True)])
        return each @ torch.linspace(1, 2, each.shape[1], dtype=each.dtype, device=each.device)

    def title(self, net: Net) -> str:
        return f"units of {self.layer}"


def _measure(net: Net, layer: Layer, pixels: Tensor) -> tuple[int, int] | None:
    grid, extent = _grid(layer), pixels.shape[-2:]
    rows, columns = ([round((k + 0.5) / _PROBES * n - 0.5) for k in range(_PROBES)] for n in grid)
    units = list(dict.fromkeys((y, x) for y in rows for x in columns))
    noise = torch.rand(len(units), *pixels.shape[1:], generator=torch.Generator().manual_seed(0)).to(pixels)
    try:
        parts = [
            gradient_at_pixels(
                net, noise[i : i + _BATCH], Objective(((1.0, _Probe(layer, tuple(units[i : i + _BATCH]))),))
            )
            for i in range(0, len(units), _BATCH)
        ]
    except ConvscopeError:  # no gradient reaches the picture
        return None
    magnitude = torch.cat(parts).abs().sum(1).double().cpu()
    # What all units read, as normalisations make them, says nothing of where each lies.
    own = (magnitude - magnitude.mean(0)).clamp(min=0)
    signs = list[int]()
    for axis, (n, most) in enumerate(zip(grid, extent, strict=True)):
        weight = own.sum(2 - axis)
        at = (weight * torch.arange(most)).sum(1) / weight.sum(1)
        evenly = torch.tensor([_spread(range(n), most)[unit[axis]] for unit in units], dtype=torch.float64)
        signs.append(_direction(at, evenly, most / n))
    return (signs[0], signs[1]) if all(signs) else None


def _direction(at: Tensor, evenly: Tensor, step: float) -> int:
    """Return 1 where positions follow an even grid, -1 where they follow it backwards, 0 where they do not."""
    if evenly.max() == evenly.min():
        return 1
    follows = float(torch.corrcoef(torch.stack([at, evenly]))[0, 1])
    centred = abs(float(at.mean() - evenly.mean())) <= step
    return (1 if follows > 0 else -1) if abs(follows) >= _FOLLOWS and centred else 0
