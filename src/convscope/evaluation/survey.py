"""Maps of many pictures with what they show in numbers: a table, an overlay of each picture, and what is there is kept.

Every overlay is a PNG whose recipe holds its row of the table as well. So a run that was interrupted or killed goes on
where it was, and its table is whole again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from .. import addresses, provenance, registry
from ..bulk import explain_many
from ..context import in_context
from ..data.boxes import Box
from ..data.hashing import content_hash
from ..data.naming import check_inside, files_of
from ..data.pictures import Picture
from ..data.preprocessing import Size
from ..drawing.drawings import Heatmap
from ..drawing.files import read_recipe
from ..errors import ConvscopeError, RecipeError
from ..net import Net
from ..parsing import Document
from ..predictions import ObjectiveLike, answers
from ..recipes import Recipe
from . import measures
from .predicting import prediction
from .prediction import Prediction
from .survey_table import PAGE, TABLES, Row, Surveyed
from .truth import Truth, outcomes

_CLASSES = 3
"""How many classes a row has."""
_SIDE, _LEAST = 256, 128
"""The longer side of overlays in pixels, at most and at least."""
_WAITING = 16


@dataclass(frozen=True)
class Measured:
    """What is known of a map beside its recipe; `boxes` are those that were given for the picture."""

    choices: list[int]
    values: list[float]
    explained: str
    regions: list[list[float]]
    in_regions: float | None
    in_boxes: float | None
    boxes: list[list[float]]
    centre_share: float | None
    check: float | None
    seconds: float


class Survey:
    """One run over many pictures into a folder; `rows` holds what is finished, by the number of the picture.

    Args:
        net: the network.
        pictures: the pictures.
        out: the folder for overlays, which keep the pictures' folders.
        method: the name of a method, `of` its objective, `size` the input's, `options` its own.
        truth: the classes of the pictures, where they are known.
        boxes: boxes of objects by address of the picture, in its pixels.
        check: whether every map is compared with those of random weights.
        finished: called after each picture that was made, with how many were.
    """

    def __init__(
        self,
        net: Net,
        pictures: Sequence[Picture],
        out: Path,
        method: str,
        *,
        of: ObjectiveLike = None,
        size: Size | None = None,
        options: Mapping[str, Any] | None = None,
        truth: Truth | None = None,
        boxes: Mapping[str, Sequence[Box]] | None = None,
        check: bool = False,
        finished: Callable[[int], None] | None = None,
    ) -> None:
        self.net, self.pictures, self.out, self.method = net, pictures, out, method
        self.of, self.size, self.options = of, size, dict(options or {})
        self.truth, self.boxes, self.check, self.finished = truth or Truth(), boxes, check, finished
        self.files = files_of(pictures, ".png", (PAGE, *TABLES))
        self.rows: dict[int, Row] = {}
        self.made = 0
        self.head = net.head
        entry = registry.find(method)
        self.recipe = provenance.recipe(net, entry, [], of, entry.check_options(self.options), size=size)
        self._asks = len(net.output.shape) <= 1
        self.classes = (self.truth.classes or outcomes(net)) if self._asks else ()

    def run(self) -> None:
        """Explain every picture that is not there yet; on ctrl-C what is under way is finished first."""
        numbers = range(len(self.pictures))
        found = {number: recipe for number in numbers if (recipe := self._there(number)) is not None}
        self.rows |= {number: self._row(number, self._kept(recipe)) for number, recipe in found.items()}
        with self._writing() as write:
            self._explain(list(numbers), found, write)

    @property
    def surveyed(self) -> Surveyed:
        """What is finished, in the order of the pictures."""
        rows = tuple(self.rows[number] for number in sorted(self.rows))
        return Surveyed(self.net.name, self.method, self.head, self.classes, rows, self.truth.known, self.recipe)

    # What is there -------------------------------------------------------------------------------------------------

    def _there(self, number: int) -> Recipe | None:
        """Return the recipe of a picture's overlay where this run would write the same, unless the picture changed."""
        path = self.out / self.files[number]
        if not path.is_file():
            return None
        try:
            recipe = read_recipe(path)
            kept = self._kept(recipe)
        except (ConvscopeError, OSError):
            return None
        same = replace(self.recipe, pictures=recipe.pictures).key == recipe.key
        same &= kept.boxes == self._boxes(number) and (kept.check is not None) == self.check
        return recipe if same else None

    @staticmethod
    def _kept(recipe: Recipe) -> Measured:
        content = dict(recipe.settled).get("survey")
        return Document("the recipe", "", RecipeError).shaped(content, Measured)

    def _boxes(self, number: int) -> list[list[float]]:
        given = () if self.boxes is None else self.boxes.get(addresses.absolute(self.pictures[number].where), ())
        return [list(map(float, box)) for box in given]

    # Making what is not --------------------------------------------------------------------------------------------

    def _explain(self, numbers: Sequence[int], found: Mapping[int, Recipe], write: Callable[..., None]) -> None:
        """Explain pictures; the key of a copy's map does not stand for one's own."""
        keys = {found[number].key for number in numbers if number in found}
        queue: dict[str, deque[int]] = {}
        for number in numbers:
            queue.setdefault(self.pictures[number].where, deque()).append(number)
        maps = explain_many(
            self.net,
            [self.pictures[number].where for number in numbers],
            self.method,
            self.of,
            size=self.size,
            exists=keys.__contains__,
            **self.options,
        )
        try:
            for map_ in maps:
                number = queue[map_.recipe.pictures[0].where].popleft()
                write(number, map_, self._said(map_), self._score(map_), maps.seconds)
        finally:
            maps.close()
            for skipped in maps.skipped:
                number = queue[skipped.where].popleft()
                self.rows[number] = self._failed(number, skipped.reason)
        existing = [queue[where].popleft() for where in maps.existing]
        missing = [number for number in existing if not self._holds(number, found)]
        if missing:
            self._explain(missing, {}, write)

    def _holds(self, number: int, found: Mapping[int, Recipe]) -> bool:
        """Whether what is there is of a picture as it is now: its key may be that of another picture's file."""
        picture = self.pictures[number].where
        return number in found and found[number].pictures[0].sha256 == content_hash(picture)

    def _said(self, map_: Heatmap) -> Prediction:
        """Return what the network says of a map's picture; the run has asked it, unless an objective was given."""
        if not self._asks:
            return Prediction("")
        if map_.answer is not None:
            self.head, numbers = map_.answer.head, map_.answer.numbers
        else:
            self.head, all_ = answers(self.net, self.net.pixels(map_.picture))
            numbers = all_[0]
        return prediction("", self.head, numbers, None, _CLASSES)

    def _score(self, map_: Heatmap) -> float | None:
        if not self.check:
            return None
        from ..checks import cascade

        return cascade(self.net, map_, stages=3).score

    def _finish(self, number: int, map_: Heatmap, said: Prediction, score: float | None, seconds: float) -> Measured:
        """Measure a map and write its overlay, in a thread."""
        values, seen = measures.evidence(map_), map_.picture.box
        regions = measures.strongest_regions(values)
        boxes = self._boxes(number)
        on_map = [measures.to_map((b[0], b[1], b[2], b[3]), seen, values.shape) for b in boxes]
        measured = Measured(
            list(said.choices),
            list(said.values),
            map_.recipe.objective,
            [[round(edge, 1) for edge in measures.to_picture(box, seen, values.shape)] for box in regions],
            measures.share_inside(values, regions) if regions else None,
            measures.share_inside(values, on_map) if boxes else None,
            boxes,
            measures.centre_share(values),
            score,
            seconds,
        )
        path = self.out / self.files[number]
        check_inside(path, self.out)
        settled = {**map_.recipe.settled, "survey": asdict(measured)}
        _small(replace(map_, recipe=replace(map_.recipe, settled=settled), overlay_only=True)).save(path)
        return measured

    # Rows ----------------------------------------------------------------------------------------------------------

    def _row(self, number: int, measured: Measured) -> Row:
        picture = self.pictures[number]
        truth = self.truth.of(picture)
        objective = measured.explained
        named = objective.isdigit() and int(objective) < len(self.net.classes)
        return Row(
            picture.where,
            self.files[number].as_posix(),
            truth,
            tuple(measured.choices),
            tuple(measured.values),
            self.net.class_name(int(objective)) if named else objective,
            tuple((b[0], b[1], b[2], b[3]) for b in measured.regions),
            measured.in_regions,
            measured.in_boxes,
            measured.centre_share,
            measured.check,
            measured.seconds,
        )

    def _failed(self, number: int, reason: str) -> Row:
        picture = self.pictures[number]
        return Row(picture.where, "", self.truth.of(picture), error=reason)

    @contextmanager
    def _writing(self) -> Generator[Callable[..., None]]:
        """Give a function that measures and writes in threads, so that neither holds up the network."""
        pool = ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1)), "convscope-writing")
        waiting: deque[tuple[int, Future[Measured]]] = deque()

        def write(number: int, map_: Heatmap, *rest: Any) -> None:
            waiting.append((number, pool.submit(in_context(self._finish), number, map_, *rest)))
            self._collect(waiting, keep=_WAITING)

        try:
            yield write
        finally:
            pool.shutdown(wait=True)
            self._collect(waiting, keep=0)

    def _collect(self, waiting: deque[tuple[int, Future[Measured]]], *, keep: int) -> None:
        while len(waiting) > keep:
            number, future = waiting.popleft()
            self.rows[number] = self._row(number, future.result())
            self.made += 1
            if self.finished is not None:
                self.finished(self.made)


def _small(map_: Heatmap) -> Heatmap:
    """Return a map whose picture is as large as its overlay is to be."""
    width, height = map_.picture.original.size
    longest = max(width, height)
    ratio = _SIDE / longest if longest > _SIDE else max(1, round(_LEAST / longest))
    if ratio == 1:
        return map_
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    method = Image.Resampling.BILINEAR if ratio < 1 else Image.Resampling.NEAREST
    original = map_.picture.original.resize(size, method, reducing_gap=2.0 if ratio < 1 else None)
    across, down = size[0] / width, size[1] / height
    left, top, right, bottom = map_.picture.box
    box = (left * across, top * down, right * across, bottom * down)
    return replace(map_, picture=replace(map_.picture, original=original, box=box))
