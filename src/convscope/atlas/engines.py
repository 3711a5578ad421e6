"""Engines: what computes the shards of a scan. By default that is this process; here are processes of this machine.

All engines tell of a shard what became of it, a `Receipt` or a `Failure`; `kept` makes of that what `scan` is told. A
process that dies may be replaced and its shard tried again, since a shard's file is whole or not there; an error would
come again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ..context import check_cancelled
from ..data.storage import Remote, forget
from ..errors import AtlasError, ConvscopeError, OptionError, told
from .computing import Receipt, Scan
from .jobs import Job, Part, compute, parts
from .scanning import Engine
from .shards import shard_file

TRIES = 3
"""How often a shard is tried whose worker dies."""

_FAILURES = 3
"""Failed shards after which no more are begun: a full disk would fail them all."""

PAUSE = 0.5
"""Seconds between two looks at whether the scan was cancelled."""

_PATIENCE = 5.0
"""Seconds that a worker has to end."""


@dataclass(frozen=True)
class Failure:
    """Why a shard could not be computed."""

    shard: int
    reason: str


Outcomes = Generator[Receipt | Failure]


def local(workers: int = 0, devices: Sequence[str] = ()) -> Engine:
    """Return an engine of processes on this machine.

    Args:
        workers: how many, which share torch's threads; one for each device, or each thread, by default.
        devices: on what they compute, in turns: ["cuda:0", "cuda:1"]; by default where the network is.

    Raises OptionError for fewer than 0 workers. The engine raises AtlasError for a network that only this process has.
    """
    if workers < 0:
        raise OptionError(f"workers is 0 or more, not {workers}")

    def engine(scan: Scan, numbers: Sequence[int]) -> Generator[Receipt]:
        count = min(workers or len(devices) or torch.get_num_threads(), len(numbers))
        each = max(1, torch.get_num_threads() // count)
        jobs = [Job.of(scan, device=device, threads=each) for device in devices or [""]]
        yield from kept(scan, _outcomes([jobs[at % len(jobs)] for at in range(count)], parts(scan, numbers)))

    return engine


def kept(scan: Scan, outcomes: Outcomes) -> Generator[Receipt]:
    """Yield receipts, and at the end raise AtlasError for shards that failed; all others are kept."""
    failures: list[Failure] = []
    try:
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                failures.append(outcome)
                if len(failures) == _FAILURES:
                    break
                continue
            _check_arrived(scan, outcome)
            yield outcome
    finally:
        outcomes.close()
    if failures:
        reasons = "; ".join(f"{_named(scan, failure.shard)}: {failure.reason}" for failure in failures)
        raise AtlasError(f"not all could be computed. {reasons}. The others are kept: scan as before to go on")


def _named(scan: Scan, number: int) -> str:
    pictures = scan.manifest.range(number)
    return f"shard {number} (pictures {pictures.start} to {pictures.stop - 1})"


def _check_arrived(scan: Scan, receipt: Receipt) -> None:
    file = shard_file(scan.folder, scan.manifest, scan.manifest.range(receipt.shard).start)
    if isinstance(file, Remote):
        forget(file)  # it may have been there before, cut short
    elif not file.exists():
        with suppress(OSError):  # a network file system asks its server when a folder is listed
            os.listdir(file.parent)  # noqa: PTH208
    if not file.is_file():
        raise AtlasError(
            f"a worker wrote {file.name}, but it is not in {scan.folder}: workers on other machines need an atlas in a "
            "folder that they share with this one, or in a storage, as -o s3://bucket/atlas"
        )


# Processes of this machine -----------------------------------------------------------------------------------------


class _Worker:
    """A process that computes one part after the other."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.part: Part | None = None
        begun = _context()
        self.connection, other = begun.Pipe()
        self.process = begun.Process(target=_work, args=(job, other), name="convscope-scan", daemon=True)
        self.process.start()
        other.close()

    def give(self, part: Part) -> None:
        self.part = part
        with suppress(OSError):  # it has ended: then there is no answer either
            self.connection.send(part)

    def answer(self) -> Receipt | Failure | None:
        """Return what became of the part; None where the process died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def stop(self) -> None:
        """Tell the process to end, at once where it computes."""
        self.connection.close()
        if self.part is not None:
            self.process.terminate()

    def end(self) -> None:
        """Wait for the process to end; it has had time for it."""
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()

    def death(self) -> str:
        """Say how the process ended."""
        self.process.join(_PATIENCE)
        code = self.process.exitcode or 0
        if code == -signal.SIGKILL:
            return (
                "its worker was killed, as systems do when memory runs out: give fewer --workers or a smaller --batch"
            )
        return f"its worker ended with {f'signal {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'}"


def _context() -> Any:
    """Return how processes begin: forked from one that has imported torch and done nothing, where that is safe."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([compute.__module__])
    return found


def _outcomes(jobs: Sequence[Job], waiting: Iterator[Part]) -> Outcomes:
    """Compute parts in one process for each of the jobs, which differ in the device."""
    workers: list[_Worker] = []
    died = Counter[int]()
    try:
        for job in jobs:
            if (part := next(waiting, None)) is not None:
                workers.append(_Worker(job))
                workers[-1].give(part)
        while busy := {worker.connection: worker for worker in workers if worker.part is not None}:
            ready = wait(list(busy), PAUSE)
            check_cancelled()
            for connection in ready:
                worker = busy[connection]  # type: ignore[index]  # what `wait` returns is what it was given
                part = worker.part
                assert part is not None
                outcome = worker.answer()
                if outcome is None:
                    died[part.number] += 1
                    reason = worker.death()
                    worker.stop()
                    workers[workers.index(worker)] = worker = _Worker(worker.job)
                    if died[part.number] < TRIES:
                        worker.give(part)
                        continue
                    outcome = Failure(part.number, f"{reason}; it was tried {TRIES} times")
                worker.part = None
                if (after := next(waiting, None)) is not None:
                    worker.give(after)
                yield outcome
    finally:
        for worker in workers:
            worker.stop()  # all at once; then each is waited for
        for worker in workers:
            worker.end()


def _work(job: Job, connection: Connection) -> None:
    """What a worker process does until it is told nothing more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C in a terminal reaches all: whoever began the scan decides
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(job.threads)
    while True:
        try:
            part: Part = connection.recv()
        except EOFError:
            return
        connection.send(outcome_of(job, part, workers=job.threads))


def outcome_of(job: Job, part: Part, *, workers: int | None = None) -> Receipt | Failure:
    """Compute a part, and tell what became of it: an error may not be one that another process could read."""
    try:
        return compute(job, part, workers=workers)
    except ConvscopeError as error:
        return Failure(part.number, str(error))
    except Exception as error:
        return Failure(part.number, told(error))


def _end(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # what is told twice must not fall into what ends the process
    sys.exit(128 + number)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
