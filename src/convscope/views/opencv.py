"""OpenCV, which segmentation needs and which is installed by an extra."""

from __future__ import annotations

from typing import Any

from ..errors import ConvscopeError


def opencv() -> Any:
    """Import OpenCV. Raises ConvscopeError that says how to install it."""
    try:
        import cv2
    except ImportError:
        raise ConvscopeError("segmentation needs OpenCV: pip install 'convscope[segment]'") from None
    return cv2
