"""Fields through windows: convolution, pooling, interpolation, padding, and pixels that become channels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from .fields import Call, Handler, TensorField, extent_of, pair, sees_all


def _by_axis(source: TensorField, call: Call, value: Any) -> tuple[float, float] | None:
    """Return a number, or a pair for the two last dimensions, as (along the picture's rows, along its columns).

    None unless the two last dimensions are rows and columns, or columns and rows.
    """
    down, across = pair(value)
    last = (call.x.ndim - 2, call.x.ndim - 1)
    return (down, across) if source.dims == last else (across, down) if source.dims == last[::-1] else None


def _slide(
    source: TensorField, call: Call, kernel: Any, stride: Any, padding: Any, dilation: Any = 1
) -> TensorField | None:
    numbers = [_by_axis(source, call, value) for value in (kernel, stride, padding, dilation)]
    if any(pair is None for pair in numbers):
        return None
    return source.along([axis.window(*(pair[i] for pair in numbers if pair)) for i, axis in enumerate(source.axes)])


def _conv(source: TensorField, call: Call) -> TensorField | None:
    weight = call.argument(1, "weight", None)
    stride = call.argument(3, "stride", 1)
    padding = call.argument(4, "padding", 0)
    dilation = pair(call.argument(5, "dilation", 1))
    kernel = extent_of(weight)
    if padding == "same":
        padding = [(d * (k - 1)) // 2 for d, k in zip(dilation, kernel, strict=True)]
    return _slide(source, call, kernel, stride, 0 if padding == "valid" else padding, dilation)


def _conv_transpose(source: TensorField, call: Call) -> TensorField | None:
    """Output o reads inputs i with o = i stride - padding + j dilation, j in [0, kernel): an interval of i."""
    values = [extent_of(call.argument(1, "weight", None))]
    values += [call.argument(p, n, d) for p, n, d in ((3, "stride", 1), (4, "padding", 0), (7, "dilation", 1))]
    numbers = [_by_axis(source, call, value) for value in values]
    axes = []
    for i, axis in enumerate(source.axes):
        if any(pair is None for pair in numbers):
            return None
        k, s, p, d = (pair[i] for pair in numbers if pair)
        reach = (k - 1) * d
        axes.append(axis.stretch(s, (p - reach) / s, reach / s))
    return source.along(axes)


def _pool(source: TensorField, call: Call) -> TensorField | None:
    kernel = call.argument(1, "kernel_size", None)
    stride = call.argument(2, "stride", None) or kernel
    return _slide(source, call, kernel, stride, call.argument(3, "padding", 0))


def _lp_pool(source: TensorField, call: Call) -> TensorField | None:
    """Pooling whose first argument is the exponent of the norm."""
    return _pool(source, replace(call, args=(call.args[0], *call.args[2:])))


def _max_pool(source: TensorField, call: Call) -> TensorField | None:
    kernel = call.argument(1, "kernel_size", None)
    stride = call.argument(2, "stride", None) or kernel
    padding, dilation = call.argument(3, "padding", 0), call.argument(4, "dilation", 1)
    return _slide(source, call, kernel, stride, padding, dilation)


def _adaptive(source: TensorField, call: Call) -> TensorField | None:
    """Unit i reads inputs [floor(i n / m), ceil((i + 1) n / m))."""
    if _by_axis(source, call, 0) is None or source.dims is None:
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
    return source.along(axes)


_KERNELS = {"bilinear": 1, "bicubic": 2}
"""How far from the point between pixels at which it reads an interpolation reaches."""


def _interpolate(source: TensorField, call: Call) -> TensorField | None:
    mode = call.argument(3, "mode", "nearest")
    if mode == "area":
        return _adaptive(source, call)
    factors = _by_axis(source, call, call.argument(2, "scale_factor", None))
    if source.dims is None or factors is None or mode not in ("nearest", "nearest-exact", *_KERNELS):
        return None
    exact = call.argument(2, "scale_factor", None) is not None and not call.argument(5, "recompute_scale_factor", None)
    axes = []
    for axis, dim, factor in zip(source.axes, source.dims, factors, strict=True):
        before, after = call.x.shape[dim], call.out.shape[dim]
        scale = factor if exact else after / before
        if mode == "nearest":
            # Output o reads input floor(o / scale).
            below = 1 - 1 / scale if scale == int(scale) else 0 if 1 / scale == int(1 / scale) else 1
            axes.append(axis.stretch(scale, -below, below))
        elif mode == "nearest-exact":
            axes.append(axis.stretch(scale, 0.5 / scale - 1, 1))
        else:
            reach = _KERNELS[mode] * (max(1, 1 / scale) if call.argument(6, "antialias", False) else 1)
            first = 0.5 / scale - 0.5
            if call.argument(4, "align_corners", None):
                scale, first = (after - 1) / (before - 1) if min(before, after) > 1 else 1.0, 0
            axes.append(axis.stretch(scale, first - reach, 2 * reach))
    return source.along(axes)


def _pad(source: TensorField, call: Call) -> TensorField | None:
    """Pads are given from the last dimension on, before and after each."""
    pads = list(call.argument(1, "pad", ()))
    mode = call.argument(2, "mode", "constant")
    if source.dims is None:
        return None
    # A unit of a reflected border sees as far inside as it lies outside, of a replicated one half as far.
    fold = {"constant": 0, "replicate": 1, "reflect": 2}.get(mode, 0)
    axes = []
    for axis, dim in zip(source.axes, source.dims, strict=True):
        first = 2 * (call.x.ndim - 1 - dim)
        low, high = pads[first : first + 2] or (0, 0)
        wide = axis.stretch(1, -low - fold * max(high, 0), fold * (max(low, 0) + max(high, 0)))
        axes.append(replace(wide, centre=axis.centre - low * axis.step))
    padded = source.along(axes)
    # A circular border comes from the other side.
    return padded if mode != "circular" or call.alone else sees_all(source, call)


def _pixel_unshuffle(source: TensorField, call: Call) -> TensorField | None:
    factor = call.argument(1, "downscale_factor", 1)
    return _slide(source, call, factor, factor, 0)


def enlarged(source: TensorField, call: Call) -> TensorField | None:
    """Every unit becomes several side by side: a whole number of units, in that order."""
    if source.dims is None or call.out.ndim != call.x.ndim:
        return None
    axes = []
    for axis, dim in zip(source.axes, source.dims, strict=True):
        factor = call.out.shape[dim] / call.x.shape[dim]
        if factor != int(factor):
            return None
        axes.append(axis.stretch(factor, 1 / factor - 1, 1 - 1 / factor) if factor > 1 else axis)
    return source.along(axes)


WINDOWS: dict[str, Handler] = {
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
    "pixel_shuffle": enlarged,
    "pixel_unshuffle": _pixel_unshuffle,
}
