"""Papers: how wide a figure is, how large its letters are, and what of a drawing stands on it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from ..errors import OptionError
from .typesetting import PER_INCH, SIZES

PAPER = "paper"
"""The name under which a recipe's `display` says which paper a drawing was set for."""

_POINTS = 72
_UNITS = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / _POINTS}
_LENGTH = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(in|cm|mm|pt)?\s*")
_NARROWEST, _WIDEST = 0.5, 100.0
_SMALLEST, _LARGEST = 3.0, 40.0


class PaperOptions(TypedDict, total=False):
    """How a drawing is set for a paper, by the names of options.

    `width` is the figure's, as "3.3in", "84mm", "8.4cm" or "240pt" (a number is in inches); `font` the size of captions
    in points, as 7 or "7pt"; `shared_scale` puts all maps of one unit on one scale; `titles=False` leaves out title,
    subtitle and note, which then belong into the paper's caption; `columns` is how many tiles stand in a row.
    """

    width: str | float | None
    font: str | float | None
    shared_scale: bool
    titles: bool
    columns: int | None


@dataclass(frozen=True)
class Paper:
    """What a figure is set for: `width` in inches, `font` in points, as `PaperOptions` says; the screen by default."""

    width: float | None = None
    font: float | None = None
    shared_scale: bool = False
    titles: bool = True
    columns: int | None = None

    @classmethod
    def of(cls, **options: Unpack[PaperOptions]) -> Paper:
        """Check options and return what they say. Raises OptionError."""
        width, font, columns = (options.get(name) for name in ("width", "font", "columns"))
        return cls(
            None if width is None else _width(width),
            None if font is None else _font(font),
            bool(options.get("shared_scale", False)),
            bool(options.get("titles", True)),
            None if columns is None else _columns(columns),
        )

    @property
    def options(self) -> dict[str, Any]:
        """The options that are not the default, as `of` takes them."""
        return {name: value for name, value in vars(self).items() if value != getattr(SCREEN, name)}

    @property
    def per_inch(self) -> float:
        """Pixels of a page per inch: captions have always as many, and `font` points; the width is a whole number."""
        return self._fine if self.width is None else round(self.width * self._fine) / self.width

    @property
    def _fine(self) -> float:
        return PER_INCH if self.font is None else SIZES["caption"] * _POINTS / self.font

    @property
    def pixels(self) -> int | None:
        """The width of the page in pixels, where it is given."""
        return None if self.width is None else round(self.width * self._fine)

    def length(self, pixels: float) -> str:
        """Write a length in inches, rounded up: a paper of that width has as many pixels or more."""
        return f"{math.ceil(math.ceil(pixels) / self._fine * 100) / 100:.2f}in"


SCREEN = Paper()
"""What a drawing is set for where nothing is said: as many pixels as its images have."""


def _width(value: Any) -> float:
    match = _LENGTH.fullmatch(str(value)) if isinstance(value, (str, int, float)) else None
    if match is None or isinstance(value, bool):
        raise OptionError(f"width is a length such as 3.3in, 84mm, 8.4cm or 240pt, not {value!r}")
    inches = float(match[1]) * _UNITS[match[2] or "in"]
    if not _NARROWEST <= inches <= _WIDEST:
        raise OptionError(
            f"width is between {_NARROWEST:g}in and {_WIDEST:g}in, and {value} is {inches:.3g}in: "
            "columns of papers are about 3.3in (84mm) wide, pages 7in (178mm)"
        )
    return inches


def _font(value: Any) -> float:
    points = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(?:pt)?\s*", value) if isinstance(value, str) else None
    value = float(points[1]) if points else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _SMALLEST <= value <= _LARGEST:
        raise OptionError(
            f"font is the size of captions in points, {_SMALLEST:g} to {_LARGEST:g} (papers have 6 to 9), not {value!r}"
        )
    return float(value)


def _columns(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"columns is how many tiles stand in a row, 1 or more, not {value!r}")
    return value
