"""`reproduce`: rules that can fail, a paper's experiments on networks, what is refused, and what is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope
from convscope import Net
from convscope.cli import run
from convscope.errors import ConvscopeError, NetworkError, OptionError, PictureError
from convscope.reproductions import registration
from convscope.reproductions.claims import FAILS, HOLDS, OPEN, Statement, above, below, every
from convscope.reproductions.papers import PAPERS, Paper
from convscope.reproductions.registration import Found, Unfit, experiment, experiments
from convscope.reproductions.sampling import evenly, of_classes
from convscope.reproductions.sources import Digits, Given, pool
from convscope.reproductions.subject import Subject
from convscope.reproductions.zeiler_fergus import (
    ablation,
    evolution,
    occlusion,
    parts,
    probes,
    top_patches,
    transferring,
)  # fmt: skip
from convscope.reproductions.zeiler_fergus.invariance import _Curves
from convscope.studies.intervals import Interval

NAN = math.nan
SAID = Statement("rises", "Numbers rise", rule="the mean lies above 0.", paper="2 and 3.")


def between(low: float, high: float, n: int = 100) -> Interval:
    return Interval((low + high) / 2, low, high, n)


# Rules --------------------------------------------------------------------------------------------------------------


def test_an_interval_is_above_or_below_a_bound_or_leaves_it_open_where_it_is_of_few() -> None:
    assert above(between(0.1, 0.5)) is True and below(between(-0.5, -0.1)) is True
    assert above(between(-0.5, -0.1)) is False and below(between(0.1, 0.5)) is False
    assert above(between(-0.1, 0.5)) is False and below(between(-0.5, 0.1)) is False
    assert above(between(-0.1, 0.5, n=19)) is None and below(between(-0.5, 0.1, n=19)) is None
    assert above(between(-0.5, -0.1, n=19)) is False  # also few can show the contrary
    assert above(Interval(0.5, NAN, NAN, 1)) is None and below(Interval(NAN, NAN, NAN, 0)) is None
    assert above(between(0.4, 0.6), 0.35) is True and below(between(0.4, 0.7), 0.65) is False


def test_a_rule_of_several_parts_fails_with_one_and_is_open_with_one() -> None:
    assert every([True, True]) is True
    assert every([True, None, False]) is False
    assert every([True, None]) is None
    assert every([]) is None


def test_a_verdict_says_what_the_same_rule_says_of_an_untrained_copy() -> None:
    claim = SAID.judged(True, "5.", untrained=True, numbers={"mean": between(1, 3)})
    assert (claim.verdict, claim.told) == (HOLDS, "holds, and in an untrained copy too")
    assert claim.record()["numbers"] == {"mean": {"value": 2.0, "low": 1.0, "high": 3.0, "n": 100}}
    assert SAID.judged(True, "5.", untrained=False).told == HOLDS
    assert SAID.judged(False, "5.", untrained=True).told == "does not hold, but in an untrained copy it does"
    assert (SAID.judged(False, "5.").verdict, SAID.judged(None, "5.").verdict) == (FAILS, OPEN)
    assert SAID.judged(None, "5.").reason == "too few pictures to tell"
    assert SAID.unjudged("no labels").record() | {"figure": "", "network": ""} == {
        "figure": "", "name": "rises", "network": "", "verdict": OPEN, "sentence": "Numbers rise",
        "rule": "the mean lies above 0.", "paper": "2 and 3.", "ours": "", "reason": "no labels", "untrained": None,
        "numbers": {},
    }  # fmt: skip


def curves(first: float, last: float, pictures: int = 30) -> _Curves:
    """Return curves of two layers that rise as powers of how far the change goes."""
    moved, enlarged = np.abs(np.linspace(-1, 1, 13)), np.linspace(0, 1, 13)
    each = np.stack([[far**first, far**last] for far in (moved, moved, enlarged, enlarged)])
    noise = np.random.default_rng(0).uniform(0.9, 1.1, (4, 2, pictures, 1))
    return _Curves({"distances": each[:, :, None] * noise}, (224, 224), 0)


def test_the_rules_of_invariance_hold_and_fail_by_the_curves() -> None:
    as_in_the_paper = curves(first=0.2, last=1.0)
    assert above(as_in_the_paper.later()) is True
    assert as_in_the_paper.later().value == pytest.approx(
        0.5 - 0.5 / 0.6988 / 6, abs=0.02
    )  # 6 steps: half within the first
    assert as_in_the_paper.linear is True
    other_way_round = curves(first=1.0, last=0.2)
    assert above(other_way_round.later()) is False and other_way_round.linear is False
    assert curves(first=1.0, last=1.0).later().value == pytest.approx(0, abs=1e-9)


def test_the_rule_of_the_strongest_pictures_asks_for_a_rise_with_depth() -> None:
    random = np.random.default_rng(0)
    layers = [random.uniform(low, low + 0.2, 64) for low in (0.1, 0.2, 0.3, 0.5)]
    assert top_patches.rises(layers, 0) is True
    assert top_patches.rises(layers[::-1], 0) is False
    assert top_patches.rises([layers[0], layers[3], layers[2], layers[1]], 0) is False  # higher at the end, no trend
    assert top_patches.rises([layers[0]] * 4, 0) is False


def test_the_rule_of_evolution_asks_for_a_fall_by_both_measures_and_for_the_first_snapshot() -> None:
    falling = np.array([[0.9, 0.7, 0.5, 0.3], [0.95, 0.9, 0.8, 0.6], [1, 1, 1, 1]])
    assert evolution.trend(falling) == pytest.approx(-1)
    assert evolution.trend(falling[:, ::-1]) == pytest.approx(1)
    both, lowest, highest = {"cka": -1.0, "neighbours": -0.8}, between(0.85, 0.95), between(0.2, 0.4)
    assert evolution.settled_first(both, lowest, highest) is True
    assert evolution.settled_first(both | {"neighbours": -0.6}, lowest, highest) is False
    assert evolution.settled_first(both, between(0.2, 0.5), highest) is False
    assert evolution.settled_first(both, between(0.85, 0.95, n=10), highest) is None


def test_the_rule_of_occlusion_asks_for_more_than_another_pictures_projection() -> None:
    random = np.random.default_rng(0)
    own, shuffled = random.uniform(0.4, 0.6, 40), random.uniform(0.1, 0.3, 40)
    found = occlusion.judged_by(np.stack([own, shuffled], 1), 0)
    assert [above(each) for each in found.values()] == [True, True]
    found = occlusion.judged_by(np.stack([own, own[::-1]], 1), 0)
    assert [above(each) for each in found.values()] == [True, False]
    found = occlusion.judged_by(np.stack([-own, shuffled], 1), 0)
    assert [above(each) for each in found.values()] == [False, False]


def test_the_energy_under_a_square_is_that_of_its_pixels() -> None:
    projection = torch.zeros(2, 6, 6)
    projection[0, 1, 1], projection[1, 5, 5] = -2.0, 3.0
    squares = occlusion.squares_over(torch.zeros(1, 1, 6, 6), 2, 2)
    energy = occlusion.energy_under(projection, squares)
    assert energy.tolist() == [4, 0, 0, 0, 0, 0, 0, 0, 9]


def test_the_rule_of_parts_asks_for_a_gap_that_shrinks() -> None:
    assert parts.shrinks(between(-0.3, -0.2), between(-0.1, 0.0)) is True
    assert parts.shrinks(between(-0.3, -0.2), between(-0.25, -0.1)) is False
    assert parts.shrinks(between(-0.3, -0.2, n=1), between(-0.1, 0.0, n=1)) is None


def test_the_rules_of_ablation_fail_where_one_pair_costs_as_much_as_both() -> None:
    both, little = between(0.2, 0.4), between(-0.02, 0.1)
    assert ablation.costs_most(both, little, little) is True and ablation.cost_little(both, little, little) is True
    assert ablation.costs_most(both, between(0.3, 0.5), little) is False
    assert ablation.cost_little(both, between(0.2, 0.3), little) is False
    assert ablation.costs_most(between(-0.1, 0.2), little, little) is False
    assert ablation.cost_little(between(-0.1, 0.2), little, little) is None


def test_the_rule_of_few_pictures_fails_where_scratch_catches_up() -> None:
    scratch = [between(0.1, 0.2), between(0.3, 0.4)]
    assert transferring.enough([between(0.4, 0.5), between(0.6, 0.7)], scratch) is True
    assert transferring.enough([between(0.2, 0.3), between(0.6, 0.7)], scratch) is False  # only with as many
    assert transferring.enough(scratch[:1], scratch[:1]) is None


def test_the_rule_of_probes_fails_where_the_middle_is_best() -> None:
    assert probes.rises([0.1, 0.2, 0.3, 0.4], between(0.35, 0.45)) is True
    assert probes.rises([0.1, 0.5, 0.4, 0.2], between(0.15, 0.25)) is False
    assert probes.rises([0.1, 0.11, 0.12, 0.13], between(0.09, 0.17)) is False
    assert probes.rises([0.1, 0.2], between(0.15, 0.25)) is None


# Data ---------------------------------------------------------------------------------------------------------------


def test_rows_are_drawn_evenly_over_classes_and_again_the_same() -> None:
    targets = [0] * 50 + [1] * 5 + [2] * 45
    rows = evenly(targets, 12, seed=3)
    assert [sum(targets[row] == each for row in rows) for each in range(3)] == [4, 4, 4]
    assert rows == evenly(targets, 12, seed=3) != evenly(targets, 12, seed=4)
    assert len(evenly(targets, 1000, seed=0)) == 100
    few = {targets[evenly(targets, 1, seed=seed)[0]] for seed in range(20)}
    assert few == {0, 1, 2}  # not always the first class


def test_digits_that_ship_are_those_that_lenet5_has_not_learnt() -> None:
    pytest.importorskip("sklearn")
    held, learnt = Digits(held_out=True), Digits(held_out=False)
    assert (len(held), len(learnt)) == (397, 1400)
    assert not {image.tobytes() for image in held.images} & {image.tobytes() for image in learnt.images}
    # The ten of the package are held out as well: they tell that these are drawn as they were for the training.
    ten = [np.array(Image.open(path)) for path in convscope.data.samples.digits()]
    near = [min(np.abs(image.astype(int) - own).mean() for image in held.images) for own in ten]
    assert max(near) < 2


def folder_of(home: Path, classes: int = 3, each: int = 4, size: int = 28) -> Path:
    """Write noise of different means, a folder for each class."""
    random = np.random.default_rng(0)
    for number in range(classes):
        for at in range(each):
            place = home / str(number) / f"{at}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.uniform(0, 120, (size, size)) + 40 * number
            Image.fromarray(pixels.astype(np.uint8)).save(place)
    return home


def tiny(name: str = "tiny", classes: int = 3) -> Net:
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, 4, 5, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(6 * 4 * 4, classes),
    )  # fmt: skip
    return Net(body, mean=0.5, std=0.5, size=28, channels=1, name=name, classes=[*map(str, range(classes))])


def test_pictures_go_to_the_network_that_they_are_named_for(tmp_path: Path) -> None:
    own, others = folder_of(tmp_path / "own", classes=2), folder_of(tmp_path / "others")
    net, second = tiny("mine", 2), tiny("second")
    given = Given({"mine": str(own), "": str(others)}, train=str(others))
    assert pool(net, given, tmp_path, limit=0, seed=0, quick=False).words == str(own)
    found = pool(second, given, tmp_path, limit=6, seed=0, quick=False)
    assert (found.words, len(found.data), len(found.source)) == (str(others), 6, 12)
    assert found.data.counts == {"0": 2, "1": 2, "2": 2}
    assert found.learnt is not None and found.others is None
    assert len(of_classes(found.data, 2, 1, seed=0)) == 2


def test_lenet5_is_judged_by_digits_where_the_pictures_show_other_things(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    net, things = convscope.load("lenet5"), folder_of(tmp_path / "things", classes=2)
    for old, new in (("0", "cat"), ("1", "dog")):
        (things / old).rename(things / new)
    found = pool(net, Given(str(things)), tmp_path, limit=20, seed=0, quick=False)
    assert "digits of scikit-learn" in found.words and len(found.data) == 20 and found.learnt is not None
    given = pool(net, Given({"lenet5": str(things)}), tmp_path, limit=0, seed=0, quick=False)
    assert given.words == str(things)  # named for it, so it is asked for
    digits = folder_of(tmp_path / "digits", classes=10, each=1)
    assert pool(net, Given(str(digits)), tmp_path, limit=0, seed=0, quick=False).words == str(digits)


# Experiments --------------------------------------------------------------------------------------------------------


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A paper with two experiments; returns what was computed."""
    monkeypatch.setitem(PAPERS, "made-up", Paper("made-up", "A paper", "Nobody 2026", "zeiler_fergus"))
    monkeypatch.setattr(registration, "_EXPERIMENTS", dict(registration._EXPERIMENTS))
    computed: list[str] = []

    @experiment("made-up", 20, "Fig. 2", "Numbers", did="two numbers were shown.", differs="all.", claims=(SAID,))
    def numbers(subject: Subject) -> Found:
        def make() -> dict[str, torch.Tensor]:
            computed.append(subject.net.name)
            return {"mean": torch.tensor([2.0])}

        mean = subject.kept("numbers", subject.data, make)["mean"]
        return Found("twice", [SAID.judged(float(mean[0]) > 0, "2.", untrained=True)])

    @experiment("made-up", 10, "Fig. 1", "Colours", did="it was coloured.", claims=(Statement("c", "C", "r", "p"),))
    def colours(subject: Subject) -> Found:
        raise Unfit(f"{subject.net.name} sees no colours")

    return computed


def test_a_reproduction_is_a_report_json_and_a_table(tmp_path: Path, made_up: list[str]) -> None:
    data = folder_of(tmp_path / "data")
    made = convscope.reproduce("made_up", [tiny("a"), tiny("b")], str(data))
    assert [each.name for each in experiments(PAPERS["made-up"])] == ["colours", "numbers"]
    assert [(claim.figure, claim.network, claim.verdict) for claim in made.claims] == [
        ("Fig. 1", "a", OPEN), ("Fig. 1", "b", OPEN), ("Fig. 2", "a", HOLDS), ("Fig. 2", "b", HOLDS),
    ]  # fmt: skip
    assert made.headline == (
        "made-up on a, b: 2 claims hold (2 of them in an untrained copy too), 0 do not, 2 cannot be judged here"
    )
    document = json.loads(made.save(tmp_path / "v.json").read_text())
    assert document["claims"][0]["reason"] == "a sees no colours"
    assert [(each["name"], each["pictures"], each["classes"]) for each in document["networks"]] == [
        ("a", 12, 3), ("b", 12, 3),
    ]  # fmt: skip
    page = made.save(tmp_path / "r.html").read_text()
    for text in (
        "made-up on a, b", "What the paper did: two numbers were shown.", "What is different here: all.",
        "Rule: the mean lies above 0.", "The paper: 2 and 3.", "holds, and in an untrained copy too",
        "Not done: a sees no colours.",
    ):  # fmt: skip
        assert text in page, text
    assert page.index("What holds") < page.index("<h2>Fig. 1: Colours") < page.index("<h2>Fig. 2: Numbers")
    assert made.save(tmp_path / "r.pdf").read_bytes()[:4] == b"%PDF"
    assert 'Fig. 2,Numbers rise,b,"holds, and in an untrained copy too"' in made.save(tmp_path / "v.csv").read_text()


def test_what_was_kept_is_not_computed_again_but_for_other_seeds(tmp_path: Path, made_up: list[str]) -> None:
    data, net = str(folder_of(tmp_path / "data")), tiny()
    for seed in (0, 0, 1):
        made = convscope.reproduce("made-up", net, data, keep=tmp_path / "kept", seed=seed)
        assert made.of("rises")[0].verdict == HOLDS
    assert made_up == ["tiny"] * 2


def test_the_command_takes_its_own_folder_away_when_all_is_whole(
    tmp_path: Path, made_up: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = folder_of(tmp_path / "data", classes=10, each=1)
    monkeypatch.chdir(tmp_path)
    words = ["reproduce", "made-up", "--net", "lenet5", "--data", str(data)]
    assert run([*words, "-o", "r.html", "--json", "v.json"]) == 0
    assert "Fig. 2              lenet5                holds" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"data", "r.html", "v.json"}
    assert run([*words, "--keep", "kept", "-o", "r.pdf"]) == 0
    assert (tmp_path / "kept").is_dir()

    def ended(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("convscope.reproductions.reproducing.experiments", ended)
    assert run([*words, "-o", "s.html"]) == 130
    assert "s-parts. Run the same command again to go on" in capsys.readouterr().err
    assert (tmp_path / "s-parts").is_dir() and not (tmp_path / "s.html").exists()


def test_pictures_that_cannot_be_read_are_named_and_end_in_3(
    tmp_path: Path, made_up: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_of(tmp_path / "data", classes=10, each=1)
    (data / "0" / "broken.png").write_bytes(b"no picture")
    words = ["reproduce", "made-up", "--net", "lenet5", "--data", str(data), "-o", str(tmp_path / "r.html")]
    assert run(words) == 3
    assert "broken.png" in capsys.readouterr().err
    assert (
        "1 pictures that could not be read" in (tmp_path / "r.html").read_text()
        or "broken.png" in (tmp_path / "r.html").read_text()
    )


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["alexnet"], "there is no paper 'alexnet' to reproduce; papers: zeiler-fergus"),
        (["zeiler-fergus", "-o", "r.docx"], "endings are .html, .pdf"),
        (["zeiler-fergus", "--json", "v.csv"], ".json"),
        (["zeiler-fergus", "--net", "zfnet65"], "zfnet65"),
        (["zeiler-fergus", "--net", "lenet5", "--net", "lenet5"], "two networks are called 'lenet5'"),
        (["zeiler-fergus", "--net", "lenet5", "--data", "lenet5=nowhere"], "nowhere"),
        (["zeiler-fergus", "--net", "lenet5", "--limit", "-1"], "limit"),
    ],
)
def test_what_is_wrong_is_refused_before_any_work(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convscope.reproductions.reproducing.experiments", None)
    assert run(["reproduce", *words]) == 2
    assert said in capsys.readouterr().err
    assert not [path.name for path in tmp_path.iterdir() if path.suffix]


def test_python_refuses_what_is_no_paper_network_or_picture(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no paper"):
        convscope.reproduce("simon", tiny())
    with pytest.raises(NetworkError, match="needs a Net"):
        convscope.reproduce("zeiler-fergus", nn.ReLU())  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no network"):
        convscope.reproduce("zeiler-fergus", [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError):
        convscope.reproduce("zeiler-fergus", tiny(), str(tmp_path / "empty"))
    with pytest.raises(ConvscopeError, match="stream"):
        convscope.reproduce("zeiler-fergus", tiny(), iter([Image.new("L", (28, 28))]))


# All of it ----------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_all_of_zeiler_and_fergus_on_digits_that_ship(tmp_path: Path) -> None:
    for package in ("sklearn", "pyarrow"):
        pytest.importorskip(package)
    made = convscope.reproduce("zeiler-fergus", "lenet5", quick=True, keep=tmp_path / "kept")
    verdicts = {claim.name: claim for claim in made.claims}
    assert len(verdicts) == sum(len(each.claims) for each in experiments(PAPERS["zeiler-fergus"])) >= 15
    assert "no variants" in verdicts["both-pairs-cost-most"].reason
    assert "no parts are marked" in verdicts["parts-correspond"].reason
    assert "has learnt the classes" in verdicts["pretrained-beats-scratch"].reason
    assert verdicts["first-layer-moves-faster"].verdict == HOLDS
    for name in ("r.html", "r.pdf", "v.json", "v.md"):
        assert made.save(tmp_path / name).stat().st_size > 1000
    page = (tmp_path / "r.html").read_text()
    again = convscope.reproduce("zeiler-fergus", "lenet5", quick=True, keep=tmp_path / "kept")
    assert again.json() == made.json()
    assert again.save(tmp_path / "r.html").read_text() == page
