"""The demonstration page: complete, self-contained, and quick."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope import remake
from convscope.demo import write_demo
from convscope.registry import METHODS, load_all
from convscope.zoo.configured import at_hand

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
        for picture in ("coffee", "chelsea"):
            image = Image.open(folder / f"{entry.name}-{picture}.png")
            recipe = json.loads(image.info["convscope"])
            assert recipe["objective"].isdigit() and recipe["network"]["name"] == "zfnet64"
            values = np.load(folder / f"{entry.name}-{picture}.npz")["map"]
            assert values.shape[0] in (1, 3) and values.shape[1:] == (128, 128) and np.abs(values).max() > 0
    articles = text.split("<article>")[1:]
    assert len(articles) >= 2 * len(METHODS) + 7
    for article in articles:
        assert "<h3>" in article and "How it was made" in article and "&quot;method&quot;" in article
    assert text.count("class='bar'") >= 2 * len(METHODS)


def test_the_cup_is_espresso_and_the_cat_a_cat(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    cards = re.findall(r"alt='(\w+)'><bdi>\w+</bdi><div class='chart'>(.*?)</div></div>", text)
    assert len(cards) == (6 if at_hand("efficientnet-lite0") else 3)
    for coffee, chelsea, rocket in (cards[:3], cards[3:])[: len(cards) // 3]:
        assert [coffee[0], chelsea[0], rocket[0]] == ["coffee", "chelsea", "rocket"]
        assert re.search(r"<span>(.*?)</span>", coffee[1])[1] == "espresso"
        assert re.search("tabby|Persian cat|tiger cat", chelsea[1])


def test_the_page_tells_how_the_network_learned(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    shares = [float(share) for share in re.findall(r"--share:([\d.]+)%'><span>epoch \d+<", text)]
    assert len(shares) == 6 and shares[-1] == max(shares) > 60
    first, last = (np.load(path)["filters"] for path in sorted(folder.glob("filters-epoch-*.npz")))
    assert first.shape == last.shape == (48, 3, 7, 7) and np.abs(first - last).max() > 0.01


def remade(figures: Iterable[Path], again: Path) -> None:
    for figure in figures:
        assert remake(figure).save(again).read_bytes() == figure.read_bytes(), figure.name


@pytest.mark.slow
def test_figures_of_methods_are_remade_to_the_byte(folder: Path, tmp_path: Path) -> None:
    """One of each method, of views one of each network; the slow ones and other views are remade on small networks."""
    slow = ("rise", "extremal")
    names = [*(f"{method}-coffee" for method in METHODS if method not in slow), "maps-conv1"]
    deep = folder / "efficientnet-lite0-maps.png"
    remade([*(folder / f"{name}.png" for name in names), *([deep] if deep.exists() else [])], tmp_path / "again.png")


@pytest.mark.nightly
def test_every_figure_is_remade_to_the_byte(folder: Path, tmp_path: Path) -> None:
    figures = sorted(folder.rglob("*.png"))
    assert len(figures) > 40
    remade(figures, tmp_path / "again.png")
