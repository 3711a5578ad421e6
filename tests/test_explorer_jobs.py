"""Jobs of the explorer: real processes, killed and gone on with, and a queue that says nothing of what may run."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from convscope import load, maximize, read_recipe
from convscope.explorer.bench import Bench
from convscope.explorer.jobs import Jobs
from convscope.explorer.shelf import Shelf
from convscope.explorer.specimen import Specimen
from explorers import Answer, Running, running, until


def bench_of(folder: Path, pictures: list[str] | None = None) -> Bench:
    return Bench([Specimen("lenet5", load("lenet5"))], Shelf(pictures or []), folder)


def post(explorer: Running, path: str = "/jobs", **fields: object) -> Answer:
    body = urlencode({"token": explorer.bench.token, "network": "lenet5", **fields}).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://{explorer.host}"}
    return explorer.get(path, form, "POST", body)


def state(explorer: Running, path: str) -> str:
    return explorer.json(f"{path}.json")["job"]["state"]


def test_a_picture_is_made_in_its_turn_whatever_is_killed(tmp_path: Path) -> None:
    """The first job's process is killed, the second ended, the server stopped in the middle: nothing is lost."""
    with running(bench_of(tmp_path)) as explorer:
        jobs = explorer.bench.jobs
        assert jobs is not None
        first = post(explorer, kind="maximize", layer="conv1", unit=3).headers["location"]
        second = post(explorer, kind="maximize", layer="conv1", unit=4).headers["location"]
        third = post(explorer, kind="maximize", layer="output", unit=7).headers["location"]
        assert post(explorer, kind="maximize", layer="conv1", unit=3).headers["location"] == first
        assert len(explorer.json("/jobs.json")["jobs"]) == 3
        assert explorer.json(f"{third}.json")["job"]["before"] == 2
        until(lambda: jobs._process)
        running_now = jobs._process
        assert running_now is not None
        os.kill(running_now[1].pid, signal.SIGKILL)
        assert post(explorer, f"{second}/end").status == 303
        assert state(explorer, second) == "ended"
        until(lambda: state(explorer, first) == "done")
        until(lambda: state(explorer, third) == "running")
    with running(bench_of(tmp_path)) as explorer:
        until(lambda: state(explorer, third) == "done")
        assert state(explorer, second) == "ended"
        made = explorer.get(f"{first}/result.png")
        assert Image.open(io.BytesIO(made.body)).format == "PNG"
        job = first.removeprefix("/jobs/")
        assert read_recipe(tmp_path / job / "result.png").key == job
        numbers = np.load(tmp_path / job / "numbers.npz")
        expected = maximize(load("lenet5"), of="conv1:3").numbers()
        assert all(np.allclose(numbers[name], expected[name], atol=1e-5) for name in expected)
        page = explorer.get("/net/lenet5/layer/conv1/unit/3").text
        assert f"{first}/result.png" in page
        assert "convscope.maximize(net, of=&#39;conv1:3&#39;)" in explorer.get(first).text


def test_a_scan_gives_the_network_its_atlas_and_a_diagnosis_a_report_that_may_do_nothing(tmp_path: Path) -> None:
    data = tmp_path / "digits"
    data.mkdir()
    for at in range(6):
        Image.fromarray(np.random.default_rng(at).integers(0, 255, (28, 28), np.uint8)).save(data / f"{at}.png")
    with running(bench_of(tmp_path / "keep", [str(data)])) as explorer:
        scan = post(explorer, kind="scan", source=0).headers["location"]
        diagnosis = post(explorer, kind="diagnose", source=0).headers["location"]
        until(lambda: state(explorer, diagnosis) == "done")
        assert state(explorer, scan) == "done"
        assert "over 6 pictures" in explorer.json("/net/lenet5.json")["network"]["scanned"]
        report = explorer.get(f"{diagnosis}/report.html")
        assert "script" not in report.headers["content-security-policy"]
        assert "sandbox" in report.headers["content-security-policy"]
        assert post(explorer, kind="scan", source=1).status == 404
        assert post(explorer, kind="maximize", layer="conv9", unit=0).status == 404
        assert explorer.get(f"{diagnosis}/../jobs.sqlite").status == 404
        assert explorer.get(f"{diagnosis}/messages.txt").status == 404


def test_a_table_of_a_stranger_runs_no_code_and_reads_no_other_folder(tmp_path: Path) -> None:
    evil = tmp_path / "evil.py"
    evil.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'was-run')!r}).touch()\n")
    bench = bench_of(tmp_path / "keep")
    assert bench.jobs is not None
    bench.jobs.close()
    asked = f'{{"kind": "scan", "data": "/etc", "source": {{"name": "file:{evil}:build"}}}}'
    recipe = f'{{"kind": "draw", "recipe": {{"weights": "0", "network": {{"source": {{"name": "file:{evil}:b"}}}}}}}}'
    with sqlite3.connect(tmp_path / "keep" / "jobs.sqlite") as table:
        for name, network, what in (("a", "lenet5", recipe), ("b", "other", recipe), ("c", "lenet5", asked)):
            row = (name, "waiting", "scan", "t", network, "", what, "", "", "", 0, 0.0, 0.0)
            table.execute(f"INSERT INTO jobs VALUES ({', '.join('?' * len(row))})", row)
    again = bench_of(tmp_path / "keep")
    jobs = again.jobs
    assert jobs is not None
    try:
        until(lambda: not any(job.open for job in jobs.listed()))
        assert [job.state for job in jobs.listed()] == ["failed"] * 3
        assert not (tmp_path / "was-run").exists()
        assert "other weights" in jobs._listed("WHERE id = ?", ("a",))[0].message
    finally:
        again.close()


def test_one_explorer_has_a_folder_of_results(tmp_path: Path) -> None:
    first = bench_of(tmp_path)
    second = bench_of(tmp_path)
    assert second.jobs is None
    assert "in use" in second.no_jobs
    with running(second) as explorer:
        assert "no queue" in explorer.get("/jobs").text
        assert post(explorer, kind="maximize", layer="conv1", unit=3).status == 404
    first.close()
    third = bench_of(tmp_path)
    assert isinstance(third.jobs, Jobs)
    third.close()


@pytest.mark.parametrize("name", ["..", "jobs.sqlite", "%2e%2e%2fjobs.sqlite", "messages.txt"])
def test_files_of_jobs_are_those_on_a_list(tmp_path: Path, name: str) -> None:
    with running(bench_of(tmp_path)) as explorer:
        for job in ("a" * 64, "..", "pictures"):
            assert explorer.get(f"/jobs/{job}/{name}").status in (400, 404)
