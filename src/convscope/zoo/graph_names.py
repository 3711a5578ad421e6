"""Names of a graph's layers, from the modules that made its calls."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn


def layer_names(positions: Sequence[tuple[Sequence[str], str]]) -> list[str]:
    """Name the layers of a graph, each by the module that made the call and, where it made several, the operation.

    `places` has for every call the path of its module and the operation's name. No name is the beginning of another.
    """
    paths = [tuple(map(_identifier, path)) for path, _ in positions]
    inside = {path[:n] for path in paths for n in range(1, len(path))}
    names: list[str] = []
    taken: set[tuple[str, ...]] = set()
    for path, (_, operation) in zip(paths, positions, strict=True):
        alone = path and paths.count(path) == 1 and path not in inside
        name = path if alone else (*path, _identifier(operation))
        stem, number = name[-1], 0
        while name in taken or name in inside or (not alone and name in paths):
            number += 1
            name = (*name[:-1], f"{stem}_{number}")
        taken.add(name)
        names.append(".".join(name))
    return names


def _identifier(part: str) -> str:
    """Return part of a layer's name without what a module's attribute cannot be called."""
    plain = re.sub(r"\W+", "_", part, flags=re.ASCII)[:100] or "_"
    return f"{plain}_" if hasattr(nn.Module, plain) or hasattr(_EMPTY, plain) else plain


_EMPTY = nn.Module()
