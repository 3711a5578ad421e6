"""Shortcuts: classes that one small patch decides, such as a mark in a corner, whatever else there is in the picture.

A patch is a candidate where the class's score depends on it most: the windows with the largest gradient times input,
of which the one that costs the class most when it is covered is taken. It is a shortcut where, put into pictures of
other classes, it makes the network say the class, which what belongs to an object seldom does, and where more of the
class's pictures have it than of others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...drawing.layout import Sheet, Tile
from ...studies.intervals import Interval, bootstrap
from ..evidence import Evidence
from ..finding import Finding, Healthy, Missing, Said, Unseen
from ..grading import percent, severity, share_interval
from ..labelled import Sample, labelled, probabilities
from ..registration import kind

REACH = 0.3
"""The share of other classes' pictures that must surely become the class with the patch."""

_SIDE = 4
"""A patch's side is this part of the picture's."""

_WINDOWS = 3
"""Windows of a picture that are covered, one after the other."""

_CLASSES = 128
_PATCHES, _BUDGET = (4, 16), 400
"""Patches of each class, at least and at most, and of all classes together."""

_TARGETS = 4
"""Pictures that each patch is put into when all classes are looked through."""

_SUSPECT = 0.2
"""The share that calls for a second look."""

_JUDGED = 96
"""Pictures of other classes that a suspect patch is put into, and of the class that it is taken out of."""

_SELDOM = 0.01
"""The share of other classes' pictures that may have something as like the patch as the class's own."""

_SHARED = 0.1
"""The share of the class's pictures that must surely have the patch."""

_NEEDED = 0.4
"""The share of those that must not be recognised without it, unless it is the same in all of them."""

_SAME = 0.05
"""The root mean square difference, in units of white, below which a patch is the same wherever it is."""

_FEWEST = 10
"""Recognised pictures of a class by which a patch of it can be judged."""


@dataclass(frozen=True, eq=False)
class _Patch:
    """A window of a picture: its content (c, h, w), where it lies, and the class that it may decide."""

    content: Tensor
    top: int
    left: int
    decides: int

    def into(self, pixels: Tensor) -> Tensor:
        """Return pictures (n, c, h, w) with the patch put in."""
        changed = pixels.clone()
        changed[:, :, self.top : self.top + self.height, self.left : self.left + self.width] = self.content
        return changed

    def of(self, pixels: Tensor) -> Tensor:
        """Return what is at its place in pictures, (n, c, h, w)."""
        return pixels[:, :, self.top : self.top + self.height, self.left : self.left + self.width]

    @property
    def height(self) -> int:
        return self.content.shape[1]

    @property
    def width(self) -> int:
        return self.content.shape[2]


@kind(
    "shortcut",
    "Shortcuts",
    helps="Look at the patch in the training pictures of the class: cut such marks out, or put them into pictures of "
    "all classes alike; collect pictures of the class without it, and train again.",
    disproof="The patch is part of the object: pictures of the object without it are not recognised by people either.",
)
def shortcut(evidence: Evidence) -> Iterator[Said]:
    """Look for small patches that make the network say a class in pictures of any other."""
    sample = _recognised(evidence)
    others = _Others(evidence, sample)
    patches = list(_strongest(evidence, sample))
    best: dict[int, tuple[_Patch, Interval]] = {}
    for patch in patches:
        if others.moved(patch, _TARGETS).mean() >= _SUSPECT:
            moved = others.moved(patch, _JUDGED)
            reach = bootstrap(lambda rows, moved=moved: float(moved[rows].mean()), len(moved), seed=evidence.seed)
            if patch.decides not in best or reach.value > best[patch.decides][1].value:
                best[patch.decides] = patch, reach
    found, unsure = False, list[str]()
    for patch, reach in best.values():
        if reach.low < REACH:
            continue
        own = _of_class(evidence, sample, patch.decides)
        if len(own) < _FEWEST:
            unsure.append(f"{_name(evidence, sample, patch)!r} ({len(own)} recognised pictures)")
            continue
        have = own.only(_have(patch, own, sample))
        without = _without(evidence, patch, have, sample)
        # What belongs to the object is never quite the same, and other parts of the object are left without it.
        alien = without >= _NEEDED or float(_nearest(patch, have.pixels).median()) < _SAME**2 if len(have) else False
        if alien and share_interval(len(have), len(own))[0] >= _SHARED:
            found = True
            yield _finding(evidence, sample, patch, reach, f"{len(have)} of {len(own)}", without)
    if unsure:
        yield Unseen(
            "shortcut",
            f"a patch of {', '.join(unsure)} may decide it, and only {_FEWEST} pictures of the class would tell",
        )
    elif not found:
        furthest = max((reach.value for _, reach in best.values()), default=0.0)
        told = f"none of {len(patches):,} patches of {len(set(sample.truths.tolist()))} classes decides one"
        far = f"; the furthest makes {percent(furthest)} of other pictures its class" if best else ""
        yield Healthy("shortcut", len(sample), told + far)


def _recognised(evidence: Evidence) -> Sample:
    """Return pictures that the network answers as labelled, of training where there are some."""
    sample = labelled(evidence, train=evidence.trained_on is not None)
    said = probabilities(evidence, sample.pixels)
    rows = (said.argmax(1) == sample.truths).nonzero().flatten()
    if len(set(sample.truths[rows].tolist())) < 2:
        raise Missing("it looks at pictures that are recognised, and hardly any of those drawn are")
    return sample.only(rows)


# Which patches -------------------------------------------------------------------------------------------------------


def _strongest(evidence: Evidence, sample: Sample) -> Iterator[_Patch]:
    """Yield of some pictures of every class the window that costs the class most when it is covered."""
    chance = np.random.default_rng(evidence.seed)
    classes = sorted(set(sample.truths.tolist()))
    if len(classes) > _CLASSES:
        classes = sorted(chance.choice(classes, _CLASSES, replace=False).tolist())
    count = min(_PATCHES[1], max(_PATCHES[0], _BUDGET // len(classes)))
    rows = torch.cat([(sample.truths == each).nonzero().flatten()[:count] for each in classes])
    some = sample.only(rows)
    height, width = (max(1, side // _SIDE) for side in some.pixels.shape[2:])
    grey = some.pixels.mean((0, 2, 3))[:, None, None].expand(-1, height, width)
    places = [_windows(each, height, width) for each in _worth(evidence, some)]
    patches = [
        [_Patch(pixels[:, y : y + height, x : x + width], y, x, truth) for y, x in each]
        for pixels, truth, each in zip(some.pixels, some.truths.tolist(), places, strict=True)
    ]
    covered = torch.cat(
        [
            _Patch(grey, patch.top, patch.left, 0).into(pixels[None])
            for pixels, each in zip(some.pixels, patches, strict=True)
            for patch in each
        ]
    )
    left = probabilities(evidence, covered)
    start = 0
    for each in patches:
        kept = left[start : start + len(each), each[0].decides]
        start += len(each)
        yield each[int(kept.argmin())]


def _worth(evidence: Evidence, sample: Sample) -> Tensor:
    """Return gradient times input, less the mean colour, of the class of each picture, (n, h, w), never negative."""
    found: list[Tensor] = []
    truths = iter(sample.truths.split(1))
    for batch in evidence.batches(sample.pixels):
        pixels = batch.clone().requires_grad_()
        own = torch.cat([next(truths) for _ in range(len(batch))]).to(batch.device)
        with torch.enable_grad():
            scores = evidence.net(pixels).flatten(1)
            score = scores.gather(1, own.clamp(max=scores.shape[1] - 1)[:, None]).sum()
            [gradient] = torch.autograd.grad(score, [pixels])
        middle = batch.mean((0, 2, 3), keepdim=True)
        found.append((gradient * (batch - middle)).sum(1).clamp(min=0).detach().cpu())
    return torch.cat(found)


def _windows(worth: Tensor, height: int, width: int) -> list[tuple[int, int]]:
    """Return where the windows with the largest sums lie that overlap by less than half, as (top, left)."""
    sums = F.avg_pool2d(worth[None, None], (height, width), 1)[0, 0].clone()
    found: list[tuple[int, int]] = []
    for _ in range(_WINDOWS):
        y, x = divmod(int(sums.argmax()), sums.shape[1])
        found.append((y, x))
        sums[max(0, y - height // 2) : y + height // 2 + 1, max(0, x - width // 2) : x + width // 2 + 1] = -torch.inf
        if not bool(sums.isfinite().any()):
            break
    return found


# What they decide ---------------------------------------------------------------------------------------------------


class _Others:
    """Pictures of all classes that are recognised, in a random order, to put patches into."""

    def __init__(self, evidence: Evidence, sample: Sample) -> None:
        order = torch.from_numpy(np.random.default_rng(evidence.seed + 1).permutation(len(sample)))
        self.evidence, self.sample = evidence, sample.only(order)

    def moved(self, patch: _Patch, count: int) -> np.ndarray:
        """Return of pictures of other classes whether they become the patch's class, (n,) of 0 and 1."""
        rows = (self.sample.truths != patch.decides).nonzero().flatten()[:count]
        said = probabilities(self.evidence, patch.into(self.sample.pixels[rows]))
        return (said.argmax(1) == patch.decides).double().numpy()


def _of_class(evidence: Evidence, sample: Sample, truth: int) -> Sample:
    """Return recognised pictures of a class, also those that are not in the sample."""
    observed = evidence.train if sample.train else evidence.data
    right = [number for number, each in enumerate(observed.predictions) if each.truth == truth and each.rank == 0]
    numbers, pixels = evidence.read(right[:_JUDGED], train=sample.train)
    return Sample(tuple(numbers), pixels, torch.full((len(numbers),), truth), sample.train)


def _have(patch: _Patch, own: Sample, sample: Sample) -> Tensor:
    """Return which of the class's pictures have the patch, near its place, and more alike than 99% of others do."""
    others = sample.pixels[sample.truths != patch.decides]
    return (_nearest(patch, own.pixels) < _nearest(patch, others).quantile(_SELDOM)).nonzero().flatten()


def _nearest(patch: _Patch, pixels: Tensor) -> Tensor:
    """Return how far pictures are from having the patch: the mean square difference where it is least, (n,).

    It is looked for near its place; anywhere where it is the same but for a little noise.
    """
    kernel = patch.content[None]
    squares = F.conv2d(pixels**2, torch.ones_like(kernel)) - 2 * F.conv2d(pixels, kernel) + (kernel**2).sum()
    squares = squares.clamp(min=0) / kernel.numel()
    rows, columns = (
        slice(max(0, at - size // 4), at + size // 4 + 1)
        for at, size in ((patch.top, patch.height), (patch.left, patch.width))
    )
    near, anywhere = (each.flatten(1).amin(1) for each in (squares[:, :, rows, columns], squares))
    return torch.where(anywhere < _SAME**2, anywhere, near)


def _without(evidence: Evidence, patch: _Patch, have: Sample, sample: Sample) -> float:
    """Return the share of pictures that are not recognised any more with another picture's content in that place."""
    if not len(have):
        return 0.0
    others = sample.pixels[sample.truths != patch.decides]
    changed = have.pixels.clone()
    patch.of(changed).copy_(patch.of(others[torch.arange(len(have)) % len(others)]))
    return float((probabilities(evidence, changed).argmax(1) != patch.decides).double().mean())


def _name(evidence: Evidence, sample: Sample, patch: _Patch) -> str:
    return (evidence.train if sample.train else evidence.data).classes[patch.decides]


def _finding(evidence: Evidence, sample: Sample, patch: _Patch, reach: Interval, have: str, without: float) -> Finding:
    name, size = _name(evidence, sample, patch), f"{patch.width} × {patch.height} pixels"
    told = (
        f"A {_colour(patch)} patch of {size} {_place(patch, sample)} decides {name!r}: put into {reach.n} pictures of "
        f"other classes it makes {percent(reach.value)} of them {name!r}; {have} of the class's have it, and without "
        f"it {percent(without)} of those are not recognised"
    )
    return Finding(
        "shortcut",
        "",
        (patch.decides,),
        severity(reach.value, REACH, 1),
        reach.n,
        told,
        "share of other classes' pictures that become the class with the patch",
        reach.value,
        (reach.low, reach.high),
        evidence=_shown(evidence, sample, patch, name),
    )


def _place(patch: _Patch, sample: Sample) -> str:
    """Say where a patch lies: "at the lower right"."""
    height, width = sample.pixels.shape[2:]
    row = ("upper", "", "lower")[int(3 * (patch.top + patch.height / 2) / height)]
    column = ("left", "", "right")[int(3 * (patch.left + patch.width / 2) / width)]
    if not row and not column:
        return "in the middle"
    return f"at the {row} {column}" if row and column else f"at the {row or column} edge"


def _colour(patch: _Patch) -> str:
    """Name the colour of a patch, roughly."""
    mean = patch.content.mean((1, 2)).tolist()
    light = sum(mean) / len(mean)
    if len(mean) != 3 or max(mean) - min(mean) < 0.2:
        return "dark" if light < 0.3 else "bright" if light > 0.7 else "grey"
    middle = (max(mean) + min(mean)) / 2
    names = {"rgb"[at] for at in range(3) if mean[at] > middle}
    return {"r": "red", "g": "green", "b": "blue", "gr": "yellow", "br": "magenta", "bg": "cyan"}[
        "".join(sorted(names))
    ]


def _shown(evidence: Evidence, sample: Sample, patch: _Patch, name: str) -> Callable[[], Sheet]:
    """Draw the patch, a picture of the class, and pictures of others before and after it was put in."""
    names = (evidence.train if sample.train else evidence.data).classes
    own = sample.pixels[sample.truths == patch.decides][:1]
    rest = (sample.truths != patch.decides).nonzero().flatten()[:4]
    before, after = sample.pixels[rest], patch.into(sample.pixels[rest])
    said = probabilities(evidence, after).argmax(1).tolist()
    true = sample.truths[rest].tolist()

    def draw() -> Sheet:
        image = evidence.net.image
        first = [Tile(image(pixels), f"of {name}") for pixels in own]
        above = [*first, *(Tile(image(pixels), names[at]) for pixels, at in zip(before, true, strict=True))]
        below = [Tile(image(pixels), f"taken for {names[at]}") for pixels, at in zip(after, said, strict=True)]
        return Sheet("", (tuple(above), (*(None for _ in first), *below)))

    return draw
