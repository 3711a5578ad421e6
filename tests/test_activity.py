"""Activity per class: means by a loop, a planted preference found, and none where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope import Net
from convscope.errors import DataError
from convscope.studies.activity import _Units
from networks import pictures, tiny


class Bands(nn.Module):
    """Two units: how bright a picture is, and how dark its red is; and a score of both."""

    def __init__(self) -> None:
        super().__init__()
        self.units, self.scores = nn.Conv2d(3, 2, 1), nn.Linear(2, 2)
        self.units.weight.data = torch.tensor([[1.0, 1, 1], [-1, 0, 0]]).view(2, 3, 1, 1)
        self.units.bias.data = torch.tensor([0.0, 1.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.units(x).mean((2, 3)))


def test_means_are_those_of_a_loop_and_a_planted_preference_is_found() -> None:
    net = Net(Bands(), size=8, channels=3, mean=0.0, std=1.0)
    items = [(torch.rand(3, 8, 8) * (0.2 if label == "dark" else 1.0), label) for label in ["dark", "light"] * 12]
    study = cs.activity(net, items, layers=["units"])
    (first, second) = sorted(study.table.records, key=lambda row: row["unit"])
    assert (first["prefers"], second["prefers"]) == ("light", "dark")
    assert first["selectivity"] > 0.5 and first["low"] < first["mean"] < first["high"] and first["n"] == 6
    with torch.no_grad():
        expected = torch.stack([net.body.units(pixels[None])[0].mean((1, 2)) for pixels, _ in items])  # type: ignore[operator]
    by_class = [expected[index::2].mean(0) for index in (0, 1)]
    torch.testing.assert_close(study.values["units"], torch.stack(by_class, 1))
    assert "relu" not in study.gist and "Median selectivity" in study.gist


def test_units_that_prefer_nothing_are_as_active_for_all_others() -> None:
    generator = torch.Generator().manual_seed(0)
    answers = torch.rand(400, 60, generator=generator)
    targets = torch.arange(400) % 10
    halves = torch.arange(200), torch.arange(200, 400)
    found = _Units("noise", answers, targets, halves, [str(n) for n in range(10)], 0)
    assert abs(found.selectivity) < 0.02, "the class was chosen on other pictures"
    naive = _Units("noise", answers, targets, (halves[1], halves[1]), [str(n) for n in range(10)], 0)
    assert naive.selectivity > 0.05, "chosen on the same ones, noise looks selective"


def test_one_class_or_none_is_refused() -> None:
    for source in (pictures(4), [(picture, "cat") for picture in pictures(4)]):
        with pytest.raises(DataError, match=r"pictures here there are [01]:"):
            cs.activity(tiny("concat"), source)
