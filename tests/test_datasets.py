"""Data to learn from: real folders and torchvision data sets, good and bad, and the same numbers whoever loads them."""

from __future__ import annotations

import csv
import os
import random
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from convscope.data import datasets
from convscope.data.batches import Prepared, Share, batches
from convscope.data.class_names import read_class_names
from convscope.data.datasets import LabelledPictures, open_data
from convscope.data.pictures import Items, Pictures
from convscope.errors import DataError

PLAIN = v2.PILToTensor()
AUGMENTED = v2.Compose([v2.RandomCrop(8), v2.RandomHorizontalFlip(), v2.PILToTensor()])


def noise(seed: int, size: tuple[int, int] = (16, 12)) -> Image.Image:
    """A picture in which every cut is another."""
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def grow(root: Path, classes: Mapping[str, int]) -> Path:
    """Make folders of so many pictures each: 0.png, 1.png, ..."""
    for folder, count in classes.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noise(number, (8, 8)).save(root / folder / f"{number}.png")
    return root


def told(pictures: LabelledPictures) -> dict[str, str]:
    """The class of every picture, both by name."""
    return {pictures.name(i): pictures.classes[label] for i, label in enumerate(pictures.labels)}


def everything(root: Path, **options: Any) -> dict[str, str]:
    learn, hold = open_data(str(root), **options)
    return told(learn) | told(hold)


def refused(data: Path | str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        open_data(str(data), **options)
    message = str(caught.value)
    assert message and len(message.splitlines()) == 1
    return message


def in_memory(count: int, labels: Sequence[int] | None = None) -> LabelledPictures:
    """So many tiny pictures; without labels every picture is a class of its own, which tells what was loaded."""
    picture = Image.new("RGB", (2, 2))
    labels = range(count) if labels is None else labels
    names = tuple(str(number) for number in range(max(labels, default=0) + 1))
    source = Pictures([Items([(picture, label) for label in labels], "test")])
    return LabelledPictures(source, tuple(range(count)), tuple(labels), names)


# Folders with a folder per class


@pytest.mark.parametrize("held", ["val", "validation", "test"])
def test_a_folder_with_train_and_another_is_read_as_it_is(held: str, tmp_path: Path) -> None:
    root = grow(tmp_path, {"train/cat": 3, "train/dog": 2, f"{held}/cat": 1, f"{held}/dog": 4})
    learn, hold = open_data(str(root))
    assert told(learn) == {f"cat/{n}.png": "cat" for n in range(3)} | {f"dog/{n}.png": "dog" for n in range(2)}
    assert told(hold) == {"cat/0.png": "cat"} | {f"dog/{n}.png": "dog" for n in range(4)}
    assert learn.classes == hold.classes == ("cat", "dog") and len(learn) == 5 and len(hold) == 5


def test_val_comes_before_test(tmp_path: Path) -> None:
    classes = {f"{part}/{name}": n for part, n in {"train": 2, "val": 3, "test": 4}.items() for name in ("cat", "dog")}
    assert len(open_data(str(grow(tmp_path, classes)))[1]) == 6


def test_train_alone_is_split(tmp_path: Path) -> None:
    learn, hold = open_data(str(grow(tmp_path, {"train/cat": 4, "train/dog": 4})), held_out=0.25)
    assert learn.classes == ("cat", "dog") and len(learn) == 6 and Counter(hold.labels) == {0: 1, 1: 1}


def test_a_folder_of_classes_is_split_within_every_class(tmp_path: Path) -> None:
    root = grow(tmp_path, {"cat": 20, "dog": 10, "emu": 2})
    learn, hold = open_data(str(root), held_out=0.2)
    assert Counter(hold.labels) == {0: 4, 1: 2, 2: 1} and Counter(learn.labels) == {0: 16, 1: 8, 2: 1}
    assert set(told(learn)).isdisjoint(told(hold)) and len(told(learn)) + len(told(hold)) == 32
    assert all(name.split("/")[0] == label for name, label in (told(learn) | told(hold)).items())


def test_the_split_is_the_same_for_the_same_seed_only(tmp_path: Path) -> None:
    root = grow(tmp_path, {"cat": 12, "dog": 12})
    held = [told(open_data(str(root), held_out=0.5, seed=seed)[1]) for seed in (3, 3, 4)]
    torch.manual_seed(99)
    assert held[0] == held[1] == told(open_data(str(root), held_out=0.5, seed=3)[1])
    assert held[0] != held[2]


def test_the_split_leaves_the_random_state_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    open_data(str(grow(tmp_path, {"cat": 3, "dog": 3})))
    assert torch.equal(before, torch.get_rng_state())


@given(st.lists(st.integers(2, 12), min_size=2, max_size=5), st.floats(0, 1), st.integers(0, 2**32))
def test_a_split_holds_out_its_share_and_keeps_every_class_on_both_sides(
    sizes: list[int], share: float, seed: int
) -> None:
    assume(0 < share < 1)
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    learn, hold = datasets._split(in_memory(len(labels), labels), share, seed)
    assert sorted(learn.indices + hold.indices) == list(range(len(labels)))
    assert learn.classes == hold.classes and all(labels[i] == k for i, k in zip(hold.indices, hold.labels, strict=True))
    kept, held = Counter(learn.labels), Counter(hold.labels)
    for label, size in enumerate(sizes):
        assert kept[label] >= 1 and held[label] >= 1, "every class is on both sides"
        assert kept[label] + held[label] == size and abs(held[label] - share * size) <= 1


def test_labels_agree_with_classes_sorted_by_name(tmp_path: Path) -> None:
    learn, hold = open_data(str(grow(tmp_path, {"b": 3, "a": 3, "B": 3, "10": 3, "9": 3})))
    assert learn.classes == hold.classes == ("10", "9", "B", "a", "b")
    assert list(learn.labels) == sorted(learn.labels) and set(hold.labels) == set(range(5))
    for pictures in (learn, hold):
        assert all(Path(name).parts[0] == label for name, label in told(pictures).items())


def test_pictures_may_lie_deeper_inside_their_class(tmp_path: Path) -> None:
    root = grow(tmp_path, {"cat/2020/may": 2, "cat": 1, "cat/dog": 1, "dog/x/y/z": 2})
    assert everything(root) == {
        "cat/0.png": "cat",
        "cat/2020/may/0.png": "cat",
        "cat/2020/may/1.png": "cat",
        "cat/dog/0.png": "cat",
        "dog/x/y/z/0.png": "dog",
        "dog/x/y/z/1.png": "dog",
    }


def test_hidden_files_and_folders_are_not_there(tmp_path: Path) -> None:
    root = grow(tmp_path, {"cat": 2, "dog": 2, ".cache": 2})
    noise(0).save(root / "cat" / "._0.png")
    (root / ".hidden.png").write_bytes(b"")
    assert sorted(everything(root)) == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]


def test_hidden_folders_inside_a_class_are_not_there(tmp_path: Path) -> None:
    """Notebooks and file managers leave copies and thumbnails there: the same picture on both sides of the split."""
    root = grow(tmp_path, {"cat": 2, "dog": 2, "cat/.ipynb_checkpoints": 2, "dog/deep/.thumbnails/large": 1})
    assert sorted(everything(root)) == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]


def test_other_files_are_not_pictures(tmp_path: Path) -> None:
    root = grow(tmp_path, {"cat": 2, "dog": 2, "cat/folder.png": 0})
    for name in ("cat/notes.txt", "cat/Thumbs.db", "cat/png", "dog/labels.csv", "dog/0.png.bak", "README.md"):
        (root / name).write_text("not a picture")
    assert sorted(everything(root)) == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]


def test_endings_are_read_in_either_case(tmp_path: Path) -> None:
    root = grow(tmp_path, {"cat": 0, "dog": 2})
    names = [f"{n}.{ending}" for n, ending in enumerate("PNG JPG JPEG Jpeg BMP TIFF tif GIF ppm pgm WebP".split())]
    for number, name in enumerate(names):
        noise(number).convert("L" if name.endswith("pgm") else "RGB").save(root / "cat" / name)
    learn, hold = open_data(str(root))
    assert {name for name in told(learn) | told(hold) if name.startswith("cat")} == {f"cat/{name}" for name in names}
    for pictures in (learn, hold):
        assert all(Prepared(pictures, [PLAIN], 3, 0)[i, 0][0] is not None for i in range(len(pictures)))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = grow(tmp_path / "one", {"train": 2, "bus": 2})
    assert open_data(str(root))[0].classes == ("bus", "train")
    root = grow(tmp_path / "two", {"train/train": 2, "train/bus": 2, "val/train": 1, "val/bus": 1})
    learn, hold = open_data(str(root))
    assert learn.classes == ("bus", "train") and len(learn) == 4 and len(hold) == 2


def test_a_class_called_train_may_hold_a_hidden_folder(tmp_path: Path) -> None:
    root = grow(tmp_path, {"train": 2, "bus": 2, "train/.ipynb_checkpoints": 1})
    assert open_data(str(root))[0].classes == ("bus", "train")


def test_names_may_hold_spaces_and_any_letters(tmp_path: Path) -> None:
    root = grow(tmp_path / "my data", {"two words": 1, "größe 猫": 1, "a[0]": 1, "-o": 1, "x.png": 1})
    names = ("two words/a b.png", "größe 猫/ñ é.png", "a[0]/b[1].png", "-o/-x.png", "x.png/🐈.png")
    for number, name in enumerate(names):
        noise(number).save(root / name)
    learn, hold = open_data(str(root))
    assert learn.classes == ("-o", "a[0]", "größe 猫", "two words", "x.png")
    assert set(names) < set(told(learn) | told(hold))
    for pictures in (learn, hold):
        assert all(Prepared(pictures, [PLAIN], 3, 0)[i, 0][0] is not None for i in range(5))


@pytest.mark.skipif(sys.platform != "linux", reason="only there are names any bytes")
def test_names_that_are_not_utf8_are_read_and_digested(tmp_path: Path) -> None:
    root = grow(tmp_path, {f"{part}/{name}": 1 for part in ("train", "val") for name in ("cat", "dog")})
    noise(0).save(root / "train" / "cat" / os.fsdecode(b"caf\xe9.png"))
    learn, _ = open_data(str(root))
    assert len(learn) == 3 and all(Prepared(learn, [PLAIN], 3, 0)[i, 0][0] is not None for i in range(3))
    assert len(learn.digest) == 16


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_to_pictures_and_folders_are_followed(tmp_path: Path) -> None:
    away = grow(tmp_path / "away", {"felines": 2, "canines": 2})
    root = tmp_path / "root"
    (root / "dog").mkdir(parents=True)
    (root / "cat").symlink_to(away / "felines", target_is_directory=True)
    for name in ("0.png", "1.png"):
        (root / "dog" / name).symlink_to(away / "canines" / name)
    (root / "dog" / "round").symlink_to(root, target_is_directory=True)
    assert sorted(everything(root)) == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert everything(tmp_path / "link") == everything(root)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_broken_link_is_no_class_and_no_readable_picture(tmp_path: Path) -> None:
    root = grow(tmp_path, {f"{part}/{name}": 1 for part in ("train", "val") for name in ("cat", "dog")})
    (root / "train" / "emu").symlink_to(tmp_path / "nowhere")
    (root / "train" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    learn, _ = open_data(str(root))
    assert learn.classes == ("cat", "dog") and sorted(told(learn)) == ["cat/0.png", "cat/gone.png", "dog/0.png"]
    assert unreadable_names(learn) == ["cat/gone.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_to_itself_is_no_class(tmp_path: Path) -> None:
    root = grow(tmp_path, {"cat": 2, "dog": 2})
    (root / "loop").symlink_to(root / "loop")
    assert open_data(str(root))[0].classes == ("cat", "dog")


# Bad folders


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere") == f"there is no folder {tmp_path / 'nowhere'}"


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "no/such/folder"], ids=["nul", "long", "deep"])
def test_names_of_folders_that_cannot_be_are_refused(name: str, tmp_path: Path) -> None:
    assert "no folder" in refused(f"{tmp_path}/{name}")


def test_a_file_instead_of_a_folder_is_named(tmp_path: Path) -> None:
    noise(0).save(tmp_path / "cat.png")
    message = refused(tmp_path / "cat.png")
    assert str(tmp_path / "cat.png") in message and "it is a file" in message


def test_an_empty_folder_says_what_goes_into_it(tmp_path: Path) -> None:
    message = refused(tmp_path)
    assert message.startswith(f"{tmp_path} holds no folders: put the pictures of each class into a folder")


def test_pictures_without_folders_are_counted(tmp_path: Path) -> None:
    message = refused(grow(tmp_path, {".": 3}))
    assert message.startswith(f"{tmp_path} holds 3 pictures but no folders: put ")


@pytest.mark.parametrize("held", ["val", "test"])
def test_parts_without_class_folders_are_not_classes(held: str, tmp_path: Path) -> None:
    """A classifier of train against test is what nobody asks for."""
    message = refused(grow(tmp_path, {"train": 3, held: 3}))
    assert "train" in message and "folder" in message


def test_a_held_out_part_without_class_folders_is_named(tmp_path: Path) -> None:
    message = refused(grow(tmp_path, {"train/cat": 2, "train/dog": 2, "test": 3}))
    assert message.startswith(f"{tmp_path / 'test'} holds 3 pictures but no folders")


@pytest.mark.parametrize("part", ["", "train/"])
def test_one_class_is_named(part: str, tmp_path: Path) -> None:
    message = refused(grow(tmp_path, {f"{part}cat": 3}))
    assert str(tmp_path / part) in message and "one class, 'cat'" in message and "two or more" in message


def test_classes_without_a_picture_are_named(tmp_path: Path) -> None:
    message = refused(grow(tmp_path, {"cat": 2, "dog": 0, "emu": 2, "fox/deep": 0}))
    assert "2 of 4 classes" in message and str(tmp_path) in message and "dog, fox" in message
    assert message.endswith("add pictures or remove the folders")


def test_many_classes_without_a_picture_are_five_and_dots(tmp_path: Path) -> None:
    message = refused(grow(tmp_path, {"cat": 2} | {f"empty {n}": 0 for n in range(7)}))
    assert "7 of 8 classes" in message and "empty 4, ...;" in message and "empty 5" not in message


def test_a_held_out_class_without_a_picture_is_named(tmp_path: Path) -> None:
    message = refused(grow(tmp_path, {"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dog": 0}))
    assert str(tmp_path / "val") in message and "dog" in message


@pytest.mark.parametrize(("train", "val", "odd"), [("dog", "fox", "dog, fox"), ("dog emu", "dog", "emu")])
def test_parts_with_other_classes_name_them(train: str, val: str, odd: str, tmp_path: Path) -> None:
    classes = {f"train/{name}": 2 for name in ["cat", *train.split()]}
    message = refused(grow(tmp_path, classes | {f"val/{name}": 2 for name in ["cat", *val.split()]}))
    assert str(tmp_path / "train") in message and str(tmp_path / "val") in message and odd in message


def test_one_picture_cannot_be_split_but_two_can(tmp_path: Path) -> None:
    root = grow(tmp_path, {"cat": 1, "dog": 2})
    message = refused(root)
    assert "'cat'" in message and "at least two" in message
    noise(1).save(root / "cat" / "1.png")
    assert [len(pictures) for pictures in open_data(str(root))] == [2, 2]


@pytest.mark.parametrize("share", [0, 1, -1, 1.5, float("nan"), float("inf")])
def test_a_share_outside_0_to_1_is_refused(share: float, tmp_path: Path) -> None:
    message = refused(grow(tmp_path, {"cat": 3, "dog": 3}), held_out=share)
    assert "between 0 and 1" in message and str(share) in message


@pytest.mark.parametrize("share", [0.01, 0.5, 0.75, 0.9, 0.99])
def test_a_share_of_few_pictures_leaves_some_on_both_sides(share: float, tmp_path: Path) -> None:
    learn, hold = open_data(str(grow(tmp_path, {"cat": 2, "dog": 3})), held_out=share)
    assert set(learn.labels) == set(hold.labels) == {0, 1}


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another matter there")
@pytest.mark.parametrize("closed", [".", "cat", "train"])
def test_a_folder_that_may_not_be_read_is_named(closed: str) -> None:
    """Root may read everything, so root becomes nobody for a moment."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        root, user = grow(Path(name) / "root", {"cat": 2, "dog": 2, "train": 2}), os.geteuid()
        (root / closed).chmod(0)
        os.seteuid(user or 65534)
        try:
            message = refused(root)
        finally:
            os.seteuid(user)
            (root / closed).chmod(0o755)
        assert str(root) in message and (closed == "." or closed in message)


# Names of classes


def table(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def shown(root: Path, rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    learn, hold = open_data(str(root), names=table(root / "names.csv", rows))
    assert learn.classes == hold.classes
    return learn.classes


def test_names_are_shown_up_to_the_first_comma(tmp_path: Path) -> None:
    root = grow(tmp_path, {"n01": 2, "n02": 2})
    rows = [["n02", " dog"], ["n01 ", "tabby, tabby cat", "more"], ["n99", "unused"], [], ["alone"]]
    assert shown(root, rows) == ("tabby", "dog")


def test_names_that_would_be_the_same_are_shown_whole(tmp_path: Path) -> None:
    root = grow(tmp_path, {"a": 2, "b": 2, "c": 2, "d": 2})
    rows = [["a", "crane, bird"], ["b", "crane, machine"], ["c", "crane"], ["d", "tabby, cat"]]
    assert shown(root, rows) == ("crane, bird", "crane, machine", "crane", "tabby")


def test_names_leave_labels_as_they_are(tmp_path: Path) -> None:
    root = grow(tmp_path, {"a": 3, "b": 4})
    plain = open_data(str(root))
    names = table(root / "names.csv", [["a", "zebra"], ["b", "ant"]])
    named = open_data(str(root), names=names)
    assert named[0].classes == ("zebra", "ant"), "in the order of the folders"
    assert [p.labels for p in named] == [p.labels for p in plain] and [p.indices for p in named] == [
        p.indices for p in plain
    ]


NAME = st.text(st.sampled_from("ab,\" 猫'"), min_size=1, max_size=6).filter(lambda n: n == n.strip() and n[0] != ",")


@given(st.lists(NAME, min_size=2, max_size=5, unique=True))
def test_other_names_are_shown_as_other_names(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [[str(number), name] for number, name in enumerate(names)]
        short = read_class_names(table(Path(folder) / "names.csv", rows), [row[0] for row in rows])
    assert len(set(short)) == len(names)
    for name, brief in zip(names, short, strict=True):
        assert brief == brief.strip() != "" and (brief == name or name.startswith(brief))


def test_a_table_that_a_spreadsheet_wrote_is_read(tmp_path: Path) -> None:
    """Spreadsheets write a byte order mark before the first letter, and carriage returns."""
    root = grow(tmp_path, {"a": 2, "b": 2})
    (root / "names.csv").write_bytes(b'\xef\xbb\xbfa,ant\r\nb,"bee, honey"\r\n')
    assert open_data(str(root), names=root / "names.csv")[0].classes == ("ant", "bee")


@pytest.mark.parametrize("rows", [[["a", "ant"]], [["a", "ant"], ["b"]], [["a", "ant"], ["b", " "]]], ids=repr)
def test_a_class_without_a_name_is_named(rows: list[list[str]], tmp_path: Path) -> None:
    root = grow(tmp_path, {"a": 2, "b": 2})
    names = table(root / "names.csv", rows)
    message = refused(root, names=names)
    assert str(names) in message and "no name for 1 class" in message and message.partition(": ")[2].startswith("b")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    root = grow(tmp_path, {"a": 2, "b": 2})
    assert str(root / "nowhere.csv") in refused(root, names=root / "nowhere.csv")
    assert str(root / "a") in refused(root, names=root / "a")


@pytest.mark.parametrize("junk", [b"", b"\0" * 100, b"\xff\xfe\x00\x01" * 50, b'"' + b"x" * 200_000, b"a;b\n"], ids=len)
def test_a_table_of_junk_is_named(junk: bytes, tmp_path: Path) -> None:
    root = grow(tmp_path, {"a": 2, "b": 2})
    (root / "names.csv").write_bytes(junk)
    assert str(root / "names.csv") in refused(root, names=root / "names.csv")


# Data sets of torchvision


def idx(path: Path, values: np.ndarray) -> None:
    """Write an IDX file: unsigned bytes or 32-bit integers."""
    kind = {"uint8": 8, "int32": 12}[values.dtype.name]
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, kind, values.ndim, *values.shape)
    path.write_bytes(head + values.astype(values.dtype.newbyteorder(">")).tobytes())


def mnist(root: Path, learn: int = 20, hold: int = 10, classes: int = 10) -> Path:
    """MNIST's files with other pictures: that of digit k is grey 10 k, with its number in the first pixel."""
    for part, count in (("train", learn), ("t10k", hold)):
        labels = (np.arange(count) * 7 % classes).astype(np.uint8)
        pixels = np.tile(labels[:, None, None] * np.uint8(10), (1, 28, 28))
        pixels[:, 0, 0] = np.arange(count)
        idx(root / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", pixels)
        idx(root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", labels)
    return root


def test_mnist_is_read_from_its_folder(tmp_path: Path) -> None:
    learn, hold = open_data(f"torchvision:MNIST:{mnist(tmp_path)}")
    assert len(learn) == 20 and len(hold) == 10 and learn.classes == hold.classes
    assert learn.classes[0] == "0 - zero" and len(learn.classes) == 10 and learn.name(7) == "MNIST picture 7"
    assert list(learn.labels) == [n * 7 % 10 for n in range(20)]
    for channels in (1, 3):
        pixels, label, index = Prepared(learn, [PLAIN], channels, 0)[13, 0]
        assert pixels is not None and pixels.shape == (channels, 28, 28) and (label, index) == (1, 13)
        assert (pixels[:, 1:] == 10).all() and (pixels[:, 0, 0] == 13).all()


def test_mnist_can_be_given_other_names(tmp_path: Path) -> None:
    data = f"torchvision:MNIST:{mnist(tmp_path)}"
    names = table(tmp_path / "names.csv", [[name, f"digit {name[0]}"] for name in open_data(data)[0].classes])
    assert [p.classes[3] for p in open_data(data, names=names)] == ["digit 3"] * 2


def test_a_colon_in_the_folder_of_a_data_set_is_part_of_it(tmp_path: Path) -> None:
    assert len(open_data(f"torchvision:MNIST:{mnist(tmp_path / 'a: b')}")[0]) == 20


@pytest.mark.parametrize(
    ("asked", "near"), [("MNST", "'MNIST'"), ("mnist", "'MNIST'"), ("CIFAR", "'CIFAR10'"), ("", "ImageFolder")]
)
def test_an_unknown_data_set_names_the_nearest(asked: str, near: str, tmp_path: Path) -> None:
    message = refused(f"torchvision:{asked}:{tmp_path}")
    assert f"no data set {asked!r}" in message and near in message


@pytest.mark.parametrize("name", ["wrap_dataset_for_transforms_v2", "VisionDataset", "DatasetFolder", "CocoDetection"])
def test_what_is_no_classification_data_set_is_refused(name: str, tmp_path: Path) -> None:
    assert name in refused(f"torchvision:{name}:{tmp_path}")


@pytest.mark.parametrize("data", ["torchvision:MNIST", "torchvision:MNIST:"])
def test_a_data_set_without_a_folder_says_how_to_name_it(data: str) -> None:
    assert refused(data) == "say where MNIST is: torchvision:MNIST:FOLDER"


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "SVHN", "ImageFolder", "Imagenette"])
def test_a_data_set_that_is_not_in_its_folder_is_named(name: str, tmp_path: Path) -> None:
    message = refused(f"torchvision:{name}:{tmp_path}")
    assert name in message and str(tmp_path) in message
    assert list(tmp_path.iterdir()) == [], "nothing is downloaded"


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\0\0\x08\x03\0\0", b"junk" * 100], ids=["gone", "empty", "cut", "junk"]
)
def test_a_data_set_with_a_damaged_file_is_named(file: str, content: bytes | None, tmp_path: Path) -> None:
    path = mnist(tmp_path) / "MNIST" / "raw" / file
    path.unlink() if content is None else path.write_bytes(content)
    message = refused(f"torchvision:MNIST:{tmp_path}")
    assert "MNIST" in message and str(tmp_path) in message


def test_a_data_set_without_parts_is_split(tmp_path: Path) -> None:
    root = grow(tmp_path, {"cat": 4, "dog": 8})
    learn, hold = open_data(f"torchvision:ImageFolder:{root}", held_out=0.25)
    assert learn.classes == hold.classes == ("cat", "dog")
    assert Counter(learn.labels) == {0: 3, 1: 6} and Counter(hold.labels) == {0: 1, 1: 2}
    assert set(told(learn)).isdisjoint(told(hold))
    again = open_data(f"torchvision:ImageFolder:{root}", held_out=0.25)
    assert told(again[1]) == told(hold)
    assert told(open_data(f"torchvision:ImageFolder:{root}", held_out=0.25, seed=1)[1]) != told(hold)


def test_a_data_set_without_a_folder_needs_none() -> None:
    before = torch.get_rng_state()
    learn, hold = open_data("torchvision:FakeData")
    assert len(learn) + len(hold) == 1000 and learn.classes == tuple("0123456789")
    assert set(learn.labels) == set(hold.labels) == set(range(10))
    pixels, label, _ = Prepared(hold, [PLAIN], 3, 0)[5, 0]
    assert pixels is not None and pixels.shape == (3, 224, 224)
    assert label == learn.source.parts[0].data[hold.indices[5]][1]  # type: ignore[attr-defined]
    assert torch.equal(before, torch.get_rng_state())


def test_a_data_set_of_one_class_is_refused(tmp_path: Path) -> None:
    assert "cat" in refused(f"torchvision:ImageFolder:{grow(tmp_path, {'cat': 4})}")


def test_a_class_of_a_data_set_without_a_picture_is_named(tmp_path: Path) -> None:
    assert "9 - nine" in refused(f"torchvision:MNIST:{mnist(tmp_path, classes=9)}")


def imagenette(root: Path) -> Path:
    for part in ("train", "val"):
        for number, folder in enumerate(("n01440764", "n02979186")):
            position = root / "imagenette2" / part / folder
            position.mkdir(parents=True)
            for n in range(3):
                noise(10 * number + n).save(position / f"{n}.JPEG")
    return root


def test_a_data_set_with_many_names_for_a_class_shows_the_first(tmp_path: Path) -> None:
    learn, hold = open_data(f"torchvision:Imagenette:{imagenette(tmp_path)}")
    assert learn.labels == hold.labels == (0, 0, 0, 1, 1, 1)
    assert [name.split(",")[0] for name in learn.classes] == ["tench", "cassette player"]


def test_a_damaged_picture_of_a_data_set_is_one_that_cannot_be_read(tmp_path: Path) -> None:
    """It is for the trainer to count these, whichever way the data set keeps its labels."""
    path = imagenette(tmp_path) / "imagenette2" / "train" / "n02979186" / "1.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    learn, _ = open_data(f"torchvision:Imagenette:{tmp_path}")
    assert learn.labels == (0, 0, 0, 1, 1, 1) and unreadable_names(learn) == ["Imagenette picture 4"]


def test_a_data_set_with_more_than_a_class_per_label_is_read(tmp_path: Path) -> None:
    """QMNIST's labels are eight numbers each, of which the first is the digit."""
    for part in ("train", "test"):
        labels = np.arange(80, dtype=np.int32).reshape(10, 8)
        labels[:, 0] = np.arange(10)[::-1]
        idx(tmp_path / "QMNIST" / "raw" / f"qmnist-{part}-images-idx3-ubyte", np.zeros((10, 28, 28), np.uint8))
        idx(tmp_path / "QMNIST" / "raw" / f"qmnist-{part}-labels-idx2-int", labels)
    learn, hold = open_data(f"torchvision:QMNIST:{tmp_path}")
    assert learn.labels == hold.labels == tuple(range(10))[::-1]


def test_a_data_set_whose_part_to_learn_from_is_called_trainval_is_read(tmp_path: Path) -> None:
    base = tmp_path / "oxford-iiit-pet"
    for folder in ("images", "annotations/trimaps"):
        (base / folder).mkdir(parents=True)
    for part, numbers in (("trainval", range(4)), ("test", range(4, 6))):
        rows = [f"{'beagle' if n % 2 else 'Abyssinian'}_{n} {1 + n % 2} 1 1" for n in numbers]
        (base / "annotations" / f"{part}.txt").write_text("\n".join(rows))
        for row in rows:
            noise(0).save(base / "images" / f"{row.split()[0]}.jpg")
    learn, hold = open_data(f"torchvision:OxfordIIITPet:{tmp_path}")
    assert learn.labels == (0, 1, 0, 1) and hold.labels == (0, 1) and learn.classes == ("Abyssinian", "Beagle")


# Pictures that cannot be read


def unreadable_names(pictures: LabelledPictures) -> list[str]:
    loader = batches(Prepared(pictures, [v2.Compose([v2.Resize((8, 8)), PLAIN])], 3, 0), 4, share=Share(), workers=0)
    return [pictures.name(index) for batch in loader for index in batch.unreadable]


def bomb() -> bytes:
    """A BMP file that claims to be 100,000 x 100,000."""
    return struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 154, 0, 0, 54, 40, 100_000, 100_000, 1, 24, 0, 100, 1, 1, 0, 0)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Five good pictures and four bad ones of two classes, to learn from; and two to hold out."""
    root = grow(tmp_path / "damaged", {"train/cat": 2, "train/dog": 3, "val/cat": 1, "val/dog": 1})
    noise(0, (40, 40)).save(root / "whole.jpg")
    (root / "train/cat/cut.jpg").write_bytes((root / "whole.jpg").read_bytes()[:500])
    (root / "train/cat/empty.png").write_bytes(b"")
    (root / "train/dog/text.png").write_text("this is not a picture")
    (root / "train/dog/bomb.bmp").write_bytes(bomb())
    return root


BAD = ["cat/cut.jpg", "cat/empty.png", "dog/bomb.bmp", "dog/text.png"]


def test_a_picture_that_cannot_be_read_is_none_with_its_class_and_index(damaged: Path) -> None:
    learn, _ = open_data(str(damaged))
    prepared = Prepared(learn, [PLAIN], 3, 0)
    for index in range(len(learn)):
        pixels, label, same = prepared[index, 0]
        assert (pixels is None) == (learn.name(index) in BAD) and same == index
        assert learn.classes[label] == learn.name(index).split("/")[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_that_cannot_be_read_are_collected_and_the_others_keep_their_classes(
    damaged: Path, workers: int
) -> None:
    learn, _ = open_data(str(damaged))
    loaded = list(batches(Prepared(learn, [PLAIN], 3, 0), 4, share=Share(), workers=workers))
    assert [learn.name(index) for batch in loaded for index in batch.unreadable] == BAD
    assert [len(batch.labels) for batch in loaded] == [len(batch.pixels) for batch in loaded] == [2, 3, 0]
    good = [index for index in range(len(learn)) if learn.name(index) not in BAD]
    assert torch.cat([batch.labels for batch in loaded]).tolist() == [learn.labels[index] for index in good]
    for pixels, index in zip([pixels for batch in loaded for pixels in batch.pixels], good, strict=True):
        wanted = np.asarray(Image.open(damaged / "train" / learn.name(index))).transpose(2, 0, 1)
        assert pixels.dtype == torch.uint8 and np.array_equal(pixels.numpy(), wanted)


def test_a_batch_of_which_nothing_can_be_read_is_empty(damaged: Path) -> None:
    learn, _ = open_data(str(damaged))
    bad = learn.only([index for index in range(len(learn)) if learn.name(index) in BAD])
    (batch,) = batches(Prepared(bad, [PLAIN], 3, 0), 4, share=Share(), workers=0)
    assert len(batch.pixels) == len(batch.labels) == 0 and batch.unreadable == (0, 1, 2, 3)
    assert batch.labels.dtype == torch.long and [bad.name(index) for index in batch.unreadable] == BAD


def test_pictures_of_a_torchvision_folder_that_cannot_be_read_are_collected(damaged: Path) -> None:
    learn, hold = open_data(f"torchvision:ImageFolder:{damaged / 'train'}", held_out=0.5)
    bad = [learn.source.parts[0].data.samples[p.indices[i]][0] for p in (learn, hold) for i in bad_of(p)]  # type: ignore[attr-defined]
    assert sorted(str(Path(path).relative_to(damaged / "train")) for path in bad) == BAD


def bad_of(pictures: LabelledPictures) -> list[int]:
    prepared = Prepared(pictures, [PLAIN], 3, 0)
    return [index for index in range(len(pictures)) if prepared[index, 0][0] is None]


def test_a_picture_that_goes_away_is_one_that_cannot_be_read(tmp_path: Path) -> None:
    root = grow(tmp_path, {f"{part}/{name}": 2 for part in ("train", "val") for name in ("cat", "dog")})
    learn, _ = open_data(str(root))
    (root / "train" / "dog" / "1.png").unlink()
    assert unreadable_names(learn) == ["dog/1.png"]


# Pictures as tensors


MODES: dict[str, Callable[[Path], None]] = {
    "L.png": lambda to: Image.new("L", (9, 8), 128).save(to),
    "RGB.png": lambda to: Image.new("RGB", (9, 8), (128, 128, 128)).save(to),
    "RGBA.png": lambda to: Image.new("RGBA", (9, 8), (1, 255, 1, 0)).save(to),
    "LA.png": lambda to: Image.new("LA", (9, 8), (128, 255)).save(to),
    "P.png": lambda to: Image.new("RGB", (9, 8), (128, 128, 128)).quantize(4).save(to),
    "P.gif": lambda to: Image.new("L", (9, 8), 128).save(to, transparency=128),
    "1.png": lambda to: Image.new("1", (9, 8), 1).save(to),
    "I16.png": lambda to: Image.fromarray(np.full((8, 9), 128 * 257, np.uint16)).save(to),
    "CMYK.jpg": lambda to: Image.new("CMYK", (9, 8), (0, 0, 0, 127)).save(to, quality=100),
    "F.tif": lambda to: Image.fromarray(np.full((8, 9), 128 / 255, np.float32)).save(to),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", MODES)
def test_every_kind_of_picture_comes_out_with_the_channels_asked_for(name: str, channels: int, tmp_path: Path) -> None:
    root = grow(tmp_path, {f"{part}/{kind}": 1 for part in ("train", "val") for kind in ("cat", "dog")})
    MODES[name](root / "train" / "cat" / name)
    learn, _ = open_data(str(root))
    assert learn.name(1) == f"cat/{name}"
    pixels, label, _ = Prepared(learn, [PLAIN], channels, 0)[1, 0]
    assert pixels is not None and label == 0 and pixels.dtype == torch.uint8 and pixels.shape == (channels, 8, 9)
    wanted = 255 if name in ("RGBA.png", "P.gif", "1.png") else 128  # what is see-through lies on white
    assert (pixels.int() - wanted).abs().max() <= 1


@pytest.fixture
def noisy(tmp_path: Path) -> LabelledPictures:
    """Nine pictures of noise."""
    root = grow(tmp_path / "noisy", {"val/cat": 1, "val/dog": 1, "train/cat": 0, "train/dog": 0})
    for number in range(9):
        noise(number).save(root / "train" / ("cat" if number < 4 else "dog") / f"{number}.png")
    return open_data(str(root))[0]


def items(pictures: LabelledPictures, seed: int, indices: Sequence[int] = range(9)) -> torch.Tensor:
    prepared = Prepared(pictures, [AUGMENTED], 3, seed)
    return torch.stack([pixels for index in indices if (pixels := prepared[index, 0][0]) is not None])


def test_the_same_seed_and_index_give_the_same_tensor_whatever_came_before(noisy: LabelledPictures) -> None:
    first = items(noisy, 5)
    torch.manual_seed(1234)
    np.random.seed(1)
    random.seed(1)
    assert torch.equal(items(noisy, 5), first)
    assert torch.equal(items(noisy, 5, [8, 3, 3]), first[[8, 3, 3]])


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_number_of_workers_changes_nothing(shuffled: bool, noisy: LabelledPictures) -> None:
    def load(workers: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        prepared = Prepared(noisy, [AUGMENTED], 3, 5)
        loader = batches(prepared, 2, share=Share(), workers=workers, shuffled=shuffled)
        return [(batch.pixels, batch.labels) for batch in loader]

    alone = load(0)
    assert len(alone) == (4 if shuffled else 5)
    for workers in (1, 2):
        torch.manual_seed(workers)
        for (pixels, labels), (more, same) in zip(alone, load(workers), strict=True):
            assert torch.equal(pixels, more) and torch.equal(labels, same)
    if not shuffled:
        assert torch.equal(torch.cat([pixels for pixels, _ in alone]), items(noisy, 5))


def test_another_seed_or_index_gives_another_augmentation(noisy: LabelledPictures) -> None:
    assert not torch.equal(items(noisy, 5), items(noisy, 6))
    same = noisy.only([0] * 9)
    assert len(torch.unique(items(same, 5), dim=0)) > 3, "the same picture is cut in many ways"


def test_large_and_negative_seeds_are_seeds(noisy: LabelledPictures) -> None:
    for seed in (-1, 2**62, 2**80 + 1):
        assert torch.equal(items(noisy, seed), items(noisy, seed))
        assert len(list(batches(Prepared(noisy, [PLAIN], 3, seed), 3, share=Share(), workers=0, shuffled=True))) == 3


def failing(picture: Image.Image) -> torch.Tensor:
    raise RuntimeError(f"{torch.rand(1)}")


def test_the_global_random_state_is_left_alone(noisy: LabelledPictures) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    items(noisy, 5)
    with pytest.raises(RuntimeError, match="tensor"):
        Prepared(noisy, [failing], 3, 0)[0, 0]
    assert torch.equal(before, torch.get_rng_state())


# Batches


def order(count: int, size: int, share: Share | None = None, seed: int = 0, **options: Any) -> list[list[int]]:
    prepared = Prepared(in_memory(count), [PLAIN], 3, seed)
    return [batch.labels.tolist() for batch in batches(prepared, size, share=share or Share(), workers=0, **options)]


def flat(loaded: Sequence[Sequence[int]]) -> list[int]:
    return [index for batch in loaded for index in batch]


@given(st.integers(0, 25), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**70))
def test_shares_of_an_epoch_are_together_what_one_process_learns_from(
    count: int, size: int, world: int, seed: int
) -> None:
    alone = flat(order(count, 1, seed=seed, shuffled=True))
    assert sorted(alone) == list(range(count))
    shares = [flat(order(count, 1, Share(rank, world), seed, shuffled=True)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1, "every process takes as many steps"
    together = [index for step in zip(*shares, strict=True) for index in step]
    assert together == alone[: count // world * world]
    steps = zip(*(order(count, size, Share(rank, world), seed, shuffled=True) for rank in range(world)), strict=True)
    for parts, batch in zip(steps, order(count, size * world, seed=seed, shuffled=True), strict=True):
        assert sorted(flat(parts)) == sorted(batch), "a step learns from the same pictures on any number of devices"


@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_may_begin_at_any_step(world: int) -> None:
    for rank in range(world):
        share = Share(rank, world)
        whole = order(23, 2, share, shuffled=True)
        assert len(whole) == 23 // world // 2 and all(len(batch) == 2 for batch in whole)
        for start in range(len(whole) + 2):
            assert order(23, 2, share, shuffled=True, start=start) == whole[start:]


def test_an_epoch_is_shuffled_by_the_seed() -> None:
    first = flat(order(30, 5, seed=1, shuffled=True))
    assert first != sorted(first) and first == flat(order(30, 5, seed=1, shuffled=True))
    assert first != flat(order(30, 5, seed=2, shuffled=True))


def test_the_order_of_an_epoch_leaves_no_trace_of_the_global_random_state() -> None:
    first = order(30, 5, shuffled=True)
    torch.manual_seed(4321)
    assert order(30, 5, shuffled=True) == first


@given(st.integers(0, 25), st.integers(1, 30), st.integers(1, 3))
def test_without_an_epoch_every_picture_comes_once_and_in_order(count: int, size: int, world: int) -> None:
    shares = [order(count, size, Share(rank, world)) for rank in range(world)]
    assert sorted(index for share in shares for index in flat(share)) == list(range(count))
    for rank, share in enumerate(shares):
        assert flat(share) == list(range(rank, count, world))
        assert all(len(batch) == size for batch in share[:-1])


@pytest.mark.parametrize("world", [1, 2])
def test_every_batch_is_of_one_transform_the_same_for_all_processes_and_after_a_pause(world: int) -> None:
    sides = [v2.Compose([v2.Resize((side, side)), PLAIN]) for side in (4, 8, 12)]
    prepared = Prepared(in_memory(60), sides, 3, 9)

    def drawn(rank: int, start: int = 0) -> list[int]:
        loader = batches(prepared, 2, share=Share(rank, world), workers=0, shuffled=True, start=start)
        return [batch.pixels.shape[-1] for batch in loader]

    whole = drawn(0)
    assert set(whole) == {4, 8, 12} and len(whole) == 30 // world
    assert all(drawn(rank, start) == whole[start:] for rank in range(world) for start in (0, 3, 7))


def test_more_pictures_per_batch_than_there_are() -> None:
    assert order(3, 10) == [[0, 1, 2]]
    assert order(3, 10, shuffled=True) == []
    assert order(1, 10, Share(1, 2)) == order(0, 10) == []


# Digests


def digest(root: Path) -> str:
    return open_data(str(root))[0].digest


PARTS = {"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1}


def test_the_digest_is_that_of_names_and_classes_wherever_they_lie(tmp_path: Path) -> None:
    first = digest(grow(tmp_path / "here", PARTS))
    assert len(first) == 16 and int(first, 16) >= 0
    assert digest(grow(tmp_path / "there" / "deeper", PARTS)) == first
    (tmp_path / "here").rename(tmp_path / "moved")
    assert digest(tmp_path / "moved") == first


def added(train: Path) -> None:
    noise(0).save(train / "cat" / "3.png")


def removed(train: Path) -> None:
    (train / "cat" / "2.png").unlink()


def renamed(train: Path) -> None:
    (train / "cat" / "2.png").rename(train / "cat" / "two.png")


def moved(train: Path) -> None:
    (train / "cat" / "2.png").rename(train / "dog" / "3.png")


def deepened(train: Path) -> None:
    (train / "cat" / "deep").mkdir()
    (train / "cat" / "2.png").rename(train / "cat" / "deep" / "2.png")


def class_renamed(train: Path) -> None:
    for part in (train, train.parent / "val"):
        (part / "dog").rename(part / "hound")


@pytest.mark.parametrize("change", [added, removed, renamed, moved, deepened, class_renamed])
def test_the_digest_changes_with_the_pictures(change: Callable[[Path], None], tmp_path: Path) -> None:
    before = digest(grow(tmp_path, PARTS))
    change(tmp_path / "train")
    assert digest(tmp_path) != before


def test_the_digest_tells_labels_classes_and_choices_apart() -> None:
    whole = in_memory(4, [0, 0, 1, 1])
    others = [in_memory(4, [0, 1, 0, 1]), in_memory(4, [0, 0, 1, 2]), whole.only([0, 1, 2]), whole.only([1, 0, 2, 3])]
    assert len({pictures.digest for pictures in [whole, *others]}) == 5
    assert whole.only(range(4)).digest == whole.digest


def test_some_of_some_pictures_are_still_the_right_ones(noisy: LabelledPictures) -> None:
    some = noisy.only([8, 6, 4, 2, 0]).only([1, 3])
    assert [some.name(i) for i in range(2)] == ["dog/6.png", "cat/2.png"] and len(some) == 2
    assert np.array_equal(np.asarray(some.open(0)), np.asarray(noise(6))) and some.labels == (1, 0)
