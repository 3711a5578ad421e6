"""Where what is made of many pictures goes: below one folder, in the folders that the pictures are in."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..data.folders import SUFFIXES, common_root
from ..data.pictures import Picture
from ..errors import OutputError

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
    seen = Counter[tuple[str, ...]]()
    files: list[Path] = []
    for path, stem in zip(parts, stems, strict=True):
        kept = path if stem in shared else stem
        seen[kept] += 1
        number = f"-{seen[kept]}" if seen[kept] > 1 else ""
        first, *others = (*kept[:-1], f"{''.join(kept[-1:])}{number}{ending}")
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


def check_inside(file: Path, folder: Path) -> None:
    """Refuse a file that a link leads out of the folder. Raises OutputError."""
    inside = os.path.realpath(folder)
    if not os.path.realpath(file).startswith(os.path.join(inside, "")):  # noqa: PTH118
        raise OutputError(f"{file} leads out of {folder} by a link: remove it, or choose another folder")
