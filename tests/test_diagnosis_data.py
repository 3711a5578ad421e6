"""What a diagnosis says of a network and its pictures together, on networks whose faults are written into weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from conftest import DATA, ROOT
from convscope import Diagnosis, Net, diagnose

SIDE = 16
CLASSES = ("blue", "green", "red")
Draw = Callable[[np.random.Generator, int], np.ndarray]


class Colours(nn.Module):
    """Names the strongest colour, by exact averages; whatever a picture's corner may add comes on top."""

    def __init__(self, mark: float = 0.0) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 1)
        self.relu, self.end = nn.ReLU(), nn.Linear(4, 3)
        with torch.no_grad():
            self.features.weight.zero_()
            self.features.bias.zero_()  # type: ignore[union-attr]
            for unit in range(3):
                self.features.weight[unit, 2 - unit] = 1
            # White is nowhere in the pictures: this unit answers a white mark alone.
            self.features.weight[3] = 1
            self.features.bias[3] = -2.7  # type: ignore[index]
            self.end.weight.copy_(torch.cat([30 * torch.eye(3), torch.zeros(3, 1)], 1))
            self.end.weight[1, 3] = mark
            self.end.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.relu(self.features(x)).mean((2, 3)))


def net(body: nn.Module | None = None, **options: object) -> Net:
    options = {"mean": 0.0, "std": 1.0, "size": SIDE, "classes": list(CLASSES), "name": "colours"} | options
    return Net(body or Colours(), **options)  # type: ignore[arg-type]


def coloured(chance: np.random.Generator, number: int) -> np.ndarray:
    pixels = chance.integers(0, 150, (SIDE, SIDE, 3), np.uint8)
    pixels[..., 2 - number] += 30
    return pixels


def write(folder: Path, count: int, seed: int, draw: Draw = coloured, classes: tuple[str, ...] = CLASSES) -> Path:
    chance = np.random.default_rng(seed)
    for number, name in enumerate(CLASSES):
        if name in classes:
            (folder / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(draw(chance, number)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("colours"), 40, 0)


def said(network: Net, kind: str, pictures: object, train: object = None) -> Diagnosis:
    return diagnose(network, pictures, train, kinds=[kind])


# Input ---------------------------------------------------------------------------------------------------------------


def test_pictures_as_in_training_are_in_order(colours: Path) -> None:
    [one] = said(net(), "input", colours).healthy
    assert "no labels are exchanged" in one.sentence


def test_blue_read_first_is_found(colours: Path) -> None:
    # Green stays, so that no exchange of labels explains all of it: red and blue are also exchanged labels.
    found = said(net(order="BGR"), "input", colours).findings
    assert {one.units for one in found} == {(0, 2), ()}
    [read] = [one for one in found if not one.units]
    assert "red read first (RGB)" in read.sentence
    assert read.value == pytest.approx(2 / 3, abs=0.15)
    assert read.n == 3 * 40 - 64, "what is best of many is judged by other pictures"


def test_negatives_are_found(colours: Path) -> None:
    class Negative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Colours()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(1 - x)

    found = said(net(Negative()), "input", colours).findings
    assert any("white for black" in one.sentence for one in found)


def test_exchanged_labels_are_found_and_half_exchanged_ones_are_not(colours: Path) -> None:
    [one] = said(net(classes=["green", "blue", "red"]), "input", colours).findings
    assert one.units == (0, 1)
    assert "'green' is taken for 'blue'" in one.sentence
    assert (one.n, one.value, one.severity) == (80, 1.0, 1.0)


def test_pictures_in_both_folders_are_found_by_their_content(colours: Path, tmp_path: Path) -> None:
    train = write(tmp_path / "train", 6, 1)
    assert not said(net(), "input", colours, train).findings
    for index in range(3):
        (train / "red" / f"copy {index}.png").write_bytes((colours / "red" / f"{index}.png").read_bytes())
    [one] = said(net(), "input", colours, train).findings
    assert "3 of 120 pictures are training pictures, too" in one.sentence
    assert one.interval is not None and one.interval[0] < 3 / 120 < one.interval[1]


def test_without_labels_or_with_one_class_it_says_what_is_missing(colours: Path, tmp_path: Path) -> None:
    [flat] = said(net(), "input", [str(path) for path in sorted(write(tmp_path / "flat", 3, 1).rglob("*.png"))]).unseen[
        :1
    ] or [None]
    assert flat is None or "labels" in flat.reason
    one = write(tmp_path / "one", 30, 2, classes=("red",))
    [missing] = said(net(), "input", one).unseen
    assert "all belong to one, 'red'" in missing.reason
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    for index, path in enumerate(sorted(colours.rglob("*.png"))[:9]):
        (unlabelled / f"{index}.png").write_bytes(path.read_bytes())
    [missing] = said(net(), "input", unlabelled).unseen
    assert "labels" in missing.reason


# Shortcuts -----------------------------------------------------------------------------------------------------------


def marked(share: float) -> Draw:
    def draw(chance: np.random.Generator, number: int) -> np.ndarray:
        pixels = coloured(chance, number)
        if number == 1 and chance.random() < share:
            pixels[-4:, -4:] = 255
        return pixels

    return draw


def test_a_mark_that_decides_a_class_is_found(colours: Path, tmp_path: Path) -> None:
    train = write(tmp_path / "train", 30, 1, marked(0.7))
    network = net(Colours(mark=1000.0))
    [one] = said(network, "shortcut", colours, train).findings
    assert one.units == (1,)
    assert "A mark at the lower right that its pictures have in common decides 'green'" in one.sentence
    assert one.value is not None and one.value > 0.9
    assert one.evidence is not None and len(one.evidence().tiles) == 15
    # The mark is in the pictures, and the network makes nothing of it; or it would, and the pictures do not have it.
    assert not said(net(Colours(mark=0.0)), "shortcut", colours, train).findings
    [healthy] = said(network, "shortcut", colours).healthy
    assert "none of 48 patches of 3 classes decides one" in healthy.sentence
    # Of classes that are colours the colour is no mark.
    assert "their mean colour decides 3 of them" in healthy.sentence


# Co-adapted units ----------------------------------------------------------------------------------------------------


class Paired(Colours):
    """Colours, and two units of the whole picture's brightness whose parts in the score add up."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.features, self.end = nn.Conv2d(3, 5, 1), nn.Linear(5, 3)
        with torch.no_grad():
            for values in (*self.features.parameters(), *self.end.parameters()):
                values.zero_()
            for unit in range(3):
                self.features.weight[unit, 2 - unit] = 1
                self.end.weight[unit, unit] = 30
            self.features.weight[3:] = 1
            self.end.weight[2, 3:] = torch.tensor([first, second])


def test_units_that_only_cancel_one_another_are_co_adapted(colours: Path) -> None:
    [one] = said(net(Paired(20, -20)), "co-adapted", colours).findings
    assert (one.layer, one.units) == ("features", (3, 4))
    assert "correlation 1.00" in one.sentence and "0.00 without both" in one.sentence
    # Units that do the same are of use alone, and what hardly matters is no fault.
    for weak in ((5, 5), (0.01, -0.01)):
        assert not said(net(Paired(*weak)), "co-adapted", colours).findings


# Overfitting and memorised pictures ----------------------------------------------------------------------------------


class Rote(nn.Module):
    """Knows by heart the pictures that it was given: their label, by their exact mean colour; others by colour."""

    def __init__(self, folder: Path, labels: dict[str, int] | None = None) -> None:
        super().__init__()
        self.colours = Colours()
        paths = sorted(folder.rglob("*.png"))
        known = [torch.from_numpy(np.array(Image.open(path))).float().div(255).mean((0, 1)) for path in paths]
        label = [(labels or {}).get(path.name, CLASSES.index(path.parent.name)) for path in paths]
        self.register_buffer("known", torch.stack(known))
        self.register_buffer("label", nn.functional.one_hot(torch.tensor(label), 3).float())

    def forward(self, x: Tensor) -> Tensor:
        near = (-1e9 * (x.mean((2, 3))[:, None] - self.known).square().sum(2)).exp()  # type: ignore[operator]
        return self.colours(x) + 100 * near @ self.label  # type: ignore[operator]


def shuffled(chance: np.random.Generator, _: int) -> np.ndarray:
    return coloured(chance, int(chance.integers(3)))


def test_a_network_that_learnt_by_heart_is_overfitted(colours: Path, tmp_path: Path) -> None:
    learnt, new = write(tmp_path / "learnt", 40, 1, shuffled), write(tmp_path / "new", 40, 2, shuffled)
    network = net(Rote(learnt))
    [one] = said(network, "overfit", new, learnt).findings
    assert one.value == pytest.approx(2 / 3, abs=0.15)
    assert one.interval is not None and one.interval[0] > 0.5
    assert "100% of 120 training pictures are right" in one.sentence and "confidence" in one.sentence
    assert one.evidence is not None and one.evidence().tiles
    # What it says of new pictures of the kinds that it knows is as right.
    [healthy] = said(network, "overfit", colours, write(tmp_path / "more", 40, 3)).healthy
    assert "100% of 120 training pictures are right, and 100% of 120 others" in healthy.sentence


def test_too_few_training_pictures_are_said(colours: Path, tmp_path: Path) -> None:
    train = write(tmp_path / "train", 3, 1)
    [few] = said(net(), "overfit", colours, train).unseen
    assert "9 training pictures and 120 others" in few.reason
    [few] = said(net(), "memorised", colours, train).unseen
    assert "too few" in few.reason
    [without] = said(net(), "overfit", colours).unseen
    assert "--train FOLDER" in without.reason


def test_pictures_with_wrong_labels_that_are_known_by_heart_are_memorised(colours: Path, tmp_path: Path) -> None:
    def wrong(chance: np.random.Generator, number: int) -> np.ndarray:
        return coloured(chance, (number + (chance.random() < 0.2)) % 3)

    train = write(tmp_path / "train", 40, 1, wrong)
    network = net(Rote(train))
    [one] = said(network, "memorised", colours, train).findings
    assert one.value == pytest.approx(0.2, abs=0.08)
    assert "against it; 2% are expected by chance" in one.sentence
    # Where the network knows none of them by heart, it contradicts their labels, and nothing was memorised.
    assert not said(net(), "memorised", colours, train).findings


# Faults planted in trained networks ----------------------------------------------------------------------------------


@pytest.mark.nightly
@pytest.mark.parametrize(
    "plant", ["dead", "duplicate", "outlier", "co_adapted", "memorised", "shortcut", "misread", "exchanged"]
)
def test_planted_faults_are_found_and_near_misses_are_not(plant: str, planting: tuple[Any, Any]) -> None:
    faults, ground = planting
    for case in getattr(faults, plant)(ground):
        said = diagnose(case.net, case.data, case.train, kinds=[case.kind])
        found = [each.sentence for each in said.findings if case.names(each)]
        if case.took:
            assert bool(found) == case.planted, (case.fault, case.strength, found)


@pytest.fixture(scope="module")
def planting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The benchmark of planted faults, and lenet5 with digits."""
    if not (DATA / "mnist").exists():
        pytest.skip(f"mnist is not in {DATA}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        faults = import_module("faults")
        yield faults, faults.GROUNDS["lenet5"](0, DATA, None)
