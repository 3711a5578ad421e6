"""Engines: whatever computes the shards of a scan, and dies at it, the atlas is the same."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import convscope
from convscope.atlas import engines
from convscope.atlas.jobs import Job, compute, parts
from convscope.atlas.scanning import scan
from convscope.errors import AtlasError

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
