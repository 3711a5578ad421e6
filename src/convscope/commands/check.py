"""`convscope check`: do maps depend on the weights, is the score faithful to them, do they lie on the objects?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import addresses
from ..context import whole
from ..data import storage
from ..errors import ConvscopeError, DataError, OptionError, OutputError
from ..outputs import PICTURE_ENDINGS, TABLE_ENDINGS, check_file
from . import inputs
from .groups import grouped
from .network import Network, parts
from .paper import Figure
from .printing import AsJson, print_file
from .progress import progress

if TYPE_CHECKING:
    from ..checks import Cascade, Criteria, Localisation
    from ..data.preprocessing import Size
    from ..drawing.drawings import Drawing, Heatmap
    from ..drawing.tables import Table
    from ..net import Net

_FIGURES = ("randomisation", "SSIM", "deletion", "insertion", "infidelity", "sensitivity")

Picture = Annotated[
    str, typer.Argument(metavar="PICTURE", help="a picture, - for its address on standard input; with --boxes a folder")
]
Methods = Annotated[
    list[str] | None,
    typer.Option(help="names of methods, with commas between or by repeating the option; all of them by default"),
]
Stages = Annotated[int, typer.Option(help="number of stages in which the layers are randomised, from the output down")]
Steps = Annotated[int, typer.Option(help="number of steps of the deletion and insertion curves")]
Boxes = Annotated[
    Path | None,
    typer.Option(
        help="localisation by bounding boxes: .csv (path, left, top, right, bottom, class), COCO .json or VOC folder"
    ),
]
Limit = Annotated[int | None, typer.Option(help="with --boxes: maximum number of pictures, evenly spaced over all")]
Names = Annotated[
    Path | None,
    typer.Option(help="with --boxes: names of labels, as for WordNet ids: .csv (label, name), .json or .txt"),
]
Top1 = Annotated[
    bool, typer.Option("--top-1", help="with --boxes: explain the network's top-1 class, not the labelled one")
]
Tolerance = Annotated[
    float | None,
    typer.Option(help="with --boxes: tolerance of the pointing game in pixels; 3% of the longer side by default"),
]
Threshold = Annotated[
    float, typer.Option(help="with --boxes: threshold of a map's bounding box, as a fraction of its maximum")
]
Segment = Annotated[
    bool, typer.Option("--segment", help="with --boxes: also the box of Simonyan's segmentation (needs OpenCV)")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help=f"the figure ({', '.join(PICTURE_ENDINGS)}); with --boxes also the table ({', '.join(TABLE_ENDINGS)})",
    ),
]


@grouped
def check(
    picture: Picture,
    network: Network,
    figure: Figure,
    methods: Methods = None,
    size: inputs.Size = None,
    of: inputs.Of = None,
    stages: Stages = 6,
    steps: Steps = 32,
    boxes: Boxes = None,
    limit: Limit = None,
    names: Names = None,
    top_1: Top1 = False,
    tolerance: Tolerance = None,
    threshold: Threshold = 0.15,
    segment: Segment = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Check methods: dependence on the weights, faithfulness to the score and, with boxes, localisation.

    For a picture: the randomisation score (rank correlation with maps of the network with randomised weights: low is
    good), structural similarity, deletion (low is good) and insertion (high is good), infidelity (0 to 1) and
    sensitivity, and a figure of the maps while the layers are randomised. For a folder with --boxes: pointing game,
    box error and energy in the box, beside baselines without a network.
    """
    place = inputs.find_one(picture)
    _check_request(place, boxes, of, out)
    figure.check(out or (None if as_json or boxes else _default(place)))
    chosen = _methods(methods)
    if boxes is None:
        with progress(), whole():
            loaded = network.load([place], size=size)
            table, cascades = _check_picture(loaded, place, chosen, of, size, stages, steps)
        _show(table, as_json=as_json)
        if out is not None or not as_json:
            _write(_drawn(loaded, cascades), out or _default(place), figure, as_json=as_json)
        return
    with progress():
        loaded = network.load(size=size)
        criteria = _criteria(tolerance, threshold, segment)
        result = _localise(loaded, place, boxes, chosen, limit, names, size, top_1=top_1, criteria=criteria)
    _show(result.table if as_json else result.summary, as_json=as_json)
    if out is not None:
        _write(result, out, figure, as_json=as_json)


def _default(place: str) -> Path:
    return Path(f"{addresses.stem(place)}-check.png")


def _check_request(place: str, boxes: Path | None, of: str | None, out: Path | None) -> None:
    """Refuse what cannot work before a network is loaded."""
    if out is not None:
        _check_output(out, boxes)
        inputs.refuse_overwriting([place], [out])
    if boxes is None and storage.at(place).is_dir():
        raise DataError(
            f"{place} is a folder: name one picture, or give the objects' bounding boxes with --boxes FILE.csv"
        )
    if boxes is not None and not storage.at(place).is_dir():
        raise DataError(f"{place} is not a folder: with --boxes, name the folder that holds the pictures")
    if boxes is not None and of is not None:
        raise OptionError("--of is for one picture: with --boxes the labelled class of every picture is explained")
    if boxes is not None and not boxes.exists():
        raise DataError(f"there is no {boxes}: --boxes is a table (.csv), a COCO file (.json) or a folder of VOC files")


def _check_output(out: Path, boxes: Path | None) -> None:
    suffix = out.suffix.lower()
    if boxes is None and suffix in TABLE_ENDINGS:
        raise OutputError(
            f"cannot write {out}: a table of localisation needs bounding boxes, --boxes FILE.csv; without them the "
            f"output is a figure ({', '.join(PICTURE_ENDINGS)})"
        )
    endings = PICTURE_ENDINGS if boxes is None else (*TABLE_ENDINGS, *PICTURE_ENDINGS)
    if suffix not in endings:
        raise OutputError(f"cannot write {out}: endings are {', '.join(endings)}")
    check_file(out)


def _methods(names: Sequence[str] | None) -> list[str]:
    from .. import registry

    registry.load_all()
    if names is None:
        return list(registry.METHODS)
    chosen = list(dict.fromkeys(registry.find(name).name for name in parts(names)))
    if not chosen:
        raise OptionError("--methods names no method: name at least one, or leave it out for all")
    return chosen


def _check_picture(
    net: Net, picture: str, methods: Sequence[str], of: str | None, size: Size | None, stages: int, steps: int
) -> tuple[Table, list[Cascade]]:
    """Check every method on one picture; one that refuses the network is named and left out."""
    from ..context import listen, track
    from ..predictions import first_choices
    from ..running import explain

    # A class that is settled once costs one pass for all methods.
    single = not net.output.shape
    objective = of if of is not None or single else first_choices(net, net.read(picture, size=size))[0]
    rows: list[tuple[str | float, ...]] = []
    cascades: list[Cascade] = []
    refusal: ConvscopeError | None = None
    with listen() as remarks:
        for name in track(methods, "methods"):
            try:
                figures, cascade = _figures(net, explain(net, picture, name, objective, size=size), stages, steps)
            except ConvscopeError as error:
                refusal = error
                print(f"convscope: {name}: {error}", file=sys.stderr)
                continue
            rows.append((name, cascade.heatmap.subtitle.partition(" · ")[0], *figures))
            cascades.append(cascade)
    if not rows and refusal is not None:
        raise refusal
    return _table(f"{storage.at(picture).name} · {net.name}", rows, cascades, "; ".join(remarks)), cascades


def _table(title: str, rows: Sequence[tuple[str | float, ...]], cascades: Sequence[Cascade], note: str) -> Table:
    from ..drawing.tables import Column, Table

    columns = (
        Column("name", unbroken=True),
        Column("map", unbroken=True),
        *(Column(name, "number", format=".2f") for name in _FIGURES),
    )
    return Table(columns, tuple(rows), cascades[0].heatmap.recipe, title, note=note)


def _figures(net: Net, heatmap: Heatmap, stages: int, steps: int) -> tuple[tuple[float, ...], Cascade]:
    from .. import checks

    cascade = checks.cascade(net, heatmap, stages=stages)
    similarity = sum(cascade.ssim) / len(cascade.ssim)
    areas = [way(net, heatmap, steps=steps).auc for way in (checks.deletion, checks.insertion)]
    unexplained, moved = checks.infidelity(net, heatmap).unexplained, checks.sensitivity(net, heatmap)
    return (cascade.score, similarity, *areas, unexplained, moved), cascade


def _drawn(net: Net, cascades: list[Cascade]) -> Drawing:
    from ..checks.randomisation_figure import draw_cascades

    return draw_cascades(net, cascades)


def _criteria(tolerance: float | None, threshold: float, segment: bool) -> Criteria:
    from ..checks import Criteria

    return Criteria(tolerance=tolerance, threshold=threshold, segment=segment)


def _localise(
    net: Net,
    folder: str,
    boxes: Path,
    methods: Sequence[str],
    limit: int | None,
    names: Path | None,
    size: Size | None,
    *,
    top_1: bool,
    criteria: Criteria,
) -> Localisation:
    from ..checks import localise
    from ..data.boxes import read_boxes, renamed, spread_over

    pictures = spread_over(read_boxes(boxes, folder), limit)
    if names is not None:
        pictures = renamed(pictures, names)
    return localise(net, pictures, methods, size=size, target="top-1" if top_1 else "label", criteria=criteria)


def _show(table: Table, *, as_json: bool) -> None:
    if as_json:
        print(table.json())
    else:
        table.print()


def _write(drawing: Drawing, out: Path, figure: Figure, *, as_json: bool) -> None:
    """Write a file and name it, beside JSON on stderr."""
    print_file(figure.save(drawing, out), beside=as_json)
