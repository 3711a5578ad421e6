"""Fidelity: curves of linear models in closed form, the paper's identities, captum's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convscope import Heatmap, Net, as_objective, explain
from convscope.baselines import baseline_pixels
from convscope.checks import Removal, curves, deletion, infidelity, insertion, sensitivity
from convscope.checks.cases import Case
from convscope.checks.perturbation import compare_drops
from convscope.checks.removal import importance, path_scores, ranking
from convscope.errors import OptionError, PictureError
from networks import SIZE, pictures, tiny

MEAN = (0.5, 0.4, 0.3)


def linear(*, seed: int = 0) -> Net:
    """A network whose three scores are linear in the picture."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 3)).double()
    return Net(body, mean=MEAN, std=(0.2, 0.3, 0.25), size=SIZE, channels=3, name="linear")


def picture() -> Tensor:
    return pictures(1, dtype=torch.float32)[0]


def shown(net: Net, method: str = "gradient", of: int = 1) -> Heatmap:
    return explain(net, picture(), method, of)


def test_deletion_and_insertion_of_a_linear_model_are_sums_of_its_contributions() -> None:
    """With the mean colour as the fill, gradient x input says exactly what every pixel adds to the score."""
    net = linear()
    heatmap = shown(net, "gradient_x_input")
    steps = 16
    parts = heatmap.values.double().flatten().sort(descending=True)[0]
    gone = torch.cat([torch.zeros(1), parts.cumsum(0)])[:: SIZE * SIZE // steps]
    whole = float(as_objective(net, 1)(net, picture()[None].double()))
    result = deletion(net, heatmap, of=1, steps=steps)
    np.testing.assert_allclose(result.scores, whole - gone.numpy(), rtol=1e-5, atol=1e-5)
    back = insertion(net, heatmap, of=1, steps=steps, baseline="mean")
    np.testing.assert_allclose(back.scores, (whole - parts.sum() + gone).numpy(), rtol=1e-5, atol=1e-5)


def test_the_best_order_of_a_linear_model_is_that_of_its_contributions() -> None:
    net = linear()
    heatmap = shown(net, "gradient_x_input")
    best = deletion(net, heatmap, of=1).auc
    worst = deletion(net, heatmap, of=1, first="least").auc
    for method in ("gradient", "saliency"):
        assert best < deletion(net, shown(net, method), of=1).auc < worst


@settings(max_examples=12)
@given(st.integers(0, 99), st.sampled_from([1, 4, 10, 20]), st.sampled_from(["mean", "blur", "noise", "0.25"]))
def test_deletion_is_insertion_backwards_in_the_reversed_order(seed: int, steps: int, baseline: str) -> None:
    """I29: of the same order and fill the two are one curve, not independent evidence."""
    net, pixels = tiny("residual"), pictures(1)
    order = torch.randperm(SIZE * SIZE, generator=torch.Generator().manual_seed(seed))
    gone = baseline_pixels(net, pixels, baseline)
    counts = [step * SIZE * SIZE // steps for step in range(steps + 1)]
    objective = as_objective(net, "p(2)")
    away = path_scores(net, objective, pixels, gone, order, counts, 8)
    back = path_scores(net, objective, gone, pixels, order.flip(0), counts, 8)
    torch.testing.assert_close(away, back.flip(0), rtol=0, atol=0)
    ends = objective(net, torch.cat([pixels, gone]))
    torch.testing.assert_close(away[[0, -1]], ends, rtol=1e-12, atol=0)


def test_the_public_functions_are_that_identity_too() -> None:
    net = tiny("in-place")
    heatmap = explain(net, pictures(1)[0].float(), "gradient", 2)
    gone = deletion(net, heatmap, baseline="blur", steps=20)
    back = insertion(net, heatmap, baseline="blur", first="least", steps=20)
    np.testing.assert_allclose(gone.scores, back.scores[::-1], rtol=1e-6)
    assert gone.auc == pytest.approx(back.auc)


def test_a_constant_model_has_a_flat_curve_and_no_drop() -> None:
    """I30."""
    net = linear()
    net.body[1].weight.data.zero_()
    result = deletion(net, shown(net), steps=5)
    assert result.aopc == pytest.approx(0, abs=1e-7)
    assert result.auc == pytest.approx(result.scores[0]) and 0 <= result.auc <= 1


def test_random_orders_lose_as_much_from_either_end() -> None:
    """I30: in expectation over random orders, taking the most or the least relevant first is the same."""
    net, pixels = tiny("concat"), pictures(1)
    counts = list(range(0, SIZE * SIZE + 1, 100))
    curves_: dict[bool, list[Tensor]] = {True: [], False: []}
    for seed in range(30):
        order = torch.randperm(SIZE * SIZE, generator=torch.Generator().manual_seed(seed))
        for way, ranked in ((True, order), (False, order.flip(0))):
            gone = baseline_pixels(net, pixels, "mean")
            curves_[way].append(path_scores(net, as_objective(net, 1), pixels, gone, ranked, counts, 16))
    most, least = (torch.stack(each) for each in curves_.values())
    spread = (most - least).std(0) / 30**0.5
    assert ((most.mean(0) - least.mean(0)).abs() <= 4 * spread + 1e-12).all()


@pytest.mark.parametrize("kind", ["sequential", "relu6"])
def test_areas_of_probabilities_are_in_the_unit_interval(kind: str) -> None:
    net = tiny(kind)
    for method in ("gradient", "grad_cam", "occlusion"):
        heatmap = explain(net, picture(), method)
        for way in (deletion, insertion):
            result = way(net, heatmap, steps=7)
            assert result.objective.startswith("p(") and 0 <= result.auc <= 1
            assert result.shares[0] == 0 and result.shares[-1] == 1 and len(result.scores) == 8


def test_area_and_mean_drop_by_hand() -> None:
    result = Removal("deletion", "p(1)", (0, 0.5, 1), (1.0, 0.5, 0.0))
    assert result.auc == pytest.approx((1 + 2 * 0.5 + 0) / 4) and result.aopc == pytest.approx(0.5)


def test_ties_are_ordered_at_random_and_the_same_each_time() -> None:
    values = torch.zeros(20, 20)
    values[3, 4], values[7, 7] = 2.0, 1.0
    order = ranking(values)
    assert order[:2].tolist() == [64, 147] and sorted(order.tolist()) == list(range(400))
    assert torch.equal(order, ranking(values)) and not torch.equal(order, ranking(values, seed=1))
    rest = order[2:] // 20
    assert abs(float(rest[:100].float().mean()) - 9.5) < 2, "ties must not be taken from the top"
    assert torch.equal(ranking(values, first="least"), order.flip(0))


def test_importance_is_the_magnitude_of_maps_that_are_pictures() -> None:
    net = linear()
    torch.testing.assert_close(importance(Case.of(net, shown(net))), shown(net).values.abs().sum(0))
    signed = shown(net, "gradient_x_input")
    torch.testing.assert_close(importance(Case.of(net, signed)), signed.values.sum(0))


def test_infidelity_of_the_exact_answer_is_zero() -> None:
    net = linear()
    for method in ("gradient", "gradient_x_input"):
        result = infidelity(net, shown(net, method))
        assert result.mean_square < 1e-9 and result.unexplained < 1e-6 and result.factor == pytest.approx(1, abs=1e-4)
    assert infidelity(net, shown(net, "gradient"), baseline="0.2").mean_square < 1e-9
    assert infidelity(net, shown(net, "gradient", of=2), of=1).unexplained > 0.1


def test_infidelity_is_captums() -> None:
    from captum.metrics import infidelity as peer

    net = tiny("sequential")
    heatmap = explain(net, picture(), "gradient", 2)
    pixels = picture()[None]
    squares: list[Tensor] = []
    covers = pixels - baseline_pixels(net, pixels, "mean")
    draw = torch.Generator().manual_seed(0)
    tops, lefts = (torch.randint(0, SIZE - 5 + 1, (40, 1), generator=draw) for _ in range(2))
    for top, left in zip(tops.flatten().tolist(), lefts.flatten().tolist(), strict=True):
        mask = torch.zeros(1, 1, SIZE, SIZE)
        mask[..., top : top + 5, left : left + 5] = 1
        squares.append(mask * covers)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        change = torch.cat(squares)
        return change, inputs - change

    values = heatmap.values[None]
    expected = peer(lambda x: net(x)[:, 2], perturb, pixels, values, n_perturb_samples=40)
    result = infidelity(net, heatmap, samples=40)
    assert result.mean_square == pytest.approx(float(expected), rel=1e-5)
    scaled = peer(lambda x: net(x)[:, 2], perturb, pixels, values, n_perturb_samples=40, normalize=True)
    said = torch.stack([(one[0] * heatmap.values).sum() for one in squares]).double()
    with torch.no_grad():
        true = (net(pixels)[:, 2] - net(pixels - torch.cat(squares))[:, 2]).double()
    assert compare_drops(said, true).unexplained * float((true**2).mean()) == pytest.approx(float(scaled), rel=1e-4)


def test_infidelity_is_a_share_and_says_when_there_is_nothing_to_explain() -> None:
    nothing = compare_drops(torch.zeros(4), torch.tensor([1.0, 2.0, 0.0, -1.0]))
    assert nothing.unexplained == 1 and nothing.factor == 0
    assert compare_drops(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0])).unexplained == pytest.approx(0)
    assert compare_drops(torch.ones(3), torch.zeros(3)).unexplained == 0


def test_sensitivity_is_captums() -> None:
    from captum.metrics import sensitivity_max

    net = tiny("functional")
    heatmap = explain(net, picture(), "saliency", 2)
    case = Case.of(net, heatmap)
    draw = torch.Generator().manual_seed(5)
    noise = (torch.rand(6, 3, SIZE, SIZE, generator=draw, dtype=torch.float64) * 0.1 - 0.05).float()

    def explanation(inputs: Any) -> tuple[Tensor]:
        # The peer takes a bare tensor of maps apart along the batch.
        return (case.again(net, inputs[0] if isinstance(inputs, tuple) else inputs),)

    expected = sensitivity_max(
        explanation, case.pixels, perturb_func=lambda x: (x[0] if isinstance(x, tuple) else x) + noise,
        n_perturb_samples=6,
    )  # fmt: skip
    result = sensitivity(net, heatmap, radius=0.05, samples=6, seed=5)
    assert result == pytest.approx(float(expected), rel=1e-5)


def test_sensitivity_of_a_linear_model_and_of_no_movement_is_nothing() -> None:
    assert sensitivity(linear(), shown(linear())) == pytest.approx(0, abs=1e-6)
    net = tiny("residual")
    heatmap = explain(net, picture(), "gradient", 1)
    assert sensitivity(net, heatmap, radius=0) == pytest.approx(0, abs=1e-6)
    assert sensitivity(net, heatmap, radius=0.3) > sensitivity(net, heatmap, radius=0.01)


def test_batches_do_not_matter() -> None:
    net = tiny("concat")
    heatmap = explain(net, picture(), "gradient", 1)
    for way in (deletion, insertion, infidelity, sensitivity):
        one, many = (way(net, heatmap, batch=batch) for batch in (1, 64))
        for a, b in zip(_numbers(one), _numbers(many), strict=True):
            assert a == pytest.approx(b, rel=1e-5, abs=1e-6)


def _numbers(result: object) -> list[float]:
    if isinstance(result, float):
        return [result]
    return list(result.scores) if isinstance(result, Removal) else [vars(result)["mean_square"]]


def test_curves_are_drawn_with_their_areas(tmp_path: Path) -> None:
    net = tiny("sequential")
    maps = [explain(net, picture(), name, 1) for name in ("gradient", "grad_cam")]
    drawing = curves(net, maps, steps=6)
    assert len(drawing.series) == 4 and all("tion: 0." in name for name in drawing.series)
    assert drawing.y_label == "softmax of bee"
    assert drawing.save(tmp_path / "c.png").is_file()


def test_bad_options_are_refused() -> None:
    net = tiny("sequential")
    heatmap = explain(net, picture(), "gradient", 1)
    for call in (
        lambda: deletion(net, heatmap, steps=0),
        lambda: deletion(net, heatmap, baseline="pink"),
        lambda: insertion(net, heatmap, first="best"),  # type: ignore[arg-type]
        lambda: insertion(net, heatmap, batch=0),
        lambda: infidelity(net, heatmap, samples=0),
        lambda: infidelity(net, heatmap, patch=99),
        lambda: sensitivity(net, heatmap, samples=0),
        lambda: sensitivity(net, heatmap, radius=-1),
        lambda: curves(net, []),
    ):
        with pytest.raises((OptionError, PictureError)):
            call()
