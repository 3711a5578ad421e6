"""tap: what is read is what the layer gave, whatever happens to it later, and nothing more is run than needed."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from convscope import Net, load, tap
from convscope.errors import LayerError, PictureError
from convscope.tracing import OUTPUT
from networks import SIZE, TINY, pictures, tiny, tiny_body
from test_laws import assert_same, state_of

Models = {"alexnet": 63, "resnet18": 64, "googlenet": 64}


def reference(net: Net, pixels: Tensor) -> dict[str, Tensor]:
    """Every layer's output on a copy without in-place modules, by plain hooks on every module."""
    body, found, calls = copy.deepcopy(net.body).eval(), dict[str, Tensor](), Counter[str]()
    for part in body.modules():
        if hasattr(part, "inplace"):
            part.inplace = False

    def record(name: str, output: object) -> None:
        calls[name] += 1
        if isinstance(output, Tensor):
            found[f"{name}#{calls[name]}"] = output.detach().clone()

    for name, part in body.named_modules():
        part.register_forward_hook(lambda _, __, output, name=name: record(name, output))
    with torch.no_grad():
        body(net.normalise(pixels))
    return {
        name if calls[name.partition("#")[0]] > 1 else name.partition("#")[0]: value for name, value in found.items()
    }


@contextmanager
def counted(body: nn.Module) -> Iterator[Counter[str]]:
    calls = Counter[str]()
    handles = [
        part.register_forward_pre_hook(lambda _, __, name=name: calls.update([name]))
        for name, part in body.named_modules()
    ]
    yield calls
    for handle in handles:
        handle.remove()


# Values


@pytest.mark.parametrize("model", Models)
def test_every_layer_of_real_architectures_is_read_as_it_was(model: str) -> None:
    net, side = load(f"torchvision:{model}", weights=None), Models[model]
    pixels = pictures(1, side=side, dtype=torch.float32)
    expected = reference(net, pixels)
    assert set(expected) == set(net.layers) and len(expected) > 20
    read = tap(net, pixels, net.layers)
    for name, value in expected.items():
        assert torch.equal(read[name], value), name


@pytest.mark.parametrize("kind", TINY)
def test_every_layer_alone_is_read_as_with_all_others(kind: str) -> None:
    net, pixels = tiny(kind), pictures()
    expected = reference(net, pixels)
    assert set(expected) == set(net.layers)
    for name, value in expected.items():
        assert torch.equal(tap(net, pixels, [name])[name], value), name


def test_a_convolution_before_an_in_place_rectifier_keeps_its_negative_values() -> None:
    net = load("torchvision:alexnet", weights=None)
    assert net.body.features[1].inplace
    pixels = pictures(1, side=63, dtype=torch.float32)
    for layers in (["features.0"], ["features.0", "features.1"], ["features.0", OUTPUT]):
        read = tap(net, pixels, layers)
        assert read["features.0"].min() < 0
        if "features.1" in read:
            torch.testing.assert_close(read["features.1"], read["features.0"].relu(), rtol=0, atol=0)


def test_layers_are_returned_by_the_names_asked_for() -> None:
    net, pixels = tiny("residual"), pictures()
    read = tap(net, pixels, [1, "stem", "2", "relu#2", OUTPUT])
    assert list(read) == ["1", "stem", "2", "relu#2", OUTPUT]
    assert torch.equal(read["1"], read["stem"])
    torch.testing.assert_close(read["relu#2"], read["2"].relu(), rtol=0, atol=0)
    assert torch.equal(read[OUTPUT], net(pixels))
    assert tap(net, pixels, []) == {}


# Stopping


@pytest.mark.parametrize("kind", TINY)
def test_the_forward_pass_stops_after_the_last_layer_needed(kind: str) -> None:
    net, pixels = tiny(kind), pictures()
    net.behaviour(pixels)  # which takes whole passes, once
    names = [name for name in net.layers if name != OUTPUT]
    for position, name in enumerate(names):
        with counted(net.body) as calls:
            tap(net, pixels, [names[0], name])
        begun = {OUTPUT, *(n.partition("#")[0] for n in names[: position + 1])}
        parents = {name.rpartition(".")[0] for name in begun}
        assert set(calls) <= begun | parents
        assert calls[name.partition("#")[0]] == int(name.partition("#")[2] or 1)


def test_a_part_and_its_parent() -> None:
    net, pixels = load("torchvision:resnet18", weights=None), pictures(1, side=64, dtype=torch.float32)
    assert "layer2" in net.layers
    with counted(net.body) as calls:
        read = tap(net, pixels, ["layer2", "layer2.1.relu#2"])
    assert torch.equal(read["layer2"], read["layer2.1.relu#2"])
    assert calls["layer2"] == 1 and calls["layer3"] == 0


class Swallows(nn.Module):
    """Goes on after any failure, as code that tries one thing and then another does."""

    def __init__(self, kind: type[BaseException]) -> None:
        super().__init__()
        self.conv, self.relu, self.head, self.kind = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3), kind
        self.failures = 0

    def forward(self, x: Tensor) -> Tensor:
        try:
            x = self.relu(self.conv(x))
        except self.kind:
            self.failures += 1
            x = self.relu(torch.zeros_like(x[:, :1]).expand(-1, 4, -1, -1))
        return self.head(x).mean((2, 3))


@pytest.mark.parametrize("kind", [Exception, BaseException])
def test_networks_that_catch_every_exception(kind: type[BaseException]) -> None:
    net = Net(Swallows(kind), size=9)
    pixels = pictures(side=9, dtype=torch.float32)
    read = tap(net, pixels, ["conv"])["conv"]
    torch.testing.assert_close(read, net.body.conv(pixels))
    assert net.body.failures == (kind is BaseException)


# Beginning the graph


@pytest.mark.parametrize(
    ("kind", "at"), [("sequential", 0), ("sequential", 2), ("in-place", 0), ("in-place", 1), ("relu6", 3)]
)
def test_the_graph_begins_at_the_leaf(kind: str, at: int) -> None:
    net, pixels = tiny(kind), pictures()
    read = tap(net, pixels, [OUTPUT, "0"], leaf=str(at))
    leaf, output = read[str(at)], read[OUTPUT]
    assert leaf.is_leaf and leaf.requires_grad and leaf.grad_fn is None
    body = copy.deepcopy(net.body)
    for part in body:
        if hasattr(part, "inplace"):
            part.inplace = False
    with torch.no_grad():
        start = nn.Sequential(*list(body)[: at + 1])(net.normalise(pixels))
    assert torch.equal(leaf, start)
    start.requires_grad_()
    expected = nn.Sequential(*list(body)[at + 1 :])(start)
    torch.testing.assert_close(output, expected)
    weights = torch.arange(10.0, dtype=torch.float64).view(2, 5)
    ours = torch.autograd.grad((output * weights).sum(), leaf)[0]
    torch.testing.assert_close(ours, torch.autograd.grad((expected * weights).sum(), start)[0])
    assert ours.abs().sum() > 0


def test_nothing_below_the_leaf_is_in_the_graph() -> None:
    net, pixels = tiny("sequential"), pictures().requires_grad_()
    read = tap(net, pixels, [OUTPUT], leaf="3")
    read[OUTPUT].sum().backward()
    assert pixels.grad is None and read["3"].grad is not None
    read = tap(net, pixels, ["0"], leaf="3")
    assert read["0"].requires_grad and not read["3"].grad_fn
    assert list(tap(net, pixels, [], leaf=2)) == ["2"]


def test_a_leaf_that_runs_several_times() -> None:
    net, pixels = tiny("residual"), pictures()
    read = tap(net, pixels, [OUTPUT], leaf="relu#2")
    gradient = torch.autograd.grad(read[OUTPUT].sum(), read["relu#2"])[0]
    assert gradient.shape == read["relu#2"].shape and gradient.abs().sum() > 0
    with pytest.raises(LayerError, match="runs 3 times"):
        tap(net, pixels, [OUTPUT], leaf="relu")


def test_reading_keeps_the_gradient_to_the_pixels() -> None:
    net, pixels = tiny("concat"), pictures().requires_grad_()
    read = tap(net, pixels, ["stem", OUTPUT])
    for value, direct in ((read[OUTPUT], net(pixels)), (read["stem"], net.body.stem(net.normalise(pixels)))):
        ours = torch.autograd.grad(value.square().sum(), pixels, retain_graph=True)[0]
        torch.testing.assert_close(ours, torch.autograd.grad(direct.square().sum(), pixels)[0])


# Refusing


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (["relu"], "'relu#1' or 'relu#2' or 'relu#3'"),
        (["stem", "nothing"], "no layer 'nothing'"),
        (["relu#4"], "'relu#"),
        ([7], "there is no 7"),
    ],
)
def test_layers_that_do_not_exist_are_refused_before_anything_runs(layers: list[str | int], words: str) -> None:
    net = tiny("residual")
    assert net.layers
    with counted(net.body) as calls, pytest.raises(LayerError) as caught:
        tap(net, pictures(), layers)
    assert words in str(caught.value) and not calls


class Depends(nn.Module):
    """Runs a part for large pictures only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.extra, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.head(self.extra(x) if x.shape[-1] > 10 else x).mean((2, 3))


def test_a_layer_that_does_not_run_this_time() -> None:
    net = Net(Depends(), size=20, name="depends")
    assert tap(net, pictures(side=20, dtype=torch.float32), ["extra"])["extra"].shape == (2, 4, 16, 16)
    for layers in (["extra"], ["conv", "extra"], ["extra", OUTPUT]):
        with pytest.raises(LayerError, match="depends did not run layer 'extra' in this forward pass"):
            tap(net, pictures(side=9, dtype=torch.float32), layers)


# Leaving no trace


class Explodes(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.body, self.error, self.armed = tiny_body("in-place").train(), error, False

    def forward(self, x: Tensor) -> Tensor:
        for index, part in enumerate(self.body):
            if self.armed and index == 3:
                raise self.error
            x = part(x)
        return x


@pytest.mark.parametrize("error", [ValueError("mine"), KeyError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("leaf", [None, "body.0"])
def test_nothing_is_left_behind_by_a_failure(error: BaseException, leaf: str | None) -> None:
    body = Explodes(error)
    net = Net(body, size=SIZE)
    assert "body.3" in net.layers
    body.armed = True
    before = state_of(body)
    with pytest.raises(type(error)):
        tap(net, pictures(), ["body.3"], leaf=leaf)
    assert_same(before, state_of(body))
    with pytest.raises(PictureError):
        tap(net, pictures(channels=1), ["body.3"], leaf=leaf)
    assert_same(before, state_of(body))


@pytest.mark.parametrize("kind", TINY)
def test_nothing_is_left_behind_by_stopping_early(kind: str) -> None:
    body = tiny_body(kind).train()
    next(body.parameters()).requires_grad_(False)
    list(body.modules())[1].eval()
    net, pixels = Net(body, size=SIZE), pictures()
    kept, before, seed = pixels.clone(), state_of(body), torch.get_rng_state()
    first = next(iter(net.layers))
    tap(net, pixels, [first])
    tap(net, pixels, [first, OUTPUT], leaf=first)
    assert_same(before, state_of(body))
    assert torch.equal(pixels, kept) and not pixels.requires_grad and torch.equal(seed, torch.get_rng_state())


def test_hooks_of_the_user_see_and_change_what_is_read() -> None:
    net, pixels = tiny("sequential"), pictures()
    plain = tap(net, pixels, ["0"])["0"]
    handle = net.body[0].register_forward_hook(lambda _, __, output: output * 2)
    torch.testing.assert_close(tap(net, pixels, ["0"])["0"], plain * 2)
    torch.testing.assert_close(tap(net, pixels, ["1"])["1"], (plain * 2).relu())
    handle.remove()


@pytest.mark.parametrize("layers", [["0", "3"], ["3", ""]], ids=["inside", "with the output"])
def test_a_picture_too_small_for_a_layer_is_said_to_be(layers: list[str]) -> None:
    """The sizes that a network takes are found by running it, which no reader may take for the picture."""
    body = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.MaxPool2d(4), nn.Conv2d(4, 4, 5), nn.Flatten(), nn.Dropout())
    net = Net(body, size=40)
    with pytest.raises(PictureError, match="does not fit"):
        tap(net, torch.rand(1, 3, 12, 12), layers)
    assert tap(net, torch.rand(1, 3, 12, 12), ["0"])["0"].shape == (1, 4, 8, 8)
