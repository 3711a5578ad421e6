"""Pictures in: real files of every kind, damaged ones, arrays and tensors, and the way back to the original."""

from __future__ import annotations

import gc
import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision import models

from adversary.edits import edits, mutated
from convscope import Net
from convscope.data.display import to_image
from convscope.data.images import prepare
from convscope.data.opening import open_picture
from convscope.data.pictures import read_pictures
from convscope.data.preprocessing import Fit, Preprocessing
from convscope.errors import PictureError
from networks import tiny

fuzz = settings(max_examples=300, deadline=10_000, derandomize=True, suppress_health_check=list(HealthCheck))


def colourful(height: int = 24, width: int = 31, *, seed: int = 0) -> np.ndarray:
    """A picture that looks different however it is turned or mirrored: noise over two ramps."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    ramps = np.stack(np.broadcast_arrays(np.linspace(0, 190, height)[:, None], np.linspace(190, 0, width), 90), -1)
    return (noise + ramps).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(source: Any) -> str:
    with pytest.raises(PictureError) as caught:
        open_picture(source)
    return str(caught.value)


# Files that cannot be read


def test_files_that_are_not_pictures(tmp_path: Path) -> None:
    text, empty = tmp_path / "text.png", tmp_path / "empty.png"
    text.write_text("not a picture at all\n" * 30)
    empty.touch()
    assert refused(text) == (
        f"{text} is not a picture that can be read: PNG, JPEG, WebP, GIF, TIFF, BMP or PPM, or an array in .npy"
    )
    assert refused(empty) == f"{empty} is empty (0 bytes)"
    assert refused(tmp_path) == f"{tmp_path} is a folder: name a picture in it"
    assert refused(str(tmp_path / "none.png")) == f"there is no picture {tmp_path / 'none.png'}"
    assert "not a picture" in refused(b"") and "not a picture" in refused(b"\x89PNG")


@pytest.mark.parametrize("name", ["a\0b.png", "a" * 5000, ""])
def test_paths_that_no_file_can_have(name: str) -> None:
    assert len(refused(name).splitlines()) == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_files_that_are_cut_short(kind: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{kind.lower()}"
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)), kind)
    path.write_bytes(whole)
    assert open_picture(path).size == (80, 64)
    path.write_bytes(whole[: int(len(whole) * share)])
    message = refused(path)
    assert message.startswith(str(path)) and ("damaged or cut short" in message or "not a picture" in message)


def test_an_opened_picture_that_is_cut_short() -> None:
    """Pillow reads the pixels of an opened file late."""
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)), "PNG")
    assert "cut short" in refused(Image.open(io.BytesIO(whole[:5000])))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused_without_decoding(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_header(60_000, 60_000))
    message = refused(bomb)
    assert message.startswith(f"{bomb} has 3600000000 pixels, above the limit of 179 million")
    assert "CONVSCOPE_MAX_PIXELS" in message


def test_the_limit_is_pillows_own_or_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(colourful(20, 30)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert open_picture(path).size == (30, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 299)
    assert refused(path).startswith(f"{path} has 600 pixels, above the limit of 0.000598 million")
    monkeypatch.setenv("CONVSCOPE_MAX_PIXELS", "6e2")
    assert open_picture(path).size == (30, 20)
    monkeypatch.setenv("CONVSCOPE_MAX_PIXELS", "599")
    assert refused(path).startswith(f"{path} has 30 x 20 pixels, above the limit of 0.000599 million")
    monkeypatch.setenv("CONVSCOPE_MAX_PIXELS", "lots")
    assert refused(path) == "CONVSCOPE_MAX_PIXELS is a number of pixels, such as 500000000 or 5e8, not 'lots'"
    monkeypatch.delenv("CONVSCOPE_MAX_PIXELS")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_picture(path).size == (30, 20)


@pytest.mark.parametrize("size", [(3000, 1), (1, 60_000), (100_000, 2)])
def test_a_long_thin_picture_costs_what_is_seen_of_it(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its shorter side scaled to 256 would make 3.8 billion pixels of a file of 60 kilobytes."""
    resize = Image.Image.resize

    def watched(image: Image.Image, size: tuple[int, int], *arguments: Any, **options: Any) -> Image.Image:
        assert size[0] * size[1] <= 224 * 224
        return resize(image, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    seen = prepare(Image.new("L", size, 77), Preprocessing(Fit((224, 224), 256)))
    assert seen.pixels.shape == (3, 224, 224) and np.allclose(seen.pixels, 77 / 255)
    left, top, right, bottom = seen.box
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((size[0] / 2, size[1] / 2), abs=0.01)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(1700, 9), (9, 1700), (3000, 90)])
@pytest.mark.parametrize("deep", [False, True])
def test_a_cut_out_of_a_long_picture_is_that_of_the_whole(
    size: tuple[int, int], interpolation: str, deep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    source = values / np.float32(255) if deep else values
    look = Preprocessing(Fit((28, 28), 32, interpolation))
    whole = prepare(source, look).pixels
    monkeypatch.setattr("convscope.data.images._SCALED_WHOLE", 0)
    assert np.abs(prepare(source, look).pixels - whole).max() <= (1e-5 if deep else 2 / 255)


# Frames


def test_animations_need_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "x.gif"
    frames = [Image.new("RGB", (12, 10), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert refused(path) == f"{path} has 3 frames: name one, as in '{path}[0]'"
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(np.asarray(open_picture(f"{path}[{index}]")), np.asarray(frame))
    assert "3 frames, numbered from 0: there is no frame 9" in refused(f"{path}[9]")
    assert "there is no picture" in refused(f"{tmp_path}/y.gif[1]")


def test_still_pictures_have_one_frame_and_names_may_hold_brackets(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(colourful()).save(path)
    assert open_picture(f"{path}[0]").size == (31, 24)
    assert "1 frame, numbered from 0: there is no frame 1" in refused(f"{path}[1]")
    path.rename(tmp_path / "x[3]")
    assert open_picture(tmp_path / "x[3]").size == (31, 24)


def test_an_opened_frame_is_taken_as_it_is(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (12, 10), colour) for colour in ("red", "lime")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "x.gif") as animation:
        animation.seek(1)
        assert open_picture(animation).getpixel((0, 0)) == (0, 255, 0)


def test_a_photograph_with_an_embedded_preview_is_one_picture(tmp_path: Path) -> None:
    """Phones write JPEGs with a second, small picture inside (MPO); every viewer shows the first."""
    photo, preview = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (8, 6), "blue")
    path = tmp_path / "photo.jpg"
    photo.save(path, "MPO", save_all=True, append_images=[preview])
    assert open_picture(path).size == (40, 30)


# Every kind of pixel


GREY = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
COLOUR = colourful()


def test_grey_one_bit_and_colour(tmp_path: Path) -> None:
    for name, image in {"g.png": Image.fromarray(GREY), "b.png": Image.fromarray(GREY > 100)}.items():
        image.save(tmp_path / name)
        opened = open_picture(tmp_path / name)
        assert opened.mode == "L"
        np.testing.assert_array_equal(np.asarray(opened), np.asarray(image.convert("L")))
    Image.fromarray(COLOUR).save(tmp_path / "c.png")
    np.testing.assert_array_equal(np.asarray(open_picture(tmp_path / "c.png")), COLOUR)


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).quantize(16)
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(np.asarray(open_picture(tmp_path / "p.png")), np.asarray(image.convert("RGB")))
    index = image.getpixel((3, 4))
    image.save(tmp_path / "t.png", transparency=index)
    expected = np.where((np.asarray(image) == index)[..., None], 255, np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(np.asarray(open_picture(tmp_path / "t.png")), expected)


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    alpha = np.linspace(0, 255, COLOUR.shape[0] * COLOUR.shape[1]).reshape(COLOUR.shape[:2]).astype(np.uint8)
    expected = 255 + (COLOUR.astype(float) - 255) * alpha[..., None] / 255
    Image.fromarray(np.dstack([COLOUR, alpha])).save(tmp_path / "rgba.png")
    np.testing.assert_allclose(np.asarray(open_picture(tmp_path / "rgba.png"), float), expected, atol=1)
    np.testing.assert_allclose(np.asarray(open_picture(np.dstack([COLOUR, alpha])), float), expected, atol=1)
    Image.fromarray(np.dstack([COLOUR[..., 0], alpha]), "LA").save(tmp_path / "la.png")
    opened = np.asarray(open_picture(tmp_path / "la.png"), float)
    np.testing.assert_allclose(opened, expected[..., :1].repeat(3, 2), atol=1)


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_one_transparent_colour_is_laid_on_white(kind: str) -> None:
    image, colour = (Image.fromarray(GREY), 7) if kind == "grey" else (Image.new("RGB", (20, 12), "red"), (255, 0, 0))
    opened = np.asarray(open_picture(encoded(image, "PNG", transparency=colour)).convert("L"))
    assert opened[0, 7] == 255 and (kind == "colour" or opened[0, 8] == 8)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    image = Image.fromarray(np.kron(colourful(3, 4), np.ones((16, 16, 1), np.uint8))).convert("CMYK")
    image.save(tmp_path / "c.jpg", quality=98)
    opened = open_picture(tmp_path / "c.jpg")
    assert opened.mode == "RGB"
    np.testing.assert_allclose(np.asarray(opened, float), np.asarray(image.convert("RGB"), float), atol=8)


def test_sixteen_bits_keep_their_values(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16)
    values[0, :2] = 0, 65535
    for name in ("x.png", "x.tif"):
        Image.fromarray(values).save(tmp_path / name)
        opened = np.asarray(open_picture(tmp_path / name)) / 255
        assert np.abs(opened - values / 65535).max() <= 0.5 / 255 + 1e-9
    np.testing.assert_array_equal(np.asarray(open_picture(values)), np.asarray(open_picture(tmp_path / "x.png")))


def test_floating_point_tiff(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "f.tif")
    assert np.abs(np.asarray(open_picture(tmp_path / "f.tif")) / 255 - values).max() <= 0.5 / 255 + 1e-6
    wrongs = {"divide by 255": values * 255, "before normalisation": values - 1, "NaN": values * np.nan}
    for word, wrong in wrongs.items():
        Image.fromarray(wrong).save(tmp_path / "w.tif")
        assert word in refused(tmp_path / "w.tif")


@pytest.mark.parametrize("mode", ["LAB", "HSV", "YCbCr", "RGBX", "RGBa", "La", "PA", "I;16B", "I", "F"])
def test_every_mode_of_pillow_becomes_rgb_or_grey(mode: str) -> None:
    assert open_picture(Image.new(mode, (5, 4))).mode in ("RGB", "L")


# How a picture is stored under each EXIF orientation, from the standard's "0th row, 0th column" table.
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["png", "tiff", "webp", "jpeg"])
def test_pictures_are_upright(orientation: int, kind: str, tmp_path: Path) -> None:
    smooth = np.asarray(Image.fromarray(COLOUR).resize((62, 48), Image.Resampling.BICUBIC))
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"x.{kind}"
    options = {"webp": {"lossless": True}, "jpeg": {"quality": 98, "subsampling": 0}}.get(kind, {})
    Image.fromarray(np.ascontiguousarray(STORED[orientation](smooth))).save(path, exif=exif, **options)
    opened = np.asarray(open_picture(path), float)
    np.testing.assert_allclose(opened, smooth, atol=12 if kind == "jpeg" else 0)
    assert dict(open_picture(path).getexif()).get(0x112, 1) == 1


# Arrays


def test_arrays_of_every_kind() -> None:
    expected = np.asarray(COLOUR)
    floating, deep, turned = (
        (COLOUR / 255).astype(np.float32),
        COLOUR.astype(np.uint16) * 257,
        COLOUR[::-1].copy()[::-1],
    )
    for array in (COLOUR, COLOUR / 255, floating, deep, turned):
        np.testing.assert_array_equal(np.asarray(open_picture(array)), expected)
    for array in (GREY, GREY[..., None], GREY / 255):
        np.testing.assert_array_equal(np.asarray(open_picture(array)), GREY)
    np.testing.assert_array_equal(np.asarray(open_picture(GREY > 99)), (GREY > 99) * 255)
    np.testing.assert_array_equal(np.asarray(open_picture(np.asfortranarray(COLOUR))), COLOUR)


def test_opening_changes_neither_array_nor_image() -> None:
    array, image = COLOUR / 255, Image.fromarray(np.dstack([COLOUR, GREY[:1, :1].repeat(24, 0).repeat(31, 1)]))
    before, image_before = array.copy(), image.tobytes()
    prepare(array, Preprocessing(Fit((9, 9), 10)))
    prepare(image, Preprocessing(Fit((9, 9), 10)))
    assert np.array_equal(array, before) and image.tobytes() == image_before and image.mode == "RGBA"


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (COLOUR.astype(float), ["divide by 255", "pixels are in [0, 1]"]),
        (COLOUR / 127.5 - 1, ["from -1 to", "before normalisation", "Net normalises them itself"]),
        (COLOUR / 100, ["divide by 255"]),
        (COLOUR / 255 + np.nan, ["NaN"]),
        (np.where(GREY > 200, np.inf, 0.5), ["NaN or infinite"]),
        (COLOUR.astype(np.int64), ["int64", "uint8"]),
        (COLOUR.astype(np.int8), ["int8"]),
        (GREY.astype(complex), ["complex128"]),
        (np.array([["a"]]), ["type"]),
        (COLOUR.transpose(1, 2, 0), ["(31, 3, 24)", "(h, w, 3)"]),
        (COLOUR[None], ["(1, 24, 31, 3)"]),
        (GREY[0], ["(20,)"]),
        (COLOUR[..., :2], ["(24, 31, 2)"]),
        (np.zeros((0, 5), np.uint8), ["(0, 5)"]),
        (np.zeros((5, 0, 3)), ["(5, 0, 3)"]),
    ],
    ids=lambda value: None if isinstance(value, list) else f"{value.dtype} {value.shape}",
)
def test_arrays_that_are_not_pictures(array: np.ndarray, words: list[str]) -> None:
    message = refused(array)
    assert all(word in message for word in words) and len(message.splitlines()) == 1


@pytest.mark.parametrize("source", [None, 7, [[1, 2], [3, 4]], torch.zeros(3, 4, 4), object()])
def test_other_things_are_not_pictures(source: Any) -> None:
    assert type(source).__name__ in refused(source)


# Tensors


def test_tensors_are_taken_as_they_are() -> None:
    net, pixels = tiny("sequential"), torch.rand(1, 3, 26, 33, dtype=torch.float64, requires_grad=True)
    for given_ in (pixels, pixels[0]):
        read = net.read(given_)
        assert torch.equal(read, pixels.detach().float()) and not read.requires_grad
    assert net.prepare(pixels).box == (0, 0, 33, 26) and net.prepare(pixels).original.size == (33, 26)
    original = np.asarray(net.prepare(pixels).original).transpose(2, 0, 1) / 255
    assert np.abs(original - pixels[0].detach().numpy()).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (torch.zeros(2, 3, 20, 20), ["batch of 2"]),
        (torch.zeros(0, 3, 20, 20), ["batch of 0"]),
        (torch.zeros(1, 20, 20), ["(n, 3, height, width)", "(1, 1, 20, 20)"]),
        (torch.zeros(20, 20), ["(n, 3, height, width)"]),
        (torch.zeros(()), ["(n, 3, height, width)"]),
        (torch.zeros(3, 20, 20, dtype=torch.uint8), ["torch.uint8", "pixels / 255"]),
        (torch.full((3, 20, 20), 255.0), ["divide by 255"]),
        (torch.full((3, 20, 20), -1.0), ["before normalisation"]),
        (torch.full((3, 20, 20), torch.nan), ["NaN"]),
        (torch.zeros(3, 0, 20), ["(1, 3, 0, 20)"]),
    ],
    ids=str,
)
def test_tensors_that_are_not_pictures(pixels: torch.Tensor, words: list[str]) -> None:
    with pytest.raises(PictureError) as caught:
        tiny("sequential").read(pixels)
    assert all(word in str(caught.value) for word in words)


# As the network sees it


PRESETS = {"alexnet": "bilinear", "efficientnet_b0": "bicubic", "inception_v3": "bilinear"}
SIZES = [
    (300, 451),
    (451, 300),
    (224, 224),
    (256, 256),
    (64, 48),
    (1, 1),
    (17, 900),
    (900, 17),
    (257, 999),
    (342, 299),
]


@pytest.mark.parametrize("model", PRESETS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pictures_are_prepared_as_torchvision_does(model: str, size: tuple[int, int], chelsea: np.ndarray) -> None:
    preset = models.get_model_weights(model).DEFAULT.transforms()
    assert preset.interpolation.value == PRESETS[model]
    picture = Image.fromarray(chelsea).resize(size[::-1], Image.Resampling.BICUBIC)
    net = Net(
        nn.Conv2d(3, 1, 1), mean=preset.mean, std=preset.std, size=preset.crop_size[0], resize=preset.resize_size[0],
        interpolation=preset.interpolation.value,
    )  # fmt: skip
    torch.testing.assert_close(net.normalise(net.read(picture))[0], preset(picture), rtol=0, atol=1e-6)


def test_another_size_keeps_the_proportion() -> None:
    assert Fit((224, 224), 256).scaled(112) == Fit((112, 112), 128)
    assert tiny("sequential").read(COLOUR, size=33).shape == (1, 3, 33, 33)


@pytest.mark.parametrize("size", [0, -3])
def test_sizes_that_are_none(size: int) -> None:
    with pytest.raises(PictureError, match=str(size)):
        tiny("sequential").read(COLOUR, size=size)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (1000, 230)], ids=str)
@pytest.mark.parametrize("fit", [Fit((96, 96), 110), Fit((64, 96), 96), Fit((28, 28), 28)], ids=str)
def test_the_box_leads_back_to_the_original(size: tuple[int, int], fit: Fit) -> None:
    """A white dot in the original is found where the box says it is, to a pixel of what the network saw."""
    left, top, right, bottom = prepare(np.zeros(size, np.uint8), Preprocessing(fit, 1)).box
    assert 0 <= left < right <= size[1] + 1e-9 and 0 <= top < bottom <= size[0] + 1e-9
    one = min(size) / fit.resize
    for down, along in ((0.5, 0.5), (0.3, 0.6), (0.7, 0.2)):
        y, x = round(top + down * (bottom - top)), round(left + along * (right - left))
        picture = np.zeros(size, np.uint8)
        dot = max(2, round(one))
        picture[y - dot : y + dot, x - dot : x + dot] = 255
        seen = prepare(picture, Preprocessing(fit, 1)).pixels[0]
        row, column = (
            (seen.sum(1 - axis) * (np.arange(fit.size[axis]) + 0.5)).sum() / seen.sum() / fit.size[axis]
            for axis in (0, 1)
        )
        assert abs(top + row * (bottom - top) - y) < one and abs(left + column * (right - left) - x) < one


def test_a_colour_picture_for_a_grey_network_and_the_reverse() -> None:
    grey = prepare(COLOUR, Preprocessing(Fit((24, 24), 24), 1))
    assert grey.pixels.shape == (1, 24, 24) and grey.original.mode == "L"
    colour = prepare(GREY, Preprocessing(Fit((12, 12), 12), 3))
    assert colour.pixels.shape == (3, 12, 12) and colour.original.mode == "L"
    assert (colour.pixels == colour.pixels[:1]).all()


def test_the_name_and_the_digest_of_what_was_seen(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "cat.png")
    seen = prepare(tmp_path / "cat.png", Preprocessing(Fit((12, 12), 14)))
    assert seen.name == "cat.png" and seen.where == str(tmp_path / "cat.png")
    assert seen.sha256 == hashlib.sha256((tmp_path / "cat.png").read_bytes()).hexdigest()
    array, again = (prepare(values, Preprocessing(Fit((12, 12), 14))) for values in (COLOUR, COLOUR.copy()))
    assert array.where == "ndarray" and array.sha256 == again.sha256
    changed = COLOUR.copy()
    changed[12, 15] += 9
    assert prepare(changed, Preprocessing(Fit((12, 12), 14))).sha256 != array.sha256


def test_folders_of_pictures(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"no picture in .*\.png"):
        read_pictures(tmp_path)
    (tmp_path / "deep").mkdir()
    for name in ("b.PNG", "a.jpg", "deep/c.webp", "notes.txt"):
        (tmp_path / name).touch()
    assert [picture.name for picture in read_pictures(tmp_path)] == ["a.jpg", "b.PNG", "deep/c.webp"]


def test_numbers_become_a_picture_and_back() -> None:
    assert np.array_equal(np.asarray(to_image(COLOUR.transpose(2, 0, 1) / 255)), COLOUR)
    assert np.array_equal(np.asarray(to_image(GREY / 255)), GREY)
    assert np.asarray(to_image(np.array([[-1.0, 2.0]]))).tolist() == [[0, 255]]


# Damaged files


def _seeds() -> dict[str, bytes]:
    image, exif = Image.fromarray(COLOUR), Image.Exif()
    exif[0x112], exif[0x10E] = 6, "title"
    return {
        "png": encoded(image, "PNG", exif=exif),
        "palette png": encoded(image.quantize(16), "PNG", transparency=3),
        "deep png": encoded(Image.fromarray(COLOUR[..., 0].astype(np.uint16) * 200), "PNG"),
        "jpeg": encoded(image, "JPEG", exif=exif),
        "progressive jpeg": encoded(image.convert("CMYK"), "JPEG", progressive=True),
        "gif": encoded(image.quantize(8), "GIF"),
        "animation": encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        "tiff": encoded(image, "TIFF", exif=exif),
        "floating tiff": encoded(Image.fromarray(GREY / np.float32(255)), "TIFF"),
        "webp": encoded(image, "WEBP"),
        "bmp": encoded(image, "BMP"),
    }


SEEDS = _seeds()
PLACES = st.integers(0, 120) | st.integers(0, 4000)


def check_sound(content: bytes) -> None:
    """Either a picture or a PictureError of one line."""
    try:
        image = open_picture(content)
    except PictureError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert image.mode in ("L", "RGB") and min(image.size) > 0
        assert np.asarray(image).dtype == np.uint8


@pytest.mark.filterwarnings("ignore")
@given(st.sampled_from(list(SEEDS)), edits(PLACES))
@fuzz
def test_damaged_files_are_pictures_or_picture_errors(kind: str, changes: list[tuple[int, str, bytes]]) -> None:
    check_sound(mutated(SEEDS[kind], changes))


@pytest.mark.filterwarnings("ignore")
@given(st.binary(max_size=300), st.sampled_from(["", "\x89PNG\r\n\x1a\n", "GIF89a", "II*\0", "BM", "RIFF"]))
@fuzz
def test_random_bytes_are_picture_errors(content: bytes, start: str) -> None:
    check_sound(start.encode("latin-1") + content)


def _second_page_of_nothing() -> bytes:
    """A TIFF with a second page that has no size."""
    content = SEEDS["floating tiff"]
    end = 10 + 12 * int.from_bytes(content[8:10], "little")
    return content[:end] + len(content).to_bytes(4, "little") + content[end + 4 :] + bytes(16)


def _exif_of_another_type() -> bytes:
    """A JPEG with a tag that should be a number and is a text, beside an orientation to undo."""
    return SEEDS["jpeg"].replace(b"\x01\x0e\x00\x02", b"\x01\x40\x00\x02", 1)


def _unknown_texture() -> bytes:
    """A DDS texture of a pixel format that does not exist."""
    content = encoded(Image.fromarray(COLOUR), "DDS")
    return content[:80] + bytes(4) + content[84:]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [_second_page_of_nothing, _exif_of_another_type, _unknown_texture])
def test_whatever_pillow_raises_becomes_a_picture_error(make: Callable[[], bytes]) -> None:
    check_sound(make())


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes(SEEDS["png"][:400])
    opened, descriptors = open_picture(tmp_path / "x.png"), Path("/proc/self/fd")
    refused(tmp_path / "y.png")
    gc.collect()
    assert opened.size == (31, 24)
    if descriptors.exists():
        links = [link for link in descriptors.iterdir() if link.is_symlink()]
        assert not any(str(tmp_path) in str(link.readlink()) for link in links)
