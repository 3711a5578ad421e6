"""Odd surroundings: encodings, terminals, folders, limits and streams that a user's machine may have."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.random import default_rng

from . import sandbox
from .commands import CODES
from .mutations import one_of
from .report import Part

Case = tuple[str, int, int]

COMMANDS = (
    "saliency digit.png --net lenet5 -o out/o.png", "maps digit.png --net lenet5 --layer conv1 -o out/o.jpg",
    "layers lenet5 -o out/t.csv",
    "saliency two --net lenet5 -o out", "history lenet5", "nets lenet*", "show drawing.npz",
    "show drawing.png --json", "--help", "saliency --help", "--version",
    "saliency", "saliency nothing.png", "nonsense", "saliency digit.png --net nothing",
    "check digit.png --net lenet5 --stages 2 --steps 2 -o out/c.png",
    "stylize cat.jpg --style style.safetensors -o out/s.png", "saliency film.gif --net lenet5 -o out/f.gif",
)  # fmt: skip

VARIABLES: dict[str, Sequence[str]] = {
    "PYTHONIOENCODING": ("ascii", "latin-1", "cp1252", "utf-16", "ascii:strict", "cp437", "shift_jis"),
    "PYTHONUTF8": ("0", "1"), "LC_ALL": ("C", "POSIX", "C.UTF-8", "tr_TR", "xx_XX", "zh_CN.GB18030", ""),
    "LANG": ("", "C", "de_DE"), "TERM": ("", "dumb", "xterm-256color", "vt52", "nothing"), "COLUMNS": ("0", "1", "9",
    "-5", "x", "99999999999", "10000"), "LINES": ("0", "1", "x"),
    "HOME": ("", "/", "/nowhere", "/dev/null", "{folder}/digit.png", "\udcff"), "TMPDIR": ("/nowhere", "/dev/null",
    "", "{folder}/digit.png"), "XDG_CACHE_HOME": ("/nowhere", "relative", "/dev/null"),
    "XDG_CONFIG_HOME": ("/nowhere", "{folder}/digit.png", "/dev/null"), "TORCH_HOME": ("/nowhere", "/dev/null", ""),
    "NO_COLOR": ("1",), "FORCE_COLOR": ("1",), "TZ": ("Nowhere/At_all", ":", "UTC+99"),
    "PYTHONWARNINGS": ("default", "error::DeprecationWarning:nothing", "ignore"), "PYTHONOPTIMIZE": ("1", "2"),
    "PYTHONDONTWRITEBYTECODE": ("1",), "PYTHONHASHSEED": ("0", "77"), "PYTHONUNBUFFERED": ("1",),
    "PYTHONDEVMODE": ("1",), "PYTHONSAFEPATH": ("1",), "PYTHONNOUSERSITE": ("1",), "MPLBACKEND": ("nothing", "agg",
    "TkAgg"), "MPLCONFIGDIR": ("/nowhere", "/dev/null"), "OMP_NUM_THREADS": ("0", "x", "1"),
    "CUDA_VISIBLE_DEVICES": ("", "-1", "99", "x"), "RANK": ("x", "3"), "DISPLAY": (":99",), "USER": ("",),
    "PATH": ("", "/nowhere"), "SHELL": ("",), "HF_ENDPOINT": ("x", ""), "IMAGEIO_FFMPEG_EXE": ("/nowhere",),
}  # fmt: skip
"""Values of environment variables that are odd, and that users have."""


def _no_stream(number: int) -> Callable[[], None]:
    return lambda: os.close(number)


def _full(number: int) -> Callable[[], None]:
    return lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def _limit(what: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(what, (value, value))


def _elsewhere() -> None:
    """Stand in a folder that is removed."""
    where = Path("gone")
    where.mkdir()
    os.chdir(where)
    Path.cwd().rmdir()


SURROUNDINGS: dict[str, Callable[[], None]] = {
    "umask": lambda: os.umask(0o777) and None,
    "umask 077": lambda: os.umask(0o077) and None,
    "no stdin": _no_stream(0),
    "no stdout": _no_stream(1),
    "no stderr": _no_stream(2),
    "no streams": lambda: os.closerange(0, 3),
    "full stdout": _full(1),
    "full stderr": _full(2),
    "few files": _limit(resource.RLIMIT_NOFILE, 40),
    "no core": _limit(resource.RLIMIT_CORE, 0),
    "small files": _limit(resource.RLIMIT_FSIZE, 1000),
    "few processes": _limit(resource.RLIMIT_NPROC, 1),
    "small stack": _limit(resource.RLIMIT_STACK, 2**20),
    "removed folder": _elsewhere,
    "locked folder": lambda: Path("out").mkdir(mode=0o500),
}
"""What is done in the process before the command begins."""


def cases(count: int, seed: int = 0, only: Sequence[str] = ()) -> Iterator[Case]:
    """Return `count` surroundings: half of them of variables, half of these and of what a process begins with."""
    for number in range(count):
        kind = ("variables", "process")[number % 2]
        if not only or kind in only:
            yield kind, seed, number


def attempt(case: Case, folder: Path) -> tuple[str, str]:
    """Run a command as a user does, in a process of its own."""
    kind, seed, number = case
    rng = default_rng([6, seed, number])
    sandbox.fill(folder)
    (folder / os.fsdecode(b"\xff \xe4.png")).write_bytes((folder / "digit.png").read_bytes())
    line = one_of(COMMANDS, rng).split()
    if rng.random() < 0.1:
        line = [word.replace("digit.png", "\udcff \udce4.png") for word in line]
    chosen = rng.choice(sorted(VARIABLES), int(rng.integers(1, 4)), replace=False)
    extra = {name: one_of(VARIABLES[name], rng).replace("{folder}", str(folder)) for name in map(str, chosen)}
    named = list(SURROUNDINGS)[number // 2 % len(SURROUNDINGS)] if kind == "process" else ""
    before = sandbox.files(folder)
    command = [sys.executable, "-m", "convscope", *line]
    where: dict[str, Any] = {"cwd": folder, "env": os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | extra}
    with (folder.parent / "said").open("wb+") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
                                   preexec_fn=SURROUNDINGS.get(named), **where)  # noqa: PLW1509  no threads  # fmt: skip
        code = process.wait()
        said.seek(0)
        text = _as_asked(said.read(), extra.get("PYTHONIOENCODING", ""))
    (folder.parent / "said").unlink()
    shown = f"{' '.join(line)}; {named or 'as usual'}; {extra}"
    ending, what = judged(code, text, named)
    after = sandbox.files(folder)
    hidden = [
        name
        for name in after
        if name not in before and Path(name).name.startswith(".") and not name.startswith(".cache")
    ]
    changed = [name for name in before if after.get(name) != before[name]]
    if ending in ("worked", "refused") and (hidden or changed):
        return ("harmed", f"{changed[:3]} changed ({shown})") if changed else ("left", f"{hidden[:3]} ({shown})")
    with contextlib.suppress(OSError):
        shutil.rmtree(folder / "out")
    return ending, f"{what} ({shown})"


def _as_asked(said: bytes, encoding: str) -> str:
    """Read what was written in the encoding that the case asked for, where it is one."""
    try:
        return said.decode(encoding.partition(":")[0] or "utf-8", "replace").replace("\0", "")
    except LookupError:
        return said.decode("utf-8", "replace")


def judged(code: int, text: str, named: str) -> tuple[str, str]:
    """Return what an exit code and stderr mean; without a stderr nothing can be said."""
    lines = [line for line in text.splitlines() if line.strip()]
    if code < 0:
        return "crash", f"signal {-code}: {' / '.join(lines[-3:])[-300:]}"
    if "Traceback" in text or code not in (*CODES, 74):
        return "traceback", f"exit code {code}: {' / '.join(lines[-4:])[-400:]}"
    silent = named in ("no stderr", "no streams", "full stderr")
    if code == 2 and not silent and not any(line.startswith("convscope: ") for line in lines):
        return "said", f"exit code 2 without a line: {' / '.join(lines)[-300:]}"
    return ("worked" if code == 0 else "refused"), (lines[-1][:200] if lines else "")


PART = Part("environments", 300, 4, cases, attempt, batch=10, watched=False)
