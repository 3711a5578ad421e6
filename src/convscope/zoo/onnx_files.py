"""ONNX files as networks: read without running anything, each node a module with the name that the file gives it."""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import NetworkError
from ..net import Net
from .graphs import (
    MOST_NUMBERS,
    Call,
    Graph,
    Reshape,
    Slot,
    Step,
    as_net,
    chosen_outputs,
    layer_names,
    one_input,
    refuse_batches,
    refuse_operations,
    refuse_weights,
    said,
)
from .sources import Source

SOURCE = Source(
    "onnx",
    ".onnx_files:build",
    "ONNX files",
    follows="FILE.onnx",
    path=True,
    holds_weights=True,
    endings=(".onnx",),
    needs=("onnx", "onnx2torch"),
    extra="onnx",
)

_OLDEST = 7
_FLOATS = {1: torch.float32, 10: torch.float16, 11: torch.float64}
_SCOPES = "pkg.torch.onnx.name_scopes"
# Inputs of these that are constant carry the name of the module whose weights they are.
_WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "PRelu"))
# What makes tensors as large as numbers in the file say, and the first input that has these.
_GROWING = {"ConstantOfShape": 0, "Range": 0, "Expand": 1, "Tile": 1, "Pad": 1, "Resize": 1}


def build(model: str, weights: str | Path | None, *, seed: int, reading: dict[str, Any]) -> Net:
    """Build the network of an ONNX file as a Net.

    Raises NetworkError for a file that is missing, damaged, in training mode, or uses what is not known here; for
    several inputs; OptionError for weights, which are inside the file, and for an output that it does not have.
    """
    path = Path(model)
    refuse_weights(f"onnx:{model}", weights)
    proto = _read(path)
    picture = _picture(proto, path)
    outputs, notes = chosen_outputs([value.name for value in proto.graph.output], path, reading)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = _graph(proto, picture.name, outputs, path)
    first = next((m.in_channels for m in body.modules() if isinstance(m, nn.Conv2d)), 3)
    channels = reading.get("channels", picture.channels or first)
    return as_net(body, path, (channels, *picture.size), notes, reading, single=picture.single)


@dataclass(frozen=True)
class _Picture:
    """The input that a picture goes to; sizes that the file leaves open are None, `single` says that it takes one."""

    name: str
    channels: int | None
    size: tuple[int | None, int | None]
    single: bool


def _read(path: Path) -> Any:
    """Read and check a model, and write it in the fewest terms."""
    import onnx

    if not path.is_file():
        raise NetworkError(f"there is no ONNX file {path}" + (" (it is a folder)" if path.is_dir() else ""))
    try:
        proto = onnx.load(path, load_external_data=False)
        _with_external_data(proto, path)
        onnx.checker.check_model(proto)
        _simplify(proto)
        return onnx.shape_inference.infer_shapes(proto)
    except (NetworkError, MemoryError):
        raise
    except Exception as error:  # protobuf, the checker and numpy each have errors of their own
        raise NetworkError(f"{path} is not an ONNX file or is damaged: {said(error)}") from None


def _with_external_data(proto: Any, path: Path) -> None:
    """Read weights that lie in files of the same folder. Raises NetworkError for any other place."""
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data

    folder = path.parent.resolve()
    tensors = [*proto.graph.initializer, *(a.t for n in proto.graph.node for a in n.attribute if a.HasField("t"))]
    outside = [tensor for tensor in tensors if uses_external_data(tensor)]
    for tensor in outside:
        told = {entry.key: entry.value for entry in tensor.external_data}
        position = (folder / told.get("location", "")).resolve()
        if not position.is_relative_to(folder):
            raise NetworkError(f"{path} is refused: it asks for a file outside its folder, {told.get('location')!r}")
        if not position.is_file():
            raise NetworkError(f"{path} keeps its weights in {told.get('location')!r}, which is not beside it")
    if outside:
        load_external_data_for_model(proto, str(folder))


def _simplify(proto: Any) -> None:
    """Turn constant nodes into initialisers, and leave out what renames them and outputs that nobody reads."""
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    results = {value.name for value in graph.output}
    read = results | {name for node in graph.node for name in node.input}
    aliases: dict[str, str] = {}
    kept: list[Any] = []
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = aliases.get(name, name)
        # Batch norm in training mode has three outputs, or its shape is not found.
        while len(node.output) > 1 and node.output[-1] not in read and node.op_type != "BatchNormalization":
            node.output.pop()
        if node.op_type == "Constant" and node.output[0] not in results:
            tensor = _constant(node)
            tensor.name = node.output[0]
            constants.add(tensor.name)
            graph.initializer.append(tensor)
        elif node.op_type == "Identity" and node.input[0] in constants and node.output[0] not in results:
            aliases[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _constant(node: Any) -> Any:
    from onnx import TensorProto, numpy_helper

    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
        return tensor
    import numpy as np
    from onnx import helper

    values = helper.get_attribute_value(attribute)
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    if attribute.name not in kinds:
        raise NetworkError(f"a constant of the file is {attribute.name}, neither a tensor nor numbers")
    return numpy_helper.from_array(np.asarray(values, dtype=kinds[attribute.name]))


def _picture(proto: Any, path: Path) -> _Picture:
    """Find the one input, and see that it is a picture."""
    given = {tensor.name for tensor in proto.graph.initializer}
    inputs = {value.name: value for value in proto.graph.input if value.name not in given}
    name = one_input(list(inputs), path)
    kind = inputs[name].type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    if kind.elem_type not in _FLOATS:
        raise NetworkError(f"input {name!r} of {path} does not read floating point numbers: export it for float pixels")
    if len(dims) != 4:
        raise NetworkError(f"input {name!r} of {path} has {len(dims)} dimensions, not (n, channels, height, width)")
    batch, channels, *size = dims
    if channels not in (None, 1, 3):
        last = " (channels last: convert it with channels first)" if dims[3] in (1, 3) else ""
        raise NetworkError(f"input {name!r} of {path} has {channels} channels{last}; pictures have 1 or 3")
    refuse_batches(batch, path)
    return _Picture(name, channels, (size[0] or None, size[1] or None), batch == 1)


@dataclass(frozen=True)
class _Made:
    """A node as a module, and the values that it reads: the others are inside the module."""

    module: nn.Module
    inputs: tuple[str, ...]


def _graph(proto: Any, picture: str, outputs: list[str], path: Path) -> Graph:
    """Turn every node into a module, what does not depend on the picture into constants."""
    from onnx2torch.onnx_graph import OnnxGraph
    from onnx2torch.onnx_tensor import OnnxTensor

    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST:
        raise NetworkError(f"{path} is of opset {opset}; {_OLDEST} is the oldest: convert it by onnx.version_converter")
    _refuse_unknown(proto, opset, path)
    names = layer_names([_place(node) for node in proto.graph.node])
    for i, node in enumerate(proto.graph.node):
        node.name = f"n{i}"  # onnx2torch tells nodes apart by name, and files need not
    source = OnnxGraph(proto.graph)
    constants = {name: _tensor(value, name, path) for name, value in source.initializers.items()}
    steps, modules = list[Step](), dict[str, nn.Module]()
    for name, node in zip(names, source.nodes.values(), strict=True):
        try:
            _settle(node, source, constants)
            made = _made(node, source, constants, opset)
        except Exception as error:  # converters raise anything on attributes that are missing or do not fit
            what = f"node {name!r} ({node.operation_type}) of {path}"
            raise NetworkError(f"{what} cannot be read: {said(error)}") from None
        step = Step(name, made.inputs, node.output_values, sizes=node.operation_type == "Shape")
        if all(not value or value in constants for value in made.inputs):
            known = _folded(step, node, made, constants, path)
            constants.update(known)
            # Converters look for weights and bounds among what the file says is constant.
            source._initializers.update({key: OnnxTensor.from_torch(value, key) for key, value in known.items()})
        else:
            steps.append(step)
            modules[name] = made.module
    missing = [name for name in outputs if name not in {o for step in steps for o in step.outputs}]
    if missing:
        raise NetworkError(f"output {missing[0]!r} of {path} does not depend on the picture")
    return Graph(steps, modules, constants, picture=picture, outputs=outputs)


def _tensor(value: Any, name: str, path: Path) -> Tensor:
    try:
        return value.to_torch()
    except Exception as error:
        raise NetworkError(f"{path} is damaged: tensor {name!r} cannot be read ({said(error)})") from None


def _folded(step: Step, node: Any, made: _Made, constants: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Compute what does not depend on the picture, unless numbers in the file make it very large."""
    given = [constants[name] if name else None for name in made.inputs]
    if any(_large(value) for value in given[_GROWING.get(node.operation_type, len(given)) :]):
        raise NetworkError(f"{path} is damaged: {step.layer!r} ({node.operation_type}) would fill the memory")
    try:
        with torch.no_grad():
            result = made.module.eval()(*given)
    except Exception as error:
        raise NetworkError(f"{path} is damaged: {step.layer!r} ({node.operation_type}) fails: {said(error)}") from None
    results = result if isinstance(result, (tuple, list)) else (result,)
    return dict(zip(step.outputs, results, strict=False))


def _large(value: Tensor | None) -> bool:
    """Whether numbers, taken as sizes, stand for a tensor larger than a layer may be."""
    if value is None or value.is_floating_point():
        return False
    return bool(value.double().abs().clamp(min=1).prod() > MOST_NUMBERS)


def _place(node: Any) -> tuple[Sequence[str], str]:
    """Say which module of the exported model a node belongs to, and what it does there.

    Either torch exporter tells: one in the node's name (/features/features.3/squeeze/Conv), one in its metadata. Where
    batch norm was folded into a convolution, the convolution's weights still have their old name.
    """
    scope = _scope(node)
    weight = node.input[1] if node.op_type in _WEIGHTED and len(node.input) > 1 else ""
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight").split("."), node.op_type
    if scope is not None:
        return scope, node.op_type
    parts = [part for part in node.name.split("/") if part]
    path: list[str] = []
    for part in parts[:-1]:
        if path and part.startswith(path[-1] + "."):
            path.pop()
        path.append(part)
    path = [piece for part in path for piece in part.split(".")]
    if len(parts) > 1 or node.name.startswith("/"):
        return path, parts[-1]
    return [], node.name or node.op_type


def _scope(node: Any) -> list[str] | None:
    told = next((p.value for p in getattr(node, "metadata_props", ()) if p.key == _SCOPES), "")
    try:
        scopes = ast.literal_eval(told) if len(told) < 10_000 else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(scopes, list) or len(scopes) < 2 or not isinstance(scopes[-2], str):
        return None
    return [part for part in scopes[-2].split(".") if part]


def _refuse_unknown(proto: Any, opset: int, path: Path) -> None:
    unknown = {
        f"{node.domain + '.' if node.domain else ''}{node.op_type}"
        for node in proto.graph.node
        if node.op_type in _MISTAKEN
        or (node.op_type not in _OWN and _converter(node.op_type, node.domain, opset) is None)
    }
    refuse_operations(unknown, path, f" of opset {opset}")


def _converter(operation: str, domain: str, opset: int) -> Callable[..., Any] | None:
    """Find what makes a module of a node.

    onnx2torch knows few of the versions after 17, most of which only allow more types of numbers: the newest that it
    knows is taken, and `_made` refuses what later versions added. Of versions 7 and 8, what came next is the same.
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


def _settle(node: Any, source: Any, constants: dict[str, Tensor]) -> None:
    """Write axes that are an input and padding that follows from sizes as attributes, which converters expect."""
    operation, attributes, given = node.operation_type, node._proto_attributes, node.input_values
    # Sums alone have axes as an input where the others have an attribute.
    if operation.startswith("Reduce") and operation != "ReduceSum" and len(given) > 1 and given[1] in constants:
        axes = constants[given[1]].reshape(-1).tolist()
        if not axes and attributes.get("noop_with_empty_axes"):
            raise ValueError("without axes it does nothing, which is not known here")
        node._input_values = given[:1]
        attributes |= {"axes": axes} if axes else {}
    if str(attributes.get("auto_pad", "")).startswith("SAME") and operation in _PADDED:
        shape = constants[given[1]].shape[2:] if operation == "Conv" else attributes["kernel_shape"]
        before, after = _same_padding(attributes, _sizes(given[0], source)[2:], shape)
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


def _made(node: Any, source: Any, constants: dict[str, Tensor], opset: int) -> _Made:
    own = _OWN.get(node.operation_type)
    made = own(node, source, constants) if own else None
    if made is not None:
        return made
    converter = _converter(node.operation_type, node.domain, opset)
    if converter is None:
        raise ValueError("it has inputs that are not known in advance")
    for name, harmless in _ADDED.get(node.operation_type, {}).items():
        given = node.attributes.get(name, harmless)
        if given != harmless and any(v != harmless for v in (given if isinstance(given, list) else [given])):
            raise ValueError(f"{name}={given} is not known here")
    if len(node.input_values) > _MOST_INPUTS.get(node.operation_type, len(node.input_values)):
        raise ValueError("its axes are not known here")
    module, mapping = converter(node, source)
    return _Made(module, tuple(mapping.inputs))


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


def _reshape(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    sizes = constants.get(node.input_values[1])
    if sizes is None or (node.attributes.get("allowzero", 0) and not bool(sizes.all())):
        return None
    return _Made(Reshape([int(size) for size in sizes]), node.input_values[:1])


def _rank(node: Any, source: Any) -> int:
    return len(_sizes(node.input_values[0], source))


def _sizes(name: str, source: Any) -> list[int]:
    """Return a value's dimensions as far as the file tells; 0 for those that it leaves open."""
    value = source.value_info.get(name)
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim] if value is not None else []


def _average(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    """Global average pooling, also where it is written as a mean over rows and columns."""
    if _rank(node, source) != 4:
        return None
    axes = node.attributes.get("axes", [2, 3] if node.operation_type == "GlobalAveragePool" else [])
    if len(node.input_values) > 1 or {axis % 4 for axis in axes} != {2, 3} or not node.attributes.get("keepdims", 1):
        return None
    return _Made(nn.AdaptiveAvgPool2d(1), node.input_values[:1])


def _largest(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    return _Made(nn.AdaptiveMaxPool2d(1), node.input_values[:1]) if _rank(node, source) == 4 else None


def _gelu(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    return _Made(nn.GELU(approximate=node.attributes.get("approximate", "none")), node.input_values[:1])


def _gather(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    """One channel, token or place: an index that keeps track of where things lie."""
    index, rank = constants.get(node.input_values[1]), _rank(node, source)
    axis = node.attributes.get("axis", 0)
    if index is None or index.ndim or not rank or node.input_values[0] in constants:
        return None
    taken = (*[slice(None)] * (axis % rank), int(index))
    return _Made(Call(operator.getitem, (Slot(0), taken)), node.input_values[:1])


def _slice(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    numbers = [constants.get(name) for name in node.input_values[1:]]
    rank = _rank(node, source)
    if len(numbers) < 2 or not rank or any(n is None for n in numbers) or node.input_values[0] in constants:
        return None
    # "To the end" is written as the largest number that there is, which torch warns about.
    known = (number.long().clamp(-(2**31), 2**31) for number in numbers if number is not None)
    starts, ends, *more = (number.reshape(-1).tolist() for number in known)
    axes = more[0] if more else list(range(len(starts)))
    steps = more[1] if len(more) > 1 else [1] * len(starts)
    if min(steps) < 1:
        return None
    taken = [slice(None)] * rank
    for axis, *numbers in zip(axes, starts, ends, steps, strict=True):
        taken[axis % rank] = slice(*numbers)
    return _Made(Call(operator.getitem, (Slot(0), tuple(taken))), node.input_values[:1])


def _linear(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    """A product with a constant matrix: a linear layer along the last dimension."""
    weight = constants.get(node.input_values[1])
    if weight is None or weight.ndim != 2 or node.input_values[0] in constants:
        return None
    module = nn.Linear(*weight.shape, bias=False, device="meta")
    module.weight = nn.Parameter(weight.T.contiguous())
    return _Made(module, node.input_values[:1])


def _layer_norm(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
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
    return _Made(module, node.input_values[:1])


def _split(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    count = node.attributes.get("num_outputs", 0)
    if not count:
        return None
    return _Made(Call(torch.chunk, (Slot(0), count, node.attributes.get("axis", 0))), node.input_values[:1])


def _clip(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    bounds = [constants.get(name) if name else None for name in node.input_values[1:]]
    if any(name and bound is None for name, bound in zip(node.input_values[1:], bounds, strict=True)):
        return None
    low, high = (*(None if b is None else float(b) for b in bounds), None, None)[:2]
    low, high = node.attributes.get("min", low), node.attributes.get("max", high)
    if low == 0:
        return _Made(nn.ReLU() if high is None else nn.Hardtanh(0, high), node.input_values[:1])
    return _Made(Call(torch.clamp, (Slot(0), low, high)), node.input_values[:1])


def _extreme(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    """A maximum or minimum, so written that rules see what it is: with a number it bounds, with 0 it rectifies."""
    largest, given = node.operation_type == "Max", node.input_values
    moving = [name for name in given if name not in constants]
    bounds = [constants[name] for name in given if name in constants]
    if len(moving) != 1 or len(bounds) != 1 or bounds[0].numel() > 1:
        return _Made(Call(_maximum if largest else _minimum, [Slot(i) for i in range(len(given))]), given)
    bound = float(bounds[0])
    if largest and bound == 0:
        return _Made(nn.ReLU(), (moving[0],))
    return _Made(Call(torch.clamp, (Slot(0), *((bound, None) if largest else (None, bound)))), (moving[0],))


def _maximum(*tensors: Tensor) -> Tensor:
    return reduce(torch.maximum, tensors)


def _minimum(*tensors: Tensor) -> Tensor:
    return reduce(torch.minimum, tensors)


def _hard_sigmoid(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    """The one that torch has, so that its bounds are not taken for a rectifier's."""
    alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return _Made(nn.Hardsigmoid(), node.input_values[:1]) if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5 else None


def _cast_like(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    value, like = node.input_values[0], source.value_info.get(node.input_values[1])
    dtype = _FLOATS.get(like.type.tensor_type.elem_type) if like is not None else None
    if value in constants and dtype:
        return _Made(Call(Tensor.to, (Slot(0), dtype)), (value,))
    return _Made(Call(Tensor.type_as, (Slot(0), Slot(1))), node.input_values)


def _batch_norm(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    """Refuse weights that are computed; training mode on what is constant standardises weights."""
    given = node.input_values
    if any(name not in constants for name in given[1:]):
        raise ValueError("its weights are not constant")
    if given[0] not in constants or not node.attributes.get("training_mode", 0):
        return None
    epsilon = node.attributes.get("epsilon", 1e-5)
    return _Made(Call(F.batch_norm, (Slot(0), None, None, Slot(1), Slot(2), True, 0.0, epsilon)), given[:3])


def _cumulative_sum(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    axis = constants.get(node.input_values[1])
    if axis is None or node.attributes.get("exclusive", 0) or node.attributes.get("reverse", 0):
        raise ValueError("it is exclusive, reversed, or along an axis that is computed, which is not known here")
    return _Made(Call(torch.cumsum, (Slot(0), int(axis))), node.input_values[:1])


def _mish(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
    return _Made(nn.Mish(), node.input_values[:1])


def _resize(node: Any, source: Any, constants: dict[str, Tensor]) -> _Made | None:
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
        known = (way, rounding) == ("asymmetric", "floor")
        known |= centred and not sized and whole and rounding.startswith("round")
    else:
        known = centred or (way == "align_corners" and (sized or whole))
        known &= not attributes.get("exclude_outside", 0) and attributes.get("cubic_coeff_a", -0.75) == -0.75
    if not known:
        raise ValueError(f"{mode} resizing, {way}, {rounding} is not known here")
    return None


_OWN: dict[str, Callable[[Any, Any, dict[str, Tensor]], _Made | None]] = {
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
}
"""Nodes that become something else than what onnx2torch makes of them, where all is known in advance."""
