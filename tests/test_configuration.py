"""convscope.toml and [tool.convscope]: what is named once holds for Python and for every command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope import configuration, load
from convscope.cli import run
from convscope.configuration import located, read
from convscope.data.samples import digits
from convscope.errors import ConfigurationError, NetworkError, WeightsError
from convscope.zoo.configured import configured

MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""
GOOD = """
net = "mine"

[networks.mine]
load = "file:models/my_model.py:build"
mean = [0.5, 0.4, 0.3]
std = 0.25
size = [24, 20]
classes = "names.txt"

[networks.early]
load = "zfnet64"
epoch = 1

[networks.gone]
load = "caffe:nowhere.prototxt"
weights = "nowhere.caffemodel"

[data]
pets = "pictures"
nowhere = "no-such-folder"

[defaults]
device = "cpu"

[defaults.occlusion]
patch = 6
stride = 7
save-values = "numbers.npy"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: Callable[[Path], None]) -> Path:
    """A folder with a configuration, and a working directory two levels below it."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "my_model.py").write_text(MODEL)
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    (tmp_path / "pictures").mkdir()
    for number in (3, 4):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(digits()[number].read_bytes())
    (tmp_path / "convscope.toml").write_text(GOOD)
    trust(tmp_path)
    (tmp_path / "work" / "today").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "today")
    return tmp_path


def test_a_network_by_its_name(home: Path) -> None:
    net = load("mine")
    assert (net.name, net.size, net.mean, net.std) == (
        "mine (file:my_model.py:build)", (24, 20), (0.5, 0.4, 0.3), (0.25,) * 3,
    )  # fmt: skip
    assert net.classes == ("ant", "bee", "cat") and net.note == "random weights, seed 0"
    assert load("early").name == "early (zfnet64)"
    assert load("early").note == "epoch 1 of its training"


def test_a_recipe_outlives_the_configuration(home: Path) -> None:
    """What a recipe holds of a configured network is what it stands for, with all that was said of it."""
    source = load("mine", size=30).source
    assert source is not None and (source.name, source.weights) == (
        f"file:{home / 'models/my_model.py:build'}",
        "default",
    )
    assert source.options == {
        "mean": [0.5, 0.4, 0.3], "std": 0.25, "size": 30, "classes": str(home / "names.txt"),
    }  # fmt: skip
    assert source.changed == {"name": "mine (file:my_model.py:build)"}
    early = load("early").source
    assert early is not None and (early.name, early.weights, early.epoch) == ("zfnet64", "default", 1)
    shipped = load("lenet5", weights=None).source
    assert shipped is not None and (shipped.name, shipped.weights, shipped.changed) == ("lenet5", None, {})
    assert load("lenet5", output=lambda result: result).source is None, "a function is nothing that a file can hold"


def test_what_is_given_in_the_call_comes_first(home: Path) -> None:
    net = load("mine", mean="imagenet", size=30)
    assert (net.mean, net.std, net.size) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (30, 30))
    assert load("mine", mean=0.1).std == (0.25,) * 3
    assert load("early", epoch=2).note == "epoch 2 of its training"
    assert load("early", weights=None).note == "random weights, seed 0"


def test_errors_of_a_configured_network_say_where_it_stands(home: Path) -> None:
    with pytest.raises(NetworkError, match=re.escape(f"[networks.gone] of {home / 'convscope.toml'}: ")) as caught:
        load("gone")
    assert str(home / "nowhere.prototxt") in str(caught.value)
    (home / "convscope.toml").write_text('[networks.mine]\nload = "lenet5"\nweights = "w.pt"')
    with pytest.raises(WeightsError, match=re.escape(f"there is no weights file {home / 'w.pt'}")):
        load("mine")
    with pytest.raises(NetworkError, match="there is no network 'min'; nearest: 'mine'"):
        load("min")


def test_the_nearest_file_counts_and_convscope_toml_before_pyproject(home: Path) -> None:
    assert read().path == home / "convscope.toml"
    (home / "work" / "pyproject.toml").write_text("[tool.ruff]\nline-length = 1\n")
    assert read().path == home / "convscope.toml", "a project without the table is passed by"
    (home / "work" / "pyproject.toml").write_text("this is not TOML, and nobody's business")
    assert read().path == home / "convscope.toml"
    (home / "work" / "pyproject.toml").write_text('[tool.convscope]\nnet = "lenet5"\n')
    assert (read().path, read().net, read().networks) == (home / "work" / "pyproject.toml", "lenet5", {})
    (home / "work" / "convscope.toml").write_text('net = "zfnet64"\n')
    assert read().net == "zfnet64"
    assert read(home).net == "mine"


def test_no_file_is_an_empty_configuration(tmp_path: Path) -> None:
    assert read(tmp_path) == configuration.Configuration()


def test_paths_are_taken_from_the_files_folder(home: Path) -> None:
    (home / "convscope.toml").write_text("""
[networks.a]
load = "onnx:a/b.onnx"
[networks.b]
load = "caffe:/away/d.prototxt"
weights = "w.caffemodel"
mean = "mean.binaryproto"
classes = ["x", "y"]
[networks.c]
load = "torchvision:alexnet"
weights = "none"
mean = "imagenet"
[networks.d]
load = "file:m.py"
[data]
mnist = "torchvision:MNIST:sets"
""")
    told = configured()
    assert told.networks["a"].load == f"onnx:{home / 'a/b.onnx'}"
    assert told.networks["d"].load == f"file:{home / 'm.py'}"
    b, c = told.networks["b"], told.networks["c"]
    assert (b.load, b.weights) == ("caffe:/away/d.prototxt", str(home / "w.caffemodel"))
    assert b.reading == {"mean": str(home / "mean.binaryproto"), "classes": ["x", "y"]}
    assert (c.load, c.weights, c.reading) == ("torchvision:alexnet", "none", {"mean": "imagenet"})
    assert told.data == {"mnist": f"torchvision:MNIST:{home / 'sets'}"} and located("mnist") == told.data["mnist"]


def test_the_default_network_may_be_a_file(home: Path, trust: Callable[[Path], None]) -> None:
    (home / "convscope.toml").write_text('net = "file:models/my_model.py:build"')
    trust(home)
    assert configured().net == f"file:{home / 'models/my_model.py:build'}"
    assert run(["gradient", str(digits()[3]), "-o", "g.png"]) == 0
    assert json.loads(Image.open("g.png").info["convscope"])["network"]["name"].startswith("my_model")


@pytest.mark.parametrize(
    "command",
    [
        ["train", "lenet5", "--data", "nowhere"],
        ["train-style", "pets/3.png", "--data", "nowhere", "-o", "s.safetensors"],
        ["check", "nowhere"],
        ["stylize", "nowhere", "--style", "s.safetensors"],
        ["saliency", "nowhere"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_reads_pictures_knows_the_names_of_data(
    command: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == 2
    assert f"[data] nowhere: there is no {home / 'no-such-folder'}" in capsys.readouterr().err


def test_names_of_data_stand_for_places(home: Path) -> None:
    assert located("pets") == str(home / "pictures") and located("pets/3.png") == str(home / "pictures" / "3.png")
    assert located("dogs") == "dogs" and located("./pets") == "./pets" and located("/pets") == "/pets"
    with pytest.raises(ConfigurationError, match=r"\[data\] nowhere: there is no .*no-such-folder"):
        located("nowhere")
    Path("pets").mkdir()
    with pytest.raises(ConfigurationError, match=r"'pets' is here too, and in .*: write \./pets for the one here"):
        located("pets")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = = 3", "convscope.toml is not TOML: Invalid value (at line 1, column 5)"),
        ("ne = 1", "convscope.toml has no key 'ne'; nearest: 'net'"),
        ("net = 1", "convscope.toml: net is text in quotes, not 1"),
        ('net = "lenet"', "net names 'lenet', and there is no such network; nearest: 'lenet5'"),
        ("networks = 3", "networks is a table, not 3"),
        ("[networks]\na = 3", "[networks.a] of"),
        ("[networks.a]", "has no load: say what it is"),
        ('[networks.a]\nlod = "x"', "[networks.a] of PATH has no key 'lod'; nearest: 'load'"),
        ('[networks.a]\nload = "lenet5"\nsize = "big"', "size is a whole number or [height, width], not 'big'"),
        ('[networks.a]\nload = "lenet5"\nsize = true', "size is a whole number or [height, width], not True"),
        ('[networks.a]\nload = "lenet5"\nmean = [1, "x"]', "mean is a number, one per channel, 'imagenet' or a file"),
        (
            '[networks.a]\nload = "lenet5"\nclasses = [1]',
            "classes is a file, a list of names, a table of names by index or 'imagenet', not [1]",
        ),
        ('[networks.a]\nload = "lenet5"\nextra = [1]', "extra cannot be said here"),
        ('[networks.lenet5]\nload = "zfnet64"', "'lenet5' ships with convscope: choose another name"),
        (
            '[networks.a]\nload = "b"\n[networks.b]\nload = "b"',
            "load = 'b' leads back to 'b': circular reference; name a real source",
        ),
        ('[networks."a:b"]\nload = "zfnet64"', "a name has no colon and no slash"),
        ("plugins = 'x.py'", "plugins is a list of modules or Python files in quotes, not 'x.py'"),
        ("plugins = ['no module']", "plugins names 'no module', which is neither a module, as in 'my_package"),
        ("[data]\npets = 3", "[data]: pets is text in quotes, not 3"),
        ("[defaults.occlusion.deep]\nx = 1", "occlusion is a value, or a table of one command's values"),
    ],
)
def test_what_a_configuration_cannot_say(text: str, words: str, home: Path) -> None:
    path = home / "convscope.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(words.replace("PATH", str(path)))) as caught:
        configured()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_plugins_are_modules_or_files(home: Path) -> None:
    (home / "convscope.toml").write_text('plugins = ["my_package.plugin", "tools/plugin.py"]')
    with pytest.raises(ConfigurationError, match=r"plugins names 'tools/plugin\.py', and there is no file"):
        read()
    (home / "tools").mkdir()
    (home / "tools" / "plugin.py").write_text("")
    assert read().plugins == ("my_package.plugin", str(home / "tools" / "plugin.py"))


def test_bytes_that_are_no_text(home: Path) -> None:
    (home / "convscope.toml").write_bytes(b"net = '\xff'")
    with pytest.raises(ConfigurationError, match=r"convscope\.toml is not text in UTF-8"):
        read()


def test_a_command_takes_network_data_and_defaults(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["occlusion", "pets/3.png", "-o", "o.png"]) == 0
    out, err = capsys.readouterr()
    assert out.split() == ["o.png", str(home / "numbers.npy")], "the file's folder is where its paths begin"
    using, assumed = err.splitlines()
    assert using == f"convscope: using {home / 'convscope.toml'}", "the configuration is named"
    assert assumed.startswith("convscope: assumed: random weights, seed 0, since no weights were given")
    assert np.load(home / "numbers.npy").shape[-2:] == (24, 20)
    recipe = json.loads(Image.open("o.png").info["convscope"])
    assert recipe["network"]["name"].startswith("mine (file:my_model.py:build)")
    assert (recipe["options"]["patch"], recipe["options"]["stride"]) == (6, 7)
    assert run(["occlusion", "pets/3.png", "--net", "lenet5", "--patch", "4", "-o", "o.png"]) == 0
    recipe = json.loads(Image.open("o.png").info["convscope"])
    assert recipe["network"]["name"] == "lenet5" and (recipe["options"]["patch"], recipe["options"]["stride"]) == (4, 7)


def test_a_folder_of_data_and_an_option_that_must_be_given(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "convscope.toml").write_text(
        '[data]\npets = "pictures"\n[defaults]\nnet = "lenet5"\n[defaults.maps]\nlayer = "conv1"'
    )
    assert run(["maps", "pets", "-o", "each"]) == 0
    assert sorted(path.name for path in Path("each").iterdir()) == ["3.png", "4.png"]
    asked = ["--guide", "pets/4.png", "--layer", "conv2", "--size", "32", "--steps", "1"]
    assert run(["dream", "pets/3.png", *asked]) == 0
    assert "using the default" not in capsys.readouterr().err, "the default is as if it were given"


@pytest.mark.parametrize(("size", "side"), [("16", [16, 16]), ("[32, 16]", [32, 16]), ("'32,16'", [32, 16])])
def test_a_default_size_in_every_form(size: str, side: list[int], home: Path) -> None:
    (home / "convscope.toml").write_text(f"[defaults.gradient]\nsize = {size}")
    assert run(["gradient", str(digits()[3]), "--net", "zfnet64", "-o", "g.png"]) == 0
    recipe = json.loads(Image.open("g.png").info["convscope"])
    assert recipe["size"] in (side, side[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[defaults]\ndevic = 'cpu'", "[defaults]: no command has an option 'devic'; nearest: 'device'"),
        ("[defaults]\nphotographs = 'x'", "[defaults]: no command has an option 'photographs'"),
        ("[defaults]\ndevice = true", "[defaults]: device is text in quotes, not True"),
        ("[defaults.gradiet]\nx = 1", "[defaults]: there is no command 'gradiet'; nearest: 'gradient'"),
        ("[defaults.gradient]\npatch = 3", "[defaults.gradient]: gradient has no option 'patch'"),
        (
            "[defaults.gradient]\nsize = 3.5",
            "[defaults.gradient]: size is a number of pixels, or HEIGHT,WIDTH as in 256,128; not '3.5'",
        ),
        ("[defaults.gradient]\noverlay = 1", "[defaults.gradient]: overlay is true or false, not 1"),
        ("ne = 1", "has no key 'ne'"),
    ],
)
def test_defaults_that_a_command_refuses(text: str, words: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "convscope.toml").write_text(text)
    assert run(["gradient", str(digits()[3]), "--net", "lenet5"]) == 2
    out, err = capsys.readouterr()
    assert words in err and str(home / "convscope.toml") in err and len(err.splitlines()) == 1 and out == ""
    assert not list(Path().iterdir())


def test_defaults_of_other_commands_do_not_matter(home: Path) -> None:
    (home / "convscope.toml").write_text("[defaults]\nsteps = 3\n[defaults.class-model]\nsteps = 'many'\n")
    assert run(["gradient", str(digits()[3]), "--net", "lenet5", "-o", "g.png"]) == 0
    assert run(["class-model", "--net", "lenet5", "--of", "3", "-o", "g.png"]) == 2


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["gradient", "--help"], ["history", "lenet5"]])
def test_a_broken_file_does_not_stop_what_does_not_need_it(
    arguments: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "convscope.toml").write_text("= = =")
    assert run(arguments) == 0
    assert capsys.readouterr().err == ""


def test_python_does_not_read_it_for_names_that_mean_something_else(home: Path) -> None:
    (home / "convscope.toml").write_text("= = =")
    assert load("lenet5").name == "lenet5"
    assert load("torchvision:squeezenet1_0", weights=None).name == "squeezenet1_0"
    with pytest.raises(ConfigurationError, match="is not TOML"):
        load("mine")


def test_a_caffe_network_of_ones_own(home: Path, data: Callable[[str], Path]) -> None:
    caffe = data("caffe/squeezenet_v1.0_deploy.prototxt").parent
    (home / "convscope.toml").write_text(f"""
[networks.squeeze]
load = "caffe:{caffe / "squeezenet_v1.0_deploy.prototxt"}"
weights = "{caffe / "squeezenet_v1.0.caffemodel"}"
mean = [104, 117, 123]
""")
    assert run(["saliency", str(data("pictures/cat.jpg")), "--net", "squeeze", "-o", "s.png"]) == 0
    assert json.loads(Image.open("s.png").info["convscope"])["network"]["name"].startswith("squeeze")
