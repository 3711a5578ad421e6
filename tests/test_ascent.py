"""Ascent against closed forms and slow loops, on networks that die, overflow, run out of memory or are interrupted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from convscope import Net, as_objective, tap
from convscope.context import listen, running
from convscope.errors import OptionError, OutOfMemory, OutputError, SynthesisError
from convscope.synthesis.ascent import AscentResult, ascend
from convscope.synthesis.monitor import Monitor
from convscope.synthesis.optimizers import Optimizer
from convscope.synthesis.parametrizations import Fourier, Pixels, parametrize
from convscope.synthesis.transforms import Transform, transform_for
from networks import pictures, tiny

SIDE = 6
MEAN, STD = 0.4, 0.5


class Recorded(Pixels):
    """Pixels that remember what they were after every step."""

    def __init__(self, values: Tensor, *, bounded: bool = True) -> None:
        super().__init__(values, bounded=bounded)
        self.seen: list[Tensor] = []

    def project(self) -> None:
        super().project()
        self.seen.append(self.snapshot())


class Failing(nn.Module):
    """Passes its input on, and does something else at the kth call."""

    def __init__(self, at: int, instead: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.at, self.instead, self.calls = at, instead, 0

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:
            return x
        self.calls += 1
        return self.instead(x) if self.calls >= self.at else x


def raises(error: BaseException) -> Callable[[Tensor], Tensor]:
    def instead(_: Tensor) -> Tensor:
        raise error

    return instead


def linear(weights: Tensor | None = None) -> Net:
    """A network of one class, whose score is w . (x - mean) / std."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 1, bias=False)).double()
    with torch.no_grad():
        body[1].weight.copy_(grads() if weights is None else weights)
    return Net(body, mean=MEAN, std=STD, size=SIDE, channels=1, name="linear")


def grads() -> Tensor:
    return torch.randn(1, SIDE * SIDE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def mean_picture(count: int = 1) -> Tensor:
    return torch.full((count, 1, SIDE, SIDE), MEAN, dtype=torch.float64)


def failing(at: int, instead: Callable[[Tensor], Tensor]) -> Net:
    """A small network of three channels that fails at the kth pass."""
    torch.manual_seed(0)
    body = nn.Sequential(Failing(at, instead), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = Net(body.double(), size=12, name="failing")
    assert net.layers
    return net


def grey(count: int, side: int, channels: int = 3) -> Tensor:
    return torch.full((count, channels, side, side), 0.5, dtype=torch.float64)


def gradient(net: Net, objective: str, pixels: Tensor) -> Tensor:
    leaf = pixels.clone().requires_grad_()
    return torch.autograd.grad(as_objective(net, objective)(net, leaf).sum(), leaf)[0]


# Closed forms


@pytest.mark.parametrize(
    ("optimizer", "within"),
    [
        (Optimizer(100, kind="ascent", rate=0.5), 1e-6),
        (Optimizer(200, kind="ascent", rate=0.1, momentum=0.6), 1e-6),
        (Optimizer(40, kind="lbfgs", rate=1.0), 1e-6),
        (Optimizer(400, rate=0.03), 1e-3),
    ],
    ids=["ascent", "momentum", "lbfgs", "adam"],
)
def test_a_linear_score_converges_to_its_weights_over_twice_lambda(optimizer: Optimizer, within: float) -> None:
    net, weight = linear(), 0.7
    made = ascend(
        net, [as_objective(net, f"0 - {weight}*l2()")], Pixels(mean_picture(), bounded=False), optimizer=optimizer
    )
    expected = MEAN + grads().view(1, 1, SIDE, SIDE) / STD / (2 * weight)
    torch.testing.assert_close(made.pixels, expected, rtol=0, atol=within)
    best = float((grads() / STD).square().sum() / (4 * weight))
    torch.testing.assert_close(made.scores, torch.tensor([best], dtype=torch.float64), rtol=1e-5, atol=0)


def test_without_a_penalty_a_linear_score_diverges() -> None:
    net = linear()
    for count in (20, 200):
        start = Pixels(mean_picture(), bounded=False)
        made = ascend(net, [as_objective(net, 0)], start, optimizer=Optimizer(count, kind="ascent", rate=0.3))
        expected = MEAN + count * 0.3 * grads().view(1, 1, SIDE, SIDE) / STD
        torch.testing.assert_close(made.pixels, expected, rtol=1e-9, atol=1e-9)


def test_bounded_pixels_end_at_black_and_white() -> None:
    net = linear()
    made = ascend(net, [as_objective(net, 0)], Pixels(mean_picture()), optimizer=Optimizer(30, kind="ascent", rate=0.5))
    assert torch.equal(made.pixels, (grads() > 0).double().view(1, 1, SIDE, SIDE))


def adam_by_hand(start: Fourier, net: Net, objective: str, count: int, rate: float) -> list[np.ndarray]:
    """Kingma & Ba's algorithm 1, uphill."""
    free = start.free.detach().clone()
    m, v, seen = torch.zeros_like(free), torch.zeros_like(free), []
    for t in range(1, count + 1):
        start.restore(free)
        (g,) = torch.autograd.grad(as_objective(net, objective)(net, start.pixels()).sum(), start.free)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        free = free + rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        start.restore(free)
        seen.append(start.pixels().detach().numpy())
    return seen


@pytest.mark.parametrize("size", [(20, 20), (21, 19)])
@pytest.mark.parametrize("name", ["fourier", "maco", "pixels"])
def test_adam_is_the_papers(name: Any, size: tuple[int, int]) -> None:
    net = tiny("residual")
    values = torch.full((2, 3, *size), 0.5, dtype=torch.float64)
    made = ascend(
        net,
        [as_objective(net, "stem:2")],
        parametrize(name, values, [0, 1]),
        optimizer=Optimizer(10, rate=0.03),
        redirect=False,
    )
    expected = adam_by_hand(parametrize(name, values, [0, 1], bounded=name != "pixels"), net, "stem:2", 10, 0.03)
    np.testing.assert_allclose(made.pixels, expected[-1], atol=1e-6)


def test_mean_scaling_is_deepdreams_step() -> None:
    net, start = tiny("functional"), Recorded(pictures(2))
    ascend(
        net, [as_objective(net, "energy(b)")], start, optimizer=Optimizer(5, kind="ascent", rate=0.02, scaling="mean")
    )
    pixels = pictures(2)
    for seen in start.seen:
        g = gradient(net, "energy(b)", pixels)
        for k in range(2):
            pixels[k] += 0.02 / float(g[k].abs().mean()) * g[k]
        pixels = pixels.clamp(0, 1)
        torch.testing.assert_close(seen, pixels, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("wanted", "limit"), [(0.5, 1e8), (0.5, 1e-3), (2.0, 0.05)])
def test_progress_is_made_as_asked_unless_the_step_is_too_long(wanted: float, limit: float) -> None:
    net, start = tiny("functional"), Recorded(pictures(2), bounded=False)
    optimizer = Optimizer(4, kind="ascent", rate=wanted, scaling="progress", limit=limit)
    ascend(net, [as_objective(net, "bee")], start, optimizer=optimizer)
    pixels = pictures(2)
    for seen in start.seen:
        g = gradient(net, "bee", pixels)
        for k in range(2):
            pixels[k] += min(wanted / float((g[k] ** 2).sum()), limit) * g[k]
        torch.testing.assert_close(seen, pixels, rtol=0, atol=1e-9)


def test_progress_on_a_linear_score_is_exact() -> None:
    net, start = linear(), Recorded(mean_picture(), bounded=False)
    ascend(
        net,
        [as_objective(net, 0)],
        start,
        optimizer=Optimizer(3, kind="ascent", rate=2.0, scaling="progress", limit=1e9),
    )
    scores = [float(as_objective(net, 0)(net, seen)) for seen in start.seen]
    assert scores == pytest.approx([2, 4, 6])


def yosinski(net: Net, objective: str, pixels: Tensor, optimizer: Optimizer) -> Iterator[np.ndarray]:
    """The toolbox's loop, pixel by pixel: step, decay, blur every n, small norms, small contributions, crop."""
    x, mean = pixels.numpy().copy(), np.array(net.mean)[:, None, None]
    for step in range(optimizer.steps):
        g = gradient(net, objective, torch.from_numpy(x)).numpy()
        x = x + optimizer.rate * g
        for k in range(len(x)):
            away = (x[k] - mean) * (1 - optimizer.decay)
            if optimizer.blur and (step + 1) % optimizer.blur_every == 0:
                away = gaussian_filter(away, (0, optimizer.blur, optimizer.blur), mode="mirror", truncate=3)
            if optimizer.small_norm:
                away = without_smallest(away, np.sqrt((away**2).sum(0)), optimizer.small_norm)
            if optimizer.small_contribution:
                away = without_smallest(away, np.abs((away * g[k]).sum(0)), optimizer.small_contribution)
            x[k] = mean + away
        x = x.clip(0, 1)
        yield x


def without_smallest(away: np.ndarray, values: np.ndarray, percent: float) -> np.ndarray:
    kept, limit = away.copy(), np.percentile(values, percent)
    for y, x in np.ndindex(values.shape):
        if values[y, x] <= limit:
            kept[:, y, x] = 0
    return kept


@pytest.mark.parametrize(
    "parts",
    [
        {"decay": 0.1},
        {"blur": 1.0, "blur_every": 3},
        {"small_norm": 50.0},
        {"small_contribution": 25.0},
        {"decay": 0.05, "blur": 1.0, "blur_every": 2, "small_norm": 25.0, "small_contribution": 50.0},
    ],
    ids="-".join,
)
def test_yosinskis_regularisers(parts: dict[str, Any]) -> None:
    # Of 21 x 21 pixels one lies exactly at these percentiles.
    net, start = tiny("sequential"), Recorded(pictures(2, side=21))
    optimizer = Optimizer(7, kind="ascent", rate=3.0, **parts)
    ascend(net, [as_objective(net, "dog")], start, optimizer=optimizer, redirect=False)
    expected = list(yosinski(net, "dog", pictures(2, side=21), optimizer))
    assert len(start.seen) == 7
    for seen, by_loop in zip(start.seen, expected, strict=True):
        np.testing.assert_allclose(seen, by_loop, atol=1e-9)


# The same whatever the company


def test_the_same_seed_makes_the_same_bytes() -> None:
    net = tiny("sequential", dtype=torch.float32)

    def make(seed: int) -> AscentResult:
        start = parametrize("fourier", torch.full((2, 3, 20, 20), 0.5), [seed, seed + 1])
        transform = Transform(jitter=2, rotate=10, noise=0.02, views=2)
        return ascend(
            net, [as_objective(net, "dog")], start, transform=transform, optimizer=Optimizer(20), seeds=[seed, seed + 1]
        )

    one, same, other = make(5), make(5), make(6)
    assert torch.equal(one.pixels, same.pixels) and one.history == same.history
    assert not torch.equal(one.pixels, other.pixels)


@pytest.mark.parametrize("name", ["fourier", "pixels", "maco"])
@pytest.mark.parametrize(
    "transform",
    [Transform(), Transform(jitter=2, rotate=10, scale=0.1), Transform(crop=(0.4, 0.8), noise=0.05, views=3)],
    ids=["still", "shaken", "crops"],
)  # fmt: skip
def test_a_picture_is_made_alike_alone_and_among_others(name: Any, transform: Transform) -> None:
    net, seeds = tiny("residual"), [4, 9, 2, 7]
    asked = [as_objective(net, "dog - 0.001*tv()"), as_objective(net, "stem:1")]
    options: dict[str, Any] = {"transform": transform, "optimizer": Optimizer(20)}
    together = ascend(net, asked, parametrize(name, grey(4, 20), seeds), seeds=seeds, **options)
    for k, seed in enumerate(seeds):
        alone = ascend(net, [asked[k // 2]], parametrize(name, grey(1, 20), [seed]), seeds=[seed], **options)
        torch.testing.assert_close(together.pixels[k], alone.pixels[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(together.scores[k], alone.scores[0], rtol=1e-3, atol=1e-4)


def test_one_seed_is_counted_up_for_all() -> None:
    net = tiny("sequential")
    options: dict[str, Any] = {"transform": Transform(jitter=3), "optimizer": Optimizer(10)}
    one = ascend(net, [as_objective(net, 1)], Pixels(pictures(3)), seeds=[5], **options)
    three = ascend(net, [as_objective(net, 1)], Pixels(pictures(3)), seeds=[5, 6, 7], **options)
    assert torch.equal(one.pixels, three.pixels)


def test_a_step_follows_the_mean_over_views_of_what_was_shaken() -> None:
    net, transform = tiny("functional"), Transform(jitter=2, rotate=15, views=3)
    start, drawn = Recorded(pictures(2), bounded=False), transform.draw([0, 1], 1)[0]
    ascend(
        net,
        [as_objective(net, "bee - 0.3*l2()")],
        start,
        transform=transform,
        optimizer=Optimizer(1, kind="ascent", rate=0.1),
        redirect=False,
    )
    leaf = pictures(2).requires_grad_()
    shaken = as_objective(net, "bee")(net, transform(leaf, drawn)).view(2, 3).mean(1)
    # What is wished of the picture is wished of it as it is, once.
    (expected,) = torch.autograd.grad((shaken - 0.3 * as_objective(net, "l2()")(net, leaf)).sum(), leaf)
    torch.testing.assert_close(start.seen[0], pictures(2) + 0.1 * expected, rtol=0, atol=1e-9)


def test_diversity_drives_pictures_of_one_question_apart() -> None:
    net = tiny("functional")
    values = pictures(1).repeat(3, 1, 1, 1) + 0.01 * pictures(3, seed=5)
    options: dict[str, Any] = {"optimizer": Optimizer(60, rate=0.02)}
    alike = ascend(net, [as_objective(net, "bee")], Pixels(values), **options)
    apart = ascend(net, [as_objective(net, "bee + 30*diversity(a)")], Pixels(values), **options)
    diversity = as_objective(net, "diversity(a)")
    assert diversity(net, apart.pixels).mean() > diversity(net, alike.pixels).mean() + 0.05


def test_scores_are_those_of_the_pictures_as_they_are() -> None:
    net = tiny("sequential")
    objectives = [as_objective(net, "dog - 0.01*tv()"), as_objective(net, "3:1 + energy(0)")]
    made = ascend(net, objectives, Pixels(pictures(4)), transform=Transform(jitter=2), optimizer=Optimizer(12))
    expected = torch.cat([objectives[0](net, made.pixels[:2]), objectives[1](net, made.pixels[2:])])
    torch.testing.assert_close(made.scores, expected)
    assert made.steps == 12 and len(made.history) == 2 and not made.interrupted and made.reached == [True] * 4


# What the network is left as, and spared


def test_the_network_is_stopped_at_the_layer(squeezenet: Net) -> None:
    runs: Counter[str] = Counter()
    body = squeezenet.body
    assert squeezenet.layers
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: runs.update([name]))
        for name, module in body.named_modules()
    ]
    try:
        start = parametrize("fourier", torch.full((1, 3, 64, 64), 0.5), [0])
        ascend(squeezenet, [as_objective(squeezenet, "features.4:3")], start, optimizer=Optimizer(3))
    finally:
        for handle in handles:
            handle.remove()
    assert runs["features.4"] == 4  # three steps, and once to see what was made
    assert not any(name.startswith(("features.5", "features.6", "classifier")) for name in runs)


def state(body: nn.Module) -> list[Any]:
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks), module.training)
        for module in body.modules()
    ]
    grads = [(parameter.requires_grad, parameter.grad is None) for parameter in body.parameters()]
    return [hooks, grads, [value.clone() for value in body.state_dict().values()], torch.get_rng_state()]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["in-place", "residual", "relu6"])
def test_nothing_is_left_behind(kind: str, fails: bool) -> None:
    net = tiny(kind)
    assert net.layers
    net.body.train()
    net.body[1].eval() if isinstance(net.body, nn.Sequential) else net.body.bn.eval()
    calls = 0

    def hook(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if fails and calls == 7:
            raise ZeroDivisionError

    handle = net.body.register_forward_hook(hook)
    before = state(net.body)
    start = parametrize("fourier", grey(2, 20), [0, 1])
    try:
        ascend(
            net,
            [as_objective(net, "dog - 0.1*tv()")],
            start,
            transform=transform_for("crops", 20),
            optimizer=Optimizer(12),
        )
    except ZeroDivisionError:
        assert fails
    after = state(net.body)
    handle.remove()
    assert before[:2] == after[:2]
    assert all(torch.equal(a, b) for a, b in zip(before[2], after[2], strict=True))
    assert torch.equal(before[3], after[3])


def test_the_start_keeps_the_callers_pictures() -> None:
    net, values = tiny("sequential"), pictures(1)
    ascend(net, [as_objective(net, "dog")], Pixels(values), optimizer=Optimizer(3, kind="ascent", rate=1.0))
    assert torch.equal(values, pictures(1))


# Rectifiers that are silent, and networks without


def dead(weight: float, bias: float) -> Net:
    """Two channels: one that is silent in the beginning, one that answers to brightness."""
    body = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()).double()
    with torch.no_grad():
        body[0].weight.copy_(torch.tensor([weight, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1))
        body[0].bias.copy_(torch.tensor([bias, 0.0]))
    return Net(body, size=8, name="dead")


def test_a_dead_start_moves_when_gradient_is_redirected() -> None:
    net = dead(1.0, -2.4)
    asked = [as_objective(net, "1:0")]
    still = ascend(net, asked, Pixels(grey(1, 8)), optimizer=Optimizer(200), redirect=False)
    assert still.reached == [False] and torch.equal(still.pixels, grey(1, 8)) and still.steps < 100
    made = ascend(net, asked, Pixels(grey(1, 8)), optimizer=Optimizer(200))
    assert made.reached == [True] and made.steps == 200 and float(made.scores) > 0.4


def test_a_unit_that_cannot_be_reached_is_given_up() -> None:
    net = dead(0.0, 0.0)
    made = ascend(net, [as_objective(net, "1:0")], Pixels(grey(2, 8)), optimizer=Optimizer(512))
    assert made.reached == [False, False] and 64 <= made.steps <= 80 and torch.equal(made.pixels, grey(2, 8))
    both = ascend(
        net, [as_objective(net, "1:0"), as_objective(net, "1:1")], Pixels(grey(2, 8)), optimizer=Optimizer(100)
    )
    assert both.reached == [False, True] and both.steps == 100


def test_a_unit_that_wakes_later_was_reached() -> None:
    """What is wished brightens the picture until the unit answers, after some thirty steps."""
    net = dead(1.0, -2.4)
    for count, moved in ((16, False), (50, True)):
        optimizer = Optimizer(count, rate=0.01)
        made = ascend(net, [as_objective(net, "1:0 + l2()")], Pixels(grey(1, 8)), optimizer=optimizer, redirect=False)
        assert made.reached == [moved] and made.steps == count


def test_gradient_is_led_past_rectifiers_until_it_gets_there_or_is_given_up() -> None:
    """What is still silent after the first steps is helped for a while longer, and then left."""
    net = dead(1.0, -2.4)
    start = Recorded(grey(1, 8))
    made = ascend(net, [as_objective(net, "1:0 - 0*l2()")], start, optimizer=Optimizer(100, kind="ascent", rate=1e-9))
    moved = [not torch.equal(a, b) for a, b in zip([grey(1, 8), *start.seen], start.seen, strict=False)]
    assert moved[:64] == [True] * 64 and not any(moved[64:])
    assert made.reached == [False] and made.steps < 80


def test_gradient_is_the_true_one_once_it_gets_there() -> None:
    """A unit that dies later stays dead: only the beginning is helped."""
    net = dead(1.0, -0.4)
    start = Recorded(grey(1, 8))
    made = ascend(net, [as_objective(net, "1:0")], start, optimizer=Optimizer(24, kind="ascent", rate=1e-3))
    with torch.enable_grad():
        pixels = start.seen[18].clone().requires_grad_()
        (true,) = torch.autograd.grad(as_objective(net, "1:0")(net, pixels).sum(), pixels)
    torch.testing.assert_close(start.seen[19] - start.seen[18], 1e-3 * true)
    assert made.reached == [True] and bool(true.any())


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU, nn.Tanh, nn.LeakyReLU])
def test_networks_without_rectifiers_follow_their_true_gradient(activation: type[nn.Module]) -> None:
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), activation(), nn.Conv2d(4, 4, 3), activation()).double()
    net = Net(body, size=12, name="smooth")
    asked = [as_objective(net, "3:1")]
    made, plain = (
        ascend(net, asked, Pixels(pictures(1, side=12)), optimizer=Optimizer(30), redirect=redirect)
        for redirect in (True, False)
    )
    assert torch.equal(made.pixels, plain.pixels) and made.history[-1] > made.history[0] and made.reached == [True]


# Scores that are no numbers


@pytest.mark.parametrize("kind", ["adam", "ascent", "lbfgs"])
def test_where_the_score_is_no_number_the_best_before_is_kept(kind: Any) -> None:
    net = failing(25, lambda x: x * torch.nan)
    start = Pixels(pictures(2, side=12))
    with listen() as remarks:
        made = ascend(net, [as_objective(net, 1)], start, optimizer=Optimizer(200, kind=kind, rate=0.05))
    assert made.steps <= 30 and made.pixels.isfinite().all() and not made.interrupted
    assert not torch.equal(made.pixels, pictures(2, side=12))
    assert all(map(math.isfinite, made.history)) and len(remarks) == 1
    assert f"stopped after {made.steps} of 200 steps" in remarks[0] and "kept the best before" in remarks[0]


@pytest.mark.parametrize("count", [3, 10, 40])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_score_that_never_was_a_number_is_an_error(count: int, value: float) -> None:
    net = failing(1, lambda x: x * value)
    with pytest.raises(SynthesisError, match=r"ant: the score is not finite .* Use a rate below 0\.5, or another"):
        ascend(
            net,
            [as_objective(net, 1)],
            Pixels(grey(1, 12)),
            optimizer=Optimizer(count, rate=0.5),
            monitor=Monitor("ant"),
        )


def test_the_best_is_kept_for_every_picture_by_itself() -> None:
    """Too long a step: one picture climbs, the other is thrown far off the top, and both keep what was best."""
    weights = grads()
    net = linear(weights)
    start = Pixels(torch.cat([mean_picture(), MEAN + weights.view(1, 1, SIDE, SIDE) / STD / 2]), bounded=False)
    top = start.snapshot()
    made = ascend(
        net, [as_objective(net, "0 - l2()")], start, optimizer=Optimizer(60, kind="ascent", rate=1.02), redirect=False
    )
    torch.testing.assert_close(made.pixels[1], top[1], rtol=0, atol=1e-9)
    # |x - top| grows by 1.04 a step.
    away = float((made.pixels[0] - top[1]).norm() / (mean_picture()[0] - top[1]).norm())
    assert away < 1.04**11


# Interruptions


@pytest.mark.parametrize("kind", ["adam", "ascent", "lbfgs"])
@pytest.mark.parametrize("at", [3, 24])
def test_an_interruption_keeps_the_best_so_far(kind: Any, at: int) -> None:
    calls = 0

    def interrupt(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt

    net = tiny("sequential")
    first = float(as_objective(net, "dog")(net, pictures(1)))
    handle = net.body[3].register_forward_hook(interrupt)
    with listen() as remarks:
        made = ascend(
            net, [as_objective(net, "dog")], Pixels(pictures(1)), optimizer=Optimizer(100, kind=kind, rate=0.02)
        )
    handle.remove()
    assert made.interrupted and made.steps == at - 1 and float(made.scores) > first
    assert remarks == [f"interrupted after {at - 1} of 100 steps; kept the best so far"]


def test_an_interruption_before_the_first_step_is_one() -> None:
    net = tiny("sequential")
    asked = [as_objective(net, "dog")]

    def interrupt(*_: Any) -> None:
        handle.remove()
        raise KeyboardInterrupt

    handle = net.body[0].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        ascend(net, asked, Pixels(pictures(1)), optimizer=Optimizer(20))


def test_progress_is_closed_whatever_happens() -> None:
    closed: list[str] = []

    def tracker(items: Any, label: Any) -> Iterator[Any]:
        try:
            yield from items
        finally:
            closed.append("closed")

    for net, error in (
        (failing(4, raises(KeyboardInterrupt())), KeyboardInterrupt),
        (failing(4, raises(ValueError("no"))), ValueError),
    ):
        with running(tracker=tracker), pytest.raises(error):
            ascend(net, [as_objective(net, 1)], Pixels(grey(1, 12)), optimizer=Optimizer(20))
            raise KeyboardInterrupt
    assert closed == ["closed", "closed"]


# What is shown meanwhile


def test_the_progress_label_says_the_score() -> None:
    labels: list[str] = []

    def tracker(items: Any, label: Any) -> Iterator[Any]:
        for item in items:
            labels.append(label())
            yield item

    net = tiny("sequential")
    with running(tracker=tracker):
        made = ascend(
            net, [as_objective(net, "dog")], Pixels(pictures(1)), optimizer=Optimizer(25), monitor=Monitor("dog")
        )
    assert labels[:10] == ["dog"] * 10 and len(labels) == 25 and len(set(labels)) == 3
    assert labels[10].startswith("dog · ") and float(labels[10][6:]) == pytest.approx(made.history[0], rel=0.01)
    assert float(labels[20][6:]) == pytest.approx(made.history[1], rel=0.01)


def test_previews_are_pictures_side_by_side_at_every_nth_step(tmp_path: Path) -> None:
    seen: list[Any] = []
    preview = tmp_path / "new" / "so far.png"

    def tracker(items: Any, label: Any) -> Iterator[Any]:
        for item in items:
            seen.append(np.asarray(Image.open(preview)).copy() if preview.exists() else None)
            yield item

    net, start = tiny("sequential"), Recorded(pictures(2))
    with running(tracker=tracker):
        ascend(
            net, [as_objective(net, "dog")], start, optimizer=Optimizer(9), monitor=Monitor(preview=preview, every=4)
        )
    assert all(one is None for one in seen[:4]) and all(one is not None for one in seen[4:])
    assert np.array_equal(seen[4], seen[7]) and not np.array_equal(seen[7], seen[8])
    shown, made = seen[8], start.seen[7]
    assert shown.shape[0] >= 20 and shown.shape[1] >= 40
    for k in range(2):
        expected = (made[k].numpy() * 255).round().astype(int).transpose(1, 2, 0)
        corner = shown[:20, :20] if k == 0 else shown[:20, -20:]
        assert np.abs(corner.astype(int) - expected).max() <= 1
    assert list(preview.parent.iterdir()) == [preview]


def test_a_preview_that_cannot_be_written_loses_nothing(tmp_path: Path) -> None:
    net, preview = tiny("sequential"), tmp_path / "so far.png"
    monitor = Monitor(preview=preview, every=2)
    preview.mkdir()
    with listen() as remarks:
        made = ascend(net, [as_objective(net, "dog")], Pixels(pictures(1)), optimizer=Optimizer(8), monitor=monitor)
    assert made.steps == 8 and len(remarks) == 1 and "no preview: " in remarks[0] and "folder" in remarks[0]


@pytest.mark.parametrize("name", ["so-far.txt", "so-far.gif", "so-far"])
def test_previews_of_other_kinds_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"a preview is a .png, .jpg or .webp file, not "):
        Monitor(preview=tmp_path / name)


def test_a_preview_in_a_file_and_every_zero_steps_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder that can be written"):
        Monitor(preview=tmp_path / "file" / "so-far.png")
    with pytest.raises(OptionError, match="preview_every must be at least 1 step, not 0"):
        Monitor(every=0)


# Tiles


def pointwise(most: int | None = None) -> Net:
    """A network that sees every pixel by itself, and has memory for so many pixels to a side."""

    class Memory(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if most and not x.is_meta and max(x.shape[-2:]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return x

    torch.manual_seed(2)
    body = nn.Sequential(Memory(), nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Conv2d(4, 2, 1)).double()
    return Net(body, size=16, name="pointwise")


@pytest.mark.parametrize("tile", [16, 20, 33])
@pytest.mark.parametrize("size", [(48, 31), (33, 70), (16, 64)])
def test_tiles_have_the_gradient_of_the_whole_picture(tile: int, size: tuple[int, int]) -> None:
    net = pointwise()
    values = torch.rand(2, 3, *size, dtype=torch.float64)
    options: dict[str, Any] = {"optimizer": Optimizer(10, kind="ascent", rate=50.0)}
    whole, tiled = Recorded(values), Recorded(values)
    made = ascend(net, [as_objective(net, "3:1")], whole, **options)
    parts = ascend(net, [as_objective(net, "3:1")], tiled, tile=tile, **options)
    for one, other in zip(whole.seen, tiled.seen, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12)
    assert float(made.scores.mean()) > made.history[0] and parts.reached == [True, True]
    # Margins are seen twice.
    assert parts.history == pytest.approx(made.history, rel=0.3)


def test_no_tile_is_longer_than_allowed() -> None:
    sides: list[tuple[int, ...]] = []
    net = pointwise()
    handle = net.body.register_forward_pre_hook(lambda _, given: sides.append(tuple(given[0].shape[-2:])))
    ascend(net, [as_objective(net, "3:1")], Pixels(torch.rand(1, 3, 100, 37).double()), tile=32, optimizer=Optimizer(1))
    handle.remove()
    tiles = [side for side in sides if side != (16, 16)]
    assert len(tiles) >= 8 and max(map(max, tiles)) <= 32 and min(map(min, tiles)) >= 12


def test_tiles_are_halved_where_memory_ends() -> None:
    values = torch.rand(1, 3, 300, 260, dtype=torch.float64)
    options: dict[str, Any] = {"optimizer": Optimizer(4, kind="ascent", rate=50.0)}
    whole, tiled = Recorded(values), Recorded(values)
    ascend(pointwise(), [as_objective(pointwise(), "3:1")], whole, **options)
    net, sides = pointwise(most=150), list[int]()
    net.body[0].register_forward_pre_hook(lambda _, given: sides.append(max(given[0].shape[-2:])))
    with listen() as remarks:
        made = ascend(net, [as_objective(net, "3:1")], tiled, tile=256, **options)
    assert len([side for side in sides if side > 150]) == 1 and max(sides[2:]) <= 128
    assert made.steps == 4 and len(remarks) == 1 and "out of memory with tiles of 256 pixels" in remarks[0]
    for one, other in zip(whole.seen, tiled.seen, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12)


def test_memory_that_holds_no_tile_is_an_error() -> None:
    net = pointwise(most=60)
    with pytest.raises(OutOfMemory, match="out of memory with tiles of 128 pixels: make a smaller picture"):
        ascend(
            net,
            [as_objective(net, "3:1")],
            Pixels(torch.rand(1, 3, 300, 260).double()),
            tile=256,
            optimizer=Optimizer(2),
        )


def test_other_errors_of_a_tile_are_not_hidden() -> None:
    net = failing(2, raises(RuntimeError("size mismatch")))
    with pytest.raises(RuntimeError, match="size mismatch"):
        ascend(net, [as_objective(net, 1)], Pixels(grey(1, 40)), tile=24, optimizer=Optimizer(2))


# L-BFGS


def test_lbfgs_counts_what_its_line_search_tries() -> None:
    net, calls = tiny("functional"), 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    assert net.layers
    handle = net.body.register_forward_pre_hook(count)
    made = ascend(
        net,
        [as_objective(net, "energy(b) - 0.01*l2()")],
        Pixels(pictures(1)),
        optimizer=Optimizer(12, kind="lbfgs", rate=1),
    )
    handle.remove()
    assert made.steps == 12 and calls == 12 + 1


def test_lbfgs_keeps_the_best_that_it_tried() -> None:
    net, last_is_best = tiny("functional"), []
    for count in range(1, 12):
        start = Pixels(pictures(1), bounded=False)
        made = ascend(
            net,
            [as_objective(net, "bee - 0.2*l2()")],
            start,
            optimizer=Optimizer(count, kind="lbfgs", rate=3),
            redirect=False,
        )
        assert len(made.history) == count and float(made.scores) == pytest.approx(max(made.history), rel=1e-9)
        last_is_best.append(made.history[-1] == max(made.history))
    assert not all(last_is_best)


# What does not go together


def test_parts_that_do_not_go_together_are_refused() -> None:
    net = tiny("sequential")
    asked, fourier = [as_objective(net, "dog")], parametrize("fourier", grey(1, 20), [0])
    with pytest.raises(OptionError, match="use them with parametrization='pixels'"):
        ascend(net, asked, fourier, optimizer=Optimizer(5, kind="ascent", decay=0.1))
    with pytest.raises(OptionError, match="use transform='none', or optimizer='adam'"):
        ascend(net, asked, fourier, transform=Transform(jitter=1), optimizer=Optimizer(5, kind="lbfgs"))
    with pytest.raises(OptionError, match="3 pictures cannot be shared among 2 objectives"):
        ascend(net, asked * 2, Pixels(grey(3, 20)))
    for nothing in ("tv()", "l2() - blur()"):
        with pytest.raises(OptionError, match="the objective says nothing about the network: add a class"):
            ascend(net, [*asked, as_objective(net, nothing)], Pixels(grey(2, 20)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "at least 1, not 0"),
        ({"blur_every": 0}, "blur_every must be at least 1 step, not 0"),
        ({"kind": "sgd"}, "adam, lbfgs or ascent, not 'sgd'"),
        ({"rate": 0.0}, "rate and limit must be above 0, not 0"),
        ({"rate": math.nan}, "rate and limit must be above 0, not nan"),
        ({"scaling": "median"}, "none, mean or progress, not 'median'"),
        ({"small_norm": 101.0}, "percentages, 0 to 100"),
        ({"small_contribution": -1.0}, "percentages, 0 to 100"),
        ({"decay": 1.5}, "decay must be in .0, 1., not 1.5"),
        ({"momentum": -0.1}, "momentum must be in .0, 1., not -0.1"),
        ({"blur": -1.0}, "blur must be at least 0 pixels"),
        ({"limit": 0.0}, "rate and limit must be above 0, not 0.05 and 0"),
    ],
)
def test_optimizers_out_of_range_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Optimizer(**options)


# Real networks


def test_a_real_class_is_reached(squeezenet: Net) -> None:
    start = parametrize("fourier", torch.full((1, 3, 128, 128), 0.5), [0])
    objective = as_objective(squeezenet, 130)
    transform = transform_for("standard", 128)
    made = ascend(squeezenet, [objective], start, transform=transform, optimizer=Optimizer(60))
    assert int(squeezenet(made.pixels).argmax()) == 130 and float(made.scores) > 30
    assert made.history == sorted(made.history)
    assert float(tap(squeezenet, made.pixels, [""])[""][0, 130]) == pytest.approx(float(made.scores), rel=1e-4)


def test_a_real_channel_alone_and_in_a_batch(squeezenet: Net) -> None:
    """Few steps: in 32 bits rounding grows at every tie of a maximum, to 1e-2 after fifteen."""
    asked = [as_objective(squeezenet, f"features.4:{channel}") for channel in (3, 8)]
    options: dict[str, Any] = {"transform": transform_for("light", 64), "optimizer": Optimizer(5)}
    values = torch.full((2, 3, 64, 64), 0.5)
    together = ascend(squeezenet, asked, parametrize("fourier", values, [1, 2]), seeds=[1, 2], **options)
    alone = ascend(squeezenet, asked[1:], parametrize("fourier", values[1:], [2]), seeds=[2], **options)
    torch.testing.assert_close(together.pixels[1], alone.pixels[0], rtol=0, atol=1e-4)
