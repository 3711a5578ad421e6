"""`convscope predict`: what a network says of pictures and, where they have labels, how right it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, named, visible
from ..outputs import check_file, check_format, check_pyarrow
from . import inputs
from .groups import grouped
from .network import Network, print_remarks
from .printing import AsJson, print_addresses, print_file
from .progress import progress

if TYPE_CHECKING:
    from ..evaluation.predicted import Predictions
    from ..evaluation.prediction import Prediction

_SHOWN = 20
"""Pictures that are shown with bars, and wrong ones that are listed, at most."""
_BAR = 24
"""Characters of a bar of 1."""

Labels = Annotated[
    str | None,
    typer.Option(
        help="table of labels (.csv: path, label), or none where folders are no classes; by default the folder that a "
        "picture lies in, where folders are named as classes, by name, number or WordNet id",
        metavar="FILE",
    ),
]
Names = Annotated[
    Path | None, typer.Option(help="names that stand for labels: .csv (label, name), .json or .txt", metavar="FILE")
]


@grouped
def predict(
    pictures: inputs.Pictures,
    network: Network,
    size: inputs.Size = None,
    top: Annotated[int, typer.Option(help="how many classes to show of each picture", min=1)] = 5,
    labels: Labels = None,
    names: Names = None,
    wrong: Annotated[
        bool,
        typer.Option(
            "--wrong",
            help="only the pictures whose first choice is not their label; into a pipe, their addresses one per line",
        ),
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="write a table, a row per picture", metavar="FILE")] = None,
    parquet: Annotated[Path | None, typer.Option(help="the same as Parquet", metavar="FILE")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a network sees in pictures and, where they have labels, how right it is.

    Labels are class folders or a table. With them: top-1 and top-5 by class, confusion, calibration, and the wrong ones
    listed. `convscope predict DATA --wrong | convscope grad-cam -` explains the wrong ones. Exit code 3 where some
    pictures could not be read.
    """
    for file, ending in ((csv, ".csv"), (parquet, ".parquet")):
        if file is not None:
            check_format(file, ending)
            check_file(file)
    if parquet is not None:
        check_pyarrow()
    found = inputs.read_all(pictures)
    from ..evaluation.predicting import predict_many

    files = {file: ending for file, ending in ((csv, ".csv"), (parquet, ".parquet")) if file is not None}

    def keep(said: Predictions) -> None:
        """Write the tables of what is finished."""
        for file, ending in files.items():
            at = said.table(said.wrong if wrong else None).save(file, ending)
            print(f"convscope: interrupted; {len(said):,} of {len(found):,} pictures are in {at}", file=sys.stderr)

    with progress():
        loaded = network.load([each.where for each in found], size=size)
        said = predict_many(loaded, found, top=top, labels=labels, names=names, size=size, interrupted=keep)
    print_remarks(said.recipe.remarks, loaded)
    if wrong and not said.labelled:
        raise DataError(
            "--wrong needs to know what is right: a folder of pictures for each class, named as the network's classes "
            f"are, or --labels FILE.csv (path, label); {said.network} knows {_some(said.classes)}"
        )
    _print(said, wrong, as_json=as_json)
    for file, ending in files.items():
        print_file(said.table(said.wrong if wrong else None).save(file, ending), beside=as_json or wrong)
    inputs.refuse_failures([named(each.where, each.error) for each in said.failed], len(said), "")


def _print(said: Predictions, wrong: bool, *, as_json: bool) -> None:
    if as_json:
        print(said.json(said.wrong if wrong else None))
    elif wrong and not sys.stdout.isatty():
        print_addresses(each.where for each in said.wrong)
    else:
        _print_words(said, said.wrong if wrong else said.all)


def _print_words(said: Predictions, chosen: Sequence[Prediction]) -> None:
    """Print predictions with bars, and how right they are."""
    quality, many = said.quality, len(chosen) > _SHOWN
    # Of many pictures with labels the figures say more than the first twenty.
    shown = () if many and quality is not None and chosen is said.all else chosen[:_SHOWN]
    for each in shown:
        _print_bars(said, each)
    if many and shown:
        print(f"\nand {len(chosen) - _SHOWN:,} pictures more: --csv FILE, --parquet FILE or --json give all of them")
    if quality is None:
        return
    for table in (quality.class_table(), quality.confusion_table(), quality.reliability_table()):
        table.print()
    print(quality.headline)
    if said.wrong and chosen is said.all:
        print(f"\nwrong: {len(said.wrong):,} pictures{f', the {_SHOWN} most certain:' * (len(said.wrong) > _SHOWN)}")
        for each in sorted(said.wrong, key=lambda each: -each.values[0])[:_SHOWN]:
            print(f"  {_one_line(said, each)}")


def _print_bars(said: Predictions, each: Prediction) -> None:
    truth = "" if each.truth is None else f"  ({'right' if each.rank == 0 else 'is'}: {said.name(each.truth)})"
    print(f"{visible(each.where)}{truth}")
    if each.error:
        print(f"  {each.error}")
    width = max((len(said.classes[index]) for index in each.choices), default=0)
    for index, value in zip(each.choices, each.values, strict=True):
        bar = "" if said.head.kind == "value" else f"{_bar(value):{_BAR}}  "
        print(f"  {said.classes[index]:{width}}  {bar}{said.head.text(value)}")


def _one_line(said: Predictions, each: Prediction) -> str:
    value, true = said.head.text(each.values[0]), said.head.text(each.truth_value or 0.0)
    return f"{visible(each.where)}: {said.classes[each.choices[0]]} {value}; is {said.name(each.truth)} ({true})"


def _bar(share: float) -> str:
    """Draw a share of 1 in eighths of a character, where the output can hold these."""
    eighths = round(max(0.0, min(1.0, share)) * _BAR * 8)
    try:
        "█▏".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#" * (eighths // 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _some(classes: Sequence[str]) -> str:
    return ", ".join(classes[:4]) + (", ..." if len(classes) > 4 else "")
