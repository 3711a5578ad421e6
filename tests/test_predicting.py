"""What a network says of many pictures: labels matched to classes, figures of right and wrong, tables, and pipes."""

from __future__ import annotations

import io
import json
import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import convscope as cs
from convscope import Net
from convscope.cli import run
from convscope.data.samples import digits
from convscope.errors import DataError, NetworkError
from convscope.evaluation import predicting
from convscope.evaluation.predicted import Predictions
from convscope.evaluation.prediction import Prediction
from convscope.evaluation.quality import Quality

Capture = pytest.CaptureFixture[str]
GOLDEN = Path(__file__).parent / "golden"
COLOURS = {"red": (153, 51, 51), "green": (51, 153, 51), "blue": (51, 51, 153)}


class Corner(nn.Module):
    """Its outputs are the values of one pixel, some of them: all that a test says of it is exact."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1, bias=False)
        self.first.weight.data = torch.eye(3)[:, :, None, None]
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x)[:, : self.outputs, 0, 0]


def corner(classes: Any = ("red", "green", "blue"), outputs: int = 3, **options: Any) -> Net:
    plain: dict[str, Any] = {"mean": 0.0, "std": 1.0, "size": 4, "head": "probability", "name": "corner"}
    return Net(Corner(outputs), classes=classes, **plain | options)


def paint(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), colour, np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures in each of three folders; a green one is painted blue, and a blue one is broken."""
    monkeypatch.chdir(tmp_path)
    for name, colour in COLOURS.items():
        for number in range(3):
            paint(Path("data", name, f"{number}.png"), colour)
    paint(Path("data/green/1.png"), COLOURS["blue"])
    Path("data/blue/2.png").write_bytes(b"no picture")
    return tmp_path / "data"


def test_class_folders_are_labels_and_figures_are_exact(tree: Path) -> None:
    said = cs.predict_many(corner(), "data")
    assert [each.where for each in said][:2] == ["data/blue/0.png", "data/blue/1.png"]
    assert [each.truth for each in said] == [2] * 3 + [1] * 3 + [0] * 3
    assert [each.where for each in said.wrong] == ["data/green/1.png"]
    assert said[4].rank == 1 or said[4].rank == 2, "the true class comes after the one that is said"
    assert said[4].truth_value == pytest.approx(0.2) and said[4].values[0] == pytest.approx(0.6)
    assert "not a picture" in said[2].error and not said[2].choices and said.failed == (said[2],)
    quality = said.quality
    assert quality is not None and quality.pictures == 8 and quality.top_1 == 7 / 8
    assert quality.top_5 is None, "of three classes"
    assert [(each.name, each.pictures, each.said, each.top_1) for each in quality.by_class] == [
        ("red", 3, 3, 1.0),
        ("green", 3, 2, 2 / 3),
        ("blue", 2, 3, 1.0),
    ]
    assert quality.by_class[1].taken_for == "blue" and quality.confusion == ((1, 2, 1),)
    assert quality.calibration_error == pytest.approx(7 / 8 - 0.6, abs=1e-6)


@pytest.mark.parametrize(
    "folders",
    [
        ("Red", "1", "02"),
        ("n01440764", "n01443537", "n01484850_great_white_shark"),
        ("golden-retriever", "tench", "goldfish"),
    ],
)
def test_folders_name_classes_by_name_number_or_wordnet_id(folders: tuple[str, ...], tmp_path: Path) -> None:
    names = ("red", "green", "blue")
    if folders[0] == "n01440764":
        names = ("tench", "goldfish", "great white shark")
    elif folders[0] == "golden-retriever":
        names = ("Golden_Retriever, a dog", "tench, Tinca tinca", "goldfish")
    for folder, colour in zip(folders, COLOURS.values(), strict=True):
        paint(tmp_path / folder / "a.png", colour)
    quality = cs.predict_many(corner(names), tmp_path).quality
    assert quality is not None and quality.top_1 == 1 and quality.pictures == 3
    single = [tmp_path / folder / "a.png" for folder in folders]
    quality = cs.predict_many(corner(names), single).quality
    assert quality is not None and quality.top_1 == 1, "pictures by address have the folders that they lie in"


def test_labels_that_are_no_classes_are_told_beside_the_classes(tree: Path) -> None:
    (tree / "red").rename(tree / "crimson")
    with pytest.raises(DataError, match=r"not every one of 3 labels is a class.*'crimson' is none.*'red'.*--names"):
        cs.predict_many(corner(), tree)
    said = cs.predict_many(corner(), tree, labels="none")
    assert not said.labelled and said.quality is None
    Path("names.csv").write_text("crimson,red\n")
    quality = cs.predict_many(corner(), tree, names="names.csv").quality
    assert quality is not None and quality.top_1 == 7 / 8
    for name in ("green", "blue"):
        (tree / name).rename(tree / f"{name}ish")
    said = cs.predict_many(corner(), tree)
    assert not said.labelled and "'blueish', 'crimson', 'greenish' are none" in said.recipe.remarks[0]
    said = cs.predict_many(corner(classes=()), tree)
    assert said.labelled and "alphabetical order, 'blueish' output 0, 'greenish' 2" in said.recipe.remarks[0]
    assert said[0].truth == 0 and said.classes == ("blueish", "crimson", "greenish")
    paths = cs.predict_many(corner(classes=()), sorted(tree.rglob("*.png")))
    assert paths.classes == said.classes and [each.truth for each in paths] == [each.truth for each in said]
    assert not cs.predict_many(corner(classes=()), sorted(tree.rglob("*.png"))[:1]).labelled
    assert cs.predict_many(corner(classes=()), tree, labels="none").classes == ("class 0", "class 1", "class 2")


def test_a_table_gives_labels(tree: Path) -> None:
    net = corner()
    Path("labels.csv").write_text("path,label\nred/0.png,red\ndata/green/1.png,blue\nnowhere.png,green\n")
    said = cs.predict_many(net, "data", labels="labels.csv")
    assert said.quality is not None and said.quality.pictures == 2 and said.quality.top_1 == 1
    assert "no label for some pictures" in said.recipe.remarks[0]
    Path("data/red/alone.png").write_bytes(Path("data/red/0.png").read_bytes())
    Path("plain.csv").write_text("elsewhere/alone.png;0\n")
    said = cs.predict_many(net, "data", labels="plain.csv")
    assert said.quality is not None and said.quality.pictures == 1, "its name alone tells it apart"
    with pytest.raises(DataError, match="columns"):
        Path("odd.csv").write_text("a,b,c\n1,2,3\n")
        cs.predict_many(net, "data", labels="odd.csv")
    with pytest.raises(DataError, match=r"labels none of the pictures: its first path is 'other.png'"):
        Path("other.csv").write_text("other.png,red\n")
        cs.predict_many(net, "data", labels="other.csv")
    with pytest.raises(DataError, match="twice, 'red' and 'blue'"):
        Path("twice.csv").write_text("red/0.png,red\nred/0.png,blue\n")
        cs.predict_many(net, "data", labels="twice.csv")
    with pytest.raises(DataError, match="none of the 1 labels is a class of corner: 'mauve' is none"):
        Path("mauve.csv").write_text("path,label\nred/0.png,mauve\n")
        cs.predict_many(net, "data", labels="mauve.csv")


def test_one_probability_has_two_answers(tmp_path: Path) -> None:
    for name, colour in (("healthy", COLOURS["blue"]), ("lesion", COLOURS["red"])):
        paint(tmp_path / name / "a.png", colour)
    said = cs.predict_many(corner(["lesion"], 1), tmp_path)
    assert said.classes == ("not lesion", "lesion") and [each.truth for each in said] == [0, 1]
    assert [each.choices[0] for each in said] == [0, 1]
    assert said[0].values == pytest.approx((0.8, 0.2)) and said[1].values == pytest.approx((0.6, 0.4))
    assert "'healthy' is taken for 'not lesion'" in said.recipe.remarks
    logit = cs.predict_many(corner(["lesion"], 1, head="sigmoid"), tmp_path)
    assert logit[1].values[0] == pytest.approx(1 / (1 + math.exp(-0.6)))


def test_one_number_for_each_picture_is_one_output(tmp_path: Path) -> None:
    class Flat(Corner):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, 0]

    paint(tmp_path / "1" / "a.png", COLOURS["red"])
    said = cs.predict_many(Net(Flat(1), mean=0.0, std=1.0, size=4, head="probability"), tmp_path)
    assert not said.failed and said[0].values == pytest.approx((0.6, 0.4)) and said[0].rank == 0


def test_values_are_no_classes(tree: Path) -> None:
    said = cs.predict_many(corner(("width", "height", "depth"), head="value"), "data")
    assert said[-1].choices == (0, 1, 2) and said[-1].values == pytest.approx((0.6, 0.2, 0.2)) and not said.labelled
    assert [column.name for column in said.table().columns][1:3] == ["class_1", "value_1"]
    with pytest.raises(DataError, match=r"only classes can be right or wrong.*--head"):
        Path("labels.csv").write_text("path,label\nred/0.png,width\n")
        cs.predict_many(corner(head="value"), "data", labels="labels.csv")


def test_calibration_is_that_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    confidence, right = rng.random(500), rng.random(500) < 0.5
    all_ = tuple(
        Prediction(str(i), (0, 1), (float(p), 0.0), truth=int(not r), rank=int(not r))
        for i, (p, r) in enumerate(zip(confidence, right, strict=True))
    )
    edges = np.linspace(0, 1, 16)
    expected = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    quality = Quality(("a", "b"), all_)
    assert quality.calibration_error == pytest.approx(expected)
    assert sum(each.pictures for each in quality.reliability) == 500
    certain = Quality(("a", "b"), (Prediction("x", (0,), (1.0,), truth=0, rank=0),))
    assert certain.reliability[0].high == 1.0 and certain.calibration_error == 0


# Files and pipes ----------------------------------------------------------------------------------------------------


def odd_names(tree: Path) -> Predictions:
    """Predictions of pictures whose names hold what tables are written with, from a folder that is always the same."""
    for name in ('a, b\nc "q".png', "خروف.png", "=1+1.png", "\udcff.png"):
        try:
            paint(Path("data/red", name), COLOURS["red"])
        except OSError:  # a file system of UTF-8 alone
            continue
    return cs.predict_many(corner(), "data", top=2)


def test_csv_and_json_are_what_they_were(tree: Path) -> None:
    said = cs.predict_many(corner(), "data", top=2)
    said.table().save("t.csv")
    assert Path("t.csv").read_text() == (GOLDEN / "predictions.csv").read_text()
    assert json.loads(said.json()) == json.loads((GOLDEN / "predictions.json").read_text())


def test_tables_come_back_through_pandas_and_polars(tree: Path) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    said = odd_names(tree)
    table = said.table()
    table.save("t.csv")
    table.save("t.parquet")
    names = [row["picture"].encode("utf-8", "backslashreplace").decode() for row in table.records]  # type: ignore[union-attr]
    frames = [pandas.read_csv("t.csv"), pandas.read_parquet("t.parquet")]
    for frame in frames:
        assert frame["picture"].tolist() == names
        assert frame["p_1"].tolist()[:2] == [said[0].values[0], said[1].values[0]] and math.isnan(frame["p_1"][2])
        assert [bool(wrong) for wrong in frame["wrong"][3:6]] == [False, True, False]
    for frame in (polars.read_csv("t.csv"), polars.read_parquet("t.parquet")):
        assert frame["picture"].to_list() == names
        assert frame["p_1"].to_list() == [row["p_1"] for row in table.records]
        assert frame["truth"].to_list() == [row["truth"] for row in table.records]
        assert frame["error"].to_list() == [row["error"] for row in table.records]


@pytest.fixture
def sorted_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three digits in folders, of which one is in a wrong one, in a name that no line can hold."""
    monkeypatch.chdir(tmp_path)
    for number, name in ((3, "3/a.png"), (5, "5/a.png"), (7, '1/a, "b"\nc.png')):
        Path("data", name).parent.mkdir(parents=True, exist_ok=True)
        Path("data", name).write_bytes(digits()[number].read_bytes())
    return tmp_path


def pipe(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(os.fsencode(text))))


def test_wrong_ones_feed_the_next_command(
    sorted_digits: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["predict", "data", "--net", "lenet5", "--wrong"]) == 0
    out = capsys.readouterr().out
    assert out == '"data/1/a, \\"b\\"\\nc.png"\n'
    pipe(monkeypatch, out + "data/3/a.png\n\n")
    assert run(["saliency", "-", "--net", "lenet5", "-o", "out"]) == 0
    assert len(list(Path("out").iterdir())) == 2
    pipe(monkeypatch, "")
    capsys.readouterr()
    assert run(["saliency", "-", "--net", "lenet5", "-o", "none"]) == 0
    assert "nothing to do" in capsys.readouterr().err and not Path("none").exists()
    pipe(monkeypatch, "data/3/a.png\n")
    assert (
        run(["check", "-", "--methods", "saliency", "--net", "lenet5", "--stages", "1", "--steps", "2", "--json"]) == 0
    )
    pipe(monkeypatch, "data/3/a.png\ndata/5/a.png\n")
    assert run(["check", "-", "--net", "lenet5"]) == 2
    pipe(monkeypatch, '"data/3\n')
    assert run(["saliency", "-", "--net", "lenet5", "-o", "none"]) == 2


def test_the_command_prints_bars_figures_and_json(sorted_digits: Path, capsys: Capture) -> None:
    assert run(["predict", "data", "--net", "lenet5", "--top", "2", "--csv", "t.txt"]) == 0
    out = capsys.readouterr().out
    assert "data/3/a.png  (right: 3)" in out and "█" in out and "top-1 66.7%" in out
    assert "\\u000ac.png: 7 " in out and "; is 1 (" in out, "the wrong one is listed"
    assert Path("t.txt").read_text().startswith("picture,truth,wrong,p_truth,rank,class_1,p_1,class_2,p_2,error\n")
    assert run(["predict", "data", "--net", "lenet5", "--wrong", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["schema"] == "convscope.predictions/1" and len(whole["pictures"]) == 1
    assert whole["pictures"][0]["truth"] == {"index": 1, "class": "1"} and whole["quality"]["top_1"] == 2 / 3
    Path("data/3").rename("pictures")
    assert run(["predict", "pictures", "--net", "lenet5", "--wrong"]) == 2
    assert "--labels FILE.csv" in capsys.readouterr().err


def test_what_cannot_be_read_is_exit_code_3(sorted_digits: Path, capsys: Capture) -> None:
    Path("data/3/b.png").write_bytes(b"")
    assert run(["predict", "data", "--net", "lenet5", "--csv", "t.csv"]) == 3
    assert "1 of 4 pictures failed" in capsys.readouterr().err
    assert "b.png is empty" in Path("t.csv").read_text()
    assert run(["predict", "nowhere.png", "--net", "lenet5"]) == 2, "of one picture nothing was done"
    Path("empty").mkdir()
    assert run(["predict", "empty", "--net", "lenet5"]) == 2
    assert run(["predict", "data", "--net", "lenet5", "--csv", "data"]) == 2


def test_what_was_said_before_an_interruption_is_kept(
    sorted_digits: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = predicting.answers

    def interrupt(net: Net, pixels: Tensor) -> Any:
        if Path("begun").exists():
            raise KeyboardInterrupt
        Path("begun").touch()
        return asked(net, pixels)

    monkeypatch.setattr(predicting, "answers", interrupt)
    monkeypatch.setattr(predicting, "_BATCH", {"cpu": 2})
    assert run(["predict", "data", "--net", "lenet5", "--csv", "kept.csv"]) == 130
    assert "interrupted; 2 of 3 pictures are in kept.csv" in capsys.readouterr().err
    kept = Path("kept.csv").read_text().splitlines()
    monkeypatch.setattr(predicting, "answers", asked)
    assert run(["predict", "data", "--net", "lenet5", "--csv", "whole.csv"]) == 0
    assert Path("whole.csv").read_text().startswith("\n".join(kept)), "rows of the whole table, in its order"


def test_what_is_assumed_of_pictures_and_outputs_is_said_once(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(np.full((4, 4), 9000 + number, np.uint16)).save(tmp_path / f"{number}.png")
    said = cs.predict_many(corner(["lesion"], 1, head=None), tmp_path)
    assert said.recipe.assumed == ("65535 is white", "a score")
    deep, score = said.recipe.remarks[:2]
    assert deep == (
        "the picture holds values from 9000 to 9000; no value_range is given, so 65535 is read as 1: state it, as in "
        "Net(..., value_range=(0, 65535)) or --value-range 0,65535"
    )
    assert "--head sigmoid" in score
    stated = cs.predict_many(corner(["lesion"], 1, head="value", value_range=(0, 65535)), tmp_path)
    assert not stated.recipe.assumed


def test_an_output_for_each_pixel_is_refused_with_what_can_be_asked(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", COLOURS["red"])
    with pytest.raises(NetworkError, match=r"grad-cam PICTURE --of :0@2,2; or let Net"):
        cs.predict_many(Net(nn.Conv2d(3, 2, 1), mean=0.0, std=1.0, size=4), tmp_path)
