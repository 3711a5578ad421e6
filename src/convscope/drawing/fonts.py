"""Fonts: which font draws which letter, and how a text is written that none of them draws.

DejaVu, which comes with matplotlib, draws Latin, Greek, Cyrillic, Arabic, Hebrew and many symbols. For other scripts
there are the fonts of the extra `fonts` (Noto's, for Chinese, Japanese, Korean, Devanagari and Thai), then those of
the system. Letters that no font has are written in Latin letters, so that two names never look the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from pkgutil import iter_modules

ADVICE = "pip install 'convscope[fonts]', or install a font such as Noto Sans"

_RIGHT_TO_LEFT = re.compile(
    r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+(?:\s+[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]+)*"
)
FROM_THE_LEFT = "\u200e"
_INDIC, _KHMER = range(0x900, 0x10A0), range(0x1780, 0x1800)
_INVISIBLE = frozenset((0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0xFE0E, 0xFE0F))
_COLOURED = frozenset(("CBDT", "sbix", "COLR", "SVG "))
"""Tables of fonts whose letters are pictures, which Pillow does not scale."""

_TEXTS = 4096
"""Texts of which it is kept how they are drawn; a service draws ever new ones."""

_SCRIPTS = {"CJK": "Chinese characters", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean"}


@dataclass(frozen=True)
class Run:
    """A piece of a line that one font draws; `font` is its file, None for DejaVu."""

    text: str
    font: Path | None = None


@cache
def dejavu(*, bold: bool = False) -> Path:
    """Return the file of the font that matplotlib ships, found without importing matplotlib."""
    spec = find_spec("matplotlib")
    folder = Path(str(spec.origin)).parent / "mpl-data" / "fonts" / "ttf" if spec else Path()
    return folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")


@lru_cache(_TEXTS)
def legible(text: str) -> str:
    """Return a text as it is drawn: letters that no font has in Latin ones, names from right to left kept apart."""
    if plain(text):
        return text
    from anyascii import anyascii

    written = ""
    for drawn, letters in groupby(unicodedata.normalize("NFC", text), key=_is_drawn):
        piece = "".join(letters)
        # What has no sound by itself, such as a hieroglyph, keeps its number.
        written += piece if drawn else anyascii(piece) or " ".join(f"U+{ord(letter):04X}" for letter in piece)
    # Without the mark a number after an Arabic name would be set before it.
    return _RIGHT_TO_LEFT.sub(lambda match: f"{match[0]}{FROM_THE_LEFT}", written)


def missing(text: str) -> list[str]:
    """Name the scripts of the letters that no font draws."""
    return list(dict.fromkeys(_script(letter) for letter in text if not _is_drawn(letter)))


def _is_drawn(letter: str) -> bool:
    return letter.isspace() or _font_of(letter) is not _NONE


def _script(letter: str) -> str:
    if unicodedata.category(letter) in ("So", "Sk", "Cn", "Co"):
        return "emoji or symbols"
    name = unicodedata.name(letter, "").partition(" ")[0]
    return _SCRIPTS.get(name, name.capitalize() or "unknown letters")


@lru_cache(_TEXTS)
def runs(text: str) -> tuple[Run, ...]:
    """Part a line into pieces that one font draws each; letters stay in the order in which they are read."""
    if plain(text):
        return (Run(text),)
    found: list[Run] = []
    for letter in text:
        font = _font_of(letter)
        font = None if font is _NONE else font
        # What only joins or marks belongs to the letter before it.
        joins = ord(letter) in _INVISIBLE or unicodedata.combining(letter) > 0
        if found and (joins or font == found[-1].font):
            found[-1] = Run(found[-1].text + letter, found[-1].font)
        else:
            found.append(Run(letter, font))
    return tuple(found)


@lru_cache(_TEXTS)
def plain(text: str) -> bool:
    """Whether DejaVu draws a text from left to right, letter by letter."""
    return text.isascii() or all(ord(letter) in _letters(dejavu()) and not _is_complex(letter) for letter in text)


@cache
def simple(text: str) -> bool:
    """Whether no letter of a text changes its form or order beside others, whichever fonts draw it."""
    return text.isascii() or not any(map(_is_complex, text))


def _is_complex(letter: str) -> bool:
    """Whether a letter changes its form or order beside others, which takes the library raqm."""
    point = ord(letter)
    return unicodedata.bidirectional(letter) in ("R", "AL", "AN") or point in _INDIC or point in _KHMER


@cache
def shapes() -> bool:
    """Whether Pillow has what sets Arabic, Hebrew and Indic scripts."""
    from PIL import features

    return bool(features.check("raqm"))


_NONE = Path()
"""Stands for no font."""


@cache
def _font_of(letter: str) -> Path | None:
    """Return the file of the font that draws a letter: None for DejaVu, `_NONE` where there is none."""
    point = ord(letter)
    if _is_complex(letter) and not shapes():
        return _NONE
    if point in _letters(dejavu()) or point in _INVISIBLE or unicodedata.category(letter) == "Cc":
        return None
    return next((font for font in _fonts() if point in _letters(font)), _NONE)


@cache
def _fonts() -> tuple[Path, ...]:
    """List the fonts of packages, then those of the system, Noto's first."""
    return (*_packaged(), *_system())


def _packaged() -> Iterator[Path]:
    for module in iter_modules():
        if module.name.startswith("fontpkg_") or module.name == "notojp_matplotlib":
            spec = find_spec(module.name)
            for folder in (spec.submodule_search_locations or ()) if spec else ():
                yield from sorted(path for path in Path(folder).rglob("*") if path.suffix in (".otf", ".ttf"))


def _system() -> list[Path]:
    from matplotlib.font_manager import findSystemFonts

    found = [Path(name) for name in findSystemFonts() if "DejaVu" not in name]
    return sorted(found, key=lambda path: (not path.name.startswith("Noto"), "Regular" not in path.name, path.name))


@cache
def _letters(font: Path) -> frozenset[int]:
    """Return the code points of a font's letters; none of one that cannot be read, or whose letters are pictures."""
    from fontTools.ttLib import TTFont, TTLibError

    try:
        with TTFont(font, fontNumber=0, lazy=True) as file:
            if _COLOURED & set(file.keys()):
                return frozenset()
            return frozenset(file.getBestCmap() or ())
    except (TTLibError, OSError, KeyError, ValueError, AssertionError):
        return frozenset()
