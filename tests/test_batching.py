"""Batches against memory that runs out: raised by a stub network, and for real."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convscope import Net, as_objective
from convscope.attribution.rise import rise
from convscope.batching import bytes_of, in_batches, out_of_memory, quickest
from convscope.context import listen, running
from convscope.errors import OptionError, OutOfMemory
from networks import SIZE, pictures, tiny_body

CPU = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9999 bytes. Error code 12"

FAILURES: dict[str, Exception] = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    "CPU": RuntimeError(f"[enforce fail at alloc_cpu.cpp:121] err == 0. {CPU}"),
    "Python": MemoryError(),
    "matrix library": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
}

each_failure = pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)


class Small(nn.Module):
    """A network that has memory for so many pictures and no more."""

    def __init__(self, body: nn.Module, most: int, failure: Exception) -> None:
        super().__init__()
        self.body, self.most, self.failure = body, most, failure
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        if len(x) > self.most:
            raise self.failure
        return self.body(x)


def numbers(count: int, batch: int, most: int, failure: Exception) -> tuple[list[int], list[int]]:
    lengths: list[int] = []

    def work(piece: slice) -> list[int]:
        lengths.append(piece.stop - piece.start)
        if lengths[-1] > most:
            raise failure
        return list(range(piece.start, piece.stop))

    return [i for part in in_batches(work, count, batch, "counting") for i in part], lengths


@given(st.integers(0, 60), st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=30)  # memory is given back at each halving, which takes its time
def test_everything_is_done_once_and_in_order_whatever_fits(count: int, batch: int, most: int) -> None:
    with listen() as remarks:
        done, lengths = numbers(count, batch, most, FAILURES["GPU"])
    assert done == list(range(count))
    assert max(lengths, default=0) <= batch
    refused = [length for length in lengths if length > most]
    assert bool(remarks) == bool(refused) and len(remarks) <= 1
    assert len(refused) <= 7  # halved, not tried again and again


@each_failure
def test_batches_are_halved_when_memory_runs_out(failure: Exception) -> None:
    with listen() as remarks:
        done, lengths = numbers(40, 16, 5, failure)
    assert done == list(range(40))
    assert lengths == [16, 8, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]
    assert remarks == ["out of memory at batch 16; continued with 4"]


def test_nothing_is_said_when_everything_fits() -> None:
    with listen() as remarks:
        assert numbers(10, 4, 4, FAILURES["GPU"]) == (list(range(10)), [4, 4, 2])
    assert remarks == []


@each_failure
def test_not_even_one_at_a_time(failure: Exception) -> None:
    with pytest.raises(OutOfMemory, match=r"counting: out of memory at batch 1: use a smaller input \(size=\)"):
        numbers(10, 4, 0, failure)


def test_other_errors_are_not_swallowed() -> None:
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), KeyError("mine")):
        with pytest.raises(type(error)) as caught:
            numbers(10, 4, 0, error)
        assert caught.value is error
        assert not out_of_memory(error)


def test_a_batch_below_one_is_refused() -> None:
    for batch in (0, -3):
        with pytest.raises(OptionError, match=f"batch is at least 1, not {batch}"):
            numbers(10, batch, 5, FAILURES["GPU"])


def test_progress_is_shown_in_batches() -> None:
    shown: list[tuple[int, str]] = []

    def tracker(items: object, label: str) -> object:
        shown.append((len(items), label))
        return items

    with running(tracker=tracker):
        numbers(10, 4, 1, FAILURES["GPU"])
    assert shown == [(3, "counting")]


def test_tensors_that_did_not_fit_are_freed_before_the_next_try() -> None:
    """An error's traceback holds the tensors of the frames it left; they must be gone when less is tried."""
    tensors: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def work(piece: slice) -> int:
        alive.append(sum(ref() is not None for ref in tensors))
        large = torch.zeros(piece.stop - piece.start, 10)
        tensors.append(weakref.ref(large))
        ring: list[object] = [large]
        ring.append(ring)  # as frames and errors that know each other
        if len(large) > 2:
            raise RuntimeError(CPU)
        return len(large)

    assert sum(in_batches(work, 8, 8, "counting")) == 8
    assert alive[:3] == [0, 0, 0]


@each_failure
def test_a_method_continues_with_smaller_batches_and_the_same_result(failure: Exception) -> None:
    pixels = pictures(2)
    plain = Net(tiny_body("sequential"), size=SIZE)
    small = Small(tiny_body("sequential"), 6, failure)
    net = Net(small, size=SIZE)
    objective = as_objective(net, 2)
    small.batches.clear()
    with listen() as remarks:
        result = rise(net, pixels, objective, masks=100, batch=48)
    torch.testing.assert_close(result, rise(plain, pixels, as_objective(plain, 2), masks=100), rtol=1e-9, atol=1e-12)
    assert [size for size in small.batches if size > 6] == [48, 24, 12]
    assert "out of memory at batch 48; continued with 6" in remarks


def test_a_method_says_when_not_even_one_fits() -> None:
    class Full(Small):
        def forward(self, x: Tensor) -> Tensor:
            if len(self.batches) >= 1:
                raise self.failure
            return super().forward(x)

    net = Net(Full(tiny_body("sequential"), 5, FAILURES["CPU"]), size=SIZE, channels=3)
    objective = as_objective(Net(tiny_body("sequential"), size=SIZE), 2)
    with pytest.raises(OutOfMemory, match="rise: out of memory at batch 1"):
        rise(net, pictures(1), objective, masks=100, batch=16)


REAL = """
import resource
import torch
torch.set_num_threads(1)
from convscope import Net, as_objective
from convscope.attribution.rise import rise
from convscope.context import listen
from torch import nn
torch.manual_seed(0)
body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
net, pixels = Net(body, size=64), torch.rand(1, 3, 64, 64)
objective = as_objective(net, 2)
expected = rise(net, pixels, objective, masks=1000, batch=20)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
used = int(status["VmSize"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20, resource.RLIM_INFINITY))
with listen() as remarks:
    result = rise(net, pixels, objective, masks=1000, batch=1000)
torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-6)
print([remark for remark in remarks if "out of memory" in remark])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited on Linux only")
def test_memory_that_really_runs_out() -> None:
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "out of memory at batch 1000; continued with " in done.stdout


@given(
    st.integers(1, 10**6), st.sampled_from(["", "B", "KB", "MB", "GB", "KiB", "MiB", "GiB"]), st.sampled_from(["", " "])
)
def test_amounts_of_memory_are_read(amount: int, unit: str, space: str) -> None:
    size = 1024 if "i" in unit else 1000
    power = "KMG".find(unit[:1]) + 1 if unit[:1] in tuple("KMG") else 0
    for written in (f"{amount}{space}{unit}", f" {amount}{space}{unit.lower()} ", f"{amount}.0{space}{unit.upper()}"):
        assert bytes_of(written) == amount * size**power
    assert bytes_of(amount) == amount


@given(st.floats(0.01, 1000), st.sampled_from("KMG"))
def test_a_unit_s_first_letter_is_enough_and_parts_count(amount: float, letter: str) -> None:
    written = f"{amount:.3f}"
    assert (
        bytes_of(f"{written} {letter}")
        == bytes_of(f"{written}{letter}B")
        == int(float(written) * 1000 ** ("KMG".find(letter) + 1))
    )


@given(st.text(max_size=12))
def test_text_that_is_not_an_amount_of_memory_is_refused(text: str) -> None:
    try:
        assert bytes_of(text) >= 1
    except OptionError as error:
        assert str(error) == f"memory is an amount such as '2 GiB' or '500 MB', not {text!r}"


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1 GB", "0", "0.1", "2 TB", "1e9", "nan", "inf GB", "2 GiB 3", "iB", "5 i"]
)
def test_amounts_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="memory is an amount such as '2 GiB' or '500 MB'"):
        bytes_of(text)


@dataclass
class Clock:
    """A clock that goes by what it is told, however busy the machine is."""

    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("convscope.batching.time", clock)
    return clock


@pytest.mark.parametrize(
    ("cost", "best"),
    [(lambda size: 0.01, 16), (lambda size: 0.004 * size, 1), (lambda size: 0.01 if size <= 4 else 0.1, 4)],
    ids=["one price", "by the piece", "four together"],
)
def test_the_quickest_batch_is_found(cost: Callable[[int], float], best: int, clock: Clock) -> None:
    assert quickest(lambda size: clock.pass_by(cost(size)), (1, 4, 16)) == best


def test_a_batch_that_memory_does_not_hold_is_not_taken(clock: Clock) -> None:
    def work(size: int) -> None:
        if size > 4:
            raise torch.OutOfMemoryError("out of memory")
        clock.pass_by(0.005)

    assert quickest(work, (1, 4, 16)) == 4
    with pytest.raises(RuntimeError, match="broken"):
        quickest(lambda size: (_ for _ in ()).throw(RuntimeError("broken")), (1, 4))
