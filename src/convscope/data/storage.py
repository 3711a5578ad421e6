"""Storage: the one place that knows whether an address is a path of this machine or lies in a storage of fsspec's.

`at` returns a `Path`, or a `Remote`, which has the few methods of `Path` that readers of pictures use. A remote file is
read in ranges: blocks of a megabyte, of which the last ones are kept for whoever reads the pictures beside.
"""

from __future__ import annotations

import atexit
import io
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from time import monotonic, sleep
from typing import Any, BinaryIO, cast

from .. import addresses
from ..errors import DataError, PictureError, StorageError
from ..kept import Kept
from .blocks import BLOCK, Blocks
from .connections import connect, in_words
from .limits import check_file

_PIECE = 32 << 20
"""Bytes that are asked for at once, of more than a block."""

_TRIES, _PAUSE = 3, 0.3
"""How often a web server is asked, which fsspec asks once, and the seconds between."""

_KNOWN = 60.0
"""Seconds for which the size of a remote file is taken as known."""

_DEEPEST, _MOST_PAGES, _MOST_NAMES = 16, 20_000, 20_000_000
"""How deep, in how many folders and for how many names a listing goes: a web server's may have no end."""


@dataclass(frozen=True)
class Status:
    """A remote file's size, and a number that changes with its content, named as `os.stat` has them."""

    st_size: int
    st_mtime_ns: int
    is_file: bool = True


_known: Kept[tuple[str, int], Status] = Kept(10_000)
_contents: Kept[tuple[str, int], bytes] = Kept(32)
"""The last pictures: whoever decodes one has just hashed it, or will."""

_LARGE = 4 << 20
"""Bytes above which a picture is not among them."""


@dataclass(frozen=True)
class Remote:
    """A file or folder in a storage, by its address without secrets; the methods are those of `Path`."""

    address: str

    def __str__(self) -> str:
        return self.address

    @cached_property
    def _path(self) -> PurePosixPath:
        return addresses.path_of(self.address)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self._path.name

    @property
    def suffix(self) -> str:
        """The ending of the name."""
        return self._path.suffix

    @property
    def suffixes(self) -> list[str]:
        """All endings of the name."""
        return self._path.suffixes

    def __truediv__(self, name: str) -> Remote:
        return Remote(addresses.join(self.address, name))

    def stat(self) -> Status:
        """Return size and version; asked for once a minute. Raises PictureError where nothing is, StorageError."""
        return _known.of((self.address, int(monotonic() / _KNOWN)), self._stat)

    def _stat(self) -> Status:
        connection, name = connect(self.address)
        with in_words(self.address):
            info: dict[str, Any] = connection.ask("info", name)
        if info.get("type") == "directory":
            return Status(0, 0, is_file=False)
        if info.get("size") is None:
            raise StorageError(f"{self.address} does not say how large it is: download it")
        told = [str(info.get(key)) for key in ("ETag", "etag", "LastModified", "mtime", "updated", "Last-Modified")]
        return Status(int(info["size"]), zlib.crc32(" ".join([*told, str(info.get("sha256"))]).encode()))

    def exists(self) -> bool:
        """Whether there is a file or a folder. Raises StorageError where nobody knows."""
        return self.is_dir() or self.is_file()

    def is_file(self) -> bool:
        """Whether there is a file."""
        try:
            return self.stat().is_file
        except PictureError:
            return False

    def is_dir(self) -> bool:
        """Whether it is a folder; of the web, whether the address ends with a slash."""
        if addresses.parts(self.address)[0].endswith("/") or addresses.is_bucket(self.address):
            return True
        if addresses.scheme_of(self.address) in ("http", "https"):
            return False
        connection, name = connect(self.address)
        try:
            with in_words(self.address):
                if hasattr(connection.filesystem, "call_s3"):
                    return next(_pages(connection, name, most=1), None) is not None
                return bool(connection.ask("isdir", name))
        except PictureError:
            return False

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the file to be read in ranges, by blocks. Raises PictureError, StorageError."""
        return cast(BinaryIO, io.BufferedReader(_Ranges(self), 1 << 16))

    def open_exact(self) -> BinaryIO:
        """Open the file for a reader that knows which ranges it needs. Raises PictureError, StorageError."""
        return cast(BinaryIO, _Ranges(self, exact=True))

    def read_range(self, start: int, size: int, *, exact: bool = False) -> bytes:
        """Return so many bytes from a place on, fewer at the end of the file; small ones from blocks unless `exact`.

        Raises PictureError, StorageError.
        """
        status = self.stat()
        end = min(start + size, status.st_size)
        size = max(0, end - start)
        if size > BLOCK or exact:
            return b"".join(self._exactly(at, min(_PIECE, end - at)) for at in range(start, end, _PIECE))
        return _blocks.read((self.address, status.st_mtime_ns), start, size, status.st_size, self._exactly)

    def read_anew(self, most: int) -> bytes:
        """Return the first bytes as they are now, whatever is known of the file. Raises PictureError, StorageError."""
        return self._fetch(0, most)

    def read_bytes(self, check: Callable[[bytes], object] | None = None) -> bytes:
        """Return the whole content, in one request where the file is small.

        `check` may refuse a large file by its beginning. Raises PictureError for one that is too large.
        """
        key = (self.address, int(monotonic() / _KNOWN))
        content = _contents.of(key, lambda: self._content(check))
        if len(content) > _LARGE:
            _contents.forget(lambda each: each == key)
        return content

    def _content(self, check: Callable[[bytes], object] | None) -> bytes:
        head = self._fetch(0, BLOCK)
        if len(head) != BLOCK:  # all of it, also from a server that knows no ranges
            return head
        size = self.stat().st_size
        check_file(size, 1, self.address)
        if check is not None:
            check(head)
        return head + (self.read_range(BLOCK, size - BLOCK) if size > BLOCK else b"")

    def _exactly(self, start: int, size: int) -> bytes:
        content = self._fetch(start, size)
        if len(content) != size:
            raise StorageError(
                f"{self.address} gave {len(content):,} bytes where {size:,} were asked for: it has changed, or its "
                "server gives whole files only; download it"
            )
        return content

    def _fetch(self, start: int, size: int) -> bytes:
        connection, name = connect(self.address)
        for tries_left in reversed(range(_TRIES if addresses.scheme_of(self.address) in ("http", "https") else 1)):
            try:
                with in_words(self.address):
                    return connection.ask("cat_file", name, start=start, end=start + size)
            except StorageError:
                if not tries_left:
                    raise
                sleep(_PAUSE)
            except PictureError as error:
                if start == 0 and any(word in str(error) for word in ("InvalidRange", "416", "not satisfiable")):
                    return b""
                raise
        raise AssertionError("one of the tries returned or raised")


class _Ranges(io.RawIOBase):
    """A remote file as a stream that can be moved in."""

    def __init__(self, remote: Remote, *, exact: bool = False) -> None:
        self._remote, self._size, self._at, self._exact = remote, remote.stat().st_size, 0, exact

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative place in a file")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        content = self._remote.read_range(self._at, len(buffer), exact=self._exact)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


_blocks = Blocks()


Place = Path | Remote
"""Where something lies: at a path of this machine, or in a storage."""


def at(source: object) -> Place:
    """Return what is at an address: a path of this machine, or what lies in a storage."""
    text = addresses.public(source)
    return Remote(text) if addresses.is_remote(text) else Path(text)


# Listing --------------------------------------------------------------------------------------------------------------


def below(folder: Remote) -> Iterator[tuple[str, int]]:
    """Yield the name, from the folder on, and the size of every file below a folder; -1 where no size is told.

    One listing of all, page by page where the storage gives pages. Raises StorageError, DataError.
    """
    connection, root = connect(folder.address)
    with in_words(folder.address):
        if hasattr(connection.filesystem, "call_s3"):
            found = _pages(connection, root)
        elif addresses.scheme_of(folder.address) in ("http", "https"):
            found = _linked(connection, root, 0, [_MOST_PAGES])
        else:
            found = _found(connection, root)
        begin = root.rstrip("/") + "/" if root.strip("/") else root
        for count, (name, size) in enumerate(found):
            if count >= _MOST_NAMES:
                raise DataError(f"{folder} holds more than {_MOST_NAMES:,} files: name a folder in it")
            inside = name.removeprefix(begin).lstrip("/")
            if inside and not inside.endswith("/") and ".." not in inside.split("/"):
                yield inside, size


def _found(connection: Any, root: str) -> Iterator[tuple[str, int]]:
    for name, info in connection.ask("find", root, detail=True).items():
        yield name, -1 if info.get("size") is None else int(info["size"])


def _pages(connection: Any, root: str, most: int = 1000) -> Iterator[tuple[str, int]]:
    """Yield names from S3 a page at a time: what s3fs makes of all of them together would take gigabytes."""
    bucket, _, folder = root.partition("/")
    asked = {"Bucket": bucket, "Prefix": f"{folder.rstrip('/')}/" if folder else "", "MaxKeys": most}
    while True:
        page: dict[str, Any] = connection.ask("call_s3", "list_objects_v2", **asked)
        for entry in page.get("Contents", ()):
            yield f"{bucket}/{entry['Key']}", int(entry["Size"])
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def _linked(connection: Any, page: str, depth: int, left: list[int]) -> Iterator[tuple[str, int]]:
    """Yield what the pages of a web server's folder link to, below that folder."""
    left[0] -= 1
    if left[0] < 0 or depth > _DEEPEST:
        raise DataError(f"{addresses.shown(page)} has folders without an end: name a folder in it")
    page = page.rstrip("/") + "/"
    for link in sorted(connection.ask("ls", page, detail=False)):
        name: str = link.removeprefix(page).removeprefix("./")
        if "?" in name or "#" in name or "//" in name or name.startswith((".", "/")) or name in ("", "/"):
            continue
        if name.endswith("/"):
            yield from _linked(connection, page + name, depth + 1, left)
        else:
            yield page + name, -1


def matching(pattern: str) -> list[str]:
    """Return the addresses that match a pattern with *, ? and [a-z], sorted; none that is hidden.

    Raises StorageError, and PictureError for ** on the web.
    """
    link, chain, rest = addresses.parts(pattern)
    before = re.split(r"[*?\[]" if addresses.scheme_of(link) not in ("http", "https") else r"[*\[]", link)[0]
    folder = Remote(before[: before.rfind("/") + 1] + chain + rest)
    if addresses.scheme_of(link) in ("http", "https") and "**" in link:
        raise PictureError(f"{pattern} could go on without an end: name the folder, {folder}, or use single *")
    connection, root = connect(folder.address)
    _, whole = connect(pattern)
    with in_words(pattern):
        found: list[str] = connection.ask("glob", whole)
    names = [name.removeprefix(root.rstrip("/")).lstrip("/") for name in found]
    wanted = {name for name in names if "/." not in f"/{name}" or "/." in link}
    return sorted(addresses.join(folder.address, name) for name in wanted)


def names_in(folder: str | Place) -> list[str]:
    """Return the names of the files right in a folder, sorted; none where there is no folder. Raises StorageError."""
    place = at(folder)
    if isinstance(place, Path):
        return sorted(entry.name for entry in place.iterdir() if entry.is_file()) if place.is_dir() else []
    return sorted(name for name, _ in below(place) if "/" not in name)


# Copies ---------------------------------------------------------------------------------------------------------------

_copies: Kept[tuple[str, int, Status], Path] = Kept(100_000)


def forget(place: Remote) -> None:
    """Forget what is known of a file that is written anew."""
    for kept in (_known, _contents, _copies):
        kept.forget(lambda key: key[0] == place.address)


def check_room(size: int) -> None:
    """Refuse to copy so many bytes where there is no room; what is copied already counts. Raises DataError."""
    folder = Path(_folder(os.getpid()))
    there, free = sum(copy.stat().st_size for copy in folder.iterdir()), shutil.disk_usage(folder).free
    if size - there > free:
        raise DataError(
            f"{size / 1e6:,.0f} MB are copied to {folder.parent}, where {free / 1e6:,.0f} MB are free: set TMPDIR to a "
            "folder that has room"
        )


def local(place: Place) -> Path:
    """Return a file of this machine with the same content, for readers that take nothing else.

    A remote one is copied once; the copy is gone when the process ends. Raises DataError where it has no room.
    """
    if isinstance(place, Path):
        return place
    status = place.stat()
    return _copies.of((place.address, os.getpid(), status), lambda: _copied(place, status.st_size))


@contextmanager
def called(copy: Path, name: str) -> Generator[None]:
    """Let errors about a copy name the address that it is a copy of. Raises PictureError."""
    try:
        yield
    except PictureError as error:
        raise PictureError(str(error).replace(str(copy), name)) from None


def _copied(place: Remote, size: int) -> Path:
    folder = _folder(os.getpid())
    free = shutil.disk_usage(folder).free
    if size > free / 2:
        raise DataError(f"{place} has {size / 1e6:,.0f} MB, more than half of what is free in {folder}: download it")
    handle, path = tempfile.mkstemp(place.suffix, dir=folder)
    with os.fdopen(handle, "wb") as file:
        for start in range(0, size, _PIECE):
            file.write(place.read_range(start, min(_PIECE, size - start)))
    return Path(path)


@lru_cache(maxsize=1)
def _folder(process: int) -> str:
    folder = tempfile.mkdtemp(prefix="convscope-")
    atexit.register(_remove, folder, process)
    return folder


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:  # not in a process that was forked later
        shutil.rmtree(folder, ignore_errors=True)
