"""Specimens: networks under the microscope. Each computes one thing at a time; whoever waits is told the place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

from ..atlas.atlas import Atlas
from ..atlas.units import count_units, has_units
from ..kept import Kept
from ..net import Net
from ..tracing import Layer
from .links import slugs

T = TypeVar("T")

_RESULTS = 1024
"""Results that stay: sheets and maps of about 100 kB each."""


class Specimen:
    """A network, with the atlas of a scan where there is one, under an id that addresses hold."""

    def __init__(self, id: str, net: Net, atlas: Atlas | None = None) -> None:
        self.id, self.net, self.atlas = id, net, atlas
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"network-{id}")
        self._kept: Kept[Hashable, Any] = Kept(_RESULTS)
        self._running: dict[Hashable, asyncio.Future[Any]] = {}

    @property
    def waiting(self) -> int:
        """How many computations have not ended."""
        return len(self._running)

    async def compute(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return a result by its key: kept, under way, or computed in its turn. Two that ask alike share one run."""
        kept: T | None = self._kept.find(key)
        if kept is not None:
            return kept
        if key not in self._running:
            future = asyncio.get_running_loop().run_in_executor(self._worker, lambda: self._kept.of(key, make))
            self._running[key] = future
            future.add_done_callback(lambda _: self._running.pop(key, None))
        # Whoever leaves does not end what others wait for.
        return await asyncio.shield(self._running[key])

    async def turn(self, make: Callable[[], T]) -> T:
        """Return what is computed in its turn and kept nowhere; whoever leaves before that gives the turn up."""
        future = asyncio.get_running_loop().run_in_executor(self._worker, make)
        key = object()
        self._running[key] = future
        future.add_done_callback(lambda _: self._running.pop(key, None))
        return await future

    def show(self, atlas: Atlas) -> None:
        """Take an atlas that was made meanwhile."""
        self.atlas = atlas
        self._kept.forget(lambda _: True)

    def close(self) -> None:
        """Begin nothing more."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """The layers that have a page, by the part of an address that stands for them, in execution order."""
        found = {name: layer for name, layer in self.net.layers.items() if has_units(layer)}
        return {slug: found[name] for name, slug in slugs(found).items()}

    @cached_property
    def slugs(self) -> dict[str, str]:
        """The part of an address for each layer's name."""
        return {layer.name: slug for slug, layer in self.layers.items()}

    def layer(self, slug: str) -> Layer:
        """Return the layer of an address. Raises KeyError."""
        return self.layers[slug]

    def units(self, layer: Layer) -> int:
        """Return how many units a layer has."""
        return count_units(layer)

    def scanned(self, layer: Layer) -> Atlas | None:
        """Return the atlas where it has the layer."""
        return self.atlas if self.atlas is not None and layer.name in self.atlas.layers else None
