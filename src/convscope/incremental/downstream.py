"""Downstream: a network played from one layer on, with other numbers in some of that layer's channels.

A tape is recorded once for a network and played for any pictures of that size. What does not depend on the layer is
computed once per batch of pictures; what does is computed for each pair of a picture and a channel. Up to the first
operation that mixes channels, only the changed one is computed, and there, if it is a convolution or linear layer,
what the change adds to the result:

    W x' + b  =  (W x + b) + W_c (x'_c - x_c)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .regions import constants
from .tape import Slot, Step, Tape
from .whole import Whole, whole_form

Values = dict[int, Tensor]


@dataclass(frozen=True)
class Pairs:
    """Pairs of a picture and a channel, in order of channels: the row of each picture, and the channel."""

    rows: Tensor
    channels: Tensor

    def runs(self) -> list[tuple[slice, int]]:
        """Return where each channel's pairs lie."""
        channels, counts = self.channels.unique_consecutive(return_counts=True)
        ends = counts.cumsum(0).tolist()
        starts = [0, *ends[:-1]]
        return [(slice(a, b), c) for a, b, c in zip(starts, ends, channels.tolist(), strict=True)]


@dataclass(frozen=True)
class Patch:
    """The changed channels of a tensor, (pairs, width, ...): `width` times the pair's channel, plus `offset`, on."""

    values: Tensor
    offset: int = 0

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def start(self, channel: int) -> int:
        return channel * self.width + self.offset

    def index(self, pairs: Pairs) -> Tensor:
        """Return the numbers of the changed channels, (pairs, width)."""
        first = pairs.channels * self.width + self.offset
        return first[:, None] + torch.arange(self.width, device=first.device)

    def of(self, whole: Tensor, pairs: Pairs) -> Tensor:
        """Return the same channels of a tensor (pictures, channels, ...), as they are there."""
        return whole[pairs.rows[:, None], self.index(pairs)]

    def onto(self, whole: Tensor, pairs: Pairs) -> Tensor:
        """Return a tensor (pictures, channels, ...) for every pair, with the changed channels in it."""
        result = whole.index_select(0, pairs.rows)
        result[torch.arange(len(result), device=result.device)[:, None], self.index(pairs)] = self.values
        return result


Rule = Callable[[Patch, Values, Pairs], Patch | Tensor]
"""From a step's changed input, the batch as it was, and the pairs, to the changed output."""


class Downstream:
    """The steps that depend on a layer, `slot` on the tape, as far as `reads` need them.

    `channelled` says that the layer's channels are its dimension 1; only then is the changed one computed alone.
    """

    def __init__(self, tape: Tape, slot: int, reads: Iterable[int], *, channelled: bool = True) -> None:
        self.slot, self.reads = slot, tuple(reads)
        reached, steps = {slot}, list[Step]()
        for step in tape.steps:
            if reached & {*step.inputs}:
                steps.append(step)
                reached |= {*step.outputs}
        self.reached = reached
        steps = _needed(steps, {*self.reads})
        patched = {slot} if channelled else set[int]()
        self.steps: list[tuple[Step, Whole, Rule | None]] = []
        # Of these the numbers of each picture are needed: beside, below and in place of what changes.
        self.kept = {slot, *(i for i in self.reads if i not in reached)}
        for step in steps:
            rule, stays = _rule(step, reached & {*step.inputs}, patched, tape.clean)
            self.kept |= {i for i in step.inputs if i not in reached or i in patched}
            if rule is not None:
                patched |= {*step.outputs} if stays else set()
                self.kept |= {*step.outputs}
            self.steps.append((step, whole_form(step, tape.clean), rule))
        self.last = {i: n for n, (step, _, _) in enumerate(self.steps) for i in step.inputs}
        self.bytes = max(
            (sum(_bytes(tape.clean[i]) for i in (*s.inputs, *s.outputs)) for s in steps),
            default=_bytes(tape.clean[slot]),
        )
        """What one pair needs at most, at one step."""

    def play(self, clean: Values, pairs: Pairs, change: Patch | Tensor) -> list[Tensor]:
        """Return what is read, one row per pair: `change` is what the layer holds there, or its changed channel.

        `clean` are the kept tensors of a batch of pictures, as `play_whole` gives them.
        """
        values: dict[int, Patch | Tensor] = {self.slot: change}

        def dense(i: int) -> Tensor:
            value = values.get(i)
            if value is None:
                return clean[i].index_select(0, pairs.rows)
            if isinstance(value, Patch):
                value = values[i] = value.onto(clean[i], pairs)
            return value

        for number, (step, form, rule) in enumerate(self.steps):
            changed = [values[i] for i in step.inputs if i in values]
            result: Any
            if rule is not None and isinstance(changed[0], Patch):
                result = rule(changed[0], clean, pairs)
            else:
                inputs = [dense(i) for i in step.inputs]
                if step.mutates:
                    inputs[0] = inputs[0].clone()
                result = form.apply(inputs)
            for i, value in zip(step.outputs, result if step.several else [result], strict=True):
                values[i] = value
            for i in step.inputs:
                if self.last[i] == number and i not in self.reads:
                    values.pop(i, None)
        return [dense(i) for i in self.reads]


def _needed(steps: Sequence[Step], reads: set[int]) -> list[Step]:
    """Leave out steps whose results are not read."""
    needed, kept = set(reads), list[Step]()
    for step in reversed(steps):
        if needed & {*step.outputs}:
            kept.append(step)
            needed |= {*step.inputs}
    return kept[::-1]


@torch.no_grad()
def play_whole(tape: Tape, pixels: Tensor, keep: set[int]) -> Values:
    """Play a tape for a batch of pictures (n, c, h, w), and return the tensors that are to be kept."""
    last = {i: n for n, step in enumerate(tape.steps) for i in (*step.inputs, *step.outputs)}
    values: Values = {0: pixels}
    for number, step in enumerate(tape.steps):
        inputs = [values[i] for i in step.inputs]
        if step.mutates:
            inputs[0] = inputs[0].clone()
        result = whole_form(step, tape.clean).apply(inputs)
        for i, value in zip(step.outputs, result if step.several else [result], strict=True):
            values[i] = value
        for i in {*step.inputs, *step.outputs}:
            if last[i] == number and i not in keep:
                values.pop(i, None)
    return {i: values[i] for i in keep}


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


# Steps of which a changed channel can be computed alone -----------------------------------------------------------


def _rule(step: Step, changed: set[int], patched: set[int], clean: Sequence[Tensor]) -> tuple[Rule | None, bool]:
    """Return how to compute a step from one changed channel, and whether its result has one changed channel as well."""
    make = _RULES.get(step.name)
    batched = all(clean[i].ndim > 1 and clean[i].shape[0] == 1 for i in (*step.inputs, *step.outputs))
    if (
        not (make or step.name in _JOINS)
        or not batched
        or len(step.outputs) != 1
        or len(changed) != 1
        or not changed <= patched
    ):
        return None, False
    if make is None:
        rule = _joined(step, next(iter(changed)), clean)
    else:
        rule = make(step, clean[step.inputs[0]], clean[step.outputs[0]]) if len(step.inputs) == 1 else None
    mixes = make is _linear or (make is _convolution and _groups(step) == 1)
    return rule, rule is not None and not mixes


def _channelwise(step: Step, before: Tensor, after: Tensor) -> Rule | None:
    """Make the step's own call on the changed channel."""
    noisy = step.name == "dropout" and step.argument(2, "training", True)
    if len(step.inputs) != 1 or before.shape[1] != after.shape[1] or constants((step.args, step.kwargs)) or noisy:
        return None

    def rule(patch: Patch, _: Values, __: Pairs) -> Patch:
        values = patch.values.clone() if step.mutates else patch.values
        return Patch(step.call(lambda _: values), patch.offset)

    return rule


def _over_positions(step: Step, before: Tensor, after: Tensor) -> Rule | None:
    """Reduce the positions of the changed channel, where the step reduces no more than those."""
    dims = step.argument(1, "dim", None)
    dims = [dims] if isinstance(dims, int) else dims
    if not isinstance(dims, (tuple, list)) or any(dim % before.ndim < 2 for dim in dims):
        return None
    return _channelwise(step, before, after)


def _normalised(step: Step, before: Tensor, _: Tensor) -> Rule | None:
    """Scale and shift the changed channel by its own statistics."""
    mean, variance, weight, bias, training = (step.argument(1 + i, name, None) for i, name in enumerate(_STATISTICS))
    fixed = [mean, variance, *(t for t in (weight, bias) if t is not None)]
    if training or before.ndim != 4 or not all(isinstance(t, Tensor) for t in fixed):
        return None
    scale = (variance + step.argument(7, "eps", 1e-5)).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale

    def rule(patch: Patch, _: Values, pairs: Pairs) -> Patch:
        factor, more = (each[patch.index(pairs)][:, :, None, None] for each in (scale, shift))
        return Patch(patch.values * factor + more, patch.offset)

    return rule


def _flattened(_: Step, before: Tensor, after: Tensor) -> Rule | None:
    """Lay a channel's positions side by side."""
    if after.ndim != 2 or before[0].numel() != after.shape[1]:
        return None
    size = before[0, 0].numel()
    return lambda patch, _, __: Patch(patch.values.flatten(1), patch.offset * size)


def _joined(step: Step, changed: int, clean: Sequence[Tensor]) -> Rule | None:
    """Find the changed channel again among those of several tensors side by side."""
    parts = step.argument(0, "tensors", ())
    if step.argument(1, "dim", 0) not in (1, 1 - clean[step.outputs[0]].ndim):
        return None
    if not all(isinstance(part, Slot) for part in parts) or parts.count(Slot(changed)) != 1:
        return None
    before = sum(clean[part.index].shape[1] for part in parts[: parts.index(Slot(changed))])
    return lambda patch, _, __: Patch(patch.values, patch.offset + before)


def _convolution(step: Step, before: Tensor, _: Tensor) -> Rule | None:
    """Add what the changed channel adds to the result; of a depthwise convolution, compute its own results."""
    weight, bias, groups = step.argument(1, "weight", None), step.argument(2, "bias", None), _groups(step)
    if not isinstance(weight, Tensor) or groups not in (1, before.shape[1]):
        return None
    where = ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
    stride, padding, dilation = (step.argument(*one) for one in where)

    def added(delta: Tensor, channels: slice) -> Tensor:
        return F.conv2d(delta, weight[:, channels], None, stride, padding, dilation)

    def alone(patch: Patch, _: Values, pairs: Pairs) -> Patch:
        several = len(weight) // groups
        parts = list[Tensor]()
        for part, channel in pairs.runs():
            first, count = patch.start(channel), patch.width
            own = slice(first * several, (first + count) * several)
            shift = None if bias is None else bias[own]
            parts.append(F.conv2d(patch.values[part], weight[own], shift, stride, padding, dilation, count))
        return Patch(torch.cat(parts), patch.offset * several)

    return _added(step, added) if groups == 1 else alone


def _groups(step: Step) -> int:
    return int(step.argument(6, "groups", 1))


def _linear(step: Step, before: Tensor, _: Tensor) -> Rule | None:
    weight = step.argument(1, "weight", None)
    if not isinstance(weight, Tensor) or before.ndim != 2:
        return None
    return _added(step, lambda delta, channels: delta @ weight[:, channels].T)


def _added(step: Step, added: Callable[[Tensor, slice], Tensor]) -> Rule:
    """Add to the result what the change of a channel adds to it."""

    def rule(patch: Patch, clean: Values, pairs: Pairs) -> Tensor:
        delta = patch.values - patch.of(clean[step.inputs[0]], pairs)
        result = clean[step.outputs[0]].index_select(0, pairs.rows)
        for part, channel in pairs.runs():
            start = patch.start(channel)
            result[part] += added(delta[part], slice(start, start + patch.width))
        return result

    return rule


_STATISTICS = ("running_mean", "running_var", "weight", "bias", "training")
_ALONE = """relu relu6 leaky_relu hardtanh elu selu celu gelu silu hardswish hardsigmoid sigmoid tanh softplus mish
clamp contiguous clone dropout max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d"""
_JOINS = ("cat", "concat", "concatenate")
_RULES: Mapping[str, Callable[[Step, Tensor, Tensor], Rule | None]] = {
    **dict.fromkeys(_ALONE.split(), _channelwise),
    **dict.fromkeys(("mean", "amax"), _over_positions),
    **dict.fromkeys(("flatten", "view", "reshape"), _flattened),
    "batch_norm": _normalised,
    "conv2d": _convolution,
    "linear": _linear,
}
