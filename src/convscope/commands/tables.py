"""The options of commands that print a table, and how they print it: as text, as JSON, or into a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OutputError
from ..outputs import PICTURE_ENDINGS, TABLE_ENDINGS, check_file, check_pyarrow
from .paper import Setting
from .printing import AsJson, print_file

if TYPE_CHECKING:
    from ..drawing.tables import Table

_ENDINGS = (*TABLE_ENDINGS, *PICTURE_ENDINGS)


@dataclass(frozen=True)
class TableOutput:
    """Where a table goes, and how it is set as a figure."""

    out: Annotated[Path | None, typer.Option("--out", "-o", help=f"file to write ({', '.join(_ENDINGS)})")] = None
    as_json: AsJson = False
    setting: Setting = field(default_factory=Setting)

    def check(self) -> None:
        """Refuse what cannot be written. Raises OutputError, OptionError."""
        self.setting.check(self.out)
        if self.out is None:
            return
        if self.out.suffix.lower() not in _ENDINGS:
            raise OutputError(f"cannot write {self.out}: endings of a table are {', '.join(_ENDINGS)}")
        if self.out.suffix.lower() == ".parquet":
            check_pyarrow()
        check_file(self.out)

    def print(self, table: Table) -> None:
        """Print a table, as JSON where that is wanted; or write it to a file and print its name."""
        if self.out is not None:
            print_file(self.setting.save(table, self.out))
        elif self.as_json:
            print(table.json())
        else:
            table.print()
