"""Nodes of ONNX files as modules: by onnx2torch's converters, or by those here where that says more or is right."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .graphs import Call, Reshape, Slot

FLOATS = {1: torch.float32, 10: torch.float16, 11: torch.float64}


@dataclass(frozen=True)
class NodeModule:
    """A node as a module, and the values that it reads: the others are inside the module."""

    module: nn.Module
    inputs: tuple[str, ...]


def is_known(operation: str, domain: str, opset: int) -> bool:
    """Whether a node of this operation can become a module."""
    if operation in _MISTAKEN:
        return False
    return operation in _OWN or _converter(operation, domain, opset) is not None


def _converter(operation: str, domain: str, opset: int) -> Callable[..., Any] | None:
    """Find what makes a module of a node.

    onnx2torch knows few of the versions after 17, most of which only allow more types of numbers: the newest that it
    knows is taken, and `module_of` refuses what later versions added. Of versions 7 and 8, what came next is the same.
    """
    from onnx import defs
    from onnx2torch.node_converters import get_converter

    try:
        newest = defs.get_schema(operation, max_inclusive_version=opset, domain="").since_version
    except defs.SchemaError:
        return None
    if domain not in ("", "ai.onnx"):
        return None
    for version in (*range(newest, 0, -1), _NEXT.get(operation, 0)):
        try:
            return get_converter(operation_type=operation, domain="", version=version)
        except NotImplementedError:
            continue
    return None


# Where onnx2torch begins at a later version, whose meaning is that of version 7.
_NEXT = {"BatchNormalization": 9, "Dropout": 10, "MaxPool": 8, "Gemm": 9, "Flatten": 9, "Cast": 9, "Constant": 9}


def settle_attributes(node: Any, source: Any, constants: dict[str, Tensor]) -> None:
    """Write axes that are an input and padding that follows from sizes as attributes, which converters expect."""
    operation, attributes, inputs = node.operation_type, node._proto_attributes, node.input_values
    # Sums alone have axes as an input where the others have an attribute.
    if operation.startswith("Reduce") and operation != "ReduceSum" and len(inputs) > 1 and inputs[1] in constants:
        axes = constants[inputs[1]].reshape(-1).tolist()
        if not axes and attributes.get("noop_with_empty_axes"):
            raise ValueError("without axes it does nothing, which is not known here")
        node._input_values = inputs[:1]
        attributes |= {"axes": axes} if axes else {}
    if str(attributes.get("auto_pad", "")).startswith("SAME") and operation in _PADDED:
        shape = constants[inputs[1]].shape[2:] if operation == "Conv" else attributes["kernel_shape"]
        before, after = _same_padding(attributes, _sizes(inputs[0], source)[2:], shape)
        attributes |= {"auto_pad": "NOTSET", "pads": before + after}


_PADDED = frozenset(("Conv", "MaxPool", "AveragePool"))


def _same_padding(
    attributes: dict[str, Any], sizes: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the padding before and after each side that gives one place per step of the stride."""
    strides, dilations = (attributes.get(key) or [1] * len(kernel) for key in ("strides", "dilations"))
    before, after = list[int](), list[int]()
    for i, (side, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        reach = (side - 1) * dilation + 1
        if stride > 1 and not (len(sizes) > i and sizes[i]):
            raise ValueError("its padding depends on a size that the file leaves open")
        total = max(reach - (stride if stride == 1 else (sizes[i] - 1) % stride + 1), 0)
        less, more = total // 2, total - total // 2
        upper = attributes["auto_pad"] == "SAME_UPPER"
        before.append(less if upper else more)
        after.append(more if upper else less)
    return before, after


def module_of(node: Any, source: Any, constants: dict[str, Tensor], opset: int) -> NodeModule:
    """Make the module of a node, and say which of its inputs it reads. Raises ValueError for what is not known."""
    own = _OWN.get(node.operation_type)
    own_module = own(node, source, constants) if own else None
    if own_module is not None:
        return own_module
    converter = _converter(node.operation_type, node.domain, opset)
    if converter is None:
        raise ValueError("it has inputs that are not known in advance")
    for name, harmless in _ADDED.get(node.operation_type, {}).items():
        value = node.attributes.get(name, harmless)
        if value != harmless and any(v != harmless for v in (value if isinstance(value, list) else [value])):
            raise ValueError(f"{name}={value} is not known here")
    if len(node.input_values) > _MOST_INPUTS.get(node.operation_type, len(node.input_values)):
        raise ValueError("its axes are not known here")
    module, mapping = converter(node, source)
    return NodeModule(module, tuple(mapping.inputs))


# What onnx2torch does not look at, and what leaves everything as it was.
_ADDED: dict[str, dict[str, Any]] = {
    "AveragePool": {"dilations": 1},
    "BatchNormalization": {"training_mode": 0, "spatial": 1},
    "Resize": {"antialias": 0, "axes": None, "keep_aspect_ratio_policy": "stretch"},
    "Split": {"num_outputs": None},
    "Cast": {"saturate": 1},
    "ConvTranspose": {"output_shape": None},
    "IsInf": {"detect_negative": 1, "detect_positive": 1},
}
# What onnx2torch takes for something else than onnx says.
_MISTAKEN = frozenset(("NonZero", "NonMaxSuppression"))
_MOST_INPUTS = {"Pad": 3, "ReduceMean": 1, "ReduceMax": 1, "ReduceMin": 1, "ReduceL2": 1, "ReduceProd": 1}


def _reshape(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    sizes = constants.get(node.input_values[1])
    if sizes is None or (node.attributes.get("allowzero", 0) and not bool(sizes.all())):
        return None
    return NodeModule(Reshape([int(size) for size in sizes]), node.input_values[:1])


def _rank(node: Any, source: Any) -> int:
    return len(_sizes(node.input_values[0], source))


def _sizes(name: str, source: Any) -> list[int]:
    """Return a value's dimensions as far as the file tells; 0 for those that it leaves open."""
    value = source.value_info.get(name)
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim] if value is not None else []


def _average(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    """Global average pooling, also where it is written as a mean over rows and columns."""
    if _rank(node, source) != 4:
        return None
    axes = node.attributes.get("axes", [2, 3] if node.operation_type == "GlobalAveragePool" else [])
    if len(node.input_values) > 1 or {axis % 4 for axis in axes} != {2, 3} or not node.attributes.get("keepdims", 1):
        return None
    return NodeModule(nn.AdaptiveAvgPool2d(1), node.input_values[:1])


def _largest(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    return NodeModule(nn.AdaptiveMaxPool2d(1), node.input_values[:1]) if _rank(node, source) == 4 else None


def _gelu(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    return NodeModule(nn.GELU(approximate=node.attributes.get("approximate", "none")), node.input_values[:1])


def _gather(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    """One channel, token or place: an index that keeps track of where things lie."""
    index, rank = constants.get(node.input_values[1]), _rank(node, source)
    axis = node.attributes.get("axis", 0)
    if index is None or index.ndim or not rank or node.input_values[0] in constants:
        return None
    taken = (*[slice(None)] * (axis % rank), int(index))
    return NodeModule(Call(operator.getitem, (Slot(0), taken)), node.input_values[:1])


def _slice(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    numbers = [constants.get(name) for name in node.input_values[1:]]
    rank = _rank(node, source)
    if len(numbers) < 2 or not rank or any(n is None for n in numbers) or node.input_values[0] in constants:
        return None
    # "To the end" is written as the largest number that there is, which torch warns about.
    whole = (number.long().clamp(-(2**31), 2**31) for number in numbers if number is not None)
    starts, ends, *more = (number.reshape(-1).tolist() for number in whole)
    axes = more[0] if more else list(range(len(starts)))
    steps = more[1] if len(more) > 1 else [1] * len(starts)
    if min(steps) < 1:
        return None
    taken = [slice(None)] * rank
    for axis, *numbers in zip(axes, starts, ends, steps, strict=True):
        taken[axis % rank] = slice(*numbers)
    return NodeModule(Call(operator.getitem, (Slot(0), tuple(taken))), node.input_values[:1])


def _linear(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    """A product with a constant matrix: a linear layer along the last dimension."""
    weight = constants.get(node.input_values[1])
    if weight is None or weight.ndim != 2 or node.input_values[0] in constants:
        return None
    module = nn.Linear(*weight.shape, bias=False, device="meta")
    module.weight = nn.Parameter(weight.T.contiguous())
    return NodeModule(module, node.input_values[:1])


def _layer_norm(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    weight, *biases = (constants.get(name) for name in node.input_values[1:])
    axis = node.attributes.get("axis", -1)
    if weight is None or any(bias is None for bias in biases) or len(node.output_values) > 1:
        return None
    if axis != -weight.ndim and axis != _rank(node, source) - weight.ndim:
        return None
    module = nn.LayerNorm(weight.shape, node.attributes.get("epsilon", 1e-5), bias=bool(biases), device="meta")
    module.weight = nn.Parameter(weight)
    if biases and biases[0] is not None:
        module.bias = nn.Parameter(biases[0])
    return NodeModule(module, node.input_values[:1])


def _split(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    count = node.attributes.get("num_outputs", 0)
    if not count:
        return None
    return NodeModule(Call(torch.chunk, (Slot(0), count, node.attributes.get("axis", 0))), node.input_values[:1])


def _clip(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    bounds = [constants.get(name) if name else None for name in node.input_values[1:]]
    if any(name and bound is None for name, bound in zip(node.input_values[1:], bounds, strict=True)):
        return None
    low, high = (*(None if b is None else float(b) for b in bounds), None, None)[:2]
    low, high = node.attributes.get("min", low), node.attributes.get("max", high)
    if low == 0:
        return NodeModule(nn.ReLU() if high is None else nn.Hardtanh(0, high), node.input_values[:1])
    return NodeModule(Call(torch.clamp, (Slot(0), low, high)), node.input_values[:1])


def _extreme(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    """A maximum or minimum, so written that rules see what it is: with a number it bounds, with 0 it rectifies."""
    largest, inputs = node.operation_type == "Max", node.input_values
    moving = [name for name in inputs if name not in constants]
    bounds = [constants[name] for name in inputs if name in constants]
    if len(moving) != 1 or len(bounds) != 1 or bounds[0].numel() > 1:
        return NodeModule(Call(_maximum if largest else _minimum, [Slot(i) for i in range(len(inputs))]), inputs)
    bound = float(bounds[0])
    if largest and bound == 0:
        return NodeModule(nn.ReLU(), (moving[0],))
    return NodeModule(Call(torch.clamp, (Slot(0), *((bound, None) if largest else (None, bound)))), (moving[0],))


def _maximum(*tensors: Tensor) -> Tensor:
    return reduce(torch.maximum, tensors)


def _minimum(*tensors: Tensor) -> Tensor:
    return reduce(torch.minimum, tensors)


def _hard_sigmoid(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    """The one that torch has, so that its bounds are not taken for a rectifier's."""
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return NodeModule(nn.Hardsigmoid(), node.input_values[:1]) if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5 else None


def _cast_like(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    value, like = node.input_values[0], source.value_info.get(node.input_values[1])
    dtype = FLOATS.get(like.type.tensor_type.elem_type) if like is not None else None
    if value in constants and dtype:
        return NodeModule(Call(Tensor.to, (Slot(0), dtype)), (value,))
    return NodeModule(Call(Tensor.type_as, (Slot(0), Slot(1))), node.input_values)


def _batch_norm(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    """Refuse weights that are computed; training mode on what is constant standardises weights."""
    inputs = node.input_values
    if any(name not in constants for name in inputs[1:]):
        raise ValueError("its weights are not constant")
    if inputs[0] not in constants or not node.attributes.get("training_mode", 0):
        return None
    epsilon = node.attributes.get("epsilon", 1e-5)
    return NodeModule(Call(F.batch_norm, (Slot(0), None, None, Slot(1), Slot(2), True, 0.0, epsilon)), inputs[:3])


def _cumulative_sum(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    axis = constants.get(node.input_values[1])
    if axis is None or node.attributes.get("exclusive", 0) or node.attributes.get("reverse", 0):
        raise ValueError("it is exclusive, reversed, or along an axis that is computed, which is not known here")
    return NodeModule(Call(torch.cumsum, (Slot(0), int(axis))), node.input_values[:1])


def _mish(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    return NodeModule(nn.Mish(), node.input_values[:1])


def _resize(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    """Refuse what torch's interpolation, which onnx2torch takes for all, does otherwise."""
    old = len(node.input_values) == 2  # version 10 reads no region
    attributes, mode = node.attributes, node.attributes.get("mode", "nearest")
    way = "asymmetric" if old else attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if old else attributes.get("nearest_mode", "round_prefer_floor")
    scales = constants.get(node.input_values[1 if old else 2])
    sized = len(node.input_values) > 3 and node.input_values[3] != ""
    whole = scales is not None and bool((scales == scales.round()).all() & (scales >= 1).all())
    centred = way in ("half_pixel", "pytorch_half_pixel")
    if mode == "nearest":
        supported = (way, rounding) == ("asymmetric", "floor")
        supported |= centred and not sized and whole and rounding.startswith("round")
    else:
        supported = centred or (way == "align_corners" and (sized or whole))
        supported &= not attributes.get("exclude_outside", 0) and attributes.get("cubic_coeff_a", -0.75) == -0.75
    if not supported:
        raise ValueError(f"{mode} resizing, {way}, {rounding} is not known here")
    if way != "pytorch_half_pixel" or mode == "nearest":
        return None
    sizes = constants.get(node.input_values[3]) if sized else None
    if sizes is None and scales is None:
        raise ValueError(f"{mode} resizing, {way}, to a size that is computed is not known here")
    left, factors = (None if numbers is None else numbers.tolist()[-2:] for numbers in (sizes, scales))
    if mode == "cubic":
        if _leaves_one(left, factors, _sizes(node.input_values[0], source)[-2:]):
            raise ValueError("cubic resizing to one row or column is not known here")
        return None
    return NodeModule(Call(_half_pixel, (Slot(0), left, factors)), node.input_values[:1])


def _leaves_one(sizes: list[int] | None, scales: list[float] | None, extents: list[int]) -> bool:
    """Whether resizing may leave one row or column, as far as sizes are known."""
    if sizes is not None:
        return 1 in sizes
    return any(not n or math.floor(n * scale) == 1 for n, scale in zip(extents, scales or [], strict=True))


def _half_pixel(x: Tensor, sizes: list[int] | None, scales: list[float] | None) -> Tensor:
    """Resize linearly as torch does, except where one row or column is left: it is the first."""
    left = sizes or [math.floor(n * scale) for n, scale in zip(x.shape[-2:], scales or [], strict=True)]
    rows, columns = (slice(0, 1) if size == 1 else slice(None) for size in left)
    first = x[..., rows, columns]
    if scales is None:
        return F.interpolate(first, size=left, mode="bilinear", align_corners=False)
    factors = [1.0 if size == 1 else scale for size, scale in zip(left, scales, strict=True)]
    return F.interpolate(first, scale_factor=factors, mode="bilinear", align_corners=False)


def _grid_sample(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    mode = node.attributes.get("mode", "bilinear")
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    padding, corners = node.attributes.get("padding_mode", "zeros"), bool(node.attributes.get("align_corners", 0))
    return NodeModule(Call(F.grid_sample, (Slot(0), Slot(1), mode, padding, corners)), node.input_values)


def _average_pool(node: Any, source: Any, constants: dict[str, Tensor]) -> NodeModule | None:
    """Padding that differs between sides is laid around first."""
    attributes = node.attributes
    kernel, pads = attributes["kernel_shape"], attributes.get("pads", [0, 0, 0, 0])
    if len(kernel) != 2 or pads[:2] == pads[2:] or any(d != 1 for d in attributes.get("dilations", [1])):
        return None
    if attributes.get("ceil_mode", 0):
        raise ValueError("ceil_mode beside padding that differs between sides is not known here")
    stride, counted = attributes.get("strides", [1, 1]), bool(attributes.get("count_include_pad", 0))
    top, left, bottom, right = pads
    call = Call(_mean_of_windows, (Slot(0), kernel, stride, (left, right, top, bottom), counted))
    return NodeModule(call, node.input_values[:1])


def _mean_of_windows(x: Tensor, kernel: list[int], stride: list[int], pads: tuple[int, ...], counted: bool) -> Tensor:
    """Average windows over a padded picture; what lies outside counts as zeros, or does not count."""
    mean = F.avg_pool2d(F.pad(x, pads), kernel, stride)
    if counted:
        return mean
    inside = F.pad(x.new_ones(1, 1, *x.shape[-2:]), pads)
    return mean / F.avg_pool2d(inside, kernel, stride)


_OWN: dict[str, Callable[[Any, Any, dict[str, Tensor]], NodeModule | None]] = {
    "Reshape": _reshape,
    "GlobalAveragePool": _average,
    "ReduceMean": _average,
    "GlobalMaxPool": _largest,
    "Clip": _clip,
    "Max": _extreme,
    "Min": _extreme,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "CastLike": _cast_like,
    "LayerNormalization": _layer_norm,
    "MatMul": _linear,
    "Split": _split,
    "Gather": _gather,
    "Slice": _slice,
    "BatchNormalization": _batch_norm,
    "CumSum": _cumulative_sum,
    "Mish": _mish,
    "Resize": _resize,
    "GridSample": _grid_sample,
    "AveragePool": _average_pool,
}
"""Nodes that become something else than what onnx2torch makes of them, where all is known in advance."""
