"""Transfer and ablation: the trainer on a few pictures of a study, resumed, and compared on the same pictures."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convscope as cs
from convscope.errors import DataError, NetworkError, OptionError
from convscope.studies import training
from convscope.studies.hits import Hits, mean_per_class
from convscope.studies.labelled import Labelled
from convscope.studies.training import Lesson, recipe_for
from convscope.training.recipes import recipe
from convscope.zoo.blueprints import BLUEPRINTS

LENET = BLUEPRINTS["lenet5"]


def stripes(count: int = 8, classes: int = 3) -> list[tuple[torch.Tensor, str]]:
    """Noisy stripes across, down and slanted."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    items: list[tuple[torch.Tensor, str]] = []
    for number in range(count * classes):
        along = (x, y, x + y)[number % classes]
        noise = torch.rand(1, 28, 28, generator=generator) * 0.2
        phase = float(torch.rand(1, generator=generator)) * 6
        items.append(((0.4 + 0.35 * torch.sin(along * 0.9 + phase) + noise).clamp(0, 1), "abc"[number % classes]))
    return items


@pytest.fixture(scope="module")
def net() -> cs.Net:
    return cs.load("lenet5")


def quick(net: cs.Net, items: Any = None, **options: Any) -> cs.Study:
    return cs.transfer(net, items or stripes(), **{"train": [1, 3], "repeats": 2, "epochs": 2} | options)


@pytest.fixture(scope="module")
def study(net: cs.Net) -> cs.Study:
    return quick(net)


def test_all_networks_are_tested_on_the_same_pictures_none_of_which_they_have_learnt_from(study: cs.Study) -> None:
    assert {name: tuple(value.shape) for name, value in study.values.items()} == {
        **dict.fromkeys(("pretrained", "random_features", "from_scratch", "fitted"), (2, 2)),
        "train": (2,),
    }
    assert [row["train"] for row in study.table.records] == [1, 1, 1, 3, 3, 3]
    for row in study.table.records:
        margin = row["margin"]
        ours = study.table.records[0 if row["train"] == 1 else 3]["accuracy"]
        assert margin is None or margin == pytest.approx(ours - row["accuracy"], abs=1e-6)  # type: ignore[operator]
        assert row["low"] <= row["accuracy"] <= row["high"]  # type: ignore[operator]


def test_a_margin_is_that_of_the_same_pictures() -> None:
    """Both move together from picture to picture, so that what they differ by is more certain than each."""
    random = np.random.default_rng(0)
    targets = np.arange(60) % 3
    hard = random.random(60)
    one, other = (Hits((hard[None] < share).astype(float), targets) for share in (0.7, 0.5))
    more, alone = one.interval(0, less=other), one.interval(0)
    assert more.value == pytest.approx(alone.value - other.interval(0).value)
    assert more.high - more.low < alone.high - alone.low and more.low > 0
    assert mean_per_class(one.hits[0] - other.hits[0], targets) == pytest.approx(more.value)


def test_the_features_of_a_network_are_kept_as_they_are(net: cs.Net) -> None:
    before = net.digest
    study = quick(net, scratch=False)
    assert net.digest == before and "from_scratch" not in study.values and study.gist.startswith("Pretrained features:")


def test_a_training_that_was_ended_goes_on_to_the_same_numbers(
    net: cs.Net, study: cs.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = training.train, list[Any]()

    def ended(run: Any) -> Any:
        if len(done) == 2:  # the third ends after its first epoch
            told = run.tell

            def tell(line: str) -> None:
                told(line)
                if line.startswith("epoch   1/"):
                    raise KeyboardInterrupt

            run.tell = tell
        done.append(run)
        return real(run)

    monkeypatch.setattr(training, "train", ended)
    with pytest.raises(KeyboardInterrupt):
        quick(net, keep=tmp_path)
    done.extend([None] * 9)
    resumed = quick(net, keep=tmp_path)
    trained = [run for run in done if run is not None]
    assert len(trained) == 5, "two of four trainings are not repeated, and the third goes on"
    assert all(torch.equal(value, resumed.values[name]) for name, value in study.values.items())
    assert resumed.table.rows == study.table.rows
    assert sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file()) == [".npz"] * 6, "no checkpoint stays"


def test_ranks_are_those_of_the_network_that_the_trainer_leaves(
    net: cs.Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = stripes()
    data = Labelled.listed(net, items, {}).read()
    learn, test = np.arange(14, -1, -1), np.array([15, 20, 17])
    monkeypatch.setattr(training.shutil, "rmtree", lambda *_, **__: None)
    ranks = Lesson(LENET, recipe_for(recipe(LENET), 15, 4, None), data, learn, 0).ranks(test, tmp_path, "x")
    (history,) = tmp_path.rglob("history.json")
    trained = cs.load("lenet5", weights=history.parent)
    assert [*trained.classes] == ["a", "b", "c"]
    for row, (pixels, name) in enumerate(items):
        if row in (*learn, *test):
            scores = trained(pixels[None])[0]
            assert ranks[row] == sum(float(score) > float(scores["abc".index(name)]) for score in scores)
        else:
            assert np.isnan(ranks[row])


@pytest.mark.parametrize(("pictures", "epochs", "batch"), [(1, 100, 1), (10, 100, 10), (200, 24, 32), (3000, 10, 32)])
def test_few_pictures_are_shown_often(pictures: int, epochs: int, batch: int) -> None:
    chosen = recipe_for(recipe(BLUEPRINTS["zfnet64"]), pictures, None, None)
    assert (chosen.epochs, chosen.batch) == (epochs, batch) and chosen.rate == pytest.approx(0.1 * batch / 128)
    assert recipe_for(recipe(LENET), pictures, 3, 0.5).epochs == 3
    assert recipe_for(recipe(LENET), pictures, 3, 0.5).rate == 0.5


def test_what_the_network_has_learnt_is_said(net: cs.Net) -> None:
    digits = [(pixels, str("abc".index(name))) for pixels, name in stripes()]
    assert "lenet5 has learnt classes that the data has" in quick(net, digits, scratch=False).table.note
    study = quick(net, stripes(), scratch=False)
    assert "has learnt" not in study.table.note and "none of the" not in study.table.note


def test_requests_that_make_no_sense(net: cs.Net) -> None:
    for train, error in (([0], "train is numbers"), ([], "train is numbers")):
        with pytest.raises(OptionError, match=error):
            quick(net, train=train)
    with pytest.raises(DataError, match="3 of 3 classes have too few pictures to learn from 8"):
        quick(net, train=[2, 8])
    with pytest.raises(DataError, match="one class, 'a'"):
        quick(net, [item for item in stripes() if item[1] == "a"])
    other = cs.Net(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 3)), size=28, channels=1)
    with pytest.raises(NetworkError, match=r"cannot be trained anew.*lenet5, zfnet64.*--no-scratch"):
        quick(other)
    assert "to learn from: at most 1, because" in quick(net, stripes(3), train=None, scratch=False).table.note


def unpacked(archive: Path, to: Path, begins: str, of_each: int, classes: int) -> Path:
    """Unpack the first pictures of the first classes of an archive."""
    with tarfile.open(archive) as file:
        members = sorted(
            (each for each in file if each.isfile() and each.name.startswith(begins)), key=lambda m: m.name
        )
        folders = {name: number for number, name in enumerate(dict.fromkeys(Path(m.name).parent for m in members))}
        for folder in list(folders)[:classes]:
            file.extractall(to, [m for m in members if Path(m.name).parent == folder][:of_each], filter="data")
    return to / begins


@pytest.mark.nightly
def test_what_the_paper_found_holds_on_zfnet64(data: Any, tmp_path: Path) -> None:
    """Accuracy rises with depth, not with random weights; pretrained features are better by far at few pictures."""
    net = cs.load("zfnet64")
    val = unpacked(data("tiny100-val.tar.xz"), tmp_path, "val", 30, 20)
    study = cs.probe(net, val, train=15, folds=2, classifier="softmax")
    accuracy, untrained = (study.values[name].mean(2)[:, 0] for name in ("accuracy", "untrained"))
    assert (accuracy[1:-1].diff() > -0.02).all() and accuracy[-2] > 2 * accuracy[1] > 2 * accuracy[0]
    assert untrained.max() < accuracy[2] and "rises with depth" in study.gist
    cifar = unpacked(data("cifar10-20k.tar.xz"), tmp_path, "test", 40, 10)
    (margin,) = (
        row for row in cs.transfer(net, cifar, train=[5], repeats=1).table.records if row["network"] == "from scratch"
    )
    assert margin["fitted"] > 0.9 and margin["margin_low"] > 0.05  # type: ignore[operator]


# Ablation of layers


def coloured() -> list[tuple[torch.Tensor, str]]:
    """Two classes of coloured pictures of 64 × 64."""
    generator = torch.Generator().manual_seed(1)
    shade = {"red": torch.tensor([0.8, 0.2, 0.2]), "blue": torch.tensor([0.2, 0.2, 0.8])}
    return [
        ((shade[name][:, None, None] + 0.2 * torch.rand(3, 64, 64, generator=generator)).clamp(0, 1), name)
        for _ in range(5)
        for name in shade
    ]


def test_variants_are_trained_by_one_recipe_and_compared_on_the_same_pictures(tmp_path: Path) -> None:
    net = cs.load("zfnet64", weights=None)
    options: dict[str, Any] = {"variants": ["zfnet64:no-3-4-5-6", "half"], "train": 2, "epochs": 2}
    study = cs.ablate(net, coloured(), **options, keep=tmp_path)
    plain, bare, half = study.table.records
    assert [row["variant"] for row in (plain, bare, half)] == ["as it is", "no-3-4-5-6", "half"]
    assert plain["more"] is None and "epochs of 1 steps" in study.table.note and "top5_error" not in study.values
    for name, row in (("zfnet64:no-3-4-5-6", bare), ("zfnet64:half", half)):
        body = BLUEPRINTS[name].body(2)
        assert row["parameters"] == sum(each.numel() for each in body.parameters()) < plain["parameters"]  # type: ignore[operator]
        assert row["more"] == pytest.approx(row["error"] - plain["error"], abs=1e-6)  # type: ignore[operator]
        assert row["low"] <= row["error"] <= row["high"]  # type: ignore[operator]
    again = cs.ablate(net, coloured(), **options, keep=tmp_path)
    assert again.table.rows == study.table.rows
    assert study.values["error"].shape == study.values["train_error"].shape == (3, 1)


def test_variants_that_there_are_not(net: cs.Net) -> None:
    with pytest.raises(NetworkError, match=r"lenet5 has no variants .* zfnet64, zfnet, alexnet-zf have"):
        cs.ablate(net, stripes())
    other = cs.load("zfnet64", weights=None)
    with pytest.raises(OptionError, match="zfnet64 has no variant 'no-3'; nearest: 'no-3-4'"):
        cs.ablate(other, coloured(), variants=["no-3"])
    with pytest.raises(OptionError, match="name some of no-3-4"):
        cs.ablate(other, coloured(), variants=[])
    with pytest.raises(NetworkError, match="cannot be trained anew"):
        cs.ablate(cs.Net(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12288, 3)), size=64), coloured())


def test_errors_are_counted_by_loops() -> None:
    from convscope.studies.ablate import _Ablation

    data = Labelled.listed(cs.load("lenet5"), stripes(4), {}).read()
    parts = [(np.arange(6), np.arange(6, 12)), (np.arange(3, 9), np.array([0, 1, 2, 9, 10, 11]))]
    ranks = np.random.default_rng(0).integers(0, 4, (2, 12)).astype(float)
    study = _Ablation(data, {}, parts, ("short", None, None), 0)
    for part in (0, 1):
        for top in (1, 2):
            by_hand = []
            for i, rows in enumerate(parts):
                shares = []
                for target in range(3):
                    own = [float(ranks[i, row] < top) for row in rows[part] if data.targets[row] == target]
                    shares.append(sum(own) / len(own))
                by_hand.append(sum(shares) / 3)
            assert study.hits(ranks, part, top).accuracies == pytest.approx(by_hand)
