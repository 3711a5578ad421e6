"""Progress of what takes long: bars on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..context import Arriving, Label, Parts, Sized, running
from ..errors import visible
from .streams import Visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

_PATIENCE = 2.0
"""Seconds until bars appear."""
PAUSE = 10.0
"""Seconds until the first line appears where stderr is no terminal, and between two lines."""


@contextmanager
def progress() -> Generator[None]:
    """Show on stderr how far everything inside the block is, once it takes long."""
    shown = _Shown()
    try:
        with running(tracker=shown.track):
            yield
    finally:
        if shown.display is not None:
            shown.display.stop()


@dataclass(eq=False)
class _Task:
    """A loop that runs: what it does, how many steps it has, and how many are done."""

    label: str
    total: int
    start: float
    work: Sequence[float] = ()
    done: int = 0

    def share(self, within: float) -> float:
        """Return which share of the work is done, `within` being that of the step that runs, where it is a loop."""
        if not any(self.work):
            return self.done / self.total if self.total else 0.0
        return (sum(self.work[: self.done]) + within * sum(self.work[self.done : self.done + 1])) / sum(self.work)

    def __str__(self) -> str:
        return f"{self.label}: {self.done:,} of {self.total:,}" if self.total else self.label


class _Shown:
    def __init__(self) -> None:
        self.start = time.monotonic()
        self.tasks: list[_Task] = []
        self.display: _Bars | _Lines | None = None

    def track(self, items: Sized[Any], label: Label) -> Iterable[Any]:
        work = items.work if isinstance(items, Parts) else ()
        task = _Task("", len(items), time.monotonic(), work)
        self.tasks.append(task)
        try:
            for task.done, item in enumerate(items, isinstance(items, Arriving)):
                task.label = visible(label if isinstance(label, str) else label())
                if time.monotonic() - self.start > _PATIENCE:
                    self._displayed().update(task, self.tasks)
                yield item
        finally:
            self.tasks.remove(task)
            if self.display is not None:
                self.display.remove(task)

    def _displayed(self) -> _Bars | _Lines:
        if self.display is None:
            from rich.console import Console

            console = Console(file=sys.stderr)
            self.display = _Bars(console) if console.is_terminal else _Lines(self.start)
        return self.display


class _Lines:
    """For files and pipes, as of scripts and schedulers: a line on how far everything that runs is."""

    def __init__(self, start: float) -> None:
        self.told = start

    def update(self, task: _Task, tasks: Sequence[_Task]) -> None:
        now = time.monotonic()
        named = [str(task) for task in tasks if task.label]
        if named and now - self.told >= PAUSE:
            self.told = now
            print(
                f"convscope: {', '.join(named)}{f'; {left} left' if (left := _left(tasks, now)) else ''}",
                file=sys.stderr,
            )

    def remove(self, task: _Task) -> None: ...

    def stop(self) -> None: ...


def _left(tasks: Sequence[_Task], now: float) -> str:
    """Say how long the first of some loops, each within the one before, will go on at the pace so far."""
    share = 0.0
    for task in reversed(tasks):
        share = task.share(share)
    if share in (0, 1):
        return ""
    seconds = (now - tasks[0].start) / share * (1 - share)
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


class _Bars:
    def __init__(self, console: Console) -> None:
        from rich.file_proxy import FileProxy
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", markup=False),
        )
        # What is printed goes to stdout: above the bar only where both are one terminal.
        own = sys.stdout.isatty()
        self.bars = Progress(*columns, console=console, transient=True, redirect_stdout=own)
        self.ids: dict[_Task, TaskID] = {}
        self.bars.start()
        # Above the bar Rich reads control characters in what is printed; stopping puts the streams back.
        for name in ("stdout", "stderr"):
            if isinstance(stream := getattr(sys, name), FileProxy):
                setattr(sys, name, Visible(stream))

    def update(self, task: _Task, tasks: Sequence[_Task]) -> None:
        if task not in self.ids:
            self.ids[task] = self.bars.add_task(task.label, total=task.total or None, left="")
        self.bars.update(self.ids[task], completed=task.done, description=task.label)
        if tasks[0] in self.ids:
            self.bars.update(self.ids[tasks[0]], left=_left(tasks, time.monotonic()))

    def remove(self, task: _Task) -> None:
        if task in self.ids:
            self.bars.remove_task(self.ids.pop(task))

    def stop(self) -> None:
        self.bars.stop()
