"""Values of options that a configuration gives, checked as if they stood on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from typer.models import OptionInfo

from ..configuration import Configuration
from ..errors import ConfigurationError, OptionError, nearest
from ..zoo.configured import require_trust
from ..zoo.sources import anchored

Kind = type | Callable[[str], Any]
"""The type of an option's value, or the function that makes it of a text."""

_WORDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text in quotes",
    Path: "text in quotes",
}


def defaults_of(
    command: Callable[..., Any], name: str, settings: Configuration, commands: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """Return what the configuration says of a command's options, by their names.

    Args:
        command: the function, annotated for typer.
        name: what it is called.
        settings: the configuration.
        commands: the names of every command's options.

    Raises ConfigurationError for an option that no command has, for one in a command's own table that this command
    does not have, for a value that it cannot take, and for a network that runs code, unless the user trusted it.
    """
    options = options_of(command)
    general = {key: value for key, value in settings.defaults.items() if not isinstance(value, dict)}
    everywhere = {option for names in commands.values() for option in names}
    _check_names(general, everywhere, f"{settings.path}, [defaults]: no command has an option")
    tables = {key: value for key, value in settings.defaults.items() if isinstance(value, dict)}
    _check_names(tables, {_plain(command) for command in commands}, f"{settings.path}, [defaults]: there is no command")
    defaults = _values(
        settings, "[defaults]", options, {key: general[key] for key in general if _plain(key) in options}
    )
    for table, values in tables.items():
        if _plain(table) == _plain(name):
            where = f"[defaults.{table}]"
            _check_names(values, options, f"{settings.path}, {where}: {name} has no option")
            defaults |= _values(settings, where, options, values)
    return defaults


def _values(
    settings: Configuration, where: str, options: Mapping[str, Kind], entries: Mapping[str, Any]
) -> dict[str, Any]:
    return {_plain(key): _checked(settings, where, options[_plain(key)], key, value) for key, value in entries.items()}


def _plain(name: str) -> str:
    return name.replace("-", "_")


def options_of(command: Callable[..., Any]) -> dict[str, Kind]:
    """Return the types of a command's options, or what parses them, without those of its arguments."""
    kinds: dict[str, Kind] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if get_origin(parameter.annotation) is Annotated:
            kind, *extras = get_args(parameter.annotation)
            option = next((part for part in extras if isinstance(part, OptionInfo)), None)
            if option is not None and option.parser is not None:
                kinds[name] = option.parser
            elif option is not None:
                either = get_origin(kind) in (Union, UnionType)
                kinds[name] = next(part for part in get_args(kind) if part is not type(None)) if either else kind
    return kinds


def _check_names(entries: Collection[str], existing: Collection[str], problem: str) -> None:
    for key in entries:
        if _plain(key) not in existing:
            raise ConfigurationError(f"{problem} {key!r}; nearest: {nearest(_plain(key), sorted(existing))}")


def _checked(settings: Configuration, where: str, kind: Kind, key: str, value: Any) -> Any:
    """Return a value as the command line would have it. Raises ConfigurationError where it could not."""
    parsed = not isinstance(kind, type)
    value = ",".join(map(str, value)) if isinstance(value, list) and (parsed or kind is str) else value
    if not isinstance(kind, type):
        try:
            kind(str(value))
        except OptionError as error:
            raise ConfigurationError(f"{settings.path}, {where}: {error}") from None
        return str(value)
    fits = type(value) in {float: (int, float), str: (str, int, float), Path: (str,)}.get(kind, (kind,))
    if not fits:
        raise ConfigurationError(f"{settings.path}, {where}: {key} is {_WORDS.get(kind, kind.__name__)}, not {value!r}")
    if kind is bool:
        return value
    if key == "net" and settings.path is not None:
        name = anchored(settings.path.parent, str(value))
        require_trust(settings, f"net in {where} of {settings.path}", name)
        return name
    if kind is Path and settings.leads_out(value):
        what = "which leads out of the configuration's folder, and may be a file that is written"
        settings.require_trust(f"{key} in {where} of {settings.path} is {value!r}", what, f"Or give --{key} yourself")
    named = key == "data" and value in settings.data
    return str(value if named else settings.placed("path" if kind is Path else key, value))
