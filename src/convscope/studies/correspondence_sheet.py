"""The table, the figure and the words of a study of correspondence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from ..data.images import InputPicture
from ..drawing.charts import Bar, bars
from ..drawing.layout import Sheet, Tile
from ..drawing.tables import Cell, Column, Table
from ..drawing.tiles import fitted
from ..drawing.typesetting import Inset
from ..net import Net
from .intervals import DRAWS, LEVEL, Interval
from .parts import Rect

_SIDE, _GAP, _CHART, _SHOWN = 92, 6, 780, 8
_OWN, _NULL = "#3b6ea8", "#b8b8c0"
NULLS = ("different parts", "one random place", "random places")
"""What parts are compared with, the last rows: a random place is the same in all pictures, or another in each."""


@dataclass(frozen=True)
class Compared:
    """Shares that differ (networks, rows, layers, pictures, pictures); rows are parts and, last, the two nulls."""

    networks: tuple[str, ...]
    rows: tuple[str, ...]
    layers: tuple[str, ...]
    values: Tensor
    seed: int

    @property
    def pictures(self) -> int:
        """How many pictures."""
        return self.values.shape[-1]

    def of(self, network: int, row: int, layer: int) -> np.ndarray:
        """Return the shares of pairs (pictures, pictures) of a row; of several parts together with `slice`."""
        return self.values[network, row, layer].numpy()

    def mean(self, pairs: np.ndarray) -> Interval:
        """Return the mean over pairs of different pictures (pictures, pictures), with a bootstrap over pictures."""
        n = self.pictures
        known = np.nan_to_num(pairs)
        counts = np.random.default_rng(self.seed).multinomial(n, np.full(n, 1 / n), DRAWS).astype(float)
        # A picture that is drawn several times is no pair with itself.
        weights = n**2 - (counts**2).sum(1)
        drawn = ((counts @ known) * counts).sum(1)[weights > 0] / weights[weights > 0]
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(known.sum() / (n * (n - 1))), float(low), float(high), n)

    def parts(self, network: int, layer: int) -> np.ndarray:
        """Return the mean of all parts (pictures, pictures)."""
        return self.values[network, : -len(NULLS), layer].numpy().mean(0)


def table_of(compared: Compared, net: Net) -> Table:
    """Return a row for each network, layer and part, and the nulls, with the difference from random places."""
    columns = (
        Column("weights"), Column("layer", unbroken=True), Column("part"),
        *map(_number, ("difference", "low", "high", "sd")),
        *map(_number, ("to_random", "to_random_low", "to_random_high"), ("minus random", "low", "high")),
        Column("n", "whole"), Column("pairs", "whole"),
    )  # fmt: skip
    return Table(
        columns,
        tuple(_rows(compared)),
        title=f"Correspondence in {net.name}",
        subtitle="share of features whose change has another sign in another picture, mean over pairs; 95% bootstrap "
        "intervals over pictures; sd over pairs",
    )


def _number(name: str, head: str = "") -> Column:
    return Column(name, "number", head, format=".3f")


def _rows(compared: Compared) -> Iterator[tuple[Cell, ...]]:
    for network, weights in enumerate(compared.networks):
        for layer, name in enumerate(compared.layers):
            random = compared.of(network, -1, layer)
            each = [(part, compared.of(network, row, layer)) for row, part in enumerate(compared.rows)]
            each.insert(len(each) - len(NULLS), ("all parts", compared.parts(network, layer)))
            for part, pairs in each:
                if np.isnan(pairs).all():
                    continue
                whole, less = compared.mean(pairs), compared.mean(pairs - random)
                against = (None,) * 3 if part == compared.rows[-1] else _numbers(less)
                spread = float(np.nanstd(pairs))
                count = compared.pictures
                yield (weights, name, part, *_numbers(whole), spread, *against, count, count * (count - 1))


def _numbers(interval: Interval) -> tuple[Cell, ...]:
    return tuple(None if np.isnan(each) else each for each in (interval.value, interval.low, interval.high))


def gist_of(compared: Compared) -> str:
    """Say in which layers parts correspond better than random places, in the network and in the control."""
    return " ".join(_said(compared, network) for network, _ in enumerate(compared.networks))


def _said(compared: Compared, network: int) -> str:
    """Say where parts correspond better than the first null and the last one."""
    who = "With random weights they" if network else "Covered parts"
    texts = list[str]()
    for null in (-1, -len(NULLS)):
        pairs = [
            compared.parts(network, layer) - compared.of(network, null, layer)
            for layer, _ in enumerate(compared.layers)
        ]
        if not np.isnan(pairs[0]).all():
            gaps = [compared.mean(each) for each in pairs]
            better = [name for name, gap in zip(compared.layers, gaps, strict=True) if gap.high < 0]
            texts.append(f"than {NULLS[null]} {f'in {_listed(better)}' if better else 'in no layer'}")
    few = "; too few to tell" if compared.pictures < 5 else ""
    return f"{who} differ less {', '.join(texts)}, clearly so (95%, n = {compared.pictures} pictures{few})."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def sheet_of(
    compared: Compared,
    net: Net,
    pictures: Sequence[InputPicture],
    covered: Sequence[Sequence[Tensor]],
    places: Sequence[Sequence[Rect]],
    note: str,
) -> Sheet:
    """Lay out the covered pictures of each part, and bars of the shares by layer."""
    shown = min(_SHOWN, len(pictures))
    rows = [
        (Tile(_strip([_covered(pictures[at], each[at], rects[at]) for at in range(shown)])),)
        for each, rects in zip(covered, places, strict=True)
    ]
    labels = [*compared.rows[: -len(NULLS)], compared.rows[-1]]
    for network, weights in enumerate(compared.networks):
        rows.append((Tile(_bars(compared, network), f"share of features that differ, {weights}"),))
        labels.append("")
    some = f" · {shown} of {len(pictures)} pictures shown" if shown < len(pictures) else ""
    return Sheet(
        f"Correspondence in {net.name}",
        tuple(rows),
        "share of features that covering changes in another direction in another picture: mean over pairs and 95% "
        f"interval over pictures · {note}{some}",
        labels=tuple(labels),
    )


def _bars(compared: Compared, network: int) -> Inset:
    kept = [at for at, _ in enumerate(compared.rows) if not compared.values[network, at].isnan().all()]
    panels = {
        name: [
            _bar(compared.mean(compared.of(network, at, layer)), at >= len(compared.rows) - len(NULLS)) for at in kept
        ]
        for layer, name in enumerate(compared.layers)
    }
    return bars([compared.rows[at] for at in kept], panels, _CHART)


def _bar(interval: Interval, null: bool) -> Bar:
    return Bar(interval.value, (interval.high - interval.low) / 2, _NULL if null else _OWN)


def _covered(picture: InputPicture, pixels: Tensor, rect: Rect) -> Image.Image:
    """Show a covered picture with the box outlined: the baseline's colour may be the picture's."""
    image = fitted(picture.image(pixels[0].cpu().numpy()), _SIDE)
    top, bottom, left, right = rect
    scale = image.width / pixels.shape[3]
    edges = (left * scale, top * scale, max(right * scale - 1, left * scale), max(bottom * scale - 1, top * scale))
    ImageDraw.Draw(image).rectangle(edges, outline="#e0007a")
    return image


def _strip(images: Sequence[Image.Image]) -> Image.Image:
    """Lay images side by side."""
    strip = Image.new(
        "RGB", (sum(each.width + _GAP for each in images) - _GAP, max(each.height for each in images)), "white"
    )
    left = 0
    for each in images:
        strip.paste(each.convert("RGB"), (left, 0))
        left += each.width + _GAP
    return strip
