"""Many pictures in one call: in batches that stop at the same layer, as large as is quickest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..batching import in_batches, quickest
from ..context import listen, say
from ..errors import OptionError, SynthesisError
from ..net import Net
from ..objectives import Objective
from .ascent import Made, Optimiser, Steps, Watch, ascend
from .parametrizations import Space, begin
from .presets import Preset
from .transforms import transform_for

_BATCHES = (1, 4, 16)
_ON_GPU = 64


@dataclass(frozen=True)
class Settings:
    """Everything that pictures are made by, beside what is asked."""

    preset: Preset
    seed: int = 0
    batch: int | None = None
    watch: Watch = field(default_factory=Watch)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by the names of options, for the recipe."""
        steps = vars(self.preset.steps)
        changed = {key: value for key, value in steps.items() if value != getattr(Steps, key)}
        told = {"steps": steps["count"], "optimiser": steps["by"], "rate": steps["rate"]}
        other = {key: value for key, value in changed.items() if key not in ("count", "by", "rate")}
        return {
            "space": self.preset.space,
            "start": self.preset.start,
            "transform": self.preset.transform,
            **told,
            **other,
            "spread": self.preset.spread,
            "bounded": self.preset.bounded,
            "seed": self.seed,
            "batch": self.batch,
        }

    def summary(self, net: Net) -> str:
        """Say in one line how pictures are made."""
        steps, size = self.preset.steps, f"{net.size[1]} × {net.size[0]}"
        shaken = "not shaken" if self.preset.transform == "none" else f"transform {self.preset.transform}"
        return (
            f"{net.name} · {size} · {self.preset.space} from {self.preset.start}, {shaken}, {steps.count} steps of "
            f"{steps.by} at {steps.rate:.3g} · seed {self.seed}"
        )


def settle_settings(
    preset: Preset,
    *,
    space: Space | None = None,
    start: str | None = None,
    transform: str | None = None,
    steps: int | None = None,
    rate: float | None = None,
    optimiser: Optimiser | None = None,
) -> Preset:
    """Return a preset with what was given in place of its own.

    L-BFGS is not shaken unless that is asked for, and takes steps of its own length.
    """
    given = {"space": space, "start": start, "transform": transform}
    found = replace(preset, **{key: value for key, value in given.items() if value is not None})
    if optimiser == "lbfgs" and preset.steps.by != "lbfgs":
        found = replace(found, transform=transform or "none", steps=replace(found.steps, rate=1.0))
    numbers = {"count": steps, "rate": rate, "by": optimiser}
    changed: dict[str, Any] = {key: value for key, value in numbers.items() if value is not None}
    return replace(found, steps=replace(found.steps, **changed))


def first_pictures(net: Net, settings: Settings, count: int) -> Tensor:
    """Return what the pictures are at first, before noise: (count, c, h, w) in [0, 1]."""
    asked = settings.preset.start
    if asked == "noise":
        first = torch.full((1, net.channels, *net.size), 0.5, device=net.device)
    elif asked == "zero":
        mean = torch.tensor(net.mean, device=net.device).clamp(0, 1)
        first = mean[None, :, None, None].expand(1, net.channels, *net.size)
    else:
        if settings.preset.space == "maco":
            raise OptionError("maco draws its phases: start it from noise, or start a picture in the space 'fourier'")
        first = net.read(asked)
    return first.expand(count, -1, -1, -1).clone()


def make_many(
    net: Net, objectives: Sequence[Objective], settings: Settings, *, copies: int = 1
) -> tuple[dict[int, Made], Settings]:
    """Make `copies` pictures for every objective, (copies, c, h, w) each, by the objective's place.

    Also returns the settings with the batch used. A picture depends on the seed and its place among the copies, not on
    what else is made. When interrupted, only what was begun is returned.
    """
    groups = _of_one_depth(objectives)
    largest = [objectives[i] for i in max(groups, key=len)]
    if settings.batch is None:
        settings = replace(settings, batch=_measured_batch(net, largest, settings, copies))
    made: dict[int, Made] = {}
    for positions in groups:
        for part in _group(net, objectives, positions, settings, copies, len(made)):
            made |= part
            if any(one.interrupted for one in part.values()):
                left = len(objectives) - len(made)
                say(f"{left} of {len(objectives)} were not begun" if left else "")
                return made, settings
    return made, settings


def _group(
    net: Net, objectives: Sequence[Objective], positions: list[int], settings: Settings, copies: int, before: int
) -> Iterator[dict[int, Made]]:
    """Make the pictures of one group, batch by batch, `before` having been made."""
    own = settings.watch.label

    def work(piece: slice) -> dict[int, Made]:
        some = positions[piece]
        label = f"{own}, {before + piece.stop} of {len(objectives)}" if len(objectives) > len(some) else own
        asked = [objectives[i] for i in some]
        together = _batch(net, asked, settings, copies, replace(settings.watch, label=label))
        return dict(zip(some, _parts(together, len(some)), strict=True))

    assert settings.batch is not None
    yield from in_batches(work, len(positions), settings.batch, own)


def _of_one_depth(objectives: Sequence[Objective]) -> list[list[int]]:
    """Group objectives by the layers they read: what is made together runs the network as far as any of it asks."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for position, objective in enumerate(objectives):
        groups.setdefault(objective.layers, []).append(position)
    return list(groups.values())


def _batch(net: Net, objectives: Sequence[Objective], settings: Settings, copies: int, watch: Watch) -> Made:
    seeds = [settings.seed + i for i in range(copies)] * len(objectives)
    preset = settings.preset
    start = begin(
        preset.space,
        first_pictures(net, settings, len(seeds)),
        seeds,
        spread=preset.spread,
        bounded=preset.bounded,
    )
    transform = transform_for(preset.transform, min(net.size))
    return ascend(net, objectives, start, transform=transform, steps=preset.steps, seeds=seeds, watch=watch)


def _parts(made: Made, count: int) -> list[Made]:
    """Take the pictures of a batch apart by objective."""
    copies = len(made.pixels) // count
    return [
        replace(
            made,
            pixels=made.pixels[i * copies : (i + 1) * copies],
            scores=made.scores[i * copies : (i + 1) * copies],
            moved=made.moved[i * copies : (i + 1) * copies],
        )
        for i in range(count)
    ]


def _measured_batch(net: Net, objectives: Sequence[Objective], settings: Settings, copies: int) -> int:
    """Try which number of objectives at once takes least time for each; a GPU takes all that memory holds."""
    if net.device.type != "cpu":
        return _ON_GPU
    sizes = [size for size in _BATCHES if size <= len(objectives)]
    if len(sizes) < 2:
        return 1
    short = replace(settings, preset=replace(settings.preset, steps=replace(settings.preset.steps, count=2)))

    def work(size: int) -> None:
        _batch(net, objectives[:size], short, copies, Watch()).finished()

    with listen():
        return quickest(work, sizes)


def refuse_dead(net: Net, objectives: Sequence[Objective], made: Mapping[int, Made]) -> None:
    """Say which units never moved; raise SynthesisError when none did."""
    dead = [str(objectives[i]) for i, one in made.items() if not any(one.moved)]
    if not dead:
        return
    named = ", ".join(dead[:5]) + (f" and {len(dead) - 5} more" if len(dead) > 5 else "")
    advice = (
        "ask for the layer before the rectifier, start from a picture that excites it (start=FILE), or try another "
        "seed; a unit that stays so for every picture is dead"
    )
    steps = max(one.steps for one in made.values())
    reason = f"{named} of {net.name} never moved: no gradient reached the picture in {steps} steps"
    if len(dead) == len(made):
        raise SynthesisError(f"{reason}, rectifiers redirected or not: {advice}")
    say(f"{reason}: {advice}")
