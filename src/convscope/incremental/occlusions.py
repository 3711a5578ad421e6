"""Occlusions: what layers of a network hold while an occluder slides over a picture, position by position."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..batching import in_batches
from ..context import say
from ..net import Net
from ..tapping import tap
from .sweep import Readings, Sweep
from .tape import CannotFollow, record

_PROBES = 4
_FEW = 8
"""Up to so many positions are computed in full: recording and checking would cost as much."""


@dataclass(frozen=True)
class Occluder:
    """A square that slides over a picture (height, width) in strides, cut off at the border; all in pixels.

    Its positions are numbered row by row.
    """

    height: int
    width: int
    patch: int
    stride: int

    @property
    def rows(self) -> np.ndarray:
        """Where the rows of positions begin and end along y, (2, rows)."""
        return _spans(self.height, self.patch, self.stride)

    @property
    def columns(self) -> np.ndarray:
        """Where the columns of positions begin and end along x, (2, columns)."""
        return _spans(self.width, self.patch, self.stride)

    @property
    def grid(self) -> tuple[int, int]:
        """How many rows and columns of positions there are."""
        return self.rows.shape[1], self.columns.shape[1]

    def box(self, number: int) -> tuple[slice, slice]:
        """Return the pixels hidden at position `number`."""
        i, j = divmod(number, self.grid[1])
        return slice(*self.rows[:, i].tolist()), slice(*self.columns[:, j].tolist())


def _spans(extent: int, patch: int, stride: int) -> np.ndarray:
    """Lay spans side by side until one reaches the border or beyond."""
    last = stride * math.ceil(max(extent - patch, 0) / stride)
    starts = np.arange(0, min(last + 1, extent), stride)
    return np.stack([starts, np.minimum(starts + patch, extent)])


class Occlusions:
    """Read layers of a network while an occluder slides over one picture (1, c, h, w).

    `baseline` (1, c, h, w) has the pixels that replace hidden ones; `memory` is in bytes. Where the network can be
    followed and it pays, only what the occluder can reach is recomputed. The result is the same; before the first one
    is given out, a few positions are computed both ways. Otherwise each position is a full pass. `how` says which it
    was, for the caption.
    """

    def __init__(
        self, net: Net, pixels: Tensor, layers: Sequence[str], occluder: Occluder, baseline: Tensor, memory: int
    ) -> None:
        self.net, self.pixels, self.layers = net, pixels, tuple(layers)
        self.occluder, self.baseline, self.memory = occluder, baseline, memory
        self.count = math.prod(occluder.grid)
        self.sweep: Sweep | None = None
        self.how = self._prepare()

    def _prepare(self) -> str:
        if self.count <= _FEW:
            return "computed in full"
        if self.net.seed is not None:
            return "computed in full: every pass draws the network's random numbers"
        try:
            sweep = Sweep(
                record(self.net, self.pixels, self.layers), (self.occluder.rows, self.occluder.columns), self.memory
            )
            if not sweep.pays:
                return "computed in full: recomputing parts would save nothing"
            self._check(sweep)
        except CannotFollow as error:
            return f"computed in full: the network cannot be followed, {error}"
        except Exception as error:  # full passes need nothing of what failed, and less memory
            return f"computed in full: the network cannot be followed, {_failure(error)}"
        self.sweep = sweep
        return f"recomputed only what the occluder can reach: {sweep.share:.0%} of the work"

    def _check(self, sweep: Sweep) -> None:
        """Compute a few positions both ways. Raises CannotFollow where the results differ."""
        # The first and the last position reach the near and the far edges.
        probes = np.unique(np.linspace(0, self.count - 1, _PROBES).astype(int))
        # One at a time: the check shall not take more memory than the sweep.
        passes = [self._full(probes[i : i + 1]) for i in range(len(probes))]
        expected = {name: torch.cat([readings[name] for readings in passes]) for name in passes[0]}
        for numbers, readings in sweep.run(self.baseline, "", only=probes):
            at = np.searchsorted(probes, numbers)
            for name, value in readings.items():
                full = expected[name][torch.from_numpy(at)]
                scale = max(float(full.abs().max()), 1e-6)
                if not float((value - full).abs().max()) <= _tolerance(value) * scale:
                    raise CannotFollow("parts give other results than full passes")

    @torch.no_grad()
    def _full(self, numbers: np.ndarray) -> Readings:
        """Run whole pictures through the network, each occluded at one position."""
        pictures = self.pixels.repeat(len(numbers), 1, 1, 1)
        for picture, number in zip(pictures, numbers.tolist(), strict=True):
            rows, columns = self.occluder.box(number)
            picture[:, rows, columns] = self.baseline[0, :, rows, columns]
        return tap(self.net, pictures, self.layers)

    def read(self, label: str, only: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, Readings]]:
        """Yield (numbers of positions, readings) until all positions, or those of `only`, have been computed."""
        numbers = np.arange(self.count) if only is None else only
        if self.sweep is not None:
            try:
                for part, readings in self.sweep.run(self.baseline, label, only=numbers):
                    numbers = np.setdiff1d(numbers, part)
                    yield part, readings
                return
            except Exception as error:
                self.sweep = None
                say(f"{len(numbers)} positions computed in full: {_failure(error)}")

        def work(part: slice) -> tuple[np.ndarray, Readings]:
            return numbers[part], self._full(numbers[part])

        yield from in_batches(work, len(numbers), self._batch(), label)

    def _batch(self) -> int:
        """Return how many whole pictures fit the memory: at its largest, a pass holds a few of the largest layers."""
        scale = self.pixels[0].numel() / (self.net.channels * math.prod(self.net.size))
        largest = max((math.prod(layer.shape) for layer in self.net.layers.values()), default=0)
        need = 4 * max(largest * scale, self.pixels.numel()) * self.pixels.element_size()
        return max(1, min(64, int(self.memory / need)))


def _failure(error: Exception) -> str:
    """Say in one line what an operation of the network raised when it was given parts."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"its parts raise {type(error).__name__}: {first[:100]}"


def _tolerance(value: Tensor) -> float:
    return 1000 * torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0


def occluded_scores(
    occlusions: Occlusions, score: Callable[[Readings], Tensor], label: str, only: np.ndarray | None = None
) -> Tensor:
    """Return one score per position, (positions,): all, or those of `only` and NaN elsewhere."""
    scores = occlusions.pixels.new_full((occlusions.count,), torch.nan)
    for numbers, readings in occlusions.read(label, only):
        scores[torch.from_numpy(numbers).to(scores.device)] = score(readings).to(scores)
    return scores


def report(occlusions: Occlusions) -> None:
    """Say in the caption how the positions were computed."""
    say(occlusions.how)
