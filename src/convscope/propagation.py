"""How receptive fields pass through operations: from the fields of a call's inputs to that of its output.

For the operations in the table at the end the result is exact arithmetic; any other operation is taken to read
everything that its inputs have seen, which is never too small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from .calls import argument
from .geometry import Axis, Field, merged_axis
from .operations import Reach, names


@dataclass(frozen=True)
class TensorField:
    """The receptive field of a tensor's units, and which of its dimensions are rows and columns (None: neither is).

    `empty` says that the tensor has the shape of another and none of its values.
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


Input = tuple[TensorField, Sequence[int]]
"""The field and the shape of a tensor that a call reads."""


@dataclass(frozen=True)
class Call:
    """One call: the first input `x` whose field is known, a tensor that it returned, and all arguments."""

    x: Tensor
    out: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def argument(self, position: int, name: str, default: Any) -> Any:
        """Return an argument by position or by name."""
        return argument(self.args, self.kwargs, position, name, default)


Handler = Callable[[TensorField, Call], TensorField | None]
"""From the field of a call's input to that of its output; None where every unit may read everything."""


def output_field(name: str, sources: Sequence[Input], call: Call) -> TensorField:
    """Return the field of what an operation computes from inputs of known fields; `call.x` is the first of them."""
    result = None
    if name in _CREATION:
        return replace(everything(sources, call.out), empty=True)
    if name in _POINTWISE:
        result = _merge(sources, call.out)
    elif name in HANDLERS and len(sources) == 1:
        result = HANDLERS[name](sources[0][0], call)
    return result if result is not None else everything(sources, call.out)


def everything(sources: Sequence[Input], out: Tensor) -> TensorField:
    """Return the field of an output whose every unit may depend on every unit of every input.

    Step and centre are kept where the grid is that of the first input; otherwise the units are spread evenly.
    """
    first, shape = sources[0]
    joined = first.field.over(first.grid(shape))
    for source, its_shape in sources[1:]:
        joined = joined.join(source.field.over(source.grid(its_shape)))
    if out.ndim != 4:
        return TensorField(joined, None)
    same = first.dims is not None and all(d < out.ndim and out.shape[d] == shape[d] for d in first.dims)
    dims = first.dims if first.dims and same else (2, 3)
    y, x = (
        axis.on_grid(grid, before, out.shape[dim])
        for axis, grid, before, dim in zip((joined.y, joined.x), first.axes, first.grid(shape), dims, strict=True)
    )
    return TensorField(Field(y, x), dims)


def _merge(sources: Sequence[Input], out: Tensor) -> TensorField | None:
    """Element by element (with broadcasting) or side by side along the channels."""
    spatial = [(source, shape) for source, shape in sources if source.dims is not None and len(shape) == out.ndim]
    if not spatial:
        field = sources[0][0].field
        for source, _ in sources[1:]:
            field = field.join(source.field)
        return TensorField(field, None)
    dims = spatial[0][0].dims
    if dims is None or any(source.dims != dims for source, _ in spatial):
        local = next((source.dims for source, _ in spatial if not source.field.shared), dims)
        return replace(everything(sources, out), dims=local)
    axes: list[Axis] = []
    for which, dim in enumerate(dims):
        parts = [(t.axes[which], shape[dim] if t.dims and len(shape) == out.ndim else 1) for t, shape in sources]
        axis = merged_axis(parts, out.shape[dim])
        if axis is None:
            return None
        axes.append(axis)
    return TensorField(Field(*axes), dims)


def by_proportions(out: Tensor, picture: tuple[int, int]) -> TensorField:
    """Guess rows and columns of four dimensions that came out of a reshape: those with the picture's proportions."""
    dims = (1, 2) if _unlike(picture, out.shape[1:3]) < min(0.5, _unlike(picture, out.shape[2:4])) else (2, 3)
    axes = (Axis().over(extent) for extent in picture)
    return TensorField(Field(*(axis.on_grid(axis, 1, out.shape[d]) for axis, d in zip(axes, dims, strict=True))), dims)


def _unlike(picture: tuple[int, int], grid: Sequence[int]) -> float:
    """How many rows a grid has too many or too few for a picture's proportions."""
    return abs(picture[0] * grid[1] / picture[1] - grid[0]) if min(grid) > 1 else math.inf


def extent_of(tensor: Tensor) -> tuple[int, int]:
    """Return the two last dimensions of a tensor: height and width of a picture or kernel."""
    return tensor.shape[-2], tensor.shape[-1]


def _pair(value: Any) -> tuple[float, float]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _slide(source: TensorField, kernel: Any, stride: Any, padding: Any, dilation: Any) -> TensorField | None:
    if source.dims is None:
        return None
    axes = [
        axis.window(*numbers)
        for axis, *numbers in zip(
            source.axes, _pair(kernel), _pair(stride), _pair(padding), _pair(dilation), strict=True
        )
    ]
    return TensorField(Field(*axes), source.dims)


def _conv(source: TensorField, call: Call) -> TensorField | None:
    weight = call.argument(1, "weight", None)
    stride = call.argument(3, "stride", 1)
    padding = call.argument(4, "padding", 0)
    dilation = _pair(call.argument(5, "dilation", 1))
    kernel = extent_of(weight)
    if padding == "same":
        padding = [(d * (k - 1)) // 2 for d, k in zip(dilation, kernel, strict=True)]
    return _slide(source, kernel, stride, 0 if padding == "valid" else padding, dilation)


def _conv_transpose(source: TensorField, call: Call) -> TensorField | None:
    """Output o reads inputs i with o = i stride - padding + j dilation, j in [0, kernel): an interval of i."""
    if source.dims is None:
        return None
    weight = call.argument(1, "weight", None)
    stride, padding = (_pair(call.argument(p, n, d)) for p, n, d in ((3, "stride", 1), (4, "padding", 0)))
    dilation = _pair(call.argument(7, "dilation", 1))
    axes = []
    for axis, k, s, p, d in zip(source.axes, extent_of(weight), stride, padding, dilation, strict=True):
        reach = (k - 1) * d
        axes.append(axis.stretch(s, (p - reach) / s, reach / s))
    return TensorField(Field(*axes), source.dims)


def _pool(source: TensorField, call: Call) -> TensorField | None:
    kernel = call.argument(1, "kernel_size", None)
    stride = call.argument(2, "stride", None) or kernel
    return _slide(source, kernel, stride, call.argument(3, "padding", 0), 1)


def _lp_pool(source: TensorField, call: Call) -> TensorField | None:
    """Pooling whose first argument is the exponent of the norm."""
    return _pool(source, replace(call, args=(call.args[0], *call.args[2:])))


def _max_pool(source: TensorField, call: Call) -> TensorField | None:
    kernel = call.argument(1, "kernel_size", None)
    stride = call.argument(2, "stride", None) or kernel
    padding, dilation = call.argument(3, "padding", 0), call.argument(4, "dilation", 1)
    return _slide(source, kernel, stride, padding, dilation)


def _adaptive(source: TensorField, call: Call) -> TensorField | None:
    """Unit i reads inputs [floor(i n / m), ceil((i + 1) n / m))."""
    if source.dims is None:
        return None
    axes = []
    for axis, dim in zip(source.axes, source.dims, strict=True):
        n, m = call.x.shape[dim], call.out.shape[dim]
        if m == 1:
            axes.append(axis.over(n))
        elif n % m == 0:
            axes.append(axis.window(n // m, n // m, 0))
        else:
            reach = max(math.ceil((i + 1) * n / m) - i * n / m for i in range(m))
            axes.append(axis.stretch(m / n, -1 + 1 / m, reach - 1 / m))
    return TensorField(Field(*axes), source.dims)


def _interpolate(source: TensorField, call: Call) -> TensorField | None:
    mode = call.argument(3, "mode", "nearest")
    smooth = call.argument(4, "align_corners", None) or call.argument(6, "antialias", False)
    if source.dims is None or smooth or mode not in ("nearest", "bilinear"):
        return None
    factor = call.argument(2, "scale_factor", None)
    exact = factor is not None and not call.argument(5, "recompute_scale_factor", None)
    axes = []
    for which, (axis, dim) in enumerate(zip(source.axes, source.dims, strict=True)):
        scale = _pair(factor)[which] if exact else call.out.shape[dim] / call.x.shape[dim]
        if mode == "bilinear":
            axes.append(axis.stretch(scale, 0.5 / scale - 1.5, 2))
        else:
            # Output o reads input floor(o / scale).
            below = 1 - 1 / scale if scale == int(scale) else 0 if 1 / scale == int(1 / scale) else 1
            axes.append(axis.stretch(scale, -below, below))
    return TensorField(Field(*axes), source.dims)


def _pad(source: TensorField, call: Call) -> TensorField | None:
    pads = list(call.argument(1, "pad", ()))
    mode = call.argument(2, "mode", "constant")
    if source.dims != (call.x.ndim - 2, call.x.ndim - 1) or mode == "circular":
        return None
    left, right, top, bottom = (*pads, 0, 0, 0)[:4]
    # A unit of a reflected border sees as far inside as it lies outside, of a replicated one half as far.
    fold = {"constant": 0, "replicate": 1, "reflect": 2}[mode]
    axes = []
    for axis, low, high in ((source.field.y, top, bottom), (source.field.x, left, right)):
        wide = axis.stretch(1, -low - fold * max(high, 0), fold * (max(low, 0) + max(high, 0)))
        axes.append(replace(wide, centre=axis.centre - low * axis.step))
    return TensorField(Field(*axes), source.dims)


def _getitem(source: TensorField, call: Call) -> TensorField | None:
    """Slices of the spatial dimensions move and stride them; whole numbers and None shift the others."""
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if source.dims is None or not all(i is None or i is Ellipsis or isinstance(i, (slice, int)) for i in index):
        return None
    taken = sum(i is not None and i is not Ellipsis for i in index)
    rest = (slice(None),) * (call.x.ndim - taken)
    at = index.index(Ellipsis) if Ellipsis in index else len(index)
    axes, dims = {source.dims[0]: source.field.y, source.dims[1]: source.field.x}, dict[int, int]()
    before = after = 0
    for part in (*index[:at], *rest, *index[at + 1 :]):
        if part is None:
            after += 1
            continue
        if isinstance(part, slice):
            if before in axes:
                first, _, stride = part.indices(call.x.shape[before])
                axes[before], dims[before] = axes[before].window(1, stride, -first), after
            after += 1
        elif before in axes:
            return None
        before += 1
    return TensorField(Field(axes[source.dims[0]], axes[source.dims[1]]), (dims[source.dims[0]], dims[source.dims[1]]))


def _unbind(source: TensorField, call: Call) -> TensorField | None:
    """Each part loses one dimension, as by a whole number between brackets."""
    dim = call.argument(1, "dim", 0) % call.x.ndim
    return _getitem(source, replace(call, args=(call.x, (slice(None),) * dim + (0,))))


def _reshape(source: TensorField, call: Call) -> TensorField | None:
    """Keep the extent where the two last dimensions are untouched; otherwise each number may come from any position."""
    if source.dims is None:
        return source
    trailing = source.dims == (call.x.ndim - 2, call.x.ndim - 1)
    if trailing and call.out.ndim > 2 and tuple(call.out.shape[-2:]) == tuple(call.x.shape[-2:]):
        return TensorField(source.field, (call.out.ndim - 2, call.out.ndim - 1))
    return TensorField(source.field.over(source.grid(call.x.shape)), None)


def _permute(source: TensorField, call: Call) -> TensorField | None:
    if source.dims is None:
        return source
    order = call.args[1:] if len(call.args) > 1 else call.kwargs["dims"]
    if len(order) == 1 and isinstance(order[0], (tuple, list)):
        order = order[0]
    order = [d % call.x.ndim for d in order]
    return TensorField(source.field, (order.index(source.dims[0]), order.index(source.dims[1])))


def _transpose(source: TensorField, call: Call) -> TensorField | None:
    a, b = (call.argument(p, n, 0) % call.x.ndim for p, n in ((1, "dim0"), (2, "dim1")))
    order = list(range(call.x.ndim))
    order[a], order[b] = order[b], order[a]
    return _permute(source, replace(call, args=(call.x, order)))


def _linear(source: TensorField, call: Call) -> TensorField | None:
    return None if source.dims is not None and call.x.ndim - 1 in source.dims else source


def _layer_norm(source: TensorField, call: Call) -> TensorField | None:
    count = len(call.argument(1, "normalized_shape", ()))
    normalised = range(call.x.ndim - count, call.x.ndim)
    return None if source.dims is not None and any(d in normalised for d in source.dims) else source


def _along(position: int) -> Handler:
    """Work along one dimension, the argument at `position`: local when it is not a spatial one."""

    def handler(source: TensorField, call: Call) -> TensorField | None:
        dim = call.argument(position, "dim", 0)
        same_rank = isinstance(dim, int) and call.out.ndim == call.x.ndim
        return source if same_rank and source.dims and dim % call.x.ndim not in source.dims else None

    return handler


def _batch_norm(source: TensorField, call: Call) -> TensorField | None:
    """Local with statistics of its own; otherwise it reads those of the whole picture."""
    own = call.argument(1, "running_mean", None) is not None
    return source if own and not call.argument(5, "training", False) else None


def _whole(source: TensorField, call: Call) -> TensorField | None:
    """Reductions: local over channels when the rank is kept, otherwise over everything."""
    dim = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else None)
    if source.dims is None or dim is None or call.out.ndim != call.x.ndim:
        return None
    dims = {d % call.x.ndim for d in (dim if isinstance(dim, (tuple, list)) else (dim,))}
    return None if dims & set(source.dims) else source


_POINTWISE = names(Reach.POINTWISE, Reach.NOISE, Reach.JOIN)
_CREATION = names(Reach.CREATION)

HANDLERS: dict[str, Handler] = {
    "conv2d": _conv,
    "conv_transpose2d": _conv_transpose,
    "max_pool2d": _max_pool,
    "max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _pool,
    "lp_pool2d": _lp_pool,
    "adaptive_avg_pool2d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    "interpolate": _interpolate,
    "pad": _pad,
    "getitem": _getitem,
    "unbind": _unbind,
    "flatten": _reshape,
    "view": _reshape,
    "reshape": _reshape,
    "unflatten": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _reshape,
    "permute": _permute,
    "transpose": _transpose,
    "linear": _linear,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "softmax": _along(1),
    "log_softmax": _along(1),
    "chunk": _along(2),
    "split": _along(2),
    "narrow": _along(1),
    "mean": _whole,
    "sum": _whole,
    "amax": _whole,
}
