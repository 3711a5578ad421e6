"""Zeiler & Fergus' Fig. 5, and their Fig. 8 with Table 1: changes against their definitions."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convscope import Drawing, Net, Study, invariance, load, predict, remake, tap
from convscope.data.samples import digits
from convscope.errors import NetworkError, OptionError, RecipeError
from convscope.layers import before_classes
from convscope.recipes import Recipe
from convscope.studies.changing import Border, Change, changed, changes, shifted
from convscope.studies.intervals import bootstrap_means
from convscope.studies.invariance_sheet import half
from convscope.studies.reading import BEFORE, compare, pooling_layers
from networks import pictures, tiny

DOWN, RIGHT, SCALE, ROTATION = changes(20, 20, {})
BORDERS: tuple[Border, ...] = ("baseline", "edge", "reflect", "wrap")


def test_changes_are_those_that_are_named() -> None:
    pixels = pictures(1, side=20)
    fill = torch.full_like(pixels, 0.25)
    down, none, up = changed(pixels, DOWN, [3, 0, -4], "baseline", fill)
    assert torch.equal(down[None, :, 3:], pixels[:, :, :-3]) and down[:, :3] == pytest.approx(0.25)
    assert torch.equal(up[None, :, :-4], pixels[:, :, 4:]) and torch.equal(none[None], pixels)
    (right,) = changed(pixels, RIGHT, [2], "baseline", fill)
    assert torch.equal(right[None, ..., 2:], pixels[..., :-2])
    turns = changed(pixels, ROTATION, [0, 90, 180, 360], "baseline", fill)
    for turn, quarters in zip(turns, (0, 1, 2, 0), strict=True):
        torch.testing.assert_close(turn[None], torch.rot90(pixels, quarters, (2, 3)))
    (twice,) = changed(pixels, SCALE, [2.0], "baseline", fill)
    expected = torch.nn.functional.interpolate(pixels[..., 5:15, 5:15], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(twice[None, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])
    (half_turn,) = changed(pixels[:, :, :10], ROTATION, [180], "baseline", fill[:, :, :10])
    torch.testing.assert_close(half_turn[None], torch.rot90(pixels[:, :, :10], 2, (2, 3)))


@pytest.mark.parametrize("border", BORDERS)
def test_a_border_is_what_it_is_called(border: Border) -> None:
    pixels = pictures(1, side=20)[:, :, :12]
    fill = torch.full_like(pixels, 0.25)
    beyond = {
        "baseline": lambda row, column: 0.25,
        "edge": lambda row, column: pixels[0, 1, min(max(row, 0), 11), min(max(column, 0), 19)],
        "reflect": lambda row, column: pixels[
            0, 1, row if 0 <= row < 12 else (-1 - row if row < 0 else 23 - row), column
        ],
        "wrap": lambda row, column: pixels[0, 1, row % 12, column % 20],
    }[border]
    for down in (-5, 4):
        moved = shifted(pixels, down, 0, border, fill)
        for row, column in product(range(12), (0, 7, 19)):
            there = row - down
            own = pixels[0, 1, there, column] if 0 <= there < 12 else beyond(there, column)
            assert float(moved[0, 1, row, column]) == float(own)
    # Between whole pixels: half of one and half of the next, across the border too.
    vertical = Change("vertical", "pixels", "", -5, 5)
    (between,) = changed(pixels, vertical, [1.5], border, fill)
    mean = (shifted(pixels, 1, 0, border, fill) + shifted(pixels, 2, 0, border, fill)) / 2
    torch.testing.assert_close(between[None, :, 2:], mean[:, :, 2:])
    if border != "edge":  # there sampling ends at the middle of the last pixel
        torch.testing.assert_close(between[None], mean)


def test_distances_and_probabilities_are_those_of_single_passes() -> None:
    net, picture = tiny("sequential"), pictures(1, side=20)[0]
    drawing = invariance(net, [picture, picture.flip(2)], steps=5, of=2)
    numbers = drawing.numbers()
    layers = drawing.recipe.settled["layers"]
    assert layers == [net.convolution(1).name, before_classes(net).name]
    assert numbers["distances"].shape == (4, 2, 2, 5) and numbers["probability"].shape == (4, 2, 5)
    for row, pixels in enumerate((picture[None], picture.flip(2)[None])):
        mean = torch.tensor(net.mean, dtype=pixels.dtype)[:, None, None].expand_as(pixels)
        own = tap(net, pixels, layers)
        for i, kind in enumerate((DOWN, RIGHT, SCALE, ROTATION)):
            for step, amount in enumerate(numbers["amounts"][i]):
                there = changed(pixels, kind, [float(amount)], "baseline", mean)
                read = tap(net, there, layers)
                raw = [float((read[name] - own[name]).norm()) for name in layers]
                far = [each / float(own[name].norm()) for each, name in zip(raw, layers, strict=True)]
                assert numbers["distances"][i, :, row, step] == pytest.approx(far, abs=1e-5)
                assert numbers["raw"][i, :, row, step] == pytest.approx(raw, abs=1e-5)
                assert numbers["probability"][i, row, step] == pytest.approx(float(predict(net, there)[0, 2]))
    # Nothing is changed in the middle of the shifts, at the first scale, and at both ends of the rotation.
    for i, step in ((0, 2), (1, 2), (2, 0), (3, 0), (3, 4)):
        assert not numbers["distances"][i, :, :, step].any() and not numbers["pooling"][i, ..., step].any()
        assert numbers["probability"][i, 0, step] == pytest.approx(float(predict(net, picture[None])[0, 2]))


def test_pooling_is_read_before_and_after() -> None:
    """Also of a module that runs twice, and of a network whose pictures are computed alone."""

    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.end = torch.nn.Conv2d(3, 4, 3), torch.nn.MaxPool2d(2), torch.nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.end(self.pool(self.pool(self.conv(x).relu())).flatten(1))

    net, two = Net(Twice().double().eval(), size=18), pictures(2, side=18)
    pools = [layer.name for layer in pooling_layers(net)]
    assert pools == ["pool#1", "pool#2"]
    found = compare(net, two[:1], two, ["conv"], pools)
    before = net.body.conv((two - 0) / 1).relu()
    for pool in pools:
        after = net.body.pool(before)
        for name, values in ((BEFORE.format(pool), before), (pool, after)):
            expected = (values - values[:1]).flatten(1).norm(dim=1).float()
            torch.testing.assert_close(found.raw[name], expected, rtol=1e-5, atol=1e-5)
        before = after


def test_a_shift_changes_the_first_choice_or_not() -> None:
    """A network that reads one pixel changes its mind; one that reads their mean over a torus never does."""
    pixels = torch.zeros(1, 3, 8, 8)
    pixels[:, 0, 3, 3], pixels[:, 1] = 1, 0.5

    class Pixel(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, 3, 3]

    one = invariance(Net(PixelNet(Pixel()), size=8), [pixels[0]], steps=3, border="wrap", layers=["conv"])
    all_ = invariance(
        Net(PixelNet(torch.nn.AvgPool2d(8)), size=8), [pixels[0]], steps=3, border="wrap", layers=["conv"]
    )
    assert one.numbers()["stays"].tolist() == [[0] * 8] and all_.numbers()["stays"].tolist() == [[1] * 8]
    assert "changes under 100.0% of shifts by 1 pixel" in one.gist
    rows = [row for row in one.table.records if row["what"].startswith("answer")]
    assert [row["value"] for row in rows] == [1, 1] and rows[1]["low"] < 0.5
    assert "stays" not in invariance(tiny("sequential"), pictures(1, side=20), steps=3, shift=0).numbers()


class PixelNet(torch.nn.Module):
    def __init__(self, last: torch.nn.Module) -> None:
        super().__init__()
        self.conv, self.last = torch.nn.Conv2d(3, 3, 1, bias=False), last
        self.conv.weight.data[:] = torch.eye(3)[..., None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.conv(x)).flatten(1)


def test_the_table_has_every_number_with_its_interval() -> None:
    net, many = tiny("sequential"), pictures(7, side=20)
    drawing = invariance(net, list(many), steps=3, vertical=[-2, 2], horizontal=[0], scale=[0], rotation=[-90, 90])
    assert [row["amount"] for row in drawing.table.records][:3] == [-2, 0, 2]
    distances = drawing.numbers()["distances"]
    (row,) = [
        each for each in drawing.table.records if (each["layer"], each["amount"]) == (net.convolution(1).name, 2.0)
    ]
    assert row["value"] == pytest.approx(distances[0, 0, :, 2].mean(), rel=1e-5) and row["n"] == 7
    assert row["low"] < row["value"] < row["high"]
    low, high = bootstrap_means(distances[0, 0].astype(float))
    assert (row["low"], row["high"]) == pytest.approx((low[2], high[2]), rel=1e-5)
    assert {each["change"] for each in drawing.table.records} == {"vertical", "rotation", "shift by 1"}


def test_half_of_the_way_is_at_half_of_a_straight_line() -> None:
    far = np.array([abs(amount) for amount in DOWN.amounts(13)])
    assert half(DOWN, far) == pytest.approx(0.5)
    assert half(DOWN, np.minimum(far, 0.2 * far.max())) == pytest.approx(0.1)
    assert half(ROTATION, np.array([ROTATION.far(amount) for amount in ROTATION.amounts(9)])) == pytest.approx(0.5)
    assert np.isnan(half(SCALE, np.zeros(5)))


def test_a_study_is_made_again_from_its_file(tmp_path: Path) -> None:
    net = load("lenet5")
    data = tmp_path / "digits"
    for name, digit in (("3", 3), ("8", 8)):
        (data / name).mkdir(parents=True)
        (data / name / "x.png").write_bytes(digits()[digit].read_bytes())
    study = invariance(net, data, steps=3)
    study.save(tmp_path / "x.png"), study.save_values(tmp_path / "x.npz")
    again = remake(tmp_path / "x.png")
    assert isinstance(again, Study) and again._repr_png_() == study._repr_png_()
    assert Drawing.load(tmp_path / "x.npz").table.records == study.table.records  # type: ignore[attr-defined]
    recipe = Recipe.from_json(study.recipe.to_json())
    (data / "8" / "x.png").write_bytes(digits()[1].read_bytes())
    with pytest.raises(RecipeError, match="the data are others than those of the drawing"):
        remake(recipe)
    inside = invariance(net, [net.read(digits()[3])[0]], steps=3)
    with pytest.raises(RecipeError, match=r"was in memory: name it, as remake\(..., pictures"):
        remake(inside.recipe)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"vertical": [3]},
            "vertical is the first and the last amount, in pixels, as -5,5, or 0 to leave it out; not 3",
        ),
        ({"rotation": [90, -90]}, "rotation is the first and the last amount, in degrees"),
        ({"scale": [-1, 2]}, "in times, above 0, as 1,1.8"),
    ],
)
def test_ranges_that_are_none(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        invariance(tiny("sequential"), pictures(1, side=20), **options)


def test_classes_are_needed() -> None:
    net = tiny("sequential")
    with pytest.raises(NetworkError, match="not classes"):
        invariance(Net(net.body[0], size=20), pictures(1, side=20)[0])
