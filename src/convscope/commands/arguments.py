"""What was typed: dashes and underscores are the same, and what counts once is written once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import OptionError, nearest


def command_word(arguments: Sequence[str]) -> str | None:
    """Return the command of a line, with dashes; while a shell completes, that of the line which is being typed."""
    word = next((word for word in arguments or _being_completed() if not word.startswith("-")), None)
    return None if word is None else dashed(word)


def dashed(word: str) -> str:
    """Return the name of a command or an option as it is written in shells."""
    return word.replace("_", "-")


def spelled(arguments: Sequence[str]) -> list[str]:
    """Return a line with dashes in the names of its command and of its options."""
    words, first = list[str](), True
    for position, word in enumerate(arguments):
        if word == "--":
            return [*words, *arguments[position:]]
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            words.append(dashed(name) + equals + value)
        elif first and not word.startswith("-"):
            words.append(dashed(word))
            first = False
        else:
            words.append(word)
    return words


def check_repeated(command: Any, arguments: Sequence[str]) -> None:
    """Refuse options that are given twice and take one value. Raises OptionError."""
    options: Mapping[str, Any] = {name: parameter for parameter in command.params for name in parameter.opts}
    values: dict[str, list[str]] = {}
    for name, value in _options(arguments, options):
        parameter = options[name]
        if not (getattr(parameter, "multiple", False) or getattr(parameter, "is_flag", False) or parameter.nargs != 1):
            values.setdefault(parameter.opts[0], []).append(value)
    for name, texts in values.items():
        if len(texts) > 1:
            told = " and ".join(f"{name} {text}" for text in texts)
            raise OptionError(f"{name} takes one value, and here are {told}: give one of them")


def _options(arguments: Sequence[str], options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the options of a line, with their values."""
    words = iter(arguments)
    for word in words:
        if word == "--":
            return
        name, equals, value = word.partition("=")
        if name in options and not getattr(options[name], "is_flag", False):
            yield name, value if equals else next(words, "")


def unknown_option(name: str, command: Any) -> str:
    """Say that a command has no such option, and which are near."""
    names = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
    return f"there is no option {name}; nearest: {nearest(name, names)}"


def _being_completed() -> list[str]:
    """Return the words of the line that a shell asks to complete, without the program's name."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
    return line.split()[1:]
