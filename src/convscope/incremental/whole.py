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

from ..operations import BY_NAME, Reach, names
from .regions import constants
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
    pictures = [value.unsqueeze(1) if _leads(clean) else value for clean, value in zip(ins, values, strict=True)]

    def for_one_picture(*inputs: Tensor) -> Any:
        return step.call(lambda i: inputs[where[i]])

    result: Any = torch.vmap(for_one_picture)(*pictures)
    outs = result if step.several else [result]
    outs = [out.squeeze(1) if out.ndim > 1 and out.shape[1] == 1 else out for out in outs]
    return outs if step.several else outs[0]


def _leads(clean: Tensor) -> bool:
    """Whether a tensor's first dimension is that of the one picture."""
    return clean.ndim > 0 and clean.shape[0] == 1


def _macs(step: Step, outs: Sequence[Tensor]) -> float:
    weight = step.argument(1, "weight", None)
    if step.name in ("conv2d", "linear") and isinstance(weight, Tensor):
        return float(weight[0].numel() * outs[0].numel())
    return 0.0


def _keeps_pictures_apart(step: Step, ins: Sequence[Tensor]) -> bool:
    """Whether one call with a batch computes for each picture what a call of its own would."""
    operation = BY_NAME.get(step.name)
    if operation is None or not operation.batched:
        return False
    if step.name in _ALONG:
        dims = _dims(step)
        # A constant of one picture, such as a class token, does not stand beside several.
        beside = operation.reach is Reach.JOIN and bool(constants((step.args, step.kwargs)))
        return bool(dims) and not beside and all(dim % ins[0].ndim != 0 for dim in dims)
    if step.name == "scaled_dot_product_attention":
        # Of two dimensions, those of the pictures would be the queries.
        return ins[0].ndim >= 3
    if step.name == "linear":
        return not any(isinstance(a, Slot) for a in step.args[1:])
    if step.name == "batch_norm":
        return not step.argument(5, "training", False)
    if step.name == "getitem":
        index = step.args[1] if isinstance(step.args[1], tuple) else (step.args[1],)
        return index[0] == slice(None) and not any(isinstance(i, (Tensor, Slot, list)) for i in index)
    return True


def _dims(step: Step) -> list[int]:
    dims = step.argument(2 if step.name in ("chunk", "split") else 1, "dim", None)
    if isinstance(dims, int) and not isinstance(dims, bool):
        return [dims]
    return [d for d in dims if isinstance(d, int)] if isinstance(dims, (tuple, list)) else []


_RESHAPES = names(Reach.RESHAPE)
_ALONG = names(Reach.JOIN, Reach.ALONG, Reach.REDUCTION)
