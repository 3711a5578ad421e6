"""Painting: a page as pixels."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw

from . import fonts
from .typesetting import PAPER, SIZES, Block, Box, Page, Words, direction, font, length


def paint(page: Page) -> Image.Image:
    """Paint a page as an RGB image of its size."""
    canvas = Image.new("RGB", (page.width, page.height), PAPER)
    draw = ImageDraw.Draw(canvas)
    for item in page.items:
        if isinstance(item, Block):
            canvas.paste(item.image.convert("RGB"), (item.x, item.y))
        elif isinstance(item, Box):
            corners = (item.x, item.y, item.x + item.width - 1, item.y + item.height - 1)
            draw.rectangle(corners, fill=item.colour if item.filled else None, outline=item.colour)
        else:
            write(draw, item)
    return canvas


def write(draw: ImageDraw.ImageDraw, words: Words) -> None:
    """Write a line, every letter by a font that has it."""
    text = fonts.legible(words.text)
    if fonts.plain(text):
        face = font(words.kind, words.bold)
        draw.text((words.x, words.y), text, font=face, fill=words.colour, anchor=words.anchor)
        return
    share = {"l": 0.0, "m": 0.5, "r": 1.0}[words.anchor[0]]
    _write_runs(draw, text, words, words.x - share * length(text, words.kind, bold=words.bold), baseline(words), 1)


def baseline(words: Words) -> float:
    """Return the height of a line's baseline: Pillow's "a" is the ascender, its "m" half-way to the descender."""
    face: Any = font(words.kind, words.bold)
    above, below = face.getmetrics() if hasattr(face, "getmetrics") else (SIZES[words.kind], 0)
    return words.y + (above if words.anchor[1] == "a" else (above - below) / 2)


def _write_runs(draw: ImageDraw.ImageDraw, text: str, words: Words, x: float, y: float, scale: int) -> None:
    for run in fonts.runs(text):
        face, way = font(words.kind, words.bold, run.font, scale), direction(run.text)
        draw.text((x, y), run.text, font=face, fill=words.colour, anchor="ls", direction=way)
        x += face.getlength(run.text, direction=way)


def written(words: Words, scale: int) -> tuple[Image.Image, float]:
    """Write a line alone, `scale` times as large, on a transparent ground, and say how high its baseline lies in it."""
    text, size = fonts.legible(words.text), SIZES[words.kind] * scale
    width = round(scale * length(text, words.kind, bold=words.bold)) + size
    image = Image.new("RGBA", (width, 2 * size), "#ffffff00")
    _write_runs(ImageDraw.Draw(image), text, words, 0, 1.4 * size, scale)
    return image, 1.4 * SIZES[words.kind]
