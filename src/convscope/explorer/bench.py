"""The bench: everything that the explorer shows, as routes ask for it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypeVar

from fastapi import Depends, Form, Request

from ..tracing import Layer
from .links import slugs
from .problems import Missing, Refused
from .shelf import Shelf
from .specimen import Specimen

T = TypeVar("T")


class Bench:
    """The networks, by id, and the pictures; `token` is what forms of this run's own pages carry."""

    def __init__(self, specimens: Sequence[Specimen], shelf: Shelf) -> None:
        self.specimens = {each.id: each for each in specimens}
        self.shelf = shelf
        self.token = secrets.token_urlsafe(24)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="aside")

    async def aside(self, make: Callable[[], T]) -> T:
        """Run what needs no network in a thread, so that no other request waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, make)

    def close(self) -> None:
        """Begin nothing more, and end the process that decodes."""
        for each in self.specimens.values():
            each.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.shelf.decoder.close()


def ids(names: Sequence[str]) -> list[str]:
    """Return an id for each network's name, also where two have one name."""
    distinct = [
        f"{name}-{names[:at].count(name) + 1}" if names[:at].count(name) else name for at, name in enumerate(names)
    ]
    return list(slugs(distinct, empty="network").values())


def _bench(request: Request) -> Bench:
    return request.app.state.bench


OnBench = Annotated[Bench, Depends(_bench)]


def _specimen(bench: OnBench, network: str) -> Specimen:
    if network not in bench.specimens:
        raise Missing("such network", f"there are {', '.join(bench.specimens)}")
    return bench.specimens[network]


OfNetwork = Annotated[Specimen, Depends(_specimen)]


def _layer(specimen: OfNetwork, layer: str) -> Layer:
    if layer not in specimen.layers:
        raise Missing("such layer", "the network's page lists its layers")
    return specimen.layers[layer]


OfLayer = Annotated[Layer, Depends(_layer)]


def _unit(specimen: OfNetwork, layer: OfLayer, unit: int) -> int:
    if not 0 <= unit < specimen.units(layer):
        raise Missing("such unit", f"{layer.title} has units 0 to {specimen.units(layer) - 1}")
    return unit


OfUnit = Annotated[int, Depends(_unit)]


def _own_form(bench: OnBench, token: Annotated[str, Form()] = "") -> None:
    if not secrets.compare_digest(token.encode(), bench.token.encode()):
        raise Refused("this form is of an earlier run: load the page again, and send it once more")


OwnForm = Depends(_own_form)
"""A dependency of every route that changes something: the request carries this run's token."""
