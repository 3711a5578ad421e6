"""SVG: a page as a drawing of its own texts, images and lines, the letters that it needs inside."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from html import escape
from pathlib import Path

from . import fonts, painting
from .typesetting import SIZES, Block, Box, Item, Page, Plot, Words, direction, font

_USUAL = "".join(map(chr, range(32, 127))) + "·×−≥≤–—…±→ρ°é"
"""Letters that a font inside always has, so that many drawings share one."""

META = '<metadata id="convscope">'
"""What begins the texts about a drawing, as JSON."""


def text_of(page: Page, title: str, meta: Mapping[str, str]) -> str:
    """Write a page as an SVG document, with texts about it by name."""
    width, height = (f"{side / page.per_inch:.6g}in" for side in (page.width, page.height))
    about = escape(json.dumps(dict(meta)), quote=False)
    parts = [_of(item) for item in page.items]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {page.width} {page.height}">\n'
        f"<title>{escape(title, quote=False)}</title>\n{META}{about}</metadata>\n"
        f"<style>{_faces(page.items)}</style>\n"
        f'<rect width="{page.width}" height="{page.height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _of(item: Item) -> str:
    if isinstance(item, Words):
        return _words(item)
    if isinstance(item, Block):
        return _image(item)
    if isinstance(item, Box):
        return _box(item)
    return "\n".join(_strokes(item))


def _image(block: Block) -> str:
    buffer = io.BytesIO()
    image = block.image.convert("RGB")
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    width, height = block.extent
    sharp = ' style="image-rendering:pixelated"' if painting.repeats(image) else ""
    return (
        f'<image x="{block.x:.6g}" y="{block.y:.6g}" width="{width:.6g}" height="{height:.6g}" '
        f'preserveAspectRatio="none"{sharp} href="data:image/png;base64,{data}"/>'
    )


def _box(box: Box) -> str:
    if box.filled:
        where = f'x="{box.x:.6g}" y="{box.y:.6g}" width="{box.width:.6g}" height="{box.height:.6g}"'
        return f'<rect {where} fill="{box.colour}"/>'
    # An outline is drawn inside the rectangle, as in pixels.
    where = f'x="{box.x + 0.5:.6g}" y="{box.y + 0.5:.6g}" width="{box.width - 1:.6g}" height="{box.height - 1:.6g}"'
    return f'<rect {where} fill="none" stroke="{box.colour}"/>'


def _strokes(plot: Plot) -> list[str]:
    look = f'fill="none" stroke-width="{painting.STROKE}" stroke-linejoin="round"'
    return [
        f'<polyline {look} stroke="{line.colour}" points="{" ".join(f"{x:.6g},{y:.6g}" for x, y in stroke)}"/>'
        for line in plot.lines
        for stroke in plot.strokes(line)
    ]


def _words(words: Words) -> str:
    """Write a line as text, each piece in its font and as wide as it was measured."""
    x, y, size = painting.left(words), painting.baseline(words), SIZES[words.kind] * words.scale
    pieces: list[str] = []
    for run in fonts.runs(fonts.legible(words.text)):
        face = font(words.kind, words.bold, run.font, words.scale)
        width = face.getlength(run.text, direction=direction(run.text))
        fitted = f' textLength="{width:.6g}" lengthAdjust="spacingAndGlyphs"' if width else ""
        pieces.append(
            f'<text x="{x:.6g}" y="{y:.6g}" font-size="{size:.6g}" {_family(run.font, bold=words.bold)} '
            f'fill="{words.colour}" xml:space="preserve"{fitted}>{escape(_clean(run.text), quote=False)}</text>'
        )
        x += width
    return "\n".join(pieces)


def _family(file: Path | None, *, bold: bool) -> str:
    """Name the font of a piece: that of the file inside first, then what looks like it."""
    if file is not None:
        return f"font-family=\"'{_name(file)}', sans-serif\""
    weight = ' font-weight="bold"' if bold else ""
    return f"font-family=\"'DejaVu Sans', Verdana, sans-serif\"{weight}"


def _clean(text: str) -> str:
    """Leave out what no XML document may hold."""
    return "".join(letter for letter in text if letter >= " " and not "\ud800" <= letter <= "\udfff")


def _faces(items: Sequence[Item]) -> str:
    """Return the letters that texts need, as fonts inside the document."""
    letters: dict[tuple[Path | None, bool], set[str]] = {}
    for item in items:
        if isinstance(item, Words):
            for run in fonts.runs(fonts.legible(item.text)):
                letters.setdefault((run.font, item.bold and run.font is None), set()).update(run.text)
    faces: list[str] = []
    for (file, bold), needed in letters.items():
        name, weight = "DejaVu Sans" if file is None else _name(file), "bold" if bold else "normal"
        needed |= set(_USUAL)
        data = _subset(file or fonts.dejavu(bold=bold), "".join(sorted(needed)))
        source = f"src:url(data:font/ttf;base64,{data})"
        faces.append(f"@font-face{{font-family:'{name}';font-weight:{weight};{source}}}")
    return "".join(faces)


@cache
def _name(file: Path) -> str:
    """Return the name of a font's family, by which programs that ignore the one inside find it."""
    from fontTools.ttLib import TTFont

    with TTFont(file, fontNumber=0, lazy=True) as font_:
        return str(font_["name"].getBestFamilyName() or file.stem).replace("'", "")  # type: ignore[attr-defined]


@lru_cache(32)
def _subset(file: Path, letters: str) -> str:
    """Return a font with these letters alone, in base64."""
    from fontTools import subset
    from fontTools.ttLib import TTFont

    options = subset.Options()
    options.hinting = False
    options.drop_tables += ["FFTM"]
    with TTFont(file, fontNumber=0, lazy=True) as whole:
        chosen = subset.Subsetter(options)
        chosen.populate(text=letters)
        chosen.subset(whole)
        buffer = io.BytesIO()
        whole.save(buffer)
    return base64.b64encode(buffer.getvalue()).decode()
