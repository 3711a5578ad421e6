"""What a box of a network's map says, set in lines that fit its width on the narrowest screen."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import ImageFont

from ..drawing import fonts
from ..operations import BY_NAME
from ..tracing import OUTPUT, WHOLE_OUTPUT
from .network_boxes import WORDS, Box
from .network_groups import Group, Item, boxes_in, last

NAME, DETAIL = 13.0, 11.5
"""Sizes of letters, in pixels."""

SMALL_NAME, SMALL = 12.0, 10.5
"""Those in narrow boxes."""

_SHORT = 13
"""So few letters have room beside the others in a narrow box of a wide map."""

LINE, MARGIN, CLOSE = 16.0, 7.0, 5.0
"""The height of a line, and the room around the lines of a box; at the sides of a narrow one."""

ROOMY = 190.0
"""A box so wide has its numbers on the right, a narrower one below its name."""

OPENER = 46.0
"""The room for the link that opens a group."""

Marks = Mapping[str, Sequence[str]]
"""What was found about layers, in words, by the layer's name."""


@dataclass(frozen=True)
class Text:
    """A line of text in a box, `line` lines from its top, at the left or at the right of it.

    `role` is "name", "detail", "number" or "mark"; `wide` is shown only where there is room for more.
    """

    text: str
    line: int
    role: str
    right: bool = False
    wide: bool = False
    small: bool = False


@dataclass(frozen=True)
class Label:
    """All that a box says; `spoken` is the whole of it in one sentence, `opener` as `label` takes it."""

    texts: tuple[Text, ...]
    spoken: str
    opener: bool = False

    @property
    def height(self) -> float:
        """The height of a box with this label, in pixels."""
        return LINE * (1 + max(text.line for text in self.texts)) + 2 * MARGIN


def label(item: Item, within: str, width: float, marks: Marks, *, opener: bool = False) -> Label:
    """Set what a box says for a width in pixels.

    Names are relative to the group `within` which it lies. `opener` keeps a place free at the right end for the link
    that opens a group, so that the numbers of boxes with and without one are below each other.
    """
    found = found_in(item, marks)
    texts = _roomy(item, within, width, opener=opener) if width >= ROOMY else _narrow(item, within, width)
    if found:
        below = 1 + max(text.line for text in texts)
        said = _wrapped("▲ " + ", ".join(found), DETAIL, width - 2 * MARGIN, bold=False)
        texts += [Text(text, line, "mark") for line, text in enumerate(said, below)]
    return Label(tuple(texts), spoken(item, found), opener=opener and width >= ROOMY)


def _roomy(item: Item, within: str, width: float, *, opener: bool) -> list[Text]:
    """Set names at the left and numbers at the right, in lines of one height."""
    numbers = [text for text in (shape_words(item.shape), count_words(item.parameters)) if text]
    room = width - 2 * MARGIN - (OPENER if opener else 0)
    rooms = [room - _width(text, DETAIL, bold=False) - MARGIN for text in numbers]
    texts = [Text(text, line, "number", right=True) for line, text in enumerate(numbers)]
    texts += [Text(text, line, "number", wide=True) for line, text in enumerate(_seen(item))]
    names = _wrapped(name_of(item, within), NAME, min(rooms, default=room), bold=True)
    texts += [Text(text, line, "name") for line, text in enumerate(names)]
    room = min(rooms[len(names) :], default=room)
    details = _wrapped(_detail(item), DETAIL, room, bold=False)
    return texts + [Text(text, line, "detail") for line, text in enumerate(details, len(names))]


def _narrow(item: Item, within: str, width: float) -> list[Text]:
    """Set everything below each other, in smaller letters."""
    room = width - 2 * CLOSE
    texts = [("name", text) for text in _wrapped(name_of(item, within), SMALL_NAME, room, bold=True)]
    texts += [("detail", text) for text in _wrapped(_detail(item), SMALL, room, bold=False)]
    numbers = (shape_words(item.shape, close=True), count_words(item.parameters))
    texts += [("number", line) for text in numbers for line in _wrapped(text, SMALL, room, bold=False)]
    # Below the numbers of a narrow group stands its link.
    texts += [("detail", "")] if isinstance(item, Group) else []
    beside = [text for text in _seen(item) if len(text) < _SHORT]
    return [
        *(Text(text, line, role, small=True) for line, (role, text) in enumerate(texts)),
        *(Text(text, line, "number", right=True, wide=True, small=True) for line, text in enumerate(beside)),
    ]


def header(group: Group, within: str, width: float) -> Label:
    """Set what stands above an open group: its name, and what is inside where that has room beside it."""
    room = width - 2 * MARGIN - OPENER
    names = _wrapped(name_of(group, within), NAME, room, bold=True)
    texts = [Text(text, line, "name") for line, text in enumerate(names)]
    texts += [Text(group.words, len(names), "detail")]
    return Label(tuple(texts), f"{group.key}, {group.words}")


def name_of(item: Item, within: str = "") -> str:
    """Return what a box is called: its layer, or its function; inside a group without the group's own name."""
    if isinstance(item, Box) and (item.source or item.function):
        return WORDS.get(item.kind, item.kind.rpartition("::")[2].replace("_", " "))
    ends = [_relative(end, within) for end in item.key.split("..")]
    return " – ".join(ends)


def _relative(key: str, within: str) -> str:
    if not within or not key.startswith(f"{within}."):
        return key or WHOLE_OUTPUT
    inner = key.removeprefix(f"{within}.")
    return inner if re.search(r"[^\W\d]", inner) else f"{within.rpartition('.')[2]}.{inner}"


def _detail(item: Item) -> str:
    if isinstance(item, Group):
        return item.words
    parts = [] if item.function or item.source else [" ".join(filter(None, (item.kind, item.detail)))]
    parts += [_short(word) for word in item.words if word != "Identity"]
    if item.function and len(item.reads) > 2:
        parts.insert(0, f"{len(item.reads)} inputs")
    if OUTPUT in (*item.layers, *item.ends):
        parts.append("the output")
    return " · ".join(parts)


def _short(word: str) -> str:
    """Leave out for how many dimensions a layer is, and write functions as their layers are called."""
    titles = {"relu": "ReLU", "relu6": "ReLU6"}
    return titles.get(word) or (word in BY_NAME and BY_NAME[word].title) or re.sub(r"\dd$", "", word).replace("_", " ")


def _seen(item: Item) -> list[str]:
    """What a unit sees, and how far apart units are, where there is room for it."""
    box = last(item)
    return [text for text in (box.sees and f"sees {box.sees}", box.step and f"step {box.step}") if text]


def spoken(item: Item, found: Sequence[str] = ()) -> str:
    """Say all that is known of a box in one sentence."""
    parts = [name_of(item)]
    if isinstance(item, Box):
        parts += [item.kind] if not item.function and not item.source else []
        parts += [item.detail, *item.words]
        seen = [item.sees and f"each unit sees {item.sees}", item.step and f"units {item.step} apart"]
    else:
        parts.append(item.words if not item.count else f"{item.words} ({item.kind})")
        seen = []
    shape = shape_words(item.shape)
    parts += [shape and f"output {shape}", *seen]
    parts += [f"{item.parameters:,} parameters"] if item.parameters else []
    parts += [f"findings: {', '.join(found)}"] if found else []
    return ", ".join(part for part in parts if part)


def found_in(item: Item, marks: Marks) -> list[str]:
    """Return what was found about the layers of a box, each word once with how often it is."""
    names = {name for box in boxes_in(item) for name in (*box.layers, *box.ends)}
    names |= {WHOLE_OUTPUT} if OUTPUT in names else set()
    said = [word for name, words in marks.items() if name in names for word in words]
    return [word if said.count(word) == 1 else f"{word} ({said.count(word)})" for word in dict.fromkeys(said)]


def shape_words(shape: Sequence[int], *, close: bool = False) -> str:
    """Write a shape as "64 × 112 × 112", or with less room between."""
    return ("×" if close else " × ").join(map(str, shape))


def count_words(parameters: int) -> str:
    """Write a number of parameters as people say it: "9.4 k", "25.6 M"; "" for none."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g} {unit}"
    return str(parameters or "")


# Lines ------------------------------------------------------------------------------------------------------------


@lru_cache(4096)
def _wrapped(text: str, size: float, width: float, *, bold: bool) -> tuple[str, ...]:
    """Break a text into lines that fit a width: at spaces, else after dots and underscores, else anywhere."""
    lines: list[str] = []
    line = ""
    for piece in _pieces(text, size, width, bold=bold):
        if line and _width((line + piece).rstrip(), size, bold=bold) > width:
            lines.append(line.strip())
            line = ""
        line += piece
    return tuple(filter(None, (*lines, line.strip())))


def _pieces(text: str, size: float, width: float, *, bold: bool) -> Iterator[str]:
    for word in re.findall(r"\S+\s*", text):
        if _width(word.rstrip(), size, bold=bold) <= width:
            yield word
            continue
        for part in filter(None, re.split(r"(?<=[._×])", word)):
            start = 0
            for end in range(1, len(part)):
                if _width(part[start : end + 1].rstrip(), size, bold=bold) > width:
                    yield part[start:end]
                    start = end
            yield part[start:]


@lru_cache(16384)
def _width(text: str, size: float, *, bold: bool) -> float:
    """Return the width of a text in DejaVu Sans, which is wider than most; letters that it lacks are square."""
    square = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    plain = "".join(letter for letter in text if unicodedata.east_asian_width(letter) not in "WF")
    return _font(size, bold=bold).getlength(plain) + square * size


@lru_cache(8)
def _font(size: float, *, bold: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(fonts.dejavu(bold=bold)), size)
