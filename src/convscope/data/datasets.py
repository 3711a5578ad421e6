"""Data to learn from: pictures with a class each, of any source that has classes, and those held out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

import torch
from PIL import Image

from ..errors import DataError
from . import folders, storage, torchvision_sets
from .class_names import read_class_names
from .images import open_shown
from .pictures import SHARD_SUFFIXES, Files, Items, Label, Picture, Pictures, read_pictures
from .preprocessing import Preprocessing

HELD_OUT = torchvision_sets.HELD_OUT


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures with a class each: some or all of those of a source, in any order.

    `shown` is how deep ones become 8-bit ones; as `open_picture` does it without.
    """

    source: Pictures
    indices: tuple[int, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    shown: Preprocessing | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Picture:
        return self.source[self.indices[index]]

    def open(self, index: int) -> Image.Image:
        """Open a picture. Raises PictureError when it cannot be read."""
        if self.shown is None:
            return self[index].open()
        return open_shown(self[index].content(), self.shown, name=self[index].where)[0]

    def name(self, index: int) -> str:
        """Return which picture it is, the same wherever the data are."""
        return self[index].name

    def only(self, chosen: Sequence[int]) -> LabelledPictures:
        """Return some of them."""
        return replace(
            self, indices=tuple(self.indices[i] for i in chosen), labels=tuple(self.labels[i] for i in chosen)
        )

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of names and labels, in order."""
        whole = sha256("\0".join(self.classes).encode(errors="surrogateescape"))
        for index, label in enumerate(self.labels):
            whole.update(f"\0{label} {self.name(index)}".encode(errors="surrogateescape"))
        return whole.hexdigest()[:16]


Parts = tuple[LabelledPictures, LabelledPictures | None]
"""The pictures to learn from, and those held out where the data say which."""


def open_data(
    data: str, *, names: Path | None = None, held_out: float = 0.1, seed: int = 0
) -> tuple[LabelledPictures, LabelledPictures]:
    """Find the pictures to learn from and those held out.

    Args:
        data: a folder with `train` and `val` (or `validation`, or `test`), each with one folder of pictures per class;
            a folder with one folder per class, of which a share is held out; a folder of .tar, .parquet or .arrow files
            whose names begin with those words; such files themselves, also as a pattern ("pets-{00..07}.tar"), with
            labels; or "torchvision:MNIST:FOLDER" for any classification data set of torchvision that is in FOLDER.
        names: a table (.csv) whose first two columns are a class and the name to show instead.
        held_out: the share to hold out of every class where the data do not say.
        seed: of that choice.

    Raises DataError for an empty folder, fewer than two classes, a class without pictures, pictures without a label,
    or data that cannot be read.
    """
    learn, hold = _parts(data)
    if hold is None:
        learn, hold = _split(learn, held_out, seed)
    if names is not None:
        shown = read_class_names(names, learn.classes)
        learn, hold = replace(learn, classes=shown), replace(hold, classes=shown)
    return learn, hold


def _parts(data: str) -> Parts:
    if data.startswith(torchvision_sets.PREFIX):
        return _torchvision(data)
    if _names_files(data):
        return _labelled(read_pictures(data), data), None
    place = storage.at(data)
    return _tree(place) if isinstance(place, Path) else _remote(place)


def _names_files(data: str) -> bool:
    """Whether data are .tar, .parquet or .arrow files, perhaps as a pattern."""
    return os.path.splitext(data)[1].lower() in SHARD_SUFFIXES and not os.path.isdir(data)  # noqa: PTH112, PTH122


# Folders ------------------------------------------------------------------------------------------------------------


def _tree(root: Path) -> Parts:
    try:
        top = _folders(root)
        within = _folders(root / "train") if "train" in top else []
    except NotADirectoryError:
        raise DataError(f"there is no folder {root} (it is a file)") from None
    except PermissionError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
    except (OSError, ValueError):  # not there, too long a name, a NUL in it
        raise DataError(f"there is no folder {str(root)[:200]}") from None
    if not within:  # "train" may be the name of a class
        return _classes_or_shards(root, top)
    learn = _folder(root / "train")
    other = next((root / name for name in HELD_OUT if (root / name).is_dir()), None)
    return (learn, None) if other is None else _same_classes(learn, _folder(other), root / "train", other)


def _classes_or_shards(root: Path, top: list[str]) -> Parts:
    if not folders.find_files(root, folders.SUFFIXES) and folders.find_files(root, SHARD_SUFFIXES):
        return _shards(root)
    if top and set(top) <= {"train", *HELD_OUT}:
        raise DataError(f"{root / 'train'} holds no folders: put the pictures of each class into one named after it")
    return _folder(root), None


def _same_classes(learn: LabelledPictures, hold: LabelledPictures, first: Path | str, second: Path | str) -> Parts:
    if learn.classes != hold.classes:
        odd = sorted(set(learn.classes) ^ set(hold.classes))
        raise DataError(f"{first} and {second} differ in {len(odd)} classes: {', '.join(odd[:5])}")
    return learn, hold


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _folder(folder: Path) -> LabelledPictures:
    """Read a folder with one folder of pictures per class, however deep the pictures are in it."""
    classes = _folders(folder)
    if not classes:
        loose = sum(Path(entry.name).suffix.lower() in folders.SUFFIXES for entry in os.scandir(folder))
        what = f"{loose} pictures but no folders" if loose else "no folders"
        raise DataError(f"{folder} holds {what}: put the pictures of each class into a folder named after it")
    if len(classes) == 1:
        raise DataError(f"{folder} has one class, {classes[0]!r}: telling classes apart takes two or more")
    paths = {name: sorted(map(str, folders.find_files(folder / name, folders.SUFFIXES))) for name in classes}
    _refuse_empty([name for name in classes if not paths[name]], len(classes), folder)
    addresses = tuple(path for name in classes for path in paths[name])
    labels = tuple(label for label, name in enumerate(classes) for _ in paths[name])
    source = Pictures([Files(addresses, os.path.join(folder, ""))])  # noqa: PTH118
    return LabelledPictures(source, tuple(range(len(addresses))), labels, tuple(classes))


def _refuse_empty(empty: list[str], count: int, folder: Path) -> None:
    if empty:
        raise DataError(
            f"{len(empty)} of {count} classes in {folder} have no picture: {', '.join(empty[:5])}"
            f"{', ...' if len(empty) > 5 else ''}; add pictures or remove the folders"
        )


def _remote(root: storage.Remote) -> Parts:
    """Read a folder of a storage as `_tree` and `_shards` do those of this machine."""
    names = [name for name, _ in folders.find_names(root, folders.SUFFIXES | SHARD_SUFFIXES)]
    if not names:
        raise DataError(f"there are no pictures in {root}")
    if not any(os.path.splitext(name)[1].lower() in folders.SUFFIXES for name in names):  # noqa: PTH122
        return _divided([str(root / name) for name in names], names, str(root))
    top = {name.partition("/")[0] for name in names if "/" in name}
    if not any(name.startswith("train/") and name.count("/") > 1 for name in names):
        return _labelled(read_pictures(str(root)), str(root)), None
    learn = _labelled(read_pictures(str(root / "train")), str(root / "train"))
    other = next((str(root / name) for name in HELD_OUT if name in top), None)
    if other is None:
        return learn, None
    return _same_classes(learn, _labelled(read_pictures(other), other), str(root / "train"), other)


# Files of pictures --------------------------------------------------------------------------------------------------


def _shards(root: Path) -> Parts:
    """Read a folder of .tar, .parquet or .arrow files: those to learn from, and those held out, by their names."""
    names = [name for name, _ in folders.find_names(root, SHARD_SUFFIXES)]
    return _divided([str(root / name) for name in names], names, str(root))


def _divided(files: list[str], names: list[str], root: str) -> Parts:
    """Divide files by their names, from the folder on."""
    of = dict(zip(files, names, strict=True))
    parts = [[file for file in files if _begins(of[file], word)] for word in HELD_OUT]
    held = next((part for part in parts if part), [])
    learn = [file for file in files if _begins(of[file], "train")] or [file for file in files if file not in held]
    pictures = _labelled(read_pictures(learn), root)
    if not held:
        return pictures, None
    return _same_classes(pictures, _labelled(read_pictures(held), root), learn[0], held[0])


def _begins(name: str, word: str) -> bool:
    """Whether a file's name, or that of a folder on the way to it, begins with a word."""
    return any(part.lower().startswith(word) for part in PurePath(name).parts)


def _labelled(pictures: Pictures, data: str) -> LabelledPictures:
    """Number the classes of pictures that have a label each."""
    labels = [picture.label for picture in pictures]
    without = sum(label is None for label in labels)
    if without or not labels:
        raise DataError(
            f"{without} of {len(labels)} pictures of {data} have no label: convscope train needs all of them"
        )
    numbers, classes = _numbered(labels, pictures.classes)
    return _whole(LabelledPictures(pictures, tuple(range(len(labels))), tuple(numbers), classes), data)


def _numbered(labels: Sequence[Label], classes: tuple[str, ...]) -> tuple[list[int], tuple[str, ...]]:
    whole = [label for label in labels if isinstance(label, int)]
    if len(whole) == len(labels):
        if not classes and max(whole) >= len(labels):
            raise DataError(
                f"labels go up to {max(whole)}, but there are {len(labels)} pictures: classes are numbered from 0 "
                "without gaps"
            )
        names = classes or tuple(str(number) for number in range(max(whole) + 1))
        if not 0 <= min(whole) <= max(whole) < len(names):
            raise DataError(
                f"labels go from {min(whole)} to {max(whole)}, but there are {len(names)} classes, from 0 on"
            )
        return whole, names
    names = tuple(sorted({str(label) for label in labels}))
    positions = {name: number for number, name in enumerate(names)}
    return [positions[str(label)] for label in labels], names


# torchvision's data sets --------------------------------------------------------------------------------------------


def _torchvision(data: str) -> Parts:
    parts: Iterator[tuple[Any, list[int], tuple[str, ...]]] = torchvision_sets.open_labelled(data)
    learn = _whole(_of_set(data, *next(parts)), data)
    rest = next(parts, None)
    return learn, None if rest is None else _of_set(data, *rest)


def _of_set(address: str, data: Any, labels: list[int], classes: tuple[str, ...]) -> LabelledPictures:
    source = Pictures([Items(data, address)])
    return LabelledPictures(source, tuple(range(len(data))), tuple(labels), classes)


def _whole(learn: LabelledPictures, where: str) -> LabelledPictures:
    """Check that there are two classes or more, each with a picture to learn from."""
    present = set(learn.labels)
    empty = [name for label, name in enumerate(learn.classes) if label not in present]
    if empty:
        raise DataError(f"{len(empty)} classes of {where} have no picture: {', '.join(empty[:5])}")
    if len(learn.classes) < 2:
        raise DataError(f"{where} has one class, {', '.join(learn.classes)!r}: telling classes apart takes two or more")
    return learn


def _split(pictures: LabelledPictures, share: float, seed: int) -> tuple[LabelledPictures, LabelledPictures]:
    """Hold out a share of every class, chosen at random."""
    if not 0 < share < 1:
        raise DataError(f"the share held out is between 0 and 1, not {share}")
    generator = torch.Generator().manual_seed(seed)
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(pictures.labels):
        by_class.setdefault(label, []).append(index)
    hold: set[int] = set()
    for label, members in by_class.items():
        if len(members) < 2:
            raise DataError(
                f"class {pictures.classes[label]!r} has one picture: at least two are needed to hold one out"
            )
        order = torch.randperm(len(members), generator=generator).tolist()
        hold |= {members[i] for i in order[: min(len(members) - 1, max(1, round(share * len(members))))]}
    everything = range(len(pictures))
    return pictures.only([i for i in everything if i not in hold]), pictures.only(sorted(hold))
