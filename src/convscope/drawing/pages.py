"""HTML pages: one calm column, light and dark, nothing loaded from anywhere."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from importlib import resources


def page(title: str, body: str) -> str:
    """Return a whole page, its style inside."""
    style = resources.files(__package__ or "convscope").joinpath("page.css").read_text(encoding="utf-8")
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body><main>{body}</main></body></html>"
    )


def anchor(title: str) -> str:
    """Return the id of the section of that title."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def contents(titles: Sequence[str]) -> str:
    """Return links to the sections of those titles."""
    links = "".join(f"<a href='#{anchor(title)}'>{html.escape(title)}</a>" for title in titles)
    return f"<nav aria-label='contents'>{links}</nav>"


def figure(drawn: str, recipe: str, files: Mapping[str, str]) -> str:
    """Return a figure (HTML) with its recipe folded away and links to its files."""
    links = "".join(f"<a href='{html.escape(name)}'>{html.escape(text)}</a>" for name, text in files.items())
    beside = f"<div class='files'>{links}</div>" if links else ""
    made = f"<details><summary>How it was made</summary><pre>{html.escape(recipe)}</pre></details>" if recipe else ""
    return f"{drawn}{beside}{made}"


def article(drawn: str, recipe: str, files: Mapping[str, str]) -> str:
    """Return a figure, as `figure` does, in a frame of its own."""
    return f"<article>{figure(drawn, recipe, files)}</article>"


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """Return labelled shares of 1 as bars, a text behind each."""
    lines = "".join(
        f"<div style='--share:{share:.1%}'><span>{html.escape(name)}</span><span>{html.escape(text)}</span></div>"
        for name, share, text in rows
    )
    return f"<div class='chart'>{lines}</div>"


def pager(links: Sequence[tuple[str, str]], current: int) -> str:
    """Return links (address, text) to the pages of a report that has several; the current one is none."""
    shown = "".join(
        f"<b aria-current='page'>{html.escape(text)}</b>"
        if number == current
        else f"<a href='{html.escape(address, quote=True)}'>{html.escape(text)}</a>"
        for number, (address, text) in enumerate(links)
    )
    return f"<nav aria-label='pages'>{shown}</nav>"


def paragraphs(text: str) -> str:
    """Return plain text as HTML: an empty line ends a paragraph, `backquotes` are code."""
    told = (re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(part)) for part in text.split("\n\n") if part)
    return "".join(f"<p>{part}</p>" for part in told)
