"""Regularizers of pixels: decay, blur, and clipping of small norms and contributions, after each step.

Yosinski et al. 2015, arXiv:1506.06579, sec. 3. They act on the picture's difference from the network's mean colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..baselines import blurred
from ..errors import OptionError


@dataclass(frozen=True)
class Regularizers:
    """The four regularizers of Yosinski et al., each off at 0.

    decay: fraction taken away per step. blur: standard deviation in pixels, every `blur_every` steps. small_norm,
    small_contribution: percentage of the pixels with the smallest norm, or the smallest contribution to the score, that
    are set to the mean.
    """

    decay: float = 0.0
    blur: float = 0.0
    blur_every: int = 4
    small_norm: float = 0.0
    small_contribution: float = 0.0

    def __post_init__(self) -> None:
        if self.blur_every < 1:
            raise OptionError(f"blur_every must be at least 1 step, not {self.blur_every}")
        if not 0 <= self.decay <= 1:
            raise OptionError(f"decay must be in [0, 1], not {self.decay}")
        if not (0 <= self.small_norm <= 100 and 0 <= self.small_contribution <= 100):
            raise OptionError(
                f"small_norm and small_contribution are percentages, 0 to 100, not {self.small_norm} and "
                f"{self.small_contribution}"
            )
        if not self.blur >= 0:
            raise OptionError(f"blur must be at least 0 pixels, not {self.blur}")

    @property
    def active(self) -> bool:
        """Whether any of them is on."""
        return bool(self.decay or self.blur or self.small_norm or self.small_contribution)

    def apply(self, pixels: Tensor, gradient: Tensor, mean: tuple[float, ...], step: int) -> None:
        """Regularize pixels (n, c, h, w) in place, after step number `step`, which followed `gradient`."""
        with torch.no_grad():
            centre = pixels.new_tensor(mean)[:, None, None]
            difference = (pixels - centre) * (1 - self.decay)
            if self.blur and step % self.blur_every == 0:
                difference = blurred(difference, self.blur)
            if self.small_norm:
                difference = difference * _above(difference.norm(dim=1, keepdim=True), self.small_norm)
            if self.small_contribution:
                contribution = (difference * gradient).sum(1, keepdim=True).abs()
                difference = difference * _above(contribution, self.small_contribution)
            pixels.copy_(centre + difference)


def _above(values: Tensor, percent: float) -> Tensor:
    """Return a mask of the values (n, 1, h, w) above a percentile of their own picture."""
    limit = values.flatten(1).quantile(percent / 100, dim=1)
    return (values > limit[:, None, None, None]).to(values)
