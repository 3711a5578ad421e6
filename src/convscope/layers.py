"""Choosing and checking layers: which one an option names, which a method takes by default, what it must have.

Everything that a layer must have is checked here, so that it is refused in the same words everywhere: spatial positions
(`check_positions`, any layout), channels with spatial positions (`spatial_layer`) or channels (`channelled_layer`).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from math import prod
from typing import NoReturn

from torch import Tensor, nn

from .bodies import in_one_piece
from .errors import ConvscopeError, LayerError, OptionError, nearest
from .kept import Kept
from .net import Net
from .options import separated
from .tracing import OUTPUT, Layer

_LAST_TOKENS = 4
"""How many of a transformer's last layers of tokens are looked at for one whose patches the objective depends on."""

_RANGE = ".."

_POSITIONS = "spatial positions"

_FEWEST_PARTS = 3
"""Below so many parts that everything passes through, a network is taken layer by layer."""

_PASSES_ON = frozenset(("Dropout", "Dropout2d", "Identity", "Flatten", "Unflatten"))


# Checking ---------------------------------------------------------------------------------------------------------


def find_layer(net: Net, name: str | int) -> Layer:
    """Find a layer by name or number. Raises LayerError where there is none, or it does not depend on the picture."""
    layer = net.layer(name)
    if not layer.reads_picture:
        names = [other.name for other in picture_layers(net) if other.name and other.leaf]
        such = nearest(layer.name, names)
        raise LayerError(
            f"{layer.title} of {net.name} does not depend on the picture, only on what else the network is given or on "
            "constants: name one that does" + (f", such as {such}" if such else "")
        )
    return layer


def picture_layers(net: Net) -> list[Layer]:
    """Return the layers that depend on the picture, in execution order."""
    return [layer for layer in net.layers.values() if layer.reads_picture]


def spatial_layer(net: Net, name: str | int, *, purpose: str = "") -> Layer:
    """Find a layer with channels and spatial positions (c, h, w). Raises LayerError, with what needs it."""
    layer = find_layer(net, name)
    if not layer.spatial:
        names = spatial_names(net)
        _refuse(net, layer, _POSITIONS, "one with shape (c, h, w)", names, purpose)
    return layer


def spatial_names(net: Net) -> list[str]:
    """Return the names of all layers with channels and spatial positions, but for blocks."""
    return [layer.name for layer in picture_layers(net) if layer.spatial and layer.leaf and layer.name]


def channelled_layer(net: Net, name: str | int, *, error: type[ConvscopeError] = LayerError) -> Layer:
    """Find a layer with channels, (c, h, w) or (c,). Raises LayerError, or another error where it is asked for."""
    layer = find_layer(net, name)
    if not layer.channelled:
        names = [other.name for other in picture_layers(net) if other.channelled and other.leaf]
        _refuse(net, layer, "channels", "one with shape (c, h, w) or (c,)", names, error=error)
    return layer


def check_positions(net: Net, layer: Layer) -> None:
    """Raise LayerError unless a layer has spatial positions: (c, h, w), channels last, or a token per patch."""
    if layer.positions:
        return
    names = [other.name for other in picture_layers(net) if other.positions > 1 and other.name and other.leaf]
    _refuse(net, layer, _POSITIONS, "one with shape (c, h, w), or with one token per patch", names[-1:])


_SIZES = 32
"""Sizes of pictures of which a network's layers are kept."""


def layer_at(net: Net, layer: Layer, pixels: Tensor) -> Layer:
    """Return a layer as it is for pictures (n, c, h, w) of another size than the network's own.

    Its grid differs, and where pixels are mirrored or rolled inside the network, so does where its units lie.
    """
    return net_at(net, pixels).layers.get(layer.name, layer)


def net_at(net: Net, pixels: Tensor) -> Net:
    """Return the network as it reads pictures of the size of pixels (n, c, h, w)."""
    size = (pixels.shape[-2], pixels.shape[-1])
    if size == net.size:
        return net
    return _at_sizes.setdefault(net, Kept(_SIZES)).of(size, lambda: net.changed(size=size))


_at_sizes: weakref.WeakKeyDictionary[Net, Kept[tuple[int, int], Net]] = weakref.WeakKeyDictionary()


def _refuse(
    net: Net,
    layer: Layer,
    lacks: str,
    instead: str,
    names: Iterable[str],
    purpose: str = "",
    *,
    error: type[ConvscopeError] = LayerError,
) -> NoReturn:
    needed = f", which {purpose} needs" if purpose else ""
    volumes = _of_volumes(net) if len(layer.shape) == 4 else ""
    if volumes:
        raise error(f"{layer.title} of {net.name} has shape {layer.shape}, without {lacks}{needed}: {volumes}")
    such = nearest(layer.name, names)
    if layer.parts > 1 and lacks == _POSITIONS:
        lacks = f"{_POSITIONS} of single pictures: each has {layer.parts} entries there, as frames, windows or heads"
        instead = "one with an entry for each picture"
    raise error(
        f"{layer.title} of {net.name} has shape {layer.shape}, without {lacks}{needed}: name {instead}"
        + (f", such as {such}" if such else "")
    )


def _of_volumes(net: Net) -> str:
    """Say so where a network's layers are volumes (c, d, h, w); "" where they are not."""
    if not any(layer.kind == "Conv3d" for layer in net.layers.values()):
        return ""
    return "its layers are volumes (c, d, h, w): gradients, guided backpropagation, occlusion and RISE need no layer"


# What options name ------------------------------------------------------------------------------------------------


def output_or_layer(net: Net, name: str | int) -> Layer:
    """Find a layer by name or number, or the output by "", checked to be one tensor."""
    return net.output if name == OUTPUT else find_layer(net, name)


def layers_named(net: Net, names: list[str] | str) -> list[Layer]:
    """Find the layers with spatial positions that an option names, in execution order.

    One name or several, in a list or with commas. Raises OptionError where there is none.
    """
    # The output's name is an empty text.
    several = (separated(names) or [names]) if isinstance(names, str) else [str(name) for name in names]
    layers = {layer.name: layer for layer in (find_layer(net, name.strip()) for name in several)}
    if not layers:
        raise OptionError("layer is a layer's name, or several, not an empty list")
    for layer in layers.values():
        check_positions(net, layer)
    return in_order(net, layers.values())


def in_order(net: Net, layers: Iterable[Layer]) -> list[Layer]:
    """Return layers in execution order."""
    names = {layer.name for layer in layers}
    return [layer for name, layer in net.layers.items() if name in names]


def between(net: Net, names: Sequence[str]) -> list[Layer]:
    """Find layers by name, and by "first..last" all that run between two, in execution order.

    A range leaves out blocks and what has no channels, unless it begins or ends with one. Raises OptionError where no
    name is given.
    """
    if not names:
        raise OptionError("layers is empty: name at least one")
    return in_order(net, {layer for name in names for layer in _range(net, *name.split(_RANGE, 1))})


def _range(net: Net, first: str, last: str | None = None) -> list[Layer]:
    ends = [output_or_layer(net, name) for name in (first, last) if name is not None]
    order = list(picture_layers(net))
    indices = sorted(order.index(end) for end in ends)
    within = order[indices[0] : indices[-1] + 1]
    return [layer for layer in within if layer in ends or (layer.leaf and layer.channelled)]


# Defaults ---------------------------------------------------------------------------------------------------------


def last_spatial_layer(net: Net) -> Layer:
    """Return the last layer with spatial positions: the last with the last convolution's grid, before it is pooled.

    Where nearly all of the network comes after that, it is no convolutional network (a vision transformer's only
    convolution cuts the picture into patches): then the last layer of any kind that has spatial positions, a normalised
    one where it has tokens. Raises LayerError where none can be found.
    """
    return last_spatial_layers(net)[-1]


def last_spatial_layers(net: Net) -> list[Layer]:
    """Return the last layer with spatial positions, or of a transformer the last few.

    With a class token, no other token of the last layers reaches the output: one whose patches are read must be looked
    for among several.
    """
    spatial = [layer for layer in picture_layers(net) if layer.positions and min(layer.grid) > 1 and layer.name]
    convolutions = [layer for layer in spatial if layer.number is not None]
    if convolutions and not _early(net, convolutions[-1]):
        spatial = [layer for layer in spatial if layer.spatial and layer.grid == convolutions[-1].grid]
    else:
        most = convolutions[-1].grid if convolutions else net.size
        spatial = [layer for layer in spatial if layer.grid <= most and _proportioned(layer, net.size)]
        if spatial and spatial[-1].tokens:
            norms = [layer for layer in spatial if layer.tokens and "Norm" in layer.kind]
            spatial = [layer for layer in norms if layer.shape[-1] == norms[-1].shape[-1]]
    layers = [layer for layer in spatial if "Pool" not in layer.kind]
    if not layers or _early(net, layers[-1], 0.8 if layers[-1].tokens else 0.2):
        reason = in_one_piece(net.body) or _of_volumes(net) or "name a layer"
        raise LayerError(f"{net.name} has no late layer with spatial positions (c, h, w): {reason}")
    return layers[-_LAST_TOKENS:] if layers[-1].tokens else layers[-1:]


def _proportioned(layer: Layer, picture: tuple[int, int]) -> bool:
    """Whether a grid has the picture's proportions, up to half a unit: attention's tables of tokens have not."""
    return abs(picture[0] * layer.grid[1] / picture[1] - layer.grid[0]) <= 0.5


def _early(net: Net, layer: Layer, share: float = 0.2) -> bool:
    """Whether a layer comes before a share of the layers with parameters."""
    names = [other.name for other in picture_layers(net) if other.parameters or other.name == layer.name]
    return names.index(layer.name) + 1 < share * len(names)


def default_convolutions(net: Net, most: int = 5) -> list[Layer]:
    """Return convolutions spread evenly over a network. Raises LayerError when it has none.

    One with a channel for every class is left out where there are others: it is the output, not a feature.
    """
    convolutions = [layer for layer in picture_layers(net) if layer.number is not None]
    if not convolutions:
        raise LayerError(f"{net.name} has no convolution: name layers")
    hidden = [layer for layer in convolutions if layer.shape[:1] != net.output.shape[:1]]
    return _evenly(hidden or convolutions, most)


def before_classes(net: Net) -> Layer:
    """Return the layer that the last one with parameters reads: the features from which classes are told.

    Raises LayerError where nothing runs before it.
    """
    leaves = [layer for layer in picture_layers(net) if layer.leaf and layer.name]
    last = max((number for number, layer in enumerate(leaves) if layer.parameters), default=0)
    if not last:
        raise LayerError(f"no layer of {net.name} runs before its classes: name layers")
    return leaves[last - 1]


def _evenly(layers: Sequence[Layer], most: int) -> list[Layer]:
    count = min(most, len(layers))
    return [layers[round(i * (len(layers) - 1) / max(count - 1, 1))] for i in range(count)]


def telling_layers(net: Net, below: Sequence[str]) -> list[Layer]:
    """Return the layers below some others that say the most, at most five, in execution order.

    The last convolution of every grid and the last layer without spatial positions. A convolution with a channel for
    every class is left out, because its gradient is the objective itself. Raises LayerError where nothing runs before.
    """
    order = list(picture_layers(net))
    end = max(order.index(output_or_layer(net, name)) for name in below)
    before = [layer for layer in order[:end] if layer.leaf]
    classes = net.output.shape[:1]
    grids = {layer.grid: layer for layer in before if layer.number is not None and layer.shape[:1] != classes}
    flat = [layer for layer in before if len(layer.shape) == 1 and layer.shape != net.output.shape and layer.parameters]
    layers = [*list(grids.values())[-4:], *flat[-1:]] or before[-1:]
    if not layers:
        raise LayerError(f"no layer of {net.name} runs before {order[end].title}: name layers")
    return in_order(net, layers)


def trunk_layer(net: Net) -> Layer:
    """Return the layer three quarters down the trunk, whose energy a dream raises by default.

    The trunk are the parts that hold no more than half of the convolutions, inside those that hold more: blocks in a
    network of blocks. Raises LayerError when no layer has spatial positions.
    """
    convolutions = [layer.name for layer in picture_layers(net) if layer.number is not None]

    def large(part: str) -> bool:
        return not part or 2 * sum(name.startswith(f"{part}.") for name in convolutions) > len(convolutions)

    finished, chosen, passed = 0, None, 0
    for layer in picture_layers(net):
        finished += layer.number is not None
        outer = layer.name.split(".")[:-1]
        if large(layer.name) or not all(large(".".join(outer[:i])) for i in range(len(outer) + 1)):
            continue
        if not layer.spatial or min(layer.grid) < 2:
            continue
        # Up to three quarters the last one, beyond only what follows the same convolution at the same size.
        if chosen is None or 4 * passed < 3 * len(convolutions) or (finished, layer.grid) == (passed, chosen.grid):
            chosen, passed = layer, finished
    if chosen is None:
        raise LayerError(f"{net.name} has no layer with spatial positions, which a dream needs")
    return chosen


def stage_layers(net: Net) -> list[list[Layer]]:
    """Return the rectified layers of every size that a picture goes through, finest first.

    A block that keeps its size, as SqueezeNet's fire module, stands for the layers inside it. A network whose
    rectifiers are not modules is read at its blocks, and one without blocks at the last layer of every size.
    """
    spatial = [layer for layer in picture_layers(net) if layer.spatial and layer.name and min(layer.grid) > 1]
    leaves = [layer for layer in spatial if layer.leaf]
    # A Sequential is a list of layers: it stands for its last one only.
    inside = {layer: _inside(layer, leaves) for layer in spatial if layer.kind != "Sequential"}
    whole = {layer: parts for layer, parts in inside.items() if {part.grid for part in parts} == {layer.grid}}
    layers = [layer for layer, parts in whole.items() if any(map(_rectifies, parts))]
    layers = layers or [layer for layer in whole if not layer.leaf]
    layers = layers or list({layer.grid: layer for layer in leaves}.values())
    grids = dict.fromkeys(layer.grid for layer in leaves)
    sizes = [[layer for layer in layers if layer.grid == grid] for grid in grids]
    return [_outermost(same) for same in sizes if same]


def first_of_stages(net: Net) -> list[Layer]:
    """Return the first rectified layer of every size, finest first: on VGG Gatys et al.'s for style, relu1_1, ..."""
    return [same[0] for same in stage_layers(net)]


def _inside(layer: Layer, leaves: list[Layer]) -> list[Layer]:
    if layer.leaf:
        return [layer]
    module = layer.name.partition("#")[0]
    return [leaf for leaf in leaves if leaf.name.startswith(f"{module}.")]


def _rectifies(layer: Layer) -> bool:
    return "LU" in layer.kind or layer.kind in ("Hardswish", "Mish")


def _outermost(layers: list[Layer]) -> list[Layer]:
    depth = min(layer.name.count(".") for layer in layers)
    return [layer for layer in layers if layer.name.count(".") == depth]


def bottlenecks(net: Net, most: int = 8) -> list[Layer]:
    """Return layers that everything passes through, spread evenly over the network; the last is the output.

    A block counts as one layer; of a layer with its normalisation and rectifier only the last counts. Where blocks
    cannot be told, they are layers without parts.
    """
    named = [layer for layer in picture_layers(net) if layer.name and layer.kind not in _PASSES_ON]
    layers = [layer for layer in named if _everything_passes(net, layer)]
    layers = layers if len(layers) >= _FEWEST_PARTS else [layer for layer in named if layer.leaf]
    layers = [
        layer for layer, after in zip(layers, [*layers[1:], None], strict=False) if not (after and _completes(after))
    ]
    if len(layers) < 2 or layers[-1].shape != net.output.shape:
        # The last module of a sequence may give what the whole network gives.
        same = layers and prod(layers[-1].shape) == prod(net.output.shape)
        layers = [*(layers[:-1] if same else layers), net.output]
    return _evenly(layers, most)


def _everything_passes(net: Net, layer: Layer) -> bool:
    """Whether a layer is a part, and no sequence itself, of nothing but sequences."""
    parents = layer.name.partition("#")[0].split(".")[:-1]
    outer = [net.body.get_submodule(".".join(parents[: i + 1])) for i in range(len(parents))]
    return not isinstance(layer.module, nn.Sequential) and all(isinstance(module, nn.Sequential) for module in outer)


def _completes(layer: Layer) -> bool:
    """Whether a layer belongs to the one before it."""
    return any(word in layer.kind for word in ("ReLU", "GELU", "SiLU", "Norm", "Hardswish", "Tanh", "Sigmoid"))
