"""torchvision's classification networks, with their own weights, categories and preprocessing."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch

from ..errors import NetworkError, nearest
from ..net import Net
from . import published
from .downloads import fetch
from .sources import Source
from .weights import fit_weights, read_weights

SOURCE = Source(
    "torchvision",
    ".torchvision_models:build",
    "torchvision's classification networks",
    names=".published:torchvision_names",
    inspect=".published:torchvision_info",
)

_AUXILIARY = r"(^|\.)(aux1|AuxLogits)\."
_OLD_DENSENET = r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$"


def names() -> tuple[str, ...]:
    """List the classification networks, by reading torchvision's source: importing it takes seconds."""
    return tuple(published.torchvision())


def build(model: str, weights: str | Path | None, *, seed: int, reading: dict[str, Any]) -> Net:
    """Build a network of torchvision as a Net."""
    from torchvision import models

    if model not in names():
        if model in models.list_models():
            raise NetworkError(
                f"torchvision:{model} answers with more than a score per class: say what to look at, as in "
                f"Net(torchvision.models.get_model({model!r}), output=...), in Python or in a file:my_model.py:build"
            )
        close = nearest(model, names(), prefix="torchvision:")
        raise NetworkError(f"torchvision has no classification network {model!r}; nearest: {close}")
    choice: Any = models.get_model_weights(model).DEFAULT  # type: ignore[attr-defined]
    body, said = _body(models, model, choice, weights)
    preset = choice.transforms()
    own_classes = len(_head(body)[1]) == published.CLASSES
    own: dict[str, Any] = {
        "mean": preset.mean,
        "std": preset.std,
        "size": preset.crop_size[0],
        "resize": preset.resize_size[0],
        "interpolation": preset.interpolation.value,
        # Outputs of the user's own may be anything.
        **({"classes": choice.meta["categories"], "head": "softmax"} if own_classes else {}),
        "name": model,
        "note": f"random weights, seed {seed}" if weights is None else said,
    }
    return Net(body, **own | reading)


def _body(models: Any, model: str, choice: Any, weights: str | Path | None) -> tuple[torch.nn.Module, str]:
    """Return the network, and what a caption must say of its weights."""
    path = _downloaded(model, choice) if weights == "default" else None if weights is None else Path(weights)
    state = None if path is None else read_weights(path)
    if state is not None and model.startswith("densenet"):
        state.rename(_OLD_DENSENET, r"\1\2")
    # What the networks ported from TensorFlow expect of pixels, and whether the auxiliary heads are in the file.
    ported = {
        "init_weights": weights is None,
        "transform_input": True,
        "aux_logits": state is not None and any(re.search(_AUXILIARY, key) for key in state.tensors),
    }
    options: dict[str, Any] = ported if model in ("googlenet", "inception_v3") else {}
    if model.startswith("vit_"):
        options = {"image_size": choice.transforms().crop_size[0]}
    body = _made(models, model, options)
    if state is not None:
        state.unwrap(body.state_dict())
        name, weight = _head(body)
        head = state.tensors.get(name)
        # A network that was tuned to classes of the user's own has another number of them, and is the same below.
        if head is not None and head.shape[1:] == weight.shape[1:] and 0 < len(head) != len(weight):
            body = _made(models, model, options | {"num_classes": len(head)})
        fit_weights(body, state, network=f"torchvision:{model}")
    return body, "" if state is None else state.note


def _made(models: Any, model: str, options: dict[str, Any]) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return models.get_model_builder(model)(weights=None, **options)


def _head(body: torch.nn.Module) -> tuple[str, torch.Tensor]:
    """Return the last layer's weight (classes, ...) and its name."""
    return [item for item in body.named_parameters() if item[0].endswith(".weight")][-1]


def _downloaded(model: str, choice: Any) -> Path:
    """Return torchvision's own file, downloading it into torch's cache when it is not there."""
    file = choice.url.rsplit("/", 1)[-1]
    digest = re.search(r"-([0-9a-f]{8,})\.", file)
    return fetch(
        choice.url,
        file,
        what=f"the weights of torchvision:{model}",
        megabytes=choice.meta["_file_size"],
        digest=digest and digest[1],
    )
