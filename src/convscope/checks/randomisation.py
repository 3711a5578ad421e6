"""Parameter randomisation: a map that depends on what was learnt must change when the weights become random.

Adebayo et al., "Sanity Checks for Saliency Maps" (arXiv:1810.03292, sec. 3): re-initialise the weights from the output
down, layer after layer (cascading), or one layer at a time (independent), and compare the maps before and after. The
gradient and Grad-CAM lose all similarity; guided backpropagation hardly depends on the upper layers (the authors'
erratum: it is not invariant to the lower ones).

Similarity is measured in three ways. `magnitude`: Spearman's rank correlation of the magnitudes, summed over colour
channels; the sign of a map may turn over while it shows the same edges. `signed`: the same of all values with their
sign. `ssim`: structural similarity (Wang et al. 2004; windows of 7 pixels) of the magnitudes divided by their maxima. A
constant map is similar to another constant one (1) and to no other (0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..context import say, track
from ..drawing.drawings import Heatmap
from ..errors import OptionError
from ..interruptions import orderly
from ..net import Net
from ..predictions import ObjectiveLike
from ..ranks import rank_correlation
from .cases import Case
from .random_weights import Initialisation, randomise, twin_of, weighted_layers
from .similarity import strength, structural_similarity

_FOLLOWS, _IGNORES = 0.4, 0.6
"""Below the first a map depends on the weights, above the second it hardly does. Gradients reach 0.2 to 0.35, since
even with random weights they are larger where the picture has contrast; guided backpropagation reaches 0.7 to 0.8."""

_ATTEMPTS, _MAPS = 12, 3
"""Draws of random weights until the score depends on the picture, and maps until one is not constant."""


@dataclass(frozen=True, eq=False)
class Cascade:
    """Maps of one picture while the network loses its weights, and how similar they are to the original map.

    `maps` holds the original map and one per stage, each (c, h, w); stage i randomised the layers down to `stages[i]`,
    the output's first (or, where `independent`, only those since the stage before). `magnitude` and `signed` are
    rank correlations in [-1, 1], `ssim` a structural similarity, one per stage.
    """

    heatmap: Heatmap
    stages: tuple[str, ...]
    maps: tuple[Tensor, ...]
    magnitude: tuple[float, ...]
    signed: tuple[float, ...]
    ssim: tuple[float, ...]
    independent: bool = False

    @property
    def similarity(self) -> tuple[float, ...]:
        """The larger of the two rank correlations of each stage, without its sign."""
        return tuple(max(abs(m), abs(s)) for m, s in zip(self.magnitude, self.signed, strict=True))

    @property
    def score(self) -> float:
        """The mean similarity over the stages: near 0 where the map depends on the weights, 1 where it does not."""
        return float(np.mean(self.similarity))


@orderly
def cascade(
    net: Net,
    heatmap: Heatmap,
    *,
    stages: int = 6,
    independent: bool = False,
    weights: Initialisation = "he",
    seed: int = 0,
    of: ObjectiveLike = None,
) -> Cascade:
    """Randomise a network from the output down and compare the maps with the original one.

    Args:
        net: the network that made the map; it is left as it was.
        heatmap: the map, as `explain` returns it.
        stages: number of maps; the first stage randomises the output's layer alone, the others equal shares.
        independent: randomise the layers of each stage alone, with all others trained.
        weights, seed: as in `randomised`.
        of: the objective again, where it was a function.

    The objective stays that of the original map. Raises NetworkError when other weights made the map, OptionError for
    stages below 1.
    """
    case = Case.of(net, heatmap, of)
    groups = groups_of(weighted_layers(net), stages)
    twin, maps = twin_of(net), [heatmap.values]
    for group in track(groups, f"{case.entry.name}: randomising"):
        if independent:
            twin = twin_of(net)
        twin.note = f"random weights down to {group[-1][1]}"
        maps.append(_map_of_random_weights(twin, case, group, weights, seed))
    return Cascade(
        heatmap=heatmap,
        stages=tuple(group[-1][1] for group in groups),
        maps=tuple(maps),
        magnitude=tuple(rank_correlation(strength(maps[0]), strength(map_)) for map_ in maps[1:]),
        signed=tuple(rank_correlation(maps[0], map_) for map_ in maps[1:]),
        ssim=tuple(structural_similarity(strength(maps[0]), strength(map_)) for map_ in maps[1:]),
        independent=independent,
    )


def _map_of_random_weights(
    twin: Net, case: Case, group: Sequence[tuple[int, str]], weights: Initialisation, seed: int
) -> Tensor:
    """Randomise a group of layers in a copy and return the map (c, h, w), with weights for which it is not constant.

    Random rectified networks often have a constant output: nothing can be compared then, so weights are drawn again, a
    few times. Whether the score depends on the picture takes one pass, a map may take thousands.
    """
    map_, maps = torch.zeros_like(case.values), 0
    for attempt in range(_ATTEMPTS):
        randomise(twin, group, weights, seed + 1009 * attempt)
        if not _depends_on_picture(twin, case):
            continue
        map_, maps = case.again(twin, case.pixels)[0], maps + 1
        if bool((map_ != map_.flatten()[0]).any()):
            return map_
        if maps == _MAPS:
            break
    say(f"{case.entry.name} gives a constant map for all random weights that were tried, down to {group[-1][1]}")
    return map_


def _depends_on_picture(net: Net, case: Case) -> bool:
    """Whether the score differs between the picture, its mirror image and grey."""
    pixels = case.pixels
    with torch.inference_mode():
        scores = case.objective(net, torch.cat([pixels, pixels.flip(3), torch.full_like(pixels, 0.5)]))
    return bool((scores != scores[0]).any())


def groups_of(layers: tuple[str, ...], stages: int) -> list[list[tuple[int, str]]]:
    """Cut numbered layers into stages: the first one layer, the others of equal length."""
    if stages < 1:
        raise OptionError(f"stages is at least 1, not {stages}")
    count = min(stages, len(layers))
    ends = np.rint(np.linspace(1, len(layers), count)).astype(int) if count > 1 else [len(layers)]
    starts = [0, *ends[:-1]]
    numbered = list(enumerate(layers))
    return [numbered[start:end] for start, end in zip(starts, ends, strict=True)]


@orderly
def checked(net: Net, heatmap: Heatmap, *, stages: int = 3, seed: int = 0, of: ObjectiveLike = None) -> Heatmap:
    """Return a map with its randomisation score in the note and in the recipe's remarks.

    It costs `stages` more maps: by default with the output's layer randomised, the upper half of the layers, and all.
    `of` is the objective again, where it was a function.
    """
    remark = verdict(cascade(net, heatmap, stages=stages, seed=seed, of=of).score)
    settled = {**heatmap.recipe.settled, "check": True}
    recipe = replace(heatmap.recipe, remarks=(*heatmap.recipe.remarks, remark), settled=settled)
    return replace(heatmap, note="\n".join(filter(None, (heatmap.note, remark))), recipe=recipe)


def verdict(score: float) -> str:
    """Say what a randomisation score means."""
    degree = "depends" if score < _FOLLOWS else "only partly depends" if score < _IGNORES else "hardly depends"
    return (
        f"randomisation check: rank correlation {score:.2f} with maps of the network with randomised weights: "
        f"this map {degree} on what was learnt"
    )
