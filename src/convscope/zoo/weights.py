"""Reading weights: never running code, and saying exactly what does not fit."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import WeightsError
from ..net import check_finite


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or from a .pt or .pth file without running what it may contain.

    A dict nested under "state_dict" or "model" is taken out, and a "module." prefix removed. Raises WeightsError for
    a missing, damaged or unsafe file.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}" + (" (it is a folder)" if path.is_dir() else ""))
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error) or "weights_only" in str(error).lower():
            raise WeightsError(
                f"{path} is refused: it holds more than tensors, and loading it would run code. "
                "Save the state dict alone: torch.save(model.state_dict(), path)"
            ) from None
        raise WeightsError(f"{path} is not a weights file or is damaged: {_first_line(error)}") from None
    except (
        SafetensorError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        AttributeError,
    ) as error:
        raise WeightsError(f"{path} is not a weights file or is damaged: {_first_line(error)}") from None
    return _state_dict(state, path)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _state_dict(state: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(state, Mapping):
        inner = next((key for key in ("state_dict", "model") if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = state[inner]
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds {type(state).__name__} without tensors, not a state dict")
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def fit_weights(body: nn.Module, state: dict[str, Tensor], *, network: str, path: Path) -> None:
    """Load a state dict into a module, or raise WeightsError naming the keys and shapes that do not fit."""
    own = body.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own]
    shapes = [
        f"{key} is {tuple(state[key].shape)} in the file, {tuple(value.shape)} in the network"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = [
        *_count("missing from the file", missing),
        *_count("unknown to the network", extra),
        *_count("of another shape", shapes),
    ]
    if problems:
        raise WeightsError(f"{path} does not fit {network}: " + "; ".join(problems))
    body.load_state_dict(state, strict=False)
    check_finite(body, str(path))


def _count(what: str, items: list[str]) -> list[str]:
    if not items:
        return []
    return [f"{len(items)} {what} ({', '.join(items[:3])}{', ...' if len(items) > 3 else ''})"]
