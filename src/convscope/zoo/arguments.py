"""With which arguments a class of the user's own is called: those that a checkpoint's hyper-parameters name.

This is how Lightning's `load_from_checkpoint` builds a module again, and how it was built when it was trained.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import NetworkError
from .weights import State

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class _Settings(dict[str, Any]):
    """Hyper-parameters that a class takes all in one, by item and by attribute."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the checkpoint's hyper-parameters have no {name!r}") from None


def arguments_of(function: Callable[..., Any], state: State | None, called: str, build: str) -> dict[str, Any]:
    """Return the arguments that a checkpoint has for a function.

    `called` is what errors call it, with `{}` for its signature, and `build` where a function without arguments would
    be. Raises NetworkError where the function needs others.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # of a builtin
        return {}
    said = state.hyper_parameters if state else {}
    named = {name for name, each in signature.parameters.items() if each.kind in _BY_NAME}
    if state and state.takes_all in named:
        said = {state.takes_all: _settings(said)}
    takes_any = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    given = {name: value for name, value in said.items() if takes_any or name in named}
    try:
        signature.bind(**given)
    except TypeError:
        name = called.partition("{}")[0]
        raise NetworkError(
            f"{called.format(signature)} needs arguments{_missing(signature, given, state)} give them defaults, or "
            f"write def {build.rpartition(':')[2]}(): return {name}(...) and name it, file:{build}"
        ) from None
    return given


def _missing(signature: inspect.Signature, given: Mapping[str, Any], state: State | None) -> str:
    if state is None:
        return ": name a checkpoint that has them as hyper-parameters (weights='FILE.ckpt', --weights FILE.ckpt),"
    wanted = [
        name
        for name, each in signature.parameters.items()
        if each.default is each.empty and each.kind in _BY_NAME and name not in given
    ]
    held = ", ".join(state.hyper_parameters) or "none"
    return f", and {state.path.name} says nothing of {', '.join(wanted)} (its hyper-parameters: {held}):"


def beside_defaults(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a function's arguments that are not its defaults."""
    defaults = {name: each.default for name, each in inspect.signature(function).parameters.items()} if given else {}
    return {name: value for name, value in given.items() if defaults.get(name, inspect.Parameter.empty) != value}


def written(arguments: Mapping[str, Any]) -> str:
    """Write arguments as in a call, long ones shortened."""
    texts = (f"{name}={value!r}" for name, value in arguments.items())
    return ", ".join(text if len(text) <= 60 else f"{text[:59]}…" for text in texts)


def _settings(said: Mapping[str, Any]) -> _Settings:
    nested = {name: _settings(value) if isinstance(value, Mapping) else value for name, value in said.items()}
    return _Settings(nested)
