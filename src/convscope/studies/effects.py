"""Effects: what every channel of some layers does to the answer, exactly, beside what is cheaper to compute.

Each channel is ablated (`ablating`) in each picture, and the drop of the score is its effect. Beside it stand
activation x gradient, which costs one backward pass for all channels, and mean activation, with their rank
correlations to the truth: over the channels of a layer, picture by picture, and then the mean over pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

import numpy as np
from torch import Tensor

from ..batching import budget
from ..context import Parts, say, track
from ..drawing import charts
from ..drawing.layout import Sheet, Tile
from ..drawing.study import Study
from ..drawing.tables import Cell, Column, Table
from ..errors import DataError, OptionError
from ..incremental.changes import Changes
from ..net import Net
from ..objectives import Objective, ObjectiveBatch, as_objective
from ..predictions import ObjectiveLike, checked_objective, settle_each
from ..ranks import rank_correlation
from ..recipes import Recipe
from ..registry import view
from ..tracing import OUTPUT, Layer
from .ablating import REFERENCES, ChannelEffects, Reference, effects_of, mean_activity
from .intervals import Interval, bootstrap, bootstrap_means
from .keeping import Keep, kept
from .labelled import Labelled, Labels, Limit, PerClass, Seed
from .units import Layers, chosen_layers

TRUE = "true"
"""The objective of each picture's true class."""

_BLOCK = 8
"""Pictures of one part that is kept."""

_TOP = 8
_SIDE = (250, 226)
_KINDS = {"zero": "zero", "mean": "its mean", "resample": "another picture's map"}


@view("Effects of channels", kind="study", group="study")
def effects(
    net: Net,
    data: Labelled,
    *,
    of: Annotated[
        ObjectiveLike, "what is explained: 'true' for each picture's true class, or any objective; by default the top-1"
    ] = None,
    layers: Layers = None,
    references: Annotated[
        list[Reference] | None,
        "what replaces a channel: 'zero', its 'mean' over pictures and positions, or its map of another picture "
        "('resample'); by default each of them",
    ] = None,
    limit: Limit = 24,
    per_class: PerClass = 0,
    labels: Labels = None,
    seed: Seed = 0,
    memory: Annotated[str | None, "memory for one batch, such as '500 MB'"] = None,
    keep: Keep = None,
) -> Study:
    """Show what every channel does to the answer: exact ablation, beside activation x gradient and mean activation.

    The table has a row for each channel and replacement: the mean drop of the score with its 95% interval, how often
    the first choice changes, gradient times change, and mean activation. The values are, by layer, the drops
    (pictures, channels). Raises LayerError for layers without channels, DataError where a true class is not known.
    """
    chosen = chosen_layers(net, layers)
    kinds = _references(references, len(data))
    run = _Run(net, data, chosen, kinds, of, seed, budget(memory, net.device))
    found = run.run(keep)
    layered = [_Layer(effect, seed) for effect in found]
    settled = {"layers": [layer.name for layer in chosen], "references": list(kinds)}
    values = {f"{one.layer}_{kind}": drops for one in found for kind, drops in one.drops.items()}
    return Study(
        _gist(layered),
        _table(layered, net, len(data)),
        _sheet(layered, net, len(data)),
        values,
        Recipe(settled=settled),
    )


def _references(asked: Sequence[Reference] | None, count: int) -> list[Reference]:
    kinds: list[Reference] = [kind for kind in REFERENCES if asked is None or kind in asked]
    if not kinds:
        raise OptionError(f"references is empty: name one or more of {', '.join(REFERENCES)}")
    if count > 1:
        return kinds
    if kinds != ["zero"]:
        say("one picture has no other to take a mean or a map from: channels are replaced by zero only")
    return ["zero"]


@dataclass(frozen=True)
class _Run:
    net: Net
    data: Labelled
    layers: list[Layer]
    kinds: list[Reference]
    of: ObjectiveLike
    seed: int
    memory: int

    def run(self, keep: Keep) -> list[ChannelEffects]:
        """Ablate block by block, in an order drawn at random: the next picture's maps replace those of each."""
        self._check_objective()
        order = np.random.default_rng(self.seed).permutation(len(self.data)).tolist()
        pictures, others = self._blocks(order), self._blocks([*order[1:], *order[:1]])
        first = next(self._blocks(order[:1]))
        means: Mapping[str, Tensor] = {}
        if "mean" in self.kinds:
            means = kept(keep, "means", lambda: mean_activity(self.net, self._blocks(order), self.layers))
        changes = Changes(self.net, first, self.layers, self._reads(first), self.memory)
        say(changes.how)
        starts = range(0, len(order), _BLOCK)
        blocks = Parts(starts, [float(min(_BLOCK, len(order) - start)) for start in starts])
        parts = list[list[ChannelEffects]]()
        for start in track(blocks, "effects of channels"):
            rows = order[start : start + _BLOCK]
            pixels, donors = next(pictures), next(others)

            def make(rows: list[int] = rows, pixels: Tensor = pixels, donors: Tensor = donors) -> dict[str, Tensor]:
                given = {"zero": None, "mean": means, "resample": donors}
                objective = self._objective(rows, pixels)
                return _flat(effects_of(changes, pixels, objective, {kind: given[kind] for kind in self.kinds}))

            parts.append(_unflat(kept(keep, f"pictures {start}", make), self.layers, self.kinds))
        return [ChannelEffects.joined(blocks).rows(np.argsort(order).tolist()) for blocks in zip(*parts, strict=True)]

    def _blocks(self, order: list[int]) -> Iterator[Tensor]:
        """Yield the pixels of pictures in an order, block by block. Raises DataError for pictures of several sizes."""
        shape = None
        for _, pixels in self.data.subset(order).batches(_BLOCK):
            if shape is not None and pixels.shape[1:] != shape:
                raise DataError("the pictures have several sizes, and channels' maps must be alike: give one size")
            shape = pixels.shape[1:]
            yield pixels

    def _reads(self, pixels: Tensor) -> list[str]:
        """Return the layers that the objective and the first choice are read from."""
        asked = () if self.of is None or self.of == TRUE else checked_objective(self.net, self.of, pixels).layers
        return [*dict.fromkeys((OUTPUT, *asked))]

    def _objective(self, rows: Sequence[int], pixels: Tensor) -> Objective:
        if self.of != TRUE:
            return ObjectiveBatch(tuple(settle_each(self.net, pixels, self.of)[0]))
        classes = [self.data.answers[row] for row in rows]
        return ObjectiveBatch(tuple(as_objective(self.net, known) for known in classes if known is not None))

    def _check_objective(self) -> None:
        """Refuse what is no objective before a picture is read. Raises ObjectiveError, DataError."""
        if self.of == TRUE and None in self.data.answers:
            without = self.data.pictures[self.data.answers.index(None)].where
            raise DataError(
                f"{without} has no label, and of='true' needs one for each: leave it out for the top-1 class, or give "
                "labels"
            )
        if self.of is not None and self.of != TRUE:
            as_objective(self.net, self.of)


_PARTS = ("drops", "gradients", "flips")


def _flat(found: Sequence[ChannelEffects]) -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for number, one in enumerate(found):
        flat[f"{number}-activity"] = one.activity.cpu()
        flat |= {
            f"{number}-{part}-{kind}": value.cpu() for part in _PARTS for kind, value in getattr(one, part).items()
        }
    return flat


def _unflat(flat: Mapping[str, Tensor], layers: Sequence[Layer], kinds: Sequence[Reference]) -> list[ChannelEffects]:
    def part(number: int, name: str) -> dict[Reference, Tensor]:
        return {kind: flat[f"{number}-{name}-{kind}"] for kind in kinds}

    return [
        ChannelEffects(layer.name, part(n, "drops"), part(n, "gradients"), part(n, "flips"), flat[f"{n}-activity"])
        for n, layer in enumerate(layers)
    ]


# Numbers ----------------------------------------------------------------------------------------------------------


class _Layer:
    """The channels of a layer over all pictures."""

    def __init__(self, effects: ChannelEffects, seed: int) -> None:
        self.effects, self.seed = effects, seed
        self.kinds: list[Reference] = list(effects.drops)
        self.bounds = {kind: bootstrap_means(_array(d), seed=seed) for kind, d in effects.drops.items()}
        self.means = {kind: _array(drops).mean(0) for kind, drops in effects.drops.items()}
        activity = effects.activity
        first = self.kinds[0]
        self.gradient = {k: self._correlation(effects.gradients[k], effects.drops[k]) for k in self.kinds}
        self.active = self._correlation(activity, effects.drops[first])
        self.active_size = self._correlation(activity, effects.drops[first].abs())
        pairs = list(combinations(self.kinds, 2))
        self.between = {(a, b): self._correlation(effects.drops[a], effects.drops[b]) for a, b in pairs}

    @property
    def name(self) -> str:
        return self.effects.layer or "output"

    def _correlation(self, one: Tensor, other: Tensor) -> Interval:
        """Return the mean over pictures of the rank correlation over channels; pictures without any are left out."""
        pairs = zip(one, other, strict=True)
        found = [rank_correlation(a, b) for a, b in pairs if a.isfinite().all() and _differ(a) and _differ(b)]
        values = np.array(found)
        return bootstrap(lambda rows: float(values[rows].mean()), len(found), seed=self.seed)

    def order(self, kind: Reference) -> list[int]:
        """Return the channels by their mean drop, largest first."""
        return np.argsort(-self.means[kind], kind="stable").tolist()


def _array(values: Tensor) -> np.ndarray:
    return values.double().numpy()


def _differ(values: Tensor) -> bool:
    return bool((values != values[0]).any())


_COLUMNS = (
    Column("layer", unbroken=True),
    Column("channel", "whole"),
    Column("replaced_by", unbroken=True),
    Column("drop", "number", format=".3g"),
    Column("low", "number", head="95% from", format=".3g"),
    Column("high", "number", head="to", format=".3g"),
    Column("changed", "number", head="top-1 changes", format=".1%"),
    Column("gradient", "number", head="gradient", format=".3g"),
    Column("activity", "number", head="activity", format=".3g"),
    Column("n", "whole"),
)


def _table(layers: Sequence[_Layer], net: Net, count: int) -> Table:
    rows = tuple(row for layer in layers for kind in layer.kinds for row in _rows(layer, kind, count))
    return Table(_COLUMNS, rows, title=f"Effects of channels of {net.name}", subtitle=f"{count:,} pictures")


def _rows(layer: _Layer, kind: Reference, count: int) -> Iterator[tuple[Cell, ...]]:
    found, (low, high) = layer.effects, layer.bounds[kind]
    gradients, flips = _array(found.gradients[kind]).mean(0), _array(found.flips[kind]).mean(0)
    activity = _array(found.activity).mean(0)
    for channel in layer.order(kind):
        numbers = (layer.means[kind], low, high, flips, gradients, activity)
        yield layer.name, channel, kind, *(float(each[channel]) for each in numbers), count


def _gist(layers: Sequence[_Layer]) -> str:
    first = layers[0].kinds[0]
    active = _list([layer.active for layer in layers])
    parts = [
        f"Rank correlation with the exact drop, per picture ({_names(layers)}): {_first_order(first)} "
        f"{_list([layer.gradient[first] for layer in layers])}, mean activation {active}: {_verdict(layers)}",
        f"With the size of the drop, up or down, mean activation has {_list([layer.active_size for layer in layers])}",
    ]
    for one, other in layers[0].between:
        found = _list([layer.between[one, other] for layer in layers])
        parts.append(f"{_KINDS[one]} against {_KINDS[other]} in place of the channel: {found}")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _verdict(layers: Sequence[_Layer]) -> str:
    """Say what mean activation is worth, in the first of the references."""
    if all(layer.active.value < 0.5 for layer in layers):
        return "the most active channels are not the most used"
    kind = layers[0].kinds[0]
    weaker = all(layer.active.value < layer.gradient[kind].value for layer in layers)
    return "mean activation is the weaker guide" if weaker else "here mean activation is a guide as well"


def _first_order(kind: Reference) -> str:
    return "activation × gradient" if kind == "zero" else "gradient × change"


def _names(layers: Sequence[_Layer]) -> str:
    names = [layer.name for layer in layers]
    return f"{names[0]} to {names[-1]}" if len(names) > 2 else " and ".join(names)


def _list(found: Sequence[Interval]) -> str:
    return " ".join("?" if one.n == 0 else f"{one.value:.2f}".replace("-", "−") for one in found)


def _sheet(layers: Sequence[_Layer], net: Net, count: int) -> Sheet:
    rows = tuple(_tiles(layer, layer.kinds[0]) for layer in layers)
    kind = layers[0].kinds[0]
    subtitle = f"{net.name} · {count:,} pictures · each channel replaced by {_KINDS[kind]}"
    return Sheet("Effects of channels", rows, subtitle)


def _tiles(layer: _Layer, kind: Reference) -> tuple[Tile, ...]:
    found, means = layer.effects, layer.means[kind].tolist()
    gradients, activity = _array(found.gradients[kind]).mean(0), _array(found.activity).mean(0)
    exact = "drop of the score, exact"
    low, high = layer.bounds[kind]
    top = [channel for channel in layer.order(kind)[:_TOP] if means[channel] > 0]
    bars = [charts.Bar(means[n], float(high[n] - low[n]) / 2, "#1f77b4") for n in top]
    by_gradient = charts.scatter(list(zip(means, gradients.tolist(), strict=True)), (exact, _first_order(kind)), _SIDE)
    by_activity = charts.scatter(
        list(zip(means, activity.tolist(), strict=True)), (exact, "mean activation"), _SIDE, colour=1
    )
    return (
        Tile(by_gradient, f"{layer.name}: rank correlation {_said(layer.gradient[kind])}"),
        Tile(by_activity, f"rank correlation {_said(layer.active)}"),
        Tile(charts.bars([f"{n}" for n in top], {"drop": bars}, _SIDE[0]), "channels with the largest drop"),
    )


def _said(found: Interval) -> str:
    if found.n == 0:
        return "not defined"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]".replace("-", "−")
