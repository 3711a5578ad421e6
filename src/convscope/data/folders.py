"""Files by name: folders, patterns with * and ?, numbered ranges in braces, and the classes that folders stand for."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from .. import addresses
from ..errors import DataError, PictureError
from . import connections, storage
from .storage import Remote

SUFFIXES = frozenset(".apng .bmp .gif .jpeg .jpg .npy .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split())
"""Endings of files that are read as pictures, in folders as by their names."""

_HOLDING = frozenset({".tar", ".parquet", ".arrow"})


def find_names(folder: Path | Remote, suffixes: Iterable[str], *, linked: bool = False) -> list[tuple[str, int]]:
    """List what `find_files` does by the names from the folder on, and sizes in bytes, -1 where none is told.

    A storage is asked for all names at once, and they come in the order that they would have as files. Raises
    DataError, StorageError.
    """
    if isinstance(folder, Path):
        return [(os.path.relpath(path, folder), -1) for path in find_files(folder, suffixes, linked=linked)]
    wanted = frozenset(suffixes)
    found = [
        (name, size)
        for name, size in storage.below(folder)
        if os.path.splitext(name)[1].lower() in wanted and not _is_hidden(name)  # noqa: PTH122
    ]
    return sorted(found, key=lambda each: each[0].replace("/", "\0"))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name


def find_files(folder: Path, suffixes: Iterable[str], *, linked: bool = False) -> list[Path]:
    """List the files with these endings in a folder and below it, by name; none that is hidden or in a hidden folder.

    Links to files are followed; those to folders, where they are `linked`, only right below the folder, and not those
    to the folder itself or to one above it. Raises DataError for a folder that holds the user's home folder.
    """
    roots = [str(folder)]
    if linked:
        links = (entry for entry in os.scandir(folder) if entry.is_symlink() and not entry.name.startswith("."))
        roots += [link.path for link in links if os.path.isdir(link) and not _holds(link.path, str(folder))]  # noqa: PTH112
    for root in roots:
        _refuse_home(root)
    paths = (path for root in roots for path in _walk(root))
    return sorted(Path(path) for path in paths if os.path.splitext(path)[1].lower() in suffixes)  # noqa: PTH122


def _refuse_home(folder: str) -> None:
    """Refuse the home folder and those above it, up to the root: a slip of the finger, and hours of other pictures."""
    home = os.path.expanduser("~")  # noqa: PTH111  never raises
    if _holds(folder, home):
        what = "is" if _holds(home, folder) else "holds"
        pattern = os.path.join(folder, "*.jpg")  # noqa: PTH118
        raise DataError(
            f"{folder} {what} your home folder, and would give the pictures of every program in it: name the folder "
            f"of your own pictures, or a pattern, as in '{pattern}'"
        )


def _holds(folder: str, inner: str) -> bool:
    """Whether a path lies in a folder, or is the folder, when all links are followed."""
    outer = os.path.realpath(folder)
    return os.path.join(os.path.realpath(inner), "").startswith(os.path.join(outer, ""))  # noqa: PTH118


def _walk(root: str) -> Iterator[str]:
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in files if not name.startswith("."))  # noqa: PTH118


def expand(pattern: str) -> list[str]:
    """Return the paths that a pattern stands for: `*`, `?`, `[a-z]`, `**`, `{a,b}` and `{000..127}`, in order.

    A path that exists, lies in a file that exists ("shard.tar#[1].jpg"), or holds none of these signs stands for
    itself. Raises PictureError where nothing matches.
    """
    if addresses.is_remote(pattern):
        return _expand_remote(pattern)
    if not re.search(r"[*?\[{]", pattern) or os.path.lexists(pattern) or _is_file(pattern.rpartition("#")[0]):
        return [pattern]
    paths: list[str] = []
    for path in _braces(pattern):
        plain = _is_frame(path) or not glob.has_magic(path)
        paths += [path] if plain else sorted(glob.glob(path, recursive=True))  # noqa: PTH207  Path.glob drops a "./"
    if not paths:
        raise PictureError(f"no file matches {pattern!r}")
    return paths


def _expand_remote(pattern: str) -> list[str]:
    inside = any(os.path.splitext(file)[1].lower() in _HOLDING for file in pattern.split("#")[:-1])  # noqa: PTH122
    connections.check(pattern)
    if inside or not addresses.is_pattern(pattern):
        return [pattern]
    paths: list[str] = []
    for path in _braces(pattern):
        paths += [path] if _is_frame(path) or not addresses.is_pattern(path) else storage.matching(path)
    if not paths:
        if storage.Remote(pattern).is_file():
            return [pattern]
        raise PictureError(f"no file matches {pattern!r}")
    return paths


def _is_file(path: str) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  never raises


def _is_frame(path: str) -> bool:
    """Whether a path names frames of a film, "film.gif[0]" or "film.gif[2:5]"."""
    match = re.fullmatch(r"([^*?\[]+)\[-?\d*(?::-?\d*){0,2}\]", path)
    return match is not None


def _braces(pattern: str) -> list[str]:
    match = re.search(r"\{([^{}]*)\}", pattern)
    span = re.fullmatch(r"(\d+)\.\.(\d+)", match[1]) if match else None
    if match is None or (span is None and "," not in match[1]):
        return [pattern]
    if span is None:
        parts = match[1].split(",")
    else:
        first, last = int(span[1]), int(span[2])
        parts = [str(number).zfill(len(span[1])) for number in range(first, last + 1)]
    return [path for part in parts for path in _braces(pattern[: match.start()] + part + pattern[match.end() :])]


def common_root(paths: Iterable[str]) -> str:
    """Return the folder that all paths have in common, with a slash at its end, or nothing."""
    paths = list(paths)
    if any(map(addresses.is_remote, paths)):
        return addresses.common_folder(paths)
    parents = {os.path.dirname(path) for path in paths}  # noqa: PTH120
    try:
        root = os.path.commonpath(parents) if parents else ""
    except ValueError:  # relative and absolute ones, or several drives
        return ""
    return os.path.join(root, "") if root else ""  # noqa: PTH118


def class_folders(names: Iterable[str]) -> list[str] | None:
    """Return the class of every picture, the first folder of its name; None where a picture lies in no folder."""
    classes: list[str] = []
    for name in names:
        first, *rest = PurePath(name).parts
        if not rest:
            return None
        classes.append(sys.intern(first))  # of a million pictures, as many texts as there are classes
    return classes or None
