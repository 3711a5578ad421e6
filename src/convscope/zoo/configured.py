"""Networks that the user's configuration names, held against those that exist already."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .. import addresses, configuration, plugins
from ..configuration import Configuration, Network
from ..errors import ConfigurationError, nearest
from .blueprints import BLUEPRINTS
from .packaged import find_weights
from .runs import shipping
from .sources import anchored, split

_MOST_STEPS = 16
"""Networks of a configuration that may name each other in a row."""


@dataclass(frozen=True)
class Code:
    """What needs trust in a configuration: where it stands, what it says, and the Python file that it runs.

    A path of an option that leads out of the configuration's folder runs none, and may be one that is written.
    """

    where: str
    what: str
    file: Path | None


def configured() -> Configuration:
    """Read the configuration that holds here; paths of networks are taken from its folder.

    Raises ConfigurationError where it gives a network the name of one that ships, or names one that there is not.
    """
    return _checked(configuration.read())


def configured_by(path: Path) -> Configuration:
    """Read a configuration that the user names, as `configured` reads the one that holds here."""
    return _checked(configuration.read_file(path))


def code(settings: Configuration) -> list[Code]:
    """List what of a configuration needs trust: plugins, networks that run code, and what leads out of its folder."""
    found = [Code(f"plugins of {settings.path}", name, plugins.source(name)) for name in settings.plugins]
    found += [Code(f"[data] {name} of {settings.path}", text, None) for name, text in _remote_data(settings)]
    named = [(network.where, network.load) for network in settings.networks.values()]
    named += [(f"net in {settings.path}", settings.net)] if settings.net else []
    for where, text in _defaults(settings):
        if settings.leads_out(text):
            found.append(Code(where, text, None))
        named.append((where, anchored(settings.path.parent, text) if settings.path else text))
    for where, name in named:
        file = code_file(name)
        if file is not None:
            found.append(Code(where, name, file))
    return found


def _remote_data(settings: Configuration) -> list[tuple[str, str]]:
    return [(name, addresses.public(text)) for name, text in settings.data.items() if addresses.is_remote(text)]


def code_file(name: str) -> Path | None:
    """Return the file that loading a network runs, None for networks that run nothing."""
    source, model = split(name)
    return source.file(model) if source is not None and source.runs_code else None


def require_trust(settings: Configuration, where: str, name: str) -> None:
    """Raise ConfigurationError where a network that a configuration names runs code, and the user did not trust it."""
    if code_file(name) is not None:
        otherwise = f"Or name the network yourself: --net {shlex.quote(name)}"
        settings.require_trust(f"{where} is {name!r}", "which runs code", otherwise)


def default_network() -> str | None:
    """Return the network that the configuration says is used where none is named.

    Raises ConfigurationError where it runs code, and the user did not trust the configuration.
    """
    settings = configured()
    if settings.net is not None:
        settings.in_use()
        require_trust(settings, f"net in {settings.path}", settings.net)
    return settings.net


def _defaults(settings: Configuration) -> Iterator[tuple[str, str]]:
    """Yield every text that [defaults] gives to an option, and where it stands."""
    for key, value in settings.defaults.items():
        options = value.items() if isinstance(value, dict) else [(key, value)]
        for option, given in options:
            for part in given if isinstance(given, list) else [given]:
                if isinstance(part, str):
                    yield f"{option} in [defaults] of {settings.path}", part


def _checked(settings: Configuration) -> Configuration:
    settings = _anchored(settings)
    for name in settings.networks:
        if name in BLUEPRINTS:
            where = settings.networks[name].where
            raise ConfigurationError(f"{where}: {name!r} ships with convscope: choose another name")
        _check_ends(settings, name)
    names = [*settings.networks, *BLUEPRINTS]
    if settings.net is not None and ":" not in settings.net and settings.net not in names:
        near = nearest(settings.net, names)
        raise ConfigurationError(
            f"{settings.path}: net names {settings.net!r}, and there is no such network; nearest: {near}"
        )
    return settings


def _anchored(settings: Configuration) -> Configuration:
    if settings.path is None:
        return settings
    folder = settings.path.parent
    networks = {
        name: replace(network, load=anchored(folder, network.load)) for name, network in settings.networks.items()
    }
    return replace(settings, net=settings.net and anchored(folder, settings.net), networks=networks)


def _check_ends(settings: Configuration, name: str) -> None:
    """Refuse a network that is, by way of others of the configuration, itself."""
    passed: list[str] = []
    while name in settings.networks:
        if name in passed:
            where, load = settings.networks[name].where, settings.networks[name].load
            raise ConfigurationError(
                f"{where}: load = {load!r} leads back to {name!r}: circular reference; name a real source"
            )
        passed.append(name)
        if len(passed) > _MOST_STEPS:
            raise ConfigurationError(
                f"{settings.path}: more than {_MOST_STEPS} networks name each other, from {passed[0]!r} on: name a "
                "real source"
            )
        name = settings.networks[name].load


def find_network(name: str) -> Network | None:
    """Return the network of that name in the configuration; it is not read for names that mean another source."""
    return None if name in BLUEPRINTS or ":" in name else configured().networks.get(name)


def at_hand(name: str) -> bool:
    """Say whether a network comes with weights that need no download.

    It ships, or a package, its file or settings hold them.
    """
    network = find_network(name)
    if network is not None:
        return network.weights != "default" or at_hand(network.load)
    source, _ = split(name)
    if source is not None:
        return source.holds_weights
    package = BLUEPRINTS[name].package if name in BLUEPRINTS else ""
    return find_weights(package) is not None if package else name in shipping()
