"""What a computation has to say while it runs: remarks for the caption, and progress."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Steps(Protocol[T_co]):
    """The steps of a computation: a list, a data loader, anything that knows how many there are."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[T_co]: ...


Label = str | Callable[[], str]
Tracker = Callable[[Steps[Any], Label], Iterable[Any]]

_remarks: ContextVar[list[str] | None] = ContextVar("remarks", default=None)
_tracker: ContextVar[Tracker | None] = ContextVar("tracker", default=None)


def say(remark: str) -> None:
    """Add a remark that whoever looks at the result must read; without a listener it goes nowhere."""
    remarks = _remarks.get()
    if remarks is not None and remark and remark not in remarks:
        remarks.append(remark)


@contextmanager
def listen() -> Generator[list[str]]:
    """Collect the remarks made inside the block."""
    remarks: list[str] = []
    token = _remarks.set(remarks)
    try:
        yield remarks
    finally:
        _remarks.reset(token)


def track(items: Steps[T_co], label: Label) -> Iterable[T_co]:
    """Iterate over the steps of a long computation, showing progress where somebody asked for it.

    A label that is a function is asked again at every step: it may say how far the loss has come.
    """
    tracker = _tracker.get()
    return items if tracker is None else tracker(items, label)


@contextmanager
def tracked_by(tracker: Tracker) -> Generator[None]:
    """Show the progress of every `track` inside the block with `tracker`."""
    token = _tracker.set(tracker)
    try:
        yield
    finally:
        _tracker.reset(token)
