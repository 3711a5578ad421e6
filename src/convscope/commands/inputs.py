"""The pictures that commands are given, and options that say what is done with them.

Nothing here imports torch before a command runs: `convscope --help` must be quick.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..configuration import located
from ..errors import OptionError, OutputError, PictureError, PicturesFailed, one_line
from ..outputs import FILM_ENDINGS, PICTURE_ENDINGS
from .printing import ask, read_addresses

if TYPE_CHECKING:
    from ..data.pictures import Pictures as DataPictures

MANY = 10_000
"""How many pictures are drawn without a question, one file for each."""

_TOLD = 1000
"""From how many pictures on it is told beforehand how many there are."""


_NAMED = 10
"""Pictures that failed and are named, at most."""


Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help=f"file to write ({', '.join(PICTURE_ENDINGS)}); for several pictures a folder, or a film "
        f"({', '.join(FILM_ENDINGS)})",
    ),
]


def _size(text: Any) -> Any:
    """Read a side in pixels, or "HEIGHT,WIDTH". Raises OptionError."""
    parts = re.fullmatch(r"(\d+)(?:[,x](\d+))?", str(text))
    if parts is None:
        raise OptionError(f"size is a number of pixels, or HEIGHT,WIDTH as in 256,128; not {text!r}")
    return int(parts[1]) if parts[2] is None else (int(parts[1]), int(parts[2]))


Size = Annotated[
    Any,
    typer.Option(
        help="side of the network's input in pixels, or HEIGHT,WIDTH, where it takes more than one",
        parser=_size,
        metavar="PIXELS",
    ),
]
Of = Annotated[
    str | None,
    typer.Option(
        help="the objective: class index or name, p(class) for its probability, layer:channel, "
        "layer:channel@row,column, sums; the first choice by default"
    ),
]
Check = Annotated[
    bool,
    typer.Option("--check", help="say whether the map follows the weights: compare it with maps of random ones"),
]
Yes = Annotated[bool, typer.Option("--yes", help=f"draw more than {MANY:,} pictures without asking")]
Pictures = Annotated[
    list[str],
    typer.Argument(
        metavar="PICTURE",
        help="pictures or folders of pictures, or names of your configuration's data; - reads addresses from standard "
        "input, one per line",
    ),
]

Data = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA",
        help="folders with a folder for each class, tar or Parquet files, other pictures, or names of your "
        "configuration's data; - reads addresses from standard input, one per line",
    ),
]


def read_all(names: Sequence[str]) -> DataPictures:
    """Return all pictures that are named, in order.

    A name is a picture, a folder, a pattern, a .tar, .parquet or .arrow file, "sample:NAME", a name of the
    configuration's data, or "-": names on standard input. Raises PictureError or DataError; ends the command where
    standard input names none, as what found none says it.
    """
    from ..data.pictures import read_pictures

    return read_pictures(read_data(names))


def read_data(names: Sequence[str]) -> list[str]:
    """Return the sources that are named, as they are: a folder stays one, with its classes."""
    given: list[str] = []
    for name in names:
        given += read_addresses() if name == "-" else [located(name)]
    if not given and "-" in names:
        print("convscope: no pictures on standard input, so nothing to do", file=sys.stderr)
        raise typer.Exit
    return given


def find_one(name: str) -> str:
    """Return the address of one picture or folder; "-" reads it from standard input. Raises OptionError for several."""
    if name != "-":
        return located(name)
    named = read_addresses()
    if len(named) != 1:
        raise OptionError(f"this takes one picture, and standard input names {len(named)}")
    return named[0]


def find_all(names: Sequence[str]) -> list[str]:
    """Return the addresses of all pictures that are named, as `read_all` does."""
    return [picture.where for picture in read_all(names)]


def agree_to_many(count: int, place: Path, *, yes: bool, files: int = 0) -> None:
    """Tell how many files will be written into a folder where they are many, and ask where they are very many.

    Raises OptionError where nobody can answer.
    """
    if count > _TOLD:
        print(f"convscope: {count:,} pictures: {files or count:,} files will be written into {place}", file=sys.stderr)
    if count > MANY and not yes:
        ask("Draw them all?", f"{count:,} pictures are more than {MANY:,}: --yes draws them all without asking")


def refuse_failures(failures: Sequence[str], count: int, place: Path | str) -> None:
    """Raise PicturesFailed where some of several pictures failed, after `tell_failures`.

    Raises PictureError where the only one failed: then nothing was done.
    """
    if failures and count == 1:
        raise PictureError(failures[0])
    if failures:
        tell_failures(failures)
        others = f"; the others are in {place}" if str(place) else ""
        raise PicturesFailed(f"{len(failures):,} of {count:,} pictures failed{others}")


def tell_failures(failures: Sequence[str]) -> None:
    """Print why pictures failed, a line for each; of many the first are named and the others counted."""
    for failure in failures[:_NAMED]:
        print(f"convscope: failed: {one_line(failure)}", file=sys.stderr)
    if len(failures) > _NAMED:
        print(f"convscope: and {len(failures) - _NAMED:,} more", file=sys.stderr)


def refuse_overwriting(pictures: Iterable[str], targets: Iterable[Path]) -> None:
    """Refuse to write over the pictures that are read. Raises OutputError."""
    there = {_identity(target): target for target in targets if target.is_file()}
    for picture in map(Path, pictures if there else ()):
        if picture.is_file() and (target := there.get(_identity(picture))):
            raise OutputError(f"{target} is a picture that is read here, and would be written over: give another -o")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
