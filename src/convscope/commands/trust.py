"""`convscope trust`: which configurations may run code, and what they run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .. import trust as grants
from ..code_files import files_run_by
from ..configuration import FILE, PROJECT, read
from ..errors import ConfigurationError, visible
from ..zoo.configured import Code, code, configured_by
from .printing import ask


def trust(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]", help="convscope.toml, pyproject.toml, or a folder with one; the one in use by default"
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="trust it without asking")] = False,
    listing: Annotated[bool, typer.Option("--list", help="list what is trusted, and whether it changed since")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="trust it no longer")] = False,
) -> None:
    """Let a configuration run the code that it names: networks of your own Python files, and plugins.

    Shows the code first and asks. It is trusted as it is now: when the configuration or a file that it runs changes,
    it is refused until you trust it again.
    """
    if listing:
        _list()
    elif remove:
        _remove(path)
    else:
        _trust(path, yes=yes)


def _list() -> None:
    granted = grants.granted()
    if not granted:
        print("convscope: nothing is trusted yet", file=sys.stderr)
    for path, grant in granted.items():
        settings = configured_by(path) if path.is_file() else None
        holds = settings is not None and grants.holds(path, settings.sha256)
        state = "trusted" if holds else "changed since" if settings else "no longer there"
        print(f"{state}: {visible(str(path))}, {len(grant.files)} file{'s' * (len(grant.files) != 1)}")


def _remove(path: Path | None) -> None:
    found = _located(path)
    if not grants.revoke(found):
        raise ConfigurationError(f"{found} is not trusted; convscope trust --list says what is")
    print(f"no longer trusted: {visible(str(found))}")


def _trust(path: Path | None, *, yes: bool) -> None:
    found = _located(path)
    settings, asks = configured_by(found), code(configured_by(found))
    if not asks and grants.is_ours(found):
        print(f"{visible(str(found))} runs no code, and needs no trust")
        return
    _show(found, asks)
    if not yes:
        ask(
            "Trust this configuration, and this code as it is now?",
            f"nobody is there to answer: convscope trust {shlex.quote(str(found))} --yes trusts it without asking",
        )
    grants.grant(found, settings.sha256, dict.fromkeys(each.file for each in asks if each.file is not None))
    print(f"trusted until it or its code changes: {visible(str(found))}")


def _located(path: Path | None) -> Path:
    """Return the configuration that is meant; it need not be there."""
    if path is None:
        found = read().path
        if found is None:
            raise ConfigurationError(f"no {FILE} is in use here: name one, as in convscope trust FOLDER")
        return found
    if path.is_dir():
        path = path / (PROJECT if (path / PROJECT).is_file() and not (path / FILE).exists() else FILE)
    return path.parent.resolve() / path.name


def _show(path: Path, asks: Sequence[Code]) -> None:
    print(f"{visible(str(path))} names:")
    for each in asks:
        print(f"  {visible(each.where)}: {visible(each.what)}")
        for file in files_run_by(each.file) if each.file is not None else ():
            content = grants.fingerprint(file)
            lines = len(file.read_bytes().splitlines()) if content else 0
            print(f"    {visible(str(file))}: {lines} lines, SHA-256 {content[:16] if content else 'unreadable'}")
