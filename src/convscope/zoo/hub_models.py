"""timm's networks on the Hugging Face hub: built from what their repository says, and its weights."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import NetworkError, nearest
from ..net import Net
from ..parsing import Document
from . import hub, timm_models
from .info import ABSENT, CACHED, NetworkInfo, path_and_size
from .sources import Source
from .timm_models import Plan

SOURCE = Source(
    "hf",
    ".hub_models:build",
    "timm's networks on the Hugging Face hub",
    follows="ORG/NAME",
    needs=("timm",),
    extra="timm",
    inspect=".hub_models:describe",
)

_CONFIG = "config.json"
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[^@]+)?")

_LARGEST = 2**20


def _whole(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and least <= value <= _LARGEST


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, (int, float)) and math.isfinite(v) for v in value)


_TOLD: dict[str, Callable[[Any], bool]] = {
    "input_size": lambda value: isinstance(value, list) and len(value) == 3 and all(_whole(v, 1) for v in value),
    "fixed_input_size": lambda value: isinstance(value, bool),
    "interpolation": lambda value: isinstance(value, str),
    "crop_pct": lambda value: _numbers([value]) and 0.01 <= value <= 100,
    "crop_mode": lambda value: isinstance(value, str),
    "mean": _numbers,
    "std": _numbers,
    "num_classes": _whole,
    "label_offset": _whole,
    "first_conv": lambda value: isinstance(value, (str, list)),
    "classifier": lambda value: isinstance(value, (str, list)),
}
"""What is taken of a configuration, and what it may be; the rest says where weights lie: in the repository itself."""


@dataclass(frozen=True)
class _Description:
    """What is read of a config.json beside what is told of pictures."""

    architecture: str | None = None
    architectures: list[str] | None = None
    model_type: str | None = None
    model_args: dict[str, object] | None = None
    pretrained_cfg: dict[str, object] | None = None


def build(model: str, weights: str | Path | None, *, seed: int, reading: dict[str, Any]) -> Net:
    """Build a network of timm from a repository of the hub as a Net; "ORG/NAME@REVISION" for another than main."""
    name, _, revision = model.partition("@")
    if not _NAME.fullmatch(model):
        raise NetworkError(
            f"'hf:{model}' names no repository of the hub: write hf:ORG/NAME, as in hf:timm/resnet18.a1_in1k"
        )
    repository = hub.Repository(name, revision or hub.MAIN)
    plan = _plan(model, _description(repository, model))
    path = None if weights is None else Path(weights)
    if weights == "default":
        path = _weights(repository, model)
    return timm_models.assemble(plan, path, seed=seed, reading=reading)


def describe(model: str) -> NetworkInfo:
    """Say whether the weights of a repository are on this machine; downloads nothing."""
    name, _, revision = model.partition("@")
    repository = hub.Repository(name, revision or hub.MAIN)
    path = hub.find(repository, {file: _kept(repository, file) for file in hub.WEIGHTS})
    return NetworkInfo(f"hf:{model}", "hf", CACHED if path else ABSENT, *path_and_size(path))


def _kept(repository: hub.Repository, file: str) -> str:
    """Return a file's name in torch's cache."""
    revision = "" if repository.revision == hub.MAIN else "@" + repository.revision.replace("/", "--")
    return f"hf-{repository.name.replace('/', '--')}{revision}-{file}"


def _weights(repository: hub.Repository, model: str) -> Path:
    files = {file: _kept(repository, file) for file in hub.WEIGHTS}
    return hub.get(repository, files, what=f"the weights of hf:{model}")


def _description(repository: hub.Repository, model: str) -> dict[str, Any]:
    """Read what a repository says of its network."""
    what = f"the description of hf:{model}"
    path = hub.get(repository, {_CONFIG: _kept(repository, _CONFIG)}, what=what, otherwise="")
    try:
        document = Document.read(path, NetworkError)
        description = document.json(dict[str, Any])
        told = document.shaped(description, _Description)
    except NetworkError as error:
        raise NetworkError(f"{what} is damaged: {error}. Delete {path}, and it is downloaded again") from None
    if told.architecture is None:
        kinds = told.architectures or [told.model_type or "of an unknown kind"]
        raise NetworkError(
            f"hf:{model} is not a network of timm ({', '.join(kinds)}): others are loaded by their own "
            "library and wrapped, as in Net(module, output='logits', mean=..., std=..., size=...)"
        )
    return description


def _plan(model: str, description: dict[str, Any]) -> Plan:
    """Take of a description what builds the network and prepares its pictures, and nothing else."""
    architecture = description["architecture"]
    if architecture not in timm_models.names():
        close = nearest(str(architecture), timm_models.names())
        raise NetworkError(
            f"hf:{model} is the network {architecture!r}, which this version of timm does not have; nearest: {close}"
        )
    # Older files have everything in one table.
    whole = (description.get("pretrained_cfg") or {}) | description
    arguments = _arguments(model, description.get("model_args") or {})
    config = {key: whole[key] for key in _TOLD if whole.get(key) is not None}
    _check(model, config)
    config |= _input(config, arguments)
    _check(model, config)
    return Plan(model, f"hf:{model}", architecture, config, arguments, _classes(whole))


def _check(model: str, config: dict[str, Any]) -> None:
    for key, value in config.items():
        if not _TOLD[key](value):
            raise NetworkError(f"hf:{model} is damaged: its {_CONFIG} says {key} = {str(value)[:40]!r}")


def _arguments(model: str, description: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a network, which may not be those with which timm finds and reads files."""
    import timm

    create: Any = timm.create_model
    own = {name for name, p in inspect.signature(create).parameters.items() if p.kind is not p.VAR_KEYWORD}
    refused = sorted(own & set(description))
    if refused:
        raise NetworkError(f"hf:{model} is refused: its {_CONFIG} sets {', '.join(refused)}, which a network may not")
    return description


def _input(config: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the size of the input, where the arguments of a network say it better than its configuration."""
    size = arguments.get("img_size")
    if size is None and "in_chans" not in arguments:
        return {}
    shape = config.get("input_size", [3, 224, 224])
    sides = shape[1:] if size is None else size if isinstance(size, list) else [size, size]
    return {"input_size": [arguments.get("in_chans", shape[0]), *sides]}


def _classes(description: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of classes: descriptions where there are some, else the plain names."""
    labels, described = description.get("label_names", description.get("labels")), description.get("label_descriptions")
    if not isinstance(labels, list):
        return ()
    described = described if isinstance(described, dict) else {}
    return tuple(str(described.get(label, label)) for label in map(str, labels))
