"""Localisation: do the maps of methods lie on the objects in a data set with boxes?

A map is scored by its evidence for the class: the positive part of a signed map, the magnitude of one that is a
picture, its channels summed; blurred by a Gaussian of 2% of the side, since a gradient's single largest pixel is
chance; in the pixels of the original picture. The scores are in `box_scores`; beside the methods stand `REFERENCES`,
maps without a network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..baselines import blurred
from ..batching import in_batches
from ..context import listen, say, track, whole
from ..data.boxes import Boxed
from ..data.images import InputPicture
from ..data.preprocessing import Size
from ..drawing.drawings import Heatmap
from ..errors import DataError, NetworkError, OptionError
from ..interruptions import orderly
from ..net import Net
from ..objectives import as_objective
from ..predictions import first_choices
from ..provenance import network_record, pictures_record, versions
from ..recipes import Recipe
from ..registry import Entry, find
from ..views.graph_cut import segment_map
from .box_scores import BoxScores, Criteria, iou, score_map
from .localisation_table import Localisation, Row, summarised
from .reference_maps import REFERENCES

Target = Literal["label", "top-1"]
"""Which class is explained: the one that a picture is labelled with, or the network's top-1 class."""

_USUAL = Criteria()

_WORDNET_ID = re.compile(r"n\d{8}")

_LEGEND = (
    "Pointing: the maximum lies in a box, or near one. Box error: the map's box has an intersection over union below "
    "one half with every true box. Energy: the fraction of the map inside the boxes; lift: divided by the fraction of "
    "the picture that they cover. ±: standard error."
)


@dataclass(frozen=True)
class _Sample:
    """A picture as the network reads it, with its boxes and its number in the data set."""

    boxed: Boxed
    picture: InputPicture
    number: int


@orderly
def localise(
    net: Net,
    pictures: Sequence[Boxed],
    methods: Sequence[str],
    *,
    size: Size | None = None,
    target: Target = "label",
    criteria: Criteria = _USUAL,
    batch: int = 16,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Localisation:
    """Score how well methods localise the objects of a data set, beside maps without a network.

    Args:
        net: the network.
        pictures: pictures with boxes, from `read_boxes`.
        methods: names of registered methods.
        size: side of the network's input in pixels, or (height, width); the network's own by default.
        target: "label" explains the class that a picture is labelled with where the network has it, else the
            network's top-1 class; "top-1" always the latter.
        criteria: how maps are scored.
        batch: number of pictures per pass.
        seed: seed of the random maps.
        options: options of methods, by name of the method.

    Raises DataError when there are no pictures or a box lies outside its picture, OptionError for unknown methods.
    """
    entries = [find(name) for name in methods]
    _check(entries, options or {}, pictures, target)
    makers = {entry.name: _maker(net, entry, (options or {}).get(entry.name, {})) for entry in entries}
    scores: dict[str, list[BoxScores]] = {name: [] for name in (*makers, *REFERENCES)}
    labels: list[str] = []
    with listen() as remarks:
        classes = _classes(net, pictures, size, target)
        for index, group in track(_groups(pictures, classes, batch), "localisation"):
            samples = [_Sample(boxed, net.prepare(boxed.path, size=size), number) for number, boxed in group]
            samples = [sample for sample in samples if _visible(sample)]
            labels += [sample.boxed.label for sample in samples]
            for name, maps in _maps(net, samples, index, makers, seed):
                scores[name] += [_score(m, sample, criteria) for m, sample in zip(maps, samples, strict=True)]
    if not labels:
        raise DataError("no box lies in the part of its picture that the network sees")
    titles = {entry.name: entry.title for entry in entries} | {name: f"{name} (no network)" for name in REFERENCES}
    rows = tuple(summarised(name, titles[name], s, labels, criteria.threshold) for name, s in scores.items())
    shown = vars(criteria) | {"methods": list(makers), "size": size, "target": target, "seed": seed}
    return _table(net, rows, pictures, len(labels), len(set(classes)), criteria, shown, remarks)


def _check(
    entries: Sequence[Entry], options: Mapping[str, Mapping[str, Any]], pictures: Sequence[Boxed], target: str
) -> None:
    for entry in entries:
        entry.check_options(dict(options.get(entry.name, {})))
    if not pictures:
        raise DataError("there are no pictures with boxes to score maps by")
    if target not in ("label", "top-1"):
        raise OptionError(f"target is 'label' or 'top-1', not {target!r}")


def _table(
    net: Net,
    rows: tuple[Row, ...],
    pictures: Sequence[Boxed],
    count: int,
    classes: int,
    criteria: Criteria,
    options: Mapping[str, Any],
    remarks: list[str],
) -> Localisation:
    skipped = len(pictures) - count
    if skipped:
        remarks = [*remarks, f"{skipped} pictures left out: no box lies in the part that the network sees"]
    return Localisation(
        rows=rows,
        title="Localisation: maps and boxes",
        subtitle=f"{count:,} pictures, {classes} classes · {net.name} at {options['size'] or min(net.size)} pixels",
        note="\n".join([_LEGEND, *remarks]),
        threshold=criteria.threshold,
        recipe=Recipe(
            method="check",
            network=network_record(net),
            weights=net.digest,
            pictures=(pictures_record([each.path for each in pictures]),),
            options={key: value for key, value in options.items() if value is not None},
            remarks=tuple(remarks),
            versions=versions(),
        ),
    )


def _classes(net: Net, pictures: Sequence[Boxed], size: Size | None, target: str) -> list[int]:
    """Settle the class to explain in every picture."""
    by_name = {name.lower(): index for index, name in enumerate(net.classes) if net.classes.count(name) == 1}
    labelled = [by_name.get(boxed.label.lower()) if target == "label" else None for boxed in pictures]
    unknown = [boxed.label for boxed, index in zip(pictures, labelled, strict=True) if index is None]
    if unknown and target == "label":
        _refuse_wordnet_ids(net, unknown)
        say(
            f"{len(unknown)} pictures have a label that is no class of {net.name} ({unknown[0]!r}): "
            "explained is the network's top-1 class; --names FILE (label, name) gives labels the network's names"
        )
    return [
        index if index is not None else first_choices(net, net.read(boxed.path, size=size))[0]
        for boxed, index in track(list(zip(pictures, labelled, strict=True)), "classes")
    ]


def _refuse_wordnet_ids(net: Net, labels: Sequence[str]) -> None:
    """Raise DataError for labels that name classes by their WordNet ids, which no network has as names."""
    if all(_WORDNET_ID.fullmatch(label) for label in labels):
        raise DataError(
            f"the labels are WordNet ids, such as {labels[0]!r}, not class names of {net.name}: give a table of names "
            "with --names FILE.csv (id, name), in Python `convscope.data.boxes.renamed`; or explain the network's "
            "top-1 class with --top-1, in Python target='top-1'"
        )


def _groups(pictures: Sequence[Boxed], classes: Sequence[int], batch: int) -> list[tuple[int, list[tuple[int, Boxed]]]]:
    """Gather numbered pictures of the same class, at most `batch` at once."""
    if batch < 1:
        raise OptionError(f"batch is at least 1, not {batch}")
    same: dict[int, list[tuple[int, Boxed]]] = {}
    for number, (boxed, index) in enumerate(zip(pictures, classes, strict=True)):
        same.setdefault(index, []).append((number, boxed))
    return [(index, group[i : i + batch]) for index, group in same.items() for i in range(0, len(group), batch)]


def _visible(sample: _Sample) -> bool:
    """Whether a box lies in what the network sees. Raises DataError when one lies outside the picture."""
    width, height = sample.picture.original.size
    for left, top, right, bottom in sample.boxed.boxes:
        if right <= 0 or bottom <= 0 or left >= width or top >= height:
            raise DataError(
                f"a box of {sample.boxed.path} is ({left:g}, {top:g}, {right:g}, {bottom:g}), outside the picture of "
                f"{width} x {height} pixels"
            )
    part = sample.picture.box
    return any(
        min(box[2], part[2]) > max(box[0], part[0]) and min(box[3], part[3]) > max(box[1], part[1])
        for box in sample.boxed.boxes
    )


Maker = Callable[[Tensor, int], Tensor]


def _maker(net: Net, entry: Entry, options: Mapping[str, Any]) -> Maker:
    """Return a function of pixels (n, c, h, w) and a class that gives a method's evidence (n, 1, h, w)."""

    def make(pixels: Tensor, index: int) -> Tensor:
        # What a method remarks on one picture among thousands is not about the table.
        with listen(), whole():
            maps = entry.function(net, pixels, as_objective(net, index), **options).detach()
        if not torch.isfinite(maps).all():
            raise NetworkError(f"{entry.name} gave NaN or infinite values on {net.name}")
        return evidence(maps, signed=entry.signed, projects=entry.projects)

    return make


def evidence(maps: Tensor, *, signed: bool, projects: bool) -> Tensor:
    """Return the evidence for the objective in maps (n, c, h, w), as (n, 1, h, w), never negative."""
    if projects:
        return maps.abs().sum(1, keepdim=True)
    return maps.sum(1, keepdim=True).clamp(min=0) if signed else maps.sum(1, keepdim=True)


def _maps(
    net: Net, samples: Sequence[_Sample], index: int, makers: Mapping[str, Maker], seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Compute the maps (n, 1, h, w) of pictures of one class by every method and reference."""
    if not samples:
        return
    pixels = torch.cat([net.pixels(sample.picture) for sample in samples])
    numbers = [sample.number for sample in samples]
    for name, make in makers.items():
        batches = in_batches(lambda piece, m=make: m(pixels[piece], index), len(pixels), len(pixels), name)
        yield name, torch.cat(list(batches))
    for name, reference in REFERENCES.items():
        yield name, reference(pixels, numbers, seed)


def _score(map_: Tensor, sample: _Sample, criteria: Criteria) -> BoxScores:
    """Score a map (1, h, w) in the pixels of the original picture."""
    sigma = criteria.smooth * min(map_.shape[-2:])
    exact = map_.cpu().double()
    values = blurred(exact[None], sigma)[0] if sigma else exact
    spread = Heatmap(values, sample.picture, Recipe()).spread(sample.picture.original.size)
    scores = score_map(spread, sample.boxed.boxes, criteria)
    return replace(scores, segment_iou=_segment_iou(spread, sample)) if criteria.segment else scores


def _segment_iou(map_: np.ndarray, sample: _Sample) -> float:
    """Return the intersection over union of the segment's box with the best true box; 0 where the map marks nothing."""
    try:
        top, left, bottom, right = segment_map(map_, sample.picture.original).box
    except OptionError:
        return 0.0
    return max(iou((left, top, right, bottom), box) for box in sample.boxed.boxes)
