"""A command over a folder of pictures: in batches, resumed, summed up, and nothing lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.cli import run
from convscope.drawing.files import read_recipe

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pictures in two folders, of which two are broken."""
    for number in range(12):
        path = tmp_path / "pictures" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 256, (28, 28), np.uint8)
        Image.fromarray(values).save(path)
    (tmp_path / "pictures" / "a" / "00.png").write_bytes(b"no picture")
    (tmp_path / "pictures" / "b" / "07.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pictures"


def command(*more: str) -> int:
    return run(["grad-cam", "pictures", "--net", "lenet5", "-o", "out", *more])


def test_broken_pictures_are_named_and_the_others_are_there(pictures: Path, capsys: Capture) -> None:
    assert command() == 3
    said = capsys.readouterr().err
    assert "10 pictures drawn in out" in said
    assert "2 of 12 pictures failed" in said and "00.png is not a picture" in said and "07.png is empty" in said
    assert said.count("00.png") == said.count("07.png") == 1, "each is named once"
    assert sorted(map(str, Path("out").rglob("*.png"))) == sorted(
        f"out/{'ab'[number % 2]}/{number:02}.png" for number in range(12) if number not in (0, 7)
    )
    assert read_recipe("out/a/02.png").pictures[0].where == str(Path("pictures/a/02.png"))


@pytest.mark.parametrize("words", [["saliency"], ["maps", "--layer", "conv1"]])
def test_what_was_assumed_of_deep_pictures_is_said_once_with_their_number(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deep").mkdir()
    for number in range(3):
        Image.fromarray(np.full((28, 28), 900 + number, np.uint16) * np.eye(28, dtype=np.uint16)).save(
            f"deep/{number}.png"
        )
    Image.new("L", (28, 28)).save("deep/shallow.png")
    assert run([words[0], "deep", *words[1:], "--net", "lenet5", "-o", "out"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "assumed" in line]
    assert len(told) == 1 and told[0].startswith("convscope: assumed of 3 pictures; of the first: the picture holds")
    assert "--value-range 0,65535" in told[0]


def test_a_full_disk_is_one_line_and_nothing_is_put_elsewhere(
    pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several threads that cannot write only one is heard: what the others put elsewhere nobody would know of."""
    Path("temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", "temporary")

    def full(path: Path, _: object) -> None:
        if "out" in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert command() == 2
    assert re.fullmatch(r"convscope: cannot write out/\S+: No space left on device\n", capsys.readouterr().err)
    assert not [path for path in Path("out").rglob("*") if path.is_file()] and not list(Path("temporary").iterdir())


def test_what_is_there_is_not_made_again(pictures: Path, capsys: Capture) -> None:
    command()
    times = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.png")}
    Path("out/a/02.png").unlink()
    Path("out/a/04.png").write_bytes(b"half a pict")
    capsys.readouterr()
    assert command() == 3
    assert "2 pictures drawn, 8 were there already in out" in capsys.readouterr().err
    for path, time in times.items():
        assert (path.stat().st_mtime_ns == time) == (path.name not in ("02.png", "04.png"))
    capsys.readouterr()
    command("--of", "3")
    assert "10 pictures drawn in out" in capsys.readouterr().err, "another objective is another drawing"
    command("--of", "3", "--cmap", "grey")
    assert "10 pictures drawn in out" in capsys.readouterr().err, "other colours are another file"
    command("--of", "3", "--cmap", "grey")
    assert "0 pictures drawn, 10 were there already" in capsys.readouterr().err


def test_a_changed_picture_is_made_again(pictures: Path, capsys: Capture) -> None:
    command()
    Image.fromarray(np.full((28, 28), 90, np.uint8)).save(pictures / "a" / "02.png")
    capsys.readouterr()
    command()
    assert "1 picture drawn, 9 were there already" in capsys.readouterr().err


def test_copies_of_a_picture_each_get_their_file(pictures: Path, capsys: Capture) -> None:
    shutil.copy(pictures / "a" / "02.png", pictures / "a" / "copy.png")
    command()
    assert Path("out/a/02.png").is_file() and Path("out/a/copy.png").is_file()
    Path("out/a/copy.png").unlink()
    command()
    assert Path("out/a/copy.png").is_file()


def test_a_picture_that_became_a_copy_is_made_again(pictures: Path) -> None:
    command()
    shutil.copy(pictures / "a" / "02.png", pictures / "a" / "04.png")
    command()
    shown = [read_recipe(f"out/a/{number}.png").pictures[0] for number in ("02", "04")]
    assert shown[0].sha256 == shown[1].sha256 and shown[1].where.endswith("04.png")


def test_numbers_lie_beside_and_are_part_of_what_is_there(pictures: Path, capsys: Capture) -> None:
    command("--save-values", "v.npz")
    assert len(list(Path("out").rglob("*.npz"))) == 10
    Path("out/a/02.npz").unlink()
    capsys.readouterr()
    command("--save-values", "v.npz")
    assert "1 picture drawn, 9 were there already" in capsys.readouterr().err
    assert Path("out/a/02.npz").is_file()


def test_views_of_each_picture_are_resumed_too(pictures: Path, capsys: Capture) -> None:
    words = ["project", "pictures", "--net", "lenet5", "--layer", "conv2", "--top", "2", "-o", "views"]
    assert run(words) == 3
    assert "10 pictures drawn in views" in capsys.readouterr().err
    assert run(words) == 3
    assert "0 pictures drawn, 10 were there already" in capsys.readouterr().err


def test_nothing_is_written_over_pictures_that_are_read(pictures: Path, capsys: Capture) -> None:
    """`-o .` once wrote maps over the photographs themselves."""
    before = {path: path.read_bytes() for path in pictures.rglob("*.png")}
    os.link("pictures/a/02.png", "linked.png")
    picture = "pictures/a/02.png"
    for words in (
        ["saliency", "pictures", "-o", "pictures"],
        ["saliency", picture, "-o", picture],
        ["saliency", picture, "-o", "linked.png"],
        ["style", "pictures/a/04.png", "--style", picture, "-o", "./pictures/../pictures/a/02.png", "--steps", "1"],
        ["check", picture, "-o", picture],
    ):
        assert run([*words, "--net", "lenet5"]) == 2
        assert "is a picture that is read here, and would be written over" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in pictures.rglob("*.png")} == before


def test_numbers_are_written_inside_the_folder_too(pictures: Path) -> None:
    command("--save-values", "v.npz")
    assert {path.parts[0] for path in Path().rglob("*.npz")} == {"out"}
    assert Path("out/b/01.npz").is_file() and Path("out/b/01.png").is_file()


def test_a_check_refuses_what_cannot_be_before_a_network_is_loaded(
    pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convscope.commands.network.Network.load", None)
    for words, told in (
        (["pictures/a/02.png", "--methods", "gradcam"], "use 'grad_cam'"),
        (["pictures", "--boxes", "none.csv"], "there is no none.csv"),
        (["pictures", "-o", "c.csv"], "needs bounding boxes, --boxes"),
    ):
        assert run(["check", *words]) == 2
        assert told in capsys.readouterr().err
