"""Plugins: modules and files of others that register methods, found without being imported, named when they fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from convscope import listing, plugins

METHOD = '''
"""A plugin."""

from convscope import method


@method("Pixels", paper="nobody 2026", signed=False)
def just_pixels(net, pixels, objective):
    """Return the pixels themselves."""
    return pixels.abs()
'''

RUN = """
import sys, warnings
import convscope
from convscope import cli
warnings.simplefilter("always")
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: Callable[[Path], None]) -> Path:
    (tmp_path / "mine.py").write_text(METHOD)
    (tmp_path / "convscope.toml").write_text('plugins = ["mine.py"]\n')
    trust(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_a_file_reaches_the_command_line(project: Path) -> None:
    assert "just-pixels" in run("--help", folder=project).stdout.replace("_", "-")
    done = run("just-pixels", "sample:digits/3", "--net", "lenet5", "-o", "out.png", folder=project)
    assert done.returncode == 0, done.stderr
    assert (project / "out.png").is_file()


def test_it_is_listed_without_being_imported(project: Path, trust: Callable[[Path], None]) -> None:
    (project / "mine.py").write_text(METHOD + "\nraise RuntimeError('imported')\n")
    trust(project)
    entry = listing.listing()["just_pixels"]
    assert (entry.title, entry.kind, entry.summary) == ("Pixels", "method", "Return the pixels themselves.")


def test_one_that_fails_is_named_and_the_rest_works(project: Path, trust: Callable[[Path], None]) -> None:
    (project / "broken.py").write_text("import nothing_of_that_name\n")
    (project / "convscope.toml").write_text('plugins = ["broken.py", "mine.py", "missing_module"]\n')
    trust(project)
    done = run("just-pixels", "sample:digits/3", "--net", "lenet5", "-o", "out.png", folder=project)
    assert done.returncode == 0, done.stderr
    assert "broken.py" in done.stderr and "nothing_of_that_name" in done.stderr and "missing_module" in done.stderr


def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "their_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[convscope.plugins]\ntheirs = their_plugin\n")
    (tmp_path / "their_plugin.py").write_text(METHOD.replace("just_pixels", "their_pixels"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "their_plugin" in plugins.names()
    assert "their_pixels" in listing.listing()
