"""Painting: a page as pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from . import fonts
from .typesetting import PAPER, SIZES, Block, Box, Inset, Page, Plot, Words, direction, font, length, moved

STROKE = 1.6
"""How wide the lines of a plot are, in pixels of a page."""

_FINE = 4
"""How many times finer lines are painted that become smooth: Pillow's have steps."""

_SAME = 0.35
"""The share of neighbours in a row that are equal where an image was enlarged by repeating pixels."""


def paint(page: Page, scale: float = 1.0) -> Image.Image:
    """Paint a page as an RGB image, `scale` times its size."""
    canvas = Image.new("RGB", (round(page.width * scale), round(page.height * scale)), PAPER)
    draw = ImageDraw.Draw(canvas)
    for item in page.items:
        scaled = item if scale == 1 else moved(item, 0, 0, scale)
        if isinstance(scaled, Block):
            canvas.paste(_fitted(scaled), (round(scaled.x), round(scaled.y)))
        elif isinstance(scaled, Box):
            draw.rectangle(_corners(scaled), fill=scaled.colour if scaled.filled else None, outline=scaled.colour)
        elif isinstance(scaled, Plot):
            _stroke(canvas, scaled, STROKE * scale)
        else:
            write(draw, scaled)
    return canvas


def image_of(content: Image.Image | Inset) -> Image.Image:
    """Return what stands on a tile as an image."""
    return content if isinstance(content, Image.Image) else paint(Page(*content.size, content.draw(content.size)))


def repeats(image: Image.Image) -> bool:
    """Whether an image was enlarged by repeating pixels, as maps are: made larger again, it must stay sharp."""
    pixels = np.asarray(image)
    return pixels.shape[1] > 1 and bool((pixels[:, 1:] == pixels[:, :-1]).mean() > _SAME)


def _fitted(block: Block) -> Image.Image:
    """Return an image at the size that it has on the page."""
    image, (left, top), (width, height) = block.image.convert("RGB"), (block.x, block.y), block.extent
    # By its edges, so that images side by side are as far apart wherever they lie.
    size = max(1, round(left + width) - round(left)), max(1, round(top + height) - round(top))
    if size == image.size:
        return image
    larger = size[0] >= image.width
    return image.resize(size, Image.Resampling.NEAREST if larger and repeats(image) else Image.Resampling.LANCZOS)


def _corners(box: Box) -> tuple[float, float, float, float]:
    left, top, right, bottom = round(box.x), round(box.y), round(box.x + box.width), round(box.y + box.height)
    return left, top, max(right - 1, left), max(bottom - 1, top)


def _stroke(canvas: Image.Image, plot: Plot, width: float) -> None:
    """Draw the lines of a plot, finer than the canvas and made smaller, so that they are smooth."""
    size = round(plot.width + 2 * width), round(plot.height + 2 * width)
    corner = round(plot.x - width), round(plot.y - width)
    for line in plot.lines:
        mask = Image.new("L", (size[0] * _FINE, size[1] * _FINE))
        draw = ImageDraw.Draw(mask)
        for stroke in plot.strokes(line):
            points = [((x - corner[0]) * _FINE, (y - corner[1]) * _FINE) for x, y in stroke]
            draw.line(points, fill=255, width=max(1, round(width * _FINE)), joint="curve")
        canvas.paste(Image.new("RGB", size, line.colour), corner, mask.reduce(_FINE))


def write(draw: ImageDraw.ImageDraw, words: Words) -> None:
    """Write a line, every letter by a font that has it."""
    text = fonts.legible(words.text)
    if fonts.plain(text):
        face = font(words.kind, words.bold, None, words.scale)
        draw.text((words.x, words.y), text, font=face, fill=words.colour, anchor=words.anchor)
        return
    _write_runs(draw, text, words, left(words), baseline(words))


def baseline(words: Words) -> float:
    """Return the height of a line's baseline: Pillow's "a" is the ascender, its "m" half-way to the descender."""
    face: Any = font(words.kind, words.bold, None, words.scale)
    size = SIZES[words.kind] * words.scale
    above, below = face.getmetrics() if hasattr(face, "getmetrics") else (size, 0)
    return words.y + (above if words.anchor[1] == "a" else (above - below) / 2)


def left(words: Words) -> float:
    """Return where a line begins."""
    share = {"l": 0.0, "m": 0.5, "r": 1.0}[words.anchor[0]]
    return words.x - share * words.scale * length(words.text, words.kind, bold=words.bold)


def _write_runs(draw: ImageDraw.ImageDraw, text: str, words: Words, x: float, y: float, fine: float = 1) -> None:
    for run in fonts.runs(text):
        face, way = font(words.kind, words.bold, run.font, words.scale * fine), direction(run.text)
        draw.text((x, y), run.text, font=face, fill=words.colour, anchor="ls", direction=way)
        x += face.getlength(run.text, direction=way)


def written(words: Words, fine: int) -> tuple[Image.Image, float]:
    """Write a line alone, `fine` times as large, on a transparent ground, and say how high its baseline lies in it."""
    text, size = fonts.legible(words.text), SIZES[words.kind] * words.scale * fine
    width = round(words.scale * fine * length(words.text, words.kind, bold=words.bold) + size)
    image = Image.new("RGBA", (width, round(2 * size)), "#ffffff00")
    _write_runs(ImageDraw.Draw(image), text, words, 0, 1.4 * size, fine)
    return image, 1.4 * size / fine
