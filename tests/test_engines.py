"""Engines: whatever computes the shards of a scan, and dies at it, the atlas is the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convscope
from convscope.atlas import cluster, engines
from convscope.atlas.computing import Receipt
from convscope.atlas.jobs import Job, compute, parts
from convscope.atlas.scanning import scan
from convscope.context import Cancelled, running
from convscope.errors import AtlasError, ConvscopeError, OptionError

SHARD = 4


@pytest.fixture(scope="module")
def net() -> convscope.Net:
    return convscope.load("lenet5")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    numbers = np.random.default_rng(0)
    for index in range(22):
        made = folder / "ab"[index % 2] / f"{index:02d}.png"
        made.parent.mkdir(exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (28, 28), dtype=np.uint8)).save(made)
    return folder


@pytest.fixture(scope="module")
def whole(net: convscope.Net, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of the atlas that this process makes."""
    return written(scan(net, pictures, tmp_path_factory.mktemp("atlases") / "whole", shard=SHARD))


def written(atlas: Path) -> dict[str, bytes]:
    files = [path for path in atlas.rglob("*") if path.suffix in (".parquet", ".safetensors")]
    return {str(path.relative_to(atlas)): path.read_bytes() for path in files}


def in_this_process(sent: Job) -> engines.Engine:
    """An engine that computes what a worker would, here."""

    def engine(ready, numbers):
        for part in reversed(list(parts(ready, numbers))):
            yield compute(sent or Job.of(ready), part, workers=0)

    return engine


def test_a_job_makes_the_same_scan_of_addresses_alone(net, pictures, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    atlas = scan(net, pictures.name, tmp_path / "atlas", shard=SHARD, engine=in_this_process(None))
    assert written(atlas) == whole


def dying(job: Job, connection: Connection) -> None:
    """Like a worker, but it is killed at a shard: always at the third, and once at the second."""
    torch.set_num_threads(1)
    for part in iter(connection.recv, None):
        once = Path(job.folder) / "once"
        if part.number == 2 or (part.number == 1 and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        connection.send(engines.outcome_of(job, part, workers=0))


def test_a_worker_that_dies_is_replaced_and_what_always_fails_is_named(net, pictures, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engines, "_work", dying)
        with pytest.raises(AtlasError, match=r"shard 2 \(pictures 8 to 11\): its worker was killed.*tried 3 times"):
            scan(net, pictures, tmp_path / "atlas", shard=SHARD, engine=engines.local(1))
    assert sum(name.endswith(".safetensors") for name in written(tmp_path / "atlas")) == 5
    assert written(scan(net, pictures, tmp_path / "atlas", shard=SHARD)) == whole


def ended(tmp_path: Path, seed: int, count: int) -> dict[str, Any]:
    """What came of killed scans and a full disk; None of the latter where no file system may be mounted."""
    command = [sys.executable, str(Path(__file__).with_name("ended_scans.py")), str(tmp_path), str(seed), str(count)]
    mounting = ["unshare", "-rm"]
    if shutil.which("unshare") is None or subprocess.run([*mounting, "true"], check=False).returncode:
        mounting = []
    source = str(Path(convscope.__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": source}
    printed = subprocess.run([*mounting, *command], stdout=subprocess.PIPE, check=True, env=environment, timeout=500)
    return json.loads(printed.stdout)


@pytest.mark.parametrize("count", [2, pytest.param(30, marks=pytest.mark.nightly)])
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked, and a file system is mounted")
def test_killed_scans_and_full_disks_go_on_to_the_same_bytes(tmp_path, count):
    found = ended(tmp_path, seed=count, count=count)
    assert found["killed"] >= count - 1
    assert not found["differing"]
    if found["disk"] is not None:
        assert found["disk"] == {"ended": 2, "kept": found["disk"]["kept"], "left": [], "same": True}
        assert found["disk"]["kept"] > 0


def test_a_cancelled_scan_ends_its_workers_and_keeps_what_is_whole(net, pictures, whole, tmp_path):
    cancel = threading.Event()

    def engine(ready, numbers):
        for receipt in engines.local(1)(ready, numbers):
            cancel.set()
            yield receipt

    with running(cancel=cancel), pytest.raises(Cancelled):
        scan(net, pictures, tmp_path / "atlas", shard=SHARD, engine=engine)
    assert not multiprocessing.active_children()
    there = written(tmp_path / "atlas")
    assert 1 <= len(there) < 6
    assert there.items() <= whole.items()


def test_what_cannot_be_sent_is_refused(net, pictures, tmp_path):
    bare = convscope.Net(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(1352, 2)), size=28)
    with pytest.raises(AtlasError, match=r"made in Python.*convscope\.load"):
        scan(bare, pictures, tmp_path / "bare", engine=engines.local(1))
    with pytest.raises(AtlasError, match="in this process's memory"):
        scan(net, [np.zeros((28, 28), np.uint8)] * 3, tmp_path / "memory", engine=engines.local(1))
    for there in (tmp_path / "bare", tmp_path / "memory"):
        assert not written(there)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"version": "0.0.1"}, "the scan was begun by 0.0.1: install the same version"),
        ({"manifest": {"weights": "0" * 64}}, "the weights differ"),
        ({"manifest": {"size": (32, 32)}}, "would compute another scan: size was"),
    ],
)
def test_a_worker_that_would_compute_something_else_refuses(net, pictures, tmp_path, changed, reason):
    def engine(ready, numbers):
        job = Job.of(ready)
        if isinstance(inner := changed.get("manifest"), dict):
            changed["manifest"] = replace(job.manifest, **inner)
        yield compute(replace(job, **changed), next(parts(ready, numbers)), workers=0)

    with pytest.raises(ConvscopeError, match=reason):
        scan(net, pictures, tmp_path / "atlas", engine=engine)


def test_a_worker_that_does_not_see_the_pictures_says_so(net, pictures, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")

    def engine(ready, numbers):
        job, first = Job.of(ready), next(parts(ready, numbers))
        data.rename(tmp_path / "elsewhere")
        yield compute(job, first, workers=0)

    with pytest.raises(AtlasError, match="pictures must lie where every worker sees them"):
        scan(net, data, tmp_path / "atlas", engine=engine)


def test_a_receipt_without_its_file_is_noticed(net, pictures, tmp_path):
    def engine(ready, numbers):
        def outcomes():
            yield Receipt(0, 4, 0, 1000)

        yield from engines.kept(ready, outcomes())

    with pytest.raises(AtlasError, match="a folder that they share"):
        scan(net, pictures, tmp_path / "atlas", shard=SHARD, engine=engine)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_nothing_answers_ends_at_once(net, pictures, tmp_path, address):
    with pytest.raises(AtlasError, match=r"nothing answers at .* \(Connection refused\)"):
        scan(net, pictures, tmp_path / "atlas", engine=cluster.ray(address))
    with pytest.raises(OptionError, match="HOST:PORT"):
        scan(net, pictures, tmp_path / "atlas", engine=cluster.ray("head"))


def test_a_program_that_imported_ray_before_is_told_how_to_have_a_token():
    told = "import ray; from convscope.atlas import cluster\nwith cluster._cluster(None, 1): pass"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, env=environment, check=False)
    assert "RAY_AUTH_MODE=token before the program starts" in done.stderr


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A Ray cluster of two nodes on loopback, of one core each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "5" * 64)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    source = [str(Path(convscope.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, source)))
    started = Nodes(tmp_path_factory.mktemp("ray"))
    try:
        started.start()
        yield started
    finally:
        for process in (started.head, started.second):
            if process is not None:
                kill_group(process)


@dataclass
class Nodes:
    """Two nodes, each a process group."""

    folder: Path
    head: subprocess.Popen[bytes] | None = None
    second: subprocess.Popen[bytes] | None = None
    address: str = ""

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.head = self._node("--head", f"--port={port}", "--include-dashboard=false")
        deadline = time.monotonic() + 120
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            assert self.head.poll() is None
            time.sleep(0.2)
        self.second = self._node(f"--address={self.address}")

    def _node(self, *options: str) -> subprocess.Popen[bytes]:
        common = ["--node-ip-address=127.0.0.1", "--num-cpus=1", f"--object-store-memory={80 << 20}", "--block"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *common]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a node with everything that it started, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_ray_with_two_nodes_of_which_one_is_lost(net, pictures, whole, tmp_path, nodes, monkeypatch):
    """One test, since a cluster takes longer to start than all that it computes."""
    import ray

    engine = cluster.ray(nodes.address)
    receipts: list[Receipt] = []

    def losing(ready, numbers):
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            time.sleep(0.2)
        for receipt in engine(ready, numbers):
            if not receipts:
                kill_group(nodes.second)
            receipts.append(receipt)
            yield receipt

    def dies(job, part):
        if part.number == 1:
            os._exit(1)
        return engines.outcome_of(job, part, workers=0)

    ray.init(nodes.address, _node_ip_address="127.0.0.1", log_to_driver=False, logging_level="ERROR")
    try:
        with monkeypatch.context() as patch:
            patch.setattr(cluster, "_compute", dies)
            with pytest.raises(AtlasError, match=r"shard 1 \(pictures 4 to 7\): Ray gave it up: WorkerCrashedError"):
                scan(net, pictures, tmp_path / "failing", shard=SHARD, engine=engine)
        assert sum(name.endswith(".safetensors") for name in written(tmp_path / "failing")) == 5
        assert written(scan(net, pictures, tmp_path / "failing", shard=SHARD, engine=engine)) == whole
        assert written(scan(net, pictures, tmp_path / "lost", shard=2, engine=losing)).keys() >= {"units.parquet"}
        assert len(receipts) == 11
        assert written(tmp_path / "lost") == written(scan(net, pictures, tmp_path / "same", shard=2))
    finally:
        ray.shutdown()
