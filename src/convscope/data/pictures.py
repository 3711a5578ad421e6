"""`read_pictures`: one sequence of pictures over files, folders, tar and Parquet files, data sets, loaders and tensors.

Nothing is opened before it is asked for. Every picture has an address by which `open_picture` finds it again where it
lies in a file, and its label where the source has one.
"""

from __future__ import annotations

import os
import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from PIL import Image

from .. import addresses
from ..errors import DataError, PictureError
from . import films, folders, image_files, parquet, samples, shards, storage, torchvision_sets
from .opening import open_picture
from .rasters import check_range
from .shards import Label

SHARD_SUFFIXES = frozenset({".tar", *parquet.SUFFIXES})


@dataclass(frozen=True)
class Picture:
    """One picture of a source, not opened yet.

    Attributes:
        where: its address: `open_picture` opens it again, unless it was an item of a data set or loader in memory.
        label: its class where the source has one: a number (an index into the source's classes, where those have
            names) or a text.
        name: its address from the folder on that all pictures of the source have in common.
        size: its bytes, where the list of a storage said so; else -1.
    """

    where: str
    label: Label = None
    name: str = ""
    _fetch: Callable[[], Any] | None = None
    size: int = -1

    def read(self) -> Any:
        """Return what `Net.prepare` and `open_picture` take: the address itself, or the image, array or tensor.

        Raises PictureError when a data set cannot give its item.
        """
        return self.fetch()[0]

    def fetch(self) -> tuple[Any, Label]:
        """Return the content as `read` does, and the label; data sets that keep no labels apart know it only now."""
        if self._fetch is None:
            return self.where, self.label
        try:
            with image_files.foreign_closed():
                item = self._fetch()
        except Exception as error:  # a data set raises anything on a damaged file
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise PictureError(f"{self.where} cannot be read: {reason}") from None
        content, label = _content_and_label(item)
        return _plain(content), label if self.label is None else self.label

    def open(self) -> Image.Image:
        """Open it as 8-bit RGB or grey, upright. Raises PictureError when it cannot be read."""
        return open_picture(self.content(), name=self.where)

    def content(self) -> Any:
        """Return what `read` does, a tensor as an array (h, w, c)."""
        content = self.read()
        if not _is_tensor(content):
            return content
        values = content.detach().float().cpu().numpy()
        check_range(float(values.min()), float(values.max()), self.where)
        return values.transpose(1, 2, 0)


@runtime_checkable
class Indexed(Protocol):
    """A part of the pictures that can be asked for any of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Picture: ...


class Pictures:
    """A sequence of pictures over one or several sources, which are opened when they are reached.

    Iterating, `len` and `[index]` work as with a list; a stream (an iterable or a `DataLoader`) can only be iterated,
    and only once if it is a generator.
    """

    def __init__(self, parts: Sequence[Iterable[Picture]]) -> None:
        self.parts = tuple(parts)

    def __iter__(self) -> Iterator[Picture]:
        for part in self.parts:
            yield from part

    def __len__(self) -> int:
        return self._ends[-1] if self.parts else 0

    def __getitem__(self, index: int) -> Picture:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} pictures, numbered from 0: there is no picture {index}")
        number = bisect_right(self._ends, index)
        part = self.parts[number]
        if not isinstance(part, Indexed):
            raise DataError("pictures of a stream come one after the other: iterate over them")
        return part[index - (self._ends[number - 1] if number else 0)]

    @cached_property
    def _ends(self) -> list[int]:
        """How many pictures there are up to the end of every part. Raises TypeError for a stream."""
        return list(accumulate(len(part) for part in cast(Any, self.parts)))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes that labels are indices of; empty where the source names none."""
        names = [getattr(part, "classes", ()) for part in self.parts]
        return names[0] if names and all(other == names[0] for other in names) else ()

    def __repr__(self) -> str:
        try:
            count = f"{len(self):,}"
        except TypeError:
            count = "a stream of"
        return f"<{count} pictures>"


def read_pictures(source: Any) -> Pictures:
    """Return a sequence of the pictures of a source, or of several in a list; none is opened yet.

    Args:
        source: an address as `open_picture` takes it; an animated picture or a video, "film.gif" or "film.mp4[10:20]",
            which is its frames; a pattern ("*.jpg", "shard-{000..127}.tar"); a folder, read with
            what lies below it, whose folders become classes where all pictures lie in one; a .tar file, plain or
            WebDataset's; a .parquet or .arrow file with a column of bytes, as Hugging Face writes it;
            "torchvision:NAME:FOLDER"; a data set (anything with `len` and `[i]`), whose items are pictures, tuples
            (picture, label) or dicts with "image" and "label"; a `DataLoader` or another iterable of such items or of
            batches of them; a PIL image, an array (h, w, c) or (n, h, w, c), or a tensor (c, h, w) or (n, c, h, w)
            with values in [0, 1] or of type uint8; or a list of such sources.

    The order is the same every time: that of the list, then that of the names, members, rows or items. A picture that
    does not exist or is broken raises PictureError when it is opened, not here. Raises PictureError for a folder or
    pattern without pictures, DataError for a source that is none, or a folder that holds the user's home folder.
    """
    if isinstance(source, Pictures):
        return source
    parts: list[Iterable[Picture]] = []
    paths: list[str] = []
    items: list[Any] = []
    for each in _listed(source):
        if _is_item(each):
            items.append(each)
            continue
        parts += _from_items(items, len(parts))
        items = []
        for path in folders.expand(addresses.public(each)) if isinstance(each, (str, Path)) else ():
            parts.append(_from_path(path))
            paths.append(path)
        if not isinstance(each, (str, Path)):
            parts.append(_from_memory(each))
    parts += _from_items(items, len(parts))
    return Pictures(_named(_joined(parts), paths))


def _listed(source: Any) -> Sequence[Any]:
    """Return the sources of a list; a tuple is one where it holds paths, and else an item (picture, label)."""
    if isinstance(source, list):
        return cast("list[Any]", source)
    if isinstance(source, tuple) and all(isinstance(part, (str, Path)) for part in cast("tuple[Any, ...]", source)):
        return cast("tuple[Any, ...]", source)
    return [source]


# Files --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """Pictures by address; those of a folder have classes where all of them lie in folders of it."""

    addresses: tuple[str, ...]
    root: str = ""
    labels: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    sizes: array[int] | None = None

    def __len__(self) -> int:
        return len(self.addresses)

    def __getitem__(self, index: int) -> Picture:
        where = self.addresses[index]
        label = self.labels[index] if self.labels else None
        size = self.sizes[index] if self.sizes else -1
        return Picture(where, label, addresses.name_below(self.root, where), size=size)

    def __iter__(self) -> Iterator[Picture]:
        return map(self.__getitem__, range(len(self)))


@dataclass(frozen=True)
class _Members:
    """The pictures of a tar file."""

    path: str
    root: str = ""

    def __len__(self) -> int:
        return len(self._shard.members)

    def __getitem__(self, index: int) -> Picture:
        return self._picture(self._shard.members[index])

    def __iter__(self) -> Iterator[Picture]:
        shard = self._shard
        yield from map(self._picture, shard.members)
        if shard.error:
            raise DataError(shard.error)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._shard.classes

    @property
    def _shard(self) -> shards.Shard:
        return shards.open_shard(storage.at(self.path))

    def _picture(self, member: shards.Member) -> Picture:
        where = f"{self.path}#{member.name}"
        return Picture(where, member.label, addresses.name_below(self.root, where), size=member.size)


@dataclass(frozen=True)
class _Rows:
    """The pictures of a Parquet or Arrow file."""

    path: str
    root: str = ""

    def __len__(self) -> int:
        return self._table.count

    def __getitem__(self, index: int) -> Picture:
        where = f"{self.path}#{index}"
        return Picture(where, self._table.labels[index], addresses.name_below(self.root, where))

    def __iter__(self) -> Iterator[Picture]:
        return map(self.__getitem__, range(len(self)))

    @property
    def classes(self) -> tuple[str, ...]:
        return self._table.classes

    @property
    def _table(self) -> parquet.PictureTable:
        return parquet.open_table(storage.at(self.path))


def _from_path(path: str) -> Iterable[Picture]:
    if path.startswith(torchvision_sets.PREFIX) and "#" not in path:
        return Items(torchvision_sets.open_set(path), path)
    if path.startswith(samples.PREFIX) or not _is_folder(path):
        return _from_file(path)
    try:
        return _folder(path)
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None


def _is_folder(path: str) -> bool:
    """Whether pictures are looked for below a path; what has a file's ending in a storage is not asked for."""
    if not addresses.is_remote(path):
        return os.path.isdir(path)  # noqa: PTH112
    place = storage.Remote(path)
    known = place.suffix.lower() in folders.SUFFIXES | SHARD_SUFFIXES | films.VIDEOS
    return "#" not in path and (path.endswith("/") or not known) and place.is_dir()


def _from_file(path: str) -> Iterable[Picture]:
    if "#" not in path or os.path.exists(path):  # noqa: PTH110
        place = storage.at(path)
        if shards.is_shard(place):
            return _Members(path)
        if parquet.is_table(place):
            return _Rows(path)
    frames = films.frames_of(path)
    return Files((path,) if frames is None else tuple(frames))


def _folder(path: str) -> Iterable[Picture]:
    """Read a folder of pictures, or of tar or Parquet files where it holds no picture itself."""
    place = storage.at(path)
    root = os.path.join(path, "") if isinstance(place, Path) else str(place / "")  # noqa: PTH118
    found = folders.find_names(place, folders.SUFFIXES | SHARD_SUFFIXES, linked=True)
    pictures = [each for each in found if os.path.splitext(each[0])[1].lower() in folders.SUFFIXES]  # noqa: PTH122
    if found and not pictures:
        return Pictures([replace(cast(Any, _from_file(str(place / name))), root=root) for name, _ in found])
    if not pictures:
        looked_for = ", ".join(sorted(folders.SUFFIXES))
        raise PictureError(f"there is no picture in {path} (looked for {looked_for})")
    sizes = array("q", (size for _, size in pictures)) if isinstance(place, storage.Remote) else None
    paths = tuple(str(place / name) for name, _ in pictures)
    of = folders.class_folders(addresses.readable(path, name) for name, _ in pictures)
    if of is None:
        return Files(paths, root, sizes=sizes)
    classes = sorted(set(of))
    numbers = {name: number for number, name in enumerate(classes)}
    return Files(paths, root, tuple(numbers[name] for name in of), tuple(classes), sizes)


def _joined(parts: Sequence[Iterable[Picture]]) -> list[Iterable[Picture]]:
    """Join single files that follow one another, and let folders that hold several files be those files."""
    joined: list[Iterable[Picture]] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, Pictures):
            joined += part.parts
        elif isinstance(part, Files) and isinstance(last, Files) and not part.root and not last.root:
            joined[-1] = Files(last.addresses + part.addresses)
        else:
            joined.append(part)
    return joined


def _named(parts: Sequence[Iterable[Picture]], paths: Sequence[str]) -> list[Iterable[Picture]]:
    """Let names begin below the folder that all files have in common; a folder that is alone is that folder."""
    if len(paths) == 1 and any(getattr(part, "root", "") for part in parts):
        return list(parts)  # of a folder
    root = folders.common_root(paths)
    return [replace(part, root=root) if isinstance(part, (Files, _Members, _Rows)) else part for part in parts]


# Memory -------------------------------------------------------------------------------------------------------------


class Items:
    """The items of a data set: anything with `len` and `[i]`."""

    def __init__(self, data: Any, title: str) -> None:
        self.data, self.title = data, title
        self.short = title.split(":", 2)[1] if title.startswith(torchvision_sets.PREFIX) else title
        self.labels = torchvision_sets.kept_labels(data)
        self.classes = torchvision_sets.classes_of(data)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Picture:
        where = f"{self.title}#{index}"
        label = self.labels[index] if self.labels else None
        return Picture(where, label, f"{self.short} picture {index}", lambda: self.data[index])

    def __iter__(self) -> Iterator[Picture]:
        return map(self.__getitem__, range(len(self)))


@dataclass(frozen=True)
class _Stream:
    """An iterable of pictures, of pairs (picture, label), or of batches of either."""

    items: Iterable[Any]
    title: str

    def __iter__(self) -> Iterator[Picture]:
        count = 0
        for item in self._items():
            for single in _unbatched(item):
                where = f"{self.title}#{count}"
                yield Picture(where, _content_and_label(single)[1], where, lambda single=single: single)
                count += 1

    def _items(self) -> Iterator[Any]:
        with image_files.foreign_closed():  # a loader's processes begin here
            items = iter(self.items)
        while True:
            with image_files.foreign_closed():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


class _Loader(_Stream):
    """A `DataLoader`, which knows how many pictures its sampler draws."""

    def __len__(self) -> int:
        loader: Any = self.items
        if loader.batch_size is None:
            return len(loader)
        return len(loader) * loader.batch_size if loader.drop_last else len(loader.sampler)

    @property
    def classes(self) -> tuple[str, ...]:
        return torchvision_sets.classes_of(cast(Any, self.items).dataset)


def _is_item(source: Any) -> bool:
    """Whether it is a picture in memory, with or without its label, or a batch of them."""
    return isinstance(source, (Image.Image, np.ndarray, tuple, Mapping)) or _is_tensor(source)


def _from_items(items: list[Any], position: int) -> list[Iterable[Picture]]:
    if not items:
        return []
    title = f"picture-{position}" if position else "picture"
    batched = any(getattr(_content_and_label(item)[0], "ndim", 3) == 4 for item in items)
    return [_Stream(items, title) if batched else Items(items, title)]


def _from_memory(source: Any) -> Iterable[Picture]:
    title = type(source).__name__
    if isinstance(source, Pictures):
        return source
    if hasattr(source, "batch_sampler") and hasattr(source, "dataset"):
        return (_Loader if hasattr(source.dataset, "__len__") else _Stream)(source, title)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return Items(source, title)
    if isinstance(source, Iterable):
        return _Stream(cast("Iterable[Any]", source), title)
    raise DataError(
        f"cannot read pictures from {title}: give paths, folders, .tar, .parquet or .arrow files, a data set, a "
        "DataLoader, tensors, arrays or PIL images"
    )


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported it
    return torch is not None and isinstance(value, torch.Tensor)


def _content_and_label(item: Any) -> tuple[Any, Label]:
    """Take an item of a data set apart: a picture, a sequence that begins (picture, label), or a dict of them."""
    if isinstance(item, Mapping):
        entries = cast("Mapping[str, Any]", item)
        keys = [key for key in ("image", "img", "picture", "pixel_values", "jpg", "png") if key in entries]
        if not keys:
            raise DataError(f"an item has no picture: its keys are {', '.join(map(str, entries))}; call it 'image'")
        label = next((entries[key] for key in ("label", "labels", "fine_label", "cls") if key in entries), None)
        return entries[keys[0]], _label(label)
    if isinstance(item, (tuple, list)):
        parts = cast("Sequence[Any]", item)
        return parts[0], _label(parts[1]) if len(parts) > 1 else None
    return item, None


def _label(value: Any) -> Label:
    if isinstance(value, (int, str)) or value is None:
        return value
    try:
        return int(value)
    except (TypeError, ValueError, RuntimeError):
        return None  # boxes, captions, several labels: no class


def _unbatched(item: Any) -> Iterator[Any]:
    """Yield the single items of a batch, (n, c, h, w) with n labels, as loaders collate them; or the item itself."""
    content, _ = _content_and_label(item)
    if not (_is_tensor(content) or isinstance(content, np.ndarray)) or content.ndim != 4:
        yield item
        return
    if isinstance(item, Mapping):
        labels: Any = next((item[key] for key in ("label", "labels", "fine_label", "cls") if key in item), None)
    else:
        labels = item[1] if isinstance(item, (tuple, list)) and len(cast("Sequence[Any]", item)) > 1 else None
    for number, picture in enumerate(content):
        try:
            yield picture, None if labels is None else labels[number]
        except (TypeError, IndexError, KeyError):
            yield picture, None


def _plain(content: Any) -> Any:
    """Return a picture as `Net.prepare` takes it: tensors of bytes become values in [0, 1]."""
    if not _is_tensor(content):
        return content
    return content.float() / 255 if content.dtype.itemsize == 1 and not content.dtype.is_signed else content
