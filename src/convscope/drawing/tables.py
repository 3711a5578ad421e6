"""Tables: rows under named columns, as text, Markdown, CSV, Parquet, JSON, HTML or a picture.

A cell is kept as a value and written as its column says, so that files hold numbers and readers see them rounded.
Nothing here imports torch or numpy: commands that print tables are quick.
"""

from __future__ import annotations

import csv
import html
import importlib
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, Self, Unpack

from .. import outputs
from ..errors import OptionError, visible
from ..recipes import Recipe
from .base import Drawing

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..recipes import Recipe
    from .layout import Sheet
    from .paper import Paper, PaperOptions
    from .typesetting import Page

Kind = Literal["text", "whole", "number", "size", "flag"]
Cell = str | int | float | bool | Sequence[float] | None

_PYTHON: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "whole": (int,),
    "number": (int, float),
    "size": (tuple, list),
    "flag": (bool,),
}
_WIDTH = 120
"""Columns of text where the output is no terminal."""


@dataclass(frozen=True)
class Column:
    """A column: `name` is the key in files, `head` what stands above it (the name, with spaces, by default).

    `kind` is "text", "whole" (numbers), "number", "size" (numbers with × between) or "flag"; `format` is a format
    specification of Python for one number, as ",", ".2%" or ".3f"; `unit` is written after the head. A missing value is
    None. `unbroken` columns, as names of layers, keep their texts on one line.
    """

    name: str
    kind: Kind = "text"
    head: str = ""
    format: str = ""
    unit: str = ""
    unbroken: bool = False

    @property
    def title(self) -> str:
        """What stands above the column."""
        head = self.head or self.name.replace("_", " ")
        return f"{head} ({self.unit})" if self.unit else head

    @property
    def right(self) -> bool:
        """Whether its cells are aligned to the right, as numbers are."""
        return self.kind in ("whole", "number")

    def show(self, value: Cell) -> str:
        """Write a cell for a reader; nothing for a missing value."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if self.kind == "flag":
            return "yes" if value else "no"
        if isinstance(value, (tuple, list)):
            return " × ".join(format(part, self.format or "g") for part in value)
        if self.kind == "text":
            return visible(" ".join(str(value).split()))
        default = "," if self.kind == "whole" else ".4g"
        return format(value, self.format or default).replace("-", "−")

    def plain(self, value: Cell) -> Cell:
        """Return a cell as a file of text holds it: sizes as 3x64x64, floats in full."""
        return "x".join(f"{part:g}" for part in value) if isinstance(value, (tuple, list)) else value


@dataclass(frozen=True, eq=False, repr=False)
class Table(Drawing):
    """Rows of values under columns, with a title above and a note below."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    recipe: Recipe = Recipe()  # noqa: RUF009  it is frozen
    title: str = ""
    subtitle: str = ""
    note: str = ""

    endings: ClassVar[tuple[str, ...]] = (*outputs.TABLE_ENDINGS, *outputs.PICTURE_ENDINGS)

    needs_numbers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise OptionError(f"row {number} of the table has {len(row)} cells for {len(self.columns)} columns")
            for column, value in zip(self.columns, row, strict=True):
                if value is not None and type(value) not in _PYTHON[column.kind]:
                    raise OptionError(f"column {column.name!r} of the table holds {column.kind}, not {value!r}")

    def __repr__(self) -> str:
        return f"<Table {self.title!r}, {len(self.rows)} rows of {len(self.columns)} columns>"

    @property
    def records(self) -> list[dict[str, Cell]]:
        """The rows as mappings from the columns' names to values."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def cells(self) -> list[list[str]]:
        """Return the rows as texts for readers."""
        return [[column.show(value) for column, value in zip(self.columns, row, strict=True)] for row in self.rows]

    def text(self, width: int | None = None) -> str:
        """Write the table as text of `width` characters a line, the terminal's by default."""
        console, buffer = _console(width), io.StringIO()
        console.file = buffer
        self._print(console)
        return buffer.getvalue()

    def print(self, most: int | None = None) -> None:
        """Print the table on stdout, as wide as the terminal, with 120 characters a line elsewhere.

        Of more rows than `most` the first are printed, and how many more there are.
        """
        more = 0 if most is None else len(self.rows) - most
        if more <= 0:
            self._print(_console(None))
            return
        subtitle = ", ".join(filter(None, (self.subtitle, f"the first {most:,} of {len(self.rows):,} rows")))
        replace(self, rows=self.rows[:most], subtitle=subtitle)._print(_console(None))

    def _print(self, console: Any) -> None:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
        table.title = Text(visible(self.title), "bold") if self.title else None
        for column in self.columns:
            justify = "right" if column.right else "left"
            table.add_column(
                Text(column.title), justify=justify, no_wrap=column.unbroken or column.right, overflow="fold"
            )
        for row in self.cells():
            table.add_row(*map(Text, row))
        console.print(table)
        for words in filter(None, (self.subtitle, self.note)):
            console.print(Text(visible(words, keep="\n"), "dim"))

    def markdown(self) -> str:
        """Write the table in Markdown, numbers to the right."""
        rule = ["--:" if column.right else "---" for column in self.columns]
        lines = [[column.title for column in self.columns], rule, *self.cells()]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        return "\n\n".join(filter(None, (self._lead(), table, self.note))) + "\n"

    def _lead(self) -> str:
        return ". ".join(filter(None, (self.title, self.subtitle)))

    def csv(self) -> str:
        """Write the values as comma-separated text, columns by name; a missing value is empty."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(column.name for column in self.columns)
        for row in self.rows:
            writer.writerow(column.plain(value) for column, value in zip(self.columns, row, strict=True))
        return buffer.getvalue()

    def json(self) -> str:
        """Write the rows as a JSON list of objects; what is no number there (NaN, infinity) is null."""
        rows = [{name: _finite(value) for name, value in record.items()} for record in self.records]
        return json.dumps(rows, indent=1, ensure_ascii=False)

    def html(self) -> str:
        """Write the table as an HTML fragment that looks well without a style sheet."""
        head = "".join(_html_cell("th", column, html.escape(column.title)) for column in self.columns)
        body = "".join(
            "<tr>"
            + "".join(_html_cell("td", c, html.escape(t)) for c, t in zip(self.columns, row, strict=True))
            + "</tr>"
            for row in self.cells()
        )
        return (
            f"<h3>{html.escape(self.title)}</h3><p class='subtitle'>{html.escape(self.subtitle)}</p>"
            "<div class='scroll' style='overflow-x:auto'><table class='table' style='border-collapse:collapse'>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
            + (f"<p class='note'>{html.escape(self.note)}</p>" if self.note else "")
        )

    def _repr_html_(self) -> str:
        return self.html()

    # A notebook shows the richest form: the table itself, rather than a picture of it.
    _repr_png_ = None  # type: ignore[assignment]

    def words(self) -> dict[str, Any]:
        columns = [vars(column) for column in self.columns]
        return {
            "title": self.title,
            "subtitle": self.subtitle,
            "note": self.note,
            "columns": columns,
            "rows": self.rows,
        }

    @classmethod
    def from_words(
        cls, words: Mapping[str, Any], numbers: Mapping[str, np.ndarray], recipe: Recipe, image: Image.Image | None
    ) -> Self:
        columns = tuple(Column(**column) for column in words["columns"])
        rows = tuple(tuple(tuple(v) if isinstance(v, list) else v for v in row) for row in words["rows"])
        return cls(columns, rows, replace(recipe, display={}), words["title"], words["subtitle"], words["note"])

    def save(self, path: str | Path, ending: str = "", **paper: Unpack[PaperOptions]) -> Path:
        """Write the table by its ending: .csv, .json, .md, .html, .txt, .parquet (extra `data`), or as a picture.

        `ending` says the format of a file that is called otherwise; `paper` how a picture is set, as `figure` takes it.
        The file appears whole or not at all. Raises OutputError when it cannot be written, OptionError for a text that
        is set for a paper.
        """
        path = Path(path)
        writers: dict[str, Callable[[], str]] = {
            ".csv": self.csv,
            ".json": lambda: self.json() + "\n",
            ".md": self.markdown,
            ".txt": partial(self.text, _WIDTH),
            ".html": self._page,
        }
        suffix = ending or path.suffix.lower()
        if suffix not in outputs.TABLE_ENDINGS:
            return super().save(path, **paper)
        if paper:
            raise OptionError(f"{path} is no figure: {', '.join(paper)} are for {', '.join(outputs.PICTURE_ENDINGS)}")
        if suffix == ".parquet":
            return outputs.write_made(path, self._write_parquet)
        text = writers[suffix]()
        return outputs.write_text(path, text)

    def _page(self) -> str:
        from .pages import article, page

        return page(self.title, article(self.html(), self.recipe.to_json(), {}))

    def _write_parquet(self, file: BinaryIO) -> None:
        outputs.check_pyarrow()
        arrow: Any = importlib.import_module("pyarrow")
        kinds = {
            "text": arrow.string(),
            "whole": arrow.int64(),
            "number": arrow.float64(),
            "size": arrow.list_(arrow.float64()),
            "flag": arrow.bool_(),
        }
        fields = [arrow.field(column.name, kinds[column.kind]) for column in self.columns]
        meta = {b"convscope": self.recipe.to_json().encode()}
        schema = arrow.schema(fields, metadata=meta)
        # Names of files that are not UTF-8 are written as CSV has them.
        rows = [{name: _storable(value) for name, value in record.items()} for record in self.records]
        importlib.import_module("pyarrow.parquet").write_table(arrow.Table.from_pylist(rows, schema), file)

    def numbers(self) -> dict[str, np.ndarray]:
        """Return the columns of numbers, by name; NaN where a value is missing."""
        import numpy as np

        found: dict[str, np.ndarray] = {}
        for i, column in enumerate(self.columns):
            if column.right:
                values: list[Any] = [math.nan if row[i] is None else row[i] for row in self.rows]
                found[column.name] = np.array(values, float)
        return found

    def page(self, paper: Paper) -> Page:
        from .table_pages import arranged

        return arranged(self, paper)

    def sheet(self) -> Sheet:
        from .layout import Sheet, Tile

        return Sheet("", ((Tile(self.render()),),))


def _console(width: int | None) -> Any:
    from rich.console import Console

    return Console(width=width if width is not None or sys.stdout.isatty() else _WIDTH, highlight=False)


def _storable(value: Cell) -> Cell:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _finite(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _html_cell(tag: str, column: Column, text: str) -> str:
    look = (
        "text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap" if column.right else "text-align:left"
    )
    return f"<{tag} style='padding:.2em .8em .2em 0;{look}'>{text}</{tag}>"
