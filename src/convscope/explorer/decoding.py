"""Decoding what others send, in a process of its own with a bound on memory and time.

A decoder that a damaged picture makes take all memory, or stand still, ends its process and not the server.
"""

from __future__ import annotations

import io
import threading
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.opening import open_content
from ..data.raster_files import kind_of, read_array
from ..errors import PictureError

_MEMORY = 5 << 29
"""Bytes of address space that decoding may take, beyond what the process has as it begins."""

_SECONDS = 30
_LARGEST = 1 << 24
"""Pixels above which a picture is made smaller: no network reads as many."""


@dataclass(frozen=True)
class Clean:
    """A picture that was decoded: a file (PNG or .npy) that holds its pixels and nothing else, and its size."""

    content: bytes
    width: int
    height: int
    remark: str = ""


class Decoder:
    """One process that decodes, started when it is first needed, and again when it has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def decode(self, content: bytes, name: str) -> Clean:
        """Return a picture's pixels. Raises PictureError for what is none, takes too long or too much memory."""
        with self._lock:  # whoever waits has the whole time
            self._pool = self._pool or ProcessPoolExecutor(1, get_context("spawn"), _bound_memory)
            try:
                found = self._pool.submit(_decoded, content, name).result(_SECONDS)
            except (BrokenExecutor, Late, MemoryError):
                self._end()
                raise PictureError(
                    f"{name} takes too much memory or time to be read: it is damaged, or no picture"
                ) from None
        if isinstance(found, str):
            raise PictureError(found)
        return found

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            for process in (pool._processes or {}).values():  # pyright: ignore[reportPrivateUsage]
                process.kill()  # one that stands still does not end by itself
            pool.shutdown(wait=False, cancel_futures=True)


def _bound_memory() -> None:
    """Run as the process begins: bound its memory where the system can, and leave ctrl-C to the server."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(ImportError, ValueError, OSError):  # not on Windows
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _decoded(content: bytes, name: str) -> Clean | str:
    """Decode in the process; the reason as a text where that fails."""
    try:
        opened = open_content(content, name=name, bands=_bands(content, name))
        if not isinstance(opened, Image.Image):
            buffer = io.BytesIO()
            np.save(buffer, opened.values, allow_pickle=False)
            return Clean(buffer.getvalue(), *opened.size)
        return _clean(opened)
    except MemoryError:
        return f"{name} takes too much memory to be read: make a smaller picture of it"
    except Exception as error:
        return str(error) if isinstance(error, PictureError) else f"{name} cannot be read: {type(error).__name__}"


def _bands(content: bytes, name: str) -> int | None:
    """Return how many bands an array has, for networks that read any number of them: the shorter of its outer sides."""
    if kind_of(io.BytesIO(content)) != "npy":
        return None
    array = read_array(io.BytesIO(content), name)
    return min(array.shape[0], array.shape[2]) if array.ndim == 3 else None


def _clean(image: Image.Image) -> Clean:
    remark = ""
    if image.width * image.height > _LARGEST:
        whole = f"{image.width} × {image.height}"
        factor = (_LARGEST / (image.width * image.height)) ** 0.5
        small = (max(1, int(image.width * factor)), max(1, int(image.height * factor)))
        image = image.resize(small, Image.Resampling.LANCZOS, reducing_gap=3)
        remark = f"the picture was made smaller: {whole} became {image.width} × {image.height}"
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return Clean(buffer.getvalue(), image.width, image.height, remark)
