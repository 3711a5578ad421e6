"""Evolution: when each layer of a network settles in its training.

After Zeiler and Fergus (arXiv:1311.2901v3, Fig. 4), who look at projections: low layers settle in a few epochs, high
ones late. Here every snapshot is compared with the last one, layer by layer: the representation of the same pictures,
by debiased CKA and by common neighbours (a few outliers move the first and not the second), which pictures excite units
most, and what units project down to on the pictures that excite them in the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ..atlas.snapshots import Snapshot, as_snapshots, snapshots_of, weights_named
from ..context import listen, say, track
from ..drawing import charts
from ..drawing.layout import Sheet, Tile
from ..drawing.study import Study
from ..drawing.tables import Cell, Column, Table
from ..errors import ConvscopeError, LayerError, OptionError
from ..layers import channelled_layer, default_convolutions
from ..net import Net
from ..options import Range
from ..ranks import rank_correlation
from ..recipes import Recipe
from ..registry import view
from ..renames import warn
from ..running import attribute
from ..tracing import Layer
from .features import Reading, features_of
from .intervals import bootstrap_means
from .keeping import Keep, kept
from .labelled import Labelled, Limit, Seed
from .similarity import NEIGHBOURS, cka_interval, common_neighbours, gram

_TOP, _CHART = 9, (470, 250)
_MEASURES = {
    "cka": "debiased CKA with the last snapshot",
    "neighbours": f"share of the {NEIGHBOURS} nearest pictures in common",
    "strongest": f"share of a unit's {_TOP} strongest pictures in common",
    "projections": "cosine of projections of the same picture",
}
SETTLED = 0.8
"""A layer has settled when it is so similar to itself at the end, and stays so."""


@view("Evolution", kind="study", group="study", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Fig. 4")
def evolution_study(
    net: Net,
    data: Labelled,
    *,
    snapshots: Annotated[
        Any,
        "files of weights, folders or patterns, with commas between; in Python also (name, network) pairs; by default "
        "those of the network's own training",
    ] = None,
    epochs: Annotated[list[int] | None, "epochs of its own training; eight at most by default"] = None,
    layers: Annotated[list[str] | None, "layers that are compared; by default five convolutions"] = None,
    units: Annotated[int, "units of each layer whose projections are compared, drawn at random", Range(1)] = 8,
    limit: Limit = 200,
    seed: Seed = 0,
    keep: Keep = None,
) -> Study:
    """Measure when each layer settles: how alike every snapshot of a training is to the last one.

    The values are `cka`, `neighbours`, `strongest` and `projections` (snapshots, layers), 1 for the last. Raises
    WeightsError where there are no snapshots, OptionError for fewer than two or than four pictures, LayerError where
    no layer is the same in all of them.
    """
    if len(data) < 4:
        raise OptionError(f"an evolution compares what layers make of four pictures or more; given: {len(data)}")
    found, names = _readable(_snapshots(net, snapshots, epochs), net, layers)
    nets = [each for _, each in found]
    marks = [each.digest[:12] for each in nets]  # files of one name may be others by now
    seen = [
        kept(keep, f"snapshot {marks[at]}", lambda each=each: _seen(each, data, names))
        for at, each in enumerate(track(nets, "evolution"))
    ]
    picks = _picks(seen[-1], names, units, seed)
    drawn = [
        kept(keep, f"projections {marks[at]} {marks[-1]}", lambda each=each: _projected(each, data, picks))
        for at, each in enumerate(track(nets, "projections"))
    ]
    compared = _Compared(
        tuple(name for name, _ in found), tuple(names), *_compared(seen, drawn, names, seed), len(data)
    )
    recipe = Recipe(settled={"layers": list(names), "snapshots": [name for name, _ in found]})
    values = {name: torch.from_numpy(compared.values[name]) for name in _MEASURES}
    title = f"Evolution of {net.name}"
    return Study(compared.gist, compared.table(title), compared.sheet(title), values, recipe, compared.summary(title))


def _snapshots(net: Net, given: Any, epochs: Sequence[int] | None) -> list[Snapshot]:
    if given is None:
        return snapshots_of(net, epochs=epochs or ())
    if isinstance(given, str):
        return snapshots_of(net, weights=weights_named(given))
    listed = list(given)
    texts = all(isinstance(each, str) for each in listed)
    return snapshots_of(net, weights=listed) if texts else as_snapshots(listed)


def _readable(
    snapshots: Sequence[Snapshot], net: Net, layers: Sequence[str] | None
) -> tuple[list[tuple[str, Net]], list[str]]:
    """Return the snapshots that can be loaded, and the layers that are the same in all; say what is left out."""
    chosen = [channelled_layer(net, name) for name in layers] if layers else default_convolutions(net, 5)
    found, shapes = list[tuple[str, Net]](), list[dict[str, tuple[int, ...]]]()
    for snapshot in snapshots:
        try:
            loaded = snapshot.load()
        except ConvscopeError as error:
            say(f"{snapshot.name} is left out: {error}")
            continue
        found.append((snapshot.name, loaded))
        shapes.append({layer.name: layer.shape for layer in loaded.layers.values()})
    if len(found) < 2:
        raise OptionError(f"an evolution is of two snapshots or more, and {len(found)} can be read")
    names = [layer.name for layer in chosen if len({each.get(layer.name) for each in shapes}) == 1]
    missing = [layer.name for layer in chosen if layer.name not in names]
    if not names:
        raise LayerError(
            f"snapshots are of one network, and none of {', '.join(missing)} is the same in {found[0][0]!r} and the "
            "others"
        )
    if missing:
        say(f"{', '.join(missing)}: not the same in all snapshots, and left out")
    return found, names


def _seen(net: Net, data: Labelled, layers: Sequence[str]) -> Mapping[str, Tensor]:
    """Return each layer's Gram matrix of the pictures, and how strongly units respond to each (pictures, units)."""
    chosen = [net.layers[name] for name in layers]
    wanted = [Reading(layer.name, layer.shape, math.prod(layer.shape), layer) for layer in chosen]
    found = dict[str, Tensor]()
    for number, (layer, values) in enumerate(zip(chosen, features_of(data.read_by(net), wanted, ""), strict=True)):
        found[f"gram {number}"] = torch.from_numpy(gram(values))
        found[f"strength {number}"] = torch.stack([_strengths(layer, row) for row in values])
    return found


def _strengths(layer: Layer, features: np.ndarray) -> Tensor:
    """Return how strongly each unit of a layer responds at most to a picture, of the layer's features."""
    value = torch.from_numpy(features.copy()).reshape(1, *layer.shape)
    return layer.by_position(value).flatten(2).amax(2)[0] if layer.positions else value[0]


def _picks(last: Mapping[str, Tensor], layers: Sequence[str], units: int, seed: int) -> list[tuple[str, int, int]]:
    """Draw units of each layer, with the picture that excites them most in the end."""
    generator, picks = np.random.default_rng(seed), list[tuple[str, int, int]]()
    for number, name in enumerate(layers):
        strength = last[f"strength {number}"]
        some = generator.permutation(strength.shape[1])[:units]
        picks += [(name, int(unit), int(strength[:, int(unit)].argmax())) for unit in sorted(some.tolist())]
    return picks


def _projected(net: Net, data: Labelled, picks: Sequence[tuple[str, int, int]]) -> Mapping[str, Tensor]:
    """Return the deconvnet's projections of units on their pictures (units, c, h, w)."""
    pixels = torch.cat([net.pixels(net.prepare(data.pictures[row].read())) for _, _, row in picks])
    with listen():  # that a unit is projected from its strongest place is no news
        maps = [
            attribute(net, pixels[at : at + 1], "deconvnet", of=f"{layer}:{unit}@max")[0].float().cpu()
            for at, (layer, unit, _) in enumerate(picks)
        ]
    return {"maps": torch.stack(maps)}


def _compared(
    seen: Sequence[Mapping[str, Tensor]], drawn: Sequence[Mapping[str, Tensor]], layers: Sequence[str], seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return measures (snapshots, layers), and the bounds of intervals of the first two (snapshots, layers, 2)."""
    shape = len(seen), len(layers)
    values = {name: np.full(shape, np.nan) for name in _MEASURES}
    bounds = {name: np.full((*shape, 2), np.nan) for name in ("cka", "neighbours")}
    each = len(drawn[-1]["maps"]) // len(layers)
    for at, layer in np.ndindex(*shape):
        here, last = (part[f"gram {layer}"].numpy() for part in (seen[at], seen[-1]))
        interval, near = cka_interval(here, last, seed), common_neighbours(here, last)
        values["cka"][at, layer], bounds["cka"][at, layer] = interval.value, (interval.low, interval.high)
        values["neighbours"][at, layer] = near.mean()
        bounds["neighbours"][at, layer] = [float(edge[0]) for edge in bootstrap_means(near[:, None], seed=seed)]
        values["strongest"][at, layer] = _strongest_in_common(
            *(part[f"strength {layer}"] for part in (seen[at], seen[-1]))
        )
        map_, end = (part["maps"][layer * each : (layer + 1) * each].flatten(1) for part in (drawn[at], drawn[-1]))
        values["projections"][at, layer] = float(torch.cosine_similarity(map_, end).mean())
    return values, bounds


def _strongest_in_common(first: Tensor, second: Tensor) -> float:
    """Return the mean over units of the share of their strongest pictures that are the same."""
    top = min(_TOP, len(first))
    both = [each.topk(top, 0).indices.T.tolist() for each in (first, second)]
    return float(np.mean([len(set(a) & set(b)) / top for a, b in zip(*both, strict=True)]))


@dataclass(frozen=True)
class _Compared:
    """Measures (snapshots, layers), with the bounds of their intervals (snapshots, layers, 2)."""

    snapshots: tuple[str, ...]
    layers: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    bounds: Mapping[str, np.ndarray]
    n: int

    def settled(self, measure: str) -> list[int]:
        """Return, for each layer, the snapshot from which on its similarity to the last one is `SETTLED` or more."""
        return [int(np.flatnonzero(~(each >= SETTLED)).max(initial=-1)) + 1 for each in self.values[measure].T]

    @property
    def gist(self) -> str:
        """Whether low layers settle before high ones, by each measure."""
        texts = list[str]()
        for measure in _MEASURES:
            order = self.settled(measure)
            if len(set(order)) < 2:
                verdict = "all layers from the same snapshot on"
            else:
                depth = torch.arange(len(order), dtype=torch.float64)
                found = float(rank_correlation(depth, torch.tensor(order, dtype=torch.float64)))
                verdict = f"rank correlation of depth and time {found:+.2f}".replace("-", "−")
            texts.append(f"{measure}: {verdict}")
        few = " So few pictures say little." if self.n < 30 else ""
        return f"Do low layers settle before high ones? {'; '.join(texts)} (n = {self.n:,} pictures).{few}"

    def table(self, title: str) -> Table:
        """Return a row for each snapshot and layer."""
        names = (
            "cka",
            "cka_low",
            "cka_high",
            "neighbours",
            "neighbours_low",
            "neighbours_high",
            "strongest",
            "projections",
        )
        columns = (
            Column("snapshot"), Column("layer", unbroken=True),
            *(Column(name, "number", format=".3f") for name in names), Column("n", "whole"),
        )  # fmt: skip
        rows = list[tuple[Cell, ...]]()
        for at, layer in np.ndindex(len(self.snapshots), len(self.layers)):
            value = {name: self.values[name][at, layer] for name in _MEASURES}
            edges = {name: self.bounds[name][at, layer] for name in self.bounds}
            numbers = (value["cka"], *edges["cka"], value["neighbours"], *edges["neighbours"])
            cells = [
                None if np.isnan(each) else float(each) for each in (*numbers, value["strongest"], value["projections"])
            ]
            rows.append((self.snapshots[at], self.layers[layer], *cells, self.n))
        return Table(columns, tuple(rows), title=title, subtitle=_SUBTITLE)

    def summary(self, title: str) -> Table:
        """Return when each layer settles by each measure."""
        columns = (Column("layer", unbroken=True), *(Column(name, head=f"settled by {name}") for name in _MEASURES))
        settled = {name: self.settled(name) for name in _MEASURES}
        rows = tuple(
            (layer, *(self.snapshots[settled[name][at]] for name in _MEASURES)) for at, layer in enumerate(self.layers)
        )
        note = f"settled: at {SETTLED:g} or more, and from then on. {_SUBTITLE}"
        return Table(columns, rows, title=title, note=note)

    def sheet(self, title: str) -> Sheet:
        """Draw each measure over the snapshots, a line for each layer."""
        places = list(range(1, len(self.snapshots) + 1))
        tiles = [
            Tile(
                charts.lines(
                    places, dict(zip(self.layers, self.values[name].T.tolist(), strict=True)), ("snapshot", ""), _CHART
                ),
                text,
            )
            for name, text in _MEASURES.items()
        ]
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(self.snapshots, 1))
        return Sheet(title, (tuple(tiles[:2]), tuple(tiles[2:])), f"snapshots: {listed}")


_SUBTITLE = (
    "every snapshot against the last one; cka: debiased, interval of random halves of the pictures; neighbours: share "
    f"of the {NEIGHBOURS} nearest pictures in common, bootstrap interval; strongest: of each unit's {_TOP} strongest "
    "pictures; projections: cosine of the deconvnet's on the picture that excites the unit most in the end"
)


def __getattr__(name: str) -> Any:
    if name != "evolution":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn("convscope.studies.evolution.evolution", "convscope.evolution_study")
    return evolution_study
