"""Recipes: how a drawing was made, written into every file, and the identity of a computation.

A recipe holds everything that decides a drawing's numbers, and what the run then said. Its `key` covers only the
former, so that it is known before anything is computed: caches, resumed runs and addresses of pages go by it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .context import whole
from .errors import RecipeError
from .parsing import Document

SCHEMA = 1
"""Counts up whenever a recipe of this version could be misread by an older one."""

CHUNK = "convscope"
"""The name under which a recipe is stored in a PNG or beside arrays."""


@dataclass(frozen=True)
class NetworkSource:
    """What `load` was called with, and the options that `Net.changed` put in their place afterwards."""

    name: str
    weights: str | None = "default"
    epoch: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    changed: Mapping[str, Any] = field(default_factory=dict[str, Any])


FAILED = "failed"
"""Under which `settled` has why some of several pictures could not be read."""

DATA = "data"
"""Under which `settled` has the addresses of a whole data set."""

PART = "part"
"""Under which `settled` says that the run was interrupted, and this is what it had."""


@dataclass(frozen=True)
class PictureRecord:
    """Where a picture was, as it was named, and the SHA-256 of its content, "" where nothing could be read."""

    where: str
    sha256: str


@dataclass(frozen=True)
class Recipe:
    """How a drawing was made.

    Decides the numbers: `method`, `network` (name, `source` as `load` takes it, how it reads pixels), `weights` (hash),
    `pictures`, `of` (the objective as it was given), `size`, `seeds` (how many draws of a random network are averaged),
    `options` (the method's own, defaults included). Said by the run: `objective` (settled), `settled` (what the method
    chose for itself), `remarks`, `assumed` (the first remarks in short: what nobody stated). `versions` are those of
    convscope and torch, `display` how the drawing is shown.
    """

    method: str = ""
    network: Mapping[str, Any] = field(default_factory=dict[str, Any])
    weights: str = ""
    pictures: tuple[PictureRecord, ...] = ()
    of: Any = None
    size: int | tuple[int, int] | None = None
    seeds: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    objective: str = ""
    settled: Mapping[str, Any] = field(default_factory=dict[str, Any])
    remarks: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    display: Mapping[str, Any] = field(default_factory=dict[str, Any])
    schema: int = SCHEMA

    @property
    def key(self) -> str:
        """The SHA-256 of what decides the numbers, as canonical JSON, in hexadecimal digits."""
        content = {name: getattr(self, name) for name in ("schema", "method", "weights", "of", "size")}
        content |= {"seeds": self.seeds} if self.seeds is not None else {}
        content |= {PART: True} if self.settled.get(PART) else {}
        content |= {
            "network": {name: value for name, value in self.network.items() if name not in ("name", "note")},
            "pictures": [picture.sha256 for picture in self.pictures],
            "options": {name: _contents(value) for name, value in self.options.items()},
            "convscope": self.versions.get("convscope", ""),
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def seed(self) -> int | None:
        """The seed, of a method that draws random numbers."""
        return self.options.get("seed")

    def to_json(self) -> str:
        """Return the recipe as JSON, keys in a fixed order."""
        text = json.dumps(asdict(self) | {"key": self.key}, ensure_ascii=False, indent=2, default=str)
        # File names of other encodings reach Python with surrogates, which no file can hold.
        return text.encode("utf-8", "replace").decode("utf-8")

    @classmethod
    def from_json(cls, text: str, name: str = "the recipe") -> Recipe:
        """Read a recipe back; messages call it by `name`. Raises RecipeError for what is none, or of a newer schema."""
        document = Document(name, text, RecipeError)
        content = document.json(dict[str, object])
        schema = content.get("schema")
        if not isinstance(schema, int):
            raise document.fault("it has no schema number: an older version of convscope, or another program, wrote it")
        if schema > SCHEMA:
            raise document.fault(
                f"it has schema {schema}, and this version of convscope reads up to {SCHEMA}: "
                "pip install --upgrade convscope"
            )
        document.shaped(content, _Stored)
        return document.shaped(content, cls)


def _contents(value: Any) -> Any:
    """Return an option with pictures as their content alone, wherever they were."""
    if isinstance(value, PictureRecord):
        return value.sha256
    if isinstance(value, Mapping) and set(value) == {"where", "sha256"}:
        return value["sha256"]
    return [_contents(item) for item in value] if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class _StoredNetwork:
    """What `remake` reads of a network's record."""

    name: str | None = None
    source: NetworkSource | None = None
    reads: Mapping[str, object] = field(default_factory=dict[str, object])
    seed: int | None = None


@dataclass(frozen=True)
class _Stored:
    network: _StoredNetwork = _StoredNetwork()


_in_use: ContextVar[Recipe | None] = ContextVar("recipe", default=None)


@contextmanager
def making(recipe: Recipe) -> Generator[None]:
    """Let what runs inside the block know the recipe that it follows."""
    nested = _in_use.get() is not None  # an interruption is to end the outer one
    token = _in_use.set(recipe)
    try:
        with whole(nested):
            yield
    finally:
        _in_use.reset(token)


def current_recipe(**settled: Any) -> Recipe:
    """Return the recipe that is being followed, for files that a run writes on its way; empty outside a run."""
    recipe = _in_use.get() or Recipe()
    return replace(recipe, settled={**recipe.settled, **settled})
