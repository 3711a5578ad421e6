"""Writing files: whole or not at all, whatever the writer or the disk does."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscope import outputs
from convscope.errors import OutputError
from convscope.locks import temporary_name, this_process


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)
    yield lambda mask: os.umask(mask) and None
    os.umask(before)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(path: Path | str, writer: Callable[[Path], object] = lambda to: to.write_text("new")) -> str:
    with pytest.raises(OutputError) as caught:
        outputs.write(path, writer)
    message = str(caught.value)
    assert message.startswith(f"cannot write {path}: ") and len(message.splitlines()) == 1
    return message


def test_a_file_is_written_and_its_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "x.txt"
    assert outputs.write(path, lambda to: to.write_text("new")) == path
    assert contents(tmp_path) == {"deep/er/x.txt": b"new"}
    assert outputs.write(str(path), lambda to: to.write_text("newer")) == path
    assert contents(tmp_path) == {"deep/er/x.txt": b"newer"}


def test_the_writer_gets_a_path_of_the_same_folder_and_ending(tmp_path: Path) -> None:
    seen: list[Path] = []

    def writer(to: Path) -> None:
        seen.append(to)
        Image.new("L", (3, 4)).save(to)
        assert not (tmp_path / "x.png").exists(), "nothing is seen under the name until it is whole"

    outputs.write(tmp_path / "x.png", writer)
    assert seen[0].parent == tmp_path and seen[0].suffix == ".png" and seen[0].name.startswith(".")
    assert Image.open(tmp_path / "x.png").size == (3, 4)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(1), MemoryError()], ids=repr)
def test_a_writer_that_fails_half_way_leaves_the_old_file_whole(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(b"old")

    def writer(to: Path) -> None:
        to.write_bytes(b"half of the n")
        raise error

    with pytest.raises(type(error)) as caught:
        outputs.write(path, writer)
    assert caught.value is error
    assert contents(tmp_path) == {"x.npy": b"old"}
    with pytest.raises(type(error)):
        outputs.write(tmp_path / "y.npy", writer)
    assert contents(tmp_path) == {"x.npy": b"old"}


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full on this system")
    path = tmp_path / "x.npy"
    path.write_bytes(b"old")

    def writer(to: Path) -> None:
        to.write_bytes(b"half")
        with Path("/dev/full").open("wb") as full:
            np.save(full, np.zeros(100_000))

    assert "No space left on device" in refused(path, writer)
    assert contents(tmp_path) == {"x.npy": b"old"}


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    assert "it is a folder; name a file in it" in refused(tmp_path)
    assert refused(file / "x.png") and refused(file / "deep" / "x.png")
    assert refused(tmp_path / ("a" * 300 + ".png"))
    if Path("/proc/version").exists():
        assert refused(Path("/proc/nothing/x.png"))
    assert contents(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 250 + ".png", ".png", "x"])
def test_odd_names_are_written_or_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    try:
        outputs.write(path, lambda to: to.write_text("new"))
    except OutputError:
        assert contents(tmp_path) == {}
    else:
        assert contents(tmp_path) == {name: b"new"}


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another matter there")
def test_a_folder_without_permission() -> None:
    """Root may write everywhere, so root becomes nobody for a moment."""
    with tempfile.TemporaryDirectory() as name:
        folder, user = Path(name), os.geteuid()
        folder.chmod(0o555)
        os.seteuid(user or 65534)
        try:
            message = refused(folder / "x.png")
        finally:
            os.seteuid(user)
        assert "Permission denied" in message and contents(folder) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another matter there")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664), (0, 0o666)])
def test_permissions_follow_the_umask(mask: int, mode: int, tmp_path: Path, umask: Callable[[int], None]) -> None:
    umask(mask)
    path = outputs.write(tmp_path / "x.txt", lambda to: to.write_text("new"))
    plain = tmp_path / "plain.txt"
    plain.write_text("new")
    assert stat.S_IMODE(path.stat().st_mode) == mode == stat.S_IMODE(plain.stat().st_mode)


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "there" / "target.txt", tmp_path / "link.txt"
    link.symlink_to(target)
    for text in ("new", "newer"):  # the first time it points to nothing yet
        outputs.write_text(link, text)
        assert link.is_symlink() and target.read_text() == text
    link.unlink()
    link.symlink_to(link)
    assert "symbolic links" in refused(link)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link.txt", "target.txt", "there"]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another matter there")
def test_a_file_keeps_its_permissions_and_a_read_only_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as name:
        path, user = Path(name, "x.txt"), os.geteuid()
        path.write_text("old")
        path.chmod(0o600)
        outputs.write_text(path, "new")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o444)
        Path(name).chmod(0o777)
        # Root may write everywhere, so root's rights are looked at as nobody's.
        access = os.access
        monkeypatch.setattr(os, "access", lambda at, mode: access(at, mode, effective_ids=True))
        os.seteuid(user or 65534)
        try:
            assert "it is read-only" in refused(path)
            with pytest.raises(OutputError, match="it is read-only"):
                outputs.check_file(path)
        finally:
            os.seteuid(user)
        assert contents(Path(name)) == {"x.txt": b"new"}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")
def test_pipes_and_devices_are_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "x.png"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    outputs.write_image(pipe, Image.new("L", (3, 4)))
    reader.join()
    assert read[0].startswith(b"\x89PNG") and stat.S_ISFIFO(pipe.stat().st_mode)
    (tmp_path / "full.txt").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        outputs.write_text(tmp_path / "full.txt", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full.txt", "x.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody knows when a process began")
def test_what_is_written_into_a_device_leaves_nothing_where_temporary_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    killed = place / temporary_name(replace(this_process(), began="0" * 8 + ".1"), ".txt")
    killed.write_text("what a run wrote that was killed")
    seen: list[Path] = []
    with pytest.raises(OutputError, match="No space left on device"):
        outputs.write("/dev/full", lambda to: seen.append(to) or to.write_text("new"))
    assert seen[0].parent == place and not list(place.iterdir())


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "x." + "a" * 253])
def test_a_name_of_255_bytes_is_a_name(name: str, tmp_path: Path) -> None:
    outputs.check_file(tmp_path / name)
    outputs.write_text(tmp_path / name, "new")
    assert contents(tmp_path) == {name: b"new"}
    with pytest.raises(OutputError, match="a name may have 255 bytes here"):
        outputs.check_file(tmp_path / f"{name}x")
    with pytest.raises(OutputError, match="a name may have 255 bytes here"):
        outputs.check_file(tmp_path / f"{name}x" / "y.png")


def test_many_writers_of_one_file_leave_one_of_their_files(tmp_path: Path) -> None:
    path, errors = tmp_path / "x.bin", list[Exception]()

    def work(number: int) -> None:
        try:
            for _ in range(20):
                outputs.write(path, lambda to: to.write_bytes(bytes([number]) * 50_000))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 50_000 and len(set(content)) == 1
    for thread in threads:
        thread.join()
    assert errors == [] and list(contents(tmp_path)) == ["x.bin"]
