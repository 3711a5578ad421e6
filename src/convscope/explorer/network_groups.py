"""Groups of a network's map: repeated blocks that are one box until they are opened.

Modules run as intervals of the order of execution, so that a group may stand for its boxes without making a circle.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..tracing import OUTPUT
from ..wiring import Span
from .network_boxes import Box

_PLAIN = frozenset(("Sequential", "ModuleList", "ModuleDict"))
"""Containers whose class says nothing of what is inside."""

_LONG = 4
"""So many blocks in a row are one group also where they are only a part of a module."""

_MANY_LAYERS = 8
"""So many layers of one kind and shape in a row are one group."""

_MOST = 150
"""More boxes side by side are parted into groups."""

_AT_ONCE = 50
"""Boxes of such a group."""

_FEW = 60
"""Of a network with more boxes than these, all modules are groups."""


@dataclass(frozen=True)
class Group:
    """Boxes and groups that are drawn as one box until it is opened.

    `key` names it: a module, or "first..last". `kind` is the class of the module, or of each of the repeated ones, of
    which there are `count`, called `noun`; 0 where it is a single module. `layer` is the layer that it stands for.
    """

    key: str
    kind: str
    count: int
    items: tuple[Box | Group, ...]
    layer: str | None
    noun: str = "blocks"

    @property
    def words(self) -> str:
        """What is inside: "6 blocks", or the class of the module."""
        return f"{self.count} {self.noun}" if self.count else self.kind

    @property
    def boxes(self) -> Iterator[Box]:
        """All boxes inside, in order of execution."""
        for item in self.items:
            yield from (item,) if isinstance(item, Box) else item.boxes

    @property
    def parameters(self) -> int:
        """How many parameters its layers have; those of a module that runs twice count once."""
        return sum({box.key.partition("#")[0]: box.parameters for box in self.boxes}.values())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its output: that of the last box."""
        return last(self).shape


Item = Box | Group


def last(item: Item) -> Box:
    """Return the last box of an item."""
    return item if isinstance(item, Box) else last(item.items[-1])


def grouped(boxes: Sequence[Box], spans: Sequence[Span]) -> tuple[Item, ...]:
    """Return the boxes of a network, repeated blocks as groups."""
    spans = spans or [Span(OUTPUT, "", 1, len(boxes), None)]  # a body that runs as one piece
    inside = _Tree(boxes, spans)
    counts = Counter(span.kind for span in spans[:-1] if span.kind not in _PLAIN and inside.several(span))
    blocks = {kind for kind, count in counts.items() if count > 1}
    items = _items(inside, spans[-1], lambda span: span.kind in blocks)
    if len(items) > _FEW:
        items = _items(inside, spans[-1], lambda span: True)
    sources = [box for box in boxes if box.source]
    return (*sources, *_parted(items))


class _Tree:
    """Which boxes and modules lie directly inside which modules."""

    def __init__(self, boxes: Sequence[Box], spans: Sequence[Span]) -> None:
        self.children: dict[int, list[Span | Box]] = {id(span): [] for span in spans}
        self.sizes: dict[int, int] = {}
        drawn = [box for box in boxes if not box.source]
        # Outer modules, which end later, come before those inside them, and all before their boxes.
        entries: list[Span | Box] = sorted([*reversed(spans[:-1]), *drawn], key=_extent)
        open_: list[Span] = [spans[-1]]
        for entry in entries:
            first = _extent(entry)[0]
            while not open_[-1].first <= first < max(open_[-1].end, open_[-1].first + 1) and len(open_) > 1:
                open_.pop()
            self.children[id(open_[-1])].append(entry)
            if isinstance(entry, Span):
                open_.append(entry)
        for span in spans:
            self.sizes[id(span)] = sum(span.first <= box.at < span.end for box in drawn)

    def several(self, span: Span) -> bool:
        """Whether a module has more than one box."""
        return self.sizes[id(span)] > 1


def _extent(entry: Span | Box) -> tuple[int, int, int]:
    return (entry.first, -entry.end, 0) if isinstance(entry, Span) else (entry.at, 0, 1)


@dataclass(frozen=True)
class _Part:
    """What a module runs: another module with what is inside, or a box of its own."""

    span: Span | None
    items: tuple[Item, ...]

    @property
    def name(self) -> str:
        """The module's name, or the key of the last box."""
        return self.span.layer if self.span is not None else last(self.items[-1]).key

    @property
    def block(self) -> bool:
        """Whether it could be folded: a module with several boxes."""
        return self.span is not None and any(isinstance(item, Group) or len(self.items) > 1 for item in self.items)

    @property
    def joins(self) -> bool:
        """Whether it is a function, which goes along with the blocks around it."""
        return self.span is None and isinstance(self.items[0], Box) and self.items[0].function

    @property
    def like(self) -> tuple[object, ...] | None:
        """What parts have in common that are repetitions of one another."""
        end = last(self.items[-1])
        grid = end.shape[1:]
        if self.block and self.span is not None:
            if self.span.kind not in _PLAIN:
                return (self.span.kind, grid)
            stem = re.sub(r"\d+", "", self.span.layer)
            return (stem, tuple(box.kind for item in self.items for box in boxes_in(item)), grid)
        if self.joins:
            return None
        return (end.kind, end.words, end.shape)


def boxes_in(item: Item) -> Iterator[Box]:
    """Yield the boxes of an item, in order of execution."""
    yield from (item,) if isinstance(item, Box) else item.boxes


def _items(tree: _Tree, span: Span, folds: Callable[[Span], bool]) -> tuple[Item, ...]:
    """Return what is inside a module, blocks folded."""
    parts: list[_Part] = []
    for child in tree.children[id(span)]:
        inside = (child,) if isinstance(child, Box) else _items(tree, child, folds)
        if inside:
            parts.append(_Part(None if isinstance(child, Box) else child, inside))
    runs = list(_runs(parts))
    # Beside blocks, other modules are blocks as well.
    beside = any(len(run) > 1 or (run[0].block and run[0].span and folds(run[0].span)) for run in runs)
    items: list[Item] = []
    for run in runs:
        if len(run) == 1:
            [part] = run
            named = part.span is not None and part.block and part.span.kind not in _PLAIN
            items += (
                _folded(part) if part.span and part.block and (folds(part.span) or (beside and named)) else part.items
            )
        elif len(run) == len(parts) and span.layer != OUTPUT:
            return (_repeated(span.layer, run, span.layer),)
        else:
            items.append(_repeated(*_name(run, parts)))
    return _parted(items)


def _folded(part: _Part) -> tuple[Item, ...]:
    """Fold a block; one that holds a single group is that group."""
    assert part.span is not None
    if len(part.items) == 1:
        return part.items
    return (Group(part.span.layer, part.span.kind, 0, part.items, part.span.layer),)


def _runs(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Part what a module runs into repetitions and single parts."""
    at = 0
    while at < len(parts):
        end, count = at, 0
        like = parts[at].like
        while (
            like is not None
            and end < len(parts)
            and (parts[end].like == like or (parts[at].block and parts[end].joins))
        ):
            count += parts[end].like == like
            end += 1
        if count >= _enough(parts[at], parts):
            yield list(parts[at:end])
            at = end
        else:
            yield [parts[at]]
            at += 1


def _enough(first: _Part, parts: Sequence[_Part]) -> int:
    """Return how many repetitions make a group: two where these are all that there are beside functions."""
    if not first.block or first.span is None:
        return _MANY_LAYERS
    siblings = [part for part in parts if part.span is not None and _family(part) == _family(first)]
    alike = _family(first) and all(part.like == first.like for part in siblings)
    return 2 if alike and len(siblings) > 1 else _LONG


def _family(part: _Part) -> str:
    """Return the name of the list that a part is in: "blocks" of "blocks.3"; "" where it is in none."""
    return part.name.partition("#")[0].rpartition(".")[0]


def _name(run: Sequence[_Part], parts: Sequence[_Part]) -> tuple[str, Sequence[_Part], str | None]:
    """Name repetitions: by the list that they are, or by the first and the last."""
    repeated = [part for part in run if not part.joins]
    families = {_family(part) for part in repeated}
    siblings = [part for part in parts if not part.joins and _family(part) in families]
    whole = len(families) == 1 and "" not in families and len(siblings) == len(repeated)
    key = families.pop() if whole else f"{repeated[0].name}..{repeated[-1].name}"
    return key, run, last(repeated[-1].items[-1]).layer if repeated[-1].span is None else repeated[-1].name


def _repeated(key: str, run: Sequence[_Part], layer: str | None) -> Group:
    """Make one group of repetitions, each of which is a group again."""
    repeated = [part for part in run if not part.joins]
    kind = repeated[0].span.kind if repeated[0].span is not None else last(repeated[0].items[0]).kind
    items = [item for part in run for item in (_folded(part) if part.block else part.items)]
    noun = "blocks" if repeated[0].block else "layers"
    return Group(key, kind, len(repeated), _parted(items), layer, noun)


def _parted(items: Sequence[Item]) -> tuple[Item, ...]:
    """Part very many boxes into groups of some."""
    if len(items) <= _MOST:
        return tuple(items)
    parts = [items[at : at + _AT_ONCE] for at in range(0, len(items), _AT_ONCE)]
    return _parted([_part(part) for part in parts])


def _part(items: Sequence[Item]) -> Item:
    if len(items) == 1:
        return items[0]
    key = f"{items[0].key.partition('..')[0]}..{items[-1].key.rpartition('..')[2]}"
    count = sum(1 for item in items for _ in boxes_in(item))
    return Group(key, "layers", count, tuple(items), last(items[-1]).layer, "layers")
