"""Fields through moves: slices, indices, mirrors, turns, rolls, swapped dimensions, repeats and new shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .fields import Call, Handler, TensorField
from .twins import known_values
from .windows import enlarged


def _getitem(source: TensorField, call: Call) -> TensorField | None:
    """Slices and evenly spaced numbers move, mirror and stride; whole numbers and None shift the others."""
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if any(isinstance(i, bool) for i in index):
        return None
    taken = sum(i is not None and i is not Ellipsis for i in index)
    rest = (slice(None),) * (call.x.ndim - taken)
    at = next((k for k, i in enumerate(index) if i is Ellipsis), len(index))
    parts = [*index[:at], *rest, *index[at + 1 :]]
    listed = [part for part in parts if not (part is None or isinstance(part, (slice, int)))]
    # Several tensors are taken element by element; a whole number beside one moves its dimension to the front.
    if len(listed) > 1 or (listed and any(isinstance(part, int) for part in parts)) or source.dims is None:
        return source if source.dims is None and not listed else None
    return _taken(source, call, parts)


def _taken(source: TensorField, call: Call, parts: Sequence[Any]) -> TensorField | None:
    """Take a part along every dimension: a slice, numbers, one number (which drops it); None adds one."""
    assert source.dims is not None
    axes, dims = {source.dims[0]: source.field.y, source.dims[1]: source.field.x}, dict[int, int]()
    before = after = 0
    for part in parts:
        if part is not None:
            dropped = isinstance(part, int)
            if before in axes:
                numbers = None if dropped else progression(part, call.x.shape[before])
                if numbers is None:
                    return None
                axes[before], dims[before] = axes[before].window(1, numbers[1], -numbers[0]), after
            # Which channels they are does not matter, as long as they make one dimension.
            elif not dropped and not isinstance(part, slice) and getattr(part, "ndim", 1) != 1:
                return None
            before += 1
            after -= dropped
        after += 1
    y, x = source.dims
    return source.along((axes[y], axes[x]), (dims[y], dims[x]))


def progression(part: Any, units: int) -> tuple[int, int] | None:
    """Return the first number and the step of what a slice, or a list of numbers, takes of `units` units.

    None where the numbers are not evenly spaced, repeat, or are not known.
    """
    if isinstance(part, slice):
        first, _, step = part.indices(units)
        return first, step
    try:
        listed = part if isinstance(part, Tensor) else torch.as_tensor(part)
    except (TypeError, ValueError, RuntimeError):
        return None
    numbers = known_values(listed)
    if numbers is None or numbers.ndim != 1 or numbers.dtype == torch.bool or not numbers.numel():
        return None
    first, *rest = (int(number) % units for number in numbers.tolist())
    step = rest[0] - first if rest else 1
    even = step != 0 and all(number == first + (k + 1) * step for k, number in enumerate(rest))
    return (first, step) if even else None


def _index_select(source: TensorField, call: Call) -> TensorField | None:
    dim, index = call.argument(1, "dim", 0) % call.x.ndim, call.argument(2, "index", None)
    return _getitem(source, replace(call, args=(call.x, (*(slice(None),) * dim, index))))


def _unbind(source: TensorField, call: Call) -> TensorField | None:
    """Each part loses one dimension, as by a whole number between brackets."""
    dim = call.argument(1, "dim", 0) % call.x.ndim
    return _getitem(source, replace(call, args=(call.x, (*(slice(None),) * dim, 0))))


def _part(position: int) -> Handler:
    """Take a part of the units along one dimension, the argument at `position`: it lies where its memory begins."""

    def handler(source: TensorField, call: Call) -> TensorField | None:
        dim = call.argument(position, "dim", 0)
        if not isinstance(dim, int) or source.dims is None or call.out.ndim != call.x.ndim:
            return None if source.dims is not None else source
        dim %= call.x.ndim
        first = int(call.out.storage_offset() - call.x.storage_offset()) // max(call.x.stride(dim), 1)
        return source.along(
            [axis.window(1, 1, -first) if d == dim else axis for axis, d in zip(source.axes, source.dims, strict=True)]
        )

    return handler


def _flipped(*default: int) -> Handler:
    """Mirror along some dimensions, those of the call where it names them."""

    def handler(source: TensorField, call: Call) -> TensorField | None:
        dims = default or call.kwargs.get("dims") or call.args[1:]
        named: list[Any] = [d for given in _listed(dims) for d in _listed(given)]
        turned = [d % call.x.ndim for d in named]
        if source.dims is None:
            return None
        return source.along(
            [
                axis.mirrored(call.x.shape[d]) if d in turned else axis
                for axis, d in zip(source.axes, source.dims, strict=True)
            ]
        )

    return handler


def _rot90(source: TensorField, call: Call) -> TensorField | None:
    """A quarter turn mirrors the second dimension and swaps the two, three mirror the first."""
    turns = call.argument(1, "k", 1) % 4
    dims = [d % call.x.ndim for d in call.argument(2, "dims", (0, 1))]
    mirrored = {0: [], 1: dims[1:], 2: dims, 3: dims[:1]}[turns]
    turned = _flipped(*mirrored)(source, call) if mirrored else source
    if turned is None or turns % 2 == 0:
        return turned
    return _transpose(turned, replace(call, args=(call.x, *dims), kwargs={}))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _roll(source: TensorField, call: Call) -> TensorField | None:
    """What is rolled out at one end comes in at the other, where units see both."""
    shifts, dims = call.argument(1, "shifts", 0), call.argument(2, "dims", None)
    if source.dims is None or dims is None or dims == ():
        return None
    shifts, dims = _listed(shifts), _listed(dims)
    by_dim = dict[int, int]()
    for shift, dim in zip(shifts, dims, strict=True):
        by_dim[dim % call.x.ndim] = by_dim.get(dim % call.x.ndim, 0) + shift
    axes = []
    for axis, dim in zip(source.axes, source.dims, strict=True):
        units, shift = call.x.shape[dim], by_dim.get(dim, 0)
        rolled = axis.rolled(units, shift)
        axes.append(rolled if call.alone or rolled == axis else axis.over(units).on_grid(rolled, units, units))
    return source.along(axes)


def _repeat_interleave(source: TensorField, call: Call) -> TensorField | None:
    whole = isinstance(call.argument(1, "repeats", None), int) and call.argument(2, "dim", None) is not None
    return enlarged(source, call) if whole else None


def _repeated(source: TensorField, call: Call) -> TensorField | None:
    """Repeated along new or other dimensions; along rows or columns only what is one of them."""
    if source.dims is None:
        return source
    more = call.out.ndim - call.x.ndim
    dims = (source.dims[0] + more, source.dims[1] + more)
    axes = []
    for axis, dim, after in zip(source.axes, source.dims, dims, strict=True):
        if call.x.shape[dim] not in (1, call.out.shape[after]):
            return None
        same = call.x.shape[dim] == call.out.shape[after]
        axes.append(axis if same else axis.over(1).on_grid(axis, 1, call.out.shape[after]))
    return source.along(axes, dims)


def _reshape(source: TensorField, call: Call) -> TensorField | None:
    """Keep the extent where the two last dimensions are untouched; otherwise each number may come from any position."""
    if source.dims is None:
        return source
    trailing = source.dims == (call.x.ndim - 2, call.x.ndim - 1)
    if trailing and call.out.ndim > 2 and tuple(call.out.shape[-2:]) == tuple(call.x.shape[-2:]):
        return TensorField(source.field, (call.out.ndim - 2, call.out.ndim - 1))
    return TensorField(source.field.over(source.grid(call.x.shape)), None)


def _reordered(source: TensorField, order: Sequence[int]) -> TensorField:
    if source.dims is None:
        return source
    return replace(source, dims=(order.index(source.dims[0]), order.index(source.dims[1])))


def _permute(source: TensorField, call: Call) -> TensorField | None:
    order = call.args[1:] if len(call.args) > 1 else call.kwargs["dims"]
    if len(order) == 1 and isinstance(order[0], (tuple, list)):
        order = order[0]
    return _reordered(source, [d % call.x.ndim for d in order])


def _transpose(source: TensorField, call: Call) -> TensorField | None:
    first, second = (call.argument(p, n, call.argument(p, m, 0)) for p, n, m in _SWAPPED)
    return _swapped(first, second)(source, call)


_SWAPPED = ((1, "dim0", "axis0"), (2, "dim1", "axis1"))


def _swapped(first: int, second: int) -> Handler:
    def handler(source: TensorField, call: Call) -> TensorField | None:
        order = list(range(call.x.ndim))
        order[first], order[second] = order[second], order[first]
        return _reordered(source, order)

    return handler


def _reversed(source: TensorField, call: Call) -> TensorField | None:
    return _reordered(source, list(range(call.x.ndim))[::-1])


def _movedim(source: TensorField, call: Call) -> TensorField | None:
    ends = [call.argument(p, n, 0) for p, n in ((1, "source"), (2, "destination"))]
    taken, put = ([d % call.x.ndim for d in _listed(v)] for v in ends)
    order = [d for d in range(call.x.ndim) if d not in taken]
    for place, dim in sorted(zip(put, taken, strict=True)):
        order.insert(place, dim)
    return _reordered(source, order)


MOVES: dict[str, Handler] = {
    "getitem": _getitem,
    "index_select": _index_select,
    "unbind": _unbind,
    "chunk": _part(2),
    "split": _part(2),
    "split_with_sizes": _part(2),
    "tensor_split": _part(2),
    "narrow": _part(1),
    "flip": _flipped(),
    "fliplr": _flipped(1),
    "flipud": _flipped(0),
    "rot90": _rot90,
    "roll": _roll,
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "swapdims": _transpose,
    "movedim": _movedim,
    "moveaxis": _movedim,
    "t": _swapped(0, 1),
    "T": _reversed,
    "mT": _swapped(-2, -1),
    "mH": _swapped(-2, -1),
    "adjoint": _swapped(-2, -1),
    "repeat": _repeated,
    "tile": _repeated,
    "expand": _repeated,
    "expand_as": _repeated,
    "broadcast_to": _repeated,
    "repeat_interleave": _repeat_interleave,
    "flatten": _reshape,
    "view": _reshape,
    "view_as": _reshape,
    "reshape": _reshape,
    "reshape_as": _reshape,
    "unflatten": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _reshape,
}
