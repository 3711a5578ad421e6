"""Shortcuts: classes that a mark decides, whatever else there is in the picture.

A mark is one of three: a patch, the window of a picture that its class's score depends on most; a print, which pictures
of the class have in common at fixed places; the tint of the class's pictures. It is a shortcut where, put into pictures
of other classes, it makes the network say the class, which what belongs to an object seldom does, and where more of the
class's pictures have it than of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...drawing.layout import Sheet
from ...studies.intervals import Interval, bootstrap
from ..drawn import picture
from ..evidence import Evidence
from ..finding import Finding, Healthy, Missing, Said, Unseen
from ..grading import percent, severity, share_interval
from ..labelled import Sample, labelled, probabilities
from ..patches import Patch, strongest
from ..prints import Print, Tint, printed, tinted
from ..registration import kind

REACH = 0.3
"""The share of other classes' pictures that must surely become the class with the mark."""

_REACH_OF_PARTS = 0.5
"""The same for a patch that never looks quite the same, as a part of an object, of a digit most of all."""

_CLASSES = 128
_OWN, _BUDGET = (24, 128), 2000
"""Recognised pictures of each class that are looked at, at least and at most, and of all classes together."""

_TARGETS = 4
_TINTED = 16
"""Pictures that each patch, and each tint, is put into when all classes are looked through."""

_SUSPECT = 0.2
"""The share that calls for a second look."""

_JUDGED = 192
"""Pictures of other classes that a suspect mark is put into."""

_SHARED = 0.1
"""The share of the class's pictures that must surely have the mark."""

_NEEDED = 0.4
"""The share of those that must not be recognised without it, unless it is the same in all of them."""

_SHOWN = 5

_FEWEST = 10
"""Recognised pictures of a class by which a mark of it can be judged."""


class Mark(Protocol):
    """What may decide a class."""

    @property
    def decides(self) -> int:
        """The class."""
        ...

    def into(self, pixels: Tensor) -> Tensor:
        """Return pictures (n, c, h, w) with the mark."""
        ...

    def without(self, pixels: Tensor, others: Tensor) -> Tensor:
        """Return pictures (n, c, h, w) without it; what it hides comes from others (n, c, h, w)."""
        ...

    def had(self, own: Tensor, others: Tensor) -> Tensor:
        """Return the rows of the class's pictures (n, c, h, w) that have it, and hardly any of the others."""
        ...


@kind(
    "shortcut",
    "Shortcuts",
    helps="Look for the mark in the training pictures of the class: cut such marks out, or put them into pictures of "
    "all classes alike; collect pictures of the class without it, and train again.",
    disproof="The mark is part of the object: pictures of the object without it are not recognised by people either.",
)
def shortcut(evidence: Evidence) -> Iterator[Said]:
    """Look for patches, prints and tints that make the network say a class in pictures of any other."""
    sample = _recognised(evidence)
    others = _Others(evidence, sample)
    classes = _classes(evidence, sample)
    patches = list(strongest(evidence, sample, classes))
    suspects = [patch for patch in patches if others.moved(patch, _TARGETS).mean() >= _SUSPECT]
    furthest, looked, unsure = 0.0, 0, list[str]()
    found: list[tuple[Mark, Finding]] = []
    for number in classes:
        judged = [(mark, others.reach(mark)) for mark in suspects if mark.decides == number]
        furthest = max([furthest, *(reach.value for _, reach in judged)])
        own = _of_class(evidence, sample, number, len(classes))
        if len(own) < _FEWEST:
            if any(reach.low >= REACH for _, reach in judged):
                unsure.append(f"{_name(evidence, sample, number)!r} ({len(own)} recognised pictures)")
            continue
        looked += 1
        marks = [(mark, others.reach(mark)) for mark in _shared(own, others, number)]
        for mark, reach in sorted([*marks, *judged], key=lambda each: -each[1].value):
            finding = _judged(evidence, mark, reach, own, others) if reach.low >= REACH else None
            if finding is not None:
                found.append((mark, finding))
                break
    tints = [finding for mark, finding in found if isinstance(mark, Tint)]
    colours = 2 * len(tints) > looked  # where most classes are colours, colour is what they are told apart by
    shown = [finding for _, finding in found if not (colours and finding in tints)]
    yield from shown
    if unsure:
        yield Unseen(
            "shortcut",
            f"a patch of {', '.join(unsure)} may decide it, and only {_FEWEST} pictures of the class would tell",
        )
    elif not shown:
        told = f"none of {len(patches):,} patches of {len(classes)} classes decides one"
        told += f"; the furthest makes {percent(furthest)} of other pictures its class" if furthest else ""
        told += f"; no print that the pictures of one of {looked} classes have in common does" if looked else ""
        told += f"; their mean colour decides {len(tints)} of them, and so belongs to what they are" if colours else ""
        yield Healthy("shortcut", len(sample), told)


def _recognised(evidence: Evidence) -> Sample:
    """Return pictures that the network answers as labelled, of training where there are some."""
    sample = labelled(evidence, train=evidence.trained_on is not None)
    said = probabilities(evidence, sample.pixels)
    rows = (said.argmax(1) == sample.truths).nonzero().flatten()
    if len(rows) < 2 * _FEWEST:
        n, right = len(sample), len(rows)
        raise Missing(
            f"{right} of {n} pictures are recognised, too few to look for shortcuts: give {2 * _FEWEST} or more"
        )
    if len(set(sample.truths[rows].tolist())) < 2:
        raise Missing("it looks at pictures that are recognised, and hardly any of those drawn are")
    return sample.only(rows)


def _classes(evidence: Evidence, sample: Sample) -> list[int]:
    """Return the classes that are looked at, drawn at random where there are many."""
    classes = sorted(set(sample.truths.tolist()))
    if len(classes) <= _CLASSES:
        return classes
    return sorted(np.random.default_rng(evidence.seed).choice(classes, _CLASSES, replace=False).tolist())


def _of_class(evidence: Evidence, sample: Sample, truth: int, classes: int) -> Sample:
    """Return recognised pictures of a class, also those that are not in the sample."""
    observed = evidence.train if sample.train else evidence.data
    right = [number for number, each in enumerate(observed.predictions) if each.truth == truth and each.rank == 0]
    if len(right) < _FEWEST:
        return sample.only((sample.truths == truth).nonzero().flatten())
    count = min(_OWN[1], max(_OWN[0], _BUDGET // classes))
    chosen = np.random.default_rng(evidence.seed).permutation(right)[:count]
    numbers, pixels = evidence.read(sorted(chosen.tolist()), train=sample.train)
    return Sample(tuple(numbers), pixels, torch.full((len(numbers),), truth), sample.train)


def _name(evidence: Evidence, sample: Sample, number: int) -> str:
    return (evidence.train if sample.train else evidence.data).classes[number]


# What decides -------------------------------------------------------------------------------------------------------


class _Others:
    """Pictures of all classes that are recognised, in a random order, to put marks into."""

    def __init__(self, evidence: Evidence, sample: Sample) -> None:
        order = torch.from_numpy(np.random.default_rng(evidence.seed + 1).permutation(len(sample)))
        self.evidence, self.sample = evidence, sample.only(order)

    def of(self, decides: int) -> Tensor:
        """Return the pictures of other classes, (n, c, h, w)."""
        return self.sample.pixels[self.sample.truths != decides]

    def moved(self, mark: Mark, count: int) -> np.ndarray:
        """Return of pictures of other classes whether they become the mark's class, (n,) of 0 and 1."""
        said = probabilities(self.evidence, mark.into(self.of(mark.decides)[:count]))
        return (said.argmax(1) == mark.decides).double().numpy()

    def reach(self, mark: Mark) -> Interval:
        """Return which share of other classes' pictures becomes the mark's class."""
        moved = self.moved(mark, _JUDGED)
        return bootstrap(lambda rows: float(moved[rows].mean()), len(moved), seed=self.evidence.seed)


def _shared(own: Sample, others: _Others, number: int) -> Iterator[Mark]:
    """Yield what pictures of a class have in common: a print, where there is one, and a tint that moves others."""
    rest = others.of(number)
    print_ = printed(own.pixels, rest, number)
    if print_ is not None:
        yield print_
    if own.pixels.shape[1] == 3:
        tint = tinted(own.pixels, rest, number)
        if others.moved(tint, _TINTED).mean() >= _SUSPECT:
            yield tint


def _judged(evidence: Evidence, mark: Mark, reach: Interval, own: Sample, others: _Others) -> Finding | None:
    """Return a finding where enough of the class's pictures have a mark, and it does not belong to the object."""
    rest = others.of(mark.decides)
    have = own.only(mark.had(own.pixels, rest))
    if share_interval(len(have), len(own))[0] < _SHARED:
        return None
    changed = mark.without(have.pixels, rest[torch.arange(len(have)) % len(rest)])
    without = float((probabilities(evidence, changed).argmax(1) != mark.decides).double().mean())
    # What belongs to the object is never quite the same, and other parts of the object are left without it.
    same = isinstance(mark, Print) or (isinstance(mark, Patch) and mark.is_same(have.pixels))
    if not same and (without < _NEEDED or (isinstance(mark, Patch) and reach.low < _REACH_OF_PARTS)):
        return None
    return _finding(evidence, mark, reach, (len(have), len(own)), without, have, others)


# What is said -------------------------------------------------------------------------------------------------------


def _finding(
    evidence: Evidence,
    mark: Mark,
    reach: Interval,
    counts: tuple[int, int],
    without: float,
    have: Sample,
    others: _Others,
) -> Finding:
    name = _name(evidence, have, mark.decides)
    told = (
        f"{_described(mark, others)} decides {name!r}: put into {reach.n} pictures of other classes it makes "
        f"{percent(reach.value)} of them {name!r}; {counts[0]} of {counts[1]} of the class's have it, and without it "
        f"{percent(without)} of those are not recognised"
    )
    return Finding(
        "shortcut",
        "",
        (mark.decides,),
        severity(reach.value, REACH, 1),
        reach.n,
        told,
        "share of other classes' pictures that become the class with the mark",
        reach.value,
        (reach.low, reach.high),
        evidence=_shown(evidence, mark, have, others),
    )


def _described(mark: Mark, others: _Others) -> str:
    """Say what a mark is, and where: "A red patch of 8 × 8 pixels at the lower right"."""
    if isinstance(mark, Patch):
        height, width = others.sample.pixels.shape[2:]
        where = _place(mark.top + mark.height / 2, mark.left + mark.width / 2, height, width)
        return f"A {_colour(mark.content.mean((1, 2)).tolist())} patch of {mark.width} × {mark.height} pixels {where}"
    if isinstance(mark, Print):
        return f"A mark {_spread(mark.fine.square().sum(0))} that its pictures have in common"
    red, *_, blue = mark.into(others.of(mark.decides)).mean((0, 2, 3)).tolist()
    tone = "lightness" if abs(red - blue) < 0.02 else "colour"
    return f"The mean {tone} of its pictures"


def _spread(strength: Tensor) -> str:
    """Say where a print of some strength (h, w) is."""
    height, width = strength.shape
    energy = (strength - 4 * strength.median()).clamp(min=0)  # less what chance leaves everywhere
    if float(energy.sum()) < 0.3 * float(strength.sum()):
        return "all over"
    y, x = max(1, height // 8), max(1, width // 8)
    edges = energy[:y], energy[-y:], energy[:, :x], energy[:, -x:]
    if min(float(edge.sum()) for edge in edges) > 0.1 * float(energy.sum()):
        return "along the border"
    y, x = (_middle(energy.sum(axis)) for axis in (1, 0))
    return _place(y, x, height, width)


def _middle(strength: Tensor) -> float:
    return float((strength * torch.arange(len(strength))).sum() / strength.sum())


def _place(y: float, x: float, height: int, width: int) -> str:
    """Say where a point lies in a picture: "at the lower right"."""
    row = ("upper", "", "lower")[min(2, int(3 * y / height))]
    column = ("left", "", "right")[min(2, int(3 * x / width))]
    if not row and not column:
        return "in the middle"
    return f"at the {row} {column}" if row and column else f"at the {row or column} edge"


def _colour(mean: list[float]) -> str:
    """Name a colour, roughly."""
    light = sum(mean) / len(mean)
    if len(mean) != 3 or max(mean) - min(mean) < 0.2:
        return "dark" if light < 0.3 else "bright" if light > 0.7 else "grey"
    middle = (max(mean) + min(mean)) / 2
    names = {"rgb"[at] for at in range(3) if mean[at] > middle}
    return {"r": "red", "g": "green", "b": "blue", "gr": "yellow", "br": "magenta", "bg": "cyan"}[
        "".join(sorted(names))
    ]


def _shown(evidence: Evidence, mark: Mark, have: Sample, others: _Others) -> Callable[[], Sheet]:
    """Draw pictures that have the mark, and pictures of other classes before and after it was put in."""
    sample = others.sample
    names = (evidence.train if sample.train else evidence.data).classes
    rest = (sample.truths != mark.decides).nonzero().flatten()[:_SHOWN]
    before, after = sample.pixels[rest], mark.into(sample.pixels[rest])
    said = probabilities(evidence, after).argmax(1).tolist()
    true = sample.truths[rest].tolist()
    own = have.pixels[:_SHOWN]

    def draw() -> Sheet:
        image = evidence.net.image
        rows = (
            tuple(picture(image(pixels), names[mark.decides]) for pixels in own),
            tuple(picture(image(pixels), names[at]) for pixels, at in zip(before, true, strict=True)),
            tuple(picture(image(pixels), names[at]) for pixels, at in zip(after, said, strict=True)),
        )
        note = (
            f"above, pictures of {names[mark.decides]} that have it; below, others, and what they are taken for with it"
        )
        return Sheet("", rows, note=note, labels=("have it", "others", "with it"))

    return draw
