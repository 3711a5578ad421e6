"""A sheet without its images, as JSON can hold it, and its images cut out of what was painted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from PIL import Image

from ..data.limits import check_pixels
from . import layout
from .layout import Scale, Sheet, Tile
from .paper import SCREEN, Paper
from .typesetting import Block, Inset

_GONE = "the numbers are here; the image is in the .png, which is not beside them"


def sheet_words(sheet: Sheet) -> dict[str, Any]:
    """Return a sheet's texts, scales and sizes of tiles."""
    return {
        "title": sheet.title,
        "subtitle": sheet.subtitle,
        "note": sheet.note,
        "columns": sheet.columns,
        "labels": sheet.labels,
        "scale": asdict(sheet.scale) if sheet.scale else None,
        **({"feet": [asdict(scale) if scale else None for scale in sheet.feet]} if sheet.feet else {}),
        "rows": [[_tile_words(tile) for tile in row] for row in sheet.rows],
    }


def _tile_words(tile: Tile | None) -> dict[str, Any] | None:
    if tile is None:
        return None
    scale = asdict(tile.scale) if tile.scale else None
    return {"size": tile.image.size, "caption": tile.caption, "scale": scale}


def sheet_from_words(words: Mapping[str, Any], painted: Image.Image | None, paper: Paper = SCREEN) -> Sheet:
    """Return the sheet with its images as they were painted, or with a remark in the place of each.

    What was painted for a paper, whose scale may be another one, is not cut out.
    """
    sizes = [tile["size"] for row in words["rows"] for tile in row if tile is not None]
    check_pixels(sum(width * height for width, height in sizes), 1, "the drawing")
    rows = tuple(tuple(_tile(tile) for tile in row) for row in words["rows"])
    sheet = Sheet(
        words["title"],
        rows,
        words["subtitle"],
        words["note"],
        tuple(words["columns"]),
        tuple(words["labels"]),
        _scale(words["scale"]),
        tuple(_scale(foot) for foot in words.get("feet", ())),
    )
    page = layout.arranged(sheet)
    if painted is None or paper != SCREEN or painted.size != (page.width, page.height):
        return _with_images(sheet, {id(tile): layout.written(_GONE, tile.image.size) for tile in sheet.tiles})
    corners = {id(item.image): (round(item.x), round(item.y)) for item in page.items if isinstance(item, Block)}
    images: dict[int, Image.Image] = {}
    for tile in sheet.tiles:
        x, y = corners[id(tile.image)]
        images[id(tile)] = painted.crop((x, y, x + tile.image.width, y + tile.image.height))
    return _with_images(sheet, images)


def _with_images(sheet: Sheet, images: Mapping[int, Image.Image | Inset]) -> Sheet:
    rows = (tuple(tile and replace(tile, image=images[id(tile)]) for tile in row) for row in sheet.rows)
    return replace(sheet, rows=tuple(rows))


def _tile(words: Mapping[str, Any] | None) -> Tile | None:
    if words is None:
        return None
    return Tile(Image.new("RGB", tuple(words["size"])), words["caption"], _scale(words["scale"]))


def _scale(words: Mapping[str, Any] | None) -> Scale | None:
    if not words:
        return None
    scale = Scale(**words)
    if not -math.inf < scale.low < scale.high < math.inf:
        raise ValueError(f"a scale from {scale.low} to {scale.high} has no colours")
    return scale
