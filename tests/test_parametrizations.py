"""Starts against matrices, slow sums of waves and scipy's interpolation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

from convscope.errors import OptionError
from convscope.synthesis import parametrizations
from convscope.synthesis.parametrizations import (
    Fourier,
    Parametrization,
    Phases,
    Pixels,
    correlate,
    decorrelate,
    frequencies,
    natural_magnitude,
    noise,
    parametrize,
)
from networks import pictures

# lucid's: color_correlation_svd_sqrt / max norm of its columns.
ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLOURS = ROOT / np.sqrt((ROOT**2).sum(0)).max()

sizes = st.tuples(st.integers(2, 13), st.integers(2, 13))


def values(channels: int, size: tuple[int, int], seed: int = 0, count: int = 2) -> Tensor:
    """Pictures within the range that a sigmoid is asked for."""
    drawn = torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 0.01 + 0.98 * drawn


def matrix(start: Parametrization) -> tuple[Tensor, Tensor]:
    """The map from free numbers to one picture, as columns, and what it makes of zeros: by one call per number."""
    count = start.free.numel()
    made = []
    with torch.no_grad():
        for unit in torch.cat([torch.zeros(1, count), torch.eye(count)]).to(start.free):
            start.restore(unit.view_as(start.free))
            made.append(start.pixels().flatten())
    return torch.stack(made[1:], 1) - made[0][:, None], made[0]


# Colours


def test_colours_are_lucids() -> None:
    for k in range(3):
        alone = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
        alone[0, k] = 1
        np.testing.assert_allclose(correlate(alone).flatten(), COLOURS[:, k], atol=1e-15)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_decorrelation_goes_round(channels: int) -> None:
    pixels = torch.randn(2, channels, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(correlate(decorrelate(pixels)), pixels, rtol=0, atol=1e-12)
    torch.testing.assert_close(decorrelate(correlate(pixels)), pixels, rtol=0, atol=1e-12)
    assert (channels == 3) == (not torch.equal(correlate(pixels), pixels))


# Fourier


@given(sizes)
def test_frequencies_are_cycles_per_pixel(size: tuple[int, int]) -> None:
    height, width = size
    found = frequencies(height, width)
    assert found.shape == (height, width // 2 + 1)
    for i in range(height):
        for j in range(width // 2 + 1):
            row = min(i, height - i) / height
            assert found[i, j] == pytest.approx((row**2 + (j / width) ** 2) ** 0.5, abs=1e-6)


@given(sizes, st.sampled_from([1, 3, 4]), st.booleans(), st.integers(0, 99))
def test_fourier_goes_round_at_any_size(size: tuple[int, int], channels: int, bounded: bool, seed: int) -> None:
    asked = values(channels, size, seed)
    start = Fourier(asked, bounded=bounded)
    made = start.pixels()
    assert made.shape == asked.shape and made.dtype == torch.float64 and start.free.shape[-1] == 2
    torch.testing.assert_close(made, asked, rtol=0, atol=1e-9)
    torch.testing.assert_close(start.spectrum(made), start.free.detach(), rtol=0, atol=1e-6)


def test_black_and_white_come_as_near_as_a_sigmoid_may() -> None:
    asked = torch.zeros(1, 3, 6, 7, dtype=torch.float64)
    asked[..., 3:] = 1
    torch.testing.assert_close(Fourier(asked).pixels(), asked.clamp(0.005, 0.995), rtol=0, atol=1e-9)
    torch.testing.assert_close(Fourier(asked, bounded=False).pixels(), asked, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 11), (9, 4)])
@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("bounded", [True, False])
def test_fourier_is_lucids_sum_of_waves(size: tuple[int, int], decay: float, bounded: bool) -> None:
    height, width = size
    start = Fourier(torch.full((1, 3, *size), 0.5, dtype=torch.float64), bounded=bounded, decay=decay)
    start.restore(torch.randn_like(start.free))
    free = torch.view_as_complex(start.free.detach()).numpy()[0]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    # lucid: sqrt(w h) / max(f, 1 / max(w, h)) ** decay, an inverse transform divided by w h, and a quarter of that.
    spectrum = free * np.sqrt(width * height) / np.maximum(frequency, 1 / max(width, height)) ** decay
    waves = np.fft.irfft2(spectrum, s=size) / 4
    colours = np.einsum("dc,chw->dhw", COLOURS, waves)
    expected = 1 / (1 + np.exp(-colours)) if bounded else colours + 0.5
    np.testing.assert_allclose(start.pixels()[0].detach(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(4, 5), (5, 4), (3, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradient_is_the_adjoint_of_the_map(size: tuple[int, int], channels: int) -> None:
    start = Fourier(torch.full((1, channels, *size), 0.5, dtype=torch.float64), bounded=False)
    forward, constant = matrix(start)
    torch.testing.assert_close(constant, torch.full_like(constant, 0.5))
    above = torch.randn(channels * size[0] * size[1], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((start.pixels().flatten() * above).sum(), start.free)
    torch.testing.assert_close(gradient.flatten(), forward.T @ above, rtol=1e-9, atol=1e-12)


def test_bounded_gradient_is_that_times_the_sigmoids_slope() -> None:
    start = Fourier(values(3, (4, 5), count=1))
    plain = Fourier(torch.full((1, 3, 4, 5), 0.5, dtype=torch.float64), bounded=False)
    forward, _ = matrix(plain)
    above = torch.randn(3 * 4 * 5, dtype=torch.float64)
    pixels = start.pixels().flatten()
    (gradient,) = torch.autograd.grad((pixels * above).sum(), start.free)
    expected = forward.T @ (above * pixels * (1 - pixels)).detach()
    torch.testing.assert_close(gradient.flatten(), expected, rtol=1e-9, atol=1e-12)


# Phases


def magnitudes(start: Phases) -> Tensor:
    """The magnitude of the spectrum of what the start shows."""
    colours = decorrelate(torch.logit(start.pixels().detach()))
    return torch.fft.rfft2(colours, norm="ortho").abs()


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (12, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_phases_keep_the_magnitude(size: tuple[int, int], channels: int) -> None:
    start = parametrize("maco", torch.full((2, channels, *size), 0.5, dtype=torch.float64), [3, 4])
    assert isinstance(start, Phases)
    asked = start.magnitude.expand(2, -1, -1, -1)
    mirrored = asked[:, :, [-row % size[0] for row in range(size[0])]]
    for _ in range(3):
        assert start.pixels().shape == (2, channels, *size)
        inside = slice(1, (size[1] + 1) // 2)
        found = magnitudes(start)
        torch.testing.assert_close(found[..., inside], asked[..., inside], rtol=1e-6, atol=1e-9)
        # A column that is its own mirror image holds each frequency twice: opposite phases take away from it.
        own = [0] if size[1] % 2 else [0, -1]
        assert (found <= (asked + mirrored) / 2 * (1 + 1e-6) + 1e-9)[..., own].all()
        (gradient,) = torch.autograd.grad(start.pixels().square().sum(), start.free)
        start.restore(start.free + 10 * gradient)
        start.project()


@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
def test_magnitude_is_that_of_the_table(size: tuple[int, int]) -> None:
    table = np.load(Path(parametrizations.__file__).parent / "natural_spectrum.npy")
    rows, columns = np.linspace(-0.5, 0.5, table.shape[1]), np.linspace(0, 0.5, table.shape[2])
    found = natural_magnitude(3, *size)
    assert found.shape == (3, size[0], size[1] // 2 + 1)
    y, x = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1]), indexing="ij")
    for k in range(3):
        known = RegularGridInterpolator((rows, columns), table[k])(np.stack([y, x], -1))
        expected = np.exp(known) / np.maximum(np.hypot(y, x), 1 / max(size))
        np.testing.assert_allclose(found[k], expected, rtol=1e-3)


def test_magnitude_of_photographs_falls_and_is_brightness_above_all() -> None:
    found = natural_magnitude(3, 128, 128)
    assert torch.isfinite(found).all() and (found > 0).all()
    along = found[:, 0, 1:]
    assert (along[:, :8].mean(1) > 4 * along[:, 32:40].mean(1)).all()
    assert found[0].sum() > found[1].sum() and found[0].sum() > found[2].sum()
    assert natural_magnitude(1, 9, 7).shape == (1, 9, 4)


# Noise and beginning


def test_every_picture_has_noise_of_its_own_seed() -> None:
    together, alone = noise((3, 40, 50), [3, 8, 5], 0.2), noise((3, 40, 50), [8], 0.2)
    assert torch.equal(together[1], alone[0]) and not torch.equal(together[0], together[1])
    assert float(together.std()) == pytest.approx(0.2, rel=0.03) and abs(float(together.mean())) < 0.01


@pytest.mark.parametrize("name", ["fourier", "pixels", "maco"])
def test_a_beginning_depends_on_its_seed_alone(name: parametrizations.ParametrizationName) -> None:
    grey = torch.full((3, 3, 12, 9), 0.5)
    start, alone = parametrize(name, grey, [3, 8, 5]), parametrize(name, grey[:1], [8])
    pixels = start.pixels().detach()
    assert torch.equal(start.free[1], alone.free[0]) and start.free.requires_grad
    torch.testing.assert_close(pixels[1], alone.pixels()[0].detach())
    assert (pixels[0] - pixels[1]).abs().max() > 1e-3
    assert pixels.dtype == torch.float32 and pixels.min() >= 0 and pixels.max() <= 1
    assert torch.equal(parametrize(name, grey, [3, 8, 5]).free, start.free)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["fourier", "pixels", "maco"])
def test_a_beginning_keeps_the_type(name: parametrizations.ParametrizationName, dtype: torch.dtype) -> None:
    assert parametrize(name, pictures(1, side=9, dtype=dtype), [0]).pixels().dtype == dtype


def test_spread_is_the_noise_of_the_free_numbers() -> None:
    asked = pictures(2, side=8, channels=3) * 0.6 + 0.2
    for name in ("fourier", "pixels"):
        start = parametrize(name, asked, [1, 2], deviation=0.03)
        clean = parametrize(name, asked, [1, 2], deviation=0)
        torch.testing.assert_close(clean.pixels().detach(), asked, rtol=0, atol=1e-9)
        drawn = noise(tuple(clean.free.shape[1:]), [1, 2], 0.03)  # type: ignore[arg-type]
        torch.testing.assert_close((start.free - clean.free).detach(), drawn.double(), rtol=0, atol=1e-12)
    assert float((parametrize("pixels", asked, [1, 2]).pixels().detach() - asked).std()) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("bounded", [True, False])
def test_pixels_keep_to_their_range_when_bounded(bounded: bool) -> None:
    start = parametrize("pixels", torch.ones(1, 1, 20, 20), [0], deviation=0.5, bounded=bounded)
    assert bool(start.free.max() > 1) == (not bounded)
    for value, settled in ((-0.5, 0.0), (0.3, 0.3), (1.5, 1.0)):
        start.restore(torch.full((1, 1, 20, 20), value))
        start.project()
        assert torch.equal(start.pixels(), torch.full((1, 1, 20, 20), settled if bounded else value))


def test_phases_cover_the_circle_and_belong_to_their_frequencies() -> None:
    free = parametrize("maco", torch.full((1, 3, 64, 64), 0.5), [0]).free.detach()
    assert free.shape == (1, 3, 64, 33) and free.min() >= -np.pi and free.max() <= np.pi
    assert free.min() < -3.1 and free.max() > 3.1 and abs(float(free.mean())) < 0.1


def test_an_unbounded_fourier_picture_may_leave_the_range() -> None:
    start = parametrize("fourier", torch.ones(1, 3, 8, 8), [0], bounded=False, deviation=0.1)
    assert start.pixels().max() > 1


def test_a_snapshot_is_a_copy() -> None:
    start = Pixels(torch.zeros(1, 1, 2, 2))
    kept = start.snapshot()
    start.restore(torch.ones(1, 1, 2, 2))
    assert kept.max() == 0 and start.free.min() == 1 and start.free.requires_grad and not kept.requires_grad
    given = torch.ones(1, 1, 2, 2)
    Pixels(given).restore(torch.zeros(1, 1, 2, 2))
    assert given.min() == 1


def test_an_unknown_parametrization_is_refused() -> None:
    with pytest.raises(OptionError, match="parametrization must be fourier, pixels or maco, not 'wavelets'"):
        parametrize("wavelets", torch.zeros(1, 3, 4, 4), [0])  # type: ignore[arg-type]
