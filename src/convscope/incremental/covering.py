"""What a network reads when parts of a picture are covered, one after the other."""

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

_PROBES = 3
_FEW = 8
"""So few positions are computed in full: recording and checking would cost as much."""


@dataclass(frozen=True)
class Squares:
    """Squares laid over a picture: rows by columns of them, those at the border cut off there."""

    height: int
    width: int
    patch: int
    stride: int

    @property
    def rows(self) -> np.ndarray:
        """The squares' extents along y: two lines, where they begin and end."""
        return _spans(self.height, self.patch, self.stride)

    @property
    def columns(self) -> np.ndarray:
        """The squares' extents along x."""
        return _spans(self.width, self.patch, self.stride)

    @property
    def grid(self) -> tuple[int, int]:
        """How many rows and columns of squares there are."""
        return self.rows.shape[1], self.columns.shape[1]

    def box(self, number: int) -> tuple[slice, slice]:
        """Return the pixels that square `number` covers; squares are numbered row by row."""
        i, j = divmod(number, self.grid[1])
        return slice(*self.rows[:, i].tolist()), slice(*self.columns[:, j].tolist())


def _spans(extent: int, patch: int, stride: int) -> np.ndarray:
    """Go on until a square reaches the border or beyond."""
    last = stride * math.ceil(max(extent - patch, 0) / stride)
    starts = np.arange(0, min(last + 1, extent), stride)
    return np.stack([starts, np.minimum(starts + patch, extent)])


class Covered:
    """Read layers of a network while squares cover one picture (1, c, h, w).

    Where the network can be followed and something is to be gained, only what a square can change is recomputed. The
    result is the same; before the first one is given out, a few squares are computed both ways. Otherwise every square
    is a full pass. `how` says which it was, for the caption.
    """

    def __init__(
        self, net: Net, pixels: Tensor, layers: Sequence[str], squares: Squares, covering: Tensor, memory: int
    ) -> None:
        self.net, self.pixels, self.layers = net, pixels, tuple(layers)
        self.squares, self.covering, self.memory = squares, covering, memory
        self.count = math.prod(squares.grid)
        self.sweep: Sweep | None = None
        self.how = self._prepare()

    def _prepare(self) -> str:
        if self.count <= _FEW:
            return "computed in full"
        try:
            sweep = Sweep(
                record(self.net, self.pixels, self.layers), (self.squares.rows, self.squares.columns), self.memory
            )
            if not sweep.pays:
                return "computed in full: nothing to be gained by recomputing parts"
            self._check(sweep)
        except CannotFollow as error:
            return f"computed in full: the network cannot be followed, {error}"
        self.sweep = sweep
        return f"recomputed only what a square can change: {sweep.share:.0%} of the work"

    def _check(self, sweep: Sweep) -> None:
        """Compute a few squares both ways."""
        probes = np.unique(np.linspace(0, self.count - 1, _PROBES + 2).astype(int)[1:-1])
        # One at a time: the check shall not take more memory than the sweep.
        each = [self._full(probes[i : i + 1]) for i in range(len(probes))]
        expected = {name: torch.cat([one[name] for one in each]) for name in each[0]}
        for numbers, readings in sweep.run(self.covering, "", only=probes):
            at = np.searchsorted(probes, numbers)
            for name, value in readings.items():
                wanted = expected[name][torch.from_numpy(at)]
                scale = max(float(wanted.abs().max()), 1e-6)
                if not float((value - wanted).abs().max()) <= _tolerance(value) * scale:
                    raise CannotFollow("parts give other results than whole pictures")

    @torch.no_grad()
    def _full(self, numbers: np.ndarray) -> Readings:
        """Run whole pictures through the network, each with one square covered."""
        pictures = self.pixels.repeat(len(numbers), 1, 1, 1)
        for picture, number in zip(pictures, numbers.tolist(), strict=True):
            rows, columns = self.squares.box(number)
            picture[:, rows, columns] = self.covering[0, :, rows, columns]
        return tap(self.net, pictures, self.layers)

    def read(self, label: str, only: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, Readings]]:
        """Yield (numbers of squares, readings) until all squares, or those of `only`, have been computed."""
        numbers = np.arange(self.count) if only is None else only
        if self.sweep is not None:
            yield from self.sweep.run(self.covering, label, only=numbers)
            return
        work: Callable[[slice], tuple[np.ndarray, Readings]] = lambda part: (numbers[part], self._full(numbers[part]))  # noqa: E731
        yield from in_batches(work, len(numbers), self._batch(), label)

    def _batch(self) -> int:
        """Return how many whole pictures fit the memory: at its largest, a pass holds a few of the largest layers."""
        scale = self.pixels[0].numel() / (self.net.channels * math.prod(self.net.size))
        largest = max((math.prod(layer.shape) for layer in self.net.layers.values()), default=0)
        need = 4 * max(largest * scale, self.pixels.numel()) * self.pixels.element_size()
        return max(1, min(64, int(self.memory / need)))


def _tolerance(value: Tensor) -> float:
    return 1000 * torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0


def covered_scores(
    covered: Covered, score: Callable[[Readings], Tensor], label: str, only: np.ndarray | None = None
) -> Tensor:
    """Return one number per square, (squares,), those not asked for as NaN."""
    scores = covered.pixels.new_full((covered.count,), torch.nan)
    for numbers, readings in covered.read(label, only):
        scores[torch.from_numpy(numbers).to(scores.device)] = score(readings).to(scores)
    return scores


def report(covered: Covered) -> None:
    """Say in the caption how the squares were computed."""
    say(covered.how)
