"""Cases by the thousand, where they can harm nothing: in forks of this process, which has imported all there is.

A worker goes through one batch of cases and says what it begins and how each ended; whoever hangs or dies is noted and
the rest of its batch goes on in another. What a case takes is measured: its own time on the processor (a busy machine
makes nothing hang), and the most memory that it added to its process.
"""

from __future__ import annotations

import contextlib
import gc
import getpass
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 10.0
"""Time on the processor after which a case hangs."""
PATIENCE = 90.0
"""Seconds after which a case hangs that waits for something, however busy the machine is."""
MOST = 1200
"""The most memory that a case may add to its process, in MiB: a command has some 300 MiB before it does anything."""
_ROOM = 3 * 2**30  # of addresses beyond what the process has: more is refused by the system, so that the machine lives

_OTHERS = ("home", "interrupter-", "pymp-", f"torchinductor_{getpass.getuser()}")
"""What may be in the folder for temporary files: torch and `multiprocessing` have folders of their own there."""

_TOLD = 3  # the exit code of a worker that has said why it ends

FINE = ("worked", "refused")
FAULTS = ("traceback", "crash", "hang", "memory", "code", "wrote", "left", "said", "harmed", "stale")


@dataclass(frozen=True)
class Outcome:
    """How a case ended: `ending` is one of FINE or FAULTS; `words` is what was said, and where a fault comes from."""

    case: Any
    ending: str
    words: str = ""
    seconds: float = 0.0
    memory: int = 0


Attempt = Callable[[Any, Path], tuple[str, str]]
"""What runs a case in its folder, in a process of its own, and returns ending and words."""


class Worker:
    """A process with a batch of cases."""

    def __init__(self, attempt: Attempt, batch: Sequence[Any], watched: bool, alone: bool) -> None:
        self.batch, self.done, self.began = batch, 0, time.monotonic()
        self.used, self.rest = 0.0, b""
        reading, writing = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(reading)
            _work(attempt, batch, writing, watched, alone)
        os.close(writing)
        self.pipe = reading

    def outcomes(self) -> Iterator[Outcome]:
        """Return what has ended since the last look."""
        content = os.read(self.pipe, 1 << 20)
        *lines, self.rest = (self.rest + content).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "begins" in said:
                self.began, self.used = time.monotonic(), self._processor()
            else:
                yield Outcome(self.batch[self.done], **said)
                self.done += 1
        if not content:
            os.close(self.pipe)
            self.pipe = -1

    @property
    def hangs(self) -> bool:
        """Whether the case has had its time."""
        waited = time.monotonic() - self.began
        return waited > PATIENCE or (waited > SECONDS and self._processor() - self.used > SECONDS)

    def _processor(self) -> float:
        try:
            fields = Path(f"/proc/{self.process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> int:
        """Kill it with whatever it started, and return how it ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process, signal.SIGKILL)
        return os.waitpid(self.process, 0)[1]


def run(
    cases: Iterable[Any], attempt: Attempt, *, workers: int = 1, batch: int = 50, watched: bool = True
) -> Iterator[Outcome]:
    """Run cases and return how each ended, in the order in which they end.

    Those that are `watched` may start no process and write nowhere else.
    """
    gc.collect()
    gc.freeze()
    waiting, busy = deque(_batches(cases, batch)), list[Worker]()
    while waiting or busy:
        while waiting and len(busy) < workers:
            busy.append(Worker(attempt, waiting.popleft(), watched, batch == 1))
        ready, _, _ = select.select([worker.pipe for worker in busy], [], [], 0.5)
        for worker in list(busy):
            if worker.pipe in ready:
                yield from worker.outcomes()
            if worker.pipe != -1 and not worker.hangs:
                continue
            hangs, status = worker.pipe != -1, worker.end()
            busy.remove(worker)
            if hangs:
                os.close(worker.pipe)
            if worker.done < len(worker.batch):
                told = status >> 8 == _TOLD
                case, rest = worker.batch[worker.done], worker.batch[worker.done + (not told) :]
                waited = time.monotonic() - worker.began
                if not told:
                    how = f"after {waited:.0f} s" if hangs else _ended(status)
                    yield Outcome(case, "hang" if hangs else "crash", how, waited)
                if rest:
                    waiting.appendleft(rest)


def _batches(cases: Iterable[Any], size: int) -> Iterator[Sequence[Any]]:
    batch = list[Any]()
    for case in cases:
        batch.append(case)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _ended(status: int) -> str:
    return f"signal {signal.Signals(status & 127).name}" if status & 127 else f"exit code {status >> 8}"


def _work(attempt: Attempt, batch: Sequence[Any], writing: int, watched: bool, alone: bool) -> None:
    """Go through a batch in this fork, and end it."""
    from .watch import Watch, mark_memory, memory

    code = 1
    try:
        os.setsid()
        folder = Path(tempfile.mkdtemp(prefix="adversary-"))
        watch, said = Watch(os.path.realpath(folder)), _quietly(folder.with_suffix(".said"))
        os.environ["TMPDIR"], tempfile.tempdir = str(folder), str(folder)
        os.environ["HOME"] = str(folder / "home")
        if watched:
            _limit()
        watch.install()
        for number, case in enumerate(batch):
            place = folder / f"case-{number}"  # of its own: what is known of a file is kept by its path
            place.mkdir()
            os.chdir(place)
            _say(writing, {"begins": 1})
            before, had = time.process_time(), mark_memory()
            with watch.watching(ends=alone) if watched else contextlib.nullcontext():
                ending, words = attempt(case, place)
            seconds, added = time.process_time() - before, memory("VmHWM") - had
            ending, words = _judged(ending, words, watch.noted, said, added, place)
            _say(
                writing,
                {
                    "ending": ending,
                    "words": words.replace(str(place), "...")[:600],
                    "seconds": round(seconds, 3),
                    "memory": added,
                },
            )
            os.chdir("/")
            shutil.rmtree(folder)
            folder.mkdir()
        shutil.rmtree(folder)
        folder.with_suffix(".said").unlink()
        code = 0
    except BaseException as error:
        what = f"{type(error).__name__}: {str(error)[:300]}"
        _say(writing, {"ending": "crash", "words": what, "seconds": 0.0, "memory": 0})
        code = _TOLD
    finally:
        os._exit(code)


def _judged(ending: str, words: str, noted: Sequence[str], said: Any, memory: int, place: Path) -> tuple[str, str]:
    """Return the worst of what was noticed."""
    sys.stdout.flush()
    sys.stderr.flush()
    said.seek(0)
    text = said.read().strip()
    said.seek(0)
    said.truncate()
    left = [path.name for path in place.parent.iterdir() if path != place and not path.name.startswith(_OTHERS)]
    if ending in FAULTS:
        return ending, words
    if noted:
        kind, _, what = noted[0].partition(": ")
        return kind, what
    if memory > MOST:
        return "memory", f"{memory} MiB, {ending}: {words}"
    if left:
        return "left", f"files {left[:3]}, {ending}: {words}"
    if text:
        return "said", f"{text[:300]!r} beside: {ending}, {words[:80]}"
    return ending, words


def _say(writing: int, what: dict[str, Any]) -> None:
    os.write(writing, json.dumps(what).encode() + b"\n")


def _quietly(path: Path) -> Any:
    """Send everything that is said, also by libraries in C, to a file."""
    file = path.open("w+", encoding="utf-8", errors="replace")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(file.fileno(), 2)
    # Whoever started this may have put something else in their place.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    return file


def _limit() -> None:
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _ROOM, size + _ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
