"""Damaged files: each is read, or refused in one sentence."""

from __future__ import annotations

import contextlib
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from convscope.errors import ConvscopeError

from . import kinds
from .kinds import KINDS
from .report import Part
from .watch import origin

Case = tuple[str, int, int]
"""Kind, seed and number of a file."""


def cases(count: int, seed: int = 0, only: Sequence[str] = ()) -> Iterator[Case]:
    """Share `count` cases among the kinds, and mix them, so that a part of a run has tried a part of all."""
    chosen = [name for name in KINDS if not only or name in only]
    whole = sum(KINDS[name].share for name in chosen)
    numbers = {name: max(1, round(count * KINDS[name].share / whole)) for name in chosen}
    for first in range(0, max(numbers.values()), 200):
        for name, most in numbers.items():
            yield from ((name, seed, number) for number in range(first, min(first + 200, most)))


def attempt(case: Case, folder: Path) -> tuple[str, str]:
    """Write the file of a case, and read it."""
    name = case[0]
    kind = KINDS[name]
    path = folder / kind.file
    path.parent.mkdir(parents=True, exist_ok=True)
    for other, content in kinds.beside(name).items():
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(content)
    path.write_bytes(kinds.content(*case))
    before = set(folder.rglob("*"))
    ending, words = judged(kind.read, path)
    more = set(folder.rglob("*")) - before
    if "canary" in {file.name for file in more}:
        return "code", f"the canary of {name} was written"
    if more and ending not in ("traceback",):
        return "left", f"files {sorted(file.name for file in more)[:3]}"
    return ending, words


JOINERS = "\u200c\u200d"
"""Persian and Indian words, and many emoji, are written with them."""


def harmless(text: str) -> bool:
    """Whether a terminal only shows a text; letters that this Python's Unicode does not know yet do nothing there."""
    kinds_of = {unicodedata.category(letter) for letter in text if letter not in JOINERS}
    return not kinds_of & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def judged(read: kinds.Read, path: Path) -> tuple[str, str]:
    """Return how reading a file ended."""
    try:
        read(path)
    except ConvscopeError as error:
        text = str(error)
        if not text.strip() or "\n" in text or len(text) > 3000:
            return "traceback", f"not one sentence: {len(text)} characters, {text[:200]!r}{origin(error)}"
        if not harmless(text):
            return "traceback", f"unprintable: {text[:200]!r}{origin(error)}"
        return "refused", text[:200]
    except BaseException as error:
        cause = error.__cause__ if isinstance(error, AssertionError) and error.__cause__ else error
        return "traceback", f"{type(error).__name__}: {str(error)[:200]}{origin(cause)}"
    return "worked", ""


def prepare(only: Sequence[str]) -> None:
    """Make all files before there are workers, and import what reads them."""
    chosen = [name for name in KINDS if not only or name in only]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in chosen:
            kinds.sources(name)
            if not name.startswith("drawing") and not name.endswith(
                "run"
            ):  # no gradient here: torch forks no process that has computed one
                attempt((name, 0, 0), Path(folder, name))


PART = Part("files", 100_000, 300, cases, attempt, prepare, batch=100)
