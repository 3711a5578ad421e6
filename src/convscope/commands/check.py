"""`convscope check`: do maps follow the network, is the answer in them, do they lie on the thing?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..configuration import located
from ..errors import ConvscopeError, DataError, OptionError, OutputError
from ..outputs import PICTURE_ENDINGS, check_folder
from . import inputs
from .progress import progress

if TYPE_CHECKING:
    from ..checks import Cascade, Localisation
    from ..checks.localisation import Rules
    from ..drawing.drawings import Heatmap
    from ..net import Net

_TABLES = (".csv", ".md", *PICTURE_ENDINGS)

Row = list[str]


Picture = Annotated[str, typer.Argument(metavar="PICTURE", help="a picture; with --boxes a folder of pictures")]
Methods = Annotated[str | None, typer.Option(help="names of methods, with commas between; all of them by default")]
Stages = Annotated[int, typer.Option(help="how many times more layers lose their weights, from the output down")]
Steps = Annotated[int, typer.Option(help="steps of the deletion and insertion curves")]
Boxes = Annotated[
    Path | None,
    typer.Option(help="where things are: .csv (path, left, top, right, bottom, class), COCO .json or VOC folder"),
]
Limit = Annotated[int | None, typer.Option(help="with --boxes: how many pictures, spread over all of them")]
Names = Annotated[Path | None, typer.Option(help="with --boxes, table (.csv): class or folder, its name")]
Answer = Annotated[
    bool, typer.Option("--answer", help="with --boxes: ask for the network's first choice, not the true class")
]
Tolerance = Annotated[
    float | None, typer.Option(help="with --boxes: pixels that a point may lie beside; 3 % of the side by default")
]
Threshold = Annotated[float, typer.Option(help="with --boxes: share of the maximum where a map's box ends")]
Segment = Annotated[
    bool, typer.Option("--segment", help="with --boxes: also the box of Simonyan's segmentation (needs OpenCV)")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help=f"the figure ({', '.join(PICTURE_ENDINGS)}); with --boxes .csv or .md too"),
]


def check(
    picture: Picture,
    methods: Methods = None,
    net: inputs.NetName = None,
    weights: inputs.Weights = "default",
    epoch: inputs.Epoch = None,
    device: inputs.Device = "cpu",
    mean: inputs.Mean = None,
    std: inputs.Std = None,
    classes: inputs.Classes = None,
    size: inputs.Size = None,
    of: inputs.Of = None,
    stages: Stages = 6,
    steps: Steps = 32,
    boxes: Boxes = None,
    limit: Limit = None,
    names: Names = None,
    answer: Answer = False,
    tolerance: Tolerance = None,
    threshold: Threshold = 0.15,
    segment: Segment = False,
    out: Out = None,
) -> None:
    """Check whether maps change with random weights, the answer changes where they say, and they lie on the thing.

    For a picture: the randomisation score (rank correlation with the maps of random weights: low is good), structural
    similarity, deletion (low is good) and insertion (high is good), infidelity (0 to 1) and sensitivity, and a figure
    of the maps while the network loses its weights. For a folder with --boxes: pointing game, box error and energy,
    beside maps that no network has made.
    """
    _check_output(out, boxes is not None)
    position = Path(located(picture))
    reading = {"mean": mean, "std": std, "classes": classes}
    if boxes is None:
        if position.is_dir():
            raise DataError(f"{position} is a folder: name one picture, or say where the things are with --boxes")
        with progress():
            loaded = inputs.load_named(net, weights, epoch, device, [position], **reading)
            rows, found = _picture(loaded, position, _methods(methods), of, size, stages, steps)
        _print(f"{position.name} · {loaded.name}", _HEADS, rows)
        _write_cascades(loaded, found, out or Path(f"{position.stem}-check.png"))
        return
    if of is not None:
        raise OptionError("--of is for one picture: with --boxes every picture is asked for its own class")
    with progress():
        loaded = inputs.load_named(net, weights, epoch, device, [], **reading)
        rules = _rules(tolerance, threshold, segment)
        table = _folder(loaded, position, boxes, _methods(methods), limit, names, size, answer=answer, rules=rules)
    _print(table.title, table.heads, [list(cells) for cells in table.cells()])
    print(f"{table.subtitle}\n{table.note}")
    if out is not None:
        print(table.save(out))


_HEADS = ("map", "randomisation", "SSIM", "deletion", "insertion", "infidelity", "sensitivity")


def _check_output(out: Path | None, table: bool) -> None:
    if out is None:
        return
    endings = _TABLES if table else PICTURE_ENDINGS
    if out.suffix.lower() not in endings:
        raise OutputError(f"cannot write {out}: endings are {', '.join(endings)}")
    check_folder(out.parent)


def _methods(names: str | None) -> list[str]:
    from .. import registry

    registry.load_all()
    if names is None:
        return list(registry.METHODS)
    return [registry.find(name.strip()).name for name in names.split(",") if name.strip()]


def _picture(
    net: Net, picture: Path, methods: Sequence[str], of: str | None, size: int | None, stages: int, steps: int
) -> tuple[list[Row], list[Cascade]]:
    """Check every method on one picture; one that refuses the network is named and left out."""
    from ..context import track
    from ..running import explain, predict

    # A class that is settled once costs one pass for all methods.
    single = not net.output.shape
    objective = of if of is not None or single else int(predict(net, net.read(picture, size=size))[0].argmax())
    rows: list[Row] = []
    found: list[Cascade] = []
    refused: ConvscopeError | None = None
    for name in track(methods, "methods"):
        try:
            heatmap = explain(net, picture, name, objective, size=size)
            row, cascade = _checks(net, heatmap, stages, steps)
        except ConvscopeError as error:
            refused = error
            print(f"convscope: {name}: {error}", file=sys.stderr)
            continue
        rows.append(row)
        found.append(cascade)
    if not rows and refused is not None:
        raise refused
    return rows, found


def _checks(net: Net, heatmap: Heatmap, stages: int, steps: int) -> tuple[Row, Cascade]:
    from .. import checks

    cascade = checks.cascade(net, heatmap, stages=stages)
    gone, back = (way(net, heatmap, steps=steps) for way in (checks.deletion, checks.insertion))
    apart = checks.infidelity(net, heatmap)
    moved = checks.sensitivity(net, heatmap)
    likeness = sum(cascade.ssim) / len(cascade.ssim)
    numbers = (cascade.score, likeness, gone.auc, back.auc, apart.unexplained, moved)
    return [heatmap.subtitle.partition(" · ")[0], *(f"{number:.2f}" for number in numbers)], cascade


def _write_cascades(net: Net, found: list[Cascade], out: Path) -> None:
    from ..checks.randomisation import drawn

    print(drawn(net, found).save(out))


def _rules(tolerance: float | None, threshold: float, segment: bool) -> Rules:
    from ..checks.localisation import Rules

    return Rules(tolerance=tolerance, threshold=threshold, segment=segment)


def _folder(
    net: Net,
    folder: Path,
    boxes: Path,
    methods: Sequence[str],
    limit: int | None,
    names: Path | None,
    size: int | None,
    *,
    answer: bool,
    rules: Rules,
) -> Localisation:
    from ..checks.localisation import localise
    from ..data.boxes import read_boxes, renamed, spread_over

    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: with --boxes, name the folder that holds the pictures")
    pictures = spread_over(read_boxes(boxes, folder), limit)
    if names is not None:
        pictures = renamed(pictures, names)
    asked = "answer" if answer else "class"
    return localise(net, pictures, methods, size=size, ask_for=asked, rules=rules)


def _print(title: str, heads: Sequence[str], rows: Sequence[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
