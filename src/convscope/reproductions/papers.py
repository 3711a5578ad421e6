"""The papers that can be reproduced. Nothing here imports torch: the command's help and completion read it."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OptionError


@dataclass(frozen=True)
class Paper:
    """A paper: its name in commands, its title, how it is cited, and the package of its experiments."""

    name: str
    title: str
    citation: str
    package: str


_ALL = (
    Paper(
        "zeiler-fergus",
        "Visualizing and Understanding Convolutional Networks",
        "Zeiler & Fergus 2013, arXiv:1311.2901v3 (ECCV 2014)",
        "zeiler_fergus",
    ),
    Paper(
        "simonyan",
        "Deep Inside Convolutional Networks: Visualising Image Classification Models and Saliency Maps",
        "Simonyan, Vedaldi & Zisserman 2013, arXiv:1312.6034v2",
        "simonyan",
    ),
)

PAPERS = {paper.name: paper for paper in _ALL}


def find_paper(name: str) -> Paper:
    """Return the paper of a name, dashes or underscores. Raises OptionError with those that there are."""
    plain = str(name).strip().lower().replace("_", "-")
    if plain not in PAPERS:
        raise OptionError(f"there is no paper {name!r} to reproduce; papers: {' and '.join(PAPERS)}")
    return PAPERS[plain]
