"""When layers settle: similarities against loops and laws, planted trainings, and snapshots that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import convscope
from convscope import Net
from convscope import evolution_study as evolution
from convscope.cli import run
from convscope.errors import LayerError, OptionError
from convscope.registry import load_all
from convscope.studies import evolution as module
from convscope.studies.similarity import cka_interval, common_neighbours, debiased_cka, gram
from networks import pictures, tiny, tiny_body


def features(n: int, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, count))


def test_debiased_cka_is_that_of_the_unbiased_estimator() -> None:
    """HSIC by its definition, a sum over all distinct pictures."""

    def hsic(k: np.ndarray, m: np.ndarray) -> float:
        n = len(k)
        pairs = sum(k[i, j] * m[i, j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        fours = [(i, j, q, r) for i in range(n) for j in range(n) for q in range(n) for r in range(n)
                 if len({i, j, q, r}) == 4]  # fmt: skip
        threes = [(i, j, q) for i in range(n) for j in range(n) for q in range(n) if len({i, j, q}) == 3]
        both = sum(k[i, j] * m[q, r] for i, j, q, r in fours) / len(fours)
        chain = sum(k[i, j] * m[i, q] for i, j, q in threes) / len(threes)
        return pairs + both - 2 * chain

    one, other = gram(features(7, 4)), gram(features(7, 30, 1))
    expected = hsic(one, other) / np.sqrt(hsic(one, one) * hsic(other, other))
    assert debiased_cka(one, other) == pytest.approx(expected)


def test_laws_of_similarity() -> None:
    x = features(40, 12)
    turn, _ = np.linalg.qr(features(12, 12, 1))
    own, turned = gram(x), gram(3 * x @ turn + 5)
    assert debiased_cka(own, turned) == pytest.approx(1) and common_neighbours(own, turned).min() == 1
    # More features than pictures: the biased estimator would be near 1.
    unrelated = [debiased_cka(gram(features(40, 2000, s)), gram(features(40, 2000, s + 50))) for s in range(20)]
    assert abs(np.mean(unrelated)) < 0.02
    chance = common_neighbours(own, gram(features(40, 12, 9))).mean()
    assert abs(chance - 10 / 39) < 0.08
    # Two outliers move CKA and leave neighbours nearly as they are.
    far, other = x.copy(), features(40, 12, 3)
    far[:2] += 200
    other[:2] += 200
    assert debiased_cka(gram(far), gram(other)) > 0.9 and common_neighbours(gram(far), gram(other)).mean() < 0.4
    interval = cka_interval(own, gram(x + 0.3 * features(40, 12, 4)))
    assert interval.low < interval.value < interval.high < 1 and interval.n == 40
    assert np.isnan(debiased_cka(own[:3, :3], own[:3, :3])) and np.isnan(cka_interval(own * 0, own).value)


def test_products_of_many_features_are_summed_in_pieces() -> None:
    wide = features(4, 5_000_000 // 2)
    centred = wide - wide.mean(0)
    assert gram(wide) == pytest.approx(centred @ centred.T)


def training(steps: int) -> list[tuple[str, Net]]:
    """Snapshots whose first layer settles at once, and whose second only in the end."""
    found = list[tuple[str, Net]]()
    for step in range(steps):
        body = tiny_body("sequential")
        if step < steps - 1:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(step)
                torch.nn.init.normal_(body[3].weight)
        found.append((f"step {step}", Net(body, size=20)))
    return found


def test_what_settles_first_is_found() -> None:
    data = list(pictures(30, side=20))
    study = evolution(tiny("sequential"), data, snapshots=training(4), layers=["0", "3"], units=2)
    numbers = study.numbers()
    for name in ("cka", "neighbours", "strongest", "projections"):
        assert numbers[name].shape == (4, 2) and numbers[name][-1] == pytest.approx(1)
        assert numbers[name][:, 0] == pytest.approx(1), "the first layer is the same all along"
        assert numbers[name][:-1, 1].max() < 0.95
    assert [row["cka"] for row in study.readable.records] == ["step 0", "step 3"]
    row = next(each for each in study.table.records if (each["snapshot"], each["layer"]) == ("step 0", "3"))
    assert row["cka_low"] <= row["cka"] <= row["cka_high"] and row["n"] == 30


def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    data, snapshots = list(pictures(12, side=20)), training(3)
    first = evolution(tiny("sequential"), data, snapshots=snapshots, layers=["0"], units=1, keep=tmp_path)
    parts = sorted(tmp_path.glob("*/*.npz"))
    assert len(parts) == 6
    parts[0].unlink()
    again = evolution(tiny("sequential"), data, snapshots=snapshots, layers=["0"], units=1, keep=tmp_path)
    assert again._repr_png_() == first._repr_png_() and len(list(tmp_path.glob("*/*.npz"))) == 6


def test_snapshots_that_do_not_fit() -> None:
    net, data = tiny("sequential"), list(pictures(6, side=20))
    others = [("a", net), ("b", Net(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)), size=20))]
    with pytest.raises(LayerError, match="snapshots are of one network, and none of 3 is the same in 'a'"):
        evolution(net, data, snapshots=others, layers=["3"])
    body = tiny_body("sequential")
    body[3] = torch.nn.Conv2d(6, 8, 5, padding=2).double()
    body[1] = torch.nn.Sequential(torch.nn.ReLU())
    study = evolution(net, data, snapshots=[("a", Net(body, size=20)), ("b", net)], layers=["0", "2"], units=1)
    assert study.recipe.settled["layers"] == ["0", "2"]
    with pytest.raises(OptionError, match="several snapshots"):
        evolution(net, data, snapshots=[("a", net)])
    with pytest.raises(OptionError, match="four pictures or more; given: 3"):
        evolution(net, data[:3], snapshots=[("a", net), ("b", net)])


def test_what_is_registered_and_public_has_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figure is `convscope.evolution`, the study `convscope.evolution_study`, `study evolution` in a shell."""
    for name, entry in load_all().items():
        if not entry.attributes:
            assert getattr(convscope, name).__wrapped__ is entry.function
    assert convscope.evolution is not evolution
    with pytest.warns(DeprecationWarning, match="is called convscope.evolution_study now"):
        assert module.evolution is evolution  # type: ignore[attr-defined]
    monkeypatch.chdir(tmp_path)
    settings = '[defaults.evolution-study]\nlimit = 3\n[defaults.evolution]\natlases = "kept"'
    (tmp_path / "convscope.toml").write_text(settings)
    assert run(["study", "evolution", *(f"sample:digits/{number}" for number in range(5)), "--net", "lenet5"]) == 2
    assert "given: 3" in capsys.readouterr().err, "each has a table of defaults of its own"
    assert run(["study", "evolution-study", "sample:digits/1"]) == 2
    assert "it is called as convscope study evolution" in capsys.readouterr().err
