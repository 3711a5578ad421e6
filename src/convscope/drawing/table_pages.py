"""A table as a page: columns as wide as they need, long texts broken, numbers right below each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .layout import MARGIN
from .typesetting import FAINT, Box, Page, Words, length, line_height, stacked, wrap

if TYPE_CHECKING:
    from .tables import Column, Table

_BETWEEN = 18
_MOST = 1100
"""Pixels that all columns together take, as long as texts can be broken."""
_LEAST = 70
"""Pixels to which a column of text is broken at most."""
_PAD = 4
_LINE = "#d9d9de"


def arranged(table: Table) -> Page:
    """Set a table as a page."""
    cells = table.cells()
    widths = _widths(table.columns, cells)
    width = max(sum(widths) + _BETWEEN * (len(widths) - 1), 340)
    title = stacked(wrap(table.title, "title", width, bold=True), "title", MARGIN, MARGIN, bold=True)
    y = MARGIN + len(title) * line_height("title") + 2
    subtitle = stacked(wrap(table.subtitle, "subtitle", width), "subtitle", MARGIN, y, FAINT)
    y += len(subtitle) * line_height("subtitle") + (2 * _PAD if title or subtitle else 0)
    items: list[Words | Box] = [*title, *subtitle]
    heads = [column.title for column in table.columns]
    y = _set_row(items, table.columns, heads, widths, y, FAINT)
    items.append(Box(MARGIN, y, width, 1, FAINT, filled=True))
    for number, row in enumerate(cells):
        if number:
            items.append(Box(MARGIN, y, width, 1, _LINE, filled=True))
        y = _set_row(items, table.columns, row, widths, y + _PAD)
    note = stacked(wrap(table.note, "note", width), "note", MARGIN, y + 2 * _PAD, FAINT)
    y += 2 * _PAD + len(note) * line_height("note") if note else 0
    return Page(width + 2 * MARGIN, y + MARGIN - _PAD, [*items, *note])


def _set_row(
    items: list[Words | Box],
    columns: Sequence[Column],
    texts: Sequence[str],
    widths: Sequence[int],
    y: int,
    colour: str = "#1b1b1f",
) -> int:
    """Set the cells of a row below y and return where the row ends."""
    x, most = MARGIN, 1
    for column, text, width in zip(columns, texts, widths, strict=True):
        lines = wrap(text, "caption", width)
        at, anchor = (x + width, "ra") if column.right else (x, "la")
        items += stacked(lines, "caption", at, y, colour, anchor=anchor)
        most, x = max(most, len(lines)), x + width + _BETWEEN
    return y + most * line_height("caption") + _PAD


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[int]:
    """Return the columns' widths; texts that may be broken give way, the longest first, where all are too wide."""
    heads = [max((math.ceil(length(word, "caption")) for word in c.title.split()), default=0) for c in columns]
    widths = [max(head, *(math.ceil(length(row[i], "caption")) for row in cells), 1) for i, head in enumerate(heads)]
    widths = [
        max(width, min(math.ceil(length(c.title, "caption")), 90)) for width, c in zip(widths, columns, strict=True)
    ]
    free = [i for i, column in enumerate(columns) if not (column.right or column.unbroken)]
    over = sum(widths) + _BETWEEN * (len(widths) - 1) - _MOST
    while over > 0 and free:
        widest = max(free, key=lambda i: widths[i])
        if widths[widest] <= max(_LEAST, heads[widest]):
            free.remove(widest)
            continue
        step = min(over, max(1, (widths[widest] - _LEAST) // 4))
        widths[widest] -= step
        over -= step
    return widths
