"""Computing shards: pictures read ahead in threads, passed through the network in batches of one size, and reduced."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..context import check_cancelled
from ..data.loading import Loaded, read_ahead
from ..data.pictures import Picture, Pictures
from ..data.storage import Place
from ..errors import OutOfMemory
from ..layouts import laid_out
from ..net import Net
from ..tracing import Layer
from .manifest import Manifest, computed_with
from .reading import Read, Roots, named, reader
from .reduction import Kept, Reduction
from .shards import ScannedPicture, Shard


@dataclass(frozen=True)
class Receipt:
    """What is told of a shard that was written: its number, pictures that could not be read, and its file's bytes."""

    shard: int
    pictures: int
    failed: int
    bytes: int


@dataclass
class Scan:
    """A scan that is ready to be computed: network, layers, pictures, and where its shards go.

    `pictures` are by number, all of them or those of some shards; `roots` names the places below which all lie, and
    `samples` says which are in the sample, and which are examples, as `sampled` does.
    """

    net: Net
    layers: Sequence[Layer]
    pictures: Pictures | Mapping[int, Picture]
    manifest: Manifest
    folder: Place
    roots: Roots
    samples: tuple[Tensor, Tensor]

    def compute(self, numbers: Iterable[int], *, workers: int | None = None) -> Generator[Receipt]:
        """Compute shards and write each when it is whole; yield a receipt for each.

        `workers` threads read pictures ahead, across shards.
        """
        numbers = list(numbers)
        wanted = (self.pictures[index] for number in numbers for index in self.manifest.range(number))
        loaded = read_ahead(wanted, reader(self.net), workers=workers)
        try:
            with self.net.held():
                for number in numbers:
                    shard = _Computing(self, number).whole(loaded)
                    size = shard.save(self.folder, self.manifest)
                    failed = sum(bool(picture.error) for picture in shard.pictures)
                    yield Receipt(number, len(shard.pictures), failed, size)
        finally:
            loaded.close()


class _Computing:
    """One shard while it is computed."""

    def __init__(self, scan: Scan, number: int) -> None:
        self.net, self.manifest, self.roots, self.device = scan.net, scan.manifest, scan.roots, scan.net.device
        self.computed = computed_with(scan.net)
        self.range = scan.manifest.range(number)
        here = slice(self.range.start, self.range.stop)
        self.in_sample, self.is_example = (which[here].tolist() for which in scan.samples)
        settings = scan.manifest.settings
        self.reduction = Reduction.empty(
            scan.net, scan.layers, Kept(settings.k, settings.statistics == "full", settings.effect)
        )
        self.pictures: list[ScannedPicture] = []
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.sample: list[int] = []
        self.maxima: list[Tensor] = []
        self.examples: list[int] = []
        self.places: list[Tensor] = []

    def whole(self, loaded: Iterator[Loaded[Read]]) -> Shard:
        """Take the shard's pictures from those that are read, and return what they gave."""
        waiting: list[tuple[int, np.ndarray]] = []
        for index in self.range:
            check_cancelled()
            item = next(loaded)
            name = self.roots.name(item.picture)
            if item.value is None:
                self.pictures.append(named(ScannedPicture("", "", error=str(item.error)), name))
                continue
            self.pictures.append(named(item.value.identity, name))
            waiting.append((index, item.value.pixels))
            if len(waiting) == self.manifest.settings.batch:
                self._take(waiting)
                waiting = []
        if waiting:
            self._take(waiting)
        return self._shard()

    def _take(self, waiting: list[tuple[int, np.ndarray]]) -> None:
        """Run one batch, filled up to the size of all others: a short one could be computed by other kernels."""
        device, read = self.device, [torch.from_numpy(pixels) for _, pixels in waiting]
        shape = (self.manifest.settings.batch, *read[0].shape)
        batch = torch.empty(shape, dtype=read[0].dtype, memory_format=torch.channels_last)
        for row, one in enumerate(read + read[-1:] * (len(batch) - len(read))):
            batch[row] = one
        batch = laid_out(self.net, batch.to(device))
        pictures = torch.tensor([index for index, _ in waiting])
        examples = torch.tensor([self.is_example[index - self.range.start] for index, _ in waiting])
        try:
            found = self.reduction.take(batch, pictures.to(device), examples.to(device))
        except torch.OutOfMemoryError:
            raise OutOfMemory(
                f"{len(batch)} pictures in a batch take more memory than there is: give fewer, as --batch "
                f"{max(2, len(batch) // 2)}"
            ) from None
        maxima, places = (part.cpu() for part in found)
        for row, (index, _) in enumerate(waiting):
            self._keep(index, row, maxima, places)

    def _keep(self, index: int, row: int, maxima: Tensor, places: Tensor) -> None:
        """Keep what one picture, a row of the batch, gave to its class, and to the sample."""
        at = index - self.range.start
        label = self.pictures[at].label
        if label is not None:
            finite = maxima[row].double().nan_to_num(0, 0, 0)
            key = str(label)
            self.sums[key] = self.sums[key] + finite if key in self.sums else finite
            self.counts[key] = self.counts.get(key, 0) + 1
        if self.in_sample[at]:
            self.sample.append(index)
            self.maxima.append(maxima[row])
        if self.is_example[at]:
            self.examples.append(index)
            self.places.append(places[row])

    def _shard(self) -> Shard:
        reduction, units = self.reduction, self.reduction.units
        selections = {"strongest": reduction.strongest}
        if reduction.weakest is not None:
            selections["weakest"] = reduction.weakest
        if reduction.mattered is not None:
            selections["effect"] = reduction.mattered
        labels = sorted(self.sums)
        return Shard(
            start=self.range.start,
            pictures=self.pictures,
            computed=self.computed,
            selections=selections,
            statistics=reduction.statistics,
            labels=labels,
            class_sums=torch.stack([self.sums[label] for label in labels])
            if labels
            else torch.zeros(0, units).double(),
            class_counts=torch.tensor([self.counts[label] for label in labels], dtype=torch.int64),
            sample=torch.tensor(self.sample, dtype=torch.int64),
            maxima=torch.stack(self.maxima) if self.maxima else torch.zeros(0, units),
            examples=torch.tensor(self.examples, dtype=torch.int64),
            places=torch.stack(self.places) if self.places else torch.zeros(0, units, dtype=torch.int32),
        )


def maxima_of(net: Net, layers: Sequence[Layer], pixels: Tensor) -> dict[str, np.ndarray]:
    """Return the maximum of each unit of some layers (units,) in one picture (1, c, h, w), as a scan finds it."""
    reduction = Reduction.empty(net, layers, Kept(1))
    pair = laid_out(net, pixels.repeat(2, 1, 1, 1))
    maxima, _ = reduction.take(pair, torch.tensor([0], device=net.device), torch.tensor([False], device=net.device))
    return {name: maxima[0, units].cpu().numpy() for name, (_, units) in reduction.layers.items()}
