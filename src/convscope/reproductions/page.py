"""A reproduction as a report: the verdicts, then the paper's figures and tables one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from .. import outputs
from ..drawing.tables import Cell, Column, Table
from ..reports.chapters import Chapter, Contents, Figure, Section
from ..reports.reporting import write_contents
from .claims import Claim, Statement
from .registration import Experiment, Found
from .reproduction import Looked, Reproduction

_HOW = (
    "For every claim of the paper a rule says beforehand by which numbers the shape of the result holds. Where "
    "features are said to be learnt, the same rule is put to a copy of the network with random weights: what holds "
    "there too comes of the architecture. Intervals are of 95%, and say how far a number would move with other "
    "pictures, not with another network. An interval that holds the bound leaves a claim open where it is of fewer "
    "than 20 pictures; of more, the claim does not hold."
)


def write_report(reproduction: Reproduction, path: Path, paper: Literal["a4", "letter"] = "a4") -> Path:
    """Write a reproduction as .html or .pdf. Raises OutputError where that cannot be written."""
    outputs.check_report(path)
    return write_contents(_contents(reproduction), path, paper)


def _contents(reproduction: Reproduction) -> Contents:
    paper = reproduction.paper
    lead = [
        f"{paper.citation}: its experiments on other networks and pictures. {reproduction.headline}.",
        *map(str, reproduction.networks),
        _HOW,
        "A quick run: about a quarter of the usual numbers." if reproduction.quick else "",
        *reproduction.recipe.remarks,
    ]
    return Contents(f"{paper.title}, reproduced", "\n\n".join(filter(None, lead)), list(_chapters(reproduction)))


def _chapters(reproduction: Reproduction) -> Iterator[Chapter]:
    yield Chapter("Verdicts", tables=(_verdicts(reproduction),))
    for (experiment, founds), (_, claims) in zip(reproduction.results, reproduction.judged(), strict=True):
        yield _chapter(experiment, founds, claims, reproduction.networks)
    if reproduction.failures:
        told = "\n\n".join(reproduction.failures[:50])
        yield Chapter(f"{len(reproduction.failures):,} pictures that could not be read", told)


def _verdicts(reproduction: Reproduction) -> Table:
    """Return a row for each statement, a column for each network."""
    names = [each.name for each in reproduction.networks]
    columns = (Column("figure"), Column("claim"), *(Column(name) for name in names))
    rows = list[tuple[Cell, ...]]()
    for experiment, claims in reproduction.judged():
        for statement in experiment.claims:
            verdicts = {claim.network: claim.told for claim in claims if claim.name == statement.name}
            rows.append((experiment.figure, statement.sentence, *(verdicts.get(name, "") for name in names)))
    return Table(columns, tuple(rows), title="What holds")


def _chapter(
    experiment: Experiment, founds: Sequence[Found], claims: Sequence[Claim], networks: Sequence[Looked]
) -> Chapter:
    text = [f"What the paper did: {experiment.did}"]
    text += [f"What is different here: {experiment.differs}"] if experiment.differs else []
    judged = [_judged(each, [claim for claim in claims if claim.name == each.name]) for each in experiment.claims]
    sections = [_section(looked.name, found) for looked, found in zip(networks, founds, strict=True)]
    return Chapter(
        f"{experiment.figure}: {experiment.title}", "\n\n".join(text), tables=tuple(judged), sections=tuple(sections)
    )


def _judged(statement: Statement, claims: Sequence[Claim]) -> Table:
    """Return the verdicts on a statement: a row for each network, the rule above and the paper's numbers below."""
    columns = (Column("network", unbroken=True), Column("verdict"), Column("numbers", head="our numbers"))
    rows = tuple((claim.network, claim.told, " ".join(filter(None, (claim.ours, _why(claim))))) for claim in claims)
    return Table(
        columns,
        rows,
        title=statement.sentence,
        subtitle=f"Rule: {statement.rule}",
        note=f"The paper: {statement.paper}",
    )


def _why(claim: Claim) -> str:
    return f"{claim.reason[:1].upper()}{claim.reason[1:]}." if claim.reason else ""


def _section(name: str, found: Found) -> Section:
    if found.unfit:
        return Section(name, f"Not done: {found.unfit}.")
    return Section(name, found.did, tuple(found.tables), tuple(Figure.of(drawing) for drawing in found.figures))
