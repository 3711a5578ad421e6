"""The project's own networks, with weights that ship, of a package or of a training run, or random ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.class_names import class_names
from ..errors import OptionError, WeightsError
from ..net import Net
from . import packaged, runs
from .blueprints import BLUEPRINTS, Blueprint
from .weights import Part, State, fit_weights, read_weights


def build(name: str, weights: str | Path | None, epoch: int | None, *, seed: int, reading: dict[str, Any]) -> Net:
    """Build a network of the project's own as a Net.

    Raises OptionError for an epoch without a snapshot, WeightsError for weights that are not there or do not fit.
    """
    blueprint = BLUEPRINTS[name]
    net = _random(blueprint, epoch, seed) if weights is None else trained(blueprint, weights, epoch)
    return net.changed(**reading) if reading else net


def _random(blueprint: Blueprint, epoch: int | None, seed: int) -> Net:
    if epoch is not None:
        raise OptionError(f"random weights have no epoch {epoch}: leave out weights or epoch")
    body = blueprint.body(blueprint.classes)
    return blueprint.net(body, _digits(blueprint), note=f"random weights, seed {seed}")


def trained(blueprint: Blueprint, weights: str | Path, epoch: int | None) -> Net:
    """Load a network with its weights: "default", a file, or the folder of a run. Raises WeightsError, OptionError."""
    if blueprint.package:
        return _packaged(blueprint, weights, epoch)
    path = _file(blueprint.name, weights, epoch)
    facts, state = runs.facts(path), read_weights(path)
    if facts.get("network", blueprint.name) != blueprint.name:
        raise WeightsError(f"{path} holds weights of {facts['network']}, not of {blueprint.name}")
    classes = [*facts.get("classes", [])] or _digits(blueprint)
    # The outputs of LeNet-5 of 1998 are ten codes that are no tensors of the file.
    sizes = {tensor.shape[:1] for tensor in state.tensors.values()} if blueprint.any_classes else {(blueprint.classes,)}
    if "classes" in facts and (len(classes),) not in sizes:
        raise WeightsError(f"{path} names {len(classes):,} classes and holds weights of another number of them")
    body = blueprint.body(len(classes) or blueprint.classes)
    fit_weights(body, state, network=blueprint.name)
    return blueprint.net(body, classes, note=f"epoch {epoch} of its training" if epoch is not None else state.note)


def _packaged(blueprint: Blueprint, weights: str | Path, epoch: int | None) -> Net:
    """Load weights of a package, or of a file that has the same tensors in the same order; of any number of classes."""
    if epoch is not None:
        raise OptionError(f"{blueprint.name} has no snapshots of its training: leave out epoch")
    state = read_weights(packaged.weights(blueprint.package) if weights == "default" else Path(weights))
    classes = next((len(bias) for bias in reversed(state.tensors.values()) if bias.ndim == 1), blueprint.classes)
    body = blueprint.body(classes)
    own = body.state_dict()
    state.unwrap(own)
    if _kinds(state.tensors) == _kinds(own):
        state = State(state.path, (Part("", dict(zip(own, state.tensors.values(), strict=True))),))
    fit_weights(body, state, network=blueprint.name)
    return blueprint.net(body, class_names(blueprint.class_names) if classes == blueprint.classes else [])


def _kinds(tensors: Mapping[str, Tensor]) -> list[tuple[str, torch.Size]]:
    """Say what each tensor is, whatever its module is called: a weight of that shape, a running mean, ..."""
    return [(name.rpartition(".")[2], tensor.shape) for name, tensor in tensors.items()]


def _digits(blueprint: Blueprint) -> list[str]:
    """Name the classes of a network of handwritten digits, where its weights do not."""
    return [str(digit) for digit in range(10)] if blueprint.channels == 1 else []


def _file(name: str, weights: str | Path, epoch: int | None) -> Path:
    """Find the file of the weights."""
    if weights == "default":
        if not (runs.shipped(name) / runs.HISTORY).is_file():
            raise WeightsError(
                f"{name} ships without weights: train it (convscope train {name} --data FOLDER), give weights=FILE, "
                f"or weights=None for random ones (--weights none)"
            )
        return runs.snapshot(runs.shipped(name), epoch)
    weights = Path(weights)
    if weights.is_dir():
        return runs.snapshot(weights, epoch)
    if epoch is not None:
        raise OptionError(f"{weights} is one file without other epochs: leave out epoch, or give the run's folder")
    return weights
