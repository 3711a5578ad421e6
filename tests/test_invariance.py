"""Zeiler & Fergus' Fig. 5, and their Fig. 8 with Table 1: changes against their definitions."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from convscope import Net, correspondence, explain, invariance, predict, tap
from convscope.errors import NetworkError, OptionError
from convscope.layers import before_classes
from convscope.views.invariance import _kinds, changed_pixels
from networks import pictures, tiny

SHIFT, SCALE, ROTATION = _kinds(20)


def test_changes_are_those_that_are_named() -> None:
    pixels = pictures(1, side=20)
    fill = torch.full_like(pixels, 0.25)
    down, none, up = changed_pixels(pixels, fill, SHIFT, [3, 0, -4])
    torch.testing.assert_close(down[None, :, 3:], pixels[:, :, :-3])
    assert down[:, :3] == pytest.approx(0.25)
    torch.testing.assert_close(up[None, :, :-4], pixels[:, :, 4:])
    torch.testing.assert_close(none[None], pixels)
    turns = changed_pixels(pixels, fill, ROTATION, [0, 90, 180, 360])
    for turn, quarters in zip(turns, (0, 1, 2, 0), strict=True):
        torch.testing.assert_close(turn[None], torch.rot90(pixels, quarters, (2, 3)))
    (twice,) = changed_pixels(pixels, fill, SCALE, [2.0])
    torch.testing.assert_close(twice[None, :, 1:-1:2, 1:-1:2][..., :9, :9].shape, pixels[..., :9, :9].shape)
    wide = pixels[:, :, :10]
    (half,) = changed_pixels(wide, fill[:, :, :10], ROTATION, [180])
    torch.testing.assert_close(half[None], torch.rot90(wide, 2, (2, 3)))


def test_distances_and_probabilities_are_those_of_single_passes() -> None:
    net, picture = tiny("sequential"), pictures(1, side=20)[0]
    drawing = invariance(net, [picture, picture.flip(2)], steps=5, of=2)
    numbers = drawing.numbers()
    layers = drawing.recipe.settled["layers"]
    assert layers == [net.convolution(1).name, before_classes(net).name]
    assert numbers["distances"].shape == (3, 2, 2, 5) and numbers["probability"].shape == (3, 2, 5)
    for row, pixels in enumerate((picture[None], picture.flip(2)[None])):
        mean = torch.tensor(net.mean, dtype=pixels.dtype)[:, None, None].expand_as(pixels)
        own = tap(net, pixels, layers)
        for i, kind in enumerate((SHIFT, SCALE, ROTATION)):
            for step, amount in enumerate(numbers["amounts"][i]):
                (changed,) = changed_pixels(pixels, mean, kind, [float(amount)])
                there = tap(net, changed[None], layers)
                far = [float((there[name] - own[name]).norm() / own[name].norm()) for name in layers]
                assert numbers["distances"][i, :, row, step] == pytest.approx(far, abs=1e-5)
                assert numbers["probability"][i, row, step] == pytest.approx(float(predict(net, changed[None])[0, 2]))
    # Nothing is changed in the middle of the shifts, at the first scale, and at both ends of the rotation.
    assert np.abs(numbers["distances"][[0, 1, 2, 2], :, :, [2, 0, 0, 4]]).max() < 1e-5


def test_correspondence_is_the_share_of_signs_that_differ() -> None:
    net, three = tiny("sequential"), pictures(3, side=20)
    parts = ["corner (3,4) (5,6) (10,12)", "(9,9) (9,9) (9,9)"]
    drawing = correspondence(net, list(three), parts=parts, layers=["1"], patch=4, draws=2)
    mean = torch.tensor(net.mean, dtype=three.dtype)[:, None, None]
    covered = three.clone()
    for pixels, (y, x) in zip(covered, ((3, 4), (5, 6), (10, 12)), strict=True):
        pixels[:, y - 2 : y + 2, x - 2 : x + 2] = mean
    change = (tap(net, three, ["1"])["1"] - tap(net, covered, ["1"])["1"]).flatten(1)
    signs = torch.where(change.abs() > 1e-9, change, 0).sign()
    shares = [float((signs[i] != signs[j]).double().mean()) for i, j in combinations(range(3), 2)]
    assert drawing.numbers()["differences"][0, 0] == pytest.approx(np.mean(shares))
    assert drawing.numbers()["deviations"][0, 0] == pytest.approx(np.std(shares))
    assert list(drawing.recipe.settled["places"]) == ["corner", "part 2"]
    same = correspondence(net, [three[0]] * 3, parts=["x (9,9) (9,9) (9,9)"])
    assert not same.numbers()["differences"][0].any(), "the same part of the same picture"


def test_without_parts_a_channel_says_where_they_are() -> None:
    net, two = tiny("sequential"), pictures(2, side=20)
    drawing = correspondence(net, list(two), patch=3)
    (name, places), *_ = drawing.recipe.settled["places"].items()
    for pixels, place in zip(two, places, strict=True):
        strongest = explain(net, pixels, "activation", f"{name}@max").flat
        y, x = np.unravel_index(strongest.argmax(), strongest.shape)
        assert abs(y - place[0]) <= 4 and abs(x - place[1]) <= 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parts": ["nose (3,4)"]}, r"in each of the 2 pictures, as in 'nose \(30,40\) \(30,40\)', not 'nose \(3,4\)'"),
        ({"parts": ["nose 3,4 5,6"]}, "a part has a place"),
        ({"parts": ["nose (3,4) (20,6)"]}, "outside of its picture, which has 20 rows"),
    ],
)
def test_parts_that_are_none(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        correspondence(tiny("sequential"), list(pictures(2, side=20)), **options)


def test_what_cannot_be_compared() -> None:
    net = tiny("sequential")
    with pytest.raises(OptionError, match="give at least two"):
        correspondence(net, pictures(1, side=20)[0])
    with pytest.raises(NetworkError, match="not classes"):
        invariance(Net(net.body[0], size=20), pictures(1, side=20)[0])
