"""Files from elsewhere: downloaded when asked for, with progress, into torch's own cache."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ..errors import WeightsError


def cache() -> Path:
    """Return the folder where torch keeps what it has downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def fetch(url: str, file: str, *, what: str, megabytes: float | None = None, digest: str | None = None) -> Path:
    """Return a file of torch's cache, downloading it from `url` when it is not there.

    Args:
        url: where it is.
        file: its name in the cache.
        what: whose it is, for messages: "the weights of torchvision:alexnet".
        megabytes: its size, where it is known.
        digest: the first digits of its SHA-256, where they are known.

    Raises WeightsError, which says where to put the file by hand, when it cannot be had. Nothing half is left.
    """
    path = cache() / file
    if path.exists():
        return path
    size = f" ({megabytes:.0f} MB)" if megabytes else ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"downloading {file}{size} into {path.parent}", file=sys.stderr)
        # torch writes to a temporary name first, and renames.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise WeightsError(
            f"cannot get {what} ({error}). Put {file}{size} into {path.parent}, or give weights=PATH to a file at "
            "hand, or weights=None for random ones"
        ) from None
    return path
