"""Writing files: whole or not at all, and nothing left over.

What a file holds is made first, in memory; then it is written under a temporary name beside it, which is renamed. The
temporary name says whose it is, so that the next run removes what a killed one has left, and never a living one's.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from . import addresses
from .errors import OutputError
from .locks import is_left_over, temporary_name, this_process

if TYPE_CHECKING:
    from PIL import Image

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg")
FILM_ENDINGS = (".gif", ".webp", ".mp4")
NUMBER_ENDINGS = (".npy", ".npz", ".safetensors")
REPORT_ENDINGS = (".html", ".pdf")
TABLE_ENDINGS = (".csv", ".json", ".md", ".txt", ".html", ".parquet")
_OFFICE_ENDINGS = (".xlsx", ".xls", ".ods")


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


def check_report(path: Path) -> None:
    """Refuse a report that cannot be written, with the folder that may lie beside it. Raises OutputError."""
    if path.suffix.lower() not in REPORT_ENDINGS:
        raise OutputError(f"cannot write {path}: endings are {', '.join(REPORT_ENDINGS)}")
    check_file(path)
    check_folder(path.with_name(f"{path.stem}-files"))


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, or made. Raises OutputError."""
    asked = folder
    if addresses.is_remote(addresses.public(folder)) and not _is_folder(folder):
        raise OutputError(
            f"cannot write to {addresses.public(folder)}: files are written to folders of this machine; copy them to "
            "the storage afterwards"
        )
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not (_is_folder(folder) and os.access(folder, os.W_OK | os.X_OK)):
        raise OutputError(f"cannot write to {folder}: it is not a folder that can be written")
    longest = _longest_name(folder)
    for name in asked.parts:
        if len(os.fsencode(name)) > longest:
            raise OutputError(f"cannot write to {asked}: a name may have {longest} bytes here")


def check_format(path: Path, ending: str) -> None:
    """Refuse a name that promises another format than the one of an ending. Raises OutputError."""
    suffix = path.suffix.lower()
    promised = {*PICTURE_ENDINGS, *FILM_ENDINGS, *NUMBER_ENDINGS, *TABLE_ENDINGS, *_OFFICE_ENDINGS} - {ending, ".txt"}
    if suffix in promised:
        raise OutputError(f"{path} is written as {ending}, not as {suffix}: give {path.with_suffix(ending)}")


def check_file(path: Path) -> None:
    """Refuse a file that cannot be written, before anything is computed. Raises OutputError."""
    check_folder(path.parent)
    if len(os.fsencode(path.name)) > _longest_name(path.parent):
        raise OutputError(f"cannot write {path}: a name may have {_longest_name(path.parent)} bytes here")
    with _in_words(path):
        _check_target(path)


def write(path: str | Path, writer: Callable[[Path], object], *, durable: bool = False) -> Path:
    """Write a file under a temporary name beside it, then rename it, so that no half of it is ever seen.

    A link stays, and what it points to is written; a device or a named pipe is written into. A file that exists keeps
    its permissions, and one that is read-only is refused.

    Args:
        path: the file. Missing folders are made.
        writer: gets the temporary path, which has the same suffix.
        durable: whether it must outlast a machine that crashes right after; takes some milliseconds.

    Raises OutputError when the place cannot be written; what was there before stays whole.
    """
    with writing(path, durable=durable) as temporary:
        writer(temporary)
    return Path(path)


@contextmanager
def writing(path: str | Path, *, durable: bool = False) -> Generator[Path]:
    """Give a temporary path for the content of a file, as `write` does it, for as long as the block takes."""
    with _in_words(Path(path)), whole(Path(path), durable=durable) as temporary:
        yield temporary


def write_bytes(path: str | Path, content: bytes | memoryview, *, durable: bool = False) -> Path:
    """Write a file with this content, as `write` does it."""
    return write(path, lambda to: to.write_bytes(content), durable=durable)


def write_made(path: str | Path, make: Callable[[BinaryIO], object]) -> Path:
    """Write a file whose content `make` writes into memory first, as `write` does it."""
    content = BytesIO()
    with _in_words(Path(path)):
        make(content)
    return write_bytes(path, content.getbuffer())


def write_image(path: str | Path, image: Image.Image, **options: Any) -> Path:
    """Write an image of Pillow's in the format that the ending names, with the format's own options.

    Raises OutputError as `write` does, and for an image that the format cannot hold.
    """
    kind = Path(path).suffix[1:].upper().replace("JPG", "JPEG")
    try:
        return write_made(path, lambda to: image.save(to, kind, **options))
    except ValueError as error:  # such as 16,383 pixels, the most that WEBP holds
        raise OutputError(f"cannot write {path}: {error}") from None


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file in UTF-8, as `write` does it."""
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


@contextmanager
def whole(path: Path, *, durable: bool = False) -> Generator[Path]:
    """Give a temporary path for a file's content; at the end of the block the content gets the file's own name.

    Nothing is left where the block fails. Raises OSError.
    """
    _check_target(path)
    special, target = _is_special(path), Path(os.path.realpath(path))
    folder = Path(tempfile.gettempdir()) if special else target.parent
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(str(folder), os.getpid())
    temporary = folder / temporary_name(this_process(), _suffix(path))
    try:
        temporary.touch(0o600 if special else 0o666, exist_ok=False)
        yield temporary
        if special:
            with temporary.open("rb") as content, path.open("wb") as file:
                shutil.copyfileobj(content, file)
            temporary.unlink()
            return
        with suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        if durable:
            _sync(temporary)
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync(folder)


@contextmanager
def _in_words(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def _check_target(path: Path) -> None:
    """Refuse what no file can be written to. Raises OutputError, or OSError as the system says it."""
    if "\0" in str(path):
        raise OutputError(f"cannot write {str(path)!r}: no file can have such a name")
    if _is_folder(path):
        raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
    if os.path.isfile(path.parent):  # noqa: PTH113
        raise OutputError(f"cannot write {path}: {path.parent} is a file, not a folder")
    try:
        path.stat()
    except FileNotFoundError:
        return
    if not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: it is read-only; name another file, or make it writable")


def _is_special(path: Path) -> bool:
    """Whether it is a device, a pipe or a socket, which has no content that a rename could replace."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


@lru_cache(1000)
def _sweep(folder: str, _: int) -> None:
    """Remove the temporary files that processes which have ended left in a folder; looked for once per process."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_left_over(entry.name):
                with suppress(OSError):
                    Path(entry.path).unlink()


def _suffix(path: Path) -> str:
    """Return the ending by which a writer knows the kind, where it is one: a temporary name must not get too long."""
    return path.suffix if re.fullmatch(r"\.\w{1,12}", path.suffix, re.ASCII) else ""


def _is_folder(path: Path) -> bool:
    """Whether it is a folder; not so where that cannot be found out, for which `Path.is_dir` raises."""
    return os.path.isdir(path)  # noqa: PTH112


def _longest_name(folder: Path) -> int:
    """Return how many bytes a name may have in a folder, or in the nearest one that exists."""
    while not _is_folder(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        return 255


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's names, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
