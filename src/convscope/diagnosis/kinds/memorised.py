"""Memorised pictures: those of training whose label the network knows, though nothing else in them says it.

A picture that was learnt by heart, such as one with a wrong label, is answered as labelled; what other pictures teach
about its features says otherwise, and the answer does not outlast a small shift or a mirror. What others teach is a
ridge classifier on features of the network, fitted to pictures that it was not trained on. Both numbers are added, in
standard deviations of what they are for those pictures themselves (each left out in turn), of which nothing was learnt
by heart: how often they are low there is what chance gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...atlas.units import Activity
from ...drawing.layout import Sheet
from ...studies.intervals import bootstrap
from ...tapping import tap
from ..drawn import picture
from ..evidence import Evidence
from ..finding import Finding, Healthy, Missing, Said, Unseen
from ..grading import percent, severity
from ..labelled import Sample, labelled, probabilities
from ..registration import kind
from ..sites import Site

CHANCE = 0.02
"""The share of pictures never learnt that seem memorised."""

CLEARLY = 0.05
"""The share of training pictures that must surely seem so."""

_WORST = 0.3
_SURE = 0.5
"""The probability of its label from which on a picture is looked at."""

_PICTURES = 1024
_PER_CLASS = 5
"""So many pictures of every class, on average, must be there to learn from."""

_FEWEST = 100
_GRID = 4
"""Maps are averaged over so many rows and columns."""

_RIDGE = 0.3
_LAYERS = 8
"""Layers, evenly over all, whose features are looked at, at most."""

_MOVED = 0.1
_WAYS = tuple((down, right) for down in range(3) for right in range(3) if (down, right) != (1, 1))
"""By how much of their sides pictures are moved, and where to: 1 is where they were."""

_SHOWN, _NAMED = 10, 4


@kind(
    "memorised",
    "Memorised pictures",
    helps="Look through the pictures: many have a wrong label, or are of a kind that is hardly there. Mend or remove "
    "them; fewer epochs, augmentation and weight decay leave less room to learn them by heart.",
    disproof="A network that was trained without these pictures and still answers with their labels.",
)
def memorised(evidence: Evidence) -> Iterator[Said]:
    """Look for training pictures that are answered as labelled against what others teach about their features."""
    learnt, held = labelled(evidence, _PICTURES, train=True), labelled(evidence, _PICTURES)
    held = held.only(_not_among(evidence, held))
    few = _too_few(learnt, held)
    if few:
        yield Unseen("memorised", few)
        return
    sure = [_sure(evidence, sample) for sample in (learnt, held)]
    chosen = learnt.only(sure[0].nonzero().flatten())
    if min(len(chosen), int(sure[1].sum())) < _FEWEST:
        yield Unseen(
            "memorised",
            f"only {len(chosen)} training pictures and {int(sure[1].sum())} others are answered as labelled with a "
            f"probability of {_SURE}: {_FEWEST} of each are needed",
        )
        return
    own = held.only(sure[1].nonzero().flatten())
    support, taught = _supports(evidence, chosen, held)
    taught, lasting, by_chance = taught[sure[1]], _lasting(evidence, chosen), _lasting(evidence, own)
    support = _standard(support, taught) + _standard(lasting, by_chance)
    taught = _standard(taught, taught) + _standard(by_chance, by_chance)
    flagged = (support < float(taught.quantile(CHANCE))).nonzero().flatten()
    n, share = len(chosen), len(flagged) / len(chosen)
    low, high = _bounds(support, taught, evidence.seed)
    told = (
        f"{len(flagged):,} of {n:,} training pictures ({percent(share)}) are answered as labelled, though what other "
    )
    told += f"pictures teach about their features speaks against it; {percent(CHANCE)} are expected by chance"
    if low < CLEARLY:
        yield Healthy("memorised", n, told)
        return
    worst = flagged[support[flagged].argsort()][:_SHOWN].tolist()
    where = [evidence.train.pictures[chosen.numbers[row]].where for row in worst]
    yield Finding(
        "memorised",
        "",
        (),
        severity(share, CLEARLY, _WORST),
        n,
        f"{told}. The clearest: {', '.join(_short(each) for each in where[:_NAMED])}",
        "share of training pictures that seem memorised",
        share,
        (low, high),
        evidence=_shown(evidence, chosen, worst),
    )


def _bounds(support: Tensor, taught: Tensor, seed: int) -> tuple[float, float]:
    """Return the interval of the share that seems memorised; what counts as such is estimated, too."""
    numbers = torch.cat([support, taught]).numpy()
    first = np.repeat((True, False), (len(support), len(taught)))

    def share(rows: np.ndarray) -> float:
        drawn, learnt = numbers[rows], first[rows]
        return float((drawn[learnt] < np.quantile(drawn[~learnt], CHANCE)).mean())

    found = bootstrap(share, len(numbers), groups=first, seed=seed)
    return found.low, found.high


def _not_among(evidence: Evidence, held: Sample) -> Tensor:
    """Return the rows of pictures that are not in the training folder, too."""
    shared = {*evidence.overlap}
    pictures = evidence.data.pictures
    rows = [row for row, number in enumerate(held.numbers) if pictures[number].where not in shared]
    return torch.tensor(rows, dtype=torch.long)


def _too_few(learnt: Sample, held: Sample) -> str:
    """Return why there are too few pictures; "" where there are enough."""
    needed = max(_FEWEST, _PER_CLASS * len(set(held.truths.tolist())))
    if len(held) >= needed and len(learnt) >= _FEWEST:
        return ""
    return (
        f"{len(held)} pictures and {len(learnt)} training pictures are too few to tell what was learnt by heart: "
        f"{needed} and {_FEWEST} are needed, {_PER_CLASS} of every class"
    )


def _sure(evidence: Evidence, sample: Sample) -> Tensor:
    """Return which pictures the network answers as labelled, and surely."""
    said = probabilities(evidence, sample.pixels)
    own = said.gather(1, sample.truths[:, None])[:, 0]
    return (said.argmax(1) == sample.truths) & (own >= _SURE)


# What other pictures teach ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Teacher:
    """A ridge classifier on features (n, d): its dual weights (n, classes), and what leaves a picture out again."""

    features: Tensor
    middle: Tensor
    scale: Tensor
    targets: Tensor
    weights: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, features: Tensor, truths: Tensor, classes: int) -> _Teacher:
        """Fit a classifier to features of pictures and their classes."""
        middle, scale = features.mean(0), (features.std(0) + 1e-6) * features.shape[1] ** 0.5
        own = (features - middle) / scale
        targets = F.one_hot(truths, classes).to(own) - F.one_hot(truths, classes).to(own).mean(0)
        inverse = torch.linalg.inv(own @ own.T + _RIDGE * torch.eye(len(own), dtype=own.dtype))
        return cls(own, middle, scale, targets, inverse @ targets, inverse)

    def support(self, features: Tensor, truths: Tensor) -> Tensor:
        """Return how much others speak for the labels of new pictures, (n,)."""
        said = ((features - self.middle) / self.scale) @ self.features.T @ self.weights
        return said.gather(1, truths[:, None])[:, 0]

    def left_out(self, truths: Tensor) -> Tensor:
        """Return the same of the pictures that it learnt from, each left out in turn."""
        return self._without().gather(1, truths[:, None])[:, 0]

    def _without(self) -> Tensor:
        return self.targets - self.weights / self.inverse.diagonal()[:, None]


def _supports(evidence: Evidence, learnt: Sample, held: Sample) -> tuple[Tensor, Tensor]:
    """Return how much others speak for the labels of training pictures, and of the others themselves, over layers.

    What was learnt by heart is hidden in the last layers, and what a picture shows is hardly told by the first ones.
    """
    classes = max(len(evidence.data.classes), int(held.truths.max()) + 1, int(learnt.truths.max()) + 1)
    sites = [site for site in evidence.sites if not site.is_output]
    if not sites:
        raise Missing("the network has no layer with weights before its output")
    sites = sites[:: -(-len(sites) // _LAYERS)]
    known, new = (_features(evidence, sites, sample.pixels) for sample in (held, learnt))
    support, taught = (torch.zeros(len(sample), dtype=torch.float64) for sample in (learnt, held))
    for site in sites:
        teacher = _Teacher.of(known.pop(site.name).double(), held.truths, classes)
        support += teacher.support(new.pop(site.name).double(), learnt.truths)
        taught += teacher.left_out(held.truths)
    return support, taught


def _features(evidence: Evidence, sites: Sequence[Site], pixels: Tensor) -> dict[str, Tensor]:
    """Return what units let through their gates, averaged over a small grid of places, (n, features) by site."""
    read = {site.read.name: site for site in sites}
    found: dict[str, list[Tensor]] = {site.name: [] for site in sites}

    def reduce(name: str, output: Tensor) -> Tensor:
        site = read[name]
        passed = site.gate.passed(Activity(site.read, output).values).movedim(-1, 1)
        rows, columns = (min(_GRID, side) for side in passed.shape[2:])
        found[site.name].append(F.adaptive_avg_pool2d(passed, (rows, columns)).flatten(1).cpu())
        return output[:, :0]

    with torch.inference_mode(), evidence.net.held():
        for batch in evidence.batches(pixels):
            tap(evidence.net, batch, list(read), reduce=reduce)
    return {name: torch.cat(parts) for name, parts in found.items()}


# What outlasts a small change ---------------------------------------------------------------------------------------


def _lasting(evidence: Evidence, sample: Sample) -> Tensor:
    """Return the mean log probability of the labels of pictures that were mirrored, or moved a little, (n,)."""
    found = torch.zeros(len(sample), dtype=torch.float64)
    for pixels in _moved(sample.pixels):
        own = probabilities(evidence, pixels).gather(1, sample.truths[:, None])[:, 0]
        found += own.double().clamp(min=1e-12).log()
    return found / (1 + len(_WAYS))


def _moved(pixels: Tensor) -> Iterator[Tensor]:
    """Yield pictures mirrored, and moved by a tenth of their sides to each of eight sides."""
    yield pixels.flip(3)
    height, width = pixels.shape[2:]
    y, x = (max(1, round(_MOVED * side)) for side in (height, width))
    wide = F.pad(pixels, (x, x, y, y), mode="reflect")
    for down, right in _WAYS:
        yield wide[:, :, down * y : down * y + height, right * x : right * x + width]


def _standard(values: Tensor, of: Tensor) -> Tensor:
    """Return values in standard deviations from the mean of others."""
    return (values - of.mean()) / of.std().clamp(min=1e-12)


# What is shown ------------------------------------------------------------------------------------------------------


def _short(where: str) -> str:
    return "/".join(PurePath(where).parts[-2:])


def _shown(evidence: Evidence, sample: Sample, rows: list[int]) -> Callable[[], Sheet]:
    """Draw pictures with their labels."""
    names = evidence.train.classes
    tiles = [(sample.pixels[row], names[int(sample.truths[row])]) for row in rows]

    def draw() -> Sheet:
        shown = [picture(evidence.net.image(pixels), name) for pixels, name in tiles]
        rows = tuple(tuple(shown[at : at + 5]) for at in range(0, len(shown), 5))
        return Sheet("", rows, note="training pictures that seem memorised, the clearest first, with their labels")

    return draw
