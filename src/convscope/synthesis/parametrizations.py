"""Image parametrizations: the numbers that are optimized, and the pictures that they stand for.

Pixels are the picture itself (Simonyan et al., Gatys et al.). Fourier is its spectrum, preconditioned so that
frequencies change as easily as they are common in photographs, in decorrelated colours (lucid). Phases fixes the
magnitude of the spectrum to that of photographs and optimizes the phase alone (MaCo: Fel et al. 2023,
arXiv:2306.06805).
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

ParametrizationName = Literal["fourier", "pixels", "maco"]

# The square root of the covariance of colours in photographs, lucid's numbers.
_ROOT = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], dtype=torch.float64)
_COLOURS = _ROOT / _ROOT.norm(dim=0).max()

_EDGE = 0.005
"""The distance to 0 and 1 that values keep before the inverse of the sigmoid."""


def correlate(colours: Tensor) -> Tensor:
    """Turn decorrelated colours (n, 3, h, w) into red, green and blue; other numbers of channels stay."""
    if colours.shape[1] != 3:
        return colours
    return _mixed(colours, _COLOURS)


def decorrelate(colours: Tensor) -> Tensor:
    """Undo `correlate`."""
    if colours.shape[1] != 3:
        return colours
    return _mixed(colours, torch.linalg.inv(_COLOURS))


def _mixed(colours: Tensor, matrix: Tensor) -> Tensor:
    # einsum would return channels-last memory, which slows down everything after.
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

    def project(self) -> None:
        """Project the free numbers back to their permitted range, after a step."""
        return

    def snapshot(self) -> Tensor:
        """Return a copy of the free numbers."""
        return self.free.detach().clone()

    def restore(self, numbers: Tensor) -> None:
        """Set the free numbers to those of a snapshot."""
        with torch.no_grad():
            self.free.copy_(numbers)


class Pixels(Parametrization):
    """The picture's own values; in [0, 1] after every step if `bounded`."""

    def __init__(self, values: Tensor, *, bounded: bool = True) -> None:
        # Optimizers flatten the numbers.
        self.free = values.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        self.bounded = bounded

    def pixels(self) -> Tensor:
        return self.free

    def project(self) -> None:
        if self.bounded:
            with torch.no_grad():
                self.free.clamp_(0, 1)


class Fourier(Parametrization):
    """The spectrum of decorrelated colours, scaled by 1 / frequency^decay.

    `values` are the initial pictures (n, c, h, w) in [0, 1]. If `bounded`, a sigmoid keeps pictures in (0, 1);
    otherwise the inverse transform is added to mid-grey.
    """

    def __init__(self, values: Tensor, *, bounded: bool = True, decay: float = 1.0) -> None:
        height, width = values.shape[-2:]
        self.bounded, self.size = bounded, (height, width)
        slowest = 1.0 / max(height, width)
        # lucid's scale, for an orthonormal transform: a step of Adam changes pictures of any size equally.
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
    """The phase (n, c, h, w // 2 + 1) of a spectrum of fixed magnitude, that of photographs; bounded by a sigmoid."""

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

    Bands that are no colours all have that of lightness. Measured on 800 photographs at 256 x 256 and interpolated in
    relative frequency. Orthonormal scaling.
    """
    table = _measured() if channels == 3 else _measured()[:1].expand(channels, -1, -1)
    rows = torch.fft.fftfreq(height)[:, None].expand(height, width // 2 + 1)
    columns = torch.fft.rfftfreq(width)[None].expand(height, width // 2 + 1)
    # Rows of the table go from -1/2 to 1/2, columns from 0 to 1/2, logarithms of magnitude times frequency.
    grid = torch.stack((columns * 4 - 1, rows * 2), -1)[None]
    shape = torch.nn.functional.grid_sample(
        table[None], grid, mode="bilinear", padding_mode="border", align_corners=True
    )[0]
    slowest = 1.0 / max(height, width)
    return shape.exp() / frequencies(height, width).clamp(min=slowest)


def noise(shape: tuple[int, int, int], seeds: list[int], deviation: float) -> Tensor:
    """Return normal noise (len(seeds), c, h, w) of a standard deviation, each picture from its own seed."""
    pictures = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(pictures) * deviation


def parametrize(
    name: ParametrizationName,
    values: Tensor,
    seeds: list[int],
    *,
    deviation: float = 0.01,
    bounded: bool = True,
) -> Parametrization:
    """Return an image parametrization by its name, initialised with pictures plus noise.

    Args:
        name: "pixels", "fourier", or "maco", which draws all phases at random and leaves `values` out.
        values: the initial pictures (n, c, h, w) in [0, 1].
        seeds: the seed of each picture's noise.
        deviation: the noise's standard deviation: of pixels for "pixels", of the free numbers for "fourier".
        bounded: keep pictures in [0, 1].

    Raises OptionError for an unknown name.
    """
    channels, height, width = values.shape[1:]
    if name == "pixels":
        noisy = values + noise((channels, height, width), seeds, deviation).to(values)
        return Pixels(noisy.clamp(0, 1) if bounded else noisy, bounded=bounded)
    if name == "fourier":
        fourier = Fourier(values, bounded=bounded)
        shape: tuple[int, ...] = tuple(fourier.free.shape[1:])
        fourier.restore(fourier.free + noise(shape, seeds, deviation).to(values))  # type: ignore[arg-type]
        return fourier
    if name == "maco":
        uniform = [
            torch.rand(channels, height, width // 2 + 1, generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        phases = (torch.stack(uniform) * 2 - 1) * torch.pi
        return Phases(phases.to(values), natural_magnitude(channels, height, width).to(values), (height, width))
    raise OptionError(f"parametrization must be fourier, pixels or maco, not {name!r}")
