"""What is registered, read from the sources without importing them, so that `convscope --help` is quick."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from . import plugins

ROOMS = ("attribution", "views", "synthesis", "studies")
"""The packages whose modules register methods and views."""

_DECORATORS = {"method": "explain", "view": "look"}


@dataclass(frozen=True)
class Listed:
    """A registered function as its source has it."""

    name: str
    title: str
    kind: str
    group: str
    path: Path
    node: ast.FunctionDef

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        return (ast.get_docstring(self.node) or "").partition("\n\n")[0].replace("\n", " ")

    @property
    def headline(self) -> str:
        """The first sentence; of a method behind its title, unless that is the name."""
        named = self.title.lower().replace(" ", "_").replace("-", "_") == self.name
        return self.summary if named or self.kind != "method" else headed(self.title, self.summary)

    @property
    def options(self) -> list[str]:
        """The names of its options."""
        return [option.arg for option in self.node.args.kwonlyargs]


def headed(title: str, text: str) -> str:
    """Return a text behind its title, which is not said twice."""
    return text if text.startswith(title) else f"{title}: {text}".rstrip(": ")


def listing() -> dict[str, Listed]:
    """Return everything that is registered, by name; of two with one name the first, ours before plugins'."""
    entries: dict[str, Listed] = {}
    for path in (*_own(), *plugins.sources()):
        for entry in _entries(path):
            entries.setdefault(entry.name, entry)
    return entries


def in_python() -> dict[str, str]:
    """Return how everything public is written in Python, by name: methods in quotes, all else as a call."""
    public = import_module(__package__ or "convscope").__all__
    calls = {name: f"convscope.{name}(...)" for name in public if name.islower()}
    return calls | {name: repr(name) for name, each in listing().items() if each.kind == "method"}


def modules() -> list[str]:
    """Return the names of our own modules that register something."""
    root = Path(__file__).parent
    return [
        ".".join((__package__ or "convscope", *path.relative_to(root).with_suffix("").parts))
        for path in _own()
        if any(True for _ in _entries(path))
    ]


@functools.cache
def _own() -> tuple[Path, ...]:
    folders = (Path(__file__).parent / room for room in ROOMS)
    return tuple(sorted((path for folder in folders for path in folder.glob("*.py")), key=lambda path: path.stem))


@functools.cache
def _entries(path: Path) -> tuple[Listed, ...]:
    return tuple(_parsed(path))


def _parsed(path: Path) -> Iterator[Listed]:
    text = path.read_text(encoding="utf-8")
    if not any(f"@{name}(" in text or f".{name}(" in text for name in _DECORATORS):
        return
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a plugin's: said when it is imported
        return
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                kind = _decorates(decorator)
                if isinstance(decorator, ast.Call) and kind:
                    yield _listed(path, node, decorator, kind)


def _listed(path: Path, node: ast.FunctionDef, decorator: ast.Call, kind: str) -> Listed:
    words = {word.arg: word.value.value for word in decorator.keywords if isinstance(word.value, ast.Constant)}
    first = decorator.args[0] if decorator.args else None
    title = first.value if isinstance(first, ast.Constant) else words.get("title", node.name)
    group = words.get("group", _DECORATORS[kind])
    return Listed(node.name, str(title), str(words.get("kind", kind)), str(group), path, node)


def _decorates(decorator: ast.expr) -> str:
    """Return which of our decorators it is, by name or as an attribute; "" for another."""
    function = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = getattr(function, "id", None) or getattr(function, "attr", "")
    return name if name in _DECORATORS else ""
