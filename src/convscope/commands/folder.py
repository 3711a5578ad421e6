"""A command over many pictures: drawn in batches, written in threads, resumed, and summed up at the end."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..context import in_context, track, whole
from ..errors import ConvscopeError, named
from . import inputs

if TYPE_CHECKING:
    from ..drawing.drawings import Drawing, Heatmap
    from ..net import Net
    from ..recipes import Recipe
    from ..registry import Entry
    from .job import Job


@dataclass
class Folder:
    """The drawings of one command, a file per picture, whose names come from the pictures'."""

    job: Job
    net: Net
    entry: Entry
    folder: Path
    names: dict[str, str] = field(default_factory=dict[str, str])
    failures: list[str] = field(default_factory=list[str])
    existing: int = 0
    assumed: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """What was assumed of pictures, in short, and what is said of each of these."""

    def __post_init__(self) -> None:
        from ..data.naming import distinct_names

        pictures = self.job.pictures
        self.names = dict(zip(pictures, distinct_names(pictures), strict=True))

    def run(self) -> None:
        """Draw every picture; one that fails does not stop the others. Raises PicturesFailed when some failed."""
        before = len(self.job.written)
        try:
            with self._writing() as write:
                for where, drawing in self.drawings(resume=True):
                    self._note(drawing.recipe)
                    write(where, drawing)
        except KeyboardInterrupt:
            self._say(f"interrupted; {self._count(before)} in {self.folder}. Run the same command again to resume")
            raise
        for told in self.assumed.values():
            more = f" of {len(told):,} pictures; of the first" if len(told) > 1 else ""
            self._say(f"assumed{more}: {told[0]}")
        self._say(f"{self._count(before)} in {self.folder}")
        self.refuse_failures()

    def _note(self, recipe: Recipe) -> None:
        """Note what was assumed of a picture; that of the network was said when it was loaded."""
        known = set(map(str, self.net.assumptions))
        for short, remark in zip(recipe.assumed, recipe.remarks, strict=False):
            if remark not in known:
                self.assumed.setdefault(short, []).append(remark)

    def refuse_failures(self) -> None:
        """Raise PicturesFailed where pictures failed."""
        inputs.refuse_failures(self.failures, len(self.names), self.folder)

    def path(self, where: str) -> Path:
        """Return where the drawing of a picture is written."""
        return self.folder / f"{self.names[where]}.png"

    def _count(self, before: int) -> str:
        files = [path for path in self.job.written[before:] if path.suffix == ".png"]
        there = f", {self.existing} were there already" if self.existing else ""
        return f"{len(files)} picture{'s' * (len(files) != 1)} drawn{there}"

    def _say(self, text: str) -> None:
        print(f"convscope: {text}", file=sys.stderr)

    def drawings(self, *, resume: bool) -> Iterator[tuple[str, Drawing]]:
        """Yield the drawings of pictures with their addresses; to `resume` leaves out those that are there already."""
        if not self.entry.attributes:
            yield from self._one_by_one(resume=resume)
        elif self.job.shown.shared_scale:
            maps = dict(self._maps(list(self.names), resume=False))
            yield from ((where, map_.compared_with(list(maps.values()))) for where, map_ in maps.items())
        else:
            yield from self._maps(list(self.names), resume=resume)

    def _maps(self, pictures: Sequence[str], *, resume: bool) -> Iterator[tuple[str, Heatmap]]:
        """Yield the maps of pictures that are not there yet; the key of a copy's map does not stand for one's own."""
        from ..bulk import explain_many

        keys = {recipe.key for recipe in map(self._recipe, pictures) if recipe is not None} if resume else set[str]()
        job = self.job
        maps = explain_many(
            self.net, list(pictures), self.entry.name, job.of, size=job.size, exists=keys.__contains__, **job.options
        )
        try:
            for map_ in maps:
                (record,) = map_.recipe.pictures
                yield record.where, job.as_shown(self.net, map_)
        finally:
            maps.close()
        self.failures += [named(skipped.where, skipped.reason) for skipped in maps.skipped]
        missing = [where for where in maps.existing if not self._is_there(where)]
        self.existing += len(maps.existing) - len(missing)
        if missing:
            yield from self._maps(missing, resume=False)

    def _is_there(self, where: str) -> bool:
        """Whether a picture's file is of what the picture holds now: its key may be that of another one's file."""
        from ..data.hashing import content_hash

        recipe = self._recipe(where)
        return recipe is not None and recipe.pictures[0].sha256 == content_hash(where)

    def _one_by_one(self, *, resume: bool) -> Iterator[tuple[str, Drawing]]:
        """Yield what a view draws of each picture."""
        from ..provenance import recipe

        options = self.entry.check_options(dict(self.job.options))
        net = self.net if self.job.size is None else self.net.sized(self.job.size)
        for where in track(list(self.names), self.entry.title):
            try:
                there = self._recipe(where) if resume else None
                if there is not None and there.key == recipe(net, self.entry, [where], options.get("of"), options).key:
                    self.existing += 1
                else:
                    with whole():
                        drawing = self.job.draw(self.net, [where])
                    yield where, drawing
            except ConvscopeError as error:
                self.failures.append(named(where, str(error)))

    def _recipe(self, where: str) -> Recipe | None:
        """Return the recipe of a picture's file where the command would write the same one again."""
        from ..drawing.files import read_recipe

        path, values = self.path(where), self.job.outputs.values_of(self.folder, self.names[where])
        if not path.is_file() or (values is not None and not values.is_file()):
            return None
        try:
            recipe = read_recipe(path)
        except (ConvscopeError, OSError):
            return None
        return recipe if self.job.shows_as(recipe) else None

    @contextmanager
    def _writing(self) -> Generator[Any]:
        """Give a function that writes drawings in threads, so that painting does not hold up the network."""
        pool = ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1)), "convscope-writing")
        waiting: deque[Future[list[Path]]] = deque()

        def write(where: str, drawing: Drawing) -> None:
            values = self.job.outputs.values_of(self.folder, self.names[where])
            waiting.append(pool.submit(in_context(self._save), drawing, self.path(where), values))
            self._finish(waiting, keep=8)

        try:
            yield write
        finally:
            pool.shutdown(wait=True)
            self._finish(waiting, keep=0)

    def _finish(self, waiting: deque[Future[list[Path]]], *, keep: int) -> None:
        """Report what has been written, in order, until at most `keep` files are under way."""
        while len(waiting) > keep:
            wait([waiting[0]])  # ctrl-C falls here, and the file stays in line: it is written all the same
            self.job.report(waiting.popleft().result())

    def _save(self, drawing: Drawing, out: Path, values: Path | None) -> list[Path]:
        """Write a drawing, and its numbers where they are wanted; return the files."""
        files = [drawing.save(out, **self.job.figure.options)]
        return files + ([drawing.save_values(values)] if values is not None else [])
