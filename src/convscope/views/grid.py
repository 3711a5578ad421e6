"""A grid: pictures by methods, with what the network says of each and what is true, maps of a method on one scale.

For figures of papers, such as one of wrong predictions: each row is a picture as the network saw it, each column a
method. Maps of one unit share a colour scale over all pictures, so that they can be compared by eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

import torch
from PIL import Image

from .. import registry
from ..context import say, track
from ..data.display import to_image
from ..data.images import PictureSource
from ..drawing import layout
from ..drawing.drawings import Gallery, Heatmap, robust_limit
from ..drawing.layout import Scale, Sheet, Tile, number
from ..drawing.rearranging import on_one_scale
from ..drawing.tiles import fitted
from ..errors import ConvscopeError, OptionError, OutOfMemory, PictureError, named
from ..net import Net
from ..options import Range
from ..predictions import ObjectiveLike
from ..recipes import FAILED, Recipe
from ..registry import Entry, view
from ..running import explain

if TYPE_CHECKING:
    from ..evaluation.predicted import Predictions
    from ..evaluation.prediction import Prediction

_USUAL = ("saliency", "guided_backprop", "grad_cam")
_SIDE = 200


@dataclass(frozen=True)
class _Row:
    """A picture, what is said of it, and its maps, or the errors with which methods refused."""

    source: Any
    said: Prediction | None
    maps: Sequence[Heatmap | ConvscopeError | None]


@view("Pictures by methods", caveat="methods that agree may all be wrong")
def grid(
    net: Net,
    pictures: list[PictureSource],
    *,
    methods: Annotated[list[str] | None, "the methods, one column each; by default three of different kinds"] = None,
    of: Annotated[ObjectiveLike, "the objective; the top-1 class of each picture by default"] = None,
    wrong: Annotated[bool, "only the pictures whose first choice is not their label, the surest first"] = False,
    true_class: Annotated[bool, "beside each map of the first choice, that of the true class"] = False,
    labels: Annotated[
        str | None,
        "table of labels (.csv: path, label), or none where folders are no classes; by default the folders of classes "
        "that pictures lie in",
    ] = None,
    names: Annotated[str | None, "names that stand for labels: .csv (label, name), .json or .txt"] = None,
    rows: Annotated[int, "maximum number of pictures", Range(1)] = 8,
    over_picture: Annotated[bool, "lay maps over the picture, whose colours are left out"] = True,
) -> Gallery:
    """Lay the maps of several methods out for several pictures: a row per picture, a column per method.

    Before each row stand the first choice with its number and, where labels are known, the true class with its own.
    Maps of a method share one colour scale; where all methods have one unit, all maps do. Raises
    OptionError where `wrong` or `true_class` need labels and there are none, PictureError where no picture is left.
    """
    entries = _entries(methods)
    if true_class and of is not None:
        raise OptionError("true_class shows the first choice beside the true class: leave out of")
    chosen, said = _chosen(net, pictures, labels, names, rows, wrong=wrong)
    if (wrong or true_class) and not said.labelled:
        raise OptionError(
            f"{'wrong' if wrong else 'true_class'} needs to know what is right: a folder of pictures for each class, "
            "named as the network's classes are, or labels='FILE.csv' (path, label)"
        )
    plan = [(entry, truth) for entry in entries for truth in ((False, True) if true_class else (False,))]
    lines = [_row(net, source, each, plan, of) for source, each in track(chosen, "grid")]
    maps = [map_ for line in lines for map_ in line.maps if isinstance(map_, Heatmap)]
    if not maps:
        raise next(map_ for line in lines for map_ in line.maps if isinstance(map_, ConvscopeError))
    for refusal in dict.fromkeys(
        f"{entry.name} refused: {map_}"
        for line in lines
        for (entry, _), map_ in zip(plan, line.maps, strict=True)
        if isinstance(map_, ConvscopeError)
    ):
        say(refusal)
    sheet = on_one_scale(_sheet(net, lines, plan, said, wrong=wrong, over_picture=over_picture))
    values = {
        _named(entry, truth): torch.stack(
            [map_.values for map_ in (line.maps[i] for line in lines) if isinstance(map_, Heatmap)]
        )
        for i, (entry, truth) in enumerate(plan)
        if any(isinstance(line.maps[i], Heatmap) for line in lines)
    }
    settled: dict[str, Any] = {"shown": [_file_name(source) for source, _ in chosen]}
    settled |= {FAILED: [named(each.where, each.error) for each in said.failed]} if said.failed else {}
    return Gallery(sheet, values, Recipe(settled=settled))


def _entries(methods: Sequence[str] | None) -> list[Entry]:
    registry.load_all()
    if methods is not None and not methods:
        raise OptionError("there is no method for a column: give methods, as methods=['saliency', 'grad_cam']")
    return [registry.find(name) for name in dict.fromkeys(methods or _USUAL)]


def _chosen(
    net: Net, pictures: Sequence[Any], labels: str | None, names: str | None, rows: int, *, wrong: bool
) -> tuple[list[tuple[Any, Prediction]], Predictions]:
    """Return the pictures to show with what is said of them, and what is said of all."""
    # What evaluates networks stands above the views.
    from ..evaluation.predicting import predict_many

    said = predict_many(net, list(pictures), top=1, labels=labels, names=names)
    pairs = [(source, each) for source, each in zip(pictures, said, strict=True) if not each.error]
    for each in said.failed:
        say(named(each.where, each.error))
    if wrong and said.labelled:
        pairs = [pair for pair in pairs if pair[1].wrong]
        pairs.sort(key=lambda pair: -pair[1].values[0])
    if not pairs:
        why = f"all {len(said) - len(said.failed)} pictures are right" if wrong else "no picture can be read"
        raise PictureError(f"there is nothing to show: {why}")
    if len(pairs) > rows:
        say(f"{rows} of {len(pairs)} {'wrong pictures shown, the surest first' if wrong else 'pictures shown'}")
    return pairs[:rows], said


def _row(net: Net, source: Any, said: Prediction, plan: Sequence[tuple[Entry, bool]], of: ObjectiveLike) -> _Row:
    maps: list[Heatmap | ConvscopeError | None] = []
    for entry, truth in plan:
        if truth and said.truth is None:
            maps.append(None)
            continue
        try:
            maps.append(explain(net, source, entry.name, said.truth if truth else of))
        except OutOfMemory:
            raise
        except ConvscopeError as refusal:
            maps.append(refusal)
    return _Row(source, said, maps)


def _sheet(
    net: Net,
    lines: Sequence[_Row],
    plan: Sequence[tuple[Entry, bool]],
    said: Predictions,
    *,
    wrong: bool,
    over_picture: bool,
) -> Sheet:
    limits = [
        max((robust_limit(map_.numbers()["map"]) for map_ in _of(entry, lines, plan)), default=1.0) for entry, _ in plan
    ]
    both = any(truth for _, truth in plan)
    heads = (
        "",
        *(entry.title + (f"\n{'true class' if truth else 'first choice'}" if both else "") for entry, truth in plan),
    )
    rows = tuple(_tiles(net, line, limits, over_picture=over_picture) for line in lines)
    count = f"{len(lines)} picture{'s' * (len(lines) != 1)}"
    title = f"{count} that {net.name} gets wrong" if wrong else f"{count} by {len(plan)} maps each"
    told = f"before each row: first choice and its {said.head.word}"
    told += ", ✓ right or ✗ wrong, and the true class" if said.labelled else ""
    note = "\n".join(
        f"{entry.title}: grey is 0, white {number(limit)}."
        for entry, limit in {entry: limit for (entry, _), limit in zip(plan, limits, strict=True)}.items()
        if entry.projects
    )
    return Sheet(title, rows, f"{net.name} · {told}", note, heads, tuple(_label(line, said) for line in lines))


def _of(entry: Entry, lines: Sequence[_Row], plan: Sequence[tuple[Entry, bool]]) -> list[Heatmap]:
    """Return the maps of a method, of the first choice and of the true class."""
    columns = [i for i, (each, _) in enumerate(plan) if each is entry]
    return [map_ for line in lines for i in columns if isinstance(map_ := line.maps[i], Heatmap)]


def _tiles(net: Net, line: _Row, limits: Sequence[float], *, over_picture: bool) -> tuple[Tile | None, ...]:
    """Return the picture as the network saw it, and its maps at the same size."""
    picture = net.prepare(line.source)
    image = fitted(picture.image().convert("RGB"), _SIDE)
    return (
        Tile(image),
        *(_tile(map_, limit, image.size, over_picture) for map_, limit in zip(line.maps, limits, strict=True)),
    )


def _tile(
    map_: Heatmap | ConvscopeError | None, limit: float, size: tuple[int, int], over_picture: bool
) -> Tile | None:
    if map_ is None:
        return None
    if isinstance(map_, ConvscopeError):
        return Tile(layout.written(f"refused: {map_}", size))
    seen = map_.picture.image().convert("RGB")
    whole = replace(map_, picture=replace(map_.picture, original=seen, box=(0.0, 0.0, *map(float, seen.size))))
    if map_.projects:
        painted = to_image(0.5 + map_.numbers()["map"] * (0.5 / limit), map_.picture.display.bands)
        return Tile(fitted(painted.convert("RGB"), size))

    def painted_on(scale: Scale) -> Image.Image:
        shown = replace(whole, limit=scale.high)
        return shown.overlay(size) if over_picture else shown.map_image(size)

    return Tile(painted_on(whole.scale), scale=whole.scale, repaint=painted_on)


def _label(line: _Row, said: Predictions) -> str:
    each = line.said
    if each is None or not each.choices:
        return _file_name(line.source)
    first = f"{said.name(each.choices[0])} {said.head.text(each.values[0])}"
    if each.truth is None:
        return first
    if not each.wrong:
        return f"✓ {first}"
    return f"✗ {first}\ntrue: {said.name(each.truth)} {said.head.text(each.truth_value or 0.0)}"


def _named(entry: Entry, truth: bool) -> str:
    return f"{entry.name}.true_class" if truth else entry.name


def _file_name(source: Any) -> str:
    """Return the name of a picture without its folder, where it has one."""
    return PurePath(str(source)).name if isinstance(source, (str, PurePath)) else ""
