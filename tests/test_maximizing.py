"""maximize and filters_by_ascent: real units of real networks, many at once, presets, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from convscope import Net, as_objective, filters_by_ascent, load, maximize, tap
from convscope.data.images import InputPicture
from convscope.errors import ConvscopeError, LayerError, ObjectiveError, OptionError, SynthesisError
from convscope.synthesis.presets import PRESETS
from networks import Functional, Sequential


@pytest.fixture(scope="module")
def small() -> Net:
    torch.manual_seed(0)
    return Net(Functional(), size=20, name="small")


@pytest.fixture(scope="module")
def zfnet() -> Net:
    return load("zfnet64").sized(48)


def activity(net: Net, pixels: Tensor, layer: str, channel: int) -> Tensor:
    with torch.inference_mode():
        return tap(net, pixels, [layer])[layer][:, channel].flatten(1).mean(1)


def photographs(net: Net) -> Tensor:
    """A hundred pieces of real pictures."""
    from skimage import data

    pieces = []
    for name in ("chelsea", "astronaut", "coffee", "rocket"):
        picture = getattr(data, name)()
        pieces += [net.read(picture[y : y + 150, x : x + 150]) for y in range(0, 150, 30) for x in range(0, 200, 40)]
    return torch.cat(pieces)


@pytest.mark.parametrize("unit", ["relu2:5", "relu4:20", "relu6:7"])
def test_a_made_picture_excites_more_than_any_photograph(zfnet: Net, unit: str) -> None:
    layer, channel = unit.split(":")
    made = maximize(zfnet, of=unit, steps=96)
    best = float(activity(zfnet, photographs(zfnet), layer, int(channel)).max())
    value = float(activity(zfnet, made.values["pictures"], layer, int(channel)))
    assert value > 1.3 * best
    assert value == pytest.approx(float(made.values["scores"]), rel=1e-4)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_excites_its_unit_more_than_where_it_began(zfnet: Net, preset: str) -> None:
    made = maximize(zfnet, of="espresso", preset=preset, steps=40)
    begun = maximize(zfnet, of="espresso", preset=preset, steps=1)
    assert float(made.values["scores"]) > float(begun.values["scores"]) + 1
    assert made.recipe.options["preset"] == preset
    bounded = float(made.values["pictures"].min()) >= 0 and float(made.values["pictures"].max()) <= 1
    assert bounded or not PRESETS[preset].bounded


def test_units_of_several_layers_in_one_call_are_what_each_is_alone(small: Net) -> None:
    units = ["a:1", "b:2", "b:5", "c:0"]
    together = maximize(small, of="; ".join(units), steps=20, batch=3).values
    for i, unit in enumerate(units):
        alone = maximize(small, of=unit, steps=20, batch=1).values
        torch.testing.assert_close(together["pictures"][i], alone["pictures"][0], atol=2e-3, rtol=0)
        torch.testing.assert_close(together["scores"][i], alone["scores"][0], atol=2e-3, rtol=1e-2)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(small: Net) -> None:
    first, again, other = (
        maximize(small, of="b:0-3", steps=12, seed=seed, batch=2).values["pictures"] for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_ranges_stand_for_their_channels(small: Net) -> None:
    made = maximize(small, of="b:2-4; a:0@centre", steps=2)
    assert made.recipe.objective == "b:2@mean; b:3@mean; b:4@mean; a:0@centre"
    assert len(made.values["pictures"]) == 4


def test_the_centre_moves_only_its_field() -> None:
    net = Net(nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)), size=21)
    made = maximize(net, of="2:1@centre", parametrization="pixels", transform="none", init="zero", steps=10).values[
        "pictures"
    ][0]
    begun = maximize(net, of="2:1@centre", parametrization="pixels", transform="none", init="zero", steps=1, rate=1e-9)
    changed = (made - begun.values["pictures"][0]).abs().amax(0) > 1e-3
    rows, columns = torch.nonzero(changed, as_tuple=True)
    assert int(rows.min()) >= 10 - 3 and int(rows.max()) <= 10 + 3
    assert int(columns.min()) >= 10 - 3 and int(columns.max()) <= 10 + 3


def test_diversity_makes_the_pictures_of_a_unit_differ_more(zfnet: Net) -> None:
    def likeness(weight: float) -> float:
        made = maximize(zfnet, of="relu3:12", variants=3, diversity=weight, steps=60).values["pictures"]
        with torch.inference_mode():
            flat = tap(zfnet, made, ["relu3"])["relu3"].flatten(2)
        grams = nn.functional.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=1)
        return float((grams @ grams.T).fill_diagonal_(0).sum())

    assert likeness(1.0) < likeness(0.0) - 0.1


def test_the_way_between_two_units_begins_and_ends_at_them(small: Net) -> None:
    way = maximize(small, of="b:1; b:4", between=3, steps=15, batch=1)
    for position, unit in ((0, "b:1"), (2, "b:4")):
        alone = maximize(small, of=unit, steps=15, batch=1).values["pictures"][0]
        torch.testing.assert_close(way.values["pictures"][position], alone, atol=2e-3, rtol=0)
    assert way.recipe.objective == "b:1@mean; 0.5*b:1@mean + 0.5*b:4@mean; b:4@mean"


def test_a_question_with_penalties_is_smoother(zfnet: Net) -> None:
    rough = maximize(zfnet, of="relu2:5", steps=40).values["pictures"]
    smooth = maximize(zfnet, of="relu2:5 - 0.02*tv()", steps=40).values["pictures"]
    assert float(smooth.diff(dim=3).square().sum()) < 0.8 * float(rough.diff(dim=3).square().sum())


def test_it_can_start_from_a_picture(zfnet: Net, chelsea: Any, tmp_path: Any) -> None:
    path = tmp_path / "cat.png"
    Image.fromarray(chelsea).save(path)
    view: InputPicture = zfnet.prepare(path)
    made = maximize(zfnet, of="espresso", init=str(path), transform="none", steps=1, rate=1e-6).values["pictures"][0]
    torch.testing.assert_close(made, zfnet.pixels(view)[0].clamp(0.005, 0.995), atol=0.06, rtol=0)


def test_grey_networks_and_layers_without_places_work() -> None:
    digits = load("lenet5")
    made = maximize(digits, of="3; 8", steps=60)
    assert made.values["pictures"].shape == (2, 1, *digits.size)
    assert "p = " in made.sheet().tiles[0].caption


def test_networks_without_rectifiers_work() -> None:
    torch.manual_seed(0)
    net = Net(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3)), size=16)
    assert float(maximize(net, of="3:1", steps=30).values["scores"]) > float(
        maximize(net, of="3:1", steps=1).values["scores"]
    )


def dead() -> Net:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    with torch.no_grad():
        body[2].bias[:] = 0.1
        body[2].weight[1] = 0
        body[2].bias[1] = -1
    return Net(body, size=12, name="half dead")


def test_a_dead_unit_is_refused_with_advice_after_a_bounded_try() -> None:
    with pytest.raises(
        SynthesisError, match=r"3:1@mean of half dead: no gradient reached the picture.*before the rectifier"
    ):
        maximize(dead(), of="3:1", steps=10_000)


def test_a_dead_unit_among_others_is_named_and_the_others_are_made() -> None:
    made = maximize(dead(), of="3:0-2", steps=70)
    assert any("no gradient" in tile.caption for tile in made.sheet().tiles)
    assert any("3:1@mean of half dead: no gradient reached" in remark for remark in made.recipe.remarks)
    assert float(made.values["scores"][0]) > 0


def test_an_interruption_keeps_what_is_made(small: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    run = Net.passes

    def interrupted(self: Net, pixels: Tensor) -> Any:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise KeyboardInterrupt
        return run(self, pixels)

    small.layers  # noqa: B018  runs the network for its own purposes
    monkeypatch.setattr(Net, "passes", interrupted)
    made = maximize(small, of="b:0-3", steps=25, batch=1)
    assert len(made.values["pictures"]) == 2
    assert any("interrupted after" in remark for remark in made.recipe.remarks)
    assert "2 of 4 were not begun" in made.recipe.remarks


@pytest.mark.parametrize("options", [{"variants": 2, "batch": 1}, {}], ids=["weighing", "measuring the batch"])
def test_an_interruption_of_what_only_prepares_is_one(
    small: Net, monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    calls, run = 0, Net.passes

    def interrupted(self: Net, pixels: Tensor) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return run(self, pixels)

    small.layers  # noqa: B018  runs the network for its own purposes
    monkeypatch.setattr(Net, "passes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        maximize(small, of="b:0-7", steps=25, **options)
    assert calls == 3  # the one that was interrupted, and the score of what there was


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"of": "b:1", "preset": "lucent"}, OptionError, "not 'lucent'; nearest: 'lucid'"),
        ({"of": "b:1", "transform": "wild"}, OptionError, "cannot read the transform 'wild'"),
        ({"of": "b:1", "transform": "jitter=x"}, OptionError, "jitter=8"),
        ({"of": "b:99"}, ObjectiveError, "channels 0 to 7"),
        ({"of": "b:4-2"}, ObjectiveError, "b:2-4"),
        ({"of": "tv()"}, OptionError, "says nothing about the network"),
        ({"of": "b:1", "variants": 0}, OptionError, "at least 1"),
        ({"of": "b:1", "between": 3}, OptionError, "between two units"),
        ({"of": "b:1", "steps": 0}, OptionError, "at least 1"),
        ({"of": "b:1", "rate": 0.0}, OptionError, "above 0"),
        ({"of": "b:1", "optimizer": "lbfgs", "transform": "light"}, OptionError, "transform='none'"),
        ({"of": "b:1", "parametrization": "maco", "init": Image.new("RGB", (20, 20))}, ConvscopeError, "maco"),
        ({"of": "b:1", "init": "nothing.png"}, ConvscopeError, "nothing.png"),
        ({"of": "b:1", "preset": "yosinski1", "parametrization": "fourier"}, OptionError, "parametrization='pixels'"),
        ({"of": "b:1", "batch": 0}, OptionError, "at least 1"),
        ({"of": "b:1", "preview_every": 0}, OptionError, "at least 1"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(small: Net, options: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        maximize(small, **options)


def test_every_filter_of_a_layer(zfnet: Net) -> None:
    mosaic = filters_by_ascent(zfnet, layer="relu2", channels="0-3,7", steps=12)
    assert mosaic.values["pictures"].shape[0] == 5
    assert [tile.caption.split(" ")[0] for tile in mosaic.sheet().tiles] == ["0", "1", "2", "3", "7"]
    asked = [float(activity(zfnet.sized(mosaic.recipe.settled["size"]), p[None], "relu2", k)) for p, k in
             zip(mosaic.values["pictures"], (0, 1, 2, 3, 7), strict=True)]  # fmt: skip
    assert asked == pytest.approx(mosaic.values["scores"].tolist(), rel=1e-3)


def test_filters_of_what_has_none_are_refused(small: Net) -> None:
    with pytest.raises(ObjectiveError, match="channels 0 to 7"):
        filters_by_ascent(small, layer="b", channels="6-9")
    with pytest.raises(OptionError, match="0-31"):
        filters_by_ascent(small, layer="b", channels="some")
    net = Net(nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (1, -1)), nn.Linear(3 * 20 * 20, 2)), size=20)
    with pytest.raises(LayerError, match="without channels"):
        filters_by_ascent(net, layer="0")


def test_questions_that_judge_making_do_not_explain(small: Net, chelsea: Any) -> None:
    from convscope import explain

    with pytest.raises(ObjectiveError, match="being made"):
        explain(small, chelsea, "gradient", "1 - 0.1*tv()")
    assert str(as_objective(Net(Sequential(), size=20), "1 - 0.1*tv()")) == "1 - 0.1*tv()"
