"""Batches to learn from: augmented by the seed alone, whoever loads them, shared among processes, begun at any step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ..errors import DataError, PictureError, told
from .datasets import LabelledPictures

_FILES = 128
"""Files that a process must be allowed to open for others to load its pictures."""

Item = tuple[Tensor | None, int, int]


class Prepared(Dataset[Item]):
    """Pictures as tensors: augmented with numbers drawn from (seed, index) alone, whoever loads them.

    Of several transforms, every batch uses one.
    """

    def __init__(
        self, pictures: LabelledPictures, transforms: Sequence[Callable[[Any], Any]], channels: int, seed: int
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


class _Loader(DataLoader[Any]):
    """A loader that says in words when its processes cannot be had, or end."""

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            yield from super().__iter__()
        except (OSError, RuntimeError) as error:
            if not self.num_workers:
                raise
            raise DataError(
                f"pictures cannot be loaded in {self.num_workers} more processes ({told(error)}): use fewer with "
                "workers, or 0 to load them in this one"
            ) from None


def _can_share() -> bool:
    """Whether processes can send tensors: each takes a file, and where too few may be open, torch waits for ever."""
    if sys.platform == "win32":
        return True
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit

    most, _ = getrlimit(RLIMIT_NOFILE)
    return most == RLIM_INFINITY or most >= _FILES


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
    return _Loader(
        prepared,
        batch_size=size,
        sampler=order,
        num_workers=workers if _can_share() else 0,
        collate_fn=_collate,
        drop_last=shuffled,
        pin_memory=torch.cuda.is_available(),
    )
