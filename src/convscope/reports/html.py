"""Reports as HTML: one file, or for many pictures pages of fifty with their images in a folder beside them.

A page needs nothing from anywhere else. In the folder every chapter lies as a fragment under its key, so that a run
that was ended goes on where it was, and memory holds no more than the words of one page. A report of one file has such
a folder until it is whole.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from .. import outputs
from ..drawing import pages, sheet_html
from .chapters import Chapter, Contents, Figure, Kept, Said, Section

INLINE = 50
"""Pictures up to which a report is one file; above it, pictures on a page."""

_PIXELWISE = 128 * 128
"""Pixels up to which an image is kept as it is: tiles of few, enlarged pixels would blur."""

_BETWEEN = "\n<!-- chapter -->\n"
_KEY = re.compile(r"[0-9a-f]{16,64}")
_INSIDE = "-inside"
"""Ends the names of chapters whose images are inside, so that pages with images beside do not take them."""

Source = Callable[[Image.Image], str]


def compact(image: Image.Image) -> tuple[bytes, str]:
    """Return an image as a small file, and its ending."""
    buffer, small = io.BytesIO(), image.width * image.height <= _PIXELWISE
    if small:
        image.save(buffer, "PNG", compress_level=6)
    else:
        image.convert("RGB").save(buffer, "WEBP", quality=88, method=0)
    return buffer.getvalue(), "png" if small else "webp"


def inline(image: Image.Image) -> str:
    """Return an image inside its address."""
    from base64 import b64encode

    content, kind = compact(image)
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


class _Beside:
    """Writes the images of one chapter into the folder beside the page, and returns their addresses."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key, self.count = folder, key, 0

    def __call__(self, image: Image.Image) -> str:
        content, kind = compact(image)
        path = self.folder / f"{self.key}-{self.count}.{kind}"
        self.count += 1
        outputs.write_bytes(path, content)
        return f"{quote(self.folder.name)}/{path.name}"


class Pages:
    """The pages of one report. `add` and `finish` are called in order; `fragment` may run in any thread."""

    def __init__(self, path: Path, contents: Contents) -> None:
        self.path, self.contents = path, contents
        self.many = contents.pictures > INLINE
        self.folder = folder_of(path)
        self.number = 0
        self.parts: list[tuple[str, str, str]] = []

    def fragment(self, chapter: Chapter | Kept) -> tuple[str, str, str]:
        """Return a chapter's title, its card in the index, and itself, as HTML; of a picture, keep the last two."""
        if isinstance(chapter, Kept):
            text = self._fragment(chapter.key).read_text(encoding="utf-8")
            card, _, body = text.partition(_BETWEEN)
            return "", card, body
        inside = sheet_html.data_uri if self.contents.lossless else inline
        source = _Beside(self.folder, chapter.key) if self.many and chapter.key else inside
        card, body = _card(chapter, source), _chapter(chapter, source)
        if chapter.key and not chapter.failed:
            outputs.write_text(self._fragment(chapter.key), f"{card}{_BETWEEN}{body}")
        return ("" if chapter.key else chapter.title), card, body

    def add(self, part: tuple[str, str, str]) -> None:
        """Put a chapter on the page; a full one is written."""
        self.parts.append(part)
        if self.many and len(self.parts) == INLINE:
            self._write("")

    def finish(self, remark: str = "") -> Path:
        """Write what is left, with a remark at its head."""
        if self.parts or not self.number or remark:
            self._write(remark)
        if not self.many and not remark and self.folder.is_dir():
            self._clear()
        return self.path

    def holds(self, key: str) -> bool:
        """Say whether a chapter lies beside the page already."""
        return self._fragment(key).is_file()

    def _fragment(self, key: str) -> Path:
        assert _KEY.fullmatch(key)
        return self.folder / f"{key}{'' if self.many else _INSIDE}.html"

    def _clear(self) -> None:
        """Take away the chapters that are on the page, and the folder if nothing else is in it."""
        for path in self.folder.glob(f"*{_INSIDE}.html"):
            if _KEY.fullmatch(path.stem.removesuffix(_INSIDE)):
                path.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _write(self, remark: str) -> None:
        contents, number = self.contents, self.number
        lead = "" if number else f"<div class='lead'>{pages.paragraphs(contents.lead)}</div>"
        warning = f"<p class='caveat'>{html.escape(remark)}</p>" if remark else ""
        head = f"<h1>{html.escape(contents.title)}</h1>{lead}{warning}{self._pager()}"
        titles = [title for title, _, _ in self.parts if title]
        cards = "".join(card for _, card, _ in self.parts)
        index = f"<div class='cards index'>{cards}</div>" if cards else ""
        links = pages.contents(titles) if len(titles) > 1 else ""
        bodies = "".join(body for _, _, body in self.parts)
        text = pages.page(contents.title, head + links + index + bodies + (self._pager() if bodies else ""))
        outputs.write_text(self._place(number), text)
        self.number, self.parts = number + 1, []

    def _place(self, number: int) -> Path:
        return self.path if not number else self.path.with_stem(f"{self.path.stem}-{number + 1}")

    def _pager(self) -> str:
        if not self.many:
            return ""
        count = -(-self.contents.pictures // INLINE)
        ends = [(i * INLINE + 1, min((i + 1) * INLINE, self.contents.pictures)) for i in range(count)]
        links = [(quote(self._place(i).name), f"{first}–{last}") for i, (first, last) in enumerate(ends)]
        return pages.pager(links, self.number)


def folder_of(path: Path) -> Path:
    """Return the folder in which the images of a page with many pictures lie."""
    return path.with_name(f"{path.stem}-files")


def _card(chapter: Chapter, source: Source) -> str:
    """Return a chapter's entry in the index."""
    if not chapter.key:
        return ""
    said = chapter.said[0] if chapter.said else Said(None, chapter.title, note=chapter.failed)
    return f"<a class='card photo' href='#p{chapter.key[:16]}'>{_said(said, source, rows=1)}</a>"


def _said(said: Said, source: Source, *, rows: int | None = None) -> str:
    name = html.escape(said.name)
    image = ""
    if said.image is not None:
        shown = said.image()
        image = (
            f"<img loading='lazy' width='{shown.width}' height='{shown.height}' src='{source(shown)}' "
            f"alt='{html.escape(said.name, quote=True)}'>"
        )
    chart = pages.bars([(row.name, row.share, row.text) for row in said.rows[:rows]]) if said.rows else ""
    note = f"<span>{html.escape(said.note)}</span>" if said.note else ""
    return f"{image}<bdi>{name}</bdi>{chart}{note}"


def _chapter(chapter: Chapter, source: Source) -> str:
    """Return a chapter: of a picture an article, else a section."""
    caveat = f"<p class='caveat'>{html.escape(chapter.caveat)}</p>" if chapter.caveat else ""
    cited = f"<p class='source'>{html.escape(chapter.source)}</p>" if chapter.source else ""
    text = pages.paragraphs(chapter.text)
    if chapter.key:
        anchor, title = f"p{chapter.key[:16]}", html.escape(chapter.title)
        if chapter.failed:
            return f"<article id='{anchor}'><h2><bdi>{title}</bdi></h2><p>{html.escape(chapter.failed)}</p></article>"
        chart = "".join(pages.bars([(row.name, row.share, row.text) for row in said.rows]) for said in chapter.said)
        figures = "".join(_figure(figure, source) for figure in chapter.figures)
        return f"<article id='{anchor}'><h2><bdi>{title}</bdi></h2>{text}{caveat}{chart}{figures}</article>"
    cards = "".join(f"<div class='card photo'>{_said(said, source)}</div>" for said in chapter.said)
    body = f"<div class='cards'>{cards}</div>" if cards else ""
    head = f"<h2>{html.escape(chapter.title)}</h2>{text}{cited}{caveat}"
    figures = _framed(chapter, source) + "".join(_section(section, source) for section in chapter.sections)
    return f"<section id='{pages.anchor(chapter.title)}'>{head}{body}{figures}</section>"


def _framed(part: Chapter | Section, source: Source) -> str:
    """Return the tables and figures of a part, each in a frame."""
    drawn = [*(table.html() for table in part.tables), *(_figure(figure, source) for figure in part.figures)]
    return "".join(f"<article>{each}</article>" for each in drawn)


def _section(section: Section, source: Source) -> str:
    return (
        f"<h3 class='part'>{html.escape(section.title)}</h3>{pages.paragraphs(section.text)}{_framed(section, source)}"
    )


def _figure(figure: Figure, source: Source) -> str:
    return pages.figure(
        sheet_html.to_html(figure.sheet(), source), "\n\n".join(each.to_json() for each in figure.recipes), figure.files
    )
