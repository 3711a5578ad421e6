"""The page of an activation, a unit at a place of a picture, and how a click on feature maps leads to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from ..data.images import InputPicture
from ..tracing import Layer
from . import images
from .activations import activate
from .bench import Bench, OfLayer, OfNetwork, OfUnit, OnBench
from .links import Links
from .network_pages import LayerFacts, NetworkFacts, Projection
from .pages import Page, page
from .picture_pages import ForAWhile, Order, excited, ordered_units, read_picture
from .problems import Missing
from .shelf import Shown
from .specimen import Specimen

router = APIRouter()


@dataclass(frozen=True)
class SpotPage(Page):
    """A unit at a place of a picture: its value, what it sees there, and its projection."""

    template: ClassVar[str] = "spot.html"
    network: NetworkFacts
    picture: Shown
    layer: LayerFacts
    unit: int
    y: int | None
    x: int | None
    grid: tuple[int, int] | None
    value: float
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    method: Projection
    at: str
    remarks: list[str]
    share: float | None
    python: str


@router.get("/net/{network}/picture/{picture}/layer/{layer}/pick/{order}-{number}", include_in_schema=False)
@router.get("/net/{network}/picture/{picture}/layer/{layer}/pick/{order}-{number}.json", include_in_schema=False)
async def pick(
    specimen: OfNetwork, bench: OnBench, request: Request, picture: str, layer: OfLayer, order: Order, number: int
) -> Response:
    """Go to the activation at a point of a sheet of feature maps, which the browser puts behind the address."""
    at = re.fullmatch(r"(\d{1,5}),(\d{1,5})", unquote(request.url.query))
    if at is None or not layer.positions:
        raise Missing("such place", "click on a feature map")
    x, y = int(at[1]), int(at[2])
    _, _, prepared = await read_picture(bench, specimen, picture)
    units = await ordered_units(specimen, prepared, picture, layer, order)
    cell, left, top = images.map_at(x, y)
    cell += number * images.PER_SHEET
    if cell not in images.on_sheet(number, len(units)):
        raise Missing("such place", "click on a feature map")
    across = layer.lattice.along
    row, column = across(images.position_in_cell(left, top, *across(layer.grid)))
    where = Links().spot(specimen.id, picture, specimen.slugs[layer.name], units[cell], f"{row},{column}")
    return RedirectResponse(f"{where}.json" if request.url.path.endswith(".json") else where, 303)


def _placed(layer: Layer, at: str) -> tuple[int, int] | None:
    """Return the row and column that an address names, None for the strongest. Raises Missing for others."""
    if at == "strongest" or not layer.positions:
        return None
    place = re.fullmatch(r"(\d{1,5}),(\d{1,5})", at)
    rows, columns = layer.grid
    if place is None or not (int(place[1]) < rows and int(place[2]) < columns):
        raise Missing("such place", f"the layer has rows 0 to {rows - 1} and columns 0 to {columns - 1}")
    return int(place[1]), int(place[2])


@dataclass(frozen=True)
class _Spotted:
    y: int | None
    x: int | None
    value: float
    box: tuple[int, int, int, int]
    patch: bytes
    projection: bytes
    remarks: tuple[str, ...]


def _spotted(
    specimen: Specimen, prepared: InputPicture, layer: Layer, unit: int, at: str, method: Projection
) -> _Spotted:
    net = specimen.net
    found = activate(net, net.pixels(prepared), layer, unit, _placed(layer, at), method)
    patch, projection = images.spot_images(net, found.projected)
    return _Spotted(found.y, found.x, found.value, found.projected.box, patch, projection, found.projected.remarks)


async def _spot(
    bench: Bench, specimen: Specimen, picture: str, layer: Layer, unit: int, at: str, method: Projection
) -> tuple[Shown, InputPicture, _Spotted]:
    shown, _, prepared = await read_picture(bench, specimen, picture)
    make = partial(_spotted, specimen, prepared, layer, unit, at, method)
    return shown, prepared, await specimen.compute(("spot", picture, layer.name, unit, at, method), make)


@page(router, "/net/{network}/picture/{picture}/layer/{layer}/unit/{unit}/at/{at}", SpotPage)
async def spot(
    specimen: OfNetwork, bench: OnBench, picture: str, layer: OfLayer, unit: OfUnit, at: str,
    method: Annotated[Projection, Query(description="how the unit is projected down to pixels")] = "deconvnet",
) -> SpotPage:  # fmt: skip
    """Show a unit at a place of a picture: "strongest", or a row and a column with a comma between."""
    shown, prepared, found = await _spot(bench, specimen, picture, layer, unit, at, method)
    units = await specimen.compute(
        ("excited", picture, specimen.slugs[layer.name]), partial(excited, specimen, prepared, layer)
    )
    place = "" if found.y is None else f"@{found.y},{found.x}"
    name = {"guided": "guided_backprop"}.get(method, method)
    objective = f"{layer.name or 'output'}:{unit}{place}"
    return SpotPage(
        network=NetworkFacts.of(specimen),
        picture=shown,
        layer=LayerFacts.of(specimen, layer),
        unit=unit,
        y=found.y,
        x=found.x,
        grid=layer.grid if layer.positions else None,
        value=found.value,
        box=found.box,
        size=(prepared.pixels.shape[1], prepared.pixels.shape[2]),
        method=method,
        at=at,
        remarks=list(found.remarks),
        share=units[unit].share,
        python=f"convscope.explain(net, {shown.name!r}, {name!r}, {objective!r})",
    )


@router.get(
    "/net/{network}/picture/{picture}/layer/{layer}/unit/{unit}/at/{at}/{shows}-{method}.webp", include_in_schema=False
)
async def spot_image(
    specimen: OfNetwork, bench: OnBench, picture: str, layer: OfLayer, unit: OfUnit, at: str,
    shows: Literal["patch", "projection"], method: Projection,
) -> Response:  # fmt: skip
    """Return what a unit sees at a place of a picture, or its projection there."""
    _, _, found = await _spot(bench, specimen, picture, layer, unit, at, method)
    return Response(getattr(found, shows), media_type="image/webp", headers=ForAWhile)
