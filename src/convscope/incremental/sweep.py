"""The sweep: play a tape for many occluder positions, recomputing only what each one can reach.

Positions whose regions have nearly the same sizes go through the local part of a network together: for every layer
the parts that change, surrounded by what they read, which is cut out of the clean pass. What follows the first global
layer (pooling to one position, a linear layer, attention) is computed in full, for positions of all clusters together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..batching import Halving
from ..context import track
from .clusters import CALL, AxisReach, Cluster, clusters_of
from .regions import Local, Taps, local_form
from .tape import CannotFollow, Step, Tape
from .whole import whole_form

Readings = dict[str, Tensor]

_WAITING = 2**25
"""How many bytes of whole layers may wait for the global part; larger batches are hardly quicker."""

_LEAST_GAIN = 0.95
"""Where more than this share of the work remains, as in transformers, full passes are quicker."""


@dataclass(frozen=True)
class Region:
    """Parts of one layer, one per position: all of the same size, each at its own rows and columns."""

    value: Tensor
    rows: np.ndarray
    columns: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        return self.value.shape[-2], self.value.shape[-1]


class Sweep:
    """Everything about one picture that does not depend on the occluder's position.

    `spans` are, along y and x, the pixels [low, high) that are hidden at each row or column of positions. Raises
    CannotFollow where a layer that is read has no dimension for the picture.
    """

    def __init__(self, tape: Tape, spans: tuple[np.ndarray, np.ndarray], memory: int) -> None:
        self.clean, self.readings, self.memory = tape.clean, tape.readings, memory
        for i in self.readings.values():
            if self.clean[i].shape[:1] != (1,):
                raise CannotFollow("a layer mixes the pictures of a batch")
        self.local = {0}
        self.steps: list[tuple[Step, Local]] = []
        rest = [step for step in tape.steps if not self._is_local(step)]
        needed = {i for step in rest for i in step.inputs} | set(self.readings.values())
        self.frontier = sorted(needed & self.local)
        self.last = self._last_uses()
        self._forget()
        self.whole = [(step, whole_form(step, self.clean)) for step in rest]
        self.axes = tuple(self._axis(which, span) for which, span in enumerate(spans))
        self.works = self._works()
        self.clusters = clusters_of(self.axes, self.works, len(self.steps))
        self.padded: dict[tuple[Any, ...], tuple[Tensor, int, int]] = {}

    def _is_local(self, step: Step) -> bool:
        """Add a step to the local part if it is pointwise or a window, as all before it are."""
        form = local_form(step, self.clean) if set(step.inputs) <= self.local else None
        if form is not None:
            self.steps.append((step, form))
            self.local |= set(step.outputs)
        return form is not None

    def _forget(self) -> None:
        """Keep the layers of the clean pass that parts are pasted into; of the others only the shape is needed."""
        kept = {0, *self.frontier}
        for step, form in self.steps:
            if not form.pointwise or len(step.inputs) > 1:
                kept.update(step.inputs)
        self.clean = [t if i in kept else t.to("meta") for i, t in enumerate(self.clean)]

    def _axis(self, which: int, span: np.ndarray) -> AxisReach:
        """Follow the reach of every row (or column) of positions through the local layers."""
        low, high = {0: span[0]}, {0: span[1]}
        extents = {i: self.clean[i].shape[which - 2] for i in self.local}
        for step, form in self.steps:
            firsts, lasts = _union([(low[i], high[i]) for i in step.inputs])
            for out in step.outputs:
                low[out], high[out] = form.taps[which].outputs(firsts, lasts, extents[out])
        order = sorted(self.local)
        return AxisReach(
            {i: n for n, i in enumerate(order)},
            np.stack([low[i] for i in order]),
            np.stack([high[i] for i in order]),
            np.array([extents[i] for i in order]),
        )

    def _works(self) -> np.ndarray:
        """Return multiplications per spatial position of every local layer, passes over memory counted as some."""
        order = {i: n for n, i in enumerate(sorted(self.local))}
        works = np.zeros(len(order))
        for step, form in self.steps:
            for out in step.outputs:
                works[order[out]] += form.macs / len(step.outputs) + 16 * self._depth(out)
        return works

    def _depth(self, i: int) -> int:
        """Return how many numbers a tensor has at each spatial position."""
        return math.prod(self.clean[i].shape[1:-2])

    def _whole_work(self) -> float:
        """Return what full passes of the local part would take for all positions."""
        work = float((self.works * self.axes[0].extents * self.axes[1].extents).sum())
        return work * self.axes[0].count * self.axes[1].count

    @property
    def share(self) -> float:
        """The estimated share of all multiplications and passes over memory that remains."""
        whole, count = self._whole_work(), self.axes[0].count * self.axes[1].count
        tail = sum(form.macs for _, form in self.whole) * count
        done = sum(cluster.work(self.works) for cluster in self.clusters)
        return (done + tail) / (whole + tail)

    @property
    def pays(self) -> bool:
        """Whether the sweep is estimated to be quicker than full passes, by multiplications and calls."""
        if self.share > _LEAST_GAIN:
            return False
        whole, count = self._whole_work(), self.axes[0].count * self.axes[1].count
        windows = sum(not form.pointwise for _, form in self.steps)
        calls = len(self.clusters) * len(self.steps) * CALL + count * windows * CALL / 4
        return sum(cluster.work(self.works) for cluster in self.clusters) + calls < whole

    def run(
        self, baseline: Tensor, label: str, only: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, Readings]]:
        """Yield (numbers of positions, readings for them) until every position, or those of `only`, are computed.

        `baseline` (1, c, h, w) has the pixels that replace hidden ones. Position (row i, column j) has number
        i * columns + j.
        """
        halving = Halving(label)
        queue: list[tuple[np.ndarray, dict[int, Tensor]]] = []
        waiting, enough = 0, self._whole_batch()
        chunks = [(cluster, part) for cluster in self.clusters for part in self._parts(cluster, only)]
        for cluster, part in track(chunks, label):
            for numbers, values in halving.over(
                lambda s, p=cluster, c=part: self._play(p, c[s], baseline), slice(0, len(part))
            ):
                queue.append((numbers, values))
                waiting += len(numbers)
                # Once memory has run out, no more may wait than can be computed at once.
                if waiting >= min(enough, halving.limit):
                    yield from self._finish(queue, halving)
                    queue, waiting = [], 0
        if queue:
            yield from self._finish(queue, halving)
        halving.report()

    def _parts(self, cluster: Cluster, only: np.ndarray | None) -> list[np.ndarray]:
        """Cut the positions of a cluster into batches that fit the memory."""
        positions = cluster.positions()
        if only is not None:
            positions = positions[np.isin(cluster.numbers(positions), only)]
        if not len(positions):
            return []
        batch = max(1, min(len(positions), self.memory // 2 // self._bytes(cluster)))
        # Batches of equal length: a short last one would cost nearly as much as a full one.
        return np.array_split(positions, -(-len(positions) // batch))

    def _bytes(self, cluster: Cluster) -> int:
        """Estimate what one position needs at the layer that needs most: all parts alive, and what is read."""
        alive: dict[int, int] = {0: self._part_bytes(0, cluster)}
        most = 0
        for number, (step, form) in enumerate(self.steps):
            outs = {i: self._part_bytes(i, cluster) for i in step.outputs}
            heights = [
                taps.inputs(cluster.sizes[w][cluster.axes[w].order[step.outputs[0]]])
                for w, taps in enumerate(form.taps)
            ]
            read = sum(self._depth(i) * heights[0] * heights[1] * self.clean[i].element_size() for i in step.inputs)
            alive |= outs
            # A convolution's library puts what it reads and writes into an order of its own.
            twice = 2 if form.macs else 1
            most = max(
                most, sum(alive.values()) + (0 if form.pointwise else twice * read) + (twice - 1) * sum(outs.values())
            )
            alive = {i: size for i, size in alive.items() if self.last[i] > number}
        frontier = sum(self.clean[i].numel() * self.clean[i].element_size() for i in self.frontier)
        return max(most, 1) + frontier

    def _part_bytes(self, i: int, cluster: Cluster) -> int:
        n = cluster.axes[0].order[i]
        return int(self._depth(i) * cluster.sizes[0][n] * cluster.sizes[1][n] * self.clean[i].element_size())

    def _last_uses(self) -> dict[int, int]:
        """Return after which local step every tensor is no longer needed."""
        last = dict.fromkeys(self.local, -1)
        for number, (step, _) in enumerate(self.steps):
            for i in (*step.inputs, *step.outputs):
                last[i] = number
        return last | dict.fromkeys(self.frontier, len(self.steps))

    @torch.no_grad()
    def _play(self, cluster: Cluster, positions: np.ndarray, baseline: Tensor) -> tuple[np.ndarray, dict[int, Tensor]]:
        """Play the local part for some positions of a cluster; return the whole layers at the frontier."""
        rows, columns = (cluster.offsets[w][:, positions[:, w]] for w in (0, 1))
        regions = {0: self._occluded(cluster, positions, baseline)}
        owned = set[int]()
        for number, (step, form) in enumerate(self.steps):
            n = cluster.axes[0].order[step.outputs[0]]
            out = (rows[n], columns[n], int(cluster.sizes[0][n]), int(cluster.sizes[1][n]))
            parts = [self._input_part(i, regions[i], form, out) for i in step.inputs]
            # The global part runs later, but may read what was there before this change in place, or a view of it.
            if step.mutates and not (step.inputs[0] in owned and self.last[step.inputs[0]] == number):
                parts[0] = parts[0].clone()
            result = form.apply(parts)
            for i, value in zip(step.outputs, result if step.several else [result], strict=True):
                regions[i] = Region(self._scaled(value, form, out), rows[n], columns[n])
            if step.mutates or (len(step.outputs) == 1 and _fresh(regions[step.outputs[0]].value, parts)):
                owned.add(step.outputs[0])
            for i in {*step.inputs, *step.outputs}:
                if self.last[i] <= number:
                    del regions[i]
        numbers = cluster.numbers(positions)
        return numbers, {i: self._over_clean(i, regions[i]) for i in self.frontier}

    def _occluded(self, cluster: Cluster, positions: np.ndarray, baseline: Tensor) -> Region:
        """Cut the pixels around every position out of the picture, and hide them."""
        n = cluster.axes[0].order[0]
        rows, columns = (cluster.offsets[w][n, positions[:, w]] for w in (0, 1))
        height, width = int(cluster.sizes[0][n]), int(cluster.sizes[1][n])
        value = _windows(self.clean[0][0], rows, columns, height, width)
        spans = [(cluster.lows[w][n, positions[:, w]], cluster.highs[w][n, positions[:, w]]) for w in (0, 1)]
        for b, (y, x) in enumerate(zip(rows, columns, strict=True)):
            (top, bottom), (left, right) = ((int(low[b]), int(high[b])) for low, high in spans)
            value[b, :, top - y : bottom - y, left - x : right - x] = baseline[0, :, top:bottom, left:right]
        return Region(value, rows, columns)

    def _input_part(self, i: int, region: Region, form: Local, out: tuple[np.ndarray, np.ndarray, int, int]) -> Tensor:
        """Return the part of a layer that a step reads to compute its output at `out`: clean around the region."""
        y, x = form.taps
        height, width = y.inputs(out[2]), x.inputs(out[3])
        top, left = out[0] * y.stride - y.padding, out[1] * x.stride - x.padding
        if region.size == (height, width) and _same(top, region.rows) and _same(left, region.columns):
            return region.value
        base, above, before = self._padded(i, form)
        value = _windows(base, top + above, left + before, height, width)
        _paste(value, region, region.rows - top, region.columns - left)
        return value

    def _padded(self, i: int, form: Local) -> tuple[Tensor, int, int]:
        """Return a layer of the clean pass (c, h, w) with as much border as a step reads, and how much that is."""
        key = (i, form.taps, form.border)
        if key not in self.padded:
            clean = self.clean[i]
            pads = [self._pads(taps, extent) for taps, extent in zip(form.taps, clean.shape[-2:], strict=True)]
            (above, below), (before, after) = pads
            wide = F.pad(clean, (before, after, above, below), value=form.border) if any(map(any, pads)) else clean
            self.padded[key] = wide[0], above, before
            # One copy is enough: the layer itself lies inside.
            self.clean[i] = wide[..., above : above + clean.shape[-2], before : before + clean.shape[-1]]
        return self.padded[key]

    @staticmethod
    def _pads(taps: Taps, extent: int) -> tuple[int, int]:
        before = max(taps.padding, 0)
        # A window may hang over the far border by as much as it is long and strides.
        return before, max(before, taps.reach + taps.stride, taps.after) if not taps.identity else 0

    def _scaled(self, value: Tensor, form: Local, out: tuple[np.ndarray, np.ndarray, int, int]) -> Tensor:
        if form.scale is None:
            return value
        return value * _windows(form.scale[0], *out)

    def _over_clean(self, i: int, region: Region) -> Tensor:
        """Paste the parts of a layer into the clean one: the whole layer, (positions, c, h, w)."""
        clean = self.clean[i]
        if region.size == tuple(clean.shape[-2:]):
            return region.value
        whole = clean.repeat(len(region.value), *(1,) * (clean.ndim - 1))
        _paste(whole, region, region.rows, region.columns)
        return whole

    def _whole_batch(self) -> int:
        sizes = {
            i: self.clean[i].numel() * self.clean[i].element_size()
            for step, _ in self.whole
            for i in (*step.inputs, *step.outputs)
        }
        frontier = sum(self.clean[i].numel() * self.clean[i].element_size() for i in self.frontier)
        # Joining the queue needs its memory twice.
        need = 2 * frontier + 3 * max(sizes.values(), default=0)
        return max(1, min(256, _WAITING // max(frontier, 1), self.memory // 2 // max(need, 1)))

    def _finish(
        self, queue: list[tuple[np.ndarray, dict[int, Tensor]]], halving: Halving
    ) -> Iterator[tuple[np.ndarray, Readings]]:
        """Play the global part for the positions in the queue."""
        numbers = np.concatenate([n for n, _ in queue])
        yield from halving.over(
            lambda s: (numbers[s], self._play_whole({i: _from_queue(queue, i, s) for i in self.frontier})),
            slice(0, len(numbers)),
        )
        queue.clear()

    @torch.no_grad()
    def _play_whole(self, values: dict[int, Tensor]) -> Readings:
        last = {i: n for n, (step, _) in enumerate(self.whole) for i in (*step.inputs, *step.outputs)}
        kept = set(self.readings.values())
        for number, (step, form) in enumerate(self.whole):
            result = form.apply([values[i] for i in step.inputs])
            for i, value in zip(step.outputs, result if step.several else [result], strict=True):
                values[i] = value
            for i in step.inputs:
                if last[i] == number and i not in kept:
                    del values[i]
        return {name: values[i] for name, i in self.readings.items()}


def _from_queue(queue: list[tuple[np.ndarray, dict[int, Tensor]]], i: int, piece: slice) -> Tensor:
    """Join what the queue holds of a layer for the positions of a slice, counted from the front of the queue."""
    pieces, start = list[Tensor](), 0
    for numbers, values in queue:
        low, high = max(piece.start - start, 0), min(piece.stop - start, len(numbers))
        if low < high:
            pieces.append(values[i][low:high])
        start += len(numbers)
    return torch.cat(pieces)


def _union(spans: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest spans that contain those of all inputs; empty ones do not count."""
    low, high = spans[0]
    for other_low, other_high in spans[1:]:
        empty, other_empty = high <= low, other_high <= other_low
        joined = np.minimum(low, other_low), np.maximum(high, other_high)
        low = np.where(empty, other_low, np.where(other_empty, low, joined[0]))
        high = np.where(empty, other_high, np.where(other_empty, high, joined[1]))
    return low, high


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a == b).all())


def _windows(base: Tensor, rows: np.ndarray, columns: np.ndarray, height: int, width: int) -> Tensor:
    """Cut windows of one size out of a layer (c, h, w): (positions, c, height, width)."""
    positions = zip(rows.tolist(), columns.tolist(), strict=True)
    return torch.stack([base[..., y : y + height, x : x + width] for y, x in positions])


def _paste(onto: Tensor, region: Region, rows: np.ndarray, columns: np.ndarray) -> None:
    """Write the parts of a region at rows and columns of wider parts, leaving out what lies beyond those."""
    where, inverse = np.unique(np.stack([rows, columns]), axis=1, return_inverse=True)
    inverse = inverse.reshape(-1)
    for n, (y, x) in enumerate(where.T.tolist()):
        (ty, sy), (tx, sx) = (
            _overlap(at, size, extent) for at, size, extent in zip((y, x), region.size, onto.shape[-2:], strict=True)
        )
        if where.shape[1] == 1:
            onto[..., ty, tx] = region.value[..., sy, sx]
            continue
        for b in np.flatnonzero(inverse == n).tolist():
            onto[b, ..., ty, tx] = region.value[b, ..., sy, sx]


def _overlap(at: int, size: int, extent: int) -> tuple[slice, slice]:
    low, high = max(at, 0), max(min(at + size, extent), 0)
    high = max(low, high)
    return slice(low, high), slice(low - at, high - at)


def _fresh(value: Tensor, parts: Sequence[Tensor]) -> bool:
    """Whether a result has memory of its own."""
    memory = value.untyped_storage().data_ptr()
    return all(part.untyped_storage().data_ptr() != memory for part in parts)
