"""Receptive fields: which pixels each unit of a layer can see, and the arithmetic of windows, strides and joins.

Along one axis the units of a layer see intervals of equal size at equal distances, so that four numbers say all; every
operation that slides, pads, strides, stretches or joins maps those numbers to others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a layer: unit i sees pixels [start + i step, start + i step + size).

    `shared` says that every unit sees the same pixels [start, start + size); `step` and `centre` then still tell
    where unit i lies. `centre` is the pixel coordinate of the middle of unit 0.
    """

    start: float = 0.0
    size: float = 1.0
    step: float = 1.0
    centre: float = 0.0
    shared: bool = False

    def window(self, kernel: float, stride: float, padding: float, dilation: float = 1) -> Axis:
        """Return the axis after a sliding window."""
        reach = (kernel - 1) * dilation
        centre = self.centre + (reach / 2 - padding) * self.step
        if self.shared:
            return replace(self, step=self.step * stride, centre=centre)
        return Axis(self.start - padding * self.step, self.size + reach * self.step, self.step * stride, centre)

    def stretch(self, scale: float, first: float, reach: float) -> Axis:
        """Return the axis of outputs o that read inputs in [o / scale + first, o / scale + first + reach]."""
        centre = self.centre + (first + reach / 2) * self.step
        if self.shared:
            return replace(self, step=self.step / scale, centre=centre)
        return Axis(self.start + first * self.step, self.size + reach * self.step, self.step / scale, centre)

    def over(self, units: int) -> Axis:
        """Return the axis of one unit that reads all `units` units."""
        last = (units - 1) * self.step
        size = self.size if self.shared else self.size + last
        return Axis(self.start, size, max(self.step * units, 1.0), self.centre + last / 2, shared=True)

    def join(self, other: Axis) -> Axis:
        """Return the axis that sees what either of two axes sees."""
        start = min(self.start, other.start)
        size = max(self.start + self.size, other.start + other.size) - start
        return replace(self, start=start, size=size, centre=(self.centre + other.centre) / 2)

    def on_grid(self, grid: Axis, before: int, after: int) -> Axis:
        """Return the axis of `after` units, each of which sees all that this one does, evenly where `before` units lay.

        `grid` is the axis of those units: only their steps and centres count.
        """
        step = grid.step * before / after
        return replace(self, step=step, centre=grid.centre + (step - grid.step) / 2)


@dataclass(frozen=True)
class Field:
    """The receptive field of a layer's units, in pixels of the network's input, as (y, x) pairs.

    For a layer without spatial positions it is the field of the whole layer.
    """

    y: Axis = Axis()
    x: Axis = Axis()

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
        """Return the pixels (top, left, bottom, right) that one unit sees in a picture of (height, width)."""
        (top, bottom), (left, right) = (
            _clip(axis, index, extent) for axis, index, extent in zip((self.y, self.x), position, picture, strict=True)
        )
        return top, left, bottom, right

    def over(self, units: tuple[int, int]) -> Field:
        """Return the field of one unit that reads all units of a grid (rows, columns)."""
        return Field(self.y.over(units[0]), self.x.over(units[1]))

    def join(self, other: Field) -> Field:
        """Return the field that sees what either of two fields sees."""
        return Field(self.y.join(other.y), self.x.join(other.x))


def _clip(axis: Axis, index: int, extent: int) -> tuple[int, int]:
    start = axis.start + (0 if axis.shared else index * axis.step)
    # Fractional steps are sums of floating point numbers: what is whole to a millionth is whole.
    low, high = math.ceil(start - 1e-6), math.floor(start + axis.size - 1 + 1e-6) + 1
    low = min(max(low, 0), extent - 1)
    return low, min(max(high, low + 1), extent)


def merged_axis(parts: Sequence[tuple[Axis, int]], units: int) -> Axis | None:
    """Return the axis of `units` units that are computed from several inputs, position by position, with broadcasting.

    `parts` are the inputs' axes with their numbers of units. None where inputs of that many units differ in step.
    """
    full = [axis for axis, count in parts if count == units]
    if not full or any(axis.step != full[0].step for axis in full):
        return None
    if len(full) == len(parts) and not any(axis.shared for axis in full):
        joined = full[0]
        for axis in full[1:]:
            joined = joined.join(axis)
        return joined
    wide = full[0].over(units)
    for axis, count in parts:
        wide = wide.join(axis.over(count))
    local = [axis for axis in full if not axis.shared] or full
    return replace(wide, step=local[0].step, centre=sum(axis.centre for axis in local) / len(local))
