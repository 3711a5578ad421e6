"""Colour maps that are perceptually uniform by construction: straight paths in Oklab.

"fire" is for one-sided values, dark to light; "polar" for signed ones, blue to near white to red with zero in the
middle; "grey" is linear; "jet" is the rainbow of older papers, for those who must match one.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..errors import OptionError, nearest

Array = np.ndarray


def _srgb(lightness: Array, chroma: Array, hue_degrees: Array) -> Array:
    """Convert Oklch to sRGB in [0, 1] (Ottosson 2020), clipped to the gamut."""
    hue = np.deg2rad(hue_degrees)
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        -1,
    ).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _fire(t: Array) -> Array:
    chroma = 0.03 + 0.15 * np.sin(np.pi * t**0.9) ** 0.8
    return _srgb(0.12 + 0.83 * t, chroma, -70 + 170 * t)


def _polar(t: Array) -> Array:
    away = np.abs(2 * t - 1)
    return _srgb(0.97 - 0.54 * away, 0.19 * away**0.9, np.where(t < 0.5, 258.0, 27.0))


def _jet(t: Array) -> Array:
    return np.stack([(1.5 - np.abs(4 * t - peak)).clip(0, 1) for peak in (3, 2, 1)], -1)


def _grey(t: Array) -> Array:
    return np.repeat(t[:, None], 3, 1)


_PATHS = {"fire": _fire, "polar": _polar, "grey": _grey, "jet": _jet}
NAMES = tuple(_PATHS)


@cache
def table(name: str) -> Array:
    """Return a colour map as 256 rows of 8-bit RGB. Raises OptionError for an unknown name."""
    if name not in _PATHS:
        raise OptionError(f"there is no colour map {name!r}; nearest: {nearest(name, NAMES)}")
    return np.rint(_PATHS[name](np.linspace(0, 1, 256)) * 255).astype(np.uint8)


def paint(values: Array, low: float, high: float, name: str) -> Array:
    """Colour values (h, w) between low and high: 8-bit RGB (h, w, 3)."""
    share = (values - low) / (high - low)
    return table(name)[np.rint(share.clip(0, 1) * 255).astype(np.uint8)]


def distinct(count: int) -> Array:
    """Return colours that are easily told apart, 8-bit RGB (count, 3): hues around the circle, two lightnesses."""
    position = np.arange(count)
    hues = 30 + 360 * position / max(count, 1)
    return np.rint(_srgb(np.where(position % 2, 0.82, 0.62), np.full(count, 0.13), hues) * 255).astype(np.uint8)
