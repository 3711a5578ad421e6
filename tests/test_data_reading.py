"""One way to read pictures: files, folders, tar and Parquet files, data sets, loaders and tensors."""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from convscope.data.loading import Loaded, read_ahead
from convscope.data.opening import open_picture
from convscope.data.pictures import Pictures, read_pictures
from convscope.errors import DataError, OptionError, PictureError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def grey(value: int) -> Image.Image:
    return Image.new("L", (9, 7), value)


def png(value: int) -> bytes:
    """A picture that tells its number."""
    buffer = io.BytesIO()
    grey(value).save(buffer, "PNG")
    return buffer.getvalue()


def number(image: Image.Image) -> int:
    return int(np.asarray(image.convert("L"))[3, 3])


def numbers(pictures: Pictures) -> list[int]:
    return [number(picture.open()) for picture in pictures]


def wheres(pictures: Pictures) -> list[str]:
    return [picture.where for picture in pictures]


def labels(pictures: Pictures) -> list[Any]:
    return [picture.label for picture in pictures]


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def shard(path: Path, first: int, count: int, ending: str = "cls") -> Path:
    """Write a shard as WebDataset does."""
    members: dict[str, bytes] = {}
    for key in range(first, first + count):
        members[f"{key:06d}.png"] = png(key)
        told = {"cls": str(key % 3), "txt": f"picture {key}", "json": json.dumps({"label": key % 3, "width": 9})}
        members[f"{key:06d}.{ending}"] = told[ending].encode()
        members[f"{key:06d}.seg.png"] = png(255)
    return write_tar(path, members)


def table(count: int = 7, *, plain: bool = False, first: int = 0) -> Any:
    """Make a table as Hugging Face writes it, or one with a plain column of bytes."""
    keys = range(first, first + count)
    cells = [png(key) if plain else {"bytes": png(key), "path": f"{key}.png"} for key in keys]
    rows = pa.table({"id": list(keys), "image": cells, "label": [key % 2 for key in keys]})
    if plain:
        return rows
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    return rows.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures 10, 11 in a folder a and 20 in a folder b, and what is none."""
    for name, value in (("a/0.png", 10), ("a/deep/1.png", 11), ("b/0.png", 20), ("a/.hidden/2.png", 99)):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        grey(value).save(tmp_path / "data" / name)
    (tmp_path / "data" / "notes.txt").write_text("no picture")
    return tmp_path / "data"


# Files and folders


def test_paths_and_lists_of_paths(folder: Path) -> None:
    one = read_pictures(folder / "a/0.png")
    assert len(one) == 1 and wheres(one) == [str(folder / "a/0.png")] and numbers(one) == [10] and labels(one) == [None]
    several = read_pictures([folder / "b/0.png", str(folder / "a/0.png"), folder / "nowhere.png"])
    assert len(several) == 3 and [number(several[index].open()) for index in (0, 1)] == [20, 10]
    assert [picture.name for picture in several] == ["b/0.png", "a/0.png", "nowhere.png"]
    with pytest.raises(PictureError, match=r"there is no picture .*nowhere\.png"):
        several[2].open()
    with pytest.raises(IndexError):
        several[3]
    (folder / "link.png").symlink_to("gone.png")
    with pytest.raises(PictureError, match=r"link\.png is a link to gone\.png, which is not there"):
        open_picture(folder / "link.png")


def test_folders_are_read_with_their_classes(folder: Path) -> None:
    pictures = read_pictures(folder)
    assert [picture.name for picture in pictures] == ["a/0.png", "a/deep/1.png", "b/0.png"]
    assert numbers(pictures) == [10, 11, 20] and labels(pictures) == [0, 0, 1] and pictures.classes == ("a", "b")
    grey(1).save(folder / "loose.png")
    assert labels(read_pictures(folder)) == [None] * 4 and read_pictures(folder).classes == ()


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="there is no picture in"):
        read_pictures(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/0.png", [10, 20]),
        ("**/*.png", [10, 11, 20]),
        ("a/?.png", [10]),
        ("{b,a}/0.png", [20, 10]),
        ("[b-z]/0.png", [20]),
        ("{a,b}/{0..0}.png", [10, 20]),
    ],
)
def test_patterns(pattern: str, expected: list[int], folder: Path) -> None:
    assert numbers(read_pictures(str(folder / pattern))) == expected


def test_a_pattern_that_nothing_matches_is_refused(folder: Path) -> None:
    with pytest.raises(PictureError, match=r"no file matches '.*\*\.jpg'"):
        read_pictures(f"{folder}/*.jpg")


def test_a_file_whose_name_looks_like_a_pattern_or_an_address_is_that_file(folder: Path) -> None:
    for name in ("x[1].png", "y{a,b}.png", "z#1.png", "*.png"):
        grey(77).save(folder / name)
        assert numbers(read_pictures(folder / name)) == [77], name


def test_a_frame_of_an_animation_is_no_pattern(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("black", "white")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert numbers(read_pictures(f"{tmp_path}/film.gif[1]")) == [255]


def test_samples_are_pictures_by_name() -> None:
    assert open_picture("sample:chelsea").size == (451, 300)
    assert wheres(read_pictures(["sample:digits/3", "sample:astronaut"])) == ["sample:digits/3", "sample:astronaut"]
    with pytest.raises(PictureError, match=r"no sample picture 'chelsae'; nearest: 'sample:chelsea'.*digits/0 to"):
        open_picture("sample:chelsae")


# Tar files


@pytest.mark.parametrize(
    ("ending", "expected"), [("cls", [0, 1, 2]), ("json", [0, 1, 2]), ("txt", ["picture 3", "picture 4", "picture 5"])]
)
def test_webdataset_shards(ending: str, expected: list[Any], tmp_path: Path) -> None:
    path = shard(tmp_path / "shard-0.tar", 3, 3, ending)
    pictures = read_pictures(path)
    assert len(pictures) == 3 and numbers(pictures) == [3, 4, 5] and labels(pictures) == expected
    assert wheres(pictures) == [f"{path}#00000{key}.png" for key in (3, 4, 5)]
    assert number(open_picture(f"{path}#000004.png")) == 4 and number(pictures[2].open()) == 5


def test_several_shards_by_braces_glob_list_and_folder(tmp_path: Path) -> None:
    for index in range(3):
        shard(tmp_path / f"s-{index:02d}.tar", index * 4, 4)
    ways = [f"{tmp_path}/s-{{00..02}}.tar", f"{tmp_path}/s-*.tar", sorted(tmp_path.glob("*.tar")), tmp_path]
    for source in ways:
        pictures = read_pictures(source)
        assert numbers(pictures) == list(range(12)) and len(pictures) == 12 and number(pictures[9].open()) == 9
        assert pictures[5].name == "s-01.tar#000005.png"


def test_a_plain_tar_has_the_classes_of_its_folders(tmp_path: Path) -> None:
    members = {
        "./cat/a.v1.png": png(1),
        "./cat/b.png": png(2),
        "./dog/a.png": png(3),
        "./dog/._a.png": b"",
        "x.csv": b"",
    }
    pictures = read_pictures(write_tar(tmp_path / "pets.tar", members))
    assert numbers(pictures) == [1, 2, 3] and labels(pictures) == [0, 0, 1] and pictures.classes == ("cat", "dog")
    alone = read_pictures(write_tar(tmp_path / "one.tar", {"pets/a.png": png(1), "pets/b.png": png(2)}))
    assert labels(alone) == [None, None]


def test_a_damaged_tar_hands_out_what_comes_before(tmp_path: Path) -> None:
    path = shard(tmp_path / "cut.tar", 0, 5)
    path.write_bytes(path.read_bytes()[:-12_000])
    made: list[int] = []
    with pytest.raises(DataError, match=r"cut\.tar is damaged after 00000\d.*\.png: unexpected end of data"):
        made += [number(picture.open()) for picture in iter_into(made, read_pictures(path))]
    assert made[:3] == [0, 1, 2]


def iter_into(made: list[int], pictures: Pictures) -> Iterator[Any]:
    for loaded in read_ahead(pictures, workers=2):
        if loaded.value is not None:
            made.append(number(loaded.value))
    yield from ()


@pytest.mark.parametrize("size", [-(2**80), 2**80])
def test_a_tar_whose_member_has_an_impossible_size(size: int, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.png": png(0)})
    header = tarfile.TarInfo("a.png")
    header.size = size
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + path.read_bytes()[512:])
    with pytest.raises(PictureError, match=r"x\.tar#a\.png is cut short"):
        open_picture(f"{path}#a.png")


def test_tar_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "junk.tar").write_bytes(b"junk" * 1000)
    (tmp_path / "x.tar.gz").write_bytes(b"")
    path = shard(tmp_path / "good.tar", 0, 1)
    with pytest.raises(DataError, match=r"junk\.tar is not a tar file"):
        list(read_pictures(tmp_path / "junk.tar"))
    with pytest.raises(DataError, match=r"x\.tar\.gz is compressed: unpack it"):
        read_pictures(tmp_path / "x.tar.gz")
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.tar: No such file"):
        list(read_pictures(tmp_path / "nowhere.tar"))
    with pytest.raises(PictureError, match=r"there is no picture 9\.png in"):
        open_picture(f"{path}#9.png")


def test_a_shard_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", 0, 2)
    assert len(read_pictures(path)) == 2
    shard(path, 0, 3)
    assert len(read_pictures(path)) == 3


# Parquet and Arrow


def write_table(path: Path, rows: Any) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(rows, path, row_group_size=3)
    elif path.stem == "stream":
        with pa.ipc.new_stream(path, rows.schema) as writer:
            writer.write_table(rows)
    else:
        with pa.ipc.new_file(path, rows.schema) as writer:
            writer.write_table(rows)
    return path


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", ["x.parquet", "stream.arrow", "file.arrow"])
def test_tables_of_pictures(name: str, plain: bool, tmp_path: Path) -> None:
    path = write_table(tmp_path / name, table(plain=plain))
    pictures = read_pictures(path)
    assert len(pictures) == 7 and numbers(pictures) == list(range(7)) and labels(pictures) == [0, 1, 0, 1, 0, 1, 0]
    assert pictures.classes == (() if plain else ("cat", "dog"))
    assert wheres(pictures) == [f"{path}#{row}" for row in range(7)]
    assert number(open_picture(f"{path}#5")) == 5


def test_a_folder_of_tables_is_one_data_set(tmp_path: Path) -> None:
    for index in range(2):
        write_table(tmp_path / f"train-{index:05d}-of-00002.parquet", table(4, first=index * 4))
    pictures = read_pictures(tmp_path)
    assert numbers(pictures) == list(range(8)) and pictures.classes == ("cat", "dog")


def test_tables_read_by_many_threads(tmp_path: Path) -> None:
    path = write_table(tmp_path / "x.parquet", table(40))
    for _ in range(3):
        loaded = list(read_ahead(read_pictures(path), workers=8))
        assert [number(one.value) for one in loaded if one.value] == list(range(40))


def test_a_row_may_name_a_file_beside_the_table(tmp_path: Path) -> None:
    grey(42).save(tmp_path / "x.png")
    rows = pa.table({"image": [{"bytes": None, "path": "x.png"}, {"bytes": None, "path": None}]})
    pictures = read_pictures(write_table(tmp_path / "x.parquet", rows.cast(IMAGE)))
    assert number(pictures[0].open()) == 42
    with pytest.raises(PictureError, match=r"x\.parquet#1 holds no picture"):
        pictures[1].open()


IMAGE = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    for ending in ("parquet", "arrow"):
        (tmp_path / f"junk.{ending}").write_bytes(b"junk" * 100)
        with pytest.raises(DataError, match=rf"junk\.{ending} cannot be read as \.{ending}"):
            list(read_pictures(tmp_path / f"junk.{ending}"))
    path = write_table(tmp_path / "n.parquet", pa.table({"a": [1], "b": ["x"]}))
    with pytest.raises(DataError, match=r"has no column of pictures: a, b hold none"):
        list(read_pictures(path))
    named = write_table(tmp_path / "named.arrow", pa.table({"image": [b"x"], "zzzz": [1]}))
    named.write_bytes(named.read_bytes().replace(b"zzzz", b"zz\xe7z"))  # a name that is no text
    with pytest.raises(DataError, match=r"named\.arrow cannot be read as \.arrow: 'utf-8' codec"):
        list(read_pictures(named))
    good = write_table(tmp_path / "x.parquet", table())
    with pytest.raises(PictureError, match="has 7 rows, numbered from 0: there is no row 7"):
        open_picture(f"{good}#7")
    with pytest.raises(PictureError, match=r"x\.parquet#17 is one, not .*#cat"):
        open_picture(f"{good}#cat")


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path / "x.parquet", table())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow to be read: pip install 'convscope\[data\]'"):
        list(read_pictures(path))


# Data sets, loaders, iterables and tensors


class Squares:
    """A data set of pictures, one of which is broken."""

    def __init__(self, count: int, broken: int = -1) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if index >= self.count:
            raise IndexError
        if index == self.broken:
            raise OSError("a bad block")
        return grey(index), index % 2


def test_data_sets_are_read_item_by_item() -> None:
    pictures = read_pictures(Squares(5))
    assert len(pictures) == 5 and numbers(pictures) == list(range(5)) and wheres(pictures)[3] == "Squares#3"
    loaded = list(read_ahead(pictures, workers=2))
    assert [one.picture.label for one in loaded] == [0, 1, 0, 1, 0]
    dicts = [{"image": grey(3), "label": 1}, {"image": grey(4), "label": 0}]
    assert numbers(read_pictures(dicts)) == [3, 4]


def test_torchvision_data_sets(folder: Path) -> None:
    from torchvision.datasets import ImageFolder

    (folder / "a/.hidden/2.png").unlink()
    pictures = read_pictures(ImageFolder(str(folder)))
    assert numbers(pictures) == [10, 11, 20]
    assert labels(pictures)[-1] == 1 and pictures.classes == ("a", "b")
    named = read_pictures(f"torchvision:ImageFolder:{folder}")
    assert numbers(named) == numbers(pictures) and named[1].where == f"torchvision:ImageFolder:{folder}#1"
    assert number(open_picture(named[2].where)) == 20
    with pytest.raises(PictureError, match="numbered from 0: there is no 99"):
        open_picture(f"torchvision:ImageFolder:{folder}#99")


PIXELS = torch.arange(6).float()[:, None, None, None].expand(6, 3, 5, 4) / 255


def test_loaders_give_pictures_one_by_one_with_their_labels() -> None:
    data = TensorDataset(PIXELS, torch.arange(6) % 3)
    for options in ({"batch_size": 4}, {"batch_size": 4, "drop_last": True}, {"batch_size": None}):
        pictures = read_pictures(DataLoader(data, **options))
        count = 4 if options.get("drop_last") else 6
        assert len(pictures) == count and numbers(pictures) == list(range(count))
        assert labels(pictures) == [0, 1, 2, 0, 1, 2][:count] and wheres(pictures)[3] == "DataLoader#3"
    assert torch.equal(next(iter(read_pictures(DataLoader(data, batch_size=4)))).read(), PIXELS[0])


class Endless(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return itertools.cycle(PIXELS)


def test_a_stream_without_end_is_read_as_far_as_it_is_asked_for() -> None:
    for source in (Endless(), DataLoader(Endless(), batch_size=4), itertools.cycle(PIXELS)):
        pictures = read_pictures(source)
        with pytest.raises(TypeError):
            len(pictures)
        assert "stream" in repr(pictures)
        first = list(itertools.islice(read_ahead(pictures, lambda pixels: pixels, workers=2), 8))
        assert [round(float(one.value[0, 0, 0] * 255)) for one in first if one.value is not None] == [*range(6), 0, 1]


@pytest.mark.parametrize(
    "source",
    [
        PIXELS,
        list(PIXELS),
        [PIXELS[:2], PIXELS[2:]],
        (PIXELS[None, 0] * 255).to(torch.uint8).expand(1, 3, 5, 4),
        PIXELS.permute(0, 2, 3, 1).numpy(),
        [(PIXELS[:4], torch.arange(4)), (PIXELS[4:], torch.arange(2))],
        [{"image": PIXELS, "label": torch.arange(6)}],
        (pixels for pixels in PIXELS),
        [(pixels * 255).to(torch.uint8) for pixels in PIXELS],
        [grey(value) for value in range(6)],
    ],
    ids="batch list batches byte array pairs dict generator bytes images".split(),
)
def test_tensors_arrays_and_images(source: Any) -> None:
    seen = numbers(read_pictures(source))
    assert seen == list(range(len(seen))) and len(seen) in (1, 6)


def test_labels_of_batches_stay_with_their_pictures() -> None:
    assert labels(read_pictures([(PIXELS[:4], torch.arange(4)), (PIXELS[4:], [7, 8])])) == [0, 1, 2, 3, 7, 8]


def test_lists_may_mix_sources(folder: Path, tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", 30, 2)
    pictures = read_pictures([folder / "a", grey(5), PIXELS[:1], path, "sample:digits/0", (grey(6), 1)])
    assert numbers(pictures)[:6] == [10, 11, 5, 0, 30, 31] and numbers(pictures)[-1] == 6
    assert len(set(wheres(pictures))) == len(wheres(pictures)) == 8


@pytest.mark.parametrize("source", [3, None, object()])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(DataError, match="cannot read pictures from"):
        read_pictures(source)


def test_values_that_are_no_pixels_are_named() -> None:
    with pytest.raises(PictureError, match=r"picture#0 holds values from -1 to -1.*before normalisation"):
        read_pictures([PIXELS[0] * 0 - 1])[0].open()
    with pytest.raises(DataError, match="its keys are text; call it 'image'"):
        read_pictures([{"text": "x"}, {"text": "y"}])[0].read()


# Reading ahead


@pytest.mark.parametrize("workers", [0, 1, 4, None])
def test_pictures_come_in_order_whoever_reads_them(workers: int | None) -> None:
    loaded = list(read_ahead(read_pictures(Squares(30)), workers=workers))
    assert [number(one.value) for one in loaded if one.value is not None] == list(range(30))
    assert [one.picture.where for one in loaded] == [f"Squares#{index}" for index in range(30)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_a_record_with_its_error(workers: int, folder: Path) -> None:
    (folder / "a" / "0.png").write_bytes(b"junk")
    loaded = list(read_ahead(read_pictures([folder, Squares(3, broken=1)]), workers=workers))
    errors = {Path(one.picture.where).name: str(one.error) for one in loaded if one.error}
    assert set(errors) == {"0.png", "Squares#1"} and "a bad block" in errors["Squares#1"]
    assert [one.value is None for one in loaded] == [one.error is not None for one in loaded]
    assert len(loaded) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_a_source_that_fails_hands_out_what_came_before(workers: int) -> None:
    def failing() -> Iterator[torch.Tensor]:
        yield from PIXELS[:3]
        raise OSError("the line is cut")

    seen: list[Loaded[Any]] = []
    with pytest.raises(OSError, match="the line is cut"):
        seen.extend(iter_all(seen, read_ahead(read_pictures(failing()), lambda pixels: pixels, workers=workers)))
    assert len(seen) == 3


def iter_all(seen: list[Loaded[Any]], loaded: Iterator[Loaded[Any]]) -> Iterator[Loaded[Any]]:
    for one in loaded:
        seen.append(one)
    yield from ()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_in_the_function_is_raised(workers: int) -> None:
    def wrong(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(read_ahead(read_pictures(Squares(3)), wrong, workers=workers))


def test_reading_ahead_is_bounded_and_ends_with_its_reader() -> None:
    opened: list[int] = []

    class Watched(Squares):
        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            opened.append(index)
            return super().__getitem__(index)

    reader = read_ahead(read_pictures(Watched(1000)), workers=2, ahead=5)
    next(reader)
    next(reader)
    reader.close()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("convscope-pictures")]
    for thread in threads:
        thread.join(10)
    assert len(opened) <= 7 and not any(thread.is_alive() for thread in threads)
    with pytest.raises(OptionError, match="workers is 0 or more, not -1"):
        next(read_ahead([], workers=-1))


def test_workers_run_in_the_context_of_their_reader() -> None:
    told: ContextVar[str] = ContextVar("told", default="nobody")
    token = told.set("me")
    try:
        loaded = list(read_ahead(read_pictures(Squares(4)), lambda _: told.get(), workers=2))
    finally:
        told.reset(token)
    assert [one.value for one in loaded] == ["me"] * 4


def test_reading_pictures_imports_neither_torch_nor_pyarrow(folder: Path) -> None:
    code = (
        "import sys; from convscope.data.loading import read_ahead; from convscope.data.pictures import read_pictures; "
        "assert len(list(read_ahead(read_pictures(sys.argv[1])))) == 3; "
        "print(sorted({'torch', 'torchvision', 'pyarrow'} & set(sys.modules)))"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_leaves_no_file_open(folder: Path, tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", 0, 3)
    list(read_ahead(read_pictures([folder, path])))
    descriptors = Path("/proc/self/fd")
    if descriptors.exists():
        links = [os.readlink(link) for link in descriptors.iterdir() if link.is_symlink()]  # noqa: PTH115
        assert not any(str(tmp_path) in link for link in links)


def test_a_second_look_gives_the_same_pixels(folder: Path, tmp_path: Path) -> None:
    path = write_table(tmp_path / "x.parquet", table())
    sources: list[Callable[[], Any]] = [lambda: folder, lambda: shard(tmp_path / "s.tar", 0, 3), lambda: path]
    for source in sources:
        for one in read_ahead(read_pictures(source())):
            assert one.value is not None and np.array_equal(np.asarray(open_picture(one.picture.where)), one.value)


def test_boxes_may_name_pictures_inside_files(tmp_path: Path) -> None:
    from convscope.data.boxes import read_boxes

    shard(tmp_path / "s.tar", 0, 2)
    (tmp_path / "boxes.csv").write_text("path,left,top,right,bottom,class\ns.tar#000001.png,1,1,4,4,cat\n")
    (picture,) = read_boxes(tmp_path / "boxes.csv")
    assert number(open_picture(picture.path)) == 1 and picture.boxes == ((1, 1, 4, 4),)
