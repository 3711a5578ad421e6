"""Nothing said twice is lost: several values in every form, one value once, one name for one option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convscope import read_recipe
from convscope.cli import run
from convscope.commands.train import _epochs
from convscope.data.samples import digits
from convscope.errors import OptionError
from convscope.options import check_options, joined, option, separated
from convscope.stylizing.settings import Settings

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def digit() -> str:
    return str(digits()[3])


def drawn(*arguments: str) -> Any:
    """Run a command that draws out.png, and return the recipe."""
    assert run([*arguments, "--net", "lenet5", "-o", "out.png"]) == 0
    return read_recipe("out.png")


def refused(capsys: Capture, *arguments: str) -> str:
    assert run(arguments) == 2
    return capsys.readouterr().err


# Texts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a, b,", ["a", "b"]),
        ('"a, b",c', ["a, b", "c"]),
        ('"say ""x""",d', ['say "x"', "d"]),
        ("conv1:3@2,3,conv1:4", ["conv1:3@2,3", "conv1:4"]),
        ("p(tench, Tinca tinca), 0.5*tv()", ["p(tench, Tinca tinca)", "0.5*tv()"]),
        ("(a,b", ["(a", "b"]),
        (" , ", []),
    ],
)
def test_commas_separate_unless_they_belong_to_a_value(text: str, values: list[str]) -> None:
    assert separated(text) == values


@pytest.mark.parametrize("value", ["a,b", 'x"y', '"q"', " a", "p(a, b)", "@1", "(a", 'a""b', "plain words", "a\nb"])
def test_what_is_joined_is_taken_apart_again(value: str) -> None:
    assert separated(joined([value, "2", value])) == [value, "2", value]


# Command line ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--layer", "conv1", "--layer", "conv2"],
        ["--layer", "conv1,conv2"],
        ["--layers", "conv1", "--layer=conv2"],
        ["--layers=conv1, conv2"],
    ],
)
def test_values_may_be_repeated_or_separated(words: list[str], digit: str) -> None:
    assert drawn("grad_cam", digit, *words).options["layer"] == ["conv1", "conv2"]


def test_lists_of_plural_names_take_the_singular(digit: str) -> None:
    recipe = drawn("compare", digit, "--method", "saliency", "--methods", "grad_cam,cam", "--layer", "conv1")
    assert recipe.options["methods"] == ["saliency", "grad_cam", "cam"] and recipe.options["layers"] == ["conv1"]


def test_repeated_objectives_are_all_made() -> None:
    recipe = drawn("maximize", "--of", "conv1:3@2,3,conv1:4", "--of", "conv2:5", "--steps", "2")
    assert str(recipe.objective) == "conv1:3@2,3; conv1:4@mean; conv2:5@mean"


def test_a_file_whose_name_has_commas_is_one_style(elsewhere: Path, digit: str) -> None:
    for name in ("a,b.png", "c.png"):
        Image.open(digit).save(elsewhere / name)
    recipe = drawn("style", digit, "--style", "a,b.png", "--style", '"a,b.png",c.png', "--steps", "1")
    assert [each["where"] for each in recipe.options["style"]] == ["a,b.png", "a,b.png", "c.png"]


def test_numbers_of_a_network_may_be_repeated(digit: str) -> None:
    once = drawn("saliency", digit, "--mean", "0.25", "--std", "0.5", "--value-range", "0,255")
    again = drawn("saliency", digit, "--mean=0.25", "--std=0.5", "--value-range=0", "--value-range=255")
    assert once.key == again.key and again.network["reads"]["value_range"] == [0.0, 255.0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--of", "3", "--of", "4"], "--of takes one value, and here are --of 3 and --of 4"),
        (["-oa.png", "--out", "b.png"], "here are -o a.png and --out b.png"),
        (["--cmap=jet", "--cmap", "fire"], "here are --cmap jet and --cmap fire"),
    ],
)
def test_one_value_twice_is_refused(words: list[str], told: str, digit: str, capsys: Capture) -> None:
    assert told in refused(capsys, "grad_cam", digit, *words)


@pytest.mark.parametrize("words", [["-o", ""], ["--out="], ["--out", ""]])
def test_an_output_without_a_name_is_refused(words: list[str], digit: str, capsys: Capture) -> None:
    assert "--out is empty: name what to write" in refused(capsys, "grad_cam", digit, *words)


def test_both_names_of_an_option_are_one(digit: str, capsys: Capture) -> None:
    message = refused(capsys, "maps", digit, "--layer", "conv1", "--layers", "conv2")
    assert "--layer takes one value, and here are --layer conv1 and --layer conv2" in message


def test_yes_and_no_together_are_refused(digit: str, capsys: Capture) -> None:
    message = refused(capsys, "smooth_grad", digit, "--squared", "--no-squared")
    assert "here are --squared and --no-squared: give one of them" in message


def test_methods_of_check_may_be_repeated(digit: str, capsys: Capture) -> None:
    words = ["--methods", "gradient", "--method", "saliency,gradient", "--net", "lenet5", "--json", "--steps", "2"]
    assert run(["check", digit, *words, "--stages", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count('"gradient"') == 1 and out.count('"saliency"') == 1
    assert "names no method" in refused(capsys, "check", digit, "--methods", ",")


def test_snapshots_and_style_layers_may_be_repeated() -> None:
    assert _epochs(["1,2", "5"]) == _epochs(["5,2,1"]) == (1, 2, 5)
    for layers in ("relu1,relu2", ["relu1", "relu2"], ["relu1, relu2"]):
        assert Settings(style_layers=layers).style_layers == ["relu1", "relu2"]  # pyright: ignore[reportArgumentType]


def test_a_network_stands_first_or_in_net(capsys: Capture) -> None:
    tables = set[str]()
    for words in (["lenet5"], ["--net", "lenet5"]):
        assert run(["layers", *words]) == 0
        tables.add(capsys.readouterr().out)
    assert len(tables) == 1 and "conv1" in tables.pop()
    assert "two networks, lenet5 and --net zfnet64" in refused(capsys, "layers", "lenet5", "--net", "zfnet64")
    assert run(["history", "--net", "lenet5"]) == 0 and "epoch" in capsys.readouterr().out


# Configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ['layer = ["conv1", "conv2"]', 'layers = "conv1, conv2"'])
def test_a_configuration_gives_several_values(line: str, digit: str, elsewhere: Path) -> None:
    (elsewhere / "convscope.toml").write_text(f"[defaults.grad_cam]\n{line}\nmean = [0.25]\n")
    recipe = drawn("grad_cam", digit)
    assert recipe.options["layer"] == ["conv1", "conv2"] and recipe.network["reads"]["mean"] == [0.25]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('[defaults.grad-cam]\nlayer = "conv1"\nlayers = "conv2"', "layer and layers are one option"),
        ("[defaults.grad-cam]\nshared-scale = true\nshared_scale = false", "shared-scale and shared_scale are one"),
    ],
)
def test_a_configuration_says_nothing_twice(
    table: str, told: str, digit: str, elsewhere: Path, capsys: Capture
) -> None:
    (elsewhere / "convscope.toml").write_text(table)
    assert told in refused(capsys, "grad_cam", digit, "--net", "lenet5")


def test_defaults_for_all_commands_keep_their_own_names(digit: str, elsewhere: Path) -> None:
    (elsewhere / "convscope.toml").write_text('[defaults]\nlayer = "conv1"\nlayers = "conv2"\n')
    assert drawn("grad_cam", digit).options["layer"] == ["conv1"]
    assert drawn("compare", digit, "--methods", "grad_cam").options["layers"] == ["conv2"]


# Python ------------------------------------------------------------------------------------------------------------

LAYERS = {"layers": option("layers", list[str] | None, None), "channels": option("channels", list[int] | None, None)}


@pytest.mark.parametrize(
    "layers",
    ["a,b", ["a", "b"], ("a", "b"), {"a": 1, "b": 2}.keys(), iter("ab"), np.array(["a", "b"])],
    ids=lambda value: type(value).__name__,
)
def test_python_takes_what_has_an_order(layers: Any) -> None:
    assert check_options("view", LAYERS, {"layer": layers})["layers"] == ["a", "b"]


def test_python_takes_ranges_and_tensors_of_numbers() -> None:
    for channels in (range(3), torch.arange(3), np.arange(3), (0, 1, 2)):
        assert check_options("view", LAYERS, {"channels": channels})["channels"] == [0, 1, 2]
    with pytest.raises(OptionError, match="channels is a list"):
        check_options("view", LAYERS, {"channels": {0, 1}})  # a set has no order
    with pytest.raises(OptionError, match="layers and layer are one option: give one of them"):
        check_options("view", LAYERS, {"layers": ["a"], "layer": ["b"]})


def test_an_array_of_a_picture_is_one_style() -> None:
    styles = {"style": option("style", list[Any], None)}
    picture = np.zeros((16, 16, 3), np.uint8)
    assert check_options("style", styles, {"style": picture})["style"][0] is picture
