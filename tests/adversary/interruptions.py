"""Interruptions: ctrl-C at random moments, and at every place where Python looks for signals, leaves all as it was.

A body in train mode, with some parameters frozen, gradients, statistics and hooks, is looked at in every way; each look
is interrupted by a real signal. `python -m adversary.interruptions 2000 --places` prints counts.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import convscope
from convscope import Net, sharing
from convscope.registry import METHODS, VIEWS, load_all

from .report import Part

SIZE = 20
Case = tuple[str, int, int]

_METHODS: dict[str, dict[str, Any]] = {
    "extremal": {"steps": 3}, "rise": {"masks": 20, "batch": 10}, "occlusion": {"patch": 6, "stride": 6},
    "smooth_grad": {"samples": 3}, "integrated_gradients": {"steps": 3},
}  # fmt: skip
_VIEWS: dict[str, tuple[Sequence[Any], dict[str, Any]]] = {
    "accentuate": (["picture"], {"of": "1", "steps": 2}),
    "class_model": ([], {"of": "1", "steps": 2}),
    "compare": (["picture"], {"methods": ["grad_cam", "deconvnet"]}),
    "dream": (["picture"], {"steps": 2, "octaves": 1}),
    "filters": ([], {}),
    "filters_by_ascent": ([], {"layer": "a", "channels": "0-1", "steps": 2, "size": SIZE}),
    "hidden_gradients": (["picture"], {"of": "1"}),
    "invert": (["picture"], {"layers": ["a"], "repeats": 1, "steps": 2}),
    "maps": (["picture"], {"layer": "b"}),
    "maximize": ([], {"of": "1", "steps": 2}),
    "occlusion_study": (["picture"], {"of": "1", "patch": 6, "stride": 6}),
    "project": (["picture"], {"layer": "b", "top": 2}),
    "reconstruct": (["picture"], {"layers": ["b"]}),
    "segment": (["picture"], {"of": "1", "method": "saliency"}),
}


class Body(nn.Module):
    """Most of what a look may change, and switches of its own: a grad mode by calls, and a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.bn = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(6)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(8 * 4, 5)
        self.register_buffer("shift", torch.zeros(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to (n, 5)."""
        x = torch.relu(self.bn(self.a(x)) + self.shift)
        with torch.no_grad():
            scale = x.mean((1, 2, 3), keepdim=True)
        was = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        scale = scale.abs() + 1
        torch.set_grad_enabled(was)
        x = torch.relu(self.b(x / scale))
        return self.head(self.dropout(nn.functional.adaptive_max_pool2d(x, 2)).flatten(1))


def _stronger(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output * 1.5


def body() -> Body:
    """Return a body in the middle of its training."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        made = Body()
        made(torch.rand(4, 3, SIZE, SIZE)).square().sum().backward()
    made.bn.requires_grad_(False)
    made.b.eval()
    made.a.register_forward_hook(_stronger)
    made.head.register_forward_pre_hook(lambda module, inputs: None)
    return made


PICTURE = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@cache
def looks() -> dict[str, Callable[[Net], Any]]:
    """Return every way of looking at a network, by name: methods, views, and what Net finds out itself."""
    load_all()
    made: dict[str, Callable[[Net], Any]] = {
        "layers": lambda net: Net(net.body, size=SIZE).layers,
        "forward": lambda net: net(PICTURE[None]),
        "behaviour": lambda net: Net(net.body, size=SIZE).behaviour(PICTURE[None]),
        "many": lambda net: list(convscope.explain_many(net, [PICTURE, PICTURE], "grad_cam", batch_size=1)),
        "attribute": lambda net: convscope.attribute(net, PICTURE.repeat(2, 1, 1, 1), "grad_cam", of=[1, 2]),
        "seeds": lambda net: Net(net.body, size=SIZE, seed=3)(PICTURE[None]),
    }
    for name in METHODS.keys() - {"cam"}:  # it needs another head
        options = _METHODS.get(name, {})
        made[name] = lambda net, name=name, options=options: convscope.explain(net, PICTURE, name, 2, **options)
    for name in VIEWS.keys() & _VIEWS.keys():
        inputs, options = _VIEWS[name]
        pictures = [PICTURE for _ in inputs]
        made[name] = lambda net, name=name, pictures=pictures, options=options: getattr(convscope, name)(
            net, *pictures, **options
        )
    return made


def state(module: nn.Module) -> dict[str, Any]:
    """Return everything that a look may not change: of a body, of torch, of the process."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    tensors = [*module.state_dict().values(), *(p.grad for p in module.parameters() if p.grad is not None)]
    return {
        "numbers": hashlib.sha256(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)).hexdigest(),
        "identity": [id(p) for p in module.parameters()] + [id(part) for part in module.modules()],
        "training": [part.training for part in module.modules()],
        "requires_grad": [p.requires_grad for p in module.parameters()],
        "gradients": [p.grad is not None for p in module.parameters()],
        "hooks": [list(getattr(part, name)) for part in module.modules() for name in hooks],
        "attributes": [sorted(vars(part)) for part in module.modules()],
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "function modes": torch._C._len_torch_function_stack(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "cudnn": (torch.backends.cudnn.enabled, torch.backends.cudnn.deterministic),
        "torch threads": torch.get_num_threads(),
        "torch's numbers": torch.get_rng_state().numpy().tobytes(),
        "numpy's numbers": np.random.get_state()[1].tobytes(),  # type: ignore[union-attr]
        "python's numbers": random.getstate(),
        "warnings": list(warnings.filters),
        "handlers": [
            signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
        ],
        "held": (len(sharing._holds), len(sharing._flags)),
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names of what is not as before."""
    return [name for name in before if before[name] != after[name]]


class Interrupter:
    """Another process, which sends ctrl-C after a while and notes when: so it may fall on any instruction."""

    _PROGRAM = (
        "import mmap, os, signal, struct, sys, time\n"
        "clock = mmap.mmap(os.open(sys.argv[1], os.O_RDWR), 8)\n"
        "for line in sys.stdin:\n"
        "    time.sleep(float(line))\n"
        "    clock[:] = struct.pack('d', time.monotonic())\n"
        "    os.kill(int(sys.argv[2]), signal.SIGINT)\n"
    )

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="interrupter-")  # noqa: SIM115  as long as the process
        self._file.write(bytes(8))
        self._file.flush()
        self._clock = mmap.mmap(self._file.fileno(), 8)
        command = [sys.executable, "-c", self._PROGRAM, self._file.name, str(os.getpid())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1)

    def after(self, seconds: float) -> None:
        """Send one interruption in so many seconds."""
        assert self.process.stdin is not None
        self._clock[:] = bytes(8)
        self.process.stdin.write(f"{seconds}\n")

    def sent(self) -> float:
        """Return when it was sent, 0 as long as it was not."""
        return struct.unpack("d", self._clock[:])[0]

    def close(self) -> None:
        """End the process."""
        self.process.communicate()
        self._file.close()


@dataclass(frozen=True)
class Outcome:
    """How an interrupted look ended: what was not as before, how often it was interrupted, seconds after the signal."""

    faults: Sequence[str]
    times: int
    late: float = 0.0


def at_random(name: str, moment: float, interrupter: Interrupter) -> Outcome:
    """Interrupt a look at a moment, as a part of the time that it takes, and say what is not as before."""

    def send_in_time(look: Callable[[], Any]) -> None:
        interrupter.after(moment * duration(name))
        look()
        while not interrupter.sent():
            time.sleep(0.001)

    return _interrupted(name, send_in_time, interrupter.sent)


def at_event(name: str, place: Place) -> Outcome:
    """Interrupt a look the first time that it comes to a place where Python looks for signals."""
    (code, at, kind), sent = place, 0.0

    def stop(frame: FrameType, event: str, _: Any) -> None:
        nonlocal sent
        if frame.f_code is code and frame.f_lasti == at and event == kind:
            sys.setprofile(None)
            sent = time.monotonic()
            signal.raise_signal(signal.SIGINT)

    def send_there(look: Callable[[], Any]) -> None:
        sys.setprofile(stop)
        try:
            look()
        finally:
            sys.setprofile(None)

    return _interrupted(name, send_there, lambda: sent)


def _interrupted(name: str, send: Callable[[Callable[[], Any]], None], sent: Callable[[], float]) -> Outcome:
    module, look = body(), looks()[name]
    net, times, late = Net(module, size=SIZE), 0, 0.0
    failed = list[str]()
    duration(name)  # it has imported what it needs
    before = state(module)
    try:
        send(lambda: look(net))
        time.sleep(0.01)
    except KeyboardInterrupt:
        times, late = 1, time.monotonic() - sent()
    except Exception as error:  # what an interruption was turned into
        failed = [f"raised {type(error).__name__}: {error}"]
    faults = [*changed(before, state(module)), *failed]
    try:
        time.sleep(0.003)
    except KeyboardInterrupt:
        faults.append("interrupted twice")
    if not sent():  # the look was over before
        return Outcome(faults, times)
    # A synthesis, and an extremal perturbation, keep what they have so far, and say so in the caption.
    if not times and name not in {*VIEWS, "extremal"}:
        faults.append("never interrupted")
    if (wrong := _next(net)) or changed(before, state(module)):
        faults.append(wrong or "the next look changes something")
    return Outcome(faults, times, late)


@cache
def expected() -> Tensor:
    """Return the map that the next look must give."""
    return _map(Net(body(), size=SIZE))


def _next(net: Net) -> str:
    """Say what is wrong with the next look; "" where nothing is."""
    try:
        return "" if torch.equal(_map(net), expected()) else "the next map is another"
    except Exception as error:
        return f"the next look raises {type(error).__name__}"


def _map(net: Net) -> Tensor:
    return convscope.explain(net, PICTURE, "grad_cam", 2).values


@cache
def duration(name: str) -> float:
    """Return how long a look takes, in seconds."""
    looks()[name](Net(body(), size=SIZE))
    began = time.monotonic()
    looks()[name](Net(body(), size=SIZE))
    return time.monotonic() - began


Place = tuple[CodeType, int, str]
"""Where Python looks for signals: code, instruction, and whether a function begins there or a call in C has ended."""


def _place(frame: FrameType, event: str) -> Place | None:
    return (frame.f_code, frame.f_lasti, event) if event in ("call", "c_return") else None


def places(name: str) -> list[Place]:
    """Return every place to which a look comes in the package, in `contextlib`, and where torch switches modes."""
    found: dict[Place, None] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        # A generator that is thrown away counts as called, but no signal is looked for there.
        if frame.f_code.co_name != "<genexpr>" and _switches(frame.f_code) and (place := _place(frame, event)):
            found.setdefault(place)

    net = Net(body(), size=SIZE)
    sys.setprofile(note)
    try:
        looks()[name](net)
    finally:
        sys.setprofile(None)
    return list(found)


@cache
def _switches(code: CodeType) -> bool:
    file = Path(code.co_filename)
    return "convscope" in file.parts[-3:-1] or file.stem in (
        "contextlib",
        "grad_mode",
        "overrides",
        "warnings",
        "random",
    )


def cases(count: int, seed: int = 0, only: Sequence[str] = ()) -> Iterator[Case]:
    """Yield so many interruptions, each way of looking in turn: its name, the seed of its moment, its number."""
    names = [name for name in looks() if not only or name in only]
    yield from ((names[number % len(names)], seed, number) for number in range(count))


def moment(case: Case) -> float:
    """Return when a case's interruption comes, as a part of the time that its look takes."""
    return random.Random(case[1] * 1_000_003 + case[2]).random() * 1.05


@cache
def interrupter() -> Interrupter:
    """Return this process's interrupter."""
    return Interrupter()


def attempt(case: Case, folder: Path) -> tuple[str, str]:
    """Interrupt a look once, and look what is left changed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    outcome = at_random(case[0], moment(case), interrupter())
    if outcome.faults:
        return "harmed", f"{case[0]}: {'; '.join(outcome.faults)}"
    return "worked", f"{outcome.times} raised"


PART = Part("interruptions", 2000, 43, cases, attempt, batch=100, watched=False)


def main() -> int:
    """Print what became of so many interruptions at random moments, and with `--places` of one at each place."""
    count, everywhere = int(sys.argv[1]) if len(sys.argv) > 1 else 2000, "--places" in sys.argv
    faults, late, times, tried = Counter[str](), [0.0], 0, 0
    for case in cases(count):
        name, _, number = case
        outcome = at_random(name, moment(case), interrupter())
        tried, times, late = tried + 1, times + outcome.times, [*late, outcome.late]
        for fault in outcome.faults:
            faults[f"{name}: {fault}"] += 1
            print(f"interruption {number} of {name}: {fault}", flush=True)
    interrupter().close()
    for name in looks() if everywhere else ():
        for place in places(name):
            outcome = at_event(name, place)
            tried, times, late = tried + 1, times + outcome.times, [*late, outcome.late]
            for fault in outcome.faults:
                faults[f"{name}: {fault}"] += 1
                code, _, event = place
                print(f"{name}, {event} in {code.co_qualname} ({code.co_filename}): {fault}", flush=True)
    print(
        f"{tried} interruptions, {times} raised, {tried - times} after the end or kept by a synthesis; "
        f"{sum(faults.values())} faults; at most {max(late) * 1000:.0f} ms from signal to exception"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
