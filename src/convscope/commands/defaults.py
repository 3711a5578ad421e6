"""Values of options that a configuration gives, checked as if they stood on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from typer.models import OptionInfo

from ..configuration import Configuration
from ..errors import ConfigurationError, OptionError
from ..options import joined, other_number
from ..synonyms import OPTIONS, THINGS, Wish, hint
from ..zoo.configured import require_trust
from ..zoo.sources import anchored

Kind = type | Callable[[str], Any]
"""The type of an option's value, or the function that makes it of a text."""


@dataclass(frozen=True)
class Taken:
    """What an option takes: a kind of value, or several."""

    kind: Kind
    several: bool = False


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
    known = {_plain(command) for command in commands}
    _check_names(tables, known, f"{settings.path}, [defaults]: there is no command", THINGS)
    exact = {_plain(key) for key in general}
    meant = [key for key in general if (own := _own(key, options)) and own in ({_plain(key)} & exact or {own} - exact)]
    defaults = _values(settings, "[defaults]", options, {key: general[key] for key in meant})
    for table, values in tables.items():
        if _plain(table) == _plain(name):
            where = f"[defaults.{table}]"
            _check_names(values, options, f"{settings.path}, {where}: {name} has no option")
            defaults |= _values(settings, where, options, values)
    return defaults


def _values(
    settings: Configuration, where: str, options: Mapping[str, Taken], entries: Mapping[str, Any]
) -> dict[str, Any]:
    """Return values by the options' own names. Raises ConfigurationError where one is said twice."""
    keys = dict[str, str]()
    for key in entries:
        first = keys.setdefault(_own(key, options), key)
        if first != key:
            raise ConfigurationError(f"{settings.path}, {where}: {first} and {key} are one option: give one of them")
    return {own: _checked(settings, where, options[own], key, entries[key]) for own, key in keys.items()}


def _own(name: str, options: Collection[str]) -> str:
    """Return an option's own name, of dashes or underscores, singular or plural; "" where there is no such option."""
    plain = _plain(name)
    return next((each for each in (plain, other_number(plain)) if each in options), "")


def _plain(name: str) -> str:
    return name.replace("-", "_")


def options_of(command: Callable[..., Any]) -> dict[str, Taken]:
    """Return what a command's options take, without those of its arguments."""
    taken: dict[str, Taken] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if get_origin(parameter.annotation) is Annotated:
            kind, *extras = get_args(parameter.annotation)
            option = next((part for part in extras if isinstance(part, OptionInfo)), None)
            if option is not None:
                either = get_origin(kind) in (Union, UnionType)
                kind = next(part for part in get_args(kind) if part is not type(None)) if either else kind
                several = get_origin(kind) is list
                taken[name] = Taken(option.parser or (get_args(kind)[0] if several else kind), several)
    return taken


def _check_names(
    entries: Collection[str], existing: Collection[str], problem: str, wishes: Iterable[Wish] = OPTIONS
) -> None:
    for key in entries:
        if not _own(key, existing):
            near = hint(_plain(key), wishes, {name: repr(name) for name in sorted(existing)})
            raise ConfigurationError(f"{problem} {key!r}; {near}")


def _checked(settings: Configuration, where: str, taken: Taken, key: str, value: Any) -> Any:
    """Return a value as the command line would have it. Raises ConfigurationError where it could not."""
    kind = taken.kind
    if taken.several or not isinstance(kind, type):
        text = joined(value) if isinstance(value, list) else str(value)
        if not isinstance(kind, type):
            try:
                kind(text)
            except OptionError as error:
                raise ConfigurationError(f"{settings.path}, {where}: {error}") from None
        return [text] if taken.several else text
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
