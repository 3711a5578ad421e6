"""The map of a network: which layer reads which, as boxes in rows, of which repeated blocks are one until opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..net import Net
from .network_boxes import Box, boxes_of
from .network_groups import Group, Item, boxes_in, grouped
from .network_labels import Marks, found_in, label, name_of
from .network_layout import layout
from .network_rows import rows_of
from .network_svg import Link, Writer


@dataclass(frozen=True)
class NetworkMap:
    """A network's layers and what they read; `boxes` in order of execution, `items` with repeated blocks as groups."""

    network: str
    boxes: tuple[Box, ...]
    items: tuple[Item, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups, outer ones before those inside them."""
        return tuple(_groups(self.items))

    def groups_around(self, layer: str) -> tuple[str, ...]:
        """Return the keys of the groups that must be open to see a layer's box, the outermost first."""
        return tuple(
            group.key for group in self.groups if any(layer in (*box.layers, *box.ends) for box in group.boxes)
        )

    def anchor(self, key: str) -> str:
        """Return the id that a group has in the drawing, open or not."""
        return f"group-{self._numbers[key]}"

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {group.key: number for number, group in enumerate(self.groups)}

    def visible(self, open: Set[str] = frozenset()) -> tuple[Item, ...]:
        """Return what is drawn as a box when some groups, named by their keys, are open."""
        return tuple(_visible(self.items, open))

    def rows(self, open: Set[str] = frozenset()) -> tuple[tuple[Item, ...], ...]:
        """Return what is drawn, by the length of the longest path from the picture."""
        shown = self.visible(open)
        rows = rows_of(shown)
        return tuple(
            tuple(item for item, at in zip(shown, rows, strict=True) if at == row) for row in range(max(rows) + 1)
        )

    def svg(
        self,
        open: Set[str] = frozenset(),
        link: Link | None = None,
        fold: Link | None = None,
        marks: Marks | None = None,
        current: str | None = None,
    ) -> str:
        """Draw the map as one SVG element, coloured by `static/map.css`.

        `open` are the keys of groups that are open. `link(layer)` is the address of a layer's page, `fold(key)` that of
        this map with a group opened, or folded where it is open. `marks` are findings in words by layer; `current` is
        the layer that is marked.
        """
        found = marks or {}
        panel = layout(
            self.items, open, lambda item, within, width, opener: label(item, within, width, found, opener=opener)
        )
        layers = sum(len(box.layers) for box in self.boxes)
        title = f"Map of {self.network}: {layers} layers from the picture down to the output"
        anchors = {group.key: self.anchor(group.key) for group in self.groups}
        return Writer(title, anchors, link, fold, current).document(panel)

    def to_json(self, open: Set[str] = frozenset(), marks: Marks | None = None) -> dict[str, Any]:
        """Return what is drawn, as plain values: every box with its row, the boxes that it reads, and its layers."""
        found, shown = marks or {}, self.visible(open)
        owner = {box.number: item for item in shown for box in boxes_in(item)}
        rows = rows_of(shown)
        return {
            "network": self.network,
            "boxes": [
                _plain(item, row, owner, found) for item, row in zip(shown, rows, strict=True)
            ],
            "open": [group.key for group in self.groups if group.key in open],
        }  # fmt: skip


def network_map(net: Net) -> NetworkMap:
    """Return the map of a network.

    What reads what is found by one run without data, when first asked, and kept with the network.
    """
    boxes = boxes_of(net)
    return NetworkMap(net.name, boxes, grouped(boxes, net.wiring.spans))


def _plain(item: Item, row: int, owner: Mapping[int, Item], marks: Marks) -> dict[str, Any]:
    inside = list(boxes_in(item))
    reads = dict.fromkeys(owner[read].key for box in inside for read in box.reads)
    single = item if isinstance(item, Box) else None
    return {
        "key": item.key,
        "name": name_of(item),
        "kind": item.kind,
        "row": row,
        "folded": item.count or 1 if isinstance(item, Group) else 0,
        "layer": item.layer,
        "layers": [name for box in inside for name in (*box.layers, *box.ends)],
        "shape": list(item.shape),
        "parameters": item.parameters,
        "window": single.detail if single else "",
        "then": list(single.words) if single else [],
        "sees": single.sees if single else "",
        "step": single.step if single else "",
        "reads": [key for key in reads if key != item.key],
        "findings": found_in(item, marks),
    }


def _groups(items: Sequence[Item]) -> Iterator[Group]:
    for item in items:
        if isinstance(item, Group):
            yield item
            yield from _groups(item.items)


def _visible(items: Sequence[Item], open_: Set[str]) -> Iterator[Item]:
    for item in items:
        if isinstance(item, Group) and item.key in open_:
            yield from _visible(item.items, open_)
        else:
            yield item
