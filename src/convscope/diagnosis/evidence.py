"""Evidence: everything that kinds of findings ask about, computed when it is first asked for, and once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..atlas.units import Activity
from ..context import say, track
from ..data.hashing import content_hash
from ..data.loading import Counted, read_ahead
from ..data.pictures import Picture, Pictures
from ..evaluation.truth import Truth, find_truth
from ..net import Net
from ..tapping import tap
from .finding import Missing
from .observing import Answers, Observed, Pass
from .sites import Site, sites_of

SAMPLE = 256
"""Pictures that are looked at more closely, where nobody says how many."""

MOST_TRAINED = 5000
"""Training pictures that the network is run on, at most."""


class _Some(list[Picture]):
    """Some pictures of a source, with the names of its classes."""

    def __init__(self, pictures: Sequence[Picture], classes: tuple[str, ...]) -> None:
        super().__init__(pictures)
        self.classes = classes


@dataclass
class Evidence:
    """A network, the pictures that it is judged by, and, where there are any, those that it was trained on.

    Attributes:
        net: the network.
        pictures: the pictures of the data folder.
        trained_on: the pictures of the training folder; None without one.
        labels, names: what is true of the pictures, as `predict_many` takes it.
        seed: of what is drawn at random.
        batch: pictures in one pass; 0 leaves it to the device.
    """

    net: Net
    pictures: Pictures
    trained_on: Pictures | None = None
    labels: str | Path | None = None
    names: str | Path | None = None
    seed: int = 0
    batch: int = 0
    _samples: dict[tuple[str, int], tuple[list[int], Tensor]] = field(
        default_factory=dict[tuple[str, int], tuple[list[int], Tensor]], repr=False
    )

    @property
    def sites(self) -> list[Site]:
        """The units of every layer with weights, in execution order. Raises Missing where there are none."""
        if not self._sites:
            raise Missing("no layer of the network has weights that can be read; a program (TorchScript) hides them")
        return self._sites

    @cached_property
    def _sites(self) -> list[Site]:
        return sites_of(self.net)

    @cached_property
    def data(self) -> Observed:
        """What one pass over the data folder gave."""
        return Pass(self.net, self._sites, self.truth(self.pictures), self.batch).run(self.pictures, "pictures")

    @cached_property
    def train(self) -> Observed:
        """What one pass over the training folder gave, over 5,000 pictures of more. Raises Missing without one."""
        pictures = self._trained_on
        return Pass(self.net, self._sites, self.truth(pictures), self.batch).run(pictures, "training pictures")

    @cached_property
    def _trained_on(self) -> Pictures:
        pictures = self._all_trained_on
        if len(pictures) <= MOST_TRAINED:
            return pictures
        chosen = np.random.default_rng(self.seed).choice(len(pictures), MOST_TRAINED, replace=False)
        say(f"{MOST_TRAINED:,} of {len(pictures):,} training pictures were looked at, drawn at random")
        return Pictures([_Some([pictures[number] for number in sorted(chosen.tolist())], pictures.classes)])

    @property
    def _all_trained_on(self) -> Pictures:
        if self.trained_on is None:
            raise Missing("it needs pictures that the network was trained on: give their folder, as --train FOLDER")
        return self.trained_on

    @cached_property
    def overlap(self) -> list[str]:
        """The pictures of the data folder whose content is in the training folder, too. Raises Missing without one."""
        hashed = read_ahead(self._all_trained_on, content_hash)
        known = {each.value for each in track(Counted(hashed, self._all_trained_on), "overlap")}
        return [each.where for each in self.data.read if each.content in known]

    @property
    def answers(self) -> Mapping[str, Answers]:
        """What the units of each site answered to the data folder's pictures, by the site's name."""
        return self.data.answers

    def truth(self, pictures: Pictures) -> Truth:
        """Return what is true of pictures, as labels and folders say it."""
        return find_truth(self.net, pictures, self.labels, self.names)

    def sample(self, count: int = SAMPLE, *, train: bool = False) -> tuple[list[int], Tensor]:
        """Return pictures drawn at random, evenly over the classes: their numbers, and pixels (n, c, h, w).

        The same `count` draws the same pictures. Raises Missing where none could be read.
        """
        key = ("train" if train else "data", count)
        if key not in self._samples:
            chosen = _drawn(self.train if train else self.data, count, self.seed)
            if not chosen:
                raise Missing("none of the pictures could be read")
            self._samples[key] = self.read(chosen, train=train)
        return self._samples[key]

    def read(self, numbers: Sequence[int], *, train: bool = False) -> tuple[list[int], Tensor]:
        """Return those of some pictures that have one size: their numbers, and pixels (n, c, h, w)."""
        pictures = self._trained_on if train else self.pictures
        pixels = [self.net.read(pictures[number].read()) for number in numbers]
        alike = [row for row, each in enumerate(pixels) if each.shape == pixels[0].shape]
        return [numbers[row] for row in alike], torch.cat([pixels[row].cpu() for row in alike])

    def batches(self, pixels: Tensor) -> Iterator[Tensor]:
        """Yield pixels (n, c, h, w) in batches, on the network's device."""
        for start in range(0, len(pixels), self.batch or 8):
            yield pixels[start : start + (self.batch or 8)].to(self.net.device)

    def means(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return what units let through their gates on average over the positions of pictures, (n, units) by site."""
        found: dict[str, list[Tensor]] = {site.name: [] for site in self.sites}
        read = {site.read.name: site for site in self.sites}
        with torch.inference_mode(), self.net.held():
            for batch in self.batches(pixels):
                for name, output in tap(self.net, batch, list(read)).items():
                    site = read[name]
                    found[site.name].append(site.gate.passed(Activity(site.read, output).sample()).mean(1).cpu())
        return {name: torch.cat(parts) for name, parts in found.items()}

    def passed(self, sites: Sequence[Site], count: int = SAMPLE) -> dict[str, Tensor]:
        """Return what units let through their gates at positions of the sample's pictures, (positions, units) each.

        Positions are those of the lattice on which a scan looks, of all pictures one after the other.
        """
        _, pixels = self.sample(count)
        found: dict[str, list[Tensor]] = {site.name: [] for site in sites}
        read = {site.read.name: site for site in sites}
        with torch.inference_mode(), self.net.held():
            for batch in self.batches(pixels):
                for name, output in tap(self.net, batch, list(read)).items():
                    site = read[name]
                    found[site.name].append(site.gate.passed(Activity(site.read, output).sample()).flatten(0, 1).cpu())
        return {name: torch.cat(parts) for name, parts in found.items()}


def _drawn(observed: Observed, count: int, seed: int) -> list[int]:
    """Draw pictures, one of every class after the other while there are some, and return their numbers, sorted."""
    chance = np.random.default_rng(seed)
    classes: dict[str | None, list[int]] = {}
    for number, each in enumerate(observed.pictures):
        if not each.error:
            classes.setdefault(each.label, []).append(number)
    shuffled = [chance.permutation(numbers).tolist() for _, numbers in sorted(classes.items(), key=str)]
    longest = max(map(len, shuffled), default=0)
    in_turn = [numbers[turn] for turn in range(longest) for numbers in shuffled if turn < len(numbers)]
    return sorted(in_turn[:count])
