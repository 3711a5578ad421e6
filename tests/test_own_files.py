"""Networks that a function of the user's own makes: `file:my_model.py:build`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from convscope import load
from convscope.errors import NetworkError, OptionError, WeightsError

ROOT = Path(__file__).parent.parent
RANDOM = "random weights, seed 0"

NETWORK = """
from dataclasses import dataclass

from torch import nn

import parts
from parts.heads import head

@dataclass
class Plan:
    width: "int" = 4

class Mine(nn.Sequential):
    def __init__(self, width=Plan().width):
        super().__init__(nn.Conv2d(3, width, parts.SIDE), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(width))

def build():
    return Mine()

def wider(width, times=2):
    return Mine(width * times)

def the_class():
    return Mine

def nothing():
    build()

def logits():
    return Mine()(__import__("torch").rand(1, 3, 9, 9))

def broken():
    return nn.Conv2d(3, 4, 3)(None)

def leaves():
    raise SystemExit(3)

def missing():
    import nonesuch.deeper
    return nonesuch

kept, number = Mine(), 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A file that reads a package beside it."""
    return str(grow(tmp_path, NETWORK))


def grow(folder: Path, text: str, side: int = 3) -> Path:
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    (parts / "__init__.py").write_text(f"SIDE = {side}\n")
    (parts / "heads.py").write_text("from torch import nn\n\ndef head(width):\n    return nn.Linear(width, 5)\n")
    path = folder / "my_model.py"
    path.write_text(text)
    return path


def test_a_function_that_returns_a_module(mine: str) -> None:
    net = load(f"file:{mine}:build", size=16)
    assert (net.name, net.size, net.output.shape) == ("my_model", (16, 16), (5,))
    assert net.note == f"reads pixels in [0, 1] as they are, since no mean and std were given; {RANDOM}"
    pixels = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(net(pixels), net.body(pixels))
    assert load(f"file:{mine}", size=16).name == "my_model", "build is the function that is meant"
    assert load(f"file:{mine}:Mine").name == "Mine" and load(f"file:{mine}:kept").output.shape == (5,)


def test_what_is_said_of_pixels_and_classes(mine: str) -> None:
    net = load(f"file:{mine}", mean="imagenet", size=24, classes=list("abcde"))
    assert (net.std, net.classes, net.note) == ((0.229, 0.224, 0.225), tuple("abcde"), RANDOM)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_random_numbers(mine: str) -> None:
    before = torch.random.get_rng_state()
    one, other = load(f"file:{mine}"), load(f"file:{mine}")
    assert one.digest == other.digest
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_file_is_run_anew_and_finds_the_modules_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders with modules of the same names, and a module of that name from elsewhere."""
    stranger = ModuleType("parts")
    monkeypatch.setitem(sys.modules, "parts", stranger)
    paths, known = list(sys.path), set(sys.modules)
    for side in (3, 5):
        grow(tmp_path / str(side), NETWORK, side)
        assert load(f"file:{tmp_path / str(side) / 'my_model.py'}").body[0].kernel_size == (side, side)
    # Of the same length, within the same second: a cached compilation would not notice.
    grow(tmp_path / "3", NETWORK.replace('int" = 4', 'int" = 7'), 1)
    again = load(f"file:{tmp_path / '3' / 'my_model.py'}").body[0]
    assert (again.out_channels, again.kernel_size) == (7, (1, 1))
    assert sys.path == paths and sys.modules["parts"] is stranger
    assert {name for name in set(sys.modules) - known if not name.startswith("convscope_file_")} == set()
    assert "parts.heads" not in sys.modules


def test_weights_replace_those_that_the_function_gave(mine: str, tmp_path: Path) -> None:
    body = load(f"file:{mine}").body
    other = {name: value + 1 for name, value in body.state_dict().items()}
    save_file(other, tmp_path / "w.safetensors")
    net = load(f"file:{mine}:build", weights=tmp_path / "w.safetensors", mean=0.5)
    assert torch.equal(net.body.state_dict()["0.weight"], other["0.weight"]) and net.note == ""
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"does not fit file:.*my_model\.py:build: 4 missing from the file"):
        load(f"file:{mine}:build", weights=tmp_path / "x.safetensors")


GIVEN = """
import torch
from torch import nn

def build(kept=2, assign=False):
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    state = torch.load(FILE)
    network.load_state_dict({k: v for k, v in state.items() if int(k[0]) < kept * 4}, strict=False, assign=assign)
    return network

def assigned():
    return build(assign=True)

def half():
    return build(1)

def constant():
    network = build(0)
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.5)
    return network

def fresh():
    network = nn.Conv2d(3, 5, 3)
    network.weight = nn.Parameter(torch.randn(5, 3, 3, 3))
    return network

def orthogonal():
    network = build()
    nn.init.xavier_normal_(network[0].weight)
    network[4].weight.data.normal_(0, 0.01)
    return network
"""


@pytest.mark.parametrize(
    ("function", "note"),
    [
        ("build", ""),
        ("assigned", ""),
        ("half", "random weights in 1 of 2 layers, seed 0"),
        ("constant", ""),
        ("fresh", RANDOM),
        ("orthogonal", RANDOM),
    ],
)
def test_captions_say_which_weights_are_random(function: str, note: str, mine: str, tmp_path: Path) -> None:
    """A function may read weights of its own; what it leaves as torch drew it is random."""
    torch.save(load(f"file:{mine}").body.state_dict(), tmp_path / "w.pth")
    (tmp_path / "given.py").write_text(GIVEN.replace("FILE", repr(str(tmp_path / "w.pth"))))
    assert load(f"file:{tmp_path / 'given.py'}:{function}", mean=0.5).note == note


def test_no_weights_are_what_the_function_makes(mine: str, tmp_path: Path) -> None:
    assert load(f"file:{mine}", weights=None, mean=0.5).note == RANDOM
    (tmp_path / "zeros.py").write_text(
        "from torch import nn\ndef build():\n    layer = nn.Linear(3, 2)\n    nn.init.zeros_(layer.weight)\n"
        "    return nn.Sequential(nn.Flatten(), layer)\n"
    )
    net = load(f"file:{tmp_path / 'zeros.py'}", weights=None, mean=0.5, size=1, channels=3)
    assert net.note == "weights as build in zeros.py makes them"


def test_a_function_that_returns_a_net(tmp_path: Path) -> None:
    example = f"file:{ROOT / 'examples' / 'own_network.py'}"
    net = load(example)
    assert (net.name, net.size, net.classes) == ("mine", (96, 96), ("this", "that", "other"))
    assert net.note == "random weights, seed 0"
    changed = load(example, size=48, mean=0.5)
    assert (changed.size, changed.mean, changed.std) == ((48, 48), (0.5,) * 3, net.std)
    save_file(net.body.state_dict(), tmp_path / "trained.safetensors")
    assert load(example, weights=tmp_path / "trained.safetensors").note == "", "these are not random any more"


TRAINED = """
from pathlib import Path

from torch import nn

class Classifier(nn.Module):
    def __init__(self, width: int, classes: int = 5, lr: float = 0.1, start: Path | None = None):
        super().__init__()
        assert start is None and isinstance(width, int)
        self.model = nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.model.append(nn.Linear(width, classes))

    def forward(self, pixels):
        return self.model(pixels)

class InOne(Classifier):
    def __init__(self, config):
        super().__init__(config.width, config["head"]["classes"])

class OfAny(Classifier):
    def __init__(self, **kwargs):
        super().__init__(kwargs["width"], kwargs["classes"])
"""


@pytest.mark.parametrize(
    ("name", "said", "whole"),
    [
        ("Classifier", {"width": 6, "classes": 3, "lr": 0.1, "other": [1], "start": Path("begun.pt")}, "kwargs"),
        ("InOne", {"width": 6, "head": {"classes": 3}}, "config"),
        ("OfAny", {"width": 6, "classes": 3}, "kwargs"),
    ],
)
def test_a_class_is_built_as_its_checkpoint_says(name: str, said: dict[str, Any], whole: str, tmp_path: Path) -> None:
    path, file = tmp_path / "train.py", tmp_path / "last.ckpt"
    path.write_text(TRAINED)
    shapes = {"0.weight": (6, 3, 3, 3), "0.bias": (6,), "3.weight": (3, 6), "3.bias": (3,)}
    state = {f"model.{key}": torch.rand(shape) for key, shape in shapes.items()}
    torch.save({"state_dict": state, "hyper_parameters": said, "hparams_name": whole}, file)
    net = load(f"file:{path}:{name}", weights=file, mean=0.5)
    assert net.output.shape == (3,) and net.name == name
    assert torch.equal(net.body.get_parameter("model.3.weight"), state["model.3.weight"])
    assert "built with " in net.note and "as last.ckpt says" in net.note
    assert name != "Classifier" or "built with width=6, classes=3, as" in net.note, "what is a default goes unsaid"


def test_what_a_checkpoint_does_not_say_is_asked_for(tmp_path: Path) -> None:
    path, file = tmp_path / "train.py", tmp_path / "last.ckpt"
    path.write_text(TRAINED)
    torch.save({"state_dict": {"x": torch.zeros(1)}, "hyper_parameters": {"lr": 0.1, "width": torch.ones(2)}}, file)
    words = r"Classifier\(.*\) in .* needs arguments, and last.ckpt says nothing of width \(its hyper-parameters: lr\)"
    with pytest.raises(NetworkError, match=words):
        load(f"file:{path}:Classifier", weights=file)
    torch.save({"state_dict": {"x": torch.zeros(1)}, "hyper_parameters": {"width": "six"}}, file)
    with pytest.raises(NetworkError, match=r"train.py:9 raised AssertionError in Classifier\(width='six'\)"):
        load(f"file:{path}:Classifier", weights=file)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("bild", "there is no function 'bild' in PATH; there are 'file:PATH:build'"),
        ("number", "number in PATH is a value of type int, not a function"),
        ("wider", "wider(width, times=2) in PATH needs arguments: name a checkpoint that has them as hyper-parameters"),
        ("the_class", "returns the class Mine: did you mean to call it, Mine()"),
        ("nothing", "nothing in PATH returns nothing; it has to return a torch.nn.Module or a Net"),
        ("logits", "returns a value of type Tensor"),
        ("broken", "PATH:33 raised TypeError in broken(): "),
        ("leaves", "PATH:36 ends the program in leaves() (sys.exit(3)): what is a script belongs under if __name__"),
        ("missing", "PATH:39 imports 'nonesuch', which is neither installed here nor beside the file: pip install"),
        ("a.b", "names no function of a Python file: write file:my_model.py:build"),
    ],
)
def test_functions_that_make_no_network(function: str, words: str, mine: str) -> None:
    with pytest.raises(NetworkError, match=re.escape(words.replace("PATH", mine))):
        load(f"file:{mine}:{function}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ndef (:\n", ":2 is not Python: "),
        ("x = 1\n\n1 / 0\n", ":3 raised ZeroDivisionError while it was imported: division by zero"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['-x'])\n", ":2 ends the program while it was imp"),
        ("import beside\n", "beside.py:2 raised ValueError while it was imported: from beside"),
        ("import nonesuch\n", ":1 imports 'nonesuch'"),
        ("", "there is no function 'build' in "),
        ("\0", "is not Python" if sys.version_info >= (3, 12) else "null bytes"),
        ("x = '\xff'", None),
    ],
    ids=["syntax", "raises", "script", "sibling", "import", "empty", "null", "latin"],
)
def test_files_that_cannot_be_run(text: str, words: str | None, tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("\nraise ValueError('from beside')\n")
    (tmp_path / "m.py").write_bytes(text.encode("latin-1"))
    with pytest.raises(NetworkError, match=re.escape(words or "is not Python")) as caught:
        load(f"file:{tmp_path / 'm.py'}")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(NetworkError, match=r"there is no file .*folder\.py \(it is a folder\)"):
        load(f"file:{tmp_path / 'folder.py'}:build")
    with pytest.raises(NetworkError, match=r"there is no file none\.py$"):
        load("file:none.py:build")
    with pytest.raises(NetworkError, match=re.escape(r"there is no file C:\models\none.py")):
        load(r"file:C:\models\none.py:build")
    with pytest.raises(NetworkError, match="names no function of a Python file"):
        load("file:model.ipynb")


def test_a_file_has_no_epochs(mine: str) -> None:
    with pytest.raises(OptionError, match="has no snapshots of its training"):
        load(f"file:{mine}", epoch=3)
