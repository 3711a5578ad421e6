"""File-system faults: each call by which a command touches its folder fails once, or the process is killed at it.

After each fault the command must have ended with one line and exit code 2, or have done without the call; and the same
command again must end with the same files and numbers as if nothing had happened, and nothing left over.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import count as numbers
from pathlib import Path
from typing import Any

from numpy.random import default_rng

from . import commands, sandbox
from .kills import LINES, made
from .report import Part

Case = tuple[str, int, int]

KILL = "SIGKILL"
FAULTS = (KILL, "ENOSPC", "EACCES", "EIO")

_AUDITED = {"open": 0, "os.rename": 0, "os.remove": 0, "os.mkdir": 0, "os.link": 0, "os.chmod": 0, "os.scandir": 0}
"""Python's own events of the file system, and which argument is the path. `_count` adds writing and syncing."""

_NAMES = [name for name in LINES if name != "train-workers"]
"""Commands that do all of their writing in the process in which calls are counted."""


def cases(count: int, seed: int = 0, only: Sequence[str] = ()) -> Iterator[Case]:
    """Yield at most `count` faults, of each command in turn: a number stands for a call and a way to fail."""
    orders = dict[str, list[int]]()
    names = [name for name in _NAMES if not only or name in only]
    for turn in numbers():
        for name in list(names):
            if name not in orders:
                orders[name] = default_rng([9, seed]).permutation(len(whole(name)[1]) * len(FAULTS)).tolist()
            if turn >= len(orders[name]):
                names.remove(name)
            elif count > 0:
                yield name, seed, orders[name][turn]
                count -= 1
        if not names or count <= 0:
            return


@cache
def whole(name: str) -> tuple[dict[str, str], list[str]]:
    """Return the files of a run without a fault, and its calls."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "case")
        sandbox.fill(folder)
        calls, code, said = _run(name, folder)
        assert code == 0, f"{LINES[name]} ends with {code}: {said}"
        return made(folder), calls


def attempt(case: Case, folder: Path) -> tuple[str, str]:
    """Let a call fail, and run the command again."""
    name, _, number = case
    call, kind = number // len(FAULTS) + 1, FAULTS[number % len(FAULTS)]
    wanted, _ = whole(name)
    sandbox.fill(folder)
    given = sandbox.files(folder)
    calls, code, said = _run(name, folder, call, kind)
    shown = f"{name}, {kind} at call {call}, {calls[call - 1] if len(calls) >= call else 'which did not come'}"
    ended = (-signal.SIGKILL,) if kind == KILL and len(calls) >= call else (0, 2)
    killed = kind == KILL and code == -signal.SIGKILL  # maybe before another thread has noted its call
    if "Traceback" in said or (code not in ended and not killed):
        return "traceback", f"{shown}: ends with {code}: {said[-400:]}"
    if code == 2 and not said.splitlines()[-1].startswith("convscope: "):
        return "said", f"{shown}: {said[-400:]}"
    kept = list(folder.parent.glob("*convscope-*"))
    unknown = [path.name for path in kept if f"kept instead as {path}" not in said]
    for path in kept:
        shutil.rmtree(path)
    _, code, said = _run(name, folder)
    if code or "Traceback" in said:
        return "stale", f"{shown}: the second time it ends with {code}: {said[-400:]}"
    found, after = made(folder), sandbox.files(folder)
    left = unknown + sorted(set(found) - set(wanted))
    left += [path for path in after if path not in given and path not in found]
    if left:
        return "left", f"{shown}: {left[:4]}"
    odd = sorted(path for path in wanted if found.get(path) != wanted[path])
    odd += [path for path in given if after.get(path) != given[path]]
    return ("stale", f"{shown}: differs in {odd[:4]}") if odd else ("worked", shown)


def _run(name: str, folder: Path, number: int = 0, kind: str = "") -> tuple[list[str], int, str]:
    """Run a command in a child; return the calls it made, its exit code or minus the signal, and what it said."""
    said, calls = folder.with_name("said"), folder.with_name("calls")
    child = os.fork()
    if not child:
        _child(LINES[name], folder, number, kind, said, calls)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    told = calls.read_text().splitlines(), code, said.read_text(errors="replace").strip()
    said.unlink()
    calls.unlink()
    return told


def _child(line: str, work: Path, number: int, kind: str, said: Path, calls: Path) -> None:
    """Run the command in this process, and end it."""
    code = 99
    try:
        signal.alarm(120)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = (open(handle, "w", closefd=False) for handle in (1, 2))  # noqa: SIM115
        os.chdir(work)
        record = os.open(calls, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        _count(work, record, number, kind)
        code = commands.run(line.split())
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _count(work: Path, record: int, number: int, kind: str) -> None:
    """Count the calls on files below a folder, and let one of them fail."""
    made = [0]
    inside = str(work.resolve())
    # What the command reads is left alone: a picture that cannot be read is skipped, and the result is another.
    given = {str(path) for path in work.resolve().rglob("*")}

    def at(call: str, path: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike) or not os.fsdecode(path):
            return
        place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  resolve would be another call
        if not place.startswith(inside) or place in given:
            return
        made[0] += 1
        os.write(record, f"{call} {Path(os.fsdecode(path)).name}\n".encode())
        if made[0] == number:
            if kind == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(10)
            code = int(getattr(errno, kind))
            raise OSError(code, os.strerror(code))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _AUDITED:
            at(event, arguments[_AUDITED[event]])

    def write_bytes(self: Path, content: Any) -> int:
        """Fail, or be killed, half-way."""
        content = memoryview(content).cast("B")
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            at("write", self)
            file.write(content[len(content) // 2 :])
        return len(content)

    def patched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any) -> Any:
            at(name, os.readlink(f"/proc/self/fd/{first}"))  # noqa: PTH115
            return real(first, *rest)

        return call

    sys.addaudithook(hook)
    Path.write_bytes = write_bytes  # type: ignore[method-assign]
    os.fsync = patched("fsync", os.fsync)


PART = Part("faults", 10_000, 3, cases, attempt, commands.prepare, batch=10, watched=False)
