"""`convscope layers`: a network's layers as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..drawing.tables import Cell, Column, Table
from . import inputs
from .printing import check_table, print_table

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


def layers(
    context: typer.Context,
    network: inputs.Network = None,
    net: inputs.NetName = None,
    everything: Annotated[bool, typer.Option("--all", help="blocks as well as the layers inside them")] = False,
    weights: Annotated[
        str | None,
        typer.Option(help="as of other commands; without it nothing is downloaded, and weights may be random"),
    ] = None,
    epoch: inputs.Epoch = None,
    device: inputs.Device = "cpu",
    mean: inputs.Mean = None,
    std: inputs.Std = None,
    classes: inputs.Classes = None,
    head: inputs.Head = None,
    fit: inputs.Fit = None,
    value_range: inputs.ValueRange = None,
    show: inputs.Show = None,
    net_seed: inputs.NetSeed = None,
    size: inputs.Size = None,
    out: inputs.TableOut = None,
    as_json: inputs.AsJson = False,
) -> None:
    """List a network's layers: shape, receptive field, step, parameters.

    "sees all" says that every unit reads the whole picture, as attention, a normalisation over positions (GroupNorm,
    LayerNorm, InstanceNorm) or a gate (squeeze and excitation) makes it; "convolutions see" is then what it sees
    through convolutions and pooling alone, where that is less.
    """
    from ..zoo.configured import at_hand, default_network

    check_table(out)
    name = inputs.one_network(context, network, net) or default_network()
    chosen = weights or ("default" if name is None or at_hand(name) else "none")
    reading: dict[str, Any] = {"mean": mean, "std": std, "classes": classes, "head": head}
    reading |= {"fit": fit, "value_range": value_range, "show": show, "net_seed": net_seed}
    loaded = inputs.load_named(name, chosen, epoch, device, [], **reading)
    print_table(layer_table(loaded if size is None else loaded.sized(size), everything=everything), out, as_json)


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
