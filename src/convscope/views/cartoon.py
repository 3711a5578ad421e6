"""An object as a cartoon: a few flat colours, dark lines where it is darker than around, and an outline."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from ..errors import OptionError
from .opencv import opencv

_SIDE = 800
_INK = 24


def cartoon(image: Image.Image, mask: np.ndarray, *, colours: int = 10, seed: int = 0) -> Image.Image:
    """Return the object in a picture as RGBA in a few flat colours with dark outlines, transparent around it.

    `mask` (h, w) is True on the object. The longer side is 800 pixels, whatever the picture's. Raises OptionError for
    fewer than two colours.
    """
    if colours < 2:
        raise OptionError(f"a cartoon has at least 2 colours, not {colours}")
    ratio = _SIDE / max(image.size)
    size = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
    cover = _rounded(mask, size)
    large = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS))
    painted = Image.fromarray(_inked(large, cover >= 0.5, colours, seed))
    painted.putalpha(Image.fromarray(np.rint(255 * ((cover - 0.5) * 6 + 0.5).clip(0, 1)).astype(np.uint8)))
    return painted


def _rounded(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a mask to values in [0, 1] whose 0.5 is an outline without the steps of its pixels."""
    cv2 = opencv()
    large = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    soft = cv2.GaussianBlur(large, (0, 0), max(1.5, 0.6 * size[0] / mask.shape[1]))
    return soft if (soft >= 0.5).any() else large


def _inked(image: np.ndarray, mask: np.ndarray, colours: int, seed: int) -> np.ndarray:
    """Paint an object (h, w, 3) in flat colours, with ink where it is darker than around and along its rim."""
    cv2 = opencv()
    smooth = image
    for _ in range(5):
        smooth = cv2.bilateralFilter(smooth, 9, 24, 7)
    flat = _flat(cv2, smooth, mask, colours, seed)
    grey = cv2.cvtColor(smooth, cv2.COLOR_RGB2GRAY).astype(np.float32)
    darker = cv2.GaussianBlur(grey, (0, 0), 3.5) - cv2.GaussianBlur(grey, (0, 0), 1.2)
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    ink = np.maximum(np.clip((darker - 5) / 5, 0, 1), np.clip(4.5 - depth, 0, 1))[..., None]
    return np.rint(flat * (1 - ink) + _INK * ink).astype(np.uint8)


def _flat(cv2: Any, image: np.ndarray, mask: np.ndarray, colours: int, seed: int) -> np.ndarray:
    """Replace every colour by the nearest of the object's few, chosen by k-means in Lab."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    points = (lab[mask] if mask.any() else lab.reshape(-1, 3)).astype(np.float32)
    sample = points[:: max(1, len(points) // 20000)]
    cv2.setRNGSeed(seed)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    centres = cv2.kmeans(sample, min(colours, len(sample)), None, stop, 3, cv2.KMEANS_PP_CENTERS)[2]
    # Ordered by lightness, so that the median of neighbouring numbers is a colour between them.
    centres = centres[centres[:, 0].argsort()]
    distance = [((lab.astype(np.float32) - centre) ** 2).sum(2) for centre in centres]
    region = cv2.medianBlur(np.argmin(distance, 0).astype(np.uint8), 7)
    return cv2.cvtColor(np.rint(centres).astype(np.uint8)[region], cv2.COLOR_LAB2RGB).astype(np.float32)
