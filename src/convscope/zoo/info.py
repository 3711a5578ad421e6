"""What is known of a network without loading it, and where its weights are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SHIPS, CACHED, HERE, ABSENT, MISSING, NONE = "ships", "cached", "here", "not downloaded", "missing", "none"
INSTALLED, UNINSTALLED = "installed", "not installed"
"""Where a network's weights are: in the package, in a library's cache, in a file of the user's, nowhere yet; or in a
package of their own."""


@dataclass(frozen=True)
class NetworkInfo:
    """A network that can be loaded, with what is known of it without loading it.

    `source` is the library or file that names it; `weights` is where they are: "ships", "installed", "not
    installed", "cached", "here", "not downloaded", "missing" or "none"; `path` is their file, `side` the input's in
    pixels.
    """

    name: str
    source: str
    weights: str
    path: str | None = None
    megabytes: float | None = None
    side: int | tuple[int, int] | None = None
    classes: int | None = None


def path_and_size(path: Path | None) -> tuple[str | None, float | None]:
    """Return a file's path and its size in megabytes; no size of a folder, or of what is not there."""
    size = round(path.stat().st_size / 1e6, 1) if path and path.is_file() else None
    return str(path) if path else None, size
