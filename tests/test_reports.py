"""Reports: pages of anybody's network and pictures, whole, resumed, and true."""

from __future__ import annotations

import html
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
import torch
from PIL import Image

from convscope import explain, explain_many, load, predict, report, tap
from convscope.checks import cascade
from convscope.checks.many import Randomised
from convscope.cli import run
from convscope.data.samples import digits
from convscope.errors import DataError, OptionError, OutputError, named
from convscope.net import Net
from convscope.reports import html as pages_module
from convscope.reports.network_figures import evolution_of
from networks import tiny
from test_demo import Page

Capture = pytest.CaptureFixture[str]
NAMES = ["a, b.png", "line\nbreak.png", "שלום.png", "<img src=x onerror=alert(1)>.png", "#p%20'q'.png"]


def picture(path: Path, seed: int = 0, side: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def net() -> Net:
    return tiny("sequential")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pictures, two of one name, and two that are none."""
    for number, name in enumerate(NAMES):
        picture(tmp_path / "pictures" / "a" / name, number)
    picture(tmp_path / "pictures" / "a" / "same.png", 8)
    picture(tmp_path / "pictures" / "b" / "same.png", 9)
    (tmp_path / "pictures" / "b" / "empty.png").write_bytes(b"")
    (tmp_path / "pictures" / "b" / "none.png").write_bytes(b"no picture")
    return tmp_path / "pictures"


def images(text: str) -> list[str]:
    return [attributes["src"] or "" for tag, attributes in Page(text).tags if tag == "img"]


def test_a_page_is_whole_and_says_what_the_network_says(net: Net, folder: Path, tmp_path: Path) -> None:
    done = report(net, folder, tmp_path / "page.html", methods=["grad_cam", "saliency"])
    text = done.path.read_text()
    parsed = Page(text)
    assert parsed.open == [] and not {"script", "link", "iframe"} & {tag for tag, _ in parsed.tags}
    assert all(source.startswith("data:image/") for source in images(text))
    assert not re.search(r"url\((?!data:)|https?://", text) and "prefers-color-scheme: dark" in text
    assert done.pictures == 9 and sorted(done.failures) == ["b/empty.png", "b/none.png"]
    assert [path.name for path in tmp_path.iterdir() if path != folder] == ["page.html"], "nothing beside one page"
    articles = text.split("<article id=")[1:]
    titles = [html.unescape(re.search(r"<h2><bdi>(.*?)</bdi>", each, re.DOTALL)[1]) for each in articles]  # type: ignore[index]
    assert titles.count("a/same.png") == titles.count("b/same.png") == 1 and "a/שלום.png" in titles
    assert "a/line\\u000abreak.png" in titles and "a/<img src=x onerror=alert(1)>.png" in titles
    same = articles[titles.index("b/same.png")]
    pixels = net.read(folder / "b" / "same.png")
    probability, first = predict(net, pixels)[0].max(0)
    assert f"<span>{net.class_name(int(first))}</span><span>{float(probability):.2f}</span>" in same
    map_ = explain(net, folder / "b" / "same.png", "grad_cam")
    assert f"check {cascade(net, map_, stages=3).score:.2f}" in same
    assert map_.recipe.key in same and explain(net, folder / "b" / "same.png", "saliency").recipe.key in same


@pytest.mark.parametrize("kind", ["sequential", "residual", "concat"])
@pytest.mark.parametrize("method", ["grad_cam", "saliency", "deconvnet"])
def test_checks_in_batches_equal_those_alone(kind: str, method: str) -> None:
    net = tiny(kind)
    pixels = torch.rand(5, 3, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    maps = list(explain_many(net, pixels, method))
    alone = [cascade(net, map_, stages=3).score for map_ in maps]
    checker = Randomised(net)
    assert checker.scores(maps) == pytest.approx(alone, abs=1e-6)
    checker.twins = None  # as of a large network
    assert checker.scores(maps) == pytest.approx(alone, abs=1e-6)


def test_many_pictures_are_paged_and_resumed(
    net: Net, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "INLINE", 4)
    out = tmp_path / "it's #1.html"
    done = report(net, folder, out, methods=["grad_cam"])
    places = [out, *(out.with_stem(f"{out.stem}-{number}") for number in (2, 3))]
    assert sorted(path.name for path in tmp_path.glob("*.html")) == sorted(path.name for path in places)
    assert sum(path.read_text().count("<article id=") for path in places) == 9 and done.existing == 0
    for path in places:
        text = path.read_text()
        for source in images(text):
            assert (tmp_path / source.replace("%20", " ").replace("%23", "#").replace("%27", "'")).is_file()
        assert text.count("it%27s%20%231") > 2, "addresses hold no bare # or quote"
    whole = [path.read_bytes() for path in places]
    one = next((tmp_path / f"{out.stem}-files").glob("*.html"))
    one.unlink()
    again = report(net, folder, out, methods=["grad_cam"])
    assert again.existing == 6 and [path.read_bytes() for path in places] == whole
    assert report(net, folder, out, methods=["saliency"]).existing == 0, "of another question nothing is kept"


@pytest.mark.parametrize("inline", [4, 50])
def test_what_is_ended_is_told_and_goes_on(
    net: Net, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inline: int
) -> None:
    from convscope.reports import pictures as module

    monkeypatch.setattr(pages_module, "INLINE", inline)
    monkeypatch.setattr(module, "_CHUNK", 2)
    usual, asked = module.explain_many, list[Any]()

    def interrupted(*args: Any, **options: Any) -> Any:
        asked.append(args)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return usual(*args, **options)

    monkeypatch.setattr(module, "explain_many", interrupted)
    out = tmp_path / "page.html"
    with pytest.raises(KeyboardInterrupt):
        report(net, folder, out, methods=["grad_cam"])
    ended = (tmp_path / "page-2.html").read_text() if (tmp_path / "page-2.html").exists() else out.read_text()
    assert "ended before it was complete" in ended
    assert report(net, folder, out, methods=["grad_cam"]).existing == 4
    assert "ended before" not in "".join(path.read_text() for path in tmp_path.glob("page*.html"))
    if inline == 50:
        assert [path.name for path in tmp_path.iterdir() if path != folder] == ["page.html"], "nothing beside one page"
        whole = report(net, folder, tmp_path / "again.html", methods=["grad_cam"]).path
        assert whole.read_bytes() == out.read_bytes()


@pytest.mark.nightly
def test_a_report_that_was_killed_goes_on(tmp_path: Path) -> None:
    """TERM while it computes: whole files only, exit code 143, and the same command makes what is missing."""
    for number in range(60):
        picture(tmp_path / "pictures" / f"{number}.png", number)
    command = [sys.executable, "-m", "convscope", "report", "pictures", "--net", "zfnet64", "--methods", "occlusion"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [*command, "-o", "page.html"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    while len([*tmp_path.glob("page-files/*.html")]) < 5:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 143 and "Run the same command again" in said
    assert not [*tmp_path.rglob(".convscope*")]
    assert "ended before it was complete" in (tmp_path / "page.html").read_text()
    done = subprocess.run(
        [*command, "-o", "page.html"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    there = int(re.search(r"(\d+) of 60 pictures were there already", done.stderr)[1])  # type: ignore[index]
    assert 5 <= there < 60
    pages = [tmp_path / "page.html", tmp_path / "page-2.html"]
    assert sum(path.read_text().count("<article id=") for path in pages) == 60


def test_refusals(net: Net, folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"endings are \.html, \.pdf"):
        report(net, folder, tmp_path / "page.txt")
    with pytest.raises(OptionError, match="no preset 'wyh'; nearest: 'why'"):
        report(net, folder, tmp_path / "page.html", preset="wyh")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="maps is a view"):
        report(net, folder, tmp_path / "page.html", methods=["maps"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    assert run(["report", "nothing", "-o", "page.html"]) == 2 and not Path("page.html").exists()
    assert "no picture in nothing" in capsys.readouterr().err
    assert run(["report", "pictures", "--methods", "grad-cam", "--no-check", "-o", "page.html"]) == 3
    said = capsys.readouterr()
    assert said.out.strip() == "page.html" and "2 of 9 pictures failed" in said.err


def pdf(path: Path) -> Any:
    return pypdfium2.PdfDocument(path)


@pytest.mark.parametrize(("paper", "size"), [("a4", (595.28, 841.89)), ("letter", (612, 792))])
def test_a_pdf_has_pages_of_its_paper_and_nothing_at_their_edges(
    net: Net, folder: Path, tmp_path: Path, paper: Any, size: tuple[float, float]
) -> None:
    done = report(net, folder, tmp_path / "report.pdf", methods=["grad_cam", "saliency"], paper=paper)
    document = pdf(done.path)
    words = ""
    for number, page in enumerate(document, 1):
        assert page.get_size() == pytest.approx(size, abs=0.1)
        text = page.get_textpage().get_text_bounded()
        assert re.search(rf"{number} /\s*{len(document)}", text), "the page's number, and how many there are"
        words += text
        ink = np.asarray(page.render(scale=0.5).to_pil().convert("L")) < 250
        assert not ink[:, :20].any() and not ink[:, -20:].any() and not ink[:20].any() and not ink[-10:].any()
    assert "a/a, b.png" in words and "b/none.png" in words and "is not a picture" in words
    probability, first = predict(net, net.read(folder / "b" / "same.png"))[0].max(0)
    assert f"{net.class_name(int(first))}" in words and f"{float(probability):.2f}" in words
    content = done.path.read_bytes()
    assert b"/FontFile2" in content, "fonts are embedded"
    assert report(net, folder, done.path, methods=["grad_cam", "saliency"], paper=paper).path.read_bytes() == content


def test_a_lesson_has_a_chapter_for_each_figure(folder: Path, tmp_path: Path) -> None:
    from convscope.reports.lesson import _PARTS, lesson
    from convscope.reports.reporting import PRESETS

    assert PRESETS["lesson"] is lesson
    sources = [part.source for part in _PARTS]
    for paper, figures in (("Zeiler & Fergus", range(1, 9)), ("Simonyan", range(1, 4))):
        for number in figures:
            assert any(source.startswith(paper) and f"Fig. {number}" in source for source in sources)
    assert all(len(part.text) > 250 for part in _PARTS)
    net = tiny("residual")
    files = sorted((folder / "a").glob("*.png"))[:3]
    done = report(net, files, tmp_path / "lesson.html", preset="lesson")
    text = done.path.read_text()
    assert all(f"<h2>{html.escape(part.title)}</h2>" in text for part in _PARTS)
    assert text.count("<table class='sheet") >= 15 and Page(text).open == []
    assert "with its folder as --weights RUN" in text, "how to get what only a training that was kept can show"
    with pytest.raises(OptionError, match="2 to 20 pictures, and here is 1"):
        report(net, files[0], tmp_path / "lesson.html", preset="lesson")


def test_units_are_followed_through_the_training() -> None:
    drawing = evolution_of(load("lenet5"), digits()[:3], ["conv1", "conv2"])
    sheet, shown = drawing.sheet(), drawing.numbers()["pictures"]
    assert [int(head.split(":")[0].removeprefix("epoch ")) for head in sheet.columns] == [1, 2, 5, 10, 20, 30]
    for label, row in zip(sheet.labels, shown, strict=True):
        layer, channel = label.split(":")
        for epoch, best in ((1, row[0]), (30, row[-1])):
            at = load("lenet5", epoch=epoch)
            maps = [tap(at, at.read(each), [layer])[layer][0, int(channel)] for each in digits()[:3]]
            assert best == max(range(3), key=lambda number: float(maps[number].max()))


def test_wrong_pictures_have_a_map_for_what_they_are(net: Net, tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{number}.png", number) for number in range(4)]
    said = [int(predict(net, net.read(path)).argmax()) for path in paths]
    true = [said[0], (said[1] + 1) % 5, said[2], (said[3] + 2) % 5]
    rows = "".join(f"{path.name},{net.class_name(index)}\n" for path, index in zip(paths, true, strict=True))
    (tmp_path / "labels.csv").write_text(f"path,label\n{rows}")
    options: dict[str, Any] = {"preset": "wrong", "methods": ["grad_cam"], "labels": tmp_path / "labels.csv"}
    done = report(net, paths, tmp_path / "page.html", **options)
    text = done.path.read_text()
    assert done.pictures == 2 and "names 2 of 4 pictures wrongly" in text
    surest = sorted((1, 3), key=lambda number: -float(predict(net, net.read(paths[number])).max()))
    keys = [explain(net, paths[number], "grad_cam").recipe.key for number in surest]
    assert text.index(keys[0]) < text.index(keys[1]), "the most certain mistake first"
    for number in (1, 3):
        name = net.class_name(true[number])
        assert f"for {name}, which it is" in text
        assert explain(net, paths[number], "grad_cam", true[number]).recipe.key in text
    with pytest.raises(DataError, match="needs to know what is right"):
        report(net, paths, tmp_path / "page.html", preset="wrong")


def test_the_position_under_question_is_marked(tmp_path: Path) -> None:
    body = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
    net = Net(body, size=40, mean=0.5, std=0.2)
    path = tmp_path / "scan.png"
    values = np.random.default_rng(0).integers(2_000, 30_000, (40, 40), np.uint16)
    Image.fromarray(values).save(path)
    from convscope.reports.pictures import Shown, grid_of, marked

    heatmap = explain(net, path, "saliency", ":0@10,30")
    grey = Image.new("RGB", (80, 80), "#808080")
    shown = Shown(heatmap, grid=grid_of(net, heatmap))
    drawn = np.asarray(marked(grey, shown, (40, 40), (0, 0, 40, 40))).astype(int)
    rows, columns = np.nonzero(np.abs(drawn - 128).sum(2))
    assert (rows.mean(), columns.mean()) == pytest.approx((21, 61), abs=1)
    asked: dict[str, Any] = {"preset": "medical", "methods": ["saliency", "gradient"], "of": ":0@10,30"}
    done = report(net.changed(window=(2_000, 9_000)), path, tmp_path / "scan.html", **asked)
    text = done.path.read_text()
    assert "No diagnosis" in text and not done.failures
    note = text[text.index("<p class='note'>") :].partition("</p>")[0]
    assert note.count("from 2000 (black) to 9000 (white)") == 1, "what two maps say is said once"


def test_a_failed_picture_is_named_once() -> None:
    assert named("x.png", "deep/x.png is no picture") == "deep/x.png is no picture"
    assert named("x.png", "no memory is left") == "x.png: no memory is left"
