"""Figures: a page as a matplotlib figure, its texts as text and its images as they are, for papers and for editing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .typesetting import SIZES, Block, Box, Page, Words, font

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 100
_HORIZONTAL = {"l": "left", "m": "center", "r": "right"}


def figure(page: Page) -> Figure:
    """Return a page as a matplotlib figure of 100 pixels per inch, one axes per image."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(page.width / _DPI, page.height / _DPI), dpi=_DPI)
    for item in page.items:
        if isinstance(item, Block):
            _add_image(drawn, page, item)
        elif isinstance(item, Box):
            _add_box(drawn, page, item)
        else:
            _add_words(drawn, page, item)
    return drawn


def _add_image(drawn: Figure, page: Page, block: Block) -> None:
    width, height = block.image.size
    at = (block.x / page.width, 1 - (block.y + height) / page.height, width / page.width, height / page.height)
    axes = drawn.add_axes(at)
    axes.imshow(np.asarray(block.image.convert("RGB")), aspect="auto", interpolation="none")
    axes.set_axis_off()


def _add_box(drawn: Figure, page: Page, box: Box) -> None:
    from matplotlib.patches import Rectangle

    corner = (box.x / page.width, 1 - (box.y + box.height) / page.height)
    look: dict[str, Any] = {"linewidth": 0} if box.filled else {"fill": False, "linewidth": 0.6}
    size = (box.width / page.width, box.height / page.height)
    drawn.add_artist(Rectangle(corner, *size, color=box.colour, transform=drawn.transFigure, **look))


def _add_words(drawn: Figure, page: Page, words: Words) -> None:
    face: Any = font(words.kind, words.bold)
    above, below = face.getmetrics() if hasattr(face, "getmetrics") else (SIZES[words.kind], 0)
    # Pillow's "a" is the ascender's height, its "m" half-way between ascender and descender.
    baseline = words.y + (above if words.anchor[1] == "a" else (above - below) / 2)
    drawn.text(
        words.x / page.width,
        1 - baseline / page.height,
        words.text.replace("$", r"\$"),
        fontsize=SIZES[words.kind] * 72 / _DPI,
        fontweight="bold" if words.bold else "normal",
        fontfamily="DejaVu Sans",
        color=words.colour,
        ha=_HORIZONTAL[words.anchor[0]],
        va="baseline",
    )
