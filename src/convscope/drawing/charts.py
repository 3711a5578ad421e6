"""Charts: lines over an axis and bars side by side, set on a page like everything else, so that texts stay texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .typesetting import FAINT, INK, Box, Inset, Item, Line, Plot, Words, length, line_height, stacked, wrap

_COLOURS = (
    "#1f77b4",
    "#ff7f0e",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
    "#17becf",
)
_GRID, _AXIS = "#e6e6ea", "#80808a"
_GAP = 6
_SAMPLE = 18
"""Pixels of a line in the legend."""

_DOT = 3
"""Side of a point, in pixels."""

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Bar:
    """A bar of a chart, from zero to its value, with the error of it (NaN where there is none)."""

    value: float
    error: float
    colour: str


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return at most `most` (two at the least) numbers that are read easily, evenly over [low, high].

    `whole` leaves out fractions, of what is counted.
    """
    if not low < high:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / (most + 1)))
    steps = (power * scale * factor for scale in (1, 10, 100) for factor in _STEPS)
    steps = (step for step in steps if not whole or step == round(step))
    return next(places for places in (_multiples(low, high, step) for step in steps) if len(places) <= max(most, 2))


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def lines(
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    labels: tuple[str, str],
    size: tuple[int, int],
    *,
    legend: bool = True,
) -> Inset:
    """Draw lines over one axis, with the names of both axes and a legend where there are several lines."""
    named = [Line(name, x, values, _COLOURS[i % len(_COLOURS)]) for i, (name, values) in enumerate(series.items())]
    across, up = _extent([x]), _extent(series.values())

    def draw(room: tuple[float, float]) -> list[Item]:
        names, top = _legend(named, room[0]) if legend and len(named) > 1 else ([], 0.0)
        step = line_height("caption")
        top += (step + 2 if labels[1] else 0) + _GAP
        bottom = room[1] - step - 4 - (step if labels[0] else 0)
        heights = ticks(*up, max(2, int((bottom - top) // (2 * step)) + 1))
        left = max(length(_written(value, heights), "caption") for value in heights) + _GAP
        right = room[0] - _GAP
        whole = all(value == round(value) for value in x if math.isfinite(value))
        places = ticks(*across, max(2, int((right - left) // 60) + 1), whole=whole)
        plot = Plot(left, top, right - left, bottom - top, across, up, named)
        items: list[Item] = [*names, *_grid(plot, places, heights), plot]
        if labels[1]:
            items += stacked(wrap(labels[1], "caption", room[0])[:1], "caption", 0, top - step - _GAP, FAINT)
        if labels[0]:
            fits = wrap(labels[0], "caption", room[0])[0]
            items.append(Words((left + right) / 2, bottom + step + 4, fits, "caption", FAINT, "ma"))
        return items

    return Inset(size, draw)


def scatter(
    points: Sequence[tuple[float, float]], labels: tuple[str, str], size: tuple[int, int], *, colour: int = 0
) -> Inset:
    """Draw points (x, y), with the names of both axes; points that are no numbers are left out."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    across, up = _extent([[x for x, _ in finite]]), _extent([[y for _, y in finite]])

    def draw(room: tuple[float, float]) -> list[Item]:
        step = line_height("caption")
        top, bottom = step + 2 + _GAP, room[1] - 2 * step - 4
        heights = ticks(*up, max(2, int((bottom - top) // (2 * step)) + 1))
        left = max(length(_written(value, heights), "caption") for value in heights) + _GAP
        right = room[0] - _GAP
        plot = Plot(left, top, right - left, bottom - top, across, up, ())
        items = _grid(plot, ticks(*across, max(2, int((right - left) // 60) + 1)), heights)
        for x, y in finite:
            at = left + (x - across[0]) / (across[1] - across[0]) * plot.width
            high = top + (up[1] - y) / (up[1] - up[0]) * plot.height
            items.append(Box(at - _DOT / 2, high - _DOT / 2, _DOT, _DOT, _COLOURS[colour % len(_COLOURS)], filled=True))
        items += stacked(wrap(labels[1], "caption", room[0])[:1], "caption", 0, 0, FAINT)
        fits = wrap(labels[0], "caption", room[0])[0]
        return [*items, Words((left + right) / 2, bottom + step + 4, fits, "caption", FAINT, "ma")]

    return Inset(size, draw)


def colour(number: int) -> tuple[int, int, int]:
    """Return the colour of the nth line of a chart, for a legend beside it."""
    written = _COLOURS[number % len(_COLOURS)]
    return int(written[1:3], 16), int(written[3:5], 16), int(written[5:], 16)


def bars(names: Sequence[str], panels: Mapping[str, Sequence[Bar]], width: int) -> Inset:
    """Draw panels of bars side by side, a row per name, each panel under its head."""
    step, row = line_height("caption"), 22
    size = (width, round(1.5 * step) + row * len(names) + step + 8)

    def draw(room: tuple[float, float]) -> list[Item]:
        left = min(max(length(name, "caption") for name in names) + 2 * _GAP, room[0] / 2)
        across = (room[0] - left - _GAP * 3 * (len(panels) - 1)) / len(panels)
        top, height = 1.5 * step, (room[1] - 2.5 * step - 8) / len(names)
        items: list[Item] = []
        for i, name in enumerate(names):
            line = wrap(name, "caption", left - _GAP)[0]
            items.append(Words(left - _GAP, top + (i + 0.5) * height, line, "caption", INK, "rm"))
        for i, (head, values) in enumerate(panels.items()):
            x = left + i * (across + 3 * _GAP)
            items += stacked(wrap(head, "caption", across)[:1], "caption", x, 0)
            items += _panel(values, (x, top, across, height))
        return items

    return Inset(size, draw)


def _panel(values: Sequence[Bar], place: tuple[float, float, float, float]) -> list[Item]:
    """Set bars below each other: `place` is (left, top, width, height of a row)."""
    left, top, width, height = place
    ends = [bar.value + (bar.error if math.isfinite(bar.error) else 0.0) for bar in values]
    limit = max((end for end in ends if math.isfinite(end)), default=1.0) * 1.05 or 1.0
    plot = Plot(left, top, width, height * len(values), (0.0, limit), (0.0, 1.0), ())
    items = _grid(plot, ticks(0.0, limit, max(2, int(width // 45) + 1)), [])
    for i, bar in enumerate(values):
        if not math.isfinite(bar.value):
            continue
        y, long = top + i * height, bar.value / limit * width
        items.append(Box(left, y + 0.15 * height, max(long, 1), 0.7 * height, bar.colour, filled=True))
        if math.isfinite(bar.error):
            reach = bar.error / limit * width
            start = max(long - reach, 0)  # what is below zero would lie on the names
            items.append(Box(left + start, y + height / 2 - 0.5, long + reach - start, 1, INK, filled=True))
    return items


def _extent(values: Iterable[Sequence[float]]) -> tuple[float, float]:
    """Return an interval in which all numbers lie, with some room where they differ."""
    finite = [float(value) for each in values for value in each if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    room = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    return low - room, high + room


def _written(value: float, of: Sequence[float]) -> str:
    """Write a tick, with as many digits as tell it from the next."""
    step = abs(of[1] - of[0]) if len(of) > 1 else abs(value) or 1.0
    if not 1e-4 <= max(map(abs, of), default=1.0) < 1e6:
        return f"{value:.3g}".replace("-", "−")
    digits = max(0, math.ceil(-math.log10(step) - 1e-9))
    digits += round(step * 10**digits, 6) % 1 != 0
    return f"{value:,.{digits}f}".replace("-", "−")


def _grid(plot: Plot, places: Sequence[float], heights: Sequence[float]) -> list[Item]:
    """Set faint lines at ticks, their numbers beside them, and the two axes."""
    (left, right), (low, high) = plot.across, plot.up
    bottom, items = plot.y + plot.height, list[Item]()
    for value in heights:
        y = plot.y + (high - value) / (high - low) * plot.height
        items.append(Box(plot.x, y, plot.width, 1, _GRID, filled=True))
        items.append(Words(plot.x - _GAP, y, _written(value, heights), "caption", INK, "rm"))
    for value in places:
        x = plot.x + (value - left) / (right - left) * plot.width
        items.append(Box(x, plot.y, 1, plot.height, _GRID, filled=True))
        items.append(Words(x, bottom + 4, _written(value, places), "caption", INK, "ma"))
    items.append(Box(plot.x, bottom, plot.width, 1, _AXIS, filled=True))
    return [*items, Box(plot.x, plot.y, 1, plot.height, _AXIS, filled=True)]


def _legend(named: Sequence[Line], width: float) -> tuple[list[Item], float]:
    """Name lines in rows above a plot, and return where these end."""
    items, x, y, step = list[Item](), 0.0, 0.0, line_height("caption")
    for line in named:
        texts = wrap(line.name, "caption", max(width - _SAMPLE - _GAP, 1))
        wide = _SAMPLE + _GAP + max(length(text, "caption") for text in texts)
        if x and x + wide > width:
            x, y = 0.0, y + step
        items.append(Box(x, y + step / 2 - 1, _SAMPLE, 2, line.colour, filled=True))
        items += stacked(texts, "caption", x + _SAMPLE + _GAP, y)
        y += (len(texts) - 1) * step
        x += wide + 2 * _GAP
    return items, y + step
