"""Interruptions: ctrl-C never falls between a change and what undoes it.

Python lets a signal's handler raise wherever the main thread happens to be, also while a context manager is entered or
left: what was changed then stays changed. Here the handler looks at the stack first. While something is being entered,
left or imported the signal is held back and sent again a moment later, until it falls where `with` undoes everything.
"""

from __future__ import annotations

import _thread
import functools
import gc
import signal
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE = {
    # `with` itself is never interrupted between these and its block.
    **dict.fromkeys(("__enter__", "__exit__", "enter_context"), 0.5),
    # What is raised there is lost; the others are the callbacks of `weakref`'s containers.
    # Of a large program the collector itself may take a second between two of its callbacks.
    **dict.fromkeys(("__del__", "remove", "_remove"), 10.0),
    # Packages whose first import was interrupted may not be imported again by the same process, torch's own among them.
    "_find_and_load": 10.0,
}
"""Functions in which something is half changed, and for how many seconds a signal is held back there.

Ours are done in a moment; but somebody's `__exit__` may wait for a thread, or for ever.
"""

_PAUSE = 0.001
"""Seconds until a signal that was held back is sent again."""

_orderly = set[CodeType]()


def orderly(function: Callable[P, T]) -> Callable[P, T]:
    """Let an interruption of a function's work fall where nothing is half changed, as of everything that it calls."""
    _orderly.add(cast("Any", function).__code__)

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if _active:  # as in most passes: what runs them holds interruptions back
            return function(*args, **kwargs)
        with held_back():
            return function(*args, **kwargs)

    return run


class held_back:  # noqa: N801  reads as what happens to interruptions in `with held_back():`
    """Hold interruptions back inside the block, each until nothing is being entered, left or imported.

    For whoever handles a signal by a function; only the main thread is interrupted, so others change nothing. The
    handlers are put back unless somebody has set others meanwhile.
    """

    def __init__(self) -> None:
        self._handlers: list[_Handler] = []

    def __enter__(self) -> None:
        if _active or threading.get_ident() != threading.main_thread().ident:
            return
        try:
            _active.append(self)
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if callable(before):
                    self._handlers.append(_Handler(number, before))
                    signal.signal(number, self._handlers[-1])
        except BaseException:  # a signal that is not held back yet
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self in _active:
            _active.remove(self)
        if self._handlers:
            # From here on that signal may raise, and the others are put back all the same.
            handler = self._handlers.pop()
            try:
                handler.put_back()
            finally:
                self.__exit__()


_active: list[held_back] = []
"""The outermost block of the main thread, while there is one."""


_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM") if hasattr(signal, name)]
"""What people and programs end work by, where they handle it by raising."""


class _Handler:
    """Handles a signal as it was handled before, but later where something is half changed."""

    def __init__(self, number: int, before: Callable[[int, FrameType | None], Any]) -> None:
        self.number, self.before = number, before
        self.since: float | None = None
        self.waiting: list[int] = []  # one entry at most; whoever takes it out sends the signal

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._waited() < _patience(frame) and self._wait():
            return
        self.since = None
        self.before(number, frame)

    def put_back(self) -> None:
        if signal.getsignal(self.number) is self:
            signal.signal(self.number, self.before)
        if self._taken():
            signal.raise_signal(self.number)

    def _waited(self) -> float:
        if self.since is None:
            self.since = time.monotonic()
        return time.monotonic() - self.since

    def _wait(self) -> bool:
        """Have the signal sent again; false where no thread can be started for it."""
        if not self.waiting:
            self.waiting.append(self.number)
            try:
                # Not by `threading`, whose locks the main thread may hold at this moment.
                _thread.start_new_thread(self._send_again, ())
            except RuntimeError:
                self.waiting.clear()
                return False
        return True

    def _send_again(self) -> None:
        time.sleep(_PAUSE)
        if self._taken():
            _send(self.number)

    def _taken(self) -> bool:
        try:
            return bool(self.waiting.pop())
        except IndexError:
            return False


def _send(number: int) -> None:
    """Send a signal to the main thread, which may be waiting for something."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)
    else:
        signal.raise_signal(number)


def _patience(frame: FrameType | None) -> float:
    """Return how long a signal is held back for by what runs inside the innermost function that is `orderly`."""
    longest = 0.0
    collecting = [getattr(callback, "__code__", None) for callback in gc.callbacks]
    while frame is not None and frame.f_code not in _orderly:
        # What is raised in a callback of the garbage collector is lost as well.
        name = "__del__" if frame.f_code in collecting else frame.f_code.co_name
        longest = max(longest, _PATIENCE.get(name, 0.0))
        frame = frame.f_back
    return longest
