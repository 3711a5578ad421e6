"""Copies: where the pages of an atlas lie as files, and how these lead to each other, under whatever address they are.

A file is named as the page's address in the running explorer. Nothing but links, images and two classic scripts is
used, which browsers allow for files that are opened from disk, too.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .links import Links

INDEX = "index.html"


@dataclass(frozen=True)
class About:
    """What a copy is of, as each of its pages says it: nothing that differs between two copies of the same.

    `excerpt` says in words how much of the network; `atlas` is the atlas's key, `pictures` how many were scanned;
    `patches` whether pieces of them are in the copy.
    """

    network: str
    version: str
    atlas: str
    pictures: int
    excerpt: str
    patches: bool


class CopyLinks(Links):
    """Addresses in a copy, seen from one of its files; "" for what the copy does not hold.

    `units` are those in the copy, by the part of an address that stands for their layer.
    """

    live = False

    def __init__(self, about: About, units: Mapping[str, Sequence[int]], here: str = INDEX) -> None:
        self.about, self.here = about, here
        self._units = units
        self._known = {layer: frozenset(each) for layer, each in units.items()}

    def seen_from(self, here: str) -> CopyLinks:
        """Return the links of another file of the copy."""
        return CopyLinks(self.about, self._units, here)

    def home(self) -> str:
        return self._to(INDEX)

    def static(self, name: str) -> str:
        return self._to(f"static/{name}")

    def network(self, network: str, open: Sequence[str] = (), at: str = "") -> str:
        return "" if at else self._to(INDEX)  # groups of the map stay folded

    def layer(self, network: str, layer: str, **asked: str | int | None) -> str:
        return self._to(layer_file(layer)) if layer in self._known else ""

    def unit(self, network: str, layer: str, unit: int, **asked: str | int | None) -> str:
        return self._to(unit_file(layer, unit)) if unit in self._known.get(layer, ()) else ""

    def picture(self, network: str, picture: str, **asked: str | int | list[str] | None) -> str:
        return ""

    def spot(
        self, network: str, picture: str, layer: str, unit: int, at: str = "strongest", **asked: str | None
    ) -> str:
        return ""

    def camera(self, network: str, **asked: str | int | None) -> str:
        return ""

    def image(self, *parts: str | int, version: str = "", **asked: str | int | None) -> str:
        return self._to(image_file(*parts[1:]))

    def _to(self, file: str) -> str:
        return posixpath.relpath(file, posixpath.dirname(self.here) or ".")


def layer_file(layer: str) -> str:
    """Return where a layer's page lies in a copy."""
    return f"layer/{layer.lower()}/{INDEX}"


def unit_file(layer: str, unit: int) -> str:
    """Return where a unit's page lies in a copy."""
    return f"layer/{layer.lower()}/unit/{unit}/{INDEX}"


def image_file(*parts: str | int) -> str:
    """Return where an image lies in a copy: no two names differ in capitals alone."""
    return "/".join(str(part) for part in parts).lower()


def without_empty_links(page: str) -> str:
    """Return a page in which what leads nowhere is no link: an `a` without href is a text."""
    return page.replace(' href=""', "")
