"""Files of `torch.export.save`, read as data: the graph from its JSON, numbers from their bytes, nothing run."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import NetworkError
from ..parsing import Document
from .graphs import reason

_SCHEMA = 8
_LARGEST_TEXT = 2**28

# The numbers of torch's serialised types.
TYPES = {
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


class Program:
    """What a file holds: the graph as JSON, and tensors by the names that the graph calls them by."""

    def __init__(self, content: dict[str, Any], numbers: dict[str, Tensor]) -> None:
        major = content["schema_version"]["major"]
        if major != _SCHEMA:
            raise ValueError(f"schema {major}, not {_SCHEMA}")
        module = content["graph_module"]
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


def read_program(path: Path) -> Program:
    """Read a file of torch.export.save. Raises NetworkError for what is something else, damaged, or would run code."""
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
        raise NetworkError(f"{path} is not a program of torch.export.save, or is damaged: {reason(error)}") from None


def _scripted(members: list[str]) -> bool:
    """Whether an archive with these members is TorchScript."""
    return any("/code/" in name for name in members) and any(name.endswith("constants.pkl") for name in members)


def _refuse_others(names: list[str], path: Path) -> None:
    """Tell programs from other archives that torch writes."""
    if _scripted(names):
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


def _unpacked(archive: zipfile.ZipFile, names: list[str]) -> Program:
    old = next((name for name in names if name.endswith("serialized_exported_program.json")), None)
    if old is not None:
        numbers = dict[str, Tensor]()
        for part in ("serialized_state_dict.pt", "serialized_constants.pt"):
            numbers |= _pickled(archive, old.replace("serialized_exported_program.json", part))
        return Program(_json(archive, old), numbers)
    models = [name for name in names if re.search(r"(^|/)models/[^/]+\.json$", name)]
    if len(models) != 1:
        raise NetworkError(f"it holds {len(models)} programs, and one is expected")
    root, _, model = models[0].rpartition("models/")
    stem = model.removesuffix(".json")
    numbers = dict[str, Tensor]()
    for kind in ("weights", "constants"):
        config = f"{root}data/{kind}/{stem}_{kind}_config.json"
        if config in names:
            numbers |= dict(_numbers(archive, _json(archive, config)["config"], f"{root}data/{kind}/"))
    return Program(_json(archive, models[0]), numbers)


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > _LARGEST_TEXT:
        raise ValueError(f"{name} is too large")
    return Document.decoded(archive.read(name), name, NetworkError).json(object)


def _pickled(archive: zipfile.ZipFile, name: str) -> dict[str, Tensor]:
    """Read tensors that an older torch pickled, by a reader that takes nothing else."""
    with archive.open(name) as file:
        state = torch.load(file, map_location="cpu", weights_only=True)
    return {str(key): value.detach() for key, value in state.items() if isinstance(value, Tensor)}


def _numbers(archive: zipfile.ZipFile, config: dict[str, Any], folder: str) -> Iterator[tuple[str, Tensor]]:
    """Read tensors from the bytes that the file holds of them."""
    for name, about in config.items():
        if about["use_pickle"] or not about["tensor_meta"]:
            raise NetworkError(f"it is refused: {name!r} is no plain tensor, and reading it would run code")
        meta = about["tensor_meta"]
        sizes, strides = ([int(n["as_int"]) for n in meta[key]] for key in ("sizes", "strides"))
        offset = int(meta["storage_offset"]["as_int"])
        data, kind = archive.read(folder + about["path_name"]), TYPES[meta["dtype"]]
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
