"""Weights that a package of the registry carries: found by what the package lists of its files, never by running it."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from ..errors import WeightsError

EXTRA = "imagenet"
"""The extra that installs the packages."""

_ENDING = ".pth"


def find_weights(package: str) -> Path | None:
    """Return the file of weights that an installed package carries; None where it is not installed."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.suffix == _ENDING)
    return next((path for path in paths if path.is_file()), None)


def weights(package: str) -> Path:
    """Return the file of weights that a package carries. Raises WeightsError, which says what to install."""
    path = find_weights(package)
    if path is None:
        raise WeightsError(
            f"the weights are in the package {package}, which is not installed: {install()}; or give weights=FILE, or "
            "weights=None for random ones (--weights none)"
        )
    return path


def install() -> str:
    """Say what to type where a package is missing."""
    return f"pip install 'convscope[{EXTRA}]'"
