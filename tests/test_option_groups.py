"""Groups of options: declared once, and whole in every command that reads pictures or draws."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import pytest
import tifffile
import typer
from PIL import Image
from typer.models import ArgumentInfo, OptionInfo

from convscope.cli import _OWN, _registered, run
from convscope.commands.groups import grouped, parameters_of, taken
from convscope.commands.network import Network
from convscope.commands.paper import Figure, Setting
from convscope.drawing.files import read_recipe
from convscope.listing import listing
from convscope.outputs import PICTURE_ENDINGS
from test_stylizing import style_file

Capture = pytest.CaptureFixture[str]


def parameters(command: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(command, eval_str=True).parameters)


def declared(parameter: inspect.Parameter) -> ArgumentInfo | OptionInfo:
    return next(part for part in get_args(parameter.annotation) if isinstance(part, (ArgumentInfo, OptionInfo)))


COMMANDS = {name: parameters(command) for name, (_, command) in _OWN.items()} | {
    name: parameters(_registered(each)) for name, each in listing().items()
}


def test_every_command_that_reads_pictures_has_all_options_of_reading() -> None:
    reading = parameters_of(Network)
    for name, own in COMMANDS.items():
        if "net" in own and name != "history":
            assert all(option in own or f"{option}s" in own for option in reading), name
        if "pictures" in own or ("picture" in own and name != "show"):  # which reads figures
            assert "window" in own, name


def test_every_command_that_draws_has_all_options_of_drawing() -> None:
    drawing, found = parameters_of(Setting), set[str]()
    for name, own in COMMANDS.items():
        endings = declared(own["out"]).help or "" if "out" in own else ""
        if all(ending in endings for ending in PICTURE_ENDINGS) and name != "stylize":  # which writes a picture
            assert set(drawing) <= set(own), name
            assert set(parameters_of(Figure)) <= set(own) or name in ("layers", "nets", "history"), name
            found.add(name)
    assert {"check", "layers", "nets", "history", "grad_cam", "filters"} <= found


def test_an_option_of_a_group_is_declared_once() -> None:
    groups = [parameters_of(group) for group in (Network, Setting, Figure)]
    other = {("train", "device"), ("train-style", "width"), ("serve", "net")}  # of the same name
    for name, own in COMMANDS.items():
        for option in {option for group in groups for option in group} & set(own):
            given = own[option].annotation, own[option].default
            assert given in [group.get(option) for group in groups] or (name, option) in other, (name, option)


@dataclass(frozen=True)
class Inner:
    left: Annotated[int, typer.Option()] = 1


@dataclass(frozen=True)
class Outer:
    inner: Inner
    right: Annotated[str, typer.Option()] = "r"


def test_a_group_may_hold_another_and_a_command_takes_it_whole() -> None:
    got: dict[str, Any] = {}

    def command(word: Annotated[str, typer.Argument()], outer: Outer, last: Annotated[int, typer.Option()] = 3) -> None:
        got.update(word=word, outer=outer, last=last)

    typed = grouped(command)
    assert list(inspect.signature(typed).parameters) == ["word", "left", "right", "last"]
    typed(word="w", left=5, right="x", last=4)
    assert got == {"word": "w", "outer": Outer(Inner(5), "x"), "last": 4}
    values = {"right": "own"}
    assert taken(Outer, values) == Outer(Inner(1), "own") and not values


def test_an_option_of_a_commands_own_takes_the_place_of_a_groups_and_reaches_it() -> None:
    got: dict[str, Any] = {}

    def command(outer: Outer, left: Annotated[list[int] | None, typer.Option()] = None) -> None:
        got.update(outer=outer, left=left)

    grouped(command)(left=[5, 6], right="x")
    assert got == {"outer": Outer(Inner(1), "x"), "left": [5, 6]}


# What the options do ------------------------------------------------------------------------------------------------


@pytest.fixture
def dark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A 16-bit picture that uses 200 grey levels of 65,536."""
    monkeypatch.chdir(tmp_path)
    rows = np.linspace(1000, 1200, 64).astype(np.uint16)
    tifffile.imwrite("dark.tif", np.repeat(rows[:, None], 64, 1))
    return "dark.tif"


def test_a_window_shows_deep_pictures_in_every_command(dark: str, capsys: Capture) -> None:
    net = ["--net", "lenet5", "--weights", "none"]
    told = "shown from 1000 (black) to 1100 (white)"
    window = ["--window", "1000,1100"]
    for words in (
        ["predict", dark, *net],
        ["explain", dark, "-o", "out", "--method", "saliency", *net],
        ["report", dark, "--no-check", "--method", "saliency", *net],
        ["saliency", dark, *net],
    ):
        assert run([*words, *window]) == 0, words
    assert run(["layers", *net, *window]) == 0
    assert told in (read_recipe(Path("dark-saliency.png")).remarks)
    assert any(told in text for text in read_recipe(next(Path("out").glob("*.png"))).remarks)
    assert run(["predict", dark, *net, "--window", "2,1"]) == 2
    assert "the first below the other" in capsys.readouterr().err


def test_a_window_says_what_is_painted(dark: str, capsys: Capture) -> None:
    style_file(Path("s.safetensors"))
    colours = set[float]()
    for window in ("1000,1200", "1000,3000"):
        words = ["stylize", dark, "--style", "s.safetensors", "--strength", "0", "-o", "p.png", "--window", window]
        assert run(words) == 0
        assert f"shown from 1000 (black) to {window[5:]} (white)" in capsys.readouterr().err
        colours.add(float(np.asarray(Image.open("p.png").convert("L")).max()))
        assert read_recipe(Path("p.png")).options["window"] == [1000, float(window[5:])]
    assert max(colours) > 250 and min(colours) < 30


@pytest.mark.parametrize(
    ("words", "least"),
    [
        (["grad-cam", "d.png", "--font", "20", "--width", "1in"], "2 tiles in a row in this size of letters: it takes"),
        (["grid", "d.png", "--methods", "saliency,gradient", "--width", "0.6in"], "3 tiles in a row"),
        (["compare", "d.png", "--methods", "saliency", "--width", "0.5in", "--font", "20"], "2 tiles in a row"),
        (["maximize", "--of", "3", "--width", "0.5in", "--font", "40"], "1 tile in a row"),
    ],
)
def test_a_width_too_narrow_for_any_tiles_is_refused_before_the_work(
    words: list[str], least: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (28, 28)).save("d.png")
    monkeypatch.setattr("convscope.commands.job.Job.draw", lambda *_: pytest.fail("it was drawn"))
    assert run([*words, "--net", "lenet5", "-o", "f.png"]) == 2
    assert least in capsys.readouterr().err
    words[words.index("--width") + 1] = "6in"
    with pytest.raises(BaseException, match="it was drawn"):
        run([*words, "--net", "lenet5", "-o", "f.png"])


def test_every_table_and_check_is_set_for_a_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paper = ["--width", "6in", "--font", "6", "--no-titles"]
    for words in (["layers", "lenet5"], ["nets", "lenet"], ["history", "lenet5"]):
        assert run([*words, *paper, "-o", "t.svg"]) == 0
        assert read_recipe(Path("t.svg")).display["paper"] == {"width": 6, "font": 6, "titles": False}
    digit = Image.fromarray(np.eye(28, dtype=np.uint8) * 255)
    digit.save("d.png")
    words = ["check", "d.png", "--net", "lenet5", "--methods", "saliency", "--steps", "2", "--stages", "2"]
    assert run([*words, *paper, "--columns", "2", "-o", "c.png"]) == 0
    assert read_recipe(Path("c.png")).display["paper"] == {"width": 6, "font": 6, "titles": False, "columns": 2}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["layers", "lenet5", "--width", "3in"], "nothing is written: give -o FILE with one of the endings .png"),
        (["layers", "lenet5", "--font", "7", "-o", "t.csv"], "--width, --font and --no-titles set a figure, and t.csv"),
        (["layers", "lenet5", "--width", "3 miles", "-o", "t.png"], "width is a length such as 3.3in"),
        (["check", "d.png", "--net", "lenet5", "--json", "--width", "3in"], "nothing is written"),
        (["saliency", "d.png", "e.png", "--width", "3in", "-o", "f.webp"], "set a figure, and f.webp is a film"),
    ],
)
def test_settings_of_a_figure_are_refused_where_there_is_none(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convscope.commands.network.Network.load", None)
    for name in ("d.png", "e.png"):
        Image.new("L", (28, 28)).save(name)
    assert run(words) == 2
    assert told in capsys.readouterr().err


def test_grey_shows_a_projection_without_colours_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((64, 64)).save("p.png")
    saturation = list[int]()
    for words in ([], ["--grey"]):
        assert run(["deconvnet", "p.png", *words, "-o", "d.png"]) == 0
        sheet = Image.open("d.png").convert("RGB")
        right = np.asarray(sheet.crop((sheet.width // 2, 90, sheet.width - 24, sheet.height // 2))).astype(int)
        saturation.append(int(np.ptp(right, axis=2).max()))
    assert saturation[0] > 30 and saturation[1] == 0
    assert read_recipe(Path("d.png")).display == {"grey": True}
    assert run(["grad-cam", "p.png", "--grey"]) == 2
    assert "--grey is for maps that are pictures" in capsys.readouterr().err
    assert run(["deconvnet", "p.png", "--grey", "--overlay"]) == 2
    assert "give one" in capsys.readouterr().err
