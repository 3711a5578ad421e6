"""Grad-CAM: right beside in-place operations, exact where a closed form exists, and fuse over the right pixels."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from convscope import Net, as_objective
from convscope.attribution.cam import grad_cam
from convscope.attribution.cam_layers import activities_and_gradients, upsample
from convscope.attribution.gradient import gradient
from convscope.attribution.places import places_by_field, stretched
from convscope.context import listen
from convscope.errors import LayerError, OptionError
from convscope.geometry import Axis, Field
from convscope.layers import last_spatial_layer
from convscope.objectives import Objective
from convscope.tapping import tap
from convscope.tracing import Layer

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SIZE = (70, 88)
INDEX = 3


def torchvision_body(name: str, **options: Any) -> nn.Module:
    """Build a network with random weights and statistics, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = models.get_model(name, weights=None, **options)
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value in (module.weight, module.bias, module.running_mean, module.running_var):
                    nn.init.uniform_(value, 0.3, 1.3)
    return body.eval()


@pytest.fixture(scope="module")
def network(request: pytest.FixtureRequest) -> Net:
    return Net(torchvision_body(request.param).double(), size=SIZE, name=request.param, **IMAGENET)


def look_at(net: Net, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, net.channels, *net.size, generator=generator, dtype=torch.float64)


def activity_and_slope(net: Net, pixels: Tensor, of: Objective, layer: Layer) -> tuple[Tensor, Tensor]:
    (cam_inputs,) = activities_and_gradients(net, pixels, of, [layer])
    return cam_inputs.activity, cam_inputs.gradient


def by_hand(net: Net, pixels: Tensor, layer: str, index: int) -> tuple[Tensor, Tensor]:
    """A copy without in-place rectifiers, a hook that lets nothing touch what it keeps, and plain autograd."""
    body, kept = copy.deepcopy(net.body), []
    for module in body.modules():
        if hasattr(module, "inplace"):
            module.inplace = False

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    body.get_submodule(layer).register_forward_hook(keep)
    mean, std = (pixels.new_tensor(IMAGENET[key]).view(3, 1, 1) for key in ("mean", "std"))
    score = body(((pixels - mean) / std).requires_grad_())[:, index].sum()
    (grad,) = torch.autograd.grad(score, kept[0])
    return kept[0].detach(), grad


def weighed(activity: Tensor, grad: Tensor) -> Tensor:
    """Grad-CAM's sum over channels in loops, before the rectifier (arXiv:1610.02391, eq. 1 and 2)."""
    maps = []
    for one, grads in zip(activity, grad, strict=True):
        total = torch.zeros_like(one[0])
        for channel, gradient_ in zip(one, grads, strict=True):
            total += gradient_.sum() / gradient_.numel() * channel
        maps.append(total)
    return torch.stack(maps)[:, None]


CASES = [
    ("alexnet", "features.10"),
    ("alexnet", "features.3"),
    ("resnet18", "layer4.1.bn2"),
    ("resnet18", "layer2.0.downsample.1"),
    ("resnet18", "layer4"),
    ("densenet121", "features"),
]


@pytest.mark.parametrize(("network", "layer"), CASES, indirect=["network"])
def test_equals_plain_autograd_without_in_place_operations(network: Net, layer: str) -> None:
    pixels = look_at(network, 2)
    activity, grad = by_hand(network, pixels, layer, INDEX)
    sign = 1.0 if weighed(activity, grad).amax() > 0 else -1.0
    objective = sign * as_objective(network, INDEX)
    found = activity_and_slope(network, pixels, objective, network.layer(layer))
    torch.testing.assert_close(found[0], activity, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(sign * found[1], grad, rtol=1e-9, atol=1e-9 * float(grad.abs().max()))
    grid = weighed(activity, sign * grad).clamp(min=0)
    assert grid.amax((1, 2, 3)).min() > 0
    expected = F.interpolate(grid, size=SIZE, mode="bilinear", align_corners=False)
    whole = grad_cam(network, pixels, objective, layer=layer, align="stretch")
    torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-9 * float(expected.max()))


@pytest.mark.parametrize("network", ["alexnet"], indirect=True)
def test_a_plain_hook_would_have_read_the_rectified_layer(network: Net) -> None:
    """What makes the cases above hard: the rectifier that follows works on the same memory (F1)."""
    kept: list[Tensor] = []
    handle = network.body.get_submodule("features.10").register_forward_hook(lambda _, __, out: kept.append(out))
    network(look_at(network))
    handle.remove()
    activity, _ = activity_and_slope(
        network, look_at(network), as_objective(network, INDEX), network.layer("features.10")
    )
    assert activity.min() < 0 <= kept[0].min()
    torch.testing.assert_close(kept[0].detach(), activity.clamp(min=0))


@pytest.mark.parametrize("network", ["alexnet"], indirect=True)
def test_an_objective_of_two_layers_reads_both_before_the_rectifiers(network: Net) -> None:
    """The unit is one that the rectifier behind it silences: what is read must not be what that leaves."""
    pixels, below = look_at(network), network.layer("features.6")
    activity = tap(network, pixels, ["features.8"])["features.8"][0, 40]
    y, x = divmod(int(activity.argmin()), activity.shape[1])
    assert activity[y, x] < 0
    unit, either = as_objective(network, f"features.8:40@{y},{x}"), as_objective(network, INDEX)
    grads = [activity_and_slope(network, pixels, of, below)[1] for of in (unit, either, 50 * unit + either)]
    assert grads[0].any() and grads[1].any()
    torch.testing.assert_close(grads[2], 50 * grads[0] + grads[1], rtol=1e-9, atol=1e-15)


def test_default_layers() -> None:
    expected = {
        "alexnet": "features.11",
        "vgg16": "features.29",
        "resnet18": "layer4",
        "googlenet": "inception5b",
        "squeezenet1_0": "classifier.2",
        "densenet121": "features",
        "mobilenet_v2": "features",
    }
    found = {}
    for name in expected:
        with torch.device("meta"):
            options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
            found[name] = last_spatial_layer(Net(models.get_model(name, weights=None, **options).eval())).name
    assert found == expected


class Pooled(nn.Sequential):
    """Convolutions, global average pooling and a linear layer: the network of the first class activation maps."""

    def __init__(self, sign: float | None = None) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )  # fmt: skip
        if sign is not None:
            nn.init.constant_(self[6].weight, sign)


def pooled(sign: float | None = None) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(Pooled(sign).double().eval(), size=(24, 30), **IMAGENET)


def test_closed_form_behind_global_average_pooling() -> None:
    """I21: Z times Grad-CAM before its rectifier is CAM, and its sum plus the bias is the score."""
    net = pooled()
    pixels, body = look_at(net, 3), net.body
    activity, grad = activity_and_slope(net, pixels, as_objective(net, INDEX), net.layer("3"))
    z = activity[0, 0].numel()
    cam = torch.einsum("k,nkyx->nyx", body[6].weight[INDEX], activity)[:, None].detach()
    grad = (grad.mean((2, 3), keepdim=True) * activity).sum(1, keepdim=True)
    torch.testing.assert_close(grad * z, cam, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(grad.sum((1, 2, 3)) + body[6].bias[INDEX], net(pixels)[:, INDEX], rtol=1e-12, atol=0)
    expected = F.interpolate(cam.clamp(min=0) / z, size=net.size, mode="bilinear", align_corners=False)
    found = grad_cam(net, pixels, as_objective(net, INDEX), layer="3", align="stretch")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


def test_a_map_without_anything_positive_says_so() -> None:
    net = pooled(sign=-1.0)
    with listen() as remarks:
        map_ = grad_cam(net, look_at(net), as_objective(net, INDEX), layer="3")
    assert map_.shape == (1, 1, 24, 30) and not map_.any() and torch.isfinite(map_).all()
    assert any("no positive evidence in this layer" in remark for remark in remarks)
    with listen() as remarks:
        assert grad_cam(net, look_at(net), -as_objective(net, INDEX), layer="3").any()
    assert not any("no positive evidence" in remark for remark in remarks)


def test_layers_that_cannot_be_weighed_are_refused() -> None:
    net = pooled()
    objective, unit = as_objective(net, INDEX), as_objective(net, "0:2@3,4")
    pixels = look_at(net)
    with pytest.raises(LayerError, match=r"does not depend on layer '3'.*runs before"):
        grad_cam(net, pixels, unit, layer="3")
    for layer in ("5", "6", ""):
        with pytest.raises(LayerError, match="without spatial positions"):
            grad_cam(net, pixels, objective, layer=layer)
    with pytest.raises(LayerError, match="no layer 'conv'"):
        grad_cam(net, pixels, objective, layer="conv")
    with pytest.raises(LayerError, match="no late layer with spatial positions"):
        flat = Net(nn.Sequential(nn.Flatten(), nn.Linear(27, 5)).double(), size=3)
        grad_cam(flat, look_at(flat), as_objective(flat, INDEX))
    with pytest.raises(OptionError, match="'field' or 'stretch', not 'corner'"):
        grad_cam(net, pixels, objective, align="corner")  # type: ignore[arg-type]


def nodes(root: Any) -> Iterator[str]:
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node.name()
            waiting += [following for following, _ in node.next_functions]


@pytest.mark.parametrize(
    ("network", "layer", "convolutions"),
    [("alexnet", "features.8", 1), ("resnet18", "layer4.0", 2), ("resnet18", "layer3", 5)],
    indirect=["network"],
)
def test_nothing_is_computed_below_the_layer(
    network: Net, layer: str, convolutions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph begins at the layer: its activity is a leaf, and only the convolutions above it are in the graph."""
    graphs: list[list[str]] = []
    true_grad = torch.autograd.grad

    def watched(outputs: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        (leaf,) = inputs
        assert leaf.is_leaf and leaf.grad_fn is None
        graphs.append(list(nodes(outputs.grad_fn)))
        return true_grad(outputs, inputs, *args, **options)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    pixels = look_at(network)
    grad_cam(network, pixels, as_objective(network, INDEX), layer=layer)
    assert [sum("Convolution" in name for name in graph) for graph in graphs] == [convolutions]
    assert not pixels.requires_grad and pixels.grad is None
    readings = tap(network, pixels, [layer, ""], leaf=layer)
    assert readings[layer].is_leaf and readings[layer].requires_grad and readings[""].requires_grad


def layer_of(field: Field, shape: tuple[int, int, int]) -> Layer:
    return Layer("x", "Conv2d", shape, field, 0, torch.nn.Identity())


@pytest.mark.parametrize(("step", "centre"), [(1, 0), (4, 0), (4, 3), (8, 7), (5, -2), (3, 9)])
def test_each_unit_lies_at_the_middle_of_its_field(step: int, centre: int) -> None:
    field = Field(Axis(step=step, centre=centre), Axis(step=2 * step, centre=centre + 1))
    grid = torch.rand(2, 1, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pixels = torch.zeros(2, 3, 53, 61)
    map_ = upsample(grid, places_by_field(layer_of(field, (1, 7, 5))), pixels)
    assert map_.shape == (2, 1, 53, 61)
    inside = 0
    for i in range(7):
        for j in range(5):
            y, x = centre + i * step, centre + 1 + 2 * j * step
            if 0 <= y < 53 and 0 <= x < 61:
                torch.testing.assert_close(map_[..., y, x], grid[..., i, j], rtol=1e-12, atol=0)
                inside += 1
    assert inside > 8
    last = min(52, centre + 6 * step)
    torch.testing.assert_close(map_[..., last:, :], map_[..., last : last + 1, :].expand_as(map_[..., last:, :]))


def test_halfway_between_two_units_lies_their_mean() -> None:
    grid = torch.tensor([[[[1.0, 3.0, -2.0]]]], dtype=torch.float64)
    field = Field(Axis(), Axis(step=4, centre=1))
    map_ = upsample(grid, places_by_field(layer_of(field, (1, 1, 3))), torch.zeros(1, 3, 1, 12))
    expected = torch.tensor([1, 1, 1.5, 2, 2.5, 3, 1.75, 0.5, -0.75, -2, -2, -2], dtype=torch.float64)
    torch.testing.assert_close(map_[0, 0, 0], expected)


@pytest.mark.parametrize("extent", [(7, 5), (30, 41), (224, 199)])
def test_stretched_as_torch_interpolates(extent: tuple[int, int]) -> None:
    grid = torch.randn(2, 1, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = upsample(grid, stretched(layer_of(Field(), (1, 7, 5)), extent), torch.zeros(2, 3, *extent))
    torch.testing.assert_close(found, F.interpolate(grid, size=extent, mode="bilinear", align_corners=False))


def energy_centre(net: Net, pixels: Tensor, layer: str, position: tuple[int, int]) -> tuple[float, float]:
    """The centre of mass of the input gradient's magnitude, for some channels at one place of a layer."""
    y, x = position
    terms = [term for k in range(8) for term in as_objective(net, f"{layer}:{k}@{y},{x}").terms]
    energy = gradient(net, pixels, Objective(tuple(terms))).abs().sum((0, 1))
    return tuple(float((energy.sum(1 - d) * torch.arange(energy.shape[d])).sum() / energy.sum()) for d in (0, 1))


@pytest.mark.parametrize(
    ("name", "layer", "side", "options"),
    [
        ("resnet18", "layer3", 272, {}),
        ("resnet18", "layer4", 512, {}),
        ("googlenet", "inception4e", 320, {"aux_logits": False, "init_weights": False}),
        ("googlenet", "inception4e", 320, {"aux_logits": False, "init_weights": False, "transform_input": True}),
        ("alexnet", "features.11", 231, {}),
    ],
)
def test_units_see_where_their_field_is_not_where_a_stretched_grid_puts_them(
    name: str, layer: str, side: int, options: Any
) -> None:
    """Measured, not derived: which pixels move a unit in the middle of the picture."""
    torch.manual_seed(0)
    net = Net(models.get_model(name, weights=None, **options).eval(), size=side, **IMAGENET)
    units = net.layer(layer).shape[1]
    field = net.layer(layer).field
    pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    middle = units // 2
    near, far = [], []
    for position in ((middle - 1, middle - 1), (middle, middle - 1), (middle, middle + 1)):
        centre = energy_centre(net, pixels, layer, position)
        for axis, index, found in zip((field.y, field.x), position, centre, strict=True):
            near.append(abs(axis.centre + index * axis.step - found))
            far.append(abs((index + 0.5) * side / units - 0.5 - found))
    print(f"{name} {layer}: {sum(near) / 6:.2f} px from the field's middle, {sum(far) / 6:.2f} from the stretched grid")
    assert max(near) < 0.1 * field.y.step + 1
    assert sum(near) < sum(far) if name == "alexnet" else max(near) < min(far)


def test_a_default_map_is_laid_by_the_field() -> None:
    net = pooled()
    pixels, objective = look_at(net), as_objective(net, INDEX)
    found = {align: grad_cam(net, pixels, objective, layer="3", align=align) for align in ("field", "stretch")}
    torch.testing.assert_close(grad_cam(net, pixels, objective, layer="3"), found["field"], rtol=0, atol=0)
    assert not torch.allclose(found["field"], found["stretch"])


class Reshaped(nn.Module):
    """A grid that no receptive field can be followed to."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).flatten(2)
        x = self.b(torch.cumsum(y, 2).unflatten(2, (6, 6)))
        return self.head(F.relu(x).mean((2, 3)))


def test_a_grid_of_unknown_fields_still_covers_the_picture() -> None:
    torch.manual_seed(0)
    net = Net(Reshaped().double(), size=24)
    pixels, layer = look_at(net), net.layer("b")
    grid = torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    for position in ((0, 0), (2, 4), (5, 5)):
        grid.zero_()[0, 0][position] = 1
        y, x = divmod(int(upsample(grid, places_by_field(layer), pixels).argmax()), 24)
        assert abs(y - (4 * position[0] + 1.5)) < 2 and abs(x - (4 * position[1] + 1.5)) < 2
