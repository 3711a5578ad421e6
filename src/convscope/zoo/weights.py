"""Reading weights: never running code, and saying exactly what does not fit."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import WeightsError
from ..net import check_finite


@dataclass
class State:
    """A state dict read from a file; `versions` are those of its modules, as torch writes them."""

    path: Path
    tensors: dict[str, Tensor]
    versions: Any = None

    def rename(self, pattern: str, replacement: str) -> None:
        """Rename keys by a regular expression, for files with names of an older version."""
        self.tensors = {re.sub(pattern, replacement, key): value for key, value in self.tensors.items()}


def read_weights(path: Path) -> State:
    """Read a state dict from a .safetensors file, or from a .pt or .pth file without running what it may contain.

    A dict nested under "state_dict" or "model" is taken out, and a "module." prefix removed. Raises WeightsError for
    a missing, damaged or unsafe file.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}" + (" (it is a folder)" if path.is_dir() else ""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = _read(path)
    except (MemoryError, WeightsError):
        raise
    except Exception as error:  # torch and pickle raise anything on a damaged file: AssertionError, TypeError, ...
        if isinstance(error, pickle.UnpicklingError) and re.search("Unsupported|GLOBAL|weights_only", str(error)):
            raise WeightsError(
                f"{path} is refused: it holds more than tensors, and loading it would run code. "
                "Save the state dict alone: torch.save(model.state_dict(), path)"
            ) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise WeightsError(f"{path} is not a weights file or is damaged: {reason}") from None
    return _state(state, path)


def _read(path: Path) -> Any:
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
    return torch.load(path, map_location="cpu", weights_only=True)


def scripted(members: list[str]) -> bool:
    """Whether an archive with these members is TorchScript."""
    return any("/code/" in name for name in members) and any(name.endswith("constants.pkl") for name in members)


def _state(state: Any, path: Path) -> State:
    while isinstance(state, Mapping):
        inner = next((key for key in ("state_dict", "model") if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = state[inner]
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds {type(state).__name__} without tensors, not a state dict")
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if all(key.startswith("module.") for key in tensors):
        return State(path, {key.removeprefix("module."): value for key, value in tensors.items()})
    return State(path, tensors, getattr(state, "_metadata", None))


def fit_weights(body: nn.Module, state: State, *, network: str) -> None:
    """Load a state dict into a module, or raise WeightsError naming the keys and shapes that do not fit."""
    own, tensors = body.state_dict(), state.tensors
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
        raise WeightsError(f"{state.path} does not fit {network}: " + "; ".join(problems))
    # Some modules (MNASNet, batch norm) ask which version wrote the file; a file that does not say is taken as current.
    prepared = OrderedDict(tensors)
    prepared._metadata = state.versions or own._metadata  # type: ignore[attr-defined]
    body.load_state_dict(prepared, strict=False)
    check_finite(body, str(state.path))


def _count(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    return [f"{len(items)} {what} ({', '.join(items[:3])}{', ...' if len(items) > 3 else ''})"]
