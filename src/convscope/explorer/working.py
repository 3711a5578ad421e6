"""The process in which a job runs: a recipe is remade, a data set scanned, a network diagnosed, and progress told.

A job that takes all memory, or is killed, ends this process and not the server. What it is to do comes as JSON on
standard input; how far it is goes to standard output, a line of JSON now and then.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..context import Arriving, Label, Sized, running
from ..errors import ConvscopeError, OutputError, one_line
from ..outputs import write_image, write_text
from ..parsing import Document
from ..recipes import NetworkSource, Recipe

RESULT, NUMBERS, PREVIEW, REPORT, FINDINGS, ATLAS = (
    "result.png", "numbers.npz", "preview.webp", "report.html", "findings.json", "atlas",
)  # fmt: skip
"""Names of what a job leaves in its folder."""

_PAUSE, _LOOK = 0.3, 2.0
"""Seconds between two lines, and between two previews."""


@dataclass(frozen=True)
class Task:
    """What the process is to do, for which network, of which recipe or pictures, and where the results go."""

    kind: str
    folder: str
    source: NetworkSource
    recipe: Mapping[str, object] = field(default_factory=dict[str, object])
    data: str = ""


class _Teller:
    """Tells the server how far the outermost loop is, and shows it what there is so far."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.depth, self.told, self.looked = folder, 0, 0.0, time.monotonic()

    def track(self, items: Sized[Any], label: Label) -> Iterator[Any]:
        self.depth += 1
        try:
            for done, item in enumerate(items, isinstance(items, Arriving)):
                if self.depth == 1 and time.monotonic() - self.told > _PAUSE:
                    self.told = time.monotonic()
                    _tell(done=done, of=len(items), doing=one_line(label if isinstance(label, str) else label()))
                yield item
        finally:
            self.depth -= 1

    def view(self, make: Callable[[], Any]) -> None:
        if time.monotonic() - self.looked > _LOOK:
            self.looked = time.monotonic()
            shown = make()
            image = shown.render() if hasattr(shown, "render") else shown
            write_image(self.folder / PREVIEW, image.convert("RGB"), quality=85)


def _tell(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def _draw(asked: Task, folder: Path) -> None:
    """Make the drawing of a recipe."""
    from ..remaking import remake

    recipe = Recipe.from_json(json.dumps(asked.recipe))
    drawing = remake(recipe, net=_network(asked))
    drawing.save_values(folder / NUMBERS)
    drawing.save(folder / RESULT)


def _scan(asked: Task, folder: Path) -> None:
    """Scan a data set."""
    from ..atlas.scanning import scan

    scan(_network(asked), asked.data, folder / ATLAS)


def _diagnose(asked: Task, folder: Path) -> None:
    """Look for what is wrong with a network."""
    from ..diagnosis.diagnosing import diagnose

    found = diagnose(_network(asked), asked.data)
    write_text(folder / FINDINGS, found.json() + "\n")
    found.save(folder / REPORT)


_KINDS: dict[str, Callable[[Task, Path], None]] = {"draw": _draw, "scan": _scan, "diagnose": _diagnose}


def _network(asked: Task) -> Any:
    from ..zoo.loading import load_source

    return load_source(asked.source)


def main() -> int:
    """Do what standard input says; 0 where it is done, 2 with a sentence where it cannot be."""
    with suppress(OSError, AttributeError):
        os.nice(5)  # whoever looks at pages goes before
    asked = Document("what is to be done", sys.stdin.read(), OutputError).json(Task)
    folder = Path(asked.folder)
    teller = _Teller(folder)
    try:
        with running(tracker=teller.track, viewer=teller.view):
            _KINDS[asked.kind](asked, folder)
    except ConvscopeError as error:
        _tell(failed=str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _tell(failed="it was ended")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
