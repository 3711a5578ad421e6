"""Values of options that a configuration gives, checked as if they stood on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from typer.models import OptionInfo

from ..configuration import Configuration
from ..errors import ConfigurationError, nearest
from ..zoo.sources import anchored

_WORDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text in quotes",
    Path: "text in quotes",
}


def defaults_of(
    command: Callable[..., Any], name: str, told: Configuration, commands: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """Return what the configuration says of a command's options, by their names.

    Args:
        command: the function, annotated for typer.
        name: what it is called.
        told: the configuration.
        commands: the names of every command's options.

    Raises ConfigurationError for an option that no command has, for one in a command's own table that this command
    does not have, and for a value that it cannot take.
    """
    options = options_of(command)
    general = {key: value for key, value in told.defaults.items() if not isinstance(value, dict)}
    everywhere = {option for known in commands.values() for option in known}
    _check_known(general, everywhere, f"{told.path}, [defaults]: no command has an option")
    tables = {key: value for key, value in told.defaults.items() if isinstance(value, dict)}
    _check_known(tables, {_plain(known) for known in commands}, f"{told.path}, [defaults]: there is no command")
    found = _taken(told, "[defaults]", options, {key: general[key] for key in general if _plain(key) in options})
    for table, values in tables.items():
        if _plain(table) == _plain(name):
            where = f"[defaults.{table}]"
            _check_known(values, options, f"{told.path}, {where}: {name} has no option")
            found |= _taken(told, where, options, values)
    return found


def _taken(told: Configuration, where: str, options: Mapping[str, type], given: Mapping[str, Any]) -> dict[str, Any]:
    return {_plain(key): _checked(told, where, options[_plain(key)], key, value) for key, value in given.items()}


def _plain(name: str) -> str:
    return name.replace("-", "_")


def options_of(command: Callable[..., Any]) -> dict[str, type]:
    """Return the types of a command's options, without those of its arguments."""
    found: dict[str, type] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if get_origin(parameter.annotation) is Annotated:
            kind, *told = get_args(parameter.annotation)
            if any(isinstance(part, OptionInfo) for part in told):
                either = get_origin(kind) in (Union, UnionType)
                found[name] = next(part for part in get_args(kind) if part is not type(None)) if either else kind
    return found


def _check_known(given: Collection[str], known: Collection[str], problem: str) -> None:
    for key in given:
        if _plain(key) not in known:
            raise ConfigurationError(f"{problem} {key!r}; nearest: {nearest(_plain(key), sorted(known))}")


def _checked(told: Configuration, where: str, kind: type, key: str, value: Any) -> Any:
    """Return a value as the command line would have it. Raises ConfigurationError where it could not."""
    if kind is str and isinstance(value, list):
        value = ",".join(map(str, value))
    fits = type(value) in {float: (int, float), str: (str, int, float), Path: (str,)}.get(kind, (kind,))
    if not fits:
        raise ConfigurationError(f"{told.path}, {where}: {key} is {_WORDS.get(kind, kind.__name__)}, not {value!r}")
    if kind is bool:
        return value
    if key == "net" and told.path is not None:
        return anchored(told.path.parent, value)
    named = key == "data" and value in told.data
    return str(value if named else told.placed("path" if kind is Path else key, value))
