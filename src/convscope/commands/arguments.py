"""What was typed: dashes and underscores are the same, and what counts once is written once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import OptionError, nearest
from ..options import other_number
from ..synonyms import ARGUMENTS, OPTIONS, answer, plain

STUDY = "study"
"""The command that has commands of its own."""


def command_words(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the command of a line, with dashes, and the study after `study`; none where there is no command.

    While a shell completes, it is that of the line which is being typed.
    """
    words = [dashed(word) for word in arguments or _being_completed() if not word.startswith("-")]
    return tuple(words[: 2 if words[:1] == [STUDY] else 1])


def dashed(word: str) -> str:
    """Return the name of a command or an option as it is written in shells."""
    return word.replace("_", "-")


def spelled(arguments: Sequence[str]) -> list[str]:
    """Return a line with dashes in the names of its command and of its options."""
    words, names = list[str](), len(command_words(arguments))
    for position, word in enumerate(arguments):
        if word == "--":
            return [*words, *arguments[position:]]
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            words.append(dashed(name) + equals + value)
        elif names and not word.startswith("-"):
            words.append(dashed(word))
            names -= 1
        else:
            words.append(word)
    return words


def one_name(command: Any, arguments: Sequence[str]) -> list[str]:
    """Return a line with a command's own names where singular and plural were exchanged: --layer and --layers."""
    names, words = _by_name(command), list[str]()
    for position, word in enumerate(arguments):
        if word == "--":
            return [*words, *arguments[position:]]
        name, equals, value = word.partition("=")
        other = other_number(name)
        words.append(other + equals + value if name.startswith("--") and name not in names and other in names else word)
    return words


def check_repeated(command: Any, arguments: Sequence[str]) -> None:
    """Refuse options that are given twice and take one value, or both ways. Raises OptionError."""
    options = _by_name(command)
    given: dict[str, list[str]] = {}
    for name, value in _options(arguments, options):
        parameter = options[name]
        if not (getattr(parameter, "multiple", False) or parameter.nargs != 1):
            given.setdefault(parameter.opts[0], []).append(f"{name} {value}".strip())
    for name, texts in given.items():
        told = " and ".join(texts)
        if getattr(options[name], "is_flag", False) and len(set(texts)) > 1:
            raise OptionError(f"here are {told}: give one of them")
        if not getattr(options[name], "is_flag", False) and len(texts) > 1:
            raise OptionError(f"{name} takes one value, and here are {told}: give one of them")


def check_out(command: Any, arguments: Sequence[str]) -> None:
    """Refuse an output without a name, as of a shell's variable that is not set: as a path it would be the folder here.

    Raises OptionError.
    """
    if any(name in ("-o", "--out") and not value for name, value in _options(arguments, _by_name(command))):
        raise OptionError("--out is empty: name what to write; the folder that you are in is --out .")


def _by_name(command: Any) -> dict[str, Any]:
    """Return a command's parameters by all names of their options."""
    return {name: each for each in command.params for name in (*each.opts, *each.secondary_opts)}


def _options(arguments: Sequence[str], options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the options of a line, with their values; "" for flags."""
    words = iter(arguments)
    for word in words:
        if word == "--":
            return
        name, equals, value = word.partition("=")
        if name not in options and not word.startswith("--") and word[:2] in options:
            name, equals, value = word[:2], "=", word[2:]  # as in -oFILE
        if name in options:
            flag = getattr(options[name], "is_flag", False)
            yield name, "" if flag else value if equals else next(words, "")


def unknown_option(name: str, command: Any, called: str) -> str:
    """Say that a command, called by these words, has no such option, and which is meant, or near."""
    options = [option for option in _by_name(command) if option.startswith("-")]
    written = {option.lstrip("-").replace("-", "_"): option for option in options}
    for argument in command.params:
        if plain(name) in map(plain, ARGUMENTS.get(argument.name, "").split()) and argument.opts == [argument.name]:
            word = argument.metavar or argument.name.upper()
            return f"there is no option {name}; {word} stands without one: convscope {called} {word}"
    near = answer(name.lstrip("-"), OPTIONS, written) or f"nearest: {nearest(name, written.values())}"
    return f"there is no option {name}; {near}"


def missing(parameter: Any, command: Any, called: str) -> str:
    """Say what a command, called by these words, needs, and the call with all of that."""
    needed = [each for each in command.params if each.required]
    call = " ".join([f"convscope {called}", *map(_written, needed)])
    kind = "argument" if parameter.param_type_name == "argument" else "option"
    word, told = _written(parameter), getattr(parameter, "help", None)
    return f"Missing {kind} {word}{f', {told}' if told else ''}: {call}"


def _written(parameter: Any) -> str:
    """Return an argument or an option with its value, as a line has it."""
    value = parameter.metavar or parameter.name.upper()
    return value if parameter.param_type_name == "argument" else f"{parameter.opts[0]} {value}"


def _being_completed() -> list[str]:
    """Return the words of the line that a shell asks to complete, without the program's name."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
    return line.split()[1:]
