"""Occlusion against loops, captum and closed forms."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from captum.attr import Occlusion
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import Net, as_objective, explain
from convscope.attribution.occlusion import mean_over_squares, occlusion, squares_over
from convscope.context import listen
from convscope.errors import OptionError
from networks import pictures, tiny
from oracles.occlusion import occlusion_by_loops

INDEX = 2
GEOMETRIES = [(5, 5), (5, 2), (6, 4), (7, 3), (20, 1), (3, 1)]
"""Patch and stride; captum has no strides beyond the patch."""


def oblong(net: Net) -> Tensor:
    """Two pictures higher than they are wide; all the tiny networks take them."""
    return torch.rand(2, 3, 23, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(net.device)


def score_of(net: Net, of: Any = INDEX) -> Any:
    objective = as_objective(net, of)

    def score(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return objective(net, pixels)

    return score


@pytest.mark.parametrize(("patch", "stride"), [(5, 2), (6, 4), (5, 8), (20, 5)])
@pytest.mark.parametrize("kind", ["sequential", "residual"])
def test_equals_loops(kind: str, patch: int, stride: int) -> None:
    net = tiny(kind)
    pixels = oblong(net)
    found = occlusion(net, pixels, as_objective(net, INDEX), patch=patch, stride=stride)
    assert found.shape == (2, 1, 23, 20)
    for picture, map_ in zip(pixels, found, strict=True):
        expected = occlusion_by_loops(score_of(net), picture, patch=patch, stride=stride, colour=net.mean)
        torch.testing.assert_close(map_[0], expected, rtol=1e-9, atol=1e-12)
        assert expected.abs().max() > 1e-3


@pytest.mark.parametrize(("patch", "stride"), GEOMETRIES)
def test_equals_captum(patch: int, stride: int) -> None:
    net = tiny("sequential")
    pixels = oblong(net)
    baseline = torch.tensor(net.mean, dtype=torch.float64).view(1, 3, 1, 1).expand_as(pixels)
    peer = Occlusion(net).attribute(
        pixels, sliding_window_shapes=(3, patch, patch), strides=(3, stride, stride), baselines=baseline, target=INDEX
    )
    found = occlusion(net, pixels, as_objective(net, INDEX), patch=patch, stride=stride)
    assert peer.dtype == torch.float32
    torch.testing.assert_close(found.float().expand_as(peer), peer, rtol=0, atol=1e-6 * float(peer.abs().max()))
    assert peer.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("baseline", "colour"), [("mean", (0.5, 0.4, 0.3)), ("grey", (0.5,) * 3), ("0", (0.0,) * 3), ("0.85", (0.85,) * 3)]
)
def test_baselines(baseline: str, colour: tuple[float, ...]) -> None:
    net = tiny("functional")
    pixels = pictures(1)
    with listen() as remarks:
        found = occlusion(net, pixels, as_objective(net, INDEX), patch=6, stride=4, baseline=baseline)
    expected = occlusion_by_loops(score_of(net), pixels[0], patch=6, stride=4, colour=colour)
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-9, atol=1e-12)
    assert remarks[0] == f"patch 6 px, stride 4 px, 25 squares, baseline {baseline}"


def test_the_baseline_of_a_grey_network_is_its_one_colour() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 81, 5)).double()
    net, pixels = Net(body, mean=0.13, std=0.3, size=11), pictures(1, side=11, channels=1)
    expected = occlusion_by_loops(score_of(net), pixels[0], patch=4, stride=3, colour=(0.13,))
    found = occlusion(net, pixels, as_objective(net, INDEX), patch=4, stride=3)
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-9, atol=1e-12)


def linear() -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 18 * 24, 5)).double()
    weight = body[1].weight[INDEX].view(3, 18, 24).detach()
    return Net(body, mean=(0.5, 0.4, 0.3), std=0.25, size=(18, 24)), weight / 0.25


@pytest.mark.parametrize(("patch", "stride"), [(6, 3), (6, 6), (3, 1), (4, 2)])
def test_of_a_linear_network_is_a_box_filter(patch: int, stride: int) -> None:
    """I24: a square takes away the sum of w (x - fill) inside it; a pixel gets the mean over its squares."""
    net, weight = linear()
    pixels = torch.rand(2, 3, 18, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parts = (weight * (pixels - torch.tensor(net.mean, dtype=torch.float64).view(3, 1, 1))).sum(1, keepdim=True)
    sums = F.avg_pool2d(parts, patch, stride) * patch**2
    ones = torch.ones(1, 1, patch, patch, dtype=torch.float64)
    covered = F.conv_transpose2d(torch.ones_like(sums), ones, stride=stride)
    expected = F.conv_transpose2d(sums, ones, stride=stride) / covered
    found = occlusion(net, pixels, as_objective(net, INDEX), patch=patch, stride=stride)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_covering_with_what_is_there_changes_nothing() -> None:
    net = tiny("sequential")
    pixels = torch.full((1, 3, 20, 20), 0.5, dtype=torch.float64)
    assert not occlusion(net, pixels, as_objective(net, INDEX), baseline="grey").any()
    assert occlusion(net, pixels, as_objective(net, INDEX), baseline="mean").any()


def test_squares_outside_the_receptive_field_change_nothing() -> None:
    """I26: the map of a unit ends one square beyond what the unit sees."""
    net, pixels, patch = tiny("sequential"), pictures(1), 3
    found = occlusion(net, pixels, as_objective(net, "0:3@4,5"), patch=patch, stride=1)[0, 0]
    top, left, bottom, right = net.layer("0").field.box((4, 5), (20, 20))
    assert found[top:bottom, left:right].any()
    found[top - patch + 1 : bottom + patch - 1, left - patch + 1 : right + patch - 1] = 0
    assert not found.any()


def test_the_sign_is_positive_where_covering_lowers_the_score() -> None:
    net, weight = linear()
    pixels = (weight > 0).double()[None]
    assert occlusion(net, pixels, as_objective(net, INDEX), baseline="0").min() >= 0
    assert occlusion(net, pixels, -as_objective(net, INDEX), baseline="0").max() <= 0


@pytest.mark.parametrize("memory", ["1 B", "10 KiB", "1 MB", "2 GiB"])
def test_memory_does_not_matter(memory: str) -> None:
    """I26: nor, with it, how many squares are computed at once."""
    net, pixels = tiny("residual"), pictures(2)
    expected = occlusion(net, pixels, as_objective(net, INDEX), patch=6, stride=4)
    found = occlusion(net, pixels, as_objective(net, INDEX), patch=6, stride=4, memory=memory)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def test_no_more_pictures_at_once_than_fit_the_memory() -> None:
    net, counts = tiny("sequential"), []
    net.body.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    objective = as_objective(net, INDEX)
    counts.clear()
    pictures_of = 4 * 3 * 20 * 20 * 8  # the largest layer is the picture, four of them are held
    occlusion(net, pictures(2), objective, patch=6, stride=4, memory=f"{4 * pictures_of} B")
    whole = [count for count in counts if count > 1]
    assert max(counts) == 4 and sum(whole) >= 2 * 24


@pytest.mark.parametrize(("patch", "stride", "baseline"), [(12, 6, "grey"), (20, 9, "blur"), (7, 11, "noise")])
def test_equals_loops_where_only_parts_are_recomputed(squeezenet: Net, patch: int, stride: int, baseline: str) -> None:
    """A real network in float64, squares over every border."""
    from convscope import baselines

    net = copy.deepcopy(squeezenet).double().sized(63)
    pixels = torch.rand(1, 3, 63, 63, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    first = int(net(pixels).argmax())
    with listen() as remarks:
        found = occlusion(net, pixels, as_objective(net, first), patch=patch, stride=stride, baseline=baseline)
    assert remarks[1].startswith("recomputed only what the occluder can reach"), remarks
    squares = squares_over(pixels, patch, stride)
    covering = baselines.baseline_pixels(net, pixels, baseline)
    drops = []
    for number in range(squares.grid[0] * squares.grid[1]):
        covered = pixels.clone()
        covered[:, :, *squares.box(number)] = covering[:, :, *squares.box(number)]
        drops.append(score_of(net, first)(pixels)[0] - score_of(net, first)(covered)[0])
    expected = mean_over_squares(torch.stack(drops), squares)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found[0, 0], expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def test_approximate_computes_less_and_states_its_error(squeezenet: Net, chelsea: Any) -> None:
    net = squeezenet.sized(127)
    pixels = net.read(chelsea, size=127)
    options: dict[str, Any] = {"patch": 24, "stride": 4}
    exact = occlusion(net, pixels, as_objective(net, 285), **options)
    with listen() as remarks:
        found = occlusion(net, pixels, as_objective(net, 285), approximate=True, **options)
    stated = (
        r"approximate: (\d+) of 729 squares computed.*error on \d+ others: ([\d.e-]+) on average, ([\d.e-]+) at most"
    )
    said = re.search(stated, " ".join(remarks))
    assert said is not None and int(said[1]) < 300
    spread_ = float(exact.max() - exact.min())
    assert float((found - exact).abs().mean()) < 0.03 * spread_
    # What is stated of 16 squares holds, roughly, for the map.
    assert float((found - exact).abs().mean()) < 2 * float(said[2])
    strongest = exact.flatten().topk(200).indices
    torch.testing.assert_close(found.flatten()[strongest], exact.flatten()[strongest], rtol=0, atol=0.05 * spread_)


def test_approximate_is_exact_where_drops_are_linear_in_position() -> None:
    """A linear network and a picture whose parts grow evenly: interpolation is right, and the error it states is 0."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 40, 5)).double()
    nn.init.constant_(body[1].weight, 0.01)
    net = Net(body, size=40)
    ramp = torch.arange(40, dtype=torch.float64) / 80
    pixels = (ramp[:, None] + ramp).expand(1, 3, 40, 40)
    options: dict[str, Any] = {"patch": 4, "stride": 2, "baseline": "0"}
    with listen() as remarks:
        found = occlusion(net, pixels, as_objective(net, INDEX), approximate=True, **options)
    torch.testing.assert_close(found, occlusion(net, pixels, as_objective(net, INDEX), **options), rtol=1e-9, atol=1e-9)
    stated = re.search(r"error on [0-9]+ others: ([^ ]+) on average", " ".join(remarks))
    assert stated is not None and float(stated[1]) < 1e-12


@pytest.mark.parametrize(("side", "patch", "stride"), [(20, 3, 1), (28, 4, 2), (224, 32, 16), (5, 1, 1)])
def test_defaults_are_a_seventh_and_half_of_that(side: int, patch: int, stride: int) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5)).double()
    net = Net(body, size=side)
    with listen() as remarks:
        occlusion(net, pictures(1, side=side), as_objective(net, INDEX))
    assert re.match(f"patch {patch} px, stride {stride} px, .* squares, baseline mean", remarks[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "patch is a whole number, at least 1, not 0"),
        ({"patch": 21}, "patch of 21 px does not fit a picture of 20x20: give 1 to 20"),
        ({"patch": -3}, "patch is .*, not -3"),
        ({"stride": 0}, "at least 1, not 0"),
        ({"stride": -1}, "at least 1, not -1"),
        ({"memory": "0"}, "memory is an amount such as '2 GiB'"),
        ({"memory": "much"}, "memory is an amount such as '2 GiB' or '500 MB', not 'much'"),
        ({"baseline": "pink"}, "'mean', 'grey', 'blur', 'noise' or a value in .0, 1., not 'pink'"),
        ({"baseline": "1.5"}, "not '1.5'"),
        ({"baseline": "-0.1"}, "not '-0.1'"),
        ({"baseline": "nan"}, "not 'nan'"),
        ({"baseline": ""}, "not ''"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    net = tiny("sequential")
    with pytest.raises(OptionError, match=message):
        explain(net, pictures(1)[0], "occlusion", INDEX, **options)


def test_the_squares_that_are_reported_are_those_that_cover_something() -> None:
    net = tiny("sequential")
    with listen() as remarks:
        occlusion(net, pictures(1), as_objective(net, INDEX), patch=3, stride=7)
    assert remarks[0] == "patch 3 px, stride 7 px, 9 squares, baseline mean"
