"""Graphs that were exported for one picture, made to take several: tried with two, and repaired layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NetworkError
from .graphs import MOST_NUMBERS, Graph, Reshape, Step, reason


class Each(nn.Module):
    """Run a layer for every picture of a batch by itself, and put the results side by side.

    `leads` says for every input how many entries along the first dimension one picture has; None where all pictures
    share it.
    """

    def __init__(self, inner: nn.Module, leads: Sequence[int | None]) -> None:
        super().__init__()
        self.inner, self.leads = inner, tuple(leads)

    def forward(self, *inputs: Any) -> Any:
        count = next(len(value) // lead for value, lead in zip(inputs, self.leads, strict=True) if lead)
        if count == 1:
            return self.inner.forward(*inputs)
        # `forward` and not the call: hooks see the batch once, at this module.
        parts = [
            self.inner.forward(*(v[i * k : (i + 1) * k] if k else v for v, k in zip(inputs, self.leads, strict=True)))
            for i in range(count)
        ]
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def fit_to_batches(graph: Graph, shape: tuple[int, int, int], *, name: str, single: bool) -> None:
    """Make a graph take several pictures at once, whatever it was exported for, and see that it runs.

    Two random pictures of `shape` (c, h, w) go through the network together and each by itself. Where that is not the
    same, or it was made for a `single` picture, they go through layer by layer: one that does not keep them apart, such
    as a reshape to (1, 512), is replaced by one that does. Raises NetworkError where a layer does not run, would fill
    the memory, or mixes the pictures of a batch whatever is done.
    """
    dtype = next((p.dtype for p in graph.parameters() if p.is_floating_point()), torch.float32)
    if 2 * math.prod(shape) > MOST_NUMBERS:
        raise NetworkError(f"{name} reads {shape[1]}x{shape[2]} pixels, which is too many: give a smaller size=")
    both = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    both[1] *= torch.linspace(0, 1, shape[2])  # two pictures of noise alone look alike to a network
    with torch.no_grad():
        if single or not _Trial(graph, both, name).as_it_is():
            _Trial(graph, both, name).layer_by_layer()
    graph.size = shape[1:]


class _Trial:
    """Two pictures on their way through a graph, together and by themselves."""

    def __init__(self, graph: Graph, both: Tensor, name: str) -> None:
        self.graph, self.name = graph, name
        self.both: dict[str, Any] = {graph.picture: both}
        self.alone: list[dict[str, Any]] = [{graph.picture: both[i : i + 1].clone()} for i in range(2)]
        self.moving = {graph.picture}

    def as_it_is(self) -> bool:
        """Whether the network keeps the pictures of a batch apart."""
        for step, done in zip(self.graph.steps, self.graph._done, strict=True):
            self._by_themselves(step)
            self._forget(done)
        try:
            got = self.graph(self.both[self.graph.picture].clone())
        except Exception:  # made for one picture, it may raise anything on two
            return False
        named = got if isinstance(got, dict) else {self.graph.outputs[0]: got}
        return all(_apart(got, *(values[key] for values in self.alone)) for key, got in named.items())

    def layer_by_layer(self) -> None:
        """Follow both pictures through every layer, and repair those that do not keep them apart."""
        for step, done in zip(self.graph.steps, self.graph._done, strict=True):
            first, second = self._by_themselves(step)
            if step.sizes or not self.moving & set(step.inputs):
                results = self.graph.results(step, self.both)
            else:
                self.moving.update(step.outputs)
                results = self._together(step, first, second)
            self.both.update(zip(step.outputs, results, strict=True))
            self._forget(done)

    def _forget(self, names: list[str]) -> None:
        for values in (self.both, *self.alone):
            for name in names:
                values.pop(name, None)

    def _by_themselves(self, step: Step) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        self._weigh(step)
        try:
            first, second = (self.graph.results(step, values) for values in self.alone)
            if len(first) != len(step.outputs):
                raise ValueError(f"it returns {len(first)} tensors, and {len(step.outputs)} are expected")
        except Exception as error:  # whatever a layer raises on numbers that do not fit
            raise NetworkError(f"{self.name} does not run: layer {step.layer!r} fails ({reason(error)})") from None
        for values, results in zip(self.alone, (first, second), strict=True):
            values.update(zip(step.outputs, results, strict=True))
        return first, second

    def _together(self, step: Step, first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what a layer makes of both pictures at once, repairing it where they are not kept apart."""
        inputs = {name: self.both[name] for name in step.inputs if name in self.both}
        for module in (None, *self._repairs(step, first)):
            if module is not None:
                self.graph.set_submodule(step.layer, module)
            try:
                got = self.graph.results(step, inputs)
                if all(_apart(*triple) for triple in zip(got, first, second, strict=True)):
                    _round_alike(got, first, second)
                    return got
            except Exception:  # a layer made for one picture may raise anything on two
                continue
        raise NetworkError(
            f"{self.name} takes one picture at a time: layer {step.layer!r} mixes the pictures of a batch. "
            "Export it again with a batch of any size (a dynamic first dimension)"
        )

    def _repairs(self, step: Step, first: tuple[Any, ...]) -> list[nn.Module]:
        values = [self.graph.value(name, self.alone[0]) for name in step.inputs]
        moving = [name in self.moving for name in step.inputs]
        repairs: list[nn.Module] = []
        source = values[moving.index(True)]
        if moving.count(True) == len(first) == 1 and _same_numbers(source, first[0]):
            before, after = _lead(source), _lead(first[0])
            if before and after:
                repairs.append(Reshape((-1, *first[0].shape[1:]), (before, after)))
        leads = [_lead(value) if moves else None for value, moves in zip(values, moving, strict=True)]
        if any(leads):
            repairs.append(Each(self.graph.get_submodule(step.layer), leads))
        return repairs

    def _weigh(self, step: Step) -> None:
        """Run a layer without data first, so that a damaged size is seen before it fills the memory."""
        module = self.graph.get_submodule(step.layer)
        tensors = {k: v.to("meta") for k, v in (*module.named_parameters(), *module.named_buffers())}
        inputs = [self.graph.value(name, self.alone[0]) for name in step.inputs]
        inputs = [v.to("meta") if isinstance(v, Tensor) and v.is_floating_point() else v for v in inputs]
        try:
            output = torch.func.functional_call(module, tensors, tuple(inputs))
        except Exception:  # it says so itself when it runs with data
            return
        for result in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(result, Tensor) and result.numel() > MOST_NUMBERS:
                raise NetworkError(
                    f"{self.name} is damaged or needs smaller pictures: layer {step.layer!r} would have "
                    f"{result.numel():,} numbers for one picture, {MOST_NUMBERS:,} at most are computed"
                )


def _apart(got: Any, first: Any, second: Any) -> bool:
    """Whether what came of two pictures together is what came of each, side by side."""
    if not isinstance(got, Tensor):
        return got == first == second
    expected = torch.cat((first, second))
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    if not got.is_floating_point() or not got.numel():
        return torch.equal(got, expected)
    # Rounding depends on the batch; what mixes two pictures changes them by as much as they differ.
    unlike, largest = (v.nan_to_num(0, 0, 0).abs().max() for v in (first - second, expected))
    near = (got - expected).abs() <= 1e-3 * unlike + 100 * torch.finfo(got.dtype).eps * largest
    return bool((near | (got == expected) | (got.isnan() & expected.isnan())).all())


def _round_alike(got: Sequence[Any], first: Sequence[Any], second: Sequence[Any]) -> None:
    """Take what a batch rounds differently out of it, in place, so that it does not grow from layer to layer."""
    for result, *alone in zip(got, first, second, strict=True):
        if isinstance(result, Tensor) and not torch.equal(result, expected := torch.cat(alone)):
            result.copy_(expected)


def _lead(value: Any) -> int | None:
    """How many entries one picture has along the first dimension."""
    return len(value) if isinstance(value, Tensor) and value.ndim else None


def _same_numbers(source: Any, result: Any) -> bool:
    return (
        isinstance(source, Tensor)
        and isinstance(result, Tensor)
        and source.numel() == result.numel()
        and torch.equal(source.reshape(-1), result.reshape(-1))
    )
