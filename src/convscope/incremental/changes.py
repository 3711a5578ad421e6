"""Changes: what a network's layers hold when one channel of a layer has other numbers, for pictures and channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..cuts import replaced
from ..layers import layer_at
from ..net import Net
from ..tapping import tap
from ..tracing import Layer
from .downstream import Downstream, Pairs, Patch, Values, play_whole
from .tape import CannotFollow, Tape, record

Readings = dict[str, Tensor]

_PROBES = 2
_MOST = 256
"""Pairs of a picture and a channel that are computed together at most."""


def by_channel(layer: Layer, activity: Tensor) -> Tensor:
    """Return a view of a layer's activity as (n, channels, ...), whatever its layout."""
    return activity.movedim(-1, 1) if _last(layer) else activity


def _last(layer: Layer) -> bool:
    return layer.channels_last or bool(layer.tokens)


class Changes:
    """Read layers of a network while one channel of one of some layers is changed.

    Where the network can be followed, it is recorded once, for pictures of the size of pixels (n, c, h, w), and only
    what depends on the channel is computed; otherwise every change is a pass of its own. The result is the same: a few
    changes of each layer are computed both ways before, and a layer where they differ is computed in full. `how` says
    which it was.
    """

    def __init__(self, net: Net, pixels: Tensor, layers: Sequence[Layer], reads: Sequence[str], memory: int) -> None:
        self.net, self.reads, self.memory = net, tuple(reads), memory
        self.layers = {layer.name: layer_at(net, layer, pixels) for layer in layers}
        self.tape: Tape | None = None
        self.downstream: dict[str, Downstream] = {}
        self.how = self._prepare(pixels[:1])

    def _prepare(self, pixels: Tensor) -> str:
        if self.net.seed is not None:
            return "computed in full passes: every pass draws the network's random numbers"
        try:
            self._record(pixels)
            others = [name for name in self.layers if not self._agrees(self.of(pixels), name)]
        except CannotFollow as error:
            reason = str(error)
        except Exception as error:  # full passes need nothing of what failed
            reason = f"it raises {type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"
        else:
            self.downstream = {name: part for name, part in self.downstream.items() if name not in others}
            return "computed from the layer on" + (f", in full passes for {', '.join(others)}" if others else "")
        self.tape, self.downstream = None, {}
        return f"computed in full passes: the network cannot be followed, {reason}"

    def _record(self, pixels: Tensor) -> None:
        tape = record(self.net, pixels, [*dict.fromkeys([*self.layers, *self.reads])])
        reads = [tape.readings[name] for name in self.reads]
        if any(tape.clean[i].shape[:1] != (1,) for i in tape.readings.values()):
            raise CannotFollow("a layer mixes the pictures of a batch")
        for name, layer in self.layers.items():
            slot = _source(tape, tape.readings[name])
            self.downstream[name] = Downstream(tape, slot, reads, channelled=not _last(layer))
        self.tape = tape

    def _agrees(self, batch: Batch, name: str) -> bool:
        """Whether changing a few channels of a layer gives the same both ways."""
        layer = self.layers[name]
        activity = by_channel(layer, batch.activity(name))
        strongest = activity.flatten(2).abs().amax(2)[0] if activity.ndim > 2 else activity[0].abs()
        channels = strongest.topk(min(_PROBES, len(strongest))).indices.sort().values
        pairs = Pairs(torch.zeros_like(channels), channels)
        values = 0.5 * activity[pairs.rows, pairs.channels].unsqueeze(1)
        expected = self.in_full(batch, name, pairs, values)
        for read, value in self.in_parts(batch, name, pairs, values).items():
            scale = max(float(expected[read].abs().max()), 1e-6)
            if not float((value - expected[read]).abs().max()) <= 1000 * torch.finfo(value.dtype).eps * scale:
                return False
        return True

    def of(self, pixels: Tensor) -> Batch:
        """Return a batch of pictures (n, c, h, w), as it is without any change."""
        return Batch(self, pixels)

    @torch.no_grad()
    def in_parts(self, batch: Batch, name: str, pairs: Pairs, values: Tensor) -> Readings:
        """Compute what depends on the changed channels, as `Batch.change` does."""
        layer, part = self.layers[name], self.downstream[name]
        change: Tensor | Patch = Patch(values)
        if _last(layer):
            change = _changed(layer, batch.values[part.slot], pairs, values)
        return dict(zip(self.reads, part.play(batch.values, pairs, change), strict=True))

    @torch.no_grad()
    def in_full(self, batch: Batch, name: str, pairs: Pairs, values: Tensor) -> Readings:
        """Compute full passes, as `Batch.change` does."""
        layer = self.layers[name]
        activity = _changed(layer, batch.activity(layer.name), pairs, values)
        return self.passes(batch.pixels[pairs.rows], layer, activity)

    def passes(self, pixels: Tensor, layer: Layer, activity: Tensor) -> Readings:
        """Run pictures (k, c, h, w) in full, with other activity (k, ...) of a layer."""
        if self.net.behaviour(pixels).alone or self.net.seed is not None:
            parts = [self._pass(pixels[i : i + 1], layer, activity[i : i + 1]) for i in range(len(pixels))]
            return {name: torch.cat([part[name] for part in parts]) for name in self.reads}
        return self._pass(pixels, layer, activity)

    def _pass(self, pixels: Tensor, layer: Layer, activity: Tensor) -> Readings:
        with replaced(self.net, layer, activity):
            return tap(self.net, pixels, self.reads)

    def batch_of(self, name: str) -> int:
        """Return how many changes of a layer fit the memory."""
        part = self.downstream.get(name)
        need = part.bytes if part else 4 * max(map(_numbers, self.net.layers.values()))
        return max(1, min(_MOST, self.memory // max(need, 1)))


@dataclass(frozen=True)
class Batch:
    """Some pictures (n, c, h, w): their layers as they are, and as they are with a channel changed."""

    changes: Changes
    pixels: Tensor

    @cached_property
    def values(self) -> Values:
        """The tensors on the tape that changes need."""
        tape, parts = self.changes.tape, self.changes.downstream.values()
        assert tape is not None
        return play_whole(tape, self.pixels, {i for part in parts for i in part.kept} | {*tape.readings.values()})

    @cached_property
    def readings(self) -> Readings:
        """The layers without a change: those that may be changed, and those that are read."""
        names = [*dict.fromkeys([*self.changes.layers, *self.changes.reads])]
        if self.changes.tape is None:
            with torch.no_grad():
                return tap(self.changes.net, self.pixels, names)
        return {name: self.values[self.changes.tape.readings[name]] for name in names}

    def activity(self, name: str) -> Tensor:
        """Return a layer's activity (n, ...), in its own layout."""
        return self.readings[name]

    def change(self, name: str, pairs: Pairs, values: Tensor) -> Readings:
        """Return what is read where channels of a layer hold `values` (pairs, 1, ...), one row per pair."""
        in_parts = name in self.changes.downstream
        return (self.changes.in_parts if in_parts else self.changes.in_full)(self, name, pairs, values)

    def replace(self, name: str, rows: Tensor, activity: Tensor) -> Readings:
        """Return what is read where a layer holds `activity` (k, ...) in the pictures of rows (k,).

        Gradients lead from there to the activity, where they are enabled and it asks for them.
        """
        changes = self.changes
        with changes.net.held():
            if name not in changes.downstream:
                return changes.passes(self.pixels[rows], changes.layers[name], activity)
            read = changes.downstream[name].play(self.values, Pairs(rows, torch.zeros_like(rows)), activity)
        return dict(zip(changes.reads, read, strict=True))


def _changed(layer: Layer, activity: Tensor, pairs: Pairs, values: Tensor) -> Tensor:
    """Return a layer's activity for every pair, in its own layout, with the channel's new values in it."""
    result = activity.index_select(0, pairs.rows)
    by_channel(layer, result)[torch.arange(len(result), device=result.device), pairs.channels] = values[:, 0]
    return result


def _source(tape: Tape, slot: int) -> int:
    """Return the tensor that goes on from a layer: where one is read, a copy is kept and the original goes on."""
    copied = next((step for step in tape.steps if slot in step.outputs and step.name == "clone"), None)
    return slot if copied is None else copied.inputs[0]


def _numbers(layer: Layer) -> int:
    return 4 * torch.Size(layer.shape).numel()
