"""Drawings: the numbers they keep, the files they write, the colours they use, and that nothing is cut or overlaps."""

from __future__ import annotations

import io
import itertools
import math
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, PngImagePlugin
from safetensors import safe_open
from skimage.color import rgb2lab
from torch import Tensor

from convscope.data.images import InputPicture, prepare
from convscope.data.preprocessing import Fit, Preprocessing
from convscope.drawing import colours, layout, painting, sheet_html, typesetting
from convscope.drawing.drawings import Curve, Drawing, Gallery, Heatmap, Picture, robust_limit
from convscope.drawing.files import read_recipe
from convscope.drawing.films import Film
from convscope.drawing.layout import Scale, Sheet, Tile, enlarged, in_rows, number, side_by_side
from convscope.drawing.paper import Paper
from convscope.drawing.rearranging import rearranged
from convscope.drawing.sheet_words import sheet_from_words, sheet_words
from convscope.drawing.tables import Column, Table
from convscope.drawing.typesetting import PAPER
from convscope.errors import OptionError, OutputError, PictureError, RecipeError
from convscope.recipes import PictureRecord, Recipe

thorough = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
Box = tuple[float, float, float, float]

RECIPE = Recipe(
    method="occlusion",
    network={"name": "lenet5", "note": "random weights, seed 0", "source": {"name": "lenet5", "weights": None}},
    weights="0123456789abcdef",
    pictures=(PictureRecord("chat—écran.png", "0011"), PictureRecord("数字.png", "2233")),
    of="3 - 0.5*conv2:1",
    size=56,
    objective="3 - 0.5*conv2:1@max",
    options={"patch": 6, "baseline": None, "samples": 1e-3, "layers": ["a", "b"], "flag": True},
    remarks=('a remark with "quotes" and a\nnew line',),
    versions={"convscope": "0.1.0", "torch": "2.9"},
)


def picture_view(height: int = 90, width: int = 140, *, fit: Fit | None = None, seed: int = 0) -> InputPicture:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return prepare(pixels, Preprocessing(fit or Fit((56, 56), 64)))


def heatmap(values: Tensor | None = None, *, seen: InputPicture | None = None, **options: Any) -> Heatmap:
    seen = seen or picture_view()
    if values is None:
        values = torch.rand(1, *seen.pixels.shape[1:], generator=torch.Generator().manual_seed(1))
    options = {"title": "A title", "subtitle": "what was asked", "note": "a note", "unit": "score", **options}
    return Heatmap(values, seen, RECIPE, **options)


def gallery() -> Gallery:
    tiles = tuple(Tile(Image.new("RGB", (60, 50), (index * 20, 0, 90)), f"caption {index}") for index in range(6))
    sheet = Sheet("Gallery", (tiles[:3], tiles[3:]), "of tiles", "note", ("left", "mid", "right"), ("upper", "lower"))
    return Gallery(sheet, {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([0.1])}, RECIPE)


def curve() -> Curve:
    return Curve([0, 1, 2], {"one": [0.0, 0.5, 1.0], "two": [1, 1, 0]}, RECIPE, "Curves", x_label="x", y_label="y")


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "heatmap": heatmap,
    "signed": lambda: heatmap(torch.randn(1, 56, 56, generator=torch.Generator().manual_seed(0)), signed=True),
    "projection": lambda: heatmap(
        torch.randn(3, 56, 56, generator=torch.Generator().manual_seed(0)), signed=True, projects=True
    ),
    "picture": lambda: Picture(torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(0)), RECIPE, "A picture"),
    "gallery": gallery,
    "curve": curve,
}
each_drawing = pytest.mark.parametrize("kind", DRAWINGS)


# Recipes


def test_a_recipe_is_the_same_after_json() -> None:
    assert Recipe.from_json(RECIPE.to_json()) == RECIPE
    assert Recipe.from_json(RECIPE.to_json().replace('"method"', '"unknown": 3, "method"', 1)) == RECIPE


@each_drawing
def test_a_recipe_is_read_back_from_a_png(kind: str, tmp_path: Path) -> None:
    path = DRAWINGS[kind]().save(tmp_path / "deep" / "x.png")
    assert read_recipe(path) == read_recipe(str(path)) == RECIPE
    assert Image.open(path).info["convscope"] == RECIPE.to_json()


def test_a_recipe_with_a_file_name_that_is_no_unicode(tmp_path: Path) -> None:
    """Old file names of other encodings reach Python with surrogates in them."""
    drawing = Picture(torch.zeros(1, 4, 4), Recipe("m", pictures=(PictureRecord("caf\udce9.png", "0011"),)))
    path = drawing.save(tmp_path / "x.png")
    assert read_recipe(path).pictures[0].where.startswith("caf")


def _with_chunk(text: str, path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("convscope", text)
    Image.new("L", (4, 4)).save(path, pnginfo=info)


@pytest.mark.parametrize(
    "text", ["no json", "{}", '{"method": "x"}', "[]", "3", '"text"', "null", '{"schema": 1, "pictures": 3}']
)
def test_recipes_that_are_none(text: str, tmp_path: Path) -> None:
    _with_chunk(text, tmp_path / "x.png")
    with pytest.raises(RecipeError, match=r"the recipe inside .*x\.png") as caught:
        read_recipe(tmp_path / "x.png")
    assert len(str(caught.value).splitlines()) == 1


def test_files_without_a_recipe(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    heatmap().save(tmp_path / "x.jpg")
    (tmp_path / "x.txt").write_text("text")
    for name in ("x.png", "x.jpg"):
        with pytest.raises(RecipeError, match="holds no recipe"):
            read_recipe(tmp_path / name)
    for name in ("x.txt", "none.png", "."):
        with pytest.raises(PictureError):
            read_recipe(tmp_path / name)


# Files


@pytest.mark.parametrize("suffix", [".pdf", ".svg"])
def test_a_figure_is_the_same_file_at_any_time_of_day(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing = next(iter(DRAWINGS.values()))()
    files = list[bytes]()
    for second in ("0", "1000000000"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", second)  # matplotlib's time of day
        files.append(drawing.save(tmp_path / f"x{suffix}").read_bytes())
    assert files[0] == files[1]


@each_drawing
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg", ".PNG", ".JPG"])
def test_every_kind_of_file(kind: str, suffix: str, tmp_path: Path) -> None:
    drawing = DRAWINGS[kind]()
    path = drawing.save(tmp_path / f"x{suffix}")
    content = path.read_bytes()
    if suffix == ".pdf":
        assert content.startswith(b"%PDF-")
    elif suffix == ".svg":
        assert b"<svg" in content[:1000]
    else:
        image, painted = Image.open(io.BytesIO(content)), drawing.render()
        assert image.format == {"png": "PNG", "webp": "WEBP"}.get(suffix[1:].lower(), "JPEG")
        if image.format == "PNG":
            assert image.convert("RGB").tobytes() == painted.tobytes()
        means = [np.asarray(each.convert("RGB").reduce(8), float) for each in (image, painted)]
        assert np.abs(means[0] - means[1]).mean() < 2
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["x.bmp", "x", "x.png.txt", "x.npy"])
def test_endings_that_are_unknown(name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"endings are \.png, \.jpg, \.jpeg, \.webp, \.pdf, \.svg"):
        heatmap().save(tmp_path / name)
    if name != "x.npy":
        with pytest.raises(OutputError, match=r"endings are \.npy, \.npz, \.safetensors"):
            heatmap().save_values(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_how_a_map_is_shown_is_part_of_its_recipe(tmp_path: Path) -> None:
    drawing = replace(heatmap(), overlay_only=True, cmap="jet", limit=2.5)
    path = drawing.save(tmp_path / "x.png")
    recipe = read_recipe(path)
    assert Image.open(path).size == (140, 90)
    assert recipe == replace(RECIPE, display={"limit": 2.5, "cmap": "jet", "overlay_only": True})
    again = replace(heatmap(), **recipe.display)
    assert again.save(tmp_path / "y.png").read_bytes() == path.read_bytes()
    assert drawing._repr_png_() == path.read_bytes()


@each_drawing
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_numbers_are_written_exactly(kind: str, suffix: str, tmp_path: Path) -> None:
    drawing = DRAWINGS[kind]()
    path, expected = drawing.save_values(tmp_path / f"x{suffix}"), drawing.numbers()
    if suffix == ".npz":
        with np.load(path) as file:
            found = {name: file[name] for name in file}
    else:
        with safe_open(path, "numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            assert Recipe.from_json(file.metadata()["convscope"]) == RECIPE
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_one_array_as_npy(tmp_path: Path) -> None:
    values = torch.randn(1, 56, 56)
    path = heatmap(values).save_values(tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(path), values.numpy())
    with pytest.raises(OutputError, match=r"there are 2 arrays \(a, b\); use \.npz or \.safetensors"):
        gallery().save_values(tmp_path / "y.npy")


# Files read back


def with_picture(folder: Path, **options: Any) -> Heatmap:
    """A map whose picture lies in a folder, as its recipe says."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "p.png")
    picture = prepare(folder / "p.png", Preprocessing(Fit((56, 56), 64)))
    reads = {"size": [56, 56], "resize": 64, "interpolation": "bilinear", "channels": 3}
    record = PictureRecord(str(folder / "p.png"), picture.sha256)
    drawing = heatmap(seen=picture, **options)
    return replace(drawing, recipe=replace(RECIPE, network={"reads": reads}, pictures=(record,), size=None))


def film(folder: Path) -> Film:
    frames = [Image.new("RGB", (20, 16), (40 * i, 9, 200)) for i in range(4)]
    for i, frame in enumerate(frames):
        frame.save(folder / f"frame{i}.png")
    return Film([folder / f"frame{i}.png" for i in range(4)], RECIPE, "A film", fps=7)


def table() -> Table:
    columns = (Column("name"), Column("size", "size"), Column("value", "number", format=".2f"), Column("n", "whole"))
    return Table(columns, (("a", (3, 4), 0.25, None), ("é", None, float("inf"), 7)), RECIPE, "A table", "sub", "note")


READ_BACK: dict[str, Callable[[Path], Drawing]] = {
    "heatmap": with_picture,
    "shown otherwise": lambda folder: with_picture(folder, signed=True, cmap="jet", limit=0.7),
    "overlay": lambda folder: with_picture(folder, overlay_only=True),
    "projection": lambda folder: with_picture(folder, values=torch.randn(3, 56, 56), signed=True, projects=True),
    "picture": lambda _: Picture(torch.rand(3, 40, 30), RECIPE, "A picture"),
    "grey picture": lambda _: Picture(torch.rand(1, 40, 30), RECIPE, "A picture"),
    "film": film,
    "gallery": lambda _: gallery(),
    "curve": lambda _: curve(),
    "table": lambda _: table(),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("name", ["x.png", "x"])
@pytest.mark.parametrize("kind", READ_BACK)
def test_a_drawing_is_read_back_as_it_was(kind: str, name: str, suffix: str, tmp_path: Path) -> None:
    """From its picture with the numbers beside it, and from the numbers with the picture beside them."""
    drawing = READ_BACK[kind](tmp_path)
    png, numbers = drawing.save(tmp_path / "x.png"), drawing.save_values(tmp_path / f"x{suffix}")
    found = Drawing.load(png if name.endswith(".png") else numbers)
    assert type(found) is type(drawing) and found.render().tobytes() == drawing.render().tobytes()
    assert found.save(tmp_path / "again.png").read_bytes() == png.read_bytes()
    for name_, values in drawing.numbers().items():
        np.testing.assert_array_equal(found.numbers()[name_], values)
    assert found.save_values(tmp_path / f"again{suffix}").read_bytes() == numbers.read_bytes()


def test_a_map_whose_picture_is_gone_or_another_is_shown_alone(tmp_path: Path) -> None:
    drawing = with_picture(tmp_path)
    numbers = drawing.save_values(tmp_path / "x.npz")
    (tmp_path / "p.png").rename(tmp_path / "q.png")
    found = Drawing.load(numbers)
    assert isinstance(found, Heatmap) and len(found.sheet().tiles) == 1
    assert "p.png is not there: the map is shown alone" in found.sheet().note
    np.testing.assert_array_equal(found.map_image(), drawing.map_image())
    Image.new("RGB", (140, 90), "red").save(tmp_path / "p.png")
    assert "p.png is another one now" in Drawing.load(numbers).sheet().note
    (tmp_path / "p.png").unlink()
    (tmp_path / "q.png").rename(tmp_path / "p.png")
    assert len(Drawing.load(numbers).sheet().tiles) == 3


def test_a_gallery_without_its_picture_says_so_and_keeps_its_numbers(tmp_path: Path) -> None:
    found = Drawing.load(gallery().save_values(tmp_path / "x.npz"))
    assert isinstance(found, Gallery) and found.sheet().tiles[0].caption == "caption 0"
    assert [tile.image.size for tile in found.sheet().tiles] == [(60, 50)] * 6
    np.testing.assert_array_equal(found.numbers()["a"], gallery().numbers()["a"])


def test_pictures_and_tables_need_no_numbers_beside_them(tmp_path: Path) -> None:
    picture = Picture(torch.rand(3, 40, 30), RECIPE, "A picture")
    found = Drawing.load(picture.save(tmp_path / "x.png"))
    np.testing.assert_allclose(found.numbers()["picture"], picture.numbers()["picture"], atol=0.5 / 255 + 1e-6)
    again = Drawing.load(table().save(tmp_path / "y.png"))
    assert isinstance(again, Table) and again.rows == table().rows and again.columns == table().columns


def test_a_map_without_numbers_says_how_to_have_them(tmp_path: Path) -> None:
    path = with_picture(tmp_path).save(tmp_path / "x.png")
    with pytest.raises(PictureError, match=r"no x\.npz or \.safetensors .* save_values, or .* convscope\.remake\('"):
        Drawing.load(path)
    heatmap(torch.ones(1, 56, 56)).save_values(tmp_path / "x.npz")
    with pytest.raises(PictureError, match="of the same drawing beside it"):
        Drawing.load(path)


def test_files_that_hold_no_drawing(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    np.savez(tmp_path / "plain.npz", map=np.zeros(3))
    for name in ("plain.png", "plain.npz"):
        with pytest.raises(RecipeError, match="holds no recipe"):
            Drawing.load(tmp_path / name)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "broken.safetensors").write_bytes(b"12345678")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for name in ("broken.npz", "broken.safetensors", "broken.png", "none.png", "none.npz", "."):
        with pytest.raises(PictureError) as caught:
            Drawing.load(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1


def _rewritten(path: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> Path:
    """Change what a PNG holds beside its pixels."""
    with Image.open(path) as image:
        texts = {str(key): str(value) for key, value in image.info.items()}
        texts |= change(texts)
        info = PngImagePlugin.PngInfo()
        for key, value in texts.items():
            info.add_itxt(key, value)
        image.load()
        image.save(path, pnginfo=info)
    return path


BROKEN: dict[str, tuple[Callable[[dict[str, str]], dict[str, str]], type[Exception], str]] = {
    "broken recipe": (lambda _: {"convscope": "{"}, RecipeError, "not JSON"),
    "newer recipe": (
        lambda texts: {"convscope": texts["convscope"].replace('"schema": 1', '"schema": 99')},
        RecipeError,
        "schema 99",
    ),
    "broken words": (lambda _: {"convscope.drawing": "{"}, PictureError, "remake makes it again"),
    "list": (lambda _: {"convscope.drawing": "[]"}, PictureError, "remake makes it again"),
    "no words": (lambda _: {"convscope.drawing": ""}, PictureError, "remake makes it again"),
    "newer": (lambda _: {"convscope.drawing": '{"kind": "Table", "schema": 99}'}, PictureError, "schema 99"),
    "unknown": (lambda _: {"convscope.drawing": '{"kind": "Mobile", "schema": 1}'}, PictureError, "holds a Mobile"),
    "no columns": (lambda _: {"convscope.drawing": '{"kind": "Table", "schema": 1}'}, PictureError, "KeyError"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_drawings_that_cannot_be_read(case: str, tmp_path: Path) -> None:
    change, error, words = BROKEN[case]
    path = _rewritten(table().save(tmp_path / "x.png"), change)
    with pytest.raises(error, match=words) as caught:
        Drawing.load(path)
    assert "x.png" in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("ends", [(math.nan, 1.0), (0.0, math.inf), (1.0, 1.0)])
def test_a_scale_without_colours_is_refused(ends: tuple[float, float]) -> None:
    sheet = Sheet("", ((Tile(Image.new("RGB", (9, 9)), "", Scale("fire", *ends)),),))
    with pytest.raises(ValueError, match="has no colours"):
        sheet_from_words(sheet_words(sheet), None)


def test_long_texts_fit_an_archives_comment_or_are_refused(tmp_path: Path) -> None:
    rows = tuple((f"a row of some words {i % 7}", float(i)) for i in range(9000))
    long = Table((Column("text"), Column("value", "number")), rows, RECIPE)
    found = Drawing.load(long.save_values(tmp_path / "x.npz"))
    assert isinstance(found, Table) and found.rows == rows
    letters = np.random.default_rng(0).integers(33, 120, (3000, 90), np.uint8)
    noise = Table((Column("text"),), tuple((bytes(line).decode(),) for line in letters), RECIPE)
    with pytest.raises(OutputError, match=r"too long for \.npz; use \.safetensors"):
        noise.save_values(tmp_path / "y.npz")
    assert len(Drawing.load(noise.save_values(tmp_path / "y.safetensors")).rows) == 3000  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", READ_BACK)
def test_short_reprs(kind: str, tmp_path: Path) -> None:
    text = repr(READ_BACK[kind](tmp_path))
    assert len(text) < 80 and text.startswith("<") and "tensor" not in text


@each_drawing
def test_a_figure_has_the_layout_of_the_picture(kind: str) -> None:
    """What is at a position in the PNG is there in the figure, too: images exactly, texts nearly."""
    drawing, buffer = DRAWINGS[kind](), io.BytesIO()
    drawing.figure().savefig(buffer, format="png")
    page = drawing.render()
    drawn = Image.open(buffer).convert("RGB")
    assert max(abs(a - b) for a, b in zip(drawn.size, page.size, strict=True)) <= 1
    drawn = drawn.resize(page.size)
    apart = np.abs(np.asarray(page, float) - np.asarray(drawn, float)).mean(-1)
    assert (apart > 40).mean() < 0.03


def test_a_figure_marks_values_beyond_the_ends_of_its_colours() -> None:
    from matplotlib.text import Text

    values = torch.rand(1, 56, 56)
    values[0, 3, 3] = 1e6
    texts = [item.get_text() for item in heatmap(values).figure().findobj(Text)]
    assert any(text.startswith("≥ ") for text in texts)


@each_drawing
def test_figures_are_matplotlibs(kind: str) -> None:
    from matplotlib.figure import Figure

    figure = DRAWINGS[kind]().figure()
    assert isinstance(figure, Figure) and len(figure.axes) >= 1
    assert DRAWINGS[kind]()._repr_png_().startswith(b"\x89PNG")


def test_a_figure_shows_what_the_sheet_shows() -> None:
    from matplotlib.text import Text

    drawing = gallery()
    texts = " ".join(item.get_text() for item in drawing.figure().findobj(Text))
    sheet = drawing.sheet()
    for part in (sheet.title, sheet.subtitle, sheet.note, *(tile.caption for tile in sheet.tiles)):
        assert part in texts
    for part in (*sheet.columns, *sheet.labels):
        assert part in texts


def test_painting_does_not_import_matplotlib() -> None:
    code = (
        "import sys, torch, numpy as np\n"
        "from convscope.drawing.drawings import Heatmap, Picture\n"
        "from convscope.data.images import prepare\n"
        "from convscope.data.preprocessing import Fit, Preprocessing\n"
        "seen = prepare(np.zeros((30, 40, 3), np.uint8), Preprocessing(Fit((28, 28), 28)))\n"
        "Heatmap(torch.randn(3, 28, 28), seen, title='T', signed=True, projects=True).render()\n"
        "Picture(torch.rand(3, 28, 28), title='T')._repr_png_()\n"
        "print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_curve_has_as_many_values_as_positions() -> None:
    with pytest.raises(OptionError, match="curve 'two' has 2 values for 3 positions"):
        Curve([0, 1, 2], {"one": [1, 2, 3], "two": [1, 2]}, RECIPE)


# Maps


SPECIAL: dict[str, Tensor] = {
    "zero": torch.zeros(1, 56, 56),
    "constant": torch.full((1, 56, 56), 3.5),
    "negative": -torch.rand(1, 56, 56, generator=torch.Generator().manual_seed(0)) - 0.5,
    "one outlier": torch.zeros(1, 56, 56).index_put((torch.tensor(0),) * 3, torch.tensor(1e6)),
    "tiny": torch.rand(1, 56, 56, generator=torch.Generator().manual_seed(0)) * 1e-30,
    "huge": torch.rand(1, 56, 56, generator=torch.Generator().manual_seed(0)) * 1e30,
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("signed", [False, True])
def test_special_maps_are_drawn_without_warnings(name: str, signed: bool) -> None:
    values = SPECIAL[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing = heatmap(values, signed=signed)
        scale = drawing.scale
        assert scale.low < scale.high and np.isfinite([scale.low, scale.high]).all()
        assert scale.clipped_low == (values.min() < scale.low) and scale.clipped_high == (values.max() > scale.high)
        overlay = np.asarray(drawing.overlay())
        drawing.render()
    assert overlay.shape == (90, 140, 3)
    if name == "zero":
        middle = np.asarray(drawing.map_image())[45, 70]
        assert (middle == colours.table(scale.colours)[128 if signed else 0]).all()
        grey = np.asarray(drawing.picture.original.convert("L"))[45, 70]
        assert (overlay[45, 70] == grey).all(), "a map of nothing leaves the picture as it is"


def test_one_outlier_does_not_hide_the_rest() -> None:
    values = np.random.default_rng(0).random((56, 56))
    assert robust_limit(values) == values.max()
    values[3, 3] = 1e6
    assert 0.9 < robust_limit(values) <= 1
    assert robust_limit(np.zeros((3, 3))) == 1 and robust_limit(np.zeros((0,))) == 1
    assert heatmap(torch.tensor(values)[None].float()).scale.labels[1].startswith("≥ ")


@pytest.mark.parametrize("size", [(90, 140), (300, 120), (56, 56), (28, 33), (600, 601)], ids=str)
def test_overlays_have_the_originals_size_and_aspect(size: tuple[int, int]) -> None:
    drawing = heatmap(seen=picture_view(*size))
    assert drawing.overlay().size == drawing.map_image().size == size[::-1]
    assert drawing.overlay((50, 40)).size == (50, 40)
    for tile in drawing.sheet().tiles:
        assert tile.image.width / tile.image.height == pytest.approx(size[1] / size[0], rel=0.02)


@pytest.mark.parametrize("size", [(90, 140), (140, 90)], ids=str)
def test_what_was_not_seen_is_pale(size: tuple[int, int]) -> None:
    drawing = heatmap(torch.ones(1, 56, 56), seen=picture_view(*size))
    spread = drawing.spread(size[::-1])
    left, top, right, bottom = (round(edge) for edge in drawing.picture.box)
    inside = np.zeros(size, bool)
    inside[top:bottom, left:right] = True
    assert np.array_equal(~np.isnan(spread), inside) and 0 < inside.sum() < inside.size
    map_, overlay = np.asarray(drawing.map_image()), np.asarray(drawing.overlay())
    assert (map_[~inside] == 225).all() and (overlay[~inside] >= 150).all()


@pytest.mark.parametrize(
    "size", [(28, 28), (28, 60), (75, 50), (120, 300), (300, 120), (451, 300), (600, 599)], ids=str
)
@pytest.mark.parametrize("fit", [Fit((28, 28), 28), Fit((96, 96), 110), Fit((64, 96), 110)], ids=str)
def test_values_land_where_the_network_saw_them(size: tuple[int, int], fit: Fit) -> None:
    seen = picture_view(*size, fit=fit)
    scaled = [int(fit.resize * side / min(size)) for side in size]
    for down, along in ((0.1, 0.9), (0.5, 0.4), (0.85, 0.2)):
        position = int(down * fit.size[0]), int(along * fit.size[1])
        values = torch.zeros(1, *fit.size)
        values[0, position[0], position[1]] = 1
        spread = np.nan_to_num(heatmap(values, seen=seen).spread(size[::-1]))
        for axis in (0, 1):
            ratio = size[axis] / scaled[axis]
            expected = (round((scaled[axis] - fit.size[axis]) / 2) + position[axis] + 0.5) * ratio - 0.5
            profile = spread.sum(1 - axis)
            found = (profile * np.arange(size[axis])).sum() / profile.sum()
            assert abs(found - expected) <= max(1, ratio / 2), (position, axis)


def test_the_whole_extent_of_values_is_said() -> None:
    values = torch.linspace(-0.25, 12.5, 56 * 56).view(1, 56, 56)
    caption = heatmap(values).sheet().tiles[1].caption
    assert caption == "score, from −0.25 to 12.5"
    values[0, 0, 0] = -123456
    assert heatmap(values).sheet().tiles[1].caption == "score, from −123,456 to 12.5"
    assert heatmap(values, signed=True).scale.labels == ("≤ −12.2", "≥ 12.2"), "the colours end before the outlier"


def test_maps_to_be_compared_share_their_scale() -> None:
    maps = [heatmap(torch.rand(1, 56, 56) * factor, signed=True) for factor in (1, 5, 0.1)]
    shared = [each.compared_with([other for other in maps if other is not each]) for each in maps]
    limits = {(each.scale.low, each.scale.high) for each in shared}
    assert limits == {(-maps[1].scale.high, maps[1].scale.high)} and 4.5 < maps[1].scale.high <= 5
    assert all(each.sheet().tiles[1].caption.endswith(", on a shared scale") for each in shared)
    assert all("shared" not in each.sheet().tiles[1].caption for each in maps)
    assert all(torch.equal(each.values, old.values) for each, old in zip(shared, maps, strict=True))


def test_a_projection_shows_zero_as_grey() -> None:
    values = torch.zeros(3, 56, 56)
    values[0, :28], values[2, 28:] = 2, -1
    pixels = np.asarray(heatmap(values, projects=True).projection()).astype(int)
    assert abs(pixels[10, 10] - [255, 128, 128]).max() <= 1 and abs(pixels[40, 40] - [128, 128, 64]).max() <= 1


@pytest.mark.parametrize("size", [(3, 4000), (4000, 3), (1, 900), (2, 2), (1, 1)], ids=str)
def test_very_long_and_very_small_pictures_are_drawn(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = heatmap(seen=picture_view(*size, fit=Fit((8, 8), 8)))
    assert drawing.overlay().size == size[::-1]
    with watched(monkeypatch) as ink:
        image = drawing.render()
    assert ink.mistakes(image) == []


# Colours


@pytest.mark.parametrize("name", colours.NAMES)
def test_colour_tables_have_256_rows(name: str) -> None:
    table = colours.table(name)
    assert table.shape == (256, 3) and table.dtype == np.uint8
    assert len(np.unique(table, axis=0)) > 200


def lightness(name: str) -> np.ndarray:
    return rgb2lab(colours.table(name)[None] / 255)[0, :, 0]


def test_fire_grows_evenly_from_dark_to_light() -> None:
    levels = lightness("fire")
    assert levels[0] < 12 and levels[-1] > 88
    assert np.diff(levels).min() > -0.15, "8-bit rounding aside"
    steps = levels[16::16] - levels[:-16:16][: len(levels[16::16])]
    assert steps.min() > 0 and steps.max() / steps.min() < 3
    lab = rgb2lab(colours.table("fire")[None] / 255)[0]
    distances = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert distances.max() < 4 * np.median(distances), "no edge where the numbers have none"


def test_polar_is_as_light_on_both_sides_and_white_in_the_middle() -> None:
    table, levels = colours.table("polar").astype(int), lightness("polar")
    assert levels[127:129].min() > 95 and np.abs(table[127:129] - 255).max() < 20
    assert np.diff(levels[:128]).min() > -0.15 and np.diff(levels[128:]).max() < 0.15
    assert np.abs(levels - levels[::-1]).max() < 8
    assert table[0, 2] > table[0, 0] + 80 and table[-1, 0] > table[-1, 2] + 80, "blue below zero, red above"


def test_grey_is_linear_and_jet_is_the_old_rainbow() -> None:
    assert (colours.table("grey") == np.arange(256)[:, None]).all()
    t = 4 * np.linspace(0, 1, 256)
    parts = [np.minimum(t - 1.5, 4.5 - t), np.minimum(t - 0.5, 3.5 - t), np.minimum(t + 0.5, 2.5 - t)]
    expected = np.rint(255 * np.clip(parts, 0, 1)).T
    assert np.abs(colours.table("jet") - expected).max() <= 1


def test_values_are_painted_between_the_ends() -> None:
    values = np.array([[-9.0, -1, 0, 1, 9]])
    table = colours.table("polar")
    assert (colours.paint(values, -1, 1, "polar")[0] == table[[0, 0, 128, 255, 255]]).all()
    with pytest.raises(OptionError, match="no colour map 'firee'; nearest: 'fire'"):
        colours.table("firee")


# Sheets


class Ink:
    """Where every text and every image was put."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, Box]] = []
        self.images: list[tuple[Image.Image, Box]] = []
        self.lost: list[str] = []

    def mistakes(self, canvas: Image.Image) -> list[str]:
        wrong = [f"{text!r} is painted beyond the canvas" for text in self.lost]
        wrong += [
            f"{what!r} at {box} is outside {canvas.size}"
            for what, box in [*self.texts, *((image.size, box) for image, box in self.images)]
            if min(box) < 0 or box[2] > canvas.width or box[3] > canvas.height
        ]
        pieces = [*self.texts, *((f"image {image.size}", box) for image, box in self.images)]
        for (one, a), (other, b) in itertools.combinations(pieces, 2):
            if min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 1:
                wrong.append(f"{one!r} at {a} overlaps {other!r} at {b}")
        return wrong

    @property
    def letters(self) -> list[str]:
        return sorted("".join("".join(text.split()) for text, _ in self.texts))


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ink]:
    """Watch what is drawn; all of it is drawn all the same."""
    ink, text, paste = Ink(), ImageDraw.ImageDraw.text, Image.Image.paste

    def watched_text(self: Any, xy: Any, words: str, *arguments: Any, **options: Any) -> None:
        if words.strip():
            box = self.textbbox(xy, words, font=options["font"], anchor=options.get("anchor"))
            ink.texts.append((words, box))
            if box[2] > self.im.size[0] or box[3] > self.im.size[1]:
                ink.lost.append(words)
        text(self, xy, words, *arguments, **options)

    def watched_paste(self: Any, image: Any, box: Any = None, *arguments: Any) -> None:
        if isinstance(image, Image.Image) and isinstance(box, tuple):
            ink.images.append((image, (*box[:2], box[0] + image.width, box[1] + image.height)))
        paste(self, image, box, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", watched_text)
        patch.setattr(Image.Image, "paste", watched_paste)
        yield ink


words = st.lists(st.text("aWil.-é", min_size=1, max_size=30), max_size=60).map(" ".join) | st.just("")
names_ = st.text("abcW il", max_size=30)
sizes = st.tuples(st.integers(16, 130), st.integers(16, 130))
tiles = st.builds(lambda size, caption: Tile(Image.new("RGB", size, "teal"), caption), sizes, names_)


@st.composite
def some_sheets(draw: st.DrawFn) -> Sheet:
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    cells = tuple(tuple(draw(tiles | st.none()) for _ in range(columns)) for _ in range(rows))
    cells = ((draw(tiles), *cells[0][1:]), *cells[1:])
    heads = tuple(draw(names_) for _ in range(columns)) if draw(st.booleans()) else ()
    labels = tuple(draw(names_) for _ in range(rows)) if draw(st.booleans()) else ()
    return Sheet(draw(words), cells, draw(words), draw(words), heads, labels)


def expected_letters(sheet: Sheet) -> list[str]:
    captions = [tile.caption for tile in sheet.tiles]
    parts = [sheet.title, sheet.subtitle, sheet.note, *sheet.columns, *sheet.labels, *captions]
    return sorted("".join("".join(part.split()) for part in parts))


def test_no_text_is_cut_or_overlaps_on_any_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    @given(some_sheets())
    @thorough
    def check(sheet: Sheet) -> None:
        with watched(monkeypatch) as ink:
            image = layout.paint(sheet)
        assert ink.mistakes(image) == []
        assert ink.letters == expected_letters(sheet)
        assert [each.size for each, _ in ink.images] == [tile.image.size for tile in sheet.tiles]

    check()


@pytest.mark.parametrize("font", [None, 7.0])
def test_no_text_is_cut_or_overlaps_on_any_paper(font: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sheet is as wide as its paper, or the refusal says a width at which it has room."""

    @given(some_sheets(), st.floats(0.5, 8), st.integers(1, 4) | st.none(), st.booleans())
    @settings(thorough, max_examples=25)
    def check(sheet: Sheet, width: float, columns: int | None, titles: bool) -> None:
        paper = Paper(width, font, columns=columns, titles=titles)
        try:
            page = layout.arranged(*rearranged(sheet, paper), paper=paper)
        except OptionError as error:
            wide = re.search(r"([\d.]+)in would do", str(error))
            assert wide and float(wide[1]) > width
            paper = replace(paper, width=float(wide[1]))
            page = layout.arranged(*rearranged(sheet, paper), paper=paper)
        assert page.width / page.per_inch == pytest.approx(paper.width)
        with watched(monkeypatch) as ink:
            image = painting.paint(page)
        assert ink.mistakes(image) == []
        shown = sheet if titles else replace(sheet, title="", subtitle="", note="")
        assert ink.letters == expected_letters(shown) or columns is not None  # bands repeat labels

    check()


@pytest.mark.parametrize("text", ["W" * 4000, "Wmmmmmmmmmmmmm " * 60, "a b " * 700, "line\n" * 50, "x" * 79], ids=len)
@pytest.mark.parametrize("where", ["title", "subtitle", "note"])
def test_long_texts_wrap(text: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"title": "Title", "subtitle": "", "note": "", where: text}
    sheet = Sheet(
        parts["title"], ((Tile(Image.new("RGB", (90, 60), "teal"), "caption"),),), parts["subtitle"], parts["note"]
    )
    with watched(monkeypatch) as ink:
        image = layout.paint(sheet)
    assert ink.mistakes(image) == [] and ink.letters == expected_letters(sheet)
    assert image.width == 360 + 40


@pytest.mark.parametrize(
    ("word", "lines"),
    [
        ("Grad-CAM", ["Grad-", "CAM"]),
        ("features.10.squeeze", ["features.", "10.", "squeeze"]),
        ("n0144_tench", ["n0144_", "tench"]),
        ("Occlusion-2", ["Occlusi", "on-2"]),
        ("a-b", ["a-b"]),
    ],
)
def test_words_that_are_too_wide_break_behind_a_mark(word: str, lines: list[str]) -> None:
    width = max(typesetting.length(line, "caption") for line in lines)
    assert typesetting.wrap(word, "caption", width) == lines


@pytest.mark.parametrize(("short", "lines"), [(0, 1), (1, 2)])
def test_ends_of_a_scale_stand_in_one_line_where_they_fit(short: int, lines: int) -> None:
    scale = Scale("fire", 0, 0.158)
    width = math.ceil(sum(typesetting.length(end, "caption") for end in scale.labels)) + layout.GAP - short
    words = layout.arranged(Sheet("T", ((Tile(Image.new("RGB", (width, 40)), scale=scale),),))).items
    tops = {item.y for item in words if isinstance(item, typesetting.Words) and item.text in scale.labels}
    assert len(tops) == lines


@pytest.mark.parametrize("width", [24, 60, 120, 400])
def test_scales_fit_below_their_tiles(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scales = (Scale("polar", -0.00123, 0.00123, "score", True, True), Scale("fire", 0, 123456, "score per pixel"))
    tiles_ = tuple(Tile(Image.new("RGB", (width, 40), "teal"), "from −1 to 1", scale) for scale in scales)
    with watched(monkeypatch) as ink:
        image = layout.paint(Sheet("Title", (tiles_, tiles_), scale=scales[0]))
    assert ink.mistakes(image) == []
    drawn = " ".join(text for text, _ in ink.texts)
    assert "≤ −0.00123" in drawn and "≥ 0.00123" in drawn and "123,456" in drawn


def test_tiles_are_pasted_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 30, 47, 3), np.uint8)
    sheet = Sheet("T", tuple(tuple(Tile(Image.fromarray(one)) for one in pixels[i : i + 3]) for i in (0, 3)))
    painted = np.asarray(layout.paint(sheet))
    windows = np.lib.stride_tricks.sliding_window_view(painted, (30, 47, 3))[:, :, 0]
    for one in pixels:
        assert (windows[:, :, 0, 0] == one[0, 0]).all(-1).any()
        ys, xs = np.nonzero((windows[:, :, 0, 0] == one[0, 0]).all(-1))
        assert sum(np.array_equal(windows[y, x], one) for y, x in zip(ys, xs, strict=True)) == 1


def test_a_sheet_of_500_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(
        tuple(Tile(Image.new("RGB", (34, 30), (row * 10, column * 8, 80)), f"{row},{column}") for column in range(25))
        for row in range(20)
    )
    sheet = Sheet("Five hundred", rows, labels=tuple(f"row {row}" for row in range(20)))
    with watched(monkeypatch) as ink:
        image = layout.paint(sheet)
    assert len(ink.images) == 500 and ink.letters == expected_letters(sheet)
    boxes = np.array([box for _, box in [*ink.images, *ink.texts]])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= image.size).all()
    assert image.width >= 25 * 34 and image.height >= 20 * 45
    starts = {box[:2] for _, box in ink.images}
    assert len(starts) == 500


def test_html_escapes_what_is_written() -> None:
    tile = Tile(Image.new("RGB", (4, 4)), "<b>'\"&", Scale("fire", 0, 1, "<i>"))
    html = sheet_html.to_html(Sheet("<script>", ((tile, None),), "<u>", "<p>", ("<h>", ""), ("<l>",)))
    for text in ("<script>", "<b>", "<i>", "<u>", "<h>", "<l>"):
        assert text not in html
    assert "--columns:2;--label:7rem" in html, "what tiles need to know to fit the page beside their labels"
    assert "&lt;script&gt;" in html and html.count("<table") == html.count("</table>") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (-0.0, "0"), (1, "1"), (0.12345, "0.123"), (-2.5, "−2.5"), (1234.5, "1,234"), (-123456, "−123,456"),
        (999.7, "1,000"), (-999.6, "−1,000"), (1e-7, "1e−07"), (2.5e9, "2.5e+09"), (999.4, "999"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_readers(value: float, text: str) -> None:
    assert number(value) == text


@given(st.tuples(st.integers(1, 900), st.integers(1, 900)), st.sampled_from([100, 400]))
@thorough
def test_enlarged_images_keep_their_aspect_and_small_ones_their_pixels(size: tuple[int, int], side: int) -> None:
    image = Image.new("RGB", size)
    result = enlarged(image, side)
    assert max(result.size) <= side
    if max(size) <= side:
        assert result.width % size[0] == 0 and result.width // size[0] == result.height // size[1] >= 1
    else:
        assert max(result.size) == side
        assert (
            abs(result.width - size[0] * side / max(size)) <= 1 and abs(result.height - size[1] * side / max(size)) <= 1
        )


@pytest.mark.parametrize(("count", "across"), [(1, 1), (5, 5), (6, 3), (12, 6), (16, 8), (21, 7), (24, 8), (64, 8)])
def test_a_block_has_full_rows_where_it_can(count: int, across: int) -> None:
    tiles = [Tile(Image.new("RGB", (4, 4)), str(i)) for i in range(count)]
    rows = in_rows(tiles)
    assert {len(row) for row in rows} == {across}
    assert [tile.caption for row in rows for tile in row] == [str(i) for i in range(count)]


def test_a_block_that_cannot_have_full_rows_is_wide_and_whole() -> None:
    rows = in_rows([Tile(Image.new("RGB", (4, 4)), str(i)) for i in range(31)])
    assert [len(row) for row in rows] == [8, 8, 8, 7]


def test_images_side_by_side_are_all_there() -> None:
    images = [Image.new("RGB", (10, 6), colour) for colour in ("red", "lime", "blue")]
    block = side_by_side(images)
    assert {colour for _, colour in block.getcolors()} == {(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)}
    assert side_by_side(images[:1]) is images[0]


def test_the_texts_of_a_bar_end_where_it_ends_also_above_a_wider_tile() -> None:
    narrow = Tile(Image.new("RGB", (200, 40), "white"), scale=Scale("fire", 0.0, 1.0))
    image = layout.paint(Sheet("", ((narrow,), (Tile(Image.new("RGB", (500, 40), PAPER)),))))
    paper = np.asarray(image)[0, 0]
    right = np.flatnonzero((np.asarray(image) != paper).any((0, 2))).max()
    assert right < image.width - 200, "its highest number is below its end"


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (100_000, 2), (60_000, 60)])
@pytest.mark.parametrize("projects", [False, True])
def test_a_long_picture_is_drawn_around_what_was_seen(
    size: tuple[int, int], projects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, drawn as fine as the map, would have a pixel of the map for each of its own."""
    most = max(40 * 56 * 56, size[0] * size[1])
    new, interpolate = Image.new, torch.nn.functional.interpolate

    def watched(mode: str, extent: tuple[int, int], *colour: Any) -> Image.Image:
        assert extent[0] * extent[1] <= most
        return new(mode, extent, *colour)

    def spread(*values: Any, size: tuple[int, int], **options: Any) -> Tensor:
        assert size[0] * size[1] <= most
        return interpolate(*values, size=size, **options)

    seen = prepare(Image.new("L", size, 99), Preprocessing(Fit((56, 56), 56)))
    values = torch.zeros(3 if projects else 1, 56, 56)
    values[:, 28:] = 1  # the lower half
    monkeypatch.setattr(Image, "new", watched)
    monkeypatch.setattr(torch.nn.functional, "interpolate", spread)
    drawing = heatmap(values, seen=seen, projects=projects)
    (tiles,) = drawing.sheet().rows
    assert len({tile.image.size for tile in tiles if tile}) == 1
    shown = tiles[0].image  # type: ignore[union-attr]
    assert 3.5 <= max(shown.size) / min(shown.size) <= 6
    assert "its middle shown" in tiles[0].caption  # type: ignore[union-attr]
    map_ = np.asarray(tiles[2 if projects else 1].image, float)  # type: ignore[union-attr]
    row, column = map_.shape[0] // 2, map_.shape[1] // 2
    assert np.abs(map_[row + 3, column] - map_[row - 4, column]).max() > 50
    assert replace(drawing, overlay_only=True).overlay().size == size


def test_a_map_of_a_small_part_keeps_its_gradation() -> None:
    values = torch.zeros(1, 192, 192)
    values[0, 40:62, 50:72] = torch.linspace(0.1, 6.5, 22 * 22).view(22, 22)  # 1.3 % of the picture hold all of it
    values += 0.001 * torch.rand(1, 192, 192, generator=torch.Generator().manual_seed(0))
    scale = heatmap(values).scale
    assert scale.high > 4 and float((values > scale.high).float().mean()) < 0.005
    values[0, 0, 0] = 1e6
    assert heatmap(values).scale.high < 7, "one pixel of 37,000 is an outlier, however large"
