"""Networks that the user's configuration names, held against those that exist already."""

from __future__ import annotations

from .. import configuration
from ..configuration import Configuration, Network
from ..errors import ConfigurationError, nearest
from .blueprints import BLUEPRINTS
from .runs import shipping


def configured() -> Configuration:
    """Read the configuration that holds here.

    Raises ConfigurationError where it gives a network the name of one that ships, or names one that there is not.
    """
    told = configuration.read()
    for name in told.networks:
        if name in BLUEPRINTS:
            raise ConfigurationError(f"{told.networks[name].where}: {name!r} ships with convscope: choose another name")
        _check_ends(told, name)
    known = [*told.networks, *BLUEPRINTS]
    if told.net is not None and ":" not in told.net and told.net not in known:
        near = nearest(told.net, known)
        raise ConfigurationError(f"{told.path}: net names {told.net!r}, and there is no such network; nearest: {near}")
    return told


def _check_ends(told: Configuration, name: str) -> None:
    """Refuse a network that is, by way of others of the configuration, itself."""
    seen: list[str] = []
    while name in told.networks:
        if name in seen:
            where, load = told.networks[name].where, told.networks[name].load
            raise ConfigurationError(f"{where}: load = {load!r} leads back to {name!r}: say what it is at last")
        seen.append(name)
        name = told.networks[name].load


def find_network(name: str) -> Network | None:
    """Return the network of that name in the configuration; it is not read for names that mean another source."""
    return None if name in BLUEPRINTS or ":" in name else configured().networks.get(name)


def at_hand(name: str) -> bool:
    """Say whether a network comes with weights that need no download: it ships, or its file or settings hold them."""
    network = find_network(name)
    if network is not None:
        return network.weights != "default" or at_hand(network.load)
    return name in shipping() or name.partition(":")[0] in ("onnx", "pt2", "file")
