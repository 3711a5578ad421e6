"""explain: what it asks, what it says in words, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convscope as cs
from convscope.errors import LayerError, NetworkError, ObjectiveError, OptionError, PictureError, WeightsError
from convscope.predictions import predict
from networks import CLASSES, SIZE, pictures, tiny, tiny_body


def explain(net: cs.Net, method: str = "gradient", of: Any = None, **options: Any) -> cs.Heatmap:
    return cs.explain(net, pictures(1, dtype=torch.float32), method, of, **options)


@pytest.fixture
def net() -> cs.Net:
    return tiny("sequential", dtype=torch.float32)


def test_the_first_choice_is_asked_when_nothing_is(net: cs.Net) -> None:
    probabilities = predict(net, pictures(1, dtype=torch.float32))[0]
    first = int(probabilities.argmax())
    drawing = explain(net)
    assert drawing.recipe.objective == str(first)
    assert drawing.title == f"{CLASSES[first]}, softmax {probabilities[first]:.2f}: what made it say so?"
    other = (first + 1) % len(CLASSES)
    assert "what speaks for it?" in explain(net, of=other).title


def test_values_are_those_of_the_method(net: cs.Net) -> None:
    from convscope.attribution.gradient import saliency

    pixels = pictures(1, dtype=torch.float32)
    expected = saliency(net, pixels, cs.as_objective(net, "dog"))[0]
    assert torch.equal(explain(net, "saliency", "dog").values, expected)


def test_a_channel_without_a_place_is_asked_at_its_strongest(net: cs.Net) -> None:
    drawing = explain(net, of="0:3")
    activity = cs.tap(net, pictures(1, dtype=torch.float32), ["0"])["0"][0, 3]
    y, x = divmod(int(activity.argmax()), activity.shape[1])
    assert drawing.recipe.objective == "0:3@max"
    assert f"strongest position (row {y}, column {x}), {activity.max():.3g}" in drawing.title
    placed = explain(net, of=f"0:3@{y},{x}")
    assert torch.equal(drawing.values, placed.values)


def test_a_function_of_the_output_is_named(net: cs.Net) -> None:
    def ant_rather_than_bee(output: Tensor) -> Tensor:
        return output[:, 0] - output[:, 1]

    drawing = explain(net, of=ant_rather_than_bee)
    assert drawing.title.startswith("Ant rather than bee") and drawing.recipe.objective == "ant_rather_than_bee"
    assert torch.allclose(drawing.values, explain(net, of="ant - bee").values, atol=1e-6)
    assert explain(net, of=lambda output: output[:, 0]).title.startswith("A function of the output, ")


def test_probabilities_are_not_softmaxed_twice() -> None:
    body = nn.Sequential(tiny_body("sequential", dtype=torch.float32), nn.Softmax(1))
    plain, wrapped = tiny("sequential", dtype=torch.float32), cs.Net(body, size=SIZE)
    pixels = pictures(3, dtype=torch.float32)
    wrapped.mean, wrapped.std = plain.mean, plain.std
    torch.testing.assert_close(predict(plain, pixels), predict(wrapped, pixels))


def test_random_weights_and_caveats_are_said_in_the_caption() -> None:
    random = cs.load("lenet5", weights=None)
    drawing = cs.explain(random, np.zeros((28, 28)), "guided_backprop", 3)
    assert "random weights, seed 0" in drawing.note and "explains nothing" in drawing.note
    assert "nearly independent of the class" in drawing.note
    assert "4 of 4 rectifiers rewritten" in drawing.note
    assert drawing.recipe.network["note"] == "random weights, seed 0"


def test_recipe_is_complete_and_follows_the_weights(net: cs.Net) -> None:
    recipe = explain(net, "occlusion", "dog", patch=5, stride=5).recipe
    assert (recipe.method, recipe.network["name"], recipe.of) == ("occlusion", "sequential", "dog")
    assert (recipe.options["patch"], recipe.options["stride"], recipe.options["baseline"]) == (5, 5, "mean")
    with torch.no_grad():
        next(net.body.parameters()).add_(1e-3)
    changed = explain(net, "occlusion", "dog", patch=5, stride=5).recipe
    assert changed.weights != recipe.weights and changed.pictures == recipe.pictures


def test_the_same_call_twice_gives_the_same_bytes(net: cs.Net) -> None:
    one, other = (explain(net, "deconvnet", "dog")._repr_png_() for _ in range(2))
    assert one == other


def test_a_projection_that_dies_is_said_not_shown_as_a_result() -> None:
    """Every weight above the first rectifier negative: the deconvnet's signal is rectified away."""
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 18 * 18, 2))
    with torch.no_grad():
        body[3].weight.fill_(-1)
    net = cs.Net(body, size=SIZE)
    drawing = cs.explain(net, pictures(1, channels=1, dtype=torch.float32), "deconvnet", 0)
    assert not drawing.values.any() and "the signal does not reach the pixels" in drawing.note
    assert np.asarray(drawing.render()).std() > 0


def test_wrong_calls(net: cs.Net) -> None:
    with pytest.raises(NetworkError, match=r"Net\(module"):
        cs.explain(net.body, np.zeros((20, 20, 3)), "gradient")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="'gradient'"):
        explain(net, "gradeint")
    with pytest.raises(OptionError, match="'patch'"):
        explain(net, "occlusion", pach=3)
    with pytest.raises(OptionError, match="has no option 'layer'"):
        explain(net, "gradient", layer="0")
    with pytest.raises(ObjectiveError, match="5 classes, 0 to 4"):
        explain(net, of=5)
    with pytest.raises(PictureError, match="batch of 2"):
        cs.explain(net, pictures(2, dtype=torch.float32), "gradient")
    with pytest.raises(PictureError, match="before normalisation"):
        cs.explain(net, torch.randn(3, SIZE, SIZE), "gradient")


def test_questions_that_do_not_depend_on_the_picture(net: cs.Net) -> None:
    with pytest.raises(ObjectiveError, match="does not depend on the picture"):
        explain(net, of=lambda output: torch.zeros(len(output)))
    with pytest.raises(LayerError, match="does not depend on layer"):
        explain(net, "grad_cam", "0:1", layer="3")
    flat = explain(net, of=lambda output: output[:, 0] * 0)
    assert "zero everywhere" in flat.note


def test_nan_weights_and_outputs_are_refused() -> None:
    body = tiny_body("sequential", dtype=torch.float32)
    with torch.no_grad():
        body[3].bias[2] = float("nan")
    with pytest.raises(WeightsError, match=r"NaN or infinite weights in 3\.bias"):
        cs.Net(body, size=SIZE)

    class Overflows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4] * torch.tensor(float("inf"))

    net = cs.Net(Overflows(), size=SIZE)
    for of in (None, 1):
        with pytest.raises(NetworkError, match="NaN or infinity"):
            cs.explain(net, pictures(1, dtype=torch.float32), "gradient", of)


def test_a_network_without_classes_can_be_asked_about_places() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1))
    net = cs.Net(body, size=SIZE, name="segmenter")
    with torch.no_grad():
        body[0].bias.fill_(1)
    drawing = explain(net, of=":3@2,5")
    assert drawing.title.startswith("Channel 3 of the output at row 2, column 5")
    rows, columns = drawing.values.abs().sum(0).nonzero().T
    assert rows.min() >= 2 and rows.max() <= 4 and columns.min() >= 5 and columns.max() <= 7
    with pytest.raises(NetworkError, match="not \\(n, classes\\)"):
        explain(net)


def test_another_size_and_a_cropped_picture() -> None:
    net = tiny("functional", dtype=torch.float32)
    picture = np.random.default_rng(0).integers(0, 255, (60, 100, 3), np.uint8)
    drawing = cs.explain(net, picture, "saliency", "dog", size=30)
    assert drawing.values.shape == (1, 30, 30) and drawing.picture.box == (20, 0, 80, 60)
    assert drawing.overlay().size == (100, 60)
    assert drawing.recipe.size == 30 and drawing.recipe.options == {"crops": 1}
    assert replace(drawing, cmap="grey").render().size == drawing.render().size


def test_a_deconvnet_without_switches_says_that_it_hardly_sees_the_picture() -> None:
    """I10: the projection depends on the picture through the switches alone."""
    body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU())
    net = cs.Net(body, size=SIZE)
    one, other = (cs.explain(net, picture[None].float(), "deconvnet", "2:1@1,1") for picture in pictures(2))
    assert torch.equal(one.values, other.values) and "no switches" in one.note
    assert "no switches" not in explain(tiny("sequential", dtype=torch.float32), "deconvnet", 1).note
