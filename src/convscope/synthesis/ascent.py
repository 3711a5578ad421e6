"""Ascent: change pictures step by step until they score high on an objective.

The loop knows nothing of the objective, of the image parametrization or of the transform. It stops the network at the
last layer that the objective reads, looks at the scores only every few steps, keeps the best pictures so far, and
returns those when it is interrupted or a score is no longer finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from ..context import keep_part, say, track
from ..drawing.layout import number
from ..errors import OptionError, SynthesisError
from ..interruptions import orderly
from ..net import Net
from ..objectives import Objective
from .monitor import Monitor
from .optimizers import Optimizer, Run, Stop
from .parametrizations import Parametrization, Pixels
from .scoring import PATIENCE, BatchScore
from .transforms import Transform

Seed = Annotated[int, "seed of all random numbers: the same seed gives the same bytes on a CPU"]

_LOOK = 10
"""Steps between two looks at the scores: each makes a GPU wait."""


@dataclass(frozen=True, eq=False)
class AscentResult:
    """Pictures (n, c, h, w), their scores (n,) without transform, and how the run ended.

    `history` holds the mean score at every look; `reached` says which pictures the true gradient ever reached.
    """

    pixels: Tensor
    scores: Tensor
    history: list[float]
    steps: int
    reached: list[bool]
    interrupted: bool = False

    def finished(self) -> AscentResult:
        """Return itself, or raise KeyboardInterrupt where interrupted: a run that only prepares has no result."""
        if self.interrupted:
            raise KeyboardInterrupt
        return self


@orderly
def ascend(
    net: Net,
    objectives: Sequence[Objective],
    parametrization: Parametrization,
    *,
    transform: Transform | None = None,
    optimizer: Optimizer | None = None,
    seeds: Sequence[int] = (0,),
    tile: int | None = None,
    redirect: bool = True,
    monitor: Monitor | None = None,
) -> AscentResult:
    """Maximize objectives over pictures: of n pictures, n / len(objectives) in a row belong to each objective.

    Args:
        net: the network; nothing of it is changed.
        objectives: what is maximized, for groups of pictures of equal size.
        parametrization: the initial pictures, and the numbers they are made of.
        transform: the random change before every forward pass; none by default.
        optimizer: the number of steps and the update rule.
        seeds: one per picture (or one for all, counted up), for the transforms.
        tile: the longest side that the network sees at once, in pixels; larger pictures are differentiated in tiles.
        redirect: lead gradient past silent rectifiers in the first steps, so that a dead start can move.
        monitor: the progress label and previews.

    Returns the best pictures found. An interruption keeps them, and a remark says so. Raises SynthesisError when the
    score is not finite from the start, OptionError for parts that do not go together.
    """
    loop = _Loop(
        net,
        parametrization,
        transform or Transform(),
        optimizer or Optimizer(),
        monitor or Monitor(),
        _score(net, objectives, parametrization, tile, redirect),
    )
    return loop.run(seeds)


def _score(
    net: Net, objectives: Sequence[Objective], parametrization: Parametrization, tile: int | None, redirect: bool
) -> BatchScore:
    with torch.no_grad():
        count = len(parametrization.pixels())
    return BatchScore(net, objectives, count, tile=tile, redirect=redirect)


@dataclass(eq=False)
class _Loop:
    net: Net
    parametrization: Parametrization
    transform: Transform
    optimizer: Optimizer
    monitor: Monitor
    score: BatchScore
    step: int = 0
    history: list[float] = field(default_factory=list[float])
    recent: list[Tensor] = field(default_factory=list[Tensor])

    def __post_init__(self) -> None:
        if self.optimizer.regularizers.active and not isinstance(self.parametrization, Pixels):
            raise OptionError(
                "decay, blur, small_norm and small_contribution act on pixels: use them with parametrization='pixels'"
            )
        if self.optimizer.kind == "lbfgs" and self.transform != Transform():
            raise OptionError("L-BFGS needs a deterministic score: use transform='none', or optimizer='adam'")
        self.best = torch.full((self.score.count,), -torch.inf, dtype=torch.float64)
        self.best_numbers = self.parametrization.snapshot()

    def run(self, seeds: Sequence[int]) -> AscentResult:
        count = self.score.count
        seeds = seeds if len(seeds) == count else [seeds[0] + i for i in range(count)]
        self.numbers = self.transform.draw(seeds, self.optimizer.steps)
        interrupted = False
        ticks = track(range(self.optimizer.steps), self._label)
        try:
            with self.net.held():
                optimizer = Run(self.optimizer, self.parametrization, self._evaluate, self._after, self.net.mean)
                optimizer.over(iter(ticks))
                self._look()
        except KeyboardInterrupt as end:
            if not self.step:
                raise
            interrupted = True
            keep_part(end, f"interrupted after {self.step} of {self.optimizer.steps} steps; kept the best so far")
        except Stop:
            pass
        finally:
            getattr(ticks, "close", lambda: None)()
        return self._result(interrupted)

    def _label(self) -> str:
        return self.monitor.label + (f" · {number(self.history[-1])}" if self.history else "")

    def _result(self, interrupted: bool) -> AscentResult:
        if self.best.isfinite().any():
            self.parametrization.restore(self.best_numbers)
        with torch.no_grad():
            pixels = self.parametrization.pixels().clone()
        scores = self.score.final(pixels, self.step, self.history[-1] if self.history else torch.nan)
        return AscentResult(pixels, scores, self.history, self.step, self.score.reached.tolist(), interrupted)

    def _evaluate(self) -> tuple[Tensor, Tensor]:
        numbers = self.numbers[self.step]
        gradient, scores = self.score.gradient(self.parametrization, self.transform, numbers, self.step)
        self.recent.append(scores)
        return gradient, scores

    def _after(self) -> None:
        """Count a step; every few, look at the scores."""
        self.step += 1
        # L-BFGS waits for every score anyway, and not all that it tries is better.
        if self.optimizer.kind == "lbfgs" or self.step % _LOOK == 0:
            self._look()
        if self.monitor.due(self.step):
            with torch.no_grad():
                self.monitor.show(self.parametrization.pixels(), self.net.show)

    def _look(self) -> None:
        """Keep the pictures that score better than before; stop where a score is not finite."""
        if not self.recent:
            return
        scores = torch.stack(self.recent).cpu().double().mean(0)
        self.recent.clear()
        if not scores.isfinite().all():
            self._stop_at_nan()
        self.history.append(float(scores.mean()))
        better = scores > self.best
        if better.any():
            self.best = torch.where(better, scores, self.best)
            numbers = self.best_numbers
            mask = better.to(numbers.device).view(-1, *[1] * (numbers.ndim - 1))
            self.best_numbers = torch.where(mask, self.parametrization.snapshot(), numbers)
        if self.step >= PATIENCE and not self.score.reached.any():
            raise Stop

    def _stop_at_nan(self) -> None:
        if not self.best.isfinite().any():
            raise SynthesisError(
                f"{self.monitor.label}: the score is not finite within the first {self.step} steps. Use a rate below "
                f"{self.optimizer.rate:g}, or another initial picture"
            )
        say(
            f"stopped after {self.step} of {self.optimizer.steps} steps because the score was no longer finite; kept "
            f"the best before. Try a rate below {self.optimizer.rate:g}"
        )
        raise Stop
