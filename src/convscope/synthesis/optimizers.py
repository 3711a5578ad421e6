"""Optimizers: how a gradient becomes the next step, by Adam, L-BFGS or gradient ascent.

    x  <-  project( regularize( step( x, d score / d x ) ) )

The optimizer knows nothing of the network: it is given a function that evaluates the current pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import OptionError
from .parametrizations import Parametrization
from .regularizers import Regularizers

OptimizerKind = Literal["adam", "lbfgs", "ascent"]

Evaluate = Callable[[], tuple[Tensor, Tensor]]
"""Returns the gradient of the summed scores with respect to the free numbers, and the scores (n,)."""


class Stop(BaseException):
    """Leaves an optimizer that calls back; not an Exception, so that nothing swallows it."""


@dataclass(frozen=True)
class Optimizer:
    """The number of steps and the update rule.

    kind: "adam", "lbfgs", or "ascent", plain gradient ascent. rate: Adam's learning rate; for "ascent" the factor of
    the gradient after `scaling`. scaling: "none"; "mean" divides the gradient of each picture by its mean magnitude
    (DeepDream); "progress" takes the step that would raise the score by `rate` if it were linear, but never more than
    `limit` times the gradient (Yosinski et al.). momentum: for "ascent".

    decay, blur, blur_every, small_norm, small_contribution: regularizers applied to the pixels after each step, see
    `Regularizers`.
    """

    steps: int = 512
    kind: OptimizerKind = "adam"
    rate: float = 0.05
    scaling: Literal["none", "mean", "progress"] = "none"
    limit: float = 1.0
    momentum: float = 0.0
    decay: float = 0.0
    blur: float = 0.0
    blur_every: int = 4
    small_norm: float = 0.0
    small_contribution: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"steps must be at least 1, not {self.steps}")
        if self.kind not in ("adam", "lbfgs", "ascent"):
            raise OptionError(f"optimizer must be adam, lbfgs or ascent, not {self.kind!r}")
        if self.scaling not in ("none", "mean", "progress"):
            raise OptionError(f"scaling must be none, mean or progress, not {self.scaling!r}")
        if not (self.rate > 0 and self.limit > 0):
            raise OptionError(f"rate and limit must be above 0, not {self.rate} and {self.limit}")
        if not 0 <= self.momentum <= 1:
            raise OptionError(f"momentum must be in [0, 1], not {self.momentum}")
        _ = self.regularizers

    @property
    def regularizers(self) -> Regularizers:
        """What is done to the pixels after each step."""
        return Regularizers(self.decay, self.blur, self.blur_every, self.small_norm, self.small_contribution)


@dataclass(frozen=True, eq=False)
class Run:
    """One run of an optimizer over the free numbers of a parametrization.

    `after` is called after each step; `ticks` limits their number; `mean` is the network's mean colour.
    """

    optimizer: Optimizer
    parametrization: Parametrization
    evaluate: Evaluate
    after: Callable[[], None]
    mean: tuple[float, ...]

    def over(self, ticks: Iterator[int]) -> None:
        """Take a step per tick."""
        {"adam": self._adam, "lbfgs": self._lbfgs, "ascent": self._ascent}[self.optimizer.kind](ticks)

    def _adam(self, ticks: Iterator[int]) -> None:
        free = self.parametrization.free
        # One fused kernel per step; maximising, so that gradients keep their sign.
        fused = free.device.type in ("cpu", "cuda")
        adam = torch.optim.Adam([free], lr=self.optimizer.rate, maximize=True, fused=fused)
        for step, _ in enumerate(ticks, 1):
            gradient, _ = self.evaluate()
            # The fused kernel assumes equal memory layouts, and the gradient of a transform has another.
            free.grad = gradient.contiguous()
            adam.step()
            self._regularize(gradient, step)
            self._settle()

    def _ascent(self, ticks: Iterator[int]) -> None:
        free, velocity = self.parametrization.free, None
        for step, _ in enumerate(ticks, 1):
            gradient, _ = self.evaluate()
            update = self._scaled(gradient)
            if self.optimizer.momentum:
                velocity = update if velocity is None else velocity * self.optimizer.momentum + update
                update = velocity
            with torch.no_grad():
                free += update
            self._regularize(gradient, step)
            # Each takes as much memory as the picture itself.
            del gradient, update
            self._settle()

    def _lbfgs(self, ticks: Iterator[int]) -> None:
        free = self.parametrization.free
        most = self.optimizer.steps * 2
        lbfgs = torch.optim.LBFGS(
            [free], lr=self.optimizer.rate, max_iter=most, max_eval=most, history_size=20, tolerance_grad=0,
            tolerance_change=0, line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure() -> Tensor:
            # An evaluation counts as a step: what a line search tries is also work.
            if next(ticks, None) is None:
                raise Stop
            self.parametrization.project()
            gradient, scores = self.evaluate()
            free.grad = -gradient
            self.after()
            return -scores.sum()

        lbfgs.step(closure)

    def _regularize(self, gradient: Tensor, step: int) -> None:
        if self.optimizer.regularizers.active:
            self.optimizer.regularizers.apply(self.parametrization.free, gradient, self.mean, step)

    def _settle(self) -> None:
        self.parametrization.project()
        self.after()

    def _scaled(self, gradient: Tensor) -> Tensor:
        dims, rate = tuple(range(1, gradient.ndim)), self.optimizer.rate
        if self.optimizer.scaling == "mean":
            return gradient * (rate / (gradient.abs().mean(dims, keepdim=True) + 1e-12))
        if self.optimizer.scaling == "progress":
            factor = rate / (gradient.square().sum(dims, keepdim=True) + 1e-30)
            return gradient * factor.clamp(max=self.optimizer.limit)
        return gradient * rate
