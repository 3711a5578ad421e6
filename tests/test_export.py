"""The exported copy: whole, the same twice, nothing of the pictures where they are left out, names from anybody."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convscope import Atlas, Net, outputs, scan
from convscope.cli import run
from convscope.errors import OutputError
from convscope.explorer import network_pages
from convscope.explorer.exporting import MARK, Copy

LAYERS = ("con", "Conv.a?*", "conv.A", "")


class Body(nn.Module):
    """Layers whose names no file may have as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.con = nn.Conv2d(3, 70, 3)
        self.rest = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(70 * 100, 3))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.rest(self.con(pixels))


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """An atlas of a tiny network over noise, in folders whose names are an attacker's."""
    folder = tmp_path_factory.mktemp("scanned")
    torch.manual_seed(0)
    net = Net(Body().eval(), size=12, name="<script>alert(1)</script>")
    rng = np.random.default_rng(0)
    for label in ("<script>alert(2)</script>", "con", "..x"):
        (folder / "data" / label).mkdir(parents=True)
        for at in range(3):
            pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "data" / label / f"'><img src=x>{at}.png")
    scan(net, str(folder / "data"), folder / "atlas", layers=["con", "output"], k=2)
    return Atlas(folder / "atlas", net=net)


Copied = Callable[..., Copy]


@pytest.fixture
def copied(atlas: Atlas) -> Iterator[Copied]:
    made: list[Copy] = []

    def of(**options: object) -> Copy:
        units = options.pop("units", {"con": [3, 68, 69], "": [0, 1, 2]})
        made.append(Copy(atlas, units, **options))  # type: ignore[arg-type]
        return made[-1]

    yield of
    for each in made:
        each.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def dangling(folder: Path) -> list[str]:
    """Return links and images of pages, and what else they load, that lead to no file of the folder."""
    lost: list[str] = []
    for page in folder.rglob("*.html"):
        for found in re.findall(r'(?:href|src|action)="([^"]*)"', page.read_text()):
            link = urlsplit(unescape(found))
            if link.scheme == "data" or not (link.path or link.scheme or link.netloc):
                continue
            there = page.parent / unquote(link.path)
            outside = not there.resolve().is_relative_to(folder.resolve())
            if link.scheme or link.netloc or outside or not there.is_file():
                lost.append(f"{page.relative_to(folder)}: {found}")
    return lost


def test_every_link_and_image_is_a_file_of_the_copy(copied: Copied, tmp_path: Path) -> None:
    copied().write(tmp_path / "site")
    found = contents(tmp_path / "site")
    assert dangling(tmp_path / "site") == []
    assert sum(name.endswith("index.html") for name in found) == 1 + 2 + 6
    linked = "".join(page.read_text() for page in (tmp_path / "site").rglob("*.html"))
    assert all(Path(name).name in linked for name in found if name.endswith(".webp")), "nothing is there for nobody"


def test_names_of_files_are_names_everywhere(copied: Copied, tmp_path: Path) -> None:
    """Also on Windows, which has devices for files, and knows no capitals."""
    copied().write(tmp_path / "site")
    found = [*contents(tmp_path / "site")]
    for name in found:
        assert re.fullmatch(r"[a-z0-9._/-]+", name), name
        assert len(name) < 150
        for part in name.split("/"):
            assert not part.endswith(".")
            assert not re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", part), name


def test_names_of_an_attacker_are_texts(copied: Copied, tmp_path: Path) -> None:
    copied().write(tmp_path / "site")
    pages = [path.read_text() for path in (tmp_path / "site").rglob("*.html")]
    assert any("&lt;script&gt;alert(2)" in page for page in pages)
    for page in pages:
        assert "<script>" not in page
        assert "<img src=x" not in page
        assert "style=" not in page
        assert "Content-Security-Policy" in page


def test_without_pictures_nothing_of_them_is_there(copied: Copied, tmp_path: Path) -> None:
    copied(patches=False).write(tmp_path / "site")
    found = contents(tmp_path / "site")
    assert not any("patches" in name for name in found)
    strip = Image.open(tmp_path / "site/layer/con-0/unit/3/strongest-deconvnet.webp")
    assert strip.height == strip.width // 2, "a row of two projections alone"
    assert not any(b".png" in content for name, content in found.items() if not name.startswith("static/"))
    assert dangling(tmp_path / "site") == []


def test_two_copies_are_the_same_bytes_and_so_are_their_archives(copied: Copied, tmp_path: Path) -> None:
    for name in ("one", "two"):
        copy = copied()
        copy.write(tmp_path / name)
        copy.pack(tmp_path / name, tmp_path / name / "site.zip")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    with zipfile.ZipFile(tmp_path / "one/site.zip") as packed:
        held = {name.removeprefix("site/"): packed.read(name) for name in packed.namelist()}
    assert held == {name: content for name, content in contents(tmp_path / "one").items() if name != "site.zip"}


def test_it_goes_on_where_it_was_ended(copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied().write(tmp_path / "whole")
    write, written, most = outputs.write_bytes, list[str](), 9

    def counted(path: Path, content: bytes) -> Path:
        if len(written) == most:
            raise KeyboardInterrupt
        if path.name != MARK:
            written.append(str(path))
        return write(path, content)

    monkeypatch.setattr(outputs, "write_bytes", counted)
    with pytest.raises(KeyboardInterrupt):
        copied().write(tmp_path / "site")
    assert not (tmp_path / "site/index.html").exists()
    first = [*written]
    written.clear()
    most = 999
    copied().write(tmp_path / "site")
    assert not {*first} & {*written}
    assert contents(tmp_path / "site") == contents(tmp_path / "whole")
    written.clear()
    copied().write(tmp_path / "site")
    assert written == []


def test_another_choice_of_units_takes_the_old_pages_away(copied: Copied, tmp_path: Path) -> None:
    copied(units={"con": [3, 4]}).write(tmp_path / "site")
    (tmp_path / "site/CNAME").write_text("mine")
    strip = tmp_path / "site/layer/con-0/unit/3/strongest-deconvnet.webp"
    stamp = strip.stat().st_mtime_ns
    copied(units={"con": [3]}).write(tmp_path / "site")
    copied(units={"con": [3]}).write(tmp_path / "fresh")
    assert strip.stat().st_mtime_ns == stamp, "a strip is the same in any choice"
    assert contents(tmp_path / "site") == contents(tmp_path / "fresh") | {"CNAME": b"mine"}


def test_a_folder_of_something_else_and_a_full_disk_are_refused(
    copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years")
    with pytest.raises(OutputError, match=r"mine holds something else, such as thesis\.tex"):
        copied().write(tmp_path / "mine")
    assert contents(tmp_path / "mine") == {"thesis.tex": b"years"}

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left on device"):
            copied().write(tmp_path / "site")
    copied().write(tmp_path / "site")
    assert dangling(tmp_path / "site") == []


def test_a_picture_outside_its_root_is_not_read(atlas: Atlas, copied: Copied, tmp_path: Path) -> None:
    """An atlas is somebody else's as well: what it names is below its root, or is not opened."""
    known = dict(vars(atlas))
    try:
        atlas.__dict__["_paths"] = [(root, "../../secret.png") for root, _ in atlas._paths]
        with pytest.raises(Exception, match="outside its root"):
            copied().write(tmp_path / "site")
    finally:
        atlas.__dict__.clear()
        atlas.__dict__.update(known)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--units", "99"], "there is no unit 99"),
        (["--layers", "nothing"], "nothing"),
        (["--layers", "relu1"], "was not scanned; scanned were conv1"),
        (["--bands", "best"], "--bands is strongest"),
        (["--method", "lime"], "--method is deconvnet"),
        (["-o", "site.html"], r"-o is a folder, or a .zip file, not site.html"),
    ],
)
def test_what_there_is_not_is_refused_before_any_work(
    arguments: list[str],
    says: str,
    shipped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network_pages, "unit", None)
    assert run(["export", str(shipped), *arguments]) == 2
    assert says in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lenet")
    (folder / "digits").mkdir()
    for at in range(2):
        Image.fromarray(np.full((28, 28), 100 * at, np.uint8)).save(folder / "digits" / f"{at}.png")
    assert run(["scan", str(folder / "digits"), "--net", "lenet5", "-o", str(folder / "atlas"), "--layers", "1"]) == 0
    return folder / "atlas"


def test_the_command_tells_what_it_writes_and_asks_where_that_is_much(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convscope.commands.export._SIZE", 0)
    line = ["export", str(shipped), "--units", "0,1", "-o", "site.zip"]
    assert run(line) == 2
    said = capsys.readouterr().err
    assert re.search(r"\d+ files, about 0\.1 MB, about \d+ seconds: into site-parts", said)
    assert "--yes writes it all" in said
    assert [*tmp_path.iterdir()] == []
    assert run([*line, "--yes"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["site.zip"]
    with zipfile.ZipFile("site.zip") as packed:
        assert {"site/index.html", f"site/{MARK}"} <= {*packed.namelist()}
