"""How pictures become what a network reads, and what its outputs are called, as a user may say it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from ..errors import OptionError, nearest

if TYPE_CHECKING:
    from ..heads import HeadKind
    from ..net import Call, Extra, Output

IMAGENET = "imagenet"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Reading(TypedDict, total=False):
    """What `load` takes besides a network's name and weights; each overrides what the network's source says.

    mean, std: per channel, of pixels in [0, 1] in RGB, or "imagenet" for ImageNet's; mean="imagenet" stands for both.
        For Caffe's networks in Caffe's own units and order (0 to 255, BGR), the mean also as a .binaryproto or .npy
        file.
    size, resize, interpolation, channels, order, output, extra, call, head: as `Net` has them.
    classes: the names of the outputs, or a file: one name per line, or JSON; "imagenet" for ImageNet's 1,000.
    """

    mean: float | Sequence[float] | str | Path
    std: float | Sequence[float] | str
    size: int | tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: str
    channels: int
    order: str
    classes: Sequence[str] | str | Path
    output: Output
    extra: Extra
    head: HeadKind
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
            raise OptionError(f"load has no option {key!r}; nearest: {nearest(key, sorted(existing))}")
    if isinstance(options.get("classes"), (str, Path)):
        options["classes"] = read_classes(options["classes"])
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


def read_classes(source: str | Path) -> tuple[str, ...]:
    """Read the names of classes from a file, one per line (a WordNet id before the name is left out), or JSON.

    JSON is a list of names, or a dict from numbers to names or, as Keras has it, to (id, name). "imagenet" stands for
    the 1,000 of ImageNet's challenge in the order of their ids, as Caffe and torchvision have them. Raises
    OptionError.
    """
    if source == IMAGENET:
        from torchvision.models import AlexNet_Weights

        return tuple(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8-sig")
        names = _from_json(json.loads(text)) if path.suffix.lower() == ".json" else _from_lines(text)
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OptionError(f"cannot read the names of classes from {path}: {reason}") from None
    if not names:
        raise OptionError(f"{path} holds no names of classes: write one per line")
    return names


def _from_lines(text: str) -> tuple[str, ...]:
    lines = (re.sub(r"^n\d{8}[\s,]+", "", line.strip()) for line in text.splitlines())
    return tuple(line for line in lines if line)


def _from_json(content: Any) -> tuple[str, ...]:
    if isinstance(content, dict):
        numbers = sorted(content, key=int)
        if [int(number) for number in numbers] != list(range(len(numbers))):
            raise ValueError("its keys are not the numbers 0, 1, 2, ...")
        content = [content[number] for number in numbers]
    if not isinstance(content, list):
        raise ValueError(f"it holds {type(content).__name__}, not a list or a dict of names")
    return tuple(str(name[-1] if isinstance(name, list) else name) for name in content)
