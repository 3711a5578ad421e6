"""The layout of a network's map: rows by the longest path from the picture, order by barycentre, skips at the side.

Every open group is a panel with a layout of its own. Across, lengths are shares of the panel's width, so that a map
fills any screen; down, they are pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from .network_groups import Group, Item, boxes_in
from .network_labels import Label, header
from .network_lines import GAP, LANE, Lines, Panel, Placed, Places
from .network_rows import Graph, Node, graph_of, lanes_of, ordered, part_long

BASE = 340.0
"""The width in pixels of the narrowest map."""

_COLUMN = 76.0
"""So wide is a box at least on the narrowest map, which is wider where a row has many."""

BESIDE, INSET = 8.0, 6.0
"""Between boxes beside each other, and around the boxes of an open group; in pixels."""


_ACROSS, _IN_BANDS = 6, 4
"""So many boxes have room beside each other; rows of more are parted into bands of so many."""

_THREAD = 0.25
"""The room of a thread in a row of many, as a share of a box."""


Labelled = Callable[[Item, str, float, bool], Label]


def layout(items: Sequence[Item], open_: Set[str], labelled: Labelled) -> Panel:
    """Lay a network's boxes out, groups that are open as panels."""
    readers: dict[int, list[int]] = {}
    for box in (box for item in items for box in boxes_in(item)):
        for read in box.drawn:
            readers.setdefault(read, []).append(box.number)
    made = _Layout(open_, labelled, readers)
    panel = made.panel(items, None, BASE, None)
    while made.needed > 1.01:  # a row has so many boxes that the narrowest map has to be wider
        panel, made.needed = made.panel(items, None, panel.base * made.needed, None), 1.0
    return panel


@dataclass
class _Layout:
    open: Set[str]
    labelled: Labelled
    readers: Mapping[int, Sequence[int]]
    needed: float = 1.0
    """By how much a panel would have to be wider for its boxes."""

    def panel(self, items: Sequence[Item], group: Group | None, base: float, head: Label | None) -> Panel:
        graph = graph_of(items, self.readers, root=group is None)
        threads, skips = part_long(graph)
        order = ordered(graph, threads)
        lanes = lanes_of(graph, skips)
        beside = LANE * (1 + max(lanes.values(), default=-1))
        widest = max(_columns(nodes, order) for nodes in order)
        self.needed = max(self.needed, (widest * _COLUMN + beside) / base)
        area = 1 - beside / base
        top = head.height + GAP / 2 if head else 0.0
        places, tops, height = self._placed(graph, order, area, base, group, top)
        lines = Lines(graph, places, tops, area, base, height, top)
        drawn = [lines.plain(edge, threads.get(edge, ())) for edge in graph.edges if edge not in lanes]
        drawn += [lines.skip(edge, lane) for edge, lane in lanes.items()]
        placed = tuple(places.nodes[node] for node in sorted(places.nodes))
        return Panel(placed, tuple(drawn), height, base, head)

    def _placed(
        self, graph: Graph, order: Sequence[Sequence[Node]], area: float, base: float, group: Group | None, y: float
    ) -> tuple[Places, list[tuple[float, float]], float]:
        places, tops = Places(), list[tuple[float, float]]()
        for nodes in order:
            boxes = [node for node in nodes if not isinstance(node, tuple)]
            bands = _bands(nodes)
            start = y
            for band in bands:
                made: dict[int, Placed] = {}
                for node, x, width in _slots(band, bands[0], order, area, base):
                    if isinstance(node, tuple):
                        places.threads[node] = x + width / 2
                    else:
                        made[node] = self._place(graph, node, (x, y, width), base, group)
                plain = max((place.height for place in made.values() if place.panel is None), default=0.0)
                for node, place in made.items():
                    height = plain if place.panel is None else place.height
                    places.nodes[node] = replace(place, height=height, wrapped=len(boxes) > _ACROSS)
                y += max((place.height for place in made.values()), default=0.0) + GAP / 2
            tops.append((start, y - GAP / 2))
            y += GAP / 2
        return places, tops, y - GAP + (0 if group is None else GAP)

    def _place(
        self, graph: Graph, node: int, at: tuple[float, float, float], base: float, group: Group | None
    ) -> Placed:
        item, (x, y, width) = graph.items[node], at
        opener = any(isinstance(other, Group) and other.key not in self.open for other in graph.items)
        within = group.key if group is not None else ""
        text = self.labelled(item, within, width * base, opener)
        panel = None
        if isinstance(item, Group) and item.key in self.open:
            head = header(item, within, width * base)
            panel = self.panel(item.items, item, width * base - 2 * INSET, head)
        return Placed(item, graph.row[node], x, y, width, text.height if panel is None else panel.height, text, panel)


def _bands(nodes: Sequence[Node]) -> list[Sequence[Node]]:
    """Part a row that has very many boxes into bands below each other, of about as many each."""
    boxes = sum(not isinstance(node, tuple) for node in nodes)
    if boxes <= _ACROSS:
        return [nodes]
    across = -(-len(nodes) // -(-len(nodes) // _IN_BANDS))
    return [nodes[at : at + across] for at in range(0, len(nodes), across)]


def _columns(nodes: Sequence[Node], order: Sequence[Sequence[Node]]) -> float:
    """Return how many boxes have room in a row, of which a thread takes less where there are many."""
    band = max(_bands(nodes), key=len)
    return sum(_weight(node, band, order) for node in band)


def _weight(node: Node, nodes: Sequence[Node], order: Sequence[Sequence[Node]]) -> float:
    most = max(sum(not isinstance(each, tuple) for each in row) for row in order)
    return _THREAD if isinstance(node, tuple) and len(nodes) > most else 1.0


def _slots(
    nodes: Sequence[Node], across: Sequence[Node], order: Sequence[Sequence[Node]], area: float, base: float
) -> Iterator[tuple[Node, float, float]]:
    """Yield the place and width of every box and thread of a row, or of a band below the band `across`."""
    beside = BESIDE / base
    one = (area + beside) / max(sum(_weight(node, across, order) for node in across), 1e-9)
    x = 0.0
    for node in nodes:
        width = one * _weight(node, across, order)
        yield node, x, width - beside
        x += width
