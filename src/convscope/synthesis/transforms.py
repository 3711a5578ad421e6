"""Transforms: small random changes before every forward pass, to which the picture must be robust.

Jitter, scaling, rotation, padding and cropping are one affine map, hence one resampling per step. Each picture of a
batch has its own, numbers from its own seed before the first step. After lucid's transforms and MaCo's crops.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import OptionError, nearest

_NUMBERS = 7
"""Random numbers per picture and step."""


@dataclass(frozen=True)
class Transform:
    """A random change of a picture before the network sees it.

    jitter: maximum shift each way, in pixels. scale: maximum relative enlargement or reduction. rotate: maximum angle
    each way, in degrees. pad: grey pixels added beyond each border. crop: least and greatest side of a random crop,
    as fractions of the picture's, enlarged to full size. noise: standard deviation of noise added to pixels. roll:
    maximum cyclic shift in whole pixels. views: number of transformed copies of a picture per step.
    """

    jitter: float = 0.0
    scale: float = 0.0
    rotate: float = 0.0
    pad: float = 0.0
    crop: tuple[float, float] | None = None
    noise: float = 0.0
    roll: int = 0
    views: int = 1

    def __post_init__(self) -> None:
        if min(self.jitter, self.scale, self.rotate, self.pad, self.noise, self.roll) < 0 or self.scale >= 1:
            raise OptionError(f"parts of a transform must not be negative, and scale must be below 1: {self}")
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise OptionError(f"crop is two fractions of the side, such as 0.3-0.6, not {self.crop}")
        if self.views < 1:
            raise OptionError(f"views must be at least 1, not {self.views}")

    @property
    def resamples(self) -> bool:
        """Whether pixels must be interpolated."""
        return bool(self.jitter or self.scale or self.rotate or self.pad or self.crop)

    def draw(self, seeds: Sequence[int], steps: int) -> Tensor:
        """Draw the random numbers of all steps, (steps, pictures * views, numbers) in [-1, 1]."""
        pictures = [
            torch.rand(steps, self.views, _NUMBERS, generator=torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        return torch.stack(pictures, 1).flatten(1, 2) * 2 - 1

    def __call__(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        """Transform pictures (n, c, h, w) by the numbers of a step, (n * views, numbers), to (n * views, c, h, w)."""
        if self.views > 1:
            pixels = pixels.repeat_interleave(self.views, 0)
        if self.resamples:
            pixels = self._resample(pixels, numbers.to(pixels))
        if self.roll:
            # One shift for all: it moves the borders of tiles and windows, not the picture's content.
            shift = (numbers[0, 4:6] * self.roll).round().int().tolist()
            pixels = pixels.roll(shift, (2, 3))
        if self.noise:
            seeds = [int((value + 1) * 2**30) for value in numbers[:, 6].tolist()]
            normal = [torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            pixels = pixels + torch.stack(normal).to(pixels) * self.noise
        return pixels

    def _resample(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        if self.crop:
            low, high = self.crop
            window = low + (high - low) * (numbers[:, 2] + 1) / 2
            free = torch.stack((1 - window, 1 - window), 1)
        else:
            window, free = torch.ones_like(numbers[:, 2]), torch.zeros_like(numbers[:, :2])
        zoom = window / (1 + self.scale * numbers[:, 3])
        sides = numbers.new_tensor([width, height])
        shift = (free + 2 * self.jitter / sides) * numbers[:, :2]
        across = (1 + 2 * self.pad / sides) * zoom[:, None]
        angle = numbers[:, 4] * math.radians(self.rotate)
        cos, sin = angle.cos(), angle.sin()
        # A rotation in pixels, not in fractions of unequal sides.
        rows = [
            torch.stack((cos * across[:, 0], -sin * across[:, 1] * height / width, shift[:, 0]), 1),
            torch.stack((sin * across[:, 0] * width / height, cos * across[:, 1], shift[:, 1]), 1),
        ]
        # affine_grid in a quarter of the time: a term per column plus a term per row.
        matrix = torch.stack(rows, 1)[:, None, None]
        x, y = ((2 * torch.arange(side, device=pixels.device) + 1).to(pixels) / side - 1 for side in (width, height))
        grid = (matrix[..., 0] * x[:, None] + matrix[..., 2]) + matrix[..., 1] * y[:, None, None]
        # Beyond the border lies mid-grey.
        return _sampled(pixels - 0.5, grid) + 0.5


def _sampled(pixels: Tensor, grid: Tensor) -> Tensor:
    """Sample pictures (n, c, h, w) at a grid (n, h, w, 2), zero outside."""
    count, channels, height, width = pixels.shape
    parts = torch.get_num_threads() if count == 1 and pixels.device.type == "cpu" else 1
    if height % parts:
        parts = 1
    # grid_sample parallelises over pictures: a single one is cut into a stripe per thread.
    stripes = grid.view(count * parts, height // parts, width, 2)
    read = F.grid_sample(pixels.expand(count * parts, -1, -1, -1), stripes, mode="bilinear", align_corners=False)
    return read if parts == 1 else read.transpose(0, 1).reshape(1, channels, height, width)


def _none(side: int) -> Transform:
    return Transform()


def _standard(side: int) -> Transform:
    """lucid's transforms at 128 pixels, scaled with the side."""
    ratio = side / 128
    return Transform(jitter=12 * ratio, scale=0.1 if side >= 64 else 0.05, rotate=10 if side >= 64 else 5)


def _light(side: int) -> Transform:
    return replace(_standard(side), jitter=4 * side / 128, scale=0.05, rotate=3)


def _jitter(side: int) -> Transform:
    return Transform(jitter=max(1.0, side / 16))


def _crops(side: int) -> Transform:
    """MaCo's: several random crops per step, with noise."""
    return Transform(crop=(0.3, 0.7), noise=0.05, views=4)


PRESETS = {"none": _none, "standard": _standard, "light": _light, "jitter": _jitter, "crops": _crops}


def transform_for(description: str | Transform, side: int) -> Transform:
    """Return a transform: a preset scaled to pictures of that side, or parts such as "jitter=8 rotate=10 crop=0.3-0.6".

    Raises OptionError for an unknown preset or part.
    """
    if isinstance(description, Transform):
        return description
    if description in PRESETS:
        return PRESETS[description](side)
    return Transform(**dict(_part(piece, description) for piece in re.split(r"[\s,]+", description.strip())))


def _part(piece: str, description: str) -> tuple[str, Any]:
    """Read one part, such as "jitter=8"."""
    names = [field.name for field in fields(Transform)]
    name, _, value = piece.partition("=")
    if name not in names or not value:
        raise OptionError(
            f"cannot read the transform {description!r}: use one of {nearest(description, PRESETS)}, or parts such as "
            f"'jitter=8 rotate=10 crop=0.3-0.6' from {', '.join(names)}"
        )
    try:
        numbers = [float(number) for number in value.split("-")]
    except ValueError:
        raise OptionError(f"cannot read {piece!r} of the transform: give a number, such as {name}=8") from None
    if (name == "crop") != (len(numbers) == 2):
        raise OptionError(
            f"cannot read {piece!r} of the transform: crop is two fractions, such as 0.3-0.6, others one number"
        )
    return name, tuple(numbers) if name == "crop" else int(numbers[0]) if name in ("roll", "views") else numbers[0]
