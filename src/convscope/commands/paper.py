"""The options that say how a figure is set for a paper."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..errors import OptionError, OutputError
from ..outputs import PICTURE_ENDINGS

if TYPE_CHECKING:
    from ..drawing.base import Drawing
    from ..drawing.paper import PaperOptions

_PANEL = "Figure for a paper"


@dataclass(frozen=True)
class Setting:
    """How wide a figure is, how large its letters are, and what of its words stands on it."""

    width: Annotated[
        str | None,
        typer.Option(
            help="width of the figure on paper: 3.3in, 84mm, 8.4cm or 240pt; tiles fill it, letters keep their size",
            metavar="LENGTH",
            rich_help_panel=_PANEL,
        ),
    ] = None
    font: Annotated[
        str | None,
        typer.Option(help="size of captions in points, as 7; 8.6 by default", metavar="POINTS", rich_help_panel=_PANEL),
    ] = None
    titles: Annotated[
        bool,
        typer.Option(
            "--titles/--no-titles",
            help="title, subtitle and note, or none of them: then they belong into the paper's caption",
            rich_help_panel=_PANEL,
        ),
    ] = True

    @property
    def options(self) -> PaperOptions:
        """What a drawing is set by: nothing where no option says so. Raises OptionError for what is no paper."""
        if self == type(self)():
            return {}
        from ..drawing.paper import SCREEN, Paper

        asked = cast("PaperOptions", asdict(self))
        return asked if Paper.of(**asked) != SCREEN else {}

    def check(self, out: Path | None) -> None:
        """Refuse what is no paper, and options for a figure where none is written. Raises OptionError."""
        figure = out is not None and out.suffix.lower() in PICTURE_ENDINGS
        self.refuse("" if figure else "nothing is written" if out is None else f"{out} is none")

    def refuse(self, reason: str) -> None:
        """Refuse what is no paper and, for a `reason`, options for a figure. Raises OptionError."""
        if self.options and reason:
            *some, last = (*(f"--{name}" for name in asdict(self) if name != "titles"), "--no-titles")
            raise OptionError(
                f"{', '.join(some)} and {last} set a figure, and {reason}: give -o FILE with one of the endings "
                f"{', '.join(PICTURE_ENDINGS)}, or leave them out"
            )

    def check_room(self, tiles: int) -> None:
        """Refuse a width in which so many tiles have no room in a row, before they are made. Raises OptionError."""
        if self.width is not None:
            from ..drawing.layout import check_room
            from ..drawing.paper import Paper

            check_room(Paper.of(**self.options), tiles)

    def save(self, drawing: Drawing, out: Path) -> Path:
        """Write a drawing and return the file; one that has no room there is kept elsewhere. Raises OutputError."""
        try:
            return drawing.save(out, **self.options)
        except (OutputError, OptionError) as error:  # such as a paper that is too narrow
            raise type(error)(f"{error}{_rescued(drawing, out)}") from None


def _rescued(drawing: Drawing, out: Path) -> str:
    """Save elsewhere what took long to make and cannot be written where it should be; say where."""
    try:
        folder = Path(mkdtemp(prefix="convscope-"))  # of its own: nobody else can have put a link there
    except OSError:
        return ""
    try:
        return f"; kept instead as {drawing.save(folder / out.name)}"
    except OutputError:
        return ""
    finally:
        with suppress(OSError):  # the drawing is in it
            folder.rmdir()


@dataclass(frozen=True)
class Figure(Setting):
    """How a figure that is made of tiles is set."""

    columns: Annotated[
        int | None,
        typer.Option(help="how many tiles stand in a row", metavar="INT", rich_help_panel=_PANEL),
    ] = None
