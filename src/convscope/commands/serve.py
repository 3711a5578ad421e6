"""`convscope serve`: the explorer, a page on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import AtlasError, OptionError, OutputError
from .groups import grouped
from .network import Network, parts
from .patches import roots_of
from .progress import progress

if TYPE_CHECKING:
    from ..explorer.specimen import Specimen

_EVERYWHERE = ("0.0.0.0", "::")


@grouped
def serve(
    network: Network,
    net: Annotated[
        list[str] | None,
        typer.Option("--net", help="networks to look at, repeated for several; those of the atlases by default"),
    ] = None,
    atlas: Annotated[
        list[Path] | None, typer.Option("--atlas", help="folders that convscope scan wrote", metavar="ATLAS")
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option("--pictures", help="pictures to choose from: a folder, a .tar or .parquet file", metavar="FOLDER"),
    ] = None,
    root: Annotated[
        list[str] | None,
        typer.Option(help="where the scanned pictures lie now, if they were moved: NAME=FOLDER", metavar="NAME=FOLDER"),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            help="folder in which made pictures, scans and reports stay; none are made without it",
            metavar="FOLDER",
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="the port, or the next one that is free", min=0, max=65535)] = 8123,
    host: Annotated[
        str,
        typer.Option(help="the address to listen on: others can reach only what is not 127.0.0.1", metavar="ADDRESS"),
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None,
        typer.Option(help="further names under which a browser reaches this machine", metavar="NAME"),
    ] = None,
) -> None:
    """Look at networks in a browser: layers, units, pictures, and every activation down to pixels.

    The page is on this machine alone, unless --host says otherwise; then it opens with a link that works once.
    """
    _check(host, name or [])
    from ..explorer.bench import Bench
    from ..explorer.serving import Door, listening
    from ..explorer.serving import serve as answer
    from ..explorer.shelf import Shelf

    with progress():
        specimens = _specimens(network, parts(net or []), atlas or [], roots_of(root or []))
        bench = Bench(specimens, Shelf(parts(pictures or [])), keep)
        if keep is not None and bench.jobs is None:
            raise OutputError(bench.no_jobs)
    with listening(host, port) as opened:
        door = Door.of(opened, parts(name or []))
        if port and door.port != port:
            print(f"convscope: port {port} is in use", file=sys.stderr)
        answer(bench, opened, door, lambda: print(f"{door.link}  (ctrl-C ends it)", flush=True))


def _check(host: str, names: Sequence[str]) -> None:
    needed = ("fastapi", "uvicorn", "jinja2", "python_multipart", "websockets")
    missing = [package for package in needed if not find_spec(package)]
    if missing:
        raise OutputError(f"the explorer needs {', '.join(missing)}: pip install 'convscope[web]'")
    if host in _EVERYWHERE and not names:
        raise OptionError(
            f"--host {host} listens on every address of this machine: say under which name browsers reach it, as "
            "--name lab.example.org"
        )


def _specimens(network: Network, nets: Sequence[str], atlases: Sequence[Path], roots: dict[str, str]) -> list[Specimen]:
    """Return the networks that are named, each with its atlas; those of the atlases where none is named."""
    from ..atlas.atlas import Atlas
    from ..explorer.bench import ids
    from ..explorer.specimen import Specimen

    loaded = [replace(network, net=name).load() for name in nets]
    if not loaded and not atlases:
        loaded = [network.load()]
    atlas_of: dict[int, Atlas] = {}
    for path in atlases:
        opened = Atlas(path, roots=roots)
        match = [at for at, net in enumerate(loaded) if net.digest == opened.manifest.weights]
        if match:
            opened = Atlas(path, roots=roots, net=loaded[match[0]])
            _ = opened.net  # raises where it reads pictures otherwise
        elif nets and opened.manifest.network.get("source") is None:
            raise AtlasError(f"{path} is of another network than {', '.join(nets)}: name the one that was scanned")
        else:
            loaded.append(opened.net)
            match = [len(loaded) - 1]
        if match[0] in atlas_of:
            raise AtlasError(f"{path} and {atlas_of[match[0]].path} are of one network: give one of them")
        atlas_of[match[0]] = opened
    return [
        Specimen(id, net, atlas_of.get(at))
        for at, (id, net) in enumerate(zip(ids([n.name for n in loaded]), loaded, strict=True))
    ]
