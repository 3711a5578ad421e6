"""Which files a Python file runs, itself and what it can import from its folder, and how they are run as written."""

from __future__ import annotations

import ast
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
    all_suffixes,
)
from pathlib import Path
from types import CodeType


def files_run_by(path: Path) -> tuple[Path, ...]:
    """List a Python file and the files of its folder that it can import, also by way of each other.

    Imports are read from the text; nothing is run. A file of the folder that has the name of an installed module is
    always listed, because an installed module may import it by mistake. What code loads by itself, by exec or from
    other folders, is not known.
    """
    path = path.resolve()
    folder = path.parent
    found: dict[Path, None] = {}
    waiting = [path, *_shadows(folder)]
    while waiting:
        file = waiting.pop(0)
        if file in found:
            continue
        found[file] = None
        if file.suffix == ".py":
            waiting += [inner for name in _imported(file) for inner in _modules(folder, file.parent, name)]
    return tuple(found)


def _imported(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the names that a file imports, with the number of dots before them."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # said when it is imported
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield node.level, module
            yield from ((node.level, f"{module}.{alias.name}".strip(".")) for alias in node.names)


def _modules(folder: Path, beside: Path, imported: tuple[int, str]) -> Iterator[Path]:
    """Yield the files that an import runs, of packages those of every level."""
    dots, name = imported
    start = folder
    if dots:
        start = beside if dots == 1 else beside.parents[min(dots - 2, len(beside.parents) - 1)]
    for part in filter(None, name.split(".")):
        yield from _named(start, part)
        start = start / part


def _named(folder: Path, name: str) -> Iterator[Path]:
    """Yield the files of a module or package, whatever they are written in."""
    for suffix in all_suffixes():
        for file in (folder / f"{name}{suffix}", folder / name / f"__init__{suffix}"):
            if file.is_file():
                yield file


def _shadows(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that Python would take for an installed module's."""
    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != folder]
    for file in sorted(folder.glob("*.*")) + sorted(folder.glob("*/__init__.*")):
        name = file.parent.name if file.name.startswith("__init__.") else file.name.partition(".")[0]
        if file.name.endswith(tuple(all_suffixes())) and PathFinder.find_spec(name, elsewhere) is not None:
            yield file


class AsWritten(SourceFileLoader):
    """Loads a Python file from its text: what lies in `__pycache__` beside it may be other code than the file shows."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return compile(self.get_data(path), path, "exec", dont_inherit=True)


@contextmanager
def as_written(folder: Path) -> Generator[None]:
    """Load all Python files of a folder from their texts inside the block."""

    def finder(entry: str) -> FileFinder:
        path = Path(entry)
        if not path.is_relative_to(folder) or "site-packages" in path.parts:
            raise ImportError(entry)
        extensions, written = (ExtensionFileLoader, EXTENSION_SUFFIXES), (AsWritten, SOURCE_SUFFIXES)
        return FileFinder(entry, extensions, written, (SourcelessFileLoader, BYTECODE_SUFFIXES))

    def forget() -> None:
        for entry in [entry for entry in sys.path_importer_cache if Path(entry).is_relative_to(folder)]:
            del sys.path_importer_cache[entry]

    forget()
    sys.path_hooks.insert(0, finder)
    try:
        yield
    finally:
        sys.path_hooks.remove(finder)
        forget()
