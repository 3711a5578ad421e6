"""`Study`: what an experiment found, as a table, a figure and the numbers behind both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import numpy as np
import torch
from torch import Tensor

from ..outputs import TABLE_ENDINGS
from ..recipes import Recipe
from .base import Drawing
from .layout import Sheet
from .paper import PAPER, Paper, PaperOptions
from .sheet_words import sheet_from_words, sheet_words
from .tables import Table

if TYPE_CHECKING:
    from PIL import Image

_NO_RECIPE = Recipe()
_FOR_READERS = (".md", ".html", ".txt")


@dataclass(frozen=True, eq=False, repr=False)
class Study(Drawing):
    """What a study found.

    `gist` says it in a sentence or two and stands beneath figure and table alike; `table` are the numbers for programs
    and, unless there is a shorter `summary`, for readers; `content` is the figure, `values` are raw arrays by name.
    """

    gist: str
    table: Table
    content: Sheet
    values: Mapping[str, Tensor]
    recipe: Recipe = _NO_RECIPE
    summary: Table | None = None

    endings: ClassVar[tuple[str, ...]] = Table.endings

    def numbers(self) -> dict[str, np.ndarray]:
        return {name: value.detach().float().cpu().numpy() for name, value in self.values.items()}

    def with_recipe(self, recipe: Recipe, footnote: str) -> Self:
        def noted(note: str) -> str:
            return "\n".join(filter(None, (self.gist, footnote, note)))

        def stamped(table: Table) -> Table:
            return replace(table, recipe=recipe, note=noted(table.note))

        content = replace(self.content, note=noted(self.content.note))
        summary = None if self.summary is None else stamped(self.summary)
        return replace(self, recipe=recipe, table=stamped(self.table), content=content, summary=summary)

    @property
    def readable(self) -> Table:
        """The table for readers."""
        return self.table if self.summary is None else self.summary

    def _title(self) -> str:
        return self.content.title

    def sheet(self) -> Sheet:
        return self.content

    def words(self) -> dict[str, Any]:
        summary = None if self.summary is None else self.summary.words()
        tables = {"table": self.table.words(), "summary": summary}
        return {"gist": self.gist, **tables, "sheet": sheet_words(self.content)}

    @classmethod
    def from_words(
        cls, words: Mapping[str, Any], numbers: Mapping[str, np.ndarray], recipe: Recipe, image: Image.Image | None
    ) -> Self:
        paper, recipe = recipe.display.get(PAPER, {}), replace(recipe, display={})
        table, summary = (
            None if words[name] is None else Table.from_words(words[name], {}, recipe, None)
            for name in ("table", "summary")
        )
        values = {name: torch.from_numpy(np.array(value)) for name, value in numbers.items()}
        sheet = sheet_from_words(words["sheet"], image, Paper(**paper))
        return cls(words["gist"], table, sheet, values, recipe, summary)  # type: ignore[arg-type]

    def save(self, path: str | Path, **paper: Unpack[PaperOptions]) -> Path:
        """Write the table (.csv, .json, .parquet; for readers .md, .html, .txt), or the figure in a picture's ending.

        `paper` is how a figure is set, as `figure` takes it. Raises OutputError when it cannot be written.
        """
        suffix = Path(path).suffix.lower()
        if suffix in TABLE_ENDINGS:
            return (self.readable if suffix in _FOR_READERS else self.table).save(path, **paper)
        return super().save(path, **paper)
