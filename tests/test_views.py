"""Views of features: the numbers behind the tiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import convscope as cs
from convscope.attribution.deconvnet import deconvnet
from convscope.data.samples import digits
from convscope.drawing.layout import number
from convscope.errors import LayerError, OptionError, RuleError
from convscope.registry import load_all
from networks import SIZE, pictures, tiny


@pytest.fixture(scope="module")
def lenet() -> cs.Net:
    return cs.load("lenet5")


def test_maps_are_the_layer_and_share_one_scale(lenet: cs.Net) -> None:
    drawing = cs.maps(lenet, digits()[3], layer="conv2")
    expected = cs.tap(lenet, lenet.read(digits()[3]), ["conv2"])["conv2"]
    assert np.array_equal(drawing.numbers()["maps"], expected.numpy())
    sheet = drawing.sheet()
    assert sheet.scale is not None and sheet.scale.low == -sheet.scale.high < 0
    assert [tile.caption for tile in sheet.tiles] == ["input", *map(str, range(16))]


def test_maps_of_every_digit_are_one_sheet(lenet: cs.Net) -> None:
    for layer, channels in (("conv1", 6), ("relu2", 16), ("fc5", 10)):
        drawing = cs.maps(lenet, digits(), layer=layer)
        sheet = drawing.sheet()
        assert sheet.labels == tuple("0123456789") and len(sheet.columns) == channels + 1
        assert len(sheet.tiles) == 10 * (channels + 1)
        assert len({tile.image.size for tile in sheet.tiles}) == 1


def test_top_maps_are_the_strongest(lenet: cs.Net) -> None:
    drawing = cs.maps(lenet, digits()[3], layer="relu2", top=3)
    activity = cs.tap(lenet, lenet.read(digits()[3]), ["relu2"])["relu2"][0]
    strongest = activity.sum((1, 2)).argsort(descending=True)[:3].tolist()
    assert [tile.caption for tile in drawing.sheet().tiles[1:]] == [str(k) for k in strongest]
    with pytest.raises(OptionError, match="1 to 16"):
        cs.maps(lenet, digits()[3], layer="relu2", top=17)
    with pytest.raises(OptionError, match="at least 1, not 0"):
        cs.maps(lenet, digits()[3], layer="relu2", top=0)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "relu2", "conv3"])
def test_projections_are_single_activations_through_the_deconvnet(lenet: cs.Net, layer: str) -> None:
    drawing = cs.project(lenet, digits()[5], layer=layer, top=4)
    pixels = lenet.read(digits()[5])
    activity = cs.tap(lenet, pixels, [layer])[layer][0]
    projections = drawing.numbers()["projections"]
    units = drawing.numbers()["units"].astype(int)
    peaks = activity.flatten(1).amax(1)
    assert units[:, 0].tolist() == peaks.argsort(descending=True)[: len(units)].tolist()
    for projection, (k, y, x) in zip(projections, units, strict=True):
        assert activity[k, y, x] == peaks[k]
        unit = deconvnet(lenet, pixels, cs.as_objective(lenet, f"{layer}:{k}@{y},{x}"))[0] * activity[k, y, x]
        np.testing.assert_allclose(projection, unit, rtol=1e-4, atol=1e-5)


def test_project_shows_the_receptive_field_of_the_unit(lenet: cs.Net) -> None:
    drawing = cs.project(lenet, digits()[8], layer="conv2", top=9)
    tiles, units = drawing.sheet().tiles, drawing.numbers()["units"].astype(int)
    padded = np.full((48, 48), 225)
    padded[10:38, 10:38] = np.asarray(Image.open(digits()[8]))
    assert len(tiles) == 2 * len(units) and len({tile.image.size for tile in tiles}) == 1
    for part, (_, y, x) in zip(tiles[::2], units, strict=True):
        # conv1 is 5x5 with padding 2, pool1 2x2, conv2 5x5: 14 pixels from 2 i - 2 on.
        expected = padded[8 + 2 * y :, 8 + 2 * x :][:14, :14]
        shrunk = part.image.convert("L").resize((14, 14), Image.Resampling.BOX)
        assert np.abs(np.asarray(shrunk, int) - expected).max() <= 40


def test_nothing_active_is_said(lenet: cs.Net) -> None:
    net = tiny("sequential", dtype=torch.float32)
    with torch.no_grad():
        net.body[0].bias.fill_(-100)
    with pytest.raises(LayerError, match="no unit of '1' is active"):
        cs.project(net, pictures(1, dtype=torch.float32), layer="1")


def test_reconstruct_projects_rectified_layers(lenet: cs.Net) -> None:
    drawing = cs.reconstruct(lenet, digits()[:3])
    projections = drawing.numbers()["projections"]
    assert projections.shape == (3, 3, 1, 28, 28)
    sheet = drawing.sheet()
    assert sheet.columns == ("picture", "1: conv1", "2: conv2", "3: conv3") and sheet.labels == ("0", "1", "2")
    pixels = lenet.read(digits()[1]).requires_grad_()
    activity = cs.tap(lenet, pixels, ["conv1"])["conv1"]
    (expected,) = torch.autograd.grad(activity, pixels, activity.detach().clamp(min=0))
    np.testing.assert_allclose(projections[1, 0], expected[0], rtol=1e-5, atol=1e-6)


def test_views_refuse_where_the_rule_is_not_defined() -> None:
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Conv2d(4, 4, 3))
    net = cs.Net(body, size=SIZE)
    with pytest.raises(RuleError, match="Tanh"):
        cs.project(net, pictures(1, dtype=torch.float32), layer="2")
    with pytest.raises(RuleError, match="Tanh"):
        cs.reconstruct(net, pictures(1, dtype=torch.float32))


def test_filters_are_the_weights(lenet: cs.Net) -> None:
    drawing = cs.filters(lenet)
    assert np.array_equal(drawing.numbers()["filters"], lenet.body.conv1.weight.detach().numpy())
    assert len(drawing.sheet().tiles) == 6
    with pytest.raises(LayerError, match="does not read pixels"):
        cs.filters(lenet, layer="conv2")
    with pytest.raises(LayerError, match="3 convolutions"):
        cs.filters(lenet, layer="4")


def test_filters_of_a_network_whose_modules_have_numbers_for_names() -> None:
    net = tiny("sequential", dtype=torch.float32)
    assert cs.filters(net).recipe.settled["layer"] == "0"


def test_alexnet_layers_one_to_five() -> None:
    net = cs.load("torchvision:alexnet", weights=None)
    drawing = cs.reconstruct(net, [np.random.default_rng(i).random((64, 64, 3)) for i in range(2)])
    names = ["features.0", "features.3", "features.6", "features.8", "features.10"]
    assert drawing.sheet().columns == ("picture", *(f"{i}: {name}" for i, name in enumerate(names, 1)))
    assert "random weights" in drawing.sheet().note


def test_the_same_channel_of_several_pictures_stands_side_by_side(lenet: cs.Net) -> None:
    sources = digits()[3:6]
    drawing = cs.maps(lenet, sources, layer="conv1", side_by_side=True)
    sheet, usual = drawing.sheet(), cs.maps(lenet, sources, layer="conv1").sheet()
    count = drawing.numbers()["maps"].shape[1]
    assert sheet.labels == ("", *map(str, range(count))) and len(sheet.columns) == 3
    assert all(len(row) == 3 for row in sheet.rows) and sheet.scale == usual.scale
    for channel in (0, count - 1):
        for picture in range(3):
            here, there = sheet.rows[channel + 1][picture], usual.rows[picture][channel + 1]
            assert here and there
            a, b = (np.asarray(tile.image, float).mean((0, 1)) for tile in (here, there))
            assert np.abs(a - b).max() < 12, "the same map, at another size"
    many = cs.maps(lenet, sources, layer="conv3", side_by_side=True).sheet()
    assert [tile.caption for tile in many.rows[1] if tile][:6] == ["0", "0", "0", "1", "1", "1"]


@pytest.mark.parametrize("view", ["project", "reconstruct"])
def test_grey_projections_have_one_contrast_and_no_colours(view: str) -> None:
    net = tiny("sequential", dtype=torch.float32)
    options: dict[str, Any] = {"layer": "1", "top": 3} if view == "project" else {"layers": ["1"]}
    vivid, grey = (
        getattr(cs, view)(net, pictures(1, dtype=torch.float32)[0], grey=g, **options) for g in (False, True)
    )
    projections = grey.numbers()["projections"]
    np.testing.assert_array_equal(projections, vivid.numbers()["projections"])
    limit = np.abs(projections).max()
    assert f"one contrast: grey is 0, white {number(float(limit))}" in grey.sheet().subtitle
    shown = [np.asarray(tile.image.convert("RGB"), int) for tile in grey.sheet().tiles][1::2]
    colourful = [np.asarray(tile.image.convert("RGB"), int) for tile in vivid.sheet().tiles][1::2]
    assert all((np.ptp(image, -1) == 0).all() for image in shown)
    assert not all((np.ptp(image, -1) == 0).all() for image in colourful)
    assert max(np.abs(image - 127.5).std() for image in shown) < max(np.abs(i - 127.5).std() for i in colourful)


# Every view's recipe makes the same drawing again.

REMADE: dict[str, tuple[int, dict[str, Any]]] = {
    "maps": (2, {"layer": "relu2", "top": 3}),
    "project": (1, {"layer": "conv2", "top": 2}),
    "reconstruct": (2, {"layers": ["conv1", "conv2"]}),
    "filters": (0, {"own_scale": True}),
    "hidden_gradients": (1, {"layers": ["conv1..conv3"], "of": "5"}),
    "occlusion_study": (1, {"patch": 9, "stride": 6, "unit": "conv2:3"}),
    "compare": (1, {"methods": ["grad_cam", "saliency"], "layers": ["conv2"], "of": 5}),
    "grid": (2, {"methods": ["saliency", "grad_cam"], "over_picture": False}),
    "segment": (1, {"method": "grad_cam", "layer": "conv2", "rounds": 2}),
}


def test_every_view_is_remade() -> None:
    views = {name for name, entry in load_all().items() if entry.function.__module__.startswith("convscope.views.")}
    assert views == set(REMADE)


@pytest.mark.parametrize("name", REMADE)
@pytest.mark.parametrize("plain", [False, True])
def test_the_recipe_makes_the_same_bytes(lenet: cs.Net, name: str, plain: bool) -> None:
    """With options, and with the defaults; through JSON, as a file holds it."""
    if name == "segment":
        pytest.importorskip("cv2")
    count, options = REMADE[name]
    if plain:
        options = {"layer": options["layer"]} if name in ("maps", "project") else {}
    inputs = [digits()[3:5] if count == 2 else digits()[3]] if count else []
    drawing = getattr(cs, name)(lenet, *inputs, **options)
    recipe = cs.Recipe.from_json(drawing.recipe.to_json())
    again = cs.remake(recipe)
    assert again._repr_png_() == drawing._repr_png_()
    assert again.recipe.key == recipe.key
