"""Pictures of a scan, as a shard computes them: read, and identified by their content.

A picture is named by a root and a path below it, so that an atlas holds no absolute path: it can be moved, given away,
and served. Where the roots lie on this machine stands in a file of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .. import addresses
from ..data.hashing import content_hash
from ..data.opening import Located, locate
from ..data.pictures import Picture, Pictures
from ..data.storage import Place
from ..errors import PictureError
from ..net import Net
from ..outputs import write_text
from .shards import ScannedPicture

ROOTS = "roots.json"
"""Where the pictures lie on this machine: no part of an atlas that is given away."""


@dataclass(frozen=True)
class Read:
    """A picture that was read: its pixels (c, h, w), and what identifies it."""

    pixels: np.ndarray
    identity: ScannedPicture


def reader(net: Net) -> Callable[[Any], Read]:
    """Return a function that reads what `Picture.read` returns, in a worker thread; root and path are not known yet."""

    def read(content: Any) -> Read:
        content, found = _held(content)
        picture = net.prepare(content)
        width, height = picture.original.size
        identity = ScannedPicture(
            "",
            "",
            _bytes(found),
            content_hash(found),
            height,
            width,
            tuple(map(float, picture.box)),  # type: ignore[arg-type]
        )
        return Read(picture.pixels, identity)

    return read


def _held(content: Any) -> tuple[Any, Any]:
    """Return a picture's content, read out of the file that holds it, and what was found at its address.

    What is in memory has no address, and was found as it is.
    """
    if not isinstance(content, (str, Path)):
        return content, content
    found = locate(content)
    inside = isinstance(found.content, bytes) and found.frame is None
    return (found.content if inside else content), found


def _bytes(found: Any) -> int:
    """Return how many bytes a picture's file has; 0 of what is in memory and no file."""
    content = found.content if isinstance(found, Located) else found
    return content.stat().st_size if isinstance(content, Path) else len(content) if isinstance(content, bytes) else 0


@dataclass
class Roots:
    """Names of the places below which pictures lie."""

    places: dict[str, str]

    @classmethod
    def of(cls, pictures: Pictures) -> Roots:
        """Name the places of all pictures, "data" where there is one."""
        found = dict.fromkeys(place_of(picture)[0] for picture in pictures)
        return cls({f"data-{number}" if number > 1 else "data": place for number, place in enumerate(found, 1)})

    @property
    def absolute(self) -> dict[str, str]:
        """Where the places are, from the root of the file system on."""
        return {name: _absolute(place) for name, place in self.places.items()}

    def write(self, folder: Place) -> None:
        """Write down where the places are, for this user; not in a storage, which is nobody's own."""
        if isinstance(folder, Path):
            write_text(folder / ROOTS, json.dumps(self.absolute, indent=1))

    def name(self, picture: Picture) -> ScannedPicture:
        """Return a picture's name: its root and path."""
        place, path = place_of(picture)
        return ScannedPicture(self._names[place], path, label=picture.label)

    @cached_property
    def _names(self) -> dict[str, str]:
        return {place: name for name, place in self.places.items()}


def content_of(place: str, path: str) -> Any:
    """Return the picture at a path below a place, as `net.prepare` takes it; None where there is none."""
    try:
        return _held(addresses.put_behind(place, path))[0]
    except PictureError:
        return None


def _absolute(place: str) -> str:
    """Return a folder's place from the root of the file system on; others, such as sample pictures, as they are."""
    file, mark, rest = place.partition("#")
    if not os.path.exists(file or "."):  # noqa: PTH110
        return place
    absolute = os.path.abspath(file or ".")  # noqa: PTH100
    return f"{absolute}/" if os.path.isdir(absolute) else f"{absolute}{mark}{rest}"  # noqa: PTH112


def place_of(picture: Picture) -> tuple[str, str]:
    """Part a picture's address into a place and a path below it."""
    where = picture.where
    link, chain, rest = addresses.parts(where)
    if picture.name and link.endswith(picture.name) and where != picture.name:
        return link.removesuffix(picture.name) + chain + rest, picture.name
    if "#" in where and not os.path.exists(where):  # noqa: PTH110  an item of a data set
        place, mark, item = where.rpartition("#")
        return place, mark + item
    folder, name = os.path.split(where)
    return (os.path.join(folder, ""), name) if folder else ("", where)  # noqa: PTH118


def named(identity: ScannedPicture, name: ScannedPicture) -> ScannedPicture:
    """Return what identifies a picture with its name."""
    return replace(identity, root=name.root, path=name.path, label=name.label)
