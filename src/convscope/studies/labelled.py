"""`Labelled`: the pictures of a data set as a network reads them, with their labels; what most studies are made of.

A study takes one as its input, `data: Labelled`, and is given whatever `read_pictures` reads. Which pictures of it are
taken is said by options that the study declares by the names below (`labels`, `per_class`, `limit`, `seed`): those that
it has are followed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from torch import Tensor

from ..addresses import public
from ..assumptions import Assumption
from ..context import listen, say, track
from ..data.class_names import wordnet_names
from ..data.hashing import content_hash
from ..data.images import InputPicture
from ..data.loading import Counted, read_ahead
from ..data.pictures import Indexed, Items, Picture, Pictures, read_pictures
from ..errors import DataError, PictureError
from ..evaluation.truth import Truth, find_truth, own_labels
from ..net import Net
from ..options import Range
from ..recipes import PictureRecord
from ..running import Unread

Labels = Annotated[
    str | Path | None,
    "a table of labels (.csv) with columns path and label; 'none' where folders are no classes; by default the labels "
    "of the source, else the folders that pictures lie in",
]
PerClass = Annotated[int, "pictures of each class, drawn at random; 0 takes all", Range(0)]
Limit = Annotated[int, "pictures in all, drawn at random; 0 takes all", Range(0)]
Seed = Annotated[int, "seed of whatever is drawn at random", Range(0)]

HOW_LABELLED = (
    "give a folder with a folder of pictures for each class, or a table (.csv) with columns path and label as labels"
)

_BATCH = {"cpu": 16}
_BATCH_ELSEWHERE = 128
_IN_MEMORY = 2**28
"""Bytes of pixels up to which they are decoded once and kept."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures as a network reads them, with their labels; those that cannot be read are left out, and in `failed`.

    First they are `listed`: it is known which they are and what labels they have, and whoever asks for more gets
    Unread; `read` decodes them. `targets` are indices into `classes`, which are the labels that the data has, whatever
    the network's classes are; -1 where a picture has no label. `contents` are SHA-256, `given` the addresses of the
    sources, where they have some, `remarks` what must be said of the pictures: the runner says it.
    """

    net: Net
    source: Pictures
    pictures: tuple[Picture, ...]
    targets: tuple[int, ...]
    classes: tuple[str, ...]
    contents: tuple[str, ...] | None = None
    failed: tuple[str, ...] = ()
    labels: str | Path | None = None
    given: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    kept: tuple[np.ndarray, ...] | None = None

    @classmethod
    def listed(cls, net: Net, source: Any, options: Mapping[str, Any]) -> Self:
        """List what options choose of a source. Raises DataError where nobody can count it."""
        pictures = _counted(read_pictures(source))
        if len(pictures) == 1:
            content_hash(pictures[0].read())  # else a mistyped folder would be a picture without a label
        texts = own_labels(pictures, options.get("labels"))
        classes = in_order(texts)
        number = {name: index for index, name in enumerate(classes)}
        targets = [-1 if text is None else number[text] for text in texts]
        with listen() as remarks:
            rows = cls.chosen(pictures, targets, options)
        return cls(
            net,
            pictures,
            tuple(pictures[row] for row in rows),
            tuple(targets[row] for row in rows),
            classes,
            labels=options.get("labels"),
            given=_given(source),
            remarks=tuple(remarks),
        )

    @classmethod
    def chosen(cls, pictures: Pictures, targets: Sequence[int], options: Mapping[str, Any]) -> list[int]:
        """Return the rows of the pictures that options choose, in their order; say which."""
        seed = options.get("seed", 0)
        rows = drawn(targets, options.get("per_class", 0), options.get("limit", 0), seed)
        if len(rows) < len(pictures):
            say(f"{len(rows):,} of {len(pictures):,} pictures, drawn at random (seed {seed})")
        return rows

    def read(self) -> Self:
        """Decode every picture once: hash it, and keep its pixels while there is room. Raises PictureError for none."""
        with listen() as remarks:
            read = _read(self)
        return replace(self, **read, remarks=(*self.remarks, *remarks))

    @property
    def is_read(self) -> bool:
        """Whether what is in the pictures is known."""
        return self.contents is not None

    @property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of what the pictures hold."""
        if self.contents is None:
            raise Unread
        return self.contents

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def record(self) -> PictureRecord:
        """Which pictures with which labels they are, as a recipe holds it."""
        named = [self.classes[target] if target >= 0 else "" for target in self.targets]
        content = "\n".join(map("\t".join, zip(self.hashes, named, strict=True)))
        first = self.pictures[0].where
        return PictureRecord(f"{len(self):,} pictures, {first} the first", hashlib.sha256(content.encode()).hexdigest())

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes as people call them: of a WordNet id what it stands for."""
        return tuple(wordnet_names().get(name, name) for name in self.classes)

    @property
    def counts(self) -> dict[str, int]:
        """How many pictures each class has."""
        found = Counter(self.targets)
        return {name: found[number] for number, name in enumerate(self.classes)}

    def input(self, row: int) -> InputPicture:
        """Return one picture with its original, for figures."""
        _ = self.hashes
        return self.net.prepare(self.pictures[row].read())

    def batches(self, size: int = 0, label: str = "") -> Iterator[tuple[list[int], Tensor]]:
        """Yield rows and their pixels (n, c, h, w) on the network's device, each row once, with progress for a label.

        `size` is how many at once, 16 on a CPU and 128 elsewhere by default; pictures of one batch have one size.
        """
        _ = self.hashes
        size = size or _BATCH.get(self.net.device.type, _BATCH_ELSEWHERE)
        waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        each = _Arrays(self)
        for row, pixels in enumerate(track(each, label) if label else each):
            alike = waiting.setdefault(pixels.shape, [])
            alike.append((row, pixels))
            if len(alike) == size:
                yield self._batch(waiting.pop(pixels.shape))
        for alike in waiting.values():
            yield self._batch(alike)

    def _batch(self, items: Sequence[tuple[int, np.ndarray]]) -> tuple[list[int], Tensor]:
        pixels = torch.from_numpy(np.stack([pixels for _, pixels in items]))
        return [row for row, _ in items], pixels.to(self.net.device)

    @cached_property
    def truth(self) -> Truth:
        """Which class of the *network* each picture has (`truth.of(picture)`). Raises DataError for labels of none."""
        return find_truth(self.net, self.source, self.labels)

    @cached_property
    def answers(self) -> tuple[int | None, ...]:
        """The network's class of each picture, None where that is not known."""
        return tuple(self.truth.of(picture) for picture in self.pictures)

    def subset(self, rows: Sequence[int]) -> Labelled:
        """Return some of the pictures, in this order."""
        parts: dict[str, Any] = {
            name: None if values is None else tuple(values[row] for row in rows)
            for name in ("pictures", "contents", "targets", "kept")
            for values in (getattr(self, name),)
        }
        return replace(self, **parts)

    def read_by(self, net: Net) -> Labelled:
        """Return the same pictures as another network reads them."""
        if net is self.net or (net.reads == self.net.reads and net.device == self.net.device):
            return replace(self, net=net)
        return replace(self, net=net, kept=None)

    def shared_with(self, other: Labelled) -> list[tuple[str, str]]:
        """Return the addresses of pictures that are in both, by content."""
        there = dict(zip(other.hashes, other.pictures, strict=True))
        return [
            (picture.where, there[content].where)
            for content, picture in zip(self.hashes, self.pictures, strict=True)
            if content in there
        ]


class _Arrays:
    """The pixels of pictures, one after the other, and how many there are."""

    def __init__(self, data: Labelled) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.data.kept is not None:
            yield from self.data.kept
            return
        for item in read_ahead(self.data.pictures, self.data.net.prepare):
            if item.value is None:
                raise item.error or PictureError(f"{item.picture.where} cannot be read any more")
            yield item.value.pixels


def _given(source: Any) -> tuple[str, ...]:
    """Return the addresses that a source is given by, nothing secret in them; none where a part has no address."""
    each = list(source) if isinstance(source, (list, tuple)) else [source]
    return tuple(map(public, each)) if all(isinstance(part, (str, Path)) for part in each) else ()


class _Part(tuple[Picture, ...]):
    """Pictures whose labels are known, with the names of the source's classes."""

    classes: tuple[str, ...] = ()


def _counted(pictures: Pictures) -> Pictures:
    """Return pictures that can be counted, with the labels that items in memory bring along. Raises DataError."""
    parts = list[Any]()
    for part in pictures.parts:
        if not isinstance(part, Sized) and not isinstance(getattr(part, "items", None), Sized):
            raise DataError("a study counts its pictures, and nobody knows where a stream ends: give a list of them")
        if isinstance(part, Indexed) and (not isinstance(part, Items) or part.labels):
            parts.append(part)
        else:
            parts.append(_Part(map(_labelled, part)))
            parts[-1].classes = getattr(part, "classes", ())
    return Pictures(parts)


def _labelled(picture: Picture) -> Picture:
    """Return a picture with the label of its item; without one where the item cannot be had."""
    try:
        return replace(picture, label=picture.fetch()[1])
    except PictureError:
        return picture


def in_order(texts: Iterable[str | None]) -> tuple[str, ...]:
    """Return labels as classes are numbered: numbers by size, else by the alphabet."""
    known = {text for text in texts if text is not None}
    numeric = all(text.isdecimal() for text in known)
    return tuple(sorted(known, key=lambda text: (int(text) if numeric else 0, text)))


def drawn(targets: Sequence[int], per_class: int, limit: int, seed: int) -> list[int]:
    """Return the rows that are taken, in their order: of each class, and of all, as many as asked for, 0 for all."""
    generator = np.random.default_rng(seed)
    rows = np.arange(len(targets))
    if per_class:
        found = np.array(targets)
        groups = [rows[found == target] for target in sorted({*targets} - {-1})] or [rows]
        rows = np.concatenate([generator.permutation(group)[:per_class] for group in groups])
    if limit and limit < len(rows):
        rows = generator.permutation(rows)[:limit]
    return sorted(rows.tolist())


def _read(data: Labelled) -> dict[str, Any]:
    """Return what reading says of a listing: its pictures that can be read, and why others cannot."""
    loaded = read_ahead(data.pictures, lambda content: (content_hash(content), data.net.prepare(content)))
    good, failed = list[tuple[Picture, int, str]](), list[str]()
    kept, room = list[np.ndarray](), _IN_MEMORY
    remarks = Counter[str]()
    counted = Counted(loaded, Pictures([data.pictures]))
    for item, target in zip(track(counted, "pictures"), data.targets, strict=True):
        if item.value is None:
            failed.append(_named(item.picture.where, str(item.error)))
            continue
        content, prepared = item.value
        good.append((item.picture, target, content))
        remarks.update(_in_words_before(prepared.remarks, remarks))
        room -= prepared.pixels.nbytes
        if room >= 0:
            kept.append(prepared.pixels)
        else:
            kept.clear()
    if not good:
        count = len(data.pictures)
        raise PictureError(f"none of {count:,} pictures can be read: {failed[0]}" if failed else "no pictures")
    for remark, count in remarks.items():
        say(
            remark if isinstance(remark, Assumption) or count == len(good) else f"{remark} ({count:,} of {len(good):,})"
        )
    if failed:
        one = "1 picture" if len(failed) == 1 else f"{len(failed):,} pictures"
        say(f"{one} could not be read, and left out: {failed[0]}" + (", ..." if len(failed) > 1 else ""))
    columns = zip(("pictures", "targets", "contents"), zip(*good, strict=True), strict=True)
    return {**dict(columns), "failed": tuple(failed), "kept": tuple(kept) if room >= 0 else None}


def _in_words_before(remarks: Iterable[str], before: Iterable[str]) -> Iterator[str]:
    """Yield remarks; for an assumption that was said of another picture, with its numbers, that one."""
    said = {each.short: each for each in before if isinstance(each, Assumption)}
    for remark in remarks:
        yield said.get(remark.short, remark) if isinstance(remark, Assumption) else remark


def _named(where: str, error: str) -> str:
    return error if where in error else f"{where}: {error}"
