"""Sheets: tiles in rows under a title, painted as a picture or as HTML.

Every drawing lays itself out as a Sheet, so that pictures, pages and matplotlib figures show the same things in the
same places: the picture first, then the maps, all tiles of one size, never stretched.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from . import colours, fonts, painting
from .typesetting import FAINT, INK, PAPER, Block, Box, Page, Words, length, line_height, stacked, wrap

GAP = 8
MARGIN = 20
_BAR = 10


@dataclass(frozen=True)
class Scale:
    """What the colours of a tile mean: a colour map between two values, and their unit."""

    colours: str
    low: float
    high: float
    unit: str = ""
    clipped_low: bool = False
    clipped_high: bool = False

    @property
    def labels(self) -> tuple[str, str]:
        """The texts at the two ends; "≤" and "≥" where values beyond the end share its colour."""
        return ("≤ " if self.clipped_low else "") + number(self.low), ("≥ " if self.clipped_high else "") + number(
            self.high
        )

    @property
    def middle(self) -> str:
        """The text under the middle: zero where the scale is signed, otherwise the unit."""
        return "0" if self.low < 0 < self.high else self.unit

    def strip(self, width: int, height: int = _BAR) -> Image.Image:
        """Return the colour bar."""
        ramp = np.linspace(self.low, self.high, max(width, 2))[None].repeat(height, 0)
        return Image.fromarray(colours.paint(ramp, self.low, self.high, self.colours))


def number(value: float) -> str:
    """Write a number for a reader: three digits, thousands in full, a true minus sign."""
    text = f"{value:,.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−") if value else "0"


@dataclass(frozen=True)
class Tile:
    """An image with what is written under it, and the scale of its colours if they stand for numbers."""

    image: Image.Image
    caption: str = ""
    scale: Scale | None = None


@dataclass(frozen=True)
class Sheet:
    """Rows of tiles under a title.

    `columns` are heads over the columns, `labels` stand before the rows, `scale` is that of all tiles together.
    """

    title: str
    rows: tuple[tuple[Tile | None, ...], ...]
    subtitle: str = ""
    note: str = ""
    columns: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    scale: Scale | None = None

    @property
    def tiles(self) -> list[Tile]:
        """All tiles in reading order."""
        return [tile for row in self.rows for tile in row if tile is not None]


def in_rows(tiles: Sequence[Tile], *, most: int = 8) -> tuple[tuple[Tile, ...], ...]:
    """Lay tiles out as a block wider than high, up to `most` in a row, its last row full where that can be."""
    count = len(tiles)
    if count <= 5:
        return (tuple(tiles),)
    low, high = math.ceil(math.sqrt(count) * 1.1), min(most, math.floor(math.sqrt(count) * 2))
    full = [across for across in range(high, low - 1, -1) if count % across == 0]
    across = full[0] if full else min(most, round(math.sqrt(count) * 1.4))
    return tuple(tuple(tiles[i : i + across]) for i in range(0, count, across))


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """Bring an image near to `side` pixels: small ones by a whole factor without blur, large ones down."""
    longest = max(image.size)
    if longest * 2 <= side:
        factor = round(0.75 * side / longest)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if longest <= side:
        return image
    ratio = side / longest
    return image.resize(
        (max(1, round(image.width * ratio)), max(1, round(image.height * ratio))), Image.Resampling.LANCZOS
    )


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Return images of one size in a block, 8 pixels apart, nothing written on it; one alone stays as it is."""
    if len(images) == 1:
        return images[0]
    width, height = images[0].size
    across = math.ceil(math.sqrt(len(images) * height / width))
    down = math.ceil(len(images) / across)
    block = Image.new("RGB", (across * (width + GAP) - GAP, down * (height + GAP) - GAP), PAPER)
    for i, image in enumerate(images):
        block.paste(image.convert("RGB"), ((i % across) * (width + GAP), (i // across) * (height + GAP)))
    return block


def written(text: str, size: tuple[int, int]) -> Image.Image:
    """Return a pale image of that size with a text in it, ended by "…" where it does not fit."""
    lines, room = (
        wrap(text, "caption", max(size[0] - 2 * GAP, 1)),
        max((size[1] - 2 * GAP) // line_height("caption"), 1),
    )
    if len(lines) > room:
        lines = [*lines[: room - 1], lines[room - 1].rsplit(" ", 1)[0] + " …"]
    paper = Box(0, 0, *size, "#f0f0f3", filled=True)
    return painting.paint(Page(*size, [paper, *stacked(lines, "caption", GAP, GAP, FAINT)]))


def legend(entries: Sequence[tuple[tuple[int, int, int], str]], size: tuple[int, int]) -> Image.Image:
    """Return a white image of that size that says what colours stand for, as many of them as fit."""
    items, y = list[Words | Block | Box](), 0
    for colour, text in entries:
        lines = wrap(text, "caption", max(size[0] - 3 * GAP - _BAR, 1))
        items.append(Box(0, y + 3, _BAR + 3, _BAR + 3, "#{:02x}{:02x}{:02x}".format(*colour), filled=True))
        items += stacked(lines, "caption", _BAR + 2 + GAP, y)
        y += len(lines) * line_height("caption") + 2
    return painting.paint(Page(*size, items))


class _Layout:
    """Where everything on a sheet goes, in pixels, and how its texts break."""

    def __init__(self, sheet: Sheet, width: int) -> None:
        self.sheet = sheet
        count = max(len(row) for row in sheet.rows)
        self.cells = [max((_cell(row[i]) for row in sheet.rows if i < len(row)), default=0) for i in range(count)]
        # A head breaks anywhere, but needs room for one letter.
        self.cells = [
            max(cell, 16 if i < len(sheet.columns) and sheet.columns[i] else 0) for i, cell in enumerate(self.cells)
        ]
        self.label = max((int(length(text, "caption")) + 2 * GAP for text in sheet.labels), default=0)
        self.width = max(self.label + sum(self.cells) + GAP * (count - 1), width)
        self.heads = [wrap(text, "caption", cell) for text, cell in zip(sheet.columns, self.cells, strict=False)]
        self.captions = [
            [wrap(tile.caption, "caption", cell) if tile else [] for tile, cell in zip(row, self.cells, strict=False)]
            for row in sheet.rows
        ]
        self.items: list[Words | Block | Box] = []

    def page(self) -> Page:
        """Set the whole sheet."""
        sheet = self.sheet
        y = self._set(wrap(sheet.title, "title", self.width, bold=True), "title", MARGIN, INK, bold=True)
        y = self._set(wrap(sheet.subtitle, "subtitle", self.width), "subtitle", y + 2, FAINT) + GAP
        y = self._set_rows(self._set_heads(y))
        if sheet.scale:
            across = min(240, self.width)
            self._set_scale(sheet.scale, MARGIN + self.label, y, across, across)
            y += _scale_height(sheet.scale, across) + GAP // 2
        if note := wrap(sheet.note, "note", self.width):
            y = self._set(note, "note", y + 4, FAINT)
        return Page(self.width + 2 * MARGIN, y + MARGIN - GAP // 2, self.items)

    def _set(self, lines: Sequence[str], kind: str, y: int, colour: str, *, bold: bool = False) -> int:
        """Set lines at the left margin and return where the next one begins."""
        self.items += stacked(lines, kind, MARGIN, y, colour, bold=bold)
        return y + len(lines) * line_height(kind)

    @property
    def _lefts(self) -> list[int]:
        """Where the columns begin."""
        left = MARGIN + self.label
        return [left + sum(self.cells[:i]) + GAP * i for i in range(len(self.cells))]

    def _set_heads(self, y: int) -> int:
        if not self.heads:
            return y
        for lines, x in zip(self.heads, self._lefts, strict=False):
            self.items += stacked(lines, "caption", x, y)
        return y + max(map(len, self.heads)) * line_height("caption") + 2

    def _set_rows(self, y: int) -> int:
        for index, row in enumerate(self.sheet.rows):
            image, below = self._row_height(index)
            if self.sheet.labels:
                self.items.append(Words(MARGIN, y + image // 2, self.sheet.labels[index], "caption", anchor="lm"))
            for tile, lines, x, cell in zip(row, self.captions[index], self._lefts, self.cells, strict=False):
                if tile:
                    self._set_tile(tile, lines, x, y, y + image + 4, cell)
            y += image + below + GAP
        return y

    def _set_tile(self, tile: Tile, lines: Sequence[str], x: int, y: int, under: int, cell: int) -> None:
        self.items.append(Block(x, y, tile.image))
        if tile.scale:
            self._set_scale(tile.scale, x, under, tile.image.width, cell)
            under += _scale_height(tile.scale, cell)
        self.items += stacked(lines, "caption", x, under)

    def _row_height(self, index: int) -> tuple[int, int]:
        """Return the height of a row's images, and of what is written under them."""
        row = self.sheet.rows[index]
        image = max((tile.image.height for tile in row if tile), default=0)
        if self.sheet.labels and self.sheet.labels[index]:
            image = max(image, line_height("caption"))
        below = [
            len(lines) * line_height("caption") + (_scale_height(tile.scale, cell) if tile and tile.scale else 0)
            for tile, lines, cell in zip(row, self.captions[index], self.cells, strict=False)
        ]
        return image, max(below, default=0) + (4 if any(below) else 0)

    def _set_scale(self, scale: Scale, x: int, y: int, width: int, cell: int) -> None:
        """Set a bar of `width` pixels; texts that are wider may take the whole `cell`."""
        self.items += [Block(x, y, scale.strip(width).crop((0, 0, width, _BAR))), Box(x, y, width, _BAR)]
        across = width if len(_ends(scale, width)) == 1 else max(width, cell)
        for line, ends in enumerate(_ends(scale, across)):
            top = y + _BAR + 2 + line * line_height("caption")
            for text, at, anchor in zip(ends, (x, x + across / 2, x + across), ("la", "ma", "ra"), strict=True):
                if text:
                    self.items.append(Words(at, top, text, "caption", FAINT, anchor))


def _cell(tile: Tile | None) -> int:
    """The width that a tile needs: its image's, or that of the wider end of its scale."""
    if tile is None:
        return 0
    ends = tile.scale.labels if tile.scale else ()
    return max(tile.image.width, *(math.ceil(length(end, "caption")) for end in ends), 0)


def _ends(scale: Scale, width: int) -> list[tuple[str, str, str]]:
    """Break the texts of a scale into lines of (left, middle, right)."""
    low, high = scale.labels
    first, last = length(low, "caption"), length(high, "caption")
    if first + last + 2 * GAP > width:
        return [(low, "", ""), ("", "", high)]
    room = width - 2 * max(first, last)
    return [(low, scale.middle if room > length(scale.middle, "caption") + 2 * GAP else "", high)]


def _scale_height(scale: Scale, width: int) -> int:
    return _BAR + len(_ends(scale, width)) * line_height("caption") + GAP // 2


def arranged(sheet: Sheet, *, width: int = 360) -> Page:
    """Set a sheet as a page, its content at least `width` pixels wide; nothing overlaps and nothing is cut."""
    return _Layout(_told(sheet), width).page()


def _told(sheet: Sheet) -> Sheet:
    """Say in the note where words are written in Latin letters because no font has theirs."""
    words = (sheet.title, sheet.subtitle, sheet.note, *sheet.columns, *sheet.labels, *(t.caption for t in sheet.tiles))
    scripts = fonts.missing("".join(words))
    if not scripts:
        return sheet
    said = f"No font here has {' and '.join(scripts)}: written in Latin letters; {fonts.ADVICE}."
    return replace(sheet, note="\n".join(filter(None, (sheet.note, said))))


def paint(sheet: Sheet, *, width: int = 360) -> Image.Image:
    """Paint a sheet as an RGB image, its content at least `width` pixels wide; nothing overlaps and nothing is cut."""
    return painting.paint(arranged(sheet, width=width))


def data_uri(image: Image.Image) -> str:
    """Return an image as a PNG inside a URL."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def to_html(sheet: Sheet) -> str:
    """Write a sheet as an HTML fragment; its classes are styled by the page that holds it."""
    cells = []
    if sheet.columns:
        head = "".join(f"<th scope='col'>{html.escape(text)}</th>" for text in sheet.columns)
        cells.append(f"<tr>{'<td></td>' if sheet.labels else ''}{head}</tr>")
    for index, row in enumerate(sheet.rows):
        label = f"<th scope='row'>{html.escape(sheet.labels[index])}</th>" if sheet.labels else ""
        cells.append(f"<tr>{label}{''.join(f'<td>{_tile_html(tile)}</td>' for tile in row)}</tr>")
    scale = f"<div class='shared'>{_scale_html(sheet.scale)}</div>" if sheet.scale else ""
    note = f"<p class='note'>{html.escape(sheet.note)}</p>" if sheet.note else ""
    return (
        f"<h3>{html.escape(sheet.title)}</h3><p class='subtitle'>{html.escape(sheet.subtitle)}</p>"
        f"<div class='scroll'><table class='sheet'>{''.join(cells)}</table></div>{scale}{note}"
    )


def _scale_html(scale: Scale) -> str:
    low, middle, high = (html.escape(text) for text in (scale.labels[0], scale.middle, scale.labels[1]))
    return (
        f"<div class='bar' style='background-image:url({data_uri(scale.strip(256, 1))})'></div>"
        f"<div class='ends'><span>{low}</span><span>{middle}</span><span>{high}</span></div>"
    )


def _tile_html(tile: Tile | None) -> str:
    if tile is None:
        return ""
    width = tile.image.width
    bar = _scale_html(tile.scale) if tile.scale else ""
    lines = "<br>".join(html.escape(line) for line in tile.caption.split("\n"))
    caption = f"<figcaption>{lines}</figcaption>" if tile.caption else ""
    alt = html.escape(tile.caption or "tile", quote=True)
    image = f"<img width='{width}' alt=\"{alt}\" src='{data_uri(tile.image)}'>"
    return f"<figure style='width:{width}px'>{image}{bar}{caption}</figure>"
