"""The registry: every method and view, found by its decorator, read by the command line, the pages and the tests."""

from __future__ import annotations

import ast
import importlib
import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import OptionError, nearest

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter of a method: its type, default and the help written where it is declared."""

    name: str
    type: Any
    default: Any
    help: str


@dataclass(frozen=True)
class Entry:
    """A registered function with what a reader must know of it."""

    name: str
    title: str
    function: Callable[..., Any]
    paper: str = ""
    caveat: str = ""
    signed: bool = False
    projects: bool = False
    linear: bool = True
    unit: str = ""
    films: str = ""

    @property
    def attributes(self) -> bool:
        """Whether it is a method, which answers an objective about one picture, rather than a view."""
        return METHODS.get(self.name) is self

    @property
    def takes(self) -> str:
        """What it is given besides the network: "picture", "pictures" or ""."""
        parameters = inspect.signature(self.function).parameters.values()
        names = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
        return "picture" if self.attributes or "picture" in names else "pictures" if "pictures" in names else ""

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n\n")[0].replace("\n", " ")

    @property
    def options(self) -> dict[str, Option]:
        """The keyword-only parameters, by name."""
        hints = typing.get_type_hints(self.function, include_extras=True)
        options: dict[str, Option] = {}
        for name, parameter in inspect.signature(self.function).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                kind, *extra = (
                    typing.get_args(hints[name])
                    if typing.get_origin(hints[name]) is typing.Annotated
                    else [hints[name]]
                )
                options[name] = Option(name, kind, parameter.default, str(extra[0]) if extra else "")
        return options

    def check_options(self, given: dict[str, Any]) -> None:
        """Raise OptionError for options that the method does not have."""
        for name in given:
            if name not in self.options:
                known = nearest(name, self.options) if self.options else "none"
                raise OptionError(f"{self.name} has no option {name!r}; it has: {known}")


ROOMS = ("attribution", "views", "synthesis")
"""The packages whose modules register methods and views."""

METHODS: dict[str, Entry] = {}
VIEWS: dict[str, Entry] = {}


def method(
    title: str,
    *,
    paper: str,
    signed: bool,
    projects: bool = False,
    linear: bool = True,
    unit: str | None = None,
    caveat: str = "",
) -> Callable[[F], F]:
    """Register an attribution: (net, pixels, objective, *, options) -> (n, c, h, w) or (n, 1, h, w).

    `signed` says that the sign has a meaning; `projects` that the result is a picture with grey as zero, and that a
    channel asked for without a place means its strongest place; `linear` that the map doubles with the objective and
    does not change when a constant is added to it. `unit` is that of the values, where "score" stands for what was
    asked; a picture has none unless it says so.
    """

    def register(function: F) -> F:
        entry = Entry(
            function.__name__,
            title,
            function,
            paper=paper,
            caveat=caveat,
            signed=signed,
            projects=projects,
            linear=linear,
            unit=unit if unit is not None else "" if projects else "score",
        )
        METHODS[entry.name] = entry
        return function

    return register


def view(title: str, *, paper: str = "", caveat: str = "", films: str = "") -> Callable[[F], F]:
    """Register a view: (net[, picture or pictures], *, options) -> a drawing.

    `films` names the option with which the drawing is a Film.
    """

    def register(function: F) -> F:
        VIEWS[function.__name__] = Entry(function.__name__, title, function, paper, caveat, films=films)
        return function

    return register


def load_all() -> dict[str, Entry]:
    """Import every module of `convscope.methods` and return all entries by name, methods first."""
    for path in _modules():
        importlib.import_module(f"{__package__}.{path.parent.name}.{path.stem}")
    return {**METHODS, **VIEWS}


def find(name: str) -> Entry:
    """Return the method of that name, or raise OptionError with the nearest."""
    load_all()
    if name not in METHODS:
        raise OptionError(f"there is no method {name!r}; nearest: {nearest(name, METHODS)}")
    return METHODS[name]


def listing() -> Iterator[tuple[str, str]]:
    """Yield (name, summary) of every entry without importing it: the source is read, so that `--help` is quick."""
    for node in _sources():
        yield node.name, (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")


def listed_options() -> dict[str, list[str]]:
    """Return the names of every entry's options without importing it."""
    return {node.name: [option.arg for option in node.args.kwonlyargs] for node in _sources()}


def _sources() -> Iterator[ast.FunctionDef]:
    for path in _modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(_registers(d) for d in node.decorator_list):
                yield node


def _registers(decorator: ast.expr) -> bool:
    return (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Name)
        and decorator.func.id in ("method", "view")
    )


def _modules() -> list[Path]:
    rooms = (Path(__file__).parent / room for room in ROOMS)
    return sorted((p for room in rooms for p in room.glob("*.py") if p.stem != "__init__"), key=lambda p: p.stem)
