"""Sample pictures that come with the package and with scikit-image, by name: "sample:chelsea", "sample:digits/3"."""

from __future__ import annotations

from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from ..errors import PictureError, nearest

PREFIX = "sample:"

_PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "camera": "camera.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "horse": "horse.png",
    "hubble": "hubble_deep_field.jpg",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}


def photographs() -> list[Path]:
    """Return three photographs that come with scikit-image, all CC0: a cup of coffee, a cat, and a rocket.

    By Rachel Michetti, Stéfan van der Walt and SpaceX.
    """
    return [samples()[name] for name in ("coffee", "chelsea", "rocket")]


def digits() -> list[Path]:
    """Return ten pictures of handwritten digits, 0 to 9, 28x28: UCI digits (CC BY 4.0) that lenet5 has not seen."""
    return [samples()[f"digits/{digit}"] for digit in range(10)]


@cache
def samples() -> dict[str, Path]:
    """Return the file of every sample picture, by name: photographs of scikit-image, and handwritten digits."""
    spec = find_spec("skimage")
    photographs = Path(str(spec and spec.origin)).parent / "data"
    own = Path(str(resources.files(__name__.rpartition(".")[0]) / "digits"))
    return {name: photographs / file for name, file in _PHOTOGRAPHS.items()} | {
        f"digits/{digit}": own / f"{digit}.png" for digit in range(10)
    }


def sample(name: str) -> Path:
    """Return the file of a sample picture, such as "chelsea" or "digits/3". Raises PictureError for another name."""
    if name not in samples():
        photographs = ", ".join(_PHOTOGRAPHS)
        raise PictureError(
            f"there is no sample picture {name!r}; nearest: {nearest(name, samples(), prefix=PREFIX)}. "
            f"The samples are {photographs} and digits/0 to digits/9"
        )
    return samples()[name]
