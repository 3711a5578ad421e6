"""The input of a Caffe network: declared in its header, by an Input layer, or made from the data layer of training."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import NetworkError
from .schema import TransformationParameter
from .specs import DATA, Spec, listed

MOST_NUMBERS = 2**28
"""How many numbers a picture may have."""

_CROPPING = {"Data", "ImageData", "WindowData", "AnnotatedData"}

_EXAMPLE = "dim: 1 dim: 3 dim: 227 dim: 227"


@dataclass(frozen=True)
class InputSource:
    """A blob that comes from outside: its shape with the batch, empty where the definition does not tell it."""

    name: str
    shape: tuple[int, ...]
    spec: Spec | None = None
    transform: Any = None
    label: bool = False

    @property
    def resize(self) -> tuple[int, int] | None:
        """The height and width to which a data layer brings its pictures, if it says so."""
        images = None if self.spec is None else self.spec.options.image_data_param
        return (images.new_height, images.new_width) if images and images.new_height and images.new_width else None


def sources(path: Path, message: Any, layers: list[Spec]) -> list[InputSource]:
    """Return what comes into the network from outside, labels too. Raises NetworkError for a header that is amiss."""
    found = _declared(path, message) + [source for spec in layers for source in _made_by(spec)]
    if all(source.label for source in found):
        first = next((name for spec in layers for name in spec.bottoms), "data")
        raise NetworkError(
            f'{path} says no input: write input: "{first}" input_shape {{ {_EXAMPLE} }} above its layers, with the '
            f"network's own numbers"
        )
    twice = [name for name, count in Counter(source.name for source in found).items() if count > 1]
    if twice:
        raise NetworkError(f"{path} makes {listed(map(repr, twice))} twice at test time: keep one header or data layer")
    return found


def _declared(path: Path, message: Any) -> list[InputSource]:
    """Return the inputs that the definition's header declares."""
    names, dims, shapes = list(message.input), list(message.input_dim), message.input_shape
    if dims and shapes:
        raise NetworkError(f"{path} gives its inputs both input_dim and input_shape: leave one out")
    if len(dims) not in (0, 4 * len(names)) or len(shapes) not in (0, len(names)):
        raise NetworkError(
            f"{path} has {len(names)} inputs, {len(dims)} input_dim and {len(shapes)} input_shape: an input has four "
            f'input_dim or one input_shape, such as input: "data" input_shape {{ {_EXAMPLE} }}'
        )
    told = [tuple(shape.dim) for shape in shapes] or [tuple(dims[4 * i : 4 * i + 4]) for i in range(len(names))]
    return [InputSource(name, shape) for name, shape in zip(names, told, strict=True)]


def _made_by(spec: Spec) -> list[InputSource]:
    """Return the blobs that a data layer makes: the picture first, then its labels."""
    if spec.type not in DATA:
        return []
    if spec.type in ("Input", "DummyData"):
        shapes = _given_shapes(spec)
        shapes = shapes * len(spec.tops) if len(shapes) == 1 else shapes + [()] * len(spec.tops)
        return [InputSource(top, shape, spec) for top, shape in zip(spec.tops, shapes, strict=False)]
    return [
        InputSource(top, () if position else _picture_shape(spec), spec, _transform(spec), label=position > 0)
        for position, top in enumerate(spec.tops)
    ]


def _given_shapes(spec: Spec) -> list[tuple[int, ...]]:
    if spec.type == "Input":
        return [tuple(shape.dim) for shape in spec.options.input_param.shape]
    dummy = spec.options.dummy_data_param
    legacy = zip(dummy.num, dummy.channels, dummy.height, dummy.width, strict=False)
    return [tuple(shape.dim) for shape in dummy.shape] or [tuple(dims) for dims in legacy]


def _transform(spec: Spec) -> Any:
    """Return how a data layer transforms pictures; older definitions say it among the layer's own options.

    None for what a program puts into memory, where the layer says nothing: nobody knows how the program prepared it.
    """
    if spec.type == "MemoryData" and not spec.options.HasField("transform_param"):
        return None
    transform = TransformationParameter()
    own = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}.get(spec.type)
    if own:
        for field, value in getattr(spec.options, own).ListFields():
            if field.name in ("scale", "mean_file", "crop_size"):
                setattr(transform, field.name, value)
    transform.MergeFrom(spec.options.transform_param)
    return transform


def _picture_shape(spec: Spec) -> tuple[int, ...]:
    """Return the shape of the pictures that a data layer reads, empty where only its data would tell."""
    if spec.type == "MemoryData":
        memory = spec.options.memory_data_param
        return (memory.batch_size, memory.channels, memory.height, memory.width)
    transform, images = _transform(spec), spec.options.image_data_param
    height, width = (transform.crop_size,) * 2 if transform.crop_size else (images.new_height, images.new_width)
    return (1, _channels(spec), height, width) if height and width else ()


def _channels(spec: Spec) -> int:
    """Return the number of channels of the pictures that a data layer reads."""
    return 1 if _transform(spec).force_gray or not spec.options.image_data_param.is_color else 3


def the_input(path: Path, sources: list[InputSource], layers: list[Spec]) -> InputSource:
    """Return the one input that is read."""
    if not layers:
        raise NetworkError(f"{path} has no layers that run at test time: it needs more than data and losses")
    read = {bottom for spec in layers for bottom in spec.bottoms}
    used = [source for source in sources if source.name in read and not source.label]
    if not used:
        there = listed(repr(source.name) for source in sources if not source.label)
        raise NetworkError(f"no layer of {path} reads its input {there}: the first layer's bottom should be the input")
    if len(used) > 1:
        names = listed(repr(source.name) for source in used)
        raise NetworkError(
            f"{path} has {len(used)} inputs that are read, {names}, where a network of pictures has one: delete the "
            f"others and the layers that read them"
        )
    return used[0]


def shape_of(
    path: Path, source: InputSource, size: int | tuple[int, int] | None = None, channels: int | None = None
) -> tuple[int, ...]:
    """Return the input's shape without the batch; of the size and channels in the call where the file has none."""
    if not source.shape and size is not None:
        read = _channels(source.spec) if source.spec is not None and source.spec.type in _CROPPING else 3
        source = replace(source, shape=(1, channels or read, *((size, size) if isinstance(size, int) else size)))
    where = f" (layer {source.spec})" if source.spec else ""
    wanted = f'input: "{source.name}" input_shape {{ {_EXAMPLE} }}, with the network\'s own numbers'
    if not source.shape:
        raise NetworkError(
            f"{path} does not tell the size of its input {source.name!r}{where}: give it, as in "
            f"load('caffe:{path.name}', size=227), or write {_size_of(source, wanted)}"
        )
    said = "x".join(map(str, source.shape))
    if len(source.shape) != 4:
        raise NetworkError(
            f"the input {source.name!r}{where} of {path} has shape {said}, not that of pictures (number, channels, "
            f"height, width): write {wanted}"
        )
    if min(source.shape) < 1:
        raise NetworkError(f"the input {source.name!r}{where} of {path} has shape {said}: every number is at least 1")
    if math.prod(source.shape[1:]) > MOST_NUMBERS:
        raise NetworkError(
            f"the input {source.name!r}{where} of {path} has shape {said}: {math.prod(source.shape[1:]):,} numbers are "
            f"more than {MOST_NUMBERS:,}"
        )
    return source.shape[1:]


def _size_of(source: InputSource, wanted: str) -> str:
    """Say how a definition would tell the size of its input: in its header as `wanted`, or in its data layer."""
    if source.spec is None:
        return wanted
    if source.spec.type not in _CROPPING:
        return f"in place of layer {source.spec.name!r} {wanted}"
    # Without the layer its scale and mean would be lost.
    return "crop_size: 227 in its transform_param, with the network's own number, and force_gray: true if it reads grey"
