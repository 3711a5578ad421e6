"""The calls of an exported program as a graph of modules with names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NetworkError
from .exported_calls import CREATING, DROPPED, KNOWN, MAKERS, OF_SHAPES, RANKS, base_name, function_of, trains
from .exported_reading import TYPES, Program
from .graph_files import refuse_operations
from .graph_names import layer_names
from .graphs import Call, Creation, Graph, Slot, Step


def graph_of(program: Program, picture: str, outputs: list[str], path: Path) -> Graph:
    """Turn every call of a program into a module. Raises NetworkError for operations that are not on the list."""
    nodes = [node for node in program.graph["nodes"] if base_name(node["target"]) not in DROPPED]
    refuse_operations({base_name(node["target"])[:100] for node in nodes} - KNOWN, path)
    names = layer_names([_place(node) for node in nodes])
    steps, modules = list[Step](), dict[str, nn.Module]()
    for name, node in zip(names, nodes, strict=True):
        base, reader = base_name(node["target"]), _Arguments(program)
        args, kwargs = reader.read(node)
        if base in ("batch_norm", "dropout", "dropout_") and trains(base, args):
            raise NetworkError(f"{path} was exported in training mode ({name}): call model.eval(), then export again")
        module, inputs = _module(base, args, kwargs, reader)
        sizes = base in OF_SHAPES or base.startswith("_operator.")
        changes = base.endswith("_")
        steps.append(Step(name, inputs, tuple(_results(node["outputs"])), sizes, changes))
        modules[name] = module
    return Graph(steps, modules, program.tensors, picture=picture, outputs=outputs)


def _named(target: str) -> set[str]:
    """Return the arguments that an operation takes by name only, which files of torch before 2.7 do not tell."""
    match = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target)
    if not match:
        return set()
    operation = getattr(getattr(torch.ops.aten, match[1]), match[2])
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
    return parts, base_name(node["target"]).rpartition(".")[2].strip("_")


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

    def __init__(self, program: Program) -> None:
        self.program = program
        self.inputs: list[str] = []

    def read(self, node: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = list[Any](), dict[str, Any]()
        named = _named(node["target"])
        for argument in node["inputs"]:
            value = self.value(argument["arg"])
            if argument["name"] in named:
                kwargs[argument["name"]] = value
            else:
                args.append(value)
        return args, kwargs

    def value(self, arg: dict[str, Any]) -> Any:
        (kind, content), *_ = arg.items()
        if kind == "as_none":
            return None
        if kind in ("as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools"):
            return float(content) if kind == "as_float" else content  # "Infinity" is text
        if kind == "as_tensor":
            return self.slot(content["name"])
        if kind in ("as_tensors", "as_optional_tensors"):
            return [self.slot(t["name"]) if "name" in t else self.value(t) for t in content]
        if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            return self.symbol(content)
        if kind == "as_sym_ints":
            return [self.symbol(item) for item in content]
        if kind == "as_scalar_type":
            return TYPES[content]
        if kind in ("as_device", "as_layout", "as_memory_format"):
            return None
        raise ValueError(f"an argument of the kind {kind}")

    def symbol(self, content: dict[str, Any]) -> Any:
        return self.slot(content["as_name"]) if "as_name" in content else next(iter(content.values()))

    def slot(self, name: str) -> Slot:
        self.inputs.append(name)
        return Slot(len(self.inputs) - 1)

    def rank(self, slot: Slot) -> int:
        return len(self.program.graph["tensor_values"][self.inputs[slot.index]]["sizes"])

    def constant(self, slot: Any) -> Tensor | None:
        """Return the weights that an argument stands for."""
        return self.program.tensors.get(self.inputs[slot.index]) if isinstance(slot, Slot) else None


def _module(
    base: str, args: list[Any], kwargs: dict[str, Any], reader: _Arguments
) -> tuple[nn.Module, tuple[str, ...]]:
    """Make torch's own module of a call where there is one, so that it is known as what it is; else a `Call`."""
    maker = MAKERS.get(base.removesuffix("_"))
    if maker and isinstance(args[0], Slot) and reader.constant(args[0]) is None:
        fixed = [reader.constant(v) if isinstance(v, Slot) else v for v in args[1:]]
        options = {k: v for k, v in kwargs.items() if v is not None}
        computed = any(isinstance(v, Slot) and w is None for v, w in zip(args[1:], fixed, strict=True))
        module = None if computed else maker(base, fixed, **options)
        if module is not None and reader.rank(args[0]) == RANKS.get(base, reader.rank(args[0])):
            return module, (reader.inputs[args[0].index],)
    kind = Creation if base in CREATING else Call
    return kind(function_of(base), args, {k: v for k, v in kwargs.items() if v is not None}), tuple(reader.inputs)
