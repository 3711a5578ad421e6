"""Sheets: tiles in rows under a title, set as a page.

Every drawing lays itself out as a Sheet, so that pictures, pages and matplotlib figures show the same things in the
same places: the picture first, then the maps, all tiles of one size, never stretched.
"""

from __future__ import annotations

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

_LABELS = 0.27
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
class Group:
    """Columns beside each other under one head, which is empty over a column of its own."""

    head: str
    heads: list[str]
    columns: range


@dataclass(frozen=True)
class Sheet:
    """Rows of tiles under a title.

    `columns` are heads over the columns: the first of two lines, where neighbours have it in common, stands once over
    all of them. `labels` stand before the rows, `scale` is that of all tiles together, and `feet` are scales that the
    tiles of a column, or of neighbours under one head, have in common.
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

    @property
    def groups(self) -> list[Group]:
        """The columns in groups, those beside each other under one head together."""
        found = list[Group]()
        for column in range(max(map(len, self.rows))):
            head, _, below = "".join(self.columns[column : column + 1]).rpartition("\n")
            if head and found and found[-1].head == head:
                found[-1] = replace(found[-1], columns=range(found[-1].columns.start, column + 1))
                found[-1].heads.append(below)
            else:
                found.append(Group(head, [below], range(column, column + 1)))
        return found


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

    def __init__(self, sheets: Sequence[Sheet], width: int, paper: Paper, *, blank: bool = False) -> None:
        self.sheets, self.paper, self.blank = sheets, paper, blank
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
            rounded = 1 if self.label else 0  # as labels are
            wide = (fits * sum(images) + gaps + rounded) / share + 2 * self.margin
            count = len(images)
            width = self.paper.length(wide)
            wanted = f"it takes {width} or more" if self.blank else f"{width} would do"
            fewer = f", or fewer columns than {count}" if count > 1 else ""
            raise OptionError(
                f"a figure {self.paper.width:.2f}in wide is too narrow for {count} "
                f"tile{'s' * (count != 1)} in a row in this size of letters: {wanted}{fewer}"
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
        """Set heads over groups of columns, and below them those of the columns."""
        if not sheet.columns:
            return y
        over = [(group.columns, group.head) for group in sheet.groups if group.head]
        below = [(range(i, i + 1), text.rpartition("\n")[2]) for i, text in enumerate(sheet.columns)]
        for heads in (over, below):
            lines = [wrap(text, "caption", self._room(columns)) for columns, text in heads]
            for (columns, _), each in zip(heads, lines, strict=True):
                self.items += stacked(each, "caption", self._lefts[columns.start], y)
            y += max(map(len, lines), default=0) * line_height("caption")
        return y + 2

    def _room(self, columns: range) -> float:
        """Return the width of columns beside each other."""
        return sum(self.cells[i] for i in columns) + GAP * (len(columns) - 1)

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
        below = [(group.columns, sheet.feet[group.columns.start]) for group in sheet.groups]
        feet = [(scale, self._lefts[columns.start], self._room(columns)) for columns, scale in below if scale]
        for scale, x, room in feet:
            self._set_scale(scale, x, y, room, room)
        return y + max(_scale_height(scale, room) for scale, _, room in feet)

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
    if first + last + GAP > width:
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


def check_room(paper: Paper, tiles: int) -> None:
    """Refuse a paper on which so many tiles of one size have no room in a row. Raises OptionError.

    What is said under them may need more.
    """
    if paper.pixels is not None:
        blank = Tile(Image.new("RGB", (_NARROWEST, _NARROWEST)))
        _Layout([Sheet("", ((blank,) * min(tiles, paper.columns or tiles),))], 0, paper, blank=True)


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
