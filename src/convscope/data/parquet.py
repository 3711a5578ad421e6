"""Parquet and Arrow files with pictures, as Hugging Face writes them: a column of bytes, and one of labels."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from .. import addresses
from ..errors import DataError, PictureError, StorageError
from ..parsing import Document
from . import storage
from .storage import Remote

SUFFIXES = (".parquet", ".arrow")
_PICTURES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp", "bytes", "content")
_LABELS = ("label", "labels", "fine_label", "cls", "class", "target", "category")
_GROUPS_KEPT = 2


def is_table(path: Path | Remote) -> bool:
    """Whether a file is a Parquet or Arrow file, by its name."""
    return path.suffix.lower() in SUFFIXES


class PictureTable:
    """The rows of a Parquet or Arrow file: bytes of pictures, read a group of rows at a time, and their labels."""

    def __init__(self, path: Path | Remote) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._groups: dict[int, Any] = {}
        self._file: Any = None
        try:
            self._read()
        except DataError:
            if self._file is not None:
                self._file.close(force=True)
            raise

    def _read(self) -> None:
        """Read what columns there are, and the labels. Raises DataError."""
        path = self.path
        self._open()
        with _reading(path):  # a damaged name of a column is no text, and fails where it is looked at
            self.column = _choose(self._schema, path)
            self.classes, label = _label_column(self._schema, self._features)
            if self.count > path.stat().st_size:  # a picture takes more than a byte
                raise DataError(f"{path} is damaged: it says that it has {self.count} rows")
            if self._file is None:  # what is mapped is trusted by pyarrow: a wrong offset would end the process
                self._table.select([name for name in (self.column, label) if name]).validate(full=True)
            self.labels: Sequence[int | str | None] = self._column(label) if label else (None,) * self.count
        if len(self.labels) != self.count:
            raise DataError(f"{path} is damaged: it says that it has {self.count} rows, and has {len(self.labels)}")

    def _open(self) -> None:
        pyarrow = _pyarrow(self.path)
        with _reading(self.path):
            if self.path.suffix.lower() == ".parquet":
                self._file = _parquet(pyarrow, self.path)
                self._schema: Any = self._file.schema_arrow
                sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
            else:
                self._table = _read_arrow(pyarrow, storage.local(self.path))
                self._schema, sizes = self._table.schema, [self._table.num_rows]
            self._features = _features(self._schema)
        self._starts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
        self.count = self._starts[-1]

    def _column(self, name: str) -> list[Any]:
        table = self._file.read(columns=[name], use_threads=False) if self._file else self._table.select([name])
        return table.column(0).to_pylist()

    def read(self, row: int) -> bytes:
        """Return the bytes of a row's picture. Raises PictureError where it has none."""
        if not 0 <= row < self.count:
            raise PictureError(f"{self.path} has {self.count} rows, numbered from 0: there is no row {row}")
        group = bisect_right(self._starts, row) - 1
        try:
            cell = self._group(group).column(self.column)[row - self._starts[group]].as_py()
        except StorageError:
            raise
        except Exception as error:  # pyarrow raises its own and OSError on damaged pages
            raise PictureError(f"{self.path}#{row} cannot be read: {str(error).splitlines()[0][:200]}") from None
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if content is None and isinstance(cell, dict) and cell.get("path"):
            if isinstance(self.path, Remote):
                return _remote_file_beside(self.path, cell["path"], row)
            return _file_beside(self.path, cell["path"], row)
        if not content:
            raise PictureError(f"{self.path}#{row} holds no picture: its column {self.column!r} is empty")
        return content

    def _group(self, number: int) -> Any:
        if self._file is None:
            return self._table
        with self._lock:
            if number not in self._groups:
                while len(self._groups) >= _GROUPS_KEPT:
                    self._groups.pop(next(iter(self._groups)))
                # With threads of pyarrow's own, a process forked by a data loader would wait for ever.
                self._groups[number] = self._file.read_row_group(number, columns=[self.column], use_threads=False)
            return self._groups[number]


def _parquet(pyarrow: Any, path: Path | Remote) -> Any:
    """Open a Parquet file: mapped into memory, or by the ranges that are read of it."""
    if isinstance(path, Path):
        return pyarrow.parquet.ParquetFile(path, memory_map=True)
    return pyarrow.parquet.ParquetFile(pyarrow.PythonFile(path.open_exact(), mode="r"))


@contextmanager
def _reading(path: Path | Remote) -> Generator[None]:
    """Say of what pyarrow cannot read which file it is in. Raises DataError."""
    pyarrow = _pyarrow(path)
    try:
        yield
    except (OSError, ValueError, MemoryError, pyarrow.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{path} cannot be read as {path.suffix.lower()}: {reason}") from None


def open_table(path: Path | Remote) -> PictureTable:
    """Open a file of pictures; the same one again while it has not changed. Raises DataError."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    return _opened(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _opened(path: Path | Remote, size: int, changed: int) -> PictureTable:
    return PictureTable(path)


def read_row(path: Path | Remote, row: str) -> bytes:
    """Return the bytes of the picture in a row, numbered from 0. Raises PictureError where there is none."""
    if not row.isdecimal():
        raise PictureError(f"{path} has rows, numbered from 0: {path}#17 is one, not {path}#{row}")
    return open_table(path).read(int(row))


def _pyarrow(path: Path | Remote) -> Any:
    try:
        pyarrow = import_module("pyarrow")
        import_module("pyarrow.ipc")
        import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(f"{path} needs pyarrow to be read: pip install 'convscope[data]'") from None
    return pyarrow


def _read_arrow(pyarrow: Any, path: Path) -> Any:
    """Map an Arrow file or stream into memory; Hugging Face writes streams."""
    with pyarrow.memory_map(str(path)) as file:  # closed: what is read keeps the memory that it needs
        try:
            return pyarrow.ipc.open_file(file).read_all()
        except pyarrow.ArrowInvalid:
            file.seek(0)
            return pyarrow.ipc.open_stream(file).read_all()


def _features(schema: Any) -> dict[str, Any]:
    """Return what Hugging Face notes of the columns: which are pictures, and the names of classes."""
    note = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        told: Any = Document.decoded(note, "what Hugging Face notes", DataError).json(object)
        return told["info"]["features"]
    except (DataError, KeyError, TypeError):
        return {}


def _choose(schema: Any, path: Path | Remote) -> str:
    """Choose the column of pictures: the one that Hugging Face calls so, or else one of bytes, by its name."""
    noted = [
        name for name, kind in _features(schema).items() if isinstance(kind, dict) and kind.get("_type") == "Image"
    ]
    fitting = [name for name in schema.names if _holds_bytes(schema.field(name).type)]
    named = [name for wanted in _PICTURES for name in fitting if name.lower() == wanted]
    columns = [name for name in noted if name in schema.names] or named or fitting
    if not columns:
        raise DataError(
            f"{path} has no column of pictures: {', '.join(schema.names)} hold none; a column of pictures holds bytes, "
            "or bytes and path, as Hugging Face writes it"
        )
    return columns[0]


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return types.is_binary(kind) or types.is_large_binary(kind)


def _label_column(schema: Any, features: dict[str, Any]) -> tuple[tuple[str, ...], str | None]:
    """Find the column of labels, and the names of classes where Hugging Face noted them."""
    from pyarrow import types

    for name, kind in features.items():
        if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" and name in schema.names:
            return tuple(str(name) for name in kind.get("names") or ()), name
    plain = [
        name for name in schema.names if types.is_integer(kind := schema.field(name).type) or types.is_string(kind)
    ]
    return (), next((name for wanted in _LABELS for name in plain if name.lower() == wanted), None)


def _file_beside(table: Path, path: str, row: int) -> bytes:
    folder = table.parent.resolve()
    try:
        file = (folder / path).resolve()
        if not file.is_relative_to(folder):
            raise PictureError(f"{table}#{row} is refused: it names a file outside of its folder, {path!r}")
        if not file.is_file():  # such as a named pipe, which would never end
            raise PictureError(f"{table}#{row} names the file {path}, which is not there")
        return file.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        raise PictureError(f"{table}#{row} names the file {path}, which cannot be read: {error}") from None


def _remote_file_beside(table: Remote, path: str, row: int) -> bytes:
    parts = PurePosixPath(str(path)).parts
    if "://" in str(path) or "\\" in str(path) or ".." in parts or str(path).startswith("/"):
        raise PictureError(f"{table}#{row} is refused: it names a file outside of its folder, {path!r}")
    link, chain, rest = addresses.parts(table.address)
    folder = f"{link.rpartition('/')[0]}/{chain}{rest}"
    return Remote(addresses.join(folder, "/".join(parts))).read_bytes()
