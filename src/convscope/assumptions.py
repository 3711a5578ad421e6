"""Assumptions: what was taken for granted because nobody said it, and the call that says it.

They are remarks that come before all others: in the terminal, in the first line of a figure, and in its note.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self


class Assumption(str):
    """A remark about something that nobody stated: what was assumed, why, and what states it.

    `short` is what the first line of a figure says; `options` are those of `Net` after which it no longer holds.
    """

    __slots__ = ("options", "short")
    short: str
    options: tuple[str, ...]

    def __new__(cls, text: str, short: str = "", options: Iterable[str] = ()) -> Self:
        """Make a remark of a text; without a short form the text is its own."""
        made = super().__new__(cls, text)
        made.short, made.options = short or text, tuple(options)
        return made


NOT_NORMALISED = Assumption(
    "reads pixels in [0, 1] as they are, since no mean and std were given: state them, as in "
    "Net(..., mean=..., std=...) or --mean imagenet",
    "pixels not normalised",
    ("mean", "std"),
)


def of_size(size: tuple[int, int], why: str = "no size was given") -> Assumption:
    """Return what to say of an input's (height, width) that nobody stated."""
    return Assumption(
        f"read at {size[0]}x{size[1]} pixels, since {why}: state it, as in Net(..., size={size[0]}) or "
        f"--size {size[0]}",
        f"input of {size[0]} × {size[1]}",
        ("size",),
    )


def assumed_first(remarks: Iterable[str]) -> tuple[list[Assumption], list[str]]:
    """Part remarks into assumptions and others, each once."""
    each = list(dict.fromkeys(remarks))
    assumed = [remark for remark in each if isinstance(remark, Assumption)]
    return assumed, [remark for remark in each if not isinstance(remark, Assumption)]


def announced(title: str, assumed: Iterable[str]) -> str:
    """Return a title that begins with what was assumed, in its short forms."""
    said = ", ".join(assumed)
    return f"Assumed: {said} · {title}" if said and title else title
