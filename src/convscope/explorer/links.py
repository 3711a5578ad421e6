"""Links: the addresses of pages and pictures, the same in the running explorer and in a copy of it.

Names of layers become parts of addresses that any browser and any file system takes: what a layer's name may hold, a
slash or "..", is none of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, urlencode

_SAFE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?|.*\.(?:json|html|webp|png)", re.IGNORECASE)
_LONGEST = 60


def slugs(names: Iterable[str], empty: str = "output") -> dict[str, str]:
    """Return a part of an address for each name, different also where capitals do not count.

    A name that is safe stays as it is; of another the safe letters are kept, and its number is put behind them.
    `empty` is what the empty name becomes, that of the whole network.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for number, name in enumerate(names):
        slug = name.replace("#", "-") or empty
        whole = _SAFE.fullmatch(slug) and len(slug) <= _LONGEST and not _RESERVED.fullmatch(slug)
        if not whole or slug.lower() in taken:
            slug = re.sub(r"[^A-Za-z0-9_-]+", "-", slug)[:_LONGEST].strip("-") + f"-{number}"
            while slug.lower() in taken or not _SAFE.fullmatch(slug):
                slug = f"{number}-{slug}".strip("-")
        taken.add(slug.lower())
        found[name] = slug
    return found


class Links:
    """Addresses of the running explorer, from the server's root.

    A copy has links of its own, and is not `live`: pages leave out what only a server can do.
    """

    live = True

    def home(self) -> str:
        return "/"

    def static(self, name: str) -> str:
        return f"/static/{name}"

    def network(self, network: str, open: Sequence[str] = (), at: str = "") -> str:
        """Return the address of a network with some groups of its map open, at a place of the page."""
        return _with(f"/net/{network}", {"open": list(open)}) + (f"#{at}" if at else "")

    def layer(self, network: str, layer: str, **asked: str | int | None) -> str:
        return _with(f"/net/{network}/layer/{layer}", asked)

    def unit(self, network: str, layer: str, unit: int, **asked: str | int | None) -> str:
        return _with(f"/net/{network}/layer/{layer}/unit/{unit}", asked)

    def picture(self, network: str, picture: str, **asked: str | int | list[str] | None) -> str:
        return _with(f"/net/{network}/picture/{picture}", asked)

    def spot(
        self, network: str, picture: str, layer: str, unit: int, at: str = "strongest", **asked: str | None
    ) -> str:
        """Return the address of a unit at a place of a picture: "3,5" for a row and a column."""
        return _with(f"/net/{network}/picture/{picture}/layer/{layer}/unit/{unit}/at/{quote(at, safe=',')}", asked)

    def camera(self, network: str, **asked: str | int | None) -> str:
        """Return the address of the live page."""
        return _with(f"/net/{network}/live", asked)

    def frames(self, network: str) -> str:
        """Return the address of the live page's WebSocket."""
        return f"/net/{network}/live/frames"

    def image(self, *parts: str | int, version: str = "", **asked: str | int | None) -> str:
        """Return the address of an image; with a version it may be kept for ever."""
        path = "/".join(quote(str(part), safe=",") for part in parts)
        return _with(f"/net/{path}", {**asked, "v": version or None})


def _with(path: str, asked: Mapping[str, str | int | list[str] | None]) -> str:
    query = urlencode({name: value for name, value in asked.items() if value is not None}, doseq=True)
    return f"{path}?{query}" if query else path
