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


@dataclass(frozen=True, eq=False, repr=False)
class Study(Drawing):
    """What a study found.

    `gist` says it in a sentence or two and stands beneath figure and table alike; `table` are the numbers for readers
    and programs, `content` the figure, `values` raw arrays by name.
    """

    gist: str
    table: Table
    content: Sheet
    values: Mapping[str, Tensor]
    recipe: Recipe = _NO_RECIPE

    endings: ClassVar[tuple[str, ...]] = Table.endings

    def numbers(self) -> dict[str, np.ndarray]:
        return {name: value.detach().float().cpu().numpy() for name, value in self.values.items()}

    def with_recipe(self, recipe: Recipe, footnote: str) -> Self:
        table, content = (
            replace(each, note="\n".join(filter(None, (self.gist, footnote, each.note))))
            for each in (self.table, self.content)
        )
        return replace(self, recipe=recipe, table=replace(table, recipe=recipe), content=content)  # type: ignore[arg-type]

    def _title(self) -> str:
        return self.content.title

    def sheet(self) -> Sheet:
        return self.content

    def words(self) -> dict[str, Any]:
        return {"gist": self.gist, "table": self.table.words(), "sheet": sheet_words(self.content)}

    @classmethod
    def from_words(
        cls, words: Mapping[str, Any], numbers: Mapping[str, np.ndarray], recipe: Recipe, image: Image.Image | None
    ) -> Self:
        paper, recipe = recipe.display.get(PAPER, {}), replace(recipe, display={})
        table = Table.from_words(words["table"], {}, recipe, None)
        values = {name: torch.from_numpy(np.array(value)) for name, value in numbers.items()}
        return cls(words["gist"], table, sheet_from_words(words["sheet"], image, Paper(**paper)), values, recipe)

    def save(self, path: str | Path, **paper: Unpack[PaperOptions]) -> Path:
        """Write the table (.csv, .json, .parquet, .md, .html, .txt), or the figure in a picture's ending.

        `paper` is how a figure is set, as `figure` takes it. Raises OutputError when it cannot be written.
        """
        if Path(path).suffix.lower() in TABLE_ENDINGS:
            return self.table.save(path, **paper)
        return super().save(path, **paper)
