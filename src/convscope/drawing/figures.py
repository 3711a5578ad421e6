"""Figures: a page as a matplotlib figure, its texts as text and its images as they are, for papers and for editing."""

from __future__ import annotations

import io
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..data.image_files import open_image
from . import fonts, painting
from .typesetting import SIZES, Block, Box, Page, Words, length

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

_DPI = 100
_FINE = 4
"""How many times finer than the page a line is painted that becomes an image."""

_settings = RLock()

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


def painted(draw: Callable[[], Figure]) -> Image.Image:
    """Return the matplotlib figure that a function draws as an RGB image."""
    buffer = io.BytesIO()
    write(draw, buffer, "png")
    return open_image(buffer, "the figure").convert("RGB")


def write(draw: Callable[[], Figure], file: BinaryIO, kind: str) -> None:
    """Write the figure that a function draws, in a format and with settings of matplotlib's own.

    So a file is the same wherever it is written, and the matplotlibrc of a folder that one happens to stand in, which
    can have texts set by the LaTeX that it finds, does not count.
    """
    import matplotlib

    # Settings belong to the whole process: a thread must not put them back while another draws.
    with _settings, matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Without the time of day or names drawn by chance: same drawing, same bytes.
        matplotlib.rcParams["svg.hashsalt"] = "convscope"
        timeless = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
        draw().savefig(file, format=kind, metadata=timeless.get(kind))


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
    text = fonts.legible(words.text)
    if not fonts.plain(text):
        _add_other_script(drawn, page, words)
        return
    drawn.text(
        words.x / page.width,
        1 - painting.baseline(words) / page.height,
        text.replace("$", r"\$"),
        fontsize=SIZES[words.kind] * 72 / _DPI,
        fontweight="bold" if words.bold else "normal",
        fontfamily="DejaVu Sans",
        color=words.colour,
        ha=_HORIZONTAL[words.anchor[0]],
        va="baseline",
    )


def _add_other_script(drawn: Figure, page: Page, words: Words) -> None:
    """Add a line as an image: matplotlib has no second font for it that all its formats can hold."""
    image, up = painting.written(words, _FINE)
    share = {"l": 0.0, "m": 0.5, "r": 1.0}[words.anchor[0]]
    left = words.x - share * length(words.text, words.kind, bold=words.bold)
    top, (width, height) = painting.baseline(words) - up, (side / _FINE for side in image.size)
    at = (left / page.width, 1 - (top + height) / page.height, width / page.width, height / page.height)
    axes = drawn.add_axes(at)
    axes.imshow(np.asarray(image), aspect="auto", interpolation="none")
    axes.set_axis_off()
