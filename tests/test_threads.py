"""Laws on threads: any number of them may use one network, or two networks on one body."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convscope import Net, as_objective
from convscope.data.display import to_image
from convscope.registry import METHODS, VIEWS, load_all
from convscope.running import run
from convscope.sharing import frozen, hooked
from convscope.tapping import tap
from networks import SIZE, pictures, tiny_body
from test_laws import assert_same, state_of

load_all()

THREADS = 8
PIXELS = pictures(1, dtype=torch.float32)
QUICK: dict[str, dict[str, Any]] = {
    "extremal": {"steps": 6},
    "rise": {"masks": 40, "batch": 20},
    "occlusion": {"patch": 6, "stride": 6},
    "smooth_grad": {"samples": 4},
    "integrated_gradients": {"steps": 4},
}
# What a view needs besides the network, and options that keep it short.
VIEW_INPUTS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "accentuate": ([PIXELS[0]], {"of": "1", "steps": 2}),
    "class_model": ([], {"of": "1", "steps": 2}),
    "compare": ([PIXELS[0]], {"methods": ["grad_cam", "deconvnet", "saliency"]}),
    "dream": ([PIXELS[0]], {"steps": 2, "octaves": 1}),
    "filters": ([], {}),
    "filters_by_ascent": ([], {"layer": "a", "channels": "0-1", "steps": 2, "size": SIZE}),
    "grid": ([[PIXELS[0]]], {"methods": ["saliency", "grad_cam"]}),
    "hidden_gradients": ([PIXELS[0]], {"of": "1"}),
    "invert": ([PIXELS[0]], {"layers": ["a"], "repeats": 1, "steps": 2}),
    "maps": ([PIXELS[0]], {"layer": "b"}),
    "maximize": ([], {"of": "1", "steps": 2}),
    "occlusion_study": ([PIXELS[0]], {"of": "1", "patch": 6, "stride": 6}),
    "project": ([PIXELS[0]], {"layer": "b", "top": 2}),
    "reconstruct": ([PIXELS[0]], {"layers": ["b"]}),
    "segment": ([PIXELS[0]], {"of": "1", "method": "saliency"}),
    "style": ([PIXELS[0]], {"style": [to_image(PIXELS[0].numpy())], "steps": 2, "size": SIZE}),
}


@pytest.fixture(autouse=True)
def _switching_often() -> Iterator[None]:
    """Threads take turns a thousand times as often as usual, so that what can go wrong does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def body_of(kind: str) -> nn.Module:
    return tiny_body(kind, dtype=torch.float32)


def networks() -> dict[str, tuple[nn.Module, list[Net]]]:
    """One body in train mode, one that runs a module several times, and two networks on one body."""
    training, shared, common = body_of("residual").train(), body_of("shared"), body_of("functional")
    return {
        "train mode": (training, [Net(training, size=SIZE, mean=0.4)]),
        "shared modules": (shared, [Net(shared, size=SIZE)]),
        "two on one body": (common, [Net(common, size=SIZE), Net(common, size=SIZE, mean=0.3, std=0.5)]),
    }


def in_threads(work: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """Do the work in so many threads that begin together, and return their results."""
    ready = threading.Barrier(count)

    def begin(number: int) -> Any:
        ready.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def turned(items: list[Any], number: int) -> list[Any]:
    """Every thread begins elsewhere."""
    at = number * len(items) // THREADS
    return items[at:] + items[:at]


@pytest.mark.parametrize("kind", networks())
def test_every_method_gives_the_same_map_in_any_thread(kind: str) -> None:
    body, nets = networks()[kind]
    before, seed = state_of(body), torch.get_rng_state()
    jobs = [(net, entry) for net in nets for entry in METHODS.values()]

    def make(net: Net, name: str) -> Tensor:
        return METHODS[name].function(net, PIXELS, as_objective(net, 2), **QUICK.get(name, {}))

    expected = {(id(net), entry.name): make(net, entry.name) for net, entry in jobs}
    for net in nets:
        net._layers = None  # threads find the layers themselves

    def work(number: int) -> list[tuple[Any, Tensor]]:
        return [((id(net), entry.name), make(net, entry.name)) for net, entry in turned(jobs, number)]

    for maps in in_threads(work):
        for key, map_ in maps:
            torch.testing.assert_close(map_, expected[key], rtol=1e-5, atol=1e-6, msg=lambda m, k=key: f"{k[1]}: {m}")
    assert_same(before, state_of(body))
    assert torch.equal(seed, torch.get_rng_state())


def numbers(drawing: Any) -> dict[str, Any]:
    return {name: torch.as_tensor(value) for name, value in drawing.numbers().items()}


def test_every_view_draws_the_same_in_any_thread() -> None:
    views = [name for name, entry in VIEWS.items() if entry.kind != "study"]
    assert set(VIEW_INPUTS) == set(views)
    body = tiny_body("functional", dtype=torch.float32).train()
    net, before, seed = Net(body, size=SIZE), state_of(body), torch.get_rng_state()

    def make(name: str) -> dict[str, Any]:
        inputs, options = VIEW_INPUTS[name]
        return numbers(run(VIEWS[name], net, *inputs, **options))

    expected = {name: make(name) for name in views}
    net._layers = None

    def work(number: int) -> dict[str, Any]:
        return {name: make(name) for name in turned(views, number)}

    for drawings in in_threads(work, 4):
        for name, values in drawings.items():
            for key, value in values.items():
                torch.testing.assert_close(value, expected[name][key], rtol=1e-4, atol=1e-5, msg=f"{name}: {key}")
    assert_same(before, state_of(body))
    assert torch.equal(seed, torch.get_rng_state())


# What the laws rest on


class Common(nn.Module):
    """Two bodies have its convolution in common."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv, self.own = conv, nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(self.conv(x))


def test_a_part_of_two_bodies_is_frozen_until_both_are_left() -> None:
    conv = nn.Conv2d(3, 3, 1)
    one, other = Common(conv), Common(conv)
    first, second = frozen(one), frozen(other)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert one.own.training and one.own.weight.requires_grad
    assert not conv.training and not conv.weight.requires_grad and not other.own.training
    second.__exit__(None, None, None)
    assert all(part.training for body in (one, other) for part in body.modules())
    assert all(parameter.requires_grad for body in (one, other) for parameter in body.parameters())


def test_what_was_frozen_already_stays_so() -> None:
    body = Common(nn.Conv2d(3, 3, 1)).eval()
    body.conv.requires_grad_(False)
    with frozen(body), pytest.raises(KeyError), frozen(body):
        raise KeyError
    assert not body.own.training and not body.conv.weight.requires_grad and body.own.weight.requires_grad


def test_hooks_see_their_own_thread_only() -> None:
    conv, calls = nn.Conv2d(3, 3, 1), list[str]()
    pixels = torch.zeros(1, 3, 2, 2)
    with hooked([(conv, lambda *_: calls.append("here"))]):
        in_threads(lambda _: conv(pixels), 3)
        assert not calls
        with hooked([(conv, lambda *_: calls.append("inside"))]):
            conv(pixels)
    conv(pixels)
    assert calls == ["here", "inside"] and not conv._forward_hooks


class Caches(nn.Module):
    """Keeps tensors that it has made, by size and as an attribute, as detectors and position encodings do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.grids, self.latest = nn.Conv2d(3, 4, 3), dict[Any, Tensor](), torch.zeros(())
        self.apply_conv = self._apply_conv

    def _apply_conv(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.apply_conv(x)
        if x.shape not in self.grids:
            self.grids[x.shape] = torch.ones_like(x[0])
        self.latest = x * self.grids[x.shape]
        return self.latest


def test_a_dry_run_leaves_nothing_in_the_body() -> None:
    body = Caches()
    net = Net(body, size=8)
    assert list(net.layers) == ["conv", ""] and net.layers["conv"].module is body.conv
    assert not body.grids and body.latest.shape == () and body.apply_conv.__self__ is body
    assert tap(net, torch.rand(1, 3, 8, 8), [""])[""].shape == (1, 4, 6, 6)


def test_a_dry_run_does_not_disturb_passes_of_other_threads() -> None:
    body = tiny_body("residual", dtype=torch.float32)
    net = Net(body, size=SIZE)
    expected = net(PIXELS)

    def work(number: int) -> None:
        for _ in range(10):
            if number % 2:
                assert Net(body, size=SIZE).layers
            else:
                torch.testing.assert_close(net(PIXELS), expected)

    in_threads(work, 4)
