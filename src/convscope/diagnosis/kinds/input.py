"""Input problems: pictures that are read otherwise than in training, and classes whose labels were exchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...data.preprocessing import per_channel
from ...errors import ConvscopeError
from ...net import Net
from ...studies.intervals import Interval, bootstrap
from ..drawn import bars_of
from ..evidence import Evidence
from ..finding import Finding, Healthy, Said, Unseen
from ..grading import percent, severity, share_interval
from ..labelled import Sample, labelled, probabilities
from ..registration import kind

CLEARLY = 0.03
"""How much more of the pictures must surely be right when they are read in another way."""

SHARED = 0.005
"""The share of pictures that may be training pictures, too."""

CHANCE = 0.01
"""How seldom labels may seem exchanged by chance, over all classes."""

_MOST = 0.8
"""The share of classes of a cycle that must be taken for the next one: the last of a list may be cut off."""

_WORST = 0.5
_SCREENED = 64
"""Pictures on which all ways are tried; the best one is then judged by others."""

_FEWEST = 16
_COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_UNITS: dict[int, dict[str, tuple[float | tuple[float, ...], float | tuple[float, ...]]]] = {
    3: {
        "mean and std of ImageNet": _COLOURS,
        "mean 0.5 and std 0.5": (0.5, 0.5),
        "values of 0 to 1": (0.0, 1.0),
        "values of 0 to 255": (0.0, 1 / 255),
        "values of 0 to 255 less ImageNet's mean": (_COLOURS[0], 1 / 255),
    },
    1: {
        "mean and std of MNIST": (0.1307, 0.3081),
        "mean 0.5 and std 0.5": (0.5, 0.5),
        "values of 0 to 1": (0.0, 1.0),
        "values of 0 to 255": (0.0, 1 / 255),
    },
}
_SIZES = (0.5, 0.75, 1.5, 2.0)
_TURNED: dict[str, Callable[[Tensor], Tensor]] = {
    "negatives, white for black": lambda pixels: 1 - pixels,
    "pictures turned upside down": lambda pixels: pixels.flip(2, 3),
    "rows and columns exchanged": lambda pixels: pixels.transpose(2, 3),
    "pictures turned by a quarter": lambda pixels: pixels.rot90(1, (2, 3)),
}


@dataclass(frozen=True)
class _Way:
    """Another way to read pictures: a change of what the network reads as it is, or another size, in pixels."""

    name: str
    change: Callable[[Tensor], Tensor] | None = None
    size: tuple[int, int] | None = None

    def right(self, evidence: Evidence, sample: Sample) -> Tensor:
        """Return which pictures are classified rightly when they are read so, (n,)."""
        pixels = sample.pixels
        if self.size is not None:
            pictures = [evidence.pictures[number].read() for number in sample.numbers]
            pixels = torch.cat([evidence.net.read(picture, size=self.size).cpu() for picture in pictures])
        if self.change is not None:
            pixels = self.change(pixels)
        return probabilities(evidence, pixels).argmax(1) == sample.truths


@kind(
    "input",
    "Input problems",
    helps="State how the network was trained to read pictures, as its authors write it: `--mean`, `--std`, `--order`, "
    "`--size` of the command line, or the options of `Net`. Where labels are exchanged, mend the folders, or the list "
    "of the classes' names.",
    disproof="The accuracy that the network's authors report, reached with the pictures and labels as they are.",
)
def input_problems(evidence: Evidence) -> Iterator[Said]:
    """Compare the accuracy with that under other ways to read pictures, and with that under other labels."""
    found = [*_leaked(evidence)]
    yield from found
    known = evidence.data.known
    sample = labelled(evidence)
    found += (exchanged := [*_exchanged(evidence)])
    yield from exchanged
    read, n, best = _misread(evidence, sample)
    yield from read
    if not found and not read and n < _FEWEST:
        told = (
            f"{len(known)} pictures with labels are too few to try other ways to read them: give {2 * _FEWEST} or more"
        )
        yield Unseen("input", told)
    elif not found and not read:
        yield Healthy("input", n, best)


def _leaked(evidence: Evidence) -> Iterator[Finding]:
    """Look for pictures that are in both folders: how right the network is on those says nothing of others."""
    if evidence.trained_on is None:
        return
    shared, n = len(evidence.overlap), len(evidence.data.read)
    if not n or shared / n < SHARED:
        return
    low, high = share_interval(shared, n)
    yield Finding(
        "input",
        "",
        (),
        severity(shared / n, SHARED, _WORST),
        n,
        f"{shared:,} of {n:,} pictures are training pictures, too, byte for byte: what is measured on them is better "
        f"than it is; the first is {evidence.overlap[0]}",
        "share of pictures that are training pictures",
        shared / n,
        (low, high),
        helps="Take them out of one of the two folders, and measure again.",
        disproof="The network was trained on other pictures than those of the training folder that was given.",
    )


# How pictures are read ----------------------------------------------------------------------------------------------


def _misread(evidence: Evidence, sample: Sample) -> tuple[list[Finding], int, str]:
    """Look for a way to read pictures that is clearly better; return how many it was judged by, and a sentence."""
    order = torch.from_numpy(np.random.default_rng(evidence.seed).permutation(len(sample)))
    # What is best of many on some pictures is so by luck too: others judge it.
    screened, judged = sample.only(order[:_SCREENED]), sample.only(order[_SCREENED:])
    if len(judged) < _FEWEST:
        screened, judged = sample.only(order[: len(order) // 2]), sample.only(order[len(order) // 2 :])
    tried = [(way, right) for way in _ways(evidence.net) if (right := _right(evidence, way, screened)) is not None]
    if not tried or len(judged) < 2:
        return [], 0, "no class's labels seem exchanged; too few pictures to try other ways to read them"
    way, _ = max(tried, key=lambda each: int(each[1].sum()))
    own = (probabilities(evidence, judged.pixels).argmax(1) == judged.truths).double().numpy()
    other = way.right(evidence, judged).double().numpy()
    gain = bootstrap(lambda rows: float((other - own)[rows].mean()), len(own), seed=evidence.seed)
    compared = f"{percent(float(own.mean()))} of {len(own)} pictures are right as they are read"
    if gain.low < CLEARLY or len(own) < _FEWEST:
        told = f"{compared}, and {percent(float(other.mean()))} with {way.name}, the best of {len(tried)} other ways"
        return [], len(own), f"{told}; no labels are exchanged"
    return [_misread_finding(way, gain, compared, float(own.mean()), float(other.mean()))], len(own), ""


def _misread_finding(way: _Way, gain: Interval, compared: str, own: float, other: float) -> Finding:
    return Finding(
        "input",
        "",
        (),
        severity(gain.value, CLEARLY, _WORST),
        gain.n,
        f"The pictures are probably read otherwise than in training: {compared}, and {percent(other)} with {way.name}",
        "gain of accuracy",
        gain.value,
        (gain.low, gain.high),
        evidence=bars_of({"as they are read": own, way.name: other}, "share of pictures that are right"),
    )


def _right(evidence: Evidence, way: _Way, sample: Sample) -> Tensor | None:
    """Return which pictures are right in a way of reading, None where the network does not take them so."""
    try:
        return way.right(evidence, sample)
    except (ConvscopeError, RuntimeError):  # a size that the network does not take
        return None


def _ways(net: Net) -> Iterator[_Way]:
    """Yield other ways to read pictures."""
    reads = (net.mean, net.std, net.order)
    for order in ("RGB", "BGR") if net.channels == 3 else ("RGB",):
        for name, (mean, std) in ({"": (net.mean, net.std)} | _UNITS.get(net.channels, {})).items():
            other = (per_channel(mean, net.channels, "mean"), per_channel(std, net.channels, "std"), order)
            if other != reads:
                turned = f"{'blue' if order == 'BGR' else 'red'} read first ({order})" if order != net.order else ""
                yield _Way(" and ".join(filter(None, (name, turned))), partial(_reread, net, *other))
    yield from (_Way(name, change) for name, change in _TURNED.items())
    for share in _SIZES:
        height, width = (round(side * share) for side in net.size)
        yield _Way(f"an input of {height} × {width} pixels", size=(height, width))


def _reread(net: Net, mean: Sequence[float], std: Sequence[float], order: str, pixels: Tensor) -> Tensor:
    """Return pixels of which the network makes what it would read with another mean, deviation and order."""
    own, other = (
        (torch.tensor(a)[:, None, None], torch.tensor(b)[:, None, None]) for a, b in ((net.mean, net.std), (mean, std))
    )
    inputs = (pixels - other[0]) / other[1]
    return (inputs.flip(1) if order != net.order else inputs) * own[1] + own[0]


# Whose labels are exchanged -----------------------------------------------------------------------------------------


def _exchanged(evidence: Evidence) -> Iterator[Finding]:
    """Look for classes whose pictures the network takes for another class, and that one's for a third or the first."""
    from scipy.optimize import linear_sum_assignment

    known = evidence.data.known
    classes = evidence.data.classes
    said = np.zeros((len(classes), len(classes)), int)
    for each in known:
        said[each.truth or 0, each.choices[0]] += 1
    # The names of classes under which most pictures are right.
    meant = linear_sum_assignment(-said)[1]
    cycles = [cycle for cycle in _cycles(meant.tolist()) if _certain(said, meant, cycle, int((said.sum(1) > 0).sum()))]
    if not cycles:
        return
    moved = [number for cycle in cycles for number in cycle]
    rows = np.concatenate([_differences(said, meant, number) for number in moved])
    gain = bootstrap(lambda chosen: float(rows[chosen].mean()), len(rows), seed=evidence.seed)
    own, other = (float(said[moved, to].sum() / len(rows)) for to in (moved, meant[moved]))
    pairs = [f"{classes[number]!r} is taken for {classes[meant[number]]!r}" for number in moved]
    shown = ", ".join(pairs[:4]) + (f", and {len(pairs) - 4} more" if len(pairs) > 4 else "")
    yield Finding(
        "input",
        "",
        tuple(sorted(moved)),
        severity(gain.value, CLEARLY, _WORST),
        len(rows),
        f"The labels of {len(moved)} classes are probably exchanged, here or in training: {shown}; {percent(own)} of "
        f"their {len(rows):,} pictures are right as labelled, and {percent(other)} the other way",
        "gain of accuracy",
        gain.value,
        (gain.low, gain.high),
        evidence=bars_of({"as labelled": own, "exchanged": other}, "share of their pictures that are right"),
    )


def _cycles(meant: list[int]) -> Iterator[list[int]]:
    """Yield the cycles of a permutation that are longer than one."""
    seen: set[int] = set()
    for start in range(len(meant)):
        cycle: list[int] = []
        number = start
        while number not in seen:
            seen.add(number)
            cycle.append(number)
            number = meant[number]
        if len(cycle) > 1:
            yield cycle


def _certain(said: np.ndarray, meant: np.ndarray, cycle: list[int], classes: int) -> bool:
    """Whether the classes of a cycle are taken for the next one more often than rightly, and not by chance."""
    from scipy.stats import binom

    next_ = [int(meant[number]) for number in cycle]
    own, other = said[cycle, cycle], said[cycle, next_]
    by_chance = float(binom.sf(other.sum() - 1, (own + other).sum(), 0.5))
    there = said[cycle].sum(1) > 0
    return float((other > own)[there].mean() if there.any() else 0) >= _MOST and by_chance < CHANCE / classes


def _differences(said: np.ndarray, meant: np.ndarray, number: int) -> np.ndarray:
    """Return of each picture of a class 1 where it is taken for the class that is meant, -1 where for its own."""
    own, other = said[number, number], said[number, meant[number]]
    return np.repeat((-1.0, 1.0, 0.0), (own, other, said[number].sum() - own - other))
