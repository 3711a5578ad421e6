"""What a scan of ImageNet costs besides decoding and the network: planning it, dealing it out, and merging its shards.

    python benchmarks/scale.py FOLDER [--pictures 1281167] [--workers 64] [--seconds 0.026] [--merged 1252] [--shuffled]

The names of so many pictures in a thousand classes are planned as `scan` does it, and dealt out to simulated workers,
of which each takes `seconds` for a picture, by a clock that is simulated too; what dealing out takes here is measured.
Then shards are written to FOLDER (`merged` of them, a tenth by default, as of that many pictures) as SqueezeNet's
convolutions would give them, of random numbers, and the tables are made of them. The pictures are in the order of
their classes, or `shuffled`. Times are CPU time of this process.
"""

from __future__ import annotations

import argparse
import heapq
import pickle
import random
import resource
import shutil
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch

import convscope
from convscope.atlas.computing import Scan
from convscope.atlas.jobs import Job, parts
from convscope.atlas.manifest import Settings, computed_with, describe, sampled
from convscope.atlas.merging import Merging
from convscope.atlas.reading import Roots
from convscope.atlas.selection import Selection
from convscope.atlas.shards import ScannedPicture, Shard, is_whole
from convscope.atlas.statistics import BINS, Statistics
from convscope.atlas.tables import Writing
from convscope.atlas.units import choose_layers
from convscope.data.pictures import Files, Pictures

CLASSES = 1000


@contextmanager
def timed(what: str) -> Generator[None]:
    """Print the CPU time of a block, and the memory at its end."""
    start = time.process_time()
    yield
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    print(f"{what}: {time.process_time() - start:.1f} s, {memory / 1e6:,.0f} MB resident", flush=True)


def names(count: int, shuffled: bool) -> Pictures:
    """The names of ImageNet's training set, or of fewer."""
    labels = [number * CLASSES // count for number in range(count)]
    if shuffled:
        random.Random(0).shuffle(labels)
    classes = tuple(f"n{number:08d}" for number in range(CLASSES))
    root = "/data/imagenet/train/"
    addresses = tuple(f"{root}{classes[label]}/{classes[label]}_{at}.JPEG" for at, label in enumerate(labels))
    return Pictures([Files(addresses, root, tuple(labels), classes)])


def planned(folder: Path, count: int, shuffled: bool) -> Scan:
    """Plan a scan as `convscope.scan` does."""
    with timed(f"names of {count:,} pictures"):
        pictures = names(count, shuffled)
    net = convscope.load("torchvision:squeezenet1_0", weights=None)
    layers = choose_layers(net)
    with timed("manifest (hash of all names), roots, sample"):
        manifest = describe(net, layers, pictures, Settings(batch=8))
        scan = Scan(net, layers, pictures, manifest, folder, Roots.of(pictures), sampled(manifest))
    with timed(f"which of {manifest.shards:,} shards are there"):
        assert not any(is_whole(folder, manifest, number) for number in range(manifest.shards))
    return scan


def dealt_out(scan: Scan, workers: int, seconds: float) -> None:
    """Deal all shards out to simulated workers, and print how long they and this process would take."""
    start = time.process_time()
    job, sent, largest = pickle.dumps(Job.of(scan)), 0, 0
    free = [0.0] * workers
    for part in parts(scan, range(scan.manifest.shards)):
        size = len(pickle.dumps(part))
        sent, largest = sent + size, max(largest, size)
        heapq.heappush(free, heapq.heappop(free) + len(part.pictures) * seconds)
    own = time.process_time() - start
    print(
        f"dealing out: {own:.1f} s here, of {max(free) / 60:.1f} min with {workers} workers "
        f"({own / max(free):.2%}; all busy {scan.manifest.pictures * seconds / workers / max(free):.1%} of the time); "
        f"a job {len(job) / 1e3:,.0f} kB, a part at most {largest / 1e3:,.0f} kB, all {sent / 1e6:,.0f} MB"
    )


def invented(scan: Scan, number: int) -> Shard:
    """A shard as SqueezeNet would give it, of random numbers."""
    manifest, span = scan.manifest, scan.manifest.range(number)
    units, k, count = manifest.units, manifest.settings.k, len(span)
    torch.manual_seed(number)
    values, some = torch.rand(k, units), torch.randperm(count)[:k] + span.start
    selections: dict[str, Selection] = {}
    for name, order in (("strongest", "largest"), ("weakest", "smallest")):
        keys, at = Selection.empty(order, units, k).keys_of(values, some).T.sort(1, descending=True)
        selections[name] = Selection(order, keys, some[at].int(), torch.zeros_like(at, dtype=torch.int32))
    statistics = Statistics.empty(units)
    statistics.pictures += count
    statistics.counts[:, BINS // 2 - 60 : BINS // 2 + 60] = torch.randint(1, 1000, (units, 120))
    shown = [scan.roots.name(scan.pictures[index]) for index in span]
    pictures = [
        ScannedPicture(one.root, one.path, 110_000, f"{at:064x}", 375, 500, (0.0, 0.0, 500.0, 375.0), one.label)
        for at, one in zip(span, shown, strict=True)
    ]
    labels = Counter(str(picture.label) for picture in pictures)
    sample, examples = (torch.arange(span.start, span.stop)[chosen[span.start : span.stop]] for chosen in scan.samples)
    return Shard(
        start=span.start,
        pictures=pictures,
        computed=computed_with(scan.net),
        selections=selections,
        statistics=statistics,
        labels=list(labels),
        class_sums=torch.stack([torch.rand(min(many, 9), units).double().sum(0) for many in labels.values()]),
        class_counts=torch.tensor(list(labels.values())),
        sample=sample,
        maxima=torch.rand(len(sample), units),
        examples=examples,
        places=torch.zeros(len(examples), units, dtype=torch.int32),
    )


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--pictures", type=int, default=1_281_167)
    options.add_argument("--workers", type=int, default=64)
    options.add_argument("--seconds", type=float, default=0.026)
    options.add_argument("--merged", type=int, default=0)
    options.add_argument("--shuffled", action="store_true")
    given = options.parse_args()
    scan = planned(given.folder, given.pictures, given.shuffled)
    dealt_out(scan, given.workers, given.seconds)
    merged = given.merged or max(1, scan.manifest.shards // 10)
    if merged < scan.manifest.shards:
        scan = planned(given.folder, merged * scan.manifest.settings.shard, given.shuffled)
    try:
        start, size = time.process_time(), 0
        for number in range(scan.manifest.shards):
            size += invented(scan, number).save(scan.folder, scan.manifest).stat().st_size
        each = (time.process_time() - start) / scan.manifest.shards
        print(f"shards: {size / 1e9:.1f} GB, {each * 1e3:.0f} ms to make one up and write it")
        with timed("which of them are whole"):
            assert all(is_whole(scan.folder, scan.manifest, number) for number in range(scan.manifest.shards))
        with timed("merging, and tables"):
            Writing(scan.folder, scan.manifest, scan.net.layers, Merging(scan.folder, scan.manifest)).all()
        tables = sum(path.stat().st_size for path in scan.folder.glob("*.parquet"))
        print(f"tables: {tables / 1e6:,.0f} MB; largest resident size {_peak() / 1e6:,.0f} MB")
    finally:
        shutil.rmtree(scan.folder / "shards", ignore_errors=True)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
