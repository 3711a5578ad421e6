"""Tar files of pictures, plain or as WebDataset writes them: key.jpg beside key.cls, key.json or key.txt."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DataError, PictureError
from ..parsing import Document
from .folders import SUFFIXES, class_folders
from .limits import check_file
from .storage import Remote

_COMPRESSED = frozenset({".gz", ".tgz", ".xz", ".txz", ".bz2", ".tbz2", ".zst"})
_LABELS = (".cls", ".json", ".txt")
_LABEL_KEYS = ("label", "cls", "class", "class_name", "label_name", "class_id")
_LARGEST_LABEL = 1 << 20

Label = int | str | None


@dataclass(frozen=True)
class Member:
    """A picture in a tar file: where its bytes are, and its label where the shard has one."""

    name: str
    offset: int
    size: int
    label: Label = None


@dataclass(frozen=True)
class Shard:
    """The pictures of a tar file in its order, and what ended the list where the file is damaged."""

    path: Path | Remote
    members: tuple[Member, ...]
    by_name: Mapping[str, Member]
    classes: tuple[str, ...] = ()
    error: str = ""


def is_shard(path: Path | Remote) -> bool:
    """Whether a file is a tar file, by its name. Raises DataError for a compressed one."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in _COMPRESSED and (suffixes[-1].startswith(".t") or ".tar" in suffixes):
        raise DataError(f"{path} is compressed: unpack it, or make a .tar of it (pictures are compressed already)")
    return suffixes[-1:] == [".tar"]


def open_shard(path: Path | Remote) -> Shard:
    """List the pictures of a tar file; its headers are read once. Raises DataError for what is no tar file."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    return _listed(path, stat.st_size, stat.st_mtime_ns)


def read_member(path: Path | Remote, name: str) -> bytes:
    """Return the bytes of one picture in a tar file. Raises PictureError when it is not there or cut short."""
    member = open_shard(path).by_name.get(name)
    if member is None:
        raise PictureError(f"there is no picture {name} in {path}")
    try:
        content = _read(path, member.offset, max(0, min(member.size, path.stat().st_size)))  # or it fits no buffer
    except OSError as error:
        raise PictureError(f"cannot read {path}#{name}: {error.strerror}") from None
    if len(content) != member.size:
        raise PictureError(f"{path}#{name} is cut short: {len(content)} of {member.size} bytes")
    return content


def _read(path: Path | Remote, start: int, size: int) -> bytes:
    if isinstance(path, Remote):
        check_file(size, 1, str(path))
        return path.read_range(start, size)
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


@lru_cache(maxsize=256)
def _listed(path: Path | Remote, size: int, changed: int) -> Shard:
    members: list[tarfile.TarInfo] = []
    labels: dict[str, Label] = {}
    error = ""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in _files(tar):
                suffix = PurePosixPath(member.name).suffix.lower()
                if suffix in SUFFIXES:
                    members.append(member)
                elif suffix in _LABELS and member.size <= _LARGEST_LABEL:
                    _note_label(labels, member.name, suffix, tar.extractfile(member).read())  # type: ignore[union-attr]
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("unexpected end of data")
            _check_end(path, tar.offset)
    except (tarfile.TarError, OSError, EOFError, ValueError) as problem:
        if not members:
            raise DataError(f"{path} is not a tar file that can be read: {problem}") from None
        error = f"{path} is damaged after {members[-1].name}: {problem}"
    return _shard(path, members, labels, error)


def _check_end(path: Path | Remote, end: int) -> None:
    """Refuse a tar file that goes on after its last member with anything but zeros, where tarfile ends silently."""
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0") or 0 < path.stat().st_size - end < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("unexpected end of data")


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        if member.isreg() and not PurePosixPath(member.name).name.startswith("."):
            yield member


def _shard(path: Path | Remote, infos: list[tarfile.TarInfo], labels: dict[str, Label], error: str) -> Shard:
    classes: tuple[str, ...] = ()
    if labels:  # WebDataset: what follows the first dot is the kind of file, so key.seg.png is no picture of its own
        infos = [info for info in infos if "." not in PurePosixPath(info.name).stem]
        of: list[Label] = [labels.get(_key(info.name)) for info in infos]
    else:
        folders = class_folders([info.name.removeprefix("./") for info in infos]) or []
        classes = tuple(sorted(set(folders))) if len(set(folders)) > 1 else ()  # one is the tar file's own name, mostly
        numbers = {name: number for number, name in enumerate(classes)}
        of = [numbers[name] for name in folders] if classes else [None] * len(infos)
    members = tuple(Member(m.name, m.offset_data, m.size, label) for m, label in zip(infos, of, strict=True))
    return Shard(path, members, {member.name: member for member in members}, classes, error)


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _note_label(labels: dict[str, Label], name: str, suffix: str, content: bytes) -> None:
    """Keep a label of a key: that of .cls before that of .json, and a text last."""
    text = content.decode("utf-8", "replace").strip()
    label = _label_in_json(text) if suffix == ".json" else as_label(text)
    key = _key(name)
    if suffix == ".cls" or (suffix == ".json" and label is not None):
        labels[key] = label
    else:
        labels.setdefault(key, label)


def _label_in_json(text: str) -> Label:
    try:
        told: Any = Document("a label", text, DataError).json(object)
    except DataError:
        return None
    values = [told.get(key) for key in _LABEL_KEYS] if isinstance(told, dict) else [told]
    return next((value for value in values if isinstance(value, (int, str))), None)


def as_label(text: str) -> Label:
    """Return a label as it was written: a whole number, a text, or None for nothing."""
    try:
        return int(text)
    except ValueError:
        return text or None
