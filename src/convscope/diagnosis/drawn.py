"""Figures that findings bring as evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ..drawing.charts import lines
from ..drawing.layout import Sheet, Tile

_SIZE = (560, 240)


def ranked(values: Tensor, found: Sequence[int], measure: str, layer: str) -> Callable[[], Sheet]:
    """Draw a number of every unit of a layer from the largest to the smallest, those that were found apart."""
    told, chosen = values.double().cpu(), set(found)

    def draw() -> Sheet:
        order = told.argsort(descending=True).tolist()
        x = list(range(1, len(order) + 1))
        all_units = [float(told[unit]) for unit in order]
        marked = [float(told[unit]) if unit in chosen else float("nan") for unit in order]
        chart = lines(x, {"all units": all_units, "found": marked}, (f"units of {layer}, sorted", measure), _SIZE)
        return Sheet("", ((Tile(chart),),))

    return draw
