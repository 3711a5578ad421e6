"""Cropping: the crop of a picture in which a unit computes what it computes in the whole picture.

A unit's value, and what is projected from it, depend on its receptive field alone. A crop holds the same field, in the
same place of every layer's grid, where

- it begins at a multiple of the stride of every layer below the unit, so that the windows fall on the same pixels;
- it has everything that the unit reads, of the picture and of every layer below;
- it ends with the picture where the unit reads beyond the picture, so that the same padding acts; and its length
  differs from the picture's by a multiple of the strides, so that windows end there in the same way.

All this holds if every call between the pixels and the layer is a window that slides, or
pointwise, and if a crop is treated just as the picture is. Both are read off tapes (`incremental`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from ..incremental.regions import Local, local_form
from ..incremental.tape import CannotFollow, Step, record
from ..net import Net

Box = tuple[int, int, int, int]
"""Pixels of a picture: top, left, bottom, right."""

_WORTH = 0.8
"""A crop of more than this share of the picture saves nothing, where no other unit is read in the picture."""

_LENGTHS = 8
"""Lengths of crops differ by about this part of the picture: of many shapes, few would go through at once."""


@dataclass(frozen=True)
class Axis:
    """Crops along one axis, in pixels: unit i reads [low + i step, high + i step) of a picture of `extent` pixels.

    That counts padding, and pixels that are cut off on the way. Crops begin at multiples of `stride`, and are as long
    as the picture less a multiple of it.
    """

    extent: int
    stride: int
    step: int
    low: int
    high: int

    def interval(self, unit: int) -> tuple[int, int]:
        """Return the first pixel of a unit's crop, and that after its last."""
        begin = max(self.low + unit * self.step, 0) // self.stride * self.stride
        needed = min(self.high + unit * self.step, self.extent) - begin
        length = min(length for length in self._lengths if length >= needed)
        begin = min(begin, self.extent - length)
        return begin, begin + length

    @cached_property
    def _lengths(self) -> tuple[int, ...]:
        """The lengths that crops have: one that is enough for any unit, and some shorter ones for those at a border."""
        enough = self.high - self.low + self.stride - 1
        longest = min(enough + (self.extent - enough) % self.stride, self.extent)
        return tuple(range(longest, 0, -self.stride * math.ceil(self.extent / _LENGTHS / self.stride)))

    def within(self, unit: int) -> int:
        """Return a unit's number in the grid of its crop."""
        return unit - self.interval(unit)[0] // self.step


class Cropping:
    """Which crop of a picture each unit of a layer needs, for pictures of one size."""

    def __init__(self, net: Net, pixels: Tensor, layer: str) -> None:
        """Look at a layer of pictures like `pixels` (1, c, h, w). Raises CannotFollow where crops may not do."""
        if net.seed is not None or net.behaviour(pixels).alone:
            raise CannotFollow("its answer to a picture depends on more than that picture")
        self.net, self.pixels, self.layer = net, pixels, layer
        self.windows = _windows(net, pixels, layer)
        self.y, self.x = self.windows.axis(0), self.windows.axis(1)
        self._same = dict[tuple[int, int], bool]()

    def box(self, position: tuple[int, int], units: int = 1) -> Box | None:
        """Return the crop (top, left, bottom, right) for the unit at a row and column, None where it saves nothing.

        Of the whole picture as many as are read in it, `units`, would share one pass forward, about half of the work.
        Raises CannotFollow where the network treats such a crop otherwise than the picture.
        """
        (top, bottom), (left, right) = self.y.interval(position[0]), self.x.interval(position[1])
        height, width = bottom - top, right - left
        if height * width > _WORTH * (1 + 1 / units) / 2 * self.y.extent * self.x.extent:
            return None
        if (height, width) not in self._same:
            self._same[height, width] = self._is_same(self.pixels[:, :, top:bottom, left:right])
        if not self._same[height, width]:
            raise CannotFollow("it treats a crop otherwise than the whole picture")
        return top, left, bottom, right

    def within(self, position: tuple[int, int]) -> tuple[int, int]:
        """Return a unit's row and column in its crop's grid."""
        return self.y.within(position[0]), self.x.within(position[1])

    def _is_same(self, crop: Tensor) -> bool:
        if not self.windows.same_on(_windows(self.net, crop, self.layer)):
            return False
        self.net.behaves_alike(crop, self.pixels)
        return True


@dataclass(frozen=True)
class _Windows:
    """The steps from the pixels to a layer, all of them windows or pointwise, and the shapes of what lies between.

    `read` is the number of the layer's tensor; the pixels are number 0.
    """

    steps: Sequence[tuple[Step, Local]]
    shapes: Sequence[tuple[int, ...]]
    read: int

    def axis(self, which: int) -> Axis:
        """Return the crops along y (0) or x (1)."""
        strides, extents = self.strides(which), self.extents(which)
        needed = {self.read: (0, 0)}
        for step, form in reversed(self.steps):
            wanted = [needed[i] for i in step.outputs if i in needed]
            taps = form.taps[which]
            first = min(low for low, _ in wanted) * taps.stride - taps.padding
            last = max(high for _, high in wanted) * taps.stride - taps.padding + taps.reach
            for i in step.inputs:
                low, high = needed.get(i, (first, last))
                needed[i] = min(low, first), max(high, last)
        low = min(first * strides[i] for i, (first, _) in needed.items())
        high = max(extents[0] + (last + 1 - extents[i]) * strides[i] for i, (_, last) in needed.items())
        stride = math.lcm(*(strides[i] for i in needed))
        return Axis(extents[0], stride, strides[self.read], low, high)

    def strides(self, which: int) -> dict[int, int]:
        """Return how many pixels lie between neighbours of every tensor."""
        strides = {0: 1}
        for step, form in self.steps:
            before = {strides[i] for i in step.inputs}
            if len(before) > 1:
                raise CannotFollow("it joins layers of different strides")
            strides |= dict.fromkeys(step.outputs, before.pop() * form.taps[which].stride)
        return strides

    def extents(self, which: int) -> list[int]:
        return [shape[which - 2] for shape in self.shapes]

    def same_on(self, crop: _Windows) -> bool:
        """Whether a crop of another size goes through the same windows, and loses as many units as it loses pixels."""
        if len(self.steps) != len(crop.steps):
            return False
        for (step, form), (other, its_form) in zip(self.steps, crop.steps, strict=True):
            one = (step.name, step.inputs, step.outputs, form.taps)
            if one != (other.name, other.inputs, other.outputs, its_form.taps):
                return False
        for which in (0, 1):
            strides, extents, theirs = self.strides(which), self.extents(which), crop.extents(which)
            if any((extents[i] - theirs[i]) * stride != extents[0] - theirs[0] for i, stride in strides.items()):
                return False
        return True


def _windows(net: Net, pixels: Tensor, layer: str) -> _Windows:
    """Write down how pixels (1, c, h, w) become a layer. Raises CannotFollow where a step is not known to be local."""
    tape = record(net, pixels, [layer])
    read = tape.readings[layer]
    steps: list[tuple[Step, Local]] = []
    for step in tape.steps:
        form = local_form(step, tape.clean)
        if form is None:
            raise CannotFollow(f"every unit may read everything by a call of {step.name}")
        steps.append((step, form))
    return _Windows(steps, [tuple(tensor.shape) for tensor in tape.clean], read)
