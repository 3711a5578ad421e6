"""Standard output and error that are full, closed, or read by nobody: exit code, words, and what was written."""

from __future__ import annotations

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
