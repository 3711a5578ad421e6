"""Linear probes: features and accuracies by loops, draws that do not overlap, and what cannot be probed."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convscope as cs
from convscope.context import listen
from convscope.errors import ConvscopeError, DataError, LayerError, NetworkError, OptionError
from convscope.studies import probe as module
from convscope.studies.features import Reading, features_of, readings
from convscope.studies.hits import Hits, mean_per_class
from convscope.studies.labelled import Labelled
from convscope.studies.linear import Fitting
from convscope.studies.splits import Split, draws
from convscope.tapping import tap


def small(*last: nn.Module) -> cs.Net:
    """A small network for pictures of 16 × 16, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(196, 5), *last)
    return cs.Net(body, mean=0.5, std=0.2, size=16, name="small")


class Tokens(nn.Module):
    """A transformer's layout: (tokens, channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm, self.head = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.patch(pixels).flatten(2).mT).mean(1))


class OverBatch(nn.Module):
    """Its answer depends on what else is in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(768, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(pixels.flatten(1) - pixels.flatten(1).mean(0))


NET = small()


def stripes(counts: dict[str, int], side: int = 16) -> list[tuple[torch.Tensor, str]]:
    """Noisy pictures, whose stripes have as many pixels as the class's number in the dict says."""
    generator = torch.Generator().manual_seed(0)
    items: list[tuple[torch.Tensor, str]] = []
    for number, (name, count) in enumerate(counts.items(), 2):
        for _ in range(count):
            shift = int(torch.randint(8, (1,), generator=generator))
            line = ((torch.arange(side) + shift) // number % 2).float() * 0.6 + 0.2
            noise = torch.rand(3, side, side, generator=generator) * 0.2
            items.append(((line.expand(3, side, side) + noise).clamp(0, 1), name))
    return items


DATA = stripes({"a": 9, "b": 8, "c": 10})


def prepared(items: Any, net: cs.Net = NET) -> Labelled:
    return Labelled.listed(net, items, {}).read()


def quick(net: cs.Net = NET, items: Any = DATA, **options: Any) -> cs.Study:
    return cs.probe(net, items, **{"folds": 2, "train": 4, "untrained": False, "features": 40} | options)


def test_features_are_averages_over_cells_by_loops() -> None:
    values = torch.rand(2, 3, 6, 4)
    reading = Reading("(pixels)", (3, 6, 4), 3 * 3 * 2)
    assert reading.cells == (3, 2) and reading.count == 18 and reading.said == "averaged over 3 × 2 cells"
    places = [(c, 2 * y, 2 * x) for c in range(3) for y in range(3) for x in range(2)]
    expected = [[float(values[n, c, y : y + 2, x : x + 2].mean()) for c, y, x in places] for n in range(2)]
    assert reading.of(values).tolist() == pytest.approx(np.array(expected), abs=1e-6)
    whole = Reading("(pixels)", (3, 6, 4), 72)
    assert whole.said == "" and torch.equal(whole.of(values), values.flatten(1)) and whole.count == 72


def test_a_layer_without_positions_is_hashed_so_that_products_stay_on_average() -> None:
    reading = Reading("flatten", (4000,), 400, NET.output)
    one, other = torch.randn(2, 4000), torch.randn(2, 4000)
    both = reading.of(torch.cat([one, one + 0.5 * other]))
    assert both.shape == (4, 400) and reading.said == "hashed at random"
    true = (one * (one + 0.5 * other)).sum(1)
    assert (both[:2] * both[2:]).sum(1).tolist() == pytest.approx(true.tolist(), rel=0.35)


def test_features_of_many_pictures_are_those_of_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = readings(NET, None, 10_000)
    assert wanted[0].title == "pixels" and wanted[-1].title == "output" and len(wanted) > 2
    found = features_of(prepared(DATA[:5]), wanted, "")
    for reading, values in zip(wanted, found, strict=True):
        for row, (pixels, _) in enumerate(DATA[:5]):
            alone = tap(NET, pixels[None], [reading.name])[reading.name].flatten()
            assert values[row].tolist() == pytest.approx(alone.tolist(), abs=1e-5)
    monkeypatch.setattr("convscope.studies.features._IN_MEMORY", 100)
    with listen() as said:
        streamed = features_of(prepared(DATA[:5]), wanted, "")
    assert all(np.array_equal(one, other) for one, other in zip(streamed, found, strict=True))
    assert said == ["the features are too large for memory and lie in temporary files"]


def test_the_mean_over_classes_by_loops() -> None:
    hits, targets = np.array([1, 0, 1, np.nan, 0, 0, 1]), np.array([0, 0, 2, 2, 5, 5, 5])
    shares = []
    for target in (0, 2, 5):
        known = [hit for hit, own in zip(hits, targets, strict=True) if own == target and not np.isnan(hit)]
        shares.append(sum(known) / len(known))
    assert mean_per_class(hits, targets) == pytest.approx(sum(shares) / 3)


def test_the_interval_is_around_the_mean_over_draws() -> None:
    random = np.random.default_rng(0)
    targets = np.repeat([1, 4, 6], 20)
    hits = (random.random((3, 60)) < np.repeat([0.9, 0.5, 0.2], 20)).astype(float)
    for row in hits:  # of each class 12 are tested, others in every draw
        row[np.concatenate([random.permutation(20)[:8] + start for start in (0, 20, 40)])] = np.nan
    found, sure = Hits(hits, targets), Hits(hits, targets).interval(0)
    assert sure.value == pytest.approx(np.mean(found.accuracies)) and sure.low < sure.value < sure.high
    assert sure.n == (~np.isnan(hits)).any(0).sum()


def test_no_picture_is_both_learnt_from_and_tested_on() -> None:
    data = prepared(DATA)
    for learn, test in draws(data, Split(4, 3), 3, seed=1):
        assert not {*learn.tolist()} & {*test.tolist()}
        targets = np.array(data.targets)
        assert np.bincount(targets[learn]).tolist() == [4, 4, 4] and np.bincount(targets[test]).tolist() == [3, 3, 3]
    assert not np.array_equal(draws(data, Split(4, 3), 1, 0)[0][0], draws(data, Split(4, 3), 1, 1)[0][0])


def test_accuracies_are_those_of_scikit_learn_by_hand() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    study = quick(layers=["pixels", ""], features=10_000)
    data, targets = prepared(DATA), np.array(prepared(DATA).targets)
    values = np.array([NET(pixels[None])[0].numpy() for pixels, _ in DATA])
    for fold, (learn, test) in enumerate(draws(data, Split(4, 50), 2, 0)):
        width = values.shape[1]
        for number, made in enumerate(
            (LogisticRegression(C=1 / width, max_iter=1000), SVC(kernel="linear", C=1 / width))
        ):
            answers = make_pipeline(StandardScaler(), made).fit(values[learn], targets[learn]).predict(values[test])
            shares = [(answers == targets[test])[targets[test] == target].mean() for target in range(3)]
            assert float(study.values["accuracy"][1, number, fold]) == pytest.approx(np.mean(shares), abs=0.08)


def test_what_is_told_apart_easily_is_and_random_labels_are_not() -> None:
    shades = [(pixels * 0.2 + 0.3 * "abc".index(name), name) for pixels, name in DATA]
    study = quick(items=shades, layers=["pixels"], classifier="softmax", folds=3)
    (row,) = study.table.records
    assert (row["accuracy"], row["low"], row["high"], row["converged"]) == (1, 1, 1, "yes")
    mixed = [(pixels, "abc"[number % 3]) for number, (pixels, _) in enumerate(shades)]
    row = quick(items=mixed, layers=["pixels"], classifier="softmax", folds=3).table.records[0]
    assert row["low"] < 1 / 3 < row["high"], "chance lies within the interval"


def test_the_control_is_a_copy_with_random_weights_and_the_network_is_left_as_it_is() -> None:
    before = NET.digest
    study = quick(untrained=True, layers=[""])
    assert study.values["untrained"].shape == study.values["accuracy"].shape == (1, 2, 2)
    assert study.values["per_class"].shape == (1, 2, 3) and NET.digest == before
    assert "With random weights" not in study.gist or study.table.records[0]["untrained"] is not None


def test_a_probe_that_does_not_converge_is_said() -> None:
    study = quick(layers=[""], iterations=1, classifier="softmax")
    assert study.table.records[0]["converged"] == "0 of 2"
    assert "did not converge in 1 steps: softmax on output" in study.table.note
    _, converged = Fitting("svm", c=1e6, iterations=1).answers(
        np.random.default_rng(0).normal(size=(600, 3)), np.arange(600) % 2, np.zeros((1, 3))
    )
    assert not converged


def test_a_constant_feature_says_nothing() -> None:
    learn = np.array([[0.0, 5], [1, 5], [0.1, 5], [0.9, 5]], np.float32)
    for kind in ("softmax", "svm"):
        answers, _ = Fitting(kind, c=100).answers(learn, np.array([0, 1, 0, 1]), np.array([[0.05, 9], [0.95, -9]]))
        assert answers.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("items", "options", "error"),
    [
        (stripes({"a": 5}), {}, "all pictures are of one class, 'a'"),
        ([pixels for pixels, _ in DATA], {}, "none of 27 pictures has a label"),
        (stripes({"a": 5, "b": 1}), {"train": None}, "class 'b' has one picture"),
        (stripes({"a": 5, "b": 9}), {"train": 8}, r"1 of 2 classes .*: 'a' \(5\); with train=4 or less"),
    ],
)
def test_too_few_pictures_or_classes_are_refused(items: Any, options: dict[str, Any], error: str) -> None:
    with pytest.raises(DataError, match=error):
        quick(items=items, **options)


def test_few_pictures_are_said() -> None:
    study = quick(train=None, layers=[""])
    assert "5 pictures of each class to learn from, because class 'b' has 8" in study.table.note
    assert "class 'b' has 3 pictures to test on: too few for more than a rough number" in study.table.note
    some = [*DATA, (DATA[0][0], None)]
    assert "1 pictures without a label are left out" in quick(items=some, layers=[""]).table.note


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConvscopeError, match=r"pip install 'convscope\[study\]'"):
        quick()


def test_other_requests_that_make_no_sense() -> None:
    with pytest.raises(LayerError, match="no layer 'conv9'"):
        quick(layers=["conv9"])
    with pytest.raises(OptionError, match=r"12,001 pictures needs the products of all pairs.* softmax"):
        Fitting("svm").check(12_001)
    broken = cs.Net(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.LogSoftmax(1), nn.Linear(392, 3)), size=16)
    broken.body[0].weight.data.fill_(3e38)  # type: ignore[operator, union-attr]
    with pytest.raises(NetworkError, match="hold NaN or infinity"):
        quick(broken, layers=["0"])


def test_what_is_kept_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = quick(keep=tmp_path)
    monkeypatch.setattr(module, "features_of", lambda *_: pytest.fail("computed again"))
    second = quick(keep=tmp_path)
    assert first.table.rows == second.table.rows and first.render().tobytes() == second.render().tobytes()


@pytest.mark.parametrize("body", [Tokens, OverBatch])
def test_networks_of_other_makes_are_probed(body: type[nn.Module]) -> None:
    net = cs.Net(body().eval(), mean=0.5, std=0.2, size=16)
    wanted = readings(net, None, 64)
    (whole,), (alone,) = (features_of(prepared(items, net), wanted[-1:], "") for items in (DATA, DATA[3:4]))
    assert whole[3].tolist() == pytest.approx(alone[0].tolist(), abs=1e-5)
    assert all(0 <= float(each) <= 1 for each in quick(net).values["accuracy"].flatten())


def test_a_layer_of_tokens_is_averaged_over_patches() -> None:
    net = cs.Net(Tokens().eval(), mean=0.5, std=0.2, size=16)
    (reading,) = readings(net, ["norm"], 32)
    assert reading.shape == (16, 8) and reading.cells == (2, 2) and reading.count == 32
    (values,) = features_of(prepared(DATA[:2], net), [reading], "")
    tokens = tap(net, DATA[0][0][None], ["norm"])["norm"][0].unflatten(0, (4, 4))
    assert values[0].reshape(8, 2, 2)[:, 0, 1].tolist() == pytest.approx(tokens[:2, 2:].mean((0, 1)).tolist(), abs=1e-5)
