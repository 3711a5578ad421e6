"""The live page: what a network makes of a camera's frames, one at a time over one WebSocket, the newest first.

A wish, as JSON text, says what to look at; each frame, JPEG or PNG, is answered with facts as JSON text, and with as
many images after it as the facts name. A wish that names a picture is a frame itself. What came while a frame was
looked at is forgotten, but for the last.
"""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..data.images import InputPicture
from ..errors import ConvscopeError
from ..tracing import Layer
from .bench import Bench, OfNetwork, OnBench
from .frames import Watched, decoded, projection_image, watch
from .network_pages import LayerFacts, NetworkFacts, Projection
from .pages import Page, page, plain
from .picture_pages import read_picture
from .problems import Missing, Problem
from .shelf import Shown
from .specimen import Specimen

router = APIRouter()

_LONGEST = 2000
"""Characters of a wish."""


@dataclass(frozen=True)
class LivePage(Page):
    """What is looked at as frames come; `side` is to how many pixels the shorter side of a frame is scaled."""

    template: ClassVar[str] = "live.html"
    network: NetworkFacts
    layers: list[LayerFacts]
    layer: LayerFacts
    unit: int
    method: Projection
    side: int
    picture: Shown | None
    pictures: list[Shown]


@page(router, "/net/{network}/live", LivePage)
async def live(
    specimen: OfNetwork,
    bench: OnBench,
    layer: Annotated[str, Query(description="the layer whose maps are shown, by its id")] = "",
    unit: Annotated[int, Query(description="the unit that is projected", ge=0)] = 0,
    method: Annotated[Projection, Query(description="how it is projected down to pixels")] = "deconvnet",
    picture: Annotated[str, Query(description="a picture to look at instead of a camera, by its id")] = "",
) -> LivePage:
    """Show what a network makes of the pictures of a camera."""
    if layer and layer not in specimen.layers:
        raise Missing("such layer", "the network's page lists its layers")
    chosen = specimen.layers[layer] if layer else _first(specimen)
    shown = (await read_picture(bench, specimen, picture))[0] if picture else None
    fit = specimen.net.fit
    resize = fit.resize if isinstance(fit.resize, int) else min(fit.resize)
    return LivePage(
        network=NetworkFacts.of(specimen),
        layers=[LayerFacts.of(specimen, each) for each in specimen.layers.values()],
        layer=LayerFacts.of(specimen, chosen),
        unit=min(unit, specimen.units(chosen) - 1),
        method=method,
        side=max(*fit.size, resize),
        picture=shown,
        pictures=[*bench.shelf.sent, *bench.shelf.listed][:24],
    )


def _first(specimen: Specimen) -> Layer:
    """Return the first convolution, or the first layer of all."""
    layers = list(specimen.layers.values())
    return next((layer for layer in layers if layer.number is not None), layers[0])


class Wish(BaseModel):
    """What to look at: the layer whose maps are shown; the unit that is projected, its layer, its place, and how.

    `at` is a row and column of the layer's grid, along the picture; where the unit is strongest by default.
    """

    model_config = ConfigDict(extra="forbid")

    layer: str
    of: str
    unit: int = Field(ge=0)
    at: tuple[int, int] | None = None
    method: Projection = "deconvnet"
    picture: str = ""


class Newest:
    """What came last and was not taken yet."""

    def __init__(self) -> None:
        self._held: Any = None
        self._came = asyncio.Event()

    def put(self, what: Any) -> None:
        """Put what came in the place of what was there."""
        self._held = what
        self._came.set()

    async def take(self) -> Any:
        """Return what came last, when there is something."""
        await self._came.wait()
        self._came.clear()
        return self._held


@dataclass(frozen=True)
class _Frame:
    """A wish, and the picture that came for it; None where the wish names one. `wish` None where none came yet."""

    wish: Wish | None
    content: bytes | None


@router.websocket("/net/{network}/live/frames")
async def frames(socket: WebSocket, network: str) -> None:
    """Answer frames until the browser leaves; what is under way then gives up its turn."""
    bench: Bench = socket.app.state.bench
    if network not in bench.specimens:
        await socket.close(1008, "no such network")
        return
    await socket.accept()
    newest = Newest()
    answering = asyncio.create_task(_answer(bench, bench.specimens[network], socket, newest))
    try:
        await _receive(socket, newest)
    finally:
        answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering


async def _receive(socket: WebSocket, newest: Newest) -> None:
    """Put every frame with the wish that holds for it, until the browser leaves."""
    wish: Wish | None = None
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        content, text = message.get("bytes"), message.get("text")
        if content is not None:
            newest.put(_Frame(wish, content))
            continue
        try:
            wish = Wish.model_validate_json(str(text)[:_LONGEST])
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "a wish"
            newest.put(f"not understood: {where}: {first['msg']}")
            continue
        if wish.picture:
            newest.put(_Frame(wish, None))


Answer = tuple[dict[str, Any], Sequence[bytes]]
"""Facts, and the images that come after them."""


async def _answer(bench: Bench, specimen: Specimen, socket: WebSocket, newest: Newest) -> None:
    """Answer the newest frame, and then the one that is the newest by then."""
    with suppress(WebSocketDisconnect, RuntimeError):  # the browser has left
        while True:
            taken = await newest.take()
            facts, images = await _answered(bench, specimen, taken)
            await socket.send_json(facts)
            for image in images:
                await socket.send_bytes(image)


async def _answered(bench: Bench, specimen: Specimen, taken: _Frame | str) -> Answer:
    """Answer a frame, or with the sentence that says why there is none."""
    start = time.perf_counter()
    try:
        if isinstance(taken, _Frame):
            facts, images = await _looked(bench, specimen, taken)
            return {**facts, "ms": 1000 * (time.perf_counter() - start)}, images
        problem = taken
    except Missing as error:
        problem = f"no {error.what}: {error.advice}"
    except ConvscopeError as error:
        problem = Problem.of(error).detail
    except Exception as error:  # a fault of ours ends no film
        traceback.print_exception(error, file=sys.stderr)
        problem = "a fault of convscope: the terminal in which convscope serve runs says more"
    return {"problem": problem, "images": []}, ()


async def _looked(bench: Bench, specimen: Specimen, frame: _Frame) -> Answer:
    wish = frame.wish
    if wish is None:
        raise Missing("wish", "a wish comes before the first frame: which layer and unit to look at")
    shown, of = _layer(specimen, wish.layer), _layer(specimen, wish.of)
    if wish.unit >= specimen.units(of):
        raise Missing("such unit", f"{of.title} has units 0 to {specimen.units(of) - 1}")
    if frame.content is None:
        _, _, prepared = await read_picture(bench, specimen, wish.picture)
    else:
        prepared = await bench.aside(partial(_prepared, specimen, frame.content))
    at = None if wish.at is None or not of.positions else of.lattice.along(wish.at)
    make = partial(_watched, specimen, prepared, shown, of, wish, at)
    watched, projection = await specimen.turn(make)
    images = [watched.maps.content, *([projection] if projection else [])]
    return _facts(specimen, prepared, watched, wish, of), images


def _layer(specimen: Specimen, slug: str) -> Layer:
    if slug not in specimen.layers:
        raise Missing("such layer", "the network's page lists its layers")
    return specimen.layers[slug]


def _prepared(specimen: Specimen, content: bytes) -> InputPicture:
    return specimen.net.prepare(decoded(content))


def _watched(
    specimen: Specimen, prepared: InputPicture, shown: Layer, of: Layer, wish: Wish, at: tuple[int, int] | None
) -> tuple[Watched, bytes]:
    watched = watch(specimen.net, prepared, shown, of, wish.unit, at, wish.method)
    found = watched.activation
    return watched, projection_image(specimen.net, found.projected) if found else b""


def _facts(specimen: Specimen, prepared: InputPicture, watched: Watched, wish: Wish, of: Layer) -> dict[str, Any]:
    maps, found = watched.maps, watched.activation
    activation = None
    if found is not None:
        activation = {
            "of": wish.of,
            "unit": found.unit,
            "at": None if found.y is None or found.x is None else of.lattice.along((found.y, found.x)),
            "grid": of.lattice.along(of.grid) if of.positions else None,
            "value": found.value,
            "box": found.projected.box,
            "method": wish.method,
            "remarks": found.projected.remarks,
        }
    return plain(
        {
            "layer": wish.layer,
            "maps": {
                "units": specimen.units(_layer(specimen, wish.layer)), "across": maps.across, "rows": maps.rows,
                "columns": maps.columns, "low": maps.low, "high": maps.high,
            },
            "said": [{"number": n, "name": name, "value": v, "text": text} for n, name, v, text in watched.said],
            "answers": watched.word,
            "activation": activation,
            "refused": watched.refused,
            "size": prepared.pixels.shape[1:],
            "seen": prepared.box,
            "images": ["maps", "projection"] if found else ["maps"],
        }
    )  # fmt: skip
