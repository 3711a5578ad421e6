"""Painting: a page as pixels."""

from __future__ import annotations

from PIL import Image, ImageDraw

from .typesetting import PAPER, Block, Box, Page, font


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
            face = font(item.kind, item.bold)
            draw.text((item.x, item.y), item.text, font=face, fill=item.colour, anchor=item.anchor)
    return canvas
