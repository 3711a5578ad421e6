"""Kinds of findings: each is a module of the folder `kinds`, with one function that looks for it.

    @kind("dead", "Dead units", helps="...", disproof="...")
    def dead(evidence: Evidence) -> Iterator[Said]:
        ...
        yield Finding("dead", "conv4", (3, 17), severity, n, "2 of 192 units answer none of 5,000 pictures")

It yields findings, or a `Healthy` with the numbers, or an `Unseen` with the reason; evidence that there is not raises
`Missing`, which becomes an `Unseen`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import ConvscopeError, OutOfMemory, StorageError
from . import kinds
from .finding import Finding, Missing, Said, Unseen

if TYPE_CHECKING:
    from .evidence import Evidence

Look = Callable[["Evidence"], Iterator[Said]]

ORDER = (
    "dead",
    "saturated",
    "constant",
    "outlier",
    "duplicate",
    "co-adapted",
    "aliasing",
    "checkerboard",
    "overfit",
    "memorised",
    "shortcut",
    "calibration",
    "class-only",
    "input",
)
"""The names of all kinds, in the order in which they are looked for and shown."""


@dataclass(frozen=True)
class Kind:
    """A kind of finding: its name, a title, what usually helps, what would show that it is not so, and who looks."""

    name: str
    title: str
    helps: str
    disproof: str
    look: Look

    def said(self, evidence: Evidence) -> Iterator[Said]:
        """Yield what is said of the evidence. What cannot be computed of this network is not looked at."""
        try:
            for each in self.look(evidence):
                if isinstance(each, Finding):
                    yield replace(each, helps=each.helps or self.helps, disproof=each.disproof or self.disproof)
                else:
                    yield each
        except Missing as missing:
            yield Unseen(self.name, str(missing))
        except (OutOfMemory, StorageError):
            raise
        except ConvscopeError as error:
            yield Unseen(self.name, str(error))


_KINDS: dict[str, Kind] = {}


def kind(name: str, title: str, *, helps: str, disproof: str) -> Callable[[Look], Look]:
    """Register what looks for a kind of finding; `name` is one of ORDER."""

    def register(look: Look) -> Look:
        assert name in ORDER, f"{name} has no place in ORDER"
        _KINDS[name] = Kind(name, title, helps, disproof, look)
        return look

    return register


def all_kinds() -> dict[str, Kind]:
    """Return all kinds by name, in their order."""
    for module in pkgutil.iter_modules(kinds.__path__):
        importlib.import_module(f"{kinds.__name__}.{module.name}")
    return {name: _KINDS[name] for name in ORDER if name in _KINDS}
