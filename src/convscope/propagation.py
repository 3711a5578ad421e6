"""How receptive fields pass through operations: from the fields of a call's inputs to that of its output.

For the operations in the table at the end the result is exact arithmetic; any other operation is taken to read
everything that its inputs have seen, which is never too small, and to move it nobody knows where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .fields import RESHAPED, Call, Handler, Input, TensorField, everything, sees_all
from .geometry import Axis, Field, Moved, merged_axis
from .moves import MOVES
from .operations import Reach, names
from .windows import WINDOWS


def output_field(name: str, sources: Sequence[Input], call: Call) -> TensorField:
    """Return the field of what an operation computes from inputs of known fields; `call.x` is the first of them."""
    result = None
    if name in _CREATION or all(source.empty for source, _ in sources):
        return replace(everything(sources, call.out), empty=True)
    if name in _POINTWISE:
        result = _merge(sources, call)
    elif name == "stack":
        result = _stacked(sources, call)
    elif name in HANDLERS and (len(sources) == 1 or (call.alone and call.x is call.args[0])):
        result = HANDLERS[name](sources[0][0], call)
    if result is None and name in WINDOWS and call.out.ndim == 4 and sources[0][0].dims is None:
        return _regained(sources, call)
    return result if result is not None else everything(sources, call.out, _moved_by(name, sources))


def _regained(sources: Sequence[Input], call: Call) -> TensorField:
    """Return the field of what a window reads that slides over rows and columns of an unknown origin."""
    joined = everything(sources, call.out)
    y, x = (axis.on_grid(axis, 1, extent) for axis, extent in zip(joined.axes, call.out.shape[2:], strict=True))
    return TensorField(Field(y, x, moved=joined.field.moved or RESHAPED), (2, 3))


def _moved_by(name: str, sources: Sequence[Input]) -> Moved | None:
    """Name an operation that may leave positions elsewhere.

    Of a tensor without rows and columns, such as tokens, only what is known to move positions does.
    """
    spatial = any(max(source.grid(shape)) > 1 for source, shape in sources)
    if name in _STAYING or not (spatial or name in _MOVING):
        return None
    return Moved(name, by_picture=name in _MOVING and len(sources) > 1)


def _merge(sources: Sequence[Input], call: Call) -> TensorField | None:
    """Element by element (with broadcasting) or side by side along the channels."""
    out = call.out
    spatial = [(source, shape) for source, shape in sources if source.dims is not None and len(shape) == out.ndim]
    if not spatial:
        field = sources[0][0].field
        for source, _ in sources[1:]:
            field = field.join(source.field)
        return TensorField(field, None)
    # What is one row and column, as a gate is, has no place of its own.
    wide = [(source, shape) for source, shape in spatial if max(source.grid(shape)) > 1] or spatial
    dims = wide[0][0].dims
    if dims is None or any(source.dims != dims for source, _ in wide):
        return None
    axes: list[Axis] = []
    for which, dim in enumerate(dims):
        parts = [(t.axes[which], shape[dim] if t.dims and len(shape) == out.ndim else 1) for t, shape in sources]
        axis = merged_axis(parts, out.shape[dim], alone=call.alone)
        if axis is None:
            return None
        axes.append(axis)
    whole = [source for source, shape in wide if source.grid(shape) == (out.shape[dims[0]], out.shape[dims[1]])]
    moved = next((source.field.moved for source in whole if source.field.moved), None)
    return TensorField(Field(axes[0], axes[1], moved=moved), dims)


def _stacked(sources: Sequence[Input], call: Call) -> TensorField | None:
    """Side by side along a new dimension."""
    dim = call.argument(1, "dim", 0) % call.out.ndim
    added: list[Input] = []
    for source, shape in sources:
        dims = source.dims and (source.dims[0] + (source.dims[0] >= dim), source.dims[1] + (source.dims[1] >= dim))
        added.append((replace(source, dims=dims), (*shape[:dim], 1, *shape[dim:])))
    return _merge(added, call)


def _linear(source: TensorField, call: Call) -> TensorField | None:
    return None if source.dims is not None and call.x.ndim - 1 in source.dims else source


def _trailing_norm(source: TensorField, call: Call) -> TensorField | None:
    count = len(call.argument(1, "normalized_shape", ()))
    normalised = range(call.x.ndim - count, call.x.ndim)
    across = source.dims is not None and any(d in normalised for d in source.dims)
    return sees_all(source, call) if across else source


def _along(position: int, default: int | None = None) -> Handler:
    """Work along one dimension, the argument at `position`: local when it is not a spatial one."""

    def handler(source: TensorField, call: Call) -> TensorField | None:
        dim = call.argument(position, "dim", default)
        if source.dims is None:
            return source
        local = isinstance(dim, int) and dim % call.x.ndim not in source.dims
        return source if local else sees_all(source, call)

    return handler


def _batch_norm(source: TensorField, call: Call) -> TensorField | None:
    """Local with statistics of its own; otherwise it reads those of the whole picture."""
    own = call.argument(1, "running_mean", None) is not None
    return source if own and not call.argument(5, "training", False) else sees_all(source, call)


def _reduced(position: int) -> Handler:
    """Reduce along some dimensions, the argument at `position`: local over channels, otherwise over all units."""

    def handler(source: TensorField, call: Call) -> TensorField | None:
        dim = call.argument(position, "dim", call.kwargs.get("axis"))
        if source.dims is None:
            return source
        if dim is None or not isinstance(dim, (int, tuple, list)) or isinstance(dim, bool):
            return TensorField(source.field.over(source.grid(call.x.shape)), None)
        dims = {d % call.x.ndim for d in (dim if isinstance(dim, (tuple, list)) else (dim,))}
        axes = [
            axis.over(call.x.shape[d]) if d in dims else axis for axis, d in zip(source.axes, source.dims, strict=True)
        ]
        reduced = source.along(axes)
        if call.out.ndim == call.x.ndim:
            return reduced
        if dims & set(source.dims):
            left = [1 if d in dims else call.x.shape[d] for d in source.dims]
            return TensorField(reduced.field.over((left[0], left[1])), None)
        y, x = (d - sum(gone < d for gone in dims) for d in source.dims)
        return replace(reduced, dims=(y, x))

    return handler


_POINTWISE = names(Reach.POINTWISE, Reach.NOISE, Reach.JOIN)
_CREATION = names(Reach.CREATION)

_STAYING = frozenset(
    """conv2d conv_transpose2d group_norm instance_norm layer_norm rms_norm batch_norm softmax log_softmax normalize
    cumsum max_unpool2d flatten mean sum amax amin max min std var norm vector_norm linalg_vector_norm logsumexp prod
    argmax argmin scaled_dot_product_attention dropout""".split()
)
"""Operations that leave every unit where it was, whatever else it reads."""

_MOVING = frozenset(
    """flip fliplr flipud rot90 roll getitem index_select gather take take_along_dim sort argsort scatter scatter_add
    index_add index_put index_copy grid_sample grid_sampler setitem""".split()
)
"""Operations that move units also where they are tokens."""

LIKE_ANOTHER = frozenset("to type_as expand_as view_as reshape_as".split())
"""Operations that read the shape or the type of their second tensor, and none of its numbers."""

_reduction = _reduced(1)

HANDLERS: dict[str, Handler] = {
    **WINDOWS,
    **MOVES,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "std", "var", "logsumexp", "prod"), _reduction),
    "argmax": _reduction,
    "argmin": _reduction,
    "norm": _reduced(2),
    "vector_norm": _reduced(2),
    "linear": _linear,
    "layer_norm": _trailing_norm,
    "rms_norm": _trailing_norm,
    "batch_norm": _batch_norm,
    "group_norm": sees_all,
    "instance_norm": sees_all,
    "normalize": _along(2, 1),
    "softmax": _along(1),
    "log_softmax": _along(1),
    "channel_shuffle": lambda source, _: source,
}
"""What becomes of the field of one input, by the operation's name."""
