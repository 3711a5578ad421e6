"""Sheets: tiles in rows under a title, painted as a picture or as HTML.

Every drawing lays itself out as a Sheet, so that pictures, pages and matplotlib figures show the same things in the
same places: the picture first, then the maps, all tiles of one size, never stretched.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..errors import OptionError
from . import colours, fonts, painting
from .paper import SCREEN, Paper
from .typesetting import (
    FAINT,
    INK,
    PAPER,
    Block,
    Box,
    Inset,
    Item,
    Page,
    Words,
    length,
    line_height,
    moved,
    stacked,
    wrap,
)

GAP = 8
MARGIN = 20
_BAR = 10
_EDGE = 1
"""The margin on a paper, whose column is the figure's."""

_NARROWEST = 30
"""Pixels that a tile on a paper has at least, about 4 mm."""

_LABELS = 0.25
"""The share of a paper's width that labels before the rows take at most."""


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

    image: Image.Image | Inset
    caption: str = ""
    scale: Scale | None = None
    repaint: Callable[[Scale], Image.Image] | None = None
    """Paints the image again on another scale, where that can be done."""


@dataclass(frozen=True)
class Sheet:
    """Rows of tiles under a title.

    `columns` are heads over the columns, `labels` stand before the rows, `scale` is that of all tiles together, and
    `feet` are scales that the tiles of a column have in common.
    """

    title: str
    rows: tuple[tuple[Tile | None, ...], ...]
    subtitle: str = ""
    note: str = ""
    columns: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    scale: Scale | None = None
    feet: tuple[Scale | None, ...] = ()

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


def written(text: str, size: tuple[int, int]) -> Inset:
    """Return a pale tile of that size with a text in it, ended by "…" where it does not fit."""

    def draw(room: tuple[float, float]) -> list[Item]:
        lines = wrap(text, "caption", max(room[0] - 2 * GAP, 1))
        most = max(int((room[1] - 2 * GAP) // line_height("caption")), 1)
        if len(lines) > most:
            lines = [*lines[: most - 1], lines[most - 1].rsplit(" ", 1)[0] + " …"]
        return [Box(0, 0, *room, "#f0f0f3", filled=True), *stacked(lines, "caption", GAP, GAP, FAINT)]

    return Inset(size, draw)


def legend(entries: Sequence[tuple[tuple[int, int, int], str]], size: tuple[int, int]) -> Inset:
    """Return a white tile of that size that says what colours stand for, as many of them as fit."""

    def draw(room: tuple[float, float]) -> list[Item]:
        items, y = list[Item](), 0
        for colour, text in entries:
            lines = wrap(text, "caption", max(room[0] - 3 * GAP - _BAR, 1))
            height = len(lines) * line_height("caption")
            if y + height > room[1]:
                break
            items.append(Box(0, y + 3, _BAR + 3, _BAR + 3, "#{:02x}{:02x}{:02x}".format(*colour), filled=True))
            items += stacked(lines, "caption", _BAR + 2 + GAP, y)
            y += height + 2
        return items

    return Inset(size, draw)


class _Layout:
    """Where everything on sheets below each other goes, in pixels, and how their texts break.

    `width` is the least that their content takes; on a paper with a width it takes all of that, and tiles become
    smaller or larger with it.
    """

    def __init__(self, sheets: Sequence[Sheet], width: int, paper: Paper) -> None:
        self.sheets, self.paper = sheets, paper
        self.margin = MARGIN if paper.pixels is None else _EDGE
        rows = [row for sheet in sheets for row in sheet.rows]
        heads = [sheet.columns for sheet in sheets]
        count = max(len(row) for row in rows)
        columns = [[row[i] for row in rows if i < len(row)] for i in range(count)]
        headed = [any(i < len(texts) and texts[i] for texts in heads) for i in range(count)]
        # A head breaks anywhere, but needs room for one letter.
        feet = [[sheet.feet[i] for sheet in sheets if i < len(sheet.feet)] for i in range(count)]
        least = [
            max(_ends_of(tiles, below), 16 * head) for tiles, below, head in zip(columns, feet, headed, strict=True)
        ]
        images = [
            max((tile.image.width for tile in tiles if tile), default=room)
            for tiles, room in zip(columns, least, strict=True)
        ]
        natural = max(
            (int(length(text, "caption")) for sheet in sheets for label in sheet.labels for text in label.split("\n")),
            default=-2 * GAP,
        )
        self.label = natural + 2 * GAP
        self.scale = 1.0
        if paper.pixels is None:
            self.cells: list[float] = [max(pair) for pair in zip(images, least, strict=True)]
            self.width: float = max(self.label + sum(self.cells) + GAP * (count - 1), width)
        else:
            self.width = paper.pixels - 2 * self.margin
            self.label = min(self.label, round(self.width * _LABELS))
            self.scale = self._fitted(images, least)
            self.cells = [image * self.scale for image in images]
        self.items: list[Item] = []

    def _fitted(self, images: Sequence[int], least: Sequence[int]) -> float:
        """Return the scale at which images fill the width. Raises OptionError where their texts would have no room."""
        gaps, needed = GAP * (len(images) - 1), [max(room, _NARROWEST) for room in least]
        scale = (self.width - self.label - gaps) / max(sum(images), 1)
        if any(image * scale < room for image, room in zip(images, needed, strict=True) if image):
            fits = max(room / image for image, room in zip(images, needed, strict=True) if image)
            share = 1 - _LABELS if self.label else 1.0
            wide = (fits * sum(images) + gaps) / share + 2 * self.margin
            count = len(images)
            fewer = f", or fewer columns than {count}" if count > 1 else ""
            raise OptionError(
                f"a figure {self.paper.length(self.width + 2 * self.margin)} wide is too narrow for {count} "
                f"tile{'s' * (count != 1)} in a row in this size of letters: {self.paper.length(wide)} would do{fewer}"
            )
        return scale

    def page(self) -> Page:
        """Set all sheets."""
        y: float = self.margin
        for sheet in self.sheets:
            y = self._set_sheet(sheet, y)
        height = math.ceil(y) + self.margin - GAP // 2 * (self.paper.pixels is None)
        width = math.ceil(self.width) + 2 * self.margin
        return Page(width, height, self.items, self.paper.per_inch, 1 / self.scale)

    def _set_sheet(self, sheet: Sheet, y: float) -> float:
        if sheet.title or sheet.subtitle:
            y = self._set(wrap(sheet.title, "title", self.width, bold=True), "title", y, INK, bold=True)
            y = self._set(wrap(sheet.subtitle, "subtitle", self.width), "subtitle", y + 2, FAINT) + GAP
        y = self._set_heads(sheet, y)
        for index in range(len(sheet.rows)):
            y = self._set_row(sheet, index, y)
        if any(sheet.feet):
            y = self._set_feet(sheet, y)
        if sheet.scale:
            across = min(240, self.width - self.label)
            self._set_scale(sheet.scale, self.margin + self.label, y, across, across)
            y += _scale_height(sheet.scale, across) + GAP // 2
        if note := wrap(sheet.note, "note", self.width):
            y = self._set(note, "note", y + 4, FAINT)
        return y

    def _set(self, lines: Sequence[str], kind: str, y: float, colour: str, *, bold: bool = False) -> float:
        """Set lines at the left margin and return where the next one begins."""
        self.items += stacked(lines, kind, self.margin, y, colour, bold=bold)
        return y + len(lines) * line_height(kind)

    @property
    def _lefts(self) -> list[float]:
        """Where the columns begin."""
        left = self.margin + self.label
        return [left + sum(self.cells[:i]) + GAP * i for i in range(len(self.cells))]

    def _set_heads(self, sheet: Sheet, y: float) -> float:
        heads = [wrap(text, "caption", cell) for text, cell in zip(sheet.columns, self.cells, strict=False)]
        if not heads:
            return y
        for lines, x in zip(heads, self._lefts, strict=False):
            self.items += stacked(lines, "caption", x, y)
        return y + max(map(len, heads)) * line_height("caption") + 2

    def _set_row(self, sheet: Sheet, index: int, y: float) -> float:
        row, step = sheet.rows[index], line_height("caption")
        captions = [
            wrap(tile.caption, "caption", cell) if tile else [] for tile, cell in zip(row, self.cells, strict=False)
        ]
        label = sheet.labels[index] if sheet.labels else ""
        label_lines = wrap(label, "caption", self.label - GAP if self.paper.pixels else math.inf)
        image = max((tile.image.height * self.scale for tile in row if tile), default=0.0)
        image = max(image, len(label_lines) * step)
        middle = y + image // 2 - (len(label_lines) - 1) * step / 2
        self.items += stacked(label_lines, "caption", self.margin, middle, anchor="lm")
        for tile, lines, x, cell in zip(row, captions, self._lefts, self.cells, strict=False):
            if tile:
                self._set_tile(tile, lines, x, y, y + image + 4, cell)
        below = [
            len(lines) * step + (_scale_height(tile.scale, cell) if tile and tile.scale else 0)
            for tile, lines, cell in zip(row, captions, self.cells, strict=False)
        ]
        return y + image + max(below, default=0) + (4 if any(below) else 0) + GAP

    def _set_tile(self, tile: Tile, lines: Sequence[str], x: float, y: float, under: float, cell: float) -> None:
        width, height = (side * self.scale for side in tile.image.size)
        if isinstance(tile.image, Inset):
            self.items += [moved(item, x, y) for item in tile.image.draw((width, height))]
        else:
            self.items.append(Block(x, y, tile.image, None if self.scale == 1 else (width, height)))
        if tile.scale:
            self._set_scale(tile.scale, x, under, width, cell)
            under += _scale_height(tile.scale, cell)
        self.items += stacked(lines, "caption", x, under)

    def _set_feet(self, sheet: Sheet, y: float) -> float:
        """Set scales below the columns that they are of."""
        for scale, x, cell in zip(sheet.feet, self._lefts, self.cells, strict=False):
            if scale:
                self._set_scale(scale, x, y, cell, cell)
        ends = zip(sheet.feet, self.cells, strict=False)
        return y + max(_scale_height(scale, cell) for scale, cell in ends if scale)

    def _set_scale(self, scale: Scale, x: float, y: float, width: float, cell: float) -> None:
        """Set a bar of `width` pixels; texts that are wider may take the whole `cell`."""
        strip = scale.strip(round(width)).crop((0, 0, round(width), _BAR))
        self.items += [Block(x, y, strip, (width, _BAR)), Box(x, y, width, _BAR)]
        across = width if len(_ends(scale, width)) == 1 else max(width, cell)
        for line, ends in enumerate(_ends(scale, across)):
            top = y + _BAR + 2 + line * line_height("caption")
            for text, at, anchor in zip(ends, (x, x + across / 2, x + across), ("la", "ma", "ra"), strict=True):
                if text:
                    self.items.append(Words(at, top, text, "caption", FAINT, anchor))


def _ends_of(tiles: Sequence[Tile | None], feet: Sequence[Scale | None]) -> int:
    """Return the width that the ends of a column's scales need."""
    scales = [*(tile.scale for tile in tiles if tile and tile.scale), *filter(None, feet)]
    return max((math.ceil(length(end, "caption")) for scale in scales for end in scale.labels), default=0)


def _ends(scale: Scale, width: float) -> list[tuple[str, str, str]]:
    """Break the texts of a scale into lines of (left, middle, right)."""
    low, high = scale.labels
    first, last = length(low, "caption"), length(high, "caption")
    if first + last + 2 * GAP > width:
        return [(low, "", ""), ("", "", high)]
    room = width - 2 * max(first, last)
    return [(low, scale.middle if room > length(scale.middle, "caption") + 2 * GAP else "", high)]


def _scale_height(scale: Scale, width: float) -> int:
    return _BAR + len(_ends(scale, width)) * line_height("caption") + GAP // 2


def arranged(*sheets: Sheet, width: int = 360, paper: Paper = SCREEN) -> Page:
    """Set sheets below each other as a page, their content at least `width` pixels wide, or as wide as the paper.

    Nothing overlaps and nothing is cut. Raises OptionError for a paper that is too narrow.
    """
    return _Layout([_told(sheet) for sheet in sheets], width, paper).page()


def bare(image: Image.Image, paper: Paper) -> Page:
    """Set an image alone, with nothing around it, as wide as the paper where that has a width."""
    scale = 1.0 if paper.pixels is None else paper.pixels / image.width
    width, height = (max(1, round(side * scale)) for side in image.size)
    block = Block(0, 0, image, None if scale == 1 else (width, height))
    return Page(width, height, [block], paper.per_inch, 1 / scale)


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


def to_html(sheet: Sheet, source: Callable[[Image.Image], str] = data_uri) -> str:
    """Write a sheet as an HTML fragment; its classes are styled by the page that holds it.

    `source` returns the address of an image: by default the image itself, in the address.
    """
    cells = []
    if sheet.columns:
        head = "".join(f"<th scope='col'>{html.escape(text)}</th>" for text in sheet.columns)
        cells.append(f"<tr>{'<td></td>' if sheet.labels else ''}{head}</tr>")
    for index, row in enumerate(sheet.rows):
        label = f"<th scope='row'>{_lines_html(sheet.labels[index])}</th>" if sheet.labels else ""
        tiles = "".join(f"<td>{_tile_html(tile, source)}</td>" for tile in row)
        cells.append(f"<tr>{label}{tiles}</tr>")
    if any(sheet.feet):
        feet = "".join(f"<td>{_scale_html(foot) if foot else ''}</td>" for foot in sheet.feet)
        cells.append(f"<tr>{'<td></td>' if sheet.labels else ''}{feet}</tr>")
    # Tiles without heads and labels may go on in another line where the page is narrow.
    loose = "" if sheet.columns or sheet.labels or len(sheet.rows) > 1 else " loose"
    scale = f"<div class='shared'>{_scale_html(sheet.scale)}</div>" if sheet.scale else ""
    note = f"<p class='note'>{html.escape(sheet.note)}</p>" if sheet.note else ""
    return (
        f"<h3>{html.escape(sheet.title)}</h3><p class='subtitle'>{html.escape(sheet.subtitle)}</p>"
        f"<div class='scroll'><table class='sheet{loose}'>{''.join(cells)}</table></div>{scale}{note}"
    )


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
    image = f"<img {size} loading='lazy' alt=\"{alt}\" src='{source(painting.image_of(tile.image))}'>"
    return f"<figure style='width:{width}px'>{image}{bar}{caption}</figure>"
