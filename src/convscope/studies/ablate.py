"""Ablation of layers: a network with layers removed or resized, trained anew by one recipe, and compared.

After Zeiler and Fergus (arXiv:1311.2901v3, Table 3): removing two middle layers, or the last ones, costs little,
removing both much, so that depth matters; wider layers lower the error on what was learnt more than on what was not.
A short training on few pictures shows the order of such effects, not the errors of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch

from ..context import say, track
from ..drawing import charts
from ..drawing.layout import Sheet, Tile
from ..drawing.study import Study
from ..drawing.tables import Cell, Column, Table
from ..errors import NetworkError, OptionError, nearest
from ..net import Net
from ..registry import view
from ..zoo.blueprints import BLUEPRINTS, VARIANTS, Blueprint, blueprint_of
from .hits import Hits
from .keeping import Keep
from .labelled import Labelled, Labels, PerClass, Seed
from .probe import Test, Train
from .splits import Split, checked, draws
from .transfer import Epochs, Rate, Repeats

_WIDTH, _COLOURS = 640, ("#1f77b4", "#ff7f0e")

PLAIN = "as it is"


@view("Ablation of layers", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Table 3", kind="study", group="study")
def ablate(
    net: Net,
    data: Labelled,
    *,
    variants: Annotated[
        list[str] | None, "variants of the network to compare with it, such as no-3-4; all that there are by default"
    ] = None,
    train: Train = None,
    test: Test = 50,
    repeats: Repeats = 1,
    recipe: Annotated[
        Literal["short", "default", "paper"], "how all are trained: a few hundred steps, or convscope train's recipes"
    ] = "short",
    epochs: Epochs = None,
    rate: Rate = None,
    labels: Labels = None,
    per_class: PerClass = 0,
    seed: Seed = 0,
    keep: Keep = None,
) -> Study:
    """Train a network and its variants with layers removed or resized by one recipe, and compare their errors.

    Only the network's architecture is used, not its weights. The values are `train_error`, `error` and, with more than
    five classes, `top5_error` (variants, repeats), shares of pictures, the last two of those that are not learnt from.
    Raises NetworkError for a network that has no variants, OptionError for an unknown one, DataError for fewer than two
    classes, or too few pictures of one.
    """
    chosen = _variants(net, variants)
    labelled = checked(data)
    parts = draws(labelled, Split.of(labelled, train, test), repeats, seed)
    study = _Ablation(labelled, chosen, parts, (recipe, epochs, rate), seed)
    return _drawn(study, study.trained(keep))


def _variants(net: Net, asked: Sequence[str] | None) -> dict[str, Blueprint]:
    """Return the blueprints of a network and its variants, by their names. Raises NetworkError, OptionError."""
    plain = blueprint_of(net).name.partition(":")[0]
    if plain not in VARIANTS:
        raise NetworkError(f"{plain} has no variants with layers removed or resized; {', '.join(VARIANTS)} have")
    known = VARIANTS[plain]
    names = list(known) if asked is None else [name.removeprefix(f"{plain}:") for name in asked]
    for name in names:
        if name not in known:
            raise OptionError(f"{plain} has no variant {name!r}; nearest: {nearest(name, known)}")
    if not names:
        raise OptionError(f"variants is empty: name some of {', '.join(known)}")
    return {PLAIN: BLUEPRINTS[plain]} | {name: BLUEPRINTS[f"{plain}:{name}"] for name in dict.fromkeys(names)}


@dataclass(frozen=True)
class _Ablation:
    """What is compared: networks by name, and which pictures they learn from and are tested on."""

    data: Labelled
    blueprints: dict[str, Blueprint]
    parts: Sequence[tuple[np.ndarray, np.ndarray]]
    how: tuple[str, int | None, float | None]
    seed: int

    @property
    def targets(self) -> np.ndarray:
        return np.array(self.data.targets)

    def trained(self, keep: Keep) -> dict[str, np.ndarray]:
        """Train every network; return the ranks of the pictures' classes (repeats, pictures) by name."""
        from ..training.recipes import recipe  # with torchvision, which nothing else here needs
        from .training import Lesson, recipe_for

        name, epochs, rate = self.how
        count = len(self.parts[0][0])
        plain = recipe(self.blueprints[PLAIN], "default" if name == "short" else name, epochs=epochs, rate=rate)
        chosen = recipe_for(plain, count, epochs, rate) if name == "short" else plain
        found = {variant: np.full((len(self.parts), len(self.data)), np.nan) for variant in self.blueprints}
        steps = [(variant, i) for variant in self.blueprints for i in range(len(self.parts))]
        for variant, i in track(steps, "trainings of variants"):
            learn, test = self.parts[i]
            lesson = Lesson(self.blueprints[variant], chosen, self.data, learn, self.seed + i)
            found[variant][i] = lesson.ranks(test, keep, f"{variant} {i}")
        say(f"{chosen.epochs} epochs of {math.ceil(count / chosen.batch)} steps, learning rate {chosen.rate:g}")
        return found

    def hits(self, ranks: np.ndarray, part: int, top: int = 1) -> Hits:
        """Return the pictures learnt from (part 0) or tested on (1) whose class is among the first `top`."""
        hits = np.full_like(ranks, np.nan)
        for i, rows in enumerate(self.parts):
            hits[i, rows[part]] = ranks[i, rows[part]] < top
        return Hits(hits, self.targets)


_COLUMNS = (
    Column("variant", unbroken=True),
    Column("parameters", "whole"),
    Column("train_error", "number", "train", ".1%"),
    Column("error", "number", "validation", ".1%"),
    Column("low", "number", "from", ".1%"),
    Column("high", "number", "to", ".1%"),
    Column("top5_error", "number", "top-5", ".1%"),
    Column("more", "number", "worse by", ".1%"),
    Column("more_low", "number", "from", ".1%"),
    Column("more_high", "number", "to", ".1%"),
)


def _drawn(study: _Ablation, ranks: dict[str, np.ndarray]) -> Study:
    classes = len({*study.data.targets})
    rows: list[tuple[Cell, ...]] = []
    bars: list[tuple[charts.Bar, charts.Bar]] = []
    plain = study.hits(ranks[PLAIN], 1)
    for name, found in ranks.items():
        learnt, tested = study.hits(found, 0).interval(study.seed), study.hits(found, 1).interval(study.seed)
        top5 = 1 - study.hits(found, 1, 5).interval(study.seed).value if classes > 5 else None
        more = plain.interval(study.seed, less=study.hits(found, 1)) if name != PLAIN else None
        numbers = (1 - learnt.value, 1 - tested.value, 1 - tested.high, 1 - tested.low, top5)
        beside = (more.value, more.low, more.high) if more else (None, None, None)
        rows.append((name, _parameters(study.blueprints[name], classes), *numbers, *beside))
        reach = (tested.high - tested.low) / 2
        bars.append(
            (charts.Bar(1 - learnt.value, math.nan, _COLOURS[0]), charts.Bar(1 - tested.value, reach, _COLOURS[1]))
        )
    title = f"Ablation of {study.blueprints[PLAIN].name}"
    learn, test = study.parts[0]
    subtitle = f"{classes} classes, {len(learn):,} pictures to learn from · chance {1 - 1 / classes:.1%} error"
    note = (
        f"Top-1 error on what was learnt from (train), and on {len(test):,} other pictures (validation), of "
        f"{len(study.parts)} training{'s' * (len(study.parts) > 1)} each; from, to: 95% interval, bootstrap over those."
    )
    values = {"train_error": _errors(study, ranks, 0, 1), "error": _errors(study, ranks, 1, 1)}
    values |= {"top5_error": _errors(study, ranks, 1, 5)} if classes > 5 else {}
    panels = {"train error": [left for left, _ in bars], "validation error": [right for _, right in bars]}
    sheet = Sheet(title, ((Tile(charts.bars(list(ranks), panels, _WIDTH)),),), subtitle, note)
    table = Table(_COLUMNS, tuple(rows), title=title, subtitle=subtitle, note=note)
    return Study(_gist(table, classes, len(study.parts)), table, sheet, values)


def _errors(study: _Ablation, ranks: dict[str, np.ndarray], part: int, top: int) -> torch.Tensor:
    return 1 - torch.tensor([study.hits(found, part, top).accuracies for found in ranks.values()])


def _parameters(blueprint: Blueprint, classes: int) -> int:
    return sum(each.numel() for each in blueprint.body(classes).parameters())


def _gist(table: Table, classes: int, repeats: int) -> str:
    """Say which variants are clearly worse and better, and whether anything was learnt at all."""
    records = table.records
    words: dict[str, list[str]] = {"worse": [], "better": [], "not clearly different": []}
    for row in records[1:]:
        low, high = row["more_low"], row["more_high"]
        assert isinstance(low, float) and isinstance(high, float)
        verdict = "worse" if low > 0 else "better" if high < 0 else "not clearly different"
        words[verdict].append(str(row["variant"]))
    sentences = [f"{verdict.capitalize()}: {', '.join(names)}." for verdict, names in words.items() if names]
    least = min(float(row["train_error"]) for row in records)  # type: ignore[arg-type]
    if least > 0.9 * (1 - 1 / classes):
        sentences.append("None has learnt much: take more epochs or pictures before anything is concluded.")
    if repeats == 1:
        sentences.append("Of one training each: other seeds move these errors, too.")
    return f"Validation error against the network as it is. {' '.join(sentences)}"
