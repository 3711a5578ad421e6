"""Reading weights: never running code, and saying exactly what does not fit."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import WeightsError
from ..net import check_finite
from .sources import split

_STATE = ("state_dict", "model", "model_state_dict")
"""Where checkpoints keep the network's state dict, beside that of its optimizer and averaged ones."""

_DEEPEST = 4

_LONGEST_LIST = 2 * 2**20

_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))

_CHANGED = ". If its layers were changed, build it by a function of your own: file:my_model.py:build"


@dataclass
class State:
    """A state dict read from a file; `versions` are those of its modules, as torch writes them."""

    path: Path
    tensors: dict[str, Tensor]
    versions: Any = None

    def rename(self, pattern: str, replacement: str) -> None:
        """Rename keys by a regular expression, for files with names of an older version."""
        self.tensors = {re.sub(pattern, replacement, key): value for key, value in self.tensors.items()}

    def unwrap(self, names: Collection[str]) -> None:
        """Take "module.", "model.", "_orig_mod." and the like off every key, where the network knows the rest only."""
        inner = self.tensors
        while not any(key in inner for key in names):
            heads = {key.partition(".")[0] for key in inner}
            if len(heads) != 1 or "" in heads:
                return
            inner = {key.partition(".")[2]: value for key, value in inner.items()}
        if inner is not self.tensors:
            self.tensors, self.versions = inner, None


def read_weights(path: Path) -> State:
    """Read a state dict from a .safetensors file, or from a .pt or .pth file without running what it may contain.

    A dict nested under "state_dict", "model" or "model_state_dict" is taken out, or else the only dict of tensors in a
    checkpoint. Raises WeightsError for a missing, damaged or unsafe file.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}" + (" (it is a folder)" if path.is_dir() else ""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = _unpickled(path)
    except (MemoryError, WeightsError):
        raise
    except Exception as error:  # torch and pickle raise anything on a damaged file: AssertionError, TypeError, ...
        if path.suffix != ".safetensors" and _head(path) not in (b"PK", *_PICKLES):
            raise WeightsError(
                f"{path} is not a weights file or is damaged: it begins as neither archive nor pickle"
            ) from None
        if isinstance(error, pickle.UnpicklingError) and re.search("Unsupported|GLOBAL|weights_only", str(error)):
            raise WeightsError(
                f"{path} is refused: it holds more than tensors, and loading it would run code. "
                "Save the state dict alone: torch.save(model.state_dict(), path)"
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(f"{path} is not a weights file or is damaged: {reason}") from None
    return _state(state, path)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def _unpickled(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if scripted(archive.namelist()):
                raise WeightsError(
                    f"{path} is TorchScript, which is not read as weights: keep its numbers alone by "
                    f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
                )
            # A compressed file can be a thousand times larger when read; torch writes none.
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed, which torch.save does not do")
            # The list of what is in the file, about 150 bytes a tensor, is walked byte by byte.
            if any(m.filename.endswith("data.pkl") and m.file_size > _LONGEST_LIST for m in archive.infolist()):
                raise ValueError(f"its list of tensors has more than {_LONGEST_LIST >> 20} MiB")
    return torch.load(path, map_location="cpu", weights_only=True)


def scripted(members: list[str]) -> bool:
    """Whether an archive with these members is TorchScript."""
    return any("/code/" in name for name in members) and any(name.endswith("constants.pkl") for name in members)


def _state(state: Any, path: Path) -> State:
    for _ in range(_DEEPEST):
        inner = _inside(state, path)
        if inner is None:
            break
        state = inner
    if not isinstance(state, Mapping) or not _holds_tensors(state):
        raise WeightsError(f"{path} holds {type(state).__name__} without tensors, not a state dict")
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    return State(path, tensors, getattr(state, "_metadata", None))


def _inside(state: Any, path: Path) -> Any:
    """Return the state dict that a checkpoint holds among other things, or None where it is none."""
    if not isinstance(state, Mapping):
        return None
    nested = {key: value for key, value in state.items() if isinstance(value, Mapping)}
    for key in _STATE:
        if key in nested:
            return nested[key]
    own = [key for key, value in nested.items() if _holds_tensors(value)]
    if not own or _holds_tensors(state):
        return None
    if len(own) > 1:
        raise WeightsError(
            f"{path} holds several state dicts, {', '.join(map(repr, own))}: keep one of them, as in "
            f"torch.save(torch.load({path.name!r})[{own[0]!r}], 'weights.pth')"
        )
    return nested[own[0]]


def _holds_tensors(state: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in state.values())


def fit_weights(body: nn.Module, state: State, *, network: str) -> None:
    """Load a state dict into a module, or raise WeightsError naming the keys and shapes that do not fit."""
    own = body.state_dict()
    state.unwrap(own)
    tensors = state.tensors
    missing = [key for key in own if key not in tensors and not key.endswith("num_batches_tracked")]
    extra = [key for key in tensors if key not in own]
    shapes = [
        f"{key} is {tuple(tensors[key].shape)} in the file, {tuple(value.shape)} in the network"
        for key, value in own.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    problems = [
        *_count("missing from the file", missing),
        *_count("unknown to the network", extra),
        *_count("of another shape", shapes),
    ]
    if problems:
        source, _ = split(network)
        changed = _CHANGED if source is not None and not source.path else ""
        raise WeightsError(f"{state.path} does not fit {network}: {'; '.join(problems)}{changed}")
    # Some modules (MNASNet, batch norm) ask which version wrote the file; a file that does not say is taken as current.
    prepared = OrderedDict(tensors)
    prepared._metadata = state.versions or own._metadata  # type: ignore[attr-defined]
    body.load_state_dict(prepared, strict=False)
    check_finite(body, str(state.path))


def _count(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    return [f"{len(items)} {what} ({', '.join(items[:3])}{', ...' if len(items) > 3 else ''})"]
