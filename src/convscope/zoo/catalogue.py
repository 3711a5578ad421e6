"""The networks at hand: those that ship, the user's own, and what each source lists; read without importing torch."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from ..configuration import Network
from ..errors import NetworkError, nearest
from . import packaged, runs
from .blueprints import BLUEPRINTS
from .configured import configured
from .info import HERE, INSTALLED, MISSING, NONE, SHIPS, UNINSTALLED, NetworkInfo, path_and_size
from .sources import Source, resolve, sources, split


def list_networks(pattern: str | None = None) -> list[str]:
    """List the names of networks that `load` knows: "*resnet*", "timm:convnext*"; all of them without a pattern.

    A pattern without a wildcard is part of a name; case does not matter. Names after which anything may come (files,
    repositories of the hub) are not listed. Nothing is imported or downloaded. Raises ConfigurationError for a
    convscope.toml that cannot be read.
    """
    every = [*names(), *(name for source in sources().values() if source.counted for name in source.networks())]
    return [name for name in every if pattern is None or _matches(name, pattern)]


def names() -> list[str]:
    """List the names that can be listed at once: all but those of sources that are only counted."""
    listed = (name for source in sources().values() if not source.counted for name in source.networks())
    return [*BLUEPRINTS, *configured().networks, *listed]


def find_infos(pattern: str | None) -> list[NetworkInfo]:
    """Describe the networks whose names match a pattern or contain a text; without one, all that `names` lists.

    Raises NetworkError with the nearest names where there is none.
    """
    matches = names() if pattern is None else list_networks(pattern)
    if not matches and pattern is not None:
        raise NetworkError(_nothing_like(pattern))
    return [describe(name) for name in matches]


def describe(name: str) -> NetworkInfo:
    """Say what is known of a network without loading it. Raises NetworkError for a name that is unknown."""
    source, model = split(name)
    if source is None:
        return _without_prefix(name)
    if source.inspect is not None:
        return resolve(source.inspect)(model)
    where, path = _weights_in_files(source, model)
    return NetworkInfo(name, source.prefix, where, *path_and_size(path))


def _matches(name: str, pattern: str) -> bool:
    wild = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    return fnmatchcase(name.lower(), wild.lower())


def _nothing_like(pattern: str) -> str:
    source, _ = split(pattern)
    if source is not None and source.missing:
        return not_installed(source)
    every = list_networks()
    near = nearest(pattern, [*every, *(name.partition(":")[2] for name in every if ":" in name)])
    hints = "".join(f". {not_installed(source)}" for source in sources().values() if source.names and source.missing)
    return f"no network is called like {pattern!r}; nearest: {near}{hints}"


def not_installed(source: Source) -> str:
    """Say what to install for a source."""
    return f"{source.missing[0]} is not installed: {source.install}"


def _without_prefix(name: str) -> NetworkInfo:
    if name in BLUEPRINTS:
        return _of_blueprint(name)
    network = configured().networks.get(name)
    if network is None:
        raise NetworkError(f"there is no network {name!r}; nearest: {nearest(name, names())}")
    return _of_configured(network)


def _of_blueprint(name: str) -> NetworkInfo:
    blueprint = BLUEPRINTS[name]
    if blueprint.package:
        path = packaged.find_weights(blueprint.package)
        where = INSTALLED if path else UNINSTALLED
    else:
        path = runs.snapshot(runs.shipped(name), None) if name in runs.shipping() else None
        where = SHIPS if path else NONE
    return NetworkInfo(name, "convscope", where, *path_and_size(path), blueprint.size, blueprint.classes)


def _of_configured(network: Network) -> NetworkInfo:
    side, classes = network.reading.get("size"), network.reading.get("classes")
    where, path = _weights_of(network)
    return NetworkInfo(
        network.name,
        str(configured().path),
        where,
        *path_and_size(path),
        side=tuple(side) if isinstance(side, list) else side,
        classes=len(classes) if isinstance(classes, list) else None,
    )


def _weights_of(network: Network) -> tuple[str, Path | None]:
    """Say where a configured network's weights are, without loading anything."""
    source, model = split(network.load)
    if source is not None and source.path and not source.file(model).is_file():
        return MISSING, source.file(model)
    if network.weights.lower() == "none":
        return NONE, None
    if network.weights != "default":
        path = Path(network.weights)
        return (HERE if path.exists() else MISSING), path
    if source is not None and source.path:
        return _weights_in_files(source, model)
    try:
        same = describe(network.load)
    except NetworkError:  # said when it is loaded
        return NONE, None
    return same.weights, Path(same.path) if same.path else None


def _weights_in_files(source: Source, model: str) -> tuple[str, Path | None]:
    file = source.file(model)
    if not source.path:
        return NONE, None
    if not file.is_file():
        return MISSING, file
    return (HERE, file) if source.holds_weights else (NONE, None)
