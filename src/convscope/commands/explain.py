"""`convscope explain`: a method over many pictures, with a page, a table, and conditions that a script can go by."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import addresses, outputs
from ..errors import ConditionFailed, ObjectiveError, OptionError, OutputError, PictureError, named, nearest
from ..options import Option
from . import inputs
from .groups import grouped
from .network import Network
from .predict import Labels, Names
from .printing import AsJson, duration, print_file
from .progress import progress

if TYPE_CHECKING:
    from ..data.boxes import Box
    from ..data.pictures import Picture, Pictures
    from ..evaluation.conditions import Condition
    from ..evaluation.survey import Survey
    from ..evaluation.survey_table import Surveyed

_MEASURED, _TOLD = 64, 200
"""After how many pictures the rest is forecast, and from how many on."""

Out = Annotated[Path, typer.Option("--out", "-o", help="folder for page, table and overlays", metavar="FOLDER")]
MethodName = Annotated[str, typer.Option(help="name of a method: convscope --help lists them")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", help="an option of the method, as layer=conv5; repeated for several", metavar="NAME=VALUE"
    ),
]
Boxes = Annotated[
    Path | None,
    typer.Option(
        help="bounding boxes of objects, for the share of each map inside: .csv (path, left, top, right, bottom), COCO "
        ".json or VOC folder",
        metavar="FILE",
    ),
]
FailOn = Annotated[
    str | None,
    typer.Option(
        help="conditions for exit code 1, as 'wrong>0.2, centre_share<0.3': the share of wrong ones, or the mean, "
        "min(...) or max(...) of a column",
        metavar="CONDITIONS",
    ),
]


@grouped
def explain(
    pictures: inputs.Pictures,
    network: Network,
    out: Out = Path("convscope-explain"),
    method: MethodName = "grad-cam",
    option: Options = None,
    size: inputs.Size = None,
    of: inputs.Of = None,
    labels: Labels = None,
    names: Names = None,
    boxes: Boxes = None,
    check: inputs.Check = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="write table.parquet beside table.csv")] = False,
    junit: Annotated[Path | None, typer.Option(help="write the result as JUnit's XML", metavar="FILE")] = None,
    fail_on: FailOn = None,
    yes: inputs.Yes = False,
    as_json: AsJson = False,
) -> None:
    """Explain many pictures: an index page, a table with what each map shows, and overlays in the pictures' folders.

    The table holds the first three classes, the strongest regions as boxes, the share of the map inside them, inside
    given boxes and in the centre. Given again, the command makes only what is not there. Exit codes: 0 all right, 1 a
    condition of --fail-on failed, 2 wrong use, 3 some pictures could not be read.
    """
    from ..evaluation import conditions as judging

    conditions = () if fail_on is None else judging.parse(fail_on)
    _check_outputs(out, junit, parquet=parquet)
    judging.check_known(conditions, labelled=labels != "none", boxed=boxes is not None, checked=check)
    entry, options = _method(method, option or [])
    found, chosen = _pictures(pictures, out)
    inputs.agree_to_many(len(chosen), out, yes=yes, files=len(chosen) + 2 + parquet + (junit is not None))
    from ..evaluation.survey import Survey

    with progress():
        loaded = network.load([each.where for each in chosen], size=size)
        _check_objective(loaded, of)
        truth = _truth(loaded, found, labels, names, size)
        judging.check_known(conditions, labelled=truth.known, boxed=boxes is not None, checked=check)
        given = None if boxes is None else _boxes(boxes, chosen, pictures)
        asked: dict[str, Any] = {"of": of, "size": size, "options": options, "check": check}
        asked |= {"truth": truth, "boxes": given, "finished": _Forecast(len(chosen), out).tell}
        survey = Survey(loaded, chosen, out, entry, **asked)
        surveyed = _run(survey, conditions, out, junit, parquet=parquet, as_json=as_json)
    _judge(surveyed, conditions, out)


def _judge(surveyed: Surveyed, conditions: Sequence[Condition], out: Path) -> None:
    """Raise ConditionFailed where a condition says so, else PicturesFailed where pictures failed."""
    failures = [named(row.picture, row.error) for row in surveyed.failed]
    failed = [condition.told(surveyed.table) for condition in conditions if condition.holds(surveyed.table)]
    if failed:
        inputs.tell_failures(failures)
        raise ConditionFailed(f"failed by --fail-on: {'; '.join(failed)}")
    inputs.refuse_failures(failures, len(surveyed.rows), out)


def _run(
    survey: Survey, conditions: Sequence[Condition], out: Path, junit: Path | None, *, parquet: bool, as_json: bool
) -> Surveyed:
    """Make what is not there, and write page and tables, also of what is finished when ctrl-C comes."""
    try:
        survey.run()
    except KeyboardInterrupt:
        done = len(survey.rows)
        _write(survey.surveyed, [], out, None, parquet=parquet)
        print(
            f"convscope: interrupted; {done:,} of {len(survey.pictures):,} pictures are in {out}. Run the same command "
            "again to resume",
            file=sys.stderr,
        )
        raise
    surveyed = survey.surveyed
    for file in _write(surveyed, conditions, out, junit, parquet=parquet):
        print_file(file, beside=as_json)
    if as_json:
        print(surveyed.json(conditions))
    there = len(survey.rows) - survey.made - len(surveyed.failed)
    print(
        f"convscope: {surveyed.headline}{f'; {there:,} were there already' if there else ''}; in {out}",
        file=sys.stderr,
    )
    return surveyed


def _write(
    surveyed: Surveyed, conditions: Sequence[Condition], out: Path, junit: Path | None, *, parquet: bool
) -> list[Path]:
    """Write page and tables, and return the files."""
    from ..evaluation import junit as xml
    from ..evaluation.survey_page import survey_page
    from ..evaluation.survey_table import PAGE, TABLES

    tables = TABLES if parquet else TABLES[:1]
    files = [surveyed.table.save(out / name) for name in tables]
    if junit is not None:
        files.append(outputs.write_text(junit, xml.junit(surveyed.table, conditions, f"convscope {surveyed.method}")))
    told = [
        f"{'failed: ' if each.holds(surveyed.table) else 'passed: not '}{each.told(surveyed.table)}"
        for each in conditions
    ]
    return [outputs.write_text(out / PAGE, survey_page(surveyed, told, tables)), *files]


# What is asked ------------------------------------------------------------------------------------------------------


def _check_outputs(out: Path, junit: Path | None, *, parquet: bool) -> None:
    if out.is_file() or out.suffix.lower() in (*outputs.PICTURE_ENDINGS, *outputs.TABLE_ENDINGS):
        raise OutputError(f"explain writes a page, a table and a picture for each: give -o FOLDER, not {out}")
    outputs.check_folder(out)
    if junit is not None:
        outputs.check_file(junit)
    if parquet:
        outputs.check_pyarrow()


def _method(name: str, texts: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return a method's name and its options, as they were written. Raises OptionError."""
    from .. import registry

    registry.load_all()
    entry = registry.find(name.replace("-", "_"))
    options: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        option: Option | None = entry.options.get(key.strip().replace("-", "_"))
        if option is None or not equals:
            existing: Mapping[str, Option] = entry.options
            raise OptionError(
                f"--option is NAME=VALUE, and {entry.name} has the options {', '.join(existing)}; not {text!r}, "
                f"nearest: {nearest(key, existing)}"
            )
        parsed = option.parse(value)
        options[option.name] = [*options.get(option.name, []), *parsed] if isinstance(parsed, list) else parsed
    return entry.name, entry.check_options(options)


def _pictures(names: Sequence[str], out: Path) -> tuple[Pictures, list[Picture]]:
    """Return the pictures that are named, without those that lie in the folder to which is written."""
    found = inputs.read_all(names)
    own = os.path.join(os.path.realpath(out), "")  # noqa: PTH118
    chosen = [
        picture
        for picture in found
        if addresses.is_remote(picture.where) or not os.path.realpath(picture.where).startswith(own)
    ]
    if not chosen:
        raise PictureError(f"all pictures lie in {out}, where this command writes: give -o another folder")
    if len(chosen) < len(found):
        print(f"convscope: what lies in {out} is left out: this command writes there", file=sys.stderr)
    return found, chosen


def _check_objective(net: Any, of: str | None) -> None:
    """Refuse a network that has no classes where nothing says what is explained. Raises ObjectiveError."""
    if of is None and len(net.output.shape) == 3:
        middle = ",".join(str(side // 2) for side in net.output.shape[1:])
        raise ObjectiveError(
            f"{net.name} gives a map of outputs, not classes: say what is explained, as --of ':0@{middle}', a "
            "channel at a row and column, or --of ':0', its mean"
        )


def _truth(net: Any, found: Pictures, labels: str | None, names: Path | None, size: Any) -> Any:
    from ..context import listen
    from ..evaluation.normalisations import say_likelier_normalisation
    from ..evaluation.truth import Truth, find_truth

    if len(net.output.shape) > 1:
        return Truth()
    with listen() as remarks:
        truth = find_truth(net, found, labels, names)
        say_likelier_normalisation(net, found, truth, size)
    for remark in remarks:
        print(f"convscope: {remark}", file=sys.stderr)
    return truth


def _boxes(source: Path, chosen: Sequence[Picture], names: Sequence[str]) -> dict[str, list[Box]]:
    """Return boxes by the absolute address of the picture. Raises DataError, also where no picture has one."""
    from ..data import storage
    from ..data.boxes import read_boxes
    from ..data.folders import common_root
    from ..errors import DataError

    root = names[0] if len(names) == 1 and storage.at(names[0]).is_dir() else common_root(each.where for each in chosen)
    boxes: dict[str, list[Box]] = {}
    for boxed in read_boxes(source, root or "."):
        boxes.setdefault(addresses.absolute(boxed.path), []).extend(boxed.boxes)
    if not any(addresses.absolute(each.where) in boxes for each in chosen):
        raise DataError(
            f"{source} has boxes for none of the pictures: its first is {next(iter(boxes))}, and the first picture "
            f"{chosen[0].where}"
        )
    return boxes


class _Forecast:
    """Says after the first pictures how long the rest takes, and how much it writes."""

    def __init__(self, count: int, out: Path) -> None:
        self.count, self.out, self.start = count, out, time.monotonic()

    def tell(self, done: int) -> None:
        """Note that so many are done."""
        if done == 1:  # what comes before it is done once
            self.start = time.monotonic()
        if done != _MEASURED or self.count < _TOLD:
            return
        rest = (time.monotonic() - self.start) / (done - 1) * (self.count - done)
        files = [path.stat().st_size for path in self.out.rglob("*.png")]
        size = sum(files) / max(1, len(files)) * self.count / 1e6
        print(
            f"convscope: {self.count:,} pictures into {self.out}: {self.count + 2:,} files, about {size:,.1f} MB, and "
            f"about {duration(rest)} more",
            file=sys.stderr,
        )
