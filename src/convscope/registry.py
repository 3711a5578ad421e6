"""The registry: every method and view, found by its decorator, read by the command line, the pages and the tests."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

from . import plugins
from .errors import OptionError, PluginError, nearest
from .listing import in_python, modules
from .options import Option, check_options, options_of
from .synonyms import THINGS, answer

F = TypeVar("F", bound=Callable[..., Any])
D = TypeVar("D")

Kind = Literal["method", "view", "study", "scan"]

GROUPS = {
    "explain": "Explain a picture",
    "look": "Look inside a network",
    "make": "Make pictures",
    "study": "Studies",
    "scan": "Scans of data sets",
}
"""Under which titles a user finds what is registered."""


@dataclass(frozen=True)
class Entry:
    """A registered function with what a reader must know of it."""

    name: str
    title: str
    function: Callable[..., Any]
    kind: Kind = "method"
    group: str = "explain"
    paper: str = ""
    caveat: str = ""
    signed: bool = False
    projects: bool = False
    linear: bool = True
    unit: str = ""
    films: str = ""

    @property
    def attributes(self) -> bool:
        """Whether it is a method, which answers for one picture and objective with a map, rather than a view."""
        return self.kind == "method"

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What it is given besides the network and its options: annotations by parameter, in order."""
        if self.attributes:
            return {"picture": Any}
        hints = inspect.get_annotations(self.function, eval_str=True)
        parameters = list(inspect.signature(self.function).parameters.values())[1:]
        return {p.name: hints.get(p.name, Any) for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY}

    @property
    def takes(self) -> str:
        """What it is given besides the network: "picture", "pictures" or ""."""
        return next(iter(self.inputs), "")

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n\n")[0].replace("\n", " ")

    @cached_property
    def options(self) -> dict[str, Option]:
        """The keyword-only parameters, by name."""
        return options_of(self.function)

    def check_options(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return all options, checked, defaults included. Raises OptionError."""
        return check_options(self.name, self.options, values, beside=("of", "size") if self.attributes else ())


METHODS: dict[str, Entry] = {}
VIEWS: dict[str, Entry] = {}
"""What is no method: views, studies and scans."""


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
    channel without a position means its strongest one; `linear` that the map doubles with the objective and does not
    change when a constant is added to it. `unit` is that of the values, where "score" stands for the objective; a
    picture has none unless it says so. Raises PluginError when the name is taken.
    """
    unit = unit if unit is not None else "" if projects else "score"

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
            unit=unit,
        )
        _add(METHODS, entry)
        return function

    return register


def view(
    title: str,
    *,
    paper: str = "",
    caveat: str = "",
    films: str = "",
    kind: Kind = "view",
    group: str = "look",
) -> Callable[[Callable[..., D]], Callable[..., D]]:
    """Register a view: (net[, picture or pictures], *, options) -> a drawing without recipe, which the runner adds.

    Whoever calls it may also give options by position, in their order.

    Parameters annotated InputPicture get pictures as the network reads them, others what the user gave. `films` names
    the option with which the drawing is a Film. `kind` tells studies and scans apart, `group` is one of GROUPS.
    Raises PluginError when the name is taken.
    """

    def register(function: Callable[..., D]) -> Callable[..., D]:
        entry = Entry(
            function.__name__, title, function, kind=kind, group=group, paper=paper, caveat=caveat, films=films
        )
        _add(VIEWS, entry)

        @functools.wraps(function)
        def run_view(*inputs: Any, **options: Any) -> D:
            from .running import run

            return run(entry, *inputs, **options)

        return run_view

    return register


def _add(entries: dict[str, Entry], entry: Entry) -> None:
    """Add an entry; a function that is defined again in its own module, as in a notebook, takes its own name over."""
    there = METHODS.get(entry.name) or VIEWS.get(entry.name)
    if there is not None and there.function.__module__ != entry.function.__module__:
        raise PluginError(
            f"there is a {there.kind} {entry.name!r} already, in {there.function.__module__}: give the one in "
            f"{entry.function.__module__} another name"
        )
    entries[entry.name] = entry


def load_all() -> dict[str, Entry]:
    """Import every module that registers something, plugins last, and return all entries by name, methods first.

    A plugin that cannot be imported is named in a warning, and the rest works.
    """
    for module in modules():
        importlib.import_module(module)
    plugins.load_or_warn()
    return {**METHODS, **VIEWS}


def find(name: str) -> Entry:
    """Return the method of that name, dashes or underscores. Raises OptionError with the nearest."""
    plain = str(name).replace("-", "_")
    # What is there already keeps its name, so nothing needs to be looked for.
    entries = METHODS if plain in METHODS else load_all()
    if plain in METHODS:
        return METHODS[plain]
    if plain in entries:
        entry = entries[plain]
        first = ", ".join(filter(None, ("net", entry.takes)))
        raise OptionError(f"{plain} is a {entry.kind}, not a method: call convscope.{plain}({first}, ...)")
    wanted = answer(plain, THINGS, in_python(), "convscope {} in a shell") or f"nearest: {nearest(plain, METHODS)}"
    raise OptionError(f"there is no method {name!r}; {wanted}. All: convscope.list_methods()")


def list_methods(kind: Kind | None = "method") -> list[str]:
    """List the names of all methods, sorted; or of "view", "study" or "scan"; of everything with None.

    >>> "grad_cam" in list_methods()
    True
    """
    return sorted(name for name, entry in load_all().items() if kind in (None, entry.kind))
