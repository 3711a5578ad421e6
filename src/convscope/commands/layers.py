"""`convscope layers`: a network's layers as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ..drawing.tables import Cell, Column, Table
from . import inputs
from .groups import grouped
from .network import First, Network, one_network
from .tables import TableOutput

if TYPE_CHECKING:
    from ..layers import Layer
    from ..net import Net

_COLUMNS = (
    Column("number", "whole", head="conv"),
    Column("layer", unbroken=True),
    Column("kind"),
    Column("shape", "size"),
    Column("field", "size", head="sees", unit="px"),
    Column("shared", "flag", head="sees all"),
    Column("windows", "size", head="convolutions see", unit="px"),
    Column("step", "size", unit="px"),
    Column("parameters", "whole"),
)


@grouped
def layers(
    context: typer.Context,
    network: Network,
    output: TableOutput,
    first: First = None,
    everything: Annotated[bool, typer.Option("--all", help="blocks as well as the layers inside them")] = False,
    size: inputs.Size = None,
) -> None:
    """List a network's layers: shape, receptive field, step, parameters.

    "sees all" says that every unit reads the whole picture, as attention, a normalisation over positions (GroupNorm,
    LayerNorm, InstanceNorm) or a gate (squeeze and excitation) makes it; "convolutions see" is then what it sees
    through convolutions and pooling alone, where that is less. Without --weights nothing is downloaded: weights that
    are not at hand are then random.
    """
    from ..zoo.configured import at_hand, default_network

    output.check()
    name = one_network(context, first, network.net) or default_network()
    weights = network.weights or ("default" if name is None or at_hand(name) else "none")
    loaded = replace(network, net=name, weights=weights).load(size=size)
    output.print(layer_table(loaded if size is None else loaded.sized(size), everything=everything))


def layer_table(net: Net, *, everything: bool = False) -> Table:
    """Return a network's layers as a table; with `everything` also blocks, which hold others."""
    from ..recipes import Recipe

    rows = [_row(layer) for layer in net.layers.values() if layer.leaf or everything]
    # In most networks windows are all that units see by.
    kept = [k for k, column in enumerate(_COLUMNS) if column.name != "windows" or any(row[k] for row in rows)]
    columns = tuple(_COLUMNS[k] for k in kept)
    title = f"{net.name}, pictures of {net.size[0]} × {net.size[1]}"
    recipe = Recipe(method="layers", network={"name": net.name}, weights=net.digest)
    return Table(columns, tuple(tuple(row[k] for k in kept) for row in rows), recipe, title)


def _row(layer: Layer) -> tuple[Cell, ...]:
    alone = layer.lattice
    return (
        layer.number or None,
        layer.name or "(output)",
        layer.kind,
        tuple(layer.shape),
        tuple(layer.field.size),
        True if layer.field.shared else None,
        tuple(alone.size) if layer.field.shared and not alone.shared else None,
        None if alone.shared or alone.moved else tuple(map(abs, alone.step)),
        layer.parameters or None,
    )
