"""What a dream maximizes: a layer's energy, a unit, or likeness to what a layer sees in a guide."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.images import PictureSource
from ..errors import ObjectiveError, OptionError
from ..layers import find_layer, spatial_layer, trunk_layer
from ..net import Net
from ..objectives import Objective, Term, Unit, as_objective
from ..tapping import tap
from ..terms import Energy

_AT_ONCE = 4096
"""Positions that are compared with a guide at once: all those of a large layer would not fit in memory."""


@dataclass(frozen=True, eq=False)
class Guided:
    """The mean over positions of the largest dot product of their activity with that of a position of the guide.

    `guide` is the guide's activity, (positions, c). The gradient is the notebook's: at each position, the guide's
    feature vector with the largest dot product.
    """

    layer: str
    guide: Tensor
    name: str = ""

    def read(self, activity: Tensor) -> Tensor:
        """Return one number per picture, (n, c, h, w) to (n,)."""
        positions = activity.flatten(2).transpose(1, 2)
        with torch.no_grad():
            parts = positions.detach().split(_AT_ONCE, dim=1)
            nearest = torch.cat([(part @ self.guide.T).argmax(2) for part in parts], 1)
        return (positions * self.guide[nearest]).sum(2).mean(1)

    def __str__(self) -> str:
        return f"guided({self.layer}, {self.name})"

    def title(self, net: Net) -> str:
        """Describe the term in plain words."""
        return f"{self.layer} guided by {self.name}"


def dream_objective(
    net: Net, of: str | int | Objective | None, layer: str | None, guide: PictureSource | None
) -> Objective:
    """Return the objective of a dream: `of`, the energy of a layer, or a layer guided by a picture.

    Raises OptionError for `of` beside the others, ObjectiveError for a unit at one position, LayerError.
    """
    if of is not None and (layer is not None or guide is not None):
        raise OptionError("of is the whole objective; layer and guide replace it: give of, or layer and guide")
    if of is not None:
        return Objective(tuple((weight, _without_position(term)) for weight, term in as_objective(net, of).terms))
    chosen = trunk_layer(net) if layer is None else find_layer(net, layer)
    if guide is None:
        return Objective(((1.0, Energy(chosen.name)),))
    chosen = spatial_layer(net, chosen.name, purpose="a guide")
    picture = net.prepare(guide)
    with torch.no_grad():
        activity = tap(net, net.pixels(picture), [chosen.name])[chosen.name]
    return Objective(((1.0, Guided(chosen.name, activity[0].flatten(1).T, picture.name or "a picture")),))


def _without_position(term: Term) -> Term:
    if isinstance(term, Unit) and term.channel is None:
        return Energy(term.layer)
    if isinstance(term, Unit) and (isinstance(term.position, tuple) or term.position == "centre"):
        raise ObjectiveError(
            f"a dream is computed at several sizes, and {term} is a position at one: use {term.layer}:{term.channel}"
        )
    return term
