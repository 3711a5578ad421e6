"""The context of a run: remarks for the caption, progress, previews and cancellation, for whoever listens.

Everything goes through one context variable. Without a listener it goes nowhere, and costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Sized(Protocol[T_co]):
    """The steps of a computation: a list, a data loader, anything that knows how many there are."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


Label = str | Callable[[], str]
Tracker = Callable[[Sized[Any], Label], Iterable[Any]]
Viewer = Callable[[Callable[[], Any]], None]


class Cancelled(KeyboardInterrupt):
    """A run was cancelled. What keeps the best so far on ctrl-C keeps it here as well."""


@dataclass(frozen=True)
class Context:
    """Who listens to a computation: each part is None where nobody does."""

    remarks: list[str] | None = None
    tracker: Tracker | None = None
    viewer: Viewer | None = None
    cancel: threading.Event | None = None


_current: ContextVar[Context] = ContextVar("convscope context", default=Context())  # noqa: B039  it is frozen


@contextmanager
def running(
    *,
    remarks: list[str] | None = None,
    tracker: Tracker | None = None,
    viewer: Viewer | None = None,
    cancel: threading.Event | None = None,
) -> Generator[Context]:
    """Listen to everything inside the block; what is not given stays as it is outside.

    Args:
        remarks: the list to which remarks are added.
        tracker: a function of (steps, label) that yields the steps and shows how far they are.
        viewer: a function that is given a function making the picture so far, a Drawing or PIL image.
        cancel: once this event is set, from any thread, the computation ends in Cancelled at its next step.
    """
    parts = {"remarks": remarks, "tracker": tracker, "viewer": viewer, "cancel": cancel}
    inner = replace(_current.get(), **{name: part for name, part in parts.items() if part is not None})
    token = _current.set(inner)
    try:
        yield inner
    finally:
        _current.reset(token)


def say(remark: str) -> None:
    """Add a remark that whoever looks at the result must read."""
    remarks = _current.get().remarks
    if remarks is not None and remark and remark not in remarks:
        remarks.append(remark)


@contextmanager
def listen() -> Generator[list[str]]:
    """Collect the remarks made inside the block."""
    remarks: list[str] = []
    with running(remarks=remarks):
        yield remarks


def track(steps: Sized[T_co], label: Label) -> Iterable[T_co]:
    """Iterate over the steps of a long computation, with progress for the listener and an end when it is cancelled.

    A label that is a function is called again at every step: it may say how far the loss has come.
    """
    context = _current.get()
    items = steps if context.tracker is None else context.tracker(steps, label)
    return items if context.cancel is None else _until_cancelled(items)


def _until_cancelled(items: Iterable[T]) -> Iterator[T]:
    for item in items:
        check_cancelled()
        yield item


def check_cancelled() -> None:
    """Raise Cancelled once the run has been cancelled; for loops that `track` does not see."""
    cancel = _current.get().cancel
    if cancel is not None and cancel.is_set():
        raise Cancelled("cancelled")


def previews() -> bool:
    """Whether anybody looks at previews, where preparing one costs something."""
    return _current.get().viewer is not None


def preview(make: Callable[[], Any]) -> None:
    """Offer the picture so far; `make` is called only where a listener wants to see it."""
    viewer = _current.get().viewer
    if viewer is not None:
        viewer(make)


def in_context(function: Callable[P, T]) -> Callable[P, T]:
    """Return the function bound to today's context, for worker threads: they listen and are cancelled with it."""
    context = copy_context()

    def bound(*args: P.args, **kwargs: P.kwargs) -> T:
        # A context can be entered once at a time, and several threads may call.
        return context.copy().run(function, *args, **kwargs)

    return bound
