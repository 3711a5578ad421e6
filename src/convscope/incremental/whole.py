"""Whole layers: how a step is computed for a batch when every output needs every input.

The tape was recorded for one picture, so sizes on it are those of a batch of one. What is known to treat pictures of a
batch one by one is called with the batch; a change of shape keeps the batch in front; anything else is mapped over the
batch by `torch.vmap`, which gives it one picture at a time.

A tensor whose first dimension is the picture's is held as (batch, ...), any other as (batch, *its own shape).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .regions import JOINS, PLACEWISE, constants
from .tape import Slot, Step


@dataclass(frozen=True)
class Whole:
    """How to compute a step for a batch, and its multiplications per picture."""

    apply: Callable[[Sequence[Tensor]], Any]
    macs: float = 0.0


def whole_form(step: Step, clean: Sequence[Tensor]) -> Whole:
    """Say how to compute a step for a batch of positions."""
    ins, outs = [clean[i] for i in step.inputs], [clean[i] for i in step.outputs]
    macs = _macs(step, outs)
    if all(t.ndim > 0 and t.shape[0] == 1 for t in (*ins, *outs)):
        if step.name in _RESHAPES and len(ins) == 1:
            shape = outs[0].shape[1:]
            return Whole(lambda values: values[0].reshape(len(values[0]), *shape))
        if _keeps_pictures_apart(step, ins):
            where = {number: position for position, number in enumerate(step.inputs)}
            return Whole(lambda values: step.call(lambda i: values[where[i]]), macs)
    return Whole(lambda values: _mapped(step, ins, values), macs)


def _mapped(step: Step, ins: Sequence[Tensor], values: Sequence[Tensor]) -> Any:
    where = {number: position for position, number in enumerate(step.inputs)}
    single = [value.unsqueeze(1) if _leads(clean) else value for clean, value in zip(ins, values, strict=True)]

    def one(*given: Tensor) -> Any:
        return step.call(lambda i: given[where[i]])

    found: Any = torch.vmap(one)(*single)
    outs = found if step.several else [found]
    outs = [out.squeeze(1) if out.ndim > 1 and out.shape[1] == 1 else out for out in outs]
    return outs if step.several else outs[0]


def _leads(clean: Tensor) -> bool:
    """Whether a tensor's first dimension is that of the one picture."""
    return clean.ndim > 0 and clean.shape[0] == 1


def _macs(step: Step, outs: Sequence[Tensor]) -> float:
    weight = step.args[1] if len(step.args) > 1 else step.kwargs.get("weight")
    if step.name in ("conv2d", "linear") and isinstance(weight, Tensor):
        return float(weight[0].numel() * outs[0].numel())
    return 0.0


def _keeps_pictures_apart(step: Step, ins: Sequence[Tensor]) -> bool:
    if step.name not in PLACEWISE | _BATCHED:
        return False
    dims = _dims(step)
    if step.name in _NEEDS_DIM and not dims:
        return False
    # A constant of one picture, such as a class token, does not stand beside several.
    if step.name in JOINS and constants((step.args, step.kwargs)):
        return False
    # Of two dimensions, those of the pictures would be the queries.
    if step.name == "scaled_dot_product_attention" and ins[0].ndim < 3:
        return False
    if step.name == "flatten" and not ((len(step.args) > 1 and step.args[1]) or step.kwargs.get("start_dim")):
        return False
    if step.name == "linear" and any(isinstance(a, Slot) for a in step.args[1:]):
        return False
    if step.name == "batch_norm" and ((len(step.args) > 5 and step.args[5]) or step.kwargs.get("training")):
        return False
    if step.name == "getitem":
        index = step.args[1] if isinstance(step.args[1], tuple) else (step.args[1],)
        return index[0] == slice(None) and not any(isinstance(i, (Tensor, Slot, list)) for i in index)
    return all(dim % ins[0].ndim != 0 for dim in dims)


def _dims(step: Step) -> list[int]:
    position = 2 if step.name in ("chunk", "split") else 1
    if step.name not in _NEEDS_DIM:
        return []
    found = step.args[position] if len(step.args) > position else step.kwargs.get("dim")
    if isinstance(found, int) and not isinstance(found, bool):
        return [found]
    return [d for d in found if isinstance(d, int)] if isinstance(found, (tuple, list)) else []


_RESHAPES = frozenset("view reshape unflatten".split())
_NEEDS_DIM = frozenset("softmax log_softmax chunk split mean sum amax".split()) | JOINS
_BATCHED = frozenset(
    """conv2d max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d pad interpolate linear flatten getitem
    group_norm layer_norm conv_transpose2d pixel_shuffle scaled_dot_product_attention""".split()
)
