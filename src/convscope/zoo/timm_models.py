"""timm's networks, with their own weights, preprocessing and class names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from ..errors import NetworkError, WeightsError, nearest
from ..net import Net
from . import hub, published
from .downloads import cache, fetch
from .info import ABSENT, CACHED, NetworkInfo, path_and_size
from .sources import Source
from .weights import State, fit_weights, read_weights

SOURCE = Source(
    "timm",
    ".timm_models:build",
    "timm's networks, with or without a tag",
    needs=("timm",),
    extra="timm",
    names=".published:timm",
    inspect=".timm_models:describe",
    counted=True,
)

_PREFIX = "timm-"


@dataclass(frozen=True)
class Plan:
    """What is known of a network of timm before it is built.

    `architecture` is one of timm's names, with or without a tag; `config` is timm's `pretrained_cfg`, as far as it
    differs from what timm has for the architecture; `arguments` are the model's own; `classes` its outputs' names.
    """

    name: str
    source: str
    architecture: str
    config: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    classes: tuple[str, ...] = ()


def names() -> tuple[str, ...]:
    """List timm's networks without their tags, by reading timm's source; none where it is not installed."""
    return published.timm()


def cached(model: str) -> Path | None:
    """Return the weights file on this machine that `load("timm:MODEL")` would read, or None; downloads nothing."""
    begins = model if "." in model else f"{model}."
    if not hub.any_of(f"timm/{begins}", f"{_PREFIX}{begins}"):
        return None
    config = _library().models.get_pretrained_cfg(model).to_dict()
    return hub.find(*_hub_files(config)) if config.get("hf_hub_id") else _at_its_address(config)


def describe(model: str) -> NetworkInfo:
    """Say whether a network's weights are on this machine; downloads nothing."""
    path = cached(model)
    return NetworkInfo(f"timm:{model}", "timm", CACHED if path else ABSENT, *path_and_size(path))


def build(model: str, weights: str | Path | None, *, seed: int, reading: dict[str, Any]) -> Net:
    """Build a network of timm as a Net."""
    timm = _library()
    architecture, _, tag = model.partition(".")
    if architecture not in names():
        raise NetworkError(f"timm has no network {model!r}; nearest: {nearest(architecture, names(), prefix='timm:')}")
    tagged = timm.models.get_arch_pretrained_cfgs(architecture)
    if tag and model not in tagged:
        raise NetworkError(f"timm has no weights {model!r}; nearest: {nearest(model, tagged, prefix='timm:')}")
    config = timm.models.get_pretrained_cfg(model).to_dict()
    path = None if weights is None else Path(weights)
    if weights == "default":
        path = _downloaded(model, config, tagged)
    name = _full_name(config) if weights == "default" else model
    return assemble(Plan(name, f"timm:{model}", model, {}), path, seed=seed, reading=reading)


def _library() -> Any:
    """Return timm, of whose types little is said."""
    import timm

    return timm


def _full_name(config: dict[str, Any]) -> str:
    return ".".join(part for part in (config["architecture"], config.get("tag")) if part)


def _hub_files(config: dict[str, Any]) -> tuple[hub.Repository, dict[str, str]]:
    """Return the repository of a network's weights, and the files that may hold them, the safe one first."""
    name, _, revision = config["hf_hub_id"].partition("@")
    own = config.get("hf_hub_filename")
    files = [own] if own else hub.WEIGHTS
    kept = {file: _PREFIX + _full_name(config) + Path(file).suffix for file in files}
    return hub.Repository(name, revision or hub.MAIN), kept


def _at_its_address(config: dict[str, Any]) -> Path | None:
    path = cache() / _kept(config)
    return path if config.get("url") and path.is_file() else None


def _kept(config: dict[str, Any]) -> str:
    return _PREFIX + _full_name(config) + Path(urlsplit(config.get("url", "")).path).suffix


def _downloaded(model: str, config: dict[str, Any], tagged: dict[str, Any]) -> Path:
    """Return timm's own weights, downloading them into torch's cache when they are not on this machine."""
    what = f"the weights of timm:{model}"
    if config.get("hf_hub_id"):
        return hub.get(*_hub_files(config), what=what)
    if config.get("url"):
        return fetch(config["url"], _kept(config), what=what)
    others = [name for name, other in tagged.items() if other.has_weights]
    raise WeightsError(
        f"there are no published weights of timm:{model}: give weights=FILE, or weights=None for random ones "
        "(--weights none)" + (f"; those that there are: {nearest(model, others, prefix='timm:')}" if others else "")
    )


def assemble(plan: Plan, path: Path | None, *, seed: int, reading: dict[str, Any]) -> Net:
    """Build a network of timm from a plan, with the weights of a file or random ones, as a Net.

    Raises NetworkError where timm cannot build it, WeightsError where the weights do not fit.
    """
    state = None if path is None else read_weights(path)
    own = _library().models.get_pretrained_cfg(plan.architecture)
    config = (own.to_dict() if own else {}) | plan.config
    config |= _input_size(config, reading, plan.source)
    if state is not None:
        state.unwrap([f"{name}.weight" for name in (*_named(config, "first_conv"), *_named(config, "classifier"))])
        config |= _class_count(config, state)
    body = _body(plan, config, state)
    notes = [f"random weights, seed {seed}"] if state is None else [*_adapted(body, state), state.note]
    preprocessing, said = _preprocessing(config)
    count = getattr(body, "num_classes", 0)
    classes = plan.classes if len(plan.classes) == count else _imagenet(count)
    labels: dict[str, Any] = {"name": plan.name, "classes": classes, "note": "; ".join(filter(None, notes + said))}
    # Without a classifier its outputs are features; of classes that are nobody's standard they may be anything.
    labels["head"] = "value" if count == 0 else "softmax" if _imagenet(count) else None
    return Net(body, **preprocessing | labels | reading)


def _input_size(config: dict[str, Any], reading: dict[str, Any], source: str) -> dict[str, Any]:
    """Return what the user's own size or channels of the input change of a configuration."""
    channels, height, width = config.get("input_size", (3, 224, 224))
    wanted = reading.get("channels", channels)
    if wanted != channels and not {"mean", "std"} <= set(reading):
        raise NetworkError(
            f"{source} reads {channels} channels and knows no mean and std of {wanted}: give them too, as in "
            f"load({source!r}, channels={wanted}, mean=0.5, std=0.25)"
        )
    size = reading.get("size", (height, width))
    return {"input_size": (wanted, *((size, size) if isinstance(size, int) else size))}


def _class_count(config: dict[str, Any], state: State) -> dict[str, Any]:
    """Return the number of classes that a weights file has, where its classifier tells."""
    # Older files call it "head" where it is "head.fc" today.
    names = [name for full in _named(config, "classifier")[:1] for name in (full, full.rpartition(".")[0])]
    weight = next((state.tensors[f"{name}.weight"] for name in names if f"{name}.weight" in state.tensors), None)
    if weight is None or weight.ndim < 2:
        return {}
    # Some published files have an output for "background", which timm leaves out.
    published = config.get("num_classes", 0) + (config.get("label_offset") or 0)
    return {} if len(weight) == published else {"num_classes": len(weight), "label_offset": 0}


def _named(config: dict[str, Any], key: str) -> list[str]:
    """Return the layers that timm's configuration names, of which there may be several or none."""
    named = config.get(key)
    return [name for name in (named if isinstance(named, (tuple, list)) else [named]) if isinstance(name, str)]


def _body(plan: Plan, config: dict[str, Any], state: State | None) -> nn.Module:
    """Let timm build the network and load what was read of a file: it knows its files of every age."""
    channels, *size = config["input_size"]
    # Where a network has other numbers than the configuration, timm leaves its ends random.
    options = plan.arguments | {"in_chans": channels, "num_classes": config.get("num_classes")}
    if "img_size" in options:
        options["img_size"] = tuple(size)
    if state is None:
        return _created(plan, options, config)
    loading = {"state_dict": state.tensors, "source": None, "custom_load": False}
    try:
        body = _create(plan, options | {"pretrained": True, "pretrained_strict": True}, config | loading)
    except Exception:  # timm and torch raise anything on weights of another network: what does not fit is said below
        body = _created(plan, options, config)
        fit_weights(body, state, network=plan.source)
    return body


def _create(plan: Plan, options: dict[str, Any], config: dict[str, Any]) -> nn.Module:
    body = _library().create_model(plan.architecture, pretrained_cfg_overlay=config, **options)
    body.pretrained_cfg.pop("state_dict", None)
    return body


def _created(plan: Plan, options: dict[str, Any], config: dict[str, Any]) -> nn.Module:
    """Let timm build the network without weights. Raises NetworkError where it cannot."""
    try:
        return _create(plan, options, config)
    except Exception as error:  # the arguments come from the hub or from the user, and each network has its own
        reason = (str(error).splitlines() or [""])[0]
        raise NetworkError(f"timm cannot build {plan.source}: {type(error).__name__}: {reason}") from None


def _adapted(body: nn.Module, state: State) -> list[str]:
    """Say which weights timm has resampled or cut to fit the network, and did not merely rename."""
    there, own = state.tensors, body.state_dict()
    other = {key: value for key, value in own.items() if key in there and there[key].shape != value.shape}
    changed = [key for key, value in other.items() if not any(_same(stored, value) for stored in there.values())]
    more = f" and {len(changed) - 2} more" if len(changed) > 2 else ""
    return [f"{', '.join(changed[:2])}{more} adapted by timm from another shape"] if changed else []


def _same(stored: Tensor, value: Tensor) -> bool:
    return stored.shape == value.shape and torch.equal(stored.to(value.dtype), value)


def _preprocessing(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return timm's preprocessing as options of `Net`, and what a reader must know of it."""
    from timm.data.config import resolve_data_config

    data = resolve_data_config({}, pretrained_cfg=config)
    channels, *sides = data["input_size"]  # a first convolution may read more, of pixels moved into channels
    size = (sides[0], sides[1])
    scaled = tuple(math.floor(side / data["crop_pct"]) for side in size)
    smooth = "bicubic" if data["interpolation"] == "random" else data["interpolation"]
    options: dict[str, Any] = {"mean": data["mean"], "std": data["std"], "size": size, "interpolation": smooth}
    options["channels"] = channels
    if data["crop_mode"] == "squash":
        return options | {"resize": scaled}, []
    notes: list[str] = []
    if data["crop_mode"] == "border":
        notes = ["timm lays the whole picture on a plain ground, here its centre is cut out"]
    elif scaled[0] != scaled[1]:
        notes = [f"timm scales the picture until it covers the input, here its shorter side to {max(scaled)} pixels"]
    return options | {"resize": max(scaled)}, notes


def _imagenet(count: int) -> list[str]:
    """Return the names of ImageNet's classes, of the subset that has so many."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": count})
    return list(ImageNetInfo(subset).label_descriptions()) if subset else []
