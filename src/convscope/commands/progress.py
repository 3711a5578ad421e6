"""Progress bars on the terminal, for anything that takes more than two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..context import Label, Sized, running
from ..errors import visible
from .streams import Visible

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE = 2.0


@contextmanager
def progress() -> Generator[None]:
    """Show the progress of everything inside the block on stderr, once it has taken two seconds."""
    bars = _Bars()
    try:
        with running(tracker=bars.track):
            yield
    finally:
        bars.stop()


class _Bars:
    def __init__(self) -> None:
        self.start = time.monotonic()
        self.display: Progress | None = None

    def track(self, items: Sized[Any], label: Label) -> Iterable[Any]:
        task = None
        try:
            for done, item in enumerate(items):
                said = visible(label if isinstance(label, str) else label())
                if task is None and time.monotonic() - self.start > _PATIENCE:
                    task = self._shown().add_task(said, total=len(items) or None)
                if task is not None:
                    self._shown().update(task, completed=done, description=said)
                yield item
        finally:
            if task is not None:
                self._shown().remove_task(task)

    def _shown(self) -> Progress:
        if self.display is None:
            from rich.console import Console
            from rich.file_proxy import FileProxy
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            console = Console(file=sys.stderr)
            # In a file or a pipe a bar would be an empty line.
            # What is printed goes to stdout: above the bar only where both are one terminal.
            own = sys.stdout.isatty()
            self.display = Progress(
                *columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=own
            )
            self.display.start()
            # Above the bar Rich reads control characters in what is printed; stopping puts the streams back.
            for name in ("stdout", "stderr"):
                if isinstance(stream := getattr(sys, name), FileProxy):
                    setattr(sys, name, Visible(stream))
        return self.display

    def stop(self) -> None:
        if self.display is not None:
            self.display.stop()
