"""Features of a changed picture against those of the picture itself, layer by layer, also before each pooling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..batching import in_batches
from ..layers import picture_layers
from ..net import Net
from ..sharing import hooked
from ..tapping import tap
from ..tracing import OUTPUT, Layer

BEFORE = "{} (input)"
"""What the features that a pooling layer reads are called."""

_BATCH = 16


@dataclass(frozen=True)
class Compared:
    """Changed pictures against the picture: distances (n,) by layer, and what the head says (n, classes)."""

    raw: Mapping[str, Tensor]
    norms: Mapping[str, float]
    said: Tensor

    @property
    def relative(self) -> dict[str, Tensor]:
        """Distances divided by the norm of the picture's own features; undivided where these are all zero."""
        return {name: far / (self.norms[name] or 1.0) for name, far in self.raw.items()}


def pooling_layers(net: Net) -> list[Layer]:
    """Return the layers that pool positions, in execution order."""
    return [layer for layer in picture_layers(net) if layer.leaf and "Pool" in layer.kind and layer.spatial]


def compare(net: Net, pixels: Tensor, changed: Tensor, layers: Sequence[str], pools: Sequence[str]) -> Compared:
    """Compare changed pictures (n, c, h, w) with the picture (1, c, h, w), in layers and what pooling layers read."""
    own, _ = _read(net, pixels, layers, pools, None)
    parts = list(
        in_batches(lambda piece: _read(net, changed[piece], layers, pools, own), len(changed), _BATCH, "changes")
    )
    raw = {name: torch.cat([part[name] for part, _ in parts]) for name in own}
    norms = {name: float(value.norm()) for name, value in own.items()}
    return Compared(raw, norms, torch.cat([said for _, said in parts]))


def _read(
    net: Net, pixels: Tensor, layers: Sequence[str], pools: Sequence[str], own: Mapping[str, Tensor] | None
) -> tuple[dict[str, Tensor], Tensor]:
    """Return features of layers, or their distances from `own` where that is given, and what the head says."""

    def reduced(name: str, value: Tensor) -> Tensor:
        flat = value.float().flatten(1)
        return flat.cpu() if own is None or name == OUTPUT else (flat - own[name].to(flat)).norm(dim=1).cpu()

    inputs: dict[str, list[Tensor]] = defaultdict(list)
    counts = defaultdict[str, int](int)
    for layer in picture_layers(net):
        counts[layer.name.partition("#")[0]] += 1

    def hook(module: str) -> Any:
        def read(_: Any, given: Any, __: Any) -> None:
            call = len(inputs[module]) % counts[module] + 1
            name = BEFORE.format(f"{module}#{call}" if counts[module] > 1 else module)
            inputs[module].append(reduced(name, given[0]) if name in wanted else torch.empty(0))

        return read

    wanted = {BEFORE.format(pool) for pool in pools}
    modules = sorted({pool.partition("#")[0] for pool in pools})
    with torch.inference_mode(), hooked((net.body.get_submodule(module), hook(module)) for module in modules):
        readings = tap(net, pixels, [*dict.fromkeys((*layers, *pools)), OUTPUT], reduce=reduced)
    output = readings.pop(OUTPUT)
    for pool in pools:
        module, _, call = pool.partition("#")
        parts = inputs[module][int(call or 1) - 1 :: counts[module]]
        readings[BEFORE.format(pool)] = torch.cat(parts)
    return readings, net.head.read(output)
