"""Table 3: which layers a network needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...studies.ablate import PLAIN, ablate
from ...studies.intervals import Interval
from ...zoo.blueprints import VARIANTS, blueprint_of
from ..claims import Statement, above, every
from ..numbers import minus, of_row, percent
from ..registration import Found, Unfit, experiment
from ..sampling import of_classes
from ..subject import Subject

_BOTH = Statement(
    "both-pairs-cost-most",
    "Removing middle layers and last layers together costs far more than either pair",
    rule="the variant without either makes the validation error larger than the network as it is, with its interval, "
    "and larger than each variant without one pair.",
    paper="validation top-1 error of the replication of Krizhevsky's network: 40.5%; without layers 3 and 4 45.4%, "
    "without 6 and 7 44.8%, without all four 71.3%.",
)
_EACH = Statement(
    "either-pair-costs-little",
    "Either pair alone costs little",
    rule="each variant without one pair costs less than half of what the variant without both costs; where that costs "
    "nothing for certain, this cannot be judged.",
    paper="4.9 and 4.3 points of 30.8.",
)


@experiment(
    "zeiler-fergus",
    90,
    "Table 3",
    "Layers removed",
    did="the replication of Krizhevsky's network, and the paper's own, were trained anew with layers removed or "
    "resized, each on all of ImageNet.",
    differs="a network of a few layers less, trained for some hundred steps on a few classes: the order of large "
    "effects shows, not the errors of the paper. Layers of the top that are removed are convolutions where the network "
    "has no hidden layers of units.",
    claims=(_BOTH, _EACH),
    work=12,
)
def ablation(subject: Subject) -> Found:
    """Train the network and variants without layers by one recipe, and compare their errors."""
    one, other, both = _variants(subject)
    labelled = subject.labelled(subject.data if subject.learnt is None else subject.learnt)
    classes, train, test = subject.number(20, 20, 5), 30, 20
    data = of_classes(labelled, classes, train + test, subject.seed)
    counts = [count for count in data.counts.values() if count]
    train = min(train, max(1, min(counts) * 3 // 5))
    study = ablate(
        subject.net, data, variants=[one, other, both], train=train, test=test, seed=subject.seed, keep=subject.keep
    )
    records = {str(row["variant"]): row for row in study.table.records}
    n = sum(counts) - train * len(counts)
    costs = {name: of_row(records[name], ("more", "more_low", "more_high"), n) for name in (one, other, both)}
    errors = [of_row(records[name], ("error", "low", "high"), n) for name in (PLAIN, one, other, both)]
    named = ", ".join(f"{name} {each.value:.1%}" for name, each in zip((PLAIN, one, other, both), errors, strict=True))
    told = f"Validation error {named}; without both, worse by {percent(costs[both])}."
    claims = [
        _BOTH.judged(costs_most(costs[both], costs[one], costs[other]), told, numbers=costs),
        _EACH.judged(
            cost_little(costs[both], costs[one], costs[other]),
            minus(f"{costs[one].value:.1%} and {costs[other].value:.1%} of {costs[both].value:.1%}."),
            numbers=costs,
            reason="both together cost nothing for certain",
        ),
    ]
    did = (
        f"{len(counts)} classes, {train} pictures of each to learn from, one training each, seed {subject.seed}. "
        f"{study.gist}"
    )
    return Found(did, claims, figures=[study], tables=[study.readable])


def costs_most(both: Interval, one: Interval, other: Interval) -> bool | None:
    """Judge what variants cost: both pairs more than nothing, and more than either."""
    return every([above(both), both.value > one.value, both.value > other.value])


def cost_little(both: Interval, one: Interval, other: Interval) -> bool | None:
    """Judge whether either pair costs less than half of both; None where both cost nothing for certain."""
    if not both.low > 0:
        return None
    return max(one.value, other.value) < both.value / 2


def _variants(subject: Subject) -> tuple[str, str, str]:
    """Return the variants without middle layers, without last layers, and without both. Raises Unfit."""
    known = VARIANTS.get(blueprint_of(subject.net).name.partition(":")[0], {})
    without = {name: {*_layers(options)} for name, options in known.items() if _layers(options)}
    for both, layers in without.items():
        pairs = [name for name, own in without.items() if own < layers and len(own) == len(layers) / 2]
        for one in pairs:
            for other in pairs:
                if without[one] | without[other] == layers and min(without[one]) < min(without[other]):
                    return one, other, both
    raise Unfit(
        f"{subject.net.name} has no variants with middle and last layers removed; {', '.join(VARIANTS)} have some"
    )


def _layers(options: Mapping[str, Any]) -> tuple[int, ...]:
    return options.get("without", ())
