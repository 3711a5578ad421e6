"""Transforms against pictures shifted and turned by hand, and against scipy's affine map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from scipy.stats import kstest
from torch import Tensor
from torch.nn import functional as F

from convscope.errors import OptionError
from convscope.synthesis.transforms import PRESETS, Transform, transform_for

# What each drawn number moves.
ACROSS, DOWN, WINDOW, SCALE, ANGLE = range(5)


def picture(height: int, width: int, count: int = 1, channels: int = 2) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def numbers(**drawn: float) -> Tensor:
    """One step's numbers for one picture, zero but for those given."""
    names = ("across", "down", "window", "scale", "angle", "roll", "noise")
    return torch.tensor([[drawn.get(name, 0.0) for name in names]], dtype=torch.float64)


def by_scipy(transform: Transform, pixels: Tensor, drawn: Tensor) -> Tensor:
    """The affine map in pixels around the centre, picture by picture: what lies outside is mid-grey."""
    shaken = torch.empty_like(pixels)
    height, width = pixels.shape[-2:]
    for one, moved, number in zip(pixels, shaken, drawn.tolist(), strict=True):
        low, high = transform.crop or (1, 1)
        window = low + (high - low) * (number[WINDOW] + 1) / 2
        zoom = window / (1 + transform.scale * number[SCALE])
        angle = math.radians(transform.rotate) * number[ANGLE]
        turned = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        matrix = turned @ np.diag(
            [zoom * (height + 2 * transform.pad) / height, zoom * (width + 2 * transform.pad) / width]
        )
        centre = np.array([(height - 1) / 2, (width - 1) / 2])
        shift = np.array(
            [
                number[DOWN] * (transform.jitter + (1 - window) * height / 2),
                number[ACROSS] * (transform.jitter + (1 - window) * width / 2),
            ]
        )
        offset = centre - matrix @ centre + shift
        for k in range(len(one)):
            grey = one[k].numpy() - 0.5
            moved[k] = 0.5 + torch.from_numpy(affine_transform(grey, matrix, offset, order=1, mode="grid-constant"))
    return shaken


# Every part by hand


@pytest.mark.parametrize(("across", "down"), [(1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-0.5, 1)])
def test_jitter_of_whole_pixels_is_a_shifted_picture_with_grey_outside(across: float, down: float) -> None:
    pixels = picture(11, 16)
    expected = torch.full_like(pixels, 0.5)
    right, below = round(4 * across), round(4 * down)
    for y in range(11):
        for x in range(16):
            if 0 <= y + below < 11 and 0 <= x + right < 16:
                expected[..., y, x] = pixels[..., y + below, x + right]
    found = Transform(jitter=4)(pixels, numbers(across=across, down=down))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("angle", "turns"), [(1, 1), (-1, -1), (0, 0)])
@pytest.mark.parametrize("side", [8, 9])
def test_a_quarter_turn_of_a_square(angle: float, turns: int, side: int) -> None:
    pixels = picture(side, side)
    found = Transform(rotate=90)(pixels, numbers(angle=angle))
    torch.testing.assert_close(found, torch.rot90(pixels, turns, (2, 3)), rtol=0, atol=1e-9)


def test_a_quarter_turn_of_unequal_sides_keeps_the_middle_and_its_proportions() -> None:
    pixels = picture(8, 14)
    found = Transform(rotate=90)(pixels, numbers(angle=1))
    expected = torch.full_like(pixels, 0.5)
    expected[..., 3:11] = torch.rot90(pixels[..., 3:11], 1, (2, 3))
    torch.testing.assert_close(found[..., 3:11], expected[..., 3:11], rtol=0, atol=1e-9)
    torch.testing.assert_close(found[..., :3], expected[..., :3], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("across", "down"), [(-1, -1), (1, -1), (-1, 1), (1, 1), (0, 0)])
def test_crop_is_an_enlarged_window_that_reaches_every_corner(across: float, down: float) -> None:
    pixels = picture(12, 16)
    found = Transform(crop=(0.5, 0.5))(pixels, numbers(across=across, down=down, window=0.3))
    top, left = round(3 + 3 * down), round(4 + 4 * across)
    window = pixels[..., top : top + 6, left : left + 8]
    expected = F.interpolate(window, size=(12, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("drawn", "share"), [(-1.0, 0.25), (0.0, 0.5), (1.0, 0.75)])
def test_crop_takes_shares_from_least_to_most(drawn: float, share: float) -> None:
    ramp = torch.arange(32, dtype=torch.float64).expand(1, 1, 32, 32) / 100
    found = Transform(crop=(0.25, 0.75))(ramp, numbers(window=drawn))
    assert float(found[0, 0, 16].diff()[5:-5].mean()) == pytest.approx(share / 100)


@pytest.mark.parametrize("pad", [2, 4])
def test_pad_shows_grey_around_the_picture(pad: int) -> None:
    pixels = picture(16, 24)
    padded = F.pad(pixels, (pad,) * 4, value=0.5)
    expected = F.interpolate(padded, size=(16, 24), mode="bilinear", align_corners=False)
    found = Transform(pad=pad)(pixels, numbers())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert torch.all(found[..., 0, :] == 0.5)


@pytest.mark.parametrize("drawn", [-1.0, 0.5, 1.0])
def test_scale_enlarges_around_the_centre(drawn: float) -> None:
    ramp = torch.arange(33, dtype=torch.float64).expand(1, 1, 33, 33) / 100
    found = Transform(scale=0.25)(ramp, numbers(scale=drawn))
    assert float(found[0, 0, 16, 16]) == pytest.approx(0.16)
    assert float(found[0, 0, 16].diff()[5:-5].mean()) == pytest.approx(0.01 / (1 + 0.25 * drawn))


@given(
    st.tuples(st.integers(6, 17), st.integers(6, 17)),
    st.floats(0, 5),
    st.floats(0, 0.5),
    st.floats(0, 180),
    st.floats(0, 6),
    st.none() | st.tuples(st.floats(0.2, 0.5), st.floats(0.5, 1)),
    st.integers(0, 1000),
)
def test_all_parts_together_are_one_affine_map(
    size: tuple[int, int],
    jitter: float,
    scale: float,
    rotate: float,
    pad: float,
    crop: tuple[float, float] | None,
    seed: int,
) -> None:
    transform = Transform(jitter=jitter, scale=scale, rotate=rotate, pad=pad, crop=crop)
    pixels, drawn = picture(*size, count=2), transform.draw([seed, seed + 1], 1)[0].double()
    torch.testing.assert_close(transform(pixels, drawn), by_scipy(transform, pixels, drawn), rtol=0, atol=1e-6)


def test_roll_brings_back_what_leaves() -> None:
    pixels = picture(7, 9)
    drawn = numbers(angle=1.0, roll=-0.5)
    assert torch.equal(Transform(roll=4)(pixels, drawn), pixels.roll((4, -2), (2, 3)))
    assert torch.equal(Transform(roll=4)(pixels, numbers(angle=-1.0, roll=0.2)), pixels.roll((-4, 1), (2, 3)))


def test_noise_is_normal_and_seeded_by_what_was_drawn() -> None:
    transform, grey = Transform(noise=0.2), torch.full((1, 3, 60, 60), 0.5)
    drawn = transform.draw([5], 3)
    shaken = [transform(grey, one) - 0.5 for one in drawn]
    assert torch.equal(transform(grey, drawn[0]) - 0.5, shaken[0]) and not torch.equal(shaken[0], shaken[1])
    assert kstest((torch.stack(shaken) / 0.2).flatten().numpy(), "norm").pvalue > 0.01


# Draws


@pytest.mark.parametrize("views", [1, 3])
def test_draws_depend_on_the_seed_alone(views: int) -> None:
    transform = Transform(jitter=2, views=views)
    together, alone = transform.draw([4, 9, 2], 6), transform.draw([9], 6)
    assert together.shape[:2] == (6, 3 * views)
    assert torch.equal(together[:, views : 2 * views], alone)
    assert not torch.equal(together[:, :views], alone)
    state = torch.get_rng_state()
    transform.draw([1], 5)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_are_uniform_on_both_sides_and_independent() -> None:
    drawn = Transform(views=2).draw([0, 1], 500).flatten(0, 1).numpy()
    for column in drawn.T:
        assert kstest(column, "uniform", (-1, 2)).pvalue > 0.001
    assert np.abs(np.corrcoef(drawn.T) - np.eye(drawn.shape[1])).max() < 0.1


@pytest.mark.parametrize(
    "transform", [Transform(jitter=2, rotate=20, views=3, noise=0.1), Transform(crop=(0.3, 0.7), views=2)]
)
def test_a_picture_is_shaken_alike_in_any_company(transform: Transform) -> None:
    pixels = picture(12, 10, count=3)
    together = transform(pixels, transform.draw([4, 9, 2], 1)[0])
    alone = transform(pixels[1:2], transform.draw([9], 1)[0])
    torch.testing.assert_close(together[transform.views : 2 * transform.views], alone, rtol=0, atol=1e-12)
    assert not torch.allclose(alone[0], alone[1])


def test_views_are_copies_of_one_picture_side_by_side() -> None:
    pixels = picture(5, 6, count=2)
    shown = Transform(views=2)(pixels, torch.zeros(4, 7))
    assert torch.equal(shown, torch.stack([pixels[0], pixels[0], pixels[1], pixels[1]]))


def test_no_shake_is_the_picture_itself() -> None:
    pixels = picture(5, 6)
    transform = Transform()
    assert transform(pixels, transform.draw([0], 1)[0]) is pixels and not transform.resamples


# Presets and words


@pytest.mark.parametrize("side", [28, 32, 64, 224, 512])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_at_every_size(name: str, side: int) -> None:
    transform = transform_for(name, side)
    pixels = torch.rand(1, 1, side, side, requires_grad=True)
    shaken = transform(pixels, transform.draw([1], 1)[0])
    assert shaken.shape == (transform.views, 1, side, side) and torch.isfinite(shaken).all()
    (gradient,) = torch.autograd.grad(shaken.sum(), pixels)
    # Most pixels are seen, whatever the size: crops see a window each.
    assert (gradient != 0).float().mean() > (0.3 if name == "crops" else 0.6)
    share = side / 128
    expected = {
        "none": Transform(),
        "standard": Transform(jitter=12 * share, scale=0.1 if side > 32 else 0.05, rotate=10 if side > 32 else 5),
        "light": Transform(jitter=4 * share, scale=0.05, rotate=3),
        "jitter": Transform(jitter=side / 16),
        "crops": Transform(crop=(0.3, 0.7), noise=0.05, views=4),
    }
    assert transform == expected[name]


def test_jitter_is_a_pixel_at_least() -> None:
    assert transform_for("jitter", 8) == Transform(jitter=1)


@pytest.mark.parametrize(
    ("asked", "transform"),
    [
        ("jitter=8 rotate=10 crop=0.3-0.6", Transform(jitter=8, rotate=10, crop=(0.3, 0.6))),
        ("  roll=32,views=2 ", Transform(roll=32, views=2)),
        ("scale=0.1, pad=4 noise=0.05", Transform(scale=0.1, pad=4, noise=0.05)),
        (Transform(pad=3), Transform(pad=3)),
    ],
)
def test_words_are_read(asked: str | Transform, transform: Transform) -> None:
    found = transform_for(asked, 64)
    assert found == transform and isinstance(found.views, int) and isinstance(found.roll, int)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("standart", "one of 'standard'"),
        ("", "cannot read the transform ''"),
        ("jitters=3", "from jitter, scale, rotate, pad, crop, noise, roll, views"),
        ("jitter=", "jitter=8 rotate=10"),
        ("jitter=much", "give a number, such as jitter=8"),
        ("crop=0.3", "crop is two fractions, such as 0.3-0.6"),
        ("jitter=1-2", "others one number"),
        ("crop=0.3-1.5", "crop is two fractions of the side"),
        ("crop=0.6-0.3", "crop is two fractions of the side"),
        ("crop=0-0.3", "crop is two fractions of the side"),
        ("views=0", "views must be at least 1"),
        ("scale=1", "scale must be below 1"),
    ],
)
def test_what_cannot_be_read_is_refused(asked: str, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        transform_for(asked, 64)


@pytest.mark.parametrize("part", ["jitter", "scale", "rotate", "pad", "noise", "roll"])
def test_no_part_is_negative(part: str) -> None:
    with pytest.raises(OptionError, match="must not be negative"):
        Transform(**{part: -1})  # type: ignore[arg-type]
