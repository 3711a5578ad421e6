"""What a paper makes of a sheet: without titles, so many tiles in a row, maps on one scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest

from ..errors import OptionError
from .layout import Scale, Sheet, Tile
from .paper import Paper


def rearranged(sheet: Sheet, paper: Paper) -> list[Sheet]:
    """Return the sheets, to be set below each other, that a paper makes of one. Raises OptionError."""
    if paper.shared_scale:
        scaled = [tile for tile in sheet.tiles if tile.scale]
        if len(sheet.rows) == 1 and not _alike(scaled):
            raise _incomparable(scaled)
        sheet = on_one_scale(sheet)
    if not paper.titles:
        sheet = replace(sheet, title="", subtitle="", note="")
    return [sheet] if paper.columns is None else _in_columns(sheet, paper.columns)


def on_one_scale(sheet: Sheet) -> Sheet:
    """Put all maps on one scale, shown once; where units differ, those of each group of columns, shown below it.

    Raises OptionError for units that differ within a group, and for maps that cannot be painted again.
    """
    scaled = [tile for tile in sheet.tiles if tile.scale is not None]
    if len(scaled) < 2:
        return sheet
    if _alike(scaled):
        scale = _shared(scaled)
        return replace(_on(sheet, lambda _: scale), scale=scale)
    columns = list(zip_longest(*sheet.rows))
    scales = list[Scale | None]()
    for group in sheet.groups:
        tiles = [tile for i in group.columns for tile in columns[i] if tile and tile.scale]
        if not _alike(tiles):
            raise _incomparable(scaled)
        scales += [_shared(tiles) if tiles else None] * len(group.columns)
    return replace(_on(sheet, lambda column: scales[column]), feet=tuple(scales))


def _incomparable(scaled: Sequence[Tile]) -> OptionError:
    units = dict.fromkeys(tile.scale.unit or "no unit" for tile in scaled if tile.scale)
    return OptionError(
        f"shared_scale puts maps of one unit and sign on one scale, and here are {' and '.join(units)}: one scale "
        "would compare what cannot be compared"
    )


def _alike(tiles: Sequence[Tile]) -> bool:
    """Whether the scales of tiles mean the same but for where they end."""
    return len({(s.colours, s.unit, s.low < 0) for s in (tile.scale for tile in tiles) if s is not None}) < 2


def _shared(tiles: Sequence[Tile]) -> Scale:
    """Return the scale that takes in those of tiles."""
    scales = [tile.scale for tile in tiles if tile.scale is not None]
    low, high = min(scale.low for scale in scales), max(scale.high for scale in scales)
    clipped = [(s.clipped_low and s.low == low, s.clipped_high and s.high == high) for s in scales]
    below, above = (any(each) for each in zip(*clipped, strict=True))
    return replace(scales[0], low=low, high=high, clipped_low=below, clipped_high=above)


def _on(sheet: Sheet, scale_of: Callable[[int], Scale | None]) -> Sheet:
    """Paint the maps of each column on a scale that is not shown below every one."""

    def painted(tile: Tile | None, scale: Scale | None) -> Tile | None:
        if tile is None or tile.scale is None or scale is None:
            return tile
        if (tile.scale.low, tile.scale.high) == (scale.low, scale.high):
            return replace(tile, scale=None)
        if tile.repaint is None:
            raise OptionError("shared_scale: this drawing's maps cannot be painted again on another scale")
        return replace(tile, image=tile.repaint(scale), scale=None)

    rows = (tuple(painted(tile, scale_of(i)) for i, tile in enumerate(row)) for row in sheet.rows)
    return replace(sheet, rows=tuple(rows))


def _in_columns(sheet: Sheet, columns: int) -> list[Sheet]:
    """Part a sheet into rows of so many tiles; under heads, rows are parted into bands, each under its own heads."""
    if not (sheet.columns or sheet.labels or sheet.feet):
        tiles = sheet.tiles
        return [replace(sheet, rows=tuple(tuple(tiles[i : i + columns]) for i in range(0, len(tiles), columns)))]
    bands = [
        replace(
            sheet,
            rows=tuple(row[start : start + columns] for row in sheet.rows),
            columns=sheet.columns[start : start + columns],
            feet=sheet.feet[start : start + columns],
        )
        for start in range(0, max(map(len, sheet.rows)), columns)
    ]
    bands = [replace(band, title="", subtitle="") if i else band for i, band in enumerate(bands)]
    return [*(replace(band, note="", scale=None) for band in bands[:-1]), bands[-1]]
