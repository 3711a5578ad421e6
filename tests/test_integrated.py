"""Integrated gradients against captum, closed forms and the papers' identities."""

from __future__ import annotations

import re
import statistics
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from convscope import Net, as_objective, explain
from convscope.attribution.gradient import gradient_x_input
from convscope.attribution.integrated import integrated_gradients, path_points
from convscope.baselines import baseline_pixels
from convscope.context import listen
from convscope.errors import OptionError
from networks import TINY, pictures, tiny

CLASS = 3
RULES = {
    "gauss-legendre": "gausslegendre", "midpoint": "riemann_middle", "left": "riemann_left", "right": "riemann_right",
    "trapezoid": "riemann_trapezoid",
}  # fmt: skip


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("rule", RULES)
def test_equals_captum(kind: str, rule: Any) -> None:
    """captum's weights are in single precision; its trapezoid's add up to (n - 1)/n."""
    net, pixels = tiny(kind), pictures()
    start = baseline_pixels(net, pixels, "0.2")
    expected = IntegratedGradients(net).attribute(
        pixels.clone(), start.clone(), target=CLASS, n_steps=7, method=RULES[rule]
    )
    found = integrated_gradients(net, pixels, as_objective(net, CLASS), baseline="0.2", steps=7, rule=rule)
    expected = (7 / 6 if rule == "trapezoid" else 1) * expected.sum(1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


@given(rule=st.sampled_from(list(RULES)), steps=st.integers(2, 40), power=st.integers(0, 3))
def test_rules_integrate_what_they_should(rule: str, steps: int, power: int) -> None:
    """Exactly: constants by all, straight lines by three, x^3 by two points of Gauss and Legendre."""
    points, weights = path_points(rule, steps)
    assert len(points) == len(weights) == steps and points == sorted(points)
    assert min(points) >= 0 and max(points) <= 1 and min(weights) > 0
    error = abs(sum(w * x**power for x, w in zip(points, weights, strict=True)) - 1 / (power + 1))
    exact = {"gauss-legendre": 3, "midpoint": 1, "trapezoid": 1, "left": 0, "right": 0}[rule]
    assert error < 1e-12 if power <= exact else 0 < error < 1 / (steps - 1)


class Square(nn.Module):
    """F(x) = (sum of x)^2 / 2 and a score that takes no notice of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1)
        return torch.stack([total**2 / 2, 0 * total], 1)


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint", "trapezoid"])
def test_a_quadratic_score_in_closed_form(rule: Any) -> None:
    """The gradient is linear along the path, so that each pixel gets (x - x') times its mean of the two ends."""
    net, pixels = Net(Square(), size=8), pictures(2, side=8)
    change = pixels - 0.25
    expected = change.sum(1, keepdim=True) * (pixels.sum((1, 2, 3)) + 0.25 * 192)[:, None, None, None] / 2
    found = integrated_gradients(net, pixels, as_objective(net, 0), baseline="0.25", steps=3, rule=rule)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def random_net(seed: int) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(8 * 16, 4),
        )  # fmt: skip
    return Net(body.double().eval(), size=14)


def error(net: Net, rule: Any, steps: int) -> float:
    pixels = pictures(1, side=14)
    found = integrated_gradients(
        net, pixels, as_objective(net, 0), baseline="0", steps=steps, rule=rule, batch=50
    ).sum()
    change = net(pixels)[0, 0] - net(torch.zeros_like(pixels))[0, 0]
    return float(abs(found - change) / abs(change))


def test_the_sum_approaches_the_change_of_the_score() -> None:
    """I19: in the median over networks, not for each; midpoints do better than left ends."""
    nets = [random_net(seed) for seed in range(9)]
    median = {
        (rule, n): statistics.median(error(net, rule, n) for net in nets)
        for rule in RULES for n in (12, 100)
    }  # fmt: skip
    for rule in RULES:
        assert median[rule, 100] < median[rule, 12] / 2
        assert median[rule, 100] < 0.1
    for n in (12, 100):
        assert median["midpoint", n] < median["left", n] / 2
        assert median["gauss-legendre", n] < median["left", n] / 2


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [2, 5])
def test_without_biases_it_is_gradient_x_input(rule: Any, steps: int) -> None:
    """I19: from what the network calls zero the gradient is the same all along the path, but at zero itself."""
    net, pixels = tiny("sequential"), pictures(2)
    with torch.no_grad():
        for name, parameter in net.body.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    expected = gradient_x_input(net, pixels, as_objective(net, CLASS))
    found = integrated_gradients(net, pixels, as_objective(net, CLASS), steps=steps, rule=rule)
    if rule in ("left", "trapezoid"):
        zero = {"left": 1 / steps, "trapezoid": 1 / (2 * (steps - 1))}[rule]
        expected = (1 - zero) * expected
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


@given(batch=st.integers(1, 9), steps=st.integers(1, 9))
def test_the_batch_makes_no_difference(batch: int, steps: int) -> None:
    net, pixels = tiny("concat"), pictures(2)
    one, other = (
        integrated_gradients(net, pixels, as_objective(net, CLASS), steps=steps, batch=size, baseline="noise")
        for size in (batch, 100)
    )
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_the_path_is_halved_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    net, pixels = tiny("residual"), pictures(1)
    expected = integrated_gradients(net, pixels, as_objective(net, CLASS), steps=9)
    run = Net.passes

    def small(self: Net, pixels: Tensor) -> Any:
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return run(self, pixels)

    monkeypatch.setattr(Net, "passes", small)
    with listen() as remarks:
        found = integrated_gradients(net, pixels, as_objective(net, CLASS), steps=9, batch=8)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    assert any("out of memory at batch 8" in remark for remark in remarks)


def test_no_more_passes_than_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward pass for both ends besides."""
    net, seen = tiny("sequential"), []
    run = Net.passes
    monkeypatch.setattr(Net, "passes", lambda self, pixels: seen.append(len(pixels)) or run(self, pixels))
    integrated_gradients(net, pictures(1), as_objective(net, CLASS), steps=25, batch=10)
    assert seen == [10, 10, 5, 2]


@pytest.mark.parametrize("baseline", ["mean", "grey", "blur", "noise", "0", "1"])
def test_the_caption_says_how_complete_it_is(baseline: str) -> None:
    net, pixels = tiny("sequential", dtype=torch.float32), pictures(1, dtype=torch.float32)
    drawing = explain(net, pixels, "integrated_gradients", CLASS, baseline=baseline, steps=200)
    match = re.search(r"adds up to (\S+) of F\(x\) − F\(x'\) = (\S+), off by (\S+), (\S+)%", drawing.note)
    assert match is not None, drawing.note
    change = float(net(pixels)[0, CLASS] - net(baseline_pixels(net, pixels, baseline).clone())[0, CLASS])
    total = float(drawing.values.sum())
    assert float(match[1]) == pytest.approx(total, rel=0.01) and float(match[2]) == pytest.approx(change, rel=0.01)
    assert float(match[3]) == pytest.approx(abs(total - change), rel=0.1, abs=1e-5)
    assert f"from the baseline {baseline} to the picture in 200 steps" in drawing.note


@pytest.mark.parametrize(("steps", "few"), [(19, True), (21, False)])
def test_too_few_steps_are_said(steps: int, few: bool) -> None:
    """Left ends miss 1/n of a score that grows with the square of the path."""
    net = Net(Square(), size=8)
    with listen() as remarks:
        integrated_gradients(net, pictures(1, side=8), as_objective(net, 0), steps=steps, rule="left", baseline="0")
    assert any(remark.endswith("use more steps") for remark in remarks) == few


def test_nothing_to_see_is_said() -> None:
    net, pixels = Net(Square(), size=8), pictures(1, side=8)
    for found, picture, of in (("flat", pixels, 1), ("same", torch.full_like(pixels, 0.5), 0)):
        with listen() as remarks:
            values = integrated_gradients(net, picture, as_objective(net, of), baseline="grey")
        assert not values.any() and values.isfinite().all(), found
        assert any("zero everywhere" in remark for remark in remarks)
        assert any(remark.endswith("= 0, off by 0") for remark in remarks)


def test_bad_options_are_refused() -> None:
    net, pixels = tiny("sequential"), pictures(1)
    for options, said in (
        ({"steps": 0}, "steps is .*, at least 1, not 0"),
        ({"steps": 1, "rule": "trapezoid"}, "steps is at least 2"),
        ({"rule": "simpson"}, "rule is .*'gauss-legendre'.*not 'simpson'"),
        ({"baseline": "black"}, "baseline is .*not 'black'"),
        ({"baseline": "2"}, r"\[0, 1\]"),
        ({"batch": 0}, "batch is .*, at least 1"),
    ):
        with pytest.raises(OptionError, match=said):
            explain(net, pixels[0], "integrated_gradients", CLASS, **options)
