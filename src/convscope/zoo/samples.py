"""Sample pictures that ship with the package."""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from pathlib import Path


def photographs() -> list[Path]:
    """Return three photographs that come with scikit-image, all CC0: a cup of coffee, a cat, and a rocket.

    By Rachel Michetti, Stéfan van der Walt and SpaceX.
    """
    spec = find_spec("skimage")
    folder = Path(str(spec and spec.origin)).parent / "data"
    return [folder / name for name in ("coffee.png", "chelsea.png", "rocket.jpg")]


def digits() -> list[Path]:
    """Return ten pictures of handwritten digits, 0 to 9, 28x28: UCI digits (CC BY 4.0) that lenet5 has not seen."""
    folder = Path(str(resources.files(__name__.rpartition(".")[0]) / "digits"))
    return [folder / f"{digit}.png" for digit in range(10)]
