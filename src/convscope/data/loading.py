"""`read_ahead`: pictures made ready in worker threads, in order, while the one before is looked at.

Pillow decodes and scales without holding Python's lock, so threads do as well as processes here, start at once, and
need nothing to be pickled.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ..context import in_context
from ..errors import ConvscopeError, OptionError, StorageError
from .opening import open_picture
from .pictures import Picture, Pictures

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """A picture and what was made of it, or the error that came instead: exactly one of both is None."""

    picture: Picture
    value: T | None
    error: ConvscopeError | None = None


def read_ahead(
    pictures: Iterable[Picture],
    prepare: Callable[[Any], T] = open_picture,
    *,
    workers: int | None = None,
    ahead: int | None = None,
) -> Generator[Loaded[T]]:
    """Yield every picture with what `prepare` makes of it, in order, computed ahead in worker threads.

    Args:
        pictures: what `read_pictures` returns, or any of its pictures.
        prepare: called in a worker with what `Picture.read` returns: `net.prepare`, or `open_picture`.
        workers: number of threads; 0 computes in this one; by default one per processor, at most 8.
        ahead: how many pictures may be ready or under way at once; by default twice the workers and 2 more.

    A picture that cannot be read comes with its error, and the others follow. A storage that answers no more, whatever
    else `prepare` raises, and what the source itself raises between two pictures, is raised in its turn: after
    everything before it was yielded.
    """
    count = min(8, os.cpu_count() or 1) if workers is None else workers
    if count < 0:
        raise OptionError(f"workers is 0 or more, not {count}")
    if count == 0:
        yield from (_loaded(picture, prepare) for picture in pictures)
        return
    pool = ThreadPoolExecutor(count, "convscope-pictures")
    try:
        yield from _in_order(iter(pictures), prepare, pool, ahead or 2 * count + 2)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _in_order(
    pictures: Iterator[Picture], prepare: Callable[[Any], T], pool: ThreadPoolExecutor, ahead: int
) -> Iterator[Loaded[T]]:
    load = in_context(_loaded)
    waiting: deque[Future[Loaded[T]]] = deque()
    failure: BaseException | None = None
    more = True
    while more or waiting:
        while more and len(waiting) < ahead:
            try:
                picture = next(pictures)
                waiting.append(pool.submit(load, picture, prepare))
            except StopIteration:
                more = False
            except Exception as error:  # what came before is handed out first
                more, failure = False, error
        if waiting:
            yield waiting.popleft().result()
    if failure is not None:
        raise failure


def _loaded(picture: Picture, prepare: Callable[[Any], T]) -> Loaded[T]:
    try:
        content, label = picture.fetch()
        return Loaded(replace(picture, label=label), prepare(content))
    except StorageError:
        raise
    except ConvscopeError as error:
        return Loaded(picture, None, error)


class Counted(Generic[T]):
    """What is read ahead of pictures, and how many there will be, 0 where nobody knows."""

    def __init__(self, items: Iterator[Loaded[T]], pictures: Pictures) -> None:
        self.items, self.pictures = items, pictures

    def __len__(self) -> int:
        try:
            return len(self.pictures)
        except TypeError:  # a stream
            return 0

    def __iter__(self) -> Iterator[Loaded[T]]:
        return self.items
