"""Starts: what a picture is made of while it is being made, and what it is at first.

A start holds free numbers and says what picture they are. Pixels are the picture itself (Simonyan et al., Gatys et
al.). Fourier is its spectrum, low frequencies made as easy to change as they are common in photographs, in colours that
are independent in photographs (lucid). Phases keeps the spectrum's magnitude at that of photographs and frees the phase
alone (MaCo: Fel et al. 2023, arXiv:2306.06805).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import OptionError

Space = Literal["fourier", "pixels", "maco"]

# The square root of the covariance of colours in photographs, by lucid's numbers.
_ROOT = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], dtype=torch.float64)
_COLOURS = _ROOT / _ROOT.norm(dim=0).max()

_EDGE = 0.005
"""How near to 0 and 1 a sigmoid is asked to come."""


def correlate(colours: Tensor) -> Tensor:
    """Turn independent colours (n, 3, h, w) into red, green and blue; other numbers of channels stay."""
    if colours.shape[1] != 3:
        return colours
    return _turned(colours, _COLOURS)


def decorrelate(colours: Tensor) -> Tensor:
    """Undo `correlate`."""
    if colours.shape[1] != 3:
        return colours
    return _turned(colours, torch.linalg.inv(_COLOURS))


def _turned(colours: Tensor, matrix: Tensor) -> Tensor:
    # einsum would leave the channels last in memory, and all that follows would be slower.
    return (matrix.to(colours) @ colours.flatten(2)).view_as(colours)


def frequencies(height: int, width: int) -> Tensor:
    """Return the magnitude of every frequency of a real picture's spectrum, (h, w // 2 + 1), in cycles per pixel."""
    return torch.sqrt(torch.fft.fftfreq(height)[:, None].square() + torch.fft.rfftfreq(width)[None].square())


class Parametrization(ABC):
    """Free numbers and the pictures (n, c, h, w) that they stand for."""

    free: Tensor

    @abstractmethod
    def pixels(self) -> Tensor:
        """Return the pictures, with a graph down to the free numbers."""

    def settle(self) -> None:
        """Bring the free numbers back to what they may be, after a step."""
        return

    def snapshot(self) -> Tensor:
        """Return a copy of the free numbers."""
        return self.free.detach().clone()

    def restore(self, numbers: Tensor) -> None:
        """Set the free numbers to a copy taken before."""
        with torch.no_grad():
            self.free.copy_(numbers)


class Pixels(Parametrization):
    """The picture's own values; in [0, 1] after every step if `bounded`."""

    def __init__(self, values: Tensor, *, bounded: bool = True) -> None:
        # Optimisers lay the numbers out in one row.
        self.free = values.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        self.bounded = bounded

    def pixels(self) -> Tensor:
        return self.free

    def settle(self) -> None:
        if self.bounded:
            with torch.no_grad():
                self.free.clamp_(0, 1)


class Fourier(Parametrization):
    """The spectrum of independent colours, scaled by 1 / frequency^decay.

    With `bounded` a sigmoid keeps the picture in (0, 1); without, the sum of the waves is added to mid-grey. `values`
    are the pictures to begin with.
    """

    def __init__(self, values: Tensor, *, bounded: bool = True, decay: float = 1.0) -> None:
        height, width = values.shape[-2:]
        self.bounded, self.size = bounded, (height, width)
        slowest = 1.0 / max(height, width)
        # lucid's scale, for an orthonormal transform: a step of Adam changes a picture as much whatever its size.
        scale = 1 / (4 * frequencies(height, width).clamp(min=slowest) ** decay)
        self.scale = scale.to(values)
        self.free = self.spectrum(values).requires_grad_()

    def spectrum(self, values: Tensor) -> Tensor:
        """Return the free numbers that stand for pictures (n, c, h, w) in [0, 1]."""
        colours = torch.logit(values.detach(), eps=_EDGE) if self.bounded else values.detach() - 0.5
        return torch.view_as_real(torch.fft.rfft2(decorrelate(colours), norm="ortho") / self.scale).contiguous()

    def pixels(self) -> Tensor:
        waves = torch.fft.irfft2(torch.view_as_complex(self.free) * self.scale, s=self.size, norm="ortho")
        colours = correlate(waves)
        return colours.sigmoid() if self.bounded else colours + 0.5


class Phases(Parametrization):
    """The phase of a spectrum whose magnitude is that of photographs; bounded by a sigmoid."""

    def __init__(self, phases: Tensor, magnitude: Tensor, size: tuple[int, int]) -> None:
        self.magnitude, self.size = magnitude, size
        self.free = phases.detach().clone().requires_grad_()

    def pixels(self) -> Tensor:
        waves = torch.fft.irfft2(torch.polar(self.magnitude, self.free), s=self.size, norm="ortho")
        return correlate(waves).sigmoid()


@cache
def _measured() -> Tensor:
    """The mean magnitude of photographs' spectra, (3, rows, columns), see `natural_magnitude`."""
    return torch.from_numpy(np.load(Path(__file__).parent / "natural_spectrum.npy").astype(np.float32))


def natural_magnitude(channels: int, height: int, width: int) -> Tensor:
    """Return the magnitude of photographs' spectra, (c, h, w // 2 + 1): of the logit, in independent colours.

    Measured on 800 photographs at 256 x 256 and interpolated in relative frequency. Orthonormal scaling.
    """
    known = _measured()[:channels]
    rows = torch.fft.fftfreq(height)[:, None].expand(height, width // 2 + 1)
    columns = torch.fft.rfftfreq(width)[None].expand(height, width // 2 + 1)
    # Rows of the table go from -1/2 to 1/2, columns from 0 to 1/2, logarithms of magnitude times frequency.
    grid = torch.stack((columns * 4 - 1, rows * 2), -1)[None]
    shape = torch.nn.functional.grid_sample(
        known[None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )[0]
    slowest = 1.0 / max(height, width)
    return shape.exp() / frequencies(height, width).clamp(min=slowest)


def noise(shape: tuple[int, int, int], seeds: list[int], spread: float) -> Tensor:
    """Return normal noise (len(seeds), c, h, w), every picture from its own seed."""
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn) * spread


def begin(
    space: Space,
    values: Tensor,
    seeds: list[int],
    *,
    spread: float = 0.01,
    bounded: bool = True,
) -> Parametrization:
    """Return a start in the space asked for, from pictures (n, c, h, w) with noise of its own seed for each.

    `spread` is the noise's standard deviation: in pixels for "pixels", in the free numbers for "fourier"; "maco" draws
    all phases. Raises OptionError for an unknown space.
    """
    channels, height, width = values.shape[1:]
    if space == "pixels":
        noisy = values + noise((channels, height, width), seeds, spread).to(values)
        return Pixels(noisy.clamp(0, 1) if bounded else noisy, bounded=bounded)
    if space == "fourier":
        start = Fourier(values, bounded=bounded)
        shape: tuple[int, ...] = tuple(start.free.shape[1:])
        start.restore(start.free + noise(shape, seeds, spread).to(values))  # type: ignore[arg-type]
        return start
    if space == "maco":
        drawn = [
            torch.rand(channels, height, width // 2 + 1, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        phases = (torch.stack(drawn) * 2 - 1) * torch.pi
        return Phases(phases.to(values), natural_magnitude(channels, height, width).to(values), (height, width))
    raise OptionError(f"space is fourier, pixels or maco, not {space!r}")
