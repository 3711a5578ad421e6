"""A watch for what hangs: generous, so that it ends a run and never judges how fast a machine is."""

from __future__ import annotations

import faulthandler
from collections.abc import Generator
from contextlib import contextmanager

HANG = 600
"""Seconds after which something that takes seconds is taken to hang, however busy the machine is."""


@contextmanager
def ended_when_it_hangs() -> Generator[None]:
    """End the whole run, with all stacks, when the block does not end; also where no signal of Python gets through."""
    faulthandler.dump_traceback_later(HANG, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
