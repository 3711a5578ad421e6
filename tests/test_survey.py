"""Many pictures explained: names of files, regions and shares, conditions, JUnit, resuming, and what is not written."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import convscope as cs
from convscope import Net
from convscope.cli import run
from convscope.data.naming import files_of
from convscope.data.pictures import Picture, read_pictures
from convscope.drawing.files import read_recipe
from convscope.drawing.tables import Table
from convscope.errors import OptionError
from convscope.evaluation import conditions, measures
from convscope.evaluation.junit import junit
from convscope.evaluation.survey import Survey
from convscope.evaluation.survey_table import COLUMNS
from convscope.evaluation.truth import find_truth

Capture = pytest.CaptureFixture[str]
GOLDEN = Path(__file__).parent / "golden"


class Halves(nn.Module):
    """Two probabilities, of how bright the left half and the right half are; their maps are those halves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.conv.weight.data.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.stack([y[:, 0, :, :4].mean((1, 2)), y[:, 1, :, 4:].mean((1, 2))], 1)


def halves() -> Net:
    return Net(Halves(), classes=("left", "right"), mean=0.0, std=1.0, size=8, head="probability", name="halves")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures whose bright square lies left or right; the second in "right" lies left, the third is broken."""
    monkeypatch.chdir(tmp_path)
    for folder, number, column in (("left", 0, 1), ("left", 1, 0), ("right", 0, 5), ("right", 1, 1)):
        values = np.zeros((8, 8), np.uint8)
        values[2:4, column : column + 2] = 255
        path = Path("data", folder, f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    Path("data/right/2.png").write_bytes(b"no picture")
    return tmp_path / "data"


def survey(**options: object) -> Survey:
    net, pictures = halves(), read_pictures("data")
    made = Survey(net, list(pictures), Path("out"), "gradient_x_input", truth=find_truth(net, pictures), **options)  # type: ignore[arg-type]
    made.run()
    return made


def test_a_row_says_what_the_map_shows(tree: Path) -> None:
    boxes = {str(Path("data/left/0.png").absolute()): [(0.0, 0.0, 2.0, 8.0)]}
    made = survey(boxes=boxes)
    first, second, third, wrong, broken = made.surveyed.rows
    assert first.regions == ((1, 2, 3, 4),) and first.in_regions == pytest.approx(1.0)
    assert first.in_boxes == pytest.approx(0.5) and second.in_boxes is None
    assert first.centre_share == pytest.approx(0.5), "one of two columns lies in the middle"
    assert third.regions == ((5, 2, 7, 4),) and third.centre_share == pytest.approx(0.5)
    assert (first.wrong, wrong.wrong, broken.wrong) == (False, True, None) and "not a picture" in broken.error
    assert first.choices == (0, 1) and first.values == pytest.approx((4 / 32, 0.0)) and first.explained == "left"
    assert first.file == "left/0.png" and Path("out/left/0.png").is_file() and not Path("out/right/2.png").exists()
    assert read_recipe("out/left/0.png").key == cs.explain(halves(), "data/left/0.png", "gradient_x_input").recipe.key


def test_csv_and_json_are_what_they_were(tree: Path) -> None:
    made = survey()
    rows = tuple(replace(row, seconds=None) for row in made.surveyed.rows)
    surveyed = replace(made.surveyed, rows=rows)
    surveyed.table.save("t.csv")
    assert Path("t.csv").read_text() == (GOLDEN / "explanations.csv").read_text()
    told = json.loads(surveyed.json(conditions.parse("wrong>0.2")))
    assert told == json.loads((GOLDEN / "explanations.json").read_text())


def test_the_table_comes_back_through_pandas_and_polars(tree: Path) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    table = survey().surveyed.table
    table.save("t.csv")
    table.save("t.parquet")
    for name in ("file", "class_1", "p_1", "regions", "centre_share", "seconds", "error", "wrong"):
        values = [row[name] for row in table.records]
        assert polars.read_parquet("t.parquet")[name].to_list() == values
        assert polars.read_csv("t.csv")[name].to_list() == values
        frame = pandas.read_csv("t.csv")[name]
        assert [None if pandas.isna(value) else value for value in frame] == values


def test_what_is_there_stays_and_what_changed_is_made_again(tree: Path) -> None:
    before = survey().surveyed
    kept = Path("out/left/1.png").stat().st_mtime_ns
    Path("out/left/0.png").unlink()
    shutil.copy("data/right/0.png", "data/right/1.png")
    shutil.copy("data/left/1.png", "data/right/2.png")
    again = survey()
    assert again.made == 3 and Path("out/left/1.png").stat().st_mtime_ns == kept
    after = again.surveyed.rows
    assert replace(after[0], seconds=0) == replace(before.rows[0], seconds=0), "made anew as it was"
    assert after[1] == before.rows[1] and after[2] == before.rows[2], "read from the files"
    assert after[3].wrong is False and after[4].file == "right/2.png" and after[4].wrong is True
    assert survey(of=1).made == 5, "another objective is another map"
    assert survey(of=1).made == 0
    assert survey(of=1, boxes={str(Path("data/left/0.png").absolute()): [(0.0, 0.0, 1.0, 1.0)]}).made == 1
    assert survey(of=1, check=True).made == 5


def test_regions_are_the_strongest_first_and_shares_cut_pixels() -> None:
    values = np.zeros((6, 9))
    values[0, 0], values[2:4, 3:5], values[5, 8], values[5, 0] = 1.0, 0.9, 0.8, 0.6
    assert measures.strongest_regions(values) == [(3, 2, 5, 4), (0, 0, 1, 1), (8, 5, 9, 6)]
    assert measures.strongest_regions(np.zeros((3, 3))) == []
    assert measures.share_inside(np.ones((4, 4)), [(0.5, 0, 2.5, 4)]) == pytest.approx(0.5)
    assert measures.share_inside(np.ones((4, 4)), [(0, 0, 2, 4), (1, 0, 3, 4)]) == pytest.approx(0.75)
    assert measures.share_inside(np.ones((4, 4)), [(-9, -9, -1, 99)]) == 0
    assert measures.share_inside(np.zeros((4, 4)), [(0, 0, 4, 4)]) is None
    assert measures.centre_share(np.ones((7, 10))) == pytest.approx(0.25)
    box = measures.to_picture((0, 2, 4, 4), (10, 20, 50, 60), (4, 4))
    assert box == (10, 40, 50, 60) and measures.to_map(box, (10, 20, 50, 60), (4, 4)) == (0, 2, 4, 4)


# Names and places ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "files"),
    [
        (["d/a/0.jpg", "d/b/0.jpg"], ["a/0.png", "b/0.png"]),
        (["d/a.jpg", "d/a.png", "d/b.jpg"], ["a.jpg.png", "a.png.png", "b.png"]),
        (["d/a.jpg", "d/a.jpg"], ["a.jpg.png", "a.jpg-2.png"]),
        (["d/x.jpg", "d/X.png/y.jpg"], ["x-2.png", "X.png/y.png"]),
        (["d/Cat.jpg", "d/cat.jpg"], ["Cat.png", "cat-2.png"]),
        (["x.tar#a/0.jpg", "x.tar#b/0.jpg"], ["x.tar/a/0.png", "x.tar/b/0.png"]),
        (["../up/0.jpg", "sample:chelsea"], ["up/0.png", "sample/chelsea.png"]),
        (["d/index.html/0.jpg", "d/table.csv/0.jpg"], ["index.html-/0.png", "table.csv-/0.png"]),
        (["/r/a/0.jpg", "/r/..\\..\\evil.jpg"], ["a/0.png", "evil.png"]),
    ],
)
def test_names_keep_folders_and_lead_nowhere_else(addresses: list[str], files: list[str]) -> None:
    named = files_of([Picture(address) for address in addresses], ".png", ("index.html", "table.csv"))
    assert [path.as_posix() for path in named] == files


def test_long_names_are_cut_and_stay_apart() -> None:
    names = files_of([Picture(f"d/{'ü' * 130}{end}.jpg") for end in "ab"], ".png", ())
    assert len(set(names)) == 2 and all(len(os.fsencode(name.name)) < 255 for name in names)


# Conditions ---------------------------------------------------------------------------------------------------------


def rows(*changes: dict[str, object]) -> Table:
    names = [column.name for column in COLUMNS]
    return Table(COLUMNS, tuple(tuple({"picture": "p", **each}.get(name) for name in names) for each in changes))  # type: ignore[misc]


def test_conditions_are_shares_means_and_extremes() -> None:
    table = rows(
        {"wrong": True, "centre_share": 0.2, "p_1": 0.5},
        {"wrong": False, "centre_share": 0.6},
        {"wrong": False},
        {"error": "broken"},
    )
    text = (
        "wrong>33%, wrong >= 0.34, errors>0.2, centre_share<0.4, min(centre_share) <= 0.2, max(p_1)>5e-1,mean(check)>9"
    )
    read = conditions.parse(text)
    assert [each.value(table) for each in read] == pytest.approx([1 / 3, 1 / 3, 1 / 4, 0.4, 0.2, 0.5, None])
    assert [each.holds(table) for each in read] == [True, False, True, False, True, False, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("wrong", "NAME>NUMBER"),
        ("wrong>>1", "NAME>NUMBER"),
        ("wong>0.2", "nearest: 'wrong'"),
        ("median(p_1)>1", "min, max and mean"),
        ("max(wrong)>1", "of columns"),
        ("p_1>1.2.3", "no number"),
        ("wrong>0.2; p_1<1", "NAME>NUMBER"),
    ],
)
def test_other_conditions_are_refused_with_what_there_is(text: str, words: str) -> None:
    with pytest.raises(OptionError) as refused:
        conditions.parse(text)
    assert words in str(refused.value) and "in_boxes" in str(refused.value)


def test_junit_holds_any_name(tree: Path) -> None:
    table = rows(
        {"picture": 'd/a/<&"\x1b\n\udcff\ufffe.png', "wrong": True, "class_1": "cat", "p_1": 0.5, "truth": "<dog>"},
        {"picture": "d/b/x.png", "error": "no & picture"},
    )
    read = ElementTree.fromstring(junit(table, conditions.parse("wrong>0.2, errors>90%"), "c").encode())
    assert read.attrib | {"time": ""} == {"tests": "4", "failures": "1", "errors": "1", "time": ""}
    cases = list(read.iter("testcase"))
    assert [case.get("classname") for case in cases] == ["conditions", "conditions", "a", "b"]
    failure = cases[0].find("failure")
    assert failure is not None and "is <dog>" in (failure.text or "") and cases[1].find("failure") is None


# The command --------------------------------------------------------------------------------------------------------

COMMAND = ["explain", "digits", "--net", "lenet5", "--method", "saliency", "-o", "out"]


@pytest.fixture
def sorted_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three digits in folders, of which one is in a wrong one."""
    from convscope.data.samples import digits

    monkeypatch.chdir(tmp_path)
    for number, name in ((3, "3/a.png"), (5, "5/a.png"), (7, "1/a, b.png")):
        Path("digits", name).parent.mkdir(parents=True, exist_ok=True)
        Path("digits", name).write_bytes(digits()[number].read_bytes())
    return tmp_path


def test_exit_codes_are_kept_apart(sorted_digits: Path, capsys: Capture) -> None:
    assert run([*COMMAND, "--junit", "j.xml", "--fail-on", "wrong>0.5"]) == 0
    assert capsys.readouterr().out.split() == ["out/index.html", "out/table.csv", "j.xml"]
    assert run([*COMMAND, "--fail-on", "wrong>0.2"]) == 1
    assert "wrong>0.2 (wrong is 0.3333)" in capsys.readouterr().err
    Path("digits/3/b.png").write_bytes(b"")
    assert run(COMMAND) == 3
    assert run([*COMMAND, "--fail-on", "wrong>0.2"]) == 1
    told = capsys.readouterr().err.splitlines()[-2:]
    assert told[0] == "convscope: failed: digits/3/b.png is empty (0 bytes)", "said whatever ends the run"
    assert told[1] == "convscope: failed by --fail-on: wrong>0.2 (wrong is 0.3333)"
    for wrong_use in (["--fail-on", "in_boxes<1"], ["--fail-on", "check>1"], ["--option", "x=1"]):
        assert run([*COMMAND, *wrong_use]) == 2
    assert "in_boxes<1' needs boxes" in capsys.readouterr().err
    assert run(["explain", "digits", "--method", "salency"]) == 2 and run(["explain", "digits", "-o", "a.png"]) == 2
    assert "'saliency'" in (said := capsys.readouterr().err) and "give -o FOLDER" in said
    Path("empty").mkdir()
    assert run(["explain", "empty", "--net", "lenet5", "-o", "out"]) == 2
    (sorted_digits / "digits" / "1").rename("digits/eleventy")
    assert run([*COMMAND, "--fail-on", "wrong>0.2"]) == 2
    assert "'eleventy' is none" in capsys.readouterr().err


def test_the_page_and_the_table_name_everything(sorted_digits: Path, capsys: Capture) -> None:
    Path("digits/3/<b>.png").write_bytes(b"")
    assert run([*COMMAND, "--json", "--fail-on", "errors>0.9"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "convscope.explanations/1" and told["conditions"][0]["value"] == 0.25
    with Path("out/table.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["picture"] for row in read] == [row["picture"] for row in told["pictures"]]
    page = Path("out/index.html").read_text()
    assert "<h1>Saliency · lenet5</h1>" in page and "passed: not errors&gt;0.9 (errors is 0.25)" in page
    assert "src='1/a%2C%20b.png'" in page and "Wrong: 1" in page and "&lt;b&gt;.png is empty" in page
    assert {path.as_posix() for path in Path("out").rglob("*") if path.is_file()} == {
        *("out/index.html", "out/table.csv", "out/1/a, b.png", "out/3/a.png", "out/5/a.png")
    }


def test_nothing_is_read_or_written_where_it_should_not_be(sorted_digits: Path, capsys: Capture) -> None:
    words = ["explain", ".", "--net", "lenet5", "--method", "saliency", "-o", "out"]
    assert run(words) == 0 and run(words) == 0
    assert len(list(Path("out").rglob("*.png"))) == 3, "its own overlays are no pictures of the next run"
    assert "3 were there already" in capsys.readouterr().err
    shutil.rmtree("out/digits/5")
    Path("elsewhere").mkdir()
    Path("out/digits/5").symlink_to(Path("elsewhere").absolute())
    assert run(["explain", "digits", "--net", "lenet5", "--method", "saliency", "-o", "out/digits"]) == 2
    assert not list(Path("elsewhere").iterdir()) and "leads out of" in capsys.readouterr().err


def test_ctrl_c_leaves_a_whole_table(sorted_digits: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from convscope.commands import explain

    assert run(COMMAND) == 0
    for path in (Path("out/table.csv"), Path("out/3/a.png")):
        path.unlink()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(explain._Forecast, "tell", interrupt)
    capsys.readouterr()
    assert run(COMMAND) == 130
    assert "interrupted; 3 of 3 pictures are in out" in capsys.readouterr().err
    with Path("out/table.csv").open(newline="") as file:
        assert all((Path("out") / row["file"]).is_file() for row in csv.DictReader(file))


@pytest.mark.nightly
def test_an_interrupted_run_leaves_a_whole_table(sorted_digits: Path) -> None:
    for number in range(400):
        shutil.copy("digits/3/a.png", f"digits/3/{number:03}.png")
        with Path(f"digits/3/{number:03}.png").open("ab") as file:
            file.write(bytes([number % 256, number // 256]))
    words = [*COMMAND[:5], "rise", *COMMAND[6:], "--option", "masks=400"]
    process = subprocess.Popen([sys.executable, "-m", "convscope", *words], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while len(list(Path("out").rglob("*.png"))) < 8 and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "pictures are in out. Run the same command again" in said
    with Path("out/table.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    made = list(Path("out").rglob("*.png"))
    assert 8 <= len(read) == len(made) < 403 and all((Path("out") / row["file"]).is_file() for row in read)
