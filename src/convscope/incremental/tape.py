"""The tape: which calls a network makes between a picture and its layers, in order.

A network is run once on one picture while a function mode writes down every call that the picture can reach: what was
called, with what, and what came out. The tape can then be played with another picture, or with parts of one. It holds
for other pictures only if the network makes the same calls for every picture, and only if every call was seen; so
whatever looks at values (a branch on a sum), writes into memory behind the tape, or brings in a tensor of unknown
origin (scripted or compiled code) raises `CannotFollow`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..calls import argument, in_place, name_of, tensors
from ..net import Net
from ..operations import Reach, names
from ..tapping import tap


class CannotFollow(Exception):  # noqa: N818  never reaches a user: the caller computes in full instead
    """The network does something that a tape cannot represent."""


@dataclass(frozen=True)
class Slot:
    """Stands in a call's arguments for a tensor that depends on the picture, by its number on the tape."""

    index: int


@dataclass(frozen=True)
class Step:
    """One call: its plain name, the function, its arguments with slots for tensors that depend on the picture."""

    name: str
    function: Callable[..., Any]
    args: Any
    kwargs: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    mutates: bool
    several: bool

    def argument(self, position: int, name: str, default: Any) -> Any:
        """Return an argument of the call, by position or by name."""
        return argument(self.args, self.kwargs, position, name, default)

    def call(self, values: Callable[[int], Tensor]) -> Any:
        """Make the call with other values in the slots."""
        return self.function(*_filled(self.args, values), **_filled(self.kwargs, values))


@dataclass(frozen=True)
class Tape:
    """The steps from a picture to some layers, and every tensor in between as it was for that picture."""

    steps: list[Step]
    clean: list[Tensor]
    readings: dict[str, int]


def record(net: Net, pixels: Tensor, layers: Sequence[str]) -> Tape:
    """Run a network on pixels (1, c, h, w) as far as some layers need, and write down what it does.

    Raises CannotFollow where a tape would not hold for other pictures.
    """
    recorder = _Recorder(_constants(net), pixels)
    with torch.no_grad():
        with recorder:
            readings = tap(net, pixels, layers)
        slots = {name: recorder.slot(value) for name, value in readings.items()}
    return _pruned(Tape(recorder.steps, recorder.clean, slots))


def _constants(net: Net) -> list[Tensor]:
    """Return tensors that a network may use and that depend on no picture."""
    attributes = (value for module in net.body.modules() for value in vars(module).values())
    return [*net.body.parameters(), *net.body.buffers(), *(t for t in attributes if isinstance(t, Tensor))]


class _Recorder(TorchFunctionMode):
    def __init__(self, constants: list[Tensor], pixels: Tensor) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.clean: list[Tensor] = []
        self.slots: dict[int, int] = {}
        self.stale: set[int] = set()
        # Tensors are identified by id, so that every one must be kept alive.
        self.constants = {id(tensor): tensor for tensor in constants}
        self.alive: list[Any] = []
        self._new(pixels)

    def slot(self, tensor: Tensor) -> int:
        number = self.slots.get(id(tensor))
        if number is None or id(tensor) in self.stale:
            raise CannotFollow("the computation of a layer's output was not recorded")
        return number

    def _new(self, tensor: Tensor) -> int:
        self.slots[id(tensor)] = len(self.clean)
        self.clean.append(tensor)
        self.alive.append(tensor)
        self.stale.discard(id(tensor))
        return self.slots[id(tensor)]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands = list(tensors((args, kwargs)))
        tracked = [t for t in operands if id(t) in self.slots]
        versions = [(t, t._version) for t in operands]
        # The tape holds what was there before a change in place.
        before = {id(t): t.clone() for t in tracked} if _may_mutate(func, kwargs, args) else {}
        output = func(*args, **kwargs)
        changed = [t for t, version in versions if t._version != version]
        if not tracked:
            self._keep_constants(output, changed)
            return output
        self._record(func, args, kwargs, tracked, output, changed, before)
        return output

    def _keep_constants(self, output: Any, changed: list[Tensor]) -> None:
        for tensor in (*tensors(output), *changed):
            self.constants[id(tensor)] = tensor

    def _record(
        self, func: Any, args: Any, kwargs: Any, tracked: list[Tensor], output: Any, changed: list[Tensor], before: Any
    ) -> None:
        name = name_of(func)
        outputs = [output] if isinstance(output, Tensor) else output
        if not _is_list_of_tensors(outputs):
            # Attributes that are no tensors (shape, device, ...) say nothing about the values.
            if name in _QUERIES:
                return
            if output is None or any(True for _ in tensors(outputs)):
                raise CannotFollow(f"it makes a call that is not supported ({name})")
            raise CannotFollow(f"it reads values ({name})")
        if _sized_by_values(name, args):
            raise CannotFollow(f"the size of a result depends on values ({name})")
        for tensor in tensors((args, kwargs)):
            if id(tensor) in self.stale:
                raise CannotFollow("it changes memory in place that is still in use")
            if id(tensor) not in self.slots and id(tensor) not in self.constants:
                raise CannotFollow("it uses a tensor of unknown origin (scripted or compiled code)")
        inputs = tuple(dict.fromkeys(self.slots[id(t)] for t in tracked))
        packed_args, packed_kwargs = _packed(args, self.slots), _packed(kwargs, self.slots)
        # A call in place changes its first argument and returns it.
        first = args[0] if args else None
        if any(t is not first or all(t is not o for o in outputs) or id(t) not in self.slots for t in changed):
            raise CannotFollow(f"it writes into a tensor ({name})")
        for tensor in changed:
            self._spoil(tensor, before)
        numbers = tuple(self.slots[id(o)] if id(o) in self.slots and not changed else self._new(o) for o in outputs)
        if numbers != inputs:
            several = not isinstance(output, Tensor)
            self.steps.append(Step(name, func, packed_args, packed_kwargs, inputs, numbers, bool(changed), several))

    def _spoil(self, tensor: Tensor, before: dict[int, Tensor]) -> None:
        """Keep what a tensor was before it was changed in place; others that share its memory are no longer valid."""
        number = self.slots[id(tensor)]
        if id(tensor) not in before:
            raise CannotFollow("it works in place in a way that is not supported")
        memory = tensor.untyped_storage().data_ptr()
        for other in self.alive:
            if other is not tensor and other.untyped_storage().data_ptr() == memory and id(other) in self.slots:
                self.stale.add(id(other))
                if self.slots[id(other)] != number:
                    self._restore(other, tensor, before[id(tensor)])
        self.clean[number] = before[id(tensor)]

    def _restore(self, view: Tensor, tensor: Tensor, old: Tensor) -> None:
        """Give a view of all numbers of a changed tensor its old values. Raises CannotFollow for any other view."""
        if view.numel() != tensor.numel() or not (view.is_contiguous() and tensor.is_contiguous()):
            raise CannotFollow("it works in place on a part of a tensor")
        self.clean[self.slots[id(view)]] = old.view(view.shape)


_QUERIES = names(Reach.QUERY) | {"type"}
_CHOICES = names(Reach.CHOICE)


def _sized_by_values(name: str, args: Any) -> bool:
    """Whether the size of a call's result depends on the values of its tensors, and so on the picture."""
    if name in _CHOICES or (name == "where" and len(args) == 1):
        return True
    if name == "repeat_interleave":
        return any(isinstance(value, Tensor) for value in args[1:])
    if name != "getitem":
        return False
    return any(index.dtype in (torch.bool, torch.uint8) for index in tensors(args[1]))


def _may_mutate(func: Any, kwargs: Any, args: Any) -> bool:
    return in_place(func) or kwargs.get("inplace") is True or "out" in kwargs or any(a is True for a in args)


def _is_list_of_tensors(outputs: Any) -> bool:
    return isinstance(outputs, (list, tuple)) and bool(outputs) and all(isinstance(o, Tensor) for o in outputs)


def _packed(value: Any, slots: dict[int, int]) -> Any:
    """Put slots where tensors that depend on the picture were."""
    if isinstance(value, Tensor):
        return Slot(slots[id(value)]) if id(value) in slots else value
    if type(value) in (tuple, list):
        return type(value)(_packed(item, slots) for item in value)
    if isinstance(value, dict):
        return {key: _packed(item, slots) for key, item in value.items()}
    return value


def _filled(value: Any, values: Callable[[int], Tensor]) -> Any:
    """Put tensors where slots are."""
    if isinstance(value, Slot):
        return values(value.index)
    if type(value) in (tuple, list):
        return type(value)(_filled(item, values) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    return value


def _pruned(tape: Tape) -> Tape:
    """Leave out steps whose results are not read."""
    needed = set(tape.readings.values())
    steps: list[Step] = []
    for step in reversed(tape.steps):
        if needed & set(step.outputs):
            steps.append(step)
            needed |= set(step.inputs)
    return Tape(steps[::-1], tape.clean, tape.readings)
