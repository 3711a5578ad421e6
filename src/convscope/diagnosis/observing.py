"""One pass over pictures: what every unit answers, and what the network says, each kept as numbers that stay small.

All kinds of findings read what is kept here, so that pictures are read and computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..atlas.reading import Read, reader
from ..atlas.units import Activity
from ..batching import Halving
from ..context import track
from ..data.loading import Counted, Loaded, read_ahead
from ..data.pictures import Picture, Pictures
from ..errors import DataError
from ..evaluation.predicting import prediction
from ..evaluation.prediction import Prediction
from ..evaluation.truth import Truth
from ..heads import Head
from ..net import Net
from ..predictions import read_output
from ..tapping import tap
from ..tracing import OUTPUT
from .finding import Missing
from .sites import Site

_BATCH = {"cpu": 8}
_BATCH_ELSEWHERE = 64

_TOP = 5

TEMPERATURES = np.geomspace(1 / 8, 8, 121)
"""Numbers that scores may be divided by before the softmax; the middle one is 1."""


@dataclass(frozen=True)
class Seen:
    """A picture of the pass: its address, the SHA-256 of its content, its size, and the class it belongs to.

    `label` is the class by name, None where nothing says it; `error` says why it could not be read.
    """

    where: str
    content: str = ""
    height: int = 0
    width: int = 0
    label: str | None = None
    error: str = ""


@dataclass
class Answers:
    """What the units of one site answered, over all pictures; each tensor has an entry for each unit.

    `largest` and `least_peak` are the largest and the smallest of the pictures' maxima, `smallest` and `highest_floor`
    the smallest and the largest of their minima, all before the gate. `active` counts the pictures that a unit lets
    through its gate anywhere, `full` the share of positions at which it is at an end of it. `mean` and `deviation` are
    those of what a picture lets through on average, over pictures, and `by_class` adds that up over each class's.
    `peak_deviation` is the deviation of the pictures' maxima.
    `pictures` were counted, `broken` held NaN or infinity.
    """

    site: Site
    pictures: int
    broken: int
    largest: Tensor
    least_peak: Tensor
    smallest: Tensor
    highest_floor: Tensor
    active: Tensor
    full: Tensor
    mean: Tensor
    deviation: Tensor
    peak_deviation: Tensor
    by_class: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    @property
    def silent(self) -> Tensor:
        """Which units let nothing through on any picture, (units,); none of a gate that lets everything through."""
        gate = self.site.gate
        return (self.active == 0) & (gate.off > -torch.inf) & (not gate.both)


@dataclass
class Observed:
    """What one pass over pictures gave: the pictures, each one's prediction, and each site's answers by its name.

    `labelled` says whether it is known what is true of them, `head` what the predictions' numbers are, None where the
    network predicts no classes. `losses` adds up the log loss of the true class at each of TEMPERATURES, where there
    are labels and one class at most is right.
    """

    pictures: tuple[Seen, ...]
    predictions: tuple[Prediction, ...]
    answers: dict[str, Answers]
    classes: tuple[str, ...]
    labelled: bool
    head: Head | None = None
    losses: np.ndarray | None = None

    @property
    def read(self) -> list[Seen]:
        """The pictures that could be read."""
        return [each for each in self.pictures if not each.error]

    @property
    def known(self) -> list[Prediction]:
        """The predictions of pictures of which it is known what is true. Raises Missing where there are none."""
        known = [each for each in self.predictions if each.rank is not None]
        if not known:
            raise Missing("it needs labels, and the pictures have none: class folders named as the network's classes")
        return known

    @property
    def counts(self) -> dict[str, int]:
        """How many pictures there are of each class."""
        found: dict[str, int] = {}
        for each in self.read:
            if each.label is not None:
                found[each.label] = found.get(each.label, 0) + 1
        return dict(sorted(found.items()))


class Pass:
    """A pass over pictures; `run` makes it."""

    def __init__(self, net: Net, sites: Sequence[Site], truth: Truth, batch: int = 0) -> None:
        self.net, self.truth = net, truth
        self.batch = batch or _BATCH.get(net.device.type, _BATCH_ELSEWHERE)
        self.sites: dict[str, tuple[Site, slice]] = {}
        units = 0
        for site in sites:
            self.sites[site.read.name] = (site, slice(units, units + site.units))
            units += site.units
        self.units = units
        self.says = len(net.output.shape) <= 1
        self.halving = Halving("diagnose")
        self.names: Sequence[str] = ()
        self.head: Head | None = None
        self.losses: np.ndarray | None = None
        self.sums = _Sums(units)
        self.seen: list[Seen] = []
        self.said: list[Prediction] = []

    def run(self, pictures: Pictures, label: str) -> Observed:
        """Read every picture, run the network on it, and keep what it gave."""
        loaded = read_ahead(pictures, reader(self.net))
        waiting: list[Loaded[Read]] = []
        self.names = pictures.classes
        try:
            with self.net.held():
                for item in track(Counted(loaded, pictures), label):
                    waiting.append(item)
                    if len(waiting) == self.batch:
                        self._take_all(waiting)
                        waiting = []
                self._take_all(waiting)
        finally:
            loaded.close()
        answers = {site.name: self.sums.answers(site, units) for site, units in self.sites.values()}
        return Observed(
            tuple(self.seen), tuple(self.said), answers, self.truth.classes, self.truth.known, self.head, self.losses
        )

    def _take_all(self, items: Sequence[Loaded[Read]]) -> None:
        """Take in pictures: those of one shape together, and all in their order."""
        found: dict[int, tuple[Seen, Prediction]] = {}
        shapes: dict[Any, list[int]] = {}
        for row, item in enumerate(items):
            where = item.picture.where
            if item.value is None:
                found[row] = Seen(where, error=str(item.error)), Prediction(where, error=str(item.error))
            else:
                shapes.setdefault(item.value.pixels.shape, []).append(row)
        for rows in shapes.values():
            alike = [items[row] for row in rows]
            said = self.halving.over(lambda part, alike=alike: self._take(alike[part]), slice(0, len(alike)))
            found |= dict(zip(rows, (each for piece in said for each in piece), strict=True))
        for row in range(len(items)):
            self.seen.append(found[row][0])
            self.said.append(found[row][1])

    def _take(self, items: Sequence[Loaded[Read]]) -> list[tuple[Seen, Prediction]]:
        """Run one batch of pictures of one shape."""
        batch = torch.from_numpy(np.stack([_read(item).pixels for item in items]))
        batch = batch.to(self.net.device, memory_format=torch.channels_last)
        found = _Batch(self.sites, len(items), self.units, self.net.device)
        with torch.inference_mode():
            output = tap(self.net, batch, [*self.sites, OUTPUT], reduce=found.take)[OUTPUT]
        truths = [self.truth.of(item.picture) for item in items]
        labels = [self._label(item.picture, truth) for item, truth in zip(items, truths, strict=True)]
        said = self._predictions(items, output, truths)
        self.sums.add(found, labels)
        each = [(_read(item).identity, item.picture.where) for item in items]
        seen = [
            Seen(where, identity.sha256, identity.height, identity.width, label)
            for (identity, where), label in zip(each, labels, strict=True)
        ]
        return list(zip(seen, said, strict=True))

    def _label(self, picture: Picture, truth: int | None) -> str | None:
        """Return the class of a picture by name, also where it is none of the network's."""
        if truth is not None:
            return self.truth.classes[truth]
        label = picture.label
        if isinstance(label, int) and label < len(self.names):
            return self.names[label]
        return None if label is None else str(label)

    def _predictions(
        self, items: Sequence[Loaded[Read]], output: Tensor, truths: Sequence[int | None]
    ) -> list[Prediction]:
        if not self.says:
            return [Prediction(item.picture.where) for item in items]
        finite = output.flatten(1).isfinite().all(1) if output.ndim > 1 else output.isfinite()
        self.head, numbers = read_output(self.net, output.float().nan_to_num(0, 0, 0), len(items))
        self._add_losses(numbers, truths, finite)
        return [
            prediction(item.picture.where, self.head, row, truth, _TOP)
            if good
            else Prediction(item.picture.where, error=f"the output of {self.net.name} holds NaN or infinity")
            for item, row, truth, good in zip(items, numbers, truths, finite.tolist(), strict=True)
        ]

    def _add_losses(self, numbers: Tensor, truths: Sequence[int | None], finite: Tensor) -> None:
        """Add up the log loss of true classes at each temperature."""
        known = [row for row, truth in enumerate(truths) if truth is not None and bool(finite[row])]
        if not known or self.head is None or not self.head.exclusive(numbers):
            return
        scores = numbers[known].double().cpu().clamp(min=1e-30).log()
        index = torch.tensor([truths[row] for row in known])[:, None]
        losses = [-(scores / each).log_softmax(1).gather(1, index).sum().item() for each in TEMPERATURES]
        self.losses = np.array(losses) + (0 if self.losses is None else self.losses)


def _read(item: Loaded[Read]) -> Read:
    assert item.value is not None
    return item.value


class _Batch:
    """What all units gave for the pictures (n,) of a batch, each (n, units), as it comes in."""

    def __init__(self, sites: dict[str, tuple[Site, slice]], count: int, units: int, device: torch.device) -> None:
        self.sites = sites
        self.largest, self.smallest, self.mean = (torch.zeros(count, units, device=device) for _ in range(3))
        self.full = torch.zeros(count, units, device=device)
        self.active = torch.zeros(count, units, dtype=torch.bool, device=device)
        self.rows = dict.fromkeys(sites, 0)

    def take(self, name: str, output: Tensor) -> Tensor:
        """Take in a layer's output (n, ...), of all pictures or of the next one."""
        if name == OUTPUT and name not in self.sites:
            return output.detach()
        site, units = self.sites[name]
        here = slice(self.rows[name], self.rows[name] + len(output))
        self.rows[name] = here.stop
        activity, gate = Activity(site.read, output.detach()), site.gate
        most, least = activity.extremes("largest", "smallest")
        self.largest[here, units], self.smallest[here, units] = most.values, least.values
        self.active[here, units] = most.values > gate.off
        sample = activity.sample()
        self.mean[here, units] = gate.passed(sample).mean(1)
        if gate.full != torch.inf:
            ended = (sample >= gate.full) | (sample <= gate.off) if gate.both else sample >= gate.full
            self.full[here, units] = ended.float().mean(1)
        return output.detach() if name == OUTPUT else most.values


class _Sums:
    """What is kept of all units over all pictures."""

    def __init__(self, units: int) -> None:
        self.pictures = torch.zeros(units, dtype=torch.int64)
        self.broken = torch.zeros(units, dtype=torch.int64)
        self.largest, self.highest_floor = (torch.full((units,), -torch.inf) for _ in range(2))
        self.smallest, self.least_peak = (torch.full((units,), torch.inf) for _ in range(2))
        self.active = torch.zeros(units, dtype=torch.int64)
        self.full, self.sums, self.squares = (torch.zeros(units, dtype=torch.float64) for _ in range(3))
        self.peaks, self.peak_squares = (torch.zeros(units, dtype=torch.float64) for _ in range(2))
        self.by_class: dict[str, Tensor] = {}

    def add(self, found: _Batch, labels: Sequence[str | None]) -> None:
        """Add a batch, picture by picture, so that sums do not depend on what was computed together."""
        largest, smallest, mean = found.largest.cpu(), found.smallest.cpu(), found.mean.cpu()
        active, full = found.active.cpu(), found.full.cpu()
        finite = largest.isfinite() & smallest.isfinite() & mean.isfinite()
        self.pictures += finite.sum(0)
        self.broken += (~finite).sum(0)
        nothing = torch.tensor(torch.nan)
        self.largest = self.largest.fmax(torch.where(finite, largest, nothing).nan_to_num(-torch.inf).amax(0))
        self.least_peak = self.least_peak.fmin(torch.where(finite, largest, nothing).nan_to_num(torch.inf).amin(0))
        self.smallest = self.smallest.fmin(torch.where(finite, smallest, nothing).nan_to_num(torch.inf).amin(0))
        self.highest_floor = self.highest_floor.fmax(
            torch.where(finite, smallest, nothing).nan_to_num(-torch.inf).amax(0)
        )
        self.active += (active & finite).sum(0)
        mean, full, peaks = (torch.where(finite, each, 0).double() for each in (mean, full, largest))
        for row, label in enumerate(labels):
            self.sums += mean[row]
            self.squares += mean[row] ** 2
            self.full += full[row]
            self.peaks += peaks[row]
            self.peak_squares += peaks[row] ** 2
            if label is not None:
                self.by_class.setdefault(label, torch.zeros_like(self.sums)).add_(mean[row])

    def answers(self, site: Site, units: slice) -> Answers:
        """Return what is known of one site."""
        counted = self.pictures[units].clamp(min=1)
        mean, peak = self.sums[units] / counted, self.peaks[units] / counted
        variance = (self.squares[units] / counted - mean**2).clamp(min=0)
        peak_variance = (self.peak_squares[units] / counted - peak**2).clamp(min=0)
        return Answers(
            site,
            int(self.pictures[units].max()),
            int(self.broken[units].max()),
            self.largest[units],
            self.least_peak[units],
            self.smallest[units],
            self.highest_floor[units],
            self.active[units],
            self.full[units] / counted,
            mean,
            variance.sqrt(),
            peak_variance.sqrt(),
            {label: sums[units] for label, sums in self.by_class.items()},
        )


def check_counted(pictures: Pictures) -> None:
    """Refuse a source of which nobody knows how many pictures it has. Raises DataError."""
    try:
        count = len(pictures)
    except TypeError:
        raise DataError(
            "a diagnosis reads its pictures several times, and a stream gives each once: give a folder, a list or a "
            "data set"
        ) from None
    if not count:
        raise DataError("there are no pictures to look at: give a folder of some, as with --data FOLDER")
