"""Data to learn from: any class-per-folder tree or torchvision data set, one picture at a time, whatever it holds."""

from __future__ import annotations

import csv
import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ..errors import DataError, PictureError, nearest
from .folders import SUFFIXES
from .opening import open_picture

_HELD_OUT = ("val", "validation", "test")


class Source(Protocol):
    """Where pictures come from."""

    def open(self, index: int) -> Image.Image:
        """Read a picture, as `images.open_picture` does."""
        ...

    def name(self, index: int) -> str:
        """Say which it is."""
        ...


@dataclass(frozen=True)
class Pictures:
    """Pictures with a class each: some or all of those of a source."""

    source: Source
    indices: tuple[int, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def open(self, index: int) -> Image.Image:
        """Read a picture. Raises PictureError when it cannot be read."""
        return self.source.open(self.indices[index])

    def name(self, index: int) -> str:
        """Say which picture it is."""
        return self.source.name(self.indices[index])

    def only(self, chosen: Sequence[int]) -> Pictures:
        """Return some of them."""
        return Pictures(
            self.source,
            tuple(self.indices[i] for i in chosen),
            tuple(self.labels[i] for i in chosen),
            self.classes,
        )

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of names and labels, in order."""
        whole = sha256("\0".join(self.classes).encode(errors="surrogateescape"))
        for index, label in enumerate(self.labels):
            whole.update(f"\0{label} {self.name(index)}".encode(errors="surrogateescape"))
        return whole.hexdigest()[:16]


@dataclass(frozen=True)
class _Files:
    root: Path
    paths: tuple[str, ...]

    def open(self, index: int) -> Image.Image:
        return open_picture(self.root / self.paths[index])

    def name(self, index: int) -> str:
        return self.paths[index]


@dataclass(frozen=True)
class _DataSet:
    data: Any
    title: str

    def open(self, index: int) -> Image.Image:
        try:
            picture = self.data[index][0]
        except Exception as error:  # Pillow's decoders raise anything on a damaged file
            raise PictureError(f"{self.name(index)} cannot be read: {error}") from None
        return open_picture(picture, name=self.name(index))

    def name(self, index: int) -> str:
        return f"{self.title} picture {index}"


def open_data(
    data: str, *, names: Path | None = None, held_out: float = 0.1, seed: int = 0
) -> tuple[Pictures, Pictures]:
    """Find the pictures to learn from and those held out.

    Args:
        data: a folder with `train` and `val` (or `validation`, or `test`), each with one folder of pictures per class;
            a folder with one folder per class, of which a share is held out; or "torchvision:MNIST:FOLDER" for any
            classification data set of torchvision that lies in FOLDER.
        names: a table (.csv) whose first two columns are a class's folder and the name to show instead.
        held_out: the share to hold out of every class where the data do not say.
        seed: of that choice.

    Raises DataError for an empty folder, fewer than two classes, a class without pictures, or data that cannot be read.
    """
    if data.startswith("torchvision:"):
        learn, hold = _torchvision(data)
    else:
        learn, hold = _tree(Path(data))
    if hold is None:
        learn, hold = _split(learn, held_out, seed)
    if names is not None:
        shown = _read_names(names, learn.classes)
        learn, hold = replace(learn, classes=shown), replace(hold, classes=shown)
    return learn, hold


def _tree(root: Path) -> tuple[Pictures, Pictures | None]:
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
        if top and set(top) <= {"train", *_HELD_OUT}:
            raise DataError(
                f"{root / 'train'} holds no folders: put the pictures of each class into one named after it"
            )
        return _folder(root), None
    learn = _folder(root / "train")
    other = next((root / name for name in _HELD_OUT if (root / name).is_dir()), None)
    if other is None:
        return learn, None
    hold = _folder(other)
    if learn.classes != hold.classes:
        odd = sorted(set(learn.classes) ^ set(hold.classes))
        raise DataError(f"{root / 'train'} and {other} differ in {len(odd)} classes: {', '.join(odd[:5])}")
    return learn, hold


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _folder(folder: Path) -> Pictures:
    """Read a folder with one folder of pictures per class, however deep the pictures lie in it."""
    classes = _folders(folder)
    found = {name: sorted(_below(folder / name)) for name in classes}
    if not classes:
        loose = sum(Path(entry.name).suffix.lower() in SUFFIXES for entry in os.scandir(folder))
        what = f"{loose} pictures but no folders" if loose else "no folders"
        raise DataError(f"{folder} holds {what}: put the pictures of each class into a folder named after it")
    if len(classes) == 1:
        raise DataError(f"{folder} has one class, {classes[0]!r}: telling classes apart takes two or more")
    empty = [name for name in classes if not found[name]]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(classes)} classes in {folder} have no picture: {', '.join(empty[:5])}"
            f"{', ...' if len(empty) > 5 else ''}; add pictures or remove the folders"
        )
    paths = tuple(os.path.relpath(path, folder) for name in classes for path in found[name])
    labels = tuple(label for label, name in enumerate(classes) for _ in found[name])
    return Pictures(_Files(folder, paths), tuple(range(len(paths))), labels, tuple(classes))


def _below(folder: Path) -> Iterator[str]:
    for position, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in files:
            if Path(file).suffix.lower() in SUFFIXES and not file.startswith("."):
                yield str(Path(position) / file)


def _split(pictures: Pictures, share: float, seed: int) -> tuple[Pictures, Pictures]:
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


def _torchvision(data: str) -> tuple[Pictures, Pictures | None]:
    """Open one of torchvision's data sets from its folder; nothing is downloaded."""
    from torchvision import datasets

    _, name, folder = (data if data.count(":") > 1 else data + ":").split(":", 2)
    known = [key for key in datasets.__all__ if inspect.isclass(getattr(datasets, key))]
    if name not in known:
        raise DataError(f"torchvision has no data set {name!r}; nearest: {nearest(name, known)}")
    kind: Any = getattr(datasets, name)
    takes = inspect.signature(kind.__init__).parameters
    if not folder and "root" in takes:
        raise DataError(f"say where {name} lies: --data torchvision:{name}:FOLDER")
    position = {"root": folder} if "root" in takes else {}
    if "train" in takes:
        return _whole(_opened(kind, name, position, train=True), data), _opened(kind, name, position, train=False)
    if "split" not in takes:
        return _whole(_opened(kind, name, position), data), None
    splits = inspect.getdoc(kind) or ""
    learn = _whole(_opened(kind, name, position, split="trainval" if "trainval" in splits else "train"), data)
    for split in _HELD_OUT:
        try:
            return learn, _opened(kind, name, position, split=split)
        except DataError:
            continue
    return learn, None


def _opened(kind: Any, name: str, position: Mapping[str, str], **options: Any) -> Pictures:
    try:
        data: Any = kind(**position, **options)
        labels = _labels(data)
        classes = getattr(data, "classes", None) or range(max(labels) + 1)
    except Exception as error:  # every data set raises its own when files are missing
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(f"cannot read torchvision's {name} in {position.get('root', '.')}: {reason}") from None
    shown = tuple(", ".join(c) if isinstance(c, tuple) else str(c) for c in classes)
    return Pictures(_DataSet(data, name), tuple(range(len(data))), tuple(labels), shown)


def _whole(learn: Pictures, where: str) -> Pictures:
    """Check that there are two classes or more, each with a picture to learn from."""
    present = set(learn.labels)
    empty = [name for label, name in enumerate(learn.classes) if label not in present]
    if empty:
        raise DataError(f"{len(empty)} classes of {where} have no picture: {', '.join(empty[:5])}")
    if len(learn.classes) < 2:
        raise DataError(f"{where} has one class, {', '.join(learn.classes)!r}: telling classes apart takes two or more")
    return learn


def _labels(data: Any) -> list[int]:
    """Find the labels without opening the pictures, wherever the data set keeps them."""
    for attribute in ("targets", "labels", "_labels", "_targets", "y", "_samples"):
        found = getattr(data, attribute, None)
        if found is not None and len(found) == len(data):
            return [_label(entry) for entry in found]
    return [int(data[i][1]) for i in range(len(data))]


def _label(entry: Any) -> int:
    if isinstance(entry, tuple):  # (path, label)
        return int(entry[1])
    return int(entry[0]) if getattr(entry, "ndim", 0) else int(entry)  # QMNIST's labels have more columns


def _read_names(table: Path, classes: Sequence[str]) -> tuple[str, ...]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = {row[0].strip(): row[1].strip() for row in csv.reader(file) if len(row) > 1}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the names of classes in {table}: {error}") from None
    missing = [name for name in classes if not rows.get(name)]
    if missing:
        raise DataError(f"{table} has no name for {len(missing)} classes: {', '.join(missing[:5])}")
    shown = [rows[name] for name in classes]
    # "tabby, tabby cat" is shown as "tabby", unless two classes would then be called the same.
    short = [name.split(",")[0].strip() for name in shown]
    counts = Counter(short)
    return tuple(s if counts[s] == 1 else full for s, full in zip(short, shown, strict=True))


Item = tuple[Tensor | None, int, int]


class Prepared(Dataset[Item]):
    """Pictures as tensors: augmented with numbers drawn from (seed, index) alone, whoever loads them.

    Of several transforms, every batch uses one.
    """

    def __init__(
        self, pictures: Pictures, transforms: Sequence[Callable[[Any], Any]], channels: int, seed: int
    ) -> None:
        self.pictures, self.transforms, self.seed = pictures, transforms, seed
        self.mode = "L" if channels == 1 else "RGB"

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, which: tuple[int, int]) -> Item:
        """Return a picture (index, transform): uint8 (c, h, w), or None when it cannot be read; class; and index."""
        index, choice = which
        label = self.pictures.labels[index]
        try:
            picture = self.pictures.open(index).convert(self.mode)
        except PictureError:
            return None, label, index
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed((self.seed * 1_000_003 + index) % 2**63)
        try:
            return self.transforms[choice](picture), label, index
        finally:
            torch.default_generator.set_state(before)


@dataclass(frozen=True)
class Batch:
    """Pictures as uint8 (n, c, h, w), their classes (n,), and the indices of those that could not be read."""

    pixels: Tensor
    labels: Tensor
    unreadable: tuple[int, ...]


def _collate(items: list[Item]) -> Batch:
    good = [(pixels, label) for pixels, label, _ in items if pixels is not None]
    pixels = torch.stack([pixels for pixels, _ in good]) if good else torch.empty(0)
    bad = tuple(index for pixels, _, index in items if pixels is None)
    return Batch(pixels, torch.tensor([label for _, label in good], dtype=torch.long), bad)


@dataclass(frozen=True)
class Share:
    """One process's part of the work, of `world` that share it."""

    rank: int = 0
    world: int = 1


def batches(
    prepared: Prepared, size: int, *, share: Share, workers: int, shuffled: bool = False, start: int = 0
) -> DataLoader[Any]:
    """Load one process's batches: shuffled by the seed and from step `start` on, or all in order."""
    if not shuffled:
        order = [(index, 0) for index in range(share.rank, len(prepared), share.world)]
    else:
        sampler = DistributedSampler(
            prepared, share.world, share.rank, shuffle=True, seed=prepared.seed % 2**31, drop_last=True
        )
        generator = torch.Generator().manual_seed(prepared.seed % 2**31)
        choices = torch.randint(len(prepared.transforms), (len(sampler) // size + 1,), generator=generator).tolist()
        order = [(index, choices[position // size]) for position, index in enumerate(sampler)][start * size :]
    return DataLoader(
        prepared,
        batch_size=size,
        sampler=order,
        num_workers=workers,
        collate_fn=_collate,
        drop_last=shuffled,
        pin_memory=torch.cuda.is_available(),
    )
