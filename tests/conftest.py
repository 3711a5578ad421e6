"""Shared fixtures: the data that cannot be committed, and the real networks made from it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from convscope import Net, load
from convscope.cli import run

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("CONVSCOPE_DATA", ROOT.parent / "shared" / "data"))

# The same examples in every run: what fails, fails again.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is first imported, whichever test that is

torch.set_num_threads(int(os.environ.get("CONVSCOPE_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Give every test the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def own_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what tests trust away from what the user of this machine trusts."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("settings"))


@pytest.fixture
def trust() -> Callable[[Path], None]:
    """Trust the configuration of a folder, as its user does after a look at it."""

    def trusted(folder: Path) -> None:
        assert run(["trust", str(folder), "--yes"]) == 0

    return trusted


@pytest.fixture(scope="session")
def data() -> Callable[[str], Path]:
    """Find a file of the data folder, or skip the test and say which is missing."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"{name} is not in {DATA}: set CONVSCOPE_DATA to the folder that holds it")
        return path

    return find


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """A real S3 server on this machine, moto's, which this process's S3 addresses lead to; as s3fs's file system."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    ours = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    ours |= {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        import s3fs

        yield s3fs.S3FileSystem(use_listings_cache=False)
    server.stop()


@pytest.fixture(scope="session")
def squeezenet(data: Callable[[str], Path]) -> Net:
    """SqueezeNet 1.0 with its real ImageNet weights."""
    return load("torchvision:squeezenet1_0", weights=data("weights/squeezenet1_0.safetensors"))


@pytest.fixture(scope="session")
def chelsea() -> Any:
    """A real picture of a real cat, uint8 (300, 451, 3)."""
    from skimage.data import chelsea as picture

    return picture()


@pytest.fixture(scope="session")
def pieces_atlas(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An atlas of zfnet64 over pieces of two photographs, of two classes."""
    from convscope import Atlas, scan

    folder, net = tmp_path_factory.mktemp("scanned"), load("zfnet64")
    for name in ("chelsea", "coffee"):
        picture: Any = net.prepare(f"sample:{name}").original
        (folder / "pieces" / name).mkdir(parents=True)
        for at in range(6):
            picture.crop((at * 40, 20, at * 40 + 128, 148)).save(folder / "pieces" / name / f"{at}.png")
    scan(net, str(folder / "pieces"), folder / "atlas", layers=["conv1", "conv3", "relu6"], effect=True)
    return Atlas(folder / "atlas")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of a night, unless `-m` names them: they are deselected, not skipped."""
    if "nightly" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("nightly")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("CONVSCOPE_REQUIRE_ALL"):
        terminalreporter.write_line(
            f"{len(skipped)} tests were skipped, but CONVSCOPE_REQUIRE_ALL is set: this run fails"
        )


def pytest_sessionfinish(session: Any, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    required = os.environ.get("CONVSCOPE_REQUIRE_ALL")
    if required and reporter is not None and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = 1
