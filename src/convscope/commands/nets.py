"""`convscope nets`: the networks that are at hand, and whether their weights are on this machine.

Nothing here imports torch, runs a user's code or reaches the network.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer

from ..configuration import FILE, Network
from ..errors import NetworkError, nearest

SHIPS, CACHED, HERE, ABSENT, MISSING, NONE = "ships", "cached", "here", "not downloaded", "missing", "none"
"""Where a network's weights are: in the package, in a library's cache, in a file of the user's, nowhere yet."""


@dataclass(frozen=True)
class Known:
    """A network that can be loaded, with what is known of it without loading it.

    `weights` is where they are: "ships", "cached", "here", "not downloaded", "missing" or "none"; `path` is their file,
    `side` the input's in pixels.
    """

    name: str
    source: str
    weights: str
    path: str | None = None
    megabytes: float | None = None
    side: int | tuple[int, int] | None = None
    classes: int | None = None


def nets(
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="[PATTERN]", help="part of a name, or a pattern: 'resnet', 'timm:convnext*'"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, for scripts")] = False,
) -> None:
    """List the networks at hand: those that ship, your own, torchvision's and timm's, and which weights are here.

    Without a pattern timm's are only counted. Nothing is downloaded.
    """
    found = matching(pattern)
    if as_json:
        print(json.dumps([asdict(known) for known in found], indent=1, ensure_ascii=False))
        return
    _print(found, pattern)


def matching(pattern: str | None) -> list[Known]:
    """List networks whose names match a pattern or contain a text; all but timm's without one.

    Raises NetworkError with the nearest names where there is none.
    """
    own = [*_own(), *_configured(), *_torchvision()]
    if pattern is None:
        return own
    every = {known.name: known for known in own} | dict[str, Known | None].fromkeys(_timm_names())
    wild = pattern if set(pattern) & set("*?[") else f"*{pattern}*"
    found = [name for name in every if fnmatchcase(name.lower(), wild.lower())]
    if not found and pattern.startswith("timm:") and not _timm_names():
        raise NetworkError(_INSTALL)
    if not found:
        near = nearest(pattern, [*every, *(name.partition(":")[2] for name in every if ":" in name)])
        hint = "" if _timm_names() else ". " + _INSTALL
        raise NetworkError(f"no network is called like {pattern!r}; nearest: {near}{hint}")
    return [every[name] or _of_timm(name) for name in found]


def _own() -> Iterator[Known]:
    from ..zoo.blueprints import BLUEPRINTS
    from ..zoo.runs import shipped, shipping, snapshot

    for name, blueprint in BLUEPRINTS.items():
        path = snapshot(shipped(name), None) if name in shipping() else None
        yield Known(name, "convscope", SHIPS if path else NONE, *_file(path), blueprint.size, blueprint.classes)


def _configured() -> Iterator[Known]:
    from ..zoo.configured import configured

    told = configured()
    for network in told.networks.values():
        side, classes = network.reading.get("size"), network.reading.get("classes")
        count = len(classes) if isinstance(classes, list) else None
        where, path = _weights_of(network)
        size = tuple(side) if isinstance(side, list) else side
        yield Known(network.name, str(told.path), where, *_file(path), side=size, classes=count)


def _weights_of(network: Network) -> tuple[str, Path | None]:
    """Say where a configured network's weights are, without loading anything."""
    prefix, _, rest = network.load.partition(":")
    definition = Path(rest.rpartition(".py:")[0] + ".py" if prefix == "file" and ".py:" in rest else rest)
    if prefix in ("caffe", "onnx", "pt2", "file") and not definition.is_file():
        return MISSING, definition
    if network.weights.lower() == "none":
        return NONE, None
    if network.weights != "default":
        path = Path(network.weights)
        return (HERE if path.exists() else MISSING), path
    if prefix in ("onnx", "pt2", "file"):
        return HERE, definition
    same = next((known for known in (*_own(), *_torchvision()) if known.name == network.load), None)
    if same is None and network.load in _timm_names():
        same = _of_timm(network.load)
    return (same.weights, Path(same.path) if same.path else None) if same else (NONE, None)


def _torchvision() -> Iterator[Known]:
    from ..zoo import published
    from ..zoo.downloads import cache

    folder = cache()
    for name, weights in published.torchvision().items():
        path = folder / weights.file if weights.file else None
        here = path is not None and path.is_file()
        size = weights.megabytes and round(weights.megabytes, 1)
        where, kept = (CACHED, str(path)) if here else (ABSENT, None)
        yield Known(f"torchvision:{name}", "torchvision", where, kept, size, weights.side, published.CLASSES)


_INSTALL = "timm is not installed: pip install 'convscope[timm]'"


def _timm_names() -> list[str]:
    from ..zoo import published

    return [f"timm:{name}" for name in published.timm()]


def _of_timm(name: str) -> Known:
    from ..zoo.timm_models import cached

    path = cached(name.partition(":")[2])
    return Known(name, "timm", CACHED if path else ABSENT, *_file(path))


def _file(path: Path | None) -> tuple[str | None, float | None]:
    """Return a file's path and megabytes; the latter are not known of a folder or of what is not there."""
    size = round(path.stat().st_size / 1e6, 1) if path and path.is_file() else None
    return str(path) if path else None, size


def _print(found: Sequence[Known], pattern: str | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)
    plain = [known for known in found if pattern is not None or known.source != "torchvision"]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("network", no_wrap=True)
    table.add_column("from", overflow="fold", min_width=len(FILE))
    table.add_column("weights", overflow="fold")
    for head in ("MB", "input", "classes"):
        table.add_column(head, justify="right", no_wrap=True)
    for known in plain:
        table.add_row(*_row(known, (CACHED, HERE, MISSING) if pattern is not None else (HERE, MISSING)))
    console.print(table)
    if pattern is None:
        _print_libraries(console, [known for known in found if known.source == "torchvision"])


def _row(known: Known, with_path: Sequence[str]) -> tuple[str, ...]:
    side = known.side if isinstance(known.side, tuple) else (known.side, known.side)
    return (
        known.name,
        _short(known.source),
        f"{known.weights}: {_short(known.path)}" if known.weights in with_path else known.weights,
        f"{known.megabytes:,.1f}" if known.megabytes else "",
        f"{side[0]}x{side[1]}" if known.side else "",
        str(known.classes or ""),
    )


def _short(path: str | None) -> str:
    """Return a path as it is shortest from here: as it is, from the working directory, or from home."""
    if path is None or not Path(path).is_absolute():
        return str(path)
    ways = [path, os.path.relpath(path)]
    if Path(path).is_relative_to(Path.home()):
        ways.append(str("~" / Path(path).relative_to(Path.home())))
    return min(ways, key=len)


def _print_libraries(console: Any, found: Sequence[Known]) -> None:
    from rich.columns import Columns

    from ..zoo.downloads import cache

    cached = [known for known in found if known.weights == CACHED]
    mark = " (*)" if cached else ""
    console.print(f"torchvision: {len(found)} networks, {_count(len(cached))}{mark}; as torchvision:NAME")
    names = (f"{known.name.partition(':')[2]}{'*' if known in cached else ''}" for known in found)
    console.print(Columns(names, padding=(0, 2), column_first=True))
    timm = _timm_names()
    # By the names of their files: timm itself knows for sure, and takes seconds.
    here = len({path.name.split(".")[0] for path in cache().glob("timm-*")})
    told = f"timm: {len(timm):,} networks, {_count(here)}; see convscope nets 'timm:convnext*'"
    console.print(f"\n{told if timm else _INSTALL}", markup=False, highlight=False)


def _count(cached: int) -> str:
    return f"{cached:,} cached" if cached else "none cached"
