"""Data to learn from in tar and Parquet files: their labels, their parts, and what is refused."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from convscope.data.batches import Prepared, Share, batches
from convscope.data.datasets import open_data
from convscope.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (9, 7), value).save(buffer, "PNG")
    return buffer.getvalue()


def shard(path: Path, labels: list[str], first: int = 0) -> Path:
    """Write pictures of grey values counted from `first` as WebDataset does, with their labels in .cls."""
    with tarfile.open(path, "w") as tar:
        for value, label in enumerate(labels, first):
            for ending, content in (("png", png(value)), ("cls", label.encode())):
                info = tarfile.TarInfo(f"{value:04d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def table(path: Path, labels: list[int | str | None]) -> Path:
    pq.write_table(pa.table({"image": [png(value) for value in range(len(labels))], "label": labels}), path)
    return path


def test_a_tar_file_is_split_by_its_labels(tmp_path: Path) -> None:
    learn, hold = open_data(str(shard(tmp_path / "pets.tar", ["0", "1"] * 6)), held_out=0.5)
    assert learn.classes == hold.classes == ("0", "1") and Counter(learn.labels) == Counter(hold.labels) == {0: 3, 1: 3}
    for part in (learn, hold):
        for index, label in enumerate(part.labels):
            assert np.asarray(part.open(index))[0, 0] % 2 == label
    assert learn.name(0).startswith("pets.tar#0")


def test_names_of_classes_in_labels_are_sorted(tmp_path: Path) -> None:
    learn, _ = open_data(str(shard(tmp_path / "pets.tar", ["dog", "cat"] * 3)))
    assert learn.classes == ("cat", "dog") and learn.labels[0] == 1


def test_shards_by_pattern_and_parts_by_name(tmp_path: Path) -> None:
    for index in range(2):
        shard(tmp_path / f"train-{index}.tar", ["0", "1"] * 2, 4 * index)
    shard(tmp_path / "validation-0.tar", ["1", "0"], 50)
    learn, hold = open_data(str(tmp_path))
    assert [np.asarray(learn.open(i))[0, 0] for i in range(8)] == list(range(8)) and hold.labels == (1, 0)
    both = open_data(f"{tmp_path}/train-{{0..1}}.tar", held_out=0.5)
    assert sorted(both[0].indices + both[1].indices) == list(range(8))
    assert open_data(str(tmp_path))[0].digest == learn.digest != both[0].digest


def test_a_parquet_file_gives_the_same_batches_in_processes(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", [0, 1] * 8)
    learn, _ = open_data(str(path), held_out=0.25)
    prepared = Prepared(learn, [v2.PILToTensor()], 1, 0)
    alone, helped = (
        [batch.pixels for batch in batches(prepared, 4, share=Share(), workers=workers, shuffled=True)]
        for workers in (0, 2)
    )
    assert len(alone) == 3 and all(torch.equal(one, other) for one, other in zip(alone, helped, strict=True))


def test_where_few_files_may_be_open_pictures_are_loaded_without_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    learn, _ = open_data(str(table(tmp_path / "x.parquet", [0, 1] * 8)), held_out=0.25)
    prepared = Prepared(learn, [v2.PILToTensor()], 1, 0)
    assert batches(prepared, 4, share=Share(), workers=2).num_workers == 2
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    assert batches(prepared, 4, share=Share(), workers=2).num_workers == 0


def test_processes_that_cannot_be_had_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn, _ = open_data(str(table(tmp_path / "x.parquet", [0, 1] * 8)), held_out=0.25)
    loader = batches(Prepared(learn, [v2.PILToTensor()], 1, 0), 4, share=Share(), workers=2)

    def refuse(self: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", refuse)
    with pytest.raises(DataError, match=r"cannot be loaded in 2 more processes .*unavailable.*or 0 to load them"):
        list(loader)


def test_labels_that_cannot_be_learnt_are_refused(tmp_path: Path) -> None:
    some: list[int | str | None] = [0, None, 1]
    for labels, words in ((some, "1 of 3 pictures of .* have no label"), ([0, 0], "has one class, '0'")):
        with pytest.raises(DataError, match=words):
            open_data(str(table(tmp_path / "x.parquet", list(labels))))
    with pytest.raises(DataError, match=r"1 classes of .* have no picture: 1"):
        open_data(str(table(tmp_path / "y.parquet", [0, 2, 2])))
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.tar"):
        open_data(str(tmp_path / "nowhere.tar"))


def test_a_broken_picture_in_a_tar_file_is_noted_in_its_batch(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in (("a/0.png", png(1)), ("a/1.png", b"junk"), ("b/0.png", png(2)), ("b/1.png", png(3))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    learn, hold = open_data(str(path), held_out=0.5)
    parts = [
        (part, next(iter(batches(Prepared(part, [v2.PILToTensor()], 1, 0), 4, share=Share(), workers=0))))
        for part in (learn, hold)
    ]
    assert learn.classes == ("a", "b")
    assert [part.name(index) for part, batch in parts for index in batch.unreadable] == ["x.tar#a/1.png"]
