"""The randomisation check of many maps: networks with random weights are made once, and their maps in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..drawing.drawings import Heatmap
from ..net import Net
from ..objectives import Objective
from ..predictions import batched
from ..ranks import rank_correlation
from .cases import Case
from .random_weights import randomise, twin_of, weighted_layers
from .randomisation import cascade, groups_of
from .similarity import strength

_KEPT = 50_000_000
"""Weights up to which the random networks are kept for the next maps."""


class Randomised:
    """Scores maps of one network as `checked` does, with the same numbers."""

    def __init__(self, net: Net, *, stages: int = 3, seed: int = 0) -> None:
        """Raises NetworkError for a network that has no weights or cannot be copied."""
        self.net, self.stages, self.seed = net, stages, seed
        self.groups = groups_of(weighted_layers(net), stages)
        small = sum(weight.numel() for weight in net.body.parameters()) <= _KEPT
        self.twins = list(self._twins()) if small else None

    def _twins(self) -> Iterator[Net]:
        twin = self.net
        for group in self.groups:
            twin = twin_of(twin)
            randomise(twin, group, "he", self.seed)
            twin.note = f"random weights down to {group[-1][1]}"
            yield twin

    def scores(self, heatmaps: Sequence[Heatmap]) -> list[float]:
        """Return the mean similarity of each map with those of random weights; all are of one method and size.

        Raises NetworkError, and ObjectiveError where the objective was a function.
        """
        cases = [Case.of(self.net, heatmap) for heatmap in heatmaps]
        pixels = torch.cat([case.pixels for case in cases])
        objective = batched([case.objective for case in cases])
        similar: list[list[float]] = [[] for _ in cases]
        alone: set[int] = set()
        for twin in self._twins() if self.twins is None else self.twins:
            maps = cases[0].again_for(twin, pixels, objective)
            alone |= _without_answer(twin, pixels, objective, maps)
            for row, (case, map_) in enumerate(zip(cases, maps, strict=True)):
                similar[row].append(_similarity(case.values, map_))
        return [
            cascade(self.net, heatmap, stages=self.stages, seed=self.seed).score
            if row in alone  # other random weights are drawn for this picture
            else sum(similar[row]) / len(similar[row])
            for row, heatmap in enumerate(heatmaps)
        ]


def _without_answer(twin: Net, pixels: Tensor, objective: Objective, maps: Tensor) -> set[int]:
    """Return the rows whose score does not depend on the picture, or whose map is constant."""
    with torch.inference_mode():
        scores = torch.stack([objective(twin, each) for each in (pixels, pixels.flip(3), torch.full_like(pixels, 0.5))])
    flat = maps.flatten(1)
    dead = (scores == scores[0]).all(0) | (flat == flat[:, :1]).all(1)
    return set(dead.nonzero().flatten().tolist())


def _similarity(one: Tensor, other: Tensor) -> float:
    magnitude, signed = rank_correlation(strength(one), strength(other)), rank_correlation(one, other)
    return max(abs(magnitude), abs(signed))
