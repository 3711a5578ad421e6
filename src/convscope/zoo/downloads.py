"""Files from elsewhere: downloaded when asked for, with progress, into torch's own cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ..errors import WeightsError
from ..outputs import whole

_PATIENCE = 30.0
"""Seconds without a byte after which a download is given up."""

OTHERWISE = ", or give weights=PATH to a file at hand, or weights=None for random ones (--weights none)"


class Refused(WeightsError):  # noqa: N818  reads as what happened
    """A server's answer that it has no such file (404), or does not give it to everybody (401, 403)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def cache() -> Path:
    """Return the folder where torch keeps what it has downloaded."""
    if "torch" in sys.modules:  # where it may have been set
        return Path(sys.modules["torch"].hub.get_dir()) / "checkpoints"
    caches = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return Path(os.environ.get("TORCH_HOME", caches / "torch")).expanduser() / "hub" / "checkpoints"


def fetch(
    url: str,
    file: str,
    *,
    what: str,
    megabytes: float | None = None,
    digest: str | None = None,
    otherwise: str = OTHERWISE,
) -> Path:
    """Return a file of torch's cache, downloading it from `url` when it is not there.

    Args:
        url: where it is.
        file: its name in the cache.
        what: whose it is, for messages: "the weights of torchvision:alexnet".
        megabytes: its size, where it is known.
        digest: the first digits of its SHA-256, where they are known.
        otherwise: what else can be done, for messages.

    Raises WeightsError, which says where to put the file by hand, when it cannot be had; Refused where the server
    answers so. Nothing half is left.
    """
    path = cache() / file
    if path.exists():
        return path
    size = f" ({megabytes:.0f} MB)" if megabytes else ""
    try:
        with whole(path) as temporary:
            _download(url, temporary, digest, f"downloading {file}{size} into {path.parent}")
    except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
        message = f"cannot get {what} ({_why(error)}). Put {file}{size} into {path.parent}{otherwise}"
        raise (Refused(message, error.code) if isinstance(error, HTTPError) else WeightsError(message)) from None
    return path


def _why(error: Exception) -> str:
    """Say without Python's own words why there is no connection."""
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        return f"no connection: {getattr(error.reason, 'strerror', None) or error.reason}"
    return str(error)


def _download(url: str, to: Path, digest: str | None, announcement: str) -> None:
    """Write what lies at an address into a file. Raises OSError, HTTPException or ValueError."""
    from rich.console import Console
    from rich.progress import wrap_file

    with urlopen(Request(url, headers={"User-Agent": "convscope"}), timeout=_PATIENCE) as answer:
        print(announcement, file=sys.stderr)
        length = int(answer.headers.get("Content-Length") or 0)
        console = Console(stderr=True)
        quiet = not console.is_terminal
        bar = wrap_file(answer, length, description="", console=console, transient=True, disable=quiet)
        with bar as source, to.open("wb") as file:
            shutil.copyfileobj(source, file, 2**20)
    got = to.stat().st_size
    # A connection that breaks off looks like the end of the file.
    if length and got != length:
        raise OSError(f"the connection broke off after {got:,} of {length:,} bytes")
    if digest:
        with to.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if not actual.startswith(digest):
            raise OSError(f"what came has the SHA-256 {actual[: len(digest)]}, not {digest}")
