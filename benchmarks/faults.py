"""Plant faults in trained networks, and count how many of them a diagnosis finds, and what it finds that is not there.

    python benchmarks/faults.py CIFAR [--seeds 2 3] [--keep FOLDER] [--out FOLDER]

CIFAR is a folder with `train` and `test`, each with a folder of pictures for every class of CIFAR-10. A small network
is trained for each seed (half a minute; kept in FOLDER), and every fault is planted in a copy of it, by its weights or
by a little more training. Each comes in three strengths, the weakest a near miss that must not be reported. The
thresholds of the kinds were chosen with seeds 0 to 3: what other seeds give is what the table says.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import Finding, Net, diagnose
from convscope.drawing.tables import Column, Table

NEAR = "near miss"
MEAN, STD, SIDE = 0.47, 0.25, 32
AUTOMOBILE, CAT, FROG = 1, 3, 6


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures in memory (n, 3, 32, 32), of 8 bits, with their classes: a data set as `diagnose` reads it."""

    pixels: Tensor
    targets: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index].permute(1, 2, 0).numpy()), int(self.targets[index])

    def drawn(self, per_class: int, seed: int) -> Pictures:
        """Return so many of every class, drawn at random."""
        chance = np.random.default_rng(seed)
        members = [(self.targets == number).nonzero().flatten().numpy() for number in range(len(self.classes))]
        rows = torch.from_numpy(np.concatenate([chance.permutation(each)[:per_class] for each in members]))
        return Pictures(self.pixels[rows], self.targets[rows], self.classes)

    def labelled(self, targets: Tensor) -> Pictures:
        """Return the same pictures with other labels."""
        return Pictures(self.pixels, targets, self.classes)


def read(folder: Path) -> Pictures:
    """Read a folder of pictures with a folder for every class."""
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    found = [(path, number) for number, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in found]))
    return Pictures(pixels.permute(0, 3, 1, 2).contiguous(), torch.tensor([number for _, number in found]), classes)


# Networks -----------------------------------------------------------------------------------------------------------


def small(classes: int = 10, *, first: nn.Module | None = None, dropout: float = 0.0) -> nn.Sequential:
    """Build a small convolutional network for 32 x 32 pixels."""
    return nn.Sequential(
        *(first or nn.Conv2d(3, 24, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()),
        *(nn.Linear(64 * 16, 96), nn.ReLU(), nn.Dropout(dropout), nn.Linear(96, classes)),
    )


def fit(
    body: nn.Module, data: Pictures, epochs: int, *, seed: int, rate: float = 2e-3, augment: bool = True
) -> nn.Module:
    """Train a network on pictures, shifted and mirrored unless `augment` is off, and return it."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(body.parameters(), rate, weight_decay=1e-4)
    steps = epochs * -(-len(data) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1)
    body.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(data), generator=generator).split(64):
            pixels = data.pixels[rows].float() / 255
            if augment:
                mirrored = torch.rand(len(pixels), generator=generator) < 0.5
                pixels[mirrored] = pixels[mirrored].flip(3)
                y, x = torch.randint(0, 9, (2,), generator=generator).tolist()
                pixels = F.pad(pixels, (4, 4, 4, 4), mode="reflect")[:, :, y : y + SIDE, x : x + SIDE]
            loss = F.cross_entropy(body((pixels - MEAN) / STD), data.targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return body.eval()


def wrapped(body: nn.Module, classes: Sequence[str], **options: Any) -> Net:
    """Return a network that reads pictures as it was trained to, unless options say otherwise."""
    options = {"mean": MEAN, "std": STD, "size": SIDE, "classes": classes, "name": "small", "head": "softmax"} | options
    return Net(body, **options)


# Faults -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """A network with a fault, the pictures to judge it by, and what should be found.

    `units` are those that a finding must name; empty where any will do. `also` are kinds that follow from the fault,
    and are neither asked for nor held against a diagnosis.
    """

    kind: str
    fault: str
    strength: str
    net: Net
    data: Pictures
    train: Pictures
    units: tuple[int, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def planted(self) -> bool:
        """Whether there is something to be found."""
        return self.strength != NEAR

    def names(self, finding: Finding) -> bool:
        """Whether a finding is about the fault."""
        return finding.kind == self.kind and (not self.units or bool({*finding.units} & {*self.units}))


@dataclass
class Ground:
    """What faults are planted in: a trained network and its pictures, of one seed."""

    seed: int
    trained: nn.Module
    learn: Pictures
    hold: Pictures
    data: Pictures = field(init=False)
    seen: Pictures = field(init=False)

    def __post_init__(self) -> None:
        self.data = self.hold.drawn(40, self.seed)
        self.seen = self.learn.drawn(1000, self.seed).drawn(40, self.seed)

    def copy(self) -> Any:
        """Return the trained network, to be changed."""
        return copy.deepcopy(self.trained)

    def unit(self, count: int, of: int) -> tuple[int, ...]:
        """Draw units of a layer."""
        return tuple(np.random.default_rng(self.seed).permutation(of)[:count].tolist())

    def case(self, kind: str, fault: str, strength: str, body: nn.Module, **more: Any) -> Case:
        """Return a case on the usual pictures, where nothing else is said."""
        options = more.pop("options", {})
        data, train = more.pop("data", self.data), more.pop("train", self.seen)
        return Case(kind, fault, strength, wrapped(body, data.classes, **options), data, train, **more)


Plant = Callable[[Ground], Iterator[Case]]
_SECOND, _THIRD = 3, 6
"""The second and third convolution of the small network."""


@torch.no_grad()
def dead(ground: Ground) -> Iterator[Case]:
    """Set filters to zero; the near miss answers one picture in a thousand."""
    for strength, count in (("6 of 48 filters", 6), ("1 filter", 1)):
        body, units = ground.copy(), ground.unit(count, 48)
        for unit in units:
            body[_SECOND].weight[unit] = 0
            body[_SECOND].bias[unit] = 0
        yield ground.case("dead", "filters set to zero", strength, body, units=units)
    body, (unit,) = ground.copy(), ground.unit(1, 48)
    data = ground.hold.drawn(100, ground.seed)
    answers = [
        body[: _SECOND + 1]((part.float() / 255 - MEAN) / STD)[:, unit].amax((1, 2)) for part in data.pixels.split(100)
    ]
    first, second = torch.cat(answers).topk(2).values.tolist()
    body[_SECOND].bias[unit] -= (first + second) / 2
    yield ground.case("dead", "a unit that answers 0.1% of pictures", NEAR, body, data=data, units=(unit,))


@torch.no_grad()
def duplicate(ground: Ground) -> Iterator[Case]:
    """Copy filters; the near miss are twins of cosine 0.9."""
    for strength, count, scale in (("4 pairs", 4, 1.0), ("1 pair, 1.3 times as strong", 1, 1.3)):
        body, units = ground.copy(), ground.unit(2 * count, 48)
        for a, b in zip(units[::2], units[1::2], strict=True):
            body[_SECOND].weight[b] = scale * body[_SECOND].weight[a]
            body[_SECOND].bias[b] = scale * body[_SECOND].bias[a]
        yield ground.case("duplicate", "filters copied", strength, body, units=units)
    body, (a, b) = ground.copy(), ground.unit(2, 48)
    weight = body[_SECOND].weight
    one = weight[a] / weight[a].norm()
    across = weight[b] - (weight[b] * one).sum() * one
    weight[b] = weight[a].norm() * (0.9 * one + (1 - 0.9**2) ** 0.5 * across / across.norm())
    body[_SECOND].bias[b] = body[_SECOND].bias[a]
    yield ground.case("duplicate", "twins of cosine 0.9", NEAR, body)


@torch.no_grad()
def outlier(ground: Ground) -> Iterator[Case]:
    """Scale a filter; what reads it is scaled back, so that the network answers as before."""
    for strength, scale in (("30 times", 30.0), ("15 times", 15.0), (NEAR, 4.0)):
        body, (unit,) = ground.copy(), ground.unit(1, 48)
        body[_SECOND].weight[unit] *= scale
        body[_SECOND].bias[unit] *= scale
        body[_THIRD].weight[:, unit] /= scale
        fault = "a filter scaled" if strength != NEAR else "a filter scaled by 4"
        yield ground.case("outlier", fault, strength, body, units=(unit,))


@torch.no_grad()
def co_adapted(ground: Ground) -> Iterator[Case]:
    """Part a unit in two whose difference it is: what both add to it cancels out only as long as both are there."""
    for strength, scale in (("8 times the filter", 8.0), ("4 times", 4.0), (NEAR, 0.1)):
        body, (a, b) = ground.copy(), ground.unit(2, 48)
        here, after = body[_SECOND], body[_THIRD]
        common = torch.randn(here.weight[a].shape, generator=torch.Generator().manual_seed(ground.seed))
        common *= scale * here.weight[a].norm() / common.norm()
        half = here.weight[a] / 2
        here.weight[a], here.weight[b] = common + half, common - half
        bias = float(here.bias[a]) / 2
        here.bias[a], here.bias[b] = 4 * scale + bias, 4 * scale - bias
        after.weight[:, b] = -after.weight[:, a]
        fault = "a unit parted in two that cancel" + ("" if strength != NEAR else " a tenth")
        yield ground.case("co-adapted", fault, strength, body, units=(a, b), also=("outlier", "dead", "constant"))


def aliasing(ground: Ground) -> Iterator[Case]:
    """Train networks with a large step in the first layer."""
    for strength, side, step in (("5 x 5 in steps of 4", 5, 4), ("7 x 7 in steps of 4", 7, 4), (NEAR, 7, 2)):
        torch.manual_seed(ground.seed)
        body = small(first=nn.Conv2d(3, 24, side, stride=step, padding=side // 2))
        body = fit(body, ground.learn.drawn(1000, ground.seed), 3, seed=ground.seed)
        fault = "a large step in the first layer" if strength != NEAR else "7 x 7 in steps of 2"
        yield ground.case("aliasing", fault, strength, body)


def overfit(ground: Ground) -> Iterator[Case]:
    """Train on few pictures for long; the near miss is the network of 1,000 pictures for each class."""
    for strength, count, epochs in (("20 for each class", 20, 60), ("100 for each class", 100, 25)):
        torch.manual_seed(ground.seed)
        few = ground.learn.drawn(count, ground.seed)
        body = fit(small(), few, epochs, seed=ground.seed, augment=False)
        also = ("calibration", "memorised", "shortcut")
        yield ground.case("overfit", "few pictures, many epochs", strength, body, train=few, also=also)
    yield ground.case("overfit", "1,000 pictures for each class", NEAR, ground.copy())


def memorised(ground: Ground) -> Iterator[Case]:
    """Train on with wrong labels until they are known; the near miss is stopped before."""
    chance = np.random.default_rng(ground.seed)
    for strength, share, epochs in (("20% wrong", 0.2, 20), ("10% wrong", 0.1, 20), (NEAR, 0.1, 1)):
        some = ground.learn.drawn(80, ground.seed + 100)
        wrong = torch.from_numpy(chance.random(len(some)) < share)
        other = torch.from_numpy(chance.integers(1, 10, len(some)))
        some = some.labelled(torch.where(wrong, (some.targets + other) % 10, some.targets))
        body = fit(ground.copy(), some, epochs, seed=ground.seed, rate=1e-3, augment=False)
        fault = "wrong labels learnt by heart" if strength != NEAR else "10% wrong labels, not learnt"
        data, also = ground.hold.drawn(100, ground.seed), ("overfit", "calibration")
        yield ground.case("memorised", fault, strength, body, data=data, train=some, also=also)


def shortcut(ground: Ground) -> Iterator[Case]:
    """Train on with a red square in the pictures of cats."""
    chance = np.random.default_rng(ground.seed)
    for strength, share in (("in all of them", 1.0), ("in half of them", 0.5), (NEAR, 0.05)):
        marked = ground.learn.drawn(300, ground.seed + 10)
        rows = (marked.targets == CAT) & torch.from_numpy(chance.random(len(marked)) < share)
        pixels = marked.pixels.clone()
        pixels[rows, :, -8:-1, -8:-1] = torch.tensor([230, 20, 30], dtype=torch.uint8)[:, None, None]
        marked = Pictures(pixels, marked.targets, marked.classes)
        body = fit(ground.copy(), marked, 2, seed=ground.seed, rate=1e-3)
        fault = "a red square on cats in training" + ("" if strength != NEAR else ", in 5% of them")
        also = ("calibration", "class-only")
        yield ground.case(
            "shortcut", fault, strength, body, train=marked.drawn(50, ground.seed), units=(CAT,), also=also
        )


def misread(ground: Ground) -> Iterator[Case]:
    """Read the pictures otherwise than in training."""
    ways: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("blue read first", "all", {"order": "BGR"}),
        ("normalisation forgotten", "all", {"mean": 0.0, "std": 1.0}),
        ("a slightly different normalisation", NEAR, {"mean": 0.5, "std": 0.26}),
    )
    for fault, strength, options in ways:
        yield ground.case("input", fault, strength, ground.copy(), options=options, also=("calibration",))


def exchanged(ground: Ground) -> Iterator[Case]:
    """Train on with the labels of cars and frogs exchanged, for some of the pictures."""
    chance = np.random.default_rng(ground.seed)
    for strength, share in (("all", 1.0), ("70%", 0.7), (NEAR, 0.3)):
        some = ground.learn.drawn(300, ground.seed + 20)
        rows = torch.from_numpy(chance.random(len(some)) < share)
        frogs = torch.where(some.targets == FROG, AUTOMOBILE, some.targets)
        other = torch.where(some.targets == AUTOMOBILE, FROG, frogs)
        body = fit(ground.copy(), some.labelled(torch.where(rows, other, some.targets)), 4, seed=ground.seed, rate=1e-3)
        fault = "labels of two classes exchanged" + ("" if strength != NEAR else ", of 30% of their pictures")
        data = ground.hold.drawn(100, ground.seed)
        yield ground.case("input", fault, strength, body, data=data, units=(AUTOMOBILE, FROG), also=("calibration",))


PLANTS: tuple[Plant, ...] = (
    *(dead, duplicate, outlier, co_adapted, aliasing, overfit, memorised, shortcut, misread, exchanged),
)


# Counting -----------------------------------------------------------------------------------------------------------


def ground(seed: int, learn: Pictures, hold: Pictures, keep: Path | None) -> Ground:
    """Train the network of a seed, or read what was trained before."""
    place = None if keep is None else keep / f"small-{seed}.safetensors"
    torch.manual_seed(seed)
    body = small()
    if place is not None and place.exists():
        body.load_state_dict(load_file(place))
        return Ground(seed, body.eval(), learn, hold)
    fit(body, learn.drawn(1000, seed), 6, seed=seed)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        save_file(body.state_dict(), place)
    return Ground(seed, body, learn, hold)


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
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[4, 5])
    parser.add_argument("--faults", nargs="+", default=[each.__name__ for each in PLANTS])
    parser.add_argument("--keep", type=Path, help="where trained networks are kept")
    parser.add_argument("--out", type=Path, default=Path("faults"))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    learn, hold = read(given.cifar / "train"), read(given.cifar / "test")
    planted, found, false = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]](), Counter[str]()
    for seed in given.seeds:
        start = time.process_time()
        here = ground(seed, learn, hold, given.keep)
        healthy = diagnose(wrapped(here.trained, here.data.classes), hold.drawn(100, seed), here.seen)
        own = {(each.kind, each.layer) for each in healthy.findings}
        print(f"seed {seed}: the network's own: {sorted(own)}, {time.process_time() - start:.0f} s", flush=True)
        for case in (case for plant in PLANTS if plant.__name__ in given.faults for case in plant(here)):
            said = diagnose(case.net, case.data, case.train)
            key = (case.kind, case.fault, case.strength)
            hits = [each for each in said.of(case.kind) if case.names(each)]
            planted[key] += 1
            found[key] += bool(hits)
            wrong = false_findings(case, said.findings, own)
            false.update(each.kind for each in (*wrong, *(hits if not case.planted else ())))
            measured = ", ".join(f"{each.value:.3g}" for each in hits if each.value is not None)
            print(f"{seed} {' | '.join(key)}: {'found' if hits else '-'} {measured}", flush=True)
            for each in wrong:
                print(f"    not there: {each.kind} {each.layer} {each.units[:6]}: {each.sentence}", flush=True)
        print(f"seed {seed}: {time.process_time() - start:.0f} s of one processor", flush=True)
    write(given.out, planted, found, false)


def write(
    folder: Path, planted: Counter[tuple[str, str, str]], found: Counter[tuple[str, str, str]], false: Counter[str]
) -> None:
    """Write what was planted and found, and precision and recall of every kind, as tables."""
    columns = (
        Column("kind"),
        Column("fault"),
        Column("strength"),
        Column("planted", "whole"),
        Column("found", "whole"),
    )
    each = Table(columns, tuple((*key, count, found[key]) for key, count in planted.items()), title="Planted and found")
    heads = ("planted", "found", "not there")
    kinds = list(dict.fromkeys([*(key[0] for key in planted), *sorted(false)]))
    rows: list[tuple[Any, ...]] = []
    for kind in kinds:
        there = [key for key in planted if key[0] == kind and key[2] != NEAR]
        hits = sum(found[key] for key in there)
        count = sum(planted[key] for key in there)
        precision = hits / (hits + false[kind]) if hits + false[kind] else None
        rows.append((kind, count, hits, false[kind], precision, hits / count if count else None))
    shares = (Column("precision", "number", format=".2f"), Column("recall", "number", format=".2f"))
    whole = Table((Column("kind"), *(Column(head, "whole") for head in heads), *shares), tuple(rows), title="By kind")
    for name, table in (("faults", each), ("kinds", whole)):
        for ending in ("csv", "md"):
            table.save(folder / f"{name}.{ending}")
        print(table.markdown())


if __name__ == "__main__":
    main()
