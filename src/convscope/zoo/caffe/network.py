"""A Caffe definition as a torch module that keeps Caffe's names, with its weights, as a Net that reads pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ...errors import NetworkError, WeightsError, nearest
from ...fingerprints import check_finite
from ...net import Net
from ..sources import Source
from ..weights import fit_weights, read_weights
from .definition import Definition, Spec, read_definition
from .layers import FACTOR, LAYERS, plan
from .plans import Plan, Shape, refusal, shown
from .weights import Blob, read_blobs, read_mean

SOURCE = Source(
    "caffe",
    ".caffe.network:build",
    "Caffe's definitions, with weights from a .caffemodel",
    follows="FILE.prototxt",
    path=True,
    endings=(".prototxt", ".caffemodel"),
    own_units=True,
    needs=("google.protobuf",),
    extra="caffe",
)

MOST_PARAMETERS = 150_000_000
"""How many parameters a definition without a weights file may have: the largest of Caffe's day had 144 million."""

IMAGENET_MEAN = (104.0, 117.0, 123.0)
"""The mean of ImageNet's pixels, blue, green, red, 0 to 255, which the scripts of Caffe's networks subtract."""

_STATE_DICTS = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class PlannedLayer:
    """A layer and where its blobs lie: each execution's result has a number, and 0 is the input.

    Layers that write over their bottom make a new number, so what was there before can still be read. `name` is the
    module's.
    """

    spec: Spec
    name: str
    plan: Plan
    reads: tuple[int, ...]
    makes: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The layers that an output needs, in order, and the number of the output's blob; `outputs` names all there are.

    `softmax` says that the output was to go through a softmax, which was left out.
    """

    layers: tuple[PlannedLayer, ...]
    output: int
    name: str
    outputs: tuple[str, ...]
    softmax: bool = False

    @property
    def shared(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Which tensor (module, name) is another module's, by the names that the definition gives to parameters."""
        first: dict[str, tuple[PlannedLayer, str]] = {}
        found: dict[tuple[str, str], tuple[str, str]] = {}
        for layer in self.layers:
            for (tensor, shape), param in zip(layer.plan.blobs.items(), layer.spec.options.param, strict=False):
                if not param.name:
                    continue
                owner, theirs = first.setdefault(param.name, (layer, tensor))
                if owner is not layer and FACTOR in (*layer.plan.blobs, *owner.plan.blobs):
                    raise refusal(
                        layer.spec, f"shares {param.name!r} with layer {owner.spec}: statistics are each layer's own"
                    )
                if owner.plan.blobs[theirs] != shape:
                    raise refusal(
                        layer.spec,
                        f"shares {param.name!r}, which is {shown(shape)} here and {shown(owner.plan.blobs[theirs])} in "
                        f"layer {owner.spec}",
                    )
                if owner is not layer:
                    found[layer.name, tensor] = (owner.name, theirs)
        return found

    @property
    def parameters(self) -> dict[str, int]:
        """How many numbers each layer learns that no layer before it has."""
        shared = self.shared
        return {
            layer.spec.name: sum(
                math.prod(shape)
                for tensor, shape in layer.plan.blobs.items()
                if tensor != FACTOR and (layer.name, tensor) not in shared
            )
            for layer in self.layers
        }


class CaffeNet(nn.Module):
    """The layers of a definition under Caffe's names, played over its blobs.

    Input (n, channels, height, width) as Caffe has it, such as blue, green and red from 0 to 255 less their mean. An
    output of one place for each class, (n, classes, 1, 1), becomes (n, classes).
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._steps = tuple((layer.name, layer.reads, layer.makes) for layer in layout.layers)
        self._output = layout.output
        last = {number: position for position, (_, reads, _) in enumerate(self._steps) for number in reads}
        self._free = tuple(
            tuple(
                number
                for number in {*reads, *makes}
                if last.get(number, position) == position and number != self._output
            )
            for position, (_, reads, makes) in enumerate(self._steps)
        )
        for layer in layout.layers:
            self.add_module(layer.name, layer.plan.make())
        for (name, tensor), (owner, theirs) in layout.shared.items():
            setattr(self._modules[name], tensor, getattr(self._modules[owner], theirs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output's blob, (n, ...)."""
        blobs = {0: x}
        for (name, reads, makes), free in zip(self._steps, self._free, strict=True):
            made = getattr(self, name)(*(blobs[number] for number in reads))
            blobs.update(zip(makes, made if isinstance(made, tuple) else (made,), strict=True))
            for number in free:
                del blobs[number]
        output = blobs[self._output]
        return output.flatten(1) if output.shape[2:] == (1, 1) else output


def build(model: str, weights: str | Path | None, *, seed: int, reading: dict[str, Any]) -> Net:
    """Build the network of a definition, `model` being the path of its .prototxt, as a Net.

    Raises NetworkError for a definition that does not run, WeightsError for weights that do not fit it.
    """
    path = Path(model)
    if path.suffix == ".caffemodel":
        raise NetworkError(
            f"{path} holds weights, which say little of how layers are connected: name the definition and give this "
            f"as its weights, as in load('caffe:deploy.prototxt', weights={str(path)!r})"
        )
    definition, options = _definition(path, reading), dict(reading)
    if weights == "default":
        raise WeightsError(
            f"{path} is a definition, which has no weights of its own: give weights=FILE.caffemodel, or weights=None "
            f"for random ones (--weights none)"
        )
    asked = options.pop("output") if isinstance(options.get("output"), str) else None
    shape = _input(definition, options)
    try:
        layout = lay_out(definition, shape, asked)
        body = _body(layout, definition, None if weights is None else Path(weights))
    except NetworkError as error:
        raise NetworkError(f"{path}: {error}") from None
    own, said = _reading(definition, shape, options)
    notes = [f"random weights, seed {seed}" if weights is None else "", *_notes(definition, layout, asked), said]
    own["head"] = _head(definition, layout, asked)
    return Net(body.eval(), **own | options, name=definition.name, note="; ".join(filter(None, notes)))


def _head(definition: Definition, layout: Layout, asked: str | None) -> str | None:
    """Return what the output is where a softmax that was left out, or the only loss of the training, says so."""
    losses = {kind: head for kind, head in _HEADS.items() if any(f"({kind})" in part for part in definition.dropped)}
    if layout.softmax:
        return "softmax"
    return next(iter(losses.values())) if asked is None and len(losses) == 1 else None


_HEADS = {"SoftmaxWithLoss": "softmax", "SigmoidCrossEntropyLoss": "sigmoid", "EuclideanLoss": "value"}
"""What an output is, by the loss that it was trained with."""


def _input(definition: Definition, options: dict[str, Any]) -> Shape:
    """Return the input's shape: the definition's, or of the size that is asked for."""
    (shape,) = definition.inputs.values()
    channels = options.pop("channels", shape[0])
    if channels != shape[0]:
        raise NetworkError(f"{definition.path} reads {shape[0]} channels, not {channels}: change its input")
    size = options.get("size", shape[1:])
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise NetworkError(f"size is a side or (height, width) in pixels, at least 1, not {size}")
    return (channels, *sides)


def lay_out(definition: Definition, shape: Shape, asked: str | None = None) -> Layout:
    """Find the layers that the output needs and the shapes of all blobs, of one picture of `shape`.

    The output is the blob asked for, else the last that nobody reads, before a softmax. Raises NetworkError where
    layers do not fit together or would be absurdly large.
    """
    (given,) = definition.inputs
    numbers, latest, layers = {0: shape}, {given: 0}, list[PlannedLayer]()
    names = _module_names(definition.layers)
    for spec, name in zip(definition.layers, names, strict=True):
        reads = tuple(latest[bottom] for bottom in spec.bottoms)
        planned = plan(spec, [numbers[number] for number in reads])
        makes = tuple(range(len(numbers), len(numbers) + len(spec.tops)))
        numbers.update(zip(makes, planned.tops, strict=True))
        latest.update(zip(spec.tops, makes, strict=True))
        layers.append(PlannedLayer(spec, name, planned, reads, makes))
    return _needed(layers, latest, asked)


def _module_names(specs: Sequence[Spec]) -> list[str]:
    """Return names that torch takes for modules: without dots, and of nothing that every module or CaffeNet has."""
    first: dict[str, Spec] = {}
    for spec in specs:
        name = spec.name.replace(".", "_")
        name += "_" * (hasattr(_NOTHING, name) or name.startswith("_"))
        if name in first:
            raise refusal(spec, f"would have the same name in torch as layer {first[name]}: rename one of the two")
        first[name] = spec
    return list(first)


_NOTHING = nn.Module()


def _needed(layers: list[PlannedLayer], latest: dict[str, int], asked: str | None) -> Layout:
    """Leave out the layers that do not reach the output."""
    read = {number for layer in layers for number in layer.reads}
    ends = {number: top for layer in layers for number, top in zip(layer.makes, layer.spec.tops, strict=True)}
    outputs = {number: top for number, top in ends.items() if number not in read}
    if asked is not None and asked not in latest:
        raise NetworkError(f"there is no blob {asked!r} to take as the output; nearest: {nearest(asked, latest)}")
    output = max(outputs) if asked is None else latest[asked]
    name = outputs[output] if asked is None else asked
    maker = next((layer for layer in layers if output in layer.makes), None)
    softmax = asked is None and maker is not None and maker.spec.type == "Softmax" and maker.reads != (0,)
    if softmax and maker is not None:
        output = maker.reads[0]
    needed, wanted = list[PlannedLayer](), {output}
    for layer in reversed(layers):
        if wanted & set(layer.makes):
            wanted |= set(layer.reads)
            needed.append(layer)
    if not needed:
        raise NetworkError(f"the output {name!r} is the input itself: ask for a blob that a layer makes")
    return Layout(tuple(reversed(needed)), output, name, tuple(outputs.values()), softmax)


def _body(layout: Layout, definition: Definition, weights: Path | None) -> CaffeNet:
    """Make the module, once its weights are known to fit and its size to be sane."""
    if weights is None or weights.suffix.lower() in _STATE_DICTS:
        state = None if weights is None else read_weights(weights)
        held = 0 if state is None else sum(tensor.numel() for tensor in state.tensors.values())
        _check_size(layout, max(held, MOST_PARAMETERS))
        body = CaffeNet(layout)
        if state is not None:
            fit_weights(body, state, network=definition.path.name)
        return body
    stored = read_blobs(weights)
    _check_fit(layout, stored, weights, definition.path)
    body = CaffeNet(layout)
    for layer in layout.layers:
        _fill(body, layer, stored.get(layer.spec.name, []))
    check_finite(body, str(weights))
    return body


def _check_size(layout: Layout, most: int) -> None:
    counts = layout.parameters
    if sum(counts.values()) > most:
        largest = max(counts, key=lambda name: counts[name])
        raise NetworkError(
            f"the definition has {sum(counts.values()):,} parameters, {counts[largest]:,} of them in layer "
            f"{largest!r}: more than {most:,} are not made up; give weights=FILE.caffemodel"
        )


def _check_fit(layout: Layout, stored: dict[str, list[Blob]], path: Path, definition: Path) -> None:
    """Refuse a file without some of the blobs, or with blobs of other shapes, naming all of them."""
    shared = layout.shared
    missing, problems = list[str](), list[str]()
    for layer in layout.layers:
        wanted = layer.plan.blobs
        name, blobs = layer.spec.name, stored.get(layer.spec.name, [])
        if not blobs and all((layer.name, tensor) in shared for tensor in wanted):
            continue
        if name not in stored:
            missing.append(name)
        elif len(blobs) != len(wanted):
            problems.append(f"{name} has {len(blobs)} blobs in the file, {len(wanted)} in the definition")
        else:
            problems += [
                f"{name} {tensor} is {shown(blob.shape)} in the file, {shown(shape)} in the definition"
                for (tensor, shape), blob in zip(wanted.items(), blobs, strict=True)
                if not _fits(blob, shape)
            ]
    if missing:
        others = [name for name in stored if name not in {layer.spec.name for layer in layout.layers}]
        has = f" (it also has {nearest(missing[0], others)})" if others else ""
        problems.insert(0, f"missing from the file: {', '.join(missing)}{has}")
    if problems:
        raise WeightsError(f"{path} does not fit {definition}: {'; '.join(problems)}")


def _fits(blob: Blob, shape: Shape) -> bool:
    """Whether a blob has a shape; the oldest files write every shape as four numbers, the first of them ones."""
    return blob.shape == ((1,) * (4 - len(shape)) + shape if blob.legacy else shape)


def _definition(path: Path, reading: dict[str, Any]) -> Definition:
    """Read a definition; the call says of pictures what the file does not."""
    return read_definition(path, known=LAYERS, size=reading.get("size"), channels=reading.get("channels"))


def _fill(body: CaffeNet, layer: PlannedLayer, blobs: list[Blob]) -> None:
    """Copy a layer's blobs into its module."""
    numbers = dict(zip(layer.plan.blobs, (blob.data for blob in blobs), strict=False))
    if FACTOR in numbers:
        factor = float(numbers.pop(FACTOR).reshape(()))
        numbers = {name: value * (1 / factor if factor else 0) for name, value in numbers.items()}
    for name, value in numbers.items():
        tensor = getattr(getattr(body, layer.name), name).detach()
        np.copyto(tensor.numpy(), value.reshape(tensor.shape))


def _notes(definition: Definition, layout: Layout, asked: str | None) -> list[str]:
    """Return what whoever looks at a result must know of how the definition was read."""
    notes = list[str]()
    if definition.dropped:
        more = f" and {len(definition.dropped) - 3} more" if len(definition.dropped) > 3 else ""
        notes.append(f"left out what only serves training: {', '.join(definition.dropped[:3])}{more}")
    if asked is None and len(layout.outputs) > 1:
        notes.append(f"{layout.name} is the last of its outputs {', '.join(layout.outputs)}")
    return notes


def _reading(definition: Definition, shape: Shape, options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return how pixels become the input, as options of Net, and what is to be said of it; `options` are the user's.

    What the user says of mean and std is taken out of `options`: it is in Caffe's units and order.
    """
    channels, *size = shape
    order = options.get("order", "BGR" if channels == 3 else "RGB")
    mean, note = _mean(definition, channels, options.pop("mean", None))
    scale = definition.transform.scale if definition.transform is not None else 1.0
    if scale <= 0 or not math.isfinite(scale):
        raise NetworkError(f"{definition.path} scales pixels by {scale:g}, which is not positive: change its scale")
    std = options.pop("std", 1 / scale)
    whole = definition.resize or ((256, 256) if min(size) >= 224 else size)
    cut = all(side <= extent for side, extent in zip(size, whole, strict=True))
    own = {
        "mean": _of_pixels(mean, order),
        "std": _of_pixels(std, order),
        "size": tuple(size),
        "resize": tuple(whole if cut else size),
        # Caffe's tools scale linearly and without smoothing. Of Pillow's filters this one is as sharp and as near.
        "interpolation": "bicubic",
        "channels": channels,
        "order": order,
    }
    return own, note


def _of_pixels(values: Any, order: str) -> list[float]:
    """Bring numbers per channel from Caffe's units and order to those of pixels: [0, 1], RGB."""
    numbers = [float(value) / 255 for value in np.atleast_1d(np.asarray(values))]
    return numbers[::-1] if order == "BGR" else numbers


def _mean(definition: Definition, channels: int, asked: Any) -> tuple[Any, str]:
    """Return the mean that is subtracted, in Caffe's units and order, and a note where it is not the definition's."""
    usual = IMAGENET_MEAN if channels == 3 else (0.0,)
    said = f"took the mean {', '.join(f'{value:g}' for value in usual)}"
    if isinstance(asked, (str, Path)):
        return (usual, "") if asked == "imagenet" else (read_mean(Path(asked)), "")
    if asked is not None:
        return asked, ""
    transform = definition.transform
    if transform is None:
        return usual, f"{said}, since none was given"
    if transform.mean_value:
        return tuple(transform.mean_value), ""
    if not transform.mean_file:
        return (0.0,), ""
    file = definition.path.parent / Path(transform.mean_file).name
    if file.is_file():
        return read_mean(file), ""
    return usual, f"{transform.mean_file} is not beside the definition: {said}"
