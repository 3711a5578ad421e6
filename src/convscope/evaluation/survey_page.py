"""The index page of a survey: an overlay of each picture with what the network says, beside the page as files.

Pictures are loaded when they come into sight, and what is out of sight is not laid out, so that thousands open at once.
"""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from urllib.parse import quote

from .. import registry
from ..drawing.pages import page
from ..errors import visible
from .survey_table import Row, Surveyed

_STYLE = """<style>
.survey { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; margin: 1rem 0; }
.survey figure { margin: 0; content-visibility: auto; contain-intrinsic-size: auto 16rem; overflow-wrap: anywhere; }
.survey img { width: 100%; height: 11rem; object-fit: contain; background: var(--card); border: 1px solid var(--line); }
.survey .wrong img { border: 2px solid var(--warn); }
.survey figcaption { line-height: 1.35; }
.survey b { color: var(--ink); }
</style>"""


def survey_page(surveyed: Surveyed, judged: Sequence[str], files: Sequence[str]) -> str:
    """Return the index page; `judged` says how the conditions went, `files` are the tables beside it."""
    title = f"{registry.find(surveyed.method).title} · {surveyed.network}"
    links = " · ".join(f"<a href='{_link(name)}'>{html.escape(name)}</a>" for name in files)
    lines = "".join(f"<p class='note'>{html.escape(visible(line))}</p>" for line in judged)
    head = f"<h1>{html.escape(title)}</h1><p class='lead'>{html.escape(surveyed.headline)}. {links}</p>{lines}"
    # The most certain first: of these there is most to learn.
    wrong = sorted((row for row in surveyed.rows if row.wrong), key=lambda row: -row.values[0])
    others = [row for row in surveyed.rows if not row.wrong and not row.error]
    parts = [
        _section("Wrong", wrong, surveyed),
        _section("Right" if surveyed.labelled else "Pictures", others, surveyed),
        _failures(surveyed.failed),
    ]
    return page(title, _STYLE + head + "".join(parts))


def _section(title: str, rows: Sequence[Row], surveyed: Surveyed) -> str:
    if not rows:
        return ""
    cards = "".join(_card(row, surveyed) for row in rows)
    return f"<section><h2>{title}: {len(rows):,}</h2><div class='survey'>{cards}</div></section>"


def _card(row: Row, surveyed: Surveyed) -> str:
    name = html.escape(visible(row.picture))
    said = "".join(
        f"<br>{'<b>' if place == 0 else ''}{html.escape(surveyed.classes[index])}{'</b>' if place == 0 else ''} "
        f"{surveyed.head.text(value)}"
        for place, (index, value) in enumerate(zip(row.choices, row.values, strict=True))
    )
    truth = f"<br>is {html.escape(surveyed.classes[row.truth])}" if row.truth is not None and row.wrong else ""
    check = f"<br>check {row.check:.2f}" if row.check is not None else ""
    return (
        f"<figure class='{'wrong' if row.wrong else 'map'}'><a href='{_link(row.file)}'>"
        f"<img loading='lazy' decoding='async' src='{_link(row.file)}' alt='{name}'></a>"
        f"<figcaption><bdi>{name}</bdi>{said}{truth}{check}</figcaption></figure>\n"
    )


def _failures(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    items = "".join(f"<li><bdi>{html.escape(visible(row.error))}</bdi></li>" for row in rows)
    return f"<section><h2>Could not be read or explained: {len(rows):,}</h2><ul>{items}</ul></section>"


def _link(path: str) -> str:
    return html.escape(quote(os.fsencode(path)))
