"""A grid of pictures by methods: what is said of each, what is true, and maps on one scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest
import torch
from PIL import Image

import convscope as cs
from convscope.cli import run
from convscope.drawing import sheet_html
from convscope.drawing.drawings import robust_limit
from convscope.drawing.paper import Paper
from convscope.drawing.typesetting import Words
from convscope.errors import OptionError, PictureError
from networks import pictures, tiny


@pytest.fixture
def net() -> cs.Net:
    return tiny("sequential", dtype=torch.float32)


@pytest.fixture
def folder(net: cs.Net, tmp_path: Path) -> Path:
    """Six pictures in folders of classes: of each two, one where the network says it is, and one elsewhere."""
    said = cs.predict_many(net, list(pictures(6, dtype=torch.float32)), top=1)
    for number, each in enumerate(said):
        right = each.choices[0]
        place = tmp_path / net.classes[right if number % 2 else (right + 1) % len(net.classes)]
        place.mkdir(exist_ok=True)
        pixels = pictures(6, dtype=torch.float32)[number].permute(1, 2, 0).numpy()
        Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(place / f"{number}.png")
    return tmp_path


def test_each_row_is_a_picture_and_each_column_a_method_on_one_scale(net: cs.Net, folder: Path) -> None:
    drawing = cs.grid(net, str(folder), methods=["saliency", "grad_cam"])
    sheet = drawing.sheet()
    assert len(sheet.rows) == len(sheet.labels) == 6 and sheet.columns == ("", "Saliency", "Grad-CAM")
    assert len({tile.image.size for tile in sheet.tiles}) == 1 and not any(tile.scale for tile in sheet.tiles)
    for column, name in ((1, "saliency"), (2, "grad_cam")):
        maps = [cs.explain(net, path, name) for path in sorted(folder.rglob("*.png"))]
        foot = sheet.feet[column]
        assert foot is not None and foot.high == pytest.approx(max(robust_limit(map_.flat) for map_ in maps))
        assert foot.unit == maps[0].unit
        np.testing.assert_array_equal(drawing.numbers()[name], np.stack([map_.values for map_ in maps]))
    assert sheet_html.to_html(sheet).count("class='bar'") == 2 and "<br>true: " in sheet_html.to_html(sheet)
    one = cs.grid(net, str(folder), methods=["saliency"]).sheet()
    assert one.scale is not None and not one.feet, "one method: one bar"


def test_predictions_and_truth_stand_before_the_rows(net: cs.Net, folder: Path) -> None:
    paths = sorted(folder.rglob("*.png"))
    labels = cs.grid(net, paths, methods=["saliency"]).sheet().labels
    for path, label, each in zip(paths, labels, cs.predict_many(net, paths, top=1), strict=True):
        first = f"{net.classes[each.choices[0]]} {net.head.text(each.values[0])}"
        right = path.parent.name == net.classes[each.choices[0]]
        assert label == (
            f"✓ {first}" if right else f"✗ {first}\ntrue: {path.parent.name} {net.head.text(each.truth_value or 0)}"
        )
    unlabelled = cs.grid(net, paths, methods=["saliency"], labels="none").sheet().labels
    assert unlabelled[0] == labels[0].split("\n")[0][2:]


def test_wrong_ones_alone_the_surest_first_beside_the_true_class(net: cs.Net, folder: Path) -> None:
    drawing = cs.grid(net, str(folder), methods=["grad_cam"], wrong=True, true_class=True)
    sheet = drawing.sheet()
    assert sheet.columns[1:] == ("Grad-CAM\nfirst choice", "Grad-CAM\ntrue class")
    shares = [float(label.split("\n")[0].split()[-1]) for label in sheet.labels]
    assert len(shares) == 3 and shares == sorted(shares, reverse=True)
    shown = drawing.recipe.settled["shown"]
    path = next(folder.rglob(shown[0]))
    expected = cs.explain(net, path, "grad_cam", of=path.parent.name)
    np.testing.assert_array_equal(drawing.numbers()["grad_cam.true_class"][0], expected.values)
    few = cs.grid(net, str(folder), methods=["saliency"], wrong=True, rows=2)
    assert len(few.sheet().rows) == 2 and "2 of 3 wrong pictures shown, the surest first" in few.recipe.remarks


def test_first_choice_and_true_class_stand_under_one_head_on_one_scale(net: cs.Net, folder: Path) -> None:
    drawing = cs.grid(net, str(folder), methods=["saliency", "grad_cam"], wrong=True, true_class=True)
    sheet, numbers = drawing.sheet(), drawing.numbers()
    assert [(group.head, len(group.columns)) for group in sheet.groups] == [("", 1), ("Saliency", 2), ("Grad-CAM", 2)]
    for column, name in ((1, "saliency"), (3, "grad_cam")):
        first, truth = sheet.feet[column : column + 2]
        maps = [map_ for each in (name, f"{name}.true_class") for map_ in numbers[each]]
        assert first is not None and first == truth
        assert first.high == pytest.approx(max(robust_limit(map_) for map_ in maps))
    words = [item for item in drawing.page(Paper.of(width="3.3in", font=7)).items if isinstance(item, Words)]
    assert [item.text for item in words].count("Grad-CAM") == 1
    html = sheet_html.to_html(sheet)
    assert html.count("colspan='2'>Grad-CAM</th>") == 1 and html.count("class='bar'") == 2


def test_methods_that_refuse_and_pictures_that_cannot_be_read(folder: Path) -> None:
    swish = tiny("sequential", dtype=torch.float32)
    swish.body[1] = torch.nn.SiLU()
    (folder / "broken.png").write_bytes(b"nothing")
    (folder / "empty.png").write_bytes(b"")
    (folder / "link.png").symlink_to("gone.png")
    drawing = cs.grid(cs.Net(swish.body, size=20), str(folder), methods=["guided_backprop", "saliency"])
    assert len(drawing.sheet().rows) == 6
    for name in ("broken.png", "empty.png", "link.png"):
        assert sum(name in remark for remark in drawing.recipe.remarks) == 1
    assert any("guided_backprop refused" in remark for remark in drawing.recipe.remarks)
    drawing.render()


def test_a_grid_of_which_pictures_cannot_be_read_ends_in_exit_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((28, 28), 90).save("noise.png")
    Path("empty.png").write_bytes(b"")
    assert run(["grid", ".", "--net", "lenet5", "--methods", "saliency", "-o", "g.png"]) == 3
    said = capsys.readouterr()
    assert said.out == "g.png\n" and said.err.splitlines()[-2:] == [
        "convscope: failed: empty.png is empty (0 bytes)",
        "convscope: 1 of 2 pictures failed",
    ]
    assert said.err.count("empty.png") == 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"methods": []}, OptionError, "no method for a column"),
        ({"wrong": True, "labels": "none"}, OptionError, "wrong needs to know what is right"),
        ({"true_class": True, "labels": "none"}, OptionError, "true_class needs to know what is right"),
        ({"true_class": True, "of": 1}, OptionError, "leave out of"),
        ({"rows": 0}, OptionError, "rows"),
    ],
)
def test_grids_that_are_refused(net: cs.Net, folder: Path, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        cs.grid(net, str(folder), **options)


def test_nothing_wrong_is_said(net: cs.Net, folder: Path) -> None:
    paths = sorted(folder.rglob("*.png"))
    right = [p for p, e in zip(paths, cs.predict_many(net, paths, top=1), strict=True) if not e.wrong]
    with pytest.raises(PictureError, match="all 3 pictures are right"):
        cs.grid(net, right, methods=["saliency"], wrong=True)


def test_a_figure_of_wrong_predictions_for_a_column(tmp_path: Path) -> None:
    for name in ("tabby", "goldfish"):
        (tmp_path / name).mkdir()
        Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / name / "1.png")
    out = tmp_path / "wrong.pdf"
    words = ["grid", str(tmp_path), "--net", "zfnet64", "--wrong", "--methods", "grad-cam,saliency", "-o", str(out)]
    assert run([*words, "--width", "3.3in", "--font", "7", "--no-titles"]) == 0
    (page,) = pypdfium2.PdfDocument(out.read_bytes())
    assert page.get_width() / 72 == pytest.approx(3.3)
    text = page.get_textpage().get_text_range()
    assert "true: tabby" in text.replace("\r\n", " ") and "Grad-CAM" in text and "wrong" not in text


def test_a_grid_beside_an_unreadable_picture_is_remade(folder: Path) -> None:
    net = cs.load("lenet5")
    (folder / "empty.png").write_bytes(b"")
    drawing = cs.grid(net, str(folder), methods=["saliency"], labels="none")
    again = cs.remake(drawing.recipe, net=net)
    np.testing.assert_array_equal(again.numbers()["saliency"], drawing.numbers()["saliency"])
    assert again.recipe == drawing.recipe
