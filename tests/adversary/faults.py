"""File-system faults: each call by which a command touches its folder fails once, or the process is killed at it.

`python -m adversary.faults` tries the commands below; `faults(command, start, work)` any other. After each fault the
command must have ended with one line and exit code 2 (or have done without the call), and the same command again must
end with exit code 0, the same files and the same bytes as if nothing had happened, and nothing left over.
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
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILL = "SIGKILL"
FAULTS = (KILL, "ENOSPC", "EACCES", "EIO")
_SAME = (".safetensors", ".png", ".csv", ".npz", ".gif", ".html", ".pdf")
"""Endings of files that two equal runs write with the same bytes; a history and a checkpoint hold times."""

_AUDITED = {"open": 0, "os.rename": 0, "os.remove": 0, "os.mkdir": 0, "os.link": 0, "os.chmod": 0, "os.scandir": 0}
"""Python's own events of the file system, and which argument is the path. `_count` adds writing and syncing."""


@dataclass(frozen=True)
class Fault:
    """What a fault at one call led to; `wrong` is empty where all is as it must be."""

    call: str
    number: int
    kind: str
    code: int
    wrong: str


def faults(
    command: Sequence[str], start: Path, work: Path, kinds: Sequence[str] = FAULTS, numbers: Sequence[int] = ()
) -> Iterator[Fault]:
    """Yield what each fault leads to; the command runs in `work`, made as a copy of `start` for each.

    `numbers` are those of the calls that fail, all by default. The process must have one thread: it is forked.
    """
    _fresh(start, work)
    _warm(command, work)
    _fresh(start, work)
    calls, code, said = _run(command, work)
    if code:
        raise ValueError(f"the command fails by itself: {said}")
    expected = _contents(work)
    for number in numbers or range(1, len(calls) + 1):
        for kind in kinds:
            _fresh(start, work)
            made, code, said = _run(command, work, number, kind)
            wrong = _judged(code, said, kind)
            _, again, words = _run(command, work)
            if again:
                wrong = wrong or f"the second time it ends with {again}: {words}"
            wrong = wrong or _difference(expected, _contents(work))
            yield Fault(made[number - 1] if len(made) >= number else "none", number, kind, code, wrong)


def _warm(command: Sequence[str], work: Path) -> None:
    """Run the command here once, so that what it imports is not imported by every child again."""
    from convscope.cli import run

    before = Path.cwd()
    os.chdir(work)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        run(command)
    os.chdir(before)


def _judged(code: int, said: str, kind: str) -> str:
    if kind == KILL:
        return "" if code == -signal.SIGKILL else f"it was not killed, and ended with {code}: {said}"
    if "Traceback" in said:
        return said
    return "" if code in (0, 2) else f"exit code {code}: {said}"


def _difference(expected: dict[str, bytes], found: dict[str, bytes]) -> str:
    if expected.keys() != found.keys():
        return f"files: {sorted(expected.keys() ^ found.keys())}"
    return "".join(f"{name} differs; " for name in expected if expected[name] != found[name])


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() if path.suffix in _SAME else b"" for path in files}


def _fresh(start: Path, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(start, work)


def _run(command: Sequence[str], work: Path, number: int = 0, kind: str = "") -> tuple[list[str], int, str]:
    """Run a command in a child; return the calls it made, its exit code or minus the signal, and what it said."""
    with tempfile.TemporaryDirectory() as name:
        said, calls = Path(name, "said"), Path(name, "calls")
        child = os.fork()
        if not child:
            _child(command, work, number, kind, said, calls)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return calls.read_text().splitlines(), code, said.read_text(errors="replace").strip()


def _child(command: Sequence[str], work: Path, number: int, kind: str, said: Path, calls: Path) -> None:
    """Run the command in this process, and end it."""
    from convscope.cli import run

    code = 99
    try:
        signal.alarm(120)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 2)
        os.dup2(2, 1)
        sys.stdout, sys.stderr = (open(handle, "w", closefd=False) for handle in (1, 2))  # noqa: SIM115
        os.chdir(work)
        record = os.open(calls, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        _count(work, record, number, kind)
        code = run(command)
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


def _prepared(folder: Path) -> dict[str, list[str]]:
    """Make pictures and return the commands that are tried, by name."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for number in range(20):
        path = folder / "data" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (28, 28), np.uint8)).save(path)
    Image.fromarray(noise.integers(0, 255, (48, 48, 3), np.uint8)).save(folder / "style.png")
    pictures = [f"data/a/{number}.png" for number in (0, 2)]
    lenet = ["--net", "lenet5"]
    return {
        "train": "train lenet5 --data data -o run --epochs 2 --batch 8 --workers 0 --precision fp32".split(),
        "train-style": (
            "train-style style.png --data data -o s.safetensors --steps 2 --batch 2 --size 32 --width 4 --blocks 1 "
            "--workers 0"
        ).split(),
        "folder": ["saliency", *pictures, *lenet, "-o", "maps", "--save-values", "maps.npz"],
        "film": ["saliency", *pictures, *lenet, "-o", "maps.gif"],
        "picture": ["saliency", pictures[0], *lenet, "-o", "map.pdf", "--save-values", "map.safetensors"],
        "segment": ["segment", pictures[0], *lenet, "-o", "s.png", "--cutout", "c.png"],
        "table": ["layers", "lenet5", "-o", "layers.csv"],
    }


def main(asked: Sequence[str]) -> int:
    """Try the commands asked for, all by default; print counts and what went wrong."""
    import torch

    torch.set_num_threads(1)
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        start, work = Path(name, "start"), Path(name, "work")
        start.mkdir()
        commands = _prepared(start)
        for title in asked or commands:
            done = list(faults(commands[title], start, work))
            bad = [fault for fault in done if fault.wrong]
            wrong += len(bad)
            print(f"{title}: {len(done) // len(FAULTS)} calls, {len(done)} faults, {len(bad)} wrong", flush=True)
            for fault in bad:
                print(f"  {fault.kind} at call {fault.number}, {fault.call}: {fault.wrong[-600:]}", flush=True)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
