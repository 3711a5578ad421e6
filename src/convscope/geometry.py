"""Receptive fields: which pixels each unit of a layer can see, and the arithmetic of windows, strides and joins.

Along one axis the units of a layer see intervals of equal size at equal distances, so that four numbers say all; every
operation that slides, pads, strides, stretches, mirrors or joins maps those numbers to others. Rolling adds where the
axis begins again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a layer: unit i sees pixels [start + i step, start + i step + size).

    `step` is negative where the layer is mirrored. `shared` says that every unit sees the same pixels [start, start +
    size); `step` and `centre` then still tell where unit i lies. `centre` is the pixel coordinate of the middle of
    unit 0. `wrap` is the interval (low, period) within which rolled units lie.
    """

    start: float = 0.0
    size: float = 1.0
    step: float = 1.0
    centre: float = 0.0
    shared: bool = False
    wrap: tuple[float, float] | None = None

    def window(self, kernel: float, stride: float, padding: float, dilation: float = 1) -> Axis:
        """Return the axis after a sliding window."""
        return self._reading(-padding, (kernel - 1) * dilation, self.step * stride)

    def stretch(self, scale: float, first: float, reach: float) -> Axis:
        """Return the axis of outputs o that read inputs in [o / scale + first, o / scale + first + reach]."""
        return self._reading(first, reach, self.step / scale)

    def _reading(self, first: float, reach: float, step: float) -> Axis:
        """Return the axis whose unit 0 reads units in [first, first + reach] and whose units lie `step` apart."""
        centre = self.centre + (first + reach / 2) * self.step
        if self.shared:
            return replace(self, step=step, centre=centre)
        lowest = min(first * self.step, (first + reach) * self.step)
        return replace(
            self, start=self.start + lowest, size=self.size + reach * abs(self.step), step=step, centre=centre
        )

    def over(self, units: int) -> Axis:
        """Return the axis of one unit that reads all `units` units."""
        last = (units - 1) * self.step
        start, size = (self.start, self.size) if self.shared else (self.start + min(last, 0), self.size + abs(last))
        return Axis(start, size, max(abs(self.step) * units, 1.0), self.centre + last / 2, shared=True)

    def mirrored(self, units: int) -> Axis:
        """Return the axis of `units` units in reverse order."""
        return self.window(1, -1, 1 - units)

    def rolled(self, units: int, shift: int) -> Axis:
        """Return the axis of `units` units moved on by `shift` places, the last ones to the beginning."""
        if not shift % units:
            return self
        ends = self.centre, self.centre + (units - 1) * self.step
        low, period = self.wrap or (min(ends) - abs(self.step) / 2, units * abs(self.step))
        # Whole turns come back to where they began, but for rounding.
        centre = low + round((self.centre - shift * self.step - low) % period, 9) % period
        whole = 0 <= centre + (units - 1) * self.step - low < period
        start = self.start if self.shared else self.start + centre - self.centre
        return replace(self, start=start, centre=centre, wrap=None if whole else (low, period))

    def join(self, other: Axis) -> Axis:
        """Return the axis that sees what either of two axes sees."""
        start = min(self.start, other.start)
        size = max(self.start + self.size, other.start + other.size) - start
        return replace(self, start=start, size=size, centre=(self.centre + other.centre) / 2)

    def on_grid(self, grid: Axis, before: int, after: int) -> Axis:
        """Return the axis of `after` units, each of which sees all that this one does, evenly where `before` units lay.

        `grid` is the axis of those units: only their steps and centres count.
        """
        if before == after:
            return replace(self, step=grid.step, centre=grid.centre, wrap=grid.wrap)
        step = grid.step * before / after
        return replace(self, step=step, centre=grid.centre + (step - grid.step) / 2)

    def positions(self, units: int) -> list[float]:
        """Return the pixel coordinates of the middles of `units` units."""
        evenly = [self.centre + i * self.step for i in range(units)]
        if self.wrap is None:
            return evenly
        low, period = self.wrap
        return [low + (at - low) % period for at in evenly]


@dataclass(frozen=True)
class Moved:
    """Why it is not known where units lie: an operation that moves them, maybe as the picture itself decides."""

    operation: str
    by_picture: bool = False


@dataclass(frozen=True)
class Field:
    """The receptive field of a layer's units, in pixels of the network's input, as (y, x) pairs.

    For a layer without spatial positions it is the field of the whole layer. `swapped` says that the layer's columns
    follow the picture's rows and its rows the picture's columns. `moved` says after what it is not known where
    units lie: their steps and centres then mean nothing.
    """

    y: Axis = Axis()
    x: Axis = Axis()
    swapped: bool = False
    moved: Moved | None = None

    @property
    def size(self) -> tuple[float, float]:
        return self.y.size, self.x.size

    @property
    def step(self) -> tuple[float, float]:
        return self.y.step, self.x.step

    @property
    def shared(self) -> bool:
        """Whether every unit sees the same pixels."""
        return self.y.shared and self.x.shared

    @property
    def offset(self) -> tuple[float, float]:
        return self.y.start, self.x.start

    def box(self, position: tuple[int, int], picture: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the pixels (top, left, bottom, right) that one unit sees in a picture of (height, width).

        `position` is the unit's row and column in the layer.
        """
        at = self.along(position)
        (top, bottom), (left, right) = (
            _clip(axis, index, extent) for axis, index, extent in zip((self.y, self.x), at, picture, strict=True)
        )
        return top, left, bottom, right

    def along(self, position: tuple[int, int]) -> tuple[int, int]:
        """Return a layer's (row, column) as the numbers of the unit along the picture's rows and columns."""
        return (position[1], position[0]) if self.swapped else position

    def over(self, units: tuple[int, int]) -> Field:
        """Return the field of one unit that reads all units of a grid (rows, columns)."""
        return replace(self, y=self.y.over(units[0]), x=self.x.over(units[1]))

    def join(self, other: Field) -> Field:
        """Return the field that sees what either of two fields sees."""
        return replace(self, y=self.y.join(other.y), x=self.x.join(other.x), moved=self.moved or other.moved)


def _clip(axis: Axis, index: int, extent: int) -> tuple[int, int]:
    start = axis.start + (0 if axis.shared else index * axis.step)
    # Fractional steps are sums of floating point numbers: what is whole to a millionth is whole.
    low, high = math.ceil(start - 1e-6), math.floor(start + axis.size - 1 + 1e-6) + 1
    low = min(max(low, 0), extent - 1)
    return low, min(max(high, low + 1), extent)


def merged_axis(parts: Sequence[tuple[Axis, int]], units: int, *, alone: bool = False) -> Axis | None:
    """Return the axis of `units` units that are computed from several inputs, position by position, with broadcasting.

    `parts` are the inputs' axes with their numbers of units. `alone` leaves out what every unit sees beside its own.
    None where inputs of that many units lie in different places.
    """
    full = [axis for axis, count in parts if count == units]
    local = [axis for axis in full if not axis.shared] or full
    if not full or not _together(local):
        return None
    placed = replace(local[0], centre=sum(axis.centre for axis in local) / len(local))
    if local[0].shared or not (alone or (len(local) == len(parts))):
        wide = full[0].over(units)
        for axis, count in parts:
            wide = wide.join(axis.over(count))
        return replace(wide, step=placed.step, centre=placed.centre, wrap=placed.wrap)
    start = min(axis.start for axis in local)
    return replace(placed, start=start, size=max(axis.start + axis.size for axis in local) - start)


def _together(axes: Sequence[Axis]) -> bool:
    """Whether the same units of some axes see what lies side by side."""
    first = axes[0]
    if any(abs(axis.step - first.step) > 1e-6 * abs(first.step) or axis.wrap != first.wrap for axis in axes):
        return False
    reached = -math.inf
    for axis in sorted(axes, key=lambda axis: axis.start):
        if axis.start - reached > abs(axis.step) and reached > -math.inf:
            return False
        reached = max(reached, axis.start + axis.size)
    return True
