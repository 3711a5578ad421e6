"""Figures for papers: one layout in PNG, PDF and SVG, texts as text, and recipes in all of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
import resvg_py
import torch
from fontTools.ttLib import TTFont
from matplotlib.backends import _backend_pdf_ps
from PIL import Image, ImageFilter

import convscope as cs
from convscope import checks
from convscope.cli import run
from convscope.commands.layers import layer_table
from convscope.drawing import fonts, painting, svg
from convscope.drawing.base import Drawing
from convscope.drawing.drawings import Picture
from convscope.drawing.files import read_recipe
from convscope.drawing.paper import SCREEN, Paper
from convscope.drawing.rearranging import rearranged
from convscope.drawing.typesetting import Block
from convscope.errors import OptionError, PictureError, RecipeError
from networks import pictures, tiny

PDF_FONT = b"/CIDFontType2"
PART = _backend_pdf_ps.get_glyphs_subset


@cache
def network() -> cs.Net:
    return tiny("sequential", dtype=torch.float32)


@cache
def photo() -> Image.Image:
    pixels = (pictures(1, dtype=torch.float32)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((90, 60))


@cache
def saliency() -> cs.Heatmap:
    return cs.explain(network(), photo(), "saliency")


def with_outlier() -> cs.Heatmap:
    values = saliency().values.repeat_interleave(2, 1).repeat_interleave(2, 2)  # of 400 pixels, one would not be rare
    values[0, 3, 3] = 100 * values.abs().max()
    return replace(saliency(), values=values)


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "saliency": saliency,
    "guided": lambda: cs.explain(network(), photo(), "guided_backprop"),
    "grad_cam": lambda: cs.explain(network(), photo(), "grad_cam"),
    "outlier": with_outlier,
    "long texts": lambda: replace(saliency(), title="Wide words " * 12, note="What a reader must know. " * 20),
    "other scripts": lambda: replace(saliency(), title="Кошка, Γάτα $5_a$ 0.3"),
    "overlay": lambda: replace(saliency(), overlay_only=True),
    "jet": lambda: replace(saliency(), cmap="jet"),
    "picture": lambda: Picture(torch.rand(3, 40, 30), title="A picture"),
    "maps": lambda: cs.maps(network(), photo(), layer="0"),
    "maps of a batch": lambda: cs.maps(network(), [photo(), photo().rotate(90)], layer="3", top=3),
    "project": lambda: cs.project(network(), photo(), layer="1", top=3),
    "reconstruct": lambda: cs.reconstruct(network(), photo(), layers=["1"]),
    "filters": lambda: cs.filters(network()),
    "compare": lambda: cs.compare(network(), photo(), methods=["saliency", "grad_cam"]),
    "methods by layers": lambda: cs.compare(network(), photo(), methods=["grad_cam"], layers=["0", "3"]),
    "hidden": lambda: cs.hidden_gradients(network(), photo(), layers=["0", "3"]),
    "segment": lambda: cs.segment(network(), photo(), method="grad_cam"),
    "occlusion study": lambda: cs.occlusion_study(network(), photo(), patch=8, stride=6),
    "invariance": lambda: cs.invariance(network(), [photo(), photo().rotate(90)], steps=3),
    "correspondence": lambda: cs.correspondence(network(), [photo(), photo().rotate(90)], draws=2),
    "class model": lambda: cs.class_model(network(), of=1, steps=2),
    "layers": lambda: layer_table(network()),
    "curves": lambda: checks.curves(network(), [saliency()], steps=3),
    "cascades": lambda: checks.cascades(network(), [saliency()], stages=2),
}


@cache
def usual_part(file: Any) -> tuple[set[int], Any]:
    """The glyphs of usual letters in a font, and the part of it that has these; it stays open."""
    with TTFont(file) as font:
        known = font.getBestCmap()
        glyphs = {font.getGlyphID(known[ord(letter)]) for letter in svg._USUAL if ord(letter) in known}
    return glyphs, PART(file, glyphs).__enter__()


@pytest.fixture
def fonts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let matplotlib part DejaVu once for all PDFs: that takes longer than everything else together."""

    def parted(file: Any, glyphs: Any) -> Any:
        shared, result = usual_part(file)
        return nullcontext(result) if set(glyphs) <= shared else PART(file, glyphs)

    monkeypatch.setattr(_backend_pdf_ps, "get_glyphs_subset", parted)


def from_pdf(content: bytes, size: tuple[int, int]) -> Image.Image:
    (page,) = pypdfium2.PdfDocument(content)
    assert abs(page.get_width() / size[0] - page.get_height() / size[1]) < 0.01
    return page.render(scale=size[0] / page.get_width()).to_pil().convert("RGB").crop((0, 0, *size))


def from_svg(content: bytes, per_inch: float) -> Image.Image:
    faces = [str(fonts.dejavu()), str(fonts.dejavu(bold=True)), *map(str, fonts._packaged())]
    made = resvg_py.svg_to_bytes(content.decode(), dpi=per_inch, font_files=faces, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(made))).convert("RGB")


def apart(one: Image.Image, other: Image.Image) -> int:
    """How many pixels of clear ink have none of the other image's, however pale, within 2 pixels."""
    inks = [255 - np.asarray(image.convert("RGB"), int).min(-1) for image in (one, other)]
    near = [np.asarray(Image.fromarray((ink > 20).astype(np.uint8)).filter(ImageFilter.MaxFilter(5))) for ink in inks]
    return int(((inks[0] > 60) & ~near[1].astype(bool)).sum() + ((inks[1] > 60) & ~near[0].astype(bool)).sum())


@pytest.mark.usefixtures("fonts_once")
@pytest.mark.parametrize("name", DRAWINGS)
def test_png_pdf_and_svg_have_one_layout(name: str, tmp_path: Path) -> None:
    """Rendered by others' programs, no ink is farther than 2 pixels from that of the PNG; tiles have its colours."""
    drawing = DRAWINGS[name]()
    png, pdf, vector = (drawing.save(tmp_path / f"x.{ending}").read_bytes() for ending in ("png", "pdf", "svg"))
    painted = Image.open(io.BytesIO(png)).convert("RGB")
    for other in (from_pdf(pdf, painted.size), from_svg(vector, 100)):
        assert other.size == painted.size
        assert apart(painted, other) == 0
        coarse = [np.asarray(image.reduce(8), int) for image in (painted, other)]
        assert np.abs(coarse[0] - coarse[1]).mean() < 4  # of 255; noise moved by a pixel
    assert read_recipe(tmp_path / "x.pdf") == read_recipe(tmp_path / "x.svg") == read_recipe(tmp_path / "x.png")
    if drawing.page(SCREEN).items[1:]:  # not a picture alone
        assert PDF_FONT in pdf and b"/Type3" not in pdf


def test_texts_are_texts_in_pdf_and_svg(tmp_path: Path) -> None:
    drawing = replace(DRAWINGS["other scripts"](), note="แมว and หมา")  # type: ignore[type-var]
    (page,) = pypdfium2.PdfDocument(drawing.save(tmp_path / "x.pdf").read_bytes())
    text, vector = page.get_textpage().get_text_range(), drawing.save(tmp_path / "x.svg").read_text()
    for words in ("Кошка, Γάτα $5_a$ 0.3", "score per unit of pixel", "over the picture"):
        assert words in text and f">{words}</text>" in vector
    assert "แมว" in text and "แมว" in vector
    assert "@font-face" in vector and "http" not in vector.replace("http://www.w3.org/2000/svg", "")


def test_a_clipped_scale_is_marked_in_every_format(tmp_path: Path) -> None:
    drawing = with_outlier()
    (page,) = pypdfium2.PdfDocument(drawing.save(tmp_path / "x.pdf").read_bytes())
    end = next(text for text in drawing.scale.labels if text.startswith("≥ "))
    assert end in page.get_textpage().get_text_range()
    assert f">{end}</text>" in drawing.save(tmp_path / "x.svg").read_text()
    assert end in [text.get_text() for text in drawing.figure().texts]


def test_images_in_a_pdf_are_what_was_painted(tmp_path: Path) -> None:
    """No pixel is lost or blurred: the images inside are those of the tiles."""
    drawing = saliency()
    (page,) = pypdfium2.PdfDocument(drawing.save(tmp_path / "x.pdf").read_bytes())
    images = [item.get_bitmap().to_pil().convert("RGB") for item in page.get_objects() if item.type == 3]
    found = {image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes() for image in images}
    assert {painting.image_of(tile.image).convert("RGB").tobytes() for tile in drawing.sheet().tiles} <= found


@pytest.mark.parametrize("ending", ["pdf", "svg"])
def test_documents_without_a_recipe(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    other = {"pdf": b"%PDF-1.4\n/convscope (unended", "svg": b'<svg><metadata id="convscope">{'}[ending]
    for content, error in ((b"something", PictureError), (other, RecipeError), (b"", PictureError)):
        path.write_bytes(content)
        with pytest.raises(error, match=str(path)):
            read_recipe(path)
    if ending == "svg":
        for inside in (b"no json", b"{}", b'{"convscope": "{}"}', b'{"convscope": 3}', b"\xff"):
            path.write_bytes(b'<svg><metadata id="convscope">' + inside + b"</metadata></svg>")
            with pytest.raises((PictureError, RecipeError)):
                read_recipe(path)


# Papers


def wide() -> cs.Gallery:
    return cs.compare(network(), photo(), methods=["grad_cam"], layers=["0", "3"])


@pytest.mark.parametrize("width", ["3.3in", "83.82mm", "8.382cm", "237.6pt", 3.3])
def test_a_figure_is_as_wide_as_its_column_and_its_letters_as_large_as_asked(width: Any, tmp_path: Path) -> None:
    drawing = saliency()
    figure = drawing.figure(width=width, font=7)
    assert figure.get_figwidth() == pytest.approx(3.3)
    (caption,) = {text.get_fontsize() for text in figure.texts if text.get_text() == "over the picture"}
    assert caption == pytest.approx(7, rel=0.002)
    if width == "3.3in":
        (page,) = pypdfium2.PdfDocument(drawing.save(tmp_path / "x.pdf", width=width, font=7).read_bytes())
        assert page.get_width() / 72 == pytest.approx(3.3)
        assert 'width="3.3in"' in drawing.save(tmp_path / "x.svg", width=width, font=7).read_text()


@pytest.mark.usefixtures("fonts_once")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("outlier", {"width": "3.3in", "font": 7, "titles": False}),
        ("compare", {"width": "84mm", "font": 6, "columns": 2}),
        ("curves", {"width": "3.3in", "font": 7}),
        ("layers", {"width": "6in", "font": 8}),
        ("overlay", {"width": "2in"}),
    ],
)
def test_papers_have_one_layout_too(name: str, options: Any, tmp_path: Path) -> None:
    drawing = DRAWINGS[name]()
    png, pdf, vector = (
        drawing.save(tmp_path / f"x.{ending}", **options).read_bytes() for ending in ("png", "pdf", "svg")
    )
    painted = Image.open(io.BytesIO(png))
    dpi = painted.info["dpi"][0]
    assert dpi >= 299.9 and painted.width / dpi == pytest.approx(Paper.of(**options).width, abs=2 / dpi)
    page = drawing.page(Paper.of(**options))
    small = painted.convert("RGB").resize((page.width, page.height), Image.Resampling.BOX)
    for other in (from_pdf(pdf, small.size), from_svg(vector, page.per_inch)):
        assert apart(small, other) == 0
    assert read_recipe(tmp_path / "x.png").display["paper"] == Paper.of(**options).options


def test_maps_on_a_paper_are_painted_pixel_by_pixel(tmp_path: Path) -> None:
    """The PNG is as fine as shows each pixel of a tile once, or a whole number of times: nothing is blurred."""
    drawing = saliency()
    painted = np.asarray(Image.open(drawing.save(tmp_path / "x.png", width="1.6in", font=7)).convert("RGB"))
    page = drawing.page(Paper.of(width="1.6in", font=7))
    first = np.asarray(drawing.sheet().tiles[0].image)
    times = round(painted.shape[1] / page.width / page.sharp)
    block = next(item for item in page.items if isinstance(item, Block))
    x, y = (round(place * painted.shape[1] / page.width) for place in (block.x, block.y))
    inside = painted[y : y + len(first) * times, x : x + first.shape[1] * times]
    assert (np.abs(inside.astype(int) - first.repeat(times, 0).repeat(times, 1)).max(-1) == 0).mean() > 0.95


def test_what_a_paper_leaves_out_and_repeats() -> None:
    def texts(**options: Any) -> list[str]:
        return [text.get_text() for text in wide().figure(**options).texts]

    assert "Grad-CAM" in texts() and any("what made it say" in text for text in texts())
    bare = texts(titles=False)
    assert "Grad-CAM" in bare and not any("what made it say" in text or "Grad-CAM:" in text for text in bare)
    assert texts(columns=1, titles=False).count("3") == 2, "labels stand before every band"
    heights = [saliency().figure(columns=columns, titles=False).get_figheight() for columns in (1, 3)]
    assert heights[0] > 2.5 * heights[1]


def test_maps_of_one_unit_share_a_scale_and_others_do_not() -> None:
    """The tile with the smaller maximum is painted paler, and one bar is left."""
    tiles = [tile for tile in wide().sheet().tiles if tile.scale]
    (shared,) = rearranged(wide().sheet(), Paper(shared_scale=True))
    assert len(tiles) == 2 and shared.scale is not None
    assert shared.scale.high == max(tile.scale.high for tile in tiles if tile.scale)
    assert not any(tile.scale for tile in shared.tiles)
    weaker = min(range(2), key=lambda i: tiles[i].scale.high)  # type: ignore[union-attr]
    together = [tile for tile in shared.tiles if tile.repaint]
    assert np.asarray(together[weaker].image).mean() != np.asarray(tiles[weaker].image).mean()
    assert np.array_equal(np.asarray(together[1 - weaker].image), np.asarray(tiles[1 - weaker].image))
    with pytest.raises(OptionError, match="one scale would compare what cannot be compared"):
        DRAWINGS["compare"]().figure(shared_scale=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": "3.3"}, None),
        ({"width": "wide"}, "width is a length such as 3.3in, 84mm, 8.4cm or 240pt, not 'wide'"),
        ({"width": "0.1in"}, "0.1in is 0.1in: columns of papers"),
        ({"width": True}, "not True"),
        ({"width": float("nan")}, "not nan"),
        ({"width": "1in"}, r"1.00in wide is too narrow for 3 tiles in a row .*: 1.\d\din would do, or fewer columns"),
        ({"font": 1}, "3 to 40"),
        ({"font": "7in"}, "points"),
        ({"columns": 0}, "columns is how many tiles stand in a row, 1 or more, not 0"),
    ],
)
def test_papers_that_are_refused(options: Any, words: str | None, tmp_path: Path) -> None:
    if words is None:
        saliency().figure(**options)
        return
    with pytest.raises(OptionError, match=words):
        saliency().save(tmp_path / "x.pdf", **options)
    assert not list(tmp_path.iterdir())


def test_tables_and_films_say_what_a_paper_cannot_be(tmp_path: Path) -> None:
    table = layer_table(network())
    for options, words in (
        ({"width": "1in"}, r"too narrow for this table's \d columns .* would do"),
        ({"columns": 2}, "this is a table"),
        ({"shared_scale": True}, "this is a table"),
    ):
        with pytest.raises(OptionError, match=words):
            table.save(tmp_path / "x.pdf", **options)
    with pytest.raises(OptionError, match=r"x\.csv is no figure: width"):
        table.save(tmp_path / "x.csv", width="3in")
    with pytest.raises(OptionError, match=r"x\.gif is a film: width"):
        cs.Film.of([saliency()]).save(tmp_path / "x.gif", width="3in")


def test_a_command_sets_figures_for_a_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo().save(tmp_path / "p.png")
    photo().rotate(180).save(tmp_path / "q.png")
    paper = ["--width", "3.3in", "--font", "7", "--no-titles"]
    assert run(["saliency", str(tmp_path / "p.png"), "-o", str(tmp_path / "x.pdf"), *paper]) == 0
    assert run(["show", str(tmp_path / "x.pdf")]) == 0
    assert '"width": 3.3' in capsys.readouterr().out
    folder = ["saliency", str(tmp_path / "p.png"), str(tmp_path / "q.png"), "-o", str(tmp_path / "out")]
    for options, drawn in ((paper, 2), (paper, 0), ([], 2)):
        assert run([*folder, *options]) == 0
        assert f"{drawn} pictures drawn" in capsys.readouterr().err
    assert run(["saliency", str(tmp_path / "p.png"), "-o", str(tmp_path / "y.pdf"), "--width", "3.3yd"]) == 2
    assert "width is a length such as 3.3in" in capsys.readouterr().err
