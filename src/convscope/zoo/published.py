"""What torchvision and timm offer, read from their sources: importing either takes seconds."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .downloads import cache as downloads
from .info import ABSENT, CACHED, NetworkInfo

CLASSES = 1000
"""How many classes torchvision's classification networks tell apart: ImageNet's."""


@dataclass(frozen=True)
class Published:
    """A network's default weights: their file's name in torch's cache, megabytes, the input's side in pixels.

    What the source does not say in the usual way is None.
    """

    file: str | None = None
    megabytes: float | None = None
    side: int | None = None


@cache
def torchvision() -> dict[str, Published]:
    """List torchvision's classification networks with their default weights, by name."""
    networks: dict[str, Published] = {}
    for path in _sources("torchvision"):
        tree = ast.parse(path.read_text(encoding="utf-8")).body
        weights = {node.name: node for node in tree if isinstance(node, ast.ClassDef)}
        for node in tree:
            if isinstance(node, ast.FunctionDef) and _registered(node):
                kind = re.search(r"\w+_Weights", ast.unparse(node.args))
                networks[node.name] = _published(weights.get(kind[0])) if kind else Published()
    return dict(sorted(networks.items()))


def torchvision_names() -> list[str]:
    """List torchvision's classification networks by name."""
    return list(torchvision())


def torchvision_info(model: str) -> NetworkInfo:
    """Say what torchvision publishes of a network, and whether its weights are in torch's cache."""
    weights = torchvision().get(model, Published())
    path = downloads() / weights.file if weights.file else None
    cached = path is not None and path.is_file()
    where, kept = (CACHED, str(path)) if cached else (ABSENT, None)
    size = weights.megabytes and round(weights.megabytes, 1)
    return NetworkInfo(f"torchvision:{model}", "torchvision", where, kept, size, weights.side, CLASSES)


@cache
def timm() -> tuple[str, ...]:
    """List timm's networks by name; none where timm is not installed."""
    texts = (path.read_text(encoding="utf-8") for path in _sources("timm"))
    return tuple(sorted(name for text in texts for name in re.findall(r"(?m)^@register_model\ndef (\w+)\(", text)))


def _sources(library: str) -> list[Path]:
    spec = find_spec(library)
    return sorted((Path(str(spec.origin)).parent / "models").glob("*.py")) if spec else []


def _registered(function: ast.FunctionDef) -> bool:
    return any("register_model" in ast.unparse(decorator) for decorator in function.decorator_list)


def _published(weights: ast.ClassDef | None) -> Published:
    """Read the default of a class of weights: DEFAULT = V1, where V1 = Weights(url=..., transforms=..., meta=...)."""
    assigned: dict[str, Any] = {
        ast.unparse(node.targets[0]): node.value
        for node in (weights.body if weights else [])
        if isinstance(node, ast.Assign)
    }
    try:
        parts = _keywords(assigned[assigned["DEFAULT"].id])
        pairs = zip(parts["meta"].keys, parts["meta"].values, strict=True)
        meta = {ast.unparse(key): value for key, value in pairs if key}
        return Published(
            ast.literal_eval(parts["url"]).rpartition("/")[2],
            ast.literal_eval(meta["'_file_size'"]),
            ast.literal_eval(_keywords(parts["transforms"])["crop_size"]),
        )
    except (KeyError, AttributeError, ValueError):
        return Published()


def _keywords(call: Any) -> dict[str, Any]:
    return {keyword.arg: keyword.value for keyword in call.keywords}
