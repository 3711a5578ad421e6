"""Batches: as large as memory allows, halved when it runs out."""

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
    """Yield `work(slice)` for consecutive slices of range(count), at most `batch` long, showing progress as `label`.

    When memory runs out the slices are halved, and the caption says so. Raises OptionError for a batch below 1,
    OutOfMemory when memory does not hold a batch of 1.
    """
    if batch < 1:
        raise OptionError(f"batch is at least 1, not {batch}")
    halving = Halving(label)
    for start in track(range(0, count, batch), label):
        yield from halving.over(work, slice(start, min(start + batch, count)))
    halving.report()


class Halving:
    """Do work on slices, and on shorter ones once memory has run out."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.limit = sys.maxsize
        self.failed = 0

    def over(self, work: Callable[[slice], T], whole: slice) -> Iterator[T]:
        """Yield `work(piece)` for as many pieces of `whole` as memory requires."""
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
                f"{self.label}: out of memory at batch 1: use a smaller input (size=) or another device"
            ) from error
        self.failed = self.failed or length
        self.limit = length // 2

    def report(self) -> None:
        """Say in the caption at which batch memory ran out, if it did."""
        if self.failed:
            say(f"out of memory at batch {self.failed}; continued with {self.limit}")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    # oneDNN, which convolves on a CPU, says only that it could not create something.
    phrases = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    phrases += ("could not create a primitive", "could not create a memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(phrase in str(error) for phrase in phrases)


def release_memory() -> None:
    """Free what a failed attempt still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def budget(memory: str | None, device: torch.device) -> int:
    """Return how many bytes batches may take: `memory`, or 32 MiB on a CPU, a quarter of the free memory of a GPU.

    On a CPU larger batches are not quicker. Raises OptionError when `memory` is not an amount.
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
    """Return the batch size with the least time per item, from two runs of `work(size)` each, smallest first.

    A larger batch must be quicker than the best smaller one by the factor `least`; the search ends at the first that
    is slower or runs out of memory.
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
