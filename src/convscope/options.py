"""Options: declared once by annotations, checked and converted for Python, command line and files alike."""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from .errors import OptionError, nearest
from .renames import OPTIONS as RENAMED
from .renames import warn
from .synonyms import OPTIONS, answer


@dataclass(frozen=True)
class Range:
    """The values that a number may take, ends included unless `open` says that the lower end is not."""

    least: float = -math.inf
    most: float = math.inf
    open: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.least < value if self.open else self.least <= value) and value <= self.most

    def __str__(self) -> str:
        if self.least == -math.inf:
            return f"at most {self.most:g}"
        if self.most == math.inf:
            return f"above {self.least:g}" if self.open else f"at least {self.least:g}"
        return f"{'above ' if self.open else ''}{self.least:g} to {self.most:g}"


class Unrecorded:
    """Marks an option that decides nothing about the result, such as a preview file: recipes leave it out."""


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter: its type, default, and the help and range written where it is declared."""

    name: str
    type: Any
    default: Any
    help: str = ""
    range: Range | None = None
    recorded: bool = True

    def check(self, value: Any) -> Any:
        """Return the value as the function reads it. Raises OptionError when it has another type or range."""
        if value is None and self.default is None:
            return None
        try:
            converted = _converted(self.type, value)
        except (TypeError, ValueError):
            raise OptionError(f"{self.name} is {self.kind}, not {_shown(value)}{self._meant(value)}") from None
        if self.range is not None and not all(number in self.range for number in _numbers(converted)):
            raise OptionError(f"{self.name} is {self.kind}, not {_shown(value)}")
        return converted

    def parse(self, text: str) -> Any:
        """Return the value that a text stands for: lists have commas, a flag is true or false. Raises OptionError."""
        try:
            return self.check(_from_text(self.type, text))
        except ValueError:
            raise OptionError(f"{self.name} is {self.kind}, not {text!r}") from None

    @property
    def kind(self) -> str:
        """What it takes, in plain words: "a whole number, at least 1"."""
        words = described(self.type)
        return f"{words}, {self.range}" if self.range is not None else words

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that may be chosen from; empty where it is not a choice."""
        return next((get_args(part) for part in _members(self.type) if get_origin(part) is Literal), ())

    @property
    def several(self) -> bool:
        """Whether it is a list."""
        return any(get_origin(part) in _LISTS for part in _members(self.type))

    @property
    def is_picture(self) -> bool:
        """Whether it takes a picture, or several, in any form that can be read (`data.images.PictureSource`)."""
        kinds = [part for member in _members(self.type) for part in (member, *get_args(member))]
        flat = [part for kind in kinds for part in _members(kind)]
        return any(getattr(part, "__module__", "") == "PIL.Image" for part in flat)

    def _meant(self, value: Any) -> str:
        """Guess the call that was meant, where a text holds the value."""
        if not isinstance(value, str):
            return ""
        if self.choices:
            return f"; nearest: {nearest(value, self.choices)}"
        try:
            return f": {self.name}={_converted(self.type, _from_text(self.type, value))!r}"
        except (TypeError, ValueError):
            return ""


_LISTS = (list, Sequence)


def options_of(function: Callable[..., Any]) -> dict[str, Option]:
    """Return a function's keyword-only parameters as options, by name."""
    hints = typing.get_type_hints(function, include_extras=True)
    return {
        name: option(name, hints.get(name, Any), parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def option(name: str, hint: Any, default: Any) -> Option:
    """Return a parameter as an option, by its annotation: its type, its help and its range."""
    kind, *extras = get_args(hint) if get_origin(hint) is typing.Annotated else (hint,)
    text = next((extra for extra in extras if isinstance(extra, str)), "")
    range_ = next((extra for extra in extras if isinstance(extra, Range)), None)
    return Option(name, kind, default, text, range_, recorded=Unrecorded not in extras)


def separated(text: str) -> list[str]:
    """Return the values of a list that is written as one text.

    Commas separate, except in quotes, as in CSV, in round brackets, and in a position: "a,b", p(a, b), conv5:3@2,3.
    """
    found = _VALUE.finditer(text)
    values = [match["quoted"].replace('""', '"') if match["quoted"] else match["plain"] or "" for match in found]
    return [value for value in values if value.strip()]


_VALUE = re.compile(
    r"""\s*(?:"(?P<quoted>(?:[^"]|"")*)"\s*|(?P<plain>(?:\([^()]*\)|@\s*\d+\s*,\s*\d+|[^,])*?)\s*)(?:,|\Z)"""
)


def joined(values: Iterable[Any]) -> str:
    """Return the text that `separated` takes apart into these values."""
    plain = re.compile(r'[^\s",()@]+(?: +[^\s",()@]+)*')
    texts = map(str, values)
    return ",".join(text if plain.fullmatch(text) else '"{}"'.format(text.replace('"', '""')) for text in texts)


def other_number(name: str) -> str:
    """Return the plural of an option's name, or the singular of a plural: both mean the same option."""
    return name.removesuffix("s") if name.endswith("s") else f"{name}s"


def _one_name(owner: str, options: Mapping[str, Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by the names that the options have where singular and plural were exchanged: layer and layers."""
    named = dict[str, Any]()
    for name, value in values.items():
        own = name if name in options or other_number(name) not in options else other_number(name)
        if own in named:
            raise OptionError(f"{owner}: {own} and {other_number(own)} are one option: give one of them")
        named[own] = value
    return named


def check_options(
    owner: str, options: Mapping[str, Option], values: Mapping[str, Any], beside: Iterable[str] = ()
) -> dict[str, Any]:
    """Return all options of a function, checked, with its defaults where no value is given.

    `beside` are those that its caller takes, and that an answer to an unknown one may name.
    Raises OptionError for a name that it does not have, a missing one, or a value of another type or range.
    """
    for old, new in RENAMED.items():
        if old in values and old not in options and new in options and new not in values:
            warn(f"option {old!r} of {owner}", repr(new), depth=2)
            values = {new if name == old else name: value for name, value in values.items()}
    values = _one_name(owner, options, values)
    for name in values:
        if name not in options:
            wanted = answer(name, OPTIONS, {own: f"{own}=" for own in (*options, *beside)})
            near = f"it has: {nearest(name, options) if options else 'none'}"
            raise OptionError(f"{owner} has no option {name!r}; {wanted or near}")
    for name, option in options.items():
        if option.default is inspect.Parameter.empty and name not in values:
            raise OptionError(f"{owner} needs {name}, {option.kind}: {option.help or 'it has no default'}")
    return {name: option.check(values[name]) if name in values else option.default for name, option in options.items()}


def described(kind: Any) -> str:
    """Say in plain words what a type takes."""
    origin, members = get_origin(kind), [part for part in _members(kind) if part is not type(None)]
    if len(members) > 1:
        # Python caches unions, so that one written later may come back in the order of an equal one.
        plain = sorted({described(part) for part in members if get_origin(part) not in _LISTS})
        lists = sorted({described(part) for part in members if get_origin(part) in _LISTS})
        alike = f"a list, each {' or '.join(plain)}"
        return " or ".join([*plain, *("several" if words == alike else words for words in lists)])
    if members and members[0] is not kind:
        return described(members[0])
    if origin is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if origin in _LISTS:
        return f"a list, each {described(get_args(kind)[0])}"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "text",
    Path: "a path",
    Any: "a picture or value",
}


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, also inside a type alias; a plain type is its own."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _converted(kind: Any, value: Any) -> Any:
    """Return a Python value as another of the type. Raises TypeError or ValueError when it is none."""
    members = _members(kind)
    if len(members) > 1:
        return _converted_member(members, value)
    origin = get_origin(kind)
    if origin is Literal:
        return next(choice for choice in _choice(get_args(kind), value))
    if origin in _LISTS:
        inner = get_args(kind)[0]
        items = separated(value) if isinstance(value, str) and inner is str else _items(value)
        return [_converted(inner, item) for item in items]
    if origin is tuple:
        return tuple(_converted(part, item) for part, item in zip(get_args(kind), value, strict=True))
    return _converted_plain(kind, value)


def _converted_member(members: tuple[Any, ...], value: Any) -> Any:
    if type(value) in members:
        return value
    for member in members:
        try:
            return _converted(member, value)
        except (TypeError, ValueError):
            continue
    raise TypeError


def _choice(choices: tuple[Any, ...], value: Any) -> list[Any]:
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        raise TypeError
    return [value]


def _items(value: Any) -> list[Any]:
    """Return the items of what has an order; anything else, as a picture in an array, stands for a list of itself."""
    if getattr(value, "ndim", None) == 1:
        return value.tolist()
    ordered = (list, tuple, range, KeysView, ValuesView, Iterator)
    return list(value) if isinstance(value, ordered) else [value]


def _converted_plain(kind: Any, value: Any) -> Any:
    if kind is Any:
        return value
    if kind is bool:
        if type(value).__name__ not in ("bool", "bool_"):
            raise TypeError
        return bool(value)
    if kind in (int, float):
        if type(value) is bool or not isinstance(value, Integral if kind is int else Real):
            raise TypeError
        return kind(value)  # pyright: ignore[reportArgumentType]  # numpy's numbers are among them
    if kind is str:
        if not isinstance(value, (str, int, float, Path)) or isinstance(value, bool):
            raise TypeError
        return str(value)  # a layer may be named by its number, a baseline be a value
    if kind is Path:
        return Path(value)
    if kind is not Any and isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError
    return value


def _numbers(value: Any) -> list[float]:
    return [number for number in _items(value) if isinstance(number, (int, float)) and not isinstance(number, bool)]


def _from_text(kind: Any, text: str) -> Any:
    """Return the Python value that a text stands for. Raises ValueError when it stands for none of that type."""
    members = [part for part in _members(kind) if part is not type(None)]
    lists = [part for part in members if get_origin(part) in _LISTS]
    if lists:
        inner = get_args(lists[0])[0]
        return [_from_text(inner, part) for part in separated(text)]
    for plain in (int, float, bool):
        if plain in members:
            try:
                return _flag(text) if plain is bool else plain(text)
            except ValueError:
                if not {str, Path, Any} & set(members):
                    raise
    return text


def _flag(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."
