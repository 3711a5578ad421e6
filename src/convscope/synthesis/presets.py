"""Presets: settings that belong together, named after where they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from ..data.images import PictureSource
from ..errors import OptionError, nearest
from ..options import Range
from .optimizers import Optimizer, OptimizerKind
from .parametrizations import ParametrizationName


@dataclass(frozen=True)
class Preset:
    """An image parametrization with its initial picture, a transform, and an optimizer.

    init: "noise" (around mid-grey), "zero" (the network's mean colour) or a picture. deviation: the standard deviation
    of the initial noise. bounded: keep pixels in [0, 1].
    """

    parametrization: ParametrizationName
    transform: str
    optimizer: Optimizer
    init: Any = "noise"
    deviation: float = 0.01
    bounded: bool = True

    def with_options(
        self,
        *,
        parametrization: ParametrizationName | None = None,
        init: Any = None,
        transform: str | None = None,
        steps: int | None = None,
        rate: float | None = None,
        optimizer: OptimizerKind | None = None,
    ) -> Preset:
        """Return the preset with the options that are not None in place of its own.

        L-BFGS has no transform unless one is asked for, and a rate of 1.
        """
        options = {"parametrization": parametrization, "init": init, "transform": transform}
        preset = replace(self, **{name: value for name, value in options.items() if value is not None})
        if optimizer == "lbfgs" and self.optimizer.kind != "lbfgs":
            preset = replace(preset, transform=transform or "none", optimizer=replace(preset.optimizer, rate=1.0))
        numbers: dict[str, Any] = {"steps": steps, "rate": rate, "kind": optimizer}
        changed = {name: value for name, value in numbers.items() if value is not None}
        return replace(preset, optimizer=replace(preset.optimizer, **changed))

    def with_steps(self, steps: int) -> Preset:
        """Return the preset with another number of steps."""
        return replace(self, optimizer=replace(self.optimizer, steps=steps))


def _yosinski(steps: int, rate: float, **settings: float) -> Preset:
    """One of the four rows of Table 1 of Yosinski et al. 2015, arXiv:1506.06579.

    Rows 2 and 3 have a constant factor of the gradient, which fits one network's scores only: here every step would
    raise the score by a constant, were it linear.
    """
    optimizer = Optimizer(steps, kind="ascent", scaling="progress", rate=rate, **settings)  # type: ignore[arg-type]
    return Preset("pixels", "none", optimizer, deviation=10 / 255)


PRESETS = {
    "lucid": Preset("fourier", "standard", Optimizer(256, rate=0.05)),
    "maco": Preset("maco", "standard", Optimizer(256, rate=0.1)),
    "simonyan": Preset("pixels", "none", Optimizer(200, rate=0.01), init="zero", deviation=0.0, bounded=False),
    "yosinski1": _yosinski(500, 2.0, blur=0.5, small_norm=50.0),
    "yosinski2": _yosinski(750, 10.0, decay=0.3, small_norm=20.0),
    "yosinski3": _yosinski(1000, 10.0, decay=0.0001, blur=1.0),
    "yosinski4": _yosinski(1000, 2.0, blur=0.5, small_contribution=90.0),
}

PresetName = Annotated[
    Literal["lucid", "maco", "simonyan", "yosinski1", "yosinski2", "yosinski3", "yosinski4"],
    "settings that belong together: lucid (Fourier spectrum, with transforms), maco (phase only, for deep modern "
    "networks), simonyan (unbounded pixels, no transform), yosinski1 to yosinski4 (rows of the paper's Table 1)",
]
ParametrizationOption = Annotated[
    ParametrizationName | None,
    "image parametrization: fourier (decorrelated spectrum), pixels, maco (phase of the spectrum); default: the "
    "preset's",
]
InitOption = Annotated[
    Literal["noise", "zero"] | PictureSource | None,
    "initial picture: noise, zero (the network's mean colour) or a picture; default: the preset's",
]
TransformOption = Annotated[
    str | None,
    "random transform before every step: none, light, standard, jitter, crops, or parts such as 'jitter=8 rotate=10' "
    "(pixels, degrees)",
]
StepsOption = Annotated[int | None, "number of steps; default: the preset's", Range(1)]
RateOption = Annotated[float | None, "learning rate; default: the preset's", Range(0, open=True)]
OptimizerOption = Annotated[OptimizerKind | None, "adam, lbfgs (without transform) or ascent (plain gradient ascent)"]


def find_preset(name: str) -> Preset:
    """Return a preset by name, or raise OptionError with the names there are."""
    if name not in PRESETS:
        raise OptionError(f"unknown preset {name!r}; available: {nearest(name, PRESETS)}")
    return PRESETS[name]
