"""What each type of Caffe's layers is: the shapes it makes, the blobs it learns, and the torch module that does it.

Shapes are arithmetic, so that a definition is known to fit together, and to be of a sane size, before anything is
allocated. They are those of one picture: Caffe's axis 1 is their first. Options, defaults and rules are Caffe's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from . import modules
from .plans import Pair, Plan, Shape, axis_of, check_alike, check_outputs, check_size, refusal, shown, weighed
from .schema import chosen
from .specs import Spec
from .windows import convolution, deconvolution, lrn, pooling

_MANY = 1000


def plan(spec: Spec, bottoms: list[Shape]) -> Plan:
    """Plan a layer that reads blobs of these shapes (without the batch). Raises NetworkError when it does not fit."""
    kind = LAYERS[spec.type]
    _counted(spec, "bottom", len(bottoms), kind.bottoms)
    _counted(spec, "top", len(spec.tops), kind.tops)
    planned = kind.plan(spec, bottoms)
    for name, top in zip(spec.tops, planned.tops, strict=True):
        check_size(spec, f"blob {name!r}", top)
    return planned


def _counted(spec: Spec, what: str, count: int, allowed: Pair) -> None:
    low, high = allowed
    if not low <= count <= high:
        wanted = str(low) if low == high else f"at least {low}" if high == _MANY else f"{low} to {high}"
        raise refusal(spec, f"has {count} {what}s, but needs {wanted}")


# Learned along axes


def _batch_norm(spec: Spec, shapes: list[Shape]) -> Plan:
    options, shape = spec.options.batch_norm_param, shapes[0]
    if options.HasField("use_global_stats") and not options.use_global_stats:
        raise refusal(
            spec, "normalises by the batch, so that one picture's map would depend on the others': write "
            "use_global_stats: true for the statistics that it has learnt"
        )  # fmt: skip
    if len(shape) not in (1, 3):
        raise refusal(spec, f"reads channels x height x width or channels, but its bottom is {shown(shape)}")
    if options.eps < 0:
        raise refusal(spec, f"has eps: {options.eps:g}, which must not be negative")
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    channels = shape[0]
    blobs = {"running_mean": (channels,), "running_var": (channels,), FACTOR: (1,)}
    return Plan([shape], lambda: kind(channels, eps=options.eps, affine=False), blobs)


FACTOR = "factor"
"""The third blob of batch normalisation, by which the first two are to be divided; no tensor of torch's."""


def _scale(spec: Spec, shapes: list[Shape]) -> Plan:
    options = spec.options.scale_param
    if len(shapes) == 2:
        _check_broadcast(spec, options, shapes)
        if options.bias_term:
            raise refusal(spec, "learns a bias_term for each picture of a batch beside its second bottom")
        return Plan([shapes[0]], lambda: modules.Scale(None, None))
    axis, weight = _learned(spec, options, shapes[0])
    bias = weight if options.bias_term else None
    blobs = {"weight": weight} | ({"bias": weight} if options.bias_term else {})
    return Plan(shapes, lambda: modules.Scale(weight, bias, axis=axis), blobs)


def _bias(spec: Spec, shapes: list[Shape]) -> Plan:
    if len(shapes) == 2:
        _check_broadcast(spec, spec.options.bias_param, shapes)
        return Plan([shapes[0]], lambda: modules.Bias(None))
    axis, bias = _learned(spec, spec.options.bias_param, shapes[0])
    return Plan(shapes, lambda: modules.Bias(bias, axis=axis), {"bias": bias})


def _learned(spec: Spec, options: Any, shape: Shape) -> tuple[int, Shape]:
    """Return the axis from which on a factor or summand is learned, and its shape."""
    if options.num_axes == 0:
        return 1, ()
    axis, count = axis_of(spec, options.axis, shape), options.num_axes
    end = len(shape) + 1 if count == -1 else axis + count
    if count < -1 or end > len(shape) + 1:
        raise refusal(spec, f"spans {count} axes from axis {axis} on, but its bottom is {shown(shape)}")
    return axis, shape[axis - 1 : end - 1]


def _check_broadcast(spec: Spec, options: Any, shapes: list[Shape]) -> None:
    """Refuse a second bottom that does not begin as the first does, batch and all."""
    shape, other = shapes
    if options.axis not in (0, -len(shape) - 1):
        raise refusal(
            spec, f"lays its second bottom from axis {options.axis} on, where its pictures would be channels: "
            "axis: 0 lays picture on picture"
        )  # fmt: skip
    if shape[: len(other)] != other:
        raise refusal(spec, f"cannot spread its second bottom {shown(other)} over the first {shown(shape)}")


# Vectors


def _inner_product(spec: Spec, shapes: list[Shape]) -> Plan:
    options, shape = spec.options.inner_product_param, shapes[0]
    check_outputs(spec, options)
    axis = axis_of(spec, options.axis, shape)
    inputs, outputs, bias = math.prod(shape[axis - 1 :]), options.num_output, options.bias_term
    kind = modules.TransposedInnerProduct if options.transpose else modules.InnerProduct
    weight = (inputs, outputs) if options.transpose else (outputs, inputs)
    tops = [(*shape[: axis - 1], outputs)]
    return Plan(tops, lambda: kind(inputs, outputs, axis=axis, bias=bias), weighed(weight, options))


def _softmax(spec: Spec, shapes: list[Shape]) -> Plan:
    axis = axis_of(spec, spec.options.softmax_param.axis, shapes[0])
    return Plan(shapes, lambda: nn.Softmax(axis))


def _flatten(spec: Spec, shapes: list[Shape]) -> Plan:
    options, shape = spec.options.flatten_param, shapes[0]
    first, last = axis_of(spec, options.axis, shape), axis_of(spec, options.end_axis, shape)
    if first > last:
        raise refusal(spec, f"flattens from axis {first} to axis {last}, which lies before it")
    top = (*shape[: first - 1], math.prod(shape[first - 1 : last]), *shape[last:])
    return Plan([top], lambda: nn.Flatten(first, last))


def _reshape(spec: Spec, shapes: list[Shape]) -> Plan:
    options, shape = spec.options.reshape_param, shapes[0]
    whole = (1, *shape)
    start = options.axis + len(whole) + 1 if options.axis < 0 else options.axis
    end = len(whole) if options.num_axes == -1 else start + options.num_axes
    if options.num_axes < -1 or not 0 <= start <= end <= len(whole):
        raise refusal(
            spec, f"replaces {options.num_axes} axes from axis {options.axis} on, but its bottom is {shown(shape)}"
        )
    dims = _copied(spec, list(options.shape.dim), whole, start)
    if start == 0:
        # Whatever stands for the batch, it is kept if each picture keeps its numbers.
        if end == 0 or not dims or (dims[0] == -1 and -1 in dims[1:]):
            raise refusal(spec, "moves the batch's axis: shape { dim: 0 ... } keeps it")
        dims[0] = 1
    top = _inferred(spec, [*whole[:start], *dims, *whole[end:]], shape)
    return Plan([top], lambda: modules.Reshape(top))


def _copied(spec: Spec, dims: list[int], whole: Shape, start: int) -> list[int]:
    """Put the bottom's own extents where a dim is 0."""
    if min(dims, default=0) < -1 or dims.count(-1) > 1:
        raise refusal(spec, f"has dims {dims}: each is an extent, 0 (copied), or once -1 (what is left)")
    if any(dim == 0 and start + position >= len(whole) for position, dim in enumerate(dims)):
        raise refusal(spec, f"copies an axis that its bottom {shown(whole[1:])} does not have")
    return [dim or whole[start + position] for position, dim in enumerate(dims)]


def _inferred(spec: Spec, dims: list[int], shape: Shape) -> Shape:
    """Put what is left where a dim is -1; a picture keeps its numbers. `dims` begins with the batch."""
    known = math.prod(dim for dim in dims if dim != -1)
    dims = [math.prod(shape) // known if dim == -1 else dim for dim in dims]
    if math.prod(dims) != math.prod(shape):
        raise refusal(spec, f"cannot lay {shown(shape)} ({math.prod(shape)} numbers) out as {shown(dims[1:])}")
    return tuple(dims[1:])


# Several blobs


def _concat(spec: Spec, shapes: list[Shape]) -> Plan:
    options = spec.options.concat_param
    given = options.concat_dim if options.HasField("concat_dim") else options.axis
    axis = axis_of(spec, given, shapes[0])
    if any(len(shape) != len(shapes[0]) for shape in shapes):
        check_alike(spec, shapes)
    check_alike(spec, shapes, but=axis)
    total = sum(shape[axis - 1] for shape in shapes)
    return Plan([(*shapes[0][: axis - 1], total, *shapes[0][axis:])], lambda: modules.Concat(axis))


def _eltwise(spec: Spec, shapes: list[Shape]) -> Plan:
    options = spec.options.eltwise_param
    operation, coefficients = chosen(options, "operation"), list(options.coeff)
    check_alike(spec, shapes)
    if coefficients and (operation == "PROD" or len(coefficients) != len(shapes)):
        raise refusal(
            spec, f"has {len(coefficients)} coefficients for {operation} of {len(shapes)}: a SUM takes one per bottom"
        )
    return Plan([shapes[0]], lambda: modules.Eltwise(operation, coefficients or [1.0] * len(shapes)))


def _slice(spec: Spec, shapes: list[Shape]) -> Plan:
    options, shape = spec.options.slice_param, shapes[0]
    axis = axis_of(spec, options.slice_dim if options.HasField("slice_dim") else options.axis, shape)
    total, count = shape[axis - 1], len(spec.tops)
    if options.slice_point:
        cuts = [0, *options.slice_point, total]
    elif total % count:
        raise refusal(spec, f"cannot cut axis {axis} of {shown(shape)} into {count} equal tops: give slice_point")
    else:
        cuts = list(range(0, total + 1, total // count))
    lengths = [after - before for before, after in pairwise(cuts)]
    if len(lengths) != count or min(lengths) < 1:
        raise refusal(
            spec, f"cuts axis {axis} of {shown(shape)} at {list(options.slice_point)} for {count} tops: "
            f"{count - 1} rising points inside the axis are needed"
        )  # fmt: skip
    tops: list[Shape] = [(*shape[: axis - 1], length, *shape[axis:]) for length in lengths]
    return Plan(tops, lambda: modules.Slice(lengths, axis))


def _split(spec: Spec, shapes: list[Shape]) -> Plan:
    count = len(spec.tops)
    return Plan(shapes * count, lambda: modules.Split(count))


def _crop(spec: Spec, shapes: list[Shape]) -> Plan:
    options, (shape, like) = spec.options.crop_param, shapes
    axis = axis_of(spec, options.axis, shape)
    cropped = len(shape) + 1 - axis
    offsets = list(options.offset) or [0]
    offsets = offsets * cropped if len(offsets) == 1 else offsets
    if len(offsets) != cropped or len(like) != len(shape):
        raise refusal(
            spec, f"has {len(options.offset)} offsets to crop {cropped} axes of {shown(shape)} to {shown(like)}"
        )
    parts = zip(shape[axis - 1 :], like[axis - 1 :], offsets, strict=True)
    if any(offset + length > extent for extent, length, offset in parts):
        raise refusal(spec, f"cannot cut {shown(like)} at {offsets} out of {shown(shape)}, from axis {axis} on")
    return Plan([(*shape[: axis - 1], *like[axis - 1 :])], lambda: modules.Crop(offsets, axis))


# Element by element


def _relu(spec: Spec) -> nn.Module:
    gradient = spec.options.relu_param.negative_slope
    return nn.LeakyReLU(gradient) if gradient else nn.ReLU()


def _prelu(spec: Spec, shapes: list[Shape]) -> Plan:
    gradients = 1 if spec.options.prelu_param.channel_shared else shapes[0][0]
    shape = () if spec.options.prelu_param.channel_shared else (gradients,)
    return Plan(shapes, lambda: nn.PReLU(gradients), {"weight": shape})


def _dropout(spec: Spec) -> nn.Module:
    options = spec.options.dropout_param
    ratio = options.dropout_ratio
    if not 0 <= ratio <= 1:
        raise refusal(spec, f"drops a share of {ratio:g}, which must lie between 0 and 1")
    if options.HasField("scale_train") and not options.scale_train:
        return modules.Power(scale=1 - ratio)
    return nn.Dropout(ratio)


def _power(spec: Spec) -> nn.Module:
    options = spec.options.power_param
    return modules.Power(options.power, options.scale, options.shift)


def _exp(spec: Spec) -> nn.Module:
    options = spec.options.exp_param
    return modules.Exponential(_log_of_base(spec, options.base), options.scale, options.shift)


def _log(spec: Spec) -> nn.Module:
    options = spec.options.log_param
    log_base = _log_of_base(spec, options.base)
    if log_base == 0:
        raise refusal(spec, "has base: 1, to which there is no logarithm")
    return modules.Logarithm(log_base, options.scale, options.shift)


def _log_of_base(spec: Spec, base: float) -> float:
    """Return the natural logarithm of a base; -1 stands for e."""
    if base != -1 and base <= 0:
        raise refusal(spec, f"has base: {base:g}, which must be positive, or -1 for e")
    return 1.0 if base == -1 else math.log(base)


@dataclass(frozen=True)
class _Type:
    """How a type of layer is planned, and how many bottoms and tops it may have."""

    plan: Callable[[Spec, list[Shape]], Plan]
    bottoms: Pair = (1, 1)
    tops: Pair = (1, 1)


def _elementwise(make: Callable[[Spec], nn.Module]) -> _Type:
    def planned(spec: Spec, shapes: list[Shape]) -> Plan:
        module = make(spec)
        return Plan(shapes, lambda: module)

    return _Type(planned)


LAYERS: dict[str, _Type] = {
    "AbsVal": _elementwise(lambda spec: modules.AbsoluteValue()),
    "BNLL": _elementwise(lambda spec: nn.Softplus(threshold=40)),
    "BatchNorm": _Type(_batch_norm),
    "Bias": _Type(_bias, bottoms=(1, 2)),
    "Concat": _Type(_concat, bottoms=(1, _MANY)),
    "Convolution": _Type(convolution),
    "Crop": _Type(_crop, bottoms=(2, 2)),
    "Deconvolution": _Type(deconvolution),
    "Dropout": _elementwise(_dropout),
    "ELU": _elementwise(lambda spec: nn.ELU(spec.options.elu_param.alpha)),
    "Eltwise": _Type(_eltwise, bottoms=(2, _MANY)),
    "Exp": _elementwise(_exp),
    "Flatten": _Type(_flatten),
    "InnerProduct": _Type(_inner_product),
    "LRN": _Type(lrn),
    "Log": _elementwise(_log),
    "PReLU": _Type(_prelu),
    "Pooling": _Type(pooling),
    "Power": _elementwise(_power),
    "ReLU": _elementwise(_relu),
    "Reshape": _Type(_reshape),
    "Scale": _Type(_scale, bottoms=(1, 2)),
    "Sigmoid": _elementwise(lambda spec: nn.Sigmoid()),
    "Slice": _Type(_slice, tops=(1, _MANY)),
    "Softmax": _Type(_softmax),
    "Split": _Type(_split, tops=(1, _MANY)),
    "TanH": _elementwise(lambda spec: nn.Tanh()),
}
"""Every type of layer that runs."""
