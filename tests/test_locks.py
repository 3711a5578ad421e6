"""Locks and temporary files: one owner at a time, never taken from a living process, never left by a dead one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from convscope import locks, outputs
from convscope.errors import OutputError
from convscope.locks import Process, is_left_over, lock, temporary_name, this_process


@pytest.fixture(scope="module")
def dead() -> Process:
    """A process of this machine that was killed."""
    code = "import json, time, dataclasses; from convscope.locks import this_process as t; "
    code += "print(json.dumps(dataclasses.asdict(t())), flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        process = Process(**json.loads(child.stdout.readline()))
        assert not process.is_gone and not is_left_over(temporary_name(process, ".png"))
        child.send_signal(signal.SIGKILL)
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def held_by(path: Path, owner: Process) -> Path:
    path.write_text(json.dumps(asdict(owner)))
    return path


def refusal(path: Path) -> str:
    before = path.read_bytes()
    with pytest.raises(OutputError) as caught, lock(path, "the folder x"):
        pytest.fail("it is another's")
    assert path.read_bytes() == before
    return str(caught.value)


def test_a_lock_is_there_inside_the_block_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.lock"
    with lock(path, "it"):
        assert json.loads(path.read_text()) == asdict(this_process())
        assert names(path.parent) == ["run.lock"]
    assert names(path.parent) == []
    with pytest.raises(KeyboardInterrupt), lock(path, "it"):
        raise KeyboardInterrupt
    assert names(path.parent) == []


def test_a_dead_process_loses_its_lock(dead: Process, tmp_path: Path) -> None:
    with lock(held_by(tmp_path / "a.lock", dead), "it"):
        pass
    reused = replace(this_process(), began="00000000.1")
    with lock(held_by(tmp_path / "a.lock", reused), "it"):  # its number was given to another process, this one
        pass
    assert names(tmp_path) == []


def test_a_living_process_keeps_its_lock(tmp_path: Path) -> None:
    path = held_by(tmp_path / "a.lock", this_process())
    assert refusal(path) == (
        f"the folder x is in use by process {os.getpid()}: wait for it to end, or choose another place with -o"
    )


def test_of_another_machine_it_is_said_what_to_remove(dead: Process, tmp_path: Path) -> None:
    path = held_by(tmp_path / "a.lock", replace(dead, machine="elsewhere"))
    assert "(elsewhere)" in refusal(path) and refusal(path).endswith(f"if that process has ended, remove {path}")


@pytest.mark.parametrize(
    "content", ["", "{", "[" * 100_000, '{"machine": 3}', '{"machine": "", "pid": -1, "began": ""}']
)
def test_a_lock_that_does_not_say_whose_it_is(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_text(content)
    assert refusal(tmp_path / "a.lock").endswith("if no other run writes there, remove that file")


def test_without_hard_links_a_lock_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with lock(tmp_path / "a.lock", "it"):
        assert "in use" in refusal(tmp_path / "a.lock")
    assert names(tmp_path) == []


def test_of_many_at_once_one_has_it(dead: Process, tmp_path: Path) -> None:
    """Each round a dead process's lock is there, and eight threads want it."""
    inside, most, had = [0], [0], [0]
    guard = threading.Lock()

    def work() -> None:
        for _ in range(40):
            try:
                with lock(tmp_path / "a.lock", "it"):
                    with guard:
                        inside[0] += 1
                        most[0], had[0] = max(most[0], inside[0]), had[0] + 1
                    with guard:
                        inside[0] -= 1
                    (tmp_path / "a.lock").write_text(json.dumps(asdict(dead)))  # as if killed here
            except OutputError:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and had[0] >= 8


def test_what_a_killed_process_left_is_swept_and_nothing_else(dead: Process, tmp_path: Path) -> None:
    living = temporary_name(this_process(), ".png")
    elsewhere = temporary_name(replace(dead, machine="elsewhere"), ".png")
    own = [".convscope-notes.png", ".convscope-1-2-3", ".convscope.toml", "convscope-x.png"]
    for name in (temporary_name(dead, ".png"), temporary_name(dead), living, elsewhere, *own):
        (tmp_path / name).write_text("x")
    outputs.write_text(tmp_path / "x.txt", "new")
    assert names(tmp_path) == sorted([living, elsewhere, *own, "x.txt"])


@pytest.mark.parametrize("began", ["", "00000000.1"])
def test_a_process_is_told_from_a_later_one_of_its_number(began: str) -> None:
    """Where the system does not say when a process began, a living one is taken for the one that was."""
    process = replace(this_process(), began=began)
    assert process.is_gone == bool(began and this_process().began)


def test_a_process_that_may_not_be_looked_at_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def began(_: int) -> str:
        raise PermissionError

    def kill(*_: int) -> None:
        raise PermissionError

    own = this_process()
    monkeypatch.setattr(locks, "_began", began)
    monkeypatch.setattr(os, "kill", kill)
    assert not own.is_gone
