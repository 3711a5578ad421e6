"""Snapshots: one network at several moments of its training, loaded one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from ..context import say
from ..data.folders import common_root
from ..errors import ConvscopeError, LayerError, OptionError, WeightsError
from ..layers import default_convolutions
from ..net import Net
from ..options import separated
from ..recipes import NetworkSource
from ..tracing import Layer
from ..zoo.loading import load_source
from ..zoo.runs import HISTORY, History, read_history, shipped
from .moments import spread
from .units import choose_layers, count_units

_ENDINGS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".caffemodel")
_WILD = "*?["

Snapshots = Net | Mapping[str, Net] | Sequence[tuple[str, Net | Callable[[], Net]]]
"""A network whose training kept snapshots, or networks by name, in order; a function in a network's place loads it."""


@dataclass(frozen=True)
class Snapshot:
    """A network at one moment of its training: a name, and what loads it."""

    name: str
    load: Callable[[], Net]


def snapshots_of(net: Net, *, epochs: Sequence[int] = (), weights: Sequence[str | Path] = ()) -> list[Snapshot]:
    """Return the snapshots of a network.

    Args:
        net: the network, loaded by name.
        epochs: of its own training, those that are taken; eight at most by default, more of the first ones.
        weights: files of weights instead, in this order; folders and patterns stand for their files by name.

    Raises WeightsError where no snapshots are at hand, OptionError for epochs without one.
    """
    if weights and epochs:
        raise OptionError("epochs are those of a network's own training: give either epochs or files of weights")
    history = None if weights else _history(net)
    if net.source is None:
        raise WeightsError(f"{net.name} was not loaded by name, so that it cannot be loaded with other weights")
    if history is None:
        return _of_files(net.source, net.device, weights)
    chosen = {epoch.epoch: epoch for epoch in history.snapshots}
    return [
        Snapshot(
            f"epoch {number}: {chosen[number].accuracy:.0%} right",
            _loading(replace(net.source, epoch=number), net.device),
        )
        for number in _chosen(history, epochs)
    ]


def is_run(weights: str) -> bool:
    """Whether weights name one training with its snapshots, or none, rather than files."""
    return weights.lower() in ("default", "none") or (Path(weights) / HISTORY).is_file()


def _chosen(history: History, epochs: Sequence[int]) -> list[int]:
    kept = [epoch.epoch for epoch in history.snapshots]
    missing = [epoch for epoch in epochs if epoch not in kept]
    if missing:
        raise OptionError(
            f"{history.network} has no snapshot of epoch {', '.join(map(str, missing))}; there are "
            f"{', '.join(map(str, kept))}"
        )
    return list(dict.fromkeys(epochs)) or [kept[at] for at in _few(len(kept))]


def _few(count: int) -> list[int]:
    chosen = spread(count)
    if len(chosen) < count:
        say(f"{len(chosen)} of {count} snapshots")
    return chosen


def _history(net: Net) -> History:
    """Return the training of a network. Raises WeightsError where none is at hand."""
    source = net.source
    if source is not None and source.weights is not None:
        folder = shipped(source.name) if source.weights == "default" else Path(source.weights)
        if (folder / HISTORY).is_file():
            return read_history(folder)
    raise WeightsError(
        f"{net.name} has no snapshots of its training. A run of `convscope train` keeps some, and with its folder as "
        "--weights RUN they are drawn here; checkpoints of another training as --weights 'FOLDER/*.pt', in Python as "
        "[('epoch 1', net_1), ('epoch 2', net_2)]; those of zfnet64 ship with the package, as in --net zfnet64"
    )


def _of_files(source: NetworkSource, device: torch.device, weights: Sequence[str | Path]) -> list[Snapshot]:
    files = files_of(weights)
    named = [weight for weight in weights if Path(weight) in files]
    chosen = files if len(named) == len(weights) else [files[at] for at in _few(len(files))]
    return [
        Snapshot(name, _loading(replace(source, weights=str(file), epoch=None), device))
        for name, file in zip(_names(chosen), chosen, strict=True)
    ]


def _loading(source: NetworkSource, device: torch.device) -> Callable[[], Net]:
    return lambda: load_source(source).to(device)


def files_of(weights: Iterable[str | Path]) -> list[Path]:
    """Return the files that names, folders and patterns stand for, numbers in names in their order.

    Raises WeightsError for a name or pattern without files.
    """
    found: list[Path] = []
    for weight in weights:
        path = Path(weight)
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = [each for each in path.iterdir() if each.suffix.lower() in _ENDINGS]
        elif any(sign in str(weight) for sign in _WILD):
            files = [each for each in _matching(str(weight)) if each.is_file()]
        else:
            raise WeightsError(f"there is no weights file {path}")
        if not files:
            raise WeightsError(f"{path} stands for no file of weights; such end in {', '.join(_ENDINGS)}")
        found += sorted(files, key=_in_order)
    return list(dict.fromkeys(found))


def _matching(pattern: str) -> list[Path]:
    path = Path(pattern)
    root = Path(path.anchor) if path.anchor else Path()
    return list(root.glob(str(path.relative_to(path.anchor)) if path.anchor else pattern))


def _in_order(path: Path) -> list[tuple[bool, int, str]]:
    """Return what sorts epoch-9 before epoch-10."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", str(path))]


def _names(files: Sequence[Path]) -> list[str]:
    """Name files by what tells them apart: their own names, or their folders' where they are all called alike."""
    stems = [file.stem for file in files]
    if len(set(stems)) == len(stems):
        return stems
    root = common_root([str(file) for file in files])
    return [str(file).removeprefix(root) for file in files]


def as_snapshots(given: Snapshots | Sequence[Snapshot]) -> list[Snapshot]:
    """Return snapshots, however they are given. Raises OptionError for what holds none."""
    if isinstance(given, Net):
        return snapshots_of(given)
    pairs = list(given.items()) if isinstance(given, Mapping) else list(cast(Sequence[Any], given))
    found = [_snapshot(pair) for pair in pairs]
    if len(found) < 2:
        raise OptionError(
            f"an evolution is of several snapshots of one network, and here {'is one' if found else 'are none'}: give "
            "them as [('epoch 1', net_1), ('epoch 2', net_2)], or a network whose training kept some, as "
            "load('zfnet64')"
        )
    names = [each.name for each in found]
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        raise OptionError(f"two snapshots are called {again!r}: give each a name of its own")
    return found


def _snapshot(pair: Any) -> Snapshot:
    if isinstance(pair, Snapshot):
        return pair
    name, net = pair if isinstance(pair, (tuple, list)) and len(cast(Any, pair)) == 2 else (None, None)
    if not isinstance(name, str) or not callable(net):
        raise OptionError(
            "a snapshot is a name and a Net, as ('epoch 1', net), or a name and a function that loads one, not "
            f"{pair!r}"
        )
    if isinstance(net, Net):
        return Snapshot(name, lambda: net)
    return Snapshot(name, cast("Callable[[], Net]", net))


def readable(snapshots: Sequence[Snapshot], layers: Sequence[str]) -> tuple[list[Snapshot], dict[str, int]]:
    """Return the snapshots that can be loaded, and how many units each layer has in all of them.

    What cannot be loaded is left out, and said. Raises WeightsError where fewer than two are left, LayerError where a
    layer is not the same in all of them.
    """
    found: list[Snapshot] = []
    failed: list[str] = []
    units: dict[str, int] = {}
    for snapshot in snapshots:
        try:
            net = snapshot.load()
        except ConvscopeError as error:
            failed.append(f"{snapshot.name} left out: {error}")
            continue
        own = _units(net, layers, snapshot.name)
        if found and own != units:
            raise LayerError(
                f"snapshots are of one network: {_said(units)} in {found[0].name!r}, and {_said(own)} in "
                f"{snapshot.name!r}"
            )
        found.append(snapshot)
        units = own
    if len(found) < 2:
        raise WeightsError(
            f"of {len(snapshots)} snapshots {len(found)} can be read, and an evolution needs two: {'; '.join(failed)}"
        )
    for each in failed:
        say(each)
    return found, units


def layers_of(net: Net, layers: Sequence[str] = ()) -> list[Layer]:
    """Return the layers that are named (`choose_layers`); by default a low, a middle and a high convolution."""
    return choose_layers(net, layers or [layer.name for layer in default_convolutions(net, 3)])


def _units(net: Net, layers: Sequence[str], name: str) -> dict[str, int]:
    try:
        return {layer.name: count_units(layer) for layer in layers_of(net, layers)}
    except LayerError as error:
        raise LayerError(f"snapshot {name!r}: {error}") from None


def _said(units: Mapping[str, int]) -> str:
    return ", ".join(f"{layer or 'the output'} has {count} units" for layer, count in units.items())


def weights_named(text: str) -> list[str]:
    """Return the files, folders and patterns of a text with commas; a file whose own name has commas is one."""
    return [text] if Path(text).exists() else separated(text)
