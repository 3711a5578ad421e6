"""torchvision's classification networks, with their own weights, categories and preprocessing."""

from __future__ import annotations

import ast
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch

from ..errors import NetworkError, WeightsError, nearest
from ..net import Net
from .weights import fit_weights, read_weights

_AUXILIARY = ("aux1.", "AuxLogits.")


@cache
def names() -> tuple[str, ...]:
    """List the classification networks, by reading torchvision's source: importing it takes seconds."""
    found: set[str] = set()
    spec = find_spec("torchvision")
    folder = Path(str(spec.origin)).parent / "models" if spec else Path()
    for path in folder.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(
                "register_model" in ast.unparse(d) for d in node.decorator_list
            ):
                found.add(node.name)
    return tuple(sorted(found))


def build(model: str, weights: str | Path | None, *, seed: int) -> Net:
    """Build a network of torchvision as a Net."""
    if model not in names():
        close = ", ".join(f"'torchvision:{name}'" for name in nearest(model, names()).replace("'", "").split(", "))
        raise NetworkError(f"torchvision has no classification network {model!r}; nearest: {close}")
    from torchvision import models

    choice: Any = models.get_model_weights(model).DEFAULT  # type: ignore[attr-defined]
    body = _body(models, model, choice, weights)
    preset = choice.transforms()
    return Net(
        body,
        mean=preset.mean,
        std=preset.std,
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        classes=choice.meta["categories"],
        name=model,
        note=f"random weights, seed {seed}" if weights is None else "",
    )


def _body(models: Any, model: str, choice: Any, weights: str | Path | None) -> torch.nn.Module:
    builder = models.get_model_builder(model)
    if weights == "default":
        return _downloaded(builder, model, choice)
    state = None if weights is None else read_weights(Path(weights))
    # The networks ported from TensorFlow expect what their own weights expect, auxiliary heads included or not.
    wanted = {
        "init_weights": weights is None,
        "transform_input": True,
        "aux_logits": state is not None and any(key.startswith(_AUXILIARY) for key in state),
    }
    special = model in ("googlenet", "inception_v3")
    if model.startswith("vit_"):
        wanted, special = {"image_size": choice.transforms().crop_size[0]}, True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        body: torch.nn.Module = builder(weights=None, **(wanted if special else {}))
    if state is not None:
        fit_weights(body, state, network=f"torchvision:{model}", path=Path(str(weights)))
    return body


def _downloaded(builder: Any, model: str, choice: Any) -> torch.nn.Module:
    try:
        return builder(weights=choice)
    except (URLError, OSError, RuntimeError) as error:
        file = choice.url.rsplit("/", 1)[-1]
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"cannot get the weights of torchvision:{model} ({error}). Put {file} ({choice.meta['_file_size']:.0f} MB) "
            f"into {folder}, or give weights=PATH to a file at hand, or weights=None for random ones"
        ) from None
