"""Luminance: what style transfer changes where a picture keeps its colours."""

from __future__ import annotations

from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luminance, Rec. 601."""


def luminance(pixels: Tensor) -> Tensor:
    """Return the luminance of pictures (n, 3, h, w), (n, 1, h, w) in [0, 1]."""
    return (pixels * pixels.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def match_luminance(values: Tensor, target: Tensor) -> Tensor:
    """Give a luminance the mean and standard deviation of another. Gatys et al. 2016, arXiv:1606.05897, eq. 10."""
    difference = (values - values.mean()) * (target.std() / values.std().clamp(min=1e-6))
    return (difference + target.mean()).clamp(0, 1)


def recoloured(pixels: Tensor, colours: Tensor) -> Tensor:
    """Combine the luminance of one picture with the colours of another, (n, 3, h, w) in [0, 1].

    All channels change by the same amount, so that differences of colour are exact; where a channel would leave [0, 1],
    the luminance gives way. Gatys et al. 2016, arXiv:1606.05897, sec. 5.1.
    """
    change = luminance(pixels) - luminance(colours)
    least, most = -colours.amin(1, keepdim=True), 1 - colours.amax(1, keepdim=True)
    return colours + change.maximum(least).minimum(most)
