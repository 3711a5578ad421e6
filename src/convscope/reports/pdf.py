"""Reports as PDF: pages of A4 or letter, with text that stays text and numbers at their feet.

Everything is typeset as drawings are, in pixels, and put onto sheets of paper from top to bottom; what is higher than
the rest of a sheet goes to the next one, and a figure that is higher than a whole one is parted between its rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from .. import outputs
from ..drawing import fonts, layout, painting
from ..drawing.layout import MARGIN, Sheet
from ..drawing.paper import Paper
from ..drawing.rearranging import rearranged
from ..drawing.tables import Table
from ..drawing.typesetting import (
    FAINT,
    INK,
    SIZES,
    Block,
    Box,
    Item,
    Page,
    Plot,
    Words,
    line_height,
    moved,
    stacked,
    wrap,
)
from ..errors import OptionError
from ..recipes import Recipe
from .chapters import Chapter, Contents, Kept, Said, Section

PAPERS = {"a4": (210 / 25.4, 297 / 25.4), "letter": (8.5, 11.0)}
"""Papers by name: width and height in inches."""

MOST = 400
"""Pictures of a PDF at most: it is made in memory."""

_EDGE = 0.7
"""The margin of the paper in inches."""

_FONT = 8.0
_PER_INCH = Paper(font=_FONT).per_inch
_POINT = 72 / _PER_INCH
_GAP, _BAR, _ACROSS = 10, 17, 3
_ACCENT, _TRACK = "#c3d0f0", "#ececef"
_FINE = 4
_PIXELWISE = 160 * 160
"""Pixels up to which enlarged ones stay sharp: in larger images they are wide enough for JPEG."""


@dataclass(frozen=True)
class _Jpeg:
    """An image as a file, whose upper left corner is at (x, y), in the room of `extent`."""

    x: float
    y: float
    extent: tuple[float, float]
    content: bytes


@dataclass(frozen=True)
class _Piece:
    """What stays together on a sheet of paper: items from (0, 0) on, and how high they are."""

    items: tuple[Item | _Jpeg, ...]
    height: float
    heads: bool = False
    title: str = ""


class Pdf:
    """A report as PDF. `add` and `finish` are called in order; `fragment` may run in any thread."""

    def __init__(self, path: Path, contents: Contents, paper: str) -> None:
        from reportlab.pdfgen.canvas import Canvas

        if contents.pictures > MOST:
            raise OptionError(
                f"a PDF holds {MOST} pictures, not {contents.pictures:,}: give fewer, or write pages: "
                f"-o {path.with_suffix('.html').name}"
            )
        self.path, self.contents = path, contents
        self.sheet = PAPERS[paper]
        self.width, self.room = ((side - 2 * _EDGE) * _PER_INCH for side in self.sheet)
        self.buffer = io.BytesIO()
        # Without the time of day: the same report has the same bytes.
        across, down = (side * 72 for side in self.sheet)
        self.canvas: Any = Canvas(self.buffer, pagesize=(across, down), invariant=1, pageCompression=1)
        self.canvas.setTitle(contents.title)
        self.y, self.number, self.recipes = 0.0, 1, list[Recipe]()
        _register()
        for piece in (self._words(contents.title, "title", bold=True), *self._paragraphs(contents.lead)):
            self._place(piece)

    def fragment(self, chapter: Chapter | Kept) -> list[_Piece]:
        """Typeset a chapter."""
        assert isinstance(chapter, Chapter)
        pieces = [
            replace(self._words(chapter.title, "title", bold=True, above=2 * _GAP), heads=True, title=chapter.title)
        ]
        pieces += [self._words(chapter.source, "note", FAINT)] if chapter.source else []
        pieces += self._paragraphs(chapter.failed or chapter.text)
        pieces += [self._words(chapter.caveat, "note", FAINT)] if chapter.caveat else []
        # A heading and what is said under it stay with the first figure.
        more = bool(chapter.said or chapter.figures)
        pieces = [replace(piece, heads=more or not number) for number, piece in enumerate(pieces)]
        across = 1 if chapter.key else _ACROSS
        for first in range(0, len(chapter.said), across):
            pieces.append(self._said(chapter.said[first : first + across], photographs=not chapter.key))
        # Tiles of a screen's size are small enough for print at three quarters; a picture alone may have more room.
        pieces += self._framed(chapter, 1.5 if chapter.key else 0.75)
        for section in chapter.sections:
            pieces.append(replace(self._words(section.title, "subtitle", bold=True, above=2 * _GAP), heads=True))
            pieces += self._paragraphs(section.text)
            pieces += self._framed(section, 0.75)
        return pieces

    def _framed(self, part: Chapter | Section, enlarged: float) -> list[_Piece]:
        """Set the tables and figures of a part."""
        self.recipes += [each for figure in part.figures for each in figure.recipes]
        tables = [piece for table in part.tables for piece in self._table(table)]
        return tables + [piece for figure in part.figures for piece in self._figure(figure.sheet(), enlarged)]

    def _table(self, table: Table) -> list[_Piece]:
        """Set a table over the width of the paper; part it where it is too high."""
        try:
            page, scale, margin = table.page(Paper(width=self.width / _PER_INCH, font=_FONT)), 1.0, 0.0
        except OptionError:  # so many columns that they have no room at this size
            page, margin = table.page(Paper()), MARGIN
            scale = min(1.0, self.width / (page.width - 2 * MARGIN))
        if page.height * scale > self.room and len(table.rows) > 1:
            half = (len(table.rows) + 1) // 2
            first, second = replace(table, rows=table.rows[:half], note=""), replace(table, rows=table.rows[half:])
            return [*self._table(first), *self._table(replace(second, title="", subtitle=""))]
        items = tuple(_encoded(moved(item, -margin * scale, _GAP - margin * scale, scale)) for item in page.items)
        return [_Piece(items, (page.height - 2 * margin) * scale + 2 * _GAP)]

    def add(self, part: list[_Piece]) -> None:
        """Put a chapter on paper; its heading stays with what follows."""
        for number, piece in enumerate(part):
            after = 0.0
            for following in part[number:]:
                after += following.height
                if not following.heads:
                    break
            if piece.heads and self.y + after > self.room:
                self._turn()
            if piece.title:
                self._mark(piece.title)
            self._place(piece)

    def finish(self, remark: str = "") -> Path:
        """Write the file, with what was made how on its last page."""
        made = _made(self.recipes)
        self.add(
            [
                replace(
                    self._words("How it was made", "title", bold=True, above=2 * _GAP),
                    heads=True,
                    title="How it was made",
                ),
                *self._paragraphs("\n\n".join(filter(None, (remark, *made)))),
            ]
        )
        self._feet()
        self.canvas.showPage()
        self.canvas.beginForm("pages")
        self._string(str(self.number), "note", FAINT, 0, 0)
        self.canvas.endForm()
        self.canvas.save()
        return outputs.write_bytes(self.path, self.buffer.getbuffer())

    def holds(self, key: str) -> bool:
        """Say that no chapter is kept: a PDF is written whole."""
        return False

    # Typesetting ----------------------------------------------------------------------------------------------------

    def _words(self, text: str, kind: str, colour: str = INK, *, bold: bool = False, above: float = 0) -> _Piece:
        lines = wrap(text, kind, self.width, bold=bold)
        items = tuple(stacked(lines, kind, 0, above, colour, bold=bold))
        return _Piece(items, above + len(lines) * line_height(kind) + 4)

    def _paragraphs(self, text: str) -> list[_Piece]:
        return [self._words(part.replace("`", ""), "subtitle") for part in text.split("\n\n") if part]

    def _said(self, said: Sequence[Said], *, photographs: bool) -> _Piece:
        """Set predictions as bars side by side, below a photograph where that is not in the figure."""
        column = (self.width - _GAP * (_ACROSS - 1)) / _ACROSS if photographs else self.width / 2
        items, height = list[Item](), 0.0
        for number, each in enumerate(said):
            x, y = number * (column + _GAP), 0.0
            if photographs and each.image is not None:
                image = each.image()
                scale = min(column / image.width, 110 / image.height)
                items.append(Block(x, y, image, (image.width * scale, image.height * scale)))
                y += image.height * scale + 4
                items += stacked(wrap(each.name, "caption", column)[:1], "caption", x, y)
                y += line_height("caption") + 2
            for row in each.rows:
                items += [Box(x, y, column, _BAR - 3, _TRACK, filled=True)]
                items += (
                    [Box(x, y, column * min(1.0, row.share), _BAR - 3, _ACCENT, filled=True)] if row.share > 0 else []
                )
                room = column - 60
                items += [
                    Words(x + 4, y + 7, wrap(row.name, "caption", room)[0], "caption", anchor="lm"),
                    Words(x + column - 4, y + 7, row.text, "caption", anchor="rm"),
                ]
                y += _BAR
            if each.note:
                items += stacked(wrap(each.note, "caption", column)[:1], "caption", x, y, FAINT)
                y += line_height("caption")
            height = max(height, y)
        return _Piece(tuple(map(_encoded, items)), height + _GAP, heads=not photographs)

    def _figure(self, sheet: Sheet, enlarged: float) -> list[_Piece]:
        """Set a sheet as wide as its images ask for and the paper has room; part it where it is too high."""
        page, scale, margin = self._arranged(sheet, enlarged)
        if page.height * scale > self.room and len(sheet.rows) > 1:
            half = (len(sheet.rows) + 1) // 2
            first = replace(sheet, rows=sheet.rows[:half], labels=sheet.labels[:half], note="", scale=None)
            second = replace(sheet, rows=sheet.rows[half:], labels=sheet.labels[half:], title="", subtitle="")
            return [*self._figure(first, enlarged), *self._figure(second, enlarged)]
        scale = min(scale, self.room / page.height)
        items = tuple(_encoded(moved(item, -margin * scale, _GAP - margin * scale, scale)) for item in page.items)
        return [_Piece(items, (page.height - 2 * margin) * scale + _GAP)]

    def _arranged(self, sheet: Sheet, enlarged: float) -> tuple[Page, float, float]:
        """Return a sheet as a page, the scale at which the paper has room for it, and its margin."""
        natural = layout.arranged(sheet)
        width = min(self.width, max((natural.width - 2 * MARGIN) * enlarged, 0.6 * self.width))
        paper = Paper(width=width / _PER_INCH, font=_FONT)
        try:
            return layout.arranged(*rearranged(sheet, paper), paper=paper), 1.0, 0.0
        except OptionError:  # so many columns that their texts have no room at this size
            return natural, min(1.0, self.width / (natural.width - 2 * MARGIN)), MARGIN

    # Paper ----------------------------------------------------------------------------------------------------------

    def _place(self, piece: _Piece) -> None:
        if self.y and self.y + piece.height > self.room:
            self._turn()
        for item in piece.items:
            self._draw(item, self.y)
        self.y += piece.height

    def _turn(self) -> None:
        self._feet()
        self.canvas.showPage()
        self.y, self.number = 0.0, self.number + 1

    def _mark(self, title: str) -> None:
        """Name a place in the outline that readers show beside the pages."""
        name = f"{self.number}-{self.y:.0f}-{title}"
        self.canvas.bookmarkPage(name)
        self.canvas.addOutlineEntry(title, name)

    def _feet(self) -> None:
        y = self.room + 0.12 * _PER_INCH
        title = wrap(self.contents.title, "note", self.width - 100)[0]
        self._write(Words(0, y, title, "note", FAINT), *self._at(0, 0))
        words = Words(self.width - 26, y, f"{self.number} /", "note", FAINT, "ra")
        self._write(words, *self._at(0, 0))
        self.canvas.saveState()
        x, top = self._at(self.width - 22, painting.baseline(words))
        self.canvas.translate(x, top)
        self.canvas.doForm("pages")
        self.canvas.restoreState()

    def _at(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the page as reportlab has it: in points, from the paper's lower left corner."""
        return _EDGE * 72 + x * _POINT, (self.sheet[1] - _EDGE) * 72 - y * _POINT

    def _draw(self, item: Item | _Jpeg, top: float) -> None:
        x, y = self._at(0, top)
        if isinstance(item, Words):
            self._write(item, x, y)
        elif isinstance(item, (Block, _Jpeg)):
            width, height = (side * _POINT for side in item.extent)
            content = io.BytesIO(item.content) if isinstance(item, _Jpeg) else item.image
            place = (x + item.x * _POINT, y - item.y * _POINT - height, width, height)
            self.canvas.drawImage(_reader(content), *place, mask="auto")
        elif isinstance(item, Box):
            self.canvas.setFillColor(item.colour)
            self.canvas.setStrokeColor(item.colour)
            self.canvas.setLineWidth(0.5)
            height = item.height * _POINT
            place = (x + item.x * _POINT, y - item.y * _POINT - height, item.width * _POINT, height)
            self.canvas.rect(*place, stroke=int(not item.filled), fill=int(item.filled))
        else:
            self._stroke(item, x, y)

    def _stroke(self, plot: Plot, x: float, y: float) -> None:
        self.canvas.setLineWidth(1)
        for line in plot.lines:
            self.canvas.setStrokeColor(line.colour)
            for points in plot.strokes(line):
                path = self.canvas.beginPath()
                path.moveTo(x + points[0][0] * _POINT, y - points[0][1] * _POINT)
                for right, down in points[1:]:
                    path.lineTo(x + right * _POINT, y - down * _POINT)
                self.canvas.drawPath(path)

    def _write(self, words: Words, x: float, y: float) -> None:
        text, base = fonts.legible(words.text), painting.baseline(words)
        left = x + painting.left(words) * _POINT
        if not fonts.plain(text):  # reportlab shapes no scripts: such a line is an image
            image, up = painting.written(words, _FINE)
            width, height = (side / _FINE * _POINT for side in image.size)
            self.canvas.drawImage(_reader(image), left, y - (base - up) * _POINT - height, width, height, mask="auto")
            return
        self._string(text, words.kind, words.colour, left, y - base * _POINT, words.scale, bold=words.bold)

    def _string(
        self, text: str, kind: str, colour: str, x: float, y: float, scale: float = 1.0, *, bold: bool = False
    ) -> None:
        self.canvas.setFillColor(colour)
        self.canvas.setFont("DejaVu-Bold" if bold else "DejaVu", SIZES[kind] * scale * _POINT)
        self.canvas.drawString(x, y, text)


@cache
def _register() -> None:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    for name, bold in (("DejaVu", False), ("DejaVu-Bold", True)):
        pdfmetrics.registerFont(TTFont(name, str(fonts.dejavu(bold=bold))))


def _encoded(item: Item) -> Item | _Jpeg:
    """Return an image as a file holds it: pixels that are shown enlarged stay as they are, all others become JPEG."""
    pixels = item.image.width * item.image.height if isinstance(item, Block) else 0
    if not isinstance(item, Block) or pixels < 96 * 96 or (pixels < _PIXELWISE and painting.repeats(item.image)):
        return item
    buffer = io.BytesIO()
    item.image.convert("RGB").save(buffer, "JPEG", quality=88)
    return _Jpeg(item.x, item.y, item.extent, buffer.getvalue())


def _reader(image: Image.Image | io.BytesIO) -> Any:
    from reportlab.lib.utils import ImageReader

    return ImageReader(image)


def _made(recipes: Iterable[Recipe]) -> list[str]:
    """Say in words how figures were made: each method with its options, the networks with their weights, versions."""
    methods, others = dict[str, None](), dict[str, None]()
    for recipe in recipes:
        options = [f"{name} {_worded(value)}" for name, value in recipe.options.items() if value is not None]
        options += [f"of {recipe.of}"] if isinstance(recipe.of, (str, int)) else []
        methods[f"{recipe.method}: {', '.join(options) or 'no options'}."] = None
        others[f"{recipe.network.get('name', '')}: weights {recipe.weights[:16]}."] = None
        others[", ".join(f"{name} {text}" for name, text in recipe.versions.items())] = None
    return [*methods, *others]


def _worded(value: Any) -> str:
    """Write an option's value as a reader would."""
    if isinstance(value, (list, tuple)):
        return " and ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
