"""The connections of a network's map, as SVG paths: across in thousandths of their panel, down in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .network_groups import Item
from .network_labels import Label
from .network_rows import Graph, Node

GAP = 20.0
"""Between rows, in pixels."""

LANE = 9.0
"""The room for one skip at the side."""

_BUS = 2.5
"""How far from the boxes of a row in several bands their connections pass, in pixels."""

_ROUND, _IN = 7.0, 12.0
"""The corners of a skip, and how far below a box's upper edge it comes in."""


@dataclass(frozen=True)
class Placed:
    """A box, or a group, at its place: `row` counts from the top of its panel; `panel` is what an open group holds.

    `wrapped` says that its row has several bands.
    """

    item: Item
    row: int
    x: float
    y: float
    width: float
    height: float
    label: Label
    panel: Panel | None = None
    wrapped: bool = False

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True)
class Panel:
    """The boxes of one level and their connections; `base` is its width in pixels on the narrowest map.

    `head` is what an open group has above its boxes.
    """

    placed: tuple[Placed, ...]
    lines: tuple[Line, ...]
    height: float
    base: float
    head: Label | None = None


@dataclass(frozen=True)
class Line:
    """A connection as an SVG path, across in thousandths of the panel; `tip` is where a skip ends at a box."""

    path: str
    skip: bool = False
    tip: tuple[float, float] | None = None


@dataclass
class Places:
    """Where boxes are, and where threads pass."""

    nodes: dict[int, Placed] = field(default_factory=dict)
    threads: dict[Node, float] = field(default_factory=dict)


@dataclass
class Lines:
    """Draws the connections of a panel."""

    graph: Graph
    places: Places
    tops: Sequence[tuple[float, float]]
    area: float
    base: float
    height: float
    top: float

    def __post_init__(self) -> None:
        self.first = min(self.graph.row[each] for each in range(len(self.graph.items)))
        self.numbers = {edge: number for number, edge in enumerate(self.graph.edges)}

    def plain(self, edge: tuple[int, int], between: Sequence[int]) -> Line:
        """Draw a connection to the next row, or one along a thread."""
        first = self.first
        source, reader = (self.places.nodes.get(each) for each in edge)
        inner = [self.places.threads[self.numbers[edge], row] for row in between]
        start, end = self._ends(source, reader, inner)
        pen = _Pen(start, self.top - GAP / 2 - 4 if source is None else source.bottom)
        if source is not None:
            if source.wrapped:
                pen = _Pen(source.right, source.bottom - _IN).aside(source.right + _BUS / self.base)
            pen.down(self.tops[source.row - first][1])
        for row, x in zip(between, inner, strict=True):
            pen.across(x, self.tops[row - first][0])
            pen.down(self.tops[row - first][1])
        if reader is not None and reader.wrapped:
            pen.across(reader.x - _BUS / self.base, self.tops[reader.row - first][0])
            pen.down(reader.y + _IN)
            pen.aside(reader.x)
        else:
            pen.across(end, self.height if reader is None else reader.y)
        return Line(pen.path)

    def _ends(self, source: Placed | None, reader: Placed | None, inner: Sequence[float]) -> tuple[float, float]:
        """Return where a connection leaves and where it arrives: straight above one another where that is possible."""
        whole = (0.0, self.area)
        upper = (source.x, source.right) if source else whole
        lower = (reader.x, reader.right) if reader else whole
        narrow = min(upper, lower, key=lambda extent: extent[1] - extent[0])
        if inner:
            return _within(inner[0], upper), _within(inner[-1], lower)
        if source is None or reader is None:
            other = reader or source
            middle = self.area / 2 if other is None else other.middle
            return (self.area / 2, middle) if source is None else (middle, self.area / 2)
        middle = sum(narrow) / 2
        if min(upper[1], lower[1]) - max(upper[0], lower[0]) > 0.6 * (narrow[1] - narrow[0]):
            return _within(middle, upper), _within(middle, lower)
        return sum(upper) / 2, sum(lower) / 2

    def skip(self, edge: tuple[int, int], lane: int) -> Line:
        """Draw a connection along a lane at the side."""
        source, reader = (self.places.nodes.get(each) for each in edge)
        x = self.area + LANE * (lane + 0.75) / self.base
        corner = _ROUND / self.base
        if source is not None and self._last(source):
            y = source.bottom - _IN
            path = f"M{_x(source.right)} {y:g}H{_x(x - corner)}"
        else:
            y = self.top - GAP / 2 if source is None else source.bottom + GAP / 3
            at = self.area / 2 if source is None else source.middle
            path = f"M{_x(at)} {self.top - GAP / 2 - 4 if source is None else source.bottom:g}V{y:g}H{_x(x - corner)}"
        path += f"Q{_x(x)} {y:g} {_x(x)} {y + _ROUND:g}"
        if reader is not None and self._last(reader):
            y, tip = reader.y + _IN, (reader.right, reader.y + _IN)
            return Line(f"{path}V{y - _ROUND:g}Q{_x(x)} {y:g} {_x(x - corner)} {y:g}H{_x(reader.right)}", True, tip)
        y = self.height - GAP / 3 if reader is None else reader.y - GAP / 3
        at = self.area / 2 if reader is None else reader.middle
        path += f"V{y - _ROUND:g}Q{_x(x)} {y:g} {_x(x - corner)} {y:g}H{_x(at)}"
        return Line(f"{path}V{self.height if reader is None else reader.y:g}", True)

    def _last(self, place: Placed) -> bool:
        """Whether a box is at the right end of its row."""
        return place.right > self.area - 1e-6


def _within(x: float, extent: tuple[float, float]) -> float:
    inset = min(0.02, (extent[1] - extent[0]) / 2)
    return min(max(x, extent[0] + inset), extent[1] - inset)


class _Pen:
    """Draws a path from above to below."""

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y, self.path = x, y, f"M{_x(x)} {y:g}"

    def aside(self, x: float) -> _Pen:
        """Go straight to the side."""
        self.path += f"H{_x(x)}"
        self.x = x
        return self

    def down(self, y: float) -> None:
        """Go straight down."""
        if y > self.y:
            self.path += f"V{y:g}"
            self.y = y

    def across(self, x: float, y: float) -> None:
        """Go down to another place, in a curve where it is not straight below."""
        if abs(x - self.x) < 1e-4:
            self.down(y)
            return
        half = (self.y + y) / 2
        self.path += f"C{_x(self.x)} {half:g} {_x(x)} {half:g} {_x(x)} {y:g}"
        self.x, self.y = x, y


def _x(share: float) -> str:
    return f"{1000 * share:.5g}"
