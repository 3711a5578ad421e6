"""Experiments of papers: each is a function in a module of the paper's folder, with the claims that it judges.

    _FASTER = Statement("first-layer-faster", "...", rule="...", paper="...")

    @experiment("zeiler-fergus", 50, "Fig. 5", "Shifted, enlarged and rotated", did="...", claims=(_FASTER,))
    def invariance(subject: Subject) -> Found:
        study = ...
        return Found("100 pictures ...", [_FASTER.judged(holds, "...")], [study])

Every statement gets a verdict on every network. Where a network or the data does not fit, the function raises `Unfit`
with the reason, or any ConvscopeError, and none of its claims can be judged there.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..drawing.base import Drawing
from ..drawing.tables import Table
from ..errors import ConvscopeError, OutOfMemory, OutputError, StorageError
from .claims import Claim, Statement
from .papers import PAPERS, Paper

if TYPE_CHECKING:
    from .subject import Subject


class Unfit(ConvscopeError):  # noqa: N818  reads as what it says
    """An experiment makes no sense on this network, or with these pictures, for the reason that this says."""


@dataclass(frozen=True)
class Found:
    """What an experiment found on one network: what was done, verdicts, tables and figures; or why nothing was."""

    did: str = ""
    claims: Sequence[Claim] = ()
    figures: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    unfit: str = ""


Look = Callable[["Subject"], Found]


@dataclass(frozen=True)
class Experiment:
    """An experiment of a paper.

    `order` is its place among the paper's, `figure` the figures or tables that it makes anew, `did` what the paper did,
    `differs` what is different here whatever the network, `work` how long it takes in comparison with others.
    """

    paper: str
    order: int
    figure: str
    title: str
    did: str
    claims: tuple[Statement, ...]
    look: Look = field(repr=False)
    differs: str = ""
    work: float = 1.0

    @property
    def name(self) -> str:
        """The name of its function."""
        return self.look.__name__

    def found(self, subject: Subject) -> Found:
        """Make the experiment on a network; what cannot be done there leaves its claims open."""
        try:
            found = self.look(subject)
        except (OutOfMemory, StorageError, OutputError):
            raise
        except ConvscopeError as error:
            found = Found("", [each.unjudged(str(error)) for each in self.claims], unfit=str(error))
        told = {claim.name: claim for claim in found.claims}
        assert set(told) == {each.name for each in self.claims}, f"{self.name} judges {', '.join(told)}"
        named = [
            replace(told[each.name], network=told[each.name].network or subject.net.name, figure=self.figure)
            for each in self.claims
        ]
        return replace(found, claims=named)


_EXPERIMENTS: dict[tuple[str, str], Experiment] = {}


def experiment(
    paper: str,
    order: int,
    figure: str,
    title: str,
    *,
    did: str,
    claims: tuple[Statement, ...],
    differs: str = "",
    work: float = 1.0,
) -> Callable[[Look], Look]:
    """Register an experiment of a paper; the arguments are those of `Experiment`."""

    def register(look: Look) -> Look:
        assert paper in PAPERS, f"there is no paper {paper}"
        made = Experiment(paper, order, figure, title, did, claims, look, differs, work)
        _EXPERIMENTS[paper, made.name] = made
        return look

    return register


def experiments(paper: Paper) -> list[Experiment]:
    """Return the experiments of a paper in their order."""
    home = importlib.import_module(f".{paper.package}", __package__)
    for module in pkgutil.iter_modules(home.__path__):
        importlib.import_module(f"{home.__name__}.{module.name}")
    return sorted((each for (name, _), each in _EXPERIMENTS.items() if name == paper.name), key=lambda each: each.order)
