"""How similar two maps are: structural similarity, and the magnitudes that rank correlations compare."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def strength(map_: Tensor) -> Tensor:
    """Return the magnitude of a map (c, h, w), summed over its channels, as (h, w) in float64."""
    return map_.cpu().double().abs().sum(0)


def structural_similarity(one: Tensor, other: Tensor) -> float:
    """Return the structural similarity of two maps (h, w) that are never negative, each divided by its maximum."""
    from skimage.metrics import structural_similarity as ssim

    peaks = float(one.max()), float(other.max())
    if min(peaks) <= 0:
        return float(max(peaks) <= 0)
    side = min(7, *one.shape)
    pair = [(map_ / peak).cpu().numpy() for map_, peak in zip((one, other), peaks, strict=True)]
    index: Any = ssim(*pair, win_size=side - (side + 1) % 2, data_range=1.0)
    return float(index)
