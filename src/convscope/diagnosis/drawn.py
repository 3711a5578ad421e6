"""Figures that findings bring as evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from ..atlas.units import Activity
from ..data.display import to_image
from ..drawing.charts import Bar, bars, lines
from ..drawing.drawings import robust_limit
from ..drawing.layout import Sheet, Tile
from ..drawing.tiles import fitted, magnitude_scale, painted
from ..net import Net
from ..tapping import tap
from .evidence import Evidence
from .sites import Site

Drawn = Callable[[], Sheet]

_SIZE = (440, 220)
_SIDE = 96
_MOST = 9
_COLOUR = "#1f77b4"


def ranked(values: Tensor, found: Sequence[int], measure: str, layer: str) -> Drawn:
    """Draw a number of every unit of a layer from the largest to the smallest, those that were found apart."""
    told, chosen, nothing = values.double().cpu(), set(found), float("nan")
    order = told.argsort(descending=True).tolist()
    others = [nothing if unit in chosen else float(told[unit]) for unit in order]
    # A line needs two ends: those beside one that was found are drawn with it.
    beside = [bool(chosen & {*order[max(place - 1, 0) : place + 2]}) for place in range(len(order))]
    marked = [float(told[unit]) if near else nothing for unit, near in zip(order, beside, strict=True)]
    x = [float(place) for place in range(1, len(order) + 1)]
    return lines_of(x, {"others": others, "found": marked}, (f"units of {layer}, sorted", measure))


def lines_of(x: Sequence[float], series: Mapping[str, Sequence[float]], labels: tuple[str, str]) -> Drawn:
    """Draw lines over one axis, with the names of both axes."""
    return lambda: Sheet("", ((Tile(lines(x, series, labels, _SIZE)),),))


def bars_of(values: Mapping[str, float], title: str) -> Drawn:
    """Draw the largest of some numbers by name, as bars."""
    first = sorted(values, key=lambda name: -values[name])[:_MOST]
    drawn = [Bar(values[name], float("nan"), _COLOUR) for name in first]
    return lambda: Sheet("", ((Tile(bars(first, {title: drawn}, _SIZE[0])),),))


def filters(net: Net, weights: Tensor, units: Sequence[int], sizes: Tensor) -> Drawn:
    """Draw filters that read pixels, those found first and then others, on one scale with grey as zero."""

    def draw() -> Sheet:
        others = [unit for unit in range(len(weights)) if unit not in units]
        chosen = [*units[: _MOST // 2], *others][:_MOST]
        values = weights[chosen].numpy()
        limit = robust_limit(values)
        tiles = [
            Tile(fitted(to_image(0.5 + value * 0.5 / limit, net.show), _SIDE), f"{unit}\n{float(sizes[unit]):.2g}")
            for unit, value in zip(chosen, values, strict=True)
        ]
        return Sheet("", (tuple(tiles),), "filters, one scale, grey is 0; below each its number and its strength")

    return draw


def maps(evidence: Evidence, site: Site, units: Sequence[int], count: int = 6) -> Drawn:
    """Draw what some units of a layer let through on pictures, a row for each unit below the pictures."""
    _, pixels = evidence.sample(count)
    with torch.inference_mode():
        read = torch.cat(
            [tap(evidence.net, part, [site.read.name])[site.read.name] for part in evidence.batches(pixels)]
        )
        values = site.gate.passed(Activity(site.read, read).values[..., list(units)]).cpu().numpy()

    def draw() -> Sheet:
        pictures = tuple(Tile(fitted(to_image(each.numpy(), evidence.net.show), _SIDE)) for each in pixels)
        rows = [
            tuple(Tile(painted(each[..., row], magnitude_scale(values[..., row]), _SIDE)) for each in values)
            for row in range(len(units))
        ]
        labels = ("picture", *(f"unit {unit}" for unit in units))
        return Sheet(
            "", (pictures, *rows), f"what units of {site.title} let through, each on its own scale", labels=labels
        )

    return draw


def picture(image: Image.Image, caption: str = "") -> Tile:
    """Draw a picture at the size at which evidence is shown."""
    return Tile(fitted(image, _SIDE), caption)
