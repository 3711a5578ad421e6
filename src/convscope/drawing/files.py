"""Drawings from files: what `save` and `save_values` wrote, read back with recipe, words and numbers.

Beside the recipe a file holds the drawing's words (title, captions, units, how it is shown) as JSON: in a PNG as a text
chunk, in a PDF in its list of information, in an SVG and in .safetensors as metadata, in .npz as the archive's comment.
Numbers lie in .npz and .safetensors.
"""

from __future__ import annotations

import html
import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from zipfile import BadZipFile, ZipFile

from .. import outputs
from ..errors import ConvscopeError, OutputError, PictureError, RecipeError, told
from ..parsing import Document, read_bytes
from ..recipes import CHUNK, Recipe
from . import svg
from .paper import PAPER, Paper, PaperOptions

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from .base import Drawing

WORDS = "convscope.drawing"
"""The name under which a file holds the drawing's words."""

_SCHEMA = 1
_MOST_DOCUMENT = 2**28
"""Bytes of a PDF or an SVG that is read."""

_MOST = 65535
"""Bytes that a zip archive's comment may have."""

Meta = Mapping[str, str]


def meta_of(drawing: Drawing, paper: PaperOptions | None = None) -> dict[str, str]:
    """Return what a file holds beside pixels or numbers: the recipe, and the drawing's words, as JSON by name.

    The recipe's `display` says which paper it is set for, where that is not the screen.
    """
    recipe, set_for = drawing.shown_recipe, Paper.of(**(paper or {})).options
    if set_for:
        recipe = replace(recipe, display={**recipe.display, PAPER: set_for})
    words = {"schema": _SCHEMA, "kind": type(drawing).__name__, **drawing.words()}
    return {CHUNK: recipe.to_json(), WORDS: json.dumps(words, ensure_ascii=True)}


def joined(meta: Meta) -> dict[str, str]:
    """Return the metadata under one name: .safetensors keeps no order of several, and its bytes would differ."""
    return {CHUNK: json.dumps({**json.loads(meta[CHUNK]), WORDS: json.loads(meta[WORDS])})}


def write_npz(file: BinaryIO, name: str, numbers: Mapping[str, np.ndarray], meta: Meta) -> None:
    """Write arrays by name for the file `name`, with the metadata as the archive's comment, compressed where long."""
    import numpy as np

    comment = json.dumps(dict(meta)).encode()
    if len(comment) > _MOST:
        comment = zlib.compress(comment, 9)
    if len(comment) > _MOST:
        raise OutputError(f"{name}: the drawing's texts are too long for .npz; use .safetensors")
    np.savez_compressed(file, **numbers)  # type: ignore[arg-type]
    with ZipFile(file, "a") as archive:
        archive.comment = comment


def read_recipe(path: str | Path) -> Recipe:
    """Read the recipe inside a .png, .pdf, .svg, .npz or .safetensors file that convscope wrote.

    Raises PictureError for what cannot be read, RecipeError where there is no recipe, or a newer one.
    """
    path = Path(path)
    text = _meta(path).get(CHUNK)
    if not text:
        raise RecipeError(
            f"{path} holds no recipe: it was not written by convscope, or was saved again by a program that drops it"
        )
    return Recipe.from_json(text, f"the recipe inside {path}")


def load(path: str | Path) -> Drawing:
    """Read a drawing that convscope wrote: .npz, .safetensors, or .png, .pdf or .svg with one of these beside it.

    Raises PictureError for what cannot be read or has no numbers, RecipeError where there is no recipe, or a newer one.
    """
    path = Path(path)
    recipe, words = read_recipe(path), _words(path)
    kind = _kinds().get(words["kind"])
    if kind is None:
        raise PictureError(f"{path} holds a {words['kind']}, which this version of convscope does not have")
    image = _image_beside(path, recipe)
    numbers = _numbers_beside(path, recipe)
    if numbers is None and kind.needs_numbers:
        raise PictureError(
            f"{path} holds no numbers, and there is no {path.stem}.npz or .safetensors of the same drawing beside it: "
            f"write them with save_values, or make it again with convscope.remake({str(path)!r})"
        )
    try:
        drawing = kind.from_words(words, numbers or {}, recipe, image)
    except (ConvscopeError, OSError):
        raise
    except Exception as error:  # words or numbers of another shape than a drawing of this kind has
        raise PictureError(f"the drawing in {path} cannot be read: {told(error)}") from None
    return drawing


def _kinds() -> dict[str, type[Drawing]]:
    """Return all kinds of drawings, by the name of their class."""
    from .base import Drawing

    for module in (".drawings", ".films", ".study", ".tables"):
        import_module(module, __package__)

    kinds: dict[str, type[Drawing]] = {}
    waiting: list[type[Drawing]] = [Drawing]
    while waiting:
        kind = waiting.pop()
        kinds.setdefault(kind.__name__, kind)
        waiting += kind.__subclasses__()
    del kinds["Drawing"]
    return kinds


@dataclass(frozen=True)
class _Kind:
    kind: str


def _words(path: Path) -> dict[str, Any]:
    text = _meta(path).get(WORDS)
    if not text:
        raise PictureError(f"{path} holds a recipe and no drawing that can be read: convscope.remake makes it again")
    document = Document(f"the drawing in {path}", text, PictureError)
    try:
        words = document.json(dict[str, Any])
        document.shaped(words, _Kind)
    except PictureError as error:
        raise PictureError(f"{error}; convscope.remake makes it again") from None
    if not isinstance(words.get("schema"), int) or words["schema"] > _SCHEMA:
        raise document.fault(
            f"it has schema {str(words.get('schema'))[:20]}, and this version of convscope reads up to {_SCHEMA}: "
            "pip install --upgrade convscope"
        )
    return words


def _meta(path: Path) -> Meta:
    """Return what a file holds beside pixels or numbers. Raises PictureError where it cannot be read."""
    readers: dict[str, Callable[[Path], Meta]] = {
        ".npz": _npz_meta,
        ".safetensors": _safetensors_meta,
        ".pdf": _pdf_meta,
        ".svg": _svg_meta,
    }
    if not path.is_file():
        raise PictureError(f"there is no {'folder to read: name a file in ' if path.is_dir() else 'picture '}{path}")
    return readers.get(path.suffix.lower(), _png_meta)(path)


def _png_meta(path: Path) -> Meta:
    from ..data.image_files import open_image
    from ..data.opening import open_picture

    open_picture(path)
    with open_image(path, str(path)) as image:
        return {str(key): value for key, value in image.info.items() if isinstance(value, str)}


def _pdf_meta(path: Path) -> Meta:
    """Read a PDF's list of information, as matplotlib writes it: texts in brackets, backslashes before some letters."""
    content = read_bytes(path, PictureError, most=_MOST_DOCUMENT)
    if not content.startswith(b"%PDF-"):
        raise PictureError(f"cannot read {path}: it is no PDF")
    found: dict[str, str] = {}
    for name in (CHUNK, WORDS):
        match = re.search(rb"/" + re.escape(name.encode()) + rb" \(((?:[^\\()]|\\.)*+)\)", content)
        if match is not None:
            found[name] = re.sub(rb"\\(.)", rb"\1", match[1]).decode("ascii", "replace")
    return found


def _svg_meta(path: Path) -> Meta:
    text = read_bytes(path, PictureError, most=_MOST_DOCUMENT)
    if b"<svg" not in text[:2000]:
        raise PictureError(f"cannot read {path}: it is no SVG")
    _, start, rest = text.partition(svg.META.encode())
    inside, end, _ = rest.partition(b"</metadata>")
    if not (start and end):
        return {}
    about = Document.decoded(inside, f"the texts inside {path}", PictureError)
    return Document(about.name, html.unescape(about.text), PictureError).json(dict[str, str])


def _npz_meta(path: Path) -> Meta:
    try:
        with ZipFile(path) as archive:
            comment = archive.comment
        text = zlib.decompress(comment) if comment[:1] == b"\x78" else comment
    except (BadZipFile, OSError, zlib.error, ValueError, NotImplementedError) as error:
        raise PictureError(f"cannot read {path}: {error}") from None
    if not text.startswith(b"{"):  # somebody else's comment
        return {}
    return Document.decoded(text, f"the comment of {path}", PictureError).json(dict[str, str])


def _safetensors_meta(path: Path) -> Meta:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            meta = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise PictureError(f"cannot read {path}: {error}") from None
    if CHUNK not in meta:
        return meta
    held = Document(f"the recipe inside {path}", meta[CHUNK], RecipeError).json(dict[str, object])
    return {**meta, WORDS: json.dumps(held[WORDS])} if WORDS in held else meta


def _beside(path: Path, endings: tuple[str, ...], recipe: Recipe) -> Path | None:
    """Return the file itself, or one of the same name with one of the endings that holds the same drawing."""
    if path.suffix.lower() in endings:
        return path
    for other in (path.with_suffix(ending) for ending in endings):
        if other.is_file() and read_recipe(other) == recipe:
            return other
    return None


def _image_beside(path: Path, recipe: Recipe) -> Image.Image | None:
    from ..data.opening import open_picture

    place = _beside(path, (".png",), recipe)
    return None if place is None else open_picture(place).convert("RGB")


def _numbers_beside(path: Path, recipe: Recipe) -> dict[str, np.ndarray] | None:
    place = _beside(path, outputs.NUMBER_ENDINGS[1:], recipe)
    if place is None:
        return None
    if place.suffix.lower() == ".npz":
        import numpy as np

        try:
            with np.load(place, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except Exception as error:  # numpy, zipfile and Python's tokenizer have errors of their own
            raise PictureError(f"cannot read the numbers in {place}: {told(error)}") from None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(place)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:  # also of a type that numpy lacks
        raise PictureError(f"cannot read the numbers in {place}: {told(error)}") from None
