"""Gradients at hidden layers: those of one layer at a time, in one backward pass that ends where it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.errors import LayerError, OptionError
from convscope.layers import telling_layers
from convscope.tapping import tap
from convscope.views.hidden import gradients_at, hidden_gradients
from networks import SIZE, TINY, pictures, tiny

CLASS = 3


def one_at_a_time(net: cs.Net, pixels: Tensor, name: str) -> Tensor:
    """The score as a function of one layer, by replacing the layer's output with a leaf."""
    leaf = tap(net, pixels, [name])[name].detach().requires_grad_()
    module, _, call = name.partition("#")
    calls: list[int] = []

    def swap(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        calls.append(1)
        return leaf * 1 if len(calls) == int(call or 1) else None

    handle = net.body.get_submodule(module).register_forward_hook(swap)
    score = net(pixels)[:, CLASS].sum()
    handle.remove()
    return torch.autograd.grad(score, leaf)[0]


@pytest.mark.parametrize("kind", TINY)
def test_every_layer_has_the_gradient_of_the_score_at_it(kind: str) -> None:
    """In-place rectifiers, branches, layers that run twice."""
    net, pixels = tiny(kind), pictures(2)
    layers = [layer for layer in net.layers.values() if layer.name and layer.leaf]
    gradients = gradients_at(net, pixels, cs.as_objective(net, CLASS), layers)
    assert len(layers) > 4
    for layer, grad in zip(layers, gradients, strict=True):
        assert grad.shape == (2, *layer.shape)
        torch.testing.assert_close(grad, one_at_a_time(net, pixels, layer.name), rtol=1e-10, atol=1e-14)


def test_the_output_is_a_layer_too() -> None:
    net, pixels = tiny("sequential"), pictures(2)
    one_hot = torch.eye(5, dtype=torch.float64)[CLASS].expand(2, 5)
    (alone,) = gradients_at(net, pixels, cs.as_objective(net, CLASS), [net.output])
    beside = gradients_at(net, pixels, cs.as_objective(net, CLASS), [net.layer("0"), net.output])
    assert torch.equal(alone, one_hot) and torch.equal(beside[1], one_hot)


def test_one_backward_pass_that_ends_at_the_lowest_layer() -> None:
    net, pixels, built, reached = tiny("sequential"), pictures(1), [], []

    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            if output.requires_grad:
                built.append(name)
                output.register_hook(lambda grad: reached.append(name))

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in net.body.named_children()]
    gradients_at(net, pixels, cs.as_objective(net, CLASS), [net.layer("2"), net.layer("3")])
    for handle in handles:
        handle.remove()
    assert built == ["3", "4", "5"], "nothing is kept for what nobody asked"
    assert sorted(set(reached)) == ["3", "4", "5"], "'2' is where the graph begins; '0' and '1' are below it"
    assert len(reached) == len(set(reached))


@pytest.mark.parametrize(
    ("layers", "of", "said"),
    [
        (["3"], "0:2@1,1", "does not depend on layer '3'"),
        (["nonsense"], None, "no layer 'nonsense'"),
        (["5.0"], "3:1", "does not depend on layer '5.0'"),
    ],
)
def test_a_layer_without_a_gradient_is_refused(layers: list[str], of: Any, said: str) -> None:
    with pytest.raises(LayerError, match=said):
        hidden_gradients(tiny("sequential"), pictures(1), layers=layers, of=of)


def test_bad_options_are_refused() -> None:
    with pytest.raises(OptionError, match=r"top is a whole number, at least 1, not 0"):
        hidden_gradients(tiny("sequential"), pictures(1), top=0)
    with pytest.raises(OptionError, match="layers is empty"):
        hidden_gradients(tiny("sequential"), pictures(1), layers=[])


def test_the_layers_chosen_run_before_the_question() -> None:
    net = cs.load("zfnet", weights=None)
    names = [layer.name for layer in telling_layers(net, [""])]
    assert names == ["conv1", "conv2", "conv5", "fc7"]
    assert [layer.name for layer in telling_layers(net, ["conv5"])] == ["conv1", "conv2", "conv4"]
    with pytest.raises(LayerError, match="no layer of zfnet runs before layer 'conv1'"):
        telling_layers(net, ["conv1"])


def test_the_sheet_shows_the_strongest_channels() -> None:
    net, pixels = tiny("sequential"), pictures(1)
    drawing = hidden_gradients(net, pixels, layers=["0", "3", "5.2"], top=4, of="dog")
    assert list(drawing.values) == ["5.2", "3", "0"], "from the output down"
    expected = gradients_at(net, pixels, cs.as_objective(net, "dog"), [net.layer("3")])[0][0]
    assert torch.equal(drawing.values["3"], expected)
    rows = drawing.sheet().rows
    assert len(rows) == 4
    for (where, channels), name in zip(rows[1:], drawing.values, strict=True):
        assert where is not None and channels is not None
        assert where.caption.startswith(f"{name}, ") and where.scale is not None
    assert rows[1][1].caption == "the only one of 5 units with a gradient other than zero"  # type: ignore[union-attr]
    assert rows[3][1].caption == "the 4 channels with the strongest gradient, of 6"  # type: ignore[union-attr]
    scale = rows[2][1].scale  # type: ignore[union-attr]
    assert scale is not None and scale.low == -scale.high and scale.colours == "polar"
    strongest = expected.square().sum((1, 2)).argsort(descending=True)[:4]
    shown = expected[strongest].abs()
    assert scale.high == pytest.approx(float(shown.max())) or scale.high == pytest.approx(float(shown.quantile(0.98)))
    assert drawing.recipe.objective == "4" and drawing.recipe.options["top"] == 4


def test_tiles_are_the_gradient() -> None:
    """A channel whose gradient is positive everywhere is red, one that is negative blue, in the order of strength."""
    body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        body[3].weight.copy_(torch.tensor([[1.0, -3.0, 2.0], [0.0, 0.0, 0.0]]))
    net = cs.Net(body, size=SIZE)
    drawing = hidden_gradients(net, pictures(1, dtype=torch.float32), layers=["0"], of="0")
    mosaic = np.asarray(drawing.sheet().rows[1][1].image, int)  # type: ignore[union-attr]
    first, second, third = (mosaic[40, 40 + 90 * i] for i in range(3))
    assert first[2] > first[0] + 80, "-3 is blue"
    assert second[0] > second[2] + 60 and third[0] > third[2], "2 and 1 are red"
    assert third[1] > second[1], "1 is paler than 2"


def test_no_gradient_anywhere_is_said() -> None:
    net, pixels = tiny("sequential", dtype=torch.float32), pictures(1, dtype=torch.float32)
    with torch.no_grad():
        net.body[3].bias.fill_(-100)
    drawing = hidden_gradients(net, pixels, layers=["0", "2"], of=2)
    assert "the gradient is zero in all of these layers" in drawing.sheet().note
    assert all("zero everywhere" in row[1].caption for row in drawing.sheet().rows[1:])  # type: ignore[union-attr]
    drawing.render()


def test_looks_at_a_real_network(squeezenet: cs.Net, data: Any) -> None:
    drawing = hidden_gradients(squeezenet, data("pictures/cat_dog.png"), top=8)
    assert list(drawing.values) == [
        "features.12.expand3x3", "features.10.expand3x3", "features.5.expand3x3", "features.0",
    ]  # fmt: skip
    assert drawing.sheet().title.startswith("bull mastiff, 0.9")
    image = drawing.render()
    assert image.width < 1000 and np.asarray(image).std() > 10
