"""Presets: settings that go together, by the names of where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..errors import OptionError, nearest
from .ascent import Optimiser, Steps
from .parametrizations import Space


@dataclass(frozen=True)
class Preset:
    """A start, a transform and steps; `spread` is the noise to begin with, `bounded` keeps pixels in [0, 1]."""

    space: Space
    transform: str
    steps: Steps
    start: str = "noise"
    spread: float = 0.01
    bounded: bool = True


def _yosinski(count: int, rate: float, **settings: float) -> Preset:
    """One of the four rows of Table 1 of Yosinski et al. 2015, arXiv:1506.06579.

    Rows 2 and 3 have a constant factor of the gradient, which fits one network's scores only: here every step would
    raise the score by a constant, were it linear.
    """
    steps = Steps(count, by="ascent", scaling="progress", rate=rate, **settings)  # type: ignore[arg-type]
    return Preset("pixels", "none", steps, spread=10 / 255)


PRESETS = {
    "lucid": Preset("fourier", "standard", Steps(256, rate=0.05)),
    "maco": Preset("maco", "standard", Steps(256, rate=0.1)),
    "simonyan": Preset("pixels", "none", Steps(200, rate=0.01), start="zero", spread=0.0, bounded=False),
    "yosinski1": _yosinski(500, 2.0, blur=0.5, small_norm=50.0),
    "yosinski2": _yosinski(750, 10.0, decay=0.3, small_norm=20.0),
    "yosinski3": _yosinski(1000, 10.0, decay=0.0001, blur=1.0),
    "yosinski4": _yosinski(1000, 2.0, blur=0.5, small_contribution=90.0),
}

PresetName = Annotated[
    str,
    "settings that go together: lucid (Fourier, shaken), maco (phase only, for deep modern networks), simonyan "
    "(pixels, not shaken, not bounded), yosinski1 to yosinski4 (the rows of the paper's Table 1)",
]
SpaceOption = Annotated[
    Space | None,
    "what is changed: fourier (the spectrum, in independent colours), pixels, maco (the spectrum's phase); the "
    "preset's by default",
]
ParametrizationOption = Annotated[str | None, "noise, zero (the network's mean colour) or a picture to begin with"]
TransformOption = Annotated[
    str | None,
    "random changes before every look: none, light, standard, jitter, crops, or parts as 'jitter=8 rotate=10', in "
    "pixels, degrees and shares",
]
StepsOption = Annotated[int | None, "how many steps; the preset's by default"]
RateOption = Annotated[float | None, "how far each step goes; the preset's by default"]
OptimiserOption = Annotated[Optimiser | None, "adam, lbfgs (not shaken), or ascent along the gradient"]


def preset(name: str) -> Preset:
    """Return a preset, or raise OptionError with the names there are."""
    if name not in PRESETS:
        raise OptionError(f"there is no preset {name!r}; there are {nearest(name, PRESETS)}")
    return PRESETS[name]
