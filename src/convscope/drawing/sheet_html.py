"""Sheets as HTML, to be put into a page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable

from PIL import Image

from .layout import Group, Scale, Sheet, Tile
from .painting import image_of


def data_uri(image: Image.Image) -> str:
    """Return an image as a PNG inside a URL."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def to_html(sheet: Sheet, source: Callable[[Image.Image], str] = data_uri) -> str:
    """Write a sheet as an HTML fragment; its classes are styled by the page that holds it.

    `source` returns the address of an image: by default the image itself, in the address.
    """
    cells, corner = list[str](), "<td></td>" if sheet.labels else ""
    if sheet.columns:
        cells += [f"<tr>{corner}{head}</tr>" for head in _heads_html(sheet)]
    for index, row in enumerate(sheet.rows):
        label = f"<th scope='row'>{_lines_html(sheet.labels[index])}</th>" if sheet.labels else ""
        tiles = "".join(f"<td>{_tile_html(tile, source)}</td>" for tile in row)
        cells.append(f"<tr>{label}{tiles}</tr>")
    if any(sheet.feet):
        feet = [(group, sheet.feet[group.columns.start]) for group in sheet.groups]
        below = "".join(f"<td{_span(group)}>{_scale_html(foot) if foot else ''}</td>" for group, foot in feet)
        cells.append(f"<tr>{corner}{below}</tr>")
    widths = f"--columns:{max(map(len, sheet.rows))};--label:{7 if sheet.labels else 0}rem"
    # Tiles without heads and labels may go on in another line where the page is narrow.
    loose = "" if sheet.columns or sheet.labels or len(sheet.rows) > 1 else " loose"
    scale = f"<div class='shared'>{_scale_html(sheet.scale)}</div>" if sheet.scale else ""
    note = f"<p class='note'>{html.escape(sheet.note)}</p>" if sheet.note else ""
    return (
        f"<h3>{html.escape(sheet.title)}</h3><p class='subtitle'>{html.escape(sheet.subtitle)}</p>"
        f"<div class='scroll'><table class='sheet{loose}' style='{widths}'>{''.join(cells)}</table></div>"
        f"{scale}{note}"
    )


def _heads_html(sheet: Sheet) -> list[str]:
    """Return the heads over groups of columns, where there are any, and those of the columns."""
    over = "".join(f"<th scope='colgroup'{_span(group)}>{html.escape(group.head)}</th>" for group in sheet.groups)
    below = "".join(f"<th scope='col'>{html.escape(text)}</th>" for group in sheet.groups for text in group.heads)
    return [over, below] if any(group.head for group in sheet.groups) else [below]


def _span(group: Group) -> str:
    return f" colspan='{len(group.columns)}'" if len(group.columns) > 1 else ""


def _lines_html(text: str) -> str:
    return "<br>".join(html.escape(line) for line in text.split("\n"))


def _scale_html(scale: Scale) -> str:
    low, middle, high = (html.escape(text) for text in (scale.labels[0], scale.middle, scale.labels[1]))
    return (
        f"<div class='bar' style='background-image:url({data_uri(scale.strip(256, 1))})'></div>"
        f"<div class='ends'><span>{low}</span><span>{middle}</span><span>{high}</span></div>"
    )


def _tile_html(tile: Tile | None, source: Callable[[Image.Image], str]) -> str:
    if tile is None:
        return ""
    width, height = tile.image.width, tile.image.height
    bar = _scale_html(tile.scale) if tile.scale else ""
    caption = f"<figcaption>{_lines_html(tile.caption)}</figcaption>" if tile.caption else ""
    alt = html.escape(tile.caption or "tile", quote=True)
    size = f"width='{width}' height='{height}'"
    image = f"<img {size} loading='lazy' alt=\"{alt}\" src='{source(image_of(tile.image))}'>"
    return f"<figure style='--width:{width}px'>{image}{bar}{caption}</figure>"
