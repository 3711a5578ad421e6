"""Standard output and error that are full, closed, or read by nobody: exit code, words, and what was written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")


def shell(line: str, **environment: str) -> tuple[int, str, str]:
    """Run a line of bash in which $C is convscope; return exit code, stdout and stderr."""
    own = os.environ | {"C": f"{sys.executable} -m convscope", "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], env=own, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


FULL = "convscope: cannot write to standard output: No space left on device\n"
CLOSED = "convscope: cannot write to standard output: Bad file descriptor\n"


@pytest.mark.parametrize(
    ("line", "code", "error"),
    [
        ("$C history lenet5 >/dev/full", 2, FULL),  # through Rich
        ("$C --version >&-", 2, CLOSED),
        ("$C --version <&- >&- 2>&-", 2, ""),
        ("$C --help | (exec <&-; sleep 0.1)", 141, ""),
        ("$C frobnicate 2>&-", 2, ""),
    ],
)
def test_what_is_lost_is_told(line: str, code: int, error: str) -> None:
    assert shell(line)[::2] == (code, error)


def test_completion_into_a_full_disk() -> None:
    words = {"_CONVSCOPE_COMPLETE": "complete_bash", "COMP_WORDS": "convscope lay", "COMP_CWORD": "1"}
    assert shell("$C >/dev/full", **words)[::2] == (2, FULL)


def test_files_are_kept_whatever_becomes_of_their_names(tmp_path: Path) -> None:
    code, _, error = shell(f"$C history lenet5 -o {tmp_path}/history.csv >&- 2>/dev/full")
    assert (code, error) == (2, "")
    assert (tmp_path / "history.csv").read_text().startswith("epoch,"), "what is printed did not land in the file"


NAMES = (
    "[bold]a[/]", "b\x1b[31m", "c\x1b]8;;http://x\x1b\\link", "d\x9b31m", "e\u202egnp", "f\ng",
    "h\x07\b\x7f", "[/] \u00e4",
)  # fmt: skip
SHOWN = (
    "[bold]a[/]", "b\\u001b[31m", "c\\u001b]8;;http://x\\u001b\\link", "d\\u009b31m", "e\\u202egnp", "f g",
    "h\\u0007\\u0008\\u007f", "[/] \u00e4",
)  # fmt: skip


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A network whose layers are named to be obeyed by a terminal, or by whoever reads markup."""
    text = 'name: "net[/red]"\ninput: "data"\ninput_dim: 1\ninput_dim: 3\ninput_dim: 8\ninput_dim: 8\n'
    for name, before in zip(NAMES, ("data", *NAMES[:-1]), strict=True):
        escaped, below = (each.replace("\\", "\\\\").replace("\n", "\\n") for each in (name, before))
        text += f'layer {{ name: "{escaped}" type: "ReLU" bottom: "{below}" top: "{escaped}" }}\n'
    path = tmp_path / "named.prototxt"
    path.write_text(text)
    return path


def test_names_are_shown_and_not_obeyed(named: Path) -> None:
    code, table, _ = shell(f"$C layers caffe:{named}")
    assert code == 0 and table.startswith("net[/red], ")
    assert all(shown in table for shown in SHOWN)
    assert not set(table) & set("\x1b\x9b\u202e\x07\x7f")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "ascii:surrogateescape", "latin-1"])
def test_json_is_json_in_every_encoding(named: Path, encoding: str) -> None:
    text = shell(f"$C layers caffe:{named} --json | tee {named.parent}/said >/dev/null", PYTHONIOENCODING=encoding)
    said = (named.parent / "said").read_bytes().decode(encoding.partition(":")[0])
    assert text[0] == 0 and [row["layer"] for row in json.loads(said)] == list(NAMES)
    assert not set(said) & set("\x1b\x9b\u202e\x07\x7f")


def test_a_table_is_printed_where_its_letters_do_not_exist(named: Path) -> None:
    code, table, error = shell(f"$C layers caffe:{named}", PYTHONIOENCODING="ascii")
    assert (code, error) == (0, "") and "8 \\u00d7 8" in table and "[/] \\u00e4" in table


def test_names_of_files_are_shown(tmp_path: Path) -> None:
    """A name that is not UTF-8, one of two lines: what is printed is one line, and JSON names the file."""
    odd = os.fsdecode(b"\xff\x1b[31m\nx.csv")
    line = f"cd {tmp_path}; $C history lenet5 -o $'\\xff\\x1b[31m\\nx.csv'"
    assert shell(line) == (0, "\\udcff\\u001b[31m\\u000ax.csv\n", "")
    assert (tmp_path / odd).exists()
