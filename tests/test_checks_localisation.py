"""Localisation: maps made by hand, boxes from files, tables; the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convscope.checks import Boxed, localise, read_boxes
from convscope.checks.box_scores import Criteria, iou, largest_component_box, score_map
from convscope.checks.localisation_table import Mean
from convscope.cli import run
from convscope.data.boxes import renamed, spread_over
from convscope.data.samples import digits
from convscope.errors import DataError, OptionError
from convscope.registry import METHODS
from networks import SIZE, tiny

Capture = pytest.CaptureFixture[str]


def spot(y: int, x: int, side: int = 40, value: float = 1.0) -> np.ndarray:
    map_ = np.zeros((side, side), dtype=np.float32)
    map_[y, x] = value
    return map_


def test_pointing_is_strict_and_counts_from_pixel_centres() -> None:
    box = (10.0, 10.0, 20.0, 20.0)
    assert score_map(spot(10, 10), [box], Criteria(tolerance=0)).hit
    assert score_map(spot(19, 19), [box], Criteria(tolerance=0)).hit
    assert not score_map(spot(19, 20), [box], Criteria(tolerance=0)).hit
    # The centre of column 24 is 4.5 pixels right of the edge at 20.
    assert not score_map(spot(15, 24), [box], Criteria(tolerance=4.5)).hit
    assert score_map(spot(15, 24), [box], Criteria(tolerance=4.6)).hit
    assert score_map(spot(15, 24), [(0, 0, 1, 1), box], Criteria(tolerance=4.6)).hit


def test_several_maxima_point_at_their_centroid_and_nothing_points_nowhere() -> None:
    two = spot(5, 5) + spot(5, 35)
    assert score_map(two, [(18, 0, 22, 10)], Criteria(tolerance=0)).hit
    assert not score_map(two, [(0, 0, 10, 10)], Criteria(tolerance=0)).hit
    empty = score_map(np.zeros((40, 40), np.float32), [(0, 0, 40, 40)])
    assert not empty.hit and empty.energy == 0 and set(empty.ious.values()) == {0.0}


@given(st.integers(0, 10_000), st.integers(-6, 6), st.integers(-6, 6))
def test_map_and_box_move_together(seed: int, down: int, right: int) -> None:
    """I31: scores do not change when map and box are moved together."""
    drawn = np.random.default_rng(seed)
    map_ = np.zeros((40, 40), dtype=np.float32)
    map_[10:24, 10:24] = drawn.random((14, 14))
    left, top = drawn.integers(8, 18, 2)
    box = (left, top, left + 8, top + 9)
    moved = np.roll(map_, (down, right), (0, 1))
    one = score_map(map_, [box], Criteria(tolerance=2))
    other = score_map(moved, [(left + right, top + down, left + right + 8, top + down + 9)], Criteria(tolerance=2))
    assert one.hit == other.hit and one.ious == other.ious
    assert one.energy == pytest.approx(other.energy)


@given(st.integers(0, 10_000), st.floats(0, 20), st.floats(0, 20))
def test_a_larger_tolerance_loses_no_hit(seed: int, one: float, other: float) -> None:
    """I31."""
    drawn = np.random.default_rng(seed)
    map_, box = drawn.random((40, 40)).astype(np.float32), (5.0, 5.0, 12.0, 30.0)
    small, large = sorted((one, other))
    assert (
        score_map(map_, [box], Criteria(tolerance=small)).hit <= score_map(map_, [box], Criteria(tolerance=large)).hit
    )


def test_the_default_tolerance_is_a_share_of_the_picture() -> None:
    wide = np.zeros((300, 500), dtype=np.float32)
    wide[100, 114] = 1
    assert score_map(wide, [(0, 0, 100, 200)]).hit  # 14.5 < 15 = 3 % of 500
    wide = np.roll(wide, 1, 1)
    assert not score_map(wide, [(0, 0, 100, 200)]).hit


def test_energy_is_the_share_inside_and_a_flat_map_has_the_boxes_share() -> None:
    map_ = np.zeros((40, 40), dtype=np.float32)
    map_[:10, :10], map_[30:, 30:] = 3, 1
    scores = score_map(map_, [(0, 0, 10, 10)])
    assert scores.energy == pytest.approx(0.75) and scores.area == pytest.approx(1 / 16)
    flat = score_map(np.ones((40, 40), np.float32), [(0, 0, 20, 20), (10, 10, 30, 30)])
    assert flat.energy == pytest.approx(flat.area) == pytest.approx(700 / 1600)


def test_what_the_network_did_not_see_does_not_count() -> None:
    map_ = np.ones((40, 40), dtype=np.float32)
    map_[:, :20] = np.nan
    scores = score_map(map_, [(0, 0, 30, 40)], Criteria(tolerance=0))
    assert scores.energy == pytest.approx(0.5) == scores.area
    # The centroid of what was seen is at 30.
    assert not score_map(map_, [(0, 0, 29, 40)], Criteria(tolerance=0)).hit
    assert score_map(map_, [(29, 0, 31, 40)], Criteria(tolerance=0)).hit


def test_the_box_of_the_largest_component_box() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:6, 3:5] = mask[10:12, 10:12] = True
    assert largest_component_box(mask) == (3, 2, 5, 6)
    mask[6, 5] = True  # a corner connects
    assert largest_component_box(mask) == (3, 2, 6, 7)
    assert largest_component_box(np.zeros((3, 3), bool)) == (0, 0, 0, 0)


@given(st.lists(st.integers(0, 20), min_size=8, max_size=8))
def test_overlap_is_that_of_counted_pixels(edges: list[int]) -> None:
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in (edges[:4], edges[4:])]
    masks = []
    for left, top, right, bottom in boxes:
        mask = np.zeros((20, 20), dtype=bool)
        mask[top:bottom, left:right] = True
        masks.append(mask)
    union = (masks[0] | masks[1]).sum()
    expected = (masks[0] & masks[1]).sum() / union if union else 0.0
    assert iou(boxes[0], boxes[1]) == pytest.approx(expected)
    assert iou(boxes[0], boxes[1]) == iou(boxes[1], boxes[0])


def test_the_threshold_cuts_the_box() -> None:
    map_ = np.zeros((40, 40), dtype=np.float32)
    map_[10:30, 10:30], map_[15:20, 15:20] = 0.2, 1.0
    scores = score_map(map_, [(10, 10, 30, 30)])
    assert scores.ious[0.15] == 1 and scores.ious[0.4] == pytest.approx(25 / 400)


def test_means_have_standard_errors() -> None:
    mean = Mean.of([0.0, 1.0, 1.0, 1.0])
    assert mean.value == 0.75 and mean.error == pytest.approx(0.25)
    assert math.isnan(Mean.of([1.0]).error) and str(Mean.of([1.0])) == "1.00"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures of a bright square on a dark ground, two classes, with boxes."""
    rows = ["path,left,top,right,bottom,class"]
    drawn = np.random.default_rng(0)
    for number in range(4):
        pixels = drawn.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
        top, left = 2 + 3 * number, 11 - 3 * number
        pixels[top : top + 8, left : left + 8] += 180
        name = ("ant", "bee")[number % 2]
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
        rows.append(f"{name}/{number}.png,{left},{top},{left + 8},{top + 8},{name}")
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    return tmp_path


def test_a_network_that_sees_only_brightness_finds_bright_squares(folder: Path) -> None:
    net, pictures = tiny("sequential"), read_boxes(folder / "boxes.csv")
    table = localise(net, pictures, ["gradient", "occlusion"], criteria=Criteria(smooth=0.05))
    names = [row.name for row in table.rows]
    assert names == ["gradient", "occlusion", "centre", "edges", "random"]
    by_name = {row.name: row for row in table.rows}
    assert by_name["edges"].pointing.value >= by_name["random"].pointing.value
    assert by_name["edges"].lift.value > by_name["random"].lift.value == pytest.approx(1, abs=0.15)
    assert by_name["gradient"].pictures == 4 and 0 <= by_name["gradient"].pointing.value <= 1


def test_baselines_do_not_depend_on_the_network(folder: Path) -> None:
    """I31: they can be made again without one."""
    pictures = read_boxes(folder / "boxes.csv")
    one, other = (localise(tiny(kind), pictures, []) for kind in ("sequential", "concat"))
    assert one.table.cells() == other.table.cells()


def test_batches_do_not_matter(folder: Path) -> None:
    pictures = read_boxes(folder / "boxes.csv")
    net = tiny("residual")
    expected = localise(net, pictures, ["gradient", "grad_cam"]).table.cells()
    assert localise(net, pictures, ["gradient", "grad_cam"], batch=1).table.cells() == expected


def test_the_labelled_class_is_explained_or_the_top_1(folder: Path) -> None:
    net, pictures = tiny("sequential"), read_boxes(folder / "boxes.csv")
    assert "2 classes" in localise(net, pictures, []).subtitle
    unlabelled = [Boxed(one.path, one.boxes, "unicorn") for one in pictures]
    table = localise(net, unlabelled, [])
    assert "no class of sequential ('unicorn'): explained is the network's top-1 class" in table.note
    assert "no class of" not in localise(net, unlabelled, [], target="top-1").note


def test_wordnet_ids_as_labels_are_refused_with_the_way_out(folder: Path) -> None:
    net, pictures = tiny("sequential"), read_boxes(folder / "boxes.csv")
    wnids = [Boxed(one.path, one.boxes, "n02123045") for one in pictures]
    with pytest.raises(DataError, match=r"WordNet ids, such as 'n02123045', .* --names FILE.csv"):
        localise(net, wnids, [])
    assert localise(net, wnids, [], target="top-1").rows[0].pictures == 4


def test_maps_are_scored_in_the_pixels_of_the_original(tmp_path: Path) -> None:
    """A wide picture whose middle alone is seen: the box is where the original has it."""
    pixels = np.full((40, 80, 3), 30, np.uint8)
    pixels[10:20, 30:40] = 220
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    net = tiny("sequential")
    right = localise(net, [Boxed(tmp_path / "wide.png", ((30, 10, 40, 20),))], [], target="top-1")
    wrong = localise(net, [Boxed(tmp_path / "wide.png", ((44, 22, 54, 32),))], [], target="top-1")
    edges = {name: {row.name: row for row in table.rows}["edges"] for name, table in (("r", right), ("w", wrong))}
    assert edges["r"].pointing.value == 1 and edges["w"].pointing.value == 0
    assert edges["r"].energy.value > 0.4 and edges["r"].best_box_error.value == 0


def test_pictures_whose_boxes_are_not_seen_are_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (80, 40), "grey").save(tmp_path / "wide.png")
    inside, outside = (Boxed(tmp_path / "wide.png", (box,)) for box in ((30, 10, 40, 20), (0, 0, 10, 10)))
    table = localise(tiny("sequential"), [inside, outside], [])
    assert table.rows[0].pictures == 1 and "1 pictures left out" in table.note
    with pytest.raises(DataError, match="no box lies in the part"):
        localise(tiny("sequential"), [outside], [])


def test_tables_are_written(folder: Path) -> None:
    result = localise(tiny("sequential"), read_boxes(folder / "boxes.csv"), ["gradient"])
    lines = result.save(folder / "t.csv").read_text().splitlines()
    assert lines[0].startswith("name,map,pictures,by_class") and len(lines) == 5
    assert all(len(line.split(",")) == len(lines[0].split(",")) for line in lines)
    text = result.save(folder / "t.md").read_text()
    assert f"| {METHODS['gradient'].title} | 4 |" in text and "centre (no network)" in text
    rows = json.loads(result.save(folder / "t.json").read_text())
    assert [row["name"] for row in rows] == ["gradient", "centre", "edges", "random"]
    assert rows[0]["pointing"] == result.rows[0].pointing.value
    assert Image.open(result.save(folder / "t.png")).width > 600
    assert set(result.numbers()) >= {"pointing", "lift"}


def test_the_box_of_a_segment(folder: Path) -> None:
    pytest.importorskip("cv2")
    pictures = read_boxes(folder / "boxes.csv")
    result = localise(tiny("sequential"), pictures, ["gradient"], criteria=Criteria(segment=True))
    assert [column.name for column in result.table.columns][-2:] == ["segment_error", "segment_error_se"]
    assert {row.name: row for row in result.rows}["edges"].segment_error is not None
    assert "segment_error" in result.numbers()


def test_coco_and_voc_and_other_heads(folder: Path) -> None:
    table = read_boxes(folder / "boxes.csv")
    images = [{"id": i, "file_name": str(one.path.relative_to(folder))} for i, one in enumerate(table)]
    notes = [
        {"image_id": i, "category_id": 1 if one.label == "ant" else 2,
         "bbox": [one.boxes[0][0], one.boxes[0][1], 8, 8]}
        for i, one in enumerate(table)
    ]  # fmt: skip
    categories = [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}]
    (folder / "coco.json").write_text(json.dumps({"images": images, "annotations": notes, "categories": categories}))
    assert read_boxes(folder / "coco.json") == table
    for one in table:
        left, top, right, bottom = (int(edge) for edge in one.boxes[0])
        (folder / "xml").mkdir(exist_ok=True)
        (folder / "xml" / f"{one.path.stem}.xml").write_text(
            f"<annotation><filename>{one.path.relative_to(folder)}</filename><object><name>{one.label}</name><bndbox>"
            f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
            "</bndbox></object></annotation>"
        )
    assert read_boxes(folder / "xml", folder) == table
    text = (folder / "boxes.csv").read_text().replace("left,top,right,bottom,class", "x0,y0,x1,y1,what")
    (folder / "other.csv").write_text(text)
    assert read_boxes(folder / "other.csv") == table  # classes by the folder's name


def test_several_boxes_of_a_class_are_one_picture(folder: Path) -> None:
    (folder / "b.csv").write_text("path,x0,y0,x1,y1\nant/0.png,0,0,3,3\nant/0.png,5,5,9,5\n")
    assert [one.boxes for one in read_boxes(folder / "b.csv")] == [((0, 0, 3, 3), (5, 5, 9, 6))]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "path,a,b\nx,1,2", "columns of .* are path, a, b; boxes are a table"),
        ("b.csv", "path,left,top,right,bottom\nant/0.png,5,5,2,9", "upside down"),
        ("c.csv", "path,left,top,right,bottom\nnone.png,1,1,2,2", "names the picture none.png, which is not in"),
        ("d.csv", "path,left,top,right,bottom\nant/0.png,x,1,2,2", "left in row 2 is 'x'; a number is needed"),
        ("e.csv", "path,left,top,right,bottom\n", "there are no boxes in"),
        ("f.json", "{", "f.json is not JSON"),
        ("g.json", "[]", "it is a list of 0; a table is needed"),
        (
            "i.json",
            '{"images": [{"id": 1, "file_name": 3}], "annotations": []}',
            r"images\[0\].file_name is 3; text is",
        ),
        ("j.json", "[" * 100_000, "nested more than 64 deep"),
        ("k.csv", "path,left,top,right,bottom\nant/0.png,1,1", "row 2 has 3 cells, and the first has 5"),
        ("h.txt", "", "boxes are a table"),
    ],
)
def test_bad_boxes_are_refused(folder: Path, name: str, text: str, words: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=words):
        read_boxes(folder / name)


def test_bad_requests_are_refused(folder: Path) -> None:
    net, pictures = tiny("sequential"), read_boxes(folder / "boxes.csv")
    with pytest.raises(DataError, match=r"there is no .*; boxes are a table"):
        read_boxes(folder / "none.csv")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no boxes in"):
        read_boxes(folder / "empty")
    with pytest.raises(OptionError, match="there is no method 'gradients'; it is written 'gradient'"):
        localise(net, pictures, ["gradients"])
    with pytest.raises(OptionError, match="occlusion has no option 'path'"):
        localise(net, pictures, ["occlusion"], options={"occlusion": {"path": 3}})
    with pytest.raises(DataError, match="no pictures with boxes"):
        localise(net, [], ["gradient"])
    with pytest.raises(DataError, match="outside the picture of 20 x 20"):
        localise(net, [Boxed(pictures[0].path, ((30, 30, 40, 40),))], ["gradient"])
    for bad in ({"threshold": 0}, {"tolerance": -1}, {"smooth": -1}):
        with pytest.raises(OptionError):
            Criteria(**bad)
    with pytest.raises(OptionError, match="batch is at least 1"):
        localise(net, pictures, [], batch=0)
    with pytest.raises(OptionError, match="'label' or 'top-1'"):
        localise(net, pictures, [], target="both")  # type: ignore[arg-type]


def test_choosing_and_renaming(folder: Path) -> None:
    pictures = read_boxes(folder / "boxes.csv")
    assert spread_over(pictures, 2) == [pictures[0], pictures[2]] and spread_over(pictures, 9) == pictures
    with pytest.raises(OptionError, match="limit is at least 1"):
        spread_over(pictures, 0)
    (folder / "names.csv").write_text('ant,"cat, big cat"\n')
    assert [one.label for one in renamed(pictures, folder / "names.csv")] == ["cat", "bee", "cat", "bee"]
    (folder / "names.csv").write_text("unicorn,cat\n")
    with pytest.raises(DataError, match="names none of the classes, such as 'ant'"):
        renamed(pictures, folder / "names.csv")


# The command.


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


DIGIT = str(digits()[3])


@pytest.mark.usefixtures("elsewhere")
def test_check_prints_a_table_and_writes_the_figure(capsys: Capture) -> None:
    assert run(["check", DIGIT, "--net", "lenet5", "--methods", "gradient,occlusion", "--stages", "2"]) == 0
    text = capsys.readouterr().out
    for word in (
        "Vanilla gradient",
        "Occlusion",
        "randomisation",
        "SSIM",
        "deletion",
        "insertion",
        "infidelity",
        "sensitivity",
    ):
        assert word in text
    assert Image.open("3-check.png").width > 360


@pytest.mark.usefixtures("elsewhere")
def test_check_prints_json_for_scripts(folder: Path, capsys: Capture) -> None:
    command = ["check", DIGIT, "--net", "lenet5", "--methods", "gradient,occlusion", "--stages", "2", "--json"]
    assert run(command) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["gradient", "occlusion"] and 0 <= rows[0]["randomisation"] <= 1
    assert not Path("3-check.png").exists()
    boxes = ["--boxes", str(folder / "boxes.csv"), "--methods", "saliency", "--limit", "2"]
    assert run(["check", str(folder), "--net", "zfnet64", *boxes, "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["saliency", "centre", "edges", "random"]


@pytest.mark.usefixtures("elsewhere")
def test_check_of_a_folder_prints_and_writes_the_table(folder: Path, capsys: Capture) -> None:
    command = ["check", str(folder), "--boxes", str(folder / "boxes.csv"), "--net", "zfnet64", "--methods", "saliency"]
    for name in ("t.csv", "t.md", "t.png"):
        assert run([*command, "--limit", "2", "-o", name]) == 0
        assert Path(name).stat().st_size > 100
    text = capsys.readouterr().out
    assert "Saliency" in text and "centre (no network)" in text and "pointing" in text and "…" not in text


@pytest.mark.usefixtures("elsewhere")
def test_a_map_carries_its_check(capsys: Capture) -> None:
    assert run(["gradient", DIGIT, "--net", "lenet5", "--check", "-o", "g.png"]) == 0
    run(["show", "g.png"])
    assert "randomisation check: rank correlation" in capsys.readouterr().out


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", DIGIT, "--methods", "gradients"], "there is no method 'gradients'"),
        (["check", DIGIT, "-o", "x.csv"], "cannot write x.csv: a table of localisation needs bounding boxes, --boxes"),
        (["check", ".", "-o", "c.csv"], "a table of localisation needs bounding boxes, --boxes"),
        (["check", DIGIT, "-o", "x.gif"], "cannot write x.gif: endings are .png"),
        (["check", "."], "name one picture, or give the objects' bounding boxes with --boxes"),
        (["check", DIGIT, "--boxes", "b.csv"], "is not a folder"),
        (["check", ".", "--boxes", "b.csv"], "there is no b.csv"),
        (["check", ".", "--boxes", "b.csv", "--of", "3"], "--of is for one picture"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str, capsys: Capture) -> None:
    assert run([*arguments, "--net", "lenet5"]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
