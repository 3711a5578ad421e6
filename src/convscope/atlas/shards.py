"""Shards: what a range of pictures gave, one file each, named by manifest and range, written whole or not at all.

Whoever computes a range writes the same file, so it may be computed by anybody, and twice. A file is arrays in the
safetensors format, whose header holds the pictures and what they were computed with; reading one runs nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..context import track
from ..data.storage import Place, local, names_in
from ..data.uploads import PARTS, write_whole
from ..errors import AtlasError, PictureError
from ..parsing import Document
from .manifest import Manifest
from .selection import Selection
from .statistics import BINS, Statistics

FOLDER = "shards"

_HEADER, _PICTURES = "shard", "listed"

_EXACT = "class_sums.float32"
"""Sums per class that float32 holds as they are; their labels come first."""


@dataclass(frozen=True, slots=True)
class ScannedPicture:
    """A picture of a scan: its content, its own size and the part of it that the network saw, or the error instead."""

    root: str
    path: str
    bytes: int = 0
    sha256: str = ""
    height: int = 0
    width: int = 0
    seen: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    label: int | str | None = None
    error: str = ""


_COLUMNS = tuple(each.name for each in fields(ScannedPicture))


@dataclass
class Shard:
    """What a range of pictures gave: the best candidates, sums, sums per class, and the sample's maxima.

    `labels` are those of `class_sums` (labels, units) and `class_counts`; `sample` are the numbers of pictures of which
    `maxima` (n, units) are kept, `examples` of those of which `places` (n, units) are, too.
    """

    start: int
    pictures: list[ScannedPicture]
    computed: Mapping[str, Any]
    selections: dict[str, Selection]
    statistics: Statistics
    labels: list[str]
    class_sums: Tensor
    class_counts: Tensor
    sample: Tensor
    maxima: Tensor
    examples: Tensor
    places: Tensor

    def save(self, folder: Place, manifest: Manifest) -> int:
        """Write the shard's file, whole or not at all, and return its size in bytes."""
        exact = (self.class_sums.float().double() == self.class_sums).all(1)  # half as large: sums of a single picture
        order = exact.logical_not().argsort(stable=True)
        header = {
            "manifest": manifest.key,
            "start": self.start,
            "computed": dict(self.computed),
            "labels": [self.labels[row] for row in order],
        }
        tensors = {f"statistics.{name}": value for name, value in vars(self.statistics).items() if name != "counts"}
        counts = self.statistics.counts.flatten()
        counted = counts.nonzero()[:, 0]  # most bins are empty
        tensors |= {"counted": _narrow(counted), "counts": _narrow(counts[counted])}
        for name, selection in self.selections.items():
            parts = {part: getattr(selection, part) for part in ("keys", "pictures", "places")}
            tensors |= {f"{name}.{part}": value for part, value in parts.items()}
        tensors |= {"class_sums": self.class_sums[~exact], _EXACT: self.class_sums[exact].float()}
        tensors["class_counts"] = self.class_counts[order]
        for name in ("sample", "maxima", "examples", "places"):
            tensors[name] = getattr(self, name)
        listed = json.dumps([[getattr(picture, name) for name in _COLUMNS] for picture in self.pictures], default=str)
        tensors[_PICTURES] = torch.frombuffer(bytearray(listed, "ascii"), dtype=torch.uint8)
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        text = json.dumps(header, ensure_ascii=True, default=str)
        content = save(tensors, {_HEADER: text})
        write_whole(shard_file(folder, manifest, self.start), content)
        return len(content)


@dataclass(frozen=True)
class _Header:
    manifest: str
    start: int
    computed: Mapping[str, object]
    labels: list[str]


@dataclass
class StoredShard:
    """A shard's file, opened: its pictures, and arrays that are read when they are asked for."""

    file: Any
    path: Place
    header: _Header

    def pictures(self) -> list[ScannedPicture]:
        """Read the pictures: they take most of a header's time, and merging opens a file several times."""
        text = self.file.get_tensor(_PICTURES).numpy().tobytes().decode("ascii", "replace")
        document = Document(str(self.path), text, AtlasError)
        rows = [dict(zip(_COLUMNS, row, strict=False)) for row in document.json(list[list[object]])]
        return document.shaped(rows, list[ScannedPicture])

    def selection(self, name: str, units: slice) -> Selection | None:
        """Read a selection of some units; None where the scan keeps none of this name."""
        if f"{name}.keys" not in self.file.keys():  # noqa: SIM118  safe_open is no mapping
            return None
        order = "smallest" if name == "weakest" else "largest"
        return Selection(order, *(self.tensor(f"{name}.{part}", units) for part in ("keys", "pictures", "places")))

    def add_to(self, statistics: Statistics, units: slice) -> None:
        """Add the shard's sums of some units to those of the shards before it, in place: they are large."""
        for name in ("pictures", "broken", "sums", "squares", "effects"):
            getattr(statistics, name).add_(self.tensor(f"statistics.{name}", units))
        first, last = (end * BINS for end in (units.start, units.stop))
        counted = self.file.get_tensor("counted")  # sorted; of what is not looked at nothing is read
        some = slice(*torch.searchsorted(counted, torch.tensor([first, last], dtype=counted.dtype)).tolist())
        statistics.counts.view(-1).index_add_(0, counted[some].long() - first, self.tensor("counts", some).long())

    def classes(self, units: slice) -> Iterator[tuple[str, Tensor, int]]:
        """Yield the label of each class with its sum over some units, and how many pictures it is of."""
        names = [name for name in (_EXACT, "class_sums") if name in self.file.keys()]  # noqa: SIM118
        sums = chain(*(self.tensor(name, slice(None), units).double() for name in names))
        yield from zip(self.header.labels, sums, self.tensor("class_counts").tolist(), strict=True)

    def columns(self, pictures: str, values: str, units: slice) -> tuple[Tensor, Tensor]:
        """Read numbers of pictures (n,), and some units' columns of an array (n, units), which end with the file."""
        return self.file.get_tensor(pictures), self.file.get_slice(values)[:, units]

    def tensor(self, name: str, *part: slice) -> Tensor:
        """Read an array, or a part of it, as a copy: as long as what is in the file is used, all of it is in memory."""
        return self.file.get_slice(name)[part].clone() if part else self.file.get_tensor(name).clone()


def _narrow(numbers: Tensor) -> Tensor:
    """Return whole numbers, at least 0, in half as many bytes where those hold them."""
    return numbers.int() if numbers.numel() == 0 or int(numbers.max()) < 2**31 else numbers


def shard_file(folder: Place, manifest: Manifest, start: int) -> Place:
    """Return where the shard lies that begins with a picture."""
    stop = min(start + manifest.settings.shard, manifest.pictures)
    return folder / FOLDER / f"{manifest.key[:12]}-{start:09d}-{stop:09d}.safetensors"


def missing_shards(folder: Place, manifest: Manifest) -> list[int]:
    """Return the numbers of the shards that are not there, not whole, or not of this manifest.

    Those in a storage are copied for it, as merging needs them all.
    """
    files = {number: shard_file(folder, manifest, manifest.range(number).start) for number in range(manifest.shards)}
    there = set(names_in(folder / FOLDER))
    whole = set[int]()
    for number in track([number for number, file in files.items() if file.name in there], "looking at shards"):
        with suppress(AtlasError), open_shard(files[number], manifest, manifest.range(number).start):
            whole.add(number)
    return [number for number in files if number not in whole]


@contextmanager
def open_shard(path: Place, manifest: Manifest, start: int) -> Generator[StoredShard]:
    """Open a shard's file inside a block. Raises AtlasError for one that is cut short, or of another scan."""
    try:
        with safe_open(local(path), "pt") as file:
            document = Document(str(path), (file.metadata() or {}).get(_HEADER, ""), AtlasError)
            header = document.json(_Header)
            if _PICTURES not in file.keys():  # noqa: SIM118
                raise document.fault("another version of convscope wrote it")
            if header.manifest != manifest.key or header.start != start:
                raise document.fault("it is a shard of another scan")
            yield StoredShard(file, path, header)
    except (SafetensorError, OSError, PictureError) as error:
        raise AtlasError(f"{path} cannot be read as a shard: {error}") from None


def columns(path: Place, name: str, units: slice) -> Tensor:
    """Read some units' columns of an array (n, units) in a shard's file, as a copy."""
    with safe_open(local(path), "pt") as file:
        return file.get_slice(name)[:, units.start : units.stop].clone()


def left_over(folder: Place, manifest: Manifest) -> list[Place]:
    """Return files of other scans that lie among an atlas's shards, and halves of files."""
    own = re.compile(rf"{re.escape(manifest.key[:12])}-.*\.safetensors")
    names = [name for name in names_in(folder / FOLDER) if name.endswith((".safetensors", PARTS))]
    return [folder / FOLDER / name for name in names if not own.fullmatch(name) and not name.startswith(".")]
