"""Programs of `torch.export` as networks: read as data, so that nothing in the file is run.

`torch.export.load` reads Python objects by pickle, evaluates expressions and looks functions up by whatever name the
file gives. Here the graph is read from its JSON, numbers are taken as bytes, and only operations listed below exist.
"""

from __future__ import annotations

import json
import math
import operator
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import NetworkError, OptionError
from ..net import Net
from .graphs import (
    Call,
    Creation,
    Graph,
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
from .weights import scripted

SOURCE = Source(
    "pt2",
    ".exported_programs:build",
    "programs of torch.export.save",
    follows="FILE.pt2",
    path=True,
    holds_weights=True,
    endings=(".pt2",),
)

_SCHEMA = 8
_LARGEST_TEXT = 2**28

# The numbers of torch's serialised types.
_TYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}


def build(model: str, weights: str | Path | None, *, seed: int, reading: dict[str, Any]) -> Net:
    """Build the network of a file of `torch.export.save` as a Net.

    Raises NetworkError for a file that is missing, damaged, scripted, compiled, pickled, exported in training mode, or
    that uses what is not known here; for several inputs; OptionError for weights, which are inside the file, and for an
    output that it does not have.
    """
    path = Path(model)
    refuse_weights(f"pt2:{model}", weights)
    program = _read(path)
    try:
        picture, shape, single = _picture(program, path)
        outputs, notes = chosen_outputs(program.results, path, reading)
        body = _graph(program, picture, outputs, path)
    except (NetworkError, OptionError):
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError) as error:
        raise NetworkError(f"{path} is damaged, or written by another version of torch: {said(error)}") from None
    return as_net(body, path, shape, notes, reading, single=single)


class _Program:
    """What a file holds: the graph as JSON, and tensors by the names that the graph calls them by."""

    def __init__(self, told: dict[str, Any], numbers: dict[str, Tensor]) -> None:
        major = told["schema_version"]["major"]
        if major != _SCHEMA:
            raise ValueError(f"schema {major}, not {_SCHEMA}")
        module = told["graph_module"]
        self.graph, signature = module["graph"], module["signature"]
        self.tensors: dict[str, Tensor] = {}
        self.inputs: list[str] = []
        for spec in signature["input_specs"]:
            (kind, about), *_ = spec.items()
            self._input(kind, about, numbers)
        self.results: list[str] = []
        for spec in signature["output_specs"]:
            (kind, about), *_ = spec.items()
            if kind in ("buffer_mutation", "loss_output", "gradient_to_parameter", "gradient_to_user_input"):
                raise NetworkError(f"it was exported in training mode ({kind}): call model.eval(), then export again")
            if kind == "user_output" and "as_tensor" in about["arg"]:
                self.results.append(about["arg"]["as_tensor"]["name"])

    def _input(self, kind: str, about: dict[str, Any], numbers: dict[str, Tensor]) -> None:
        if kind == "user_input":
            if "as_tensor" in about["arg"]:
                self.inputs.append(about["arg"]["as_tensor"]["name"])
            elif "as_none" not in about["arg"]:
                self.inputs.append(next(iter(about["arg"])))
            return
        if kind not in ("parameter", "buffer", "tensor_constant"):
            raise ValueError(f"an input of the kind {kind}")
        key = f"{kind}_name"
        # Buffers that are not persistent, and constants, may be missing where nothing reads them.
        if about[key] in numbers:
            self.tensors[about["arg"]["name"]] = numbers[about[key]]


def _read(path: Path) -> _Program:
    if not path.is_file():
        raise NetworkError(f"there is no exported program {path}" + (" (it is a folder)" if path.is_dir() else ""))
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            _refuse_others(names, path)
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("it is compressed, which torch.export.save does not do")
            return _unpacked(archive, names)
    except NetworkError as error:
        text = str(error)
        raise NetworkError(text if str(path) in text else f"{path}: {text}") from None
    except MemoryError:
        raise
    except Exception as error:  # zipfile, json and what is missing in either
        raise NetworkError(f"{path} is not a program of torch.export.save, or is damaged: {said(error)}") from None


def _refuse_others(names: list[str], path: Path) -> None:
    """Tell programs from other archives that torch writes."""
    if scripted(names):
        raise NetworkError(
            f"{path} is TorchScript, compiled code that takes no hooks: its layers cannot be read nor its rectifiers "
            "rewritten. Export the Python model again by torch.export.save, or keep the numbers alone by "
            f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth') and give them as weights= to its "
            "Python definition"
        )
    if any("aotinductor" in name for name in names):
        raise NetworkError(f"{path} holds compiled code, which takes no hooks: save the program by torch.export.save")
    if any(name.endswith("/data.pkl") for name in names) and not any(name.endswith(".json") for name in names):
        raise NetworkError(
            f"{path} is a pickle (weights, or a whole model), not a program of torch.export.save; weights go with the "
            f"network they belong to, as in load('torchvision:resnet18', weights={path.name!r})"
        )


def _unpacked(archive: zipfile.ZipFile, names: list[str]) -> _Program:
    old = next((name for name in names if name.endswith("serialized_exported_program.json")), None)
    if old is not None:
        numbers = dict[str, Tensor]()
        for part in ("serialized_state_dict.pt", "serialized_constants.pt"):
            numbers |= _pickled(archive, old.replace("serialized_exported_program.json", part))
        return _Program(_json(archive, old), numbers)
    models = [name for name in names if re.search(r"(^|/)models/[^/]+\.json$", name)]
    if len(models) != 1:
        raise NetworkError(f"it holds {len(models)} programs, and one is expected")
    root, _, model = models[0].rpartition("models/")
    stem = model.removesuffix(".json")
    numbers = dict[str, Tensor]()
    for kind in ("weights", "constants"):
        told = f"{root}data/{kind}/{stem}_{kind}_config.json"
        if told in names:
            numbers |= dict(_numbers(archive, _json(archive, told)["config"], f"{root}data/{kind}/"))
    return _Program(_json(archive, models[0]), numbers)


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > _LARGEST_TEXT:
        raise ValueError(f"{name} is too large")
    return json.loads(archive.read(name))


def _pickled(archive: zipfile.ZipFile, name: str) -> dict[str, Tensor]:
    """Read tensors that an older torch pickled, by a reader that takes nothing else."""
    with archive.open(name) as file:
        held = torch.load(file, map_location="cpu", weights_only=True)
    return {str(key): value.detach() for key, value in held.items() if isinstance(value, Tensor)}


def _numbers(archive: zipfile.ZipFile, config: dict[str, Any], folder: str) -> Iterator[tuple[str, Tensor]]:
    """Read tensors from the bytes that the file holds of them."""
    for name, about in config.items():
        if about["use_pickle"] or not about["tensor_meta"]:
            raise NetworkError(f"it is refused: {name!r} is no plain tensor, and reading it would run code")
        meta = about["tensor_meta"]
        sizes, strides = ([int(n["as_int"]) for n in meta[key]] for key in ("sizes", "strides"))
        offset = int(meta["storage_offset"]["as_int"])
        data, kind = archive.read(folder + about["path_name"]), _TYPES[meta["dtype"]]
        flat = torch.frombuffer(bytearray(data), dtype=kind) if data else torch.empty(0, dtype=kind)
        if min((*sizes, *strides, offset, 0)) < 0 or _reach(sizes, strides, offset) > len(flat):
            raise ValueError(f"{name!r} needs more numbers than the file holds")
        yield name, flat.as_strided(sizes, strides, offset).clone(memory_format=torch.contiguous_format)


def _reach(sizes: Sequence[int], strides: Sequence[int], offset: int) -> int:
    if math.prod(sizes) == 0:
        return 0
    # A tensor with a stride of 0 can be any size: no more numbers than places are believed.
    within = 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    return offset + max(within, math.prod(sizes))


def _picture(program: _Program, path: Path) -> tuple[str, tuple[int, Any, Any], bool]:
    name = one_input(program.inputs, path)
    meta = program.graph["tensor_values"][name]
    sizes, kind = [size.get("as_int") for size in meta["sizes"]], _TYPES[meta["dtype"]]
    if len(sizes) != 4 or not kind.is_floating_point:
        raise NetworkError(f"{path} reads {len(sizes)} dimensions of {kind}, not (n, c, height, width) of floats")
    if sizes[1] not in (1, 3):
        raise NetworkError(f"{path} reads {sizes[1] or 'any number of'} channels; pictures have 1 or 3")
    refuse_batches(sizes[0], path)
    return name, (sizes[1], sizes[2], sizes[3]), sizes[0] == 1


def _graph(program: _Program, picture: str, outputs: list[str], path: Path) -> Graph:
    nodes = [node for node in program.graph["nodes"] if _base(node["target"]) not in _DROPPED]
    refuse_operations({_base(node["target"])[:100] for node in nodes} - _KNOWN, path)
    names = layer_names([_place(node) for node in nodes])
    steps, modules = list[Step](), dict[str, nn.Module]()
    for name, node in zip(names, nodes, strict=True):
        base, reader = _base(node["target"]), _Arguments(program)
        args, kwargs = reader.read(node)
        if base in ("batch_norm", "dropout", "dropout_") and _trains(base, args):
            raise NetworkError(f"{path} was exported in training mode ({name}): call model.eval(), then export again")
        module, inputs = _module(base, args, kwargs, reader)
        sizes = base in _OF_SHAPES or base.startswith("_operator.")
        changes = base.endswith("_")
        steps.append(Step(name, inputs, tuple(_results(node["outputs"])), sizes, changes))
        modules[name] = module
    return Graph(steps, modules, program.tensors, picture=picture, outputs=outputs)


def _base(target: str) -> str:
    """Return the operation's plain name: "conv2d" of "torch.ops.aten.conv2d.default"."""
    found = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.\w+", target)
    return found[1] if found else target


def _named(target: str) -> set[str]:
    """Return the arguments that an operation takes by name only, which files of torch before 2.7 do not tell."""
    found = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target)
    if not found:
        return set()
    operation = getattr(getattr(torch.ops.aten, found[1]), found[2])
    return {argument.name for argument in operation._schema.arguments if argument.kwarg_only}


def _place(node: dict[str, Any]) -> tuple[list[str], str]:
    """Say which module made a call, from the stack of modules that the exporter noted."""
    stack = (node.get("metadata") or {}).get("nn_module_stack") or ""
    module = stack.split(";")[-1].split(",")
    path = module[1] if len(module) > 1 else ""
    # A second call of the same module has another key and the same path.
    again = re.search(r"@(\d+)$", module[0])
    parts = [part for part in path.split(".") if part]
    if again and parts:
        parts[-1] += f"_{again[1]}"
    return parts, _base(node["target"]).rpartition(".")[2].strip("_")


def _results(outputs: list[dict[str, Any]]) -> Iterator[str]:
    for output in outputs:
        (kind, about), *_ = output.items()
        if kind == "as_tensors":
            yield from (tensor["name"] for tensor in about)
        elif kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            yield about["as_name"]
        else:
            yield about["name"]


class _Arguments:
    """The arguments of a call, with a slot for each that is computed elsewhere."""

    def __init__(self, program: _Program) -> None:
        self.program = program
        self.inputs: list[str] = []

    def read(self, node: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = list[Any](), dict[str, Any]()
        named = _named(node["target"])
        for given in node["inputs"]:
            value = self.value(given["arg"])
            if given["name"] in named:
                kwargs[given["name"]] = value
            else:
                args.append(value)
        return args, kwargs

    def value(self, arg: dict[str, Any]) -> Any:
        (kind, held), *_ = arg.items()
        if kind == "as_none":
            return None
        if kind in ("as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools"):
            return float(held) if kind == "as_float" else held  # "Infinity" is text
        if kind == "as_tensor":
            return self.slot(held["name"])
        if kind in ("as_tensors", "as_optional_tensors"):
            return [self.slot(t["name"]) if "name" in t else self.value(t) for t in held]
        if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            return self.symbol(held)
        if kind == "as_sym_ints":
            return [self.symbol(item) for item in held]
        if kind == "as_scalar_type":
            return _TYPES[held]
        if kind in ("as_device", "as_layout", "as_memory_format"):
            return None
        raise ValueError(f"an argument of the kind {kind}")

    def symbol(self, held: dict[str, Any]) -> Any:
        return self.slot(held["as_name"]) if "as_name" in held else next(iter(held.values()))

    def slot(self, name: str) -> Slot:
        self.inputs.append(name)
        return Slot(len(self.inputs) - 1)

    def rank(self, slot: Slot) -> int:
        return len(self.program.graph["tensor_values"][self.inputs[slot.index]]["sizes"])

    def constant(self, slot: Any) -> Tensor | None:
        """Return the weights that an argument stands for."""
        return self.program.tensors.get(self.inputs[slot.index]) if isinstance(slot, Slot) else None


def _trains(base: str, args: list[Any]) -> bool:
    """Whether a call drops or counts what it sees; without statistics, batch norm standardises weights."""
    return bool(args[5] and args[3] is not None if base == "batch_norm" else args[2])


def _module(
    base: str, args: list[Any], kwargs: dict[str, Any], reader: _Arguments
) -> tuple[nn.Module, tuple[str, ...]]:
    """Make torch's own module of a call where there is one, so that it is known as what it is; else a `Call`."""
    maker = _MODULES.get(base.removesuffix("_"))
    if maker and isinstance(args[0], Slot) and reader.constant(args[0]) is None:
        fixed = [reader.constant(v) if isinstance(v, Slot) else v for v in args[1:]]
        told = {k: v for k, v in kwargs.items() if v is not None}
        computed = any(isinstance(v, Slot) and w is None for v, w in zip(args[1:], fixed, strict=True))
        made = None if computed else maker(base, fixed, **told)
        if made is not None and reader.rank(args[0]) == _RANKS.get(base, reader.rank(args[0])):
            return made, (reader.inputs[args[0].index],)
    kind = Creation if base in _CREATING else Call
    return kind(_function(base), args, {k: v for k, v in kwargs.items() if v is not None}), tuple(reader.inputs)


# Modules that take pictures only, where the operation takes more.
_RANKS = {"batch_norm": 4, "conv2d": 4, "conv_transpose2d": 4}


_Maker = Callable[..., nn.Module | None]


def _with(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    """Put weights into a module that was made without data."""
    for name, value in tensors.items():
        if name in module._parameters:
            module._parameters[name] = None if value is None else nn.Parameter(value)
        else:
            module._buffers[name] = value
    return module


def _conv(base: str, args: Any) -> nn.Module | None:
    weight, bias, stride, padding, dilation, groups = _filled(args, None, None, 1, 0, 1, 1)
    stride, padding, dilation = (_pair(v) for v in (stride, padding, dilation))
    module = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], _pair(weight.shape[2:]), stride, padding, dilation, groups,
        bias=bias is not None, device="meta",
    )  # fmt: skip
    return _with(module, weight=weight, bias=bias)


def _conv_transpose(base: str, args: Any) -> nn.Module | None:
    weight, bias, stride, padding, out, groups, dilation = _filled(args, None, None, 1, 0, 0, 1, 1)
    stride, padding, out, dilation = (_pair(v) for v in (stride, padding, out, dilation))
    module = nn.ConvTranspose2d(
        weight.shape[0], weight.shape[1] * groups, _pair(weight.shape[2:]), stride, padding, out, groups,
        bias=bias is not None, dilation=dilation, device="meta",
    )  # fmt: skip
    return _with(module, weight=weight, bias=bias)


def _filled(args: Sequence[Any], *defaults: Any) -> tuple[Any, ...]:
    """Return arguments with defaults for those that were left out."""
    return (*args, *defaults[len(args) :])


def _pair(value: Any) -> Any:
    if isinstance(value, str):
        return value
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * 2 if len(values) == 1 else values


def _linear(base: str, args: Any) -> nn.Module | None:
    weight, bias = _filled(args, None, None)
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _with(module, weight=weight, bias=bias)


def _batch_norm(base: str, args: Any) -> nn.Module | None:
    weight, bias, mean, variance, _, momentum, eps = args[:7]
    if mean is None or variance is None:
        return None
    module = nn.BatchNorm2d(len(mean), eps, momentum, affine=weight is not None, device="meta")
    del module.num_batches_tracked
    module.register_buffer("num_batches_tracked", None)
    return _with(module, running_mean=mean, running_var=variance, weight=weight, bias=bias)


def _layer_norm(base: str, args: Any) -> nn.Module | None:
    shape, weight, bias, eps = _filled(args[:4], None, None, None, 1e-5)
    module = nn.LayerNorm(shape, eps, elementwise_affine=weight is not None, bias=bias is not None, device="meta")
    return _with(module, weight=weight, bias=bias)


def _plain(kind: Callable[..., nn.Module], *, changes: bool = False) -> _Maker:
    """Make a module whose arguments are those of the call; `changes` for one that also exists in place."""

    def make(base: str, args: list[Any], **kwargs: Any) -> nn.Module:
        return kind(*args, **kwargs, **({"inplace": base.endswith("_")} if changes else {}))

    return make


def _hardtanh(base: str, args: list[Any]) -> nn.Module:
    low, high = _filled(args, -1.0, 1.0)
    inplace = base.endswith("_")
    return nn.ReLU6(inplace) if (low, high) == (0, 6) else nn.Hardtanh(low, high, inplace=inplace)


def _elu(base: str, args: list[Any]) -> nn.Module | None:
    return nn.ELU(*args, inplace=base.endswith("_")) if len(args) < 2 else None


def _max_pool(base: str, args: list[Any]) -> nn.Module:
    kernel, stride, padding, dilation, ceil = _filled(args, None, None, 0, 1, False)
    return nn.MaxPool2d(kernel, stride or None, padding, dilation, ceil_mode=ceil)


def _dropout(base: str, args: list[Any]) -> nn.Module:
    return nn.Dropout(args[0])


_MODULES: dict[str, _Maker] = {
    "conv2d": _conv,
    "conv_transpose2d": _conv_transpose,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "relu": _plain(nn.ReLU, changes=True),
    "relu6": _plain(nn.ReLU6, changes=True),
    "silu": _plain(nn.SiLU, changes=True),
    "hardswish": _plain(nn.Hardswish, changes=True),
    "hardsigmoid": _plain(nn.Hardsigmoid, changes=True),
    "elu": _elu,
    "leaky_relu": _plain(nn.LeakyReLU, changes=True),
    "hardtanh": _hardtanh,
    "gelu": _plain(nn.GELU),
    "sigmoid": _plain(nn.Sigmoid),
    "tanh": _plain(nn.Tanh),
    "adaptive_avg_pool2d": _plain(nn.AdaptiveAvgPool2d),
    "avg_pool2d": _plain(nn.AvgPool2d),
    "max_pool2d": _max_pool,
    "dropout": _dropout,
    "flatten": _plain(nn.Flatten),
}


def _select(x: Tensor, dim: int, index: int) -> Tensor:
    return x[(*[slice(None)] * (dim % x.ndim), index)]


def _slice(x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    return x[(*[slice(None)] * (dim % x.ndim), slice(start, end, step))]


def _index(x: Tensor, positions: Sequence[Tensor | None]) -> Tensor:
    return x[tuple(slice(None) if position is None else position for position in positions)]


def _size(x: Tensor, dim: int) -> int:
    return x.shape[dim]


def _bilinear(x: Tensor, size: Any, corners: bool, scales: Any = None, *_: Any) -> Tensor:
    return F.interpolate(x, size=size, scale_factor=scales, mode="bilinear", align_corners=corners)


def _bicubic(x: Tensor, size: Any, corners: bool, scales: Any = None, *_: Any) -> Tensor:
    return F.interpolate(x, size=size, scale_factor=scales, mode="bicubic", align_corners=corners)


def _nearest(x: Tensor, size: Any, scales: Any = None, *_: Any) -> Tensor:
    return F.interpolate(x, size=size, scale_factor=scales, mode="nearest")


def _function_norm(x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any) -> Tensor:
    return F.batch_norm(x, mean, variance, weight, bias, *rest[:3])


def _layers(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Tensor:
    return F.layer_norm(x, shape, weight, bias, eps)


def _groups(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Tensor:
    return F.group_norm(x, groups, weight, bias, eps)


def _instances(x: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any) -> Tensor:
    return F.instance_norm(x, mean, variance, weight, bias, *rest[:3])


def _same(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def _typed(x: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    dtype = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.dtype)), x.dtype)
    return x.to(dtype, copy=copy)


_OWN: dict[str, Callable[..., Any]] = {
    "batch_norm": _function_norm,
    "layer_norm": _layers,
    "group_norm": _groups,
    "select": _select,
    "slice": _slice,
    "sym_size": _size,
    "upsample_bilinear2d": _bilinear,
    "upsample_bicubic2d": _bicubic,
    "upsample_nearest2d": _nearest,
    "silu_": partial(F.silu, inplace=True),
    "hardswish_": partial(F.hardswish, inplace=True),
    "hardsigmoid_": partial(F.hardsigmoid, inplace=True),
    "mish_": partial(F.mish, inplace=True),
    "dropout_": _same,
    "index": _index,
    "instance_norm": _instances,
    "linalg_vector_norm": torch.linalg.vector_norm,
    "im2col": F.unfold,
    "col2im": F.fold,
    "alias": _same,
    "lift_fresh_copy": torch.clone,
    "detach": _same,
    "detach_": _same,
    "to": _typed,
    "_to_copy": partial(_typed, copy=True),
    "_unsafe_view": torch.reshape,
    "conv_transpose2d": F.conv_transpose2d,
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.mod": operator.mod,
    "_operator.neg": operator.neg,
}

# Operations that are functions of torch by the same name, with the same arguments in the same order.
_OF_FUNCTIONAL = frozenset(
    """relu relu_ relu6 silu hardswish hardsigmoid elu elu_ leaky_relu leaky_relu_ hardtanh hardtanh_ gelu selu selu_
    celu celu_ mish softplus softsign adaptive_avg_pool2d adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d
    max_pool2d dropout linear pad pixel_shuffle pixel_unshuffle scaled_dot_product_attention""".split()
)
_OF_TORCH = frozenset(
    """conv1d conv2d flatten cat stack matmul bmm mm addmm baddbmm addcmul add sub rsub mul div pow sqrt rsqrt exp
    log abs neg reciprocal square sigmoid tanh softmax log_softmax clamp clamp_min clamp_max clip mean sum amax
    amin max min var std maximum minimum permute transpose t squeeze unsqueeze chunk split split_with_sizes unbind
    roll flip where narrow movedim swapaxes index_select sin cos erf prelu reshape unflatten tile channel_shuffle
    gt lt ge le eq ne logical_and logical_or logical_not bitwise_not repeat_interleave floor ceil round sign
    cumsum einsum ones_like zeros_like full_like""".split()
)
_OF_TENSOR = frozenset(
    """view contiguous clone expand expand_as type_as add_ sub_ mul_ div_ sigmoid_ tanh_ clamp_ clamp_min_ repeat
    view_as reshape_as unfold masked_fill fill_ copy_ new_zeros new_ones new_full""".split()
)
_CREATING = frozenset(("arange", "zeros", "ones", "full", "linspace", "eye"))
_KNOWN = _CREATING | _OF_FUNCTIONAL | _OF_TORCH | _OF_TENSOR | _OWN.keys()
_OF_SHAPES = frozenset(("sym_size", "new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"))
_DROPPED = frozenset(("_assert_scalar", "_assert_async", "_assert_tensor_metadata", "sym_constrain_range_for_size"))


def _function(base: str) -> Callable[..., Any]:
    if base in _OWN:
        return _OWN[base]
    for names, home in ((_OF_FUNCTIONAL, F), (_OF_TORCH | _CREATING, torch), (_OF_TENSOR, Tensor)):
        if base in names and hasattr(home, base):
            return getattr(home, base)
    raise ValueError(f"{base} with arguments that are not known here")
