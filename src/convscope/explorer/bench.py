"""The bench: everything that the explorer shows, as routes ask for it."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Form, Request

from ..atlas.atlas import Atlas
from ..errors import AtlasError, OptionError, OutputError, PictureError, RecipeError
from ..tracing import Layer
from .decoding import Clean
from .jobs import Asked, Job, Jobs
from .links import slugs
from .problems import Missing, Refused
from .shelf import Shelf, Shown, below
from .specimen import Specimen
from .units import class_labels
from .working import ATLAS

T = TypeVar("T")


class Bench:
    """The networks, by id, the pictures, and the queue of jobs where there is one.

    `token` is what forms of this run's own pages carry; `no_jobs` says why there is no queue.
    """

    def __init__(self, specimens: Sequence[Specimen], shelf: Shelf, results: Path | None = None) -> None:
        self.specimens = {each.id: each for each in specimens}
        self.shelf = shelf
        self.no_jobs = "start the explorer with --keep FOLDER, where results stay"
        self.jobs = self._opened(results)
        self.token = secrets.token_urlsafe(24)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="aside")

    def _opened(self, results: Path | None) -> Jobs | None:
        if results is None:
            return None
        try:
            found = Jobs(results, self._complete, self._finished)
        except OutputError as error:
            self.no_jobs = str(error)
            return None
        for job in found.listed():
            if job.state == "done":
                self._finished(job, found)
        return found

    def _complete(self, network: str, asked: Asked) -> dict[str, Any]:
        """Say how a job's network is loaded and where its pictures lie. Raises OptionError for what is not open."""
        specimen = self.specimens.get(network)
        if specimen is None or specimen.net.source is None:
            raise OptionError(f"the network {network} is not open: start the explorer with it")
        told: dict[str, Any] = {"kind": asked.kind, "source": asdict(specimen.net.source)}
        if asked.kind == "draw":
            if asked.recipe.get("weights") != specimen.net.digest:
                raise OptionError(f"the network {network} has other weights now: begin it on its page")
            return told | {"recipe": asked.recipe}
        if not 0 <= asked.data < len(self.shelf.sources):
            raise OptionError("its pictures are not open: start the explorer with them, as --pictures FOLDER")
        return told | {"data": self.shelf.sources[asked.data]}

    def _finished(self, job: Job, jobs: Jobs | None = None) -> None:
        """Open the atlas of a scan that is done, where its network has none."""
        specimen, jobs = self.specimens.get(job.network), jobs or self.jobs
        if job.kind == "scan" and specimen is not None and specimen.atlas is None and jobs is not None:
            with suppress(AtlasError, RecipeError):  # of another network of that name
                atlas = Atlas(jobs.place(job.id, ATLAS), net=specimen.net)
                _ = atlas.net
                specimen.show(atlas)

    def look(self, picture: str) -> tuple[Shown, Clean]:
        """Return a picture by its id: one of the shelf, or of an atlas. Raises Missing, PictureError."""
        scanned = re.fullmatch(r"(.+)-scanned-(\d{1,9})", picture)
        if scanned is None:
            try:
                return self.shelf.find(picture), self.shelf.clean(picture)
            except KeyError:
                raise Missing("such picture", "pictures that were sent stay for a while: send it again") from None
        owner = self.specimens.get(scanned[1])
        atlas, at = owner and owner.atlas, int(scanned[2])
        if atlas is None or at >= atlas.manifest.pictures:
            raise Missing("such picture", "no atlas that is open holds one with that number")
        name = atlas.name(at)
        clean = self.shelf.opened(picture, name, lambda: _content(atlas, at, name))
        return Shown(picture, name, class_labels(atlas)[at]), clean

    async def aside(self, make: Callable[[], T]) -> T:
        """Run what needs no network in a thread, so that no other request waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, make)

    def close(self) -> None:
        """Begin nothing more, and end the process that decodes."""
        for each in self.specimens.values():
            each.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.shelf.decoder.close()
        if self.jobs is not None:
            self.jobs.close()


def _content(atlas: Atlas, number: int, name: str) -> bytes:
    content: Any = atlas.content(number)
    if isinstance(content, (str, Path)):
        content = below(str(content).removesuffix(name), Path(content), name)
    if not isinstance(content, bytes):
        raise PictureError(f"{name} is no file")
    return content


def ids(names: Sequence[str]) -> list[str]:
    """Return an id for each network's name, also where two have one name."""
    distinct = [
        f"{name}-{names[:at].count(name) + 1}" if names[:at].count(name) else name for at, name in enumerate(names)
    ]
    return list(slugs(distinct, empty="network").values())


async def _bench(request: Request) -> Bench:
    return request.app.state.bench


OnBench = Annotated[Bench, Depends(_bench)]


async def _specimen(bench: OnBench, network: str) -> Specimen:
    if network not in bench.specimens:
        raise Missing("such network", f"there are {', '.join(bench.specimens)}")
    specimen = bench.specimens[network]
    await specimen.ready()
    return specimen


OfNetwork = Annotated[Specimen, Depends(_specimen)]


async def _layer(specimen: OfNetwork, layer: str) -> Layer:
    if layer not in specimen.layers:
        raise Missing("such layer", "the network's page lists its layers")
    return specimen.layers[layer]


OfLayer = Annotated[Layer, Depends(_layer)]


async def _unit(specimen: OfNetwork, layer: OfLayer, unit: int) -> int:
    if not 0 <= unit < specimen.units(layer):
        raise Missing("such unit", f"{layer.title} has units 0 to {specimen.units(layer) - 1}")
    return unit


OfUnit = Annotated[int, Depends(_unit)]


def _own_form(bench: OnBench, token: Annotated[str, Form()] = "") -> None:
    if not secrets.compare_digest(token.encode(), bench.token.encode()):
        raise Refused("this form is of an earlier run: load the page again, and send it once more")


OwnForm = Depends(_own_form)
"""A dependency of every route that changes something: the request carries this run's token."""
