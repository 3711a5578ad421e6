"""Baselines: the pixels that replace removed ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import OptionError
from .net import Net

HELP = (
    "what replaces removed pixels (the baseline): 'mean' (the network's mean colour, zero after normalisation), 'grey' "
    "(0.5), 'blur' (the picture, blurred), 'noise' (uniform, seeded), or a value in [0, 1]"
)

_BLUR = 0.05
"""Standard deviation of the blur, as a fraction of the picture's shorter side."""


def baseline_pixels(net: Net, pixels: Tensor, baseline: str, *, seed: int = 0) -> Tensor:
    """Return the pixels that replace `pixels` (n, c, h, w) where they are removed, of the same shape, in [0, 1].

    `baseline` is "mean" (the network's mean colour), "grey" (0.5), "blur" (the picture, blurred), "noise" (uniform,
    drawn from `seed`, the same for every picture), or a value in [0, 1]. Raises OptionError for any other.
    """
    if baseline == "mean":
        colour = torch.tensor(net.mean, dtype=pixels.dtype, device=pixels.device)
        return colour[:, None, None].expand_as(pixels)
    if baseline == "blur":
        return blurred(pixels, _BLUR * min(pixels.shape[-2:]))
    if baseline == "noise":
        noise = torch.rand(pixels.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return noise.to(pixels).expand_as(pixels)
    value = 0.5 if baseline == "grey" else _number(baseline)
    if not 0 <= value <= 1:
        raise OptionError(f"baseline is 'mean', 'grey', 'blur', 'noise' or a value in [0, 1], not {baseline!r}")
    return pixels.new_full((), value).expand_as(pixels)


def blurred(pixels: Tensor, sigma: float) -> Tensor:
    """Blur pixels (n, c, h, w) with a Gaussian of standard deviation `sigma` pixels, borders mirrored."""
    for dim in (2, 3):
        pixels = _blur_along(pixels, sigma, dim)
    return pixels


def _blur_along(pixels: Tensor, sigma: float, dim: int) -> Tensor:
    # A picture narrower than the Gaussian cannot be mirrored further than its own width.
    reach = min(math.ceil(3 * sigma), pixels.shape[dim] - 1)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weight = torch.exp(-(offsets**2) / (2 * max(sigma, 1e-6) ** 2))
    weight = (weight / weight.sum()).to(pixels)
    pads = (0, 0, reach, reach) if dim == 2 else (reach, reach, 0, 0)
    shape = (1, 1, -1, 1) if dim == 2 else (1, 1, 1, -1)
    flat = F.pad(pixels.flatten(0, 1)[:, None], pads, mode="reflect")
    return F.conv2d(flat, weight.view(shape)).view(pixels.shape)


def _number(baseline: str) -> float:
    try:
        return float(baseline)
    except (TypeError, ValueError):
        return math.nan
