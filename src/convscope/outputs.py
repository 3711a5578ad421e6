"""Writing files: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

from .errors import OutputError

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
FILM_ENDINGS = (".gif", ".webp", ".mp4")
NUMBER_ENDINGS = (".npy", ".npz", ".safetensors")
TABLE_ENDINGS = (".csv", ".json", ".md", ".txt", ".html", ".parquet")


def check_ffmpeg() -> None:
    """Refuse films in .mp4 where nothing can write them. Raises OutputError."""
    if find_spec("imageio_ffmpeg") is None:
        raise OutputError("an .mp4 film needs ffmpeg: pip install 'convscope[video]'; .gif and .webp need nothing more")


def check_pyarrow() -> None:
    """Refuse tables in .parquet where nothing can write them. Raises OutputError."""
    if find_spec("pyarrow") is None:
        raise OutputError(
            "a .parquet table needs pyarrow: pip install 'convscope[data]'; .csv and .json need nothing more"
        )


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, or made. Raises OutputError."""
    while not folder.exists():
        folder = folder.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise OutputError(f"cannot write to {folder}: it is not a folder that can be written")


def write(path: str | Path, writer: Callable[[Path], object]) -> Path:
    """Write a file under a temporary name beside it, then rename it, so that no half of it is ever seen.

    `writer` gets the temporary path, which has the same suffix. Missing folders are made. Raises OutputError when the
    place cannot be written; what was there before stays whole.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        if "\0" in str(path):
            raise OutputError(f"cannot write {str(path)!r}: no file can have such a name")
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
        if path.parent.is_file():
            raise OutputError(f"cannot write {path}: {path.parent} is a file, not a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid4().hex}{path.suffix}")
        temporary.touch(exist_ok=False)
        writer(temporary)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path
