"""Segmentation: seeds, cut, component, box and pictures on synthetic objects whose answer is known."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import convscope as cs
from convscope.attribution.activation import activation
from convscope.cli import run
from convscope.context import listen
from convscope.data.samples import digits
from convscope.errors import ConvscopeError, LayerError, OptionError, OutputError
from convscope.views import graph_cut
from convscope.views.graph_cut import Segment, segment_map
from convscope.views.segment import segment
from networks import SIZE, pictures, tiny


def disk(size: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.indices(size)
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def scene(size: tuple[int, int] = (90, 120)) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """A red disk on green, both a little noisy, and a map that marks only the middle of the disk."""
    truth = disk(size, (40, 70), 25)
    colours = np.where(truth[..., None], (200, 40, 40), (50, 150, 60))
    noisy = colours + np.random.default_rng(0).integers(-12, 13, (*size, 3))
    y, x = np.indices(size)
    values = np.exp(-((y - 40) ** 2 + (x - 70) ** 2) / (2 * 15**2)).astype(np.float32)
    return Image.fromarray(noisy.astype(np.uint8)), truth, values


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_a_red_disk_on_green_is_cut_out_to_the_pixel() -> None:
    image, truth, values = scene()
    result = segment_map(values, image)
    assert iou(result.mask, truth) > 0.99
    np.testing.assert_allclose(result.box, (15, 45, 66, 96), atol=1)
    assert result.mask.shape == result.seeds.shape == values.shape and result.mask.dtype == bool


@pytest.mark.parametrize("foreground, background", [(0.95, 0.3), (0.99, 0.05), (0.8, 0.5), (0.9, 0.7)])
def test_seeds_are_the_pixels_beyond_the_quantiles(foreground: float, background: float) -> None:
    """The paper's rule by sorting: distinct values, so the counts are exact."""
    image, _, _ = scene((30, 40))
    values = np.random.default_rng(1).permutation(1200).reshape(30, 40).astype(np.float32)
    seeds = segment_map(values, image, foreground=foreground, background=background).seeds
    order = values.argsort(axis=None)
    expected = np.zeros(1200, int)
    expected[order[int(np.floor(foreground * 1199)) + 1 :]] = 1
    expected[order[: int(np.ceil(background * 1199 - 1e-6))]] = -1
    assert np.array_equal(seeds.ravel(), expected)


def test_seeds_keep_their_label() -> None:
    image = Image.new("RGB", (40, 30), (90, 90, 90))
    values = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1))
    result = segment_map(values, image)
    assert result.mask[result.seeds == 1].all() and not result.mask[result.seeds == -1].any()


def test_only_the_largest_component_is_kept() -> None:
    small, large = disk((80, 160), (40, 30), 10), disk((80, 160), (40, 110), 25)
    image = Image.fromarray(np.where((small | large)[..., None], (210, 40, 40), (40, 140, 60)).astype(np.uint8))
    result = segment_map((small * 2.0 + large + np.random.default_rng(0).random((80, 160)) * 0.1), image)
    assert iou(result.mask, large) > 0.98
    corner = np.zeros((6, 6), bool)
    corner[:2, :2] = corner[2:5, 2:5] = True
    assert graph_cut._largest_component(corner).sum() == 9, "corners do not touch"
    one = np.zeros((3, 3), bool)
    one[1, 2] = True
    assert np.array_equal(graph_cut._largest_component(one), one)


def test_the_same_call_gives_the_same_bytes() -> None:
    image, _, values = scene()
    noise = np.random.default_rng(3).integers(0, 256, (90, 120, 3), np.uint8)
    for picture in (image, Image.fromarray(noise)):
        results = [segment_map(values, picture) for _ in range(2)]
        assert len({result.mask.tobytes() for result in results}) == 1
        assert len({result.cartoon().tobytes() for result in results}) == 1


def test_colours_are_learnt_from_the_seeds_alone() -> None:
    """Pixels between the quantiles are in neither model: painting them otherwise changes only their own label."""
    truth = disk((60, 60), (30, 30), 12)
    values = np.where(disk((60, 60), (30, 30), 7), 1.0, np.where(truth, 0.5, 0.0)) + np.indices((60, 60))[0] * 1e-4
    values[:20] = -np.indices((20, 60))[1] * 1e-3 - 1
    image = np.where(truth[..., None], (200, 40, 40), (40, 140, 60)).astype(np.uint8)
    image[45:, :] = (205, 45, 45)
    result = segment_map(values, Image.fromarray(image))
    assert result.seeds[45:].any() == 0
    assert iou(result.mask, truth) < 0.7 and result.mask[50:].all(), "red below is the object's colour, and larger"


def test_cut_out_and_cartoon() -> None:
    image, _, values = scene()
    result = segment_map(values, image)
    cut = result.cutout()
    assert cut.mode == "RGBA" and np.array_equal(np.asarray(cut)[..., 3] == 255, result.mask)
    assert np.array_equal(np.asarray(cut)[..., :3], np.asarray(image))
    assert set(np.unique(np.asarray(cut)[..., 3])) == {0, 255}
    cartoon = result.cartoon(colours=4)
    assert cartoon.mode == "RGBA" and max(cartoon.size) == 800
    shown = np.asarray(cartoon.resize(image.size, Image.Resampling.BOX))[..., 3] > 127
    assert iou(shown, result.mask) > 0.97
    inside = np.asarray(cartoon)[..., :3][np.asarray(cartoon)[..., 3] == 255]
    red = np.abs(inside.astype(int) - (200, 40, 40)).max(1) < 25
    assert red.mean() > 0.85 and (inside.max(1) < 40).mean() > 0.02, "flat red with a dark rim"
    with pytest.raises(OptionError, match="at least 2 colours"):
        result.cartoon(colours=1)


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_flat_map_marks_nothing(value: float) -> None:
    image, _, values = scene()
    with pytest.raises(OptionError, match=r"the same everywhere .* marks no object.*of=.*method="):
        segment_map(np.full_like(values, value), image)
    with pytest.raises(OptionError, match="no number over this picture"):
        segment_map(np.full_like(values, np.nan), image)


def test_a_rectified_map_has_ties_at_zero_and_works() -> None:
    """Of the many pixels at zero, the share that the option names is taken, the farthest from the object's seeds."""
    image, truth, values = scene()
    for floor in (0.3, 0.97):
        with listen() as remarks:
            result = segment_map((values - floor).clip(0), image)
        assert iou(result.mask, truth) > 0.98
        assert any("share the map's lowest value" in remark for remark in remarks)
        seeds = result.seeds
        assert (seeds == -1).sum() == round(0.3 * seeds.size)
        y, x = np.nonzero(seeds == 1)
        distance = np.hypot(*(np.indices(seeds.shape)[:, :, :, None] - np.stack([y, x])[:, None, None])).min(2)
        zero = (values <= floor) & (seeds != -1)
        assert distance[seeds == -1].min() >= distance[zero].max()
    with listen() as remarks:
        result = segment_map(truth.astype(float), image)
    assert iou(result.mask, truth) == 1 and np.array_equal(result.seeds == 1, truth)
    assert "18.2% of the pixels share the map's highest value: all are foreground seeds" in remarks


def test_unknown_pixels_are_no_seeds_but_may_be_the_object() -> None:
    image, truth, values = scene()
    values[:, 80:] = np.nan
    result = segment_map(values, image)
    assert not result.seeds[:, 80:].any()
    assert iou(result.mask, truth) > 0.98 and result.mask[40, 90]


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6), st.booleans())
def test_pictures_of_a_few_pixels(height: int, width: int, seed: int, grey: bool) -> None:
    draw = np.random.default_rng(seed)
    colours = draw.integers(0, 256, (height, width) if grey else (height, width, 3), np.uint8)
    values = draw.integers(0, 3, (height, width)).astype(float)
    if values.min() == values.max():
        with pytest.raises(OptionError):
            segment_map(values, Image.fromarray(colours))
        return
    result = segment_map(values, Image.fromarray(colours))
    top, left, bottom, right = result.box
    assert result.mask[top:bottom, left:right].sum() == result.mask.sum() > 0
    assert result.cutout().size == (width, height)


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (3, 2)])
def test_cartoons_of_a_few_pixels(size: tuple[int, int]) -> None:
    mask = np.zeros(size[::-1], bool)
    mask[0, 0] = True
    result = Segment(Image.new("RGB", size, (9, 200, 30)), mask, mask.astype(np.int8))
    assert max(result.cartoon().size) == 800 and np.asarray(result.cartoon())[..., 3].any()


def test_huge_pictures_are_cut_on_a_reduced_copy() -> None:
    image, truth, values = scene()
    large = image.resize((2400, 1800), Image.Resampling.NEAREST)
    with listen() as remarks:
        result = segment_map(np.kron(values, np.ones((20, 20))), large)
    assert remarks[0] == "cut on a copy of 1000 x 750 pixels, then enlarged to 2400 x 1800"
    assert iou(result.mask, np.kron(truth, np.ones((20, 20))).astype(bool)) > 0.98
    assert set(np.unique(result.seeds)) == {-1, 0, 1}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"foreground": 0.3, "background": 0.95}, "0 < background < foreground < 1"),
        ({"foreground": 1.0}, "0 < background < foreground < 1"),
        ({"background": 0.0}, "0 < background < foreground < 1"),
        ({"background": float("nan")}, "0 < background < foreground < 1"),
        ({"rounds": 0}, "at least 1, not 0"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    image, _, values = scene()
    with pytest.raises(OptionError, match=message):
        segment_map(values, image, **options)
    with pytest.raises(OptionError, match=message):
        segment(tiny("sequential", dtype=torch.float32), pictures(1, dtype=torch.float32), **options)


def test_a_map_of_another_size_is_refused() -> None:
    image, _, values = scene()
    with pytest.raises(OptionError, match=r"Heatmap.spread\(image.size\)"):
        segment_map(values[1:], image)


def test_without_opencv_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    image, _, values = scene()
    for call in (lambda: segment_map(values, image), lambda: segment(cs.load("lenet5"), digits()[3])):
        with pytest.raises(ConvscopeError, match=r"pip install 'convscope\[segment\]'"):
            call()


def test_the_view_cuts_by_the_map_that_explain_gives() -> None:
    net = cs.load("lenet5")
    drawing = segment(net, digits()[3], smooth=0)
    expected = cs.explain(net, digits()[3], "saliency")
    numbers = drawing.numbers()
    assert np.array_equal(numbers["saliency"], expected.flat)
    result = segment_map(expected.spread(expected.picture.original.size), expected.picture.original)
    assert np.array_equal(numbers["mask"], result.mask) and tuple(numbers["box"]) == result.box
    assert drawing.recipe.method == "segment" and drawing.recipe.options["method"] == "saliency"
    assert len(drawing.sheet().tiles) == 4 and len({tile.image.size for tile in drawing.sheet().tiles}) == 1
    assert "follows colours" in drawing.sheet().note


@pytest.mark.parametrize("method", ["gradient", "guided_backprop", "grad_cam", "occlusion", "activation"])
def test_any_method_marks(method: str) -> None:
    drawing = segment(cs.load("lenet5"), digits()[5], method=method, of=5, rounds=2)
    assert drawing.numbers()["mask"].any() and np.isfinite(drawing.numbers()["saliency"]).all()
    assert drawing.numbers()["saliency"].shape == (28, 28)
    if method == "gradient":
        assert np.array_equal(drawing.heatmap.flat, cs.explain(cs.load("lenet5"), digits()[5], "saliency", 5).flat)


def test_a_blur_joins_specks() -> None:
    net = cs.load("lenet5")
    rough, smooth = (segment(net, digits()[5], smooth=share).segment.seeds == 1 for share in (0, 0.1))
    count = [len(np.unique(np.diff(seeds.astype(int), axis=1), axis=0)) for seeds in (rough, smooth)]
    assert (
        np.array_equal(rough.sum(), smooth.sum())
        and np.abs(np.diff(smooth, axis=1)).sum() < np.abs(np.diff(rough, axis=1)).sum()
    ), count
    with pytest.raises(OptionError, match=r"smooth is a number, 0 to 1, not -0\.1"):
        segment(net, digits()[5], smooth=-0.1)


def test_bad_questions_methods_and_layers() -> None:
    net = cs.load("lenet5")
    with pytest.raises(OptionError, match="no method 'salience'; for vanilla gradients, use 'saliency'"):
        segment(net, digits()[5], method="salience")
    with pytest.raises(OptionError, match="no option 'layer'"):
        segment(net, digits()[5], layer="conv1")
    with pytest.raises(LayerError):
        segment(net, digits()[5], method="activation", layer="nothing")


def test_the_command_writes_cut_out_and_cartoon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["segment", str(digits()[3]), "--net", "lenet5", "-o", "out.png"]
    assert run([*arguments, "--cutout", "cut.png", "--cartoon", "toons", "--save-values", "v.npz"]) == 0
    cut = Image.open("cut.png")
    assert cut.mode == "RGBA" and np.array_equal(np.asarray(cut)[..., 3] == 255, np.load("v.npz")["mask"])
    assert Image.open("toons/3.png").mode == "RGBA"
    assert run([*arguments, "--cutout", "cut.jpg"]) == 2
    assert "no transparency: give a .png" in capsys.readouterr().err
    with pytest.raises(OutputError):
        segment(cs.load("lenet5"), digits()[3], cartoon=Path("/proc/nowhere/x.png"))


# Mean activation


def test_activation_is_the_mean_magnitude_whatever_was_asked() -> None:
    net, pixels = tiny("sequential"), pictures(2)
    expected = cs.tap(net, pixels, ["3"])["3"].abs().mean(1)
    values = activation(net, pixels, cs.as_objective(net, 0), layer="3", align="stretch")
    assert torch.equal(values, activation(net, pixels, cs.as_objective(net, 3), layer="3", align="stretch"))
    assert values.shape == (2, 1, SIZE, SIZE) and values.amax() <= expected.amax() + 1e-12
    even = torch.nn.functional.interpolate(expected[:, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    torch.testing.assert_close(values, even)
    with pytest.raises(LayerError, match="without spatial positions"):
        activation(net, pixels, cs.as_objective(net, 0), layer="5")


def test_a_silent_layer_is_said() -> None:
    net = tiny("sequential", dtype=torch.float32)
    with torch.no_grad():
        net.body[3].weight.zero_()
        net.body[3].bias.fill_(-1)
    drawing = cs.explain(net, pictures(1, dtype=torch.float32), "activation", 0, layer="4")
    assert "no unit of this layer is active" in drawing.note
    with pytest.raises(OptionError, match="the same everywhere"):
        segment(net, pictures(1, dtype=torch.float32), of=0, method="activation", layer="4")


@pytest.mark.slow
def test_the_snake_is_cut_out(squeezenet: cs.Net, data: Callable[[str], Path]) -> None:
    """The ring colours are the object's, the sand is not."""
    result: Segment = segment(squeezenet, data("pictures/snake.png"), method="grad_cam").segment
    image = np.asarray(result.image).astype(int)
    dark = image.sum(2) < 200
    assert result.mask[dark].mean() > 4 * result.mask[~dark].mean()
    assert 0.08 < result.mask.mean() < 0.25
