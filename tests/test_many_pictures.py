"""Many pictures at a slip of the finger: the home folder and those above it, and more than somebody meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convscope.cli import run
from convscope.commands import inputs
from convscope.data import folders
from convscope.data.folders import find_files
from convscope.data.pictures import read_pictures
from convscope.errors import DataError

SALIENCY = ["saliency", "two", "--net", "lenet5"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of an own, with a folder of two pictures, in which the user stands."""
    home = tmp_path / "home" / "ada"
    (home / "two").mkdir(parents=True)
    for number in range(2):
        Image.new("L", (28, 28), number).save(home / "two" / f"{number}.png")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.chdir(home)
    return home


@pytest.mark.parametrize("folder", [".", "..", "../..", "/", "two/..", "~"])
def test_the_home_folder_and_those_above_it_are_refused(home: Path, folder: str) -> None:
    folder = str(home) if folder == "~" else folder
    with pytest.raises(DataError, match=r"(is|holds) your home folder.*or a pattern"):
        read_pictures(folder)
    with pytest.raises(DataError, match=r"(is|holds) your home folder"):
        find_files(Path(folder), (".xml",))


def test_pictures_in_the_home_folder_and_below_it_are_read(home: Path) -> None:
    Image.new("L", (28, 28)).save("a.jpg")
    assert [picture.where for picture in read_pictures(f"{home}/*.jpg")] == [f"{home}/a.jpg"]
    assert len(read_pictures("two")) == 2


def test_links_to_the_folder_itself_or_above_add_nothing_and_one_to_the_home_folder_is_refused(home: Path) -> None:
    Path("two/again").symlink_to(".")
    Path("two/all").symlink_to(home / "two" / "..")
    assert len(read_pictures("two")) == 2
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "everything").symlink_to(home)
    with pytest.raises(DataError, match="elsewhere/everything is your home folder"):
        read_pictures(elsewhere)


def test_very_many_pictures_are_drawn_where_somebody_agreed(home: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(inputs, "_TOLD", 0)
    monkeypatch.setattr(inputs, "MANY", 1)
    assert run(SALIENCY) == 2 and not Path("convscope-saliency").exists()
    assert capsys.readouterr().err.splitlines() == [
        "convscope: 2 pictures: 2 files will be written into convscope-saliency",
        "convscope: 2 pictures are more than 1: --yes draws them all without asking",
    ]
    assert run([*SALIENCY, "--yes"]) == 0
    assert sorted(path.name for path in Path("convscope-saliency").iterdir()) == ["0.png", "1.png"]
    assert run([*SALIENCY, "-o", "film.gif"]) == 2 and run([*SALIENCY, "-o", "film.gif", "--yes"]) == 0


@pytest.mark.parametrize(("answer", "code"), [("n\n", 130), ("y\n", 0)])
def test_very_many_pictures_are_asked_for_on_a_terminal(
    home: Path, monkeypatch: Any, capsys: Any, answer: str, code: int
) -> None:
    import io

    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr(inputs, "MANY", 1)
    assert run([*SALIENCY, "--json"]) == code
    assert Path("convscope-saliency").exists() == (code == 0)
    said = capsys.readouterr()
    assert "Draw them all? [y/N]" in said.err and "Draw" not in said.out


def test_a_folder_holds_every_format_that_is_read_by_its_name(tmp_path: Path) -> None:
    picture = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    for ending in folders.SUFFIXES - {".npy", ".apng"}:
        picture.convert("1" if ending == ".pbm" else "RGB").save(
            tmp_path / f"p{ending}", {".pbm": "PPM", ".pgm": "PPM", ".pnm": "PPM"}.get(ending)
        )
    picture.save(tmp_path / "p.apng", "PNG")
    np.save(tmp_path / "p.npy", np.zeros((4, 4), np.uint16))
    found = read_pictures(tmp_path)
    assert sorted(Path(each.where).suffix for each in found) == sorted(folders.SUFFIXES)
    assert all(each.open().size == (4, 4) for each in found)
