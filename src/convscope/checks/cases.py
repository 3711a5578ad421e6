"""A map with what is needed to make it again, on another network or of another picture: where every check starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..context import listen
from ..drawing.drawings import Heatmap
from ..errors import NetworkError
from ..net import Net
from ..objectives import Objective, as_objective
from ..predictions import ObjectiveLike
from ..registry import Entry, find


@dataclass(frozen=True)
class Case:
    """A method, its options, an objective and pixels (1, c, h, w); `values` (c, h, w) is the map they gave."""

    entry: Entry
    options: Mapping[str, Any]
    objective: Objective
    pixels: Tensor
    values: Tensor

    @classmethod
    def of(cls, net: Net, heatmap: Heatmap, objective: ObjectiveLike = None) -> Case:
        """Read back how a map of this network was made.

        `objective` is needed where the map's was a function, which no recipe can hold. Raises NetworkError when other
        weights made the map.
        """
        recipe = heatmap.recipe
        if recipe.weights != net.digest:
            maker = recipe.network.get("name")
            raise NetworkError(
                f"this map was made by {maker} with weights {recipe.weights}, not by {net.name} with {net.digest}: "
                "check it with the network that made it"
            )
        objective = as_objective(net, recipe.objective if objective is None else objective).at("max")
        entry = find(recipe.method)
        return cls(
            entry, entry.check_options(dict(recipe.options)), objective, net.pixels(heatmap.picture), heatmap.values
        )

    def again(self, net: Net, pixels: Tensor) -> Tensor:
        """Make maps (n, c, h, w) of the same objective for pixels (n, c, h, w). Raises NetworkError when not finite."""
        # What the method remarks about these maps is not about the one that is shown.
        with listen():
            maps = self.entry.function(net, pixels, self.objective, **self.options).detach()
        if not torch.isfinite(maps).all():
            raise NetworkError(f"{self.entry.name} gave NaN or infinite values on {net.name} ({net.note})")
        return maps
