"""Fig. 3: the architecture, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...drawing.tables import Cell, Column, Table
from ...net import Net
from ...tracing import Layer
from ...zoo.blueprints import BLUEPRINTS
from ..claims import Statement
from ..registration import Found, experiment
from ..subject import Subject

_PAPER = {
    "conv1": (96, 110, 110),
    "pool1": (96, 55, 55),
    "conv2": (256, 26, 26),
    "pool2": (256, 13, 13),
    "conv3": (384, 13, 13),
    "conv4": (384, 13, 13),
    "conv5": (256, 13, 13),
    "pool5": (256, 6, 6),
    "fc6": (4096,),
    "fc7": (4096,),
}
"""Sizes of layers of Fig. 3, by the names that zfnet gives them."""

_SIZES = Statement(
    "architecture",
    "The network has the sizes of Fig. 3",
    rule="every layer has the channels and positions that the figure names: "
    + ", ".join(f"{name} {' × '.join(map(str, shape))}" for name, shape in _PAPER.items())
    + ".",
    paper="the sizes of the rule; it names no padding (these sizes follow with 1 pixel around conv1, 1 around conv3 to "
    "conv5, and windows of pooling that may end beyond the border).",
)


@experiment(
    "zeiler-fergus",
    10,
    "Fig. 3",
    "The architecture",
    did="eight layers on 224 × 224 pixels: five convolutions, of which the first has 96 filters of 7 × 7 pixels at "
    "every second one, with rectifiers, max pooling after the first, second and fifth, contrast normalisation after "
    "the first two poolings, two layers of 4,096 units, and 1,000 classes.",
    claims=(_SIZES,),
    work=0.2,
)
def architecture(subject: Subject) -> Found:
    """Compare the sizes of layers with those of Fig. 3."""
    original, net = _original(), subject.net
    own = {name: net.layers[name].shape for name in _PAPER if name in net.layers}
    theirs = {name: original.layers[name].shape for name in _PAPER}
    same = theirs == _PAPER
    parameters = _count(original)
    words = (
        f"zfnet, the network of Fig. 3 as convscope builds it (its weights do not ship), has "
        f"{'all of these sizes' if same else 'other sizes'} and {parameters:,} parameters; {net.name} has "
        f"{_count(net):,}"
    )
    if own == _PAPER:
        claim = _SIZES.judged(True, "All ten sizes are equal.")
    elif net.name == original.name:
        claim = _SIZES.judged(False, f"Other sizes: {own}.")
    else:
        height, width = net.size
        claim = _SIZES.unjudged(f"{net.name} is another network, which reads {height} × {width} pixels; {words}")
    return Found(f"{words}.", [claim], tables=[_table(subject, original)])


def _original() -> Net:
    """Build the network of Fig. 3 without memory for its weights: only its sizes are asked for."""
    blueprint = BLUEPRINTS["zfnet"]
    with torch.device("meta"):
        body = blueprint.body(blueprint.classes)
    return blueprint.net(body, [str(number) for number in range(blueprint.classes)])


def _count(net: Net) -> int:
    return sum(each.numel() for each in net.body.parameters())


def _table(subject: Subject, original: Net) -> Table:
    """Return the layers with weights, or that pool, of both networks side by side."""
    columns = (
        Column("paper", head="Fig. 3", unbroken=True),
        Column("size", "size"),
        Column("sees"),
        Column("own", head=subject.net.name, unbroken=True),
        Column("own_size", "size", head="size"),
        Column("own_sees", head="sees"),
    )
    left, right = ([_cells(layer) for layer in _telling(net)] for net in (original, subject.net))
    nothing: tuple[Cell, ...] = ("", None, "")
    most = max(len(left), len(right))
    rows = [
        (*(left[at] if at < len(left) else nothing), *(right[at] if at < len(right) else nothing)) for at in range(most)
    ]
    note = "size: channels × rows × columns; sees: pixels that one unit sees"
    return Table(columns, tuple(rows), title=f"The layers of Fig. 3 and of {subject.net.name}", note=note)


_MOST = 24
"""Layers that are listed, at most."""


def _telling(net: Net) -> Sequence[Layer]:
    found = [layer for layer in net.layers.values() if layer.leaf and (layer.parameters or "Pool" in layer.kind)]
    found = [layer for layer in found if "Norm" not in layer.kind]
    step = -(-len(found) // _MOST)
    return [*found[:-1:step], *found[-1:]]


def _cells(layer: Layer) -> tuple[Cell, ...]:
    return layer.name, tuple(layer.shape), layer.seen if layer.spatial else ""
