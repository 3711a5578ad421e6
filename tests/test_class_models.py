"""class_model: the closed form of a linear score, real classes, lambda, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from convscope import Net, class_model, load, predict
from convscope.errors import ObjectiveError, OptionError, SynthesisError


def linear() -> tuple[Net, torch.Tensor]:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 9 * 7, 4))
    net = Net(body, size=(9, 7), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), classes=("a", "b", "c", "d"))
    weight = body[1].weight[2].detach().view(3, 9, 7) / torch.tensor(net.std)[:, None, None]
    return net, weight


@pytest.mark.parametrize("l2", [0.3, 2.0])
@pytest.mark.parametrize("how", [{"optimizer": "ascent"}, {"optimizer": "lbfgs", "steps": 20}], ids=["ascent", "lbfgs"])
def test_the_model_of_a_linear_score_is_its_weights_over_two_lambda(l2: float, how: Any) -> None:
    net, weight = linear()
    given = {"steps": 80, "rate": 0.3 / l2, **how} if how["optimizer"] == "ascent" else how
    made = class_model(net, of="c", l2=l2, preset="paper", **given).values["models"][0]
    mean = torch.tensor(net.mean)[:, None, None]
    torch.testing.assert_close(made - mean, weight / (2 * l2), atol=1e-6, rtol=1e-6)


def test_without_lambda_it_grows_for_ever() -> None:
    net, _ = linear()
    norms = [
        float((class_model(net, of="c", l2=0.0, preset="paper", optimizer="ascent", rate=1.0, steps=n).values["models"]
               - torch.tensor(net.mean)[:, None, None]).norm())
        for n in (20, 40, 80)
    ]  # fmt: skip
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-4)
    assert norms[2] == pytest.approx(4 * norms[0], rel=1e-4)


@pytest.mark.parametrize("preset", ["clear", "paper"])
def test_real_classes_become_the_networks_first_choice(preset: Any) -> None:
    net = load("zfnet64").sized(48)
    names = ("espresso", "goldfish", "school bus")
    made = class_model(net, of="; ".join(names), preset=preset, steps=64)
    shares = predict(net, made.values["models"])
    for i, name in enumerate(names):
        index = net.classes.index(name)
        assert int(shares[i].argmax()) == index
        assert float(shares[i, index]) > 0.9
        assert f"lambda {made.values['lambdas'][i]:.3g}" in made.sheet().tiles[i].caption
    assert float((made.values["models"] - 0.5).abs().max()) < 2


def test_a_larger_lambda_gives_a_fainter_model() -> None:
    net = load("zfnet64").sized(32)
    away = [
        float((class_model(net, of="espresso", l2=l2, steps=40).values["models"] - 0.45).square().mean())
        for l2 in (0.1, 1.0)
    ]
    assert away[1] < 0.5 * away[0]


def test_bad_input_is_refused_with_what_to_do() -> None:
    net, _ = linear()
    with pytest.raises(ObjectiveError, match=r"is not a class.*maximize"):
        class_model(net, of="1:2@mean")
    with pytest.raises(ObjectiveError, match="no class"):
        class_model(net, of="zebra")
    with pytest.raises(OptionError, match="'clear', 'paper'"):
        class_model(net, of="c", preset="nice")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="at least 0"):
        class_model(net, of="c", l2=-1.0)


def test_a_class_that_no_gradient_reaches_is_refused() -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    nn.init.zeros_(body[1].weight)
    with pytest.raises(SynthesisError, match="no gradient reached the picture"):
        class_model(Net(body, size=8, mean=0.5), of="1", l2=0.1, steps=500)
