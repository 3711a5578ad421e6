"""Which network a command takes when none is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..data.opening import mode_and_size

DEFAULT = "zfnet64"
"""The network of the command line when none is named; it needs no download."""

_DIGITS, _SMALL = "lenet5", 32


def default_for(pictures: Sequence[str | Path]) -> str:
    """Choose a network when none is named: lenet5 for grey pictures of at most 32 pixels, else zfnet64."""
    return _DIGITS if pictures and all(_digit_like(path) for path in pictures) else DEFAULT


def _digit_like(path: str | Path) -> bool:
    try:
        mode, size = mode_and_size(path)
    except Exception:  # a picture that cannot be read is reported when it is read
        return False
    return mode in ("1", "L") and max(size) <= _SMALL
