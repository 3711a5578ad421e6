"""The mechanism of studies: labelled data, what is kept on the way, and how a study is called."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope as cs
from convscope import registry
from convscope.drawing.layout import Sheet, Tile
from convscope.errors import ConvscopeError, DataError, LayerError, OptionError, PictureError
from convscope.recipes import FAILED, Recipe
from convscope.studies.keeping import Keep, kept
from convscope.studies.labelled import Labelled, Labels, Limit, PerClass, Seed
from networks import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 2, 3 and 4 pictures, one of them broken."""
    generator = np.random.default_rng(0)
    for name, count in (("10", 2), ("2", 3), ("x", 4)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    (tmp_path / "data" / "x" / "3.png").write_bytes(b"no picture")
    return tmp_path / "data"


def prepared(source: Any, **options: Any) -> Labelled:
    return Labelled.listed(tiny("sequential"), source, options).read()


def test_labels_are_the_datas_own_and_broken_pictures_are_left_out(folder: Path) -> None:
    data = prepared(folder)
    assert data.classes == ("10", "2", "x") and data.counts == {"10": 2, "2": 3, "x": 3}
    assert len(data) == 8 and len(data.failed) == 1 and "3.png" in data.failed[0]
    rows = [row for batch, _ in data.batches(3) for row in batch]
    assert rows == list(range(8))
    whole = torch.cat([pixels for _, pixels in data.batches(3)])
    assert torch.equal(whole, torch.cat([data.net.read(picture.read()) for picture in data.pictures]))
    assert torch.equal(whole, torch.cat([pixels for _, pixels in data.read_by(tiny("sequential").sized(20)).batches()]))


def test_numbers_are_classes_by_their_size() -> None:
    items = [(torch.rand(3, 20, 20), label) for label in (10, 2, 10)]
    assert prepared(items).classes == ("2", "10")
    assert prepared([pixels for pixels, _ in items]).targets == (-1, -1, -1)
    assert len(prepared(torch.rand(3, 3, 20, 20))) == 3


def test_what_is_assumed_of_all_pictures_is_said_once(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", chance.integers(0, 60000, (12, 12), dtype=np.uint16))
    net = cs.Net(torch.nn.Conv2d(1, 2, 3), size=12, channels=1)
    remarks = Labelled.listed(net, tmp_path, {}).read().remarks
    assert ["holds values from" in remark for remark in remarks] == [True]


def test_classes_are_called_as_people_call_them(folder: Path) -> None:
    data = replace(prepared(folder), classes=("n01443537", "b"))
    assert data.class_names == ("goldfish", "b")


def test_a_selection_is_drawn_by_its_seed(folder: Path) -> None:
    few = prepared(folder, per_class=2, seed=1)
    assert set(few.counts.values()) <= {1, 2} and len(few) + len(few.failed) == 6
    assert few.record == prepared(folder, per_class=2, seed=1).record
    assert len({prepared(folder, limit=3, seed=seed).record.sha256 for seed in range(4)}) > 1


def test_a_table_gives_labels_and_none_takes_them_away(folder: Path) -> None:
    table = folder.parent / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{folder.name}/2/{number}.png,cat\n" for number in range(3)))
    assert prepared(folder, labels=table).counts == {"cat": 3}
    assert prepared(folder, labels="none").classes == ()


def test_one_picture_in_two_folders_is_found_by_its_content(folder: Path) -> None:
    (folder / "x" / "again.png").write_bytes((folder / "2" / "0.png").read_bytes())
    pairs = prepared(folder / "2").shared_with(prepared(folder / "x"))
    assert [[Path(where).name for where in pair] for pair in pairs] == [["0.png", "again.png"]]


def test_data_that_nobody_can_count_or_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give a list"):
        prepared(torch.rand(3, 20, 20) for _ in range(3))
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"none of 1 pictures can be read: .*x\.png"):
        prepared(tmp_path)


CALLS: list[str] = []


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A study that counts what it computes."""
    registry.load_all()
    monkeypatch.setattr(registry, "VIEWS", dict(registry.VIEWS))

    @registry.view("Counting", kind="study", group="study")
    def counting(
        net: cs.Net,
        data: Labelled,
        *,
        labels: Labels = None,
        per_class: PerClass = 0,
        limit: Limit = 0,
        seed: Seed = 0,
        keep: Keep = None,
        factor: Annotated[int, "what is multiplied"] = 2,
    ) -> cs.Study:
        """Count pictures."""

        def make() -> dict[str, torch.Tensor]:
            CALLS.append("made")
            cs.context.say("made with care")
            return {"count": torch.tensor([len(data) * factor])}

        found = kept(keep, "all pictures", make)
        table = cs.Table((cs.Column("count", "whole"),), ((int(found["count"]),),), title="Counted")
        sheet = Sheet("Counted", ((Tile(Image.new("RGB", (40, 40)), "one"),),))
        return cs.Study("There are some.", table, sheet, found, Recipe(settled={"classes": list(data.classes)}))

    CALLS.clear()
    return counting


def same(one: cs.Study, other: cs.Study) -> bool:
    return all(np.array_equal(value, other.numbers()[name]) for name, value in one.numbers().items())


def test_a_study_is_a_table_a_figure_and_numbers_of_one_recipe(counting: Any, folder: Path, tmp_path: Path) -> None:
    study = counting(tiny("sequential"), folder)
    assert study.table.records == [{"count": 16}] and study.recipe.settled[FAILED]
    (record,) = study.recipe.pictures
    assert record.where.startswith("8 pictures, ") and study.recipe.key == study.table.recipe.key
    for text in (study.table.note, study.content.note):
        assert text.startswith("There are some.\n") and "made with care" in text and "1 picture could not be" in text
    assert study.save(tmp_path / "t.csv").read_text() == "count\n16\n"
    assert "There are some." in study.save(tmp_path / "t.md").read_text()
    study.save(tmp_path / "t.png"), study.save_values(tmp_path / "t.npz")
    again = cs.Drawing.load(tmp_path / "t.npz")
    assert isinstance(again, cs.Study) and again.table.records == study.table.records and again.gist == study.gist
    assert again.render().tobytes() == study.render().tobytes()
    other = counting(tiny("sequential"), folder, labels="none")
    assert other.recipe.key != study.recipe.key, "labels decide"


def test_what_is_kept_is_not_computed_again(counting: Any, folder: Path, tmp_path: Path) -> None:
    first = counting(tiny("sequential"), folder, keep=tmp_path / "kept")
    second = counting(tiny("sequential"), folder, keep=tmp_path / "kept")
    assert CALLS == ["made"] and first.recipe == second.recipe and "made with care" in second.recipe.remarks
    counting(tiny("sequential"), folder, keep=tmp_path / "kept", factor=3)
    assert CALLS == ["made", "made"], "other options are another run"
    for file in (tmp_path / "kept").glob("*/*.npz"):
        file.write_bytes(file.read_bytes()[:40])
    assert same(counting(tiny("sequential"), folder, keep=tmp_path / "kept"), first)
    with pytest.raises(OptionError, match="limit is a whole number, at least 0"):
        counting(tiny("sequential"), folder, limit=-1)


@pytest.mark.parametrize(
    ("study", "options", "error"),
    [
        ("probe", {}, "one class, 'a'"),
        ("transfer", {"scratch": False}, "one class, 'a'"),
        ("transfer", {}, "cannot be trained anew"),
        ("ablate", {}, "cannot be trained anew"),
        ("activity", {}, "activity compares classes"),
        ("activity", {"layers": ["conv9"]}, "no layer 'conv9'"),
        ("effects", {"layers": ["conv9"]}, "no layer 'conv9'"),
        ("effects", {"of": "no such class"}, "no such class"),
        ("effects", {"of": "true"}, "none of the labels|no label"),
        ("invariance", {"layers": ["conv9"]}, "no layer 'conv9'"),
        ("invariance", {"of": "3:1"}, "of names one class"),
        ("invariance", {"scale": [2.0, 1.0]}, "scale is the first and the last amount"),
        ("correspondence", {"layers": ["conv9"]}, "no layer 'conv9'"),
        ("correspondence", {"boxes": "faces"}, "marks none of the 6 pictures"),
        ("evolution_study", {"snapshots": [("a", tiny("sequential"))]}, "several snapshots"),
        ("evolution_study", {"layers": ["conv9"]}, "no layer 'conv9'"),
    ],
)
def test_what_needs_no_picture_is_refused_before_one_is_read(
    study: str, options: dict[str, Any], error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convscope.studies.labelled.read_ahead", lambda *_: pytest.fail("a picture is read"))
    items = [(torch.rand(3, 20, 20), "a") for _ in range(6)]
    if study == "evolution_study":
        options = {"snapshots": [("a", tiny("sequential")), ("b", tiny("sequential"))]} | options
    with pytest.raises(ConvscopeError, match=error):
        getattr(cs, study)(tiny("sequential"), items, **options)


def test_of_a_folder_only_the_marked_pictures_are_read(folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.glob("*/*.png"))
    boxes = tmp_path / "boxes.csv"
    marks = "".join(f"{file.parent.name}/{file.name},eye,2,2,8,8\n" for file in files[:3])
    boxes.write_text(f"path,class,left,top,right,bottom\n{marks}")
    for file in files[3:]:
        file.write_bytes(b"no picture")
    net = tiny("sequential")
    study = cs.correspondence(net, folder, boxes=boxes, draws=1, untrained=False)
    assert FAILED not in study.recipe.settled and study.values["differences"].shape[-2:] == (3, 3)
    assert "3 of" in study.table.note and cs.remake(study.recipe, net=net).numbers().keys() == study.numbers().keys()


class Patches(nn.Module):
    """A vision transformer's layout: 16 tokens of a picture of 20 x 20, pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm1, self.mix = nn.Conv2d(3, 8, 5, 5), nn.LayerNorm(8), nn.Linear(8, 8)
        self.mlp, self.norm2, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        tokens = self.norm1(self.patch(pixels).flatten(2).mT)
        tokens = tokens + self.mix(tokens).softmax(1) * tokens.mean(1, keepdim=True)
        return self.head(self.norm2(tokens + self.mlp(tokens).relu()).mean(1))


def test_layers_of_tokens_are_compared_as_maps_are() -> None:
    net = cs.Net(Patches().eval(), size=20)
    items = [(torch.rand(3, 20, 20), "ab"[number % 2]) for number in range(6)]
    study = cs.correspondence(net, items, draws=1, untrained=False)
    assert "norm2" in study.recipe.settled["layers"] and study.values["differences"].isfinite().any()
    with pytest.raises(LayerError, match="without channels"):
        cs.evolution_study(net, items, snapshots=[("a", net), ("b", net)], layers=["norm2"], units=2)


def test_a_place_that_there_is_not_is_no_picture_without_a_label(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"there is no picture .*nowhere"):
        cs.probe(tiny("sequential"), tmp_path / "nowhere")
