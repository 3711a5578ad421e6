"""The nodes of an ONNX file as a graph: named by the modules that they came from, constants computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NetworkError
from ..parsing import Document
from .graph_files import refuse_operations
from .graph_names import layer_names
from .graphs import MOST_NUMBERS, Graph, Step, reason
from .onnx_nodes import NodeModule, is_known, module_of, settle_attributes

_OLDEST = 7
_SCOPES = "pkg.torch.onnx.name_scopes"
# Inputs of these that are constant carry the name of the module whose weights they are.
_WEIGHTED = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "PRelu"))
# What makes tensors as large as numbers in the file say, and the first input that has these.
_GROWING = {"ConstantOfShape": 0, "Range": 0, "Expand": 1, "Tile": 1, "Pad": 1, "Resize": 1}


def graph_of(proto: Any, picture: str, outputs: list[str], path: Path) -> Graph:
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
            settle_attributes(node, source, constants)
            node_module = module_of(node, source, constants, opset)
        except Exception as error:  # converters raise anything on attributes that are missing or do not fit
            what = f"node {name!r} ({node.operation_type}) of {path}"
            raise NetworkError(f"{what} cannot be read: {reason(error)}") from None
        step = Step(name, node_module.inputs, node.output_values, sizes=node.operation_type == "Shape")
        if all(not value or value in constants for value in node_module.inputs):
            computed = _folded(step, node, node_module, constants, path)
            constants.update(computed)
            # Converters look for weights and bounds among what the file says is constant.
            source._initializers.update({key: OnnxTensor.from_torch(value, key) for key, value in computed.items()})
        else:
            steps.append(step)
            modules[name] = node_module.module
    missing = [name for name in outputs if name not in {o for step in steps for o in step.outputs}]
    if missing:
        raise NetworkError(f"output {missing[0]!r} of {path} does not depend on the picture")
    return Graph(steps, modules, constants, picture=picture, outputs=outputs)


def _tensor(value: Any, name: str, path: Path) -> Tensor:
    try:
        return value.to_torch()
    except Exception as error:
        raise NetworkError(f"{path} is damaged: tensor {name!r} cannot be read ({reason(error)})") from None


def _folded(
    step: Step, node: Any, node_module: NodeModule, constants: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Compute what does not depend on the picture, unless numbers in the file make it very large."""
    values = [constants[name] if name else None for name in node_module.inputs]
    if any(_large(value) for value in values[_GROWING.get(node.operation_type, len(values)) :]):
        raise NetworkError(f"{path} is damaged: {step.layer!r} ({node.operation_type}) would fill the memory")
    try:
        with torch.no_grad():
            result = node_module.module.eval()(*values)
    except Exception as error:
        raise NetworkError(
            f"{path} is damaged: {step.layer!r} ({node.operation_type}) fails: {reason(error)}"
        ) from None
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
    text = next((p.value for p in getattr(node, "metadata_props", ()) if p.key == _SCOPES), "")
    try:
        scopes = Document(_SCOPES, text, NetworkError).literal(list[str]) if text else []
    except NetworkError:
        return None
    return [part for part in scopes[-2].split(".") if part] if len(scopes) > 1 else None


def _refuse_unknown(proto: Any, opset: int, path: Path) -> None:
    unknown = {
        f"{node.domain + '.' if node.domain else ''}{node.op_type}"
        for node in proto.graph.node
        if not is_known(node.op_type, node.domain, opset)
    }
    refuse_operations(unknown, path, f" of opset {opset}")
