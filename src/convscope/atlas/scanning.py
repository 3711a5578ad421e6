"""`scan`: every unit's pictures over a whole data set, in one pass, shard by shard; and an atlas of what it found."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from .. import addresses
from ..context import Arriving, say, track
from ..data.opening import locate
from ..data.pictures import read_pictures
from ..data.storage import Place, at
from ..data.uploads import check_writable, lock, remove
from ..errors import AtlasError, OutputError, PictureError
from ..interruptions import orderly
from ..net import Net
from ..running import blank, check_repeatable
from .computing import Receipt, Scan
from .effects import check_output
from .manifest import SAMPLE, Detail, Manifest, Settings, describe, read_manifest, sampled
from .merging import Merging
from .reading import Roots
from .shards import left_over, missing_shards
from .tables import UNITS, Writing, check_pyarrow
from .units import choose_layers

_LOCK = ".lock"

Engine = Callable[[Scan, Sequence[int]], Generator[Receipt]]
"""Computes shards, in any order and by whatever means, and yields a receipt for each that was written."""


@orderly
def scan(
    net: Net,
    data: Any,
    atlas: str | Path,
    *,
    layers: Sequence[str] = (),
    k: int = 9,
    statistics: Detail = "full",
    effect: bool = False,
    batch_size: int = 0,
    shard: int = 0,
    sample: int | None = None,
    seed: int = 0,
    engine: Engine | None = None,
) -> Path | str:
    """Scan a data set for what every unit responds to, and write an atlas of it.

    Args:
        net: the network.
        data: whatever `convscope.data.read_pictures` reads and can count.
        atlas: the folder to write, of this machine or in a storage ("s3://bucket/atlas"); a scan that was ended before
            goes on there.
        layers: names, numbers of convolutions or patterns ("features.*"); by default every convolution and linear
            layer, or the normalisation after it, and the output.
        k: how many pictures of each kind to keep of a unit.
        statistics: "basic" keeps the strongest pictures and means; "full" also the weakest, bands between them, random
            ones, variance, the share of active positions, histograms and, where there are labels, AUC.
        effect: keep the pictures, too, where each unit mattered most: its activity times the gradient of the predicted
            class's score. It takes a backward pass.
        batch_size: pictures in one pass; by default 8 on a CPU, of small ones up to 32, and 64 elsewhere.
        shard: pictures in one file; about 1,000 by default.
        sample: how many pictures, drawn at random, quantiles and AUC are computed from; 10,000 by default.
        seed: of what is drawn at random.
        engine: what computes the shards: by default this process.

    Returns the atlas's folder or address. A picture that cannot be read is left out, and listed with the reason. Raises
    AtlasError where there is an atlas of something else, DataError for pictures that nobody can count, OutputError
    where another scan writes or nothing can be written, StorageError for a storage that does not answer.
    """
    place = at(atlas)
    check_pyarrow()
    check_writable(place)
    pictures = read_pictures(data)
    chosen = choose_layers(net, layers)
    check_repeatable(net, blank(net, net.size))
    if effect:
        check_output(net)
    drawn = SAMPLE if sample is None else sample
    settings = Settings(k, statistics, effect, sample=drawn, batch=batch_size, shard=shard, seed=seed)
    manifest = describe(net, chosen, pictures, settings)
    job = Scan(net, chosen, pictures, manifest, place, Roots.of(pictures), sampled(manifest))
    _check_places(job)
    with lock(place / _LOCK, f"the atlas {place}"):
        _begin(place, manifest)
        job.roots.write(place)
        _compute(job, engine or Scan.compute)
        merging = Merging(place, manifest)
        merging.fetch()
        Writing(place, manifest, net.layers, merging).all()
    return place if isinstance(place, Path) else str(place)


def _check_places(job: Scan) -> None:
    """Refuse to write an atlas among its pictures, and one of files of which none is there.

    Raises OutputError, and PictureError.
    """
    if any(_is_same(at(place), job.folder) for place in job.roots.absolute.values()):
        raise OutputError(f"{job.folder} holds the pictures: give the atlas a folder of its own, such as -o atlas")
    absent: PictureError | None = None
    for picture in map(job.pictures.__getitem__, range(job.manifest.pictures)):
        if picture._fetch is not None or addresses.is_remote(picture.where):
            return
        try:
            locate(picture.where)
            return
        except PictureError as error:
            absent = absent or error
    if absent is not None:
        raise absent


def _is_same(one: Place, other: Place) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return one.resolve() == other.resolve()
    return str(one).rstrip("/") == str(other).rstrip("/")


def _begin(folder: Place, manifest: Manifest) -> None:
    """Write the manifest, or compare it with the one that is there. Raises AtlasError where they differ."""
    before = read_manifest(folder)
    if before is not None and before.key != manifest.key:
        raise AtlasError(
            f"{folder} holds an atlas of something else: {before.difference(manifest)}. Give another folder with -o, "
            "or scan as before to go on"
        )
    if before is None:
        manifest.write(folder)
    for file in left_over(folder, manifest):
        remove(file)


def _compute(job: Scan, engine: Engine) -> None:
    """Compute the shards that are not there yet."""
    manifest = job.manifest
    missing = missing_shards(job.folder, manifest)
    if not missing:
        return
    remove(job.folder / UNITS)
    if len(missing) < manifest.shards:
        say(f"{manifest.shards - len(missing)} of {manifest.shards} shards were there already")
    failed = 0
    with closing(engine(job, missing)) as computed:  # where it ends early, at once
        receipts = _Receipts(computed, len(missing), manifest)
        for receipt in track(receipts, receipts.told):
            failed += receipt.failed
    if failed:
        said = "1 picture" if failed == 1 else f"{failed:,} pictures"
        say(f"{said} could not be read, and left out: column error of pictures.parquet says why")


class _Receipts(Arriving):
    """Receipts as they come, and how many there will be."""

    def __init__(self, receipts: Iterator[Receipt], count: int, manifest: Manifest) -> None:
        self.receipts, self.count, self.manifest = receipts, count, manifest
        self.pictures = self.bytes = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Receipt]:
        for receipt in self.receipts:
            self.pictures += receipt.pictures
            self.bytes += receipt.bytes
            yield receipt

    def told(self) -> str:
        """Say how far the scan is, and from the first shard on how large the atlas will be."""
        text = f"scan, {self.pictures:,} of {self.manifest.pictures:,} pictures"
        if not self.pictures:
            return text
        return f"{text}, about {_in_bytes(self.bytes / self.pictures * self.manifest.pictures)} in all"


def _in_bytes(count: float) -> str:
    """Write a number of bytes for people: "1.2 GB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"
