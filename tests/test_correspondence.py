"""Zeiler & Fergus' Fig. 8 and Table 1: signs of changes by loops, nulls, aligned parts, and boxes that are none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convscope import Net, Study, correspondence, explain, tap
from convscope.context import listen
from convscope.errors import OptionError
from convscope.studies.correspondence import FACES, differing, signs
from convscope.studies.parts import aligned
from networks import pictures, tiny

SIDE = 20
PLACES = {"eye": ((3, 4), (5, 6), (4, 5)), "nose": ((9, 9), (11, 12), (12, 9))}


@pytest.fixture
def net() -> Net:
    return tiny("sequential")


def written(folder: Path, images: Sequence[np.ndarray]) -> list[Path]:
    paths = [folder / f"{number}.png" for number, _ in enumerate(images)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def table(folder: Path, rows: Sequence[str]) -> Path:
    (folder / "boxes.csv").write_text("\n".join(["path,class,left,top,right,bottom", *rows]) + "\n")
    return folder / "boxes.csv"


@pytest.fixture
def marked(tmp_path: Path) -> tuple[list[Path], Path]:
    """Three pictures, and boxes of 4 pixels around two parts in each."""
    generator = np.random.default_rng(0)
    paths = written(tmp_path, [generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(3)])
    rows = [
        f"{row}.png,{part},{x - 2},{y - 2},{x + 2},{y + 2}"
        for part, places in PLACES.items()
        for row, (y, x) in enumerate(places)
    ]
    return paths, table(tmp_path, rows)


def test_differences_are_shares_of_signs_that_differ(net: Net, marked: tuple[list[Path], Path]) -> None:
    paths, boxes = marked
    study = correspondence(net, paths, boxes=boxes, layers=["1"], align=False, draws=2, untrained=False)
    three = torch.cat([net.read(path) for path in paths])
    mean = torch.tensor(net.mean, dtype=three.dtype)[:, None, None]
    found: dict[str, list[torch.Tensor]] = {}
    for part, places in PLACES.items():
        covered = three.clone()
        for pixels, (y, x) in zip(covered, places, strict=True):
            pixels[:, y - 2 : y + 2, x - 2 : x + 2] = mean
        change = (tap(net, three, ["1"])["1"] - tap(net, covered, ["1"])["1"]).double().flatten(1)
        found[part] = list(torch.where(change.abs() > 1e-9, change, 0).sign())
    values = study.numbers()["differences"][0, :, 0]
    for row, part in enumerate(PLACES):
        for i, j in permutations(range(3), 2):
            expected = np.mean([float(a != b) for a, b in zip(found[part][i], found[part][j], strict=True)])
            assert values[row, i, j] == pytest.approx(expected)
    for i, j in permutations(range(3), 2):  # different parts
        pairs = [(found[a][i], found[b][j]) for a, b in permutations(PLACES)]
        assert values[2, i, j] == pytest.approx(np.mean([float((a != b).double().mean()) for a, b in pairs]))
    (row,) = [each for each in study.table.records if each["part"] == "eye"]
    whole = values[0][~np.isnan(values[0])]
    assert row["difference"] == pytest.approx(whole.mean()) and row["sd"] == pytest.approx(whole.std())
    assert (row["n"], row["pairs"]) == (3, 6)


def test_identities() -> None:
    """Identical pictures give 0; it is symmetric and between 0 and 1; random signs of 1 and -1 differ by a half."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randint(0, 2, (6, 4000), generator=generator) * 2 - 1
    shares = differing(random, random)
    assert torch.equal(shares.nan_to_num(), shares.nan_to_num().T) and shares.isnan().sum() == 6
    assert float(shares.nanmean()) == pytest.approx(0.5, abs=0.01)
    assert float(shares.nansum()) == pytest.approx(30 * float(shares.nanmean()))
    assert not differing(random[:1].expand(3, -1), random[:1].expand(3, -1)).nan_to_num().any()
    features = torch.tensor([[2.0, 0, 1], [1, 0, 3], [2.0, 1e-9, 1]])
    assert signs(features).tolist() == [[1, 0, -1], [0, 0, 0]], "three values; rounding is no change"


def test_the_same_picture_moved_is_aligned(net: Net) -> None:
    """A picture and itself moved by whole pixels become the same where both have content, with parts at one place."""
    picture = torch.zeros(3, SIDE, SIDE, dtype=torch.float64)
    picture[:, 5:15, 6:14] = pictures(1, side=SIDE)[0, :, :10, :8]
    moved = picture.roll((2, -3), (1, 2))
    places = {"a": [(6, 8, 7, 9), (8, 10, 4, 6)], "b": [(12, 14, 11, 13), (14, 16, 8, 10)]}
    both, parts = aligned([net.prepare(picture), net.prepare(moved)], places)
    np.testing.assert_allclose(both[0].pixels, both[1].pixels, atol=1e-6)
    assert len({*parts["a"]}) == len({*parts["b"]}) == 1, "one place in all pictures"
    twice = torch.nn.functional.interpolate(picture[None], scale_factor=2, mode="bilinear")[0, :, 9:29, 9:29]
    for part, ((top, bottom, left, right), _) in places.items():
        places[part][1] = (2 * top - 9, 2 * bottom - 9, 2 * left - 9, 2 * right - 9)
    (one, other), _ = aligned([net.prepare(picture), net.prepare(twice)], places)
    middles = [each.pixels[:, 7:13, 7:13].ravel() for each in (one, other)]
    assert np.corrcoef(middles)[0, 1] > 0.9


def test_a_planted_part_corresponds_where_random_places_do_not(tmp_path: Path) -> None:
    """A network that sees red alone, and pictures whose red square lies elsewhere in each."""
    images = [np.full((SIDE, SIDE, 3), (0, 90, 90), np.uint8) for _ in range(6)]
    rows = list[str]()
    for number, image in enumerate(images):
        top, left = 2 + number, 12 - number
        image[top : top + 4, left : left + 4, 0] = 255
        rows += [f"{number}.png,square,{left},{top},{left + 4},{top + 4}"]
    body = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    )
    body[0].weight.data.zero_()
    body[0].weight.data[:, 0], body[0].bias.data[:] = 1, 0
    net = Net(body.eval(), size=SIDE, mean=[0.3] * 3, std=[1] * 3)
    study = correspondence(net, written(tmp_path, images), boxes=table(tmp_path, rows), layers=["2"], untrained=False)
    by_part = {row["part"]: row for row in study.table.records}
    assert by_part["square"]["difference"] == 0 and by_part["random places"]["difference"] > 0.3
    assert by_part["square"]["to_random_high"] < 0
    assert "differ less than random places in 2, clearly so" in study.gist and "different parts" not in by_part


def test_without_boxes_a_channel_says_where_they_are(net: Net) -> None:
    two = pictures(2, side=SIDE)
    study = correspondence(net, list(two), patch=3, draws=2)
    (name, places), *_ = study.recipe.settled["places"].items()
    for pixels, (top, bottom, left, right) in zip(two, places, strict=True):
        strongest = explain(net, pixels, "activation", f"{name}@max").flat
        y, x = np.unravel_index(strongest.argmax(), strongest.shape)
        assert abs(y - (top + bottom) / 2) <= 5 and abs(x - (left + right) / 2) <= 5
    assert "too few to tell" in study.gist and [row["weights"] for row in study.table.records][-1] == "random weights"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            ["0.png,eye,10,0,30,4", "1.png,eye,0,0,4,4"],
            r"the box \(10, 0, 30, 4\) of 'eye' is no box inside of .*20 × 20",
        ),
        (["0.png,eye,8,0,4,4", "1.png,eye,0,0,4,4"], "is no box inside"),
        (["a.png,eye,0,0,4,4"], "marks none of the 3 pictures: its first path is 'a.png'"),
        (["0.png,eye,0,0,4,4", "0.png,eye,1,0,5,4"], "marks 'eye' in 0.png twice"),
        (["0.png,eye,0,0,4,4"], "give at least two"),
    ],
)
def test_boxes_that_are_none(net: Net, marked: tuple[list[Path], Path], rows: list[str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        correspondence(net, marked[0], boxes=table(marked[0][0].parent, rows))


def test_pictures_without_all_parts_are_left_out_and_said(net: Net, marked: tuple[list[Path], Path]) -> None:
    paths, boxes = marked
    table(paths[0].parent, boxes.read_text().splitlines()[1:-1])
    with listen():
        study = correspondence(net, paths, boxes=boxes, draws=1, untrained=False)
    assert study.numbers()["differences"].shape[-1] == 2
    assert any("1 of 3 marked pictures lack one of eye, nose" in remark for remark in study.recipe.remarks)


def test_the_faces_that_ship_are_boxes_inside_pictures_of_64_pixels() -> None:
    rows = [line.split(",") for line in FACES.read_text().splitlines()[1:]]
    found: dict[str, set[str]] = {}
    for path, part, *edges in rows:
        left, top, right, bottom = map(int, edges)
        assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64
        found.setdefault(path, set()).add(part)
    assert len(found) >= 10 and all(parts == {"right eye", "left eye", "nose"} for parts in found.values())


def test_it_is_a_study(net: Net) -> None:
    study: Any = correspondence(net, list(pictures(3, side=SIDE)), draws=1, untrained=False)
    assert isinstance(study, Study) and study.render().width > 300
