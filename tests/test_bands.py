"""Networks of other bands than grey and RGB, and of other proportions than a square: every method, every view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope
from convscope import Net
from convscope.errors import ConvscopeError, NetworkError, OptionError, PictureError
from convscope.registry import METHODS, load_all
from convscope.synthesis.parametrizations import natural_magnitude, parametrize

UNLABELLED = ("invariance", "correspondence")
"""Studies that need no labels."""
ENTRIES = {name: entry for name, entry in load_all().items() if entry.kind != "study" or name in UNLABELLED}
SIZE = (18, 14)
SHORT: dict[str, dict[str, Any]] = {
    "accentuate": {"of": "2:1", "steps": 2},
    "class_model": {"of": "1", "steps": 2},
    "compare": {"methods": ["grad_cam", "deconvnet", "saliency"], "of": "1"},
    "dream": {"steps": 2, "octaves": 1},
    "extremal": {"steps": 2},
    "filters_by_ascent": {"layer": "0", "channels": "0-1", "steps": 2, "size": 12},
    "invariance": {"steps": 3},
    "invert": {"layers": ["2"], "steps": 2},
    "maps": {"layer": "2"},
    "maximize": {"of": "2:1", "steps": 2},
    "occlusion": {"patch": 6, "stride": 6},
    "occlusion_study": {"of": "1", "patch": 6, "stride": 6},
    "project": {"layer": "2", "top": 2},
    "reconstruct": {"layers": ["2"]},
    "rise": {"masks": 8},
    "segment": {"of": "1", "method": "saliency"},
    "style": {"steps": 2},
}


def net(bands: int, *, size: Any = SIZE, **options: Any) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(bands, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
        )  # fmt: skip
    return Net(body.eval(), size=size, mean=[0.4] * bands, std=[0.3] * bands, **options)


def picture(bands: int) -> np.ndarray:
    return np.random.default_rng(bands).random((*SIZE, bands)).astype(np.float32)


def tensor(bands: int) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture(bands).transpose(2, 0, 1)))


@pytest.mark.parametrize("bands", [1, 2, 4, 6, 13])
@pytest.mark.parametrize("name", ENTRIES)
def test_every_method_and_view_draws_every_number_of_bands(name: str, bands: int, tmp_path: Path) -> None:
    reader, entry, given = net(bands), ENTRIES[name], picture(bands)
    options = dict(SHORT.get(name, {}))
    if name == "style":
        options["style"] = [np.ascontiguousarray(given[::-1])]
    if entry.attributes:
        drawing = convscope.explain(reader, given, name, 1, **options)
        same = convscope.explain(reader, tensor(bands), name, 1, **options)
        torch.testing.assert_close(drawing.values, same.values)
    else:
        several = [[given] * (1 + (name == "correspondence"))]
        inputs = {"": [], "picture": [given], "pictures": several, "data": several}[entry.takes]
        drawing = getattr(convscope, name)(reader, *inputs, **options)
    drawing.save(tmp_path / "x.png")
    drawing.save_values(tmp_path / "x.npz")
    note = f"Bands 0, 1 and 2 of {bands}" if bands > 3 else f"Band 0 of {bands}"
    if bands > 1 and name != "segment":
        assert note in drawing.sheet().note


@pytest.mark.parametrize("bands", [2, 6])
@pytest.mark.parametrize("name", ["gradient", "deconvnet", "grad_cam"])
def test_a_map_of_bands_is_read_back_and_shows_the_bands_it_showed(name: str, bands: int, tmp_path: Path) -> None:
    assert name in METHODS
    np.save(tmp_path / "bands.npy", picture(bands))
    map_ = convscope.explain(net(bands, show=bands - 1), tmp_path / "bands.npy", name, 1)
    map_.save_values(tmp_path / "x.npz")
    again = (
        convscope.load_drawing(tmp_path / "x.npz")
        if hasattr(convscope, "load_drawing")
        else type(map_).load(tmp_path / "x.npz")
    )
    assert np.array_equal(np.asarray(again.render()), np.asarray(map_.render()))


def test_one_band_after_the_other() -> None:
    whole = net(6)
    shown = [np.asarray(whole.changed(show=band).prepare(picture(6)).original) for band in range(6)]
    assert np.array_equal(np.stack(shown, 2), np.rint(picture(6) * 255))


def test_what_needs_colours_says_so() -> None:
    options = {"style": [picture(6)], "steps": 2, "keep_colour": True}
    with pytest.raises(OptionError, match="reads 6 bands, not red, green and blue"):
        convscope.style(net(6), picture(6), **options)
    with pytest.raises(NetworkError, match="BGR"):
        net(6, order="BGR")
    with pytest.raises(PictureError, match="3 bands, and the network reads 6"):
        convscope.style(net(6), picture(6), style=["sample:chelsea"], steps=2)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_parametrizations_of_bands_that_are_no_colours(channels: int) -> None:
    """Decorrelated colours are for red, green and blue: other bands are independent."""
    start = torch.rand(1, channels, 12, 10, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    fourier = parametrize("fourier", start, [0], deviation=0.0)
    torch.testing.assert_close(fourier.pixels().detach(), start, rtol=0, atol=1e-4)
    assert parametrize("maco", start, [0]).pixels().shape == start.shape
    assert torch.equal(natural_magnitude(channels, 12, 10)[-1], natural_magnitude(3, 12, 10)[0])


@pytest.mark.parametrize("source", ["onnx", "pt2"])
def test_files_of_six_bands(source: str, tmp_path: Path) -> None:
    body, path = net(6).body, tmp_path / f"six.{source}"
    if source == "onnx":
        pytest.importorskip("onnx2torch")
        with pytest.warns():
            torch.onnx.export(body, (tensor(6)[None],), path, dynamo=False)
    else:
        torch.export.save(torch.export.export(body, (tensor(6)[None],)), path)
    loaded = convscope.load(f"{source}:{path}")
    assert loaded.channels == 6
    torch.testing.assert_close(loaded(loaded.read(picture(6))), body(tensor(6)[None]))


def test_timm_of_six_bands() -> None:
    timm = pytest.importorskip("timm")
    body = timm.create_model("test_resnet", in_chans=6).eval()
    assert convscope.explain(Net(body, size=SIZE), picture(6), "grad_cam").values.shape == (1, *SIZE)
    named = convscope.load("timm:test_resnet", weights=None, channels=6, mean=0.2, std=0.1)
    assert named.channels == 6 and named.read(np.zeros((20, 20, 6), np.float32)).shape[1] == 6


# Proportions

TALL, WIDE = (24, 12), (12, 24)
COLUMNS = np.broadcast_to(np.arange(60, dtype=np.uint8)[None, :, None] * 4, (60, 60, 3)).copy()


def seen(size: tuple[int, int], array: np.ndarray, **options: Any) -> Any:
    return net(3, size=size, **options).prepare(array)


@pytest.mark.parametrize("size", [TALL, WIDE, (20, 20)])
@pytest.mark.parametrize("shape", [(60, 60), (30, 90), (90, 30), (7, 300), (5, 5)])
@pytest.mark.parametrize("resize", [None, 6, 26])
def test_cover_fills_every_input(size: tuple[int, int], shape: tuple[int, int], resize: int | None) -> None:
    prepared = seen(size, np.full((*shape, 3), 200, np.uint8), resize=resize)
    assert prepared.pixels.shape == (3, *size) and (prepared.pixels == np.float32(200) / 255).all()
    left, top, right, bottom = prepared.box
    assert left >= -1e-9 and top >= -1e-9 and right <= shape[1] + 1e-9 and bottom <= shape[0] + 1e-9
    # The seen part has the input's proportions, as far as whole pixels allow.
    assert (right - left) / (bottom - top) == pytest.approx(size[1] / size[0], rel=0.25)
    assert not prepared.remarks


def test_cover_cuts_out_the_middle() -> None:
    prepared = seen(TALL, COLUMNS)
    assert prepared.box == (15, 0, 45, 60)
    np.testing.assert_allclose(prepared.pixels[0, 0] * 255 / 4, np.linspace(15.75, 43.25, 12), atol=0.3)


@pytest.mark.parametrize(("size", "where"), [(TALL, "above and below"), (WIDE, "to the left and right")])
def test_contain_shows_all_and_says_that_it_is_padded(size: tuple[int, int], where: str) -> None:
    prepared = seen(size, np.full((60, 60, 3), 200, np.uint8), fit="contain")
    inside = prepared.pixels == np.float32(200) / 255
    assert inside.sum() == 3 * 12 * 12 and np.allclose(prepared.pixels[~inside], 0.4)
    assert prepared.remarks == (f"padded {where} with the mean colour to contain all of the picture",)
    assert prepared.box == ((0, -30, 60, 90) if size == TALL else (-30, 0, 90, 60))
    black = Net(net(3).body, size=size, fit="contain").prepare(np.full((60, 60, 3), 200, np.uint8))
    assert "with black" in black.remarks[0] and black.pixels.min() == 0


def test_stretch_shows_all_of_the_picture() -> None:
    prepared = seen(TALL, COLUMNS, fit="stretch", resize=50)
    assert prepared.box == (0, 0, 60, 60) and not prepared.remarks
    np.testing.assert_allclose(prepared.pixels[0, 0] * 255 / 4, np.linspace(2, 57, 12), atol=0.6)


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
@pytest.mark.parametrize("size", [TALL, WIDE])
def test_maps_lie_where_their_pixels_were(fit: str, size: tuple[int, int]) -> None:
    """A map of the pixels' own brightness, laid over the original, is brightest where the original is."""
    photograph = np.zeros((60, 90, 3), np.uint8)
    photograph[18:38, 36:56] = 255
    reader = net(3, size=size, fit=fit)
    map_ = convscope.explain(reader, photograph, "gradient", 1)
    laid = type(map_)(torch.from_numpy(map_.picture.pixels[:1]), map_.picture).spread((90, 60))
    rows, columns = np.nonzero(np.nan_to_num(laid) > 0.6)
    cell = (map_.picture.box[2] - map_.picture.box[0]) / size[1]
    assert abs(rows.mean() - 27.5) < 0.5 * cell and abs(columns.mean() - 45.5) < 0.5 * cell


def test_torchvision_s_transform_stays_as_it_is() -> None:
    from torchvision.transforms import v2

    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    wanted = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])(photograph)
    assert torch.equal(net(3, size=224, resize=256).read(photograph)[0], wanted.float() / 255)


def test_size_in_the_call_may_be_height_and_width() -> None:
    reader = net(3, size=20, resize=25)
    assert reader.read(COLUMNS, size=(24, 12)).shape[2:] == (24, 12)
    map_ = convscope.explain(reader, COLUMNS, "gradient", 1, size=(24, 12))
    assert map_.values.shape[1:] == (24, 12) and map_.recipe.size == (24, 12)
    (other,) = convscope.explain_many(reader, [COLUMNS], "gradient", 1, size=(24, 12))
    torch.testing.assert_close(other.values, map_.values)
    assert reader.sized((24, 12)).size == (24, 12)
    assert type(map_.recipe).from_json(map_.recipe.to_json()).size == (24, 12)
    for wrong in (0, (3,), (3, 0), "12", 2.5):
        with pytest.raises(ConvscopeError, match="size"):
            reader.read(COLUMNS, size=wrong)


def test_fit_stands_in_recipes_where_it_is_not_the_usual_one() -> None:
    assert net(3, fit="contain").reads["fit"] == "contain" and "fit" not in net(3).reads
    with pytest.raises(NetworkError, match="cover, contain, stretch, not 'squash'"):
        net(3, fit="squash")
