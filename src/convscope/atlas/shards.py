"""Shards: what a range of pictures gave, one file each, named by manifest and range, written whole or not at all.

Whoever computes a range writes the same file, so it may be computed by anybody, and twice. A file is arrays in the
safetensors format, whose header holds the pictures and what they were computed with; reading one runs nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import AtlasError
from ..outputs import write_bytes
from ..parsing import Document
from .manifest import Manifest
from .selection import Selection
from .statistics import Statistics

FOLDER = "shards"

_HEADER = "shard"


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

    def save(self, folder: Path, manifest: Manifest) -> Path:
        """Write the shard's file, whole or not at all."""
        header = {
            "manifest": manifest.key,
            "start": self.start,
            "computed": dict(self.computed),
            "labels": self.labels,
            "pictures": [asdict(picture) for picture in self.pictures],
        }
        tensors = {f"statistics.{name}": value for name, value in vars(self.statistics).items() if name != "counts"}
        counts = self.statistics.counts.flatten()
        tensors["counted"] = counts.nonzero()[:, 0]  # most bins are empty
        tensors["counts"] = counts[tensors["counted"]]
        for name, selection in self.selections.items():
            parts = {part: getattr(selection, part) for part in ("keys", "pictures", "places")}
            tensors |= {f"{name}.{part}": value for part, value in parts.items()}
        for name in ("class_sums", "class_counts", "sample", "maxima", "examples", "places"):
            tensors[name] = getattr(self, name)
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        text = json.dumps(header, ensure_ascii=True, default=str)
        return write_bytes(shard_file(folder, manifest, self.start), save(tensors, {_HEADER: text}), durable=True)


@dataclass(frozen=True)
class _Header:
    manifest: str
    start: int
    computed: Mapping[str, object]
    labels: list[str]
    pictures: list[ScannedPicture]


@dataclass
class StoredShard:
    """A shard's file, opened: its pictures, and arrays that are read when they are asked for."""

    file: Any
    path: Path
    header: _Header

    @property
    def pictures(self) -> list[ScannedPicture]:
        return self.header.pictures

    def selection(self, name: str) -> Selection | None:
        """Read a selection; None where the scan keeps none of this name."""
        if f"{name}.keys" not in self.file.keys():  # noqa: SIM118  safe_open is no mapping
            return None
        order = "smallest" if name == "weakest" else "largest"
        return Selection(order, *(self.tensor(f"{name}.{part}") for part in ("keys", "pictures", "places")))

    def add_to(self, statistics: Statistics) -> None:
        """Add the shard's sums to those of the shards before it, in place: they are large."""
        for name in ("pictures", "broken", "sums", "squares", "effects"):
            getattr(statistics, name).add_(self.tensor(f"statistics.{name}"))
        statistics.counts.view(-1).index_add_(0, self.tensor("counted"), self.tensor("counts"))

    def tensor(self, name: str) -> Tensor:
        """Read an array."""
        return self.file.get_tensor(name)


def shard_file(folder: Path, manifest: Manifest, start: int) -> Path:
    """Return where the shard lies that begins with a picture."""
    stop = min(start + manifest.settings.shard, manifest.pictures)
    return folder / FOLDER / f"{manifest.key[:12]}-{start:09d}-{stop:09d}.safetensors"


def is_whole(folder: Path, manifest: Manifest, number: int) -> bool:
    """Whether a shard is there, whole, and of this manifest."""
    start = manifest.range(number).start
    try:
        with open_shard(shard_file(folder, manifest, start), manifest, start):
            return True
    except AtlasError:
        return False


@contextmanager
def open_shard(path: Path, manifest: Manifest, start: int) -> Generator[StoredShard]:
    """Open a shard's file inside a block. Raises AtlasError for one that is cut short, or of another scan."""
    try:
        with safe_open(path, "pt") as file:
            document = Document(str(path), (file.metadata() or {}).get(_HEADER, ""), AtlasError)
            header = document.json(_Header)
            if header.manifest != manifest.key or header.start != start:
                raise document.fault("it is a shard of another scan")
            yield StoredShard(file, path, header)
    except (SafetensorError, OSError) as error:
        raise AtlasError(f"{path} cannot be read as a shard: {error}") from None


def columns(path: Path, pictures: str, values: str, units: slice) -> tuple[Tensor, Tensor]:
    """Read from a shard's file the numbers of pictures (n,), and some units' columns of an array (n, units)."""
    with safe_open(path, "pt") as file:
        return file.get_tensor(pictures), file.get_slice(values)[:, units.start : units.stop]


def left_over(folder: Path, manifest: Manifest) -> list[Path]:
    """Return files of other scans that lie among an atlas's shards."""
    names = (folder / FOLDER).glob("*.safetensors")
    return [path for path in names if not re.match(re.escape(manifest.key[:12]) + "-", path.name)]
