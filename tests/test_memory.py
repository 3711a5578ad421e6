"""How much memory reading a picture takes, measured in processes of their own."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from convscope.data import image_files, limits
from convscope.data.opening import open_picture
from convscope.errors import PictureError

LARGE, SMALL = 1500, 200

READ = """
import json, os, resource, sys
from convscope.data.images import prepare
from convscope.data.preprocessing import Preprocessing, fit_of

preprocessing = Preprocessing(fit_of(64, 64, "bilinear", "cover"), 3)
kinds = json.loads(sys.argv[1])

def peak(path):
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            prepare(path, preprocessing)
            os.write(writing, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    os.wait()
    return int(said) * (1 if sys.platform == "darwin" else 1024)

for small, _ in kinds.values():
    prepare(small, preprocessing)  # what is imported and allocated once
print(json.dumps({kind: peak(large) - peak(small) for kind, (small, large) in kinds.items()}))
"""


def png16(pixels: np.ndarray) -> bytes:
    """A PNG in 16-bit RGB, which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def written(kind: str, side: int, folder: Path) -> str:
    ramp = np.broadcast_to(np.arange(side) % 250, (side, side))
    grey, path = ramp.astype(np.uint8), folder / f"{kind.replace(' ', '-')}-{side}.{kind[:4].strip().lower()}"
    colour = np.repeat(grey[:, :, None], 3, 2)
    match kind.split():
        case ["NPY", "grey", kept]:
            np.save(path, (ramp / 250).astype(kept) if kept[0] == "f" else ramp.astype(kept))
        case ["NPY", _, kept]:
            np.save(path, colour.astype(kept))
        case ["TIFF", "grey", kept]:
            tifffile.imwrite(path, (ramp / 250).astype(kept) if kept[0] == "f" else ramp.astype(kept))
        case ["TIFF", _, kept]:
            tifffile.imwrite(path, colour.astype(kept), photometric="rgb")
        case ["PNG", "grey", "16"]:
            Image.fromarray(ramp.astype(np.uint16)).save(path, compress_level=1)
        case ["PNG", "RGB", "16"]:
            path.write_bytes(png16(colour.astype(np.uint16)))
        case [format, mode, *how]:
            image = Image.fromarray(grey if mode == "grey" else colour)
            image = image.convert("RGBA") if mode == "RGBA" else image
            image.save(path, format, **({"progressive": True} if how else {}), compress_level=1, method=0)
    return str(path)


KINDS = {
    "PNG grey": 6, "PNG RGB": 18, "PNG RGBA": 24, "PNG grey 16": 6, "PNG RGB 16": 18, "JPEG grey": 6, "JPEG RGB": 18,
    "JPEG RGB progressive": 18, "WEBP RGB": 18, "GIF grey": 6, "BMP RGB": 18, "PPM RGB": 18, "TIFF RGB uint8": 18,
    "TIFF grey uint16": 6, "TIFF RGB uint16": 18, "TIFF grey float32": 6, "TIFF grey float64": 10, "NPY RGB uint8": 18,
    "NPY grey uint16": 6, "NPY RGB uint16": 18, "NPY grey float32": 6, "NPY grey float64": 10,
}  # fmt: skip
"""Bytes that a pixel may take: 6 for each channel, and for 8 bytes of the file itself and what figures show of it."""


@pytest.mark.skipif(sys.platform == "win32", reason="memory is measured in forks")
def test_reading_a_picture_takes_six_bytes_per_pixel_and_channel(tmp_path: Path) -> None:
    files = {kind: [written(kind, side, tmp_path) for side in (SMALL, LARGE)] for kind in KINDS}
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(files)], capture_output=True, text=True, check=True, timeout=300
    )
    taken = {kind: added / (LARGE**2 - SMALL**2) for kind, added in json.loads(done.stdout).items()}
    assert {kind: round(each, 1) for kind, each in taken.items() if each > KINDS[kind]} == {}
    assert min(taken.values()) > 0.5  # it was measured


@pytest.mark.parametrize(
    ("kind", "each"),
    [("WEBP RGB", 17), ("PNG RGBA", 8), ("PNG RGB 16", 10), ("TIFF grey float64", 9), ("JPEG RGB progressive", 7)],
)
def test_the_limit_counts_what_decoding_takes(
    kind: str, each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(kind, 70, tmp_path)
    monkeypatch.setattr(limits, "_USUAL_BYTES", 1)
    monkeypatch.setenv("CONVSCOPE_MAX_PIXELS", str(70 * 70 * each))
    assert open_picture(path).size == (70, 70)
    monkeypatch.setenv("CONVSCOPE_MAX_PIXELS", str(70 * 70 * each - 1))
    with pytest.raises(PictureError, match=rf"has 70 x 70 pixels that take {each} bytes each to read.*MAX_PIXELS"):
        open_picture(path)


def test_frames_and_turned_pictures_count_as_what_they_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    still, film, turned = (tmp_path / name for name in ("still.gif", "film.gif", "turned.jpg"))
    frames = [Image.new("L", (50, 40), shade) for shade in (10, 200)]
    frames[0].save(still)
    frames[0].save(film, save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (50, 40)).save(turned, exif=exif)
    monkeypatch.setattr(limits, "_USUAL_BYTES", 1)
    monkeypatch.setenv("CONVSCOPE_MAX_PIXELS", str(2000 * 7))
    assert open_picture(still).size == (50, 40)
    for path in (f"{film}[1]", turned):
        with pytest.raises(PictureError, match=r"50 x 40 pixels|40 x 50 pixels"):
            open_picture(path)


def test_a_webp_file_is_not_held_three_times_where_it_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.webp"
    with path.open("wb") as file:
        file.write(b"RIFF\0\0\0\0WEBPVP8X")
        file.truncate(600_000_000)  # a file with a hole
    monkeypatch.setattr(image_files.Image, "open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(PictureError, match=r"has 600 MB, which take as much memory to read as 360 million pixels"):
        open_picture(path)
