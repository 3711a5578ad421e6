"""The context of a run: remarks for the caption, progress, previews and cancellation, for whoever listens.

Everything goes through one context variable. Without a listener it goes nowhere, and costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Sized(Protocol[T_co]):
    """The steps of a computation: a list, a data loader, anything that knows how many there are."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


class Arriving:
    """Steps that are done when they come, such as what others have computed; a base of classes that have a length."""


@dataclass(frozen=True)
class Parts(Generic[T_co]):
    """Steps each of which is a loop of its own, and how much work each is: so that the time left is that of all."""

    steps: Sequence[T_co]
    work: Sequence[float]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[T_co]:
        return iter(self.steps)


Label = str | Callable[[], str]
Tracker = Callable[[Sized[Any], Label], Iterable[Any]]
Viewer = Callable[[Callable[[], Any]], None]


class Cancelled(KeyboardInterrupt):
    """A run was cancelled. What keeps the best so far on ctrl-C keeps it here as well."""


@dataclass(frozen=True)
class Context:
    """Who listens to a computation, each part None where nobody does.

    `picture` is the row that is talked about, `whole` whether only whole results count.
    """

    remarks: list[str] | None = None
    tracker: Tracker | None = None
    viewer: Viewer | None = None
    cancel: threading.Event | None = None
    picture: tuple[int, int] | None = None
    whole: bool = False


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


@contextmanager
def whole(when: bool = True) -> Generator[None]:
    """Let a run inside the block have a whole result or none: an interruption ends it, and nothing is kept.

    For whoever makes several results, all of which the interruption is to end, or draws conclusions from them.
    """
    token = _current.set(replace(_current.get(), whole=when or _current.get().whole))
    try:
        yield
    finally:
        _current.reset(token)


class Part(str):
    """A remark that a result is only a part of what was asked for."""

    __slots__ = ()


def keep_part(interruption: KeyboardInterrupt, remark: str) -> None:
    """Say that an interrupted run keeps what it has; raise the interruption again where only `whole` results count."""
    if _current.get().whole:
        raise interruption
    say(Part(remark))


class PerPicture(str):
    """Remarks about the pictures of a batch, one each, "" where there is none; as text, all that differ."""

    __slots__ = ("rows",)
    rows: tuple[str, ...]

    def __new__(cls, rows: Sequence[str]) -> PerPicture:
        """Join what differs; `rows` keeps it apart."""
        text = super().__new__(cls, "; ".join(dict.fromkeys(filter(None, rows))))
        text.rows = tuple(rows)
        return text


def say(remark: str | Sequence[str]) -> None:
    """Add a remark that whoever looks at the result must read; of a batch, a list with one for each picture."""
    context = _current.get()
    if context.remarks is None:
        return
    if isinstance(remark, str) and context.picture is not None:
        row, count = context.picture
        remark = [remark if number == row else "" for number in range(count)]
    if not isinstance(remark, str):
        remark = remark[0] if len(remark) == 1 else PerPicture(remark)
    if remark and (isinstance(remark, PerPicture) or remark not in context.remarks):
        context.remarks.append(remark)


@contextmanager
def about(row: int, count: int) -> Generator[None]:
    """Let what is said inside the block be about one picture of a batch."""
    token = _current.set(replace(_current.get(), picture=(row, count)))
    try:
        yield
    finally:
        _current.reset(token)


def remarks_about(remarks: Iterable[str], row: int) -> tuple[str, ...]:
    """Return the remarks that hold for one picture of a batch."""
    texts = (remark.rows[row] if isinstance(remark, PerPicture) else remark for remark in remarks)
    return tuple(dict.fromkeys(filter(None, texts)))


@contextmanager
def listen() -> Generator[list[str]]:
    """Collect the remarks made inside the block."""
    remarks: list[str] = []
    token = _current.set(replace(_current.get(), remarks=remarks, picture=None))
    try:
        yield remarks
    finally:
        _current.reset(token)


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
