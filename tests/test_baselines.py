"""Fills against scipy and closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from convscope.baselines import baseline_pixels, blurred
from convscope.errors import OptionError
from networks import pictures, tiny


@pytest.mark.parametrize(
    ("baseline", "colour"),
    [("mean", (0.5, 0.4, 0.3)), ("grey", (0.5,) * 3), ("0", (0.0,) * 3), ("1", (1.0,) * 3), ("0.85", (0.85,) * 3)],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_colour_everywhere(baseline: str, colour: tuple[float, ...], dtype: torch.dtype) -> None:
    pixels = pictures(2, dtype=dtype)
    result = baseline_pixels(tiny("sequential"), pixels, baseline)
    assert result.shape == pixels.shape and result.dtype == dtype
    assert torch.equal(result, torch.tensor(colour, dtype=dtype)[None, :, None, None].expand_as(pixels))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("size", [(20, 31), (33, 16)])
def test_blur_is_a_gaussian_with_mirrored_borders(sigma: float, size: tuple[int, int]) -> None:
    pixels = torch.rand(2, 3, *size, dtype=torch.float64)
    reach = -(-3 * sigma // 1) / sigma
    expected = gaussian_filter(pixels.numpy(), sigma, mode="mirror", truncate=reach, axes=(2, 3))
    torch.testing.assert_close(blurred(pixels, sigma), torch.from_numpy(expected), rtol=1e-9, atol=1e-12)


def test_the_fill_blur_is_a_twentieth_of_the_shorter_side() -> None:
    pixels = torch.rand(1, 3, 40, 60, dtype=torch.float64)
    assert torch.equal(baseline_pixels(tiny("sequential"), pixels, "blur"), blurred(pixels, 2.0))


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 20), st.integers(0, 1000))
def test_blur_keeps_the_range_and_constants_at_any_size(height: int, width: int, sigma: float, seed: int) -> None:
    pixels = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    result = blurred(pixels, sigma)
    assert result.shape == pixels.shape
    assert result.min() >= pixels.min() - 1e-12 and result.max() <= pixels.max() + 1e-12
    torch.testing.assert_close(blurred(torch.full_like(pixels, 0.7), sigma), torch.full_like(pixels, 0.7))


def test_blur_without_width_changes_nothing() -> None:
    pixels = pictures(1)
    torch.testing.assert_close(blurred(pixels, 0.0), pixels, rtol=0, atol=1e-15)


def test_every_picture_is_blurred_on_its_own() -> None:
    net, pixels = tiny("sequential"), pictures(3)
    together = baseline_pixels(net, pixels, "blur")
    torch.testing.assert_close(together[1:2], baseline_pixels(net, pixels[1:2], "blur"), rtol=1e-12, atol=1e-12)
    assert not torch.equal(together[0], together[1])


def test_noise_is_uniform_seeded_and_the_same_for_every_picture() -> None:
    net, before = tiny("sequential"), torch.get_rng_state()
    noise = baseline_pixels(net, pictures(2, side=100), "noise", seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(noise[0], noise[1]) and torch.equal(
        noise[:1], baseline_pixels(net, pictures(1, side=100), "noise", seed=3)
    )
    assert not torch.equal(noise, baseline_pixels(net, pictures(2, side=100), "noise", seed=4))
    assert noise.min() >= 0 and noise.max() <= 1
    assert float(noise[0].mean()) == pytest.approx(0.5, abs=0.01) and float(noise[0].var()) == pytest.approx(
        1 / 12, abs=2e-3
    )
    single = baseline_pixels(net, pictures(2, side=100, dtype=torch.float32), "noise", seed=3)
    assert torch.equal(single, noise.float())


@pytest.mark.parametrize("baseline", ["pink", "", "1.5", "-0.1", "nan", "inf", "Mean", None, "0,5"])
def test_baselines_that_do_not_exist_are_refused(baseline: Any) -> None:
    with pytest.raises(OptionError, match=r"baseline is 'mean', 'grey', 'blur', 'noise' or a value in \[0, 1\], not "):
        baseline_pixels(tiny("sequential"), pictures(1), baseline)


def test_a_number_is_taken_as_a_number() -> None:
    baseline: Any = 0.25
    assert (baseline_pixels(tiny("sequential"), pictures(1), baseline) == 0.25).all()
