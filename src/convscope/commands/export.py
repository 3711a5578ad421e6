"""`convscope export`: the explorer's pages of an atlas as files, to hand on."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from .. import outputs
from ..errors import LayerError, OptionError, OutputError
from .groups import beginning, grouped
from .network import Network, parts
from .patches import BANDS, METHODS, roots_of
from .printing import ask, duration, print_file
from .progress import progress

if TYPE_CHECKING:
    from ..atlas.atlas import Atlas
    from ..explorer.exporting import Copy, Forecast
    from ..explorer.network_pages import Band, Projection

_SIZE, _SECONDS = 200e6, 900
"""Bytes and seconds above which it is asked first."""


@dataclass(frozen=True)
class Excerpt:
    """What of an atlas is taken."""

    layers: Annotated[
        list[str] | None,
        typer.Option(help="layers to take, by name, number or pattern; by default all that were scanned"),
    ] = None
    units: Annotated[
        str | None,
        typer.Option(
            help="which units of each layer: 0,5,12; so many at random, random:16; or those that tell a class best, "
            "top:AUC:16; by default all",
            metavar="UNITS",
        ),
    ] = None
    bands: Annotated[
        list[str] | None,
        typer.Option(
            help="which pictures of a unit, by default all that were kept",
            metavar=f"[{'|'.join(BANDS)}]",
            autocompletion=beginning(BANDS),
        ),
    ] = None
    method: Annotated[
        str,
        typer.Option(
            help="how units are projected down to pixels",
            metavar=f"[{'|'.join(METHODS)}]",
            autocompletion=beginning(METHODS),
        ),
    ] = METHODS[0]
    data_pictures: Annotated[
        bool,
        typer.Option(
            "--data-pictures/--no-data-pictures",
            help="take pieces of the scanned pictures, or projections and numbers only, where terms forbid to publish "
            "the pictures",
        ),
    ] = True

    def check(self) -> None:
        """Refuse what is no choice. Raises OptionError."""
        for name, values, words in (("method", [self.method], METHODS), ("bands", parts(self.bands or []), BANDS)):
            wrong = [value for value in values if value not in words]
            if wrong:
                raise OptionError(f"--{name} is {', '.join(words)}, not {wrong[0]!r}")

    def of(self, atlas: Atlas) -> Copy:
        """Return the copy of an atlas. Raises LayerError, OptionError for what the atlas does not have."""
        from ..explorer.exporting import Copy

        chosen = {name: _units(atlas, name, self.units) for name in _layers(atlas, parts(self.layers or []))}
        method, bands = cast("Projection", self.method), cast("list[Band]", parts(self.bands or []))
        return Copy(atlas, chosen, bands=bands or None, method=method, patches=self.data_pictures)


@grouped
def export(
    atlas: Annotated[str, typer.Argument(metavar="ATLAS", help="the folder or address that convscope scan wrote")],
    network: Network,
    excerpt: Excerpt,
    root: Annotated[
        list[str] | None,
        typer.Option(help="where the scanned pictures lie now, if they were moved: NAME=FOLDER", metavar="NAME=FOLDER"),
    ] = None,
    archive: Annotated[bool, typer.Option("--zip", help="write it as one file, too, FOLDER.zip")] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="the folder to write, or a .zip file", metavar="FOLDER")
    ] = Path("site"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="write it without asking, however large it is")] = False,
) -> None:
    """Write the explorer's pages of an atlas as files: they open by double click, or under any address.

    The same command goes on where one that was ended has stopped. Patches are pieces of the scanned pictures: publish
    them only where the terms of these allow it, or leave them out with --no-data-pictures.
    """
    excerpt.check()
    folder, packed = _places(out, archive)
    from ..atlas.atlas import Atlas

    with progress():
        given = None if network == Network() else network.load()
        with closing(excerpt.of(Atlas(atlas, net=given, roots=roots_of(root or [])))) as copy, _going_on(folder):
            _agree(copy.forecast(folder), folder, yes=yes)
            page = copy.write(folder)
            if packed is not None:
                copy.pack(folder, packed)
    if packed == out:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print_file(page)
    if packed is not None:
        print_file(packed)


def _places(out: Path, archive: bool) -> tuple[Path, Path | None]:
    """Return the folder to write, and the .zip file, if any. Raises OutputError before any work."""
    if not find_spec("jinja2") or not find_spec("fastapi"):
        raise OutputError("the explorer's pages need more packages: pip install 'convscope[web]'")
    from ..explorer.exporting import check_place

    if out.suffix.lower() in (*outputs.PICTURE_ENDINGS, *outputs.TABLE_ENDINGS, ".tar", ".gz", ".tgz", ".7z"):
        raise OutputError(f"-o is a folder, or a .zip file, not {out}: give {out.with_suffix('')}")
    alone = out.suffix.lower() == ".zip"
    folder = out.with_name(f"{out.stem}-parts") if alone else out
    packed = out if alone else out.with_name(f"{out.name}.zip") if archive else None
    check_place(folder)
    if packed is not None:
        outputs.check_file(packed)
    return folder, packed


def _layers(atlas: Atlas, asked: list[str]) -> list[str]:
    """Return the scanned layers that are named, in execution order. Raises LayerError."""
    if not asked:
        return list(atlas.layers)
    from ..atlas.units import choose_layers

    named: set[str] = set()
    for each in asked:
        found = {layer.name for layer in choose_layers(atlas.net, [each])} & {*atlas.layers}
        if not found:
            scanned = ", ".join(name or "output" for name in atlas.layers)
            raise LayerError(f"layer {each!r} was not scanned; scanned were {scanned}")
        named |= found
    return [name for name in atlas.layers if name in named]


def _units(atlas: Atlas, layer: str, asked: str | None) -> list[int]:
    from ..atlas.patches import units_asked

    if asked is None:
        return list(range(atlas.layers[layer].units))
    return sorted(units_asked(atlas, atlas.net.layers[layer], asked))


def _agree(forecast: Forecast, folder: Path, *, yes: bool) -> None:
    """Tell what will be written, and ask where that is much. Raises OptionError where nobody can answer."""
    if not forecast.files:
        return
    size = f"about {max(0.1, forecast.size / 1e6):,.1f} MB"
    time = duration(forecast.seconds)
    print(f"convscope: {forecast.files:,} files, {size}, about {time}: into {folder}", file=sys.stderr)
    if (forecast.size > _SIZE or forecast.seconds > _SECONDS) and not yes:
        less = "--layers, --units random:16 and --bands strongest take less"
        ask(f"Write it all? ({less})", f"that is much: --yes writes it all without asking; {less}")


@contextmanager
def _going_on(folder: Path) -> Generator[None]:
    """Say of an interruption how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        if folder.is_dir():
            print(
                f"convscope: interrupted; what was written is in {folder}. Run the same command again to go on",
                file=sys.stderr,
            )
        raise
