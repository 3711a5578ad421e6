"""Where networks come from: those that ship with the package, and other libraries' by a prefix."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalogue import list_networks as list_networks
    from .choosing import DEFAULT as DEFAULT
    from .choosing import default_for as default_for
    from .devices import find_device as find_device
    from .loading import load as load
    from .runs import shipping as shipping

# Loaded on first use: `convscope nets` reads its lists without torch.
_HOMES = {
    "DEFAULT": "choosing",
    "default_for": "choosing",
    "find_device": "devices",
    "list_networks": "catalogue",
    "load": "loading",
    "shipping": "runs",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'convscope.zoo' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
