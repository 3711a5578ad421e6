"""Extremal perturbations against loops, windows, and networks whose answer is known."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import Net, as_objective, explain
from convscope.attribution.extremal import extremal, smooth
from convscope.baselines import baseline_pixels
from convscope.context import listen
from convscope.errors import ObjectiveError, OptionError
from networks import SIZE, pictures, tiny

INDEX = 2


def smooth_by_loops(grid: list[list[float]]) -> list[list[float]]:
    """For each place: k(distance) g of every place no more than five away, weighted with exp(value / T)."""
    rows, columns = len(grid), len(grid[0])
    found = []
    for y in range(rows):
        line = []
        for x in range(columns):
            values = []
            for dy in range(-5, 6):
                for dx in range(-5, 6):
                    inside = 0 <= y + dy < rows and 0 <= x + dx < columns
                    z = (dy * dy + dx * dx) ** 0.5
                    bump = 2.718281828459045 ** (-(max(0.0, z - 1) ** 2) / 4)
                    values.append(bump * grid[y + dy][x + dx] if inside else 0.0)
            weights = [2.718281828459045 ** (20 * value) for value in values]
            line.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
        found.append(line)
    return found


@pytest.mark.parametrize("size", [(8, 6), (1, 1), (13, 4)])
def test_smooth_equals_loops(size: tuple[int, int]) -> None:
    grid = torch.rand(2, 1, *size, dtype=torch.float64)
    grid[1] = (grid[1] > 0.8).double()
    expected = torch.tensor([smooth_by_loops(one[0].tolist()) for one in grid], dtype=torch.float64)[:, None]
    torch.testing.assert_close(smooth(grid), expected, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10**6), st.integers(3, 16), st.integers(3, 16))
def test_smooth_masks_stay_in_range_and_have_no_detail_finer_than_the_bump(seed: int, height: int, width: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    grid = (torch.rand(1, 1, height, width, generator=numbers, dtype=torch.float64) > 0.9).double()
    mask = smooth(grid)
    assert mask.min() >= 0 and mask.max() <= 1
    assert (mask[grid == 1] > 0.9).all()
    for steps in (mask.diff(dim=2), mask.diff(dim=3)):
        assert steps.abs().max() < 0.5  # the bump falls from 0.78 to 0.37 within a step of the grid


def test_a_mask_can_be_one_over_any_area() -> None:
    """What a blurred mask cannot: full inside, and yet smooth."""
    grid = torch.zeros(1, 1, 30, 30, dtype=torch.float64)
    grid[..., 8:22, 8:22] = 1
    assert smooth(grid)[..., 8:22, 8:22].min() > 0.93 and smooth(grid)[..., :4, :].max() < 0.1


def patch_net(top: int, left: int, side: int, size: int = 32, bias: float = 0.0) -> tuple[Net, Tensor]:
    """A network that asks for brightness inside a square and darkness outside, and the square."""
    inside = torch.zeros(size, size, dtype=torch.float64)
    inside[top : top + side, left : left + side] = 1
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 5)).double()
    with torch.no_grad():
        body[1].weight.zero_()
        body[1].weight[INDEX] = (inside - 0.2 * (1 - inside)).expand(3, size, size).flatten()
        body[1].bias.fill_(bias)
    return Net(body, size=size), inside


def overlap(mask: Tensor, inside: Tensor) -> float:
    one, other = mask > 0.5, inside > 0
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("game", ["preserve", "delete"])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 18), (18, 18), (11, 9)])
def test_finds_the_square_that_the_network_looks_at(game: str, top: int, left: int) -> None:
    net, inside = patch_net(top, left, 12)
    pixels = torch.full((1, 3, 32, 32), 0.9, dtype=torch.float64)
    found = extremal(net, pixels, as_objective(net, INDEX), area=144 / 1024, baseline="0", game=game)  # type: ignore[arg-type]
    assert overlap(found[0, 0], inside) > 0.75
    assert float(found.mean()) == pytest.approx(144 / 1024, rel=0.2)


def blobs(count: int) -> Tensor:
    """Pictures with large bright and dark regions."""
    return F.interpolate(pictures(count, side=5), [SIZE, SIZE], mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("game", ["preserve", "delete"])
@pytest.mark.parametrize("kind", ["sequential", "in-place", "concat"])
def test_the_part_beats_the_same_part_elsewhere(kind: str, game: str) -> None:
    net, pixels = tiny(kind), blobs(3)
    objective, behind = as_objective(net, INDEX), baseline_pixels(net, pixels, "grey")
    found = extremal(net, pixels, objective, area=0.2, baseline="grey", game=game)  # type: ignore[arg-type]
    one, other, sign = (behind, pixels, 1) if game == "preserve" else (pixels, behind, -1)
    better: list[Tensor] = []
    for hidden, shown, mask in zip(one, other, found, strict=True):
        elsewhere = torch.stack([mask.roll((dy, dx), (1, 2)) for dy in range(0, SIZE, 2) for dx in range(0, SIZE, 2)])
        scores = sign * objective(net, torch.lerp(hidden, shown, elsewhere))
        better.append((scores > scores[0]).double().mean())
    assert torch.stack(better).mean() < 0.25  # ascent ends in a good place, not always in the best


@pytest.mark.parametrize("area", [0.05, 0.1, 0.3, 0.6, 0.9])
def test_has_the_area_that_was_asked_for(area: float) -> None:
    net, pixels = tiny("sequential"), pictures(2)
    with listen() as remarks:
        found = extremal(net, pixels, as_objective(net, INDEX), area=area)
    assert found.shape == (2, 1, SIZE, SIZE) and found.min() >= 0 and found.max() <= 1
    shares = found.mean((1, 2, 3))
    assert (shares - area).abs().max() < 0.05
    span = re.search(r"the region is ([\d.]+)(?: to ([\d.]+))?%", remarks[0])
    assert span and float(span[1]) == pytest.approx(float(shares.min()) * 100, rel=0.01)


def test_the_caption_gives_the_score_of_the_region() -> None:
    net, pixels, objective = tiny("residual"), pictures(1), as_objective(tiny("residual"), INDEX)
    behind = baseline_pixels(net, pixels, "grey")
    whole, nothing = float(objective(net, pixels)), float(objective(net, behind))
    for game, words in (("preserve", "with this region alone"), ("delete", "without this region")):
        with listen() as remarks:
            mask = extremal(net, pixels, objective, baseline="grey", game=game)  # type: ignore[arg-type]
        one, other = (behind, pixels) if game == "preserve" else (pixels, behind)
        score = float(objective(net, torch.lerp(one, other, mask)))
        assert remarks[1] == (
            f"score {score:.3g} {words}, {whole:.3g} for the whole picture, {nothing:.3g} for the baseline"
        )


@pytest.mark.parametrize("kind", ["sequential", "shared"])
def test_units_and_zero_of_the_score_do_not_matter(kind: str) -> None:
    class Affine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1000 * x + 70

    net, pixels = tiny(kind), pictures(2)
    other = Net(nn.Sequential(net.body, Affine()), mean=net.mean, std=net.std, size=SIZE)
    one, two = extremal(net, pixels, as_objective(net, INDEX)), extremal(other, pixels, as_objective(other, INDEX))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-3)


def test_asking_the_opposite_finds_another_part() -> None:
    net, pixels = tiny("sequential"), pictures(1)
    one, other = (extremal(net, pixels, sign * as_objective(net, INDEX)) for sign in (1, -1))
    assert F.cosine_similarity(one.flatten(), other.flatten(), 0) < 0.6


@pytest.mark.parametrize("baseline", ["mean", "grey", "blur", "noise", "0", "0.85"])
def test_baselines(baseline: str) -> None:
    net, pixels = tiny("functional"), pictures(1)
    objective = as_objective(net, INDEX)
    with listen() as remarks:
        found = extremal(net, pixels, objective, baseline=baseline, seed=3)
    nothing = float(objective(net, baseline_pixels(net, pixels, baseline, seed=3)))
    assert f"baseline {baseline}" in remarks[0] and remarks[1].endswith(f"{nothing:.3g} for the baseline")
    again, other = (extremal(net, pixels, objective, baseline=baseline, seed=seed) for seed in (3, 4))
    assert torch.equal(found, again) and torch.equal(found, other) == (baseline != "noise")


def test_a_baseline_like_the_picture_leaves_nothing_to_find() -> None:
    net = tiny("sequential")
    pixels = torch.cat([torch.full((1, 3, SIZE, SIZE), 0.5, dtype=torch.float64), pictures(1)])
    with listen() as remarks:
        found = extremal(net, pixels, as_objective(net, INDEX), baseline="grey")
    assert not found[0].any() and found[1].any()
    assert remarks[0] == "the score does not change with the mask: no region can be found"


def test_an_objective_that_does_not_depend_on_the_picture_is_refused() -> None:
    net = tiny("sequential")
    with pytest.raises(ObjectiveError, match="does not depend on the picture"):
        extremal(net, pictures(1), as_objective(net, lambda output: torch.ones(len(output)).to(output)))
    with pytest.raises(ObjectiveError, match="depends on the picture, but sequential cuts the gradient"):
        extremal(net, pictures(1), as_objective(net, lambda output: output.detach()[:, 0]))


@pytest.mark.parametrize(("height", "width", "step"), [(20, 33, None), (33, 20, 7), (21, 21, 5), (20, 20, 1)])
def test_any_size_and_any_grid(height: int, width: int, step: int | None) -> None:
    net = tiny("functional")
    pixels = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = extremal(net, pixels, as_objective(net, INDEX), step=step, steps=30)
    assert found.shape == (1, 1, height, width) and found.any()


def test_every_step_is_one_pass_forward_and_back() -> None:
    net, counts = tiny("sequential"), []
    net.body.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    objective = as_objective(net, INDEX)
    net.behaviour(pictures(2))  # a few passes of its own, once
    counts.clear()
    extremal(net, pictures(2), objective, steps=10)
    assert counts == [2] * (10 + 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"area": 0}, "area is a number, above 0 to 1, not 0"),
        ({"area": 1}, r"area is a fraction of the picture, between 0 and 1, not 1.0: extremal\(..., area=0.1\)"),
        ({"area": 10}, "not 10"),
        ({"area": -0.1}, "not -0.1"),
        ({"area": float("nan")}, "not nan"),
        ({"game": "keep"}, "game is one of 'preserve', 'delete', not 'keep'"),
        ({"steps": 0}, "steps is a whole number, at least 1, not 0"),
        ({"step": 0}, "step is a whole number, at least 1, not 0"),
        ({"step": 21}, "step is in pixels, 1 to 20 for a picture of 20x20, not 21"),
        ({"baseline": "pink"}, "baseline is 'mean', 'grey', 'blur', 'noise' or a value in .0, 1., not 'pink'"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    net = tiny("sequential")
    with pytest.raises(OptionError, match=message):
        explain(net, pictures(1)[0], "extremal", INDEX, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("index", "box"), [(243, (0, 0, 120, 170)), (282, (100, 20, 224, 224))])
def test_sits_on_the_animal(squeezenet: Net, data: Any, index: int, box: tuple[int, int, int, int]) -> None:
    drawing = explain(squeezenet, data("pictures/cat_dog.png"), "extremal", index, steps=60)
    mask = torch.as_tensor(drawing.values)[0]
    top, left, bottom, right = box
    assert float(mask[top:bottom, left:right].sum() / mask.sum()) > 0.7
