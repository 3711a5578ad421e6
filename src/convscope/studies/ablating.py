"""Ablating: what a score loses when a channel of a layer is replaced, exactly, and what a gradient says of it.

A channel is replaced by zero, by its mean over pictures and positions, or by its map of another picture ("resampled").
These are different questions, and rank channels differently: zero is what no channel without a rectifier ever is, the
mean leaves what all pictures have in common, and another picture's map is what the network is used to. The first order
of each is the gradient times the change; for zero that is activation x gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..batching import in_batches
from ..context import say
from ..incremental.changes import Batch, Changes, by_channel
from ..incremental.downstream import Pairs
from ..net import Net
from ..objectives import Objective
from ..tapping import tap
from ..tracing import OUTPUT, Layer

Reference = Literal["zero", "mean", "resample"]
"""What replaces a channel: zero, its mean over pictures and positions, or its map of another picture."""

REFERENCES: tuple[Reference, ...] = ("zero", "mean", "resample")


@dataclass(frozen=True)
class ChannelEffects:
    """What the channels of a layer do to the score of each picture, all (n, channels).

    `drops` are what the score loses exactly, by what replaces the channel; `gradients` what the gradient times the
    change says of it; `flips` is 1 where the largest output is another one then, NaN where there are not several.
    `activity` is the mean over positions.
    """

    layer: str
    drops: Mapping[Reference, Tensor]
    gradients: Mapping[Reference, Tensor]
    flips: Mapping[Reference, Tensor]
    activity: Tensor

    def rows(self, order: list[int]) -> ChannelEffects:
        """Return the pictures in another order."""

        def ordered(values: Mapping[Reference, Tensor]) -> dict[Reference, Tensor]:
            return {kind: value[order] for kind, value in values.items()}

        kinds = (ordered(each) for each in (self.drops, self.gradients, self.flips))
        return ChannelEffects(self.layer, *kinds, activity=self.activity[order])

    @staticmethod
    def joined(parts: Sequence[ChannelEffects]) -> ChannelEffects:
        """Put the pictures of several parts below one another."""

        def all_of(name: str) -> dict[Reference, Tensor]:
            kinds: Mapping[Reference, Tensor] = getattr(parts[0], name)
            return {kind: torch.cat([getattr(part, name)[kind] for part in parts]) for kind in kinds}

        activity = torch.cat([part.activity for part in parts])
        return ChannelEffects(parts[0].layer, all_of("drops"), all_of("gradients"), all_of("flips"), activity)


def mean_activity(net: Net, batches: Iterable[Tensor], layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Return the mean of each layer's channels over pictures and positions, (channels,), from pixels (n, c, h, w)."""
    names = [layer.name for layer in layers]
    sums, count = dict[str, Tensor](), 0
    for pixels in batches:
        with torch.inference_mode():
            readings = tap(net, pixels, names)
        for layer in layers:
            total = over_positions(by_channel(layer, readings[layer.name])).double().sum(0)
            sums[layer.name] = sums[layer.name] + total if layer.name in sums else total
        count += len(pixels)
    return {name: total / count for name, total in sums.items()}


def over_positions(activity: Tensor) -> Tensor:
    """Take the mean over positions: (n, channels, ...) to (n, channels)."""
    return activity.flatten(2).mean(2) if activity.ndim > 2 else activity


def effects_of(
    changes: Changes,
    pixels: Tensor,
    objective: Objective,
    references: Mapping[Reference, Tensor | Mapping[str, Tensor] | None],
) -> list[ChannelEffects]:
    """Return what the channels of some layers do to the score of pictures (n, c, h, w).

    `references` says what replaces channels, and with what: for "mean" the means of the layers' channels by name, for
    "resample" other pictures (n, c, h, w), one for each, None for "zero".
    """
    batch = changes.of(pixels)
    others = references.get("resample")
    donors = changes.of(others) if isinstance(others, Tensor) else None
    gradients = _gradients(changes.net, pixels, objective, changes.layers)
    found = list[ChannelEffects]()
    for name, layer in changes.layers.items():
        activity = by_channel(layer, batch.activity(name))
        drops, flips, firsts = dict[Reference, Tensor](), dict[Reference, Tensor](), dict[Reference, Tensor]()
        for kind, given in references.items():
            if donors is not None and kind == "resample":
                new = by_channel(layer, donors.activity(name))
            elif isinstance(given, Mapping):
                new = given[name].to(activity).view(-1, *[1] * (activity.ndim - 2)).expand_as(activity)
            else:
                new = torch.zeros_like(activity)
            drops[kind], flips[kind] = _drops(batch, name, activity, new, objective)
            firsts[kind] = _sums((activity - new) * by_channel(layer, gradients[name]))
        found.append(ChannelEffects(name, drops, firsts, flips, over_positions(activity)))
    return found


def _sums(values: Tensor) -> Tensor:
    """Add up over positions: (n, channels, ...) to (n, channels)."""
    return values.flatten(2).sum(2) if values.ndim > 2 else values


def _gradients(net: Net, pixels: Tensor, objective: Objective, layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """Return the gradient of each picture's score at layers; NaN, with a remark, where the network cuts it."""
    with torch.inference_mode(False), torch.enable_grad():
        readings = tap(net, pixels.detach().clone(), (*layers, *objective.layers), leaf=[*layers])
        activities, score = [readings[name] for name in layers], objective.score(readings)
        none: list[Tensor | None] = [None] * len(activities)
        if score.requires_grad:
            none = list(torch.autograd.grad(score.sum(), activities, allow_unused=True))
    cut = [name for name, gradient in zip(layers, none, strict=True) if gradient is None]
    if cut:
        say(f"no gradient reaches {', '.join(cut)}: there is no approximation of its effects")
    pairs = zip(layers, activities, none, strict=True)
    return {name: torch.full_like(a, torch.nan).detach() if g is None else g for name, a, g in pairs}


def _drops(batch: Batch, name: str, activity: Tensor, new: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Return what each picture's score loses with a new channel, and whether the largest output is another one."""
    clean = objective.score(batch.readings)
    differs = (activity != new).flatten(2).any(2) if activity.ndim > 2 else activity != new
    channels, rows = differs.T.nonzero().unbind(1)
    pairs = Pairs(rows, channels)
    drops, first = clean.new_zeros(differs.shape), _first(batch.readings)
    flips = torch.full(differs.shape, torch.nan if first is None else 0.0)

    def work(part: slice) -> tuple[slice, Tensor, Tensor | None]:
        some = Pairs(pairs.rows[part], pairs.channels[part])
        readings = batch.change(name, some, new[some.rows, some.channels].unsqueeze(1))
        score = objective.rows(some.rows.tolist()).score(readings)
        return part, score, _first(readings)

    size = batch.changes.batch_of(name)
    for part, score, chosen in in_batches(work, len(rows), size, f"channels of {name}"):
        drops[rows[part], channels[part]] = clean[rows[part]] - score
        if first is not None and chosen is not None:
            flips[rows[part].cpu(), channels[part].cpu()] = (chosen != first[rows[part]]).float().cpu()
    return drops, flips


def _first(readings: Mapping[str, Tensor]) -> Tensor | None:
    """Return the largest output of each picture, where several outputs (n, classes) are read."""
    output = readings.get(OUTPUT)
    return output.argmax(1) if output is not None and output.ndim == 2 and output.shape[1] > 1 else None
