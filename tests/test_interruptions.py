"""Interruptions: ctrl-C at any moment leaves the body, torch and the process as they were, and is raised once."""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import convscope
from adversary import interruptions as attack
from convscope import Net
from convscope.interruptions import held_back, orderly
from convscope.sharing import frozen, hooked


@pytest.fixture(autouse=True)
def _python_s_own_handler() -> Iterator[None]:
    """Whatever runs the tests, and however it was started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def faults(outcomes: Iterator[tuple[str, Any]]) -> list[str]:
    return [f"{what}: {fault}" for what, outcome in outcomes for fault in outcome.faults]


def everywhere(name: str, step: int) -> Iterator[tuple[str, Any]]:
    """Interrupt a look at every step-th place where Python looks for signals."""
    for place in attack.places(name)[::step]:
        yield f"{name}, {place[2]} in {place[0].co_qualname}", attack.at_event(name, place)


@pytest.mark.parametrize(
    ("name", "step"), [("layers", 20), ("forward", 2), ("behaviour", 3), ("seeds", 4), ("backward", 20)]
)
def test_an_interruption_anywhere_changes_nothing(name: str, step: int) -> None:
    assert not faults(everywhere(name, step))


def test_interruptions_at_random_moments_change_nothing() -> None:
    interrupter, moments = attack.Interrupter(), random.Random(0)
    try:
        for name, _, _ in attack.cases(len(attack.looks())):
            outcome = attack.at_random(name, moments.random(), interrupter)
            assert not outcome.faults, name
    finally:
        interrupter.close()


@pytest.mark.nightly
def test_an_interruption_at_every_place_changes_nothing() -> None:
    for name in attack.looks():
        assert not faults(everywhere(name, 1))


def test_interrupting_layers_leaves_numbers_that_other_threads_use() -> None:
    """Parameters were once swapped in place: a pass of another thread met tensors without data."""
    module = attack.body()
    net, before, ended = Net(module, size=attack.SIZE), attack.state(module), threading.Event()
    right = net(attack.PICTURE[None])

    def serve() -> int:
        served = 0
        while not ended.is_set():
            torch.testing.assert_close(net(attack.PICTURE[None]), right)
            served += 1
        return served

    interrupter, interrupted = attack.Interrupter(), 0
    with ThreadPoolExecutor(8) as pool:
        servers = [pool.submit(serve) for _ in range(8)]
        for number in range(30):
            try:
                interrupter.after(number / 30 * 0.05)
                for _ in range(10_000):
                    assert len(Net(module, size=attack.SIZE).layers) == 6
            except KeyboardInterrupt:
                interrupted += 1
        ended.set()
        assert all(server.result() for server in servers)
    interrupter.close()
    assert interrupted == 30 and not attack.changed(before, attack.state(module))


# What the laws rest on


def ignored(*_: Any) -> None: ...


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@contextmanager
def interrupted_while(entering: bool, log: list[str]) -> Generator[None]:
    if entering:
        interrupt()
    log.append("entered")
    try:
        yield
    finally:
        if not entering:
            interrupt()
        log.append("left")


@pytest.mark.parametrize("entering", [True, False])
def test_an_interruption_waits_until_a_context_is_entered_or_left(entering: bool) -> None:
    log = list[str]()

    @orderly
    def work() -> None:
        with interrupted_while(entering, log):
            if entering:
                time.sleep(5)
                log.append("slept inside")
        time.sleep(5)
        log.append("slept after")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert log == ["entered", "left"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    time.sleep(0.01)  # it is raised once


def test_work_is_interrupted_at_once_even_while_something_is_entered() -> None:
    log = list[str]()

    @orderly
    def work() -> None:
        interrupt()
        log.append("went on")

    class Looks:
        def __enter__(self) -> None:
            work()

        def __exit__(self, *_: object) -> None: ...

    with pytest.raises(KeyboardInterrupt), Looks():
        pass
    assert not log


def test_an_interruption_is_not_lost_while_garbage_is_collected() -> None:
    """What is raised in a collector's callback, or in that of a weak reference, goes no further."""
    log = list[str]()

    def collecting(phase: str, _: dict[str, int]) -> None:
        if phase == "start" and not log:
            log.append(phase)
            interrupt()

    @orderly
    def work() -> None:
        gc.collect()
        time.sleep(5)
        log.append("slept")

    gc.callbacks.append(collecting)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        gc.callbacks.remove(collecting)
    assert log == ["start"]


def test_nobody_s_context_holds_an_interruption_for_long() -> None:
    log = list[str]()

    class Waits:
        def __enter__(self) -> None:
            interrupt()
            time.sleep(20)
            log.append("slept")

        def __exit__(self, *_: object) -> None: ...

    with pytest.raises(KeyboardInterrupt), held_back(), Waits():
        pass
    assert not log


def test_an_interruption_that_waits_at_the_end_is_raised_there() -> None:
    with pytest.raises(KeyboardInterrupt), held_back(), interrupted_while(False, []):
        pass
    time.sleep(0.01)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGALRM"])
def test_whatever_handles_a_signal_still_does(name: str) -> None:
    calls = list[int]()
    number = getattr(signal, name)
    before = signal.signal(number, lambda number, _: calls.append(number))
    try:
        mine = signal.getsignal(number)
        with held_back(), held_back():
            signal.raise_signal(number)
            with interrupted_while(False, []) if name == "SIGINT" else contextlib.nullcontext():
                pass
        assert set(calls) == {number} and len(calls) == 1 + (name == "SIGINT")
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)


def test_handlers_that_somebody_sets_meanwhile_stay() -> None:
    with held_back():
        signal.signal(signal.SIGINT, ignored)
    assert signal.getsignal(signal.SIGINT) is ignored
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_back():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_threads_leave_handlers_alone() -> None:
    with ThreadPoolExecutor(1) as pool, held_back():
        inside = signal.getsignal(signal.SIGINT)
        pool.submit(orderly(lambda: None)).result()
        assert signal.getsignal(signal.SIGINT) is inside


def test_freezing_and_hooks_alone_are_safe_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    plain = nn.Module.register_forward_hook

    def registered(*args: Any, **kwargs: Any) -> Any:
        handle = plain(*args, **kwargs)
        interrupt()
        return handle

    monkeypatch.setattr(nn.Module, "register_forward_hook", registered)
    with pytest.raises(KeyboardInterrupt), frozen(body), hooked([(body[0], ignored)]):
        time.sleep(5)
    assert all(part.training and not part._forward_hooks for part in body.modules())
    assert all(parameter.requires_grad for parameter in body.parameters())


class Switches(nn.Module):
    """Switches the grad mode off and on again by calls, as code from before `torch.no_grad` does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(False)
        x = self.a(x)
        torch.set_grad_enabled(True)
        return self.b(x)


def test_a_pass_that_ends_early_keeps_the_grad_mode() -> None:
    net = Net(Switches(), size=8)
    convscope.tap(net, torch.rand(1, 3, 8, 8), ["a"])
    assert torch.is_grad_enabled()


def test_an_import_is_not_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages whose first import was interrupted may not be imported again, torch's own compiler among them."""
    (tmp_path / "interrupted_while_imported.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(0.01)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    @orderly
    def work() -> None:
        import_module("interrupted_while_imported")
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert sys.modules.pop("interrupted_while_imported").whole


def test_a_flag_that_cannot_be_restored_keeps_none_of_the_others_from_it() -> None:
    body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    with pytest.raises(RuntimeError), frozen(body):
        body[1].weight.data = torch.zeros(3, dtype=torch.int64)  # whole numbers can have no gradient
    assert all(part.training for part in body.modules())
    assert [p.requires_grad for p in body.parameters()] == [True, True, False, True, True, True]
