"""`convscope nets`: what is at hand, told without importing, downloading or running anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torchvision import models

from convscope import load
from convscope.cli import run
from convscope.zoo import published
from convscope.zoo.blueprints import BLUEPRINTS
from convscope.zoo.catalogue import find_infos, names
from convscope.zoo.downloads import cache
from convscope.zoo.info import NetworkInfo
from convscope.zoo.published import Published

ALEXNET = "alexnet-owt-7be5be79.pth"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a working directory without a configuration."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(pattern: str | None = None) -> dict[str, NetworkInfo]:
    return {info.name: info for info in find_infos(pattern)}


def test_torchvision_is_read_from_its_source_as_it_describes_itself() -> None:
    assert list(published.torchvision()) == sorted(models.list_models(module=models))
    for name, told in published.torchvision().items():
        weights = models.get_model_weights(name).DEFAULT
        file, side = weights.url.rsplit("/", 1)[1], weights.transforms().crop_size[0]
        assert told == Published(file, weights.meta["_file_size"], side), name
        assert len(weights.meta["categories"]) == published.CLASSES, name


def test_timm_is_read_from_its_source_as_it_describes_itself() -> None:
    timm = pytest.importorskip("timm")
    assert list(published.timm()) == sorted(timm.list_models())


def test_a_source_written_otherwise_leaves_out_what_it_does_not_say(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "new.py"
    path.write_text("@register_model()\ndef new(*, weights: New_Weights): ...\nclass New_Weights: DEFAULT = V1\n")
    monkeypatch.setattr(published, "_sources", lambda library: [path])
    published.torchvision.cache_clear()
    try:
        assert published.torchvision() == {"new": Published(None, None, None)}
        assert found()["torchvision:new"] == NetworkInfo(
            "torchvision:new", "torchvision", "not downloaded", classes=1000
        )
    finally:
        published.torchvision.cache_clear()


def test_every_name_that_load_knows_is_listed_and_shipping_ones_have_their_file() -> None:
    listed = found()
    assert list(listed) == names()
    for name in BLUEPRINTS:
        info = listed[name]
        assert (info.weights in ("ships", "installed")) == (info.path is not None and Path(info.path).is_file())
    small = listed["zfnet64"]
    assert (small.weights, small.side, small.classes) == ("ships", 64, 100)
    assert small.megabytes == pytest.approx(Path(str(small.path)).stat().st_size / 1e6, abs=0.06)
    assert listed["zfnet"].weights == "none"


def test_the_cache_is_torchs_own_also_where_torch_is_not_imported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; from convscope.zoo.downloads import cache; print(cache(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(Path(torch.hub.get_dir()) / "checkpoints"), "False"]
    assert cache() == home / "torch" / "hub" / "checkpoints"
    monkeypatch.setattr(torch.hub, "_hub_dir", None)  # what set_dir sets is taken back afterwards
    torch.hub.set_dir(home / "elsewhere")
    assert cache() == home / "elsewhere" / "checkpoints"


def test_what_is_cached_is_told(home: Path, capsys: Capture) -> None:
    assert found()["torchvision:alexnet"] == NetworkInfo(
        "torchvision:alexnet", "torchvision", "not downloaded", None, 233.1, 224, 1000
    )
    cache().mkdir(parents=True)
    (cache() / ALEXNET).write_bytes(b"weights")
    info = found()["torchvision:alexnet"]
    assert (info.weights, info.path) == ("cached", str(cache() / ALEXNET))
    assert run(["nets"]) == 0
    text = capsys.readouterr().out
    assert "torchvision: 80 networks, 1 cached (*)" in text and " alexnet* " in f" {text}".replace("\n", " ")


def test_configured_networks_say_where_they_stand_and_what_is_missing(home: Path) -> None:
    (home / "my_model.py").write_text("raise RuntimeError('the user’s code is not run')")
    (home / "deploy.prototxt").write_text("")
    (home / "convscope.toml").write_text("""
[networks.mine]
load = "file:my_model.py:build"
size = [32, 48]
classes = ["a", "b"]
[networks.gone]
load = "onnx:gone.onnx"
[networks.caffe]
load = "caffe:deploy.prototxt"
weights = "gone.caffemodel"
[networks.bare]
load = "caffe:deploy.prototxt"
[networks.alex]
load = "torchvision:alexnet"
[networks.random]
load = "torchvision:alexnet"
weights = "none"
""")
    listed = found()
    where = str(home / "convscope.toml")
    assert listed["mine"] == NetworkInfo("mine", where, "here", str(home / "my_model.py"), 0.0, (32, 48), 2)
    told = {name: (listed[name].weights, listed[name].path) for name in ("gone", "caffe", "bare", "alex", "random")}
    assert told == {
        "gone": ("missing", str(home / "gone.onnx")),
        "caffe": ("missing", str(home / "gone.caffemodel")),
        "bare": ("none", None),
        "alex": ("not downloaded", None),
        "random": ("none", None),
    }


@pytest.mark.parametrize("pattern", ["squeezenet", "SQUEEZE", "torchvision:squeeze*", "*:squeezenet1_?"])
def test_patterns_and_parts_of_names(pattern: str) -> None:
    assert [n for n in found(pattern) if n.startswith("torch")] == [
        "torchvision:squeezenet1_0",
        "torchvision:squeezenet1_1",
    ]


def test_timm_is_counted_and_named_where_asked_for(capsys: Capture) -> None:
    assert run(["nets"]) == 0
    text = capsys.readouterr().out
    assert f"timm: {len(published.timm()):,} networks, none cached; see convscope nets" in text
    assert run(["nets", "timm:convnext_tiny*"]) == 0
    text = capsys.readouterr().out
    assert "timm:convnext_tiny " in text and "torchvision" not in text and "zfnet" not in text


def test_without_timm_it_says_how_to_install_it(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "timm", lambda: ())
    monkeypatch.setitem(sys.modules, "timm", None)
    assert run(["nets"]) == 0
    assert "timm is not installed: pip install 'convscope[timm]'" in capsys.readouterr().out
    assert run(["nets", "timm:convnext*"]) == 2
    assert "pip install 'convscope[timm]'" in capsys.readouterr().err


def test_nothing_found_names_what_is_near(capsys: Capture) -> None:
    assert run(["nets", "squeezenot1_0"]) == 2
    out, err = capsys.readouterr()
    assert "no network is called like 'squeezenot1_0'; nearest: 'squeezenet1_0'" in err and out == ""


def test_json_for_scripts(capsys: Capture) -> None:
    assert run(["nets", "lenet5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told[0] == asdict(found("lenet5")["lenet5"])
    assert {tuple(entry) for entry in told} == {tuple(NetworkInfo.__dataclass_fields__)}


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal(
    columns: int, home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    (home / "convscope.toml").write_text('[networks.a-network-with-a-long-name]\nload = "caffe:deploy.prototxt"')
    assert run(["nets"]) == 0
    text = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, text.splitlines())) <= columns
    assert text.count("224x224") == sum(blueprint.size == 224 for blueprint in BLUEPRINTS.values())
    assert "a-network-with-a-long-name" in text and "missing:" in text


def test_what_is_listed_as_here_can_be_loaded() -> None:
    for name, info in found().items():
        if info.weights == "ships":
            net = load(name)
            assert (net.size, net.output.shape) == ((info.side, info.side), (info.classes,))
