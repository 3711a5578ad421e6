"""Opening picture files: which formats, how large, how many frames, and what is said of damaged ones."""

from __future__ import annotations

import io
import lzma
import re
import struct
import subprocess
import sys
import tarfile
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import convscope
from conftest import ROOT
from convscope.data import films, limits, tiff_segments
from convscope.data.datasets import open_data
from convscope.data.opening import mode_and_size, open_picture
from convscope.data.pictures import read_pictures
from convscope.drawing.drawings import Drawing
from convscope.errors import ConvscopeError, PictureError
from convscope.stylizing.settings import Settings

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"

# PostScript -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there as soon as Ghostscript was started."""
    mark, folder = tmp_path / "started", tmp_path / "bin"
    folder.mkdir()
    program = folder / "gs"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\necho 10.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return mark


def folder_of(root: Path, content: bytes) -> Path:
    """A folder of classes, as training reads it."""
    for kind in ("cats", "dogs"):
        (root / kind).mkdir(parents=True)
        for number in range(2):
            (root / kind / f"{number}.png").write_bytes(content)
    return root


def named(path: Path) -> str:
    path.write_bytes(EPS)
    return str(path)


def tar_of(path: Path) -> str:
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("x.png")
        member.size = len(EPS)
        tar.addfile(member, io.BytesIO(EPS))
    return f"{path}#x.png"


def table_of(path: Path) -> str:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"image": [EPS]}), path)
    return f"{path}#0"


def all_of(source: Any) -> None:
    for picture in read_pictures(source):
        picture.open()


PLACES: dict[str, Callable[[Path], Any]] = {
    "a file": lambda at: open_picture(named(at / "x.png")),
    "a file that says so": lambda at: open_picture(named(at / "x.eps")),
    "a frame": lambda at: open_picture(named(at / "x.gif") + "[0]"),
    "bytes": lambda at: open_picture(EPS),
    "its header": lambda at: mode_and_size(named(at / "x.png")),
    "a film": lambda at: films.frame_rate(Path(named(at / "x.gif"))),
    "a TIFF": lambda at: open_picture(named(at / "x.tif")),
    "a tar file": lambda at: open_picture(tar_of(at / "x.tar")),
    "a table": lambda at: open_picture(table_of(at / "x.parquet")),
    "a folder": lambda at: all_of(folder_of(at / "pictures", EPS)),
    "data to train on": lambda at: open_data(str(folder_of(at / "pictures", EPS)))[0].open(0),
    "torchvision's data": lambda at: open_picture(f"torchvision:ImageFolder:{folder_of(at / 'pictures', EPS)}#0"),
    "a data set": lambda at: all_of(ImageFolder(str(folder_of(at / "pictures", EPS)))),
    "a loader": lambda at: all_of(DataLoader(ImageFolder(str(folder_of(at / "pictures", EPS))), batch_size=None)),
    "an image that is open": lambda at: open_picture(Image.open(named(at / "x.png"))),
    "a drawing": lambda at: Drawing.load(named(at / "x.png")),
}


@pytest.mark.parametrize("place", PLACES)
def test_postscript_starts_no_program(place: str, mark: Path, tmp_path: Path) -> None:
    with pytest.raises((ConvscopeError, OSError)) as refused:
        PLACES[place](tmp_path)
    assert not mark.exists()
    assert "not a picture" in str(refused.value) or "cannot" in str(refused.value) or "EPS" in str(refused.value)


def test_who_opens_postscript_himself_may(mark: Path, tmp_path: Path) -> None:
    """What is closed to data sets inside convscope is closed nowhere else."""
    with pytest.raises(ConvscopeError):
        all_of(ImageFolder(str(folder_of(tmp_path / "pictures", EPS))))
    with pytest.raises(OSError), Image.open(named(tmp_path / "x.png")) as image:
        image.load()
    assert mark.exists()


def test_pictures_are_opened_in_one_place() -> None:
    opening = re.compile(r"\bImage\.open\(|\bimread\(|\bread_image\(|\bdecode_(image|jpeg|png)\(|\bpil_loader\(")
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "training").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    found = {path.name for path in files for line in path.read_text().splitlines() if opening.search(line)}
    assert found - {"decoding.py", "opening.py"} == {"image_files.py"}  # they define and call our own `decode_image`


@pytest.mark.parametrize("kind", ["PCX", "TGA", "ICO", "SGI", "JPEG2000", "AVIF", "DDS", "PDF"])
def test_other_formats_are_refused(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, kind)
    with pytest.raises(PictureError, match="not a picture that can be read: PNG, JPEG, WebP, GIF, TIFF, BMP or PPM"):
        open_picture(buffer.getvalue())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "MPO"])
def test_these_formats_are_read(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12)).save(buffer, kind)
    assert open_picture(buffer.getvalue()).size == (16, 12)


# Sizes and frames -----------------------------------------------------------------------------------------------------


def tiff_of(directories: int, *, circle: bool = False) -> bytes:
    """A TIFF of many directories of one pixel, or of directories that go in a circle."""
    entry = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entry += [(277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 1)]
    size = 2 + 12 * len(entry) + 4
    body = bytearray(b"II*\0" + struct.pack("<I", 16) + bytes(8))
    for number in range(directories):
        last = number == directories - 1
        following = (16 if circle else 0) if last else 16 + (number + 1) * size
        body += struct.pack("<H", len(entry)) + b"".join(struct.pack("<HHII", *each) for each in entry)
        body += struct.pack("<I", following)
    return bytes(body)


def gif_of(frames: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + (b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00") * frames + b"\x3b"


def test_frames_are_counted_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convscope.data.image_files.MOST_FRAMES", 50)
    monkeypatch.setattr(limits, "MOST_FRAMES", 50)
    for name, make in (("x.gif", gif_of), ("x.tif", tiff_of)):
        path = tmp_path / name
        path.write_bytes(make(50))
        assert open_picture(f"{path}[49]").size == (1, 1)
        path.write_bytes(make(51))
        with pytest.raises(PictureError, match=r"has more than 50 frames: split it into files of fewer"):
            open_picture(f"{path}[0]")
    path.write_bytes(tiff_of(3, circle=True))
    with pytest.raises(PictureError, match="its directories go in a circle"):
        open_picture(path)


@pytest.mark.parametrize("kind", ["array", "grey TIFF", "deep TIFF", "GIF", "PNG"])
def test_one_limit_holds_for_every_kind(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((30, 40), np.uint16 if kind == "deep TIFF" else np.uint8)
    path = tmp_path / {"array": "x.npy", "GIF": "x.gif", "PNG": "x.png"}.get(kind, "x.tif")
    np.save(path, pixels) if kind == "array" else Image.fromarray(pixels).save(path)
    monkeypatch.setenv("CONVSCOPE_MAX_PIXELS", "1200")
    assert open_picture(path).size == (40, 30)
    monkeypatch.setenv("CONVSCOPE_MAX_PIXELS", "1199")
    with pytest.raises(PictureError, match=r"has 40 x 30 pixels, above the limit of 0\.001199 million.*MAX_PIXELS"):
        open_picture(path)


def test_an_array_is_looked_at_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (60_000, 60_000))  # a file with a hole
    read: list[Any] = []
    load = np.load
    monkeypatch.setattr(np, "load", lambda *a, **k: read.append(k) or load(*a, **k))
    with pytest.raises(PictureError, match="has 60000 x 60000 pixels"):
        open_picture(path)
    assert [options["mmap_mode"] for options in read] == ["r"]


def deep_tiff(compression: int, strips: list[bytes], rows: int) -> bytes:
    """A TIFF of 16-bit grey, four pixels wide, with a row in each strip."""
    count = len(strips)
    start = 8 + 2 + 12 * 9 + 4
    data = b"".join(strips)
    ends = start + np.cumsum([len(strip) for strip in strips])
    table = struct.pack(f"<{count}I", *(end - len(strip) for end, strip in zip(ends, strips, strict=True)))
    sizes = struct.pack(f"<{count}I", *map(len, strips))
    after = start + len(data)
    at, many = (start, after) if count > 1 else (start, len(data))
    entries = [(256, 4, 1, 4), (257, 4, 1, rows), (258, 3, 1, 16), (259, 3, 1, compression), (262, 3, 1, 1)]
    entries += [(273, 4, count, after if count > 1 else at), (277, 3, 1, 1), (278, 4, 1, 1 if count > 1 else rows)]
    entries += [(279, 4, count, after + 4 * count if count > 1 else many)]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *each) for each in entries)
    return head + bytes(4) + data + table + sizes


def test_a_strip_unpacks_to_what_it_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff_segments, "find_spec", lambda name: None)
    monkeypatch.setattr(tiff_segments, "_HARMLESS", {"zlib": 0, "lzma": 0, "": 1 << 18})
    for code, pack in ((8, zlib.compress), (34925, lzma.compress)):
        assert open_picture(deep_tiff(code, [pack(bytes(8 * 5))], 5)).size == (4, 5)
        with pytest.raises(PictureError, match="unpacks to more than the 40 bytes that it may hold"):
            open_picture(deep_tiff(code, [pack(bytes(10_000_000))], 5))
    with pytest.raises(PictureError, match="needs: pip install imagecodecs"):
        open_picture(deep_tiff(32773, [b"\x81\0" * 300_000], 5))


JPEG = b"\xff\xd8\xff\xc0\0\x0b\x08%b%b\1\1\x11\0"
JPEG_2000 = b"\xff\x4f\xff\x51\0\x29\0\0%b%b"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR%b%b"


@pytest.mark.parametrize(("code", "header", "size"), [(7, JPEG, 2), (33005, JPEG_2000, 4), (34933, PNG, 4)])
def test_a_strip_that_is_a_picture_has_the_size_of_the_strip(
    code: int, header: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_segments, "find_spec", lambda name: name)  # imagecodecs, which decodes whatever is inside
    fits, large = (header % (side.to_bytes(size), (4).to_bytes(size)) for side in (5, 60_000))
    with pytest.raises(PictureError, match=r"a picture of 60,000 x 4, more than the 20 values that it may hold"):
        open_picture(deep_tiff(code, [fits + large], 5))
    with pytest.raises(PictureError, match=r"is damaged or cut short|is compressed in a way that needs"):
        open_picture(deep_tiff(code, [fits], 5))
    with pytest.raises(PictureError, match=r"is compressed in a way that is not read \(50002\): save it with Deflate"):
        open_picture(deep_tiff(50002, [fits], 5))


def test_strips_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_picture(deep_tiff(1, [bytes(8)] * 30, 30)).size == (4, 30)
    monkeypatch.setattr(tiff_segments, "_MOST", 29)
    with pytest.raises(PictureError, match="is cut into 30 strips or tiles, more than 29: save it with larger ones"):
        open_picture(deep_tiff(1, [bytes(8)] * 30, 30))


def test_a_jpeg_that_takes_for_ever_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    exif = b"\xff\xe1" + struct.pack(">H", 9) + b"Exif\0\0x"
    for harmless in (
        whole,
        whole[:-2] + 100 * scan + whole[-2:],
        whole[:2] + 99 * exif + whole[2:],
        whole + 99_999 * b"\xff",
    ):
        assert open_picture(harmless).size == (64, 64)
    for bomb in (
        whole[:-2] + 200 * scan + whole[-2:],
        whole[:2] + 200 * exif + whole[2:],
        whole[:2] + 99_999 * b"\xff" + whole[2:],
    ):
        with pytest.raises(PictureError, match="is no usual JPEG"):
            open_picture(bomb)


# What is said ---------------------------------------------------------------------------------------------------------


DAMAGED = """
import io, sys, warnings
from PIL import Image
from convscope.errors import PictureError
from convscope.data.opening import open_picture
import random
random.seed(1)
for compression in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "group4"):
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), 90).convert("1" if compression == "group4" else "RGB").save(
        buffer, "TIFF", compression=compression
    )
    for _ in range(40):
        damaged = bytearray(buffer.getvalue())
        for _ in range(5):
            damaged[random.randrange(8, len(damaged))] = random.randrange(256)
        try:
            open_picture(bytes(damaged))
        except PictureError:
            pass
warnings.warn("ours")
"""


def test_readers_write_nothing_to_the_terminal() -> None:
    """libtiff writes to the process's standard error, Pillow warns and logs, tifffile logs."""
    done = subprocess.run([sys.executable, "-c", DAMAGED], capture_output=True, text=True, check=True)
    assert not done.stdout
    assert [line for line in done.stderr.splitlines() if "ours" not in line] == []
    assert "UserWarning: ours" in done.stderr


def test_warnings_of_others_are_heard_while_pictures_are_read() -> None:
    from convscope.data.image_files import quiet_readers

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet_readers():
            warnings.warn("a remark", stacklevel=1)
            warnings.warn_explicit("of Pillow's", UserWarning, "x.py", 1, module="PIL.TiffImagePlugin")
    assert [str(each.message) for each in heard] == ["a remark"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda net: net.read(Image.new("RGB", (30, 30)), size=100_000),
        lambda net: net.sized((10, 100_000_000)),
        lambda net: convscope.dream(net, Image.new("RGB", (30, 30)), layer="a", size=100_000),
        lambda net: convscope.maximize(net.sized(100_000), "a:0"),
        lambda net: Settings(size=100_000),
    ],
)
def test_what_is_asked_for_has_the_same_limit(ask: Callable[[Any], Any]) -> None:
    from torch import nn

    net = convscope.Net(nn.Sequential(OrderedDict(a=nn.Conv2d(3, 4, 3))), size=28)
    with pytest.raises(PictureError, match=r"above the limit of 179 million: scale it down, or, if you trust it"):
        ask(net)
