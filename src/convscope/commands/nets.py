"""`convscope nets`: the networks that are at hand, and whether their weights are on this machine.

Nothing here imports torch, runs a user's code or reaches the network.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..configuration import FILE
from ..drawing.tables import Cell, Column, Table
from ..errors import visible
from ..recipes import Recipe
from .groups import grouped
from .tables import TableOutput

if TYPE_CHECKING:
    from ..zoo.info import NetworkInfo
    from ..zoo.sources import Source


@grouped
def nets(
    output: TableOutput,
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="[PATTERN]", help="part of a name, or a pattern: 'resnet', 'timm:convnext*'"),
    ] = None,
) -> None:
    """List the networks at hand: those that ship, your own and those of libraries, and which weights are here.

    Without a pattern timm's are only counted. Nothing is downloaded.
    """
    from ..zoo.catalogue import find_infos

    output.check()
    infos = find_infos(pattern)
    if output.out is not None:
        output.print(_table(infos, pattern))
    elif output.as_json:
        print(json.dumps([asdict(info) for info in infos], indent=1, ensure_ascii=False))
    else:
        _print(infos, pattern)


def _table(infos: Sequence[NetworkInfo], pattern: str | None) -> Table:
    """Return networks as a table, for files."""
    columns = (
        Column("name", unbroken=True),
        Column("source"),
        Column("weights"),
        Column("path"),
        Column("megabytes", "number", format=",.1f"),
        Column("side", "size", unit="px"),
        Column("classes", "whole"),
    )
    rows: list[tuple[Cell, ...]] = []
    for info in infos:
        side = (info.side, info.side) if isinstance(info.side, int) else info.side
        rows.append((info.name, info.source, info.weights, info.path, info.megabytes, side, info.classes))
    return Table(columns, tuple(rows), Recipe(method="nets"), f"Networks{f' like {pattern!r}' if pattern else ''}")


def complete_network(incomplete: str) -> list[str]:
    """Complete a network's name for the shell: the names at hand, those of files, and the prefixes of sources."""
    from ..zoo.catalogue import list_networks
    from ..zoo.sources import sources

    prefix, _, beginning = incomplete.partition(":")
    source = sources().get(prefix)
    if source is not None and source.path:
        folder = Path(beginning) if beginning.endswith("/") else Path(beginning).parent
        files = (path for path in folder.glob("*") if path.is_dir() or path.suffix.lower() in source.endings)
        return [name for name in sorted(f"{source.prefix}:{path}" for path in files) if name.startswith(incomplete)]
    every = [*list_networks(), *(f"{prefix}:" for prefix in sources())]
    matches = [name for name in every if name.startswith(incomplete)]
    prefixes = dict.fromkeys(f"{name.partition(':')[0]}:" for name in matches if ":" in name)
    # A thousand names are of no use to whoever has not typed the source yet.
    return matches if ":" in incomplete else [*(name for name in matches if ":" not in name), *prefixes]


def _print(infos: Sequence[NetworkInfo], pattern: str | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ..zoo.info import CACHED, HERE, MISSING
    from ..zoo.sources import sources

    libraries = [source for source in sources().values() if source.names] if pattern is None else []
    listed = {source.prefix for source in libraries}
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("network", no_wrap=True)
    table.add_column("from", overflow="fold", min_width=len(FILE))
    table.add_column("weights", overflow="fold")
    for head in ("MB", "input", "classes"):
        table.add_column(head, justify="right", no_wrap=True)
    for info in infos:
        if info.source not in listed:
            row = _row(info, (HERE, MISSING) if pattern is None else (CACHED, HERE, MISSING))
            table.add_row(*map(visible, row))
    console.print(table)
    for source in libraries:
        if source.counted:
            _print_count(console, source)
        else:
            _print_library(console, source, [info for info in infos if info.source == source.prefix])


def _row(info: NetworkInfo, with_path: Sequence[str]) -> tuple[str, ...]:
    from ..zoo.info import UNINSTALLED
    from ..zoo.packaged import install

    side = info.side if isinstance(info.side, tuple) else (info.side, info.side)
    more = f": {_short(info.path)}" if info.weights in with_path else ""
    return (
        info.name,
        _short(info.source),
        f"{info.weights}: {install()}" if info.weights == UNINSTALLED else f"{info.weights}{more}",
        f"{info.megabytes:,.1f}" if info.megabytes else "",
        f"{side[0]}x{side[1]}" if info.side else "",
        str(info.classes or ""),
    )


def _short(path: str | None) -> str:
    """Return a path as it is shortest from here: as it is, from the working directory, or from home."""
    if path is None or not Path(path).is_absolute():
        return str(path)
    ways = [path, os.path.relpath(path)]
    if Path(path).is_relative_to(Path.home()):
        ways.append(str("~" / Path(path).relative_to(Path.home())))
    return min(ways, key=len)


def _print_library(console: Any, source: Source, infos: Sequence[NetworkInfo]) -> None:
    from rich.columns import Columns

    from ..zoo.info import CACHED

    cached = {info.name for info in infos if info.weights == CACHED}
    mark = " (*)" if cached else ""
    console.print(f"{source.prefix}: {len(infos)} networks, {_count(len(cached))}{mark}; as {source.form}")
    names = (f"{info.name.partition(':')[2]}{'*' if info.name in cached else ''}" for info in infos)
    console.print(Columns(names, padding=(0, 2), column_first=True))


def _print_count(console: Any, source: Source) -> None:
    """Say how many networks a large library has, or how to install it."""
    from ..zoo.catalogue import not_installed
    from ..zoo.downloads import cache

    names = source.networks()
    # By the names of their files: the library itself knows for sure, and takes seconds.
    cached = len({path.name.split(".")[0] for path in cache().glob(f"{source.prefix}-*")})
    line = f"{source.prefix}: {len(names):,} networks, {_count(cached)}; see convscope nets '{source.prefix}:NAME*'"
    console.print(f"\n{not_installed(source) if source.missing else line}", markup=False, highlight=False)


def _count(cached: int) -> str:
    return f"{cached:,} cached" if cached else "none cached"
