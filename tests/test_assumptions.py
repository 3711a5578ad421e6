"""What nobody said is assumed, and said first: in the terminal, in a figure's first line and note, in recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope
from convscope import Net, load
from convscope.assumptions import NOT_NORMALISED, Assumption, announced, assumed_first
from convscope.cli import run
from convscope.errors import OptionError
from convscope.evaluation import normalisations
from convscope.recipes import Recipe

MODEL = """
import torch
from torch import nn

class Body(nn.Module):
    def __init__(self, stride=1, fixed=0):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=stride, padding=1)
        self.last = nn.Linear(4 * (fixed or 1) ** 2, 5)
        self.fixed = fixed

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(x.flatten(1) if self.fixed else x.mean((2, 3)))

def build():
    return Body()

def strided():
    return Body(stride=2)

def fixed():
    return Body(fixed=64)

def named():
    body = Body()
    body.img_size = 96
    return body

def trained():
    body = Body()
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.copy_(torch.full_like(parameter, 0.1))
    return body
"""
PIXELS, SIZE, WEIGHTS = "pixels not normalised", "input of 224 × 224", "random weights"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    for number, side in enumerate((48, 48, 40)):
        values = np.random.default_rng(number).integers(0, 255, (side, 48, 3)).astype("uint8")
        Image.fromarray(values).save(f"{number}.png")
    return tmp_path


def assumed(net: Net) -> list[str]:
    return [each.short for each in net.assumptions]


@pytest.mark.parametrize(
    ("name", "options", "expected", "size"),
    [
        ("build", {}, [WEIGHTS, SIZE, PIXELS], 224),
        ("build", {"mean": 0.5, "size": 32}, [WEIGHTS], 32),
        ("build", {"weights": None, "std": 0.5}, [SIZE], 224),
        ("trained", {"mean": "imagenet", "size": 32}, [], 32),
        ("fixed", {"mean": 0.5}, [WEIGHTS], 64),
        ("named", {"mean": 0.5}, [WEIGHTS], 96),
        ("strided", {"mean": 0.5}, [WEIGHTS, SIZE], 224),
    ],
)
def test_what_a_file_of_ones_own_leaves_open(
    name: str, options: dict[str, Any], expected: list[str], size: int, home: Path
) -> None:
    """A size at which alone a network runs, and what is asked for, are no assumptions."""
    net = load(f"file:model.py:{name}", **options)
    assert assumed(net) == expected and net.size == (size, size)
    assert assumed(net.changed(size=64, mean=0.1)) == [each for each in expected if each == WEIGHTS]
    assert all(each in str(net.assumptions) for each in expected and ("state", "--"))


@pytest.mark.parametrize("key", ["hyper_parameters", "args", "config"])
@pytest.mark.parametrize("said", [{"image_size": 80}, {"img_size": [80, 80]}, {"input_size": (3, 80, 80), "lr": 0.1}])
def test_a_checkpoint_says_what_its_network_reads(key: str, said: dict[str, Any], home: Path) -> None:
    state = {f"model.{name}": value for name, value in load("file:model.py", mean=0).body.state_dict().items()}
    torch.save({"state_dict": state, key: said}, "w.ckpt")
    net = load("file:model.py", weights="w.ckpt", mean=0.5)
    assert net.size == (80, 80) and not net.assumptions
    assert f"reads 80x80 pixels, as {next(iter(said))} of w.ckpt says" in net.note
    assert load("file:model.py", weights="w.ckpt", mean=0.5, size=32).size == (32, 32)


def test_settings_that_are_no_size_are_left_alone(home: Path) -> None:
    state = load("file:model.py", mean=0).body.state_dict()
    for wrong in (True, 0, -3, 1e9, "96", [1, 2, 3, 4], 10**6, None, {"a": 1}):
        torch.save({"state_dict": state, "hyper_parameters": {"img_size": wrong}}, "w.ckpt")
        assert assumed(load("file:model.py", weights="w.ckpt", mean=0)) == [SIZE]


def test_in_a_figure_it_comes_first_and_outlives_the_file(home: Path) -> None:
    net = load("file:model.py")
    for drawing in (
        convscope.explain(net, "0.png", "saliency", 1),
        convscope.maps(net, "0.png", "first"),
        next(iter(convscope.explain_many(net, ["0.png"], "saliency", 1))),
    ):
        sheet = drawing.announced()
        assert sheet.title.startswith(f"Assumed: {WEIGHTS}, {SIZE}, {PIXELS} · ")
        assert sheet.title.endswith(drawing.sheet().title)
        note = sheet.note.splitlines()
        assert note[0].startswith("model has random weights, seed 0: this explains nothing")
        assert [line.startswith("Assumed: ") for line in note[1:4]] == [True] * 3 and sheet.note.count(
            "as they are"
        ) == 1
        assert drawing.recipe.assumed == (WEIGHTS, SIZE, PIXELS) == Recipe.from_json(drawing.recipe.to_json()).assumed
        assert (
            drawing.recipe.remarks[:3] == net.assumptions
            and drawing.recipe.key == Recipe.from_json(drawing.recipe.to_json()).key
        )
    drawing.save_values("map.npz")
    assert convscope.Drawing.load("map.npz").announced().title == sheet.title


def test_a_size_that_is_given_for_a_run_is_no_assumption(home: Path) -> None:
    net = load("file:model.py", mean=0.5, weights=None)
    assert convscope.explain(net, "0.png", "saliency", 1).recipe.assumed == (SIZE,)
    assert convscope.explain(net, "0.png", "saliency", 1, size=32).recipe.assumed == ()
    assert net.sized(32).assumptions == ()


def test_where_white_is_assumed_the_figure_says_so_first() -> None:
    deep = np.arange(64 * 64, dtype="uint16").reshape(64, 64)
    net = Net(torch.nn.Conv2d(1, 2, 3), size=64, mean=0.0)
    drawing = convscope.explain(net, deep, "gradient", ":0")
    assert drawing.announced().title.startswith("Assumed: 65535 is white · Class 0")
    assert drawing.note.startswith("Assumed: the picture holds values from 0 to 4095; no value_range is given")
    stated = convscope.explain(net.changed(value_range=(0, 4095)), deep, "gradient", ":0")
    assert not stated.recipe.assumed and stated.announced() == stated.sheet()


def test_a_module_that_is_wrapped_without_more_says_what_was_assumed() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = Net(body)
    assert assumed(net) == [SIZE, PIXELS]
    drawing = convscope.explain(net, np.zeros((300, 300, 3), np.uint8), "gradient", of=1)
    assert drawing.announced().title.startswith(f"Assumed: {SIZE}, {PIXELS} · ")
    assert drawing.recipe.remarks[0].startswith("read at 224x224 pixels, since no size was given: state it, as in Net")
    assert not net.changed(size=224, mean=0.0).assumptions and assumed(net.sized(64)) == [PIXELS]
    assert assumed(Net(body, std=1.0)) == [SIZE] and assumed(Net(body, size=64)) == [PIXELS]
    assert net.size == (224, 224) and net.mean == (0, 0, 0) and net.std == (1, 1, 1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"labels": ["cat"]}, "Net has no option 'labels'; for the names of the classes, use classes="),
        ({"input_size": 32}, "Net has no option 'input_size'; for the side of the input, use size="),
        ({"means": 0.5}, "Net has no option 'means'"),
        ({"classes": 5}, "classes are "),
        ({"classes": "missing.txt"}, "missing.txt"),
        ({"classes": ["cat", 3]}, "class names are text, and that of output 1 is 3"),
    ],
)
def test_a_net_answers_options_that_are_wrong(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError) as raised:
        Net(nn.Sequential(nn.Conv2d(3, 4, 3)), **options)
    assert told in str(raised.value)


def test_in_the_terminal_it_is_said_once_with_the_option_that_states_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["saliency", "0.png", "--of", "1", "--net", "file:model.py", "-o", "o.png"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "convscope: assumed: read at 48x48 pixels",
        "convscope: assumed: random weights",
        "convscope: assumed: reads pixels in [0",
    ]
    assert "--size 48" in lines[0] and "--weights FILE.pth" in lines[1] and "--mean imagenet" in lines[2]
    stated = ["--mean", "imagenet", "--weights", "none", "--size", "32"]
    assert run(["saliency", "0.png", "--of", "1", "--net", "file:model.py", *stated, "-o", "o.png"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "pictures", "side"),
    [("build", ["0.png", "1.png"], 48), ("build", ["0.png", "2.png"], 224), ("strided", ["0.png"], 224)],
)
def test_pictures_of_one_size_tell_that_of_a_network_that_reads_single_pixels(
    name: str, pictures: list[str], side: int, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = "out" if len(pictures) > 1 else "out.png"
    assert run(["saliency", *pictures, "--of", "1", "--net", f"file:model.py:{name}", "-o", out]) == 0
    assert f"assumed: read at {side}x{side} pixels" in capsys.readouterr().err
    first = next(Path(out).iterdir()) if Path(out).is_dir() else Path(out)
    assert Recipe.from_json(Image.open(first).info["convscope"]).network["reads"]["size"] == [side, side]


def test_remarks_are_parted_and_titles_announce_in_words() -> None:
    first = Assumption("no weights were given", "random weights", ("weights",))
    assert assumed_first(["a", first, "b", "a", first]) == ([first], ["a", "b"])
    assert announced("tabby", ["random weights", "input of 8 × 8"]) == "Assumed: random weights, input of 8 × 8 · tabby"
    assert announced("tabby", []) == "tabby" and announced("", ["random weights"]) == ""


class Reddish(nn.Module):
    """Says "light" where the mean of the first channel of what it reads is above zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red = x[:, 0].mean((1, 2))
        return torch.stack([-red, red], 1)


def reddish(**options: Any) -> Net:
    body = nn.Sequential(Reddish())
    body.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    return Net(body, size=16, classes=["dark", "light"], **options)


def lights(folder: Path, pictures: int) -> None:
    """Pictures on both sides of ImageNet's mean red, 0.485, and below 0.5."""
    for name, value in (("dark", 120), ("light", 125)):
        (folder / name).mkdir(parents=True)
        for number in range(pictures):
            Image.new("RGB", (16, 16), (value, 0, 0)).save(folder / name / f"{number}.png")


def test_with_labels_at_hand_the_usual_normalisations_are_tried(tmp_path: Path) -> None:
    lights(tmp_path, 6)
    net = reddish().assuming(NOT_NORMALISED)
    said = convscope.predict_many(net, tmp_path)
    first = said.recipe.remarks[0]
    assert first.startswith("reads pixels in [0, 1] as they are")
    assert said.recipe.remarks[1].startswith(
        "of 12 labelled pictures 6 are right with pixels as they are, and 12 with --mean imagenet"
    )
    assert said.recipe.assumed == (PIXELS, "right more often with --mean imagenet")
    right = convscope.predict_many(reddish(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)), tmp_path)
    assert [each.wrong for each in right].count(True) == 0 and not right.recipe.assumed


def test_normalisations_are_not_tried_where_they_were_given_or_labels_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lights(tmp_path, 3)
    assert convscope.predict_many(reddish().assuming(NOT_NORMALISED), tmp_path).recipe.assumed == (PIXELS,)
    lights(tmp_path / "more", 8)
    monkeypatch.setattr(normalisations, "_right", None)
    assert convscope.predict_many(reddish().changed(mean=0.0), tmp_path / "more").recipe.assumed == ()
    unlabelled = convscope.predict_many(reddish().assuming(NOT_NORMALISED), tmp_path / "more", labels="none")
    assert unlabelled.recipe.assumed == (PIXELS,)
