"""Words in any script: drawn by a font that has it, or written in Latin letters and said; never as empty boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope.drawing import figures, fonts, layout, painting, typesetting
from convscope.drawing.layout import Sheet, Tile
from convscope.drawing.typesetting import Page, Words

NAMES = {
    "Chinese": ("猫", "狗"), "Korean": ("고양이", "강아지"), "Japanese": ("ねこ", "いぬ"),
    "Devanagari": ("बिल्ली", "कुत्ता"),
    "Arabic": ("قطة", "كلب"), "Hebrew": ("חתול", "כלב"), "Thai": ("แมว", "หมา"), "Russian": ("кошка", "собака"),
    "Greek": ("γάτα", "σκύλος"), "emoji": ("🐱", "😀"), "rare": ("𓃠", "𓃡"), "Ethiopic": ("ድመት", "ውሻ"),
}  # fmt: skip
HERE = ("Chinese", "Korean", "Japanese", "Devanagari", "Thai", "Arabic", "Hebrew", "Russian", "Greek", "emoji")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any other font than matplotlib's."""
    for function in (fonts._fonts, fonts._font_of, fonts.legible, fonts.runs):
        function.cache_clear()
    monkeypatch.setattr(fonts, "_packaged", lambda: iter(()))
    monkeypatch.setattr(fonts, "_system", list)
    yield
    for function in (fonts._fonts, fonts._font_of, fonts.legible, fonts.runs):
        function.cache_clear()


def ink(text: str, *, bold: bool = False) -> np.ndarray:
    """A line as it is painted."""
    return np.asarray(painting.paint(Page(300, 40, [Words(5, 5, text, "title", bold=bold)])).convert("L"))


def empty_box() -> np.ndarray:
    """What a font shows of letters that it lacks."""
    image = Image.new("L", (40, 40), 255)
    from PIL import ImageDraw

    ImageDraw.Draw(image).text((5, 5), "\U00013000", font=typesetting.font("title"), fill=0)
    rows, columns = np.nonzero(np.asarray(image) < 128)
    return np.asarray(image)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def shows(picture: np.ndarray, piece: np.ndarray) -> bool:
    height, width = piece.shape
    windows = np.lib.stride_tricks.sliding_window_view(picture, (height, width))
    return bool((np.abs(windows.astype(int) - piece) < 40).all((2, 3)).any())


@pytest.mark.parametrize("script", NAMES)
def test_names_of_any_script_are_told_apart_and_are_no_boxes(script: str) -> None:
    one, other = (ink(name) for name in NAMES[script])
    assert not np.array_equal(one, other)
    assert not shows(one, empty_box()) and not shows(other, empty_box())
    assert shows(np.pad(empty_box(), 9, constant_values=255), empty_box()), "a box is found where there is one"
    drawn = all(fonts.missing(name) == [] for name in NAMES[script])
    assert drawn or script not in HERE


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("script", "latin", "said"),
    [
        ("Chinese", "Mao", "Chinese characters"),
        ("Korean", "GoYangI", "Korean"),
        ("Japanese", "neko", "Japanese"),
        ("Devanagari", "billi", "Devanagari"),
    ],
)
def test_without_a_font_names_are_written_in_latin_letters_and_it_is_said(script: str, latin: str, said: str) -> None:
    name = NAMES[script][0]
    assert fonts.legible(name) == latin
    assert np.array_equal(ink(name), ink(latin))
    page = layout.arranged(Sheet(name, ((Tile(Image.new("RGB", (90, 90)), f"{name}, 0.31"),),), note="as it was"))
    words = " ".join(item.text for item in page.items if isinstance(item, Words))
    assert "as it was" in words and f"No font here has {said}: written in Latin letters;" in words


def test_what_is_drawn_needs_no_word() -> None:
    page = layout.arranged(Sheet("кошка 猫", ((Tile(Image.new("RGB", (90, 90)), "γάτα − 3 · ≥ 2 × 4"),),)))
    assert not any("font" in item.text for item in page.items if isinstance(item, Words))


@pytest.mark.parametrize("name", ["قطة سوداء", "חתול שחור"])
def test_a_number_after_a_name_from_right_to_left_stays_behind_it(name: str) -> None:
    """By itself the order of writing would set it before the name: the line begins as the name alone does."""
    alone, together = ink(name), ink(f"{name}, 0.31")
    end = int(np.nonzero((alone < 128).any(0))[0].max())
    assert np.array_equal(alone[:, : end + 1], together[:, : end + 1])
    assert (together[:, end + 2 :] < 128).any()


def test_lines_are_measured_as_they_are_drawn() -> None:
    for text in ("猫 and 狗: 0.3", "고양이", "बिल्ली 2", "plain", "قطة, 0.31"):
        columns = np.nonzero((ink(text) < 200).any(0))[0]
        assert columns.max() - 5 == pytest.approx(typesetting.length(text, "title"), abs=5)
    lines = typesetting.wrap("猫" * 60, "caption", 200)
    assert len(lines) > 2 and all(typesetting.length(line, "caption") <= 200 for line in lines)
    assert "".join(lines) == "猫" * 60


@pytest.mark.parametrize("anchor", ["la", "ma", "ra", "lm"])
def test_another_script_stands_where_latin_would(anchor: str) -> None:
    """The baseline and the side are those of the line, whichever font draws it."""

    def box(text: str) -> tuple[int, int, int, int]:
        page = Page(200, 60, [Words(100, 20, text, "title", anchor=anchor)])
        return Image.eval(painting.paint(page).convert("L"), lambda v: 255 * (v < 128)).getbbox()  # type: ignore[return-value]

    latin, mixed = box("H"), box("H猫")
    assert abs(latin[3] - mixed[3]) <= 4 and abs(latin[1] - mixed[1]) <= 4
    middle = [(left + right) / 2 for left, _, right, _ in (latin, mixed)]
    assert {"l": latin[0] == mixed[0], "m": abs(middle[0] - middle[1]) <= 2, "r": abs(latin[2] - mixed[2]) <= 2}[
        anchor[0]
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ending", ["pdf", "svg", "png"])
def test_figures_for_papers_show_them_too(ending: str, tmp_path: Path) -> None:
    """Nothing is said of missing glyphs, and the page looks like the painted one."""

    def page(name: str) -> Page:
        return Page(200, 50, [Words(10, 10, f"{name} 0.31", "title"), Words(190, 30, name, "caption", anchor="ra")])

    for name in ("猫", "قطة", "बिल्ली"):
        figures.figure(page(name)).savefig(tmp_path / f"a.{ending}")
        figures.figure(page("")).savefig(tmp_path / f"b.{ending}")
        assert (tmp_path / f"a.{ending}").read_bytes() != (tmp_path / f"b.{ending}").read_bytes()
        if ending == "png":
            drawn = np.asarray(Image.open(tmp_path / "a.png").convert("L")) < 160
            painted = np.asarray(painting.paint(page(name)).convert("L")) < 160
            for end in (np.min, np.max):
                assert np.abs(end(np.argwhere(drawn), 0) - end(np.argwhere(painted), 0)).max() < 4


def test_odd_letters_are_no_error() -> None:
    for text in ("\udc80", "a\u0301", "\x07", "👨\u200d👩", "\ufeff", "", "\u200e", "é" * 3):
        assert typesetting.length(text, "caption") >= 0
        ink(text)
