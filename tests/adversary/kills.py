"""Kills at any moment: what is run again afterwards ends with the same bytes, and nothing half or left over remains."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from numpy.random import default_rng

from . import commands, sandbox
from .report import Part

Case = tuple[str, int, int]

LINES = {
    "train": "train lenet5 --data pets --epochs 3 --snapshots 1,2,3 --batch 4 --workers 0 -o new",
    "train-workers": "train lenet5 --data pets --epochs 2 --batch 4 --workers 1 -o new",
    "train-style": "train-style photo.jpg --data two --net onnx:net.onnx --mean 0.5 --steps 6 --batch 2 --size 32 "
    "--width 2 --blocks 1 --workers 0 -o new/style.safetensors",
    "folder": "saliency pets --net lenet5 -o new --save-values v.npz",
    "film": "saliency film.gif --net lenet5 -o new/film.gif",
    "one": "maps digit.png --net lenet5 --layer conv1 -o new/o.pdf --save-values new/o.safetensors",
    "table": "layers lenet5 -o new/t.parquet",
    "synthesis": "maximize --net lenet5 --of 3 --steps 9 -o new/o.png --preview new/p.png --preview-every 2",
    "segment": "segment digit.png --net lenet5 -o new/s.png --cutout new/c.png",
    "stylize": "stylize pets --style style.safetensors -o new",
}
"""Command lines that write."""

TIMED = ("seconds", "minutes")
"""What a history and a checkpoint hold that differs from run to run."""


def begun(line: str, folder: Path) -> int:
    """Begin a command in a fork, and return its process; what it says is in the file `said` beside the folder."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            os.dup2(os.open(folder.with_name("said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.chdir(folder)
            code = commands.run(line.split())
        finally:
            os._exit(code)
    return process


def cases(count: int, seed: int = 0, only: Sequence[str] = ()) -> Iterator[Case]:
    """Return `count` kills, of each command line as many."""
    names = [name for name in LINES if not only or name in only]
    for number in range(count):
        whole(names[number % len(names)])  # once, before there are workers
        yield names[number % len(names)], seed, number


@cache
def whole(name: str) -> tuple[dict[str, str], float]:
    """Return the files of a run that is not killed, and how long it takes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "case")
        sandbox.fill(folder)
        began = time.monotonic()
        status = os.waitpid(begun(LINES[name], folder), 0)[1]
        assert status == 0, f"{LINES[name]} ends with {status}: {_said(folder)}"
        return made(folder), time.monotonic() - began


def made(folder: Path) -> dict[str, str]:
    """Return what a run has made: the content of each file in short, without what tells the time."""
    found = {name: short for name, short in sandbox.files(folder).items() if name.startswith("new")}
    return {name: _numbers(folder / name) or short for name, short in found.items()}


def _numbers(path: Path) -> str:
    """Return in short what a checkpoint or a history says, and nothing of other files.

    Pickle writes a text once that is the same object in two places: so a checkpoint of numbers that were read from one
    is another file than the first, and says the same.
    """
    if path.suffix in (".pt", ".checkpoint"):
        return _told(torch.load(path, weights_only=True))
    if path.name == "history.json":
        return _told(json.loads(path.read_text(encoding="utf-8")))
    return "there" if path.name == "card.md" else ""


def _told(value: Any) -> str:
    match value:
        case Mapping():
            told = {str(key): _told(part) for key, part in value.items() if key not in TIMED}
        case list() | tuple():
            told = [_told(part) for part in value]
        case torch.Tensor():
            told = (value.dtype, tuple(value.shape), value.contiguous().numpy().tobytes())
        case _:
            told = value
    return sha256(repr(told).encode()).hexdigest()[:16]


def attempt(case: Case, folder: Path) -> tuple[str, str]:
    """Kill a command once or several times, and run it again to its end."""
    name, seed, number = case
    rng = default_rng([8, seed, number])
    wanted, seconds = whole(name)
    sandbox.fill(folder)
    killed = 0
    for _ in range(rng.integers(1, 4)):
        process = begun(LINES[name], folder)
        time.sleep(float(rng.random()) * seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        killed += os.waitpid(process, 0)[1] == signal.SIGKILL
    status = os.waitpid(begun(LINES[name], folder), 0)[1]
    found, said = made(folder), _said(folder)
    folder.with_name("said").unlink()
    if status or "Traceback" in said:
        return "stale", f"{name} killed {killed} times, then ends with {status >> 8}: {said[-300:]}"
    if found != wanted:
        odd = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        return ("left" if set(found) - set(wanted) else "stale"), f"{name} killed {killed} times, differs in {odd[:4]}"
    return "worked", f"{killed} kills"


def _said(folder: Path) -> str:
    return folder.with_name("said").read_text(encoding="utf-8", errors="replace")


PART = Part("kills", 300, 3, cases, attempt, commands.prepare, batch=10, watched=False)
