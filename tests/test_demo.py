"""The demonstration page: complete, self-contained, and quick."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.demo import write_demo
from convscope.registry import METHODS, load_all

load_all()


class Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("demo")).parent


def test_the_page_is_whole_and_loads_nothing(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    page = Page(text)
    assert page.open == []
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/png;base64,") and attributes["alt"]
        if tag == "a":
            target = attributes["href"] or ""
            assert f"id='{target[1:]}'" in text if target.startswith("#") else (folder / target).is_file()
    assert not re.search(r"url\((?!data:)|https?://", text.replace("http://www.w3.org", ""))
    assert "prefers-color-scheme: dark" in text


def test_every_method_is_there_with_question_scale_and_recipe(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    for entry in METHODS.values():
        assert f"<h2>{entry.title}</h2>" in text
        for digit in (3, 5, 8):
            image = Image.open(folder / f"{entry.name}-{digit}.png")
            assert json.loads(image.info["convscope"])["question"] == str(digit)
            values = np.load(folder / f"{entry.name}-{digit}.npz")["map"]
            assert values.shape == (1, 28, 28) and np.abs(values).max() > 0
    articles = text.split("<article>")[1:]
    assert len(articles) >= 3 * len(METHODS) + 6
    for article in articles:
        assert "<h3>" in article and "How it was made" in article and "&quot;method&quot;" in article
    assert text.count("class='bar'") >= 3 * len(METHODS)


def test_every_digit_is_named_right(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    first = re.findall(r"class='chart'><div style='--share:([\d.]+)%'><span>(\d)</span>", text)
    assert [name for _, name in first] == list("0123456789")
    assert all(float(share) > 50 for share, _ in first)
