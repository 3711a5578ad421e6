"""explain_many: a method over many pictures, read ahead in threads and computed in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from . import provenance, registry
from .batching import Halving
from .context import listen, remarks_about, say, track, whole
from .data.hashing import content_hash
from .data.images import InputPicture
from .data.loading import Counted, Loaded, read_ahead
from .data.pictures import Pictures, read_pictures
from .data.preprocessing import Size
from .drawing.drawings import Heatmap
from .errors import ConvscopeError, NetworkError, OptionError, PictureError
from .heads import Answer
from .interruptions import orderly
from .net import Net
from .predictions import ObjectiveLike, batched, settle_each
from .recipes import PictureRecord, Recipe, making
from .registry import Entry
from .running import blank, check_map, check_net, check_repeatable, heatmap

_BATCH = {"cpu": 8}
_BATCH_ELSEWHERE = 32


@dataclass(frozen=True)
class Skipped:
    """A picture that has no map, and why."""

    where: str
    reason: str


class Explanations(Iterator[Heatmap]):
    """The maps of many pictures, made as they are asked for.

    `skipped` lists the pictures that could not be explained up to now, `existing` the addresses of those that `exists`
    said are there already.
    """

    def __init__(self, run: _Run) -> None:
        self._run = run
        self.skipped: list[Skipped] = run.skipped
        self.existing: list[str] = run.existing
        self._maps = run.maps()

    def __iter__(self) -> Explanations:
        return self

    def __next__(self) -> Heatmap:
        return next(self._maps)

    @property
    def seconds(self) -> float:
        """How long the last map took, as its share of its batch."""
        return self._run.seconds

    def close(self) -> None:
        """Stop reading ahead."""
        self._maps.close()


@orderly
def explain_many(
    net: Net,
    data: Any,
    method: str,
    of: ObjectiveLike = None,
    *,
    size: Size | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    exists: Callable[[str], bool] | None = None,
    **options: Any,
) -> Explanations:
    """Explain many pictures, one drawing after the other, in the order of the data.

    Args:
        net: the network.
        data: whatever `convscope.data.read_pictures` reads: paths, folders, tar or Parquet files, data sets, loaders,
            tensors, or a list of those.
        method: the name of a method, as for `explain`.
        of: one objective for all pictures; each one's top-1 class when not given.
        size: another input side than the network's own, in pixels, or (height, width).
        batch_size: how many pictures at once; 8 on a CPU and 32 elsewhere by default, fewer where memory runs out.
        workers: threads that read and prepare pictures; by default one per processor, at most 8.
        exists: a function of a recipe's key; pictures for which it is true are not explained again.
        options: the method's own.

    Returns an iterator of Heatmaps. A picture that cannot be read or has no finite map is left out and listed in the
    iterator's `skipped`. Where the data end in an exception, everything before it is yielded first. Raises what
    `explain` raises for the options, before anything is read.

    >>> import convscope
    >>> net = convscope.load("zfnet64")
    >>> maps = convscope.explain_many(net, ["sample:chelsea", "sample:rocket"], "grad_cam")
    >>> [map_.recipe.pictures[0].where for map_ in maps]
    ['sample:chelsea', 'sample:rocket']
    """
    check_net(net, "explain_many")
    entry = registry.find(method)
    options = entry.check_options(options)
    batch_size = batch_size if batch_size is not None else _BATCH.get(net.device.type, _BATCH_ELSEWHERE)
    if batch_size < 1:
        raise OptionError(f"batch_size is a whole number, at least 1, not {batch_size}")
    check_repeatable(net, blank(net, net.fit.size if size is None else net.fit.scaled(size).size))
    recipe = provenance.recipe(net, entry, [], of, options, size=size)
    return Explanations(_Run(net, entry, of, options, size, batch_size, workers, exists, recipe, read_pictures(data)))


@dataclass(frozen=True)
class _Ready:
    """A picture read by a worker: its recipe, and its pixels unless its map exists."""

    recipe: Recipe
    picture: InputPicture | None


class _Run:
    def __init__(
        self,
        net: Net,
        entry: Entry,
        of: ObjectiveLike,
        options: dict[str, Any],
        size: Size | None,
        batch: int,
        workers: int | None,
        exists: Callable[[str], bool] | None,
        recipe: Recipe,
        pictures: Pictures,
    ) -> None:
        self.net, self.entry, self.of, self.options, self.size = net, entry, of, options, size
        self.batch, self.workers, self.exists, self.recipe, self.pictures = batch, workers, exists, recipe, pictures
        self.skipped: list[Skipped] = []
        self.existing: list[str] = []
        self.halving = Halving(entry.name)
        self.seconds = 0.0

    def maps(self) -> Generator[Heatmap]:
        waiting: list[_Ready] = []
        loaded = Counted(read_ahead(self.pictures, self._prepare, workers=self.workers), self.pictures)
        failure: Exception | None = None
        try:
            for item in track(loaded, self.entry.title):
                waiting += self._kept(item)
                if len(waiting) == self.batch:
                    yield from self._explained(waiting)
                    waiting = []
        except ConvscopeError:
            raise
        except Exception as error:  # the data's own: what came before it is handed out first
            failure = error
        yield from self._explained(waiting)
        if failure is not None:
            raise failure

    def _prepare(self, content: Any) -> _Ready:
        """Read one picture, in a worker thread, unless its map exists."""
        recipe = replace(self.recipe, pictures=(PictureRecord("", content_hash(content)),))
        if self.exists is not None and self.exists(recipe.key):
            return _Ready(recipe, None)
        return _Ready(recipe, self.net.prepare(content, size=self.size))

    def _kept(self, item: Loaded[_Ready]) -> list[_Ready]:
        """Return what there is to explain of a picture, and note what there is not."""
        if item.value is None:
            self.skipped.append(Skipped(item.picture.where, str(item.error)))
            return []
        if item.value.picture is None:
            self.existing.append(item.picture.where)
            return []
        (record,) = item.value.recipe.pictures
        # Only its source knows where a picture was.
        pictures = (PictureRecord(item.picture.where, record.sha256),)
        return [_Ready(replace(item.value.recipe, pictures=pictures), item.value.picture)]

    def _explained(self, ready: list[_Ready]) -> Iterator[Heatmap]:
        """Explain pictures, those of one size together."""
        start = time.perf_counter()
        shapes = dict.fromkeys(_pixels(each).shape for each in ready)
        maps: dict[int, Heatmap] = {}
        for shape in shapes:
            rows = [row for row, each in enumerate(ready) if _pixels(each).shape == shape]
            for piece in self.halving.over(lambda part, rows=rows: self._piece(ready, rows[part]), slice(0, len(rows))):
                maps |= piece
        self.seconds = (time.perf_counter() - start) / max(1, len(ready))
        yield from (maps[row] for row in sorted(maps))

    def _piece(self, ready: list[_Ready], rows: list[int]) -> dict[int, Heatmap]:
        """Explain some pictures in one batch; where that fails, one by one, so that a bad one spoils no other."""
        try:
            return dict(zip(rows, self._together([ready[row] for row in rows]), strict=True))
        except (PictureError, NetworkError) as error:
            if len(rows) > 1:
                return {row: map_ for each in rows for row, map_ in self._piece(ready, [each]).items()}
            self.skipped.append(Skipped(ready[rows[0]].recipe.pictures[0].where, str(error)))
            return {}

    @orderly
    def _together(self, ready: list[_Ready]) -> list[Heatmap]:
        net, pictures = self.net, [each.picture for each in ready if each.picture is not None]
        pixels = net.pixels(*pictures)
        check_repeatable(net, pixels)
        with listen() as remarks, making(self.recipe), whole():
            objectives, titles, answers = settle_each(net, pixels, self.of)
            say(net.behaviour(pixels).remark)
            values: Tensor = self.entry.function(net, pixels, batched(objectives), **self.options)
        check_map(net, values, self.entry.name)
        # Every map has numbers of its own: one that is kept must not hold the whole batch.
        return [
            replace(
                heatmap(
                    net,
                    self.entry,
                    picture,
                    row.clone(),
                    objective,
                    title,
                    provenance.with_remarks(net, each.recipe, (*picture.remarks, *remarks_about(remarks, number))),
                ),
                answer=answer and Answer(answer.head, answer.numbers.clone()),
            )
            for number, (each, picture, row, objective, title, answer) in enumerate(
                zip(ready, pictures, values, objectives, titles, answers, strict=True)
            )
        ]


def _pixels(ready: _Ready) -> Any:
    assert ready.picture is not None
    return ready.picture.pixels
