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
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from . import colours

GAP = 8
MARGIN = 20
_BAR = 10
_INK, _FAINT, _PAPER = "#1b1b1f", "#62626b", "#ffffff"
_SIZES = {"title": 19, "subtitle": 13, "caption": 12, "note": 12}


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


@cache
def font(kind: str, bold: bool = False) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font of a kind of text: "title", "subtitle", "caption" or "note"."""
    # DejaVu comes with matplotlib, a dependency; its file is found without importing matplotlib.
    spec = find_spec("matplotlib")
    folder = Path(str(spec.origin)).parent / "mpl-data" / "fonts" / "ttf" if spec else Path()
    path = folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), _SIZES[kind]) if path.exists() else ImageFont.load_default(_SIZES[kind])


def _wrap(text: str, kind: str, width: int, *, bold: bool = False) -> list[str]:
    """Break text into lines no wider than `width` pixels, inside words where they are wider than that."""
    face, lines = font(kind, bold), list[str]()
    for paragraph in text.split("\n") if text else []:
        line = ""
        for word in paragraph.split():
            for piece in _pieces(word, face, width):
                longer = f"{line} {piece}".strip()
                if line and face.getlength(longer) > width:
                    lines.append(line)
                    line = piece
                else:
                    line = longer
        lines.append(line)
    return lines


def _pieces(word: str, font: Any, width: int) -> list[str]:
    """Cut a word that is wider than a line."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Return images of one size in a block, 8 pixels apart, nothing written on it; one alone stays as it is."""
    if len(images) == 1:
        return images[0]
    width, height = images[0].size
    across = math.ceil(math.sqrt(len(images) * height / width))
    down = math.ceil(len(images) / across)
    block = Image.new("RGB", (across * (width + GAP) - GAP, down * (height + GAP) - GAP), _PAPER)
    for i, image in enumerate(images):
        block.paste(image.convert("RGB"), ((i % across) * (width + GAP), (i // across) * (height + GAP)))
    return block


def written(text: str, size: tuple[int, int]) -> Image.Image:
    """Return a pale image of that size with a text in it, ended by "…" where it does not fit."""
    image = Image.new("RGB", size, "#f0f0f3")
    lines, room = _wrap(text, "caption", max(size[0] - 2 * GAP, 1)), max((size[1] - 2 * GAP) // _line("caption"), 1)
    if len(lines) > room:
        lines = [*lines[: room - 1], lines[room - 1].rsplit(" ", 1)[0] + " …"]
    _write(ImageDraw.Draw(image), lines, "caption", GAP, GAP, _FAINT)
    return image


def legend(entries: Sequence[tuple[tuple[int, int, int], str]], size: tuple[int, int]) -> Image.Image:
    """Return a white image of that size that says what colours stand for, as many of them as fit."""
    image = Image.new("RGB", size, _PAPER)
    draw, y = ImageDraw.Draw(image), 0
    for colour, text in entries:
        lines = _wrap(text, "caption", max(size[0] - 3 * GAP - _BAR, 1))
        draw.rectangle((0, y + 3, _BAR + 2, y + _BAR + 5), fill=colour)
        y = _write(draw, lines, "caption", _BAR + 2 + GAP, y, _INK) + 2
    return image


def _line(kind: str) -> int:
    return round(_SIZES[kind] * 1.4)


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
        face = font("caption")
        self.label = max((int(face.getlength(text)) + 2 * GAP for text in sheet.labels), default=0)
        self.width = max(self.label + sum(self.cells) + GAP * (count - 1), width)
        self.title = _wrap(sheet.title, "title", self.width, bold=True)
        self.subtitle = _wrap(sheet.subtitle, "subtitle", self.width)
        self.note = _wrap(sheet.note, "note", self.width)
        self.heads = [_wrap(text, "caption", cell) for text, cell in zip(sheet.columns, self.cells, strict=False)]
        self.captions = [
            [_wrap(tile.caption, "caption", cell) if tile else [] for tile, cell in zip(row, self.cells, strict=False)]
            for row in sheet.rows
        ]

    @property
    def height(self) -> int:
        """At least the height of everything; what is left over is cut off after painting."""
        heads = max((len(lines) for lines in self.heads), default=0)
        texts = (("title", self.title), ("subtitle", self.subtitle), ("note", self.note))
        written = sum(_line(kind) * len(lines) for kind, lines in texts) + _line("caption") * heads
        rows = sum(sum(self.row_height(i)) + GAP for i in range(len(self.sheet.rows)))
        return 4 * MARGIN + written + rows + _BAR + 3 * _line("caption")

    def row_height(self, index: int) -> tuple[int, int]:
        """Return the height of a row's images, and of what is written under them."""
        row = self.sheet.rows[index]
        image = max((tile.image.height for tile in row if tile), default=0)
        below = [
            len(lines) * _line("caption") + (_scale_height(tile.scale, cell) if tile and tile.scale else 0)
            for tile, lines, cell in zip(row, self.captions[index], self.cells, strict=False)
        ]
        return image, max(below, default=0) + (4 if any(below) else 0)


def _cell(tile: Tile | None) -> int:
    """The width that a tile needs: its image's, or that of the wider end of its scale."""
    if tile is None:
        return 0
    ends = tile.scale.labels if tile.scale else ()
    return max(tile.image.width, *(math.ceil(font("caption").getlength(end)) for end in ends), 0)


def _ends(scale: Scale, width: int) -> list[tuple[str, str, str]]:
    """Break the texts of a scale into lines of (left, middle, right)."""
    face, (low, high) = font("caption"), scale.labels
    if face.getlength(low) + face.getlength(high) + 2 * GAP > width:
        return [(low, "", ""), ("", "", high)]
    room = width - 2 * max(face.getlength(low), face.getlength(high))
    return [(low, scale.middle if room > face.getlength(scale.middle) + 2 * GAP else "", high)]


def _scale_height(scale: Scale, width: int) -> int:
    return _BAR + len(_ends(scale, width)) * _line("caption") + GAP // 2


def paint(sheet: Sheet, *, width: int = 360) -> Image.Image:
    """Paint a sheet as an RGB image, at least `width` pixels wide; nothing overlaps and nothing is cut."""
    layout = _Layout(sheet, width)
    canvas = Image.new("RGB", (layout.width + 2 * MARGIN, layout.height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    y = _write(draw, layout.title, "title", MARGIN, MARGIN, _INK, bold=True)
    y = _write(draw, layout.subtitle, "subtitle", MARGIN, y + 2, _FAINT) + GAP
    y = _paint_rows(canvas, draw, layout, y)
    if sheet.scale:
        across = min(240, layout.width)
        _paint_scale(canvas, draw, sheet.scale, MARGIN + layout.label, y, across, across)
        y += _scale_height(sheet.scale, across) + GAP // 2
    y = _write(draw, layout.note, "note", MARGIN, y + 4, _FAINT) if layout.note else y
    return canvas.crop((0, 0, canvas.width, y + MARGIN - GAP // 2))


def _write(
    draw: ImageDraw.ImageDraw, lines: Sequence[str], kind: str, x: int, y: int, colour: str, *, bold: bool = False
) -> int:
    for line in lines:
        draw.text((x, y), line, font=font(kind, bold), fill=colour)
        y += _line(kind)
    return y


def _paint_rows(canvas: Image.Image, draw: ImageDraw.ImageDraw, layout: _Layout, y: int) -> int:
    left = MARGIN + layout.label
    starts = [left + sum(layout.cells[:i]) + GAP * i for i in range(len(layout.cells))]
    if layout.heads:
        y = max(_write(draw, lines, "caption", x, y, _INK) for lines, x in zip(layout.heads, starts, strict=False)) + 2
    for index, row in enumerate(layout.sheet.rows):
        image, below = layout.row_height(index)
        if layout.sheet.labels:
            at = (MARGIN, y + image // 2)
            draw.text(at, layout.sheet.labels[index], font=font("caption"), fill=_INK, anchor="lm")
        for tile, lines, x, cell in zip(row, layout.captions[index], starts, layout.cells, strict=False):
            if tile:
                canvas.paste(tile.image.convert("RGB"), (x, y))
                under = y + image + 4
                if tile.scale:
                    _paint_scale(canvas, draw, tile.scale, x, under, tile.image.width, cell)
                    under += _scale_height(tile.scale, cell)
                _write(draw, lines, "caption", x, under, _INK)
        y += image + below + GAP
    return y


def _paint_scale(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, scale: Scale, x: int, y: int, width: int, cell: int
) -> None:
    """Paint a bar of `width` pixels; texts that are wider may take the whole `cell`."""
    canvas.paste(scale.strip(width).crop((0, 0, width, _BAR)), (x, y))
    draw.rectangle((x, y, x + width - 1, y + _BAR - 1), outline="#b8b8c0")
    face = font("caption")
    across = width if len(_ends(scale, width)) == 1 else max(width, cell)
    for number, (low, middle, high) in enumerate(_ends(scale, across)):
        top = y + _BAR + 2 + number * _line("caption")
        draw.text((x, top), low, font=face, fill=_FAINT)
        draw.text((x + across / 2, top), middle, font=face, fill=_FAINT, anchor="ma")
        draw.text((x + across, top), high, font=face, fill=_FAINT, anchor="ra")


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
