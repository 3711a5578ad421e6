"""`make gpu` on the CPU, in small: every part of it runs, and nothing fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


@pytest.mark.slow
def test_it_runs_from_the_sources_alone() -> None:
    done = ran(str(SCRIPT), "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("laws", "oracles", "recurrent", "memory", "speed"):
        assert f"## {part}" in done.stdout
    assert done.stdout.rstrip().endswith("0 failures")
    assert "| guided_backprop | 0.0e+00 |" in done.stdout


def test_it_says_what_is_missing() -> None:
    hide = "import importlib.util as u; find = u.find_spec; u.find_spec = lambda n: None if n == 'skimage' else find(n)"
    done = ran("-c", f"{hide}; import runpy; runpy.run_path({str(SCRIPT)!r})")
    assert done.returncode == 1
    assert "needs scikit-image: python -m pip install scikit-image" in done.stderr
