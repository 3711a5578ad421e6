"""A canary in every place from which code could come, beside configurations (test_security): none may sing."""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import pickle
import py_compile
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope
from convscope import load, plugins
from convscope.cli import run
from convscope.data.pictures import read_pictures
from convscope.errors import ConvscopeError, DataError, NetworkError, PictureError, RecipeError

SINGS = "open(r'{canary}', 'w')\n"
MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""


class Bomb:
    """Pickled, it is code that writes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What code from the folder would write; the folder is the working directory."""
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    return tmp_path / "canary"


@pytest.fixture
def silent(canary: Path) -> Any:
    """Check at the end of a test that no code has run."""
    yield canary
    assert not canary.exists()


LISTENER = """
import os, sys

folder, allowed, heard = os.getcwd(), set({allowed!r}), []

def listen(event, arguments):
    what = None
    if event in ("exec", "compile"):
        what = getattr(arguments[0], "co_filename", None) if event == "exec" else arguments[1]
    elif event in ("open", "import", "subprocess.Popen", "ctypes.dlopen", "os.posix_spawn", "os.exec"):
        what = arguments[1] if event == "import" else arguments[0]
    elif event in ("socket.connect", "os.system"):
        heard.append(f"{{event}} {{arguments}}")
    if isinstance(what, (bytes, os.PathLike)):
        what = os.fsdecode(what)
    if isinstance(what, str) and what != "." and not what.startswith("<"):
        path = os.path.join(folder, what)
        name = os.path.basename(path)
        ours = event == "open" and (name in allowed or name.startswith(".convscope-"))
        # A library without a path is looked for where the system keeps its own.
        if os.path.dirname(path) == folder and not ours and not (event == "ctypes.dlopen" and "/" not in what):
            heard.append(f"{{event}} {{what}}")

sys.addaudithook(listen)
from convscope.cli import run

for command in {commands!r}:
    assert run(command) in (0, 2), command
heard and sys.exit("; ".join(heard))
"""
"""Runs commands as the installed script does, whose folder is Python's first, and reports what touches the other."""


def traps(folder: Path, canary: Path, names: set[str]) -> None:
    """Fill a folder with what a process could find there: modules, programs, settings."""
    for name in names:
        (folder / f"{name}.py").write_text(SINGS.format(canary=canary))
    for name in ("sh", "latex", "dvipng", "gs", "git", "ffmpeg", "fc-list", "uname"):
        (folder / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (folder / name).chmod(0o755)
    (folder / "matplotlibrc").write_text("backend: module://evil\ntext.usetex: True\nfigure.hooks: evil:evil\n")
    (folder / ".env").write_text("PYTHONSTARTUP=evil.py\n")
    (folder / "evil.pth").write_text("import evil\n")
    (folder / "DejaVuSans.ttf").write_bytes(b"no font")
    Image.new("RGB", (28, 28)).save(folder / "cat.png")
    torch.save({"weight": Bomb(canary)}, folder / "cat.pt")


@pytest.mark.skipif(sys.platform == "win32", reason="programs are found otherwise")
def test_commands_take_nothing_from_the_folder_they_run_in(silent: Path) -> None:
    modules = {name for name in packages_distributions() if name.isidentifier()} - {"convscope"}
    traps(Path(), silent, {*modules, *sys.stdlib_module_names, "evil", "sitecustomize", "fontpkg_evil"})
    Path("convscope.toml").write_text('net = "file:evil.py"\nplugins = ["evil.py", "evil"]\n')
    commands = [
        ["--help"],
        ["nets"],
        ["layers", "lenet5"],
        ["saliency", "cat.png", "--net", "lenet5", "-o", "out.pdf"],
        ["saliency", "cat.png"],
        ["saliency", "cat.png", "--net", "lenet5", "--weights", "cat.pt"],
        [
            "check",
            "cat.png",
            "--net",
            "lenet5",
            "--methods",
            "saliency",
            "--stages",
            "1",
            "--steps",
            "2",
            "-o",
            "c.png",
        ],
    ]
    script = silent.with_name("convscope-script.py")
    script.write_text(LISTENER.format(allowed=["cat.png", "cat.pt", "convscope.toml"], commands=commands))
    environment = os.environ | {"PYTHONPATH": str(Path(convscope.__file__).parent.parent)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert Path("out.pdf").is_file() and Path("c.png").is_file()
    assert done.stderr.count("You have not trusted this configuration yet") >= 2


def test_python_m_imports_nothing_from_the_folder(silent: Path) -> None:
    traps(Path(), silent, {"torch", "numpy", "PIL", "typer", "rich", "safetensors", "matplotlib"})
    command = [sys.executable, "-m", "convscope", "layers", "lenet5"]
    environment = os.environ | {"PYTHONPATH": str(Path(convscope.__file__).parent.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and "conv1" in done.stdout, done.stderr


def test_completion_runs_no_plugin(silent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convscope.commands.nets import complete_network

    Path("evil.py").write_text(SINGS.format(canary=silent))
    Path("convscope.toml").write_text('plugins = ["evil.py"]\n[networks.mine]\nload = "file:evil.py"')
    assert "mine" in complete_network("mi") and "evil" not in " ".join(complete_network("e"))


@pytest.mark.parametrize("beside", ["the file", "a module that it imports", "a plugin"])
def test_code_runs_as_it_is_written_and_not_as_a_cache_has_it(
    beside: str, silent: Path, trust: Callable[[Path], None]
) -> None:
    """A compilation that says that it needs no check would be taken for the file beside it."""
    Path("model.py").write_text(("import module\n" if beside != "a plugin" else "") + MODEL)
    Path("module.py").write_text("")
    shadowed = Path("module.py" if beside == "a module that it imports" else "model.py")
    Path("evil.py").write_text(SINGS.format(canary=silent) + shadowed.read_text())
    cache = Path(importlib.util.cache_from_source(str(shadowed)))
    cache.parent.mkdir(exist_ok=True)
    compiled = compile(Path("evil.py").read_bytes(), str(shadowed), "exec")
    unchecked = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
    cache.write_bytes(unchecked + marshal.dumps(compiled))
    assert py_compile.PycInvalidationMode.UNCHECKED_HASH
    if beside == "a plugin":
        Path("convscope.toml").write_text('plugins = ["model.py"]')
        trust(Path())
        assert not plugins.load()
    else:
        assert load("file:model.py:build").output.shape == (3,)


def test_a_recipe_runs_no_code_and_writes_nothing(silent: Path) -> None:
    Path("evil.py").write_text(MODEL)
    picture = Image.new("RGB", (28, 28))
    picture.save("cat.png")
    drawing = convscope.explain(load("file:evil.py:build", size=28), "cat.png", "saliency", of=0)
    drawing.save("map.png")
    Path("evil.py").write_text(SINGS.format(canary=silent) + MODEL)
    with pytest.raises(RecipeError, match=r"runs code.*remake\(\.\.\., net=load\('file:evil.py:build'"):
        convscope.remake("map.png")
    recipe = convscope.maximize(load("lenet5"), of="conv1:0", steps=1).recipe
    written = {**recipe.options, "preview": str(silent.with_suffix(".png"))}
    convscope.remake(convscope.Recipe(**{**vars(recipe), "options": written}))
    assert not silent.with_suffix(".png").exists()


@pytest.mark.parametrize("name", ["cat.npy", "cat.npz", "cat.pt", "cat.pth", "cat.safetensors", "cat.bin"])
def test_pickles_are_never_unpickled(name: str, silent: Path) -> None:
    if name.endswith((".npy", ".npz")):
        writer = np.save if name.endswith(".npy") else np.savez
        with Path(name).open("wb") as file:
            writer(file, np.array([Bomb(silent)], dtype=object), allow_pickle=True)
    else:
        Path(name).write_bytes(pickle.dumps({"weight": Bomb(silent)}))
    Image.new("RGB", (28, 28)).save("x.png")
    for command in (
        ["saliency", name, "--net", "lenet5", "-o", "o.png"],
        ["saliency", "x.png", "--net", "lenet5", "--weights", name, "-o", "o.png"],
        ["saliency", "x.png", "--net", f"pt2:{name}", "-o", "o.png"],
        ["stylize", "x.png", "--style", name, "-o", "o.png"],
        ["show", name],
        ["history", name],
        ["train", "lenet5", "--data", name],
    ):
        assert run(command) == 2, command


def test_torchvisions_sets_unpickle_nothing_of_the_folder(silent: Path) -> None:
    Path("cifar-10-batches-py").mkdir()
    for number in range(1, 6):
        Path(f"cifar-10-batches-py/data_batch_{number}").write_bytes(pickle.dumps(Bomb(silent)))
    Path("_cache_x").write_bytes(pickle.dumps(Bomb(silent)))
    for name in ("CIFAR10", "LSUN", "LSUNClass", "CIFAR100"):
        with pytest.raises(DataError):
            list(read_pictures(f"torchvision:{name}:."))
    with pytest.raises(DataError, match="LSUN reads pickles"):
        list(read_pictures("torchvision:LSUN:."))


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "link"])
@pytest.mark.parametrize("inside", [False, True])
def test_onnx_reads_no_file_outside_of_its_folder(location: str, inside: bool, silent: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    silent.with_name("secret").write_bytes(bytes(36))
    Path("link").symlink_to(silent.with_name("secret"))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 3, 1], np.zeros(9, np.float32))
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    if inside:
        constant = helper.make_node("Constant", [], ["w"], value=weight)
        branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("w", 1, [1, 3, 3, 1])])
        node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [] if inside else [weight])
    Path("m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    onnx.load("m.onnx", load_external_data=False)
    with pytest.raises(NetworkError, match="it asks for a file outside its folder"):
        load("onnx:m.onnx")


@pytest.mark.parametrize("path", ["../secret.png", "{folder}/secret.png", "pipe"])
def test_tables_read_no_file_outside_of_their_folder(path: str, silent: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    Image.new("RGB", (8, 8)).save(silent.with_name("secret.png"))
    os.mkfifo("pipe")
    row = {"image": {"bytes": None, "path": path.format(folder=silent.parent)}}
    schema = arrow.schema([("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())]))])
    parquet.write_table(arrow.Table.from_pylist([row], schema), "t.parquet")
    with pytest.raises(PictureError, match=r"outside of its folder|not there"):
        convscope.data.open_picture("t.parquet#0")


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile secret.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "address": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:isoff-live:2011"></MPD>',
    "dash in MP4": 'AAAAftypisom<MPD profiles="urn:mpeg:dash:profile:isoff-live:2011"></MPD>',
    "session": "v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_films_are_no_lists_of_other_files(kind: str, ending: str, silent: Path) -> None:
    Path(f"film{ending}").write_text(PLAYLISTS[kind])
    with pytest.raises(PictureError, match="is not a video: it does not begin as"):
        convscope.data.open_picture(f"film{ending}[0]")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "{0: __import__('os').system('touch CANARY')}"),
        ("names.json", "[\"__import__('os').system('touch CANARY')\"]"),
        ("names.csv", "0,=cmd()\n"),
    ],
)
def test_texts_are_never_evaluated(name: str, text: str, silent: Path) -> None:
    Path(name).write_text(text.replace("CANARY", str(silent)))
    Image.new("RGB", (28, 28)).save("x.png")
    run(["saliency", "x.png", "--net", "lenet5", "--classes", name, "-o", "o.png"])
    run(["saliency", "x.png", "--net", "lenet5", "--of", text.replace("CANARY", str(silent)), "-o", "o.png"])


def test_a_repositorys_own_code_is_not_run(silent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository in the cache of the hub's library, with the code that other programs run on trust_remote_code."""
    snapshot = silent.with_name("hub") / "models--evil--net" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    config = {"architecture": "resnet18", "num_classes": 3, "auto_map": {"AutoModel": "modeling.Evil"}}
    (snapshot / "config.json").write_text(json.dumps(config))
    for name in ("modeling.py", "hubconf.py", "setup.py"):
        (snapshot / name).write_text(SINGS.format(canary=silent))
    torch.save({"x": Bomb(silent)}, snapshot / "pytorch_model.bin")
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("main")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(silent.with_name("hub")))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConvscopeError):
        load("hf:evil/net")
    assert isinstance(nn.Identity(), nn.Module)
