"""`load`: a network by name, with weights of its own, from a file or a training run, or random."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from typing import Any, Unpack

import torch

from ..configuration import Network
from ..data.opening import mode_and_size
from ..errors import ConvscopeError, NetworkError, OptionError, WeightsError, nearest
from ..net import Net
from ..recipes import NetworkSource
from . import runs, torchvision_models
from .blueprints import BLUEPRINTS, Blueprint
from .configured import configured, find_network
from .reading import IMAGENET, Reading, settled
from .weights import fit_weights, read_weights

DEFAULT = "zfnet64"
"""The network of the command line when none is named; it needs no download."""

SOURCES = {
    "torchvision": "torchvision_models",
    "timm": "timm_models",
    "hf": "hub_models",
    "caffe": "caffe.network",
    "onnx": "onnx_files",
    "pt2": "exported_programs",
    "file": "own_files",
}
"""Where networks come from: what stands before the colon, and the module whose `build` makes a Net of what follows."""

_ENDINGS = {".prototxt": "caffe", ".caffemodel": "caffe", ".onnx": "onnx", ".pt2": "pt2", ".py": "file"}

_DIGITS, _SMALL = "lenet5", 32

SEED = 0


def load(
    name: str,
    *,
    weights: str | Path | None = "default",
    epoch: int | None = None,
    device: str | torch.device | None = None,
    **reading: Unpack[Reading],
) -> Net:
    """Load a network by name.

    Args:
        name: "zfnet64", "lenet5" and "lenet5-1998", which ship with the package; "zfnet", "alexnet-zf" and their
            variants ("alexnet-zf:no-3-4"); "torchvision:alexnet" and all of its classification networks; "timm:NAME";
            "hf:ORG/NAME", a timm network of the Hugging Face hub; "caffe:deploy.prototxt"; "onnx:model.onnx";
            "pt2:model.pt2", a program of torch.export; "file:my_model.py:build", a function of one's own; or a name of
            the user's configuration, whose options come after those given here.
        weights: "default" for its own weights (those of torchvision, timm and the hub are downloaded once into torch's
            cache), the path of a .safetensors, .pt, .pth or .caffemodel file, the folder of a run of `convscope train`,
            or None (on the command line "none") for random weights with a fixed seed, which every caption then says.
        epoch: the snapshot of this epoch of the training, where there are several; the last one by default.
        device: where to put it; the CPU by default.
        reading: what it reads and answers, where its source does not say or is to be overridden; see `Reading`.

    Raises NetworkError for an unknown name, WeightsError when weights cannot be read, do not fit or are not finite,
    OptionError for an epoch without a snapshot, ConfigurationError for a configuration that cannot be.
    """
    net = _loaded(name, weights, epoch, device, reading)
    named = None if weights is None else str(weights)
    net.source = NetworkSource(name, named, epoch, {key: value for key, value in reading.items() if value is not None})
    return net


def _loaded(
    name: str, weights: str | Path | None, epoch: int | None, device: str | torch.device | None, reading: Reading
) -> Net:
    network = find_network(name)
    if network is not None:
        return _configured(network, weights, epoch, device, reading)
    prefix, _, model = name.partition(":")
    if isinstance(weights, str) and weights.lower() == "none":
        weights = None
    if weights is not None and weights != "default":
        weights = Path(weights)
    build = _builder(name, prefix, model)
    options = settled(reading, caffe=prefix == "caffe")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        net = build(weights, epoch, options)
    return net if device is None else net.to(find_device(device))


def names() -> list[str]:
    """List every name that `load` knows."""
    return [*BLUEPRINTS, *configured().networks, *(f"torchvision:{model}" for model in torchvision_models.names())]


def default_for(pictures: Sequence[Path]) -> str:
    """Choose a network when none is named: lenet5 for grey pictures of at most 32 pixels, else zfnet64."""
    return _DIGITS if pictures and all(_digit_like(path) for path in pictures) else DEFAULT


def find_device(name: str | torch.device) -> torch.device:
    """Return a device that is here, by name. Raises OptionError when it is not."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has no values
    except (RuntimeError, AssertionError) as error:
        reason = shorten(re.split(r"\. |\n", str(error))[0], 80, placeholder=" ...")
        others = ", cuda" if torch.cuda.is_available() else ""
        raise OptionError(f"there is no device {str(name)!r} here ({reason}); use cpu{others}") from None
    return device


def _digit_like(path: Path) -> bool:
    try:
        mode, size = mode_and_size(path)
    except Exception:  # a picture that cannot be read is reported when it is read
        return False
    return mode in ("1", "L") and max(size) <= _SMALL


_Build = Callable[[str | Path | None, int | None, dict[str, Any]], Net]


def _builder(name: str, prefix: str, model: str) -> _Build:
    if name in BLUEPRINTS:
        return lambda weights, epoch, reading: _own(BLUEPRINTS[name], weights, epoch).changed(**reading)
    if prefix in SOURCES and model:
        return lambda weights, epoch, reading: _from_source(prefix, model, weights, epoch, reading)
    raise NetworkError(f"there is no network {name!r}{_wanted(name, prefix)}")


def _configured(
    network: Network,
    weights: str | Path | None,
    epoch: int | None,
    device: str | torch.device | None,
    reading: Reading,
) -> Net:
    """Load a network of the user's configuration; what is given comes before what is written there."""
    if weights == "default":
        weights = network.weights
        epoch = network.epoch if epoch is None else epoch
    options: dict[str, Any] = {**network.reading, **reading}
    if reading.get("mean") == IMAGENET and "std" not in reading:  # it stands for its standard deviation too
        options.pop("std", None)
    try:
        net = load(network.load, weights=weights, epoch=epoch, device=device, **options)
    except ConvscopeError as error:
        raise type(error)(f"{network.where}: {error}") from None
    return net.changed(name=network.name)


def _wanted(name: str, prefix: str) -> str:
    """Guess what was meant by a name without its source."""
    if name in torchvision_models.names():
        return f": did you mean 'torchvision:{name}'?"
    ending = Path(name).suffix.lower()
    source = _ENDINGS.get(ending)
    if source and prefix not in SOURCES:
        path = name.partition(":")[2] if prefix.isalnum() and len(prefix) > 1 else ""  # one letter is a drive
        return f": did you mean '{source}:{path or name}{':build' if source == 'file' else ''}'?"
    if ending in (".pt", ".pth", ".safetensors"):
        return (
            f": weights go with the network they belong to, as in load('torchvision:resnet18', weights={name!r}); a "
            f"whole model is read as a program of torch.export.save only: 'pt2:{name}'"
        )
    return f"; nearest: {nearest(name, names())}. Other sources: {', '.join(f'{prefix}:' for prefix in SOURCES)}"


def _from_source(
    prefix: str, model: str, weights: str | Path | None, epoch: int | None, reading: dict[str, Any]
) -> Net:
    if epoch is not None:
        raise OptionError(f"{prefix}:{model} has no snapshots of its training; those that do: {_with_history()}")
    return import_module(f".{SOURCES[prefix]}", __package__).build(model, weights, seed=SEED, reading=reading)


def _own(blueprint: Blueprint, weights: str | Path | None, epoch: int | None) -> Net:
    if weights is None:
        if epoch is not None:
            raise OptionError(f"random weights have no epoch {epoch}: leave out weights or epoch")
        names = [str(digit) for digit in range(10)] if blueprint.channels == 1 else []
        return blueprint.net(blueprint.body(blueprint.classes), names, note=f"random weights, seed {SEED}")
    path = _file(blueprint.name, weights, epoch)
    told, state = runs.facts(path), read_weights(path)
    if told.get("network", blueprint.name) != blueprint.name:
        raise WeightsError(f"{path} holds weights of {told['network']}, not of {blueprint.name}")
    classes = [str(name) for name in told.get("classes", [])]
    if not classes and blueprint.channels == 1:
        classes = [str(digit) for digit in range(10)]
    body = blueprint.body(len(classes) or blueprint.classes)
    fit_weights(body, state, network=blueprint.name)
    return blueprint.net(body, classes, note=f"epoch {epoch} of its training" if epoch is not None else "")


def _file(name: str, weights: str | Path, epoch: int | None) -> Path:
    """Find the weights file that is asked for."""
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


def _with_history() -> str:
    return ", ".join(runs.shipping())
