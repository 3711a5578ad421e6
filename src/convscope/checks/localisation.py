"""Localisation: does a map lie on the thing that it is about?

Zhang et al., "Top-down neural attention by excitation backprop" (arXiv:1608.00507, sec. 4.1), the pointing game: a hit
when the map's maximum lies in a box of the class, or nearer to one than a tolerance (15 pixels there, on pictures of
about 500; here 3 % of the picture's longer side, strictly). Several maxima count as one at their centroid; a map that
is zero everywhere is a miss.

Selvaraju et al. (arXiv:1610.02391, sec. 4.1), box localisation: the box of the largest connected part (corners connect)
above a share of the maximum (15 %); an error unless it overlaps a true box by half, in intersection over union. The
best share differs between methods, so the best of a sweep is given as well (Choe et al. 2020, arXiv:2001.07437).

Wang et al. (arXiv:1910.01279, sec. 4.3), energy: the share of the map inside the boxes. A map that is the same
everywhere has the boxes' share of the picture, so the quotient of the two, the lift, is what counts.

Measured is what speaks for the answer: the positive part of a signed map, the magnitude of one that is a picture, its
channels summed; smoothed by a Gaussian of 2 % of the side, since a gradient's largest pixel alone is chance; in the
pixels of the original picture. Beside the methods stand maps that no network has made: the centre (a Gaussian of a
quarter of the side), the picture's own edges, and random numbers.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import outputs
from ..baselines import blurred
from ..batching import in_batches
from ..context import listen, say, track
from ..data.boxes import Box, Boxed
from ..data.images import InputPicture
from ..drawing.drawings import Drawing, Heatmap, Recipe
from ..drawing.layout import Sheet, Tile
from ..errors import DataError, NetworkError, OptionError
from ..net import Net
from ..objectives import as_objective
from ..registry import Entry, find
from ..running import predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Ask = Literal["class", "answer"]

SWEEP = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""The shares of the maximum that are tried for the best box."""

_OVERLAP = 0.5
_TABLES = (".csv", ".md")


@dataclass(frozen=True)
class Rules:
    """How maps are judged.

    `tolerance` is in pixels of the original (None: 3 % of its longer side), `threshold` a share of the maximum,
    `smooth` the Gaussian's standard deviation as a share of the input's shorter side; `segment` says that the box of
    Simonyan et al.'s segmentation is judged too, which takes a graph cut per map.
    """

    tolerance: float | None = None
    threshold: float = 0.15
    smooth: float = 0.02
    segment: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise OptionError(f"threshold is a share of the map's maximum, above 0 and at most 1, not {self.threshold}")
        if (self.tolerance is not None and self.tolerance < 0) or self.smooth < 0:
            raise OptionError(f"tolerance and smooth are at least 0, not {self.tolerance} and {self.smooth}")


@dataclass(frozen=True)
class Judgement:
    """One map judged: whether it points at the thing, its box's overlap by threshold, energy, the segment's overlap."""

    hit: bool
    overlaps: Mapping[float, float]
    energy: float
    area: float
    segmented: float | None = None


@dataclass(frozen=True)
class Mean:
    """A mean over pictures with its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        return cls(float(np.mean(values)), spread / math.sqrt(len(values)))

    def __str__(self) -> str:
        return f"{self.value:.3f}" + ("" if math.isnan(self.error) else f" ± {self.error:.3f}")


@dataclass(frozen=True)
class Row:
    """One method's figures: shares in [0, 1], except `lift`, which is 1 for a map that is the same everywhere.

    `pointing` is over all pictures, `by_class` the mean over classes; `box_error` at the threshold asked for,
    `best_box_error` at `best_threshold`, the best of the sweep; `segment_error` is that of the segment's box.
    """

    name: str
    title: str
    pictures: int
    pointing: Mean
    by_class: float
    box_error: Mean
    best_box_error: Mean
    best_threshold: float
    energy: Mean
    lift: Mean
    segment_error: Mean | None = None


@dataclass(frozen=True, eq=False)
class Localisation(Drawing):
    """How well methods localise, as a table: methods first, maps without a network last."""

    rows: tuple[Row, ...]
    recipe: Recipe
    title: str = ""
    subtitle: str = ""
    note: str = ""
    threshold: float = 0.15

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads of the columns."""
        error = f"box error at {self.threshold:.0%}"
        last = ("segment error",) if self._segmented else ()
        return "map", "pictures", "pointing", "by class", error, "best box error", "at", "energy", "lift", *last

    @property
    def _segmented(self) -> bool:
        return any(row.segment_error is not None for row in self.rows)

    @property
    def _means(self) -> tuple[str, ...]:
        last = ("segment_error",) if self._segmented else ()
        return "pointing", "box_error", "best_box_error", "energy", "lift", *last

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table's rows as texts."""
        return [
            (
                row.title,
                str(row.pictures),
                str(row.pointing),
                f"{row.by_class:.3f}",
                str(row.box_error),
                str(row.best_box_error),
                f"{row.best_threshold:.0%}",
                str(row.energy),
                f"{row.lift.value:.2f}" + ("" if math.isnan(row.lift.error) else f" ± {row.lift.error:.2f}"),
                *([str(row.segment_error)] if self._segmented else []),
            )
            for row in self.rows
        ]

    def markdown(self) -> str:
        """Write the table in Markdown."""
        lines = [self.heads, tuple("---" for _ in self.heads), *self.cells()]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{self.title}. {self.subtitle}\n\n{table}\n\n{self.note}\n"

    def csv(self) -> str:
        """Write the raw figures as comma-separated values, a standard error beside every mean."""
        means = self._means
        plain = ("name", "pictures", "by_class", "best_threshold")
        lines = [",".join((*plain, *(head for name in means for head in (name, f"{name}_se"))))]
        for row in self.rows:
            figures = [getattr(row, name) for name in plain]
            figures += [number for name in means for number in (getattr(row, name).value, getattr(row, name).error)]
            lines.append(",".join(f"{figure:.6g}" if isinstance(figure, float) else str(figure) for figure in figures))
        return "\n".join(lines) + "\n"

    def save(self, path: str | Path, *, image: Image.Image | None = None) -> Path:
        """Write the table: .csv, .md, or a chart in any ending of a picture. Raises OutputError."""
        path = Path(path)
        if path.suffix.lower() not in _TABLES:
            return super().save(path, image=image)
        text = self.csv() if path.suffix.lower() == ".csv" else self.markdown()
        return outputs.write(path, lambda to: to.write_text(text, encoding="utf-8"))

    def numbers(self) -> dict[str, np.ndarray]:
        return {name: np.array([vars(getattr(row, name))["value"] for row in self.rows]) for name in self._means}

    def figure(self) -> Figure:
        from matplotlib.figure import Figure

        panels = (("pointing", "pointing accuracy"), ("best_box_error", "best box error"), ("lift", "energy lift"))
        figure = Figure(figsize=(10, 1.1 + 0.27 * len(self.rows)), layout="constrained", dpi=150)
        positions = np.arange(len(self.rows))[::-1]
        shades = ["#3b6ea8" if row.name in self.recipe.options.get("methods", ()) else "#b8b8c0" for row in self.rows]
        for axes, (name, head) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
            means = [getattr(row, name) for row in self.rows]
            errors = np.nan_to_num([mean.error for mean in means])
            axes.barh(positions, [mean.value for mean in means], xerr=errors, color=shades, error_kw={"lw": 1})
            axes.set_yticks(positions, [row.title for row in self.rows])
            axes.set_title(head, fontsize=10, loc="left")
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(length=0)
            axes.grid(axis="x", alpha=0.25)
        return figure

    def sheet(self) -> Sheet:
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png")
        return Sheet(self.title, ((Tile(Image.open(buffer).convert("RGB")),),), self.subtitle, self.note)


@dataclass(frozen=True)
class _Ready:
    """A picture as the network sees it, with the class that is asked for."""

    boxed: Boxed
    picture: InputPicture
    number: int


def localise(
    net: Net,
    pictures: Sequence[Boxed],
    methods: Sequence[str],
    *,
    size: int | None = None,
    ask_for: Ask = "class",
    rules: Rules = Rules(),
    batch: int = 16,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Localisation:
    """Judge methods by where the things are in a data set, beside maps that no network has made.

    Args:
        net: the network.
        pictures: pictures with boxes, from `read_boxes`.
        methods: names of registered methods.
        size: another input side than the network's own, in pixels.
        ask_for: "class" asks for the class that a picture is labelled with where the network knows it, else for the
            network's first choice; "answer" always for its first choice.
        rules: how maps are judged.
        batch: how many pictures go through a method at once.
        seed: of the random maps.
        options: options of methods, by name of the method.

    Raises DataError when there are no pictures or a box lies outside its picture, OptionError for unknown methods.
    """
    entries = [find(name) for name in methods]
    given = dict(options or {})
    for entry in entries:
        entry.check_options(dict(given.get(entry.name, {})))
    if not pictures:
        raise DataError("there are no pictures with boxes to judge maps by")
    if ask_for not in ("class", "answer"):
        raise OptionError(f"ask_for is 'class' or 'answer', not {ask_for!r}")
    makers = _makers(net, entries, given)
    judged: dict[str, list[Judgement]] = {name: [] for name in (*makers, *_BASELINES)}
    labels: list[str] = []
    with listen() as remarks:
        objectives = _objectives(net, pictures, size, ask_for)
        for index, group in track(_groups(pictures, objectives, batch), "localisation"):
            ready = [_Ready(one, net.prepare(one.path, size=size), number) for number, one in group]
            ready = [one for one in ready if _seen(one)]
            labels += [one.boxed.label for one in ready]
            for name, judgements in _judged(net, ready, index, makers, rules, seed):
                judged[name] += judgements
    if not labels:
        raise DataError("no box lies in the part of its picture that the network sees")
    titles = {**{entry.name: entry.title for entry in entries}, **{name: f"{name} (no network)" for name in _BASELINES}}
    rows = tuple(_row(name, titles[name], judgements, labels, rules) for name, judgements in judged.items())
    return _table(net, rows, pictures, len(labels), objectives, rules, size, [entry.name for entry in entries], remarks)


def _table(
    net: Net,
    rows: tuple[Row, ...],
    pictures: Sequence[Boxed],
    judged: int,
    objectives: Sequence[int],
    rules: Rules,
    size: int | None,
    methods: list[str],
    remarks: list[str],
) -> Localisation:
    side = size or min(net.size)
    skipped = len(pictures) - judged
    if skipped:
        remarks = [*remarks, f"{skipped} pictures left out: no box lies in the part that the network sees"]
    shown = vars(rules) | {"methods": methods, "size": size, "classes": len(set(objectives))}
    return Localisation(
        rows=rows,
        title="Where is the thing? Maps and boxes",
        subtitle=f"{judged:,} pictures, {len(set(objectives))} classes · {net.name} at {side} pixels",
        note="\n".join(
            [
                "Pointing: the maximum lies in a box, or near one. Box error: the map's box overlaps no true one by "
                "half. Energy: the map's share inside the boxes; lift: divided by their share of the picture. "
                "±: standard error.",
                *remarks,
            ]
        ),
        threshold=rules.threshold,
        recipe=Recipe(
            method="check",
            network=net.name + (f" ({net.note})" if net.note else ""),
            weights=net.digest,
            pictures=(f"{judged} pictures, {pictures[0].path.name} the first",),
            options={key: value for key, value in shown.items() if value is not None},
            remarks=tuple(remarks),
            convscope=version("convscope"),
            torch=torch.__version__,
        ),
    )


def _objectives(net: Net, pictures: Sequence[Boxed], size: int | None, ask_for: Ask) -> list[int]:
    """Settle the class that is asked for in every picture."""
    known = {name.lower(): index for index, name in enumerate(net.classes) if net.classes.count(name) == 1}
    asked = [known.get(one.label.lower()) if ask_for == "class" else None for one in pictures]
    answered = asked.count(None)
    if answered and ask_for == "class":
        strange = next(one.label for one, index in zip(pictures, asked, strict=True) if index is None)
        say(
            f"{answered} pictures have a class that {net.name} does not know ({strange!r}): "
            "its first choice was asked for"
        )
    return [
        index if index is not None else int(predict(net, net.read(one.path, size=size))[0].argmax())
        for one, index in track(list(zip(pictures, asked, strict=True)), "objectives")
    ]


def _groups(
    pictures: Sequence[Boxed], objectives: Sequence[int], batch: int
) -> list[tuple[int, list[tuple[int, Boxed]]]]:
    """Gather numbered pictures of the same objective, at most `batch` at once."""
    if batch < 1:
        raise OptionError(f"batch is at least 1, not {batch}")
    same: dict[int, list[tuple[int, Boxed]]] = {}
    for number, (one, index) in enumerate(zip(pictures, objectives, strict=True)):
        same.setdefault(index, []).append((number, one))
    return [(index, group[i : i + batch]) for index, group in same.items() for i in range(0, len(group), batch)]


def _seen(one: _Ready) -> bool:
    """Whether a box lies in what the network sees. Raises DataError when one lies outside the picture."""
    width, height = one.picture.original.size
    for left, top, right, bottom in one.boxed.boxes:
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            raise DataError(
                f"a box of {one.boxed.path} is ({left:g}, {top:g}, {right:g}, {bottom:g}), outside the picture of "
                f"{width} x {height} pixels"
            )
    seen = one.picture.box
    return any(
        min(b[2], seen[2]) > max(b[0], seen[0]) and min(b[3], seen[3]) > max(b[1], seen[1]) for b in one.boxed.boxes
    )


Maker = Callable[[Tensor, int], Tensor]


def _makers(net: Net, entries: Sequence[Entry], options: Mapping[str, Mapping[str, Any]]) -> dict[str, Maker]:
    def maker(entry: Entry) -> Maker:
        def make(pixels: Tensor, index: int) -> Tensor:
            # What a method remarks on one picture among thousands is not about the table.
            with listen():
                maps = entry.function(net, pixels, as_objective(net, index), **options.get(entry.name, {})).detach()
            if not torch.isfinite(maps).all():
                raise NetworkError(f"{entry.name} gave NaN or infinite values on {net.name}")
            return evidence(maps, signed=entry.signed, projects=entry.projects)

        return make

    return {entry.name: maker(entry) for entry in entries}


def evidence(maps: Tensor, *, signed: bool, projects: bool) -> Tensor:
    """Return what speaks for the answer in maps (n, c, h, w), as (n, 1, h, w), never negative."""
    if projects:
        return maps.abs().sum(1, keepdim=True)
    return maps.sum(1, keepdim=True).clamp(min=0) if signed else maps.sum(1, keepdim=True)


def _centre(pixels: Tensor, numbers: Sequence[int], seed: int) -> Tensor:
    height, width = pixels.shape[-2:]
    y, x = ((torch.arange(extent) + 0.5) / extent - 0.5 for extent in (height, width))
    return torch.exp(-8 * (y[:, None] ** 2 + x[None] ** 2)).to(pixels).expand(len(pixels), 1, -1, -1)


def _edges(pixels: Tensor, numbers: Sequence[int], seed: int) -> Tensor:
    y, x = torch.gradient(pixels.mean(1, keepdim=True), dim=(2, 3))
    return (y**2 + x**2).sqrt()


def _random(pixels: Tensor, numbers: Sequence[int], seed: int) -> Tensor:
    drawn = [
        torch.rand(1, *pixels.shape[-2:], generator=torch.Generator().manual_seed(seed * 1_000_003 + number))
        for number in numbers
    ]
    return torch.stack(drawn).to(pixels)


_BASELINES: dict[str, Callable[[Tensor, Sequence[int], int], Tensor]] = {
    "centre": _centre,
    "edges": _edges,
    "random": _random,
}


def _judged(
    net: Net, ready: Sequence[_Ready], index: int, makers: Mapping[str, Maker], rules: Rules, seed: int
) -> Iterator[tuple[str, list[Judgement]]]:
    """Make the maps of pictures with one objective by every method and baseline, and judge them."""
    if not ready:
        return
    pixels = torch.cat([net.pixels(one.picture) for one in ready])
    numbers = [one.number for one in ready]
    for name, make in makers.items():
        maps = torch.cat(
            list(in_batches(lambda piece, m=make: m(pixels[piece], index), len(pixels), len(pixels), name))
        )
        yield name, [_judge(map_, one, rules) for map_, one in zip(maps, ready, strict=True)]
    for name, baseline in _BASELINES.items():
        yield name, [_judge(m, one, rules) for m, one in zip(baseline(pixels, numbers, seed), ready, strict=True)]


def _judge(map_: Tensor, one: _Ready, rules: Rules) -> Judgement:
    sigma = rules.smooth * min(map_.shape[-2:])
    values = blurred(map_[None].double(), sigma)[0] if sigma else map_.double()
    original = one.picture.original.size
    spread = Heatmap(values, one.picture, Recipe("", "", "")).spread(original)
    judgement = judge(spread, one.boxed.boxes, rules)
    if not rules.segment:
        return judgement
    return replace(judgement, segmented=_segment_overlap(spread, one))


def _segment_overlap(map_: np.ndarray, one: _Ready) -> float:
    """Return the overlap of the segment that a map marks with the best box; 0 where it marks nothing."""
    from ..views.graph_cut import segment_map

    try:
        top, left, bottom, right = segment_map(map_, one.picture.original).box
    except OptionError:
        return 0.0
    return max(overlap((left, top, right, bottom), box) for box in one.boxed.boxes)


def judge(map_: np.ndarray, boxes: Sequence[Box], rules: Rules = Rules()) -> Judgement:
    """Judge a map (h, w), never negative, NaN where nothing was seen, by boxes in its own pixels."""
    seen = ~np.isnan(map_)
    values = np.where(seen, map_, 0.0).astype(np.float64)
    tolerance = rules.tolerance if rules.tolerance is not None else 0.03 * max(map_.shape)
    inside = np.zeros(map_.shape, dtype=bool)
    for left, top, right, bottom in boxes:
        inside[max(math.floor(top), 0) : math.ceil(bottom), max(math.floor(left), 0) : math.ceil(right)] = True
    area = float(inside[seen].mean())
    top_value = values.max()
    if top_value <= 0:
        return Judgement(False, dict.fromkeys({*SWEEP, rules.threshold}, 0.0), 0.0, area)
    rows, columns = np.nonzero(seen & (values == top_value))
    point = (float(columns.mean()) + 0.5, float(rows.mean()) + 0.5)
    hit = any(distance == 0 or distance < tolerance for distance in (_distance(point, box) for box in boxes))
    found = {share: largest_part(values >= share * top_value) for share in sorted({*SWEEP, rules.threshold})}
    overlaps = {share: max(overlap(part, box) for box in boxes) for share, part in found.items()}
    return Judgement(hit, overlaps, float(values[inside].sum() / values.sum()), area)


def _distance(point: tuple[float, float], box: Box) -> float:
    """How far a point lies from a box, 0 inside."""
    x, y = point
    return math.hypot(max(box[0] - x, 0, x - box[2]), max(box[1] - y, 0, y - box[3]))


def largest_part(mask: np.ndarray) -> Box:
    """Return the box (left, top, right, bottom) of the largest connected part of a mask, corners connecting.

    Of equally large parts the first in reading order; a mask without any gives a box without extent.
    """
    from skimage.measure import label

    parts = np.asarray(label(mask, connectivity=2))
    sizes = np.bincount(parts.ravel())[1:]
    if not len(sizes):
        return (0.0, 0.0, 0.0, 0.0)
    rows, columns = np.nonzero(parts == sizes.argmax() + 1)
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def overlap(one: Box, other: Box) -> float:
    """Return the intersection of two boxes over their union, in [0, 1]."""
    width, height = (max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height) if areas > 0 else 0.0


def _row(name: str, title: str, judged: Sequence[Judgement], labels: Sequence[str], rules: Rules) -> Row:
    hits = [float(one.hit) for one in judged]
    of_class: dict[str, list[float]] = {}
    for label, hit in zip(labels, hits, strict=True):
        of_class.setdefault(label, []).append(hit)
    errors = {share: Mean.of([float(one.overlaps[share] < _OVERLAP) for one in judged]) for share in judged[0].overlaps}
    segments = [one.segmented for one in judged if one.segmented is not None]
    best = min(errors, key=lambda share: errors[share].value)
    return Row(
        name=name,
        title=title,
        pictures=len(judged),
        pointing=Mean.of(hits),
        by_class=float(np.mean([np.mean(each) for each in of_class.values()])),
        box_error=errors[rules.threshold],
        best_box_error=errors[best],
        best_threshold=best,
        energy=Mean.of([one.energy for one in judged]),
        lift=Mean.of([one.energy / one.area if one.area else 0.0 for one in judged]),
        segment_error=Mean.of([float(each < _OVERLAP) for each in segments]) if segments else None,
    )
