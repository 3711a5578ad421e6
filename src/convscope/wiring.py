"""Wiring: which step of a forward pass reads which, from one run without data.

A step is a layer inside which no other layer runs, or a function between such layers that joins several tensors or
merges the numbers of one. Other functions (rectifiers, reshapes) belong to the step whose numbers they take. So every
tensor comes from one step, and carries its number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import bodies, calling
from .calls import name_of, tensors
from .dry_run import changed_unseen, without_data
from .operations import BY_NAME, Reach, names
from .propagation import LIKE_ANOTHER
from .quiet import quiet
from .sharing import hooked

PICTURE = 0
"""The number of the first step, which is the picture."""

_NO_VALUES = names(Reach.CREATION)

_MERGING = names(Reach.WINDOW, Reach.RESAMPLING, Reach.REDUCTION) - {"pad"} | frozenset(
    "linear scaled_dot_product_attention max matmul bmm baddbmm einsum conv1d conv3d lp_pool2d".split()
)
"""Functions that are a step of their own also where they read one tensor."""

_NAMELESS = frozenset("get set len".split())
"""Functions that say nothing of numbers: attributes of tensors."""


@dataclass(frozen=True)
class Step:
    """A layer inside which no other layer runs, or a function between layers.

    `number` is its place among the steps, in order of execution. `layer` is the layer's name, None for a function;
    `kind` is the class of its module, or the function's name; `shape` that of its output without the batch. `reads` are
    the numbers of the steps whose outputs it takes, each once. `functions` are those that a layer calls, by name, and
    `then` those that its output goes through before the next step. `opaque` is a layer whose functions cannot be seen.
    """

    number: int
    layer: str | None
    kind: str
    shape: tuple[int, ...]
    reads: tuple[int, ...]
    functions: frozenset[str] = frozenset()
    then: tuple[str, ...] = ()
    opaque: bool = False


@dataclass(frozen=True)
class Span:
    """One execution of a module inside which layers run: its steps, from `first` until before `end`.

    `gives` is the step that its output comes from, None where that is no single tensor, or one of something else.
    """

    layer: str
    kind: str
    first: int
    end: int
    gives: int | None


@dataclass(frozen=True)
class Wiring:
    """The steps of a forward pass, the picture first, and the modules that run several of them.

    Spans come in the order in which they end, that of the body, "", last; they lie inside each other or apart.
    """

    steps: tuple[Step, ...]
    spans: tuple[Span, ...]


def wiring(body: nn.Module, shape: tuple[int, int, int], call: calling.Call | None = None) -> Wiring:
    """Return what reads what inside a module, on a picture of `shape` (c, h, w).

    `call(body, picture)` says how the module is called, plainly when not given.
    """
    return without_data(body, shape, call, _run)


def _run(body: nn.Module, picture: Tensor, forward: Callable[[Tensor], Any]) -> Wiring:
    watched = _Watched(picture)
    named = [(name, module) for name, module in bodies.parts(body) if name and not _computes_weights(name)]

    def leave(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: watched.leave(name, module, inputs, output)

    with (
        torch.inference_mode(False),
        torch.no_grad(),
        quiet(),
        hooked(((m, leave(n)) for n, m in named), ((m, partial(watched.enter, n)) for n, m in named)),
        watched,
    ):
        watched.enter("")
        watched.leave("", body, picture, forward(picture))
    return watched.wiring()


def _computes_weights(name: str) -> bool:
    return "parametrizations" in name.split(".")


class _Frame:
    """A module that is running: what it has read and called itself, and whether a layer has run inside it."""

    def __init__(self, name: str, first: int) -> None:
        self.name, self.first, self.holds_layers = name, first, False
        self.reads: dict[int, None] = {}
        self.functions: list[str] = []
        self.then: list[tuple[int, str]] = []


class _Watched(TorchFunctionMode):
    """Carries the number of the step that each tensor comes from, and notes the steps."""

    def __init__(self, picture: Tensor) -> None:
        super().__init__()
        self.steps: dict[int, Step] = {}
        self.spans: list[tuple[str, int, Span]] = []
        self.calls: dict[str, int] = {}
        self.given: dict[str, int] = {}
        self.then: dict[int, list[str]] = {}
        self.became: dict[int, int] = {}
        self.frames: list[_Frame] = []
        self.count = 0
        self._add(None, "picture", picture, ())

    def enter(self, name: str) -> None:
        """Note that a module begins to run."""
        self.frames.append(_Frame(name, self.count))

    def leave(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Note that a module has run."""
        frame = self.frames.pop()
        while frame.name != name:  # a module that raised an error, which another caught
            frame = self.frames.pop()
        self.calls[name] = number = self.calls.get(name, 0) + 1
        if isinstance(output, Tensor):
            self.given[name] = number
        if frame.holds_layers or (not name and self.count > frame.first + 1):  # a body of functions
            self._close(name, number, module, output, frame)
        else:
            self._replace(name, number, module, inputs, output, frame)
        if self.frames:
            self.frames[-1].holds_layers = True

    def _close(self, name: str, call: int, module: nn.Module, output: Any, frame: _Frame) -> None:
        """Note a module inside which others ran."""
        for step, function in frame.then:
            self.then.setdefault(step, []).append(function)
        gives = self._of(output) if isinstance(output, Tensor) else None
        self.spans.append((name, call, Span(name, bodies.kind(module), frame.first, self.count, gives)))

    def _replace(self, name: str, call: int, module: nn.Module, inputs: Any, output: Any, frame: _Frame) -> None:
        """Make one step of a module and all the functions that it called itself."""
        inside = range(frame.first, self.count)
        # What no function of torch's took was handed on, or went into code that runs as one piece.
        reads = frame.reads or dict.fromkeys([*self._sources(output)] or self._sources(inputs))
        for number in inside:
            self.steps.pop(number, None)
            self.became[number] = self.count
        handed_on = any(out is each for out in tensors(output) for each in tensors(inputs))
        opaque = isinstance(module, torch.jit.ScriptModule) or not (frame.functions or handed_on)
        self._add(
            name, bodies.kind(module), output, (each for each in reads if each not in inside),
            call=call, functions=frozenset(frame.functions), opaque=opaque,
        )  # fmt: skip

    def _add(
        self, layer: str | None, kind: str, output: Any, reads: Iterable[int], *, call: int = 0, **more: Any
    ) -> None:
        shape = next((tuple(out.shape[1:]) for out in tensors(output)), ())
        # The call stands beside the name until it is known whether there are more.
        numbered = layer if layer is None else f"{layer}#{call}"
        self.steps[self.count] = Step(self.count, numbered, kind, shape, tuple(reads), **more)
        self._mark(output, self.count)
        self.count += 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        sources = list(self._sources(args[:1] if name in LIKE_ANOTHER else (args, kwargs)) if self.frames else ())
        output = func(*args, **kwargs)
        if self.frames:
            self.frames[-1].functions.append(name)
        if not sources or name in _NO_VALUES:
            return output
        changed = changed_unseen(func, args)
        if changed is None and next(tensors(output), None) is None:  # a question about its shape, or the like
            return output
        frame = self.frames[-1]
        frame.reads |= dict.fromkeys(each for each in sources if each < frame.first)
        if len(sources) > 1 or name in _MERGING:
            made = output if output is not None else changed
            self._add(None, BY_NAME[name].names[0] if name in BY_NAME else name, made, sources)
            step = self.count - 1
        else:
            step = sources[0]
            if name not in _NAMELESS:
                frame.then.append((step, name))
            self._mark(output, step)
        if changed is not None:
            self._mark((changed, args[0]), step)
        return output

    def _mark(self, value: Any, step: int) -> None:
        for tensor in tensors(value):
            tensor._convscope_step = (self, step)  # type: ignore[attr-defined]

    def _of(self, tensor: Tensor) -> int | None:
        """Return the step that a tensor comes from."""
        # A mark of an earlier run may stay on a tensor that the module keeps.
        watched, step = getattr(tensor, "_convscope_step", (None, PICTURE))
        while watched is self and step in self.became:
            step = self.became[step]
        return step if watched is self else None

    def _sources(self, value: Any) -> tuple[int, ...]:
        """Return the steps that tensors come from, each once, in the order in which they are given."""
        return tuple(dict.fromkeys(step for tensor in tensors(value) if (step := self._of(tensor)) is not None))

    def wiring(self) -> Wiring:
        """Return what was noted, the steps numbered without gaps."""
        place = {number: at for at, number in enumerate(self.steps)}
        steps = [
            replace(
                step,
                number=place[number],
                layer=self._named(step.layer),
                reads=tuple(place[each] for each in step.reads),
                then=tuple(self.then.get(number, ())),
            )
            for number, step in self.steps.items()
        ]
        before = [0]
        for number in range(self.count):
            before.append(before[-1] + (number in self.steps))
        spans = [
            replace(
                span,
                layer=self._named(f"{name}#{call}") or "",
                first=before[span.first],
                end=before[span.end],
                gives=None if span.gives is None else place[span.gives],
            )
            for name, call, span in self.spans
        ]
        return Wiring(tuple(steps), tuple(spans))

    def _named(self, numbered: str | None) -> str | None:
        """Return a layer's name without the number of its call, where it is called once."""
        if numbered is None:
            return None
        name, _, call = numbered.rpartition("#")
        return numbered if self.given.get(name, int(call)) > 1 else name
