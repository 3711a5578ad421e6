"""Batches: as much at once as fits, halved where it does not."""

from __future__ import annotations

import gc
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from .context import say, track
from .errors import OptionError, OutOfMemory

T = TypeVar("T")

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def in_batches(work: Callable[[slice], T], count: int, batch: int, label: str) -> Iterator[T]:
    """Do `work` on consecutive slices of range(count), at most `batch` long, showing progress as `label`.

    When memory runs out the slices are halved, and the caption says so. Raises OptionError for a batch below 1,
    OutOfMemory when not even one at a time fits.
    """
    if batch < 1:
        raise OptionError(f"batch is at least 1, not {batch}")
    halving = Halving(label)
    for start in track(range(0, count, batch), label):
        yield from halving.over(work, slice(start, min(start + batch, count)))
    halving.report()


class Halving:
    """Do work on slices, on shorter and shorter ones when memory runs out."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.limit = sys.maxsize
        self.refused = 0

    def over(self, work: Callable[[slice], T], whole: slice) -> Iterator[T]:
        """Do `work` on `whole`, in as many pieces as memory asks for."""
        start = whole.start
        while start < whole.stop:
            piece = slice(start, min(start + self.limit, whole.stop))
            try:
                result = work(piece)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._halve(piece.stop - piece.start, error)
            else:
                yield result
                start = piece.stop
                continue
            # Outside the handler: until the error is gone, its traceback holds what did not fit.
            release_memory()

    def _halve(self, length: int, error: BaseException) -> None:
        if length == 1:
            raise OutOfMemory(
                f"{self.label}: memory ran out with one at a time: use a smaller input (size=) or another device"
            ) from error
        self.refused = self.refused or length
        self.limit = length // 2

    def report(self) -> None:
        """Say in the caption that memory ran out, if it did."""
        if self.refused:
            say(f"memory ran out with {self.refused} at once: went on with {self.limit}")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    # oneDNN, the library of convolutions on a CPU, only says that it could not create something.
    words = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    words += ("could not create a primitive", "could not create a memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


def release_memory() -> None:
    """Give back what a failed attempt still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def budget(memory: str | None, device: torch.device) -> int:
    """Return how many bytes batches may take: what was asked for, 32 MiB on a CPU, a quarter of what a GPU has free.

    On a CPU more is not quicker. Raises OptionError when `memory` is no amount.
    """
    if memory is not None:
        return bytes_of(memory)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    return 32 * 2**20


def bytes_of(memory: str | int) -> int:
    """Read an amount of memory, such as "2 GiB", "500 MB" or a number of bytes. Raises OptionError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?i?B?)\s*", str(memory), re.IGNORECASE)
    unit = match[2].upper() if match else "?"
    unit += "B" if unit in ("K", "M", "G", "KI", "MI", "GI") else ""
    if match is None or unit not in _UNITS or float(match[1]) * _UNITS[unit] < 1:
        raise OptionError(f"memory is an amount such as '2 GiB' or '500 MB', not {memory!r}")
    return int(float(match[1]) * _UNITS[unit])


def quickest(work: Callable[[int], object], sizes: Sequence[int], *, least: float = 1.05) -> int:
    """Return which batch size takes least time per item, by doing `work(size)` twice for each, smallest first.

    A larger batch must be quicker than the best smaller one by the factor `least`; the search ends at the first that is
    slower, or that memory does not hold.
    """
    best, shortest = sizes[0], math.inf
    for size in sizes:
        try:
            elapsed = min(_timed(work, size) for _ in range(2)) / size
        except (RuntimeError, MemoryError) as error:
            if size == sizes[0] or not out_of_memory(error):
                raise
            return best
        if elapsed * least < shortest:
            best, shortest = size, elapsed
        elif elapsed > shortest:
            break
    return best


def _timed(work: Callable[[int], object], size: int) -> float:
    start = time.perf_counter()
    work(size)
    return time.perf_counter() - start
