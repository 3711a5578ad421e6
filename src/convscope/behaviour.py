"""Behaviour: whether a network's answer for a picture is the same every time, and whatever else is in the batch.

Two pictures are given to the network alone and together, and what its layers and its output hold is compared. This is
done once per network and size of picture.
"""

from __future__ import annotations

import math
import random
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .batching import out_of_memory
from .calls import name_of
from .errors import their_line
from .quiet import quiet
from .sharing import hooked

T = TypeVar("T")
Run = Callable[..., Any]
"""A forward pass, from pixels (n, c, h, w); with `seed=` its random numbers are those of a seed."""

_SAMPLED = 256
"""How many numbers of a layer are compared, for each picture."""

_ROUNDING = 64
"""By so many units of rounding a result may differ that was computed in another order ..."""
_MOST_ROUNDING = 1e-3
"""... but in half precision by no more than this, where both are computed in the same order."""
_OTHER_KERNELS = 0.05
"""By so much, of a layer's largest number, batches of one and of two may differ in coarse precisions."""

_numbers = threading.RLock()


@dataclass(frozen=True)
class Behaviour:
    """How a network treats pictures of one size.

    `alone` says that pictures are computed one at a time, because those of a batch influence each other, because the
    network takes no batch, or because it is random; `remark` says why, where a reader must know. `random` is empty, or
    names what makes the network give another answer each time; `seedable` says that a seed would prevent it.
    """

    alone: bool = False
    remark: str = ""
    random: str = ""
    seedable: bool = False


@dataclass(frozen=True)
class _Sample:
    """Some numbers of what a layer held for every picture, (n, numbers), its shape for one, and a unit of rounding."""

    values: Tensor
    shape: tuple[int, ...]
    rounding: float


_Samples = dict[str, _Sample]
"""By layer and call, in the order in which they finish; "" is the output."""


def behaviour_of(body: nn.Module, run: Run, pixels: Tensor, seed: int | None = None) -> Behaviour:
    """Look how a network treats pictures like `pixels` (n, c, h, w): `run` is a pass through it, `body` has its layers.

    With a seed, it is random only where it still is with the seed's numbers.

    A network that fails on a picture alone is left to fail where it is used. Raises what says that memory ran out.
    """
    with _aside(_look, body, run, pixels.detach(), seed) as looked:
        return looked.result()


@contextmanager
def _aside(look: Callable[..., T], *args: Any) -> Generator[Future[T]]:
    """Look at a network in a thread of its own, where no hook, mode, rule or default of whoever asks is in force.

    Whoever leaves the block earlier, as when interrupted, ends the look at the network's next layer.
    """
    ended, pool = threading.Event(), ThreadPoolExecutor(1)

    def begin() -> T:
        _ended.set(ended)
        return look(*args)

    try:
        yield pool.submit(begin)
    finally:
        ended.set()
        pool.shutdown()


class _Ended(BaseException):
    """Nobody waits for what is looked for; not an Exception, so that no model swallows it."""


_ended: ContextVar[threading.Event] = ContextVar("set once nobody waits")


def _look(body: nn.Module, run: Run, pixels: Tensor, seed: int | None) -> Behaviour:
    def sampled(*pictures: Tensor, seed: int | None = None) -> _Samples:
        return _sampled(body, partial(run, seed=seed), torch.cat(pictures))

    with torch.no_grad(), quiet(), restored_numbers(pixels.device):
        a, b = _two_pictures(pixels)
        first = _unless_it_fails(lambda: sampled(a))
        if first is None:
            return Behaviour()
        together = _unless_it_fails(lambda: sampled(a, b))
        second = sampled(b) if together is not None else {}
        if together is not None and all(
            _differing(alone, _row(together, row)) is None for row, alone in enumerate((first, second))
        ):
            return Behaviour()
        if _differing(first, sampled(a)) is not None:
            seedable = _differing(sampled(a, seed=seed or 0), sampled(a, seed=seed or 0)) is None
            if seedable and seed is not None:
                return Behaviour(True, f"this network draws random numbers: those of seed {seed}")
            return Behaviour(True, random=_cause(lambda: run(a), pixels.device), seedable=seedable)
        if together is None:
            return Behaviour(alone=True)
        name = _influenced(together, (sampled(a, a), sampled(b, b)), (first, second))
    if name is None:
        return Behaviour()
    where = f" (first in layer {name.partition('#')[0]!r})" if name else ""
    return Behaviour(True, f"pictures of a batch influence each other in this network{where}: computed one at a time")


def _unless_it_fails(sampled: Callable[[], _Samples]) -> _Samples | None:
    """Return what layers hold, None where the network does not run. Raises what says that memory ran out."""
    try:
        return sampled()
    except Exception as error:  # whatever a network raises
        if out_of_memory(error):
            raise
        return None


def _two_pictures(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return two pictures like `pixels`, (1, c, h, w), the first dull, the second full of contrast."""
    generator = torch.Generator().manual_seed(0)
    _, channels, height, width = pixels.shape
    fine = torch.rand(2, channels, height, width, generator=generator)
    coarse = torch.rand(2, channels, 4, 4, generator=generator)
    both = (fine + F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)) / 2
    a, b = both.to(pixels).split(1)
    return 0.05 + 0.3 * a, 1 - b * b


def _sampled(body: nn.Module, run: Run, pictures: Tensor) -> _Samples:
    samples: _Samples = {}

    def keep(name: str, value: Any) -> None:
        if isinstance(value, Tensor) and (sample := _sample(value, len(pictures))) is not None:
            calls = sum(key.partition("#")[0] == name for key in samples)
            samples[f"{name}#{calls}" if name else ""] = sample

    with _hooks(body, keep):
        keep("", run(pictures))
    return samples


def _sample(tensor: Tensor, count: int) -> _Sample | None:
    """Return numbers of a layer with one row for each of `count` pictures; of another layer None."""
    if not _plain(tensor) or tensor.ndim == 0 or tensor.numel() == 0 or len(tensor) != count:
        return None
    values = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    rows = values.reshape(count, -1)
    exact = rows[:, :: max(1, rows.shape[1] // _SAMPLED)].to("cpu", torch.float64, copy=True)
    return _Sample(exact, tuple(tensor.shape[1:]), _rounding(values))


def _rounding(values: Tensor) -> float:
    if not values.is_floating_point():
        return 0.0
    unit = torch.finfo(values.dtype).eps
    # Matrix products on a GPU round to ten bits where it is told that it may.
    return max(unit, 2.0**-10) if values.is_cuda and values.dtype == torch.float32 else unit


def _row(samples: _Samples, row: int) -> _Samples:
    return {name: replace(sample, values=sample.values[row : row + 1]) for name, sample in samples.items()}


def _closely(rounding: float) -> float:
    return min(_ROUNDING * rounding, _MOST_ROUNDING)


def _coarsely(rounding: float) -> float:
    # A whole number may be the place of the larger of two nearly equal ones.
    return max(_OTHER_KERNELS, rounding) if rounding else math.inf


def _differing(one: _Samples, other: _Samples, tolerance: Callable[[float], float] = _closely) -> str | None:
    """Return the first layer that differs by more than rounding, "" for the output, None where none does."""
    if one.keys() & {""} != other.keys() & {""} or ("" in one and one[""].shape != other[""].shape):
        return ""
    both = [name for name, sample in one.items() if name in other and other[name].shape == sample.shape]
    return next((name for name in both if not _close(one[name], other[name], tolerance)), None)


def _close(one: _Sample, other: _Sample, tolerance: Callable[[float], float]) -> bool:
    finite = one.values.isfinite() & other.values.isfinite()
    same = (one.values == other.values) | (one.values.isnan() & other.values.isnan())
    if not bool((finite | same).all()):
        return False
    off, size = ((values[finite]).abs() for values in (one.values - other.values, one.values))
    return not len(off) or float(off.amax()) <= tolerance(max(one.rounding, other.rounding)) * float(size.amax())


def _influenced(together: _Samples, twins: Sequence[_Samples], alone: Sequence[_Samples]) -> str | None:
    """Return the first layer whose numbers for one picture depend on the other's, None where none does.

    Batches of one and of two may be rounded otherwise; beside itself and beside another a picture is computed alike.
    """
    for row, (twin, single) in enumerate(zip(twins, alone, strict=True)):
        own = _row(twin, row)
        for name in (_differing(own, _row(together, row)), _differing(single, own, _coarsely)):
            if name is not None:
                return name
    return None


# Layers ---------------------------------------------------------------------------------------------------------


def unread_layers(body: nn.Module, run: Run, pixels: Tensor, names: Iterable[str], suspects: Set[str]) -> set[str]:
    """Return the names of the layers that hold the same for two pictures like `pixels`: they do not depend on it.

    A layer of one number everywhere, as dead units have, counts only where it is one of the suspects.
    """
    with _aside(_fingerprints, body, run, pixels) as printed:
        prints = printed.result()
    if prints is None:
        return set()
    first, second = prints
    return {
        name
        for name in names
        if (key := _execution(name)) in first
        and first[key] == second.get(key)
        and (name in suspects or first[key].varies)
    }


def _execution(name: str) -> tuple[str, int]:
    module, _, call = name.partition("#")
    return module, int(call or 1)


@dataclass(frozen=True)
class _Fingerprint:
    """What tells one activity from another: sums, and numbers of it; `varies` where it is not one number everywhere."""

    sums: tuple[float, ...]
    numbers: bytes
    varies: bool


def _fingerprints(body: nn.Module, run: Run, pixels: Tensor) -> list[dict[tuple[str, int], _Fingerprint]] | None:
    """Return what every layer holds for each of two pictures, None where the network does not run."""
    with torch.no_grad(), quiet(), restored_numbers(pixels.device):
        try:
            return [_fingerprints_of(body, run, picture) for picture in _two_pictures(pixels)]
        except Exception:  # whatever a network raises: it does so again where it is used
            return None


def _fingerprints_of(body: nn.Module, run: Run, picture: Tensor) -> dict[tuple[str, int], _Fingerprint]:
    found: dict[tuple[str, int], _Fingerprint] = {}
    calls: dict[str, int] = {}

    def keep(name: str, value: Any) -> None:
        calls[name] = calls.get(name, 0) + 1
        if isinstance(value, Tensor) and _plain(value) and value.numel():
            values = (torch.view_as_real(value.resolve_conj()) if value.is_complex() else value).double().reshape(-1)
            numbers = values[:: max(1, len(values) // _SAMPLED)].cpu().numpy().tobytes()
            sums = float(values.sum()), float(values.abs().sum())
            found[name, calls[name]] = _Fingerprint(sums, numbers, bool(values.min() < values.max()))

    with _hooks(body, keep):
        keep("", run(picture))
    return found


def _hooks(body: nn.Module, keep: Callable[[str, Any], None]) -> AbstractContextManager[None]:
    """Hand every module's output to a function, in the order in which they finish."""

    ended = _ended.get()

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def act(_: nn.Module, __: Any, output: Any) -> None:
            if ended.is_set():
                raise _Ended
            keep(name, output)

        return act

    named = [(n, m) for n, m in body.named_modules() if n and not isinstance(m, torch.jit.ScriptModule)]
    return hooked((module, hook(name)) for name, module in named)


def _plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested


# Random numbers ---------------------------------------------------------------------------------------------------


def _states(device: torch.device) -> dict[str, Any]:
    """Return the states of the generators that a network may draw from, by what draws from them."""
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if device.type in ("cuda", "mps"):
        states["device"] = getattr(torch, device.type).get_rng_state()
    return states | {"NumPy": np.random.get_state(), "Python's random": random.getstate()}


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name, state in before.items() if not _same(state, after[name])]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple):
        return all(map(_same, one, other))
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else bool(one == other)


def _restore(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    if "device" in states:
        getattr(torch, device.type).set_rng_state(states["device"])
    np.random.set_state(states["NumPy"])
    random.setstate(states["Python's random"])


@contextmanager
def restored_numbers(device: torch.device) -> Generator[None]:
    """Leave every generator of random numbers as it was; one that nobody drew from is not touched."""
    before = _states(device)
    try:
        yield
    finally:
        if _changed(before, _states(device)):
            _restore(before, device)


@contextmanager
def drawing(seed: int | None, device: torch.device) -> Generator[None]:
    """Let what draws random numbers inside the block draw those of a seed; one pass at a time, for all threads.

    The generators are those of torch, NumPy and Python. Without a seed nothing is done.
    """
    if seed is None:
        yield
        return
    with _numbers, restored_numbers(device):
        torch.default_generator.manual_seed(seed)
        if device.type in ("cuda", "mps"):
            getattr(torch, device.type).manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield


class _Draws(TorchFunctionMode):
    """Find the first call of torch that draws random numbers, and where it is made."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.found = device, ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.found:
            return func(*args, **kwargs)
        before = _states(self.device)
        result = func(*args, **kwargs)
        own = kwargs.get("generator") is not None
        if own or _changed(before, _states(self.device)):
            where = their_line(traceback.extract_stack())
            self.found = f"{name_of(func)}{where and f'{where},'} draws random numbers" + (
                " from a generator of its own" if own else ""
            )
        return result


def _cause(run: Callable[[], Any], device: torch.device) -> str:
    """Say what makes a network random, as far as that can be seen."""
    draws, before = _Draws(device), _states(device)
    with draws:
        run()
    others = [name for name in _changed(before, _states(device)) if name not in ("torch", "device")]
    if draws.found:
        return draws.found
    if others:
        return f"its code draws from {others[0]}"
    return "it keeps something from one pass to the next, or draws from a generator of its own"
