"""Local objectives: those about a position, or a part of the positions, of a layer with spatial positions.

One pixel of a segmenter's output is one, a region of it, and a unit of a hidden layer. A class activation map with one
weight per channel lights up wherever the same channels are active (Seg-Grad-CAM: Vinogradova et al., arXiv:2002.11434).
With the gradient at each position in the place of its mean it stays where the objective reads the layer (HiResCAM:
Draelos & Carin, arXiv:2011.08891; for segmenters Hasany et al., "Seg-XRes-CAM", CVPR workshops 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from ..errors import ObjectiveError
from ..net import Net
from ..objectives import Objective, Output, Unit
from ..tracing import Layer

_PART = 0.5
"""The fraction of its own layer's positions below which an objective is local."""


def local_rows(net: Net, objective: Objective, readings: Mapping[str, Tensor]) -> Tensor:
    """Return which pictures' objectives (n,) are about one position, or about less than half of a layer's positions."""
    first = readings[objective.layers[0]]
    layers = [layer for name in objective.layers if (layer := net.layers.get(name)) is not None]
    spatial = [layer.name for layer in layers if layer.spatial and layer.positions > 1]
    if not spatial:
        return torch.zeros(len(first), dtype=torch.bool, device=first.device)
    placed = torch.tensor([objective.rows(row).placed for row in range(len(first))], device=first.device)
    functions = any(isinstance(term, Output) for _, term in objective.terms)
    return placed | _about_a_part(objective, readings, spatial) if functions else placed


def _about_a_part(objective: Objective, readings: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Return which pictures' objectives (n,) have a gradient at less than half of the positions of a layer."""
    with torch.inference_mode(False), torch.enable_grad():
        own = {name: readings[name].detach().clone().requires_grad_() for name in objective.layers}
        score = objective.score(own)
        part = torch.zeros_like(score, dtype=torch.bool)
        if not score.requires_grad:
            return part
        leaves = [own[name] for name in names]
        gradients: list[Tensor | None] = list(torch.autograd.grad(score.sum(), leaves, allow_unused=True))
    for gradient in gradients:
        if gradient is not None:
            read = gradient.ne(0).any(1).flatten(1)
            part |= read.any(1) & (read.sum(1) < _PART * read.shape[1])
    return part


def refuse_local(method: str, objective: Objective, local: Tensor) -> None:
    """Raise ObjectiveError where an objective is local and the map of a method would be of other places as well."""
    if not local.any():
        return
    of = objective.rows(int(local.nonzero()[0]))
    weight, term = of.terms[0]
    unit = term if len(of.terms) == 1 and weight == 1 and isinstance(term, Unit) else None
    whole = f"; for the channel as a whole, of='{unit.layer}:{unit.channel}@mean'" if unit else ""
    raise ObjectiveError(
        f"{of} is about one place, and {method} does not weigh positions by the objective: other places would light "
        f"up. grad_cam does: explain(net, picture, 'grad_cam', of={str(of)!r}){whole}"
    )


def read_share(output: Layer, layer: Layer) -> float:
    """Estimate by receptive fields which fraction of a layer's positions one position of the output reads.

    Zero where it is not known where units lie.
    """
    outer, inner = output.lattice, layer.lattice
    if not output.spatial or any(field.moved or field.shared for field in (outer, inner)):
        return 0.0
    spans = zip(outer.size, inner.size, inner.step, layer.grid, strict=True)
    return prod(min(max((whole - own) / abs(step) + 1, 0) / units, 1) for whole, own, step, units in spans)
