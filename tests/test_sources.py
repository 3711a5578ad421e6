"""Sources of networks: one record each, read by loading, the configuration, the list of networks, help and errors."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import convscope
from convscope import Net, list_networks, load
from convscope.cli import run
from convscope.commands.nets import complete_network
from convscope.errors import ConfigurationError, NetworkError, OptionError
from convscope.zoo import sources
from convscope.zoo.catalogue import describe
from convscope.zoo.configured import at_hand, configured
from convscope.zoo.info import NetworkInfo
from convscope.zoo.sources import Source, register

PACKAGE = Path(convscope.__file__).parent

TOY = '''
"""Toy networks."""

from torch import nn

from ..net import Net
from .sources import Source

SOURCE = Source(
    "toy",
    ".toy_models:build",
    "toy networks",
    names=".toy_names:names",
)


def build(model, weights, *, seed, reading):
    return Net(nn.Conv2d(3, 4, 3), name=f"toy {model}", **reading)
'''
USED = """
import sys
from convscope import list_networks
from convscope.cli import run
from convscope.commands.nets import complete_network
from convscope.zoo import sources

assert "toy:NAME" in sources.forms() and list_networks("toy*") == ["toy:tiny", "toy:less"]
assert complete_network("to") == ["torchvision:", "toy:"] and complete_network("toy:t") == ["toy:tiny"]
assert run(["nets"]) == 0 and run(["nets", "toy:*", "--json"]) == 0
assert "torch" not in sys.modules

from convscope import load
assert load("toy:tiny", size=32).name == "toy tiny" and '"toy:NAME": toy networks' in load.__doc__
assert run(["layers", "toy:less"]) == 0 and run(["gradient", "--help"]) == 0
for name in ("tiny", "toys:tiny"):
    try:
        load(name)
    except Exception as error:
        print(error)
"""


def test_a_new_source_is_one_file(tmp_path: Path) -> None:
    """A module dropped into a copy of zoo/ is loaded, listed, completed, and named in help and errors."""
    shutil.copytree(PACKAGE, tmp_path / "convscope", ignore=shutil.ignore_patterns("__pycache__", "trained"))
    (tmp_path / "convscope" / "zoo" / "toy_models.py").write_text(TOY)
    (tmp_path / "convscope" / "zoo" / "toy_names.py").write_text("def names():\n    return ['tiny', 'less']\n")
    done = subprocess.run(
        [sys.executable, "-c", USED], capture_output=True, text=True, cwd=tmp_path, check=False, env={"COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    assert "toy: 2 networks, none cached; as toy:NAME" in done.stdout and '"name": "toy:less"' in done.stdout
    assert "toy:NAME" in done.stdout.partition("Usage")[2], "the help of --net"
    assert "there is no network 'tiny': did you mean 'toy:tiny'?" in done.stdout
    assert re.search(r"no network 'toys:tiny'; nearest: 'toy:tiny'.* Other sources: .*toy:", done.stdout)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Source:
    """A source that a plugin registers: networks of files that hold a number of channels."""
    monkeypatch.setattr(sources, "_REGISTERED", {})

    def build(model: str, weights: Any, *, seed: int, reading: dict[str, Any]) -> Net:
        body = nn.Conv2d(3, int(Path(model).read_text()), 3)
        return Net(body, name=Path(model).stem, **{"size": 16} | reading)

    return register(Source("toy", build, "toys", follows="FILE.toy", path=True, holds_weights=True, endings=(".toy",)))


def test_a_plugin_registers_a_source(toy: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toy").write_text("5")
    assert load("toy:a.toy").output.shape == (5, 14, 14) and at_hand("toy:a.toy")
    assert describe("toy:a.toy") == NetworkInfo("toy:a.toy", "toy", "here", "a.toy", 0.0)
    assert complete_network("toy:a") == ["toy:a.toy"] and "toy:FILE.toy" in sources.forms()
    with pytest.raises(NetworkError, match=re.escape("no network 'b.toy': did you mean 'toy:b.toy'?")):
        load("b.toy")
    (tmp_path / "convscope.toml").write_text('[networks.five]\nload = "toy:a.toy"\n[networks.six]\nload = "five"\n')
    assert configured().networks["five"].load == f"toy:{tmp_path / 'a.toy'}"
    assert load("five").name == "five (toy:a.toy)" and load("six").name == "six (toy:a.toy)"
    assert describe("six") == NetworkInfo("six", str(tmp_path / "convscope.toml"), "here", str(tmp_path / "a.toy"), 0.0)


PLUGIN = """
from torch import nn
from convscope import Net
from convscope.zoo.sources import Source, register

def build(model, weights, *, seed, reading):
    return Net(nn.Conv2d(3, 4, 3), name=model, **{"size": 16} | reading)

register(Source("toy", build, "toys", names=lambda: ["tiny"]))
"""


def test_a_plugin_of_the_configuration_reaches_the_command_line(tmp_path: Path, trust: Callable[[Path], None]) -> None:
    (tmp_path / "toys.py").write_text(PLUGIN)
    (tmp_path / "convscope.toml").write_text('plugins = ["toys.py"]\n[networks.mine]\nload = "toy:tiny"\n')
    trust(tmp_path)
    for words, said in ((["layers", "mine"], "mine (toy:tiny)"), (["nets", "toy"], "toy:tiny")):
        command = [sys.executable, "-m", "convscope", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0 and said in done.stdout, done.stderr


def test_a_prefix_is_one_sources(toy: Source) -> None:
    assert register(toy) is toy, "a module that is imported twice registers the same"
    for prefix in ("timm", "toy"):
        with pytest.raises(OptionError, match=f"there is a source '{prefix}' already: choose another prefix"):
            register(Source(prefix, ".x:build"))
    for prefix in ("c", "Toy", "a:b", ""):
        with pytest.raises(OptionError, match="a source's prefix is small letters"):
            register(Source(prefix, ".x:build"))


def test_what_is_declared_is_what_the_modules_hold() -> None:
    for source in sources.sources().values():
        module = import_module(str(source.build).partition(":")[0], "convscope.zoo")
        assert source == module.SOURCE and callable(sources.resolve(source.build))
        assert source.help and (source.path == bool(source.endings))


def test_a_declaration_holds_literals_only(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('SOURCE = Source("aa", ".a:build")\n')
    (tmp_path / "b.py").write_text("SOURCE = None\n")
    assert list(sources.declarations(tmp_path)) == [Source("aa", ".a:build")]
    (tmp_path / "b.py").write_text('SOURCE = Source(\n    "bb",\n    build,\n)\n')
    with pytest.raises(TypeError, match=r"SOURCE in .*b\.py is read without running it, so it holds literals only"):
        list(sources.declarations(tmp_path))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("file:a/my.py:build", "a/my.py"),
        ("file:my.py", "my.py"),
        (r"onnx:C:\nets\m.onnx", r"C:\nets\m.onnx"),
        ("caffe:d.prototxt", "d.prototxt"),
        ("pt2:m.pt2.old", "m.pt2.old"),
    ],
)
def test_the_file_of_a_name(name: str, file: str) -> None:
    source, model = sources.split(name)
    assert source is not None and source.file(model) == Path(file)


@pytest.mark.parametrize(
    ("prefix", "modules", "words"),
    [
        ("timm", ["timm"], "needs timm: pip install 'convscope[timm]'"),
        ("hf", ["timm"], "needs timm: pip install 'convscope[timm]'"),
        ("onnx", ["onnx2torch"], "needs onnx and onnx2torch: pip install 'convscope[onnx]'"),
        ("caffe", ["google.protobuf"], "needs protobuf: pip install 'convscope[caffe]'"),
        ("caffe", ["google", "google.protobuf"], "needs protobuf: pip install 'convscope[caffe]'"),
    ],
)
def test_what_is_not_installed_is_named(
    prefix: str, modules: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NetworkError, match=re.escape(f"{prefix}:x {words}")):
        load(f"{prefix}:x")


def test_names_are_listed_by_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "convscope.toml").write_text('[networks.my-resnet]\nload = "torchvision:resnet18"\n')
    resnets = list_networks("*resnet18*")
    assert {"torchvision:resnet18", "timm:resnet18"} <= set(resnets) and all("resnet18" in name for name in resnets)
    assert list_networks("my-RESNET") == ["my-resnet"] and list_networks("no such network") == []
    every = list_networks()
    assert every[0] == "lenet5" and len(set(every)) == len(every) > 1000
    assert list_networks("et5-19") == ["lenet5-1998"], "a pattern without a wildcard is part of a name"
    assert "zfnet64:no-3-4" in list_networks("zfnet64")
    (tmp_path / "convscope.toml").write_text("= = =")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        list_networks()


def test_files_and_folders_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    for file in ("a.onnx", "b.onnx", "c.txt"):
        (tmp_path / "nets" / file).write_text("")
    assert complete_network("onnx:") == complete_network("onnx:ne") == ["onnx:nets"]
    assert complete_network("onnx:nets/") == ["onnx:nets/a.onnx", "onnx:nets/b.onnx"]
    assert complete_network("zf") == ["zfnet64", "zfnet", "zfnet:", "zfnet64:"]
    assert complete_network("torchvision:squ") == ["torchvision:squeezenet1_0", "torchvision:squeezenet1_1"]


def test_imagenets_numbers_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    net = load("lenet5", weights=None)
    assert load("torchvision:alexnet", weights=None, std="imagenet", mean=0.5).std == (0.229, 0.224, 0.225)
    assert torch.tensor(net.std).numel() == 1
    assert run(["layers", "torchvision:squeezenet1_0", "--std", "imagenet"]) == 0
    assert run(["layers", "zfnet64", "--std", "imagnet"]) == 2
    assert "std is one number per channel, of pixels in [0, 1], or 'imagenet'; not 'imagnet'" in capsys.readouterr().err
