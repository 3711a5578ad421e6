"""How pictures become what a network reads, and what its outputs are called, as a user may say it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ..data.class_names import IMAGENET, ClassNames, class_names
from ..errors import OptionError
from ..synonyms import OPTIONS, hint

if TYPE_CHECKING:
    from ..calling import Call, Extra, Output
    from ..heads import HeadKind

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Reading(TypedDict, total=False):
    """What `load` takes besides a network's name and weights; each overrides what the network's source says.

    mean, std: per channel, of pixels in [0, 1] in RGB, or "imagenet" for ImageNet's; mean="imagenet" stands for both.
        For Caffe's networks in Caffe's own units and order (0 to 255, BGR), the mean also as a .binaryproto or .npy
        file.
    size, resize, interpolation, fit, channels, order, value_range, show, window, output, extra, input, call, head,
        seed: as `Net` has them.
    classes: the names of the outputs, in any form that `Net` takes; "imagenet" for ImageNet's 1,000, in the order of
        their ids, as Caffe and torchvision have them.
    """

    mean: float | Sequence[float] | str | Path
    std: float | Sequence[float] | str
    size: int | tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: str
    fit: str
    value_range: Sequence[float]
    show: int | Sequence[int]
    window: Sequence[float] | str
    channels: int
    order: str
    classes: ClassNames
    output: Output
    extra: Extra
    head: HeadKind
    input: int | str
    seed: int
    call: Call


def settled(reading: Reading, *, own_units: bool = False) -> dict[str, Any]:
    """Return options of `Net`: classes read from their file, ImageNet's mean by name.

    With `own_units` the source takes the mean as it is: in its own units, or a file. Raises OptionError for an unknown
    option, a file of class names that cannot be read, or a mean or std that is neither numbers nor "imagenet".
    """
    options: dict[str, Any] = dict(reading)
    existing = Reading.__optional_keys__
    for key in options:
        if key not in existing:
            near = hint(key, OPTIONS, {name: f"{name}=" for name in (*sorted(existing), "weights", "epoch", "device")})
            raise OptionError(f"load has no option {key!r}; {near}")
    if "classes" in options:
        options["classes"] = class_names(options["classes"])
    if not own_units:
        options |= _of_pixels(options)
    elif isinstance(options.get("std"), str):
        raise OptionError(f"std is one number or one per channel, in the source's own units; not {options['std']!r}")
    for key in ("size", "resize"):
        if isinstance(options.get(key), list):
            options[key] = tuple(options[key])
    return options


def _of_pixels(options: dict[str, Any]) -> dict[str, Any]:
    """Return the mean and std of pixels in [0, 1]; the name of a data set stands for its numbers."""
    units = {key: options[key] for key in ("mean", "std") if key in options}
    if units.get("mean") == IMAGENET:
        units = {"std": IMAGENET} | units
    for key, numbers in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        if units.get(key) == IMAGENET:
            units[key] = numbers
        elif isinstance(units.get(key), (str, Path)):
            file = " (a file is read for Caffe's networks only)" if key == "mean" else ""
            raise OptionError(
                f"{key} is one number per channel, of pixels in [0, 1], or 'imagenet'; not {str(units[key])!r}{file}"
            )
    return units
