"""The tables of an atlas, as Parquet files that pandas, polars and DuckDB read: units, statistics, classes, pictures.

Rows are sorted by layer, unit, band and rank, in small row groups, so that a unit is one read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..context import track
from ..errors import OutputError, named
from ..geometry import Field
from ..outputs import write_bytes
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
"""Units whose samples are in memory together."""


def check_pyarrow() -> None:
    """Refuse to scan where no table can be written. Raises OutputError."""
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise OutputError("an atlas's tables need pyarrow: pip install 'convscope[atlas]'")


def failures_of(atlas: Path) -> list[str]:
    """Return the pictures of an atlas that could not be read, each with the reason."""
    import pyarrow.parquet as pq

    table = pq.read_table(atlas / PICTURES, columns=["path", "error"], filters=[("error", "!=", "")])
    return [named(row["path"], row["error"]) for row in table.to_pylist()]


def boxes_of(field: Field, layer: ScannedLayer, size: tuple[int, int]) -> np.ndarray:
    """Return the receptive field (top, left, bottom, right) of every place of a layer, in the network's input."""
    if not layer.columns:
        return np.array([(0, 0, *size)])
    places = range(layer.rows * layer.columns)
    return np.array([field.box(divmod(place, layer.columns), size) for place in places])


def in_originals(boxes: np.ndarray, size: tuple[int, int], pictures: Sequence[ScannedPicture]) -> np.ndarray:
    """Return boxes (n, 4) of the network's input in pixels of the original pictures (n), whole and inside them."""
    seen = np.array([picture.seen for picture in pictures]).reshape(-1, 4)[:, [1, 0, 3, 2]]
    limits = np.array([(picture.height, picture.width) for picture in pictures]).reshape(-1, 2)
    scale = (seen[:, 2:] - seen[:, :2]) / np.array(size)
    low = np.floor(seen[:, :2] + boxes[:, :2] * scale + 1e-6)
    high = np.ceil(seen[:, :2] + boxes[:, 2:] * scale - 1e-6)
    return np.hstack([low.clip(0, limits), high.clip(0, limits)]).astype(np.int32)


class Writing:
    """Writes the tables of one scan."""

    def __init__(self, folder: Path, manifest: Manifest, layers: Mapping[str, Layer], merging: Merging) -> None:
        self.folder, self.manifest, self.merging = folder, manifest, merging
        self.fields = {layer.name: layers[layer.name].shown_field for layer in manifest.layers}
        self.boxes = {each.name: boxes_of(self.fields[each.name], each, manifest.size) for each in manifest.layers}
        self.layers = layers
        self.merged: Merged = merging.merged()

    def all(self) -> None:
        """Write every table; each appears whole."""
        self._write(PICTURES, [self._pictures()])
        self._write(LAYERS, [self._layers()])
        slices = list(_slices(self.manifest))
        self._write(STATISTICS, map(self._statistics, track(slices, "statistics")))
        if self.merged.class_counts:
            self._write(CLASSES, map(self._classes, track(slices, "classes")))
        # Last of all: where it is there, the atlas is whole.
        self._write(UNITS, map(self._units, track(slices, "units")))

    def _write(self, name: str, tables: Any) -> None:
        import pyarrow.parquet as pq

        content, writer = BytesIO(), None
        for table in tables:
            writer = writer or pq.ParquetWriter(content, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=_ROW_GROUP)
        if writer is not None:
            writer.close()
        write_bytes(self.folder / name, content.getbuffer(), durable=True)

    def _pictures(self) -> pa.Table:
        import pyarrow as pa

        pictures = self.merged.pictures
        columns: dict[str, Any] = {"picture": pa.array(range(len(pictures)), pa.int32())}
        for name, kind in (("root", pa.string()), ("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string()),
                           ("height", pa.int32()), ("width", pa.int32())):  # fmt: skip
            columns[name] = pa.array([_text(getattr(picture, name)) for picture in pictures], kind)
        columns["label"] = pa.array([_label(picture.label, self.manifest.classes) for picture in pictures], pa.string())
        for at, name in enumerate(("seen_left", "seen_top", "seen_right", "seen_bottom")):
            columns[name] = pa.array([picture.seen[at] for picture in pictures], pa.float32())
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

    def _statistics(self, part: tuple[ScannedLayer, slice, int]) -> pa.Table:
        import pyarrow as pa

        layer, units, first = part
        sums = self.merged.statistics
        counts = sums.counts[units].numpy()
        seen = np.maximum(counts.sum(1), 1)
        pictures = sums.pictures[units].numpy()
        positions = _lattice_positions(layer)
        mean = sums.sums[units].numpy() / np.maximum(pictures * positions, 1)
        table = {
            "layer": pa.array([layer.name] * len(counts)),
            "unit": pa.array(range(first, first + len(counts)), pa.int32()),
            "pictures": pa.array(pictures),
            "broken": pa.array(sums.broken[units].numpy()),
            "mean": pa.array(mean),
            "maximum": pa.array(self.merged.selections["strongest"].of(units).values[:, 0].numpy()),
        }
        if self.manifest.settings.effect:
            table["effect"] = pa.array(sums.effects[units].numpy() / np.maximum(pictures, 1))
        if self.manifest.settings.statistics == "basic":
            return pa.table(table)
        table["variance"] = pa.array(np.maximum(sums.squares[units].numpy() / seen - mean**2, 0))
        table["active"] = pa.array(positive_share(counts))
        _, maxima = self.merging.sample(units)
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

    def _classes(self, part: tuple[ScannedLayer, slice, int]) -> pa.Table:
        import pyarrow as pa

        layer, units, first = part
        labels = sorted(self.merged.class_counts, key=_numbers_first)
        means = np.stack(
            [(self.merged.class_sums[one][units] / self.merged.class_counts[one]).numpy() for one in labels]
        )
        numbers, maxima = self.merging.sample(units)
        position = {label: number for number, label in enumerate(labels)}
        of = [self.merged.pictures[number].label for number in numbers]
        classes = np.array([-1 if label is None else position[str(label)] for label in of])
        table = {
            "layer": pa.array([layer.name] * means.size),
            "unit": pa.array(np.repeat(np.arange(first, first + means.shape[1], dtype=np.int32), len(labels))),
            "class": pa.array([_label(label, self.manifest.classes) for label in labels] * means.shape[1]),
            "pictures": pa.array([self.merged.class_counts[label] for label in labels] * means.shape[1], pa.int64()),
            "mean": pa.array(means.T.ravel()),
        }
        if self.manifest.settings.statistics == "full":
            table["auc"] = pa.array(auc(maxima, classes, len(labels)).T.ravel(), from_pandas=True)
            counts = np.bincount(classes[classes >= 0], minlength=len(labels))
            table["sample"] = pa.array(np.tile(counts, means.shape[1]).astype(np.int32))
        return pa.table(table)

    def _units(self, part: tuple[ScannedLayer, slice, int]) -> pa.Table:
        import pyarrow as pa

        layer, units, first = part
        rows = Candidates.joined([*self._selected(units), *self._banded(units, first)]).sorted()
        inputs = self.boxes[layer.name][rows.place if layer.columns else rows.place * 0]
        boxes = in_originals(inputs, self.manifest.size, [self.merged.pictures[number] for number in rows.picture])
        y, x = (pa.array(at, pa.int32()) for at in _rows_and_columns(layer, rows.place))
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
                **{name: pa.array(boxes[:, at]) for at, name in enumerate(("top", "left", "bottom", "right"))},
            }
        )

    def _selected(self, units: slice) -> Iterator[Candidates]:
        for band, selection in self.merged.selections.items():
            some = selection.of(units)
            columns = (some.values.numpy(), some.pictures.numpy().astype(np.int64), some.places.numpy())
            found = Candidates.grid(band, np.arange(len(columns[0])), *columns)
            yield found.at(found.picture >= 0)

    def _banded(self, units: slice, first: int) -> Iterator[Candidates]:
        if self.manifest.settings.statistics == "basic":
            return
        numbers, places = self.merging.examples(units)
        sample, maxima = self.merging.sample(units)
        yield from banded(maxima[np.searchsorted(sample, numbers)], places, numbers, self.manifest.settings.k, first)


def _slices(manifest: Manifest) -> Iterator[tuple[ScannedLayer, slice, int]]:
    """Yield every layer in parts: its units among those of all layers, and the number of the first."""
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
