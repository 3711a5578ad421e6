"""The shelf: pictures that may be looked at, by ids. No address of a picture ever comes from a browser.

There are three kinds: those of the sources that were named when the explorer was started, those of an atlas, and those
that a browser sent. All go through the same decoder before anything else reads them.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.opening import locate
from ..data.pictures import Picture, read_pictures
from ..errors import PictureError, visible
from .decoding import Clean, Decoder

_KEPT_BYTES = 256 << 20
_SENT_BYTES = 512 << 20
_NAME = 80


@dataclass(frozen=True)
class Shown:
    """A picture on the shelf: its id, what it is called, and its class where its source has one."""

    id: str
    name: str
    label: str = ""

    @property
    def last(self) -> str:
        """The name without the folders and archives in which it lies."""
        return re.split(r"[/#]", self.name)[-1] or self.name


class Shelf:
    """Pictures by id, decoded when they are first looked at; the last ones are kept. Any number of threads may ask."""

    def __init__(self, sources: Sequence[str] = ()) -> None:
        self.decoder = Decoder()
        self.sources = tuple(sources)
        self._lock = threading.Lock()
        self._listed: dict[str, tuple[Shown, Callable[[], bytes]]] = {}
        self._sent: dict[str, tuple[Shown, bytes]] = {}
        self._clean: dict[str, Clean] = {}
        for source in sources:
            for picture in read_pictures([source]):
                shown = Shown(_id("named", picture.where), picture.name or picture.where, _label(picture.label))
                self._listed[shown.id] = shown, _opener(source, picture)

    @property
    def titles(self) -> list[str]:
        """What the sources are called, without the folders that they lie in."""
        return [os.path.basename(source.rstrip("/")) or source for source in self.sources]  # noqa: PTH119

    @property
    def listed(self) -> list[Shown]:
        """The pictures of the sources that were named."""
        return [shown for shown, _ in self._listed.values()]

    @property
    def sent(self) -> list[Shown]:
        """The pictures that were sent, the newest first."""
        with self._lock:
            return [shown for shown, _ in reversed(self._sent.values())]

    def add(self, content: bytes, name: str) -> Shown:
        """Put a picture on the shelf that somebody sent. Raises PictureError for what is none."""
        called = visible(name.replace("\\", "/").rpartition("/")[2])[:_NAME].strip() or "picture"
        shown = Shown(_id("sent", content), called)
        clean = self.decoder.decode(content, called)
        with self._lock:
            self._sent.pop(shown.id, None)
            self._sent[shown.id] = shown, clean.content
            while sum(len(kept) for _, kept in self._sent.values()) > _SENT_BYTES:
                self._sent.pop(next(iter(self._sent)))
        self._keep(shown.id, clean)
        return shown

    def find(self, picture: str) -> Shown:
        """Return what is known of a picture. Raises KeyError for an id that there is not."""
        with self._lock:
            return (self._listed.get(picture) or self._sent[picture])[0]

    def clean(self, picture: str) -> Clean:
        """Return a picture's pixels. Raises KeyError for an unknown id, PictureError for what is no picture."""
        name = self.find(picture).name
        with self._lock:
            listed, sent = self._listed.get(picture), self._sent.get(picture)
        return self.opened(picture, name, listed[1] if listed else lambda: sent[1] if sent else b"")

    def opened(self, key: str, name: str, read: Callable[[], bytes]) -> Clean:
        """Return a picture's pixels by a key, of what `read` returns where they are not kept."""
        with self._lock:
            kept = self._clean.get(key)
        return kept or self._keep(key, self.decoder.decode(read(), name))

    def _keep(self, picture: str, clean: Clean) -> Clean:
        with self._lock:
            self._clean[picture] = clean
            while len(self._clean) > 1 and sum(len(each.content) for each in self._clean.values()) > _KEPT_BYTES:
                self._clean.pop(next(iter(self._clean)))
        return clean


def _id(kind: str, what: str | bytes) -> str:
    content = what if isinstance(what, bytes) else what.encode("utf-8", "surrogateescape")
    return hashlib.sha256(kind.encode() + b"\0" + content).hexdigest()[:16]


def _label(label: Any) -> str:
    return "" if label is None else str(label)


def _opener(source: str, picture: Picture) -> Callable[[], bytes]:
    """Return what reads the file that a picture lies in, where that is below its source still."""

    def content() -> bytes:
        held: Any = picture.content()
        if isinstance(held, (str, Path)):
            held, frame, _ = locate(held)
            held = None if frame is not None else held
        if isinstance(held, Path):
            return below(source, held, picture.name)
        if isinstance(held, Image.Image):
            buffer = io.BytesIO()
            held.save(buffer, "PNG", compress_level=1)
            return buffer.getvalue()
        if not isinstance(held, bytes):
            raise PictureError(f"{picture.name} is no picture in a file of its own: save it as one to look at it here")
        return held

    return content


def below(source: str, file: Path, name: str) -> bytes:
    """Read a file that lies in its folder also when links are followed. Raises PictureError for another.

    A picture that was named itself, or a sample, is where it is.
    """
    folder = source if os.path.isdir(source) else os.path.dirname(source) if "*" in source else ""  # noqa: PTH112, PTH120
    if folder and os.path.commonpath([os.path.realpath(folder), os.path.realpath(file)]) != os.path.realpath(folder):
        raise PictureError(f"{name} is a link to a place outside of its folder: it is not opened")
    return file.read_bytes()
