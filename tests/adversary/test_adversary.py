"""A little of every attack: what `make adversary` tries by the hundred thousand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adversary import files, kinds, pool
from adversary.report import parts


@pytest.fixture
def forked(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield


@pytest.mark.slow
@pytest.mark.parametrize("names", [*(sorted({*parts()} - {"kills", "faults"})), "kills faults"])
def test_a_little_of_every_attack_finds_nothing(names: str, tmp_path: Path) -> None:
    # In a process of its own: torch forks none that has computed a gradient.
    command = [
        sys.executable,
        "-m",
        "adversary",
        *names.split(),
        "--short",
        "--workers",
        "1",
        "--out",
        str(tmp_path / "counts"),
    ]
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def _reads(case: Any, folder: Any) -> tuple[str, str]:
    """Cases of which each does what must be noticed."""
    return CRIMES[case](folder)


def _eats(folder: Any) -> tuple[str, str]:
    return "worked", str(len(bytearray(1300 * 2**20)))


def _writes(folder: Any) -> tuple[str, str]:
    (folder.parent / "beside").write_text("x")
    return "worked", ""


def _says(folder: Any) -> tuple[str, str]:
    os.write(2, b"libtiff: oh\n")
    return "worked", ""


def _calls(folder: Any) -> tuple[str, str]:
    os.system("true")
    return "worked", ""


def _evaluates(folder: Any) -> tuple[str, str]:
    exec(compile("1", str(folder / "model.py"), "exec"))
    return "worked", ""


def _dies(folder: Any) -> tuple[str, str]:
    os.kill(os.getpid(), signal.SIGKILL)


def _keeps(folder: Any) -> tuple[str, str]:
    _KEPT.append((folder / "open").open("w"))
    return "worked", ""


_KEPT: list[Any] = []
CRIMES = {
    "memory": _eats,
    "left": _writes,
    "said": _says,
    "code": _calls,
    "code 2": _evaluates,
    "crash": _dies,
    "left 2": _keeps,
}


def test_whatever_may_not_happen_is_noticed(forked: None) -> None:
    outcomes = {each.case: each.ending for each in pool.run([*CRIMES], _reads)}
    assert outcomes == {name: name.split()[0] for name in CRIMES}


def test_what_hangs_is_ended_by_its_own_time(forked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SECONDS", 0.3)

    def loops(case: Any, folder: Any) -> tuple[str, str]:
        while case:
            pass
        return "worked", ""

    assert [each.ending for each in pool.run([0, 1, 0], loops)] == ["worked", "hang", "worked"]


def test_a_case_is_the_same_file_every_time() -> None:
    for name in ("png", "boxes-coco", "toml"):
        assert kinds.content(name, 3, 77) == kinds.content(name, 3, 77)
        assert kinds.content(name, 3, 77) != kinds.content(name, 4, 77)
    assert files.PART.count == 100_000
