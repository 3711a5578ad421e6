"""`report`: a page or a PDF about anybody's network and pictures."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from .. import outputs
from ..context import in_context, whole
from ..data.pictures import read_pictures
from ..data.preprocessing import Size
from ..errors import OptionError, nearest
from ..interruptions import orderly
from ..net import Net
from ..registry import find
from ..running import check_net
from .chapters import Chapter, Contents, Kept, Preset, Request
from .html import Pages
from .lesson import lesson
from .occasions import medical, wrong
from .pdf import PAPERS, Pdf
from .pictures import why

PresetName = Literal["why", "lesson", "wrong", "medical"]
PRESETS: dict[str, Preset] = {"why": why, "lesson": lesson, "wrong": wrong, "medical": medical}

_FEW = 20
"""Pictures up to which a method may take its time."""

_METHODS = {True: ("grad_cam", "occlusion"), False: ("grad_cam",)}
"""What is taken when nothing is said, for few pictures and for many: of two kinds, and calm to look at."""


@dataclass(frozen=True)
class Report:
    """What `report` has written: the page, and why pictures are missing, by address."""

    path: Path
    pictures: int
    failures: dict[str, str]
    existing: int = 0


@orderly
def report(
    net: Net,
    data: Any,
    out: str | Path = "report.html",
    *,
    preset: PresetName | Preset = "why",
    methods: Sequence[str] | None = None,
    of: Any = None,
    size: Size | None = None,
    check: bool = True,
    labels: str | Path | None = None,
    names: str | Path | None = None,
    paper: Literal["a4", "letter"] = "a4",
) -> Report:
    """Write a page about a network and pictures: what it says of each, and why.

    Args:
        net: the network.
        data: whatever `convscope.data.read_pictures` reads: paths, folders, tar or Parquet files, data sets, or a list
            of those.
        out: the file to write, .html or .pdf. Of more than 50 pictures, further pages and a folder lie beside a page.
        preset: what the chapters are: "why" (maps of each picture), "lesson" (the figures of two papers, on two to
            twenty pictures), "wrong" (pictures with labels that are named wrongly, with a map for the true class as
            well), "medical" (as "why", with the position that is asked about marked); or a function of a `Request`.
        methods: the names of methods; Grad-CAM and occlusion by default, of more than 20 pictures Grad-CAM alone.
        of: one objective for all pictures; each one's top-1 class by default.
        size: another input side than the network's own, in pixels, or (height, width).
        check: whether each map is compared with maps of random weights.
        paper: the paper of a PDF: "a4" or "letter".
        labels, names: what is true of the pictures, as `predict_many` takes it.

    Pictures that fail stand on the page with the reason, and in the result's `failures`. The same call goes on where
    one that was ended has stopped. Raises OptionError for another preset or method, OutputError for a file that cannot
    be written, and what `explain` raises where a network refuses all methods.
    """
    check_net(net, "report")
    out = Path(out)
    outputs.check_report(out)
    if paper not in PAPERS:
        raise OptionError(f"paper is {' or '.join(PAPERS)}, not {paper!r}")
    chosen = preset if callable(preset) else _preset(preset)
    source = read_pictures(data)
    pictures = list(source)
    named = tuple(dict.fromkeys(_METHODS[len(pictures) <= _FEW] if methods is None else methods))
    for name in named:
        find(name)
    writers = list[Pages | Pdf]()  # chapters are made, and ask what is kept, when there is one
    there = partial(_is_kept, writers)
    contents = chosen(Request(net, pictures, named, of, size, check, labels, names, source, there))
    writers.append(_writer(out, contents, paper))
    with whole():
        return _write(contents, out, writers[0])


def write_contents(contents: Contents, out: Path, paper: Literal["a4", "letter"] = "a4") -> Path:
    """Write chapters that are there already to a file, .html or .pdf."""
    with whole():
        return _write(contents, out, _writer(out, contents, paper)).path


def _writer(out: Path, contents: Contents, paper: str) -> Pages | Pdf:
    return Pages(out, contents) if out.suffix.lower() == ".html" else Pdf(out, contents, paper)


def _is_kept(writers: Sequence[Pages | Pdf], key: str) -> bool:
    return any(writer.holds(key) for writer in writers)


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        raise OptionError(f"there is no preset {name!r}; nearest: {nearest(name, PRESETS)}")
    return PRESETS[name]


def _write(contents: Contents, out: Path, pages: Pages | Pdf) -> Report:
    """Write chapters as they are made; what can be drawn in threads is, so that it does not hold up the network."""
    pool = ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1)), "convscope-report")
    waiting: deque[Future[Any]] = deque()
    failures: dict[str, str] = {}
    existing = count = 0

    def finish(keep: int) -> None:
        while len(waiting) > keep:
            wait([waiting[0]])  # ctrl-C falls here, and the chapter stays in line
            pages.add(waiting.popleft().result())

    remark = "This report was ended before it was complete."
    try:
        for chapter in contents.chapters:
            waiting.append(pool.submit(in_context(pages.fragment), chapter))
            existing, count = existing + isinstance(chapter, Kept), count + 1
            if isinstance(chapter, Chapter) and chapter.failed:
                failures[chapter.title] = chapter.failed
            finish(_CHUNK)
        remark = ""
    finally:
        pool.shutdown(wait=True)
        finish(0)
        if count or not remark:
            pages.finish(remark)
    return Report(out, count, failures, existing)


_CHUNK = 12
"""Chapters that wait to be drawn, at most."""
