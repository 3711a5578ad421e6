"""`convscope diagnose`: what is wrong with a network, as a report, as JSON, and as a test that a script can go by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import outputs
from ..errors import ConditionFailed, named
from . import inputs
from .groups import grouped
from .network import First, Network, one_network, parts, print_remarks
from .predict import Labels, Names
from .printing import print_file
from .progress import progress

if TYPE_CHECKING:
    from ..diagnosis.baseline import Baseline
    from ..diagnosis.conditions import Condition
    from ..diagnosis.diagnosis import Diagnosis

_LOOKED_AT = 64
"""Pictures that tell which network, and which size, is meant where nobody says it."""

_PANEL = "In continuous integration"

Data = Annotated[
    list[str],
    typer.Option(
        "--data",
        help="pictures that the network was not trained on: a folder, best with one for each class, a .tar or .parquet "
        "file; repeated for several",
        metavar="FOLDER",
    ),
]
Train = Annotated[
    list[str] | None,
    typer.Option("--train", help="pictures that it was trained on, for overfitting and shortcuts", metavar="FOLDER"),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kinds", help="kinds of findings to look for, with commas between; all by default", metavar="KINDS"),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="report to write (.html, .pdf), or a table (.csv, .md)")]
AsJson = Annotated[
    Path | None, typer.Option("--json", help="write everything as JSON; a later --baseline", metavar="FILE")
]
FailOn = Annotated[
    str | None,
    typer.Option(
        help="severities for exit code 1, as dead=0.2,overfit=0.5; any=0.5 is about every kind",
        metavar="CONDITIONS",
        rich_help_panel=_PANEL,
    ),
]
Known = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        help="what --json wrote before: findings in it are known, and --fail-on passes over them",
        metavar="FILE",
        rich_help_panel=_PANEL,
    ),
]
Junit = Annotated[
    Path | None, typer.Option(help="write JUnit's XML, a test for each kind", metavar="FILE", rich_help_panel=_PANEL)
]
Annotations = Annotated[
    bool, typer.Option("--annotations", help="print findings as GitHub shows them", rich_help_panel=_PANEL)
]


@grouped
def diagnose(
    context: typer.Context,
    network: Network,
    data: Data,
    train: Train = None,
    first: First = None,
    kinds: Kinds = None,
    labels: Labels = None,
    names: Names = None,
    size: inputs.Size = None,
    batch: Annotated[int, typer.Option(help="pictures in one pass; 8 on a CPU and 64 elsewhere by default")] = 0,
    seed: Annotated[int, typer.Option(help="of what is drawn at random")] = 0,
    out: Out = None,
    as_json: AsJson = None,
    fail_on: FailOn = None,
    baseline: Known = None,
    junit: Junit = None,
    annotations: Annotations = False,
) -> None:
    """Look for what is wrong with a network: dead units, overfitting, shortcuts, calibration and more.

    Every finding has a severity from 0.2 to 1, its evidence, what usually helps and what would disprove it. What is in
    order, and what could not be looked at, is listed, too. Exit code 1 where --fail-on says so, 3 where some pictures
    could not be read.
    """
    _check_outputs(out, as_json, junit)
    wanted = parts(kinds or [])
    from ..context import listen
    from ..diagnosis.baseline import read_baseline
    from ..diagnosis.conditions import parse
    from ..diagnosis.diagnosing import diagnose as look

    conditions = () if fail_on is None else parse(fail_on, wanted)
    known = None if baseline is None else read_baseline(baseline)
    network = replace(network, net=one_network(context, first, network.net))
    found = inputs.read_all(data)
    trained_on = None if train is None else inputs.read_all(train)
    with progress(), listen() as remarks:
        loaded = network.load([each.where for each in islice(found, _LOOKED_AT)], size=size)
        loaded = loaded if size is None else loaded.sized(size)
        asked: dict[str, Any] = {"kinds": wanted, "labels": labels, "names": names, "batch_size": batch, "seed": seed}
        diagnosis = look(loaded, found, trained_on, **asked)
        diagnosis = _accepted(replace(diagnosis, data=", ".join(data)), known)
    print_remarks([*diagnosis.recipe.remarks, *remarks], loaded)
    _print(diagnosis, conditions, annotations=annotations)
    _write(diagnosis, conditions, out, as_json, junit)
    _judge(diagnosis, conditions)


def _check_outputs(out: Path | None, as_json: Path | None, junit: Path | None) -> None:
    if out is not None and out.suffix.lower() not in outputs.TABLE_ENDINGS[:-1]:
        outputs.check_report(out)
    for file in filter(None, (out, as_json, junit)):
        outputs.check_file(file)
    for file, ending in ((as_json, ".json"), (junit, ".xml")):
        if file is not None:
            outputs.check_format(file, ending)


def _accepted(diagnosis: Diagnosis, known: Baseline | None) -> Diagnosis:
    from ..diagnosis.baseline import accepted

    return diagnosis if known is None else accepted(diagnosis, known)


def _print(diagnosis: Diagnosis, conditions: Sequence[Condition], *, annotations: bool) -> None:
    if diagnosis.findings:
        diagnosis.table().print()
    else:
        print(f"{diagnosis.network}: {diagnosis.headline}")
    for heading, each in (("in order", diagnosis.healthy), ("not looked at", diagnosis.unseen)):
        if each:
            print(f"\n{heading}:")
        for one in each:
            print(f"  {one.kind}: {one.sentence if hasattr(one, 'sentence') else one.reason}")  # type: ignore[union-attr]
    if annotations:
        from ..diagnosis.services import github

        for line in github(diagnosis, conditions):
            print(line)


def _write(
    diagnosis: Diagnosis, conditions: Sequence[Condition], out: Path | None, as_json: Path | None, junit: Path | None
) -> None:
    if out is not None:
        print_file(diagnosis.save(out))
    if as_json is not None:
        print_file(outputs.write_text(as_json, diagnosis.json() + "\n"))
    if junit is not None:
        from ..diagnosis import services

        print_file(outputs.write_text(junit, services.junit(diagnosis, conditions)))


def _judge(diagnosis: Diagnosis, conditions: Sequence[Condition]) -> None:
    """Raise ConditionFailed where a condition says so, else PicturesFailed where pictures failed."""
    failures = [named(where, reason) for where, reason in diagnosis.failures]
    failed = [told for condition in conditions if (told := condition.told(diagnosis))]
    if failed:
        inputs.tell_failures(failures)
        raise ConditionFailed(f"failed by --fail-on: {'; '.join(failed)}")
    inputs.refuse_failures(failures, diagnosis.pictures + len(failures), "")
