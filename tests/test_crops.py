"""Projections from crops: the same as from whole pictures, on any network, wherever the unit lies."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from architectures import MORE_MOVES, architectures
from convscope import Net, attribute, load
from convscope.atlas.cropping import Cropping
from convscope.atlas.crops import Method, Projected, Spot, project_spots
from convscope.errors import ConvscopeError, LayerError, NetworkError, OptionError
from convscope.tracing import Layer
from networks import RANDOM, TINY, pictures, tiny

ORACLE: dict[Method, str] = {"deconvnet": "deconvnet", "guided": "guided_backprop", "gradient": "gradient"}
WHOLE = "computed from whole pictures: "


def drawn_spots(layer: Layer, count: int, images: int, draw: random.Random) -> list[Spot]:
    """Units at places of a layer, about half of them at a border."""

    def along(extent: int) -> int:
        return draw.choice([0, extent - 1, draw.randrange(extent), draw.randrange(extent)])

    return [Spot(draw.randrange(images), draw.randrange(layer.shape[0]), *map(along, layer.grid)) for _ in range(count)]


def in_full(net: Net, layer: Layer, spot: Spot, images: Tensor, method: Method) -> Tensor:
    """The oracle: one pass over the whole picture."""
    pixels = images[spot.picture : spot.picture + 1]
    return attribute(net, pixels, ORACLE[method], of=f"{layer.name}:{spot.unit}@{spot.y},{spot.x}")[0]


def distance(net: Net, layer: Layer, spot: Spot, images: Tensor, method: Method, projected: Projected) -> float:
    """How far a projection lies from the oracle's, of its largest value; pixels and box are checked exactly."""
    top, left, bottom, right = projected.box
    assert torch.equal(projected.pixels, images[spot.picture, :, top:bottom, left:right])
    full = in_full(net, layer, spot, images, method)
    if not any("reads the whole picture" in remark for remark in projected.remarks):
        outside = full.clone()
        outside[:, top:bottom, left:right] = 0
        assert not outside.any()
    return float(
        (projected.projection - full[:, top:bottom, left:right]).abs().max() / full.abs().max().clamp(min=1e-30)
    )


def check(net: Net, layer: Layer, images: Tensor, count: int, method: Method, seed: int = 0) -> set[str]:
    """Compare projections with the oracle to 1e-9, and return the remarks."""
    spots = drawn_spots(layer, count, len(images), random.Random(seed))
    found = project_spots(net, layer.name, spots, lambda number: images[number : number + 1], method)
    for spot, projected in zip(spots, found, strict=True):
        assert distance(net, layer, spot, images, method, projected) <= 1e-9, (layer, spot, projected.box)
    return {remark for projected in found for remark in projected.remarks}


def on_architectures(examples: int) -> Counter[str]:
    """Draw networks, check a layer of each, and count how often crops were used, or why not."""
    ways: Counter[str] = Counter()

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(architectures(MORE_MOVES), st.integers(0, 99), st.integers(24, 60), st.integers(24, 60))
    def on_one(drawn: tuple[nn.Module, tuple[int, int]], seed: int, height: int, width: int) -> None:
        body, own = drawn
        # A head that reads one size allows larger pictures up to the layer.
        net = Net(body, mean=0.4, std=0.3, size=own, channels=3)
        body.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        net = Net(body, mean=0.4, std=0.3, size=(height, width), channels=3)
        try:
            layers = [layer for layer in net.layers.values() if layer.spatial and layer.leaf and layer.reads_picture]
        except ConvscopeError:  # a layer that reads one size only
            return
        if layers:
            images = torch.rand(2, 3, height, width, dtype=torch.float64)
            remarks = check(net, random.Random(seed).choice(layers), images, 5, "gradient", seed)
            ways[next((remark for remark in remarks if WHOLE in remark), "crops")] += 1

    on_one()
    return ways


def test_equals_whole_pictures_on_any_architecture() -> None:
    ways = on_architectures(5)
    assert ways["crops"] >= 0.4 * ways.total(), ways


@pytest.mark.nightly
def test_equals_whole_pictures_on_a_thousand_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    ways = on_architectures(1000)
    with capsys.disabled():
        print(f"\n{ways.total()} layers: {ways}")
    assert ways["crops"] >= 0.4 * ways.total(), ways


@pytest.mark.parametrize("kind", TINY)
def test_every_method_on_every_way_of_writing_a_network(kind: str) -> None:
    """Modules that run twice, rectifiers in place, sums in place: layers by every name, all three methods."""
    net = tiny(kind).sized(40)
    images = pictures(2, side=40)
    layers = [layer for layer in net.layers.values() if layer.spatial and "Adaptive" not in layer.kind]
    for layer, method in zip(layers, list(ORACLE) * 4, strict=False):
        assert not any(WHOLE in remark for remark in check(net, layer, images, 4, method)), layer


def on_wide_pictures(function: Callable[[Tensor], Tensor]) -> tuple[Net, Tensor]:
    """A network that begins with a function of one's own, and pictures for it."""

    class Begun(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, 2, padding=1), nn.Conv2d(4, 5, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(self.a(function(x)))).mean((2, 3))

    torch.manual_seed(1)
    return Net(Begun().double(), size=(36, 41), channels=3), torch.rand(2, 3, 36, 41, dtype=torch.float64)


def dimmed(x: Tensor) -> Tensor:
    return x / 2 if float(x.max()) > 0.5 else x


NOT_BY_CROPS: dict[str, Callable[[Tensor], Tensor]] = {
    "a branch on values": dimmed,
    "coordinates": lambda x: x + torch.linspace(0, 1, x.shape[3], dtype=x.dtype),
    "the picture's mean": lambda x: x - x.mean((2, 3), keepdim=True),
    "the picture's size": lambda x: x * x.shape[3] / 20,
    "a fixed size": lambda x: x[:, :, :30, :35],
    "the middle": lambda x: x[:, :, x.shape[2] // 2 - 12 : x.shape[2] // 2 + 12],
    "parts of the whole": lambda x: F.adaptive_avg_pool2d(x, (18, 20)),
    "another size": lambda x: F.interpolate(x, size=(30, 30)),
    "turned": lambda x: x.mT,
    "from the other side": lambda x: F.pad(x, (2, 2, 2, 2), mode="circular"),
}


@pytest.mark.parametrize("name", NOT_BY_CROPS)
def test_what_a_crop_would_change_is_computed_from_whole_pictures(name: str) -> None:
    net, images = on_wide_pictures(NOT_BY_CROPS[name])
    images[1] *= 0.4  # the branch is taken for one of the two
    for layer in ("a", "b"):
        assert any(WHOLE in remark for remark in check(net, net.layers[layer], images, 12, "gradient"))


BY_CROPS: dict[str, Callable[[Tensor], Tensor]] = {
    "a border cut off": lambda x: x[:, :, 3:-2, 5:],
    "every other pixel": lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2]], 1)[:, 1:4],
    "padded on one side": lambda x: F.pad(x, (0, 3, 1, 0), value=0.3),
    "blue first": lambda x: x.flip(1),
    "pooled beyond the border": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
}


@pytest.mark.parametrize("name", BY_CROPS)
def test_windows_of_every_kind_are_computed_from_crops(name: str) -> None:
    net, images = on_wide_pictures(BY_CROPS[name])
    for layer in ("a", "b"):
        assert not any(WHOLE in remark for remark in check(net, net.layers[layer], images, 12, "gradient"))


def test_a_batch_is_no_larger_than_what_its_units_see() -> None:
    """288 units of an early layer take the pixels of a few whole pictures, and each picture is read once."""
    net, seen, reads = tiny("sequential").sized(80), [0], Counter[int]()
    images, passes = pictures(3, side=80), net.passes

    def counted(pixels: Tensor) -> Any:
        seen[0] += pixels.shape[0] * pixels.shape[2] * pixels.shape[3]
        return passes(pixels)

    def read(number: int) -> Tensor:
        reads[number] += 1
        return images[number : number + 1]

    net.passes = counted  # type: ignore[method-assign]
    spots = drawn_spots(net.layers["0"], 288, 3, random.Random(0))
    assert len(project_spots(net, "0", spots, read)) == 288
    assert reads == {0: 1, 1: 1, 2: 1}
    assert seen[0] < 20 * 80 * 80


def test_a_crop_that_gives_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the arithmetic wrong, as by a crop that begins between two windows, whole pictures would be taken."""
    net, images = tiny("sequential").sized(60), pictures(2, side=60)
    box = Cropping.box

    def moved(self: Cropping, position: tuple[int, int], units: int) -> Any:
        top, left, bottom, right = box(self, position, units) or (0, 0, 60, 60)
        return (top - 1, left, bottom - 1, right) if top else (top, left, bottom, right)

    monkeypatch.setattr(Cropping, "box", moved)
    remarks = check(net, net.layers["3"], images, 30, "gradient")
    assert f"{WHOLE}a crop gave another projection" in remarks


@pytest.mark.parametrize("method", ORACLE)
def test_units_that_see_the_same_share_a_pass(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of crops and of whole pictures: four units take no more passes than one, and each has its own remark."""
    passes, true = list[int](), Net.passes
    monkeypatch.setattr(Net, "passes", lambda self, x: passes.append(1) or true(self, x))
    for side, layer, places in ((40, "0", [(2, 3)] * 4), (20, "3", [(1, 2), (1, 1), (2, 1), (2, 2)])):
        net, images = tiny("sequential").sized(side), pictures(3, side=side)
        spots = [Spot(picture, unit, *place) for picture in (0, 2) for unit, place in enumerate(places)]
        counted = list[int]()
        for some in ([spots[0], spots[len(places)]], spots):
            passes.clear()
            found = project_spots(net, layer, some, images.split(1).__getitem__, method)
            counted.append(len(passes))
        assert counted[1] <= counted[0]
        for spot, one in zip(spots, found, strict=True):
            assert distance(net, net.layers[layer], spot, images, method, one) <= 1e-9
            blocked = any("does not reach the pixels" in remark for remark in one.remarks)
            assert blocked == (method != "gradient" and not one.projection.any())


def test_pictures_of_several_sizes() -> None:
    net = tiny("sequential")
    net = Net(nn.Sequential(*list(net.body.children())[:-1]), size=40)
    images = [torch.rand(1, 3, side, 40 + side, dtype=torch.float64) for side in (31, 40, 52)]
    spots = [Spot(number, 1, 2, column) for column in (0, 7) for number in range(3)]
    for spot, found in zip(spots, project_spots(net, "3", spots, lambda i: images[i], "gradient"), strict=True):
        of = f"3:1@{spot.y},{spot.x}"
        full = attribute(net, images[spot.picture], "gradient", of=of)[0]
        top, left, bottom, right = found.box
        torch.testing.assert_close(found.projection, full[:, top:bottom, left:right], rtol=1e-9, atol=1e-12)


def test_layers_without_positions_and_with_others() -> None:
    """The output, tokens and channels last: whole pictures."""
    net, images = tiny("concat"), pictures(2)
    found = project_spots(net, "", [Spot(1, 2)], lambda number: images[number : number + 1], "guided")[0]
    torch.testing.assert_close(found.projection, attribute(net, images[1:], "guided_backprop", of=2)[0])
    assert found.box == (0, 0, 20, 20)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.norm = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.patches(x).flatten(2).mT).mean(1)

    net = Net(Tokens().double(), size=20)
    found = project_spots(net, "norm", [Spot(0, 4, 3, 1)], lambda number: images[number : number + 1], "gradient")[0]
    leaf = images[:1].clone().requires_grad_()
    expected = torch.autograd.grad(net.body.norm(net.body.patches(leaf).flatten(2).mT)[0, 3 * 5 + 1, 4], leaf)[0][0]
    top, left, bottom, right = found.box
    assert (top, left, bottom, right) == (12, 4, 16, 8)
    torch.testing.assert_close(found.projection, expected[:, 12:16, 4:8])


def test_refusals() -> None:
    net, images = tiny("sequential"), pictures()

    def project(layer: str, spot: Spot, method: Any = "gradient") -> None:
        project_spots(net, layer, [spot], lambda number: images[number : number + 1], method)

    with pytest.raises(LayerError, match="units 0 to 5: there is no 6"):
        project("0", Spot(0, 6, 0, 0))
    with pytest.raises(LayerError, match="has spatial positions: say at which"):
        project("0", Spot(0, 0))
    with pytest.raises(ConvscopeError, match="rows 0 to 8"):
        project("0", Spot(0, 0, 9, 0))
    with pytest.raises(OptionError, match="method is deconvnet, guided, gradient, not 'guided_backprop'"):
        project("0", Spot(0, 0, 0, 0), "guided_backprop")
    with pytest.raises(LayerError, match="no layer 'x'"):
        project("x", Spot(0, 0, 0, 0))
    net = tiny("noisy")
    assert "noisy" in RANDOM
    with pytest.raises(NetworkError, match="random"):
        project("stem", Spot(0, 0, 0, 0))


NETWORKS = (
    "zfnet64",
    "efficientnet-lite0",
    "torchvision:squeezenet1_0",
    "torchvision:resnet18",
    "torchvision:googlenet",
)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NETWORKS)
def test_two_hundred_units_of_five_networks(
    name: str, chelsea: Any, data: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """At all depths and borders: the same to 1e-9 in float64; in float32 to 1e-5, but where values tie for rounding."""
    weights = str(data("weights/squeezenet1_0.safetensors")) if "squeezenet" in name else "default"
    net = load(name, weights="none" if name in NETWORKS[3:] else weights)
    images = torch.cat([net.read(chelsea[y : y + 150, x : x + 150]) for y in (0, 140) for x in (0, 150, 300)])
    layers = [layer for layer in net.layers.values() if layer.number is not None]
    chosen = [layers[round(at * (len(layers) - 1) / 9)] for at in range(10)]
    exact = Net(copy.deepcopy(net.body).double(), mean=net.mean, std=net.std, size=net.size)
    method: Method = "gradient" if name == "efficientnet-lite0" else "deconvnet"
    beyond = 0
    for number, layer in enumerate(chosen):
        check(exact, exact.layers[layer.name], images.double(), 20, method, number)
        spots = drawn_spots(layer, 20, len(images), random.Random(number))
        found = project_spots(net, layer.name, spots, lambda at: images[at : at + 1], method)
        beyond += sum(
            distance(net, layer, spot, images, method, one) > 1e-5 for spot, one in zip(spots, found, strict=True)
        )
    with capsys.disabled():
        print(f"\n{name}: {beyond} of 200 beyond 1e-5 in float32")
    assert beyond <= 10
