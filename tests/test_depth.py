"""Pictures of more than 8 bits, or of other bands than grey and RGB: the network gets the values that are stored."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import convscope
from convscope import Net
from convscope.cli import run
from convscope.data.display import Display
from convscope.data.rasters import Raster
from convscope.errors import NetworkError, PictureError

SIDE = 12
RANDOM = np.random.default_rng(5)
DEEP = RANDOM.integers(800, 1300, (SIDE, SIDE), np.uint16)
COLOUR = RANDOM.integers(0, 65536, (SIDE, SIDE, 3), np.uint16)
BANDS = RANDOM.integers(0, 10001, (SIDE, SIDE, 6), np.uint16)


def net(channels: int, **options: Any) -> Net:
    body = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return Net(body, size=options.pop("size", SIDE), **options)


def read(reader: Net, picture: Any) -> np.ndarray:
    return reader.read(picture)[0].numpy()


def assert_values(reader: Net, picture: Any, expected: np.ndarray) -> None:
    """That the network reads exactly these values, (h, w) or (h, w, n), in [0, 1]."""
    wanted = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    np.testing.assert_allclose(read(reader, picture), wanted, rtol=0, atol=1e-7)


# Depth


def test_12_bits_in_a_16_bit_file_keep_every_grey_level(tmp_path: Path) -> None:
    files = {"scan.png": DEEP, "scan.tif": DEEP, "float.tif": DEEP.astype(np.float32) / 65535}
    for name, values in files.items():
        Image.fromarray(values).save(tmp_path / name)
        assert_values(net(1), tmp_path / name, DEEP / 65535)
        assert_values(net(1), (tmp_path / name).read_bytes(), DEEP / 65535)
    for array in (DEEP, DEEP / 65535, (DEEP / 65535).astype(np.float32), DEEP[:, :, None]):
        assert_values(net(1), array, DEEP / 65535)
    assert len(np.unique(read(net(1), DEEP))) == len(np.unique(DEEP))


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour(channels: int, tmp_path: Path) -> None:
    """Pillow keeps 8 bits of a 16-bit PNG or TIFF in colour."""
    values = np.concatenate([COLOUR, np.full((SIDE, SIDE, channels - 3), 65535, np.uint16)], 2)
    cv2.imwrite(str(tmp_path / "colour.png"), values[:, :, [2, 1, 0, 3][:channels]])
    options = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    tifffile.imwrite(tmp_path / "colour.tif", values, photometric="rgb", **options)
    for name in ("colour.png", "colour.tif"):
        assert_values(net(3), tmp_path / name, COLOUR / 65535)
    assert_values(net(3), COLOUR, COLOUR / 65535)


def test_16_bit_grey_with_opacity(tmp_path: Path) -> None:
    values = np.stack([DEEP, RANDOM.integers(0, 65536, DEEP.shape, np.uint16)], 2)
    path = tmp_path / "la.png"
    path.write_bytes(png(values))
    assert_values(net(2), path, values / 65535)
    grey, opacity = values[:, :, 0] / 65535, values[:, :, 1] / 65535
    np.testing.assert_allclose(read(net(1), path)[0], grey * opacity + 1 - opacity, atol=1e-6)


def png(values: np.ndarray) -> bytes:
    """Write 16-bit grey with opacity, which no library here writes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 4, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_opacity_is_laid_on_white_in_16_bits(tmp_path: Path) -> None:
    opacity = np.full((SIDE, SIDE, 1), 13107, np.uint16)  # a fifth
    cv2.imwrite(str(tmp_path / "a.png"), np.concatenate([COLOUR[:, :, ::-1], opacity], 2))
    assert_values(net(3), tmp_path / "a.png", COLOUR / 65535 / 5 + 0.8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_files_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    """Pillow turns the same picture in 8 bits."""
    values = RANDOM.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    tag = (274, "H", 1, orientation, True)
    tifffile.imwrite(tmp_path / "8.tif", values, photometric="rgb", extratags=[tag])
    tifffile.imwrite(tmp_path / "16.tif", values.astype(np.uint16) * 257, photometric="rgb", extratags=[tag])
    np.testing.assert_allclose(read(net(3), tmp_path / "16.tif"), read(net(3), tmp_path / "8.tif"), atol=1e-6)


def test_float_arrays_are_not_rounded() -> None:
    """The 64 x 64 random numbers of a float array stay as many different ones."""
    array = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    assert convscope.load("zfnet64").read(array).unique().numel() == len(np.unique(array))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_deep_pictures_are_resized_in_floating_point(interpolation: str) -> None:
    """torch's antialiased filters are Pillow's, in floating point."""
    values = RANDOM.random((31, 31, 3)).astype(np.float32) * 0.4 + 0.3
    reader = net(3, size=10, interpolation=interpolation)
    whole = torch.from_numpy(values).permute(2, 0, 1)[None]
    wanted = F.interpolate(whole, (10, 10), mode=interpolation, antialias=True, align_corners=False)
    torch.testing.assert_close(reader.read(values), wanted, rtol=0, atol=2e-3 if interpolation == "bicubic" else 1e-5)


def test_8_bit_values_are_read_as_before_in_any_container() -> None:
    photograph = RANDOM.integers(0, 256, (30, 40, 3), np.uint8)
    reader = net(3, size=9, resize=11)
    whole = Image.fromarray(photograph).resize((14, 11), Image.Resampling.BILINEAR).crop((2, 1, 11, 10))
    expected = np.asarray(whole, np.float32).transpose(2, 0, 1) / 255
    assert np.array_equal(read(reader, photograph), expected)
    assert np.array_equal(read(reader, Image.fromarray(photograph)), expected)


# Ranges


def test_a_value_range_says_what_becomes_0_and_1() -> None:
    reader = net(1, value_range=(0, 4095))
    for array in (DEEP, DEEP.astype(np.int16), DEEP.astype(np.int64), DEEP.astype(np.float32)):
        assert_values(reader, array, DEEP / 4095)
    assert_values(net(1, value_range=(-1024, 3071)), DEEP.astype(np.int16) - 1024, DEEP / 4095)
    assert reader.reads["value_range"] == [0, 4095] and "value_range" not in net(1).reads
    grey = (DEEP % 256).astype(np.uint8)
    assert_values(reader, grey, grey / 255)


def test_what_was_assumed_is_said() -> None:
    (assumed, shown) = net(1).prepare(DEEP).remarks
    low, high = DEEP.min(), DEEP.max()
    said = f"the picture holds values from {low} to {high}; no value_range is given, so 65535 is read as 1"
    assert assumed.startswith(f"{said}: state it, as in Net(..., value_range=(0, ")
    assert shown.startswith("shown from ") and "(black)" in shown
    assert net(1, value_range=(0, 4095)).prepare(DEEP).remarks == (shown,)
    note = convscope.explain(net(1), DEEP, "gradient", of=1).note
    assert assumed in note and shown in note
    (map_,) = convscope.explain_many(net(1), [DEEP], "gradient", of=1)
    assert assumed in map_.note and shown in map_.note
    assert assumed in convscope.maps(net(1), DEEP, layer="0").sheet().note


LIKELY = next(white for white in (255, 1023, 4095, 16383, 65535) if DEEP.max() <= white)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (DEEP.astype(np.int32), ["int32", f"value_range=(0, {LIKELY})", f"--value-range 0,{LIKELY}"]),
        ((DEEP > 1000).astype(np.int64), ["from 0 to 1 of", "value_range=(0, 1)"]),
        (DEEP.astype(float) - 3000, [f"value_range=({int(DEEP.min()) - 3000}, {int(DEEP.max()) - 3000})"]),
        (DEEP / DEEP.max() * 1.02, ["pixels.clip(0, 1)"]),
        (DEEP.astype(np.int16) - 2000, ["int16", "from -", "value_range"]),
        (DEEP.astype(np.float32), ["[0, 1]", "value_range"]),
        ((DEEP % 256).astype(np.float32), ["divide by 255"]),
        ((DEEP % 256).astype(np.int64), ["uint8", "value_range"]),
        (DEEP / 65535 - 0.5, ["before normalisation"]),
        (np.where(DEEP > 1000, np.nan, 0.5), ["NaN"]),
    ],
)
def test_values_that_nobody_can_place_are_refused(array: np.ndarray, words: list[str]) -> None:
    with pytest.raises(PictureError) as caught:
        net(1).read(array)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("kind", ["float16", "float32", ">f4", "float64", "longdouble", "int16", "uint16", ">u2"])
def test_arrays_of_any_type_keep_their_levels(kind: str) -> None:
    """No more than the type itself rounds; 4,096 pixels of 4,096 levels stay 4,096."""
    levels = np.arange(4096).reshape(64, 64)
    array = (levels / 4095).astype(kind) if np.dtype(kind).kind == "f" else levels.astype(kind)
    reads = convscope.Net(torch.nn.Conv2d(1, 1, 1), size=64)
    assert reads.read(array).unique().numel() == len(np.unique(array.astype(np.float32)))


def test_values_beyond_the_range_are_refused() -> None:
    with pytest.raises(PictureError, match=r"beyond value_range=\(0, 1000\)"):
        net(1, value_range=(0, 1000)).read(DEEP)
    for wrong in ((5, 5), (1, 0), 3, (0, float("nan")), "ab", (1, 2, 3)):
        with pytest.raises(NetworkError, match="value_range"):
            net(1, value_range=wrong)


# Bands


def six_bands(folder: Path) -> dict[str, Any]:
    """The same six bands in everything that holds them."""
    np.save(folder / "bands.npy", BANDS)
    np.save(folder / "first.npy", BANDS.transpose(2, 0, 1))
    for layout, values in {"contig": BANDS, "separate": BANDS.transpose(2, 0, 1)}.items():
        tifffile.imwrite(folder / f"{layout}.tif", values, photometric="minisblack", planarconfig=layout)
    tifffile.imwrite(folder / "rows.tif", BANDS)  # a page for every row
    tifffile.imwrite(folder / "deflate.tif", BANDS, photometric="minisblack", planarconfig="contig", compression="zlib")
    tifffile.imwrite(folder / "pages.tif", BANDS.transpose(2, 0, 1), photometric="minisblack")
    files = {path.name: path for path in folder.iterdir()}
    return {**files, "array": BANDS, "bands first": BANDS.transpose(2, 0, 1), "bytes": files["bands.npy"].read_bytes()}


def test_six_bands_are_read_from_files_and_arrays(tmp_path: Path) -> None:
    reader = net(6, value_range=(0, 10000))
    for name, picture in six_bands(tmp_path).items():
        try:
            assert_values(reader, picture, BANDS / 10000)
        except PictureError as error:
            raise AssertionError(name) from error


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_other_numbers_of_bands(channels: int, tmp_path: Path) -> None:
    values = RANDOM.random((SIDE, SIDE, channels))
    tifffile.imwrite(tmp_path / "x.tif", values.astype(np.float32), photometric="minisblack", planarconfig="contig")
    for picture in (values, tmp_path / "x.tif", values.transpose(2, 0, 1)):
        assert_values(net(channels), picture, values.astype(np.float32))


def test_four_bands_are_not_opacity_unless_the_file_says_so(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    Image.fromarray(values).save(tmp_path / "rgba.png")
    assert_values(net(4), values, values / 255)
    assert not net(4).prepare(values).remarks
    assert_values(net(4), tmp_path / "rgba.png", values / 255)
    assert net(4).prepare(tmp_path / "rgba.png").remarks == ("its opacity is read as the last band",)
    on_white = Image.alpha_composite(Image.new("RGBA", (SIDE, SIDE), "white"), Image.fromarray(values)).convert("RGB")
    assert np.array_equal(read(net(3), values), np.asarray(on_white, np.float32).transpose(2, 0, 1) / 255)
    tifffile.imwrite(tmp_path / "4.tif", values, photometric="minisblack", planarconfig="contig")
    assert_values(net(4), tmp_path / "4.tif", values / 255)


@pytest.mark.parametrize(
    ("channels", "picture"), [(2, DEEP), (2, "L"), (4, "RGB"), (6, COLOUR), (13, BANDS), (3, BANDS)]
)
def test_a_wrong_number_of_bands_is_refused_in_words(channels: int, picture: Any) -> None:
    picture = Image.new(picture, (SIDE, SIDE)) if isinstance(picture, str) else picture
    with pytest.raises(PictureError, match=rf"the network reads {channels}\b"):
        net(channels).read(picture)


def test_an_array_with_bands_first_and_last_is_refused() -> None:
    with pytest.raises(PictureError, match="first or last"):
        net(6).read(np.zeros((6, 9, 6), np.float32))


def test_npy_files_run_no_code(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(PictureError, match=r"no \.npy file of numbers"):
        net(3).read(tmp_path / "x.npy")
    np.save(tmp_path / "cut.npy", BANDS)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:300])
    with pytest.raises(PictureError, match="cut short"):
        net(6).read(tmp_path / "cut.npy")


# Display


def test_narrow_values_are_stretched_to_be_seen() -> None:
    prepared = net(1).prepare(DEEP)
    shown = np.asarray(prepared.original)
    assert shown.min() == 0 and shown.max() == 255 and prepared.display.stretched
    assert np.array_equal(np.asarray(prepared.image()), shown)
    assert not Display.of(Raster.of(np.full((4, 4), 0.5))).stretched
    assert not Display.of(Raster.of(np.linspace(0, 1, 100).reshape(10, 10))).stretched


def test_three_bands_or_one_are_shown() -> None:
    values = RANDOM.random((SIDE, SIDE, 6)).astype(np.float32)
    eight = np.rint(values * 255).astype(np.uint8)
    assert np.array_equal(np.asarray(net(6).prepare(values).original), eight[:, :, :3])
    assert np.array_equal(np.asarray(net(6, show=(4, 3, 1)).prepare(values).original), eight[:, :, [4, 3, 1]])
    assert np.array_equal(np.asarray(net(6, show=5).prepare(values).original), eight[:, :, 5])
    assert np.array_equal(np.asarray(net(2).prepare(values[:, :, :2]).original), eight[:, :, 0])
    note = convscope.explain(net(6, show=(4, 3, 1)), values, "gradient", of=1).note
    assert "Bands 4, 3 and 1 of 6, from 0, shown as red, green and blue." in note
    for wrong in (6, (0, 1), (0, 1, 6), (-1, 0, 1), "rgb"):
        with pytest.raises(NetworkError, match="show is"):
            net(6, show=wrong)


# How values are shown


@pytest.mark.parametrize("window", [(3500, 23000), [3500.0, 23000.0]])
def test_a_window_says_which_values_are_black_and_white_and_changes_no_number(window: Any, tmp_path: Path) -> None:
    values = np.linspace(0, 30000, 40 * 50).reshape(40, 50).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    body = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    plain, windowed = convscope.Net(body, size=40), convscope.Net(body, size=40, window=window)
    seen, shown = (net.prepare(tmp_path / "x.png") for net in (plain, windowed))
    np.testing.assert_array_equal(seen.pixels, shown.pixels)
    expected = np.rint(((values.astype(float) - 3500) / 19500).clip(0, 1) * 255)
    assert np.abs(np.asarray(shown.original, float) - expected).max() <= 1
    assert "shown from 3500 (black) to 23000 (white)" in shown.remarks
    assert convscope.explain(plain, tmp_path / "x.png", "saliency", of=1).recipe.key == (
        convscope.explain(windowed, tmp_path / "x.png", "saliency", of=1).recipe.key
    )


def test_automatic_windows_also_stretch_what_fills_more_than_half(tmp_path: Path) -> None:
    values = np.linspace(9000, 60000, 2000).reshape(40, 50).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    body = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    assert np.asarray(convscope.Net(body, size=40).prepare(tmp_path / "x.png").original).min() > 30
    shown = np.asarray(convscope.Net(body, size=40, window="auto").prepare(tmp_path / "x.png").original)
    assert shown.min() == 0 and shown.max() == 255
    Image.new("L", (40, 40), 90).save(tmp_path / "flat.png")
    assert np.asarray(convscope.Net(body, size=40, window="auto").prepare(tmp_path / "flat.png").original).max() == 90


def test_8_bit_pictures_have_a_window_too(tmp_path: Path) -> None:
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB").save(tmp_path / "x.png")
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    shown = np.asarray(convscope.Net(body, size=16, window=(100, 151)).prepare(tmp_path / "x.png").original)
    np.testing.assert_array_equal(shown[..., 0].ravel(), ((np.arange(256) - 100) * 5).clip(0, 255))


@pytest.mark.parametrize("window", [(5, 5), (9, 1), "bright", (1, 2, 3), (0, float("nan")), 7])
def test_windows_that_are_none(window: Any) -> None:
    with pytest.raises(NetworkError, match=r"the first below the other, as \(3500, 23000\), or 'auto'"):
        convscope.Net(torch.nn.Conv2d(1, 1, 1), window=window)


def test_a_command_shows_a_window(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 30000, 4096).reshape(64, 64).astype(np.uint16)).save(tmp_path / "x.png")
    out, words = tmp_path / "o.png", ["saliency", str(tmp_path / "x.png"), "--net", "lenet5"]
    for window in ("3500,23000", "auto"):
        assert run([*words, "--window", window, "-o", str(out), "--save-values", str(tmp_path / "o.npz")]) == 0
    assert run([*words, "--window", "23000,3500", "-o", str(out)]) == 2
    assert convscope.remake(out)._repr_png_() == out.read_bytes()
    assert convscope.Drawing.load(tmp_path / "o.npz").render().tobytes() == Image.open(out).convert("RGB").tobytes()
