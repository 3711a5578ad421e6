"""Kept: results by key, of which the last so many stay, so that a service may run for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_lock = threading.RLock()


class Kept(Generic[K, V]):
    """The last results that were asked for; any number of threads may ask."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[K, V] = {}

    def of(self, key: K, find: Callable[[], V]) -> V:
        """Return the result for a key, found where it is not kept."""
        with _lock:
            if key in self._values:
                return self._last(key, self._values.pop(key))
        value = find()
        with _lock:
            return self._last(key, value)

    def find(self, key: K) -> V | None:
        """Return the result for a key where it is kept, as the last that was asked for."""
        with _lock:
            return self._last(key, self._values.pop(key)) if key in self._values else None

    def forget(self, which: Callable[[K], bool]) -> None:
        """Keep nothing any more whose key is one of these."""
        with _lock:
            for key in [key for key in self._values if which(key)]:
                del self._values[key]

    def _last(self, key: K, value: V) -> V:
        self._values[key] = value
        while len(self._values) > self._most:
            del self._values[next(iter(self._values))]
        return value

    def __len__(self) -> int:
        return len(self._values)
