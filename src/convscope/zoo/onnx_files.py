"""ONNX files as networks: read without running anything, each node a module with the name that the file gives it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import NetworkError
from ..net import Net
from .graph_files import as_net, chosen_outputs, one_input, refuse_batches, refuse_weights
from .graphs import reason
from .onnx_graphs import graph_of
from .onnx_nodes import FLOATS
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


def build(model: str, weights: str | Path | None, *, seed: int, reading: dict[str, Any]) -> Net:
    """Build the network of an ONNX file as a Net.

    Raises NetworkError for a file that is missing, damaged, in training mode, or uses what is not known here; for
    several inputs; OptionError for weights, which are inside the file, and for an output that it does not have.
    """
    path = Path(model)
    refuse_weights(f"onnx:{model}", weights)
    proto = _checked_model(path)
    picture = _picture(proto, path)
    outputs, notes = chosen_outputs([value.name for value in proto.graph.output], path, reading)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body = graph_of(proto, picture.name, outputs, path)
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


def _checked_model(path: Path) -> Any:
    """Read and check a model, and write it in the fewest terms."""
    import onnx

    if not path.is_file():
        raise NetworkError(f"there is no ONNX file {path}" + (" (it is a folder)" if path.is_dir() else ""))
    try:
        proto = onnx.load(path, load_external_data=False)
        _check_names(proto, path)
        _with_external_data(proto, path)
        onnx.checker.check_model(proto)
        _simplify(proto)
        return onnx.shape_inference.infer_shapes(proto)
    except (NetworkError, MemoryError):
        raise
    except Exception as error:  # protobuf, the checker and numpy each have errors of their own
        raise NetworkError(f"{path} is not an ONNX file or is damaged: {reason(error)}") from None


def _check_names(proto: Any, path: Path) -> None:
    """Refuse names that are no text in UTF-8: protobuf hands them on as bytes, which nothing here expects."""
    graph = proto.graph
    for value in (*graph.input, *graph.output, *graph.initializer):
        if not isinstance(value.name, str):
            raise NetworkError(f"{path} is damaged: the name {value.name!r} is not text in UTF-8")
    for part in (graph, *proto.functions):
        for node in part.node:
            names = (node.name, node.op_type, node.domain, *node.input, *node.output)
            notes = [text for note in getattr(node, "metadata_props", ()) for text in (note.key, note.value)]
            for name in (*names, *notes, *(attribute.name for attribute in node.attribute)):
                if not isinstance(name, str):
                    raise NetworkError(f"{path} is damaged: the name {name!r} is not text in UTF-8")


def _with_external_data(proto: Any, path: Path) -> None:
    """Read weights that lie in files of the same folder. Raises NetworkError for any other place."""
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data

    folder = path.parent.resolve()
    parts = [proto.graph, *proto.functions]
    outside = [tensor for part in parts for tensor in _tensors(part) if uses_external_data(tensor)]
    for tensor in outside:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        position = (folder / entries.get("location", "")).resolve()
        if not position.is_relative_to(folder):
            raise NetworkError(f"{path} is refused: it asks for a file outside its folder, {entries.get('location')!r}")
        if not position.is_file():
            raise NetworkError(f"{path} keeps its weights in {entries.get('location')!r}, which is not beside it")
    if outside:
        load_external_data_for_model(proto, str(folder))


def _tensors(part: Any) -> Iterator[Any]:
    """Yield all tensors of a graph or a function, with those of the graphs inside it."""
    yield from getattr(part, "initializer", ())
    for sparse in getattr(part, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in part.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


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
    initializers = {tensor.name for tensor in proto.graph.initializer}
    inputs = {value.name: value for value in proto.graph.input if value.name not in initializers}
    name = one_input(list(inputs), path)
    kind = inputs[name].type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    if kind.elem_type not in FLOATS:
        raise NetworkError(f"input {name!r} of {path} does not read floating point numbers: export it for float pixels")
    if len(dims) != 4:
        raise NetworkError(f"input {name!r} of {path} has {len(dims)} dimensions, not (n, channels, height, width)")
    batch, channels, *size = dims
    if channels not in (None, 1, 3) and dims[3] is not None and dims[3] < channels and size[0] in (channels, None):
        raise NetworkError(
            f"input {name!r} of {path} has {channels} channels before {dims[3]}, so probably channels last: convert it "
            "with channels first"
        )
    refuse_batches(batch, path)
    return _Picture(name, channels, (size[0] or None, size[1] or None), batch == 1)
