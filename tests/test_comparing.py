"""The figure that compares methods: its tiles are explain's maps, its two numbers are what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr
from torch import nn

import convscope as cs
from convscope.cli import run
from convscope.data.samples import digits
from convscope.drawing import layout
from convscope.errors import LayerError, ObjectiveError, OptionError, PictureError, RuleError
from convscope.ranks import rank_correlation
from convscope.registry import METHODS
from convscope.views.compare import compare, concentration
from networks import SIZE, pictures, tiny

NAMES = ["saliency", "gradient", "grad_cam", "activation"]


@pytest.fixture(scope="module")
def lenet() -> cs.Net:
    return cs.load("lenet5")


def test_one_tile_per_method_and_its_values_are_those_of_explain(lenet: cs.Net) -> None:
    drawing = compare(lenet, digits()[3], methods=NAMES, of=5)
    tiles = drawing.sheet().tiles
    assert len(tiles) == 1 + len(NAMES) and len({tile.image.size for tile in tiles}) == 1
    assert drawing.sheet().columns == ("", *(METHODS[name].title for name in NAMES))
    numbers = drawing.numbers()
    assert list(numbers) == NAMES
    for name in NAMES:
        expected = cs.explain(lenet, digits()[3], name, 5)
        assert np.array_equal(numbers[name], expected.numbers()["map"])
        if not expected.projects:
            tile = tiles[1 + NAMES.index(name)]
            assert np.array_equal(np.asarray(tile.image), np.asarray(expected.overlay(tile.image.size)))
            assert tile.scale == expected.scale
    assert drawing.recipe.objective == "5" and drawing.recipe.options["methods"] == NAMES
    assert "Mean activation: layer relu2" in drawing.sheet().note, "the methods' remarks"
    assert "does not depend on the objective" in drawing.sheet().note, "the caveats"


def test_the_captions_hold_range_concentration_and_correlation(lenet: cs.Net) -> None:
    drawing = compare(lenet, digits()[3], methods=["saliency", "occlusion"], of=5)
    first, second = (drawing.numbers()[name][0] for name in ("saliency", "occlusion"))
    captions = [tile.caption.split("\n") for tile in drawing.sheet().tiles[1:]]
    assert captions[0][0] == f"from {layout.number(first.min())} to {layout.number(first.max())}"
    share = np.sort(first.ravel())[-39:].sum() / first.sum()  # 39 of 784 pixels are 5 %
    assert captions[0][1:] == [f"{100 * share:.0f}% in the top 5%"]
    rho = spearmanr(first.ravel(), np.abs(second).ravel()).statistic
    assert captions[1][2] == f"ρ = {layout.number(round(rho, 2))}"


def test_many_methods_wrap_with_their_titles(lenet: cs.Net) -> None:
    names = ["saliency", "gradient", "grad_cam", "activation", "guided_backprop", "deconvnet", "gradient_x_input"]
    sheet = compare(lenet, digits()[3], methods=[*names, "saliency"]).sheet()
    assert [len(row) for row in sheet.rows] == [6, 2]
    assert [tile.caption.split("\n")[0] for tile in sheet.tiles[1:]] == [METHODS[name].title for name in names]


def test_layers_are_rows(lenet: cs.Net) -> None:
    drawing = compare(lenet, digits()[3], methods=["saliency", "grad_cam", "activation"], layers=["conv2", "relu3"])
    sheet = drawing.sheet()
    assert sheet.labels == ("conv2", "relu3") and sheet.columns == ("", "Saliency", "Grad-CAM", "Mean activation")
    assert [[tile is not None for tile in row] for row in sheet.rows] == [[True] * 4, [False, False, True, True]]
    expected = ["saliency", "grad_cam@conv2", "activation@conv2", "grad_cam@relu3", "activation@relu3"]
    assert list(drawing.numbers()) == expected
    map_ = drawing.numbers()["activation@conv2"]
    assert np.array_equal(map_, cs.explain(lenet, digits()[3], "activation", layer="conv2").numbers()["map"])
    assert "no layer" in sheet.rows[0][1].caption  # type: ignore[union-attr]


def test_check_adds_the_rank_correlation_with_maps_of_randomised_weights(lenet: cs.Net) -> None:
    from convscope.checks import cascade

    methods = ["gradient", "activation"]
    drawing = compare(lenet, digits()[3], methods=methods, of=5, check=True)
    for tile, name in zip(drawing.sheet().tiles[1:], methods, strict=True):
        score = cascade(lenet, cs.explain(lenet, digits()[3], name, 5), stages=3).score
        assert tile.caption.endswith(f"randomised {score:.2f}")
    assert "0 depends on the weights" in drawing.sheet().subtitle and drawing.recipe.options["check"] is True
    assert "randomised" not in compare(lenet, digits()[3], methods=methods, of=5).sheet().subtitle


def test_a_shared_scale_is_one_per_method(lenet: cs.Net) -> None:
    options: dict[str, Any] = {"methods": ["grad_cam", "activation"], "layers": ["conv2", "relu3"]}
    tops = [
        [tile.scale.high for tile in row[1:]]  # type: ignore[union-attr]
        for row in compare(lenet, digits()[3], **options, shared_scale=True).sheet().rows
    ]
    own = [[tile.scale.high for tile in row[1:]] for row in compare(lenet, digits()[3], **options).sheet().rows]  # type: ignore[union-attr]
    assert tops[0] == tops[1] == np.max(own, 0).tolist() and tops[0][0] != tops[0][1]
    with pytest.raises(OptionError, match="give layers"):
        compare(lenet, digits()[3], shared_scale=True)


def test_the_usual_methods_exist(lenet: cs.Net) -> None:
    drawing = compare(lenet, digits()[3])
    assert len(drawing.numbers()) >= 4 and set(drawing.numbers()) <= set(METHODS)


def swish() -> cs.Net:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    return cs.Net(body, size=SIZE)


def test_a_method_that_refuses_says_so_in_its_tile() -> None:
    picture = pictures(1, dtype=torch.float32)
    drawing = compare(swish(), picture, methods=["guided_backprop", "saliency"])
    tiles = drawing.sheet().tiles
    assert tiles[1].caption == "no map" and tiles[1].image.size == tiles[2].image.size
    assert np.asarray(tiles[1].image).min() < 150, "there are words"
    assert list(drawing.numbers()) == ["saliency"]
    assert any(remark.startswith("guided_backprop refused: the network uses SiLU") for remark in drawing.recipe.remarks)
    with pytest.raises(RuleError, match="SiLU"):
        compare(swish(), picture, methods=["guided_backprop", "deconvnet"])


def test_a_map_of_zeros_is_said() -> None:
    net = tiny("sequential", dtype=torch.float32)
    with torch.no_grad():
        net.body[5][2].weight.zero_()
    sheet = compare(net, pictures(1, dtype=torch.float32), methods=["saliency", "activation"], of=0).sheet()
    assert sheet.tiles[1].caption == "zero everywhere" and "ρ = 0" in sheet.tiles[2].caption


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"methods": ["salience"]}, OptionError, "no method 'salience'.*use 'saliency'"),
        ({"methods": []}, OptionError, "no method to compare"),
        ({"layers": ["conv9"]}, LayerError, "conv9"),
        ({"methods": ["saliency"], "layers": ["conv1"]}, OptionError, "none of these methods reads a layer"),
        ({"of": "nothing"}, ObjectiveError, "nothing"),
    ],
)
def test_bad_input(lenet: cs.Net, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare(lenet, digits()[3], **options)


def test_bad_picture(lenet: cs.Net) -> None:
    with pytest.raises(PictureError):
        compare(lenet, "nowhere.png")


def test_the_command(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["compare", str(digits()[3]), "--net", "lenet5", "--methods", "grad_cam, activation"]
    assert run([*arguments, "--layers", "conv1,conv2", "--of", "3", "-o", "out.png", "--save-values", "v.npz"]) == 0
    assert len(np.load("v.npz")) == 4 and Image.open("out.png").width > 360


maps = st.lists(st.integers(0, 5), min_size=4, max_size=40)


@given(maps, st.integers(0, 1000))
def test_rank_correlation_is_scipys(values: list[int], seed: int) -> None:
    one = torch.tensor(values, dtype=torch.float64)
    other = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, len(values)).astype(float))
    if one.std() == 0 or other.std() == 0:
        assert rank_correlation(one, other) == (one.std() == other.std())
    else:
        assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
        assert rank_correlation(one, one * 3 + 1) == pytest.approx(1)


@given(maps)
def test_concentration_is_a_share(values: list[int]) -> None:
    one = np.array(values, float)
    share = concentration(one, 0.25)
    count = max(1, round(0.25 * len(values)))
    assert share == pytest.approx(sum(sorted(values)[-count:]) / sum(values) if sum(values) else 0)
    dot = np.zeros((10, 10))
    dot[3, 4] = 2
    assert concentration(dot) == 1 and concentration(np.ones((10, 10))) == pytest.approx(0.05)


def test_written_fits_its_size() -> None:
    for size in ((200, 120), (30, 20), (5, 5)):
        image = layout.written("the network uses SiLU, where the rule is not defined " * 8, size)
        assert image.size == size
