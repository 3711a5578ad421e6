"""Layers that do not read the picture, and gradients that the body cuts: chosen rightly, refused in words."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope import Net, attribute, explain, tap
from convscope.errors import ConvscopeError, LayerError, NetworkError, ObjectiveError
from convscope.layers import picture_layers
from convscope.registry import METHODS, load_all
from networks import CLASSES, SIZE, Twins, TwoStreams, pictures

load_all()
WITH_LAYERS = [name for name, entry in METHODS.items() if "layer" in entry.options]
DEPTH = pictures(1, channels=1, seed=3)
OTHER = pictures(1, seed=4)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().double().eval()


def two_streams() -> Net:
    return Net(seeded(TwoStreams), size=SIZE, extra=[DEPTH], classes=CLASSES, name="two")


def twins() -> Net:
    return Net(seeded(Twins), size=SIZE, extra=[OTHER], name="twins", head="value")


NETS = {"two streams": (two_streams, "depth.2"), "twins": (twins, "features.2#2")}
each_net = pytest.mark.parametrize(("make", "blind"), NETS.values(), ids=NETS)


# Layers that do not read the picture


def test_layers_know_whether_they_read_the_picture() -> None:
    blind = {name for name, layer in two_streams().layers.items() if not layer.reads_picture}
    assert blind == {"depth", "depth.0", "depth.1", "depth.2", "depth.3"}
    blind = {name for name, layer in twins().layers.items() if not layer.reads_picture}
    assert blind == {"features#2", *(f"features.{number}#2" for number in range(4))}


class Dead(nn.Module):
    """A layer that is zero for every picture, and one that reads a table of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.relu, self.table, self.b = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(2, 4), nn.Conv2d(4, 5, 3)
        self.register_buffer("places", torch.rand(7, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.relu(self.a(x) - 1000)).mean((2, 3)) + self.table(self.places).mean()


def test_dead_layers_read_the_picture_and_tables_do_not() -> None:
    net = Net(seeded(Dead), size=SIZE)
    assert [layer.name for layer in net.layers.values() if not layer.reads_picture] == ["table"]


@each_net
@pytest.mark.parametrize("method", WITH_LAYERS)
def test_maps_are_of_layers_that_read_the_picture(make: Callable[[], Net], blind: str, method: str) -> None:
    """A map of the other input is the same for every picture, up to a factor."""
    net, pixels = make(), pictures(2)
    first, second = attribute(net, pixels, method, of=0).flatten(1)
    assert float(torch.cosine_similarity(first, second, dim=0)) < 0.9999
    with pytest.raises(LayerError, match=rf"layer '{blind}' of {net.name} does not depend on the picture.*such as"):
        attribute(net, pixels, method, of=0, layer=blind)


@each_net
def test_views_refuse_layers_that_do_not_read_the_picture(make: Callable[[], Net], blind: str) -> None:
    net, picture = make(), pictures(1)[0]
    for view in (
        partial(convscope.maximize, net, of=f"{blind}:1", steps=2),
        partial(convscope.dream, net, picture, layer=blind, steps=1),
        partial(convscope.project, net, picture, layer=blind),
        partial(convscope.reconstruct, net, picture, layers=[blind]),
        partial(convscope.invert, net, picture, layers=[blind], steps=2),
        partial(convscope.accentuate, net, picture, of=f"{blind}:1", steps=2),
        partial(convscope.maps, net, [picture], layer=blind),
        partial(convscope.compare, net, picture, layers=[blind]),
        partial(convscope.filters_by_ascent, net, layer=blind, steps=2),
        partial(explain, net, picture, "occlusion", of=f"{blind}:1"),
    ):
        with pytest.raises(ConvscopeError, match=r"does not depend on the picture"):
            view()
    assert tap(net, pictures(1), [blind])[blind].shape[1] == 8, "whoever reads layers himself may read it"


def test_the_other_input_is_explained_by_a_net_that_reads_it() -> None:
    body, image, depth = seeded(TwoStreams), pictures(1), DEPTH.clone().requires_grad_()
    (true,) = torch.autograd.grad(body(image, depth)[0, 2], depth)
    for given in ({"input": 1, "extra": [image]}, {"input": "depth", "extra": {"image": image}},
                  {"input": "depth", "extra": [image]}):  # fmt: skip
        net = Net(body, size=SIZE, channels=1, **given)
        torch.testing.assert_close(attribute(net, DEPTH, "gradient", of=2), true)
        assert all(layer.name.split(".")[0] in ("depth", "head", "") for layer in picture_layers(net))


@pytest.mark.parametrize("place", [-1, "", 1.0, None, True])
def test_an_input_is_a_place_or_a_name(place: Any) -> None:
    with pytest.raises(NetworkError, match=r"input is the place of the picture"):
        Net(seeded(TwoStreams), input=place)
    with pytest.raises(NetworkError, match=r"input 1 follows 1 others"):
        _ = Net(seeded(TwoStreams), size=SIZE, input=1).layers


class Clip(nn.Module):
    """Four frames folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.frame(x.reshape(len(x) * 4, 3, *x.shape[-2:])).view(len(x), 4, -1).mean(1)


def test_frames_in_the_batch_are_not_called_layers_without_positions() -> None:
    net = Net(seeded(Clip), size=SIZE, channels=12)
    with pytest.raises(LayerError, match=r"spatial positions of single pictures: each has 4 entries there, as frames"):
        attribute(net, pictures(1, channels=12), "grad_cam", of=1, layer="frame.1")


# Gradients that are cut


class Probe(nn.Module):
    def __init__(self, how: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.how(self.backbone, x))


def frozen(backbone: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return backbone(x)


def inference(backbone: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        x = backbone(x)
    return x.clone()


CUTS: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], str]] = {
    "no_grad": (frozen, "backbone.0"),
    "inference_mode": (inference, "backbone.0"),
    "detach": (lambda backbone, x: backbone(x).detach(), "head.0"),
    "data": (lambda backbone, x: backbone(x).data, "head.0"),
    "whole numbers": (lambda backbone, x: (1000 * backbone(x)).long().to(x), "head.0"),
    "numpy": (lambda backbone, x: torch.from_numpy(backbone(x).detach().numpy() + 0.0), "head.0"),
}
each_cut = pytest.mark.parametrize(("how", "layer"), CUTS.values(), ids=CUTS)


def cut(how: Callable[[nn.Module, Tensor], Tensor]) -> Net:
    return Net(seeded(lambda: Probe(how)), size=SIZE, name="probe")


def whole() -> Net:
    return cut(lambda backbone, x: backbone(x))


@each_cut
@pytest.mark.parametrize("method", ["gradient", "saliency", "integrated_gradients", "guided_backprop", "extremal"])
def test_a_cut_gradient_is_told_with_its_place(how: Any, layer: str, method: str) -> None:
    with pytest.raises(
        ObjectiveError, match=rf"1 depends on the picture, but probe cuts the gradient before .*'{layer}'"
    ):
        attribute(cut(how), pictures(1), method, of=1)


@each_cut
@pytest.mark.parametrize("method", ["occlusion", "score_cam", "ablation_cam", "eigen_cam", "activation", "rise"])
def test_methods_of_forward_passes_work_where_the_gradient_is_cut(how: Any, layer: str, method: str) -> None:
    options = {"occlusion": {"patch": 8, "stride": 6}, "rise": {"masks": 20}}.get(method, {})
    found = attribute(cut(how), pictures(2), method, of=1, **options)
    assert found.abs().sum() > 0
    if how is not CUTS["whole numbers"][0]:
        torch.testing.assert_close(found, attribute(whole(), pictures(2), method, of=1, **options))


@pytest.mark.parametrize("how", [frozen, inference])
@pytest.mark.parametrize("method", ["grad_cam", "hires_cam", "layer_cam", "xgrad_cam", "cam"])
def test_gradients_begin_at_the_last_layer_of_a_frozen_backbone(how: Any, method: str) -> None:
    torch.testing.assert_close(
        attribute(cut(how), pictures(2), method, of=1), attribute(whole(), pictures(2), method, of=1)
    )


def test_a_cut_above_a_layer_is_told_from_a_layer_that_is_not_read() -> None:
    with pytest.raises(LayerError, match=r"1 depends on layer 'backbone.1', but probe cuts the gradient between them"):
        attribute(cut(frozen), pictures(1), "grad_cam", of=1, layer="backbone.1")
    with pytest.raises(LayerError, match=r"does not depend on layer 'backbone.3': name a layer that runs before it"):
        attribute(whole(), pictures(1), "grad_cam", of="backbone.1:1", layer="backbone.3")


def test_pictures_cannot_be_made_through_a_cut() -> None:
    for make in (partial(convscope.maximize, cut(frozen), of="0", steps=2),
                 partial(convscope.project, cut(frozen), pictures(1)[0], layer="backbone.2")):  # fmt: skip
        with pytest.raises(ObjectiveError, match=r"cuts the gradient before layer 'backbone.0'"):
            make()
