"""Graphs: networks that come as a list of calls, in ONNX files and exported programs, as modules with named layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import PictureError

_CONSTANTS = "(constants)"

MOST_NUMBERS = 2**26
"""A layer with more numbers than this for one picture is not believed: 256 MiB of 32 bits."""


@dataclass(frozen=True)
class Step:
    """One call: a layer's name, the values that it reads ("" for none) and those that it returns.

    `sizes` says that it looks at a tensor's shape alone, which a batch does not have one by one; `changes` that
    it works in place, so that it counts even where nobody reads what it returns.
    """

    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sizes: bool = False
    changes: bool = False


class Graph(nn.Module):
    """A network as steps between a picture and its outputs.

    Args:
        steps: the calls in order; `modules` has the module of each layer.
        constants: tensors by name that no step computes.
        picture: the name of what the network reads.
        outputs: names of what it returns: one tensor, or a dict of several.

    Raises ValueError when a value is read that is neither computed nor constant.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        modules: dict[str, nn.Module],
        constants: dict[str, Tensor],
        *,
        picture: str,
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        self.picture, self.outputs = picture, tuple(outputs)
        self.size: tuple[int, int] | None = None
        self.steps = _needed(steps, self.outputs)
        read = {name for step in self.steps for name in step.inputs if name} | set(outputs)
        unknown = read - constants.keys() - {picture, *(name for step in self.steps for name in step.outputs)}
        if unknown:
            raise ValueError(f"nothing computes {sorted(unknown)[0]!r}, which is read")
        self._keys = {name: f"constant_{i}" for i, name in enumerate(n for n in constants if n in read)}
        holder = nn.Module()
        for name, key in self._keys.items():
            holder.register_buffer(key, constants[name])
        self.add_module(_CONSTANTS, holder)
        for step in self.steps:
            _add(self, step.layer, modules[step.layer])
        self._done = _last_uses(self.steps, {*self.outputs, picture})

    def forward(self, picture: Tensor) -> Any:
        values: dict[str, Any] = {self.picture: picture}
        for step, done in zip(self.steps, self._done, strict=True):
            try:
                results = self.results(step, values)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError) as error:
                self._blame_the_size(picture, step, error)
                raise
            values.update(zip(step.outputs, results, strict=True))
            for name in done:
                values.pop(name, None)
        outputs = {name: self.value(name, values) for name in self.outputs}
        return outputs if len(outputs) > 1 else outputs[self.outputs[0]]

    def _blame_the_size(self, picture: Tensor, step: Step, error: Exception) -> None:
        """Say so when a file's numbers are those of another size."""
        height, width = picture.shape[-2:]
        if self.size and (height, width) != self.size:
            size = f"{self.size[0]}x{self.size[1]}"
            raise PictureError(
                f"a picture of {height}x{width} pixels does not fit a file for {size}: layer {step.layer!r} fails. "
                "Leave out the size, or export the network for it"
            ) from error

    def results(self, step: Step, values: dict[str, Any]) -> tuple[Any, ...]:
        """Run one step on values at hand."""
        result = self.get_submodule(step.layer)(*(self.value(name, values) for name in step.inputs))
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)

    def value(self, name: str, values: dict[str, Any]) -> Any:
        """Return a value by name: computed, constant, or None for what is left out."""
        if name in values or not name:
            return values.get(name)
        return self.get_submodule(_CONSTANTS).get_buffer(self._keys[name])


@dataclass(frozen=True)
class Slot:
    """The place of the nth thing that a call reads."""

    index: int


class Call(nn.Module):
    """A function as a layer: `args` and `kwargs` hold a `Slot` where something is read."""

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.function, self.args, self.kwargs = function, tuple(args), kwargs or {}

    def forward(self, *inputs: Any) -> Any:
        return self.function(*_filled(self.args, inputs), **_filled(self.kwargs, inputs))

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", "")


class Creation(Call):
    """A function that makes a tensor of numbers alone, where the network is."""

    def __init__(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        super().__init__(function, args, kwargs)
        self.register_buffer("here", torch.empty(0), persistent=False)

    def forward(self, *inputs: Any) -> Any:
        with self.get_buffer("here").device:
            return super().forward(*inputs)


def _filled(value: Any, inputs: Sequence[Any]) -> Any:
    if isinstance(value, Slot):
        return inputs[value.index]
    if type(value) in (tuple, list):
        return type(value)(_filled(item, inputs) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, inputs) for key, item in value.items()}
    return value


class Reshape(nn.Module):
    """Give a tensor other dimensions; 0 keeps a dimension, -1 takes what is left.

    `leads` says how many entries along the first dimension one picture has before and after, so that places of a
    picture of another size are not taken for pictures. Raises RuntimeError where numbers do not fit.
    """

    def __init__(self, sizes: Sequence[int], leads: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.sizes, self.leads = tuple(sizes), leads

    def forward(self, x: Tensor) -> Tensor:
        result = x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(self.sizes)])
        if self.leads and len(result) * self.leads[0] != len(x) * self.leads[1]:
            raise RuntimeError(f"shape {tuple(x.shape)} cannot become {self.sizes} for each picture")
        return result


def _needed(steps: Sequence[Step], outputs: Iterable[str]) -> list[Step]:
    """Leave out steps whose results nobody reads."""
    needed, kept = set(outputs), list[Step]()
    for step in reversed(steps):
        if step.changes or needed & set(step.outputs):
            kept.append(step)
            needed |= set(step.inputs)
    return kept[::-1]


def _last_uses(steps: Sequence[Step], kept: set[str]) -> list[list[str]]:
    """Say after which step each value is no longer read."""
    last = {name: i for i, step in enumerate(steps) for name in (*step.inputs, *step.outputs)}
    done: list[list[str]] = [[] for _ in steps]
    for name, i in last.items():
        if name not in kept:
            done[i].append(name)
    return done


def _add(root: nn.Module, name: str, module: nn.Module) -> None:
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)


def reason(error: Exception) -> str:
    """Return the beginning of what an error of another library says."""
    words = " ".join(str(error).split())[:200]
    return words if " " in words else f"{type(error).__name__}: {words}".removesuffix(": ")
