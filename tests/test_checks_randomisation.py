"""Parameter randomisation: copies lose their weights, networks do not; likeness; cascades; the sentence under a map."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from convscope import Net, explain
from convscope.checks import cascade, cascades, checked, randomised
from convscope.checks.random_weights import weighted_layers
from convscope.checks.randomisation import verdict
from convscope.checks.similarity import structural_similarity
from convscope.errors import LayerError, NetworkError, ObjectiveError, OptionError
from convscope.ranks import rank_correlation
from convscope.registry import METHODS, load_all
from networks import SIZE, TINY, pictures, tiny
from test_laws import assert_same, state_of

load_all()


@pytest.mark.parametrize("kind", TINY)
def test_every_weight_of_the_copy_changes_and_none_of_the_network(kind: str) -> None:
    net = tiny(kind)
    before, seed = state_of(net.body), torch.get_rng_state()
    twin = randomised(net)
    assert_same(before, state_of(net.body))
    assert torch.equal(seed, torch.get_rng_state())
    kept = [name for name, value in net.body.named_parameters() if torch.equal(value, twin.body.get_parameter(name))]
    assert kept == []
    for name, value in twin.body.named_buffers():
        expected = 0.0 if name.endswith("mean") else 1.0
        assert name.endswith("tracked") or (value == expected).all()
    assert twin.digest != net.digest and randomised(net).digest == twin.digest != randomised(net, seed=1).digest


def test_he_weights_have_the_variance_of_the_paper_and_no_biases() -> None:
    net = Net(nn.Sequential(nn.Conv2d(3, 40, 5), nn.Flatten(), nn.Linear(40 * 16 * 16, 10)), size=SIZE)
    twin = randomised(net)
    for index, inputs in ((0, 75), (2, 40 * 256)):
        layer = twin.body.get_submodule(str(index))
        assert float(layer.weight.detach().square().mean()) == pytest.approx(2 / inputs, rel=1e-4)
        assert not layer.bias.any()


def test_permuted_weights_are_the_same_numbers_elsewhere() -> None:
    net = tiny("sequential")
    twin = randomised(net, weights="permuted")
    for one, other in zip(net.body.parameters(), twin.body.parameters(), strict=True):
        torch.testing.assert_close(one.flatten().sort()[0], other.flatten().sort()[0], rtol=0, atol=0)


def test_a_layer_gets_the_same_numbers_whatever_else_is_randomised() -> None:
    net = tiny("residual")
    whole, alone = randomised(net, weights="reset"), randomised(net, ["a"], weights="reset")
    assert torch.equal(whole.body.a.weight, alone.body.a.weight)
    assert torch.equal(alone.body.b.weight, net.body.b.weight)


def test_layers_are_listed_from_the_output_down_those_inside_others_too() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.attention = nn.Conv2d(3, 8, 4, 4), nn.MultiheadAttention(8, 2, batch_first=True)
            self.token, self.head = nn.Parameter(torch.randn(1, 1, 8)), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
            return self.head(self.attention(x, x, x)[0][:, 0])

    net = Net(Attends(), size=SIZE)
    names = weighted_layers(net)
    assert set(names) == {"conv", "attention", "attention.out_proj", "", "head"} and names[-1] == "conv"
    assert not torch.equal(randomised(net).body.token, net.body.token)
    assert weighted_layers(tiny("shared")) == ("head.2", "conv", "stem")


def test_computed_weights_are_randomised_where_they_come_from() -> None:
    body = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(4 * 18 * 18, 5))
    net = Net(body, size=SIZE)
    assert not torch.equal(randomised(net).body[0].weight, net.body[0].weight)


def test_rank_correlation_is_scipys() -> None:
    for seed in range(5):
        drawn = np.random.default_rng(seed)
        one, other = drawn.integers(0, 6, 200), drawn.normal(size=200)
        expected = spearmanr(one, other).statistic
        assert rank_correlation(torch.tensor(one), torch.tensor(other)) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 1000), st.sampled_from([torch.exp, torch.atan, lambda x: 3 * x - 1]))
def test_rank_correlation_knows_only_the_order(seed: int, rising: Callable[[Tensor], Tensor]) -> None:
    values = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert rank_correlation(values, rising(values)) == pytest.approx(1)
    assert rank_correlation(values, -rising(values)) == pytest.approx(-1)


def test_maps_without_contrast_are_like_each_other_only() -> None:
    flat, other = torch.zeros(9, 9), torch.rand(9, 9)
    assert rank_correlation(flat, flat + 1) == 1 and rank_correlation(flat, other) == 0
    assert structural_similarity(flat, flat) == 1 and structural_similarity(flat, other) == 0
    assert structural_similarity(other, 7 * other) == pytest.approx(1)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("independent", [False, True])
def test_cascade_ends_with_the_map_of_a_network_that_is_random_altogether(kind: str, independent: bool) -> None:
    net, pixels = tiny(kind), pictures(1, dtype=torch.float32)[0]
    heatmap = explain(net, pixels, "gradient", 2)
    before = state_of(net.body)
    result = cascade(net, heatmap, stages=99, independent=independent)
    assert_same(before, state_of(net.body))
    layers = weighted_layers(net)
    assert result.stages == layers and len(result.maps) == len(layers) + 1
    assert torch.equal(result.maps[0], heatmap.values)
    last = randomised(net, layers[-1:] if independent else None)
    expected = explain(last, pixels, "gradient", 2).values
    torch.testing.assert_close(result.maps[-1], expected)
    for each in (result.magnitude, result.signed, result.ssim):
        assert all(-1 <= value <= 1 for value in each) and len(each) == len(layers)
    assert 0 <= result.score <= 1


def test_stages_begin_with_the_output_and_end_with_all_layers() -> None:
    net = tiny("residual")
    result = cascade(net, explain(net, pictures(1)[0].float(), "gradient", 1), stages=3)
    layers = weighted_layers(net)
    assert len(result.stages) == 3 and (result.stages[0], result.stages[-1]) == (layers[0], layers[-1])


def test_a_map_that_ignores_the_network_scores_one_and_noise_scores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net, pixels = tiny("sequential"), pictures(1, dtype=torch.float32)[0]
    entry = METHODS["saliency"]
    heatmap = explain(net, pixels, "saliency", 1)
    entry_like = copy.copy(entry)
    object.__setattr__(entry_like, "function", lambda *_, **__: heatmap.values[None].clone())
    monkeypatch.setitem(METHODS, "saliency", entry_like)
    assert cascade(net, heatmap).score == pytest.approx(1)
    assert "hardly depends" in checked(net, heatmap).note
    drawn = torch.Generator().manual_seed(0)
    object.__setattr__(entry_like, "function", lambda *_, **__: torch.rand(1, 1, SIZE, SIZE, generator=drawn))
    assert cascade(net, heatmap).score < 0.1


def test_random_weights_without_an_active_output_are_drawn_again() -> None:
    body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = Net(body, mean=0.0, size=SIZE, name="rectified")
    nn.init.ones_(body[0].weight)
    # In a picture that is nearly flat, all positions of a channel have one sign: half of all channels are never active.
    heatmap = explain(net, 0.9 + 0.02 * pictures(1)[0].float(), "gradient", 3)
    assert all(cascade(net, heatmap, seed=seed).maps[-1].any() for seed in range(8))


def test_the_class_stays_that_of_the_intact_network() -> None:
    net, pixels = tiny("concat"), pictures(1, dtype=torch.float32)[0]
    heatmap = explain(net, pixels, "gradient")
    twin = randomised(net)
    expected = explain(twin, pixels, "gradient", heatmap.recipe.objective).values
    torch.testing.assert_close(cascade(net, heatmap, stages=1).maps[1], expected)


def test_options_of_the_method_are_kept() -> None:
    net, pixels = tiny("sequential"), pictures(1, dtype=torch.float32)[0]
    heatmap = explain(net, pixels, "occlusion", 1, patch=9, stride=4)
    twin = randomised(net)
    expected = explain(twin, pixels, "occlusion", 1, patch=9, stride=4).values
    torch.testing.assert_close(cascade(net, heatmap, stages=1).maps[1], expected)


def test_a_function_as_the_objective_is_given_again() -> None:
    net, pixels = tiny("sequential"), pictures(1, dtype=torch.float32)[0]

    def spread(output: Tensor) -> Tensor:
        return output.std(1)

    heatmap = explain(net, pixels, "gradient", spread)
    assert cascade(net, heatmap, of=spread).score >= 0
    with pytest.raises(ObjectiveError, match="was a function, spread: give it again, as of=spread"):
        cascade(net, heatmap)


def test_checked_says_it_in_the_note_and_in_the_recipe() -> None:
    net = tiny("sequential")
    heatmap = explain(net, pictures(1)[0].float(), "gradient", 1)
    result = checked(net, heatmap)
    assert result.recipe.remarks[-1] in result.note and "randomisation check: rank correlation" in result.note
    assert result.note.startswith(heatmap.note) and torch.equal(result.values, heatmap.values)
    assert result.recipe.remarks[:-1] == heatmap.recipe.remarks


@pytest.mark.parametrize(("score", "words"), [(0.1, "this map depends on"), (0.5, "only partly"), (0.8, "hardly")])
def test_verdicts(score: float, words: str) -> None:
    assert words in verdict(score) and f"{score:.2f}" in verdict(score)


def test_a_network_that_cannot_be_copied_or_is_another_one_is_refused() -> None:
    net = tiny("sequential")
    heatmap = explain(net, pictures(1)[0].float(), "gradient", 1)
    with pytest.raises(NetworkError, match="with the network that made it"):
        cascade(randomised(net), heatmap)
    with pytest.raises(LayerError, match=r"no layer '7' with weights; nearest: '5.2', '3', '0'"):
        randomised(net, ["7"])
    with pytest.raises(OptionError, match="'he', 'reset' or 'permuted', not 'noise'"):
        randomised(net, weights="noise")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="stages is at least 1"):
        cascade(net, heatmap, stages=0)
    with pytest.raises(OptionError, match="at least one"):
        cascades(net, [])
    with pytest.raises(NetworkError, match="has no weights"):
        weighted_layers(Net(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=SIZE))
    net.body.bad = net.body[0].weight * 2
    with pytest.raises(NetworkError, match="cannot be copied"):
        randomised(net)


def test_an_interruption_leaves_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    net, pixels = tiny("in-place"), pictures(1, dtype=torch.float32)[0]
    heatmap = explain(net, pixels, "gradient", 1)
    before, seed = state_of(net.body), torch.get_rng_state()

    def interrupted(self: nn.Module) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nn.Conv2d, "reset_parameters", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cascade(net, heatmap)
    assert_same(before, state_of(net.body))
    assert torch.equal(seed, torch.get_rng_state())


def test_the_figure_has_a_row_per_map_and_holds_the_numbers(tmp_path: Path) -> None:
    net, pixels = tiny("sequential"), pictures(1, dtype=torch.float32)[0]
    maps = [explain(net, pixels, name, 1) for name in ("gradient", "occlusion", "grad_cam")]
    figure = cascades(net, maps, stages=2)
    sheet = figure.sheet()
    assert sheet.labels == ("Vanilla gradient", "Occlusion", "Grad-CAM") and len(sheet.columns) == 4
    assert figure.numbers()["gradient"].shape == (3, 3, SIZE, SIZE)
    assert figure.save(tmp_path / "x.png").is_file()


@pytest.mark.slow
def test_gradient_and_cam_follow_squeezenet_and_guided_backpropagation_does_not(
    squeezenet: Net, data: Callable[[str], Path]
) -> None:
    """Adebayo et al., Fig. 2, with the authors' erratum: the upper layers hardly matter to guided backpropagation."""
    names = ("gradient", "grad_cam", "guided_backprop", "gradient_x_input")
    results = {
        name: [
            cascade(squeezenet, explain(squeezenet, data(f"pictures/{picture}"), name), stages=4)
            for picture in ("cat_dog.png", "fish-bike.jpg", "cat.jpg")
        ]
        for name in names
    }
    scores = {name: float(np.mean([one.score for one in each])) for name, each in results.items()}
    assert scores["grad_cam"] < 0.25 and scores["gradient"] < 0.4
    assert scores["guided_backprop"] > scores["gradient"] + 0.2
    guided = np.mean([one.similarity for one in results["guided_backprop"]], axis=0)
    assert guided[0] > 0.85 and guided[-1] < guided[0] - 0.2
    looks = {name: np.mean([one.magnitude for one in each]) for name, each in results.items()}
    assert looks["gradient_x_input"] > looks["gradient"]
