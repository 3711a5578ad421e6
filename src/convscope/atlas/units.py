"""Units: which layers a scan reads, and what each of their units gives for one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from math import gcd

import numpy as np
import torch
from torch import Tensor

from ..errors import LayerError, nearest
from ..layers import in_order, output_or_layer, picture_layers
from ..net import Net
from ..tracing import OUTPUT, Layer
from .selection import Order
from .statistics import lattice

_WIDE = 32
"""Channels beside one another in memory that are compared at once."""

_HOT = 2**20
"""Bytes of one picture's maps from which on they are read picture by picture."""


def has_units(layer: Layer) -> bool:
    """Whether a layer has units: channels with positions or without, or a token per patch."""
    return layer.channelled or layer.positions > 0


def count_units(layer: Layer) -> int:
    """Return how many units a layer has: channels, of a layer of tokens too."""
    return layer.shape[-1] if layer.tokens or layer.channels_last else layer.shape[0]


def choose_layers(net: Net, patterns: Sequence[str] = ()) -> list[Layer]:
    """Return the layers that a scan reads, in execution order.

    Args:
        net: the network.
        patterns: names, numbers of convolutions, or patterns ("features.*"), of which each must match; by default every
            convolution and linear layer, or the normalisation that follows it, and the output.

    Raises LayerError for a name or pattern that matches no layer with units.
    """
    if not patterns:
        return _default(net)
    chosen: list[Layer] = []
    for pattern in patterns:
        named = [layer for layer in picture_layers(net) if fnmatchcase(layer.name, pattern)]
        if not named or not any(sign in pattern for sign in "*?["):
            named = [output_or_layer(net, "" if pattern == "output" else pattern)]
        units = [layer for layer in named if has_units(layer) and (layer.name or len(named) == 1)]
        if not units:
            names = nearest(pattern, [layer.name for layer in picture_layers(net) if has_units(layer) and layer.leaf])
            raise LayerError(
                f"no layer of {net.name} that {pattern!r} names has units: they have neither channels nor a token per "
                f"patch; such are {names}"
            )
        chosen += units
    return in_order(net, chosen)


def _default(net: Net) -> list[Layer]:
    """Return what is rectified afterwards, where it is not yet: there the weakest pictures can be told too."""
    leaves = [layer for layer in picture_layers(net) if layer.leaf and layer.name]
    chosen: list[Layer] = []
    for layer, after in zip(leaves, [*leaves[1:], None], strict=False):
        weighted = layer.number is not None or layer.kind == "Linear"
        if weighted and after is not None and "Norm" in after.kind and after.shape == layer.shape:
            chosen.append(after)
        elif weighted:
            chosen.append(layer)
    chosen = [layer for layer in chosen if has_units(layer)]
    if OUTPUT in net.layers and has_units(net.layers[OUTPUT]) and not _is_output(net, chosen):
        chosen.append(net.layers[OUTPUT])
    if not chosen:
        raise LayerError(f"{net.name} has no convolution or linear layer whose units could be scanned: name layers")
    return in_order(net, chosen)


def _is_output(net: Net, chosen: Sequence[Layer]) -> bool:
    """Whether the last of the layers gives the output itself."""
    return bool(chosen) and chosen[-1].shape == net.layers[OUTPUT].shape


class Activity:
    """The activity of a layer's units in a batch, as (n, rows, columns, units), whatever the layer's own layout.

    It is a view of the layer's output, without a copy where that lies channels last in memory.
    """

    def __init__(self, layer: Layer, output: Tensor) -> None:
        output = output.dequantize() if output.is_quantized else output
        if layer.positions:
            maps = layer.by_position(output)
            # Rows and columns stay the layer's own, as objectives name them.
            self.values = (maps.mT if layer.lattice.swapped else maps).permute(0, 2, 3, 1).float()
        else:
            self.values = output.flatten(1)[:, None, None].float()

    def sample(self) -> Tensor:
        """Return the activity at the lattice's positions, (n, positions, units)."""
        positions = self.values.flatten(1, 2)
        return positions[:, lattice(positions.shape[1])]

    def extremes(self, *orders: Order) -> list[Extreme]:
        """Return the largest or smallest values of the units, (n, units) for each order; NaN where there is one."""
        by_row = _over_columns(self.values, [_EXTREMES[order] for order in orders])
        return [Extreme(self.values, rows, order) for rows, order in zip(by_row, orders, strict=True)]


_EXTREMES = {"largest": torch.amax, "smallest": torch.amin}


class Extreme:
    """The largest or smallest values of units, and where they lie."""

    def __init__(self, values: Tensor, by_row: Tensor, order: Order) -> None:
        self._values, self._by_row, self._order = values, by_row, order
        self.values = _EXTREMES[order](by_row, 1)

    def find(self, which: Tensor, places: Tensor) -> None:
        """Write to `places` (n, units) at which position each extreme lies, where `which` (n, units) asks for it.

        Positions are counted by rows; of equal ones it is the first.
        """
        if which.is_cpu:
            self._find_few(which.numpy(), places.numpy())
            return
        # Elsewhere to look which are asked for would take longer.
        first = torch.argmax if self._order == "largest" else torch.argmin
        row = first(self._by_row, 1)
        column = first(self._values.gather(1, row[:, None, None].expand(-1, 1, self._values.shape[2], -1))[:, 0], 1)
        places.copy_(row * self._values.shape[2] + column)

    def _find_few(self, which: np.ndarray, places: np.ndarray) -> None:
        """Do so for the few that are asked for: indices cost arrays a tenth of what they cost tensors."""
        first = np.argmax if self._order == "largest" else np.argmin
        values, by_row = self._values.numpy(), self._by_row.numpy()
        picture, unit = which.nonzero()
        if len(picture) == 0:
            return
        row = first(by_row[picture, :, unit], 1)
        column = first(values[picture, row, :, unit], 1)
        places[picture, unit] = row * values.shape[2] + column


def _over_columns(values: Tensor, extremes: Sequence[Callable[..., Tensor]]) -> list[Tensor]:
    """Return each of some extremes over the columns of (n, rows, columns, units)."""
    if len(extremes) == 1 or not values.is_cpu or values[0].nbytes < _HOT:
        return [_together(values, extreme) for extreme in extremes]
    # A picture's maps are still in the processor's cache when they are read again.
    each = [[_together(picture, extreme) for extreme in extremes] for picture in values.split(1)]
    return [torch.cat(parts) for parts in zip(*each, strict=True)]


def _together(values: Tensor, extreme: Callable[..., Tensor]) -> Tensor:
    """Return an extreme over the columns of (n, rows, columns, units), several of which are compared at once.

    torch compares 32 neighbours in memory at a time; of 16 or 24 channels it would take them one by one, 15 times as
    slow.
    """
    count, rows, columns, units = values.shape
    together = _WIDE // gcd(units, _WIDE) if units < 2 * _WIDE else 1
    whole = columns // together * together
    if values.is_cuda or together == 1 or whole == 0 or not values.is_contiguous():
        return extreme(values, 2)
    beside = values[:, :, :whole].reshape(count, rows, -1, together * units)
    folded = extreme(beside, 2).view(count, rows, together, units)
    return extreme(torch.cat([folded, values[:, :, whole:]], 2), 2)
