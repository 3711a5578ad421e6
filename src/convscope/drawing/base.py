"""What every drawing can do: paint itself, show itself in a notebook, and write itself with its recipe and its numbers.

Nothing here imports torch or numpy before something is drawn: commands that print tables are quick.
"""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack, cast

from .. import outputs
from ..assumptions import announced
from ..errors import OutputError, PictureError
from ..recipes import Recipe

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from PIL import Image

    from .layout import Sheet
    from .paper import Paper, PaperOptions
    from .typesetting import Page

_COMPRESSION = 2
"""zlib's level for PNG: 7% larger files than the usual 6, in 40% of the time, of which many drawings need most."""


_PRINTED = 300
"""Pixels per inch, or more, that pictures set for a paper have."""


class Drawing(ABC):
    """What every drawing can do; subclasses say how they are laid out and what their numbers are."""

    recipe: Recipe
    endings: ClassVar[tuple[str, ...]] = outputs.PICTURE_ENDINGS
    """The endings that `save` knows."""

    def with_recipe(self, recipe: Recipe, footnote: str) -> Self:
        """Return the drawing with the recipe it was made by, and what a reader must know above its own note."""
        note = "\n".join(filter(None, (footnote, str(getattr(self, "note", "")))))
        changes: dict[str, Any] = {"recipe": recipe, "note": note}
        return replace(cast("Any", self), **changes)

    needs_numbers: ClassVar[bool] = True
    """Whether it can be read back only with its numbers."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._title()!r}>"

    def _title(self) -> str:
        return str(getattr(self, "title", ""))

    @abstractmethod
    def sheet(self) -> Sheet:
        """Lay the drawing out."""

    def announced(self) -> Sheet:
        """Lay the drawing out with what was assumed in its first line."""
        sheet = self.sheet()
        return replace(sheet, title=announced(sheet.title, self.recipe.assumed)) if self.recipe.assumed else sheet

    @abstractmethod
    def numbers(self) -> dict[str, np.ndarray]:
        """Return the raw numbers by name."""

    def page(self, paper: Paper) -> Page:
        """Set the drawing for a paper; every format shows this page. Raises OptionError where it is too narrow."""
        from .layout import arranged
        from .rearranging import rearranged

        return arranged(*rearranged(self.announced(), paper), paper=paper)

    def render(self) -> Image.Image:
        """Paint the drawing as an RGB image."""
        from .painting import paint
        from .paper import SCREEN

        return paint(self.page(SCREEN))

    def figure(self, **paper: Unpack[PaperOptions]) -> Figure:
        """Return the drawing as a matplotlib figure, for papers and further editing.

        Args:
            paper: `width`, as "3.3in" or "84mm"; `font`, the size of captions in points; `shared_scale=True`, one
                scale for all maps of one unit; `titles=False`, without title, subtitle and note; `columns`, how many
                tiles stand in a row.

        Raises OptionError for options that are none, and for a width in which the tiles have no room.
        """
        from . import figures
        from .paper import Paper

        return figures.figure(self.page(Paper.of(**paper)))

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self._write_png(buffer, {})
        return buffer.getvalue()

    def _painted(self, paper: PaperOptions) -> tuple[Image.Image, dict[str, Any]]:
        """Paint the drawing for a paper, fine enough for print, and say in Pillow's words how many pixels an inch has.

        Its images are painted pixel by pixel, or each pixel several times: nothing is resampled.
        """
        from .painting import paint
        from .paper import SCREEN, Paper

        asked = Paper.of(**paper)
        if asked == SCREEN:
            return self.render(), {}
        page = self.page(asked)
        scale = page.sharp * math.ceil(_PRINTED / (page.per_inch * page.sharp))
        return paint(page, scale), {"dpi": (scale * page.per_inch,) * 2}

    def _write_png(self, file: Any, paper: PaperOptions) -> None:
        from PIL import PngImagePlugin

        from .files import meta_of

        info = PngImagePlugin.PngInfo()
        for name, text in meta_of(self, paper).items():
            info.add_itxt(name, text)
        image, options = self._painted(paper)
        image.save(file, "PNG", pnginfo=info, compress_level=_COMPRESSION, **options)

    def _write_pdf(self, file: Any, paper: PaperOptions) -> None:
        from . import figures
        from .files import meta_of

        figures.write_pdf(lambda: self.figure(**paper), file, self._title(), meta_of(self, paper))

    def _svg(self, paper: PaperOptions) -> str:
        from . import svg
        from .files import meta_of
        from .paper import Paper

        return svg.text_of(self.page(Paper.of(**paper)), self._title(), meta_of(self, paper))

    def display(self) -> dict[str, Any]:
        """Return the fields that say how it is shown, where they are not the default: `remake` sets them again."""
        return {}

    @property
    def shown_recipe(self) -> Recipe:
        """The recipe as files hold it, with how the drawing is shown."""
        return replace(self.recipe, display=self.display())

    def words(self) -> dict[str, Any]:
        """Return what a file must hold beside recipe and numbers to read the drawing back, as JSON can hold it."""
        return {}

    @classmethod
    def from_words(
        cls, words: Mapping[str, Any], numbers: Mapping[str, np.ndarray], recipe: Recipe, image: Image.Image | None
    ) -> Self:
        """Read the drawing back; `image` is what it was painted as, where that is there too."""
        raise PictureError(f"a {cls.__name__} cannot be read back: convscope.remake makes it again from its file")

    @staticmethod
    def load(path: str | Path) -> Drawing:
        """Read what `save` and `save_values` wrote: .npz, .safetensors, or .png with one of these beside it.

        Raises PictureError for what cannot be read or has no numbers, RecipeError for no recipe or a newer one.
        """
        from .files import load

        return load(path)

    def save(self, path: str | Path, **paper: Unpack[PaperOptions]) -> Path:
        """Write the drawing: .png, .pdf or .svg with the recipe inside, .jpg or .webp, all of one layout.

        `paper` is how it is set, as `figure` takes it. The file appears whole or not at all. Raises OutputError when it
        cannot be written or its ending is unknown, OptionError for a paper that is too narrow.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".png":
            return outputs.write_made(path, lambda to: self._write_png(to, paper))
        if suffix in (".jpg", ".jpeg", ".webp"):
            image, options = self._painted(paper)
            return outputs.write_image(path, image, quality=92, **options)
        if suffix == ".pdf":
            return outputs.write_made(path, lambda to: self._write_pdf(to, paper))
        if suffix == ".svg":
            return outputs.write_text(path, self._svg(paper))
        raise OutputError(f"cannot write {path}: endings are {', '.join(self.endings)}")

    def save_values(self, path: str | Path) -> Path:
        """Write the raw numbers: .npy (one array), .npz or .safetensors (all of them, by name).

        Raises OutputError when the file cannot be written, its ending is unknown, or .npy cannot hold several arrays.
        """
        import numpy as np

        from .files import joined, meta_of, write_npz

        path, numbers = Path(path), self.numbers()
        if path.suffix == ".npy":
            if len(numbers) != 1:
                raise OutputError(
                    f"{path}: there are {len(numbers)} arrays ({', '.join(numbers)}); use .npz or .safetensors"
                )
            return outputs.write_made(path, lambda to: np.save(to, next(iter(numbers.values()))))
        if path.suffix == ".npz":
            return outputs.write_made(path, lambda to: write_npz(to, path.name, numbers, meta_of(self)))
        if path.suffix == ".safetensors":
            from safetensors.numpy import save

            whole = {name: np.ascontiguousarray(value) for name, value in numbers.items()}
            return outputs.write_bytes(path, save(whole, metadata=joined(meta_of(self))))
        raise OutputError(f"cannot write numbers to {path}: endings are {', '.join(outputs.NUMBER_ENDINGS)}")
