"""The options that say how a figure is set for a paper."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ..errors import OptionError
from ..outputs import PICTURE_ENDINGS

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class Figure(Setting):
    """How a figure that is made of tiles is set."""

    columns: Annotated[
        int | None,
        typer.Option(help="how many tiles stand in a row", metavar="INT", rich_help_panel=_PANEL),
    ] = None
