"""Typesetting: fonts, line breaking, and a page of words, images, boxes and lines at fixed positions.

A page does not know how it is drawn: `painting` makes pixels of it, `svg` an SVG and `figures` a matplotlib figure, of
which PDFs are made. So all of them show the same things in the same positions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFont

from . import fonts

INK, FAINT, PAPER, EDGE = "#1b1b1f", "#62626b", "#ffffff", "#b8b8c0"
SIZES = {"title": 19, "subtitle": 13, "caption": 12, "note": 12}


PER_INCH = 100.0
"""Pixels of a page per inch of paper, where nothing else is said."""


@dataclass(frozen=True)
class Words:
    """One line of text; `anchor` says which of its points is at (x, y), as Pillow's anchors do.

    `scale` is its size as a multiple of what its kind has.
    """

    x: float
    y: float
    text: str
    kind: str
    colour: str = INK
    anchor: str = "la"
    bold: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class Block:
    """An image whose upper left corner is at (x, y); `size` is the room (width, height) that it fills, its own if not
    given.
    """

    x: float
    y: float
    image: Image.Image
    size: tuple[float, float] | None = None

    @property
    def extent(self) -> tuple[float, float]:
        """Its width and height on the page."""
        return self.size or self.image.size


@dataclass(frozen=True)
class Box:
    """A rectangle: its outline, or its area if `filled`."""

    x: float
    y: float
    width: float
    height: float
    colour: str = EDGE
    filled: bool = False


@dataclass(frozen=True)
class Line:
    """A line through points of a plot, in the plot's own numbers."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str


@dataclass(frozen=True)
class Plot:
    """Lines in a rectangle between the numbers `across` (left, right) and `up` (bottom, top)."""

    x: float
    y: float
    width: float
    height: float
    across: tuple[float, float]
    up: tuple[float, float]
    lines: Sequence[Line]

    def strokes(self, line: Line) -> list[list[tuple[float, float]]]:
        """Return where the points of a line are on the page, in parts between what is no number."""
        (left, right), (bottom, top) = self.across, self.up
        parts = [list[tuple[float, float]]()]
        for x, y in zip(line.x, line.y, strict=True):
            if math.isfinite(x) and math.isfinite(y):
                across, down = (x - left) / (right - left), (top - y) / (top - bottom)
                parts[-1].append((self.x + across * self.width, self.y + down * self.height))
            elif parts[-1]:
                parts.append([])
        return [part for part in parts if part]


_MARKS = re.compile(r"(?<=[-_./:,])(?=\w)")
"""Where names and numbers of several parts break first."""

Item = Words | Block | Box | Plot


@dataclass(frozen=True)
class Page:
    """What is drawn, in drawing order, on white paper of `width` x `height` pixels, `per_inch` of them to an inch.

    `sharp` is the scale at which the images on it are shown pixel by pixel.
    """

    width: int
    height: int
    items: Sequence[Item]
    per_inch: float = PER_INCH
    sharp: float = 1.0


@dataclass(frozen=True)
class Inset:
    """What stands in an image's place and is set anew at any size: `draw` takes (width, height) and returns items."""

    size: tuple[int, int]
    draw: Callable[[tuple[float, float]], Sequence[Item]]

    @property
    def width(self) -> int:
        """Its width in pixels, where nothing else is asked for."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Its height in pixels, where nothing else is asked for."""
        return self.size[1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return it painted, as numpy reads an image."""
        from .painting import image_of

        return np.asarray(image_of(self), dtype)

    @classmethod
    def scaled(cls, size: tuple[int, int], items: Sequence[Item]) -> Inset:
        """Return an inset whose items all become larger or smaller with it, as an image's do."""
        return cls(size, lambda room: [moved(item, 0, 0, room[0] / size[0]) for item in items])


def moved(item: Item, x: float, y: float, scale: float = 1.0) -> Item:
    """Return an item `scale` times as large, then moved by (x, y)."""
    place: dict[str, Any] = {"x": item.x * scale + x, "y": item.y * scale + y}
    if isinstance(item, Words):
        return replace(item, **place, scale=item.scale * scale)
    if isinstance(item, Block):
        width, height = item.extent
        return replace(item, **place, size=(width * scale, height * scale))
    return replace(item, **place, width=item.width * scale, height=item.height * scale)


@cache
def font(
    kind: str, bold: bool = False, file: Path | None = None, scale: float = 1
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font of a kind of text ("title", "subtitle", "caption", "note"): DejaVu, or that of a file."""
    path, size = file or fonts.dejavu(bold=bold), SIZES[kind] * scale
    return ImageFont.truetype(str(path), size) if path.exists() else ImageFont.load_default(size)


def direction(text: str) -> str | None:
    """Return the direction of a line for Pillow: ours go from left to right, whatever script a name in them has."""
    return None if fonts.plain(text) or not fonts.shapes() else "ltr"


def line_height(kind: str) -> int:
    """Return the distance of two lines of a kind of text, in pixels."""
    return round(SIZES[kind] * 1.4)


def length(text: str, kind: str, *, bold: bool = False) -> float:
    """Return how wide a line of text is, in pixels."""
    pieces = fonts.runs(fonts.legible(text))
    return sum(font(kind, bold, piece.font).getlength(piece.text, direction=direction(piece.text)) for piece in pieces)


def wrap(text: str, kind: str, width: float, *, bold: bool = False) -> list[str]:
    """Break text into lines no wider than `width` pixels.

    Words that are wider than that break behind a hyphen or another mark, or inside where they have none.
    """
    lines = list[str]()
    for paragraph in text.split("\n") if text else []:
        line = ""
        for word in paragraph.split():
            for piece in _pieces(word, kind, width, bold):
                longer = f"{line} {piece}".strip()
                if line and length(longer, kind, bold=bold) > width:
                    lines.append(line)
                    line = piece
                else:
                    line = longer
        lines.append(line)
    return lines


def _pieces(word: str, kind: str, width: float, bold: bool) -> list[str]:
    """Cut a word that is wider than a line."""
    if length(word, kind, bold=bold) <= width:
        return [word]
    pieces = [""]
    for part in _MARKS.split(word):
        fits = length(part, kind, bold=bold) <= width
        for letters in [part] if fits else part:
            if pieces[-1] and length(pieces[-1] + letters, kind, bold=bold) > width:
                pieces.append("")
            pieces[-1] += letters
    return pieces


def stacked(
    lines: Sequence[str], kind: str, x: float, y: float, colour: str = INK, *, anchor: str = "la", bold: bool = False
) -> list[Words]:
    """Set lines of text below each other, the first at (x, y)."""
    step = line_height(kind)
    return [Words(x, y + i * step, line, kind, colour, anchor, bold) for i, line in enumerate(lines)]
