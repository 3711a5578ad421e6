"""Silence: Python's warning filters belong to the whole process, so threads must change them one at a time."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager

FILTERS = threading.Lock()
"""Held by whoever changes the filters, until they are as before or `quiet` has taken them over."""

_users: list[warnings.catch_warnings] = []  # the first one's is what silences, and is left by the last


@contextmanager
def quiet(modules: str = "") -> Generator[None]:
    """Ignore warnings inside the block; any number of threads may be in one, whichever leaves first.

    `modules` is a pattern for the beginning of the names of the modules whose warnings are ignored, by default any.
    """
    with FILTERS:
        if not _users:
            silence = warnings.catch_warnings()
            silence.__enter__()
        else:
            silence = _users[0]
        _users.append(silence)
        warnings.filterwarnings("ignore", module=modules)
    try:
        yield
    finally:
        with FILTERS:
            _users.pop().__exit__(None, None, None) if len(_users) == 1 else _users.pop()
