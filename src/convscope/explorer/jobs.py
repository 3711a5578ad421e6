"""Jobs: what takes longer than anybody waits for a page, one after the other, kept by key across restarts.

A job is a recipe that is remade, a scan, or a diagnosis. Each runs in a process of its own; the queue is a table of
SQLite in the folder that holds the results, so that a server that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import ConvscopeError, OutputError
from ..locks import lock
from ..outputs import write_bytes
from ..parsing import Document

State = Literal["waiting", "running", "done", "failed", "ended"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL, network TEXT NOT NULL,
    about TEXT NOT NULL, asked TEXT NOT NULL, python TEXT NOT NULL, command TEXT NOT NULL, message TEXT NOT NULL,
    tries INTEGER NOT NULL, entered REAL NOT NULL, took REAL NOT NULL
)
"""

_TRIES = 2
"""How often a job is begun whose process dies: what kills it once may be chance."""

_SECONDS = 20
"""How long a job that is ended may take to keep what it has."""


@dataclass(frozen=True)
class Job:
    """A job: its id (the key of what decides its result), state, what it is and about, and how far it is."""

    id: str
    state: State
    kind: str
    title: str
    network: str
    about: str
    python: str
    command: str
    message: str = ""
    took: float = 0.0
    done: int = 0
    of: int = 0
    doing: str = ""
    before: int = 0

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("waiting", "running")


@dataclass(frozen=True)
class Asked:
    """What the table holds of what a job is to do: a recipe, or the number of a source of pictures."""

    kind: str
    recipe: Mapping[str, object] = field(default_factory=dict[str, object])
    data: int = -1


Completing = Callable[[str, Asked], Mapping[str, Any]]


@dataclass(frozen=True)
class Order:
    """What a job is to do, what it is called, and the key of what decides the result."""

    kind: str
    title: str
    network: str
    about: str
    asked: Asked
    key: str
    python: str
    command: str


@dataclass(frozen=True)
class _Line:
    done: int = 0
    of: int = 0
    doing: str = ""
    failed: str = ""


def _read(asked: str) -> Asked:
    return Document("the queue", asked, OutputError).json(Asked)


def key_of(words: Mapping[str, Any]) -> str:
    """Return the key of what has no recipe."""
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def about_unit(layer: str, unit: int) -> str:
    """Return what jobs about a unit are found by."""
    return f"{layer}:{unit}"


class Jobs:
    """The queue of one folder; `finished` is called, in the queue's thread, with each job that is done.

    `complete` returns what a job's process is told, of the network's id and what the table holds: how a network is
    loaded and where data lie is never taken from the table, which may be a stranger's. It raises ConvscopeError for
    what is not open here.
    """

    def __init__(self, folder: Path, complete: Completing, finished: Callable[[Job], None] = lambda _: None) -> None:
        self.folder, self.complete, self.finished = folder, complete, finished
        self._lock = lock(folder / "explorer.lock", f"the folder of results {folder}")
        self._lock.__enter__()
        self._progress: dict[str, dict[str, Any]] = {}
        self._process: tuple[str, subprocess.Popen[str]] | None = None
        self._ending: set[str] = set()
        self._wake, self._closed = threading.Event(), threading.Event()
        with self._table() as table:
            table.execute(_SCHEMA)
            table.execute("UPDATE jobs SET state = 'waiting' WHERE state = 'running'")
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    @contextmanager
    def _table(self) -> Generator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self.folder / "jobs.sqlite", timeout=20)
            try:
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise OutputError(f"the queue in {self.folder} cannot be read or written: {error}") from None

    def add(self, order: Order) -> Job:
        """Put a job into the queue; one that is there already is returned, and begun again where it failed."""
        with self._table() as table:
            found = table.execute("SELECT state FROM jobs WHERE id = ?", (order.key,)).fetchone()
            if found is None:
                table.execute(
                    "INSERT INTO jobs VALUES (?, 'waiting', ?, ?, ?, ?, ?, ?, ?, '', 0, ?, 0)",
                    (order.key, order.kind, order.title, order.network, order.about, json.dumps(asdict(order.asked)),
                     order.python, order.command, time.time()),
                )  # fmt: skip
            elif found[0] in ("failed", "ended"):
                table.execute(
                    "UPDATE jobs SET state = 'waiting', message = '', tries = 0, entered = ? WHERE id = ?",
                    (time.time(), order.key),
                )
        self._wake.set()
        added = self.find(order.key)
        assert added is not None
        return added

    def find(self, job: str) -> Job | None:
        """Return a job by its id; None where there is none."""
        return next(iter(self._listed("WHERE id = ?", (job,))), None)

    def listed(self, most: int = 200) -> list[Job]:
        """Return the jobs, those that have not ended first, then the newest."""
        order = "ORDER BY state IN ('waiting', 'running') DESC, state = 'running' DESC, entered DESC LIMIT ?"
        return self._listed(order, (most,))

    def about(self, network: str, about: str) -> list[Job]:
        """Return the jobs about something of a network, the newest first."""
        return self._listed("WHERE network = ? AND about = ? ORDER BY entered DESC", (network, about))

    def place(self, job: str, name: str) -> Path:
        """Return where a file of a job lies."""
        return self.folder / job / name

    def keep(self, content: bytes) -> Path:
        """Write a picture's file (PNG or .npy) for a job to read, once."""
        ending = "npy" if content.startswith(b"\x93NUMPY") else "png"
        path = self.folder / "pictures" / f"{hashlib.sha256(content).hexdigest()[:32]}.{ending}"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, content)
        return path

    def end(self, job: str) -> None:
        """End a job: what it has so far is kept, where its kind keeps that."""
        with self._table() as table:
            table.execute(
                "UPDATE jobs SET state = 'ended', message = 'it was ended' WHERE id = ? AND state = 'waiting'", (job,)
            )
        self._ending.add(job)
        if self._process is not None and self._process[0] == job:
            self._interrupt(self._process[1])

    def close(self) -> None:
        """Stop; the job that runs is begun again by the next explorer of this folder."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._wake.set()
        if self._process is not None:
            self._process[1].kill()
        self._thread.join(10)
        self._lock.__exit__(None, None, None)

    def _listed(self, which: str, values: tuple[Any, ...]) -> list[Job]:
        names = "id, state, kind, title, network, about, python, command, message, took"
        with self._table() as table:
            rows = table.execute(f"SELECT {names} FROM jobs {which}", values).fetchall()
            waiting = [row[0] for row in table.execute("SELECT id FROM jobs WHERE state = 'waiting' ORDER BY entered")]
        busy = self._process is not None
        return [
            Job(*row, **self._progress.get(row[0], {}), before=waiting.index(row[0]) + busy if row[0] in waiting else 0)
            for row in rows
        ]

    def _work(self) -> None:
        while not self._closed.is_set():
            with self._table() as table:
                row = table.execute(
                    "SELECT id, network, asked, tries FROM jobs WHERE state = 'waiting' ORDER BY entered LIMIT 1"
                ).fetchone()
            if row is None:
                self._wake.wait()
                self._wake.clear()
                continue
            self._run(*row)

    def _run(self, job: str, network: str, asked: str, tries: int) -> None:
        self._set(job, "running", tries=tries + 1)
        began = time.monotonic()
        try:
            code, message = self._watched(job, self.complete(network, _read(asked)))
        except ConvscopeError as error:
            code, message = 2, str(error)
        except OSError as error:
            code, message = 2, f"its process cannot be started: {error.strerror or error}"
        self._progress.pop(job, None)
        if self._closed.is_set():
            return  # it goes on in the next explorer
        took = time.monotonic() - began
        if code == 0:
            self._set(job, "done", message, took)
            done = self.find(job)
            with suppress(Exception):  # what looks at results does not end the queue
                assert done is not None
                self.finished(done)
        elif job in self._ending:
            self._set(job, "ended", "it was ended", took)
        elif code < 0 and tries + 1 < _TRIES:
            self._set(job, "waiting", "its process was killed, and it begins again")
        else:
            killed = f"its process was killed by {signal.Signals(-code).name}: did memory run out?" if code < 0 else ""
            self._set(job, "failed", message or killed or "its process ended without a result", took)
        self._ending.discard(job)

    def _watched(self, job: str, asked: Mapping[str, Any]) -> tuple[int, str]:
        if not re.fullmatch(r"[0-9a-f]{64}", job):
            raise OutputError("the queue holds what is no key of a job")
        folder = self.folder / job
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "messages.txt").open("w") as messages:
            process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.working"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages, text=True, encoding="utf-8",
            )  # fmt: skip
            self._process = job, process
            failed = ""
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                with suppress(BrokenPipeError), process.stdin as told:
                    json.dump({**asked, "folder": str(folder)}, told)
                for line in process.stdout:
                    failed = self._told(job, line) or failed
                return process.wait(), failed
            finally:
                process.kill()
                process.wait()
                self._process = None

    def _set(self, job: str, state: State, message: str = "", took: float = 0.0, tries: int | None = None) -> None:
        with self._table() as table:
            table.execute(
                "UPDATE jobs SET state = ?, message = ?, took = ?, tries = coalesce(?, tries) WHERE id = ?",
                (state, message, took, tries, job),
            )

    def _told(self, job: str, line: str) -> str:
        """Take in what a process says of how far it is; return why it fails, where it says that."""
        said = Document("what a job's process says", line, OutputError).json(_Line)
        self._progress[job] = {"done": said.done, "of": said.of, "doing": said.doing}
        return said.failed

    def _interrupt(self, process: subprocess.Popen[str]) -> None:
        with suppress(OSError):
            process.send_signal(signal.SIGINT)
        threading.Timer(_SECONDS, process.kill).start()
