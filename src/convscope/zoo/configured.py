"""Networks that the user's configuration names, held against those that exist already."""

from __future__ import annotations

from dataclasses import replace

from .. import configuration
from ..configuration import Configuration, Network
from ..errors import ConfigurationError, nearest
from .blueprints import BLUEPRINTS
from .packaged import find_weights
from .runs import shipping
from .sources import anchored, split


def configured() -> Configuration:
    """Read the configuration that holds here; paths of networks are taken from its folder.

    Raises ConfigurationError where it gives a network the name of one that ships, or names one that there is not.
    """
    settings = _anchored(configuration.read())
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
