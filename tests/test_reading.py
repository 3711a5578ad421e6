"""What a user may say about how a network reads pictures and what its outputs are called."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from convscope import Net, load
from convscope.data.class_names import class_names
from convscope.data.images import prepare
from convscope.data.preprocessing import Fit, Preprocessing
from convscope.errors import NetworkError, OptionError
from convscope.zoo.reading import IMAGENET_MEAN, IMAGENET_STD, settled


def test_squashing_keeps_all_of_the_picture_and_ignores_its_proportions() -> None:
    picture = Image.new("RGB", (400, 100), "white")
    picture.paste("red", (0, 0, 40, 100))
    seen = prepare(picture, Preprocessing(Fit((20, 20), (20, 20))))
    assert seen.box == (0, 0, 400, 100)
    assert seen.pixels[1, :, 0] == pytest.approx(0) and seen.pixels[1, :, -1] == pytest.approx(1)
    cut = prepare(picture, Preprocessing(Fit((20, 20), (24, 40))))
    assert cut.box == pytest.approx((100, 100 / 12, 300, 1100 / 12))


def test_squashed_input_of_another_size_keeps_the_proportion() -> None:
    fit = Fit((227, 227), (256, 256)).scaled(113)
    assert (fit.size, fit.resize) == ((113, 113), (127, 127))
    assert Fit((64, 64), (64, 64)).scaled(32).resize == (32, 32)


def test_blue_first_is_what_the_body_sees_and_not_what_is_asked_about() -> None:
    body = nn.Conv2d(3, 1, 1, bias=False)
    with torch.no_grad():
        body.weight.copy_(torch.tensor([100.0, 10.0, 1.0]).view(1, 3, 1, 1))
    net = Net(body, mean=(0.1, 0.2, 0.3), std=(1, 2, 4), size=2, order="BGR")
    pixels = torch.tensor([0.5, 0.6, 0.7]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    expected = 100 * (0.7 - 0.3) / 4 + 10 * (0.6 - 0.2) / 2 + (0.5 - 0.1)
    assert net(pixels).unique().item() == pytest.approx(expected)
    assert net.sized(4).order == "BGR"
    with pytest.raises(NetworkError, match="order is RGB or BGR, the latter for 3 channels; not 'BGR' for 1"):
        Net(nn.Conv2d(1, 2, 1), order="BGR")


class Several(nn.Module):
    """Reads a picture, a place and a scale; returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor, position: Tensor, *, scale: Tensor | float = 1.0) -> dict[str, Tensor | tuple[Tensor]]:
        answer = self.conv(x).mean((2, 3)) + position
        return {"out": answer * scale, "aux": (answer,)}


@pytest.mark.parametrize(
    "extra",
    [
        [torch.ones(1, 4)],
        {"position": torch.ones(1, 4)},
        lambda inputs: (torch.ones(len(inputs), 4),),
        lambda inputs: {"position": torch.ones(len(inputs), 4), "scale": 1.0},
    ],
    ids=["by position", "by name", "made, by position", "made, by name"],
)
def test_what_is_read_besides_the_picture(extra: object) -> None:
    body = Several()
    net = Net(body, size=8, output="out", extra=extra)
    pixels = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(net(pixels), body(pixels, torch.ones(3, 4))["out"])
    assert net.output.shape == (4,)
    assert list(net.layers) == ["conv", ""]
    assert net.sized(6)(torch.rand(1, 3, 6, 6)).shape == (1, 4)


def test_outputs_are_chosen_by_key_place_or_function() -> None:
    body, position = Several(), [torch.zeros(1, 4)]
    pixels = torch.rand(2, 3, 8, 8)
    whole = body(pixels, *position)
    torch.testing.assert_close(Net(body, size=8, extra=position, output="out")(pixels), whole["out"])
    twice = Net(body, size=8, extra=position, output=lambda result: result["aux"][0] * 2)
    torch.testing.assert_close(twice(pixels), whole["aux"][0] * 2)
    assert twice.output.shape == (4,)
    with pytest.raises(NetworkError, match="there is no output 'logits': Several returns dict with 'out', 'aux'"):
        Net(body, size=8, extra=position, output="logits")(pixels)
    with pytest.raises(NetworkError, match="returns tuple of 1, not a tensor: choose, as in Net"):
        Net(body, size=8, extra=position, output="aux")(pixels)


def test_options_override_what_a_network_says_itself(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("n01440764 tench, Tinca tinca\n\nn01443537 goldfish\nplain name\n")
    net = load("lenet5", mean=0.5, classes=names, size=28)
    assert (net.mean, net.classes) == ((0.5,), ("tench, Tinca tinca", "goldfish", "plain name"))
    assert load("torchvision:squeezenet1_0", weights=None, size=96, resize=(100, 100)).fit.resize == (100, 100)
    named = load("torchvision:squeezenet1_0", weights=None, classes="imagenet").classes
    assert (len(named), named[281], named[963]) == (1000, "tabby", "pizza")
    assert settled({"mean": "imagenet"}) == {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def test_names_of_classes_in_json(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    for told in (["a", "b"], {"1": "b", "0": "a"}, {"0": ["n01440764", "a"], "1": ["n01443537", "b"]}):
        path.write_text(json.dumps(told))
        assert class_names(path) == ("a", "b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{]", "the names of classes: .*names.json is not JSON: "),
        ('{"0": "a", "2": "b"}', "there is no name for index 1"),
        ('{"cat": 1}', "the indices begin at 1, those of outputs at 0"),
        ("3", "it holds 3, not a list or a dict of names"),
        ("[]", "holds no names of classes: write one per line"),
    ],
)
def test_names_of_classes_that_cannot_be_read(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(text)
    with pytest.raises(OptionError, match=words):
        class_names(path)


def test_options_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"the names of classes: cannot read .*none.txt: No such file"):
        load("lenet5", classes=tmp_path / "none.txt")
    with pytest.raises(OptionError, match=r"mean is one number per channel, .* or 'imagenet'; not 'x.npy'"):
        load("lenet5", mean="x.npy")
    with pytest.raises(OptionError, match="load has no option 'sizes'; it is written size="):
        load("lenet5", sizes=3)  # type: ignore[call-arg]
    assert np.isfinite(load("lenet5", std=2.0).std).all()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deploy.prototxt", "'deploy.prototxt': did you mean 'caffe:deploy.prototxt'?"),
        ("a/model.onnx", "did you mean 'onnx:a/model.onnx'?"),
        ("net.py", "did you mean 'file:net.py:build'?"),
        ("fiel:net.py", "did you mean 'file:net.py:build'?"),
        ("C:/nets/a.onnx", "did you mean 'onnx:C:/nets/a.onnx'?"),
        ("alexnet", "did you mean 'torchvision:alexnet'?"),
        ("a.pth", "load('torchvision:resnet18', weights='a.pth')"),
        ("torchvision:fcn_resnet50", "Net(torchvision.models.get_model('fcn_resnet50'), output=...)"),
        ("keras:vgg16", "Other sources: torchvision:, "),
        ("", "there is no network ''; nearest: "),
    ],
)
def test_a_name_without_its_source(name: str, words: str) -> None:
    with pytest.raises(NetworkError, match=re.escape(words)):
        load(name)
