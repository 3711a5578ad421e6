"""`reproduce simonyan`: each claim's rule holds and fails where it must, on networks that are made for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import convscope
from convscope import Net
from convscope.data.pictures import read_pictures
from convscope.reproductions.claims import FAILS, HOLDS, OPEN
from convscope.reproductions.papers import PAPERS
from convscope.reproductions.registration import Unfit, experiments
from convscope.reproductions.simonyan import class_models, deconvnets, localisation, network, saliency
from convscope.reproductions.subject import Subject
from convscope.studies.labelled import Labelled


def body(classes: int = 3, *, rectifier: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 5, 2, padding=1), rectifier(), nn.MaxPool2d(3, 2), nn.Conv2d(6, 6, 3, groups=2, dilation=2),
            rectifier(), nn.Flatten(), nn.Linear(6 * 2 * 2, classes),
        )  # fmt: skip


def tiny(**options: Any) -> Net:
    return Net(body(**options).eval(), mean=0.5, std=0.25, size=28, name="tiny", classes=["red", "green", "blue"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Squares of one colour on grey noise, a folder for each colour, and a table of their boxes."""
    random, rows = np.random.default_rng(0), ["path,left,top,right,bottom"]
    for number, name in enumerate(("red", "green", "blue")):
        for at in range(8):
            pixels = random.integers(100, 140, (28, 28, 3)).astype(np.uint8)
            left, top = (int(each) for each in random.integers(1, 12, 2))
            pixels[top : top + 14, left : left + 14] = 40
            pixels[top : top + 14, left : left + 14, number] = 240
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{at}.png")
            rows.append(f"{name}/{at}.png,{left},{top},{left + 14},{top + 14}")
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    return tmp_path / "data"


def subject(net: Net, folder: Path, **options: Any) -> Subject:
    data = Labelled.listed(net, str(folder), {}).read()
    return Subject(net, data, read_pictures(str(folder)), **options)


class Colours(nn.Module):
    """Scores are how much of each colour there is beyond the others, near what is brightest: it finds the squares."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(1.5 * torch.eye(3) - 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = F.conv2d(x, self.weight[:, :, None, None])
        return 10 * (mixed - 0.2).relu().square().mean((2, 3))


def test_an_experiment_for_every_part_of_the_paper() -> None:
    names = [each.name for each in experiments(PAPERS["simonyan"])]
    assert names == ["network", "class_models", "saliency", "localisation", "deconvnets"]


# Section 4 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3}, {"kernel_size": 5, "stride": 2, "padding": 1}, {"kernel_size": (3, 2), "stride": (2, 3)},
        {"kernel_size": 3, "dilation": 2, "padding": 3}, {"kernel_size": 3, "groups": 2, "padding": (0, 2)},
        {"kernel_size": 1, "stride": 3, "padding": 1},
    ],
)  # fmt: skip
def test_flipped_filters_are_the_adjoint_of_a_convolution(options: dict[str, Any]) -> None:
    """<C a, b> = <a, C' b>, without autograd."""
    torch.manual_seed(0)
    module = nn.Conv2d(4, 6, bias=False, **options).double()
    a = torch.randn(1, 4, 13, 11, dtype=torch.float64)
    convolution = deconvnets._Call(module, a.clone()).convolution
    assert convolution is not None
    with torch.inference_mode():
        out = module(a)
        b = torch.randn_like(out)
        back = deconvnets.filtered(convolution, a, b)
    assert back.shape == a.shape
    assert float((out * b).sum()) == pytest.approx(float((a * back).sum()), rel=1e-10)


class PadsItself(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, (0, 2, 1, 1)))


def test_a_convolution_that_pads_by_itself_is_read_as_torch_is_called(folder: Path) -> None:
    made = body()
    made[3] = PadsItself(6, 6, (3, 3), groups=2)
    made[6] = nn.LazyLinear(3)
    made(torch.rand(1, 3, 28, 28))
    found = deconvnets.deconvnets(subject(Net(made.eval(), mean=0.5, std=0.25, size=28), folder)).claims[0]
    assert found.verdict == HOLDS and "at 2 convolutions" in found.ours


def test_switches_add_up_where_windows_share_a_maximum() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    signal = torch.tensor([[[[1.0, 2], [3, 4]]]])
    assert deconvnets.switched(nn.MaxPool2d(3, 2), x, signal)[0, 0].tolist()[2][2] == 10


@pytest.mark.parametrize("rectifier", [nn.ReLU, nn.ReLU6])
def test_the_identities_hold_and_rectifiers_differ(folder: Path, rectifier: type[nn.Module]) -> None:
    found = deconvnets.deconvnets(subject(tiny(rectifier=rectifier), folder))
    assert [(claim.name, claim.verdict) for claim in found.claims] == [
        ("convolution-identical", HOLDS), ("pooling-identical", HOLDS), ("rectifier-differs", HOLDS),
        ("only-rectifiers", HOLDS),
    ]  # fmt: skip


def test_where_there_is_nothing_to_compare_it_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linear = Net(nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 3)), mean=0.5, std=0.25, size=28)
    found = {claim.name: claim for claim in deconvnets.deconvnets(subject(linear, folder)).claims}
    assert found["convolution-identical"].verdict == found["rectifier-differs"].verdict == OPEN
    assert "no convolution" in found["convolution-identical"].reason
    assert found["only-rectifiers"].verdict == FAILS  # without rectifiers the deconvnet is the gradient
    monkeypatch.setattr(deconvnets, "filtered", lambda module, x, signal: torch.zeros_like(x))
    wrong = deconvnets.deconvnets(subject(tiny(), folder)).claims[0]
    assert wrong.verdict == FAILS and "1.0e+00" in wrong.ours


def test_a_rectifier_between_positive_numbers_does_not_differ(folder: Path) -> None:
    made = body()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.abs_()
    net = Net(made.eval(), mean=0.0, std=1.0, size=28, name="positive")
    found = {claim.name: claim for claim in deconvnets.deconvnets(subject(net, folder)).claims}
    assert found["rectifier-differs"].verdict == FAILS


# Fig. 1 -------------------------------------------------------------------------------------------------------------


def test_class_models_beat_pictures_and_the_posterior_lowers_the_others(folder: Path) -> None:
    own = subject(tiny(), folder, quick=True)
    found = class_models.class_models(own)
    claims = {claim.name: claim for claim in found.claims}
    assert claims["closed-form"].verdict == HOLDS
    assert claims["posterior-less-prominent"].verdict == HOLDS
    share = claims["posterior-lowers-others"].numbers["share"]
    assert 0 < share.value < 1 and share.n == 3
    assert claims["class-model-scores-highest"].verdict == OPEN, "of three classes nothing can be told"
    assert "too few classes" in claims["class-model-scores-highest"].reason
    models = class_models._Models(own.net, [0, 1], *(torch.rand(2, 3, 28, 28) for _ in range(2)), torch.ones(2))
    scores = own.net(models.models).double()
    assert torch.equal(models.start[0, :, 3, 4], torch.tensor(own.net.mean))
    for at in (0, 1):
        others = torch.cat([scores[at, :at], scores[at, at + 1 :]])
        assert float(models.own("models")[at]) == pytest.approx(float(scores[at, at]))
        assert float(models.others("models")[at]) == pytest.approx(float(others.logsumexp(0)))
        assert float(models.shares("models")[at]) == pytest.approx(float(scores[at].softmax(0)[at]), rel=1e-5)


@pytest.mark.parametrize("head", ["sigmoid", "value"])
def test_a_posterior_takes_a_softmax(folder: Path, head: Any) -> None:
    net = Net(body(), mean=0.5, std=0.25, size=28, head=head)
    with pytest.raises(Unfit, match="the paper's posterior is a softmax"):
        class_models.class_models(subject(net, folder))


# Fig. 2 -------------------------------------------------------------------------------------------------------------


def test_saliency_is_judged_by_three_rules(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = subject(tiny(), folder, quick=True)
    found = {claim.name: claim for claim in saliency.saliency(own).claims}
    assert found["salient-pixels-change-the-score"].verdict == HOLDS
    assert set(found) == {"salient-pixels-change-the-score", "saliency-depends-on-weights", "ten-crops-are-steadier"}
    same = replace(own)
    monkeypatch.setattr(Subject, "untrained", property(lambda self: self.net))
    kept = saliency._measured(same, same.some(8, 8))
    assert kept["by random weights"].tolist() == pytest.approx([1.0] * len(kept["drop"])), "the map is like itself"
    assert (kept["drop"] >= kept["random drop"] - 1e-6).all()


# Section 3.2 --------------------------------------------------------------------------------------------------------


def test_a_network_that_sees_colours_localises_them(folder: Path) -> None:
    pytest.importorskip("cv2")
    net = Net(Colours().eval(), size=28, name="colours", classes=["red", "green", "blue"], head="softmax")
    found = localisation.localisation(subject(net, folder, boxes=folder.parent / "boxes.csv"))
    claims = {claim.name: claim for claim in found.claims}
    assert claims["localises-better-than-no-network"].verdict == HOLDS
    assert "Box error 0.0%" in claims["localises-better-than-no-network"].ours
    assert claims["localisation-error"].verdict == OPEN and "tells 3 classes" in claims["localisation-error"].reason
    (table,) = found.tables
    assert table.records[-1]["box"] == "whole picture" and str(table.records[-1]["error"]).startswith("100.0%")


def test_errors_of_the_top_classes_by_hand() -> None:
    values = {
        "top": torch.tensor([[0.9, 0.2], [0.4, 0.8], [0.9, 0.9]]),
        "right": torch.tensor([[1.0, 0], [0, 1], [0, 0]]),
        "given": torch.tensor([[0.9], [0.8], [0.1]]),
        "centre box": torch.tensor([[0.1], [0.6], [0.6]]),
    }
    found = localisation._Overlaps(values, 0)
    assert [found.top(most).value for most in (1, 2)] == pytest.approx([2 / 3, 1 / 3])  # type: ignore[union-attr]
    assert found.top(2, "centre box").value == pytest.approx(2 / 3)  # type: ignore[union-attr]
    assert found.error("given").value == pytest.approx(1 / 3)
    assert found.less("centre box").value == pytest.approx(0)
    unknown = localisation._Overlaps({**values, "right": values["right"] * torch.nan}, 0)
    assert unknown.top(5) is None


def test_without_boxes_nothing_is_localised(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="no boxes around objects are given: boxes=FILE"):
        localisation._boxed(subject(tiny(), folder))
    (tmp_path / "others.csv").write_text("path,left,top,right,bottom\nx.png,0,0,4,4")
    with pytest.raises(Unfit, match="has boxes of none of the 24 pictures"):
        localisation._boxed(subject(tiny(), folder, boxes=tmp_path / "others.csv"))
    with pytest.raises(convscope.ConvscopeError, match=r"there are no boxes|cannot read boxes"):
        convscope.reproduce("simonyan", tiny(), str(folder), boxes=tmp_path / "no.txt")


# Section 2 ----------------------------------------------------------------------------------------------------------


def test_errors_are_counted_and_a_network_that_guesses_does_not_classify(folder: Path) -> None:
    seeing = Net(Colours().eval(), size=28, name="colours", classes=["red", "green", "blue"], head="softmax")
    classifies, error = network.network(subject(seeing, folder)).claims
    assert classifies.verdict == HOLDS and classifies.ours.startswith("0.0%") and error.verdict == OPEN
    blind = Net(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)), size=28,
                classes=["red", "green", "blue"], head="softmax")  # fmt: skip
    with torch.no_grad():
        blind.body[2].weight.zero_()  # type: ignore[operator,union-attr]
        blind.body[2].bias.copy_(torch.tensor([0.1, 0.2, 0.3]))  # type: ignore[operator,union-attr]
    assert network.network(subject(blind, folder)).claims[0].verdict == FAILS
    with pytest.raises(Unfit, match="no labels that are classes of the network"):
        network.network(subject(Net(body(5), size=28), folder))
