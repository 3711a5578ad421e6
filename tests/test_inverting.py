"""Inversion: the priors by hand, what can be recovered exactly, and what deep layers keep of a photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convscope import Net, load, tap
from convscope.cli import run
from convscope.data.samples import digits
from convscope.drawing.files import read_recipe
from convscope.errors import LayerError, OptionError
from convscope.layers import bottlenecks
from convscope.synthesis import invert as inverting
from convscope.synthesis.ascent import AscentResult, ascend
from convscope.synthesis.invert import NaturalPrior, invert, relative_error
from convscope.synthesis.likeness import Content
from networks import pictures, tiny


def natural_by_hand(x: torch.Tensor, prior: NaturalPrior) -> float:
    """The paper's two sums, value by value."""
    norm = rough = 0.0
    channels, height, width = x.shape
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                norm += abs(2 * (float(x[c, i, j]) - prior.mean[c])) ** prior.alpha
                down = float(x[c, i + 1, j] - x[c, i, j]) if i + 1 < height else 0.0
                right = float(x[c, i, j + 1] - x[c, i, j]) if j + 1 < width else 0.0
                rough += (100 * (down**2 + right**2)) ** (prior.beta / 2)
    return (prior.norm * norm + prior.tv * rough) / x.numel()


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_the_prior_is_the_papers(beta: float) -> None:
    prior = NaturalPrior(0.3, 0.7, (0.5, 0.4, 0.3), beta=beta)
    batch = pictures(2, side=5)
    expected = [natural_by_hand(one, prior) for one in batch]
    np.testing.assert_allclose(prior.read(batch).numpy(), expected, rtol=1e-5)


def test_the_priors_gradients_are_the_laplacian_and_a_power() -> None:
    x = pictures(1, side=7).requires_grad_()
    (rough,) = torch.autograd.grad(NaturalPrior(1.0, 0.0, (0.5, 0.4, 0.3)).read(x).sum(), x)
    y = x.detach()
    inner = y[..., 1:-1, 1:-1]
    laplacian = y[..., 2:, 1:-1] + y[..., :-2, 1:-1] + y[..., 1:-1, 2:] + y[..., 1:-1, :-2] - 4 * inner
    torch.testing.assert_close(rough[..., 1:-1, 1:-1], -2 * 100 * laplacian / x.numel())
    (norm,) = torch.autograd.grad(NaturalPrior(0.0, 1.0, (0.5, 0.4, 0.3)).read(x).sum(), x)
    away = 2 * (y - torch.tensor([0.5, 0.4, 0.3], dtype=y.dtype)[:, None, None])
    torch.testing.assert_close(norm, 6 * 2 * away**5 / x.numel())
    assert torch.autograd.gradcheck(NaturalPrior(0.3, 0.7, (0.5, 0.4, 0.3), beta=1.5).read, (x,))


def injective() -> Net:
    """A first layer that loses nothing: three colours mixed, each place weighed against its neighbours."""
    convolution = nn.Conv2d(3, 6, 3, padding=1)
    with torch.no_grad():
        nn.init.normal_(convolution.weight, std=0.05, generator=torch.Generator().manual_seed(0))
        convolution.weight[:3, :, 1, 1] += torch.tensor([[1.0, 0.5, 0.2], [-0.3, 1.0, 0.1], [0.2, 0.2, 1.0]])
    body = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
    return Net(body, size=12, name="injective")


@pytest.mark.parametrize("name", ["fourier", "pixels"])
def test_an_injective_layer_gives_the_picture_back(name: Any) -> None:
    coarse = 0.1 + 0.8 * pictures(1, side=4, dtype=torch.float32)
    picture = nn.functional.interpolate(coarse, size=(12, 12), mode="bilinear")[0]
    drawing = invert(injective(), picture, layers=["0"], strength=0, parametrization=name, steps=300)
    found = drawing.numbers()
    assert found["errors"].item() < 1e-3
    assert np.abs(found["inversions"][0, 0] - picture.numpy()).max() < 3e-3
    assert found["inversions"].min() >= 0 and found["inversions"].max() <= 1


def test_the_error_is_zero_at_the_photograph_and_about_one_at_grey(squeezenet: Net, chelsea: Any) -> None:
    photograph = squeezenet.read(chelsea)
    grey = torch.full_like(photograph, 0.5)
    for layer in bottlenecks(squeezenet):
        target = Content(layer.name, tap(squeezenet, photograph, [layer.name])[layer.name])
        assert relative_error(squeezenet, target, photograph).item() == 0
        away = tap(squeezenet, grey, [layer.name])[layer.name] - target.target
        assert relative_error(squeezenet, target, grey).item() == pytest.approx(
            float(away.norm() / target.target.norm()), 1e-4
        )
        assert 0.3 < relative_error(squeezenet, target, grey).item() < 1.3, layer.name


class Wrapped(nn.Module):
    """A network inside a module that is no sequence: its layers have no block to be found by."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inside(x)


def test_layers_are_spread_over_the_network_and_end_with_the_output(squeezenet: Net) -> None:
    names = [layer.name for layer in bottlenecks(squeezenet)]
    assert names == [*(f"features.{i}" for i in (1, 3, 5, 7, 8, 10, 12)), ""]
    assert [layer.name for layer in bottlenecks(load("lenet5"))] == [
        *("relu1", "pool1", "relu2", "pool2", "relu3", "relu4", "fc5"),
    ]
    wrapped = Net(Wrapped(load("lenet5").body), size=28, channels=1)
    assert [layer.name for layer in bottlenecks(wrapped, 3)] == ["inside.relu1", "inside.pool2", "inside.fc5"]
    resnet = bottlenecks(load("torchvision:resnet18", weights=None), 4)
    assert [layer.name for layer in resnet] == ["relu", "layer2.0", "layer3.1", "fc"]


def test_priors_grow_with_depth() -> None:
    drawing = invert(load("lenet5"), digits()[3], steps=1)
    strengths = drawing.recipe.settled["total_variation"]
    assert strengths == sorted(strengths) and strengths[-1] > strengths[0] and len(strengths) == 7


def test_repeats_are_what_other_seeds_make() -> None:
    net, digit = load("lenet5"), digits()[8]
    options: dict[str, Any] = {"layers": ["pool2", "fc5"], "optimizer": "adam", "steps": 5}
    both = invert(net, digit, repeats=2, seed=3, **options)
    assert both.sheet().columns == ("the photograph", "pool2", "fc5") and both.sheet().labels == ("seed 3", "seed 4")
    for i, seed in enumerate((3, 4)):
        alone = invert(net, digit, seed=seed, **options).numbers()["inversions"][:, 0]
        np.testing.assert_allclose(both.numbers()["inversions"][:, i], alone, atol=1e-5)
    assert np.abs(np.diff(both.numbers()["inversions"], axis=1)).max() > 1e-3


@pytest.mark.parametrize(("optimizer", "most"), [("lbfgs", 0.2), ("adam", 0.35)])
def test_a_digit_comes_back_from_every_layer(optimizer: Any, most: float) -> None:
    drawing = invert(load("lenet5"), digits()[3], optimizer=optimizer, steps=100)
    assert drawing.numbers()["errors"][:, 0].max() < most
    tiles = drawing.sheet().tiles
    assert len({tile.image.size for tile in tiles}) == 1 and len(tiles) == 8
    assert tiles[1].caption.startswith("relu1\nerror ") and tiles[1].caption.endswith("%")


@pytest.mark.slow
def test_early_layers_keep_a_photograph_and_the_last_does_not(squeezenet: Net, chelsea: Any) -> None:
    drawing = invert(squeezenet, chelsea, layers=["features.1", "features.5", "features.12"], steps=60)
    found = drawing.numbers()
    away = np.sqrt(np.square(found["inversions"][:, 0] - found["picture"]).mean((1, 2, 3)))
    assert found["errors"].max() < 0.5 and found["errors"][0, 0] < 0.1
    assert away[0] < 0.04 < away[1] < away[2] - 0.03


def test_an_interruption_keeps_the_layers_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[Any]()

    def interrupted(*arguments: Any, **options: Any) -> AscentResult:
        made = ascend(*arguments, **options)
        calls.append(made)
        return AscentResult(made.pixels, made.scores, made.history, 2, made.reached, interrupted=len(calls) == 2)

    monkeypatch.setattr(inverting, "ascend", interrupted)
    drawing = invert(load("lenet5"), digits()[3], layers=["relu1", "pool2", "relu4", "fc5"], steps=3)
    assert drawing.numbers()["inversions"].shape == (2, 1, 1, 28, 28) and len(drawing.sheet().tiles) == 3
    assert "not inverted: relu4, fc5" in drawing.sheet().note


def test_mistakes_are_refused_before_anything_is_made() -> None:
    net = tiny("sequential", dtype=torch.float32)
    picture = pictures(1, dtype=torch.float32)[0]
    for wrong in (
        {"repeats": 0},
        {"strength": -1},
        {"beta": 0},
        {"parametrization": "maco"},
        {"optimizer": "sgd"},
        {"rate": 0},
    ):
        with pytest.raises(OptionError):
            invert(net, picture, **wrong)
    with pytest.raises(LayerError, match="nearest"):
        invert(net, picture, layers=["features"])
    with torch.no_grad():
        net.body[0].bias.fill_(-100)
    with pytest.raises(LayerError, match="1 of sequential is zero for this picture"):
        invert(net, picture, layers=["0", "1"])


def test_the_command_writes_a_recipe(tmp_path: Path) -> None:
    out, values = tmp_path / "inverted.png", tmp_path / "values.npz"
    words = ["invert", str(digits()[3]), "--net", "lenet5", "--layers", "relu1,fc5", "--steps", "4", "--repeats", "2"]
    assert run([*words, "-o", str(out), "--save-values", str(values)]) == 0
    recipe = read_recipe(out)
    options = {**recipe.options, **{key: value for key, value in recipe.settled.items() if key not in recipe.options}}
    assert options["layers"] == ["relu1", "fc5"] and options["repeats"] == 2 and options["alpha"] == 6
    assert {"total_variation", "norm", "parametrization", "optimizer", "rate", "seed", "steps", "strength"} <= set(
        options
    )
    assert Image.open(out).width > 300 and np.load(values)["inversions"].shape == (2, 2, 1, 28, 28)
