"""Typesetting: fonts, line breaking, and a page of words, images and boxes at fixed pixel positions.

A page does not know how it is drawn: `painting` makes pixels of it and `figures` a matplotlib figure, which therefore
show the same things in the same positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageFont

from . import fonts

INK, FAINT, PAPER, EDGE = "#1b1b1f", "#62626b", "#ffffff", "#b8b8c0"
SIZES = {"title": 19, "subtitle": 13, "caption": 12, "note": 12}


@dataclass(frozen=True)
class Words:
    """One line of text; `anchor` says which of its points is at (x, y), as Pillow's anchors do."""

    x: float
    y: float
    text: str
    kind: str
    colour: str = INK
    anchor: str = "la"
    bold: bool = False


@dataclass(frozen=True)
class Block:
    """An image whose upper left corner is at (x, y)."""

    x: int
    y: int
    image: Image.Image


@dataclass(frozen=True)
class Box:
    """A rectangle: its outline, or its area if `filled`."""

    x: int
    y: int
    width: int
    height: int
    colour: str = EDGE
    filled: bool = False


@dataclass(frozen=True)
class Page:
    """What is drawn, in drawing order, on white paper of `width` x `height` pixels."""

    width: int
    height: int
    items: Sequence[Words | Block | Box]


@cache
def font(
    kind: str, bold: bool = False, file: Path | None = None, scale: int = 1
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
    """Break text into lines no wider than `width` pixels, inside words where they are wider than that."""
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
    for letter in word:
        if pieces[-1] and length(pieces[-1] + letter, kind, bold=bold) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def stacked(
    lines: Sequence[str], kind: str, x: float, y: float, colour: str = INK, *, anchor: str = "la", bold: bool = False
) -> list[Words]:
    """Set lines of text below each other, the first at (x, y)."""
    step = line_height(kind)
    return [Words(x, y + i * step, line, kind, colour, anchor, bold) for i, line in enumerate(lines)]
