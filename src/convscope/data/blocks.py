"""Blocks of remote files: fetched once for all threads that ask, some ahead of whoever reads on, the last ones kept."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

BLOCK = 1 << 20
_KEPT, _AHEAD = 64, 4

Fetch = Callable[[int, int], bytes]


class Blocks:
    """The last blocks of any number of files, by a key of each file; a process that is forked begins anew."""

    def __init__(self) -> None:
        self.clear()
        if hasattr(os, "register_at_fork"):
            this = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: (blocks := this()) and blocks.clear())

    def clear(self) -> None:
        """Forget all; also what another process was waiting for."""
        self._lock = threading.Lock()
        self._blocks: dict[tuple[Hashable, int], Future[bytes]] = {}

    def read(self, key: Hashable, start: int, size: int, end: int, fetch: Fetch) -> bytes:
        """Return bytes of a file that has `end` of them; `fetch` gives those from a place on."""
        numbers = range(start // BLOCK, -(-(start + size) // BLOCK))
        content = b"".join(self._block(key, number, end, fetch) for number in numbers)
        return content[start % BLOCK : start % BLOCK + size] if numbers else b""

    def _block(self, key: Hashable, number: int, end: int, fetch: Fetch) -> bytes:
        block, mine = self._claim(key, number)
        with self._lock:
            reads_on = mine and (key, number - 1) in self._blocks
        if reads_on:
            for later in range(number + 1, min(number + 1 + _AHEAD, -(-end // BLOCK))):
                _pool(os.getpid()).submit(self._ahead, key, later, end, fetch)
        if mine:
            self._fill(block, key, number, end, fetch)
        return block.result()

    def _ahead(self, key: Hashable, number: int, end: int, fetch: Fetch) -> None:
        block, mine = self._claim(key, number)
        if mine:
            self._fill(block, key, number, end, fetch)

    def _claim(self, key: Hashable, number: int) -> tuple[Future[bytes], bool]:
        """Return a block, and whether it is the caller who must fill it."""
        with self._lock:
            block = self._blocks.pop((key, number), None)
            mine = block is None
            self._blocks[key, number] = block = Future() if block is None else block
            while len(self._blocks) > _KEPT:
                del self._blocks[next(iter(self._blocks))]
            return block, mine

    def _fill(self, block: Future[bytes], key: Hashable, number: int, end: int, fetch: Fetch) -> None:
        try:
            block.set_result(fetch(number * BLOCK, min(BLOCK, end - number * BLOCK)))
        except BaseException as error:  # whoever waits hears of it, and the next one tries again
            with self._lock:
                self._blocks.pop((key, number), None)
            block.set_exception(error)


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_AHEAD, "convscope-blocks")
