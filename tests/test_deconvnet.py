"""The deconvnet and guided backpropagation against an explicit stack, a walk over the graph, captum, and algebra."""

from __future__ import annotations

import copy
import itertools
import re
from typing import Any

import pytest
import torch
from captum.attr import Deconvolution, GuidedBackprop, GuidedGradCam
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from convscope import Net, as_objective, rules
from convscope.attribution.cam import grad_cam
from convscope.attribution.deconvnet import backward, deconvnet, guided_backprop, project_down
from convscope.attribution.gradient import gradient, gradient_at_pixels, saliency
from convscope.attribution.guided_cam import guided_grad_cam
from convscope.context import listen
from convscope.errors import RuleError
from convscope.rules import relu_rule
from convscope.tapping import tap
from networks import CLASSES, pictures, tiny
from oracles.deconvnet import Corner, ExplicitDeconvnet, unpool_adding, unpool_overwriting, walk_gradient

SIDE = 76
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
METHODS = {"deconvnet": deconvnet, "guided": guided_backprop}
WALKED = """alexnet vgg16_bn resnet18 resnet50 googlenet inception_v3 densenet121 mobilenet_v2 squeezenet1_0
shufflenet_v2_x1_0 regnet_y_400mf""".split()
RECTIFIERS = {"googlenet": 57, "inception_v3": 94, "densenet121": 121, "mobilenet_v2": 35, "alexnet": 7, "resnet18": 17}


class Small(nn.Sequential):
    """Everything that makes a deconvnet hard: overlapping pools, ceil_mode, strides that leave a rest, groups, LRN."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 5, stride=3, padding=1), nn.ReLU(inplace=True), nn.LocalResponseNorm(5, alpha=0.9),
            nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(8, 10, 3, padding=1, groups=2), nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(4, alpha=2.0, beta=0.6, k=1.5),
            nn.Sequential(nn.Conv2d(10, 12, 3, padding=2, dilation=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 1, 1)),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, len(CLASSES)),
        )  # fmt: skip


def build(name: str) -> nn.Module:
    """Build a network with random weights, biases and statistics, the same every time."""
    options: dict[str, dict[str, Any]] = {
        "googlenet": {"aux_logits": False, "init_weights": False},
        "inception_v3": {"aux_logits": False, "init_weights": False},
        "vit_b_16": {"image_size": 64},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = Small() if name == "small" else models.get_model(name, weights=None, **options.get(name, {}))
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value in (module.weight, module.bias, module.running_mean, module.running_var):
                    nn.init.uniform_(value, 0.3, 1.3)
            elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                nn.init.uniform_(module.bias, -0.1, 0.1)
        if isinstance(body, models.VisionTransformer):
            nn.init.normal_(body.heads.head.weight)  # zeros at first, which no gradient passes
    return body.eval()


@pytest.fixture(scope="module")
def network(request: pytest.FixtureRequest) -> Net:
    size = (50, 56) if request.param == "small" else SIDE
    return Net(build(request.param).double(), size=size, name=request.param, **IMAGENET)


def on(*names: str) -> pytest.MarkDecorator:
    """Parametrise by network, so that each is built once for all tests."""
    return pytest.mark.parametrize("network", names, indirect=True)


def look_at(net: Net, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, *net.size, generator=generator, dtype=torch.float64)


def assert_same(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    scale = float(expected.abs().max())
    assert 0 < scale < torch.inf, "the expected map is empty: nothing is compared"
    assert float((found - expected).abs().max()) <= tolerance * scale


def differ(found: Tensor, other: Tensor) -> float:
    """The largest difference relative to the largest value."""
    return float((found - other).abs().max() / other.abs().max())


def one_hot(like: Tensor, *position: int) -> Tensor:
    seed = torch.zeros_like(like)
    seed[(slice(None), *position)] = 1
    return seed


UNITS = {
    "alexnet": [("features.3", 5, 2, 1), ("features.8", 40, 1, 2), ("features.12", 9, 0, 0)],
    "vgg11": [("features.8", 17, 7, 5), ("features.14", 30, 3, 1)],
    "small": [("4", 7, 1, 4), ("5", 7, 1, 4), ("8.0", 3, 2, 2), ("8.2", 0, 1, 0)],
}
STACKS = on(*UNITS)


@STACKS
def test_class_equals_the_explicit_stack(network: Net) -> None:
    pixels = look_at(network, 2)
    stack = ExplicitDeconvnet(network, pixels)
    torch.testing.assert_close(stack.activity, network(pixels), rtol=1e-9, atol=1e-12)
    for index in (0, 3):
        assert_same(
            deconvnet(network, pixels, as_objective(network, index)), stack.down(one_hot(stack.activity, index))
        )


@STACKS
def test_unit_equals_the_explicit_stack(network: Net) -> None:
    pixels = look_at(network, 2)
    for layer, channel, y, x in UNITS[network.name]:
        stack = ExplicitDeconvnet(network, pixels, upto=layer)
        found = deconvnet(network, pixels, as_objective(network, f"{layer}:{channel}@{y},{x}"))
        assert_same(found, stack.down(one_hot(stack.activity, channel, y, x)))


@STACKS
def test_isolated_activations_equal_the_explicit_stack(network: Net) -> None:
    """Zeiler & Fergus: all other activations of the layer are zero, the isolated one keeps its value."""
    pixels = look_at(network)
    for layer, *_ in UNITS[network.name]:
        stack = ExplicitDeconvnet(network, pixels, upto=layer)
        strongest = stack.activity[0].flatten(1).amax(1).topk(2).indices.tolist()
        positions = [(0, k, *divmod(int(stack.activity[0, k].argmax()), stack.activity.shape[3])) for k in strongest]
        seeds = [stack.activity[position] * one_hot(stack.activity, *position[1:]) for position in positions]
        found, report = project_down(network, pixels, network.layer(layer), lambda _, seeds=seeds: seeds)
        for projection, seed in zip(found, seeds, strict=True):
            assert_same(projection[None], stack.down(seed))
        assert re.fullmatch(r"(\d+) of \1 rectifiers rewritten", report) or report == "no rectifier on the way down"


@STACKS
def test_whole_layer_equals_the_explicit_stack(network: Net) -> None:
    pixels, (layer, *_) = look_at(network), UNITS[network.name][-1]
    stack = ExplicitDeconvnet(network, pixels, upto=layer)
    found, _ = project_down(network, pixels, network.layer(layer), lambda activity: [activity.clamp(min=0)])
    assert_same(found, stack.down(stack.activity.clamp(min=0)))


@on("alexnet", "small")
def test_shared_switches_add_up(network: Net) -> None:
    """I2: where pooling windows overlap, an unpooling that overwrites gives another projection."""
    pixels = look_at(network)
    stack = ExplicitDeconvnet(network, pixels)
    seed = one_hot(stack.activity, 3)
    found = deconvnet(network, pixels, as_objective(network, 3))
    assert differ(found, stack.down(seed)) < 1e-10
    assert differ(found, stack.down(seed, unpool_overwriting)) > 0.05


@on("vgg11")
def test_overwriting_is_the_same_where_windows_do_not_overlap(network: Net) -> None:
    pixels = look_at(network)
    stack = ExplicitDeconvnet(network, pixels)
    seed = one_hot(stack.activity, 3)
    assert_same(stack.down(seed, unpool_overwriting), stack.down(seed))


def test_normalisation_is_skipped() -> None:
    """Without skipping it, local response normalisation changes the projection."""
    net = Net(build("small").double(), size=50, **IMAGENET)
    pixels, objective = look_at(net), as_objective(net, 3)
    with relu_rule(rules.deconvnet):
        through = gradient_at_pixels(net, pixels, objective)
    assert differ(deconvnet(net, pixels, objective), through) > 0.01


@on(*WALKED)
def test_class_equals_a_walk_over_the_graph(network: Net) -> None:
    pixels = look_at(network)
    index = int(network(pixels).argmax())
    plain, count = walk_gradient(network, pixels, lambda output: output[:, index], "plain")
    assert count == RECTIFIERS.get(network.name, count) > 6
    for rule, method in METHODS.items():
        with listen() as remarks:
            found = method(network, pixels, as_objective(network, index))
        expected, _ = walk_gradient(network, pixels, lambda output: output[:, index], rule)
        assert_same(found, expected)
        assert differ(plain, expected) > 0.01
        assert f"{count} of {count} rectifiers rewritten" in remarks


UNDEFINED = {"efficientnet_b0": "SiLU", "mobilenet_v3_small": "hard swish", "vit_b_16": "GELU", "convnext_tiny": "GELU"}


@pytest.mark.parametrize("name", UNDEFINED)
def test_networks_without_a_deconvnet_say_so(name: str) -> None:
    net = Net(build(name), size=64, name=name, **IMAGENET)
    pixels = look_at(net).float()
    for method in METHODS.values():
        with pytest.raises(RuleError, match=f"uses {UNDEFINED[name]}, where .* is not defined.*saliency"):
            method(net, pixels, as_objective(net, 3))
    assert saliency(net, pixels, as_objective(net, 3)).max() > 0


CAPTUM = {"deconvnet": Deconvolution, "guided": GuidedBackprop}


def captum(rule: str, net: Net, pixels: Tensor, index: int) -> Tensor:
    return CAPTUM[rule](net).attribute(pixels.clone().requires_grad_(), target=index).detach()


@pytest.mark.parametrize("rule", METHODS)
@on("alexnet", "vgg11", "resnet18")
def test_class_equals_captum_where_rectifiers_are_modules(network: Net, rule: str) -> None:
    pixels = look_at(network)
    index = int(network(pixels).argmax())
    assert_same(METHODS[rule](network, pixels, as_objective(network, index)), captum(rule, network, pixels, index))


@pytest.mark.parametrize("rule", METHODS)
@on("googlenet")
def test_captum_returns_the_plain_gradient_where_rectifiers_are_functions(network: Net, rule: Any) -> None:
    """Why this package exists: hooks on modules do not see F.relu, and nobody is told."""
    pixels = look_at(network)
    index = int(network(pixels).argmax())
    plain = gradient(network, pixels, as_objective(network, index))
    expected, _ = walk_gradient(network, pixels, lambda output: output[:, index], rule)
    assert_same(captum(rule, network, pixels, index), plain)
    assert differ(plain, expected) > 0.1
    assert_same(METHODS[rule](network, pixels, as_objective(network, index)), expected)


@pytest.mark.parametrize("rule", METHODS)
@on("densenet121")
def test_captum_is_wrong_where_one_rectifier_is_a_function(network: Net, rule: Any) -> None:
    pixels = look_at(network)
    index = int(network(pixels).argmax())
    expected, _ = walk_gradient(network, pixels, lambda output: output[:, index], rule)
    assert differ(captum(rule, network, pixels, index), expected) > 0.01
    assert_same(METHODS[rule](network, pixels, as_objective(network, index)), expected)


def test_without_rectifiers_it_is_the_gradient() -> None:
    """I3."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 2), nn.Flatten(), nn.Linear(36, 5))
    net, pixels = Net(body.double().eval(), size=20), pictures()
    with listen() as remarks:
        found = deconvnet(net, pixels, as_objective(net, 1))
    assert_same(found, gradient(net, pixels, as_objective(net, 1)))
    assert "no rectifier on the way down" in remarks


@on("alexnet")
def test_homogeneous_but_not_additive(network: Net) -> None:
    """I5: D(c a) = c D(a) for c > 0; D(a + b) is D(a) + D(b) only where the projections do not overlap."""
    pixels, layer = look_at(network), network.layer("features.4")

    def project(*units: tuple[int, int, int], factor: float = 1.0) -> Tensor:
        def seeds(activity: Tensor) -> list[Tensor]:
            seed = torch.zeros_like(activity)
            for unit in units:
                seed[0][unit] = factor
            return [seed]

        return project_down(network, pixels, layer, seeds)[0]

    a, b, far = (3, 0, 0), (8, 0, 0), (8, 7, 7)
    assert_same(project(a, factor=7.5), 7.5 * project(a))
    assert differ(project(a, b), project(a) + project(b)) > 0.05
    assert not (project(a)[0].abs().sum(0) * project(far)[0].abs().sum(0)).any()
    assert_same(project(a, far), project(a) + project(far))


FIELDS = {
    "alexnet": ["features.0", "features.4", "features.8"],
    "resnet18": ["maxpool", "layer1.0", "layer2.0.conv1"],
    "googlenet": ["maxpool1", "conv3", "inception3a"],
    "small": ["3", "6", "8"],
}


@pytest.mark.parametrize("method", [deconvnet, guided_backprop, gradient])
@on(*FIELDS)
def test_nothing_outside_the_receptive_field(network: Net, method: Any) -> None:
    """I6."""
    pixels, boxes = look_at(network), 0
    for name in FIELDS[network.name]:
        layer = network.layer(name)
        activity = tap(network, pixels, [name])[name][0].detach()
        channel = int(activity.flatten(1).amax(1).argmax())
        strongest = divmod(int(activity[channel].argmax()), layer.shape[2])
        for y, x in {strongest, (layer.shape[1] // 2, layer.shape[2] // 2), (0, layer.shape[2] - 1)}:
            found = method(network, pixels, as_objective(network, f"{name}:{channel}@{y},{x}"))
            top, left, bottom, right = layer.field.box((y, x), network.size)
            assert (y, x) != strongest or found[:, :, top:bottom, left:right].abs().sum() > 0
            found[:, :, top:bottom, left:right] = 0
            assert not found.any()
            boxes += bottom - top < network.size[0] and right - left < network.size[1]
    assert boxes > 3, "every field is the whole picture: nothing is tested"


def one_rectifier(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 18 * 18, 5))
    return Net(body.double().eval(), size=20)


def test_one_rectifier_below_a_positive_seed() -> None:
    """I7: on active units all three rules agree; on silent units only the deconvnet answers."""
    net, pixels = one_rectifier(), pictures(1)
    activity = tap(net, pixels, ["1"])["1"][0, 2]
    active, silent = (divmod(int(i), 18) for i in (activity.argmax(), activity.argmin()))
    assert activity[silent] == 0 < activity[active]
    maps = {}
    for name, (y, x) in (("active", active), ("silent", silent)):
        objective = as_objective(net, f"1:2@{y},{x}")
        maps[name] = [method(net, pixels, objective) for method in (gradient, guided_backprop, deconvnet)]
    assert_same(maps["active"][1], maps["active"][0])
    assert_same(maps["active"][2], maps["active"][0])
    assert not maps["silent"][0].any() and not maps["silent"][1].any()
    assert maps["silent"][2].any()


def test_guided_is_not_a_product_of_maps() -> None:
    """I8: the two masks act at every rectifier, not once at the end."""
    net, pixels = tiny("sequential"), pictures(1)
    objective = as_objective(net, 2)
    masked = deconvnet(net, pixels, objective) * (gradient(net, pixels, objective) != 0)
    assert differ(masked, guided_backprop(net, pixels, objective)) > 0.05


@on("alexnet", "small")
def test_every_filter_is_given_a_rectified_signal(network: Net) -> None:
    """I9: what reaches a convolution's transposed filters is never negative; the pixels below are signed."""
    pixels, arrived = look_at(network), {}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            output.register_hook(lambda grad: arrived.update({name: grad}))

        return hook

    convolutions = {name: m for name, m in network.body.named_modules() if isinstance(m, nn.Conv2d)}
    handles = [module.register_forward_hook(watch(name)) for name, module in convolutions.items()]
    found = deconvnet(network, pixels, as_objective(network, 3))
    for handle in handles:
        handle.remove()
    stack = ExplicitDeconvnet(network, pixels)
    stack.down(one_hot(stack.activity, 3))
    assert len(arrived) == len(convolutions) == len(stack.filtered) > 2
    for signal, expected in zip(reversed(arrived.values()), reversed(stack.filtered), strict=True):
        assert signal.min() >= 0
        assert_same(signal, expected)
    assert found.min() < 0 < found.max()


def test_depends_on_the_picture_by_switches_only() -> None:
    """I10: other biases and another picture that leave every maximum where it was leave the projection as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.MaxPool2d(3, 2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(8 * 6 * 6, 5),
        ).double().eval()  # fmt: skip
        other = copy.deepcopy(body)
        for module in (other[0], other[3], other[6]):
            nn.init.uniform_(module.bias, -1, 1)
    net, changed, pixels = Net(body, size=20), Net(other, size=20), pictures(1) / 2
    expected, grad = deconvnet(net, pixels, as_objective(net, 1)), gradient(net, pixels, as_objective(net, 1))
    for other_net, other_pixels in ((changed, pixels), (net, 2 * pixels), (changed, 1.5 * pixels + 0.1)):
        assert_same(deconvnet(other_net, other_pixels, as_objective(net, 1)), expected)
        assert differ(gradient(other_net, other_pixels, as_objective(net, 1)), grad) > 0.01
    assert differ(deconvnet(net, pixels.flip(3), as_objective(net, 1)), expected) > 0.01


@on("small")
def test_a_unit_does_not_depend_on_the_layers_above(network: Net) -> None:
    """I12."""
    body = copy.deepcopy(network.body)
    for name in ("8.0", "11", "14"):
        for value in body.get_submodule(name).parameters():
            nn.init.normal_(value)
    pixels, other, of = look_at(network), Net(body, size=network.size, **IMAGENET), "6:7@1,3"
    torch.testing.assert_close(
        deconvnet(network, pixels, as_objective(network, of)),
        deconvnet(other, pixels, as_objective(other, of)),
        rtol=0,
        atol=0,
    )
    assert (
        differ(deconvnet(network, pixels, as_objective(network, 1)), deconvnet(other, pixels, as_objective(other, 1)))
        > 0.1
    )


CORNERS = list(itertools.product((True, False), repeat=4))


@pytest.mark.parametrize(("mask", "switches", "rectify", "lrn"), CORNERS)
@on("small")
def test_every_corner_of_the_cube_equals_the_explicit_stack(
    network: Net, mask: bool, switches: bool, rectify: bool, lrn: bool
) -> None:
    """Mahendran & Vedaldi; overlapping and padded windows, ceil_mode, normalisation over odd and even numbers."""
    pixels = look_at(network, 2)
    stack, corner = ExplicitDeconvnet(network, pixels), Corner(mask, switches, rectify, lrn)
    for index in (0, 3):
        found = backward(
            network, pixels, as_objective(network, index), mask=mask, switches=switches, rectify=rectify, lrn=lrn
        )
        assert_same(found, stack.down(one_hot(stack.activity, index), corner=corner))


@on("small")
def test_corners_differ(network: Net) -> None:
    pixels = look_at(network)
    maps = [
        backward(network, pixels, as_objective(network, 3), mask=a, switches=b, rectify=c, lrn=d)
        for a, b, c, d in CORNERS
    ]
    for one, other in itertools.combinations(maps, 2):
        assert differ(one, other) > 0.005


@on("small", "alexnet")
def test_named_methods_are_corners(network: Net) -> None:
    pixels, of = look_at(network), as_objective(network, 3)
    named = {
        gradient: {},
        deconvnet: {"mask": False, "rectify": True, "lrn": False},
        guided_backprop: {"rectify": True},
    }
    for method, options in named.items():
        torch.testing.assert_close(
            backward(network, pixels, of, **options), method(network, pixels, of), rtol=0, atol=0
        )
    plain = saliency(network, pixels, of)
    torch.testing.assert_close(backward(network, pixels, of).abs().amax(1, keepdim=True), plain, rtol=0, atol=0)


def pooled(pool: nn.Module, side: int, seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        conv = nn.Conv2d(3, 4, 3, padding=1)
        count = pool(conv(torch.zeros(1, 3, side, side))).numel()
        body = nn.Sequential(conv, nn.ReLU(), pool, nn.Flatten(), nn.Linear(count, 3))
    return Net(body.double().eval(), size=side)


@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.one_of(st.none(), st.tuples(st.integers(1, 4), st.integers(1, 4))),
    pad=st.integers(0, 2),
    dilation=st.integers(1, 2),
    ceil=st.booleans(),
    side=st.integers(9, 13),
)
def test_the_middle_of_every_kind_of_window(
    kernel: tuple[int, int], stride: tuple[int, int] | None, pad: int, dilation: int, ceil: bool, side: int
) -> None:
    """Odd and even, overlapping and apart, hanging over the border, with holes."""
    padding = (min(pad, kernel[0] // 2), min(pad, kernel[1] // 2))
    net = pooled(nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil), side)
    pixels = pictures(1, side=side)
    stack = ExplicitDeconvnet(net, pixels)
    found = backward(net, pixels, as_objective(net, 1), switches=False)
    assert_same(found, stack.down(one_hot(stack.activity, 1), unpool_adding, Corner(True, False, False, True)))


@pytest.mark.parametrize("size", [1, 2, 3, 5, (2, 4), 11])
def test_adaptive_windows_have_a_middle_too(size: Any) -> None:
    net, pixels = pooled(nn.AdaptiveMaxPool2d(size), 11), pictures(2, side=11)
    stack = ExplicitDeconvnet(net, pixels)
    with listen() as remarks:
        found = backward(net, pixels, as_objective(net, 1), switches=False, rectify=True)
    assert_same(found, stack.down(one_hot(stack.activity, 1), unpool_adding, Corner(True, False, True, True)))
    assert "1 of 1 rectifiers rewritten; 1 max pooling sends the signal to the windows' middle" in remarks


def test_the_middle_is_where_the_docstring_says() -> None:
    """Of four the upper left of the middle; without switches the picture does not matter."""
    net = Net(nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.MaxPool2d(4), nn.Flatten()).double(), size=8)
    for seed in range(3):
        found = backward(net, pictures(1, side=8, seed=seed), as_objective(net, 1), switches=False)
        assert found.abs().sum((0, 1)).nonzero().tolist() == [[1, 5]]


class Calls(nn.Module):
    """A maximum written as one likes."""

    def __init__(self, maximum: Any) -> None:
        super().__init__()
        self.maximum = maximum

    def forward(self, x: Tensor) -> Tensor:
        return self.maximum(x)


def _hidden(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        return F.max_pool2d(x, 3, 2)


SPELLED: dict[str, Any] = {
    "function": lambda x: F.max_pool2d(x, 3, 2),
    "keywords": lambda x: F.max_pool2d(input=x, kernel_size=3, stride=2),
    "torch": lambda x: torch.max_pool2d(x, 3, 2),
    "dispatch": lambda x: torch.ops.aten.max_pool2d(x, [3, 3], [2, 2]),
    "module": nn.MaxPool2d(3, 2),
    "in place afterwards": lambda x: F.relu_(F.max_pool2d(x, 3, 2)),
    "in place before": lambda x: F.max_pool2d(x.clone().mul_(1), 3, 2),
}
UNKNOWN: dict[str, Any] = {
    "with indices": lambda x: F.max_pool2d(x, 3, 2, return_indices=True)[0],
    "one dimension": lambda x: F.max_pool1d(x.flatten(2), 3, 2),
    "three dimensions": lambda x: F.max_pool3d(x, (1, 3, 3), (1, 2, 2)),
    "fractional": lambda x: F.fractional_max_pool2d(x, 2, output_size=5),
    "amax": lambda x: x.amax((2, 3)),
    "max": lambda x: x.flatten(2).max(2).values,
    "maximum": lambda x: torch.maximum(x[:, :, ::2], x[:, :, 1::2]),
    "unfolded": lambda x: x.unfold(2, 3, 2).amax(-1),
    "scripted": torch.jit.script(nn.MaxPool2d(3, 2)),
    "without torch functions": _hidden,
}


@pytest.mark.parametrize("spelling", SPELLED)
def test_every_spelling_of_max_pooling_is_sent_to_the_middle(spelling: str) -> None:
    net, usual = (pooled(Calls(SPELLED[name]), 12) for name in (spelling, "module"))
    pixels = pictures(1, side=12)
    expected = backward(usual, pixels, as_objective(net, 1), switches=False)
    assert_same(backward(net, pixels, as_objective(net, 1), switches=False), expected)
    assert differ(gradient(net, pixels, as_objective(net, 1)), expected) > 0.1
    torch.testing.assert_close(net(pixels), usual(pixels), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spelling", UNKNOWN)
def test_a_maximum_without_known_windows_is_refused(spelling: str) -> None:
    net, pixels = pooled(Calls(UNKNOWN[spelling]), 12), pictures(1, side=12)
    for options in ({}, {"mask": False}, {"rectify": True}):
        with pytest.raises(RuleError):
            backward(net, pixels, as_objective(net, 1), switches=False, **options)
    assert backward(net, pixels, as_objective(net, 1)).any()


def test_the_true_mask_serves_any_activation() -> None:
    """With the gradient's own mask an activation need not be a rectifier; with another it must."""
    net, pixels = pooled(nn.Sequential(nn.SiLU(), nn.MaxPool2d(3, 2)), 12), pictures(1, side=12)
    assert backward(net, pixels, as_objective(net, 1), switches=False).any()
    assert backward(net, pixels, as_objective(net, 1), lrn=False).any()
    for options in ({"mask": False}, {"rectify": True}):
        with pytest.raises(RuleError, match="uses SiLU"):
            backward(net, pixels, as_objective(net, 1), **options)


def test_no_pooling_on_the_way_is_said() -> None:
    net, pixels = tiny("residual"), pictures(1)
    with listen() as remarks:
        found = backward(net, pixels, as_objective(net, 1), switches=False)
    assert_same(found, gradient(net, pixels, as_objective(net, 1)))
    assert "no max pooling on the way down, so switches make no difference" in remarks
    assert "mask: yes · switches: no · rectify: no · lrn: yes" in remarks


@on("alexnet", "small")
def test_guided_grad_cam_is_the_product(network: Net) -> None:
    pixels = look_at(network, 2)
    of = as_objective(network, int(network(pixels)[0].argmax()))
    for layer in (None, network.layer(2).name):
        cam = grad_cam(network, pixels, of, layer=layer)
        assert cam[0].any()
        assert_same(guided_grad_cam(network, pixels, of, layer=layer), cam * guided_backprop(network, pixels, of))


def test_guided_grad_cam_equals_captum_where_grids_agree() -> None:
    """2x2 pooling puts its units where an even stretch of the grid does."""
    torch.manual_seed(1)
    body = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    net, pixels = Net(body.double().eval(), size=16), pictures(1, side=16)
    index = int(net(pixels).argmax())
    expected = GuidedGradCam(net, body[4]).attribute(
        pixels.clone().requires_grad_(), target=index, interpolate_mode="bilinear"
    )
    assert_same(guided_grad_cam(net, pixels, as_objective(net, index), layer="4"), expected.detach(), 1e-8)


def test_guided_grad_cam_without_anything_says_so() -> None:
    net, pixels = tiny("sequential"), pictures(1)
    with torch.no_grad():
        net.body[3].bias.fill_(-1e3)
    with listen() as remarks:
        found = guided_grad_cam(net, pixels, as_objective(net, 1))
    assert not found.any() and any("zero everywhere" in remark for remark in remarks)
