"""Units as weights make them: which layer's weights, where their answers are read, and which gate they pass.

The answers are read before the gate (the rectifier, or whatever bends them), after the normalisation: there one sees
how far a unit is from being dead, or saturated.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..atlas.units import count_units, has_units
from ..calls import argument, name_of
from ..layers import picture_layers
from ..net import Net
from ..running import blank
from ..tapping import tap
from ..tracing import OUTPUT, Layer


@dataclass(frozen=True)
class Gate:
    """What bends a unit's answers: below `off` nothing passes any more, above `full` it is at its end.

    Of a gate with two ends (`both`), as a sigmoid, being off is being at an end, too.
    """

    name: str
    off: float = -inf
    full: float = inf
    both: bool = False

    def passed(self, answers: Tensor) -> Tensor:
        """Return what the gate lets pass, roughly: how far above where it is off, up to where it is full."""
        if self.both or self.off == -inf:
            return answers
        return answers.clamp(self.off, self.full) - self.off


OPEN = Gate("")
"""No gate."""

_GATES = {
    gate.name: gate
    for gate in (
        Gate("relu", 0),
        Gate("relu6", 0, 6),
        Gate("hardswish", -3),
        Gate("silu", -8),
        Gate("gelu", -4),
        Gate("mish", -8),
        Gate("softplus", -8),
        Gate("sigmoid", -4.6, 4.6, both=True),
        Gate("hardsigmoid", -3, 3, both=True),
        Gate("tanh", -2.65, 2.65, both=True),
        Gate("softsign", -99, 99, both=True),
    )
}
"""Gates by the function's name. A smooth one is off, or full, where it is within a hundredth of its end."""

_KEEPING = frozenset(
    """max_pool2d adaptive_max_pool2d dropout dropout2d feature_dropout alpha_dropout flatten reshape view contiguous
    squeeze unsqueeze to float identity""".split()
)
"""What may lie between a unit and its gate: what passes first on what the gate lets pass."""


@dataclass(frozen=True)
class Site:
    """Some units: the layer that has their weights, the layer at which their answers are read, and their gate.

    `is_output` says that they are the network's answers: an end of the road.
    """

    layer: Layer
    read: Layer
    gate: Gate = OPEN
    is_output: bool = False

    @property
    def name(self) -> str:
        """What findings call the layer."""
        return self.layer.name or "output"

    @property
    def title(self) -> str:
        """What sentences call the layer: its name, where that is no number."""
        return named(self.layer)

    @property
    def units(self) -> int:
        """How many units it has."""
        return count_units(self.read)


def named(layer: Layer) -> str:
    """Return what sentences call a layer: its name, where that is no number."""
    return f"layer {layer.name}" if layer.name.isdigit() else layer.name or "the output"


def sites_of(net: Net) -> list[Site]:
    """Return the units of every layer with weights, in execution order."""
    leaves = [layer for layer in picture_layers(net) if layer.leaf and layer.name]
    pairs: list[tuple[Layer, Layer]] = []
    for layer, after in zip(leaves, [*leaves[1:], None], strict=False):
        if not has_units(layer) or not _has_weights(layer):
            continue
        normalised = after is not None and "Norm" in after.kind and after.shape == layer.shape
        pairs.append((layer, after if normalised and after is not None else layer))
    gates = _gates(net, [read for _, read in pairs])
    last = len(pairs) - 1
    return [
        Site(layer, read, gates.get(read.name, OPEN), at == last and read.shape == net.output.shape)
        for at, (layer, read) in enumerate(pairs)
    ]


def _has_weights(layer: Layer) -> bool:
    return layer.number is not None or layer.kind.startswith(("Linear", "Conv"))


def _gates(net: Net, layers: list[Layer]) -> dict[str, Gate]:
    """Return the gate that each layer's output goes through, where it goes nowhere else."""
    if not layers:
        return {}
    watched = _Watched()
    names = {layer.name for layer in layers}

    def mark(name: str, output: Tensor) -> Tensor:
        if name in names:
            watched.of[id(output)] = (name, output)
        return torch.zeros(output.shape[0])

    with torch.no_grad(), watched:
        tap(net, blank(net, net.size), [*names, OUTPUT], reduce=mark)
    return {name: gate for name in names if (gate := watched.gate(name)) is not None}


class _Watched(TorchFunctionMode):
    """Notes which functions take the outputs of layers, and with which ends."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[int, tuple[str, Tensor]] = {}
        self.takers: dict[str, list[tuple[str, Gate]]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        taken = [self.of[id(each)] for each in (*args, *kwargs.values()) if id(each) in self.of]
        output = func(*args, **kwargs)
        name = name_of(func)
        for layer, tensor in taken:
            if not isinstance(output, Tensor):  # a question about its shape, or the like
                continue
            if name in _KEEPING:
                self.of[id(output)] = (layer, output)
            else:
                self.takers.setdefault(layer, []).append((name, _gate(name, args, kwargs)))
                if output is tensor:  # written in place: from here on it is something else
                    self.of.pop(id(tensor), None)
        return output

    def gate(self, layer: str) -> Gate | None:
        """Return the gate that a layer's output goes through."""
        taken = dict(self.takers.get(layer, []))
        if set(taken) == {"sigmoid", "mul"}:  # x * sigmoid(x)
            return _GATES["silu"]
        if len(taken) != 1:
            return None
        [gate] = taken.values()
        return gate if gate.name else None


def _gate(name: str, args: Any, kwargs: Any) -> Gate:
    if name in ("hardtanh", "clamp", "clip"):
        ends = ("min_val", "max_val") if name == "hardtanh" else ("min", "max")
        low = argument(args, kwargs, 1, ends[0], -1.0 if name == "hardtanh" else None)
        high = argument(args, kwargs, 2, ends[1], 1.0 if name == "hardtanh" else None)
        return _clamped(-inf if low is None else low, inf if high is None else high)
    if name == "clamp_min":
        return _clamped(argument(args, kwargs, 1, "min", 0.0), inf)
    if name == "threshold":
        return _clamped(argument(args, kwargs, 1, "threshold", 0.0), inf)
    return _GATES.get(name, OPEN)


def _clamped(low: Any, high: Any) -> Gate:
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return OPEN
    return Gate("clamp", float(low), float(high), both=low < 0 < high and low != -inf and high != inf)
