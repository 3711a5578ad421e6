"""The diagnosis: what is planted is found, near misses are not, and what cannot be known is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import Diagnosis, Net, diagnose
from convscope.atlas.statistics import lattice
from convscope.data.pictures import read_pictures
from convscope.diagnosis.evidence import Evidence
from convscope.diagnosis.grading import percent, severity, share_interval
from convscope.diagnosis.observing import Pass
from convscope.diagnosis.sites import sites_of
from convscope.errors import DataError, OptionError, PictureError
from convscope.evaluation.truth import Truth

CLASSES = ("blue", "green", "red")


def body(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3), nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))


def wrapped(module: nn.Module, **options: object) -> Net:
    options = {"mean": 0.5, "std": 0.25, "size": 16, "classes": list(CLASSES), "name": "small"} | options
    return Net(module, **{name: option for name, option in options.items() if option is not None})  # type: ignore[arg-type]


def noise(count: int, seed: int = 0) -> list[np.ndarray]:
    chance = np.random.default_rng(seed)
    return [chance.random((16, 16, 3), dtype=np.float32) for _ in range(count)]


def coloured(at: Path) -> Path:
    """Write forty pictures of each of three classes, which are colours, and return their folder."""
    chance = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        (at / name).mkdir()
        for index in range(40):
            pixels = chance.integers(0, 120, (16, 16, 3), np.uint8)
            pixels[..., 2 - number] += 100
            Image.fromarray(pixels).save(at / name / f"{index}.png")
    return at


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured(tmp_path_factory.mktemp("colours"))


def found(net: Net, data: object, kind: str, **options: object) -> Diagnosis:
    return diagnose(net, data, kinds=[kind], **options)  # type: ignore[arg-type]


def test_a_folder_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"none of 1 pictures can be read: .*nowhere"):
        diagnose(wrapped(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 3))), str(tmp_path / "nowhere"))


# What a unit passes --------------------------------------------------------------------------------------------------


class Functional(nn.Module):
    """Gates in all spellings, an identity around, and one that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("plain", "pooled", "clamped", "swish", "added", "twice"):
            setattr(self, name, nn.Conv2d(3, 3, 3, padding=1))
        self.norm, self.end = nn.BatchNorm2d(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.plain(x)), inplace=True)
        x = F.relu(F.max_pool2d(self.pooled(x), 2))
        x = self.clamped(x).clamp(0, 6)
        z = self.swish(x)
        x = z * torch.sigmoid(z)
        z = self.added(x)
        z += x
        x = F.relu(z)
        z = self.twice(x)
        x = F.relu(z) + torch.tanh(z)
        return self.end(x.mean((2, 3)))


def test_each_unit_is_read_before_the_gate_that_it_goes_through() -> None:
    sites = {site.name: site for site in sites_of(wrapped(Functional()))}
    gates = {name: (site.gate.name, site.gate.off, site.gate.full) for name, site in sites.items()}
    inf = float("inf")
    assert gates == {
        "plain": ("relu", 0, inf),
        "pooled": ("relu", 0, inf),
        "clamped": ("clamp", 0, 6),
        "swish": ("silu", -8, inf),
        "added": ("", -inf, inf),
        "twice": ("", -inf, inf),
        "end": ("", -inf, inf),
    }
    assert sites["plain"].read.name == "norm"
    assert [name for name, site in sites.items() if site.is_output] == ["end"]


def test_one_pass_gives_what_loops_over_pictures_give() -> None:
    net, pictures = wrapped(body()), noise(11)
    seen = Pass(net, sites_of(net), Truth(), batch=4).run(read_pictures(pictures), "")
    maps: list[Tensor] = []
    with torch.inference_mode():
        for pixels in pictures:
            picture = torch.from_numpy(pixels.transpose(2, 0, 1))[None]
            maps.append(net.body[0]((picture - 0.5) / 0.25)[0].flatten(1))  # type: ignore[index]
    stacked = torch.stack(maps)
    answers = seen.answers["0"]
    assert answers.pictures == 11
    assert torch.allclose(answers.largest, stacked.amax((0, 2)), atol=1e-5)
    assert torch.allclose(answers.least_peak, stacked.amax(2).amin(0), atol=1e-5)
    assert torch.allclose(answers.highest_floor, stacked.amin(2).amax(0), atol=1e-5)
    assert torch.equal(answers.active, (stacked.amax(2) > 0).sum(0))
    said = torch.tensor([each.choices[0] for each in seen.predictions])
    with torch.inference_mode():
        every = torch.cat([net(torch.from_numpy(p.transpose(2, 0, 1))[None]) for p in pictures])
    assert torch.equal(said, every.argmax(1))


def test_intervals_of_shares() -> None:
    assert share_interval(0, 5000)[1] == pytest.approx(3 / 5000, rel=2e-3)  # the rule of three
    assert share_interval(0, 0) == (0, 1)
    low, high = share_interval(30, 100)
    assert (low, high) == (pytest.approx(0.2189, abs=1e-3), pytest.approx(0.3958, abs=1e-3))
    assert share_interval(7, 7)[0] == 1 - share_interval(0, 7)[1]
    assert [percent(share) for share in (0, 0.0006, 0.12, 0.9961, 1)] == ["0%", "0.06%", "12%", "99.6%", "100%"]
    assert [severity(value, 1, 3) for value in (1, 2, 3, 9)] == pytest.approx([0.2, 0.6, 1, 1])


# Dead ----------------------------------------------------------------------------------------------------------------


def silenced(at: int, *units: int, by: float = -100.0) -> nn.Sequential:
    module = body()
    with torch.no_grad():
        module[at].bias[list(units)] = by  # type: ignore[index]
    return module


def test_dead_units_are_found_with_what_the_pictures_leave_room_for() -> None:
    said = found(wrapped(silenced(3, 2, 7)), noise(100), "dead")
    [one] = said.findings
    assert (one.layer, one.units, one.n) == ("3", (2, 7), 100)
    assert one.interval == (0, pytest.approx(1 - 0.05 ** (1 / 100)))
    assert "none of 100 pictures" in one.sentence
    assert "up to 3%" in one.sentence
    assert one.helps
    assert one.disproof
    assert one.evidence is not None
    assert one.evidence().tiles


def rare(share: float, pictures: list[np.ndarray]) -> nn.Sequential:
    """The small network with unit 4 of its first convolution answering this share of some pictures."""
    module = body()
    with torch.inference_mode():
        stack = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) - 0.5) / 0.25
        peaks = module[0](stack)[:, 4].amax((1, 2))
    with torch.no_grad():
        module[0].bias[4] -= peaks.quantile(1 - share)  # type: ignore[index]
    return module


def test_a_unit_that_seldom_answers_is_not_dead() -> None:
    pictures = noise(240)
    said = found(wrapped(rare(0.02, pictures)), pictures, "dead")
    assert not said.findings
    assert "each of 20 units in 2 layers answers at least one of 240 pictures" in said.healthy[0].sentence
    module = rare(0.002, pictures)
    with torch.inference_mode():
        stack = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) - 0.5) / 0.25
        silent = [each for each, peak in zip(pictures, module[0](stack)[:, 4].amax((1, 2)), strict=True) if peak <= 0]
    assert len(silent) >= 239
    said = found(wrapped(module), silent[:120], "dead")
    assert not said.findings
    assert "19 of 20 units in 2 layers answer at least one" in said.healthy[0].sentence
    assert "1 unit answers none of 120 pictures" in said.unseen[0].reason
    assert "up to 2.5% of all" in said.unseen[0].reason


def test_filters_of_zeros_are_dead_whatever_their_bias_and_however_few_pictures() -> None:
    module = body()
    with torch.no_grad():
        module[0].weight[3], module[0].bias[3] = 0, 0.7  # type: ignore[index]
    said = found(wrapped(module), noise(5), "dead")
    [one] = said.findings
    assert (one.units, one.interval) == ((3,), (0, 0))
    assert "no weight but 0" in one.sentence
    assert "5 pictures are too few" in said.unseen[0].reason


def test_few_pictures_make_no_unit_dead() -> None:
    said = found(wrapped(silenced(3, 2)), noise(15), "dead")
    assert not said.findings
    assert not said.healthy
    assert "1 unit answers none of 15 pictures" in said.unseen[0].reason


# The whole -----------------------------------------------------------------------------------------------------------


def test_a_diagnosis_as_json() -> None:
    said = json.loads(found(wrapped(silenced(3, 2)), noise(100), "dead").json())
    assert (said["network"], said["data"], said["pictures"]) == ("small", "", 100)
    [one] = said["findings"]
    assert {key: one[key] for key in ("kind", "layer", "units", "n")} == {
        "kind": "dead",
        "layer": "3",
        "units": [2],
        "n": 100,
    }
    assert 0.2 <= one["severity"] <= 1


def test_wrong_kinds_and_no_pictures_are_refused() -> None:
    with pytest.raises(OptionError, match="no kind 'daed' of findings; nearest: 'dead'"):
        found(wrapped(body()), noise(3), "daed")
    with pytest.raises(DataError, match="no pictures to look at"):
        found(wrapped(body()), [], "dead")


class Broken(nn.Module):
    """A network whose answers to bright pictures are no numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean((1, 2, 3), keepdim=True) > 1
        return self.body(torch.where(bright, torch.nan, x))


def test_answers_that_are_no_numbers_are_said_and_not_counted() -> None:
    white = np.ones((16, 16, 3), np.float32)
    said = found(wrapped(Broken()), [*noise(20), white, white], "dead")
    assert said.healthy[0].n == 20
    assert "units of body.0 gave NaN or infinity for 2 pictures" in " ".join(said.recipe.remarks)
    assert [reason for _, reason in said.failures] == ["the output of small holds NaN or infinity"] * 2


def test_pictures_that_are_in_both_folders_are_said(folder: Path) -> None:
    said = diagnose(wrapped(body()), folder, [str(folder / "red"), *noise(3)], kinds=["outlier"])
    assert "40 of 120 pictures of the data folder are in the training folder, too, such as" in said.recipe.remarks[0]


def test_a_program_hides_its_layers() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.rand(3, 3, 16, 16))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.kernel).flatten(1)

    said = diagnose(wrapped(Hidden()), noise(3), kinds=["dead", "duplicate"])
    assert [each.reason for each in said.unseen] == [
        "no layer of the network has weights that can be read; a program (TorchScript) hides them"
    ] * 2


def test_a_sample_is_drawn_evenly_over_classes(folder: Path) -> None:
    evidence = Evidence(wrapped(body()), read_pictures(str(folder)))
    numbers, pixels = evidence.sample(9)
    labels = [evidence.data.pictures[number].label for number in numbers]
    assert sorted(map(str, labels)) == sorted(CLASSES * 3)
    assert pixels.shape == (9, 3, 16, 16)
    again = Evidence(wrapped(body()), read_pictures(str(folder))).sample(9)
    assert again[0] == numbers
    passed = evidence.passed(evidence.sites[:1], 9)["0"]
    assert passed.shape == (9 * len(range(256)[lattice(256)]), 8)
    assert (passed >= 0).all()


# Saturated, constant -------------------------------------------------------------------------------------------------


def test_saturated_units_are_found_and_those_at_an_end_in_most_answers_are_not() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 6, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1))
    module = nn.Sequential(*module, nn.Flatten(), nn.Linear(6, 3))
    with torch.no_grad():
        module[0].bias[1] = 30.0  # type: ignore[index]
        module[0].weight[2], module[0].bias[2] = 0, 0  # type: ignore[index]
        module[0].weight[2, 0, 1, 1], module[0].bias[2] = 100.0, 6 + 0.7 * 200  # type: ignore[index]
        module[2].bias[4] = -40.0  # type: ignore[index]
    pictures = noise(40)
    share = np.mean([(each[..., 0] - 0.5) / 0.25 * 100 + 6 + 140 >= 6 for each in pictures])
    assert 0.8 < share < 0.95, "the near miss is one"
    said = {each.layer: each for each in found(wrapped(module), pictures, "saturated").findings}
    assert {name: each.units for name, each in said.items()} == {"0": (1,), "2": (4,)}
    assert "at an end of the sigmoid" in said["2"].sentence
    healthy = found(wrapped(body()), noise(3), "saturated").healthy[0]
    assert "no activation function of the network has an upper end" in healthy.sentence


def test_constant_units_are_found_and_calm_ones_are_not() -> None:
    module = body()
    with torch.no_grad():
        module[3].weight[5], module[3].bias[5] = 0, 0.4  # type: ignore[index]
        module[3].weight[6] *= 1e-5  # type: ignore[index]
        module[3].weight[7] *= 0.01  # type: ignore[index]
        module[3].bias[6:8] = 0.5  # type: ignore[index]
    [one] = found(wrapped(module), noise(100), "constant").findings
    assert (one.layer, one.units, one.n) == ("3", (6,), 100)  # 5 is dead: its weights are zero
    assert "100 or more" in found(wrapped(module), noise(4), "constant").unseen[0].reason


def test_what_a_dead_unit_alone_feeds_is_not_told_again() -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU())
    module = nn.Sequential(*module, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    with torch.no_grad():
        module[0].bias[2], module[2].bias[2], module[2].bias[4] = -100, -1, -100  # type: ignore[index]
    said = found(wrapped(module), noise(40), "dead")
    assert {each.layer: each.units for each in said.findings} == {"0": (2,), "2": (4,)}
