"""Invariance: how features and the answer change while pictures are shifted, enlarged and rotated.

After Zeiler and Fergus (arXiv:1311.2901v3, Fig. 5): the Euclidean distance between the features of a changed picture
and those of the picture itself, in the first layer and in the last before the classes, and the class's probability.
The paper says neither how features are scaled nor what lies beyond the picture's border: here distances stand as they
are and divided by the norm of the picture's own features, and options say what fills the border. Beside that, the same
before and after each pooling layer, and how often the first choice changes when a picture moves by one pixel (Zhang,
arXiv:1904.11486; Azulay and Weiss, arXiv:1805.12177: layers that step over positions alias, and answers are lost).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated

import torch
from torch import Tensor

from .. import baselines
from ..attribution.occlusion import BaselineOption
from ..context import track
from ..drawing.study import Study
from ..layers import before_classes, default_convolutions, find_layer
from ..net import Net
from ..options import Range
from ..predictions import ObjectiveLike, first_choices
from ..recipes import Recipe
from ..registry import view
from ..running import blank
from ..tracing import Layer
from ..views.inputs import class_asked
from .changing import BorderOption, Change, changed, changes, shifted
from .invariance_sheet import Measured, sheet_of, summary_of, table_of
from .keeping import Keep, kept
from .labelled import Labelled, Labels, Limit, PerClass, Seed
from .reading import BEFORE, compare, pooling_layers

_NEIGHBOURS = tuple(step for step in product((-1, 0, 1), repeat=2) if step != (0, 0))
_PART = 16
"""Pictures whose numbers are kept together."""


Amounts = list[float] | None
Vertical = Annotated[
    Amounts, "first and last shift in pixels of the network's input; ±60 of 224 by default, 0 for none"
]
Horizontal = Annotated[Amounts, "the same to the right"]
Scale = Annotated[Amounts, "first and last factor; 1,1.8 by default, 0 for none"]
Rotation = Annotated[Amounts, "first and last angle in degrees; 0,360 by default, 0 for none"]
Shift = Annotated[
    int, "pixels by which pictures move in eight directions to see whether the answer stays; 0 for none", Range(0)
]
Layers = Annotated[
    list[str] | None,
    "layers whose features are compared; by default the first convolution and the last layer before the classes",
]
Class = Annotated[
    ObjectiveLike, "the class whose probability is shown; by default each picture's true one, or first choice"
]


@view("Invariance", kind="study", group="study", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Fig. 5")
def invariance(
    net: Net,
    data: Labelled,
    *,
    of: Class = None,
    layers: Layers = None,
    steps: Annotated[int, "number of amounts by which pictures are changed each way", Range(3)] = 13,
    baseline: BaselineOption = "mean",
    border: BorderOption = "baseline",
    vertical: Vertical = None,
    horizontal: Horizontal = None,
    scale: Scale = None,
    rotation: Rotation = None,
    pooling: Annotated[bool, "also before and after each pooling layer"] = True,
    shift: Shift = 1,
    labels: Labels = None,
    per_class: PerClass = 0,
    limit: Limit = 50,
    seed: Seed = 0,
    keep: Keep = None,
) -> Study:
    """Measure how features and a class's probability change while pictures are shifted, enlarged and rotated.

    The values are `distances` (changes, layers, pictures, steps), Euclidean and divided by the norm of the picture's
    own features, `raw`, the same undivided, `probability` or, where the output is none, `score` (changes, pictures,
    steps), `amounts` (changes, steps), `pooling` (changes, pooling layers, input and output, pictures, steps), and
    `stays` (pictures, 8 directions), 1 where the first choice stays. Raises LayerError for a layer that there is not,
    NetworkError where outputs are no classes, OptionError for a range that is none.
    """  # fmt: skip
    asked = class_asked(net, blank(net, net.size), of)
    names = [layer.name for layer in ([find_layer(net, name) for name in layers] if layers else _two(net))]
    pools = [layer.name for layer in pooling_layers(net)] if pooling else []
    ranges = {"vertical": vertical, "horizontal": horizontal, "scale": scale, "rotation": rotation}
    changes(*net.size, ranges)  # refuses what is no range before a picture is read
    _, first = next(data.batches(1))
    targets = [asked] * len(data) if of is not None else _targets(net, data)
    height, width = first.shape[2:]
    shift = 0 if net.head.kind == "value" else shift  # a score chooses nothing
    plan = _Plan(net, names, pools, changes(height, width, ranges), steps, border, baseline, shift)
    parts = [
        kept(keep, f"pictures {start}", lambda start=start: plan.measure(data, targets, start))
        for start in track(range(0, len(data), _PART), "invariance")
    ]
    return _drawn(plan, data, targets, parts, seed, first)


def _drawn(
    plan: _Plan,
    data: Labelled,
    targets: Sequence[int],
    parts: Sequence[Mapping[str, Tensor]],
    seed: int,
    first: Tensor,
) -> Study:
    """Return the study of what was measured of parts of the data; `first` is the picture that is shown."""
    net, kinds, steps, border = plan.net, plan.kinds, plan.steps, plan.border
    values = {name: torch.cat([part[name] for part in parts], dim) for name, dim in _BY_PICTURE.items()}
    values["amounts"] = torch.tensor([kind.amounts(steps) for kind in kinds]).reshape(len(kinds), steps)
    word = "score" if net.head.kind == "value" else "probability"
    values[word] = values.pop("said")
    if not plan.shift:
        del values["stays"]
    measured = Measured(
        net, data, tuple(targets), tuple(plan.layers), tuple(plan.pools), tuple(kinds), word, values, seed, plan.shift
    )
    samples = [changed(first, kind, kind.amounts(steps), border, plan.replacement(first)) for kind in kinds]
    figure = sheet_of(measured, samples, f"baseline {plan.baseline}" if border == "baseline" else border)
    recipe = Recipe(settled={"layers": list(plan.layers), "classes": sorted(set(targets))})
    return Study(measured.gist, table_of(measured), figure, values, recipe, summary_of(measured))


_BY_PICTURE = {"distances": 2, "raw": 2, "said": 1, "pooling": 3, "stays": 0}
"""What is measured, and the dimension that counts pictures."""


def _two(net: Net) -> list[Layer]:
    """Return the paper's layers 1 and 7: the first convolution, and what the classes are read from."""
    return list(dict.fromkeys((default_convolutions(net)[0], before_classes(net))))


def _targets(net: Net, data: Labelled) -> list[int]:
    """Return the class of each picture, the first choice where that is not known."""
    found: list[int | None] = list(data.answers)
    for rows, pixels in data.batches() if None in found else ():
        for row, choice in zip(rows, first_choices(net, pixels), strict=True):
            found[row] = choice if found[row] is None else found[row]
    return [target for target in found if target is not None]


@dataclass(frozen=True)
class _Plan:
    """What is measured of each picture."""

    net: Net
    layers: Sequence[str]
    pools: Sequence[str]
    kinds: Sequence[Change]
    steps: int
    border: BorderOption
    baseline: str
    shift: int

    def replacement(self, pixels: Tensor) -> Tensor:
        return baselines.baseline_pixels(self.net, pixels, self.baseline)

    def measure(self, data: Labelled, targets: Sequence[int], start: int) -> Mapping[str, Tensor]:
        """Measure some pictures from one on; pictures in the dimensions of `_BY_PICTURE`."""
        rows = range(start, min(start + _PART, len(data)))
        found = [self._measure(pixels, targets[rows[at[0]]]) for at, pixels in data.subset(rows).batches(1)]
        return {name: torch.stack([each[name] for each in found], dim) for name, dim in _BY_PICTURE.items()}

    def _measure(self, pixels: Tensor, target: int) -> Mapping[str, Tensor]:
        replacement = self.replacement(pixels)
        each = [changed(pixels, kind, kind.amounts(self.steps), self.border, replacement) for kind in self.kinds]
        near = [
            shifted(pixels, down * self.shift, right * self.shift, self.border, replacement)
            for down, right in _NEIGHBOURS
        ]
        compared = compare(self.net, pixels, torch.cat([*each, pixels, *near]), self.layers, self.pools)
        count = len(self.kinds) * self.steps
        relative = compared.relative

        def by_change(values: Tensor) -> Tensor:
            return values[:count].reshape(len(self.kinds), self.steps)

        answer, *others = _choices(compared.said[count:])
        pairs = [
            torch.stack([by_change(relative[BEFORE.format(pool)]), by_change(relative[pool])], 1) for pool in self.pools
        ]
        return {
            "distances": torch.stack([by_change(relative[name]) for name in self.layers], 1),
            "raw": torch.stack([by_change(compared.raw[name]) for name in self.layers], 1),
            "said": by_change(compared.said[:, target]),
            "pooling": torch.stack(pairs, 1) if pairs else torch.zeros(len(self.kinds), 0, 2, self.steps),
            "stays": torch.tensor([float(choice == answer) for choice in others]),
        }


def _choices(said: Tensor) -> list[int]:
    """Return the first choice of each row; of one probability, whether it is above a half."""
    return (said.argmax(1) if said.shape[1] > 1 else (said[:, 0] > 0.5).long()).tolist()
