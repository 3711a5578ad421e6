"""Weights by unit, whatever the layer."""

from __future__ import annotations

from torch import Tensor, nn

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
