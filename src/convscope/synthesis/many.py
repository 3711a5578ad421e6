"""Many pictures in one call: in batches that stop at the same layer, of the size that is fastest."""

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
from .ascent import AscentResult, ascend
from .monitor import Monitor
from .parametrizations import parametrize
from .presets import Preset
from .transforms import transform_for

_BATCHES = (1, 4, 16)
_ON_GPU = 64


@dataclass(frozen=True)
class Settings:
    """Everything but the objective that pictures depend on; a `batch` of None is measured."""

    preset: Preset
    seed: int = 0
    batch: int | None = None
    monitor: Monitor = field(default_factory=Monitor)

    def settled(self) -> dict[str, Any]:
        """Return what the preset and the measurement decided, by the names of options."""
        preset, optimizer = self.preset, self.preset.optimizer
        return {
            "parametrization": preset.parametrization,
            "transform": preset.transform,
            "steps": optimizer.steps,
            "rate": optimizer.rate,
            "optimizer": optimizer.kind,
            "batch": self.batch,
        }

    def summary(self, net: Net) -> str:
        """Describe the settings in one line."""
        preset, optimizer = self.preset, self.preset.optimizer
        transform = "no transform" if preset.transform == "none" else f"transform {preset.transform}"
        init = preset.init if isinstance(preset.init, str) else "a picture"
        return (
            f"{net.name} · {net.size[1]} × {net.size[0]} · {preset.parametrization}, init {init}, {transform}, "
            f"{optimizer.steps} steps of {optimizer.kind} at rate {optimizer.rate:.3g} · seed {self.seed}"
        )


def initial_pictures(net: Net, preset: Preset, count: int) -> Tensor:
    """Return the initial pictures without noise, (count, c, h, w) in [0, 1]."""
    if isinstance(preset.init, str) and preset.init == "noise":
        initial = torch.full((1, net.channels, *net.size), 0.5, device=net.device)
    elif isinstance(preset.init, str) and preset.init == "zero":
        mean = torch.tensor(net.mean, device=net.device).clamp(0, 1)
        initial = mean[None, :, None, None].expand(1, net.channels, *net.size)
    else:
        if preset.parametrization == "maco":
            raise OptionError(
                "maco draws its phases at random: use init='noise', or a picture with parametrization='fourier'"
            )
        initial = net.read(preset.init)
    return initial.expand(count, -1, -1, -1).clone()


def maximize_many(
    net: Net, objectives: Sequence[Objective], settings: Settings, *, copies: int = 1
) -> tuple[dict[int, AscentResult], Settings]:
    """Make `copies` pictures for each objective, (copies, c, h, w), by the index of the objective.

    Also returns the settings with the batch used. A picture depends on the seed and its number among the copies, not on
    other objectives, except for rounding. When interrupted, only what was begun is returned.
    """
    groups = _of_equal_depth(objectives)
    largest = [objectives[i] for i in max(groups, key=len)]
    if settings.batch is None:
        settings = replace(settings, batch=_measured_batch(net, largest, settings, copies))
    results: dict[int, AscentResult] = {}
    for indices in groups:
        for part in _group(net, objectives, indices, settings, copies, len(results)):
            results |= part
            if any(result.interrupted for result in part.values()):
                left = len(objectives) - len(results)
                say(f"{left} of {len(objectives)} were not begun" if left else "")
                return results, settings
    return results, settings


def _group(
    net: Net, objectives: Sequence[Objective], indices: list[int], settings: Settings, copies: int, before: int
) -> Iterator[dict[int, AscentResult]]:
    """Make the pictures of one group, batch by batch, after `before` others."""
    own = settings.monitor.label

    def work(piece: slice) -> dict[int, AscentResult]:
        some = indices[piece]
        label = f"{own}, {before + piece.stop} of {len(objectives)}" if len(objectives) > len(some) else own
        together = _batch(net, [objectives[i] for i in some], settings, copies, replace(settings.monitor, label=label))
        return dict(zip(some, _split(together, len(some)), strict=True))

    assert settings.batch is not None
    yield from in_batches(work, len(indices), settings.batch, own)


def _of_equal_depth(objectives: Sequence[Objective]) -> list[list[int]]:
    """Group objectives by the layers they read: a batch runs the network as far as any of its objectives needs."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, objective in enumerate(objectives):
        groups.setdefault(objective.layers, []).append(index)
    return list(groups.values())


def _batch(
    net: Net, objectives: Sequence[Objective], settings: Settings, copies: int, monitor: Monitor
) -> AscentResult:
    seeds = [settings.seed + i for i in range(copies)] * len(objectives)
    preset = settings.preset
    parametrization = parametrize(
        preset.parametrization,
        initial_pictures(net, preset, len(seeds)),
        seeds,
        deviation=preset.deviation,
        bounded=preset.bounded,
    )
    transform = transform_for(preset.transform, min(net.size))
    return ascend(
        net, objectives, parametrization, transform=transform, optimizer=preset.optimizer, seeds=seeds, monitor=monitor
    )


def _split(result: AscentResult, count: int) -> list[AscentResult]:
    """Split the pictures of a batch by objective."""
    copies = len(result.pixels) // count
    return [
        replace(
            result,
            pixels=result.pixels[i * copies : (i + 1) * copies],
            scores=result.scores[i * copies : (i + 1) * copies],
            reached=result.reached[i * copies : (i + 1) * copies],
        )
        for i in range(count)
    ]


def _measured_batch(net: Net, objectives: Sequence[Objective], settings: Settings, copies: int) -> int:
    """Measure how many objectives at once take least time each; a GPU takes as many as fit its memory."""
    if net.device.type != "cpu":
        return _ON_GPU
    sizes = [size for size in _BATCHES if size <= len(objectives)]
    if len(sizes) < 2:
        return 1
    short = replace(settings, preset=settings.preset.with_steps(2))

    def work(size: int) -> None:
        _batch(net, objectives[:size], short, copies, Monitor()).finished()

    with listen():
        return quickest(work, sizes)


def refuse_dead(net: Net, objectives: Sequence[Objective], results: Mapping[int, AscentResult]) -> None:
    """Say which objectives had no gradient at the picture; raise SynthesisError when none had."""
    dead = [str(objectives[i]) for i, result in results.items() if not any(result.reached)]
    if not dead:
        return
    names = ", ".join(dead[:5]) + (f" and {len(dead) - 5} more" if len(dead) > 5 else "")
    advice = (
        "use the layer before the rectifier, start from a picture that activates it (init=FILE), or try another seed; "
        "a unit that stays silent for every picture is dead"
    )
    steps = max(result.steps for result in results.values())
    reason = f"{names} of {net.name}: no gradient reached the picture in {steps} steps"
    if len(dead) == len(results):
        raise SynthesisError(f"{reason}, even past rectifiers: {advice}")
    say(f"{reason}: {advice}")
