"""The pages of a picture: what a network says of it, maps by any method, and feature maps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from shlex import join
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlencode

import torch
from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from starlette.responses import RedirectResponse, Response
from torch import Tensor

from .. import registry
from ..data.images import InputPicture
from ..drawing.drawings import Heatmap
from ..errors import ConvscopeError, ObjectiveError, PictureError
from ..options import Option
from ..predictions import answers
from ..running import explain
from ..tapping import tap
from ..tracing import Layer
from . import images
from .bench import Bench, OfLayer, OfNetwork, OnBench, OwnForm
from .decoding import Clean
from .links import Links
from .network_pages import LayerFacts, NetworkFacts, layer_facts
from .pages import Page, page
from .problems import Missing
from .shelf import Shown
from .specimen import Specimen

router = APIRouter()

Order = Literal["number", "strongest", "unusual"]

_FIRST = 5
_OPTION = "o."
"""Begins the names of a method's options in addresses."""

ForAWhile = {"cache-control": "private, max-age=600"}
"""Of images that stay for a while."""

_READS_FILES = re.compile(r"direction\s*\(", re.IGNORECASE)


@dataclass(frozen=True)
class Said:
    """An output of the network for a picture: its number, name, and value in words and between 0 and 1."""

    number: int
    name: str
    value: float
    text: str


@dataclass(frozen=True)
class MethodFacts:
    """A method that maps a picture: its name and title, where it is from, what a reader must know, and its options."""

    name: str
    title: str
    paper: str
    caveat: str
    options: list[OptionFacts]


@dataclass(frozen=True)
class OptionFacts:
    """An option of a method: its name, what it takes, choices where it has some, and its default, as texts."""

    name: str
    kind: str
    help: str
    choices: list[str]
    default: str

    @classmethod
    def of(cls, option: Option) -> OptionFacts:
        """Look at an option."""
        default = "" if option.default is None else str(option.default)
        choices = ["True", "False"] if isinstance(option.default, bool) else [str(each) for each in option.choices]
        return cls(option.name, option.kind, option.help, choices, default)


@dataclass(frozen=True)
class Explained:
    """A map that is shown: the method, the options that differ from the defaults, and the calls that make the same."""

    method: str
    title: str
    options: dict[str, str]
    query: str
    command: str
    python: str


@dataclass(frozen=True)
class PicturePage(Page):
    """A picture: what the network says, maps of methods, feature maps of a layer, and units that it excites."""

    template: ClassVar[str] = "picture.html"
    network: NetworkFacts
    picture: Shown
    width: int
    height: int
    remarks: list[str]
    said: list[Said]
    answers: str
    of: str
    explained: list[Explained]
    methods: list[MethodFacts]
    layers: list[LayerFacts]
    layer: LayerFacts | None
    order: Order
    part: int
    parts: list[tuple[int, int]]
    sheet: tuple[int, int] | None
    units: list[Excited]
    pictures: list[Shown]


@dataclass(frozen=True)
class Excited:
    """A unit and its largest value in a picture; `share` of an atlas' pictures excite it less."""

    layer: str
    unit: int
    value: float
    share: float | None


@router.post("/pictures", dependencies=[OwnForm])
async def send(
    bench: OnBench, picture: Annotated[UploadFile, File()], network: Annotated[str, Form()] = ""
) -> Response:
    """Take a picture, and go to its page."""
    content = await picture.read()
    if not content:
        raise PictureError("no picture was chosen: choose a file first")
    loop_free = partial(bench.shelf.add, content, picture.filename or "picture")
    shown = await bench.aside(loop_free)
    where = network if network in bench.specimens else next(iter(bench.specimens))
    return RedirectResponse(Links().picture(where, shown.id), 303)


@router.get("/go", include_in_schema=False)
async def go(bench: OnBench, network: str, picture: str) -> Response:
    """Go to a picture's page of a network, as forms without script do."""
    if network not in bench.specimens:
        raise Missing("such network", f"there are {', '.join(bench.specimens)}")
    return RedirectResponse(Links().picture(network, picture), 303)


async def read_picture(bench: Bench, specimen: Specimen, picture: str) -> tuple[Shown, Clean, InputPicture]:
    """Return a picture as a network reads it. Raises Missing, PictureError."""
    shown, clean = await bench.aside(partial(bench.look, picture))
    prepared = await specimen.compute(("input", picture), partial(specimen.net.prepare, clean.content))
    return shown, clean, replace(prepared, name=shown.name)


@page(router, "/net/{network}/picture/{picture}", PicturePage)
async def picture(
    specimen: OfNetwork,
    bench: OnBench,
    request: Request,
    picture: str,
    method: Annotated[list[str] | None, Query(description="methods that map it, by name")] = None,
    of: Annotated[str, Query(description="the objective: a class, a channel; the top-1 class by default")] = "",
    layer: Annotated[str, Query(description="the layer whose feature maps are shown, by its id")] = "",
    order: Annotated[Order, Query(description="what orders its units")] = "number",
    part: Annotated[int, Query(description="which part of its units is shown, 64 each", ge=0)] = 0,
) -> PicturePage:
    """Show what a network makes of a picture."""
    shown, clean, prepared = await read_picture(bench, specimen, picture)
    said, kind = await specimen.compute(("said", picture), partial(_said, specimen, prepared))
    asked = {name: value for name, value in request.query_params.multi_items() if name.startswith(_OPTION) and value}
    names = [name for name in method or [] if name]
    explained = await bench.aside(lambda: [_explained(specimen, name, of, asked, shown) for name in names])
    chosen = _chosen(specimen, layer)
    units: list[Excited] = []
    if chosen is not None:
        slug = specimen.slugs[chosen.name]
        units = await specimen.compute(("excited", picture, slug), partial(excited, specimen, prepared, chosen))
    here = images.on_sheet(part, len(units))
    if part and not here:
        raise Missing("such part", "the picture's page shows those that there are")
    return PicturePage(
        network=NetworkFacts.of(specimen),
        picture=shown,
        width=clean.width,
        height=clean.height,
        remarks=[*filter(None, [clean.remark]), *prepared.remarks],
        said=said,
        answers=kind,
        of=of,
        explained=explained,
        methods=await bench.aside(_methods),
        layers=await layer_facts(specimen),
        layer=None if chosen is None else LayerFacts.of(specimen, chosen),
        order=order,
        part=part,
        parts=[(each[0], each[-1]) for each in images.parts(len(units))],
        sheet=images.map_sheet_size(len(here)) if chosen is not None and chosen.positions else None,
        units=[_in_order(units, order)[at] for at in here],
        pictures=bench.shelf.listed[:48],
    )


def _chosen(specimen: Specimen, asked: str) -> Layer | None:
    """Return the layer that is asked for; else the first with maps, if there is one of which an atlas tells."""
    if asked and asked not in specimen.layers:
        raise Missing("such layer", "the network's page lists its layers")
    with_maps = [layer for layer in specimen.layers.values() if layer.positions]
    known = [layer for layer in with_maps if specimen.scanned(layer) is not None]
    return specimen.layers[asked] if asked else next(iter([*known, *with_maps]), None)


@cache
def _methods() -> list[MethodFacts]:
    entries = [registry.find(name) for name in registry.list_methods()]
    return [
        MethodFacts(each.name, each.title, each.paper, each.caveat, [OptionFacts.of(o) for o in each.options.values()])
        for each in sorted(entries, key=lambda each: each.title)
    ]


def _said(specimen: Specimen, prepared: InputPicture) -> tuple[list[Said], str]:
    try:
        head, numbers = answers(specimen.net, specimen.net.pixels(prepared))
    except ConvscopeError:  # outputs that are no list of numbers: the layers can be looked at
        return [], ""
    row = numbers[0]
    found = row.topk(min(_FIRST, len(row)))
    said = [
        Said(at, specimen.net.class_name(at), value, head.text(value))
        for value, at in zip(found.values.tolist(), found.indices.tolist(), strict=True)
    ]
    return said, head.word


def _explained(specimen: Specimen, name: str, of: str, asked: Mapping[str, str], shown: Shown) -> Explained:
    entry = registry.find(name)
    own = {key.removeprefix(_OPTION): value for key, value in asked.items()}
    own = {
        key: value for key, value in own.items() if key in entry.options and value != str(entry.options[key].default)
    }
    values = {key: entry.options[key].parse(value) for key, value in own.items()}
    _check_objective(of)
    words = [part for key, value in own.items() for part in (f"--{key.replace('_', '-')}", value)]
    about = ["--of", of] if of else []
    command = join(["convscope", name.replace("_", "-"), shown.name, "--net", specimen.net.name, *about, *words])
    options = "".join(f", {key}={value!r}" for key, value in values.items())
    objective = f", {of!r}" if of else ""
    python = f"convscope.explain(net, {shown.name!r}, {name!r}{objective}{options})"
    query = "".join(f"&{urlencode({_OPTION + key: value})}" for key, value in own.items())
    return Explained(name, entry.title, own, query, command, python)


def _check_objective(of: str) -> None:
    if _READS_FILES.search(of):
        raise ObjectiveError("a direction is read from a file, which the explorer does not open: use the command line")


@router.get("/net/{network}/picture/{picture}/input.webp", include_in_schema=False)
async def seen(specimen: OfNetwork, bench: OnBench, picture: str) -> Response:
    """Return the picture as the network reads it."""
    _, _, prepared = await read_picture(bench, specimen, picture)
    image = prepared.image()
    factor = max(1, 288 // max(image.size))
    content = images.encoded(image.resize((image.width * factor, image.height * factor), 0))
    return Response(content, media_type="image/webp", headers=ForAWhile)


@router.get("/net/{network}/picture/{picture}/thumb.webp", include_in_schema=False)
async def thumb(specimen: OfNetwork, bench: OnBench, picture: str) -> Response:
    """Return the picture in small."""
    shown, clean = await bench.aside(partial(bench.look, picture))
    content = await bench.aside(partial(images.thumbnail, clean.content, shown.name))
    return Response(content, media_type="image/webp", headers=ForAWhile)


@router.get("/net/{network}/picture/{picture}/map.{ending}", include_in_schema=False)
async def mapped(
    specimen: OfNetwork, bench: OnBench, request: Request, picture: str, ending: Literal["webp", "png", "npz"],
    method: str, of: str = "",
) -> Response:  # fmt: skip
    """Return a method's map: over the picture, as a figure with its recipe, or as numbers."""
    _, _, prepared = await read_picture(bench, specimen, picture)
    _check_objective(of)
    entry = registry.find(method)
    asked = {
        name.removeprefix(_OPTION): value
        for name, value in request.query_params.multi_items()
        if name.startswith(_OPTION)
    }
    options = {
        name: entry.options[name].parse(value) for name, value in asked.items() if name in entry.options and value
    }
    key = ("map", picture, method, of, tuple(sorted(asked.items())))
    make = partial(_heatmap, specimen, prepared, method, of, options)
    drawing: Heatmap = await specimen.compute(key, make)
    content, kind = await bench.aside(partial(_file, drawing, ending))
    return Response(content, media_type=kind, headers=ForAWhile)


def _heatmap(specimen: Specimen, prepared: InputPicture, method: str, of: str, options: dict[str, Any]) -> Heatmap:
    return explain(specimen.net, prepared, method, of or None, **options)


def _file(drawing: Heatmap, ending: str) -> tuple[bytes, str]:
    if ending == "webp":
        width, height = drawing.picture.original.size
        factor = min(1.0, 768 / max(width, height)) if max(width, height) > 768 else max(1, 288 // max(width, height))
        return images.encoded(drawing.overlay((round(width * factor), round(height * factor)))), "image/webp"
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"map.{ending}"
        drawing.save(path) if ending == "png" else drawing.save_values(path)
        return path.read_bytes(), "image/png" if ending == "png" else "application/octet-stream"


@torch.inference_mode()
def _activity(specimen: Specimen, prepared: InputPicture, layer: Layer) -> Tensor:
    """Return a layer's activity for a picture: (channels, rows, columns), or (channels,)."""
    found = tap(specimen.net, specimen.net.pixels(prepared), [layer.name])[layer.name].float().cpu()
    return layer.by_position(found)[0] if layer.positions else found[0]


def excited(specimen: Specimen, prepared: InputPicture, layer: Layer) -> list[Excited]:
    """Return the largest value of each unit of a layer, and how unusual it is for the unit where an atlas tells."""
    activity = _activity(specimen, prepared, layer)
    maxima = activity.flatten(1).amax(1) if layer.positions else activity
    shares: dict[int, float] = {}
    atlas = specimen.scanned(layer)
    if atlas is not None and atlas.manifest.settings.statistics == "full":
        found = atlas.units_of(prepared, len(maxima), layers=[layer.name])
        shares = {each.unit: each.share for each in found}
    slug = specimen.slugs[layer.name]
    return [Excited(slug, unit, value, shares.get(unit)) for unit, value in enumerate(maxima.tolist())]


def _in_order(units: list[Excited], order: Order) -> list[Excited]:
    if order == "number":
        return units
    if order == "strongest":
        return sorted(units, key=lambda one: -one.value)
    return sorted(units, key=lambda one: (-(one.share if one.share is not None else -1), -one.value))


async def ordered_units(
    specimen: Specimen, prepared: InputPicture, picture: str, layer: Layer, order: Order
) -> list[int]:
    """Return the units of a layer in an order."""
    slug = specimen.slugs[layer.name]
    units = await specimen.compute(("excited", picture, slug), partial(excited, specimen, prepared, layer))
    return [one.unit for one in _in_order(units, order)]


@router.get("/net/{network}/picture/{picture}/layer/{layer}/maps/{order}-{number}.webp", include_in_schema=False)
async def maps(
    specimen: OfNetwork, bench: OnBench, picture: str, layer: OfLayer, order: Order, number: int
) -> Response:
    """Return a sheet of feature maps."""
    _, _, prepared = await read_picture(bench, specimen, picture)
    if not layer.positions or not images.on_sheet(number, specimen.units(layer)):
        raise Missing("such sheet", "the picture's page shows those that there are")
    units = await ordered_units(specimen, prepared, picture, layer, order)
    on_it = [units[at] for at in images.on_sheet(number, len(units))]

    def make() -> bytes:
        return images.map_sheet(_activity(specimen, prepared, layer), on_it)

    content = await specimen.compute(("maps", picture, layer.name, order, number), make)
    return Response(content, media_type="image/webp", headers=ForAWhile)
