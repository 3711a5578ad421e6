"""Groups of options: each is declared once, as a dataclass, and a command takes all of it as one parameter.

A field is an option; a field that is a group itself stands for the options of that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, wraps
from typing import Any, TypeGuard, get_type_hints

from ..options import other_number

Parameter = tuple[Any, Any]
"""An annotation for typer, and a default."""


def parameters_of(group: type) -> dict[str, Parameter]:
    """Return the options of a group, by name."""
    found: dict[str, Parameter] = {}
    for name, kind, default in _fields(group):
        found |= parameters_of(kind) if _is_group(kind) else {name: (kind, default)}
    return found


def taken(group: type, values: dict[str, Any]) -> Any:
    """Take the options of a group out of a command's values, and return it."""
    given: dict[str, Any] = {}
    for name, kind, _ in _fields(group):
        if _is_group(kind):
            given[name] = taken(kind, values)
        elif name in values:  # a command may have an option of its own in its place
            given[name] = values.pop(name)
    return group(**given)


def _is_group(kind: Any) -> TypeGuard[type]:
    return isinstance(kind, type) and is_dataclass(kind)


@cache
def _fields(group: type) -> list[tuple[str, Any, Any]]:
    hints = get_type_hints(group, include_extras=True)
    return [(each.name, hints[each.name], each.default) for each in fields(group)]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for typer: in the place of each parameter that is a group, it has that group's options.

    An option of its own takes the place of a group's, also where one is the plural of the other.
    """
    own = inspect.signature(command, eval_str=True).parameters
    groups = {name: each.annotation for name, each in own.items() if _is_group(each.annotation)}
    parameters: dict[str, Parameter] = {}
    for name, each in own.items():
        parameters |= parameters_of(groups[name]) if name in groups else {name: (each.annotation, each.default)}
    for name in own:  # one option has one name, in the singular or the plural
        parameters.pop(other_number(name), None)

    @wraps(command)
    def run(**values: Any) -> None:
        mine = {name: values.pop(name) for name in own if name in values}
        whole = {name: taken(group, values) for name, group in groups.items()}
        command(**mine, **whole)

    return with_parameters(run, parameters)


def with_parameters(command: Callable[..., None], parameters: Mapping[str, Parameter]) -> Callable[..., None]:
    """Give a function of keywords the parameters that typer is to see."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(n, keyword, annotation=a, default=d) for n, (a, d) in parameters.items()]
    )
    command.__annotations__ = {name: annotation for name, (annotation, _) in parameters.items()}
    return command


def beginning(words: Iterable[str] | Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what completes a word in a shell: those of the words that begin with it."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in (words() if callable(words) else words) if word.startswith(incomplete)]

    return complete
