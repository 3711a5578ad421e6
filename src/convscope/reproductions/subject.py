"""What experiments look at: a network, its untrained copy, and labelled pictures for each purpose."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from ..checks.random_weights import randomised
from ..data.pictures import Pictures
from ..errors import DataError, NetworkError
from ..net import Net
from ..provenance import network_record, versions
from ..recipes import Recipe, making
from ..studies.keeping import kept, place_of
from ..studies.labelled import Labelled
from .registration import Unfit
from .sampling import evenly

_LARGE = 128 * 128
"""Pixels of the network's input from which on fewer pictures are taken."""

_QUICK = 4


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with the pictures that it is looked at with.

    `data` are pictures that it was not trained on, some of `source`; `learnt` are some that it was, `others` some of
    classes that it was not taught; None where there are none. `keep` is where experiments keep what took long, `boxes`
    a table of boxes around the objects of some pictures, `parts` one of parts of some.
    """

    net: Net
    data: Labelled
    source: Pictures
    learnt: Labelled | None = None
    others: Labelled | None = None
    keep: Path | None = None
    seed: int = 0
    quick: bool = False
    boxes: str | Path | None = None
    parts: str | Path | None = None

    @cached_property
    def untrained(self) -> Net | None:
        """A copy with random weights; None where the network cannot be copied, or has no weights."""
        try:
            return randomised(self.net, seed=self.seed)
        except NetworkError:
            return None

    @property
    def large(self) -> bool:
        """Whether a picture of the network's is large, so that each takes long."""
        return self.net.size[0] * self.net.size[1] > _LARGE

    def number(self, small: int, large: int, least: int = 1) -> int:
        """Return how many of something to take: of a network of small pictures, or large ones; fewer in a quick run."""
        count = large if self.large else small
        return max(least, count // _QUICK) if self.quick else count

    def some(self, small: int, large: int, *, of: Labelled | None = None) -> Labelled:
        """Return some pictures of the data, drawn at random by the seed, as evenly over classes as it goes."""
        data = self.data if of is None else of
        return data.subset(evenly(data.targets, self.number(small, large, 4), self.seed))

    @property
    def known(self) -> bool:
        """Whether the classes of the data are the network's, so that answers can be right or wrong."""
        try:
            return any(answer is not None for answer in self.data.answers)
        except DataError:
            return False

    def labelled(self, data: Labelled | None = None, *, least: int = 2) -> Labelled:
        """Return the pictures that have a label. Raises Unfit where these are of fewer classes than `least`."""
        data = self.data if data is None else data
        rows = [row for row, target in enumerate(data.targets) if target >= 0]
        present = {data.targets[row] for row in rows}
        if len(present) < least:
            raise Unfit(
                f"it compares classes, and the pictures have {'no labels' if not rows else 'one class'}: give a folder "
                "with a folder for each class"
            )
        return data if len(rows) == len(data) else data.subset(rows)

    def kept(
        self, name: str, data: Labelled, make: Callable[[], Mapping[str, Tensor]], **options: Any
    ) -> Mapping[str, Tensor]:
        """Return tensors of an experiment as an earlier run kept them, else make them; `options` decide them too."""
        with making(self._recipe(name, data, options)):
            return kept(self.keep, name, make)

    @contextmanager
    def folder(self, name: str, data: Labelled, **options: Any) -> Generator[Path]:
        """Yield a folder that is of this experiment, network and data alone; a temporary one where nothing is kept."""
        if self.keep is None:
            with TemporaryDirectory(prefix="convscope-") as place:
                yield Path(place) / name
            return
        with making(self._recipe(name, data, options)):
            yield place_of(self.keep, name)

    def _recipe(self, name: str, data: Labelled, options: Mapping[str, Any]) -> Recipe:
        return Recipe(
            method=f"reproduce-{name}",
            network=network_record(data.net),
            weights=data.net.digest,
            pictures=(data.record,),
            options={**options, "seed": self.seed},
            versions=versions(),
        )
