"""`Atlas`: what a scan found, opened again: the pictures of a unit, its projections, and questions in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import addresses, trust
from ..data.hashing import content_hash
from ..data.storage import at, local
from ..errors import AtlasError, LayerError, OptionError, nearest
from ..net import Net
from ..parsing import Document
from ..recipes import PictureRecord
from ..remaking import network_of
from .computing import maxima_of
from .crops import Method, Projected, Spot, project_spots
from .manifest import FILE, Manifest, ScannedLayer, read_manifest
from .merging import BANDS, Merging
from .reading import ROOTS, content_of
from .tables import CLASSES, LAYERS, PICTURES, STATISTICS, UNITS, check_pyarrow

if TYPE_CHECKING:
    import pyarrow as pa

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Example:
    """A picture of a unit: its number, the unit's value there, and where.

    `y` and `x` are the row and column in the layer's grid, None for a layer without positions; `box` (top, left,
    bottom, right) is the receptive field in pixels of the original picture; `path` is the picture's below its root.
    """

    picture: int
    value: float
    y: int | None
    x: int | None
    box: Box
    path: str


@dataclass(frozen=True)
class Kin:
    """A unit that responds to the same pictures: the correlation of both units' maxima over the sample."""

    layer: str
    unit: int
    correlation: float


@dataclass(frozen=True)
class Excited:
    """A unit that a picture excites: its maximum there, and which share of the sample's pictures excite it less."""

    layer: str
    unit: int
    value: float
    share: float


class Atlas:
    """Open what `scan` wrote.

    Args:
        path: the atlas's folder, or its address in a storage, of which files are copied as they are asked for.
        net: the network, where it was not loaded by name, or runs code.
        roots: where pictures lie now, as {"data": "pets"}; by default where they lay when this user scanned them.

    Raises AtlasError for a folder that holds no whole atlas.
    """

    def __init__(
        self, path: str | Path, *, net: Net | None = None, roots: Mapping[str, str | Path] | None = None
    ) -> None:
        check_pyarrow()
        self.path = at(path)
        manifest = read_manifest(self.path)
        if manifest is None:
            raise AtlasError(f"{self.path} holds no atlas: there is no {FILE}; convscope scan writes one")
        if not (self.path / UNITS).is_file():
            raise AtlasError(f"the atlas {self.path} is not whole yet: scan again as before, and it goes on")
        self.manifest: Manifest = manifest
        self._net, self._roots = net, {name: str(place) for name, place in (roots or {}).items()}
        self._check_roots()

    def __repr__(self) -> str:
        counts = f"{self.manifest.units:,} units, {self.manifest.pictures:,} pictures"
        return f"<Atlas of {self.manifest.network['name']}: {counts}>"

    @property
    def layers(self) -> dict[str, ScannedLayer]:
        """The layers that were scanned, by name, in execution order."""
        return {layer.name: layer for layer in self.manifest.layers}

    @property
    def record(self) -> PictureRecord:
        """Where it lies, and what it is of, as a recipe names it."""
        return PictureRecord(str(self.path), self.manifest.key)

    @property
    def net(self) -> Net:
        """The network that was scanned. Raises RecipeError where it must be given, or is another one."""
        return self._scanned

    @cached_property
    def _scanned(self) -> Net:
        return network_of(self.manifest.recipe(), self._net)

    def top(
        self, layer: str, unit: int, k: int | None = None, *, band: str = "strongest", repeated: bool = False
    ) -> list[Example]:
        """Return the pictures of a unit, from the first on.

        Args:
            layer, unit: which unit, as the scan names it.
            k: how many; as many as were kept when not given.
            band: "strongest", "weakest", "strong", "middle", "weak", "random", or "effect" of a scan with effects.
            repeated: whether to keep pictures of the same content as one before.

        Raises LayerError for a layer or unit that was not scanned, OptionError for a band that was not kept.
        """
        self._check_unit(layer, unit)
        if band not in BANDS:
            raise OptionError(f"band is {', '.join(BANDS)}, not {band!r}")
        conditions = [("layer", "==", layer), ("unit", "==", unit), ("band", "==", band)]
        rows: list[dict[str, Any]] = self._table(UNITS, conditions).sort_by("rank").to_pylist()
        kept = self.manifest.settings
        if not rows and band != "strongest" and (kept.statistics == "basic" or band == "effect"):
            asked = "effect=True (--effect)" if band == "effect" else "statistics='full' (--statistics full)"
            raise OptionError(f"the scan kept no {band!r} pictures: scan with {asked}, into another folder")
        found: list[Example] = []
        seen: set[str] = set()
        for row in rows:
            content = self._content[row["picture"]]
            if repeated or content not in seen:
                box = (row["top"], row["left"], row["bottom"], row["right"])
                path = self._paths[row["picture"]][1]
                found.append(Example(row["picture"], row["value"], row["y"], row["x"], box, path))
            seen.add(content)
        return found if k is None else found[:k]

    def bands(self, layer: str) -> dict[int, set[str]]:
        """Return for each unit of a layer which kinds of pictures `top` has of it, as "strongest"."""
        self._check_layer(layer)
        table = self._table(UNITS, [("layer", "==", layer)], ["unit", "band"]).group_by(["unit", "band"]).aggregate([])
        found: dict[int, set[str]] = {}
        for unit, band in zip(table["unit"].to_pylist(), table["band"].to_pylist(), strict=True):
            found.setdefault(unit, set()).add(band)
        return found

    def read(self, picture: int) -> torch.Tensor:
        """Read a picture's pixels (1, c, h, w) as the scan read them.

        Raises AtlasError where it is not there, or is no longer the one that was scanned.
        """
        return self.net.read(self.content(picture))

    def content(self, picture: int) -> Any:
        """Return a picture as `net.prepare` takes it. Raises AtlasError where it is another one now."""
        root, path = self._paths[picture]
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path.replace("\\\\", "/")).parts:
            raise AtlasError(f"the atlas names a picture outside its root, {path!r}: it is not opened")
        place = self._places.get(root)
        if place is None:
            raise AtlasError(
                f"it is not known where the pictures of {root!r} lie: give the folder, as --root {root}=FOLDER or "
                f"Atlas(..., roots={{{root!r}: FOLDER}})"
            )
        content = content_of(place, path)
        if content is None:
            raise AtlasError(
                f"the picture {path} is not in {place}: if the folder was moved, say where it is, as "
                f"--root {root}=FOLDER"
            )
        if content_hash(content) != self._content[picture]:
            raise AtlasError(f"the picture {place}{path} is not the one that was scanned: its content differs")
        return content

    def project(
        self, layer: str, unit: int, k: int | None = None, *, band: str = "strongest", method: Method = "deconvnet"
    ) -> list[Projected]:
        """Project a unit down to pixels in each of its pictures: what it sees there, and what excited it."""
        examples = self.top(layer, unit, k, band=band)
        spots = [Spot(example.picture, unit, example.y, example.x) for example in examples]
        return project_spots(self.net, layer, spots, self.read, method)

    def similar(self, layer: str, unit: int, k: int = 9, *, layers: Sequence[str] | None = None) -> list[Kin]:
        """Return the units whose maxima over the sample's pictures go most with those of a unit, the closest first.

        `layers` are those looked at, the unit's own by default.
        """
        self._check_unit(layer, unit)
        own = _standardised(self._sample(layer)[:, unit : unit + 1])
        found: list[Kin] = []
        for name in layers or [layer]:
            self._check_layer(name)
            products = (_standardised(self._sample(name)) * own).mean(0)
            found += [Kin(name, at, float(value)) for at, value in enumerate(products) if (name, at) != (layer, unit)]
        return sorted(found, key=lambda kin: -kin.correlation)[:k]

    def units_of(self, picture: Any, k: int = 9, *, layers: Sequence[str] | None = None) -> list[Excited]:
        """Return the units that a picture excites most, among what each unit gives for the sample's pictures.

        `picture` is a picture's number in the atlas, or any picture; `layers` are those looked at, all by default.
        """
        pixels = self.read(picture) if isinstance(picture, int) else self.net.read(picture)
        names = list(layers or self.layers)
        for name in names:
            self._check_layer(name)
        found: list[Excited] = []
        for name, maxima in maxima_of(self.net, [self.net.layers[name] for name in names], pixels).items():
            shares = (self._sample(name) < maxima).mean(0)
            found += [Excited(name, at, float(maxima[at]), float(share)) for at, share in enumerate(shares)]
        return sorted(found, key=lambda one: (-one.share, names.index(one.layer), one.unit))[:k]

    def detectors(self, layer: str, k: int = 9) -> list[tuple[int, str, float]]:
        """Return the units that tell a class best from all others: number, class and AUC, the best first.

        Each unit stands once, with its best class. Raises OptionError where the scan knew no labels.
        """
        self._check_layer(layer)
        if not (self.path / CLASSES).is_file() or self.manifest.settings.statistics == "basic":
            raise OptionError(
                "the atlas has no AUC: scan pictures with labels, as in folders of classes, with "
                "statistics='full' (--statistics full)"
            )
        table = self._table(CLASSES, [("layer", "==", layer)], ["unit", "class", "auc"]).to_pydict()
        best: dict[int, tuple[int, str, float]] = {}
        for unit, name, auc in zip(table["unit"], table["class"], table["auc"], strict=True):
            if auc is not None and auc > best.get(unit, (unit, "", 0.0))[2]:
                best[unit] = (unit, name, auc)
        return sorted(best.values(), key=lambda one: -one[2])[:k]

    def statistics(self, layer: str, unit: int | None = None) -> pa.Table:
        """Return the rows of a layer's units, or of one, in the table `statistics`."""
        return self._of_units(STATISTICS, layer, unit)

    def classes(self, layer: str, unit: int | None = None) -> pa.Table | None:
        """Return the rows of a layer's units, or of one, in the table `classes`; None where the scan knew no labels."""
        return self._of_units(CLASSES, layer, unit) if (self.path / CLASSES).exists() else None

    def name(self, picture: int) -> str:
        """Return a picture's path below its root."""
        return self._paths[picture][1]

    @property
    def labels(self) -> list[str | None]:
        """The label of each picture, by its number."""
        return self._pictures["label"]

    def where(self, sql: str) -> pa.Table:
        """Answer a question in SQL over the tables units, statistics, classes, layers and pictures.

        Raises AtlasError where DuckDB is missing, or does not understand.
        """
        try:
            import duckdb
        except ImportError:
            raise AtlasError("questions in SQL need DuckDB: pip install 'convscope[atlas]'") from None
        with duckdb.connect(config={"enable_external_access": True}) as connection:
            for file in (UNITS, STATISTICS, CLASSES, LAYERS, PICTURES):
                if (self.path / file).is_file():
                    connection.read_parquet(str(local(self.path / file))).create(Path(file).stem)
            connection.execute("SET enable_external_access = false")
            try:
                return connection.sql(sql).to_arrow_table()
            except duckdb.Error as error:
                raise AtlasError(f"the question cannot be answered: {str(error).splitlines()[0]}") from None

    def _of_units(self, file: str, layer: str, unit: int | None) -> pa.Table:
        if unit is None:
            self._check_layer(layer)
            return self._table(file, [("layer", "==", layer)])
        self._check_unit(layer, unit)
        return self._table(file, [("layer", "==", layer), ("unit", "==", unit)])

    def _check_layer(self, layer: str) -> None:
        if layer not in self.layers:
            raise LayerError(
                f"layer {layer!r} was not scanned; nearest: {nearest(layer, self.layers)}; scanned were "
                f"{', '.join(name or 'the output (an empty name)' for name in self.layers)}"
            )

    def _check_unit(self, layer: str, unit: int) -> None:
        self._check_layer(layer)
        if not 0 <= unit < self.layers[layer].units:
            raise LayerError(f"layer {layer!r} has units 0 to {self.layers[layer].units - 1}: there is no unit {unit}")

    def _table(self, file: str, conditions: Any = None, columns: Any = None) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.read_table(local(self.path / file), filters=conditions, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise AtlasError(f"{self.path / file} cannot be read: {error}") from None

    def _sample(self, layer: str) -> np.ndarray:
        """Read the maxima (n, units) of a layer in the sample's pictures. Raises AtlasError without shards."""
        start = 0
        for scanned in self.manifest.layers:
            if scanned.name == layer:
                break
            start += scanned.units
        merging = Merging(self.path, self.manifest)
        merging.fetch()
        return merging.maxima(slice(start, start + self.layers[layer].units))

    @cached_property
    def _pictures(self) -> dict[str, list[Any]]:
        return self._table(PICTURES, columns=["root", "path", "sha256", "label"]).to_pydict()

    @property
    def _content(self) -> list[str]:
        return self._pictures["sha256"]

    @cached_property
    def _paths(self) -> list[tuple[str, str]]:
        return list(zip(self._pictures["root"], self._pictures["path"], strict=True))

    @cached_property
    def _places(self) -> dict[str, str]:
        """Where roots lie: as given, else as this user's own scan wrote it down; a stranger's file says nothing."""
        file = self.path / ROOTS
        written = dict[str, str]()
        if isinstance(file, Path) and file.exists() and trust.is_ours(file):
            written = Document.read(file, AtlasError).json(dict[str, str])
        return written | {name: _folder(place) for name, place in self._roots.items()}

    def _check_roots(self) -> None:
        known = {root for root, _ in self._paths}
        for name in self._roots:
            if name not in known:
                raise AtlasError(f"the atlas has no root {name!r}: its pictures lie in {', '.join(sorted(known))}")


def _folder(place: str) -> str:
    """Return a place as paths are put behind it."""
    link = addresses.parts(place)[0]
    if link.endswith(("/", "#")) or not (addresses.is_remote(place) or Path(place).is_dir()):
        return place
    return addresses.put_behind(place, "/")


def _standardised(maxima: np.ndarray) -> np.ndarray:
    """Return columns with mean 0 and deviation 1; zeros where they are constant."""
    finite = np.where(np.isfinite(maxima), maxima, 0)
    spread = finite.std(0)
    return (finite - finite.mean(0)) / np.where(spread > 0, spread, np.inf)
