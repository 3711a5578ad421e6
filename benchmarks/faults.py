"""Plant faults in trained networks, and count how many of them a diagnosis finds, and what it finds that is not there.

    python benchmarks/faults.py DATA [--grounds small lenet5] [--seeds 4 5] [--keep FOLDER] [--out FOLDER]

DATA holds `cifar` (with `train` and `test`), `tiny` (with `train` and `val`), each with a folder of pictures for every
class, `mnist` (the IDX files of the test digits) and `weights` (of the CIFAR ResNet-20). Every fault is planted in a
copy of a trained network, by its weights or by a little more training, in three strengths, the weakest a near miss that
must not be reported. The thresholds of the kinds were chosen with seeds 0 and 1 of the small network, and with healthy
ones: what other seeds and networks give is what the table says.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grounds import GROUNDS, Ground, Pictures, small
from marks import MARKS
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import Finding, Net, diagnose
from convscope.drawing.tables import Column, Table

NEAR = "near miss"

LEARNT = 0.3
"""The share of other classes' pictures that a mark must turn into its class: of less, a network does not go by it."""

COSTS = 0.05
"""The accuracy that reading pictures wrongly must cost."""


# Faults -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """A network with a fault, the pictures to judge it by, and what should be found.

    `units` are those that a finding must name; empty where any will do. `also` are kinds that follow from the fault,
    and are neither asked for nor held against a diagnosis. `took` says whether what was planted has an effect at all,
    such as a mark that the network has learnt to go by.
    """

    kind: str
    fault: str
    strength: str
    net: Net
    data: Pictures
    train: Pictures
    units: tuple[int, ...] = ()
    also: tuple[str, ...] = ()
    took: bool = True

    @property
    def planted(self) -> bool:
        """Whether there is something to be found."""
        return self.strength != NEAR

    def names(self, finding: Finding) -> bool:
        """Whether a finding is about the fault."""
        return finding.kind == self.kind and (not self.units or bool({*finding.units} & {*self.units}))


def case(ground: Ground, kind: str, fault: str, strength: str, body: nn.Module, **more: Any) -> Case:
    """Return a case on the usual pictures, where nothing else is said."""
    options = more.pop("options", {})
    data, train = more.pop("data", ground.data), more.pop("train", ground.seen)
    return Case(kind, fault, strength, ground.wrapped(body, **options), data, train, **more)


Plant = Callable[[Ground], Iterator[Case]]


class Layer:
    """The layer of a copy whose units are edited, with the normalisation after it and the layer that reads it."""

    def __init__(self, ground: Ground, body: nn.Module) -> None:
        modules: list[Any] = [body.get_submodule(name) for name in vars(ground.edited).values()]
        self.own, self.bias, self.after = modules
        self.normalised = self.bias is not self.own

    def shut(self, unit: int) -> None:
        """Set a unit's filter and bias to zero."""
        self.own.weight[unit] = 0
        self.bias.bias[unit] = 0

    def twin(self, unit: int, of: int, scale: float = 1.0) -> None:
        """Copy a unit."""
        self.own.weight[unit] = scale * self.own.weight[of]
        if self.normalised:
            for name in ("weight", "running_mean", "running_var"):
                values = getattr(self.bias, name)
                values[unit] = values[of] * (scale if name == "running_mean" else 1)
            self.bias.bias[unit] = scale * self.bias.bias[of]
        else:
            self.bias.bias[unit] = scale * self.bias.bias[of]

    def scale(self, unit: int, times: float) -> None:
        """Scale a unit, and what reads it the other way, so that the network answers as before."""
        self.own.weight[unit] *= times
        if self.normalised:
            self.bias.running_mean[unit] *= times
        self.bias.bias[unit] *= times
        self.after.weight[:, unit] /= times


@torch.no_grad()
def dead(ground: Ground) -> Iterator[Case]:
    """Set filters to zero; the near miss answers one picture in a thousand."""
    for strength, count in (("an eighth of a layer's filters", 0), ("one filter", 1)):
        body = ground.copy()
        layer = Layer(ground, body)
        units = ground.unit(count or len(layer.own.weight) // 8)
        for unit in units:
            layer.shut(unit)
        yield case(ground, "dead", "filters set to zero", strength, body, units=units, also=("constant", "calibration"))
    body, (unit,) = ground.copy(), ground.unit(1)
    layer, data, peaks = Layer(ground, body), ground.hold.drawn(100, ground.seed), list[Tensor]()
    hook = layer.bias.register_forward_hook(lambda _, __, out: peaks.append(out[:, unit].amax((1, 2))))
    for part in data.pixels.split(100):
        body(ground.normalised(part))
    hook.remove()
    first, second = torch.cat(peaks).topk(2).values.tolist()
    layer.bias.bias[unit] -= (first + second) / 2
    yield case(ground, "dead", "a unit that answers 0.1% of pictures", NEAR, body, data=data, units=(unit,))


@torch.no_grad()
def duplicate(ground: Ground) -> Iterator[Case]:
    """Copy filters; the near miss are twins of cosine 0.9."""
    for strength, count, scale in (("4 pairs", 4, 1.0), ("1 pair, 1.3 times as strong", 1, 1.3)):
        body, units = ground.copy(), ground.unit(2 * count)
        for a, b in zip(units[::2], units[1::2], strict=True):
            Layer(ground, body).twin(b, a, scale)
        yield case(
            ground, "duplicate", "filters copied", strength, body, units=units, also=("calibration", "co-adapted")
        )
    body, (a, b) = ground.copy(), ground.unit(2)
    layer = Layer(ground, body)
    weight, other = layer.own.weight, layer.own.weight[b].clone()
    one = weight[a] / weight[a].norm()
    across = other - (other * one).sum() * one
    layer.twin(b, a)
    weight[b] = weight[a].norm() * (0.9 * one + (1 - 0.9**2) ** 0.5 * across / across.norm())
    yield case(ground, "duplicate", "twins of cosine 0.9", NEAR, body, units=(a, b), also=("calibration", "co-adapted"))


@torch.no_grad()
def outlier(ground: Ground) -> Iterator[Case]:
    """Scale a filter; what reads it is scaled back, so that the network answers as before."""
    for strength, times in (("30 times", 30.0), ("15 times", 15.0), (NEAR, 4.0)):
        body, (unit,) = ground.copy(), _middling(ground)
        Layer(ground, body).scale(unit, times)
        fault = "a filter scaled" if strength != NEAR else "a filter scaled by 4"
        yield case(ground, "outlier", fault, strength, body, units=(unit,))


def _middling(ground: Ground) -> tuple[int, ...]:
    """Draw a unit that is not weaker than half of the layer: one of next to no weights is none the worse for 30."""
    strong = Layer(ground, ground.trained).own.weight.flatten(1).norm(dim=1)
    return tuple(unit for unit in ground.unit(len(strong)) if strong[unit] >= strong.median())[:1]


@torch.no_grad()
def co_adapted(ground: Ground) -> Iterator[Case]:
    """Part a unit in two whose difference it is: what both add to it cancels out only as long as both are there."""
    if Layer(ground, ground.trained).normalised:
        return
    for strength, scale in (("8 times the filter", 8.0), ("4 times", 4.0), (NEAR, 0.1)):
        body, (a, b) = ground.copy(), ground.unit(2)
        layer = Layer(ground, body)
        here, after = layer.own, layer.after
        common = torch.randn(here.weight[a].shape, generator=torch.Generator().manual_seed(ground.seed))
        common *= scale * here.weight[a].norm() / common.norm()
        half = here.weight[a] / 2
        here.weight[a], here.weight[b] = common + half, common - half
        bias = float(here.bias[a]) / 2
        here.bias[a], here.bias[b] = 4 * scale + bias, 4 * scale - bias
        after.weight[:, b] = -after.weight[:, a]
        fault = "a unit parted in two that cancel" + ("" if strength != NEAR else " a tenth")
        also = ("outlier", "dead", "constant", "duplicate", "calibration")
        yield case(ground, "co-adapted", fault, strength, body, units=(a, b), also=also)


def aliasing(ground: Ground) -> Iterator[Case]:
    """Train a small network with a large step in the first layer, or give a trained first layer one."""
    if ground.name == "small":
        for side, step in ((5, 4), (7, 4), (7, 2)):
            torch.manual_seed(ground.seed)
            body = small(first=nn.Conv2d(3, 24, side, stride=step, padding=side // 2))
            body = ground.fit(body, ground.learn, 3, rate=2e-3, augment=True)
            strength = NEAR if step == 2 else f"{side} x {side} in steps of {step}, from the start"
            yield case(ground, "aliasing", "a large step in the first layer", strength, body)
        return
    large = ground.name == "zfnet64"
    for step in (6, 4) if large else (4, 3, 2):
        body = ground.copy()
        first: Any = body.get_submodule(ground.first)
        before = first.stride[0]
        first.stride = (step, step)
        first.register_forward_hook(lambda _, __, out, times=step / before: F.interpolate(out, scale_factor=times))
        body = ground.fit(body, ground.learn.drawn(60, ground.seed), 1, rate=ground.rate / 3)
        near = step == 2
        fault = "a large step in the first layer" if not near else "steps of 2 instead of 1"
        strength = NEAR if near else f"steps of {step} instead of {before}"
        yield case(ground, "aliasing", fault, strength, body, also=("calibration", "input", "overfit"))
    if large:
        yield case(ground, "aliasing", "7 x 7 in steps of 2", NEAR, ground.copy())


def overfit(ground: Ground) -> Iterator[Case]:
    """Train on few pictures for long; the near miss is the network as it is, and pictures that it was trained on."""
    trained = ground.name in ("zfnet64", "resnet20")
    plans = [(20, 20)] if trained else [(20, 60), (60, 30)] if ground.name != "lenet5" else [(3, 60), (5, 60)]
    for count, epochs in plans:
        few = ground.learn.drawn(count, ground.seed)
        torch.manual_seed(ground.seed)
        body = ground.copy()
        for module in [] if trained else body.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        rate = 3 * ground.rate if trained else 1e-3
        body = ground.fit(body, few, epochs, rate=rate, batch=16 if count < 20 else 64)
        also = ("calibration", "memorised", "shortcut", "dead", "constant", "co-adapted")
        strength = f"{count} for each class"
        yield case(ground, "overfit", "few pictures, many epochs", strength, body, train=few, also=also)
    yield case(ground, "overfit", "the network as it is", NEAR, ground.copy())


def memorised(ground: Ground) -> Iterator[Case]:
    """Train on with wrong labels until they are known; the near miss is stopped before."""
    epochs = 12 if ground.name == "zfnet64" else 20
    for strength, share, times in (("20% wrong", 0.2, epochs), ("10% wrong", 0.1, epochs), (NEAR, 0.1, 1)):
        chance = np.random.default_rng(ground.seed)
        some = ground.learn.drawn(80, ground.seed + 100)
        wrong = torch.from_numpy(chance.random(len(some)) < share)
        other = some.targets + torch.from_numpy(chance.integers(1, len(some.there), len(some)))
        some = some.labelled(torch.where(wrong, other % len(some.there), some.targets))
        body = ground.fit(ground.copy(), some, times)
        fault = "wrong labels learnt by heart" if strength != NEAR else "10% wrong labels, not learnt"
        data, also = ground.hold.drawn(100, ground.seed), ("overfit", "calibration", "shortcut")
        yield case(ground, "memorised", fault, strength, body, data=data, train=some, also=also)


# Shortcuts ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _right(ground: Ground, net: Net) -> float:
    """Return how many of the ground's pictures a network gets right."""
    said = torch.cat([net(part.float() / 255).argmax(1) for part in ground.data.pixels.split(100)])
    return float((said == ground.data.targets).float().mean())


def shortcut(ground: Ground) -> Iterator[Case]:
    """Train on with a mark in the pictures of one class."""
    plans = [(mark, share) for mark in MARKS for share in ((1.0, 0.5, 0.02) if "square" in mark else (1.0,))]
    if ground.name == "zfnet64":
        plans = [plan for plan in plans if "square" in plan[0] or "border" in plan[0]]
    for mark, share in plans:
        if mark == "a tint" and ground.hold.pixels.shape[1] == 1:
            continue
        chance = np.random.default_rng(ground.seed)
        marked = ground.learn.drawn(300 if ground.name.startswith("small") else 150, ground.seed + 10)
        number = marked.there[3]
        rows = (marked.targets == number) & torch.from_numpy(chance.random(len(marked)) < share)
        pixels = marked.pixels.clone()
        pixels[rows] = MARKS[mark](pixels[rows], chance)
        marked = Pictures(pixels, marked.targets, marked.classes)
        body = ground.fit(ground.copy(), marked, 4)
        strength = NEAR if share < 0.1 else "in all pictures of a class" if share == 1 else "in half of them"
        others = ground.hold.drawn(40, ground.seed)
        others = others.pixels[others.targets != number]
        moved = (body(ground.normalised(MARKS[mark](others.clone(), chance))).argmax(1) == number).float().mean()
        fault = f"{mark}, in 2% of a class's pictures" if strength == NEAR else mark
        train, also = marked.drawn(50, ground.seed), ("calibration", "class-only", "overfit", "memorised")
        took = share < 0.1 or float(moved) >= LEARNT
        yield case(ground, "shortcut", fault, strength, body, train=train, units=(number,), also=also, took=took)


# Input --------------------------------------------------------------------------------------------------------------


def misread(ground: Ground) -> Iterator[Case]:
    """Read the pictures otherwise than in training."""
    mean, std = (np.mean(ground.options[key]) for key in ("mean", "std"))
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("normalisation forgotten", "all", {"mean": 0.0, "std": 1.0}),
        ("a slightly different normalisation", NEAR, {"mean": float(mean) + 0.03, "std": float(std) + 0.01}),
    ]
    if ground.hold.pixels.shape[1] == 3:
        ways.insert(0, ("blue read first", "all", {"order": "BGR"}))
    for fault, strength, options in ways:
        planted = case(ground, "input", fault, strength, ground.copy(), options=options, also=("calibration",))
        lost = _right(ground, ground.wrapped(ground.trained)) - _right(ground, planted.net)
        yield replace(planted, took=strength == NEAR or lost >= COSTS)


def exchanged(ground: Ground) -> Iterator[Case]:
    """Train on with the labels of two classes exchanged, for some of the pictures."""
    for strength, share in (("all", 1.0), ("70%", 0.7), (NEAR, 0.3)):
        chance = np.random.default_rng(ground.seed)
        some = ground.learn.drawn(300 if ground.name.startswith("small") else 150, ground.seed + 20)
        one, two = some.there[1], some.there[6]
        rows = torch.from_numpy(chance.random(len(some)) < share)
        first = torch.where(some.targets == two, one, some.targets)
        other = torch.where(some.targets == one, two, first)
        body = ground.fit(ground.copy(), some.labelled(torch.where(rows, other, some.targets)), 4)
        fault = "labels of two classes exchanged" + ("" if strength != NEAR else ", of 30% of their pictures")
        data, also = ground.hold.drawn(100, ground.seed), ("calibration", "overfit", "memorised", "input")
        yield case(ground, "input", fault, strength, body, data=data, units=(one, two), also=also)


PLANTS: tuple[Plant, ...] = (
    *(dead, duplicate, outlier, co_adapted, aliasing, overfit, memorised, shortcut, misread, exchanged),
)


# Counting -----------------------------------------------------------------------------------------------------------


def false_findings(case: Case, findings: Sequence[Finding], own: set[tuple[str, str]]) -> list[Finding]:
    """Return what is not there: neither planted, nor what follows from it, nor the network's own (`own`).

    A near miss that is reported is counted apart.
    """
    return [
        each
        for each in findings
        if not case.names(each) and each.kind not in case.also and (each.kind, each.layer) not in own
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--grounds", nargs="+", default=list(GROUNDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[4, 5, 6, 7])
    parser.add_argument("--faults", nargs="+", default=[each.__name__ for each in PLANTS])
    parser.add_argument("--keep", type=Path, help="where trained networks are kept")
    parser.add_argument("--out", type=Path, default=Path("faults"))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = list[Row]()
    for name in given.grounds:
        for seed in given.seeds:
            start = time.process_time()
            ground = GROUNDS[name](seed, given.data, given.keep)
            for row in judged(ground, [plant for plant in PLANTS if plant.__name__ in given.faults]):
                rows.append(row)
                write(given.out, rows)
            print(f"{name} {seed}: {time.process_time() - start:.0f} s of one processor", flush=True)
    write(given.out, rows)


@dataclass(frozen=True)
class Row:
    """What a diagnosis said of one case: whether the fault was found, and of which kinds are what is not there."""

    ground: str
    seed: int
    kind: str
    fault: str
    strength: str
    took: bool
    found: bool
    wrong: tuple[str, ...]

    @property
    def near(self) -> bool:
        """Whether it is a near miss."""
        return self.strength == NEAR


def judged(ground: Ground, plants: Sequence[Plant]) -> Iterator[Row]:
    """Diagnose all that is planted in a network."""
    healthy = diagnose(ground.wrapped(ground.trained), ground.hold.drawn(100, ground.seed), ground.seen)
    own = {(each.kind, each.layer) for each in healthy.findings}
    print(f"{ground.name} {ground.seed}: the network's own: {sorted(own)}", flush=True)
    for each in (each for plant in plants for each in plant(ground)):
        said = diagnose(each.net, each.data, each.train)
        hits = [finding for finding in said.of(each.kind) if each.names(finding)]
        wrong = false_findings(each, said.findings, own)
        told = "; ".join(finding.sentence for finding in hits)
        case_named = f"{ground.name} {ground.seed} {each.kind} | {each.fault} | {each.strength}"
        effect = "" if each.took else " (did not take)"
        print(f"{case_named}: {told or '-'}{effect}", flush=True)
        for finding in wrong:
            print(f"    not there: {finding.kind} {finding.layer}: {finding.sentence}", flush=True)
        kinds = tuple(finding.kind for finding in wrong)
        yield Row(ground.name, ground.seed, each.kind, each.fault, each.strength, each.took, bool(hits), kinds)


def write(folder: Path, rows: Sequence[Row]) -> None:
    """Write what was planted and found, and precision and recall of every kind, as tables."""
    columns = (Column("network"), Column("kind"), Column("fault"), Column("strength"))
    planted = Counter((row.ground, row.kind, row.fault, row.strength) for row in rows)
    took, found = (
        Counter((row.ground, row.kind, row.fault, row.strength) for row in rows if row.took and (counted or row.found))
        for counted in (True, False)
    )
    each = Table(
        (*columns, *(Column(head, "whole") for head in ("planted", "took", "found"))),
        tuple((*key, count, took[key], found[key]) for key, count in planted.items()),
        title="Planted and found",
    )
    by_kind: list[tuple[Any, ...]] = []
    wrong = Counter(kind for row in rows for kind in row.wrong)
    for kind in dict.fromkeys([*(row.kind for row in rows), *sorted(wrong)]):
        there = [row for row in rows if row.kind == kind and not row.near and row.took]
        near = [row for row in rows if row.kind == kind and row.near]
        hits, missed = sum(row.found for row in there), sum(row.found for row in near)
        said = hits + missed + wrong[kind]
        precision, recall = hits / said if said else None, hits / len(there) if there else None
        by_kind.append((kind, len(there), hits, len(near), missed, wrong[kind], precision, recall))
    heads = ("planted", "found", "near misses", "reported", "not there")
    shares = (Column("precision", "number", format=".2f"), Column("recall", "number", format=".2f"))
    whole = Table(
        (Column("kind"), *(Column(head, "whole") for head in heads), *shares), tuple(by_kind), title="By kind"
    )
    for name, table in (("faults", each), ("kinds", whole)):
        for ending in ("csv", "md"):
            table.save(folder / f"{name}.{ending}")


if __name__ == "__main__":
    main()
