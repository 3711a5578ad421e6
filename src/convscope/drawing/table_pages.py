"""A table as a page: columns as wide as they need, long texts broken, numbers right below each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import OptionError
from .layout import MARGIN
from .paper import Paper
from .typesetting import FAINT, Box, Item, Page, length, line_height, stacked, wrap

if TYPE_CHECKING:
    from .tables import Column, Table

_BETWEEN = 18
_MOST = 1100
"""Pixels that all columns together take, as long as texts can be broken."""
_LEAST = 70
"""Pixels to which a column of text is broken at most."""
_PAD = 4
_LINE = "#d9d9de"


def arranged(table: Table, paper: Paper) -> Page:
    """Set a table as a page. Raises OptionError for a paper that is too narrow, or that asks for tiles."""
    if paper.columns is not None or paper.shared_scale:
        raise OptionError("columns and shared_scale are for drawings with tiles, and this is a table")
    cells, margin = table.cells(), MARGIN if paper.pixels is None else 0
    widths = _widths(table.columns, cells, paper)
    width = max(sum(widths) + _BETWEEN * (len(widths) - 1), 340 if paper.pixels is None else paper.pixels)
    texts = (table.title, table.subtitle, table.note) if paper.titles else ("", "", "")
    title = stacked(wrap(texts[0], "title", width, bold=True), "title", margin, margin, bold=True)
    y = margin + len(title) * line_height("title") + 2
    subtitle = stacked(wrap(texts[1], "subtitle", width), "subtitle", margin, y, FAINT)
    y += len(subtitle) * line_height("subtitle") + (2 * _PAD if title or subtitle else 0)
    items: list[Item] = [*title, *subtitle]
    heads = [column.title for column in table.columns]
    y = _set_row(items, table.columns, heads, widths, margin, y, FAINT)
    items.append(Box(margin, y, width, 1, FAINT, filled=True))
    for number, row in enumerate(cells):
        if number:
            items.append(Box(margin, y, width, 1, _LINE, filled=True))
        y = _set_row(items, table.columns, row, widths, margin, y + _PAD)
    note = stacked(wrap(texts[2], "note", width), "note", margin, y + 2 * _PAD, FAINT)
    y += 2 * _PAD + len(note) * line_height("note") if note else 0
    return Page(width + 2 * margin, y + max(margin - _PAD, 0), [*items, *note], paper.per_inch)


def _set_row(
    items: list[Item],
    columns: Sequence[Column],
    texts: Sequence[str],
    widths: Sequence[int],
    x: int,
    y: int,
    colour: str = "#1b1b1f",
) -> int:
    """Set the cells of a row at x below y and return where the row ends."""
    most = 1
    for column, text, width in zip(columns, texts, widths, strict=True):
        lines = wrap(text, "caption", width)
        at, anchor = (x + width, "ra") if column.right else (x, "la")
        items += stacked(lines, "caption", at, y, colour, anchor=anchor)
        most, x = max(most, len(lines)), x + width + _BETWEEN
    return y + most * line_height("caption") + _PAD


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[str]], paper: Paper) -> list[int]:
    """Return the columns' widths; texts that may be broken give way, the longest first, where all are too wide.

    Raises OptionError where that is not enough on a paper.
    """
    heads = [max((math.ceil(length(word, "caption")) for word in c.title.split()), default=0) for c in columns]
    widths = [max(head, *(math.ceil(length(row[i], "caption")) for row in cells), 1) for i, head in enumerate(heads)]
    widths = [
        max(width, min(math.ceil(length(c.title, "caption")), 90)) for width, c in zip(widths, columns, strict=True)
    ]
    free = [i for i, column in enumerate(columns) if not (column.right or column.unbroken)]
    over = sum(widths) + _BETWEEN * (len(widths) - 1) - (_MOST if paper.pixels is None else paper.pixels)
    while over > 0 and free:
        widest = max(free, key=lambda i: widths[i])
        if widths[widest] <= max(_LEAST, heads[widest]):
            free.remove(widest)
            continue
        step = min(over, max(1, (widths[widest] - _LEAST) // 4))
        widths[widest] -= step
        over -= step
    if over > 0 and paper.pixels is not None:
        raise OptionError(
            f"a figure {paper.width:.2f}in wide is too narrow for this table's {len(columns)} columns in this "
            f"size of letters: {paper.length(paper.pixels + over)} would do"
        )
    return widths
