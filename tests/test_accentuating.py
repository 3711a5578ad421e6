"""Accentuation: what may change, how much, and that the shares are those of the score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convscope import Net, as_objective, load, tap
from convscope.cli import run
from convscope.data.samples import digits
from convscope.drawing.files import read_recipe
from convscope.errors import LayerError, ObjectiveError, SynthesisError
from convscope.synthesis.accentuate import Perturbation, UntransformedContent, accentuate
from convscope.synthesis.likeness import Content
from networks import pictures, tiny

HARD = torch.cat([pictures(1, dtype=torch.float32)[0, :, :10].round(), pictures(1, dtype=torch.float32)[0, :, 10:]], 1)
"""A picture half of which is black and white to the last."""


def test_nothing_asked_gives_the_photograph_back() -> None:
    for kind in ("sequential", "residual"):
        for options in ({"transform": "light"}, {"transform": "none", "keep": "pixels"}):
            drawing = accentuate(tiny(kind, dtype=torch.float32), HARD, of="dog", strength=0, steps=12, **options)
            found = drawing.numbers()
            assert np.abs(found["accentuated"] - HARD.numpy()).max() < 1 / 255
            assert np.abs(found["contributions"]).max() < 1e-3


def test_a_change_begins_at_nothing_and_stays_in_its_window() -> None:
    window = torch.zeros(1, 1, 20, 20)
    window[..., 5:9, 3:] = 1
    change = Perturbation(HARD[None], window)
    assert torch.equal(change.pixels(), HARD[None])
    change.restore(change.free + 0.1 * torch.randn(change.free.shape))
    moved = (change.pixels() != HARD).any(1)[0]
    assert moved[5:9, 3:].any() and not moved[window[0, 0] == 0].any()


@pytest.mark.parametrize("transform", [None, "standard"])
@pytest.mark.parametrize("of", ["relu2:5@3,2", "conv2:3@0,0", "pool1:1@centre"])
def test_a_unit_at_a_place_changes_only_what_it_sees(of: str, transform: str | None) -> None:
    net = load("lenet5")
    found = accentuate(net, digits()[8], of=of, transform=transform, steps=10).numbers()
    layer, position = of.partition(":")[0], of.partition("@")[2]
    at = (7, 7) if position == "centre" else tuple(int(number) for number in position.split(","))
    top, left, bottom, right = net.layer(layer).field.box(at, (28, 28))
    beyond = np.ones((28, 28), dtype=bool)
    beyond[top:bottom, left:right] = False
    assert beyond.any() and not beyond.all()
    changed = (found["accentuated"] != found["picture"]).any(0)
    assert changed.any() and not changed[beyond].any()
    assert not found["contributions"][0][beyond].any() and not found["opacity"][0][beyond].any()


@pytest.mark.parametrize("of", ["3", "relu2:5", "conv2:3@max", "conv1:2@10,10", "p(5)", "relu4:7 - 0.5*8"])
def test_strength_raises_and_its_negative_lowers(of: str) -> None:
    net, digit = load("lenet5"), digits()[8]
    objective = as_objective(net, of)

    def score(strength: float) -> float:
        found = accentuate(net, digit, of=of, strength=strength, steps=30).numbers()["accentuated"]
        return float(objective(net, torch.from_numpy(found)[None]))

    before = float(objective(net, net.read(digit)))
    assert score(1) > before and score(3) > before
    assert score(-1) < before


def linear() -> Net:
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 4))
    with torch.no_grad():
        nn.init.normal_(body[1].weight, generator=torch.Generator().manual_seed(0))
    return Net(body, size=12, name="linear")


def test_shares_of_a_linear_network_are_weights_times_change() -> None:
    net, picture = linear(), pictures(1, side=12, dtype=torch.float32)[0]
    drawing = accentuate(net, picture, of="2", steps=20)
    found = drawing.numbers()
    weight = net.body[1].weight[2].detach().view(3, 12, 12)
    change = found["accentuated"] - found["picture"]
    np.testing.assert_allclose(found["contributions"][0], (weight.numpy() * change).sum(0), rtol=1e-4, atol=1e-6)
    assert drawing.recipe.settled["keep"] == "pixels"
    # u = N |g|_2^2 / |g|_1, and strength 1 pushes by 20 of them.
    unit = weight.numel() * float(weight.square().sum() / weight.abs().sum())
    assert drawing.recipe.settled["weight"] == pytest.approx(20 / unit)


def test_shares_add_up_to_what_the_score_has_risen_by() -> None:
    net, digit = load("lenet5"), digits()[4]
    drawing = accentuate(net, digit, of="9", steps=20)
    found = drawing.numbers()
    ends = net(torch.from_numpy(np.stack([found["picture"], found["accentuated"]])))[:, 9]
    assert found["contributions"].sum() == pytest.approx(float(ends[1] - ends[0]), rel=0.05)
    assert found["smoothed"].sum() == pytest.approx(found["contributions"].sum(), rel=0.1)


def test_what_is_kept_is_read_without_shaking() -> None:
    net, batch = tiny("sequential"), pictures(2)
    target = tap(net, batch[:1], ["1"])["1"]
    cost = UntransformedContent(net, Content("1", target)).read(batch)
    away = tap(net, batch[1:], ["1"])["1"] - target
    torch.testing.assert_close(cost, torch.stack([cost[0] * 0, away.square().sum() / target.square().sum()]))


def test_the_stronger_the_further_from_what_is_kept() -> None:
    net, digit = load("lenet5"), digits()[1]
    away = []
    for strength in (0.1, 1, 10):
        found = accentuate(net, digit, of="7", strength=strength, keep="pixels", steps=40).numbers()
        away.append(float(np.square(found["accentuated"] - found["picture"]).sum()))
    assert away[0] < away[1] < away[2]


def test_a_silent_unit_is_woken_and_cannot_be_silenced() -> None:
    net, picture = tiny("sequential", dtype=torch.float32), torch.full((3, 20, 20), 0.5)
    with torch.no_grad():
        net.body[3].bias[4] -= tap(net, picture[None], ["3"])["3"][0, 4].max() + 0.05
    assert not tap(net, picture[None], ["4"])["4"][0, 4].any()
    found = accentuate(net, picture, of="4:4", strength=3).numbers()["accentuated"]
    assert tap(net, torch.from_numpy(found)[None], ["4"])["4"][0, 4].any()
    with pytest.raises(SynthesisError, match="silent for this picture"):
        accentuate(net, picture, of="4:4", strength=-1)


def test_a_score_that_did_not_move_is_said() -> None:
    drawing = accentuate(load("lenet5"), digits()[3], strength=0, steps=1)
    assert "the score has not changed" in drawing.sheet().note


def test_mistakes_are_refused() -> None:
    net = tiny("sequential", dtype=torch.float32)
    with pytest.raises(ObjectiveError, match="regularizer for synthesis from noise"):
        accentuate(net, HARD, of="dog - 0.1*tv()")
    with pytest.raises(LayerError, match="nearest"):
        accentuate(net, HARD, of="dog", keep="layer9")


def test_the_command_takes_a_negative_strength_and_writes_a_recipe(tmp_path: Path) -> None:
    out = tmp_path / "accentuated.png"
    words = ["accentuate", str(digits()[3]), "--net", "lenet5", "--strength", "-3", "--steps", "5", "-o", str(out)]
    assert run(words) == 0
    recipe = read_recipe(out)
    assert recipe.objective == "3" and recipe.options["strength"] == -3 and recipe.settled["keep"] == "relu2"
    assert {"steps", "rate", "transform", "weight", "seed"} <= {*recipe.options, *recipe.settled}
    assert Image.open(out).width > 600


def test_the_sheet_says_what_happened() -> None:
    drawing = accentuate(load("lenet5"), digits()[3], steps=20)
    tiles = drawing.sheet().tiles
    assert drawing.sheet().title == "3: accentuated"
    assert len(tiles) == 5 and len({tile.image.size for tile in tiles}) == 1
    assert tiles[0].caption.startswith("photograph: probability ")
    assert tiles[1].caption.startswith("accentuated: probability ") and "score" in tiles[1].caption


@pytest.mark.slow
def test_a_dog_and_a_cat_in_one_picture(squeezenet: Net, data: Any) -> None:
    picture = data("pictures/cat_dog.png")
    cat = squeezenet.classes.index("tiger cat")
    before = float(squeezenet(squeezenet.read(picture)).softmax(1)[0, cat])
    found = accentuate(squeezenet, picture, of="tiger cat", steps=25).numbers()
    after = float(squeezenet(torch.from_numpy(found["accentuated"])[None]).softmax(1)[0, cat])
    assert before < 0.05 and after > 0.5
    assert np.sqrt(np.square(found["accentuated"] - found["picture"]).mean()) < 0.08
