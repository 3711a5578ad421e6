"""The rows of a network's map: the longest path to each box, their order, and where connections pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .network_groups import Item, boxes_in

MOST_LANES = 6
"""How many skips beside each other have a lane of their own."""

_MOST_THREADS = 8
"""So many threads have room in a row."""

_SWEEPS = 3

Node = int | tuple[int, int]
"""An item by its number, -1 for what a group reads, as many as there are items for what reads it; or (line, row)."""


@dataclass
class Graph:
    """The items of a level and which reads which."""

    items: Sequence[Item]
    edges: list[tuple[int, int]]
    row: dict[int, int]

    @property
    def exit(self) -> int:
        return len(self.items)


def rows_of(items: Sequence[Item]) -> list[int]:
    """Return the row of each item: the length of the longest path to it."""
    graph = graph_of(items, {}, root=True)
    return [graph.row[number] for number in range(len(items))]


def graph_of(items: Sequence[Item], readers: Mapping[int, Sequence[int]], *, root: bool) -> Graph:
    """Find which items of a level read which, what the level reads (-1), and what reads it (as many as items)."""
    owner = {box.number: number for number, item in enumerate(items) for box in boxes_in(item)}
    edges: dict[tuple[int, int], None] = {}
    row = {-1: -1 if root else 0}
    for number, item in enumerate(items):
        reads = (owner.get(read, -1) for box in boxes_in(item) for read in box.drawn)
        sources = dict.fromkeys(source for source in reads if source != number)
        edges |= dict.fromkeys((source, number) for source in sources)
        row[number] = 1 + max((row[source] for source in sources), default=row[-1])
    row[len(items)] = 1 + max(row.values())
    if not root:
        leaving = {owner[read] for read, by in readers.items() if read in owner and any(b not in owner for b in by)}
        edges |= dict.fromkeys((number, len(items)) for number in sorted(leaving))
    return Graph(items, list(edges), row)


def part_long(graph: Graph) -> tuple[dict[tuple[int, int], range], list[tuple[int, int]]]:
    """Part the connections over more than one row: threads between the boxes of their rows, and skips at the side.

    A thread begins at one of several boxes beside each other, as the shorter branches of a block.
    """
    counts: dict[int, int] = {}
    for number in range(len(graph.items)):
        counts[graph.row[number]] = counts.get(graph.row[number], 0) + 1
    boxes = dict(counts)
    threads: dict[tuple[int, int], range] = {}
    skips: list[tuple[int, int]] = []
    for source, reader in graph.edges:
        between = range(graph.row[source] + 1, graph.row[reader])
        if not between:
            continue
        if boxes.get(graph.row[source], 0) > 1 and all(counts[row] - boxes[row] < _MOST_THREADS for row in between):
            threads[source, reader] = between
            for row in between:
                counts[row] += 1
        else:
            skips.append((source, reader))
    return threads, skips


def ordered(graph: Graph, threads: Mapping[tuple[int, int], range]) -> list[list[Node]]:
    """Order the boxes and threads of every row by the mean place of what they are connected with."""
    first = min((graph.row[number] for number in range(len(graph.items))), default=0)
    rows: list[list[Node]] = [[] for _ in range(graph.row[graph.exit] - first)]
    above: dict[Node, list[Node]] = {}
    below: dict[Node, list[Node]] = {}
    for number in range(len(graph.items)):
        rows[graph.row[number] - first].append(number)
    for line, edge in enumerate(graph.edges):
        between = threads.get(edge, ())
        path: list[Node] = [edge[0], *((line, row) for row in between), edge[1]]
        for row, node in zip(between, path[1:-1], strict=True):
            rows[row - first].append(node)
        if between or graph.row[edge[1]] - graph.row[edge[0]] == 1:
            for upper, lower in pairwise(path):
                above.setdefault(lower, []).append(upper)
                below.setdefault(upper, []).append(lower)
    places = {node: _share(slot, row) for row in rows for slot, node in enumerate(row)}
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        near = above if down else below
        for row in rows if down else reversed(rows):
            row.sort(
                key=lambda node: round(_mean([places[n] for n in near.get(node, ()) if n in places], places[node]), 6)
            )
            places |= {node: _share(slot, row) for slot, node in enumerate(row)}
    return rows


def _share(slot: int, row: Sequence[Node]) -> float:
    return (slot + 0.5) / len(row)


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def lanes_of(graph: Graph, skips: Sequence[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Give each skip a lane: short ones inside, and those of one source together."""
    lanes: dict[tuple[int, int], int] = {}
    taken: list[list[tuple[int, int, int]]] = []
    for source, reader in sorted(skips, key=lambda edge: (graph.row[edge[1]] - graph.row[edge[0]], edge)):
        first, last = graph.row[source], graph.row[reader]
        free = next(
            (
                lane
                for lane, intervals in enumerate(taken)
                if all(last <= begin or first >= end or other == source for begin, end, other in intervals)
            ),
            len(taken),
        )
        if free == len(taken) and free < MOST_LANES:
            taken.append([])
        lane = min(free, MOST_LANES - 1)
        taken[lane].append((first, last, source))
        lanes[source, reader] = lane
    return lanes
