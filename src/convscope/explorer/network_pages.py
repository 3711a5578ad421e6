"""The pages of a network, its layers and their units, and the images on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

from fastapi import APIRouter, Query
from markupsafe import Markup
from starlette.responses import Response

from ..atlas.atlas import Atlas
from ..errors import ConvscopeError
from ..tracing import Layer
from . import images
from .bench import OfLayer, OfNetwork, OfUnit, OnBench
from .images import Cell
from .jobs import Job, about_unit
from .links import Links
from .network_map import NetworkMap, network_map
from .pages import Page, page
from .problems import Missing
from .shelf import Shown
from .specimen import Specimen
from .units import ClassOf, Histogram, UnitRow, class_labels, class_rows, histogram, rows_of

T = TypeVar("T")

router = APIRouter()

ForEver = {"cache-control": "private, max-age=31536000, immutable"}
"""Of images whose address holds what they are of."""

Sort = Literal["number", "strongest", "mean", "active", "auc"]
Which = Literal["all", "dead", "alive"]
Projection = Literal["deconvnet", "guided", "gradient"]
Band = Literal["strongest", "effect", "strong", "middle", "weak", "weakest", "random"]

BANDS: Mapping[Band, str] = {
    "strongest": "its strongest pictures",
    "effect": "where it mattered most",
    "strong": "strong pictures, of its upper quarter",
    "middle": "middling pictures",
    "weak": "weak pictures, of its lower quarter",
    "weakest": "its weakest pictures",
    "random": "pictures at random",
}


@dataclass(frozen=True)
class NetworkFacts:
    """A network in numbers that need no run of it: its id and name, what it reads, parameters, and what was scanned."""

    id: str
    name: str
    size: tuple[int, int]
    channels: int
    parameters: int
    scanned: str

    @classmethod
    def of(cls, specimen: Specimen) -> NetworkFacts:
        """Look at a network."""
        net, atlas = specimen.net, specimen.atlas
        scanned = "" if atlas is None else f"{atlas.manifest.units:,} units over {atlas.manifest.pictures:,} pictures"
        count = sum(parameter.numel() for parameter in net.parameters())
        return cls(specimen.id, net.name, net.size, net.channels, count, scanned)


@dataclass(frozen=True)
class LayerFacts:
    """A layer in numbers: the part of an address that stands for it, its name, kind, shape and what a unit sees."""

    id: str
    name: str
    kind: str
    shape: tuple[int, ...]
    units: int
    sees: str
    step: float | None
    parameters: int
    scanned: bool

    @classmethod
    def of(cls, specimen: Specimen, layer: Layer) -> LayerFacts:
        """Look at a layer."""
        step = None if not layer.positions or layer.lattice.moved else abs(layer.lattice.step[0])
        return cls(
            specimen.slugs[layer.name], layer.name or "output", layer.kind, layer.shape, specimen.units(layer),
            layer.seen, step, layer.parameters, specimen.scanned(layer) is not None,
        )  # fmt: skip


@dataclass(frozen=True)
class Home(Page):
    """The first page: networks and pictures."""

    template: ClassVar[str] = "home.html"
    networks: list[NetworkFacts]
    pictures: list[Shown]
    sent: list[Shown]


@dataclass(frozen=True)
class NetworkPage(Page):
    """A network: its layers in execution order, and pictures to look at."""

    template: ClassVar[str] = "network.html"
    network: NetworkFacts
    layers: list[LayerFacts]
    note: str
    pictures: list[Shown]
    sent: list[Shown]
    sources: list[str]
    jobs: list[Job]
    boxes: list[dict[str, Any]]
    open: list[str]
    map: NetworkMap = field(repr=False)
    slugs: Mapping[str, str] = field(repr=False)

    def drawn(self, links: Links) -> Markup:
        """Draw the network's map with links to its layers, and to itself with a group opened or folded."""

        def fold(key: str) -> str:
            open_ = [each for each in self.open if each != key]
            return links.network(self.network.id, open_ if key in self.open else [*open_, key], self.map.anchor(key))

        def link(layer: str) -> str | None:
            return links.layer(self.network.id, self.slugs[layer]) if layer in self.slugs else None

        return Markup(self.map.svg({*self.open}, link, fold))


@dataclass(frozen=True)
class LayerPage(Page):
    """A layer: its units in some order, each with a cell on every sheet of images, on which lie those `among` which
    it is.
    """

    template: ClassVar[str] = "layer.html"
    network: NetworkFacts
    layer: LayerFacts
    before: str | None
    after: str | None
    sheets: list[images.Kind]
    side: int
    version: str
    sort: Sort
    which: Which
    dead: int | None
    units: list[UnitRow]
    among: Sequence[int] = field(repr=False)

    def cell(self, unit: int) -> Cell:
        """Return where a unit's image lies."""
        return Cell.of(self.among.index(unit), len(self.among), self.side)


@dataclass(frozen=True)
class Seen:
    """A picture of a unit: the unit's value there, where in its grid, and what the picture is called."""

    value: float
    y: int | None
    x: int | None
    picture: str
    name: str
    label: str


@dataclass(frozen=True)
class BandOf:
    """Some pictures of a unit, from the first on."""

    name: Band
    title: str
    seen: list[Seen]


@dataclass(frozen=True)
class Like:
    """A unit that responds to the same pictures: the correlation of both units' maxima."""

    layer: str
    unit: int
    correlation: float


@dataclass(frozen=True)
class UnitPage(Page):
    """A unit: its pictures in bands, what the whole set says of it, and units that are like it."""

    template: ClassVar[str] = "unit.html"
    network: NetworkFacts
    layer: LayerFacts
    unit: int
    before: int | None
    after: int | None
    method: Projection
    version: str
    bands: list[BandOf]
    statistics: UnitRow | None
    histogram: Histogram | None
    classes: list[ClassOf]
    similar: list[Like]
    sheets: list[images.Kind]
    side: int
    note: str
    made: list[Job]
    among: Sequence[int] = field(repr=False)

    @property
    def rows(self) -> list[images.Kind]:
        """What each strip of images shows of a unit's pictures, from above."""
        return [kind for kind in self.sheets if kind != "filters"]

    def cell(self, unit: int) -> Cell:
        """Return where a unit's image lies on the layer's sheets."""
        return Cell.of(self.among.index(unit), len(self.among), self.side)

    def in_strip(self, band: BandOf, rank: int, kind: images.Kind) -> Cell:
        """Return where a patch, or its projection, lies in a band's strip."""
        side, row = self.side, self.rows.index(kind)
        return Cell(0, len(band.seen) * side, len(self.rows) * side, rank * side, row * side, side)


async def layer_facts(specimen: Specimen) -> list[LayerFacts]:
    """Return the layers of a network in numbers."""

    def look() -> list[LayerFacts]:
        return [LayerFacts.of(specimen, layer) for layer in specimen.layers.values()]

    return await specimen.read(("layer facts", version(specimen)), look)


@page(router, "/", Home)
async def home(bench: OnBench) -> Home:
    """Show the first page."""
    facts = [NetworkFacts.of(each) for each in bench.specimens.values()]
    return Home(facts, bench.shelf.listed, bench.shelf.sent)


@page(router, "/net/{network}", NetworkPage)
async def network(
    specimen: OfNetwork,
    bench: OnBench,
    open: Annotated[list[str], Query(description="groups of the map that are open, by their keys")] = [],  # noqa: B006
) -> NetworkPage:
    """Show a network's map and its layers."""
    map_ = await specimen.compute(("map",), partial(network_map, specimen.net))
    layers = await layer_facts(specimen)
    note = "" if specimen.atlas else _no_atlas(specimen)
    known = {group.key for group in map_.groups}
    opened = [key for key in dict.fromkeys(open) if key in known]
    found = [] if bench.jobs is None else await bench.aside(bench.jobs.listed)
    return NetworkPage(
        network=NetworkFacts.of(specimen),
        layers=layers,
        note=note,
        pictures=bench.shelf.listed,
        sent=bench.shelf.sent,
        sources=bench.shelf.titles,
        jobs=[each for each in found if each.network == specimen.id and each.kind in ("scan", "diagnose")],
        boxes=map_.to_json({*opened})["boxes"],
        open=opened,
        map=map_,
        slugs=specimen.slugs,
    )


@page(router, "/net/{network}/layer/{layer}", LayerPage)
async def layer(
    specimen: OfNetwork,
    layer: OfLayer,
    sort: Annotated[Sort, Query(description="what orders the units")] = "number",
    which: Annotated[Which, Query(description="which units: dead ones were never above zero")] = "all",
) -> LayerPage:
    """Show the units of a layer."""
    rows = await specimen.read(
        ("rows", layer.name, version(specimen)),
        partial(rows_of, specimen.scanned(layer), layer.name, specimen.units(layer)),
    )
    dead = None if specimen.scanned(layer) is None else sum(row.dead for row in rows)
    names, at = list(specimen.layers), list(specimen.layers).index(specimen.slugs[layer.name])
    return LayerPage(
        network=NetworkFacts.of(specimen),
        layer=LayerFacts.of(specimen, layer),
        before=names[at - 1] if at else None,
        after=names[at + 1] if at + 1 < len(names) else None,
        sheets=await sheets_of(specimen, layer),
        side=images.side_of(specimen.net, layer),
        version=version(specimen),
        sort=sort,
        which=which,
        dead=dead,
        units=_ordered([row for row in rows if which == "all" or row.dead == (which == "dead")], sort),
        among=range(specimen.units(layer)),
    )


def _ordered(rows: list[UnitRow], sort: Sort) -> list[UnitRow]:
    def key(row: UnitRow) -> tuple[bool, float, int]:
        value = None if sort == "number" else cast("float | None", getattr(row, sort))
        return value is None, -(value or 0.0), row.unit

    return sorted(rows, key=key)


@page(router, "/net/{network}/layer/{layer}/unit/{unit}", UnitPage)
async def unit(
    bench: OnBench,
    specimen: OfNetwork,
    layer: OfLayer,
    unit: OfUnit,
    method: Annotated[Projection, Query(description="how the unit is projected down to pixels")] = "deconvnet",
) -> UnitPage:
    """Show what a unit responds to."""
    found = await specimen.read(("unit", layer.name, unit, version(specimen)), partial(_found, specimen, layer, unit))
    about, made = about_unit(specimen.slugs[layer.name], unit), list[Job]()
    if bench.jobs is not None:
        made = await bench.aside(partial(bench.jobs.about, specimen.id, about))
    return UnitPage(
        network=NetworkFacts.of(specimen),
        layer=LayerFacts.of(specimen, layer),
        unit=unit,
        before=unit - 1 if unit else None,
        after=unit + 1 if unit + 1 < specimen.units(layer) else None,
        method=method,
        version=version(specimen),
        sheets=await sheets_of(specimen, layer),
        side=images.side_of(specimen.net, layer),
        note="" if specimen.scanned(layer) else _no_atlas(specimen),
        made=made,
        among=range(specimen.units(layer)),
        **found,
    )


def _found(specimen: Specimen, layer: Layer, unit: int) -> dict[str, Any]:
    atlas = specimen.scanned(layer)
    if atlas is None:
        return {"bands": [], "statistics": None, "histogram": None, "classes": [], "similar": []}
    similar = _or_nothing(lambda: atlas.similar(layer.name, unit, 8))
    return {
        "bands": [band for name in BANDS if (band := _band(specimen, atlas, layer, unit, name)).seen],
        "statistics": rows_of(atlas, layer.name, specimen.units(layer), unit)[0],
        "histogram": histogram(atlas, layer.name, unit),
        "classes": class_rows(atlas, layer.name, unit)[:8],
        "similar": [Like(specimen.slugs[kin.layer], kin.unit, kin.correlation) for kin in similar],
    }


def _band(specimen: Specimen, atlas: Atlas, layer: Layer, unit: int, name: Band) -> BandOf:
    examples = _or_nothing(lambda: atlas.top(layer.name, unit, band=name))
    labels = class_labels(atlas)
    seen = [
        Seen(one.value, one.y, one.x, f"{specimen.id}-scanned-{one.picture}", one.path, labels[one.picture])
        for one in examples
    ]
    return BandOf(name, BANDS[name], seen)


def _or_nothing(ask: Callable[[], list[T]]) -> list[T]:
    """Return what an atlas knows; nothing where it was not scanned for that."""
    try:
        return ask()
    except ConvscopeError:
        return []


async def sheets_of(specimen: Specimen, layer: Layer) -> list[images.Kind]:
    """Return which images of a layer's units there are."""
    kinds: list[images.Kind] = ["patches", "projections"] if specimen.scanned(layer) else []
    has = await specimen.read(("has filters", layer.name), partial(images.has_filters, specimen.net, layer))
    return [*kinds, "filters"] if has else kinds


def version(specimen: Specimen) -> str:
    """Return what images of a network depend on, for their addresses."""
    return (specimen.atlas.manifest.key if specimen.atlas else specimen.net.digest)[:12]


def _no_atlas(specimen: Specimen) -> str:
    return (
        f"nothing was scanned with this network: convscope scan FOLDER --net {specimen.net.name} -o ATLAS finds what "
        "excites each unit, and convscope serve --atlas ATLAS shows it"
    )


@router.get("/net/{network}/layer/{layer}/sheet/{kind}/{number}.webp", include_in_schema=False)
async def sheet(specimen: OfNetwork, layer: OfLayer, kind: images.Kind, number: int) -> Response:
    """Return a sheet of images of units."""
    units = images.on_sheet(number, specimen.units(layer))
    if not units or kind not in await sheets_of(specimen, layer):
        raise Missing("such sheet", "the layer's page shows those that there are")
    atlas = specimen.scanned(layer)
    if kind == "filters":
        make = partial(images.filter_sheet, specimen.net, layer, units)
        content = await specimen.compute(("filters", layer.name, number), make)
    else:
        assert atlas is not None
        made = await specimen.compute(("sheet", layer.name, number), partial(images.atlas_sheets, atlas, layer, units))
        content = made[kind]
    return Response(content, media_type="image/webp", headers=ForEver)


@router.get("/net/{network}/layer/{layer}/unit/{unit}/{band}-{method}.webp", include_in_schema=False)
async def band(specimen: OfNetwork, layer: OfLayer, unit: OfUnit, band: Band, method: Projection) -> Response:
    """Return a unit's patches of a band, and their projections."""
    atlas = specimen.scanned(layer)
    examples = atlas.top(layer.name, unit, band=band) if atlas else []
    if atlas is None or not examples:
        raise Missing("such pictures", "the unit's page shows those that there are")
    make = partial(images.strip, atlas, layer, unit, examples, method)
    content = await specimen.compute(("strip", layer.name, unit, band, method), make)
    return Response(content, media_type="image/webp", headers=ForEver)
