"""A network's map as one inline SVG, without script or style: classes that `static/map.css` colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from math import ceil

from .network_groups import Group, boxes_in
from .network_labels import CLOSE, DETAIL, LINE, MARGIN, NAME, OPENER, SMALL, SMALL_NAME, Text
from .network_layout import BASE, INSET
from .network_lines import Line, Panel, Placed

Link = Callable[[str], str | None]
"""The address of a page about a layer or a group; None where there is none."""

_WIDER = 100
"""Classes for wider maps go up by so many pixels."""


@dataclass(frozen=True)
class Writer:
    """Writes a layout; `link` and `fold` give addresses, `current` is the layer that is marked.

    `anchors` are the ids of groups, by their keys.
    """

    title: str
    anchors: Mapping[str, str]
    link: Link | None
    fold: Link | None
    current: str | None

    def document(self, panel: Panel) -> str:
        """Return the SVG element."""
        wider = f" network-map-{ceil(panel.base / _WIDER) * _WIDER}" if panel.base > BASE + 1 else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="network-map{wider}" width="100%" '
            f'height="{panel.height:g}" role="group" aria-label="{_attribute(self.title)}" fill="currentColor" '
            f'font-family="system-ui, sans-serif" font-size="{DETAIL:g}">{"".join(self._panel(panel))}</svg>'
        )

    def _panel(self, panel: Panel) -> Iterator[str]:
        yield (
            f'<svg class="map-lines" width="100%" height="{panel.height:g}" viewBox="0 0 1000 {panel.height:g}" '
            'preserveAspectRatio="none" overflow="visible" fill="none" stroke="currentColor" stroke-width="1.5" '
            'stroke-opacity=".45" aria-hidden="true">'
        )
        yield from map(_line, panel.lines)
        yield "</svg>"
        yield from (_tip(*line.tip) for line in panel.lines if line.tip)
        for place in panel.placed:
            yield from self._open(place) if place.panel else self._box(place)

    def _open(self, place: Placed) -> Iterator[str]:
        """Write an open group: its name, which folds it again, and what is inside."""
        assert isinstance(place.item, Group) and place.panel is not None
        yield _at(place, self.anchors[place.item.key])
        yield f'<rect class="map-group" width="100%" height="{place.height:g}" rx="10"{_OUTLINE}/>'
        head = place.panel.head
        assert head is not None
        inside = (
            f'<rect class="map-head" width="100%" height="{head.height:g}" rx="10" fill="transparent"/>'
            + "".join(_written(text, OPENER) for text in head.texts)
            + f'<text class="map-fold" x="100%" dx="-12" y="{MARGIN + 12:g}" text-anchor="end">fold</text>'
        )
        yield _linked(self.fold and self.fold(place.item.key), f"Fold {head.spoken}", inside, "map-folder")
        inset = f"{100 * INSET / (place.panel.base + 2 * INSET):.5g}%"
        inner = f"{100 * place.panel.base / (place.panel.base + 2 * INSET):.5g}%"
        yield f'<svg x="{inset}" width="{inner}" height="{place.height:g}" overflow="visible">'
        yield from self._panel(place.panel)
        yield "</svg></svg>"

    def _box(self, place: Placed) -> Iterator[str]:
        item = place.item
        names = {name for box in boxes_in(item) for name in (*box.layers, *box.ends)}
        kinds = ["map-box"]
        kinds += ["map-folded"] if isinstance(item, Group) else ["map-join"] if item.function else []
        kinds += ["map-given"] if not isinstance(item, Group) and item.source else []
        here = self.current is not None and self.current in names
        kinds += ["map-current"] if here else []
        anchor = self.anchors[item.key] if isinstance(item, Group) else ""
        yield f'{_at(place, anchor)}<g class="{" ".join(kinds)}"{_CURRENT if here else ""}>'
        if isinstance(item, Group):
            yield f'<rect class="map-under" x="1%" y="4" width="98%" height="{place.height:g}" rx="8"{_OUTLINE}/>'
        body = f'<rect class="map-card" width="100%" height="{place.height:g}" rx="8"{_OUTLINE}/>'
        body += "".join(_written(text, OPENER if place.label.opener else 0) for text in place.label.texts)
        layer = item.layer
        url = self.link(layer) if self.link is not None and layer is not None else None
        yield _linked(url, place.label.spoken, body, "map-link")
        if isinstance(item, Group):
            yield self._opener(item, place)
        yield "</g></svg>"

    def _opener(self, group: Group, place: Placed) -> str:
        said = f"Open {group.key}, {group.words}"
        if place.label.opener:
            inside = (
                f'<g transform="translate(-{OPENER:g} 0)"><rect x="100%" width="{OPENER:g}" height="{place.height:g}" '
                f'fill="transparent"/><text class="map-fold" x="100%" dx="{OPENER / 2 - 2:g}" '
                f'y="{place.height / 2 + 4:g}" text-anchor="middle">open</text></g>'
            )
        else:
            y = place.height - MARGIN - LINE
            inside = (
                f'<rect y="{y:g}" width="100%" height="{LINE + MARGIN:g}" fill="transparent"/>'
                f'<text class="map-fold" x="{MARGIN:g}" y="{y + 12:g}">open</text>'
            )
        return _linked(self.fold and self.fold(group.key), said, inside, "map-opener")


_OUTLINE = ' fill="none" stroke="currentColor" stroke-opacity=".3"'
_CURRENT = ' aria-current="true"'


def _at(place: Placed, anchor: str = "") -> str:
    id_ = f' id="{anchor}"' if anchor else ""
    x, width = (f"{100 * share:.5g}%" for share in (place.x, place.width))
    return f'<svg{id_} x="{x}" y="{place.y:g}" width="{width}" height="{place.height:g}" overflow="visible">'


def _linked(url: str | None, said: str, inside: str, kind: str) -> str:
    """Write something as a link, or as itself where there is no address."""
    title = f"<title>{_text(said)}</title>"
    if not url:
        return f'<g class="{kind}" role="img" aria-label="{_attribute(said)}">{title}{inside}</g>'
    return f'<a class="{kind}" href="{_attribute(url)}" aria-label="{_attribute(said)}">{title}{inside}</a>'


def _written(text: Text, right: float) -> str:
    """Write a line of a box, `right` pixels of which are kept free at the right."""
    if not text.text:
        return ""
    size = {(True, False): NAME, (True, True): SMALL_NAME, (False, True): SMALL}.get((text.role == "name", text.small))
    look = f' font-size="{size:g}"' if size else ""
    look += ' font-weight="600"' if text.role == "name" else ""
    side = CLOSE if text.small else MARGIN
    where = f'x="{side:g}"'
    if text.right:
        where = f'x="100%" dx="-{side + right:g}" text-anchor="end"'
    elif text.wide:
        where = 'x="58%"'
    where += ' display="none"' if text.wide else ""
    wide = " map-wide" if text.wide else ""
    y = MARGIN + LINE * text.line + 12
    return f'<text class="map-{text.role}{wide}" {where} y="{y:g}"{look}>{_text(text.text)}</text>'


def _line(line: Line) -> str:
    kind = "map-skip" if line.skip else "map-line"
    return f'<path class="{kind}" vector-effect="non-scaling-stroke" d="{line.path}"/>'


def _tip(x: float, y: float) -> str:
    """Write the point of an arrow, whose shape does not change with the width."""
    return (
        f'<svg x="{100 * x:.5g}%" y="{y:g}" width="1" height="1" overflow="visible" aria-hidden="true">'
        '<path class="map-tip" d="M6-3.5L0 0L6 3.5z" fill-opacity=".6"/></svg>'
    )


def _text(text: str) -> str:
    return escape(
        "".join(letter for letter in text if letter >= " " and not "\ud800" <= letter <= "\udfff"), quote=False
    )


def _attribute(text: str) -> str:
    return escape(_text(text).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
