"""Specimens: networks under the microscope. Each computes one thing at a time; whoever waits is told the place."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

from ..atlas.atlas import Atlas
from ..atlas.units import count_units, has_units
from ..context import running
from ..kept import Kept
from ..net import Net
from ..tracing import Layer
from .links import slugs

T = TypeVar("T")

_RESULTS = 1024
"""Results that stay: sheets and maps of about 100 kB each."""


class _Run:
    """A computation, and how many wait for it: what nobody waits for any more is ended, or never begun."""

    future: asyncio.Future[Any]

    def __init__(self) -> None:
        self.waiting = 0
        self._left = threading.Event()

    def ended_by(self, make: Callable[[], T]) -> Callable[[], T]:
        def made() -> T:
            with running(cancel=self._left):
                return make()

        return made

    def end(self) -> None:
        self._left.set()
        self.future.cancel()


class Specimen:
    """A network, with the atlas of a scan where there is one, under an id that addresses hold."""

    def __init__(self, id: str, net: Net, atlas: Atlas | None = None) -> None:
        self.id, self.net, self.atlas = id, net, atlas
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"network-{id}")
        self._kept: Kept[Hashable, Any] = Kept(_RESULTS)
        self._readers = ThreadPoolExecutor(1, thread_name_prefix=f"reader-{id}")
        self._running: dict[Hashable, _Run] = {}

    @property
    def waiting(self) -> int:
        """How many computations have not ended."""
        return len(self._running)

    async def compute(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return a result by its key: kept, under way, or computed in its turn. Two that ask alike share one run."""
        return await self._shared(self._worker, key, make)

    async def read(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return a result by its key that needs no pass of the network, and so waits for none."""
        return await self._shared(self._readers, key, make)

    async def ready(self) -> None:
        """Find the layers, which takes a pass, where nobody has asked for them yet."""
        if "layers" not in self.__dict__:
            await self.compute(("layers",), lambda: self.layers)

    async def _shared(self, threads: ThreadPoolExecutor, key: Hashable, make: Callable[[], T]) -> T:
        kept: T | None = self._kept.find(key)
        if kept is not None:
            return kept
        run = self._running.get(key)
        if run is None:
            run = _Run()
            run.future = asyncio.get_running_loop().run_in_executor(threads, self._kept.of, key, run.ended_by(make))
            self._running[key] = run
        run.waiting += 1
        try:
            return await asyncio.shield(run.future)  # whoever leaves does not end what others wait for
        finally:
            run.waiting -= 1
            if run.future.done() or not run.waiting:
                run.end()
                if self._running.get(key) is run:
                    del self._running[key]

    async def turn(self, make: Callable[[], T]) -> T:
        """Return what is computed in its turn and kept nowhere; whoever leaves before that gives the turn up."""
        key, run = object(), _Run()
        run.future = asyncio.get_running_loop().run_in_executor(self._worker, run.ended_by(make))
        self._running[key] = run
        try:
            return await run.future
        finally:
            run.end()
            del self._running[key]

    def show(self, atlas: Atlas) -> None:
        """Take an atlas that was made meanwhile."""
        self.atlas = atlas
        self._kept.forget(lambda _: True)

    def close(self) -> None:
        """Begin nothing more."""
        for threads in (self._worker, self._readers):
            threads.shutdown(wait=False, cancel_futures=True)

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
