"""What every drawing can do: paint itself, show itself in a notebook, and write itself with its recipe and its numbers.

Nothing here imports torch or numpy before something is drawn: commands that print tables are quick.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from .. import outputs
from ..errors import OutputError, PictureError
from ..recipes import Recipe

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from PIL import Image

    from .layout import Sheet


_COMPRESSION = 2
"""zlib's level for PNG: 7 % larger files than the usual 6, in 40 % of the time, of which many drawings need most."""


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

    @abstractmethod
    def numbers(self) -> dict[str, np.ndarray]:
        """Return the raw numbers by name."""

    def render(self) -> Image.Image:
        """Paint the drawing as an RGB image."""
        from . import layout

        return layout.paint(self.sheet())

    def figure(self) -> Figure:
        """Return the drawing as a matplotlib figure, for papers and further editing."""
        from . import figures, layout

        return figures.figure(layout.arranged(self.sheet()))

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self._write_png(self.render(), buffer)
        return buffer.getvalue()

    def _write_png(self, image: Image.Image, file: Any) -> None:
        from PIL import PngImagePlugin

        from .files import meta_of

        info = PngImagePlugin.PngInfo()
        for name, text in meta_of(self).items():
            info.add_itxt(name, text)
        image.save(file, "PNG", pnginfo=info, compress_level=_COMPRESSION)

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

    def save(self, path: str | Path) -> Path:
        """Write the drawing: .png with the recipe inside, .jpg, .webp, or .pdf and .svg through matplotlib.

        The file appears whole or not at all. Raises OutputError when it cannot be written or its ending is unknown.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix == ".png":
            return outputs.write_made(path, lambda to: self._write_png(self.render(), to))
        if suffix in (".jpg", ".jpeg", ".webp"):
            return outputs.write_image(path, self.render(), quality=92)
        if suffix in (".pdf", ".svg"):
            from . import figures

            return outputs.write_made(path, lambda to: figures.write(self.figure, to, suffix[1:]))
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
