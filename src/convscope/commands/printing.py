"""What commands print and read: names of files, addresses of pictures, questions."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError, visible
from ..parsing import Document

AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]


def ask(question: str, unanswered: str) -> None:
    """Ask on a terminal, and end the command unless the answer is yes.

    Raises OptionError with what is `unanswered` where nobody can answer.
    """
    if not sys.stdin.isatty():
        raise OptionError(unanswered)
    typer.confirm(question, abort=True, err=True)


def print_file(path: Path | str, *, beside: bool = False) -> None:
    """Print the name of a file that was written, in one line; on stderr where it stands `beside` an output."""
    print(visible(str(path)), file=sys.stderr if beside else sys.stdout)


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def print_addresses(addresses: Iterable[str]) -> None:
    """Print addresses one per line, as `-` reads them; those that a line cannot hold as JSON strings."""
    for address in addresses:
        plain = address not in ("", "-") and address == visible(address).strip() and not address.startswith('"')
        print(address if plain else json.dumps(address))


def read_addresses() -> list[str]:
    """Read addresses from standard input, one per line, plain or as JSON strings. Raises OptionError."""
    if sys.stdin is None:
        raise OptionError("standard input is closed: `-` reads the addresses of pictures from it, one per line")
    if sys.stdin.isatty():
        print("convscope: reading addresses of pictures, one per line, up to ctrl-D", file=sys.stderr)
    try:
        text = os.fsdecode(sys.stdin.buffer.read())
    except OSError as error:
        raise OptionError(f"cannot read standard input: {error.strerror}") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return [_address(line) for line in lines if line.strip()]


def _address(line: str) -> str:
    if not line.startswith('"'):
        return line
    return Document("the line of standard input", line, OptionError).json(str)
