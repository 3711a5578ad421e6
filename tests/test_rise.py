"""RISE against loops, exact enumerations and expectations in closed form."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import Net, as_objective, explain
from convscope.attribution import rise as module
from convscope.attribution.rise import Masks, rise
from convscope.baselines import baseline_pixels
from convscope.context import listen
from convscope.errors import OptionError
from networks import pictures, tiny

INDEX = 2


def masks_of(size: tuple[int, int] = (20, 20), cells: int = 7, keep: float = 0.5, seed: int = 0) -> Masks:
    return Masks(size, cells, keep, seed, torch.zeros((), dtype=torch.float64))


def linear(height: int = 6, width: int = 8, bias: float = 0.0) -> tuple[Net, Tensor]:
    """A network whose score is a sum over pixels, and what each pixel adds beyond the mean colour."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, 5)).double()
    with torch.no_grad():
        body[1].weight.copy_(pictures(5, side=1, channels=3 * height * width)[:, :, 0, 0] - 0.5)
        body[1].bias.fill_(bias)
    return Net(body, mean=(0.5, 0.4, 0.3), size=(height, width)), body[1].weight[INDEX].detach().view(3, height, width)


def parts(net: Net, weight: Tensor, picture: Tensor) -> Tensor:
    mean = torch.tensor(net.mean, dtype=torch.float64).view(3, 1, 1)
    return (weight * (picture - mean)).sum(0)


def rise_by_loops(scores: list[float], masks: list[Tensor], variance: Tensor, keep: float, *, centred: bool) -> Tensor:
    """Pixel by pixel, as the formulas are written."""
    count, mean = len(scores), sum(scores) / len(scores)
    map_ = torch.zeros_like(masks[0])
    for y in range(map_.shape[0]):
        for x in range(map_.shape[1]):
            if centred:
                products = [(s - mean) * float(m[y, x]) for s, m in zip(scores, masks, strict=True)]
                map_[y, x] = sum(products) / (count - 1) / float(variance[y, x])
            else:
                map_[y, x] = sum(s * float(m[y, x]) for s, m in zip(scores, masks, strict=True)) / (count * keep)
    return map_


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(
    ("kind", "baseline", "keep", "cells"), [("sequential", "mean", 0.5, 7), ("residual", "blur", 0.3, 4)]
)
def test_equals_loops(kind: str, baseline: str, keep: float, cells: int, centred: bool) -> None:
    net, drawn = tiny(kind), masks_of((23, 20), cells, keep, seed=5)
    pixels = torch.rand(2, 3, 23, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    options: dict[str, Any] = {"baseline": baseline, "keep": keep, "cells": cells, "centred": centred, "seed": 5}
    found = rise(net, pixels, as_objective(net, INDEX), masks=41, batch=7, **options)
    assert found.shape == (2, 1, 23, 20)
    behind = baseline_pixels(net, pixels, baseline)
    masks = list(drawn[0:41])
    for picture, back, map_ in zip(pixels, behind, found, strict=True):
        scores = [float(net((m * picture + (1 - m) * back)[None])[0, INDEX]) for m in masks]
        expected = rise_by_loops(scores, masks, drawn.variance, keep, centred=centred)
        torch.testing.assert_close(map_[0], expected, rtol=1e-8, atol=1e-11)
        assert expected.abs().max() > 1e-3


@pytest.mark.parametrize(("height", "width", "cells"), [(224, 224, 7), (20, 23, 7), (9, 5, 5), (6, 4, 1)])
def test_masks_are_enlarged_and_cut_as_in_the_paper(height: int, width: int, cells: int) -> None:
    drawn = masks_of((height, width), cells)
    grid = torch.rand(cells, cells, dtype=torch.float64)
    cell = [-(-side // cells) for side in (height, width)]
    whole = F.interpolate(grid[None, None], [(cells + 1) * c for c in cell], mode="bilinear")[0, 0]
    rows, columns = drawn.cuts
    assert [len(cuts) for cuts in drawn.cuts] == cell
    for y, x in {(0, 0), (cell[0] - 1, cell[1] - 1), (cell[0] // 2, 0)}:
        cut = whole[y : y + height, x : x + width]
        assert cut.shape == (height, width)
        torch.testing.assert_close(rows[y] @ grid @ columns[x].T, cut, rtol=0, atol=1e-12)


@given(st.integers(0, 300), st.integers(1, 20), st.integers(0, 12), st.integers(-5, 2**70))
def test_a_mask_depends_on_the_seed_and_its_number_alone(start: int, length: int, before: int, seed: int) -> None:
    drawn = masks_of(seed=seed)
    some = drawn[start : start + length]
    more = drawn[max(0, start - before) : start + length + 3]
    assert torch.equal(some, more[min(before, start) :][:length])
    assert some.min() >= 0 and some.max() <= 1 + 1e-12
    assert not torch.equal(some, masks_of(seed=seed + 1)[start : start + length])


@pytest.mark.parametrize(("keep", "cells"), [(0.5, 7), (0.2, 7), (0.7, 3)])
def test_masks_have_the_mean_and_the_variance_that_are_said(keep: float, cells: int) -> None:
    count = 20000
    drawn = masks_of((14, 10), cells, keep)
    masks = drawn[0:count]
    deviation = drawn.variance.sqrt()
    assert ((masks.mean(0) - keep).abs() < 5 * deviation / count**0.5).all()
    torch.testing.assert_close(masks.var(0), drawn.variance, rtol=0.05, atol=0)
    assert not torch.equal(masks[::2].mean(0), masks[1::2].mean(0))


def test_every_cut_is_as_likely_as_any_other() -> None:
    drawn = masks_of((20, 9), 3)
    drawn.cuts[0] = torch.arange(7, dtype=torch.float64).view(7, 1, 1).expand(7, 1, 3)
    drawn.cuts[1] = torch.ones(3, 1, 3, dtype=torch.float64)
    drawn.keep = 1.0
    counts = (drawn[0:7000] / 9).long().flatten().bincount()
    assert len(counts) == 7 and (counts - 1000).abs().max() < 150


def test_of_a_sum_over_all_masks_is_exactly_its_parts() -> None:
    """I28: over all masks of independent pixels the gradient is v_i, the paper's average v_i + p * (all the others)."""
    part = torch.tensor([0.3, -1.2, 2.0, 0.05, -0.4, 0.9], dtype=torch.float64)
    masks = torch.tensor(list(product([0.0, 1.0], repeat=6)), dtype=torch.float64)
    scores, keep = masks @ part + 7, 0.5
    whole = part.sum()[None] + 7
    sums = module._Sums(torch.zeros(2, 2, 7, dtype=torch.float64))
    for piece in torch.arange(64).split(10):
        sums.add(int(piece[0]), (scores[piece] - whole)[:, None], masks[piece] - keep)
    grads = sums.covariances()[0, 0] * 63 / 64 / (keep * (1 - keep))
    torch.testing.assert_close(grads, part, rtol=1e-12, atol=1e-12)
    averages = sums.averages(whole, keep)[0, 0]
    torch.testing.assert_close(averages, part + keep * (part.sum() - part) + 7, rtol=1e-12, atol=1e-12)


def expected_map(drawn: Masks, part: Tensor) -> Tensor:
    """The exact expectation for a linear score: covariances of all masks with each pixel's, by enumeration."""
    rows, columns = drawn.cuts
    map_ = torch.zeros_like(part)
    for y, x in product(range(len(rows)), range(len(columns))):
        map_ += rows[y] @ (rows[y].T @ part @ columns[x]) @ columns[x].T
    return map_ / (len(rows) * len(columns)) * drawn.keep * (1 - drawn.keep) / drawn.variance


def test_the_regression_over_all_masks_and_cuts_is_its_expectation() -> None:
    drawn, part = masks_of((5, 4), 2), torch.randn(5, 4, dtype=torch.float64)
    rows, columns = drawn.cuts
    grids = torch.tensor(list(product([0.0, 1.0], repeat=4)), dtype=torch.float64).view(16, 2, 2)
    every = torch.cat([(rows[y] @ grids @ columns[x].T) for y in range(len(rows)) for x in range(len(columns))])
    scores = (every * part).sum((1, 2))
    found = (scores[:, None, None] * (every - 0.5)).mean(0) / drawn.variance
    torch.testing.assert_close(every.var(0, correction=0), drawn.variance, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, expected_map(drawn, part), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("cells", "keep", "bias"), [(3, 0.5, 0.0), (6, 0.3, 100.0)])
def test_of_a_linear_network_is_its_expectation_within_its_noise(cells: int, keep: float, bias: float) -> None:
    """I28: without bias in the estimate, whatever constant the score has."""
    net, weight = linear(bias=bias)
    pixels = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn, part = masks_of((6, 8), cells, keep), parts(net, weight, pixels[0])
    found = [
        rise(net, pixels, as_objective(net, INDEX), masks=500, cells=cells, keep=keep, seed=seed)[0, 0]
        for seed in range(40)
    ]
    error = torch.stack(found).std(0) / 40**0.5
    away = (torch.stack(found).mean(0) - expected_map(drawn, part)) / error
    assert away.abs().max() < 4.5 and away.square().mean().sqrt() < 1.6


def test_the_paper_s_map_of_a_constant_score_is_the_masks_mean_and_ours_is_zero() -> None:
    net, pixels = tiny("sequential"), pictures(1)
    constant = lambda output: output[:, 0] * 0 + 3  # noqa: E731
    with listen() as remarks:
        assert not rise(net, pixels, as_objective(net, constant), masks=200).any()
    assert remarks[1] == "the score does not change with the masks"
    found = rise(net, pixels, as_objective(net, constant), masks=200, centred=False)
    torch.testing.assert_close(found[0, 0], 3 * masks_of()[0:200].mean(0) / 0.5, rtol=1e-9, atol=1e-12)


def test_the_paper_s_map_of_a_probability_is_a_mean_of_probabilities() -> None:
    net, pixels = tiny("functional"), pictures(2)
    found = sum(rise(net, pixels, as_objective(net, f"p({i})"), masks=300, centred=False) for i in range(5))
    torch.testing.assert_close(found, (masks_of()[0:300].mean(0) / 0.5).expand_as(found), rtol=1e-9, atol=1e-12)
    signed = rise(net, pixels, as_objective(net, "p(0)"), masks=300)
    assert signed.min() < 0 < signed.max()


@pytest.mark.parametrize("batch", [1, 7, 100, 10**6])
def test_batch_size_does_not_matter(batch: int) -> None:
    net, pixels = tiny("residual"), pictures(2)
    with listen() as remarks:
        expected = rise(net, pixels, as_objective(net, INDEX), masks=100, batch=32)
    with listen() as others:
        found = rise(net, pixels, as_objective(net, INDEX), masks=100, batch=batch)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert others == remarks


def test_the_network_runs_once_per_mask_and_picture_and_never_on_more_than_a_batch() -> None:
    net, counts = tiny("sequential"), []
    net.body.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    objective = as_objective(net, INDEX)
    net.behaviour(pictures(2))  # a few passes of its own, once
    counts.clear()
    rise(net, pictures(2), objective, masks=50, batch=16)
    assert sum(counts) == 2 + 2 * 50 and max(counts) == 16


def test_no_more_masks_at_once_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, draw = [], Masks.__getitem__
    monkeypatch.setattr(Masks, "__getitem__", lambda self, which: drawn.append(which) or draw(self, which))
    net = tiny("sequential")
    rise(net, pictures(2), as_objective(net, INDEX), masks=50, batch=16)
    assert drawn == [slice(0, 16), slice(16, 32), slice(32, 48), slice(48, 50)]


def test_the_seed_chooses_the_masks() -> None:
    net, pixels = tiny("sequential"), pictures(1)
    one, same, other = (rise(net, pixels, as_objective(net, INDEX), masks=50, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_halves_agree_better_with_more_masks_and_the_caption_says_how_many_are_enough() -> None:
    net, pixels = tiny("sequential"), pictures(1)
    said: list[tuple[float, int]] = []
    for masks in (30, 200, 5000):
        with listen() as remarks:
            rise(net, pixels, as_objective(net, INDEX), masks=masks)
        assert remarks[0] == f"{masks} masks of 7 x 7 cells, 0.5 of them shown, baseline mean"
        agreement, wanted = re.search(r"r = (-?[\d.]+)", remarks[1]), re.search(r"masks=(\d+)", remarks[1])
        assert agreement
        said.append((float(agreement[1]), int(wanted[1]) if wanted else 0))
    assert said[0][0] < said[1][0] < said[2][0] and said[2][0] > 0.9
    assert said[0][1] > 0 and said[2][1] == 0
    with listen() as remarks:
        rise(net, pixels, as_objective(net, INDEX), masks=said[1][1])
    assert 0.8 < float(re.search(r"r = ([\d.]+)", remarks[1])[1]) <= 1  # type: ignore[index]


def test_the_noise_that_is_said_is_the_spread_over_seeds() -> None:
    net, pixels = tiny("functional"), pictures(1)
    maps, noises = [], []
    for seed in range(30):
        with listen() as remarks:
            maps.append(rise(net, pixels, as_objective(net, INDEX), masks=100, seed=seed)[0, 0])
        noises.append(int(re.search(r"noise (\d+)%", remarks[1])[1]) / 100)  # type: ignore[index]
    strongest = sum(float(m.abs().max()) for m in maps) / len(maps)
    spread = float(torch.stack(maps).var(0).mean().sqrt()) / strongest
    assert sum(noises) / len(noises) == pytest.approx(spread, rel=0.15)


def test_more_masks_of_a_float32_network_lose_nothing_to_a_large_constant() -> None:
    class Plus(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1000

    single = tiny("sequential", dtype=torch.float32)
    shifted = Net(nn.Sequential(single.body, Plus()), mean=single.mean, std=single.std, size=20)
    pixels = pictures(1, dtype=torch.float32)
    one, other = (rise(net, pixels, as_objective(net, INDEX), masks=1000) for net in (single, shifted))
    assert F.cosine_similarity(one.flatten(), other.flatten(), 0) > 0.99
    assert one.dtype == torch.float32


@pytest.mark.parametrize("baseline", ["mean", "grey", "blur", "noise", "0", "0.85"])
def test_baselines(baseline: str) -> None:
    net, pixels = tiny("functional"), pictures(1)
    found = rise(net, pixels, as_objective(net, INDEX), masks=60, baseline=baseline, seed=3)
    shown = masks_of(seed=3)[0:60][:, None]
    scores = net(baseline_pixels(net, pixels, baseline, seed=3) * (1 - shown) + pixels * shown)[:, INDEX].tolist()
    expected = rise_by_loops(scores, list(shown[:, 0]), masks_of().variance, 0.5, centred=True)
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": 0}, "masks is a whole number, at least 2, not 0"),
        ({"masks": 1}, "at least 2, not 1"),
        ({"masks": -5}, "at least 2, not -5"),
        ({"cells": 0}, "cells is a whole number, at least 1, not 0"),
        ({"cells": 21}, r"21 cells do not fit a picture of 20x20: rise\(..., cells=7\)"),
        ({"keep": 0}, r"keep is a probability between 0 and 1, not 0.0: rise\(..., keep=0.5\)"),
        ({"keep": 1}, "not 1"),
        ({"keep": float("nan")}, "not nan"),
        ({"batch": 0}, "batch is .*, at least 1, not 0"),
        ({"baseline": "pink"}, "baseline is 'mean', 'grey', 'blur', 'noise' or a value in .0, 1., not 'pink'"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    net = tiny("sequential")
    with pytest.raises(OptionError, match=message):
        explain(net, pictures(1)[0], "rise", INDEX, **options)


def test_one_cell_says_the_same_everywhere() -> None:
    net, pixels = tiny("sequential"), pictures(1)
    found = rise(net, pixels, as_objective(net, INDEX), masks=100, cells=1)
    base = net(torch.cat([pixels, baseline_pixels(net, pixels, "mean")]))[:, INDEX]
    torch.testing.assert_close(found, found.mean().expand_as(found), rtol=1e-9, atol=1e-12)
    assert float(found.mean()) == pytest.approx(float(base[0] - base[1]), rel=0.2)


@pytest.mark.slow
def test_finds_the_dog_and_the_cat(squeezenet: Net, data: Any) -> None:
    picture = data("pictures/cat_dog.png")
    for index, (top, bottom) in ((243, (0, 0.5)), (282, (0.5, 1))):
        drawing = explain(squeezenet, picture, "rise", index, size=128, masks=500)
        values = torch.as_tensor(drawing.values)[0].clamp(min=0)
        rows = values.sum(1) / values.sum()
        share = float(rows[int(top * 128) : int(bottom * 128)].sum())
        assert share > 0.55, (index, share)
