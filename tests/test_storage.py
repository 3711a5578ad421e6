"""Pictures in storages: the same as from files, by ranges, with nothing secret in what is said, and an end in time."""

from __future__ import annotations

import io
import os
import re
import socket
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import web_server
from conftest import ROOT
from convscope import addresses, explain, load, remake
from convscope.atlas.atlas import Atlas
from convscope.atlas.scanning import scan
from convscope.cli import run
from convscope.configuration import located
from convscope.data import connections, open_picture, read_ahead, read_pictures, storage, uploads
from convscope.data.boxes import read_boxes
from convscope.data.datasets import open_data
from convscope.data.hashing import content_hash, where_of
from convscope.data.opening import mode_and_size
from convscope.drawing.drawings import Drawing
from convscope.errors import (
    ConfigurationError,
    ConvscopeError,
    DataError,
    OutputError,
    PictureError,
    RecipeError,
    StorageError,
)

MEGABYTE = 1 << 20


def png(value: int, side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def noise(side: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def tar(**members: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def gif(*values: int) -> bytes:
    file = io.BytesIO()
    first, *rest = [Image.new("L", (8, 8), value) for value in values]
    first.save(file, "GIF", save_all=True, append_images=rest)
    return file.getvalue()


def parquet(groups: int, rows: int, make: Any) -> bytes:
    file = io.BytesIO()
    pictures = [{"bytes": make(i), "path": None} for i in range(groups * rows)]
    table = pa.table({"image": pictures, "label": list(range(groups * rows))})
    pyarrow.parquet.write_table(table, file, row_group_size=rows, compression="none")
    return file.getvalue()


def arrow() -> bytes:
    file = io.BytesIO()
    table = pa.table({"image": [png(3), png(5)]})
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((8, 8), 0.5, np.float32))
    return file.getvalue()


FILES = {
    "set/cat/b-2.png": png(1),
    "set/cat/b/3.png": png(2),
    "set/dog/a#1.png": png(3),
    "set/dog/deep/x[1].jpg": png(4),
    "set/dog/.hidden.png": png(5),
    "set/dog/notes.txt": b"none",
    "shards/s-00.tar": tar(a_png=png(6), a_cls=b"4", b_png=png(7), b_cls=b"2"),
    "shards/s-01.tar": tar(c_png=png(8), c_cls=b"1"),
    "rows.parquet": parquet(2, 2, png),
    "rows.arrow": arrow(),
    "odd/s.tar#c.png": png(10),
    "odd/ä é.png": png(11),
    "film.gif": gif(10, 90, 200),
    "half.npy": npy(),
}


def zip_of(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "/", 1).replace("_", "."), content)
    return file.getvalue()


FILES["pets.zip"] = zip_of(cat_1_png=png(20), dog_2_png=png(21))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storage")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def filled(files: Any, scheme: str) -> str:
    files.makedirs("pets", exist_ok=True)
    for name, content in FILES.items():
        files.pipe_file(f"pets/data/{name}", content)
    return f"{scheme}://pets/data"


@pytest.fixture(scope="module")
def on_s3(s3: Any) -> str:
    return filled(s3, "s3")


@pytest.fixture(scope="module", params=["memory", "s3"])
def there(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("on_s3") if request.param == "s3" else filled(fsspec.filesystem("memory"), "memory")


def seen(source: str) -> list[Any]:
    found = read_pictures(source)
    pixels = [picture.open().convert("L").getpixel((0, 0)) for picture in found]
    return [found.classes, [(picture.name, picture.label) for picture in found], pixels]


@pytest.mark.parametrize(
    "source",
    [
        "set", "set/", "set/*/*.png", "set/d*/**/*.jpg", "set/{dog,cat}/*.png", "shards", "shards/s-{00..01}.tar",
        "shards/s-00.tar#b.png", "rows.parquet", "rows.parquet#3", "rows.arrow", "film.gif", "film.gif[1:]",
        "film.gif[2]", "half.npy", "odd",
        "odd/s.tar#c.png", "set/dog/a#1.png", "set/dog/deep/x[1].jpg", "shards/s-0[01].tar",
    ],
)  # fmt: skip
def test_a_storage_gives_what_files_give(here: Path, there: str, source: str) -> None:
    assert seen(f"{there}/{source}") == seen(f"{here}/{source}")


def test_addresses_open_again_and_are_the_same_content(here: Path, there: str) -> None:
    for source in ("set", "shards", "rows.parquet", "film.gif"):
        for far, near in zip(read_pictures(f"{there}/{source}"), read_pictures(f"{here}/{source}"), strict=True):
            assert far.where == f"{there}/{Path(near.where).relative_to(here).as_posix()}"
            assert open_picture(far.where).tobytes() == open_picture(near.where).tobytes()
            assert content_hash(far.where) == content_hash(near.where)
            assert mode_and_size(far.where) == mode_and_size(near.where)
    assert [picture.size for picture in read_pictures(f"{there}/set")] == [
        len(FILES[f"set/{name}"]) for name in ("cat/b/3.png", "cat/b-2.png", "dog/a#1.png", "dog/deep/x[1].jpg")
    ]


def test_a_zip_file_is_a_folder_wherever_it_lies(here: Path, there: str) -> None:
    for place in (here, there):
        assert seen(f"zip://::{place}/pets.zip") == [("cat", "dog"), [("cat/1.png", 0), ("dog/2.png", 1)], [20, 21]]
        assert open_picture(f"zip://dog/2.png::{place}/pets.zip").getpixel((0, 0)) == (21, 21, 21)


def test_two_colons_are_letters_of_a_key(s3: Any, on_s3: str) -> None:
    s3.pipe_file("pets/colons/a::b.png", png(9))
    assert seen("s3://pets/colons") == [(), [("a::b.png", None)], [9]]


def test_a_file_address_is_a_path(here: Path) -> None:
    assert seen(f"file://{here}/set") == seen(f"{here}/set")
    (here / "set" / "cat" / "b-2.png").resolve()
    assert where_of(f"file://{here}/x%20y.png") == f"{here}/x y.png"
    with pytest.raises(DataError, match="holds your home folder"):
        read_pictures("file:///")


def test_threads_and_forked_processes_read_on(there: str) -> None:
    pictures = read_pictures(f"{there}/set")
    assert [loaded.error for loaded in read_ahead(pictures, workers=4)] == [None] * 4
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        colours = [picture.open().getpixel((0, 0))[0] for picture in [*pictures, *read_pictures(f"{there}/shards")]]
        os.write(writer, bytes(colours))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        assert told.read() == bytes([2, 1, 3, 4, 6, 7, 8])
    os.waitpid(child, 0)


# What is fetched ------------------------------------------------------------------------------------------------------


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is asked of storages from now on, and how many bytes came."""
    asked, ask = list[tuple[str, int]](), connections.Connection.ask

    def noted(connection: Any, what: str, *args: Any, **options: Any) -> Any:
        answer = ask(connection, what, *args, **options)
        asked.append((what, len(answer) if isinstance(answer, bytes) else 0))
        return answer

    monkeypatch.setattr(connections.Connection, "ask", noted)
    return asked


def put(name: str, content: bytes) -> str:
    fsspec.filesystem("memory").pipe_file(f"/fetched/{name}", content)
    return f"memory://fetched/{name}"


def test_a_member_of_a_large_tar_file_is_read_without_the_others(fetched: list[tuple[str, int]]) -> None:
    large = {f"{number}_png": png(number) + bytes(4 * MEGABYTE) for number in range(4)}
    address = put("large.tar", tar(**large, z_png=png(9)))
    assert open_picture(f"{address}#z.png").getpixel((0, 0)) == (9, 9, 9)
    assert sum(size for _, size in fetched) < 9 * MEGABYTE
    fetched.clear()
    assert open_picture(f"{address}#z.png").getpixel((0, 0)) == (9, 9, 9)
    assert fetched == []  # the list of members is kept, and the block


def test_a_row_is_read_with_its_group_alone(fetched: list[tuple[str, int]]) -> None:
    address = put("large.parquet", parquet(6, 2, lambda i: png(i) + os.urandom(MEGABYTE)))
    assert open_picture(f"{address}#5").getpixel((0, 0)) == (5, 5, 5)
    assert sum(size for _, size in fetched) < 5 * MEGABYTE


def test_a_small_picture_is_one_request_and_a_folder_is_one_listing(fetched: list[tuple[str, int]]) -> None:
    for number in range(5):
        put(f"many/{number}.png", png(number))
    pictures = read_pictures("memory://fetched/many/")
    assert [what for what, _ in fetched] == ["find"]
    fetched.clear()
    for picture in pictures:
        content_hash(picture.where)
        picture.open()
    assert [what for what, _ in fetched] == ["cat_file"] * 5


def test_what_is_too_large_is_refused_before_it_is_fetched(
    fetched: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = put("wide.png", noise(900))
    file = put("heavy.png", png(1) + bytes(8 * MEGABYTE))
    monkeypatch.setenv("CONVSCOPE_MAX_PIXELS", "8e5")
    for address, why in ((picture, "900 x 900 pixels"), (file, "8 MB, which take as much memory")):
        fetched.clear()
        with pytest.raises(PictureError, match=why):
            open_picture(address)
        assert sum(size for _, size in fetched) <= MEGABYTE


# The web --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def web(here: Path) -> Iterator[str]:
    (here / "noise.png").write_bytes(noise(700))
    (here / "large.tar").write_bytes(tar(a_png=png(1), b_png=noise(700)))
    (here / "set" / "a cat").mkdir(exist_ok=True)
    (here / "set" / "a cat" / "0 %.png").write_bytes(png(11))
    with web_server.serving(here) as address:
        yield address
    (here / "set" / "a cat" / "0 %.png").unlink()
    (here / "set" / "a cat").rmdir()


def test_a_folder_of_the_web_has_the_classes_of_its_folders(web: str) -> None:
    pictures = read_pictures(f"{web}/set/")
    assert pictures.classes == ("a cat", "cat", "dog")
    assert pictures[0].where == f"{web}/set/a%20cat/0%20%25.png"
    assert [picture.open().getpixel((0, 0))[0] for picture in pictures] == [11, 2, 1, 3, 4]
    assert len(read_pictures(f"{web}/shards/")) == 3
    assert len(read_pictures(f"{web}/set/*/*.png")) == 3
    assert open_picture(f"{web}/noise.png").size == open_picture(f"{web}/whole/noise.png").size
    assert open_picture(f"{web}/large.tar#a.png").getpixel((0, 0)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("none.png", PictureError, "there is nothing at"),
        ("403/x.png", PictureError, "no access to .*give an address with a signature"),
        ("503/x.png", StorageError, "the server says 503"),
        ("set", PictureError, r"a folder's address ends with a slash, http.*/set/"),
        ("folders/", DataError, "folders without an end"),
        ("set/**", PictureError, "could go on without an end"),
        ("bytes/x.png", PictureError, "gives more than"),
        ("whole/large.tar", StorageError, "gives whole files only"),
        ("rows.parquet#9", PictureError, "there is no row 9"),
        ("large.tar#x.png", PictureError, "there is no picture x.png"),
    ],
)
def test_what_a_server_does_wrong(
    web: str, path: str, error: type[ConvscopeError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVSCOPE_MAX_PIXELS", "2e6")
    monkeypatch.setattr(storage, "_PAUSE", 0)
    with pytest.raises(error, match=said):
        [open_picture(picture.where) for picture in read_pictures(f"{web}/{path}")]


# What nobody may see --------------------------------------------------------------------------------------------------


def test_a_signature_is_used_and_never_shown(web: str, here: Path) -> None:
    signed = f"{web}/signed/noise.png?id=7&{web_server.SIGNATURE}&X-Amz-Expires=60&version=AbCdEfGh0123456789xyz"
    (picture,) = read_pictures(signed)
    for said in (picture.where, picture.name, where_of(signed), repr(picture)):
        assert "0123abcdef" not in said
        assert "AbCdEfGh" not in said
    assert picture.open().tobytes() == open_picture(signed).tobytes() == open_picture(here / "noise.png").tobytes()
    with pytest.raises(PictureError) as refused:
        open_picture(f"{web}/403/x.png?{web_server.SIGNATURE}")
    assert "0123abcdef" not in str(refused.value)


def test_signatures_of_s3_open_and_keys_in_an_address_are_taken_off(s3: Any) -> None:
    s3.makedirs("secrets", exist_ok=True)
    s3.pipe_file("secrets/a.png", png(5))
    signed = s3.url("secrets/a.png")
    assert "Signature" in signed
    assert open_picture(signed).getpixel((0, 0)) == (5, 5, 5)
    assert "ignature" not in where_of(signed)
    (picture,) = read_pictures("s3://AKIAEXAMPLE:wJalr/XUtn+FEMI@secrets/a.png")
    assert picture.where == "s3://secrets/a.png"
    assert picture.open().getpixel((0, 0)) == (5, 5, 5)
    assert where_of("ftp://me:geheim@host/a.png") == "ftp://host/a.png"
    assert where_of("https://token@host/a.png") == "https://host/a.png"
    assert where_of("github://me:repository@main/a.png") == "github://me:repository@main/a.png"
    assert where_of(Path("s3://secrets/a.png")) == "s3://secrets/a.png"


@settings(max_examples=40)
@given(
    st.sampled_from(["s3://KEY:{0}@", "https://me:{0}@", "http://{0}@", "ftp://me:{0}@", "zip://{1}::https://me:{0}@"]),
    st.text("ab/:@?&=#[].* \n", max_size=12),
    st.sampled_from(["", "?sig={0}", "?id=3&X-Amz-Signature={0}#a.jpg"]),
)
def test_no_address_shows_its_secret(begin: str, inside: str, query: str) -> None:
    secret = "geheim0123456789"
    web = "https" in begin or "http:" in begin
    address = f"{begin}host/a.tar{query if web else inside}".format(secret, inside)
    kept = addresses.public(address)
    assert secret not in kept
    assert addresses.public(kept) == kept
    assert secret in addresses.private(kept.removesuffix("#a.jpg") if web else kept)


# What cannot be -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("s3://nobody-has-this/a.png", PictureError, "there is no bucket nobody-has-this"),
        ("s3://nobody-has-this/folder/", DataError, "there is no bucket nobody-has-this"),
        ("s3://pets/data/none.png", PictureError, "there is nothing at s3://pets/data/none.png"),
        ("s3://pets/none/", PictureError, "there is no picture in s3://pets/none/"),
        ("s3://pets/none*.png", PictureError, "no file matches"),
        ("s3://pets/data/set/dog/notes.txt", PictureError, "not a picture that can be read"),
        ("s3://pets/data/empty.png", PictureError, "is empty"),
        ("s3://", DataError, "names no bucket: s3://BUCKET/FOLDER"),
        ("https:///a.png", DataError, "names no host"),
        ("http://[::1]:1/a.png", StorageError, r"nobody answers at http://\[::1\]:1/a.png"),
        ("S3://pets/data/none.png", PictureError, "there is nothing at s3://pets/data/none.png"),
        ("s4://pets/a.png", DataError, "there is no storage s4://.*nearest: 's3'"),
        ("gs://pets/a.png", ConvscopeError, "pip install gcsfs"),
        ("reference://a.png::s3://pets/index.json", DataError, "is refused: reference does more than read"),
        ("filecache::s3://pets/a.png", DataError, "is refused: filecache does more"),
        ("tar://a.png::s3://pets/a.tar", DataError, r"name s3://pets/a.tar, as in s3://pets/a.tar#cat.jpg"),
        ("zip://a.png::zip://b.zip::s3://pets/c.zip", DataError, "the only chain is zip://"),
        ("zip://a.png", DataError, "does not say in which file"),
        ("zip://a.png::reference://x.json", DataError, "is refused: reference"),
        ("zip://a.png::s3://pets/data/half.npy", PictureError, "is no zip file|not a zip file"),
        ("memory://none/a.png", PictureError, "there is nothing at"),
        ("s3://pets/data/shards/s-00.tar#none.png", PictureError, "there is no picture none.png"),
        ("s3://pets/data/half.tar", PictureError, "there is nothing at"),
    ],
)
def test_what_is_asked_wrongly(s3: Any, on_s3: str, address: str, error: type[ConvscopeError], said: str) -> None:
    s3.pipe_file(f"{on_s3}/empty.png", b"")
    with pytest.raises(error, match=said):
        [open_picture(picture.where) for picture in read_pictures(address)]


@pytest.fixture
def nobody() -> Iterator[str]:
    """The address of a port of this machine at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_run_ends_where_nobody_answers(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_PAUSE", 0)
    loaded = read_ahead(read_pictures(["sample:chelsea", f"http://{nobody}/a.png", f"http://{nobody}/b.png"]))
    assert next(loaded).error is None
    with pytest.raises(StorageError, match=f"nobody answers at http://{nobody}/a.png"):
        next(loaded)
    with pytest.raises(StorageError, match="nobody answers"):
        read_pictures(f"http://{nobody}/folder/")


def test_s3_that_does_not_answer_is_told_in_time(nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{nobody}")
    with pytest.raises(StorageError, match="nobody answers at s3://quiet/set"):
        read_pictures("s3://KEY:SECRET@quiet/set")


# Writing --------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_there_whole_and_again(there: str, tmp_path: Path) -> None:
    for folder in (f"{there}/written", str(tmp_path / "written")):
        assert storage.names_in(folder) == []
        uploads.write_whole(f"{folder}/b.bin", b"1")
        uploads.write_whole(f"{folder}/a.bin", b"2")
        uploads.write_whole(f"{folder}/deep/c.bin", b"3")
        assert storage.at(f"{folder}/b.bin").read_bytes() == b"1"
        uploads.write_whole(f"{folder}/b.bin", b"other")
        assert storage.at(f"{folder}/b.bin").read_bytes() == b"other"
        assert storage.names_in(folder) == ["a.bin", "b.bin"]
        assert storage.at(f"{folder}/a.bin").exists()
        assert not storage.at(f"{folder}/x.bin").exists()


def test_nothing_is_written_where_it_cannot_be(s3: Any) -> None:
    with pytest.raises(OutputError, match="no bucket nobody-has-this"):
        uploads.write_whole("s3://nobody-has-this/a.bin", b"")
    with pytest.raises(OutputError, match="read only"):
        uploads.write_whole("https://host/a.bin", b"")


# Everything that takes pictures ---------------------------------------------------------------------------------------


def test_commands_draw_from_a_storage_and_go_on(
    on_s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["gradient", f"{on_s3}/set/", "--net", "lenet5", "-o", "maps"]) == 0
    assert {str(path) for path in Path("maps").rglob("*.png")} == {
        "maps/cat/b/3.png", "maps/cat/b-2.png", "maps/dog/a-1.png", "maps/dog/deep/x[1].png",
    }  # fmt: skip
    assert run(["gradient", f"{on_s3}/set/", "--net", "lenet5", "-o", "maps"]) == 0
    assert "4 were there already" in capsys.readouterr().err
    assert run(["gradient", f"{on_s3}/set/cat/b-2.png", "--net", "lenet5"]) == 0
    assert Path("b-2-gradient.png").is_file()
    assert run(["predict", f"{on_s3}/shards/s-00.tar", "--net", "lenet5", "--json"]) == 0
    assert f"{on_s3}/shards/s-00.tar#a.png" in capsys.readouterr().out


def test_a_folder_of_a_storage_is_divided_as_one_of_this_machine(tmp_path: Path) -> None:
    files = {f"{part}/{name}/{i}.png": png(i) for part in ("train", "val") for name in ("a", "b") for i in range(3)}
    files |= {f"flat/{name}/{i}.png": png(i) for name in ("x", "y") for i in range(4)}
    files |= {
        f"tars/{part}-0.tar": tar(a_png=png(1), a_cls=b"0", b_png=png(2), b_cls=b"1") for part in ("train", "val")
    }
    for name, content in files.items():
        put(f"learn/{name}", content)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for folder in ("", "flat", "tars"):
        far, near = open_data(f"memory://fetched/learn/{folder}"), open_data(str(tmp_path / folder))
        assert [part.digest for part in far] == [part.digest for part in near]
    with pytest.raises(DataError, match="there are no pictures in memory://fetched/none"):
        open_data("memory://fetched/none")


def test_an_atlas_finds_the_pictures_of_a_storage_again(tmp_path: Path) -> None:
    net, there = load("lenet5"), filled(fsspec.filesystem("memory"), "memory")
    for number, source in enumerate((f"{there}/set/", f"zip://::{there}/pets.zip")):
        atlas = Atlas(scan(net, source, tmp_path / str(number), layers=["relu1"], k=1), net=net)
        for picture, address in enumerate(found.where for found in read_pictures(source)):
            assert np.array_equal(atlas.read(picture).numpy(), net.read(address).numpy())
    moved = Atlas(tmp_path / "0", net=net, roots={"data": f"{there}/set"})
    assert np.array_equal(moved.read(0).numpy(), net.read(f"{there}/set/cat/b/3.png").numpy())


def test_boxes_are_of_pictures_in_a_storage(tmp_path: Path) -> None:
    put("boxed/cat/1.png", png(1))
    table = tmp_path / "boxes.csv"
    table.write_text("path,left,top,right,bottom\ncat/1.png,0,0,4,4\n")
    (boxed,) = read_boxes(table, "memory://fetched/boxed")
    assert (boxed.path, boxed.label) == ("memory://fetched/boxed/cat/1.png", "cat")
    table.write_text("path,left,top,right,bottom\ncat/2.png,0,0,4,4\n")
    with pytest.raises(DataError, match=r"names the picture cat/2.png, which is not in memory://fetched/boxed"):
        read_boxes(table, "memory://fetched/boxed")


def test_the_page_about_storages_is_true(s3: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, block = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.DOTALL)
    s3.makedirs("bucket", exist_ok=True)
    files = {"train/cats/0.jpg": png(1), "train/dogs/1.jpg": png(2), "train.parquet": parquet(9, 2, png)}
    for name, content in {**files, "shard-000.tar": tar(**{"000123_jpg": png(3)})}.items():
        s3.pipe_file(f"bucket/{name}", content)
    held: dict[str, Any] = {}
    exec(compile(block, "docs/data.md", "exec"), held)
    assert capsys.readouterr().out == f"2 ('cats', 'dogs') s3://bucket/train/cats/0.jpg {len(png(1))}\n"
    assert [held[name].getpixel((0, 0))[0] for name in ("one", "row")] == [3, 17]


def test_a_drawing_that_was_sent_asks_no_storage(tmp_path: Path, fetched: list[tuple[str, int]]) -> None:
    address = put("drawn.png", png(9, 28))
    explain(load("lenet5"), address, "gradient").save_values(tmp_path / "map.npz")
    fetched.clear()
    with pytest.raises(RecipeError, match=r"lies in a storage.*name it, as remake\(..., pictures="):
        remake(tmp_path / "map.npz")
    assert "lies in a storage" in Drawing.load(tmp_path / "map.npz").sheet().note
    assert fetched == []
    assert remake(tmp_path / "map.npz", pictures=[address]).recipe.pictures[0].where == address


def test_a_configuration_asks_a_storage_only_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: Any
) -> None:
    address = put("configured/1.png", png(1))
    (tmp_path / "convscope.toml").write_text(f'[data]\nfar = "{address.removesuffix("/1.png")}"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="which is asked in your name"):
        located("far/1.png")
    trust(tmp_path)
    assert located("far/1.png") == address
