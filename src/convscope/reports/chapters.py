"""What a report is made of, whatever it is written as: chapters with words, predictions and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.pictures import Picture, Pictures
from ..data.preprocessing import Size
from ..net import Net
from ..recipes import Recipe

if TYPE_CHECKING:
    from PIL import Image

    from ..drawing.base import Drawing
    from ..drawing.layout import Sheet
    from ..drawing.tables import Table


@dataclass(frozen=True)
class Row:
    """One line of a chart: a name, a share of 1 for the bar's length, and what is written behind it."""

    name: str
    share: float
    text: str


@dataclass(frozen=True)
class Said:
    """What a network says of a picture: a small image of it, its name, and a row for each class."""

    image: Callable[[], Image.Image] | None
    name: str
    rows: tuple[Row, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing in a report; it is laid out when it is written, which may be in another thread.

    `recipes` say how it was made, `files` are names of files beside the page with a word for each.
    """

    sheet: Callable[[], Sheet]
    recipes: tuple[Recipe, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, drawing: Drawing) -> Figure:
        """Return a drawing as a figure."""
        return cls(drawing.announced, (drawing.recipe,))


@dataclass(frozen=True)
class Section:
    """A part of a chapter, such as what it says of one network: words, then tables, then figures."""

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Chapter:
    """A part of a report.

    `text` is paragraphs with an empty line between them, `word` in backquotes being code. A chapter about one picture
    has a `key` that says what it was made from, and its first prediction stands in the index; `failed` says why there
    is nothing else of that picture. `tables` stand before the figures, and `sections` after them.
    """

    title: str
    text: str = ""
    source: str = ""
    caveat: str = ""
    said: tuple[Said, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    sections: tuple[Section, ...] = ()
    key: str = ""
    failed: str = ""


@dataclass(frozen=True)
class Kept:
    """A chapter of an earlier run that lies beside the page already."""

    key: str


@dataclass(frozen=True)
class Request:
    """What a report is asked about.

    `pictures` are those of `source`, which knows the names of their labels; `there` says of a key whether its chapter
    lies beside the page already.
    """

    net: Net
    pictures: Sequence[Picture]
    methods: tuple[str, ...] = ()
    of: Any = None
    size: Size | None = None
    check: bool = True
    labels: str | Path | None = None
    names: str | Path | None = None
    source: Pictures | None = None
    there: Callable[[str], bool] = lambda key: False


@dataclass(frozen=True)
class Contents:
    """A report before it is written: its title, what stands at its head, and chapters made as they are asked for.

    `pictures` is how many chapters about one picture there will be; `lossless` says that images are kept as they are.
    """

    title: str
    lead: str
    chapters: Iterable[Chapter | Kept]
    pictures: int = 0
    lossless: bool = False


Preset = Callable[[Request], Contents]
"""What chooses a report's chapters."""
