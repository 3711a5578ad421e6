"""Where what is made of many pictures goes: below one folder, in the folders that the pictures are in."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from .. import addresses
from ..errors import OutputError
from .folders import SUFFIXES, common_root
from .pictures import Picture

_LONGEST = 200
"""Bytes of a name that are kept: file systems hold 255."""


def files_of(pictures: Sequence[Picture], ending: str, taken: Sequence[str]) -> list[Path]:
    """Return a file for each picture, in its folders below the one that was named, or that all have in common.

    Pictures that differ in their ending alone ("cat.jpg", "cat.png") keep it; the same one again is numbered. No name
    leads out of a folder, and none is `taken`.
    """
    root = common_root(picture.where for picture in pictures)
    parts = [_parts(picture.name or picture.where.removeprefix(root)) for picture in pictures]
    stems = [_stem(path) for path in parts]
    shared = {stem for stem, count in Counter(stems).items() if count > 1}
    kept = ["/".join(path if stem in shared else stem) for path, stem in zip(parts, stems, strict=True)]
    files: list[Path] = []
    for name in _numbered(kept, ending):
        first, *others = f"{name}{ending}".split("/")
        files.append(Path(f"{first}-" if others and first in taken else first, *others))
    return files


def _parts(address: str) -> tuple[str, ...]:
    """Return the folders and the name of an address: a file that holds pictures is a folder."""
    parts = [part for part in re.split(r"[/\\#:]+", address) if part not in ("", ".", "..")]
    return tuple(map(_short, parts)) or ("picture",)


def _short(name: str) -> str:
    raw = os.fsencode(name)
    if len(raw) <= _LONGEST:
        return name
    return f"{raw[: _LONGEST - 20].decode('utf-8', 'ignore')}-{hashlib.sha256(raw).hexdigest()[:16]}"


def _stem(path: tuple[str, ...]) -> tuple[str, ...]:
    name, suffix = os.path.splitext(path[-1])  # noqa: PTH122  the last part alone
    return (*path[:-1], name) if suffix.lower() in SUFFIXES else path


def distinct_names(pictures: Sequence[str], ending: str = ".png") -> list[str]:
    """Name outputs after the pictures, in their folders below the one that all have in common: "a/0001", "b/0001".

    A name depends on the common folder, not on what else is there, unless only endings differ ("cat.jpg", "cat.png"):
    then these stay. Without a common folder the last part is the name where that tells all apart. Names that are the
    same, also to file systems that do not tell capitals apart, are numbered, and so is one whose file, with the
    `ending`, would be the folder of another. No name leads out of a folder.
    """
    paths = [addresses.as_path(picture) for picture in pictures]
    last = [re.split(r"[/\\#:]", path)[-1] for path in paths]
    root = common_root(paths)
    if not root and len(set(last)) == len(set(paths)):
        plain = [_inside(name) for name in last]
    else:
        plain = [_inside(path.removeprefix(root)) for path in paths]
    # "17" after "b.parquet-" is a row.
    files = {name: "/".join(_stem(tuple(name.split("/")))) for name in plain}
    shared = {stem for stem, count in Counter(files.values()).items() if count > 1}
    kept = [name if files[name] in shared else files[name] for name in plain]
    return _numbered(kept, ending)


def _numbered(names: Sequence[str], ending: str) -> list[str]:
    """Number names that come again, by numbers that no other name has, and those whose file would be a folder."""
    there, used, last, distinct = {name.casefold() for name in names}, set[str](), Counter[str](), list[str]()
    folders = {folder for name in there for folder in accumulate(name.split("/")[:-1], "{}/{}".format)}
    for name in names:
        own, chosen = name.casefold(), name
        while (low := chosen.casefold()) in used or (low != own and low in there) or low + ending in folders:
            last[own] += 1
            chosen = f"{name}-{last[own] + 1}"
        used.add(low)
        distinct.append(chosen)
    return distinct


def _inside(address: str) -> str:
    """Return an address as a relative path without dots that lead elsewhere."""
    parts = (re.sub(r"[\\#:]+", "-", part).strip("-.") for part in address.split("/"))
    return "/".join(filter(None, parts)) or "picture"


def check_inside(file: Path, folder: Path) -> None:
    """Refuse a file that a link leads out of the folder. Raises OutputError."""
    inside = os.path.realpath(folder)
    if not os.path.realpath(file).startswith(os.path.join(inside, "")):  # noqa: PTH118
        raise OutputError(f"{file} leads out of {folder} by a link: remove it, or choose another folder")
