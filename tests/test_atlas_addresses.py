"""An atlas in a storage: the same bytes as in a folder, whatever is interrupted, refused or in use there."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from PIL import Image

import convscope
from convscope import Atlas, locks, scan
from convscope.atlas import engines
from convscope.atlas.jobs import Job, compute, parts
from convscope.cli import run
from convscope.data import connections, storage, uploads
from convscope.errors import AtlasError, DataError, OutputError, StorageError

SHARD = 4


class Plain(MemoryFileSystem):
    """A storage that shows files while they are written, as a share of Windows does."""

    protocol = "smb"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("smb://"))


@pytest.fixture(scope="module", autouse=True)
def share() -> Iterator[None]:
    fsspec.register_implementation("smb", Plain, clobber=True)
    yield
    del _registry["smb"]


@pytest.fixture(scope="module")
def net() -> convscope.Net:
    return convscope.load("lenet5")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    numbers = np.random.default_rng(0)
    for index in range(15):
        made = folder / "ab"[index % 2] / f"{index:02d}.png"
        made.parent.mkdir(exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (28, 28), dtype=np.uint8)).save(made)
    return folder


@pytest.fixture(scope="module")
def whole(net: convscope.Net, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of the atlas in a folder."""
    atlas = Path(scan(net, pictures, tmp_path_factory.mktemp("atlases") / "whole", shard=SHARD))
    files = [path for path in atlas.rglob("*") if path.suffix in (".parquet", ".safetensors", ".json")]
    return {str(path.relative_to(atlas)): path.read_bytes() for path in files if path.name != "roots.json"}


@pytest.fixture(params=["memory", "s3", "smb"])
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty folder in each kind of storage."""
    files = request.getfixturevalue("s3") if request.param == "s3" else fsspec.filesystem(request.param)
    files.makedirs("atlases", exist_ok=True)
    yield f"{request.param}://atlases/{request.node.name.partition('[')[0]}"
    files.rm("atlases", recursive=True)


@pytest.fixture
def there() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    files.makedirs("atlases", exist_ok=True)
    yield "memory://atlases/one"
    files.rm("atlases", recursive=True)


def written(place: str) -> dict[str, bytes]:
    """The bytes of all files of an atlas, as the storage itself has them."""
    files, root = fsspec.core.url_to_fs(place, **({"use_listings_cache": False} if place.startswith("s3") else {}))
    return {name.partition(root)[2].lstrip("/"): files.cat_file(name) for name in files.find(root)}


def test_the_atlas_is_that_of_a_folder_and_a_scan_that_was_ended_goes_on(net, pictures, whole, place):
    assert scan(net, pictures, place, shard=SHARD) == place
    assert written(place) == whole  # and no lock is left
    first, second, *_ = (name for name in sorted(whole) if name.startswith("shards"))
    uploads.write_whole(f"{place}/{first}", whole[first][:500])
    uploads.write_whole(f"{place}/shards/{'0' * 12}-1-2.safetensors", b"of another scan")
    uploads.write_whole(f"{place}/{first}.9.part", b"of a killed one")
    uploads.remove(storage.at(f"{place}/{second}"))
    scan(net, pictures, place, shard=SHARD)
    assert written(place) == whole
    with pytest.raises(AtlasError, match=r"something else: settings\.k was 9 and is 3"):
        scan(net, pictures, place, shard=SHARD, k=3)


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_it_answers_as_one_in_a_folder(net, pictures, place, whole, tmp_path):
    scan(net, pictures, place, shard=SHARD)
    for name, content in whole.items():
        uploads.write_whole(tmp_path / name, content)
    roots = {"data": pictures}
    local, there = Atlas(tmp_path, roots=roots), Atlas(place, roots=roots)
    assert there.top("conv1", 2) == local.top("conv1", 2)
    assert there.similar("conv1", 2, 3) == local.similar("conv1", 2, 3)
    assert there.units_of(3, 3) == local.units_of(3, 3)
    assert there.detectors("conv2", 2) == local.detectors("conv2", 2)
    query = "SELECT layer, unit, mean FROM statistics ORDER BY mean LIMIT 3"
    assert there.where(query) == local.where(query)
    drawn = [convscope.patches(each, "conv2", [0, 3], k=2).save(tmp_path / f"{n}.png") for n, each in
             enumerate((local, there))]  # fmt: skip
    assert np.array_equal(*(np.asarray(Image.open(path)) for path in drawn))
    with pytest.raises(
        AtlasError, match="it is not known where the pictures of 'data' lie: give the folder, as --root"
    ):
        Atlas(place).read(0)
    with pytest.raises(AtlasError, match="holds no atlas"):
        Atlas(f"{place}/nothing")


def test_the_command_writes_and_reads_it(pictures, there, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["scan", str(pictures), "--net", "lenet5", "-o", there]) == 0
    assert capsys.readouterr().out.strip() == there
    assert run(["patches", there, "--layer", "conv1", "--units", "0", "--root", f"data={pictures}"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["one-conv1.png"]


def test_workers_write_it(net, pictures, whole, s3):
    """What a worker of any engine does; in this process, which spares the time that processes take to begin."""
    s3.makedirs("workers", exist_ok=True)

    def engine(ready, numbers):
        for part in parts(ready, numbers):
            yield compute(Job.of(ready), part, workers=0)

    scan(
        net,
        pictures,
        "s3://workers/atlas",
        shard=SHARD,
        engine=lambda ready, numbers: engines.kept(ready, engine(ready, numbers)),
    )
    assert written("s3://workers/atlas") == whole


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["processes", "ray"])
def test_engines_write_it(net, pictures, whole, s3, kind):
    from convscope.atlas import cluster

    s3.makedirs("engines", exist_ok=True)
    engine = engines.local(2) if kind == "processes" else cluster.ray(workers=2)
    scan(net, pictures, f"s3://engines/{kind}", shard=SHARD, engine=engine)
    assert written(f"s3://engines/{kind}") == whole


def test_workers_that_do_not_reach_it_are_refused(net, pictures, there, s3):
    s3.makedirs("secretive", exist_ok=True)
    with pytest.raises(AtlasError, match="this process's memory"):
        scan(net, pictures, there, engine=engines.local(1))
    with pytest.raises(AtlasError, match="know no keys that stand in an address"):
        scan(net, pictures, "s3://KEY:SECRET@secretive/atlas", engine=engines.local(1))


@pytest.mark.parametrize("place", ["s3", "smb"], indirect=True)
def test_an_upload_that_breaks_off_keeps_what_is_whole(net, pictures, whole, place, monkeypatch):
    with monkeypatch.context() as patch:
        asked = connections.Connection.ask
        uploaded = Counter[str]()

        def ask(self, what, *args, **options):
            if what == "pipe_file" and ".safetensors" in args[0]:
                uploaded[what] += 1
                if uploaded[what] == 3:
                    if args[0].endswith(uploads.PARTS):
                        asked(self, what, args[0], args[1][:99], **options)
                    raise ConnectionError("the line is cut")
            return asked(self, what, *args, **options)

        patch.setattr(connections.Connection, "ask", ask)
        with pytest.raises(StorageError, match="nobody answers at"):
            scan(net, pictures, place, shard=SHARD)
    there = written(place)
    kept = sorted(name for name in whole if name.startswith("shards"))[:2]
    assert {name: content for name, content in there.items() if name.endswith(".safetensors")} == {
        name: whole[name] for name in kept
    }
    with pytest.raises(AtlasError, match="not whole yet"):
        Atlas(place)
    scan(net, pictures, place, shard=SHARD)
    assert written(place) == whole


def test_two_scans_at_once_are_refused(net, pictures, place):
    lock = storage.at(f"{place}/.lock")
    with uploads.lock(lock, "the atlas"), pytest.raises(OutputError, match=f"in use by process {os.getpid()}: wait"):
        scan(net, pictures, place)
    assert not lock.is_file()
    owner = {"machine": "other", "pid": 4, "began": "then"}
    uploads.write_whole(str(lock), json.dumps(owner).encode())
    with pytest.raises(OutputError, match=rf"on another machine.*\(other\).*has ended, remove {place}/.lock"):
        scan(net, pictures, place)
    ended = owner | {"machine": locks.this_process().machine, "pid": 2**22 + 1}
    uploads.write_whole(str(lock), json.dumps(ended).encode())
    with uploads.lock(lock, "the atlas"):
        assert locks.owner_in(lock.read_anew(1000)) == locks.this_process()
    assert not lock.is_file()


def test_a_lock_that_was_made_though_the_answer_was_lost_is_ones_own(there, monkeypatch):
    lock, asked = storage.at(f"{there}/.lock"), connections.Connection.ask

    def ask(self, what, *args, **options):
        found = asked(self, what, *args, **options)
        if options.get("mode") == "create":
            raise FileExistsError  # as the second try of a library says
        return found

    monkeypatch.setattr(connections.Connection, "ask", ask)
    with uploads.lock(lock, "the atlas"):
        assert lock.is_file()
    assert not lock.is_file()


@pytest.mark.parametrize(
    ("place", "error", "said"),
    [
        ("s3://nobody-has-this/atlas", DataError, "no bucket nobody-has-this"),
        ("s3://", DataError, "names no bucket"),
        ("https://host/atlas", OutputError, "read only"),
        ("s33://bucket/atlas", DataError, "no storage s33://"),
        ("reference://atlas", DataError, "is refused"),
    ],
)
def test_addresses_that_cannot_be_written_are_refused_before_any_work(
    net, pictures, s3, monkeypatch, place, error, said
):
    monkeypatch.setattr(convscope.Net, "passes", None)
    with pytest.raises(error, match=said):
        scan(net, pictures, place)


def test_without_permission_nothing_is_begun(net, pictures, s3, monkeypatch):
    s3.makedirs("closed", exist_ok=True)
    asked = connections.Connection.ask

    def ask(self, what, *args, **options):
        if what == "pipe_file":
            raise PermissionError("Access Denied")
        return asked(self, what, *args, **options)

    monkeypatch.setattr(connections.Connection, "ask", ask)
    with pytest.raises(OutputError, match=r"cannot write s3://closed/atlas/\.lock: no access.*AWS_ACCESS_KEY_ID"):
        scan(net, pictures, "s3://closed/atlas")


def test_an_atlas_is_not_written_among_its_pictures(net, there):
    uploads.write_whole(f"{there}/a.png", b"")
    with pytest.raises(OutputError, match="folder of its own"):
        scan(net, there, f"{there}/")


def test_copies_that_have_no_room_are_refused_with_their_size(net, pictures, there, monkeypatch):
    full = shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: full)
    with pytest.raises(DataError, match=r"MB are copied to .* 0 MB are free: set TMPDIR"):
        storage.check_room(10**12)
