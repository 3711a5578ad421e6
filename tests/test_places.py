"""Where class activation maps lie when pixels move inside a network, against where the gradients of units are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from torch import Tensor, nn

from architectures import MORE_MOVES, architectures
from convscope import Net, attribute, explain
from convscope.attribution.places import places
from convscope.errors import LayerError
from convscope.tracing import Layer
from oracles.receptive_field import extent, positive
from test_geometry import FOLLOWED, NOT_FOLLOWED

SIDE = 32


class Spots(nn.Module):
    """Scores bright spots in a picture of which `before` moves the pixels; `also` looks a second time, moved."""

    def __init__(
        self, before: Callable[[Tensor], Tensor] | None = None, also: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.before, self.also = before, also
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Linear(4, 2)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.1)

    def look(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.before is None else self.before(x)
        return self.look(x) if self.also is None else self.look(x) + self.look(self.also(x))


def spot() -> Tensor:
    """A picture with nothing in it but a spot: rows 4 to 7, columns 20 to 23."""
    picture = torch.zeros(3, SIDE, SIDE)
    picture[:, 4:8, 20:24] = 1
    return picture


def middle(map_: Tensor) -> tuple[float, float]:
    """Return the row and column of the centroid of a map (1, 1, h, w)."""
    weight = map_[0, 0].clamp(min=0) / map_.clamp(min=0).sum()
    return tuple(float((weight.sum(1 - d) * torch.arange(SIDE)).sum()) for d in (0, 1))  # type: ignore[return-value]


KEEPS_THE_SPOT = [name for name in FOLLOWED if name not in ("split", "second chunk", "narrow")]


@pytest.mark.parametrize("way", ["before", "also"])
@pytest.mark.parametrize("name", KEEPS_THE_SPOT)
def test_the_map_lies_on_the_spot_wherever_the_pixels_went(name: str, way: str) -> None:
    net = Net(Spots(**{way: FOLLOWED[name]}).eval(), size=SIDE)
    y, x = middle(attribute(net, spot()[None], "grad_cam", of=1))
    assert abs(y - 5.5) < 2 and abs(x - 21.5) < 2


@pytest.mark.parametrize(
    "method", ["cam", "hires_cam", "layer_cam", "eigen_cam", "activation", "score_cam", "ablation_cam"]
)
def test_every_map_of_a_layer_is_laid_back(method: str) -> None:
    net = Net(Spots(before=lambda x: x.rot90(1, (2, 3))).eval(), size=SIDE)
    y, x = middle(attribute(net, spot()[None], method, of=1))
    assert abs(y - 5.5) < 2 and abs(x - 21.5) < 2


def test_rolled_maps_are_rolled_back() -> None:
    net = Net(Spots(before=lambda x: x.roll((9, 14), (2, 3))).eval(), size=SIDE)
    y, x = middle(attribute(net, spot()[None], "grad_cam", of=1))
    assert abs(y - 5.5) < 1 and abs(x - 21.5) < 1


@pytest.mark.parametrize("name", ["gathered", "grid_sample"])
def test_what_is_not_followed_is_measured(name: str) -> None:
    heat = explain(Net(Spots(before=NOT_FOLLOWED[name]).eval(), size=SIDE), spot(), "grad_cam", of=1)
    y, x = middle(torch.as_tensor(heat.values)[None])
    assert abs(y - 5.5) < 2 and abs(x - 21.5) < 2
    assert "was measured: evenly over the picture, mirrored" in heat.note


@pytest.mark.parametrize("name", ["columns in any order", "blocks swapped", "beside its mirror image"])
def test_what_cannot_be_told_is_refused_with_the_operation_and_a_way_out(name: str) -> None:
    def move(x: Tensor) -> Tensor:
        if name == "columns in any order":
            return x[..., torch.randperm(SIDE, generator=torch.Generator().manual_seed(0))]
        if name == "blocks swapped":
            return x.reshape(len(x), 3, 4, 8, 4, 8).transpose(2, 4).reshape(x.shape)
        return x + x.flip(3)

    net = Net(nn.Sequential(nn.Conv2d(3, 3, 1), Moves(move), Spots()).eval(), size=SIDE)
    operation = {"columns in any order": "getitem", "blocks swapped": "reshape", "beside its mirror image": "add"}[name]
    with pytest.raises(LayerError, match=f"'{operation}'.*Name a layer before that, such as '0'.*align='stretch'"):
        explain(net, spot(), "grad_cam", of=1)
    heat = explain(net, spot(), "grad_cam", of=1, align="stretch")
    assert f"laid evenly: where its units lie is not known after '{operation}'" in heat.note


class Moves(nn.Module):
    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.move = move

    def forward(self, x: Tensor) -> Tensor:
        return self.move(x)


def test_copies_stacked_along_the_batch_are_refused_in_words() -> None:
    net = Net(Stacked(Spots()).eval(), size=SIDE)
    with pytest.raises(LayerError, match="of Stacked has shape"):
        explain(net, spot(), "grad_cam", of=1, layer="body.features")


class Stacked(nn.Module):
    """Looks at a picture and its mirror image in one batch."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.body(torch.cat([x, x.flip(3)])).chunk(2)
        return (first + second) / 2


def test_a_picture_of_another_size_is_mirrored_at_its_own_edge() -> None:
    net = Net(Spots(before=lambda x: x.flip(3)).eval(), size=SIDE)
    wide = torch.zeros(1, 3, SIDE, 2 * SIDE)
    wide[..., 4:8, 50:54] = 1
    map_ = attribute(net, wide, "grad_cam", of=1)[0, 0]
    assert abs(float((map_.sum(0) * torch.arange(2 * SIDE)).sum() / map_.sum()) - 51.5) < 1


class Dense(nn.Module):
    """One output per pixel, as segmentation has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


@pytest.mark.parametrize(("method", "weighed"), [("grad_cam", True), ("hires_cam", False)])
def test_the_remark_counts_the_positions_of_the_picture_that_is_explained(method: str, weighed: bool) -> None:
    """Also of another size than the network's own."""
    torch.manual_seed(0)
    notes = [
        explain(Net(Dense().eval(), size=side), torch.rand(3, 40, 40), method, of=":0@20,20", layer="first").note
        for side in (40, SIDE)
    ]
    for note in notes:
        assert "of 1600 positions of this layer" in note
        assert ("weighed by the gradient there" in note) == weighed


def test_stretching_keeps_the_order_in_which_units_lie() -> None:
    net = Net(Spots(before=lambda x: x.flip(3).roll(6, 2)).eval(), size=SIDE)
    y, x = middle(attribute(net, spot()[None], "grad_cam", of=1, align="stretch"))
    assert abs(y - 5.5) < 2 and abs(x - 21.5) < 2


def test_a_row_and_column_are_those_of_the_layer() -> None:
    """`@row,column` is what a person reads in the layer's own numbers; its field lies where the pixels came from."""
    net = Net(Spots(before=lambda x: x.mT.flip(3)).eval(), size=SIDE)
    layer = net.layer("features")
    gradient = attribute(net, torch.rand(1, 3, SIDE, SIDE), "gradient", of="features:0@3,10")
    top, left, bottom, right = layer.field.box((3, 10), (SIDE, SIDE))
    outside = gradient.clone()
    outside[..., top:bottom, left:right] = 0
    assert gradient.any() and not outside.any() and (bottom - top) * (right - left) == 16


# Random architectures

MOST_UNITS = 40
checked = {"networks": 0, "layers": 0, "refused": 0, "measured": 0, "units": 0, "places": 0}


def check_places(network: nn.Module, size: tuple[int, int]) -> None:
    """Compare places and fields of units of every layer with their gradients; no field may be too small."""
    body = positive(network)
    net = Net(body, size=size, channels=3)
    pixels = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    checked["networks"] += 1
    for index in range(len(body.layers)):
        layer = net.layer(f"layers.{index}")
        units = some_units(layer.grid)
        magnitudes = gradient_magnitudes(nn.Sequential(*body.layers[: index + 1]), pixels, units)
        for unit, magnitude in zip(units, magnitudes, strict=True):
            top, left, bottom, right = layer.field.box(unit, size)
            outside = magnitude.clone()
            outside[top:bottom, left:right] = 0
            assert not outside.any(), (index, unit, layer.field, extent(magnitude > 0))
        if layer.positions > 1:
            check_layer(net, layer, pixels, units, magnitudes)


def some_units(grid: tuple[int, int]) -> list[tuple[int, int]]:
    every = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    chosen = torch.randperm(len(every), generator=torch.Generator().manual_seed(3))[:MOST_UNITS].tolist()
    return [every[k] for k in chosen]


def gradient_magnitudes(body: nn.Module, pixels: Tensor, units: list[tuple[int, int]]) -> Tensor:
    """Return |gradient| of some units of a layer, all channels together, (units, height, width)."""
    copies = pixels.repeat(len(units), 1, 1, 1).requires_grad_()
    try:
        output = body(copies.clone())  # the first layer may work in place
        rows, columns = zip(*units, strict=True)
        numbers = output[torch.arange(len(units)), :, list(rows), list(columns)]
        # Channels weigh differently, or those of a normalisation would cancel.
        total = (numbers * torch.linspace(1, 2, numbers.shape[1])).sum()
        (gradient,) = torch.autograd.grad(total, copies)
    except RuntimeError:  # written over in place before the gradient needs it: nothing can explain this network
        reject()
    return gradient.abs().sum(1)


def check_layer(net: Net, layer: Layer, pixels: Tensor, units: list[tuple[int, int]], magnitudes: Tensor) -> None:
    checked["layers"] += 1
    try:
        lies = places(net, layer, pixels, "field")
    except LayerError:
        checked["refused"] += 1
        return
    lattice = layer.lattice
    checked["measured"] += lattice.moved is not None
    if layer.field.shared:
        # Gradients through a normalisation or a gate go everywhere: `test_geometry` compares such layers with the
        # convolutions that they stand between.
        return
    for unit, magnitude in zip(units, magnitudes, strict=True):
        checked["units"] += 1
        for which, (axis, index) in enumerate(zip((lattice.y, lattice.x), lattice.along(unit), strict=True)):
            place, side = lies[which][index], magnitude.shape[which]
            cut = place - axis.size / 2 < -0.5 or place + axis.size / 2 > side - 0.5
            if cut or axis.wrap or not magnitude.any():
                continue
            weight = magnitude.sum(1 - which)
            centroid = float((weight * torch.arange(side)).sum() / weight.sum())
            checked["places"] += 1
            assert abs(centroid - place) <= axis.size / 3 + abs(axis.step), (layer.name, unit, centroid, place)


def told() -> str:
    return (
        f"{checked['networks']} networks, {checked['layers']} layers: {checked['refused']} refused, "
        f"{checked['measured']} measured; {checked['units']} units, {checked['places']} places compared with gradients"
    )


few = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@given(architectures(MORE_MOVES))
@few
def test_units_of_a_random_architecture_lie_where_their_gradients_are(drawn: tuple[nn.Module, tuple[int, int]]) -> None:
    check_places(*drawn)


@pytest.mark.nightly
@given(architectures(MORE_MOVES))
@settings(few, max_examples=1000, derandomize=False)
def test_units_of_a_thousand_architectures_lie_where_their_gradients_are(
    drawn: tuple[nn.Module, tuple[int, int]],
) -> None:
    check_places(*drawn)


def test_few_layers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the layers that the tests above have met."""
    with capsys.disabled():
        print(f"\n{told()}")
    assert checked["refused"] <= 0.5 * checked["layers"]
