"""Fields of tensors: the receptive field of a tensor's units while a network runs, and calls that pass it on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .calls import argument
from .geometry import Axis, Field, Moved

RESHAPED = Moved("reshape")
"""Rows and columns came out of a new shape."""


@dataclass(frozen=True)
class TensorField:
    """The receptive field of a tensor's units, and which of its dimensions follow the picture's rows and columns.

    `dims` is None where none does. `empty` says that the tensor has the shape of another and none of its values.
    """

    field: Field
    dims: tuple[int, int] | None
    empty: bool = False

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return self.field.y, self.field.x

    def grid(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return how many rows and columns a tensor of some shape has; one of each where it has neither."""
        return (shape[self.dims[0]], shape[self.dims[1]]) if self.dims else (1, 1)

    def along(self, axes: Sequence[Axis], dims: tuple[int, int] | None = None) -> TensorField:
        """Return the field with other axes, (y, x), and where they are given other dimensions."""
        return replace(self, field=replace(self.field, y=axes[0], x=axes[1]), dims=dims or self.dims)


Input = tuple[TensorField, Sequence[int]]
"""The field and the shape of a tensor that a call reads."""


@dataclass(frozen=True)
class Call:
    """One call: the first input `x` whose field is known, a tensor that it returned, and all arguments.

    `alone` asks for the field of windows alone: statistics and gates that every unit reads are left out.
    """

    x: Tensor
    out: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    alone: bool = False

    def argument(self, position: int, name: str, default: Any) -> Any:
        """Return an argument by position or by name."""
        return argument(self.args, self.kwargs, position, name, default)


Handler = Callable[[TensorField, Call], TensorField | None]
"""From the field of a call's input to that of its output; None where every unit may read everything from anywhere."""


def everything(sources: Sequence[Input], out: Tensor, moved: Moved | None = None) -> TensorField:
    """Return the field of an output whose every unit may depend on every unit of every input.

    Step and centre are kept where the grid is that of the first input; otherwise the units are spread evenly. `moved`
    says why where neither is known.
    """
    first, shape = sources[0]
    joined = first.field.over(first.grid(shape))
    for source, its_shape in sources[1:]:
        joined = joined.join(source.field.over(source.grid(its_shape)))
    joined = replace(joined, moved=joined.moved or moved)
    if out.ndim != 4 or first.dims is None:
        return TensorField(joined, None)
    same = all(d < out.ndim and out.shape[d] == shape[d] for d in first.dims)
    dims = first.dims if same else (2, 3)
    y, x = (
        axis.on_grid(grid, before, out.shape[dim])
        for axis, grid, before, dim in zip((joined.y, joined.x), first.axes, first.grid(shape), dims, strict=True)
    )
    return TensorField(replace(joined, y=y, x=x), dims)


def laid_evenly(source: TensorField, out: Tensor, picture: tuple[int, int]) -> TensorField:
    """Guess rows and columns of four dimensions that came out of a reshape: those with the picture's proportions.

    Their units are spread evenly over the picture, but where they lie is not known.
    """
    dims = (1, 2) if _unlike(picture, out.shape[1:3]) < min(0.5, _unlike(picture, out.shape[2:4])) else (2, 3)
    axes = (Axis().over(extent) for extent in picture)
    y, x = (axis.on_grid(axis, 1, out.shape[d]) for axis, d in zip(axes, dims, strict=True))
    return TensorField(Field(y, x, moved=source.field.moved or RESHAPED), dims)


def _unlike(picture: tuple[int, int], grid: Sequence[int]) -> float:
    """How many rows a grid has too many or too few for a picture's proportions."""
    return abs(picture[0] * grid[1] / picture[1] - grid[0]) if min(grid) > 1 else math.inf


def extent_of(tensor: Tensor) -> tuple[int, int]:
    """Return the two last dimensions of a tensor: height and width of a picture or kernel."""
    return tensor.shape[-2], tensor.shape[-1]


def pair(value: Any) -> tuple[float, float]:
    """Return an argument that may be one number for both dimensions as two."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def sees_all(source: TensorField, call: Call) -> TensorField:
    """Read statistics of all units, each at its own place; of the windows alone it is the same field."""
    return source if call.alone else everything([(source, call.x.shape)], call.out)
