"""A chapter for each picture: what the network says of it, maps of why, and whether these depend on what was learnt."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

from ..assumptions import announced
from ..bulk import explain_many
from ..checks.many import Randomised
from ..checks.randomisation import verdict
from ..context import running, track
from ..data.hashing import content_hash
from ..data.pictures import Picture, Pictures
from ..drawing import layout
from ..drawing.drawings import Heatmap, as_picture
from ..drawing.layout import Sheet, Tile
from ..errors import ConvscopeError, NetworkError, ObjectiveError, PictureError, visible
from ..evaluation.predicting import prediction
from ..evaluation.truth import Truth, outcomes
from ..heads import Head
from ..layers import layer_at
from ..net import Net
from ..predictions import answers
from ..provenance import recipe
from ..recipes import PictureRecord
from ..registry import Entry, find
from .chapters import Chapter, Contents, Figure, Kept, Request, Row, Said

_CHUNK = 8
"""Pictures that are in memory together."""

_POSITION = re.compile(r":\d+@(\d+),(\d+)")
_SIDE, _THUMBNAIL = 256, 190
_TOP = 3


@dataclass(frozen=True)
class Shown:
    """A map with its check score, None where there is none.

    `about` is what it is about where that is not the chapter's objective, `grid` the output's rows and columns.
    """

    heatmap: Heatmap
    score: float | None = None
    about: str = ""
    grid: tuple[int, int] | None = None


def why(request: Request) -> Contents:
    """Return what a network says of each picture and why."""
    methods = [find(name) for name in request.methods]
    net = request.net
    count = len(request.pictures)
    names = " and ".join(entry.title for entry in methods)
    lead = (
        f"What `{net.name}` says of {count:,} picture{'s' * (count != 1)}, and which parts of {'each' * (count != 1)}"
        f"{'it' * (count == 1)} made it say so, by {names}."
    )
    return Contents(f"What {net.name} sees, and why", f"{lead}\n\n{how_to_read(request)}", chapters(request), count)


def how_to_read(request: Request) -> str:
    """Return what a reader must know of the network and the numbers, in plain words."""
    net = request.net
    lines = [f"{net.note[:1].upper()}{net.note[1:]}." if net.note else ""]
    if request.check:
        lines.append(
            "The check compares each map with maps of the same network with random weights: near 0 the map depends "
            "on what was learnt, near 1 it does not, and then says nothing about the network."
        )
    lines.append("A map says where the network looked, not whether that is a good reason.")
    return " ".join(filter(None, lines))


def chapters(request: Request, truth: Truth | None = None) -> Iterator[Chapter | Kept]:
    """Yield a chapter for each picture, in order; one that cannot be read or explained has the reason."""
    maker = _Maker(request, truth or Truth())
    pictures = list({picture.where: picture for picture in request.pictures}.values())
    chunks = [pictures[start : start + _CHUNK] for start in range(0, len(pictures), _CHUNK)]
    for chunk in track(chunks, "report"):
        with running(tracker=lambda steps, label: steps):
            made = list(maker.of(chunk))
        yield from made


class _Maker:
    def __init__(self, request: Request, truth: Truth) -> None:
        self.request, self.net, self.truth = request, request.net, truth
        self.methods = [find(name) for name in request.methods]
        self.recipes = [
            recipe(self.net, entry, [], request.of, entry.check_options({}), size=request.size)
            for entry in self.methods
        ]
        self.refused: dict[str, ConvscopeError] = {}
        self.randomised: Randomised | None = None
        self.unchecked = ""

    def of(self, pictures: Sequence[Picture]) -> Iterator[Chapter | Kept]:
        """Yield the chapters of a few pictures."""
        keys, failed = dict[str, str](), dict[str, str]()
        for picture in pictures:
            try:
                keys[picture.where] = self._key(picture)
            except PictureError as error:
                failed[picture.where] = str(error)
        kept = {where for where, key in keys.items() if self.request.there(key)}
        asked = [picture for picture in pictures if picture.where in keys and picture.where not in kept]
        shown, reasons = self._maps(asked)
        failed |= reasons
        said = self._answers([shown[where][0].heatmap for where in shown])
        for picture in pictures:
            where = picture.where
            key = keys.get(where) or hashlib.sha256(where.encode("utf-8", "surrogatepass")).hexdigest()
            if where in kept:
                yield Kept(key)
            elif where in shown:
                yield self._chapter(picture, key, shown[where], said.get(where))
            else:
                yield Chapter(name_of(picture), key=key, failed=failed.get(where, "there is no map of it"))

    def _key(self, picture: Picture) -> str:
        """Return what decides a picture's chapter: its content and address, and all that is asked."""
        record = (PictureRecord("", content_hash(picture.read())),)
        whole = hashlib.sha256(
            f"{picture.where}\n{self.request.check}\n{self.truth.of(picture)}\n".encode("utf-8", "surrogatepass")
        )
        for each in self.recipes:
            whole.update(replace(each, pictures=record).key.encode())
        return whole.hexdigest()[:32]

    def _maps(self, pictures: Sequence[Picture]) -> tuple[dict[str, list[Shown]], dict[str, str]]:
        """Return the maps of pictures by address, in the order of methods, and why others have none."""
        shown: dict[str, list[Shown]] = {}
        reasons: dict[str, str] = {}
        for entry in self.methods:
            if not pictures or entry.name in self.refused:
                continue
            maps = explain_many(self.net, Pictures([pictures]), entry.name, self.request.of, size=self.request.size)
            try:
                drawn = list(maps)
            except (NetworkError, ObjectiveError, PictureError):
                raise
            except ConvscopeError as error:  # such as a rule for rectifiers that the network does not have
                self.refused[entry.name] = error
                if len(self.refused) == len(self.methods):
                    raise
                continue
            reasons |= {skipped.where: skipped.reason for skipped in maps.skipped}
            for heatmap, score in zip(drawn, self._scores(drawn), strict=True):
                shown.setdefault(heatmap.recipe.pictures[0].where, []).append(
                    Shown(heatmap, score, grid=grid_of(self.net, heatmap))
                )
        if self.truth.known:
            for where, more in self._for_the_truth(pictures).items():
                shown.setdefault(where, []).append(more)
        return shown, reasons

    def _for_the_truth(self, pictures: Sequence[Picture]) -> dict[str, Shown]:
        """Return maps of what speaks for the true class, by the first method that the network does not refuse."""
        names = self.truth.classes
        entries = [entry for entry in self.methods if entry.name not in self.refused]
        groups: dict[int, list[Picture]] = {}
        for picture in pictures:
            true = self.truth.of(picture)
            # Of a single probability there is no score for its absence.
            if true is not None and self.net.output.shape == (len(names),):
                groups.setdefault(true, []).append(picture)
        return {
            heatmap.recipe.pictures[0].where: Shown(heatmap, about=f"for {names[true]}, which it is")
            for true, group in groups.items()
            for heatmap in explain_many(self.net, Pictures([group]), entries[0].name, true, size=self.request.size)
        }

    def _scores(self, heatmaps: Sequence[Heatmap]) -> list[float | None]:
        if not self.request.check or self.unchecked:
            return [None] * len(heatmaps)
        scores: dict[int, float] = {}
        try:
            self.randomised = self.randomised or Randomised(self.net)
            for rows in by_size(heatmaps).values():
                scores |= dict(zip(rows, self.randomised.scores([heatmaps[row] for row in rows]), strict=True))
        except (NetworkError, ObjectiveError) as error:
            self.unchecked = f"there is no check: {error}"
        return [scores.get(row) for row in range(len(heatmaps))]

    def _answers(self, heatmaps: Sequence[Heatmap]) -> dict[str, tuple[Head, Tensor]]:
        """Return what the network says of pictures by address; nothing where its output is no list of numbers."""
        if len(self.net.output.shape) > 1:
            return {}
        said: dict[str, tuple[Head, Tensor]] = {}
        for rows in by_size(heatmaps).values():
            head, numbers = answers(self.net, self.net.pixels(*(heatmaps[row].picture for row in rows)))
            said |= {
                heatmaps[row].recipe.pictures[0].where: (head, each) for row, each in zip(rows, numbers, strict=True)
            }
        return said

    def _chapter(self, picture: Picture, key: str, shown: Sequence[Shown], said: tuple[Head, Tensor] | None) -> Chapter:
        name, first = name_of(picture), shown[0].heatmap
        rows = () if said is None else rows_of(self.net, picture.where, *said, names=self.truth.classes)
        truth = self.truth.of(picture)
        note = "" if truth is None else f"is {self.truth.classes[truth]}"
        note = "; ".join(filter(None, (note, _scored(shown))))
        refusals = [f"{find(name).title} refused: {error}" for name, error in self.refused.items()]
        sheet = partial(sheet_of, shown, "\n".join(filter(None, (*refusals, self.unchecked))))
        figure = Figure(sheet, tuple(each.heatmap.recipe for each in shown))
        thumbnail = partial(_thumbnail, first.picture.original)
        return Chapter(name, said=(Said(thumbnail, name, rows, note),), figures=(figure,), key=key)


def rows_of(
    net: Any, where: str, head: Head, numbers: Tensor, top: int = _TOP, names: Sequence[str] = ()
) -> tuple[Row, ...]:
    """Return the first choices as rows, with the probability or value that the head gives."""
    said, names = prediction(where, head, numbers.cpu(), None, top), names or outcomes(net)
    return tuple(
        Row(names[index], 0.0 if head.kind == "value" else value, head.text(value))
        for index, value in zip(said.choices, said.values, strict=True)
    )


def name_of(picture: Picture) -> str:
    """Return what a picture is called on a page."""
    return visible(picture.name.lstrip("/\\") or picture.where)


def grid_of(net: Net, heatmap: Heatmap) -> tuple[int, int] | None:
    """Return how many rows and columns the output has, None where it has no positions."""
    layer = layer_at(net, net.output, net.pixels(heatmap.picture)) if len(net.output.shape) == 3 else net.output
    return (layer.shape[1], layer.shape[2]) if len(layer.shape) == 3 else None


def by_size(heatmaps: Sequence[Heatmap]) -> Mapping[Any, list[int]]:
    """Return the rows of maps by the size of what the network saw."""
    rows: dict[Any, list[int]] = {}
    for row, heatmap in enumerate(heatmaps):
        rows.setdefault(heatmap.picture.pixels.shape, []).append(row)
    return rows


def _scored(shown: Sequence[Shown]) -> str:
    scores = [each.score for each in shown if each.score is not None]
    return f"check {' / '.join(f'{score:.2f}' for score in scores)}" if scores else ""


def _thumbnail(original: Image.Image) -> Image.Image:
    image = original.convert("RGB")
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return image


def sheet_of(shown: Sequence[Shown], note: str = "") -> Sheet:
    """Lay out a picture and its maps: for every method the map and the map over the picture."""
    first = shown[0].heatmap
    near = first.picture.near()
    picture = marked(layout.enlarged(near.original, _SIDE), shown[0], near.original.size, near.box)
    tiles = [Tile(picture, "{} × {}".format(*first.picture.original.size))]
    for each in shown:
        tiles += _tiles(replace(each.heatmap, picture=near), picture.size, each)
    remarks = [*_remarks([each.heatmap for each in shown]), *filter(None, [note])]
    return Sheet(announced(first.title, first.recipe.assumed), (tuple(tiles),), "", "\n".join(remarks))


def _remarks(heatmaps: Sequence[Heatmap]) -> Iterator[str]:
    """Yield the lines of notes below maps of one picture, and what several say once."""
    lines, said = set[str](), set[str]()
    for heatmap in heatmaps:
        own = heatmap.recipe.remarks[len(heatmap.recipe.assumed) :]
        new = "; ".join(remark for remark in own if remark not in said)
        for line in heatmap.note.replace("; ".join(own), new).split("\n") if own else heatmap.note.split("\n"):
            if line and line not in lines:
                yield line
            lines.add(line)
        said |= set(own)


def marked(
    image: Image.Image, shown: Shown, size: tuple[int, int], box: tuple[float, float, float, float]
) -> Image.Image:
    """Mark the position of the output that was asked about, as in ":0@60,60", on a picture that may be scaled."""
    shape, asked = shown.grid, _POSITION.fullmatch(shown.heatmap.recipe.objective)
    if asked is None or shape is None:
        return image
    left, top, right, bottom = box
    x = (left + (int(asked[2]) + 0.5) / shape[1] * (right - left)) * image.width / size[0]
    y = (top + (int(asked[1]) + 0.5) / shape[0] * (bottom - top)) * image.height / size[1]
    image = image.convert("RGB")
    draw = ImageDraw.Draw(image)
    for colour, width in (("#ffffff", 3), ("#e0007a", 1)):
        draw.line([(x - 9, y), (x + 9, y)], fill=colour, width=width)
        draw.line([(x, y - 9), (x, y + 9)], fill=colour, width=width)
    return image


def _tiles(heatmap: Heatmap, size: tuple[int, int], shown: Shown) -> list[Tile]:
    entry: Entry = find(heatmap.recipe.method)
    check = "" if shown.score is None else f"\n{_short(shown.score)}"
    title = f"{entry.title} {shown.about}".strip()
    if heatmap.projects:
        painted, limit = as_picture(heatmap.numbers()["map"], heatmap.picture.display.bands)
        caption = f"{title}: grey is 0, white {layout.number(limit)}{check}"
        return [Tile(heatmap.placed(painted, size), caption)]
    return [
        Tile(heatmap.map_image(size), title, heatmap.scale),
        Tile(heatmap.overlay(size), f"{title}, over the picture{check}"),
    ]


def _short(score: float) -> str:
    """Say in a caption what a check came to."""
    return f"check {score:.2f}: {verdict(score).rpartition(': ')[2]}"
