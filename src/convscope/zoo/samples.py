"""Sample pictures that ship with the package."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def digits() -> list[Path]:
    """Return ten pictures of handwritten digits, 0 to 9, 28x28: UCI digits (CC BY 4.0) that lenet5 has not seen."""
    folder = Path(str(resources.files(__name__.rpartition(".")[0]) / "digits"))
    return [folder / f"{digit}.png" for digit in range(10)]
