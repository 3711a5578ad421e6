"""Figures: a page as a matplotlib figure, its texts as text and its images as they are, for papers and for editing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from threading import RLock
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from . import fonts, painting
from .typesetting import SIZES, Block, Box, Page, Plot, Words, direction, font

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FINE = 4
"""How many times finer than the page a line is painted that becomes an image."""

_POINTS = 72

_settings = RLock()


def figure(page: Page) -> Figure:
    """Return a page as a matplotlib figure of its size: one axes for all images, in the page's pixels, one per plot."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(page.width / page.per_inch, page.height / page.per_inch), dpi=page.per_inch)
    ground = drawn.add_axes((0, 0, 1, 1), xlim=(0, page.width), ylim=(page.height, 0), autoscale_on=False)
    ground.set_axis_off()
    for order, item in enumerate(page.items, 1):
        if isinstance(item, Block):
            _add_image(ground, np.asarray(item.image.convert("RGB")), (item.x, item.y, *item.extent))
        elif isinstance(item, Box):
            _add_box(drawn, page, item, order)
        elif isinstance(item, Plot):
            _add_plot(drawn, page, item, order)
        elif fonts.simple(fonts.legible(item.text)) or _shapes():
            _add_words(drawn, page, item, order)
        else:
            _add_shaped(ground, item)
    return drawn


def write_pdf(draw: Callable[[], Figure], file: BinaryIO, title: str, meta: Mapping[str, str]) -> None:
    """Write the figure that a function draws as a PDF, with settings of matplotlib's own and texts about it by name.

    So a file is the same wherever it is written, and the matplotlibrc of a folder that one happens to stand in, which
    can have texts set by the LaTeX that it finds, does not count.
    """
    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages

    # Settings belong to the whole process: a thread must not put them back while another draws.
    with _settings, matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Journals refuse the fonts that are matplotlib's default, whose letters are drawings.
        matplotlib.rcParams["pdf.fonttype"] = 42
        # Without the time of day: same drawing, same bytes.
        with PdfPages(file, metadata={"Title": title, "CreationDate": None}) as pages:  # type: ignore[arg-type]
            pages.infodict().update({name: _in_ascii(text) for name, text in meta.items()})
            draw().savefig(pages, format="pdf")  # type: ignore[arg-type]  # which it takes


def _in_ascii(text: str) -> str:
    """Write JSON in letters that a PDF holds as they are, on one line: line breaks are never inside its texts."""
    return re.sub(r"[^ -~]", lambda match: json.dumps(match[0])[1:-1], text.replace("\n", " "))


def _placed(page: Page, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    """Return a rectangle of a page as matplotlib counts: in shares of the figure, from its lower left corner."""
    return x / page.width, 1 - (y + height) / page.height, width / page.width, height / page.height


def _add_image(ground: Axes, pixels: np.ndarray, place: tuple[float, float, float, float]) -> None:
    """Add an image as it is; `place` is (left, top, width, height) on the page."""
    x, y, width, height = place
    # Without interpolation matplotlib never joins images into one, which would resample them.
    ground.imshow(pixels, extent=(x, x + width, y + height, y), aspect="auto", interpolation="none")


def _add_box(drawn: Figure, page: Page, box: Box, order: int) -> None:
    from matplotlib.patches import Rectangle

    look: dict[str, Any] = {"color": box.colour, "zorder": order}
    look |= {"linewidth": 0} if box.filled else {"fill": False, "linewidth": 0.6}
    # An outline is drawn inside the rectangle, as in pixels.
    inside = 0.0 if box.filled else 0.5
    x, y, width, height = _placed(page, box.x + inside, box.y + inside, box.width - 2 * inside, box.height - 2 * inside)
    drawn.add_artist(Rectangle((x, y), width, height, transform=drawn.transFigure, **look))


def _add_plot(drawn: Figure, page: Page, plot: Plot, order: int) -> None:
    axes = drawn.add_axes(_placed(page, plot.x, plot.y, plot.width, plot.height), zorder=order)
    axes.set(xlim=plot.across, ylim=plot.up)
    axes.set_axis_off()
    for line in plot.lines:
        stroke = painting.STROKE * _POINTS / page.per_inch
        axes.plot(line.x, line.y, color=line.colour, label=line.name, linewidth=stroke, clip_on=False)


def _add_words(drawn: Figure, page: Page, words: Words, order: int) -> None:
    from matplotlib.font_manager import FontProperties

    text, x, y = fonts.legible(words.text), painting.left(words), painting.baseline(words)
    size = SIZES[words.kind] * words.scale * _POINTS / page.per_inch
    for run in fonts.runs(text):
        letters = run.text.replace("$", r"\$")
        drawn.text(
            x / page.width,
            1 - y / page.height,
            # Lines go from left to right, also where they begin with a name that does not.
            letters if fonts.simple(letters) else fonts.FROM_THE_LEFT + letters,
            fontproperties=FontProperties(fname=run.font or fonts.dejavu(bold=words.bold), size=size),
            color=words.colour,
            va="baseline",
            zorder=order,
        )
        face = font(words.kind, words.bold, run.font, words.scale)
        x += face.getlength(run.text, direction=direction(run.text))


def _shapes() -> bool:
    """Whether matplotlib sets Arabic, Hebrew and Indic scripts."""
    from matplotlib import ft2font

    return hasattr(ft2font, "__libraqm_version__")  # from 3.11 on


def _add_shaped(ground: Axes, words: Words) -> None:
    """Add a line as an image: older versions of matplotlib shape no letters that change beside others."""
    image, up = painting.written(words, _FINE)
    place = painting.left(words), painting.baseline(words) - up, image.width / _FINE, image.height / _FINE
    _add_image(ground, np.asarray(image), place)
