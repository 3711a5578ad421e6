"""Uploads: files written whole or not at all, to a path of this machine or to a storage, and who may write there.

What no storage of fsspec's gives is locks that end with their process. A lock there is a file that only one can make;
that of a process which was killed on another machine stays until somebody removes it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

from .. import addresses, locks, outputs
from ..errors import ConvscopeError, DataError, OutputError, PictureError, StorageError
from .connections import check, connect, in_words
from .storage import Place, Remote, at, forget

PARTS = ".part"
"""Ending of what is written, in storages that would show a half of it under its own name."""

_WHOLE = (*addresses.BUCKETS, "memory")
"""Storages whose objects appear whole or not at all."""

_READ_ONLY = ("http", "https", "zip", "github")

_SLOWEST = 250_000
"""Bytes a second that a connection takes at least: an upload may take as long as that."""

_Ask = Callable[..., object]

_TRIES, _LONGEST = 5, 10_000
"""How often a lock is asked for that its owner gives back just then, and its bytes at most."""


def check_writable(place: Place) -> None:
    """Refuse a folder that no file can be written to; no storage is asked. Raises OutputError, DataError."""
    if isinstance(place, Path):
        outputs.check_folder(place)
        return
    check(place.address)
    scheme = addresses.scheme_of(place.address)
    if scheme in _READ_ONLY:
        raise OutputError(
            f"cannot write {place}: {scheme} addresses are read only; name a folder, or s3://bucket/folder"
        )


def write_whole(address: str | Place, content: bytes) -> None:
    """Write a file that nobody ever sees in part, also where it exists already. Raises OutputError, StorageError."""
    place = at(address)
    if isinstance(place, Path):
        outputs.write_bytes(place, content, durable=True)
        return
    with _uploading(place) as (ask, name):
        if addresses.scheme_of(place.address) in _WHOLE:
            ask("pipe_file", name, content, size=len(content))
            return
        temporary = f"{name}.{os.getpid()}.{os.urandom(4).hex()}{PARTS}"
        ask("makedirs", name.rpartition("/")[0], exist_ok=True)
        ask("pipe_file", temporary, content, size=len(content))
        ask("mv", temporary, name)


@contextmanager
def writing(place: Place) -> Generator[Path]:
    """Give a temporary path for the content of a file, which appears whole at the end of the block.

    Raises OutputError, StorageError.
    """
    if isinstance(place, Path):
        with outputs.writing(place, durable=True) as path:
            yield path
        return
    with tempfile.TemporaryDirectory(prefix="convscope-") as folder:
        path = Path(folder) / place.name
        yield path
        write_whole(place, path.read_bytes())


def remove(place: Place) -> None:
    """Remove a file, where there is one. Raises OutputError, StorageError."""
    if isinstance(place, Path):
        place.unlink(missing_ok=True)
        return
    forget(place)
    if place.is_file():
        with _uploading(place) as (ask, name):
            ask("rm_file", name)


@contextmanager
def lock(place: Place, what: str) -> Generator[None]:
    """Have to oneself, inside the block, what a file stands for, as `locks.lock` does it; `what` it is, for messages.

    Raises OutputError where another has it, or where the file cannot be written; StorageError.
    """
    if isinstance(place, Path):
        with locks.lock(place, what):
            yield
        return
    own = json.dumps(asdict(locks.this_process()) | {"token": uuid4().hex}).encode()
    _take(place, own, what)
    try:
        yield
    finally:
        with suppress(ConvscopeError):  # the next on this machine sees that this process has ended
            if _content(place) == own:
                remove(place)


def _take(place: Remote, own: bytes, what: str) -> None:
    for _ in range(_TRIES):
        if not _content(place):  # a storage that knows no files which only one makes would write over it
            _create(place, own)
        there = _content(place)
        if there == own:  # also where it was made and the answer was lost
            return
        owner = locks.owner_in(there)
        if there and not (owner is not None and owner.is_gone):
            raise OutputError(locks.refusal(place, owner, what))
        remove(place)
    raise OutputError(f"{what} is in use, says {place}: wait, or choose another place with -o")


def _create(place: Remote, content: bytes) -> None:
    """Make a file where there is none, and leave one that is there as it is, where the storage can do so."""
    with _uploading(place) as (ask, name):
        if addresses.scheme_of(place.address) not in _WHOLE:
            ask("makedirs", name.rpartition("/")[0], exist_ok=True)
        with suppress(FileExistsError):
            ask("pipe_file", name, content, mode="create")


def _content(place: Remote) -> bytes:
    """Return what a lock's file holds now; nothing where there is none."""
    try:
        return place.read_anew(_LONGEST)
    except PictureError:
        return b""


@contextmanager
def _uploading(place: Remote) -> Generator[tuple[_Ask, str]]:
    """Give what asks the storage of a file, and the file's name there; say in words what goes wrong."""
    check_writable(place)
    connection, name = connect(place.address)

    def ask(method: str, *args: object, size: int = 0, **options: object) -> object:
        return connection.ask(method, *args, more=size / _SLOWEST, **options)

    try:
        with in_words(place.address):
            yield ask, name
    except StorageError:
        raise
    except (DataError, PictureError) as error:
        raise OutputError(f"cannot write {place}: {error}") from None
    finally:
        forget(place)
