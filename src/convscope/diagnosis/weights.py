"""Weights by unit, whatever the layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .sites import Site

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def weights_of(module: nn.Module) -> Tensor | None:
    """Return a layer's weights (units, ...), what each unit reads its inputs with; None where it has none."""
    weight = getattr(module, "weight", None)
    weight = weight() if callable(weight) and not isinstance(weight, Tensor) else weight
    if not isinstance(weight, Tensor) or weight.ndim < 2 or weight.is_meta:
        return None
    weight = weight.dequantize() if weight.is_quantized else weight
    weight = weight.detach().float().cpu()
    if isinstance(module, _TRANSPOSED):
        parts = weight.unflatten(0, (module.groups, -1))  # (groups, inputs, units of a group, ...)
        weight = parts.transpose(1, 2).flatten(0, 1)
    return weight


def zeroed(site: Site) -> Tensor:
    """Return which units have no weight but 0, (units,)."""
    weights = weights_of(site.layer.module)
    if weights is None or len(weights) != site.units:
        return torch.zeros(site.units, dtype=torch.bool)
    return ~weights.flatten(1).any(1)


def reading_weights(site: Site) -> Tensor | None:
    """Return the weights (units, ...) with which units read their inputs, the batch normalisation after them included.

    None where the layer has none, or where they are not one row for each unit.
    """
    weights = weights_of(site.layer.module)
    if weights is None or len(weights) != site.units:
        return None
    norm = site.read.module
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_var is not None:
        scale = torch.rsqrt(norm.running_var.detach().float().cpu() + norm.eps)
        scale = scale * norm.weight.detach().float().cpu() if norm.affine else scale
        weights = weights * scale.view(-1, *[1] * (weights.ndim - 1))
    return weights
