"""Whose units a study is about: the layers that an option names, or some after their rectifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from ..atlas.units import choose_layers, has_units
from ..errors import LayerError, OptionError
from ..layers import picture_layers
from ..net import Net
from ..tracing import Layer

Layers = Annotated[
    list[str] | None,
    "layers whose units are studied: names, numbers of convolutions or patterns; by default up to six, evenly over the "
    "network, after their rectifiers",
]

_MOST = 6
_ACTIVATIONS = ("ReLU", "ELU", "LU6", "SiLU", "GELU", "Mish", "Softplus", "swish", "Tanh", "Sigmoid", "Squash")


def chosen_layers(net: Net, names: Sequence[str] | None) -> list[Layer]:
    """Return the layers of an option, or those taken by default. Raises LayerError, OptionError."""
    if names is not None:
        if not names:
            raise OptionError("layers is empty: name at least one")
        return choose_layers(net, names)
    leaves = [layer for layer in picture_layers(net) if layer.leaf and layer.name]
    weighted = [n for n, layer in enumerate(leaves) if layer.number is not None or layer.kind == "Linear"]
    found = list(dict.fromkeys(_rectified(leaves[number:]) for number in weighted))
    found = [layer for layer in found if has_units(layer) and layer.shape != net.output.shape]
    if not found:
        raise LayerError(f"{net.name} has no convolution or linear layer below its output: name layers")
    count = min(_MOST, len(found))
    return [found[round(i * (len(found) - 1) / max(count - 1, 1))] for i in range(count)]


def _rectified(leaves: Sequence[Layer]) -> Layer:
    """Return the first of some layers, or what follows it as its normalisation and activation function."""
    last = leaves[0]
    for layer in leaves[1:]:
        bends = layer.kind.endswith(_ACTIVATIONS)
        if layer.shape != last.shape or not (bends or "Norm" in layer.kind):
            break
        last = layer
        if bends:  # a normalisation behind it belongs to what comes next
            break
    return last
