"""Zeiler & Fergus' Fig. 7: every map against one full pass per position."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from convscope import Net, tap
from convscope.attribution.occlusion import squares_over
from convscope.errors import LayerError, NetworkError, ObjectiveError, OptionError
from convscope.views.occlusion_study import occlusion_study
from networks import CLASSES, pictures, tiny


@pytest.mark.parametrize("unit", [None, "features.7", "features.5:7"])
def test_equals_full_passes(squeezenet: Net, chelsea: Any, unit: str | None) -> None:
    net = squeezenet.sized(95)
    drawing = occlusion_study(net, chelsea, of="Egyptian cat", unit=unit, patch=30, stride=13)
    assert "recomputed only" in drawing.recipe.remarks[0]
    layer, channel = drawing.recipe.settled["unit"].rsplit(":", 1)
    assert unit is None or layer == unit.partition(":")[0]
    pixels = net.read(chelsea)
    squares = squares_over(pixels, 30, 13)
    maps = {name: value.flatten() for name, value in drawing.numbers().items()}
    assert drawing.numbers()["activity"].shape == squares.grid
    for number in range(squares.grid[0] * squares.grid[1]):
        covered = pixels.clone()
        covered[:, :, *squares.box(number)] = 0.5
        with torch.no_grad():
            read = tap(net, covered, [layer, ""])
        shares = read[""].softmax(1)[0]
        assert maps["activity"][number] == pytest.approx(float(read[layer][0, int(channel)].sum()), rel=1e-4, abs=1e-3)
        assert maps["probability"][number] == pytest.approx(float(shares[285]), rel=1e-3, abs=1e-6)
        top = shares.topk(2).values
        assert maps["first"][number] == int(shares.argmax()) or float(top[0] - top[1]) < 1e-4
    assert np.ptp(maps["activity"]) > 0 and np.ptp(maps["probability"]) > 0


def test_the_channel_is_the_strongest_of_the_last_layer(squeezenet: Net, chelsea: Any) -> None:
    drawing = occlusion_study(squeezenet, chelsea, patch=100, stride=124)
    layer, channel = drawing.recipe.settled["unit"].rsplit(":", 1)
    activity = tap(squeezenet, squeezenet.read(chelsea), [layer])[layer]
    assert int(activity.sum((2, 3)).argmax()) == int(channel)


def test_covering_what_excites_the_map_lowers_it_most(squeezenet: Net, data: Callable[[str], Path]) -> None:
    """The paper's reading of the figure: covering the dog's face takes the class and its map away."""
    drawing = occlusion_study(squeezenet, data("pictures/cat_dog.png"), of="bull mastiff", patch=56, stride=28)
    for name in ("probability", "activity"):
        values = drawing.numbers()[name]
        row, column = np.unravel_index(values.argmin(), values.shape)
        assert row <= 2 and 1 <= column <= 4, (name, row, column, values.shape)


def test_a_network_without_rectifiers_lacks_the_projection_only() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5))
    net = Net(body.double(), size=20, classes=CLASSES)
    drawing = occlusion_study(net, pictures(1)[0], unit="1", patch=5, stride=5)
    assert any("no projection" in tile.caption for tile in drawing.sheet().tiles)
    assert drawing.render().width > 300


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"unit": "5.1"}, LayerError, "without spatial positions"),
        ({"unit": "5.1:2"}, LayerError, "layer with spatial positions"),
        ({"of": "0:3"}, ObjectiveError, "of names one class here"),
        ({"patch": 21}, OptionError, "does not fit"),
        ({"stride": 0}, OptionError, "at least 1"),
        ({"baseline": "pink"}, OptionError, "baseline is"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        occlusion_study(tiny("sequential"), pictures(1)[0], **options)


def test_a_network_without_classes_is_refused() -> None:
    net = Net(nn.Sequential(nn.Conv2d(3, 4, 3)), size=12)
    with pytest.raises(NetworkError, match="not classes"):
        occlusion_study(net, pictures(1, side=12, dtype=torch.float32)[0])
