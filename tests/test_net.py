"""Net: what it accepts and refuses, what it knows of its layers, and that it leaves the user's module as it was."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from convscope import Net, as_objective, explain, load, tap
from convscope.errors import LayerError, NetworkError, ObjectiveError, PictureError, WeightsError
from convscope.tracing import OUTPUT
from networks import CLASSES, SIZE, TINY, pictures, tiny, tiny_body
from test_laws import assert_same, state_of


def mixed_body(kind: str = "residual") -> nn.Module:
    """A module in the middle of a user's work: flags mixed, gradients kept, a hook of its own."""
    body = tiny_body(kind).train()
    parts, parameters = list(body.modules()), list(body.parameters())
    parts[2].eval()
    parameters[1].requires_grad_(False)
    parameters[0].grad = torch.ones_like(parameters[0])
    parts[1].register_forward_hook(lambda *_: None)
    parts[1].register_forward_pre_hook(lambda *_: None)
    return body


def everything(body: nn.Module) -> dict[str, Any]:
    return state_of(body) | {
        "random": [torch.get_rng_state(), *(torch.from_numpy(part) for part in _numpy_state())],
        "python": random.getstate(),
        "attributes": [sorted(vars(part)) for part in body.modules()],
    }


def _numpy_state() -> list[np.ndarray]:
    return [np.random.get_state()[1].astype(np.int64)]


# Leaving no trace


@pytest.mark.parametrize("kind", TINY)
def test_running_leaves_the_module_as_it_was(kind: str) -> None:
    body = mixed_body(kind)
    net = Net(body, size=SIZE)
    before = everything(body)
    pixels = pictures().requires_grad_()
    net(pixels).sum().backward()
    assert len(net.layers) > 5 and net.digest
    net.read(np.zeros((30, 40, 3), np.uint8))
    assert_same(before, everything(body))
    assert pixels.grad is not None and pixels.grad.abs().sum() > 0


class Fails(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.stem, self.bn, self.error = nn.Conv2d(3, 4, 3).double(), nn.BatchNorm2d(4).double(), error

    def forward(self, x: Tensor) -> Tensor:
        self.bn(self.stem(x))
        raise self.error


@pytest.mark.parametrize(
    "error", [RuntimeError("mine"), ValueError("mine"), KeyError("mine"), KeyboardInterrupt()], ids=repr
)
def test_a_failure_leaves_the_module_as_it_was_and_is_not_disguised(error: BaseException) -> None:
    body = Fails(error).train()
    body.bn.eval()
    body.stem.bias.requires_grad_(False)
    net, before = Net(body, size=SIZE), everything(body)
    with pytest.raises(type(error), match="mine" if error.args else None) as caught:
        net(pictures())
    assert caught.value is error
    assert_same(before, everything(body))


def test_training_mode_changes_nothing_in_what_is_computed() -> None:
    body = tiny_body("in-place")
    with torch.no_grad():
        expected = body(pictures())
    net = Net(body.train(), size=SIZE)
    torch.testing.assert_close(net(pictures()), expected, rtol=0, atol=0)
    assert body.training and all(part.training for part in body.modules())


def test_gradients_reach_pixels_but_not_parameters() -> None:
    net, pixels = tiny("functional"), pictures().requires_grad_()
    net(pixels).sum().backward()
    assert pixels.grad is not None and all(parameter.grad is None for parameter in net.body.parameters())


# Wrapping


def test_what_is_no_module_is_refused() -> None:
    for thing in (models.resnet18, "alexnet", None, torch.zeros(3)):
        with pytest.raises(NetworkError, match=r"wraps a torch.nn.Module, not .*convscope.load"):
            Net(thing)  # type: ignore[arg-type]
    with pytest.raises(NetworkError, match="Net already"):
        Net(tiny("concat"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (0.5, 0.5)}, "mean has 2 values for a network of 3 channels"),
        ({"std": (1, 1, 1, 1)}, "std has 4 values for a network of 3 channels"),
        ({"std": (0.2, 0.0, 0.2)}, "std must be positive, not 0"),
        ({"std": -1.0}, "std must be positive, not -1"),
        ({"std": float("nan")}, "std"),
        ({"mean": float("inf")}, "mean"),
        ({"size": 0}, "size"),
        ({"size": (20, -1)}, "size"),
        ({"resize": -5}, "resize"),
        ({"interpolation": "area"}, "'bilinear'"),
    ],
    ids=str,
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(NetworkError) as caught:
        Net(tiny_body("concat"), **{"size": SIZE, **options})
    assert words in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_normalisation_and_channels() -> None:
    net = Net(nn.Identity(), mean=(0.1, 0.2, 0.3), std=0.5, size=4)
    expected = (pictures(side=4, dtype=torch.float32) - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / 0.5
    torch.testing.assert_close(net(pictures(side=4, dtype=torch.float32)), expected)
    assert Net(nn.Conv2d(5, 2, 3)).channels == 5 and Net(nn.Conv2d(1, 2, 3)).channels == 1
    assert Net(nn.Identity(), channels=1).channels == 1 and Net(nn.Flatten()).channels == 3


def test_name_classes_note_and_size() -> None:
    net = Net(nn.Conv2d(3, 2, 3), size=(6, 9), classes=["a", "b"], note="half trained")
    assert (net.name, net.size, net.classes, net.note) == ("Conv2d", (6, 9), ("a", "b"), "half trained")
    assert [net.class_name(index) for index in (0, 1, 2)] == ["a", "b", "class 2"]
    assert net.fit.resize == 6 and net.read(np.zeros((50, 70, 3), np.uint8)).shape == (1, 3, 6, 9)


@pytest.mark.parametrize("where", ["conv.weight", "bn.running_var"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_refused(where: str, value: float) -> None:
    body = nn.Sequential()
    body.add_module("conv", nn.Conv2d(3, 4, 3))
    body.add_module("bn", nn.BatchNorm2d(4))
    with torch.no_grad():
        body.state_dict()[where].view(-1)[2] = value
    with pytest.raises(WeightsError, match=f"NaN or infinite weights in {where}"):
        Net(body)


def test_large_finite_weights_are_accepted() -> None:
    body = nn.Conv2d(3, 4, 3)
    nn.init.constant_(body.weight, 3e38)
    assert Net(body).channels == 3, "a sum that overflows does not make weights infinite"


class Returns(nn.Module):
    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.make = nn.Conv2d(3, 2, 3), make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda y: {"out": y}, "odd returns dict with 'out', not a tensor: choose, as in Net(..., output='out')"),
        (lambda y: (y, y), "odd returns tuple of 2, not a tensor: choose, as in Net(..., output=0)"),
        (lambda y: [y], "odd returns list of 1, not a tensor: choose, as in Net(..., output=0)"),
        (lambda y: [{"boxes": y}], "odd returns list, not a tensor: say what to look at by a function of it"),
        (lambda y: None, "odd returns NoneType, not a tensor: say what to look at by a function of it"),
    ],
    ids=["dict", "tuple", "list", "detections", "none"],
)
def test_outputs_that_are_no_tensor(make: Callable[[Tensor], Any], words: str) -> None:
    net = Net(Returns(make), size=9, name="odd")
    with pytest.raises(NetworkError, match=re.escape(words)):
        net(torch.zeros(1, 3, 9, 9))
    for objective in (0, "conv:0 - 1", ":0"):
        with pytest.raises(NetworkError, match=r"odd .* a tensor"):
            as_objective(net, objective)


@pytest.mark.parametrize("flat", [nn.Flatten(), nn.Identity()], ids=["classes", "maps"])
@pytest.mark.parametrize("classes", ["a", "abc"], ids=len)
def test_more_or_fewer_class_names_than_outputs(classes: str, flat: nn.Module) -> None:
    """The names of another data set would be laid on the first classes, whatever they are."""
    net = Net(nn.Sequential(nn.Conv2d(3, 2, 9), flat), size=9, classes=tuple(classes), name="two")
    for objective in (classes[-1], 1, None):
        with pytest.raises(NetworkError, match=f"two has {len(classes)} class names for 2 outputs: give one name each"):
            explain(net, torch.rand(1, 3, 9, 9), "gradient", objective)


class WithMore(nn.Conv2d):
    def forward(self, pixels: Tensor, more: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(pixels) + more


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(18, 2)), "shapes cannot be multiplied"),
        (WithMore(3, 2, 3), "missing 1 required positional argument: 'more'"),
    ],
    ids=["of another size", "with another input"],
)
def test_a_network_that_does_not_run_on_a_picture_alone(body: nn.Module, reason: str) -> None:
    net = Net(body, size=9, name="odd")
    with pytest.raises(NetworkError, match=f"odd does not run on a picture of 9x9 pixels .*{reason}.*size=.*extra="):
        as_objective(net, 0)


def test_a_module_that_only_holds_its_network_is_told_which() -> None:
    holder = nn.Module()
    holder.loss, holder.network = nn.PReLU(), nn.Conv2d(3, 2, 3)
    words = r"Module has no forward\(\): define it in Module, .* def build\(\): return Module\(\.\.\.\)\.network$"
    with pytest.raises(NetworkError, match=words):
        as_objective(Net(holder, size=9), 0)


@pytest.mark.parametrize("extra", [torch.zeros(1, 5), "depth", 5, np.zeros(5)])
def test_what_a_body_reads_besides_the_picture_is_given_in_a_list(extra: Any) -> None:
    with pytest.raises(
        NetworkError, match=r"extra is a list of .*, not \w+: a single one is given as extra=\[\.\.\.\]"
    ):
        Net(nn.Conv2d(3, 2, 3), extra=extra)


class Headless(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self.head(super().forward(input))


def test_a_mistake_in_the_users_own_forward_is_told_with_its_line() -> None:
    """A property that fails by an AttributeError is not taken for a network without that property."""
    net = Net(Headless(3, 2, 3), size=9, name="odd")
    line = Headless.forward.__code__.co_firstlineno + 1
    for ask in (lambda: net.output, lambda: explain(net, torch.rand(3, 9, 9), "gradient"), lambda: net.layer("conv")):
        with pytest.raises(
            NetworkError, match=f"'Headless' object has no attribute 'head', in line {line} of test_net"
        ):
            ask()


def test_no_property_of_a_net_hides_an_attribute_error(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny("concat")
    for name in [name for name, value in vars(Net).items() if isinstance(value, property)]:
        with monkeypatch.context() as patch:
            patch.setattr(Net, name, property(lambda self: self.body.nonsense))
            with pytest.raises(NetworkError, match=f"the {name} of concat .* has no attribute 'nonsense'"):
                getattr(net, name)
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'nonsense'"):
        _ = net.nonsense


def test_a_tensor_has_no_entries_to_choose() -> None:
    """Its first entry would be the first picture of the batch."""
    net = Net(nn.Conv2d(3, 2, 3), size=9, name="plain", output=0)
    with pytest.raises(NetworkError, match="plain returns a tensor, with no 0 to choose: leave out output"):
        net(torch.rand(2, 3, 9, 9))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (104, 117, 123)}, "mean is of pixels in [0, 1], not 123: divide mean and std by 255"),
        ({"std": "imagenet"}, "std is a number, or one per channel, not 'imagenet'"),
        ({"mean": "red"}, "mean is a number, or one per channel, not 'red'"),
        ({"size": (1, 2, 3)}, "size and resize are a number of pixels or (height, width), not (1, 2, 3)"),
        ({"size": "64"}, "not '64'"),
        ({"size": 6.5}, "not 6.5"),
        ({"resize": (3,)}, "not (3,)"),
    ],
    ids=str,
)
def test_options_that_a_network_cannot_have(options: dict[str, Any], words: str) -> None:
    with pytest.raises(NetworkError, match=re.escape(words)):
        Net(nn.Conv2d(3, 2, 3), **options)


# Pixels


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (torch.zeros(1, 1, SIZE, SIZE), "(n, 3, height, width), not (1, 1, 20, 20)"),
        (torch.zeros(3, SIZE, SIZE), "not (3, 20, 20)"),
        (torch.zeros(1, SIZE, SIZE, 3), "not (1, 20, 20, 3); channels come first in tensors: pixels.movedim(-1, -3)"),
        (torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), "not torch.uint8: use pixels / 255"),
        (torch.zeros(1, 3, SIZE, SIZE, dtype=torch.int64), "not torch.int64: divide by the value of white"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{tuple(value.shape)} {value.dtype}",
)
def test_pixels_of_another_shape_or_type(pixels: Tensor, words: str) -> None:
    with pytest.raises(PictureError) as caught:
        tiny("sequential")(pixels)
    assert words in str(caught.value)


def smallest_that_runs(body: nn.Module, channels: int = 3) -> int:
    """Find the smallest square by running real pictures, from above and without a gap."""
    side = 1
    while True:
        try:
            with torch.no_grad():
                body.eval()(torch.zeros(1, channels, side, side, dtype=next(body.parameters()).dtype))
        except RuntimeError:
            side += 1
        else:
            return side


def inception() -> nn.Module:
    return load("torchvision:inception_v3", weights=None).body


@pytest.mark.parametrize(
    ("make", "thorough"), [(models.alexnet, True), (inception, False), (lambda: tiny_body("in-place"), True)]
)
def test_a_picture_too_small_is_told_the_smallest_size_that_works(
    make: Callable[[], nn.Module], thorough: bool
) -> None:
    body = make()
    smallest = smallest_that_runs(body)
    assert smallest > 2
    net = Net(body, size=max(smallest + 9, 100), name="this")
    before = everything(body)
    for height, width in ((smallest - 1, smallest - 1), *([(1, 1), (smallest - 1, 150)] if thorough else [])):
        with pytest.raises(PictureError) as caught:
            net(torch.zeros(1, 3, height, width))
        expected = f"a picture of {height}x{width} pixels does not fit: this needs at least {smallest}x{smallest}"
        assert str(caught.value) == expected
    assert_same(before, everything(body))
    assert net(torch.zeros(1, 3, smallest, smallest)).shape[0] == 1


def test_alexnet_needs_63_pixels_and_inception_75() -> None:
    assert smallest_that_runs(models.alexnet()) == 63
    assert smallest_that_runs(inception()) == 75


@pytest.mark.parametrize("side", [64, 256])
def test_a_vision_transformer_reads_one_size(side: int) -> None:
    net = Net(models.VisionTransformer(224, 16, 1, 2, 16, 16, num_classes=4), size=224, name="vit")
    with pytest.raises(PictureError, match=f"a picture of {side}x{side} pixels does not fit: vit .*224x224"):
        net(torch.zeros(1, 3, side, side))
    assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 4)


def test_the_real_vision_transformer_reads_one_size() -> None:
    with torch.device("meta"):
        net = load("torchvision:vit_b_16", weights=None)
        with pytest.raises(PictureError, match="vit_b_16 reads 224x224"):
            net(torch.zeros(1, 3, 240, 240))
    assert net.layers[OUTPUT].shape == (1000,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_bodies_of_other_precisions(dtype: torch.dtype) -> None:
    net = Net(tiny_body("residual", dtype=dtype), size=SIZE, classes=CLASSES)
    output = net(pictures(dtype=torch.float32))
    assert output.dtype == dtype and net.layers[OUTPUT].shape == (5,) and len(net.digest) == 16
    exact = Net(tiny_body("residual"), size=SIZE)(pictures())
    torch.testing.assert_close(output.double(), exact, rtol=0.05, atol=0.05)


def test_a_network_without_data_knows_its_layers() -> None:
    with torch.device("meta"):
        net = load("torchvision:convnext_large", weights=None)
    assert net.layers[OUTPUT].shape == (1000,)
    assert sum(layer.parameters for layer in net.layers.values()) == sum(p.numel() for p in net.body.parameters())


# Digest


def test_the_digest_changes_with_the_weights_only() -> None:
    body = tiny_body("residual")
    net = Net(body, size=SIZE)
    first = net.digest
    net(pictures()).sum()
    body.train()
    body.zero_grad()
    assert net.digest == first == Net(tiny_body("residual"), size=9, name="other").digest
    seen = {first}
    with torch.no_grad():
        body.stem.weight[0, 0, 0, 0] += 1e-9
    seen.add(net.digest)
    body.bn.running_mean += 1
    seen.add(net.digest)
    body.load_state_dict(tiny_body("residual", seed=1).state_dict())
    seen.add(net.digest)
    body.a.weight = nn.Parameter(body.a.weight * 2)
    seen.add(net.digest)
    assert len(seen) == 5
    body.load_state_dict(tiny_body("residual").state_dict())
    assert net.digest == first


def test_the_digest_sees_changes_behind_the_back_of_autograd() -> None:
    body = tiny_body("residual")
    net = Net(body, size=SIZE)
    first = net.digest
    body.stem.weight.data.mul_(2)
    assert net.digest != first
    body.stem.weight.data.mul_(0.5)
    assert net.digest == first
    body.stem.weight.detach().numpy()[0] += 1
    assert net.digest != first
    whole = torch.arange(float(body.stem.weight.numel()), dtype=torch.float64).view_as(body.stem.weight)
    body.stem.weight.data.copy_(whole)
    ordered = net.digest
    body.stem.weight.data.copy_(whole.flip(0))
    assert net.digest != ordered, "filters in another order have the same sum"


# Layers


def test_layers_are_known_in_the_order_in_which_they_finish() -> None:
    net, order = tiny("residual"), []
    net.behaviour(pictures())  # a few passes of its own, once
    handles = [
        part.register_forward_hook(lambda *_, n=name: order.append(n)) for name, part in net.body.named_modules()
    ]
    net(pictures())
    for handle in handles:
        handle.remove()
    assert [name.partition("#")[0] for name in net.layers] == order
    assert [name for name in net.layers if "#" in name] == ["relu#1", "relu#2", "relu#3"]


@pytest.mark.parametrize("kind", TINY)
def test_layers_have_the_shapes_of_real_runs(kind: str) -> None:
    net, shapes, calls = tiny(kind), {}, {}
    net.behaviour(pictures(side=SIZE))  # a few passes of its own, once

    def record(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            calls[name] = calls.get(name, 0) + 1
            shapes[f"{name}#{calls[name]}"] = tuple(output.shape[1:])

        return hook

    handles = [part.register_forward_hook(record(name)) for name, part in net.body.named_modules()]
    net(pictures(side=SIZE))
    for handle in handles:
        handle.remove()
    ours = {name if "#" in name else f"{name}#1": layer.shape for name, layer in net.layers.items()}
    assert ours == shapes
    assert net.layers[OUTPUT].shape == (5,) and not net.layers[OUTPUT].leaf


class Odd(nn.Module):
    """A convolution under two names, one that never runs, and a part that returns a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.again = self.first
        self.idle = nn.Conv2d(3, 3, 3)
        self.pair = Pair()
        self.head = nn.Conv2d(3, 2, 1)
        self.second_name = self.head

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.first(x))
        return self.second_name(self.pair(x)[0]).mean((2, 3))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ReLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(x), x


def test_layers_by_name_number_call_and_alias() -> None:
    net = Net(Odd(), size=8, name="odd")
    assert list(net.layers) == ["first#1", "first#2", "pair.inner", "head", OUTPUT]
    assert net.layer(1).name == net.layer("1").name == "first#1" and net.layer(2).name == "first#2"
    assert net.layer(3).name == "head" == net.layer("second_name").name
    assert net.layer("pair.inner").kind == "ReLU" and net.layer("pair.inner").shape == (3, 8, 8)
    assert net.layer("first#2").field.size == (5, 5) and net.layer("head").parameters == 8
    assert net.layer("head").spatial and not net.layer(OUTPUT).spatial


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("first", "layer 'first' of odd runs 2 times: ask for 'first#1' or 'first#2'"),
        ("again", "layer 'first' of odd runs 2 times"),
        ("idle", "layer 'idle' of odd exists but does not run, or does not return a tensor"),
        ("pair", "layer 'pair' of odd exists but does not run, or does not return a tensor"),
        ("hed", "odd has no layer 'hed'; nearest: 'head'"),
        ("first#3", "odd has no layer 'first#3'; nearest: 'first#"),
        ("pair.iner", "'pair.inner'"),
        (4, "odd has 3 convolutions, numbered from 1: there is no 4"),
        (0, "there is no 0"),
        ("-1", "no layer '-1'"),
    ],
)
def test_layers_that_cannot_be_found(name: str | int, words: str) -> None:
    with pytest.raises(LayerError) as caught:
        Net(Odd(), size=8, name="odd").layer(name)
    assert words in str(caught.value)


def test_channels_last_layers_have_no_places_to_ask_for() -> None:
    """Swin's blocks give (rows, columns, channels): reading them as channels first would be silently wrong."""
    with torch.device("meta"):
        net = load("torchvision:swin_t", weights=None)
    assert net.layer("features.1").shape == (56, 56, 96) and not net.layer("features.1").spatial
    assert net.layer("features.0.0").spatial and net.layer("permute").spatial
    with pytest.raises(ObjectiveError, match="without channels"):
        as_objective(net, "features.1:3")


def test_the_default_places_of_networks_that_are_not_convolutional() -> None:
    from convscope.layers import last_spatial_layer, last_spatial_layers

    with torch.device("meta"):
        nets = {name: load(f"torchvision:{name}", weights=None) for name in ("swin_t", "convnext_tiny", "vit_b_16")}
    assert last_spatial_layer(nets["swin_t"]).name == "permute"
    assert last_spatial_layer(nets["convnext_tiny"]).name == "features"
    tokens = [layer.name.removeprefix("encoder.layers.") for layer in last_spatial_layers(nets["vit_b_16"])]
    assert tokens == ["encoder_layer_10.ln_2", "encoder_layer_11.ln_1", "encoder_layer_11.ln_2", "encoder.ln"]


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_part_is_a_layer_in_one_piece() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), torch.jit.script(nn.ReLU()), nn.Conv2d(4, 2, 1)).train()
    net = Net(body, size=9)
    assert list(net.layers) == ["0", "1", "2", ""]
    assert tap(net, torch.rand(1, 3, 9, 9), ["2"])["2"].shape == (1, 2, 7, 7)
    assert all(part.training for part in body.modules())
    assert net.layer("1").shape == (4, 7, 7)
