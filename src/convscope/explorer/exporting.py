"""Exporting: the pages of an atlas, written as files that open by double click and that can be sent to others."""

from __future__ import annotations

import asyncio
import hashlib
import json
import statistics
import time
import zipfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast

from .. import outputs
from ..atlas.atlas import Atlas
from ..context import track
from ..errors import OutputError
from ..locks import lock
from ..parsing import Document
from ..provenance import versions
from . import images, network_pages
from .bench import Bench, ids
from .copies import INDEX, About, CopyLinks, image_file, layer_file, unit_file, without_empty_links
from .network_pages import Band, LayerPage, NetworkPage, Projection, UnitPage
from .pages import Page, rendered
from .shelf import Shelf
from .specimen import Specimen

T = TypeVar("T")

MARK = "convscope-copy.json"
"""Says what a folder is a copy of: by this file it is known as one that may be written again."""

_OWN = ("layer", "static", INDEX)
"""What of a folder is the copy's; whatever else somebody puts beside it stays."""

_STATIC = ("explorer.css", "map.css", "explorer.js", "copy.js")
_SCHEMA = 1
_SAMPLED = 6
"""Layers of which some images are made for a forecast."""


@dataclass(frozen=True)
class File:
    """A file of a copy, and what makes its content.

    `tiles` are the images on it, 0 of a page; `lasting` whether it is the same whichever units are chosen.
    """

    path: str
    make: Callable[[], bytes]
    layer: str = ""
    tiles: int = 0
    lasting: bool = False


@dataclass(frozen=True)
class Forecast:
    """What is still to be written: how many files, about how many bytes, and how many seconds that takes."""

    files: int
    size: float
    seconds: float


class _AtOnce(Specimen):
    """A network that nobody else asks: it computes at once, and keeps nothing."""

    async def _shared(self, threads: Any, key: Any, make: Callable[[], T]) -> T:
        return make()


class Copy:
    """A copy of the pages of an atlas.

    Args:
        atlas: what is copied.
        units: the units of each layer, by the layer's name as it was scanned.
        bands: which of a unit's pictures; all that were kept when None.
        method: how units are projected.
        patches: whether pieces of the scanned pictures may be in it; else there are projections and numbers only.
    """

    def __init__(
        self,
        atlas: Atlas,
        units: Mapping[str, Sequence[int]],
        *,
        bands: Sequence[Band] | None = None,
        method: Projection = "deconvnet",
        patches: bool = True,
    ) -> None:
        self._atlas, self._patches = atlas, patches
        self._method: Projection = method
        self._specimen = _AtOnce(ids([atlas.net.name])[0], atlas.net, atlas)
        self._bands: tuple[Band, ...] = tuple(network_pages.BANDS if bands is None else bands)
        self.units = {self._specimen.slugs[name]: tuple(each) for name, each in units.items()}
        self._bench = Bench([self._specimen], Shelf())
        self._loop = asyncio.new_event_loop()
        self._made: dict[str, bytes] = {}
        self.links = CopyLinks(self._about(), self.units)

    def _about(self) -> About:
        manifest, count = self._atlas.manifest, sum(map(len, self.units.values()))
        excerpt = f"{count:,} of its units, in {len(self.units):,} of {len(self._specimen.layers):,} layers"
        return About(
            self._atlas.net.name, versions()["convscope"], manifest.key, manifest.pictures, excerpt, self._patches
        )

    def close(self) -> None:
        """End what pages are made with."""
        self._bench.close()
        self._loop.close()

    # What there is

    @cached_property
    def files(self) -> list[File]:
        """All files, the first page last: where that is, the copy is whole."""
        found = [File(f"static/{name}", partial(_static, name)) for name in _STATIC]
        for slug, units in self.units.items():
            found += self._of_layer(slug, units)
        return [*found, File(INDEX, self._network_page)]

    def _of_layer(self, slug: str, units: Sequence[int]) -> list[File]:
        layer = self._specimen.layers[slug]
        found: list[File] = []
        for kind in self._kinds(slug):
            for number in range(-(-len(units) // images.PER_SHEET)):
                chosen = [units[at] for at in images.on_sheet(number, len(units))]
                make = partial(self._sheet, slug, kind, chosen)
                found.append(File(self._image(slug, "sheet", kind, number), make, slug, len(chosen)))
        kept, tiles = self._atlas.bands(layer.name), self._atlas.manifest.settings.k * (1 + self._patches)
        for unit in units:
            for band in self._bands:
                if band in kept.get(unit, ()):
                    path = self._image(slug, "unit", unit, f"{band}-{self._method}")
                    found.append(File(path, partial(self._strip, slug, unit, band), slug, tiles, lasting=True))
            found.append(File(unit_file(slug, unit), partial(self._unit_page, slug, unit), slug))
        return [*found, File(layer_file(slug), partial(self._layer_page, slug), slug)]

    def _image(self, slug: str, *parts: str | int) -> str:
        return image_file("layer", slug, *parts) + ".webp"

    def _kinds(self, slug: str) -> list[images.Kind]:
        found = self._now(network_pages.sheets_of(self._specimen, self._specimen.layers[slug]))
        return [kind for kind in found if self._patches or kind != "patches"]

    def _sheet(self, slug: str, kind: images.Kind, units: Sequence[int]) -> bytes:
        layer = self._specimen.layers[slug]
        if kind == "filters":
            return images.filter_sheet(self._specimen.net, layer, units)
        return images.atlas_sheets(self._atlas, layer, units, self._method)[kind]

    def _strip(self, slug: str, unit: int, band: Band) -> bytes:
        layer = self._specimen.layers[slug]
        examples = self._atlas.top(layer.name, unit, band=band)
        return images.strip(self._atlas, layer, unit, examples, self._method, patches=self._patches)

    # Pages

    def _network_page(self) -> bytes:
        return self._page(INDEX, cast(NetworkPage, self._now(network_pages.network(self._specimen, self._bench))))

    def _layer_page(self, slug: str) -> bytes:
        layer, units, order = self._specimen.layers[slug], self.units[slug], list(self.units)
        page = cast(LayerPage, self._now(network_pages.layer(self._specimen, layer, "number", "all")))
        at, chosen = order.index(slug), frozenset(units)
        rows = [row for row in page.units if row.unit in chosen]
        return self._page(
            layer_file(slug),
            replace(
                page,
                before=order[at - 1] if at else None,
                after=order[at + 1] if at + 1 < len(order) else None,
                sheets=self._kinds(slug),
                units=rows,
                dead=sum(row.dead for row in rows),
                among=units,
            ),
        )

    def _unit_page(self, slug: str, unit: int) -> bytes:
        layer, units = self._specimen.layers[slug], self.units[slug]
        page = cast(UnitPage, self._now(network_pages.unit(self._bench, self._specimen, layer, unit, self._method)))
        at = units.index(unit)
        bands = [band for band in page.bands if band.name in self._bands]
        return self._page(
            unit_file(slug, unit),
            replace(
                page,
                before=units[at - 1] if at else None,
                after=units[at + 1] if at + 1 < len(units) else None,
                sheets=self._kinds(slug),
                bands=bands,
                similar=[like for like in page.similar if like.layer == slug and like.unit in units],
                among=units,
            ),
        )

    def _now(self, page: Awaitable[T]) -> T:
        # Not asyncio.run: that takes ctrl-C for itself, and loses it where a page waits for nothing.
        return self._loop.run_until_complete(page)

    def _page(self, path: str, page: Page) -> bytes:
        text = rendered(page, self._bench, self.links.seen_from(path))
        return without_empty_links(text).encode("utf-8", "backslashreplace")

    # Writing

    def forecast(self, folder: Path) -> Forecast:
        """Measure on some of the files that are missing in a folder what all of them take."""
        missing = self._missing(folder)
        layers = list(dict.fromkeys(file.layer for file in missing if file.layer))
        rates = {at: self._rates(layers[at], missing) for at in _spread(len(layers), _SAMPLED)}
        size = seconds = 0.0
        for at, layer in enumerate(layers):
            per_tile, per_page = rates[min(rates, key=lambda sampled: abs(sampled - at))]
            own = [file for file in missing if file.layer == layer]
            tiles, pages = sum(file.tiles for file in own), sum(not file.tiles for file in own)
            size += per_tile.size * tiles + per_page.size * pages
            seconds += per_tile.seconds * tiles + per_page.seconds * pages
        return Forecast(len(missing), size, seconds)

    def _rates(self, layer: str, missing: Sequence[File]) -> tuple[_Rate, _Rate]:
        """Return what an image of a layer takes, and a page of one of its units."""
        own = [file for file in missing if file.layer == layer]
        strips = [file for file in own if file.tiles][-3:]
        units = [file for file in own if not file.tiles][:2]
        return self._rate(strips), self._rate(units)

    def _rate(self, files: Sequence[File]) -> _Rate:
        taken: list[float] = []
        for file in files:
            start = time.perf_counter()
            self._made[file.path] = file.make()
            taken.append((time.perf_counter() - start) / (file.tiles or 1))
        sizes = [len(self._made[file.path]) / (file.tiles or 1) for file in files]
        # The first call of a kind takes longer than those that follow.
        return _Rate(statistics.fmean(sizes), min(taken)) if files else _Rate()

    def _missing(self, folder: Path) -> list[File]:
        kept = _kept(folder, self._keys)
        return [file for file in self.files if not (kept(file) and _is_there(folder / file.path))]

    def write(self, folder: Path) -> Path:
        """Write what is missing in a folder, and take away what an earlier copy left there that is not of this one.

        It may be ended at any time, and goes on when it is called again. Raises OutputError for a folder that holds
        something else, and where it cannot be written.
        """
        check_place(folder)
        with lock(folder / ".convscope-copy.lock", f"the folder {folder}"):
            missing = self._missing(folder)
            self._clear(folder)
            for file in track(missing, "files"):
                outputs.write_bytes(folder / file.path, self._made.pop(file.path, None) or file.make())
        return folder / INDEX

    def _clear(self, folder: Path) -> None:
        """Take away what is not of this copy, and write whose copy it is."""
        kept, here = _kept(folder, self._keys), {file.path: file for file in self.files}
        old = _read_keys(folder)
        if old != self._keys:
            # Until all is taken away, what lasts alone counts.
            same = {name: key if old.get(name) == key else "" for name, key in self._keys.items()}
            _write_mark(folder, same)
        for path in _own_files(folder):
            name = path.relative_to(folder).as_posix()
            if name not in here or not kept(here[name]) or path.is_symlink():
                path.unlink()
        _write_mark(folder, self._keys | {"network": self.links.about.network, "atlas": self.links.about.atlas})

    @cached_property
    def _keys(self) -> dict[str, str]:
        """What decides the images that are the same in any selection, and what decides all other files."""
        about = self.links.about
        lasting = [_SCHEMA, about.version, about.atlas, self._method, self._patches]
        static = [_static(name).decode() for name in _STATIC]
        pages = [*lasting, about.network, self._bands, self.units, static, _templates()]
        return {"images": _digest(lasting), "pages": _digest(pages)}

    def pack(self, folder: Path, archive: Path) -> None:
        """Put a folder that was written into one file, as a folder of the archive's name. Raises OutputError."""
        names = sorted([*(file.path for file in self.files), MARK])

        def write(to: Path) -> None:
            with zipfile.ZipFile(to, "w") as packed:
                for name in names:
                    entry = zipfile.ZipInfo(f"{archive.stem}/{name}")  # of 1980: the same files are the same bytes
                    entry.external_attr = 0o644 << 16
                    entry.compress_type = zipfile.ZIP_STORED if name.endswith(".webp") else zipfile.ZIP_DEFLATED
                    packed.writestr(entry, (folder / name).read_bytes())

        outputs.write(archive, write)


@dataclass(frozen=True)
class _Rate:
    """Bytes and seconds."""

    size: float = 0.0
    seconds: float = 0.0


def check_place(folder: Path) -> None:
    """Refuse a folder that cannot be written, or that holds something else than a copy. Raises OutputError."""
    outputs.check_folder(folder)
    if not folder.is_dir() or (folder / MARK).is_file():
        return
    other = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if other:
        raise OutputError(
            f"{folder} holds something else, such as {other[0]}: name a folder that is empty or not there yet, or one "
            "that convscope export wrote"
        )


def _kept(folder: Path, keys: Mapping[str, str]) -> Callable[[File], bool]:
    """Return whether a file that lies in the folder would be made the same again."""
    old = _read_keys(folder)
    same = {name: old.get(name) == key for name, key in keys.items()}
    return lambda file: same["images" if file.lasting else "pages"]


def _read_keys(folder: Path) -> dict[str, str]:
    mark = folder / MARK
    if not mark.is_file():
        return {}
    try:
        found = Document.read(mark, OutputError).json(dict[str, str])
    except OutputError:  # whatever it says, nothing there is taken for what is to be made
        return {}
    return {name: found.get(name, "") for name in ("images", "pages")}


def _write_mark(folder: Path, content: Mapping[str, str]) -> None:
    outputs.write_text(folder / MARK, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _own_files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for name in _OWN:
        place = folder / name
        found += [place] if place.is_symlink() or place.is_file() else [p for p in place.rglob("*") if not p.is_dir()]
    return found


def _is_there(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _static(name: str) -> bytes:
    return resources.files(__package__ or "").joinpath("static", name).read_bytes()


def _templates() -> list[str]:
    folder = resources.files(__package__ or "").joinpath("templates")
    return [each.read_text("utf-8") for each in sorted(folder.iterdir(), key=lambda each: each.name)]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _spread(count: int, most: int) -> list[int]:
    """Return at most so many of the numbers below a count, from the first to the last."""
    if count <= most:
        return list(range(count))
    return [round(at * (count - 1) / (most - 1)) for at in range(most)]
