"""Progress where stderr is no terminal: plain lines, some seconds apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from convscope.commands import progress as module
from convscope.commands.progress import PAUSE, progress
from convscope.context import Arriving, Parts, track

Capture = pytest.CaptureFixture[str]
Pass = Callable[[float], None]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Pass:
    """Let seconds pass on the clock that progress reads, outside a terminal."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def later(seconds: float) -> None:
        now[0] += seconds

    return later


def test_lines_come_some_seconds_apart_and_are_plain(passes: Pass, capsys: Capture) -> None:
    with progress():
        for _ in track(range(100), lambda: "ascending · 0.5"):
            passes(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 100 // PAUSE - 1 and PAUSE >= 5
    assert lines[0] == "convscope: ascending · 0.5: 10 of 100; 2 min left"
    assert lines[-1] == "convscope: ascending · 0.5: 90 of 100; 10 s left"
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", "".join(lines))


def test_what_is_done_soon_says_nothing(passes: Pass, capsys: Capture) -> None:
    with progress():
        for _ in track(range(9), "short"):
            passes(1)
    assert capsys.readouterr() == ("", "")


def test_loops_within_loops_are_in_one_line(passes: Pass, capsys: Capture) -> None:
    with progress():
        for _ in track(["a", "b"], "painting\x1b[2J pictures"):
            for _ in track(range(5), "steps"):
                passes(1500)
    lines = capsys.readouterr().err.splitlines()
    assert lines[3] == "convscope: painting\\u001b[2J pictures: 0 of 2, steps: 4 of 5"
    assert lines[4] == "convscope: painting\\u001b[2J pictures: 1 of 2; 2 h 5 min left"
    assert all(line.startswith("convscope: painting") for line in lines)


def test_an_error_ends_the_loops_that_it_leaves(passes: Pass, capsys: Capture) -> None:
    with progress():
        with pytest.raises(ValueError, match="broken"):
            for _ in track(range(2), "first"):
                raise ValueError("broken")
        for _ in track(range(2), "second"):
            passes(20)
    assert capsys.readouterr().err.splitlines() == ["convscope: second: 1 of 2; 20 s left"]


def test_the_time_left_is_that_of_all_parts_however_unequal(passes: Pass, capsys: Capture) -> None:
    with progress():
        for seconds in track(Parts([1, 3, 12], [1, 3, 12]), "octaves"):
            for _ in track(range(10), "dreaming"):
                passes(seconds)
    lines = capsys.readouterr().err.splitlines()
    told = [re.search(r"octaves: (\d) of 3.* (\d+) (s|min) left", line) for line in lines]
    assert told[0] and told[0].groups() == ("1", "2", "min"), "10 s of 160 are done"
    assert lines[1] == "convscope: octaves: 1 of 3, dreaming: 4 of 10; 2 min left"
    assert lines[-1] == "convscope: octaves: 2 of 3, dreaming: 9 of 10; 12 s left"


def test_what_comes_when_it_is_done_counts_at_once(passes: Pass, capsys: Capture) -> None:
    """After the first of ten shards it is known how long the others take."""

    class Shards(Arriving, list[int]):
        def __iter__(self) -> Iterator[int]:
            for shard in super().__iter__():
                passes(20)
                yield shard

    with progress():
        list(track(Shards(range(10)), "scan"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "convscope: scan: 1 of 10; 3 min left"
    assert lines[-1] == "convscope: scan: 10 of 10"


def test_loops_without_a_name_are_not_told_of(passes: Pass, capsys: Capture) -> None:
    with progress():
        for _ in track(range(2), ""):
            passes(20)
            for _ in track(range(2), "occlusion"):
                passes(20)
    assert {line.split(";")[0] for line in capsys.readouterr().err.splitlines()} == {
        "convscope: occlusion: 0 of 2",
        "convscope: occlusion: 1 of 2",
    }
