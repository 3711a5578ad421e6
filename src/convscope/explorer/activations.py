"""Activations: a unit at a place of a picture, its value and its projection, by one pass there and one back.

Projecting many units is quicker from crops (`atlas.crops`); for one, to find the crops costs more than the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..atlas.crops import METHODS, Method, Projected, Spot, checked_position, gate_remark
from ..context import listen, remarks_about
from ..layers import layer_at
from ..net import Net
from ..objectives import Objective
from ..running import check_repeatable
from ..tracing import Layer


@dataclass(eq=False)
class Witness:
    """A term of an objective that is worth nothing: it keeps what a pass gives a layer, (1, ...)."""

    of: Layer
    activity: Tensor | None = None

    @property
    def layer(self) -> str:
        return self.of.name

    def read(self, activity: Tensor) -> Tensor:
        """Keep the activity of the first pass."""
        self.activity = activity.detach() if self.activity is None else self.activity
        return activity.new_zeros(len(activity))

    def title(self, net: Net) -> str:
        return self.of.title


@dataclass(eq=False)
class Aim:
    """A term of an objective: a unit at a row and column of its layer's grid, or where it is strongest, "at" None."""

    of: Layer
    unit: int
    at: tuple[int, int] | None = None
    value: float = field(default=0.0, init=False)

    @property
    def layer(self) -> str:
        return self.of.name

    def read(self, activity: Tensor) -> Tensor:
        """Return the unit's value, (n,), and remember it and its place."""
        if self.of.positions:
            # Places are those of the layer's own grid, as in objectives; a swapped one lies across the picture.
            channel = self.of.by_position(activity)[:, self.unit]
            across = self.of.lattice.along
            self.at = self.at or across(divmod(int(channel.detach()[0].argmax()), channel.shape[2]))
            y, x = across(self.at)
            chosen = channel[:, y, x]
        else:
            chosen = activity[:, self.unit]
        self.value = float(chosen.detach()[0])
        return chosen

    def title(self, net: Net) -> str:
        return f"unit {self.unit} of {self.of.title}"


@dataclass(frozen=True)
class Activation:
    """A unit's value at a place of a picture, and what it sees there with its projection.

    `y` and `x` are the row and column in the layer's grid, None for a layer without positions.
    """

    unit: int
    y: int | None
    x: int | None
    value: float
    projected: Projected


def activate(
    net: Net,
    pixels: Tensor,
    layer: Layer,
    unit: int,
    at: tuple[int, int] | None = None,
    method: Method = "deconvnet",
    witnesses: Sequence[Witness] = (),
) -> Activation:
    """Project a unit's activation in pixels (1, c, h, w); `at` None is where it is strongest.

    `witnesses` see the same pass. Raises LayerError for a unit or place that there is not, RuleError where the rule has
    no meaning for the network; what the witnesses saw by then, they keep.
    """
    size = (pixels.shape[2], pixels.shape[3])
    layer = layer_at(net, layer, pixels)
    first = (0, 0) if layer.positions else (None, None)
    checked_position(Spot(None, unit, *(at or first)), layer, size)
    check_repeatable(net, pixels)
    aim = Aim(layer, unit, at)
    with listen() as remarks:
        objective = Objective(tuple((1.0, term) for term in (aim, *witnesses)))
        projection = METHODS[method](net, pixels, [objective])[0]
    box = layer.shown_field.box(aim.at or (0, 0), size)
    top, left, bottom, right = box
    inside = (slice(None), slice(top, bottom), slice(left, right))
    said = tuple(filter(None, (*remarks_about(remarks, 0), gate_remark(layer))))
    y, x = aim.at or (None, None)
    return Activation(unit, y, x, aim.value, Projected(pixels[0][inside], projection[inside], box, said))
