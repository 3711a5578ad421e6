"""The tables of an atlas, as Parquet files that pandas, polars and DuckDB read: units, statistics, classes, pictures.

Rows are sorted by layer, unit, band and rank, in small row groups, so that a unit is one read. Shards are merged for
some thousand units at a time, and what is made of those is written before the next: memory is that of so many units.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..context import track
from ..data.class_names import wordnet_names
from ..data.storage import Place, at, local
from ..data.uploads import writing
from ..errors import OutputError, named
from ..geometry import Field
from ..tracing import Layer
from .manifest import Manifest, ScannedLayer
from .merging import BANDS, QUANTILES, Candidates, Merged, Merging, auc, banded, positive_share
from .shards import ScannedPicture
from .statistics import SIDE, lattice

if TYPE_CHECKING:
    import pyarrow as pa

UNITS, STATISTICS, CLASSES, LAYERS, PICTURES = (
    f"{name}.parquet" for name in ("units", "statistics", "classes", "layers", "pictures")
)

_ROW_GROUP = 4096
"""Rows that are read together."""

_TOGETHER = 64
"""Units of a layer whose rows are made together."""

_MERGED = 16
"""So many times that are merged in one pass over the shards, at most: a sample of 10,000 pictures takes 40 MB."""

_Part = tuple[ScannedLayer, slice, int]
"""A layer, some of its units among those of all layers, and the number of the first."""


def check_pyarrow() -> None:
    """Refuse to scan where no table can be written. Raises OutputError."""
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise OutputError("an atlas's tables need pyarrow: pip install 'convscope[atlas]'")


def failures_of(atlas: str | Path) -> list[str]:
    """Return the pictures of an atlas that could not be read, each with the reason."""
    import pyarrow.parquet as pq

    table = pq.read_table(local(at(atlas) / PICTURES), columns=["path", "error"], filters=[("error", "!=", "")])
    return [named(row["path"], row["error"]) for row in table.to_pylist()]


def boxes_of(field: Field, layer: ScannedLayer, size: tuple[int, int]) -> np.ndarray:
    """Return the receptive field (top, left, bottom, right) of every place of a layer, in the network's input."""
    if not layer.columns:
        return np.array([(0, 0, *size)])
    places = range(layer.rows * layer.columns)
    return np.array([field.box(divmod(place, layer.columns), size) for place in places])


@dataclass(frozen=True)
class Seen:
    """What tables need of every picture: its label, its own size (n, 2), and the part (n, 4) that the network saw.

    The part is (top, left, bottom, right) in the picture's pixels. A picture that could not be read has no label.
    """

    labels: list[str | None]
    sizes: np.ndarray
    parts: np.ndarray

    @classmethod
    def of(cls, pictures: Sequence[ScannedPicture]) -> Seen:
        """Take it from some pictures."""
        labels = [None if one.error or one.label is None else sys.intern(str(one.label)) for one in pictures]
        sizes = np.array([(one.height, one.width) for one in pictures], np.int32).reshape(-1, 2)
        return cls(labels, sizes, np.array([one.seen for one in pictures]).reshape(-1, 4)[:, [1, 0, 3, 2]])

    @classmethod
    def joined(cls, several: Sequence[Seen]) -> Seen:
        """Return that of all pictures of several."""
        labels = [label for each in several for label in each.labels]
        return cls(labels, *(np.concatenate([getattr(each, name) for each in several]) for name in ("sizes", "parts")))

    def in_originals(self, pictures: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return boxes (n, 4) of the network's input in pixels of the original pictures (n,), whole and inside them."""
        parts, limits = self.parts[pictures], self.sizes[pictures]
        scale = (parts[:, 2:] - parts[:, :2]) / np.array(size)
        low = np.floor(parts[:, :2] + boxes[:, :2] * scale + 1e-6)
        high = np.ceil(parts[:, :2] + boxes[:, 2:] * scale - 1e-6)
        return np.hstack([low.clip(0, limits), high.clip(0, limits)]).astype(np.int32)


class _Table:
    """A table's file while it is written."""

    def __init__(self, path: Path) -> None:
        self.path, self.writer = path, None

    def add(self, table: pa.Table) -> None:
        """Write rows behind those that are there."""
        import pyarrow.parquet as pq

        self.writer = self.writer or pq.ParquetWriter(self.path, table.schema, compression="zstd")
        self.writer.write_table(table, row_group_size=_ROW_GROUP)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class Writing:
    """Writes the tables of one scan."""

    def __init__(self, folder: Place, manifest: Manifest, layers: Mapping[str, Layer], merging: Merging) -> None:
        self.folder, self.manifest, self.merging = folder, manifest, merging
        self.fields = {layer.name: layers[layer.name].shown_field for layer in manifest.layers}
        self.boxes = {each.name: boxes_of(self.fields[each.name], each, manifest.size) for each in manifest.layers}
        self.layers = layers

    def all(self) -> None:
        """Write every table; each appears whole."""
        seen = list[Seen]()
        with self._table(PICTURES) as table:
            pictures = self.merging.pictures()
            for first in range(0, self.manifest.pictures, _ROW_GROUP):
                some = list(islice(pictures, _ROW_GROUP))
                seen.append(Seen.of(some))
                table.add(self._pictures(some, first))
        with self._table(LAYERS) as table:
            table.add(self._layers())
        self._of_units(Seen.joined(seen))

    def _of_units(self, seen: Seen) -> None:
        """Write the tables whose rows are of units, in the order of these."""
        labels = sorted({label for label in seen.labels if label is not None}, key=_numbers_first)
        # The units come last of all: where they are there, the atlas is whole.
        with (
            self._table(UNITS) as units,
            self._table(STATISTICS) as statistics,
            self._table(CLASSES) if labels else nullcontext() as classes,
        ):
            for block in _blocks(self.manifest):
                first = block[0][1].start
                merged = self.merging.merged(slice(first, block[-1][1].stop), labels)
                for part in track(block, "tables"):
                    some = merged.of(slice(part[1].start - first, part[1].stop - first))
                    statistics.add(self._statistics(part, some))
                    if classes is not None:
                        classes.add(self._classes(part, some, seen, labels))
                    units.add(self._units(part, some, seen))

    @contextmanager
    def _table(self, name: str) -> Generator[_Table]:
        """Open a table that appears whole at the end of the block."""
        with writing(self.folder / name) as path:
            table = _Table(path)
            try:
                yield table
            finally:
                table.close()

    def _pictures(self, pictures: Sequence[ScannedPicture], first: int) -> pa.Table:
        import pyarrow as pa

        columns: dict[str, Any] = {"picture": pa.array(range(first, first + len(pictures)), pa.int32())}
        for name, kind in (("root", pa.string()), ("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string()),
                           ("height", pa.int32()), ("width", pa.int32())):  # fmt: skip
            columns[name] = pa.array([_text(getattr(picture, name)) for picture in pictures], kind)
        columns["label"] = pa.array([_label(picture.label, self.manifest.classes) for picture in pictures], pa.string())
        for side, name in enumerate(("seen_left", "seen_top", "seen_right", "seen_bottom")):
            columns[name] = pa.array([picture.seen[side] for picture in pictures], pa.float32())
        columns["error"] = pa.array([picture.error or None for picture in pictures], pa.string())
        return pa.table(columns)

    def _layers(self) -> pa.Table:
        import pyarrow as pa

        rows: list[dict[str, Any]] = []
        for number, scanned in enumerate(self.manifest.layers):
            field = self.fields[scanned.name]
            rows.append(
                {
                    "layer": scanned.name,
                    "number": number,
                    "kind": scanned.kind,
                    "units": scanned.units,
                    "rows": scanned.rows,
                    "columns": scanned.columns,
                    "field_height": float(field.size[0]),
                    "field_width": float(field.size[1]),
                    "step_y": float(field.step[0]),
                    "step_x": float(field.step[1]),
                    "whole_picture": bool(self.layers[scanned.name].field.shared),
                }
            )
        return pa.Table.from_pylist(rows)

    def _statistics(self, part: _Part, merged: Merged) -> pa.Table:
        import pyarrow as pa

        layer, _, first = part
        sums = merged.statistics
        counts = sums.counts.numpy()
        seen = np.maximum(counts.sum(1), 1)
        pictures = sums.pictures.numpy()
        positions = _lattice_positions(layer)
        mean = sums.sums.numpy() / np.maximum(pictures * positions, 1)
        table = {
            "layer": pa.array([layer.name] * len(counts)),
            "unit": pa.array(range(first, first + len(counts)), pa.int32()),
            "pictures": pa.array(pictures),
            "broken": pa.array(sums.broken.numpy()),
            "mean": pa.array(mean),
            "maximum": pa.array(merged.selections["strongest"].values[:, 0].numpy()),
        }
        if self.manifest.settings.effect:
            table["effect"] = pa.array(sums.effects.numpy() / np.maximum(pictures, 1))
        if self.manifest.settings.statistics == "basic":
            return pa.table(table)
        table["variance"] = pa.array(np.maximum(sums.squares.numpy() / seen - mean**2, 0))
        table["active"] = pa.array(positive_share(counts))
        maxima = merged.maxima
        sampled = maxima if len(maxima) else np.full((1, len(counts)), -np.inf)  # where no picture could be read
        quantiles = np.quantile(
            np.where(np.isfinite(sampled), sampled, -np.inf), QUANTILES, axis=0, method="inverted_cdf"
        )
        for share, values in zip(QUANTILES, quantiles, strict=True):
            table[f"maximum_q{round(100 * share):02d}"] = pa.array(values.astype(np.float32))
        table["sample"] = pa.array([len(maxima)] * len(counts), pa.int32())
        table["bins"] = pa.array(
            [(np.flatnonzero(row) - SIDE).astype(np.int16) for row in counts], pa.list_(pa.int16())
        )
        table["counts"] = pa.array([row[row > 0] for row in counts], pa.list_(pa.int64()))
        return pa.table(table)

    def _classes(self, part: _Part, merged: Merged, seen: Seen, labels: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        layer, _, first = part
        means = (merged.class_sums / merged.class_counts[:, None]).numpy()
        position: dict[str | None, int] = {None: -1, **{label: number for number, label in enumerate(labels)}}
        classes = np.array([position[seen.labels[number]] for number in merged.sample], np.int64)
        names = [_label(label, self.manifest.classes) or "" for label in labels]
        table = {
            "layer": pa.array([layer.name] * means.size),
            "unit": pa.array(np.repeat(np.arange(first, first + means.shape[1], dtype=np.int32), len(labels))),
            "class": pa.array([wordnet_names().get(name, name) for name in names] * means.shape[1]),
            "label": pa.array(names * means.shape[1]),
            "pictures": pa.array([*merged.class_counts.tolist()] * means.shape[1], pa.int64()),
            "mean": pa.array(means.T.ravel()),
        }
        if self.manifest.settings.statistics == "full":
            table["auc"] = pa.array(auc(merged.maxima, classes, len(labels)).T.ravel(), from_pandas=True)
            counts = np.bincount(classes[classes >= 0], minlength=len(labels))
            table["sample"] = pa.array(np.tile(counts, means.shape[1]).astype(np.int32))
        return pa.table(table)

    def _units(self, part: _Part, merged: Merged, seen: Seen) -> pa.Table:
        import pyarrow as pa

        layer, _, first = part
        rows = Candidates.joined([*_selected(merged), *self._banded(merged, first)]).sorted()
        inputs = self.boxes[layer.name][rows.place if layer.columns else rows.place * 0]
        boxes = seen.in_originals(rows.picture, inputs, self.manifest.size)
        y, x = (pa.array(each, pa.int32()) for each in _rows_and_columns(layer, rows.place))
        return pa.table(
            {
                "layer": pa.array([layer.name] * len(rows.unit), pa.string()),
                "unit": pa.array(first + rows.unit, pa.int32()),
                "band": pa.array(np.array(BANDS)[rows.band], pa.string()),
                "rank": pa.array(rows.rank, pa.int32()),
                "value": pa.array(rows.value, pa.float32()),
                "picture": pa.array(rows.picture, pa.int32()),
                "y": y,
                "x": x,
                **{name: pa.array(boxes[:, side]) for side, name in enumerate(("top", "left", "bottom", "right"))},
            }
        )

    def _banded(self, merged: Merged, first: int) -> Iterator[Candidates]:
        if self.manifest.settings.statistics == "full":
            maxima = merged.maxima[np.searchsorted(merged.sample, merged.examples)]
            yield from banded(maxima, merged.places, merged.examples, self.manifest.settings.k, first)


def _selected(merged: Merged) -> Iterator[Candidates]:
    for band, selection in merged.selections.items():
        columns = (selection.values.numpy(), selection.pictures.numpy().astype(np.int64), selection.places.numpy())
        found = Candidates.grid(band, np.arange(len(columns[0])), *columns)
        yield found.at(found.picture >= 0)


def _blocks(manifest: Manifest) -> Iterator[list[_Part]]:
    """Yield parts of layers, as many as are merged together."""
    parts = _parts(manifest)
    while block := list(islice(parts, _MERGED)):
        yield block


def _parts(manifest: Manifest) -> Iterator[_Part]:
    """Yield every layer in parts."""
    start = 0
    for layer in manifest.layers:
        for first in range(0, layer.units, _TOGETHER):
            count = min(_TOGETHER, layer.units - first)
            yield layer, slice(start + first, start + first + count), first
        start += layer.units


def _lattice_positions(layer: ScannedLayer) -> int:
    positions = max(1, layer.rows * layer.columns)
    return len(range(positions)[lattice(positions)])


def _rows_and_columns(layer: ScannedLayer, places: np.ndarray) -> tuple[Sequence[int | None], Sequence[int | None]]:
    if not layer.columns:
        return [None] * len(places), [None] * len(places)
    row, column = np.divmod(places, layer.columns)
    return row, column  # type: ignore[return-value]


def _text(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _label(label: Any, classes: tuple[str, ...]) -> str | None:
    """Name a label, by the classes where it is a number of one."""
    if label is None:
        return None
    text = str(label)
    return classes[int(text)] if text.isdigit() and int(text) < len(classes) else text


def _numbers_first(label: str) -> tuple[bool, int, str]:
    return (not label.isdigit(), int(label) if label.isdigit() else 0, label)
