"""Jobs: a scan as any process can take it up, and one shard of it computed there.

A job says how the network is loaded; each part brings its pictures' addresses, so that no worker lists the data again.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from .. import addresses
from ..data import torchvision_sets
from ..data.opening import locate
from ..data.pictures import Picture, Pictures, read_pictures
from ..data.storage import Place, Remote, at
from ..errors import AtlasError, PictureError
from ..kept import Kept
from ..provenance import versions
from ..remaking import network_of
from ..zoo.configured import code_file
from .computing import Receipt, Scan
from .manifest import Manifest, describe_network, sampled
from .reading import Roots


@dataclass(frozen=True)
class Part:
    """One shard of a scan: its number, and its pictures."""

    number: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Job:
    """A scan that can be sent: what any process makes the same `Scan` of.

    `roots` are the names of the places of its pictures; `folder` is where shards go, `directory` where relative
    addresses begin; `device` is what a worker computes on, with `threads` of it (0: as many as it would take anyway).
    """

    manifest: Manifest
    roots: Mapping[str, str]
    folder: str
    directory: str
    device: str
    version: str
    threads: int = 0

    @classmethod
    def of(cls, scan: Scan, *, device: str = "", threads: int = 0) -> Job:
        """Describe a scan. Raises AtlasError where its network or pictures exist in this process only."""
        _check_network(scan)
        _check_pictures(scan)
        _check_folder(scan.folder)
        return cls(
            scan.manifest,
            scan.roots.places,
            addresses.absolute(str(scan.folder)),
            str(Path.cwd()),
            device or str(scan.net.device),
            versions()["convscope"],
            threads,
        )

    def scan(self) -> Scan:
        """Make the scan, without pictures. Raises AtlasError where this process would compute something else."""
        if versions()["convscope"] != self.version:
            raise AtlasError(
                f"the worker on {platform.node()} has convscope {versions()['convscope']}, and the scan was begun by "
                f"{self.version}: install the same version there"
            )
        with suppress(OSError):  # where it is not there, only absolute addresses are found
            os.chdir(self.directory)
        net = network_of(self.manifest.recipe()).to(self.device)
        layers = [net.layers[layer.name] for layer in self.manifest.layers if layer.name in net.layers]
        here = describe_network(self.manifest, net, layers)
        if here.key != self.manifest.key:
            raise AtlasError(
                f"the worker on {platform.node()} would compute another scan: {self.manifest.difference(here)}"
            )
        return Scan(net, layers, {}, here, at(self.folder), Roots(dict(self.roots)), sampled(here))


_scans: Kept[tuple[str, str, str], Scan] = Kept(1)
"""The scan that this process has made ready: a worker loads its network once."""


def compute(job: Job, part: Part, *, workers: int | None = None) -> Receipt:
    """Compute one shard and write its file. Whoever does it, and however often, writes the same.

    `workers` threads read pictures ahead. Raises AtlasError where this process has another network, or the pictures are
    not where it looks for them.
    """
    scan = _scans.of((job.manifest.key, job.folder, job.device), job.scan)
    _check_found(part)
    pictures = dict(zip(scan.manifest.range(part.number), map(_opened, part.pictures), strict=True))
    [receipt] = replace(scan, pictures=pictures).compute([part.number], workers=workers)
    return receipt


def parts(scan: Scan, numbers: Sequence[int]) -> Iterator[Part]:
    """Yield shards as they can be sent: what a picture's address does not say is found by whoever computes it."""
    for number in numbers:
        found = (scan.pictures[index] for index in scan.manifest.range(number))
        yield Part(number, tuple(replace(picture, _fetch=None) for picture in found))


def _opened(picture: Picture) -> Picture:
    """Return a picture that was sent as its source gives it: of a torchvision set with the label that its item has."""
    title, _, number = picture.where.rpartition("#")
    if picture.where.startswith(torchvision_sets.PREFIX) and number.isdigit():
        return _items(title)[int(number)]
    return picture


@lru_cache(4)
def _items(title: str) -> Pictures:
    return read_pictures(title)


def _check_network(scan: Scan) -> None:
    source, name = scan.net.source, scan.net.name
    otherwise = "or scan in this process, without --workers, --devices and --engine ray (in Python without engine)"
    if source is None:
        raise AtlasError(
            f"{name} was made in Python, and workers in other processes load the network by its name: load it by "
            f"convscope.load, {otherwise}"
        )
    if code_file(source.name) is not None:
        raise AtlasError(
            f"{source.name} runs code, which no worker in another process is told to run: save the network as a "
            f"program (pt2: or onnx:), {otherwise}"
        )


def _check_pictures(scan: Scan) -> None:
    for number in range(scan.manifest.pictures):
        picture = scan.pictures[number]
        if picture._fetch is not None and not picture.where.startswith(torchvision_sets.PREFIX):
            raise AtlasError(
                f"{picture.where} is in this process's memory, and workers in other processes open pictures by their "
                "address: scan in this process, without engine, or give files or a set as torchvision:NAME:FOLDER"
            )


def _check_folder(folder: Place) -> None:
    """Refuse a storage that other processes do not reach: one in memory, or by keys that stand in the address."""
    if isinstance(folder, Remote):
        if addresses.scheme_of(folder.address) == "memory":
            raise AtlasError(f"{folder} is this process's memory, which workers in other processes do not reach")
        if addresses.private(folder.address) != folder.address:
            raise AtlasError(
                f"workers in other processes know no keys that stand in an address: give those of {folder} as its "
                "package takes them, in the environment or its own file"
            )


def _check_found(part: Part) -> None:
    """Refuse to take a whole shard of pictures for broken where this machine does not see the data."""
    some = [part.pictures[at] for at in sorted({0, len(part.pictures) // 2, len(part.pictures) - 1})]
    for picture in some:
        try:
            locate(picture.where)
            return
        except PictureError:
            pass
    raise AtlasError(
        f"{some[0].where} and others are not found on {platform.node()}: pictures must lie where every worker sees "
        "them, in a shared folder or a storage"
    )
