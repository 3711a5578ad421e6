"""A map with what is needed to compute it again, with another network or another picture: where every check starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..context import listen, whole
from ..drawing.drawings import Heatmap
from ..errors import NetworkError, ObjectiveError
from ..net import Net
from ..objectives import Objective, objective_for
from ..predictions import ObjectiveLike
from ..recipes import Recipe
from ..registry import Entry, find


@dataclass(frozen=True)
class Case:
    """A method, its options, an objective and pixels (1, c, h, w), with the map `values` (c, h, w) that they give."""

    entry: Entry
    options: Mapping[str, Any]
    objective: Objective
    pixels: Tensor
    values: Tensor

    @classmethod
    def of(cls, net: Net, heatmap: Heatmap, objective: ObjectiveLike = None) -> Case:
        """Read a map's recipe back.

        `objective` is needed where the map's was a function, which no recipe can hold. Raises ObjectiveError
        without it, NetworkError for a map by other weights.
        """
        recipe = heatmap.recipe
        if recipe.weights != net.digest:
            maker = recipe.network.get("name")
            raise NetworkError(
                f"this map was made by {maker} with weights {recipe.weights}, not by {net.name} with {net.digest}: "
                "check it with the network that made it"
            )
        if objective is None:
            objective = _recorded(recipe)
        entry, pixels = find(recipe.method), net.pixels(heatmap.picture)
        return cls(
            entry=entry,
            options=entry.check_options(dict(recipe.options)),
            objective=objective_for(net, objective, pixels),
            pixels=pixels,
            values=heatmap.values,
        )

    def again(self, net: Net, pixels: Tensor) -> Tensor:
        """Compute maps (n, c, h, w) of the objective for pixels (n, c, h, w). Raises NetworkError where not finite."""
        return self.again_for(net, pixels, self.objective)

    def again_for(self, net: Net, pixels: Tensor, objective: Objective) -> Tensor:
        """Compute maps as `again` does, of another objective, which may be one for each picture."""
        # What the method remarks about these maps is not about the one that is shown.
        with listen(), whole():
            maps = self.entry.function(net, pixels, objective, **self.options).detach()
        if not torch.isfinite(maps).all():
            raise NetworkError(f"{self.entry.name} gave NaN or infinite values on {net.name} ({net.note})")
        return maps


def _recorded(recipe: Recipe) -> str:
    """Return the objective that a recipe holds. Raises ObjectiveError where it was a function."""
    if isinstance(recipe.of, Mapping):
        name = recipe.of.get("function", "a function")
        raise ObjectiveError(f"the objective of this map was a function, {name}: give it again, as of={name}")
    return recipe.objective
