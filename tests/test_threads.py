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
from convscope.registry import METHODS, load_all
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
VIEW_OPTIONS: dict[str, dict[str, Any]] = {
    "compare": {"methods": ["grad_cam", "deconvnet", "saliency"]},
    "reconstruct": {},
    "hidden_gradients": {},
    "occlusion_study": {"patch": 6, "stride": 6},
    "segment": {},
    "accentuate": {"steps": 2},
    "class_model": {"steps": 2},
    "dream": {"steps": 1, "octaves": 1, "of": "1"},
    "invert": {"steps": 2},
    "maximize": {"of": "1", "steps": 2},
    "style": {"steps": 2, "size": 24},
    "filters": {},
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
