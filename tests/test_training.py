"""Training: runs that end the same whatever interrupts them, files that stay whole, and numbers that can be checked."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from adversary.watching import HANG, ended_when_it_hangs
from convscope import Net, load, outputs, tap
from convscope.cli import run as command
from convscope.data.datasets import open_data
from convscope.data.pictures import Picture
from convscope.errors import ConvscopeError, DataError, OptionError, OutputError, TrainingError, WeightsError
from convscope.training.card import write_card
from convscope.training.checkpoint import CHECKPOINT
from convscope.training.exporting import export
from convscope.training.keeping import signed, write_checkpoint
from convscope.training.machines import precision_of
from convscope.training.recipes import Recipe, recipe
from convscope.training.run import SNAPSHOTS, Run
from convscope.training.trainer import train
from convscope.zoo.blueprints import BLUEPRINTS
from convscope.zoo.runs import facts, metadata, read_history

LENET, ZFNET64 = BLUEPRINTS["lenet5"], BLUEPRINTS["zfnet64"]
CLASSES = ("across", "down", "slanted")


def tree(
    root: Path, count: int, *, classes: int = 2, size: tuple[int, int] = (28, 28), mode: str = "L", noise: int = 25
) -> Path:
    """Draw `count` pictures in all: noisy stripes whose direction is the class."""
    random = np.random.default_rng(0)
    width, height = size
    y, x = np.mgrid[:height, :width]
    for index in range(count):
        along = (x, y, x + y)[index % classes]
        values = 128 + 90 * np.sin(along * 0.9 + random.uniform(0, 6)) + random.normal(0, noise, (height, width))
        folder = root / CLASSES[index % classes]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert(mode).save(folder / f"{index:03}.png")
    return root


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 grey pictures of 28x28 pixels, of two classes."""
    return tree(tmp_path_factory.mktemp("digits"), 60)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """52 colour pictures of 64x64 pixels, of two classes."""
    return tree(tmp_path_factory.mktemp("photos"), 52, size=(64, 64), mode="RGB")


def damaged(root: Path, count: int) -> list[str]:
    """Draw 60 pictures, cut the first ones of the first class off in the middle, and name those."""
    paths = sorted((tree(root, 60) / CLASSES[0]).iterdir())[:count]
    for path in paths:
        path.write_bytes(path.read_bytes()[:100])
    return [str(path.relative_to(root)) for path in paths]


def asked(data: Path, folder: Path, *, network: str = "lenet5", name: str = "default", **given: Any) -> Run:
    """Describe a small run; what is not an attribute of the run is a change of its recipe."""
    own = {key: given.pop(key) for key in list(given) if key in Run.__dataclass_fields__}
    own = {"snapshots": (1, 2, 3), "workers": 0, "tell": lambda _: None, **own}
    learn, hold = open_data(str(data), seed=own.get("seed", 0))
    chosen = recipe(BLUEPRINTS[network], name, **{"epochs": 3, "batch": 8, **given})
    return Run(BLUEPRINTS[network], chosen, learn, hold, folder, **own)


def outcome(folder: Path) -> tuple[dict[str, bytes], list[tuple[Any, ...]], tuple[str, ...]]:
    """Return everything that two equal runs have in common: all but the seconds."""
    told = read_history(folder)
    entries = [(e.epoch, e.loss, e.rate, e.accuracy, e.snapshot) for e in told.epochs]
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}, entries, told.unreadable


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def environment() -> dict[str, str]:
    """Return an environment in which another process computes with as many threads as this one."""
    threads = str(torch.get_num_threads())
    return os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}


def shell(data: Path, folder: Path, *more: str, network: str = "lenet5") -> list[str]:
    """Return the words of a small run on the command line."""
    words = {"--data": str(data), "-o": str(folder), "--epochs": "3", "--batch": "8", "--workers": "0"}
    words |= {"--precision": "fp32"}
    own = [word for option, value in words.items() if option not in more for word in (option, value)]
    return ["train", network, *own, *more]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must end with one line on stderr and exit code 2; return the line."""
    assert command(words) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("convscope: ") and len(error.splitlines()) == 1 and "Traceback" not in error
    return error


class Stopped(BaseException):
    """Stands for whatever ends a process between two lines."""


@dataclass
class Fuse:
    """Pictures that end the run when one too many of them is opened; named as those they come from."""

    source: Any
    left: int
    fire: Callable[[], None]

    def __getitem__(self, index: int) -> Picture:
        picture = self.source[index]

        def fetch() -> Any:
            self.left -= 1
            if self.left < 0:
                self.fire()
            return picture.read()

        return replace(picture, _fetch=fetch)


def fused(run: Run, left: int, fire: Callable[[], None]) -> Run:
    """Return the run, to be ended after it has opened so many pictures to learn from."""
    learn = run.learn
    return replace(run, learn=replace(learn, source=Fuse(learn.source, left, fire)))


def stop() -> None:
    raise Stopped


def stop_after(epoch: int) -> Callable[[str], None]:
    def tell(line: str) -> None:
        if line.startswith(f"epoch {epoch:>3}/"):
            raise Stopped

    return tell


def begun(run: Run, epochs: int) -> Run:
    """Train some epochs, stop, and return the run for whoever goes on."""
    with pytest.raises(Stopped):
        train(replace(run, tell=stop_after(epochs)))
    return run


# 1. A run that is interrupted ends as if it had not been.


def test_a_killed_process_that_is_started_again_ends_with_the_same_bytes(digits: Path, tmp_path: Path) -> None:
    more = ("--epochs", "25", "--precision", "auto", "--snapshots", "1,2,3,10")
    words = shell(digits, tmp_path / "killed", *more)
    process = subprocess.Popen([sys.executable, "-m", "convscope", *words], env=environment())
    with ended_when_it_hangs():
        while not (tmp_path / "killed" / "epoch-001.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "epoch-025.safetensors").exists()
    assert command(words) == 0
    assert command(shell(digits, tmp_path / "whole", *more)) == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    assert len(outcome(tmp_path / "whole")[0]) == 5


@pytest.mark.parametrize("last", ["checkpoint.pt", "epoch-002.safetensors", "history.json"])
def test_a_run_killed_between_two_of_its_files_writes_the_rest(
    last: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stops after the `last` file of the second epoch."""
    monkeypatch.setattr(outputs, "_sync", lambda _: None)
    replace_file, seen = Path.replace, list[str]()

    def replaced(self: Path, target: Path) -> Path:
        done = replace_file(self, target)
        seen.append(target.name)
        if target.name == last and seen.count("checkpoint.pt") == 2:
            raise KeyboardInterrupt
        return done

    run = asked(digits, tmp_path / "killed", epochs=2)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "replace", replaced)
        train(run)
    train(run)
    train(asked(digits, tmp_path / "whole", epochs=2))
    assert outcome(run.folder) == outcome(tmp_path / "whole")
    assert sorted(contents(run.folder)) == sorted(contents(tmp_path / "whole"))


@pytest.mark.parametrize("left", ["card.md", "epoch-001.safetensors", "history.json"])
def test_what_another_run_left_is_never_taken_for_its_own(left: str, digits: Path, tmp_path: Path) -> None:
    (tmp_path / left).write_text("mine")
    with pytest.raises(OptionError, match=f"holds {left} of a run but no checkpoint.pt: name another folder"):
        train(asked(digits, tmp_path))
    assert contents(tmp_path) == {left: b"mine"}


def test_two_trainings_in_one_folder(digits: Path, tmp_path: Path) -> None:
    """The second is refused while the first one runs, from a thread as from a process, and can go on after it."""
    told: list[str] = []

    def tell(line: str) -> None:
        if line.startswith("epoch"):
            with pytest.raises(OutputError, match=f"in use by process {os.getpid()}: wait for it to end"):
                train(asked(digits, tmp_path / "run", seed=1))
            told.append(line)

    train(asked(digits, tmp_path / "run", epochs=2, tell=tell))
    assert len(told) == 2 and not list((tmp_path / "run").glob("*.lock"))
    train(asked(digits, tmp_path / "alone", epochs=2))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "alone")


_KILLED_WITHIN = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_training import asked, fused
from convscope.training.trainer import train
run = asked(Path(sys.argv[2]), Path(sys.argv[3]), batch=2, epochs=2, minutes=0.0)
train(fused(run, 54 + 47, lambda: os.kill(os.getpid(), signal.SIGKILL)))
"""


def test_a_process_killed_within_an_epoch_goes_on_within_it(digits: Path, tmp_path: Path) -> None:
    arguments = [str(Path(__file__).parent), str(digits), str(tmp_path / "killed")]
    killed = subprocess.run([sys.executable, "-c", _KILLED_WITHIN, *arguments], env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    kept = torch.load(tmp_path / "killed" / CHECKPOINT, weights_only=True)
    assert (kept["epoch"], kept["step"]) == (2, 20), "the second epoch had 23 of its 27 steps"
    lines: list[str] = []
    train(asked(digits, tmp_path / "killed", batch=2, epochs=2, minutes=0.0, tell=lines.append))
    assert "from epoch 2, step 20" in lines[0]
    train(asked(digits, tmp_path / "whole", batch=2, epochs=2))
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("left", [0, 1, 39, 40, 41, 53, 54, 95, 107])
def test_a_run_stopped_at_any_picture_ends_with_the_same_bytes(left: int, digits: Path, tmp_path: Path) -> None:
    """54 pictures in steps of 2: a checkpoint after 20 steps, and at the end of the epoch after 27."""
    run = asked(digits, tmp_path / "stopped", batch=2, epochs=2, minutes=0.0)
    with pytest.raises(Stopped):
        train(fused(run, left, stop))
    train(run)
    train(asked(digits, tmp_path / "whole", batch=2, epochs=2))
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_a_run_stopped_again_and_again_ends_with_the_same_bytes(digits: Path, tmp_path: Path) -> None:
    """The epoch of 40 pictures has 20 steps, so the checkpoint within it is that of its last step."""
    run = asked(digits, tmp_path / "stopped", batch=2, epochs=2, minutes=0.0)
    run.learn = run.learn.only(range(10, 50))
    for left in (45, 3, 30, 39, 41, 20):
        try:
            train(fused(run, left, stop))
        except Stopped:
            continue
    train(run)
    whole = replace(run, folder=tmp_path / "whole", minutes=10.0)
    train(whole)
    assert outcome(run.folder) == outcome(whole.folder)


@pytest.mark.parametrize("name", ["default", "paper"])
def test_dropout_batch_norm_and_schedules_are_resumed_too(name: str, photos: Path, tmp_path: Path) -> None:
    options = {"network": "zfnet64", "name": name, "epochs": 2, "batch": 2, "dropout": 0.5, "snapshots": (1, 2)}
    whole, stopped = (asked(photos, tmp_path / folder, **options) for folder in ("whole", "stopped"))
    for run in (whole, stopped):
        run.learn, run.minutes = run.learn.only(range(2, 46)), 0.0
    train(whole)
    with pytest.raises(Stopped):
        train(fused(stopped, 44 + 42, stop))
    assert torch.load(stopped.folder / CHECKPOINT, weights_only=True)["step"] == 20
    train(stopped)
    assert outcome(stopped.folder) == outcome(whole.folder)


def test_loading_processes_change_nothing(digits: Path, tmp_path: Path) -> None:
    results = []
    for workers in (0, 2):
        train(asked(digits, tmp_path / str(workers), workers=workers, epochs=2))
        results.append(outcome(tmp_path / str(workers)))
    assert results[0] == results[1]


def test_the_seed_decides(digits: Path, tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed + 10)
        train(asked(digits, tmp_path / folder, seed=seed, epochs=1))
    assert outcome(tmp_path / "a")[0] != outcome(tmp_path / "b")[0]


@pytest.mark.parametrize("seed", ["-1", "4294967295", "1000000000000", "18446744073709551616"])
def test_any_seed_is_taken_or_refused(
    seed: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(shell(digits, tmp_path / "run", "--seed", seed, "--epochs", "1")) in (0, 2)
    assert len(capsys.readouterr().err.splitlines()) <= 1


@pytest.mark.parametrize(("epochs", "batch"), [(1, 54), (4, 54), (2, 27), (1, 13), (9, 54), (2, 1000)])
def test_very_short_runs_have_a_schedule_too(epochs: int, batch: int, digits: Path, tmp_path: Path) -> None:
    assert len(train(asked(digits, tmp_path / "run", epochs=epochs, batch=batch)).epochs) == epochs


def test_steps_of_one_picture_are_trained_or_refused_before_anything_is_computed(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = command(shell(digits, tmp_path / "run", "--batch", "1", "--epochs", "1"))
    assert code == 0 or "batch" in capsys.readouterr().err.replace("no batch of pictures could be read", "")


# 2. Folders that hold something else.


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["--rate", "0.01"], ["rate was 0.05, now 0.01"]),
        (["--epochs", "4"], ["epochs was 3, now 4"]),
        (["--rate", "0.01", "--batch", "9"], ["rate was 0.05, now 0.01", "batch was 8, now 9"]),
        (["--seed", "7"], ["seed was 0, now 7", "data was"]),
        (["--precision", "bf16"], ["precision was fp32, now bf16"]),
        (["--snapshots", "3"], ["snapshots was [1, 2, 3], now [3]"]),
        (["--recipe", "paper"], ["schedule was onecycle, now plateau", "clip was None, now 0.1"]),
        (["--held-out", "0.3"], ["held out was 6, now 18", "pictures was 54, now 42"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_run_goes_on_with_the_same_settings_only(
    changes: list[str], named: list[str], digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(asked(digits, tmp_path / "run"), 1)
    before = contents(tmp_path)
    same = [] if "--snapshots" in changes else ["--snapshots", "1,2,3"]
    error = refused(shell(digits, tmp_path / "run", *same, *changes), capsys)
    assert "was begun with other settings" in error and all(difference in error for difference in named)
    assert contents(tmp_path) == before


def test_a_run_goes_on_with_the_same_data_only(digits: Path, tmp_path: Path) -> None:
    begun(asked(digits, tmp_path / "run"), 1)
    before = contents(tmp_path / "run")
    with pytest.raises(OptionError, match=r"data was [0-9a-f]{32}, now [0-9a-f]{32}"):
        renamed = tree(tmp_path / "other", 60)
        next((renamed / CLASSES[0]).iterdir()).rename(renamed / CLASSES[0] / "zzz.png")
        train(asked(renamed, tmp_path / "run"))
    with pytest.raises(OptionError, match="network was lenet5, now zfnet64"):
        train(asked(digits, tmp_path / "run", network="zfnet64"))
    assert contents(tmp_path / "run") == before


def test_a_finished_run_is_not_computed_again(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(shell(digits, tmp_path / "run")) == 0
    first = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("epoch ") for line in first) == 3 and first[-1] == str(tmp_path / "run")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "run").iterdir()}
    assert command(shell(digits, tmp_path / "run")) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"the run in {tmp_path / 'run'} is finished: 3 epochs",
        str(tmp_path / "run"),
    ]
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (tmp_path / "run").iterdir()} == before
    history = train(fused(asked(digits, tmp_path / "run", snapshots=SNAPSHOTS), 0, stop))
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3]


def test_results_without_a_checkpoint_are_not_written_over(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(asked(digits, tmp_path / "run"), 1)
    (tmp_path / "run" / CHECKPOINT).unlink()
    before = contents(tmp_path)
    assert f"but no {CHECKPOINT}" in refused(shell(digits, tmp_path / "run"), capsys)
    assert contents(tmp_path) == before


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def _damages(good: bytes, to: Path, kind: str) -> None:
    random = np.random.default_rng(0).bytes(len(good))
    contents = {
        "empty": b"",
        "half": good[: len(good) // 2],
        "last byte": good[:-1],
        "noise": random,
        "noise inside": good[:2000] + random[2000:20_000] + good[20_000:],
        "text": b"404 not found",
        "one bit": good[: len(good) // 2] + bytes([good[len(good) // 2] ^ 1]) + good[len(good) // 2 + 1 :],
    }
    if kind in contents:
        to.write_bytes(contents[kind])
    elif kind == "folder":
        to.unlink()
        to.mkdir()
    else:
        to.write_bytes(signed(_made_up(to, kind)))


def _made_up(path: Path, kind: str) -> bytes:
    """Return an archive that somebody made of a checkpoint on purpose."""
    kept, last = torch.load(path, weights_only=True), torch.load(path, weights_only=True)["past"][-1]
    changes: dict[str, Any] = {
        "other body": {"body": {}},
        "other shape": {"body": kept["body"] | {name: torch.zeros(3) for name in list(kept["body"])[:1]}},
        "other momentum": {"optimizer": kept["optimizer"] | {"state": {0: {"momentum_buffer": torch.zeros(2)}}}},
        "snapshot elsewhere": {"past": [*kept["past"][:-1], last | {"snapshot": "../../x.safetensors"}]},
        "epochs": {"epoch": 7},
        "step": {"step": -1},
        "code": {"seconds": Bomb(path.with_name("ran"))},
    }
    content = io.BytesIO()
    kind, _, old = kind.partition(", ")
    torch.save([1] if kind == "list" else kept | changes[kind], content, _use_new_zipfile_serialization=not old)
    return content.getvalue()


@pytest.mark.parametrize(
    "kind",
    "empty|half|last byte|one bit|noise|noise inside|text|folder|code|code, old format|list|other body|other shape|"
    "other momentum|snapshot elsewhere|epochs|step".split("|"),
)
def test_a_damaged_checkpoint_is_named_and_runs_no_code(
    kind: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = begun(asked(digits, tmp_path / "run"), 1).folder / CHECKPOINT
    _damages(path.read_bytes(), path, kind)
    before = contents(tmp_path)
    with pytest.raises(WeightsError, match="is damaged") as caught:
        train(asked(digits, tmp_path / "run"))
    assert str(path) in str(caught.value)
    assert str(path) in refused(shell(digits, tmp_path / "run", "--snapshots", "1,2,3"), capsys)
    assert contents(tmp_path) == before


def test_names_that_are_not_utf8_are_written_out_in_what_a_snapshot_says(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata=metadata({"classes": ["o\udcffn", "zwölf"]}))
    assert facts(path)["classes"] == ["o?n", "zwölf"]


# 3. Losses that are not finite, and requests that make no sense.


def test_a_rate_that_is_far_too_high_is_said_with_the_step(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(shell(digits, tmp_path / "run", "--rate", "1e6"), capsys)
    found = re.search(
        r"the loss is (nan|inf) at step (\d+) of epoch 1: try a lower --rate than 1e\+06; there is", error
    )
    assert found and 2 <= int(found[2]) <= 6, "the first step is taken with the initial weights, and an epoch has six"
    assert not list((tmp_path / "run").glob("*.safetensors"))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_weights_that_are_not_finite_leave_the_snapshots_before_them(
    value: float, digits: Path, tmp_path: Path
) -> None:
    run = begun(asked(digits, tmp_path / "run"), 2)
    kept = torch.load(run.folder / CHECKPOINT, weights_only=True)
    kept["body"]["conv2.weight"].fill_(value)
    write_checkpoint(run.folder / CHECKPOINT, kept)
    before = contents(run.folder)
    with pytest.raises(TrainingError, match=r"at step 1 of epoch 3.*the last good snapshot is that of epoch 2"):
        train(run)
    assert contents(run.folder) == before
    load("lenet5", weights=run.folder)


@pytest.mark.parametrize("rate", [1e5, 1e6, 1e8, 1e30])
def test_no_snapshot_is_kept_that_cannot_be_loaded(rate: float, digits: Path, tmp_path: Path) -> None:
    """With one step an epoch, the weights are lost before a loss is."""
    run = asked(digits, tmp_path / "run", batch=54, rate=rate)
    with pytest.raises(TrainingError):
        train(run)
    for path in run.folder.glob("*.safetensors"):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(path).values()), path.name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rate", "nan"], "rate is a positive number, not nan"),
        (["--rate", "inf"], "rate is a positive number, not inf"),
        (["--rate", "0"], "rate is a positive number, not 0"),
        (["--rate", "-1"], "rate is a positive number, not -1"),
        (["--epochs", "0"], "epochs is at least 1, not 0"),
        (["--epochs", "-3"], "epochs is at least 1, not -3"),
        (["--batch", "0"], "batch is at least 1, not 0"),
        (["--batch", "many"], "Invalid value for '--batch'"),
        (["--workers", "-1"], "workers is 0 or more, not -1"),
        (["--snapshots", "1,x"], "such as 1,2,5, not '1,x'"),
        (["--snapshots", "0"], "there is no snapshot of epoch 0"),
        (["--recipe", "papr"], "no recipe 'papr'; nearest: 'paper'"),
        (["--precision", "int8"], "precision is auto, bf16, fp16 or fp32, not 'int8'"),
        (["--precision", "fp16", "--device", "cpu"], "fp16 trains on CUDA devices only: use bf16 or fp32"),
        (["--device", "abacus"], "there is no device 'abacus' here"),
        (["--device", "meta"], "device"),
        (["--data", "nowhere"], "there is no folder nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_requests_that_make_no_sense(
    words: list[str], said: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(shell(digits, tmp_path / "run", *words), capsys)
    assert re.search(re.escape(said).replace("0'", r"0(\.0)?'"), error)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("lenet6", "zfnet, alexnet-zf and their variants, not 'lenet6'; nearest: 'lenet5'"),
        ("torchvision:alexnet", "not 'torchvision:alexnet'"),
        ("", "variants, not ''"),
        ("lenet5-1998", "lenet5-1998 has 10 classes"),
    ],
)
def test_networks_that_are_not_trained(
    network: str, said: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(shell(digits, tmp_path / "run", network=network), capsys)
    assert not (tmp_path / "run").exists()


def test_the_precision_that_auto_stands_for_is_one_that_can_be_asked_for() -> None:
    cpu = torch.device("cpu")
    assert precision_of("auto", cpu) in ("bf16", "fp32") and precision_of("bf16", cpu) == "bf16"


# 4. Disks.


@pytest.mark.parametrize(
    ("epochs", "limit"),
    [(2, 50_000), (2, 300_000), (0, 300_000)],
    ids=["the third snapshot fails", "the third checkpoint fails", "the first checkpoint fails"],
)
def test_a_full_disk_is_one_line_and_leaves_whole_files(epochs: int, limit: int, digits: Path, tmp_path: Path) -> None:
    run = asked(digits, tmp_path / "run")
    if epochs:
        begun(run, epochs)
    before = contents(tmp_path)
    failed = subprocess.run(
        [sys.executable, "-m", "convscope", *shell(digits, run.folder, "--snapshots", "1,2,3")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    after = contents(tmp_path)
    assert not [name for name in after if Path(name).name.startswith(".")], "nothing temporary is left"
    kept = [name for name in before if not name.endswith("history.json")]
    assert [after[name] for name in kept] == [before[name] for name in kept]
    for epoch in range(1, epochs + 1):
        assert read_history(run.folder).epochs[epoch - 1].epoch == epoch
        load("lenet5", weights=run.folder, epoch=epoch)
    train(run)
    train(asked(digits, tmp_path / "whole"))
    assert outcome(run.folder) == outcome(tmp_path / "whole"), "with room on the disk, it goes on"
    assert failed.returncode == 2, failed.stderr
    assert failed.stderr.startswith(f"convscope: cannot write {run.folder}") and len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize("below", ["", "run", "deep/run"])
def test_a_folder_below_a_file_is_refused_before_anything_is_computed(
    below: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert str(file) in refused(shell(digits, file / below), capsys)
    assert contents(tmp_path) == {"file": b"mine"}
    with pytest.raises(OutputError):
        train(fused(asked(digits, file / below), 0, stop))


# 5. Pictures that cannot be read.


def test_a_few_unreadable_pictures_are_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = damaged(tmp_path / "data", 2)
    assert command(shell(tmp_path / "data", tmp_path / "run", "--batch", "6")) == 0
    error = capsys.readouterr().err.strip()  # progress, shown after two seconds, leaves an empty line
    assert error == f"skipped 2 pictures that cannot be read: {', '.join(names)}"
    assert read_history(tmp_path / "run").unreadable == tuple(names)
    assert "2 could not be read" in (tmp_path / "run" / "card.md").read_text()


def test_a_card_written_later_counts_the_unreadable_pictures_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is killed while its card is being measured has a checkpoint that is finished, and no card."""
    damaged(tmp_path / "data", 2)
    words = shell(tmp_path / "data", tmp_path / "run", "--batch", "6")
    assert command(words) == 0
    card, error = (tmp_path / "run" / "card.md").read_text(), capsys.readouterr().err.strip()
    (tmp_path / "run" / "card.md").unlink()
    assert command(words) == 0
    assert (tmp_path / "run" / "card.md").read_text() == card and capsys.readouterr().err.strip() == error


def test_too_many_unreadable_pictures_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = damaged(tmp_path / "data", 10)
    error = refused(shell(tmp_path / "data", tmp_path / "run"), capsys)
    found = re.search(r"(\d+) of 60 pictures cannot be read, more than 5%: (.*); replace or remove them", error)
    assert found and int(found[1]) > 3 and found[2].split(", ")[0] in names
    with pytest.raises(DataError):
        train(asked(tmp_path / "data", tmp_path / "run"))
    assert not {"history.json", "epoch-001.safetensors"} & contents(tmp_path / "run").keys()


def test_three_of_sixty_are_five_percent_and_not_more(tmp_path: Path) -> None:
    names = damaged(tmp_path / "data", 3)
    assert set(train(asked(tmp_path / "data", tmp_path / "run", batch=6)).unreadable) == set(names)


def test_an_unreadable_picture_is_remembered_when_the_run_goes_on(tmp_path: Path) -> None:
    damaged(tmp_path / "data", 2)
    run = begun(asked(tmp_path / "data", tmp_path / "run", batch=2, minutes=0.0), 1)
    with pytest.raises(Stopped):
        train(fused(run, 47, stop))
    train(run)
    train(asked(tmp_path / "data", tmp_path / "whole", batch=2))
    assert outcome(run.folder) == outcome(tmp_path / "whole")


def test_held_out_pictures_of_the_same_name_are_counted_too(tmp_path: Path) -> None:
    tree(tmp_path / "data" / "train", 60)
    tree(tmp_path / "data" / "val", 20)
    for part in ("train", "val"):
        (tmp_path / "data" / part / CLASSES[0] / "000.png").write_bytes(b"damaged")
    assert len(train(asked(tmp_path / "data", tmp_path / "run", batch=6)).unreadable) == 2


def test_no_readable_held_out_picture_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path / "data", 60)
    _, hold = open_data(str(tmp_path / "data"), held_out=0.01)
    for index in range(len(hold)):
        (tmp_path / "data" / hold.name(index)).write_bytes(b"damaged")
    assert command(shell(tmp_path / "data", tmp_path / "run", "--held-out", "0.01")) in (0, 2)
    assert len(capsys.readouterr().err.splitlines()) == 1


# 6. What is kept is what was trained.


def _trained_body(photos: Path, folder: Path) -> tuple[nn.Module, Net]:
    """Train zfnet64 with batch norm for some steps; return it as it was trained, and as a reader loads it."""
    run = asked(photos, folder, network="zfnet64", epochs=1, batch=8)
    train(run)
    body = run.recipe.training_body(ZFNET64, 2)
    body.load_state_dict(torch.load(folder / CHECKPOINT, weights_only=True)["body"])
    return body, load("zfnet64", weights=folder)


def _folded(body: nn.Module) -> nn.Sequential:
    """Fold batch norm in float64, by its definition."""
    folded = ZFNET64.body(2).double()
    parts = dict(body.double().named_children())
    state = {f"fc.{key}": value for key, value in parts["fc"].state_dict().items()}
    for number in range(1, 7):
        conv, norm = parts[f"conv{number}"], parts[f"bn{number}"]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        state[f"conv{number}.weight"] = conv.weight * scale[:, None, None, None]
        state[f"conv{number}.bias"] = norm.bias - norm.running_mean * scale
    folded.load_state_dict(state)
    return folded


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def test_the_exported_network_is_the_trained_one_with_batch_norm_folded(photos: Path, tmp_path: Path) -> None:
    body, net = _trained_body(photos, tmp_path / "run")
    assert any(isinstance(part, nn.BatchNorm2d) and part.num_batches_tracked == 5 for part in body.modules())
    kinds = (nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Linear, nn.Flatten, nn.AdaptiveAvgPool2d)
    assert all(isinstance(part, kinds) for part in net.body.children())
    pixels = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        wanted = body.double().eval()(net.normalise(pixels).double())
        folded = _folded(body)
        assert _apart(folded(net.normalise(pixels).double()), wanted) < 1e-12
        assert _apart(net(pixels).double(), wanted) < 5e-3
        rounded = {key: value.half().float() for key, value in folded.state_dict().items()}
    for key, value in net.body.state_dict().items():
        assert value.equal(value.half().float()), "a snapshot has 16 bits"
        torch.testing.assert_close(value, rounded[key], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_exporting_changes_nothing_of_what_is_trained(training: bool) -> None:
    body = recipe(ZFNET64).training_body(ZFNET64, 2).train(training)
    before = {key: value.clone() for key, value in body.state_dict().items()}
    net = ZFNET64.net(ZFNET64.body(2), CLASSES[:2])
    export(body, net)
    assert all(part.training == training for part in body.modules())
    assert all(value.equal(before[key]) for key, value in body.state_dict().items())
    assert all(parameter.requires_grad for parameter in body.parameters())
    with torch.no_grad():
        next(net.body.parameters()).zero_()
    assert all(value.equal(before[key]) for key, value in body.state_dict().items())


# 7. Recipes.

PAPER = ["lenet5", "lenet5-1998", "zfnet64"]


def _units(network: str) -> float:
    std = BLUEPRINTS[network].std
    return 255 * float(np.mean(std))


def _sizes(body: nn.Module) -> list[torch.Tensor]:
    convolutions = [part for part in body.modules() if isinstance(part, nn.Conv2d)]
    return [conv.weight.detach().square().mean((1, 2, 3)).sqrt() for conv in convolutions]


@given(network=st.sampled_from(PAPER), spread=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_filters_of_the_paper_are_limited(network: str, spread: float, seed: int) -> None:
    blueprint, chosen = BLUEPRINTS[network], recipe(BLUEPRINTS[network], "paper")
    torch.manual_seed(seed)
    body = chosen.training_body(blueprint, 10)
    for parameter in body.parameters():
        nn.init.normal_(parameter, 0, spread)
        parameter.data *= torch.rand(parameter.shape[:1] + (1,) * (parameter.ndim - 1))
    before = {key: value.clone() for key, value in body.state_dict().items()}
    old = _sizes(body)
    chosen.limit(body, blueprint)
    once = {key: value.clone() for key, value in body.state_dict().items()}
    for position, (was, now) in enumerate(zip(old, _sizes(body), strict=True)):
        limit = 0.1 * (_units(network) if position == 0 else 1)
        torch.testing.assert_close(now, was.clamp(max=limit), rtol=1e-5, atol=0)
    untouched = [key for key in before if "bias" in key or key.startswith(("fc", "f6", "s2", "s4"))]
    assert untouched and all(once[key].equal(before[key]) for key in untouched)
    if network != "lenet5-1998":
        convolutions = [key for key in before if key.startswith("conv") and key.endswith("weight")]
        for position, key in enumerate(convolutions):
            small = old[position] < 0.0999 * (_units(network) if position == 0 else 1)
            assert once[key][small].equal(before[key][small]), "filters below the limit stay as they are"
    chosen.limit(body, blueprint)
    for key, value in body.state_dict().items():
        torch.testing.assert_close(value, once[key], rtol=1e-6, atol=0)


def test_filters_are_limited_after_every_step_of_a_run(digits: Path, tmp_path: Path) -> None:
    largest: list[list[float]] = []

    def tell(line: str) -> None:
        if line.startswith("epoch "):
            body = LENET.body(2)
            body.load_state_dict(torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["body"])
            largest.append([float(sizes.max()) for sizes in _sizes(body)])

    train(asked(digits, tmp_path / "run", name="paper", batch=54, epochs=8, rate=2.0, tell=tell))
    limits = [0.1 * _units("lenet5"), 0.1, 0.1]
    assert len(largest) == 8
    assert all(size <= limit * (1 + 1e-5) for sizes in largest for size, limit in zip(sizes, limits, strict=True))
    assert any(size > 0.0999 for sizes in largest for size in sizes[1:]), "some filter met the limit"


@pytest.mark.parametrize("network", PAPER)
def test_initial_weights_of_the_paper(network: str) -> None:
    body = recipe(BLUEPRINTS[network], "paper").training_body(BLUEPRINTS[network], 10)
    parts = [part for part in body.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    for position, part in enumerate(parts):
        own = part.weight[part.weight != 0]
        std = 0.01 * (_units(network) if position == 0 else 1)
        assert own.std().item() == pytest.approx(std, rel=0.25) and abs(own.mean().item()) < std / 3
        assert part.bias is not None and not part.bias.any()


def test_the_recipe_of_the_paper_has_its_numbers() -> None:
    for network in ("zfnet64", "zfnet", "alexnet-zf:no-7"):
        chosen = recipe(BLUEPRINTS[network], "paper")
        assert (chosen.epochs, chosen.batch, chosen.rate, chosen.momentum) == (70, 128, 0.01, 0.9)
        assert not (chosen.nesterov or chosen.decay or chosen.smoothing or chosen.batch_norm)
    body = recipe(ZFNET64, "paper").training_body(ZFNET64, 10)
    assert [part.p for part in body.modules() if isinstance(part, nn.Dropout)] == [0.5]
    assert not any(isinstance(part, nn.BatchNorm2d) for part in body.modules())
    assert recipe(LENET, "paper").augment == "digits", "a mirrored digit is another digit"
    assert recipe(BLUEPRINTS["zfnet"]) == recipe(BLUEPRINTS["zfnet"], "paper")


@pytest.mark.parametrize("chosen", [recipe(ZFNET64, "paper"), recipe(LENET), recipe(LENET, momentum=0.5)])
def test_the_momentum_is_that_of_the_recipe_at_every_step(chosen: Recipe) -> None:
    optimizer = chosen.optimizer(nn.Linear(2, 2))
    scheduler = chosen.scheduler(optimizer, 50)
    seen = set()
    for _ in range(50):
        seen.add(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step(0.5) if chosen.schedule == "plateau" else scheduler.step()
    if chosen.schedule == "plateau":
        assert seen == {chosen.momentum}
    else:  # Smith & Topin 2018: down while the rate goes up
        assert max(seen) == pytest.approx(chosen.momentum + 0.05)
        assert min(seen) == pytest.approx(chosen.momentum - 0.05, abs=0.005)


def test_the_plateau_lowers_the_rate_to_a_tenth_when_three_epochs_brought_nothing() -> None:
    chosen = recipe(ZFNET64, "paper")
    optimizer = chosen.optimizer(nn.Linear(2, 2))
    scheduler = chosen.scheduler(optimizer, 1000)
    rates = []
    for accuracy in (0.1, 0.2, 0.3, 0.3, 0.25, 0.4, 0.4, 0.4, 0.4, 0.3, 0.3, 0.3):
        scheduler.step(accuracy)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01] * 8 + [0.001] * 3 + [0.0001])


def test_the_rate_of_one_cycle_goes_up_and_ends_near_zero(digits: Path, tmp_path: Path) -> None:
    chosen = recipe(ZFNET64)
    optimizer = chosen.optimizer(nn.Linear(2, 2))
    scheduler = chosen.scheduler(optimizer, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert max(rates) == pytest.approx(0.1, rel=0.01) and 15 <= int(np.argmax(rates)) <= 25
    assert rates[0] == pytest.approx(0.004) and rates[-1] < 1e-4
    history = train(asked(digits, tmp_path / "run", epochs=5))
    told = [epoch.rate for epoch in history.epochs]
    assert told[-1] < 1e-4 and told == [told[0], *sorted(told[1:], reverse=True)]


def test_pictures_grow_with_the_epochs() -> None:
    sides = [recipe(ZFNET64).sides(epoch, 64) for epoch in range(1, 51)]
    assert sides == [(48,)] * 28 + [(48, 48, 64, 96)] * 22
    assert recipe(ZFNET64, epochs=1).sides(1, 64) == (48,)
    assert {recipe(LENET).sides(epoch, 28) for epoch in range(1, 31)} == {(28,)}
    picture = Image.new("RGB", (70, 90))
    for epoch, name, wanted in ((1, "default", [48]), (50, "default", [48, 48, 64, 96]), (1, "paper", [64])):
        made = [transform(picture) for transform in recipe(ZFNET64, name).transforms(epoch, 64)]
        assert [pixels.shape for pixels in made] == [(3, side, side) for side in wanted]


def test_whole_pictures_are_only_shifted_and_stay_sharp() -> None:
    """Black and white dots survive a shift; zooming blurs them."""
    dots = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    picture = Image.fromarray(np.stack([dots] * 3, 2))
    chosen = recipe(ZFNET64, epochs=100)

    def sharp(epoch: int) -> float:
        (transform,) = replace(chosen, sizes=((0.0, (1.0,)),)).transforms(epoch, 64)
        made = [transform(picture).float() for _ in range(60)]
        return sum(bool((pixels[:, :, 1:] - pixels[:, :, :-1]).abs().mean() > 100) for pixels in made) / 60

    assert sharp(74) <= 0.05 and 0.2 <= sharp(76) <= 0.6


# 8. Histories and snapshots.

FINISHED = "--epochs 12 --batch 4 --snapshots 1,2 --seed 3 --held-out 0.3 --about Stripes,-drawn-here".split()


def test_every_step_draws_its_size_and_a_resumed_run_the_same(photos: Path, tmp_path: Path) -> None:
    sizes = ((0.0, (0.25,)), (0.5, (0.25, 0.5)))

    def sides_of(folder: Path, stop: int) -> list[int]:
        """The sides that the first convolution reads in training, until the run has told of `stop` epochs."""
        seen: list[int] = []

        def note(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
            if isinstance(module, nn.Conv2d) and module.training and module.in_channels == 3:
                seen.append(inputs[0].shape[-1])

        def tell(line: str) -> None:
            if line.startswith(f"epoch {stop:>3}/"):
                raise KeyboardInterrupt

        one = asked(photos, folder, network="zfnet64", epochs=4, batch=4, sizes=sizes, tell=tell)
        hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
        try:
            train(one)
        except KeyboardInterrupt:
            pass
        finally:
            hook.remove()
        return seen

    whole = sides_of(tmp_path / "whole", 9)
    half = len(whole) // 2
    assert set(whole[:half]) == {16} and set(whole[half:]) == {16, 32}, "drawn from the second half on"
    assert sides_of(tmp_path / "parts", 3) + sides_of(tmp_path / "parts", 9) == whole
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run on three classes of pictures of an odd shape, and its pictures."""
    data = tree(tmp_path_factory.mktemp("odd"), 60, classes=3, size=(45, 37), noise=110)
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert command(shell(data, folder, *FINISHED)) == 0
    return folder, data


@pytest.fixture
def copied(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    """The finished run, to be changed."""
    for name, content in contents(finished[0]).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_snapshots_are_loaded_by_epoch(finished: tuple[Path, Path]) -> None:
    folder = finished[0]
    assert sorted(contents(folder)) == [
        "card.md",
        CHECKPOINT,
        *(f"epoch-{n:03}.safetensors" for n in (1, 2, 12)),
        "history.json",
    ]
    nets = {epoch: load("lenet5", weights=folder, epoch=epoch) for epoch in (1, 2, 12, None)}
    assert all(net.classes == CLASSES for net in nets.values())
    assert "epoch 2" in nets[2].note and nets[None].digest == nets[12].digest != nets[1].digest
    assert load("lenet5", weights=folder / "epoch-002.safetensors").digest == nets[2].digest
    for epoch in (0, 3, 13, -1):
        with pytest.raises(OptionError, match=f"no snapshot of epoch {epoch}; there are 1, 2, 12"):
            load("lenet5", weights=folder, epoch=epoch)
    with pytest.raises(WeightsError, match="holds weights of lenet5, not of zfnet64"):
        load("zfnet64", weights=folder)


def test_snapshots_say_what_they_are(finished: tuple[Path, Path]) -> None:
    history = read_history(finished[0])
    assert history.network == "lenet5" and history.classes == CLASSES and history.about == "Stripes,-drawn-here"
    assert history.settings["seed"] == 3 and history.settings["pictures"] == 42
    for epoch in history.snapshots:
        told = facts(finished[0] / str(epoch.snapshot))
        wanted = {"network": "lenet5", "epoch": epoch.epoch, "classes": list(CLASSES), "seed": 3}
        assert told == wanted | {"accuracy": epoch.accuracy}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        "{}",
        '"epochs"',
        '{"epochs": [3], "classes": [], "unreadable": []}',
        '{"network": "lenet5"}',
        "[" * 200_000,
        "\ufeff{}",
    ],
    ids=lambda text: text[:20],
)
def test_a_damaged_history_is_named(text: str, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "history.json").write_text(text)
    with pytest.raises(WeightsError, match=r"history\.json"):
        load("lenet5", weights=copied)
    assert str(copied / "history.json") in refused(["history", str(copied)], capsys)


@pytest.mark.parametrize(
    ("key", "value"),
    [("loss", None), ("loss", 10**400), ("rate", float("nan")), ("accuracy", "high"), ("epoch", "x"), ("snapshot", 3)],
)
def test_a_history_of_other_types_is_named(
    key: str, value: Any, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads((copied / "history.json").read_text())
    told["epochs"][0][key] = value
    (copied / "history.json").write_text(json.dumps(told))
    assert str(copied / "history.json") in refused(["history", str(copied)], capsys)
    with pytest.raises(ConvscopeError):
        load("lenet5", weights=copied)


def test_a_history_that_is_half_written_or_binary_is_named(copied: Path) -> None:
    good = (copied / "history.json").read_bytes()
    for content in (good[: len(good) // 2], b"\xff\xfe\x00", os.urandom(500)):
        (copied / "history.json").write_bytes(content)
        with pytest.raises(WeightsError, match=r"history\.json"):
            read_history(copied)


def test_a_snapshot_that_is_missing_or_damaged_is_named(copied: Path) -> None:
    path = copied / "epoch-001.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert facts(path) == {}
    with pytest.raises(WeightsError, match=r"epoch-001\.safetensors"):
        load("lenet5", weights=copied, epoch=1)
    path.unlink()
    with pytest.raises(WeightsError, match=r"there is no weights file .*epoch-001\.safetensors"):
        load("lenet5", weights=copied, epoch=1)
    load("lenet5", weights=copied, epoch=2)


def test_a_snapshot_that_forgot_its_epoch_is_loaded_all_the_same(copied: Path) -> None:
    path = copied / "epoch-001.safetensors"
    save_file(load_file(path), path, metadata=metadata({"classes": list(CLASSES)}))
    assert "epoch 1" in load("lenet5", weights=copied, epoch=1).note


@pytest.mark.parametrize("told", ["not json", "[1]", "3", "null", '"x"', "", "{"])
def test_foreign_files_tell_nothing(told: str, tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2)}
    for name, extra in (("plain", None), ("pt", {"format": "pt"}), ("odd", {"convscope": told})):
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata=extra)
        assert facts(tmp_path / f"{name}.safetensors") == {}
    (tmp_path / "text.safetensors").write_text(told)
    torch.save(tensors, tmp_path / "x.pt")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("text.safetensors", "x.pt", "folder.safetensors", "missing.safetensors"):
        assert facts(tmp_path / name) == {}


def test_the_history_is_printed_as_a_table(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["history", str(finished[0])]) == 0
    shown = capsys.readouterr().out
    assert "lenet5, 3 classes" in shown
    for epoch in read_history(finished[0]).epochs:
        row = next(line for line in shown.splitlines() if line.split()[:1] == [str(epoch.epoch)])
        assert f"{epoch.loss:.3f}" in row and f"{epoch.accuracy:.2%}" in row and (epoch.snapshot or "") in row
    assert "is not a training run" in refused(["history", str(tmp_path)], capsys)
    assert "there is no history of 'nothing'" in refused(["history", "nothing"], capsys)


# 9. The card.


def _row(card: str, name: str) -> list[str]:
    return next(re.findall(r"[^|]+", line) for line in card.splitlines() if line.startswith(f"| {name} |"))


def test_the_card_says_what_the_snapshot_does(finished: tuple[Path, Path]) -> None:
    folder, data = finished
    card, net = (folder / "card.md").read_text(), load("lenet5", weights=folder)
    history = read_history(folder)
    _, hold = open_data(str(data), held_out=0.3, seed=3)
    pixels = torch.cat([net.read(hold.open(index)) for index in range(len(hold))])
    labels = torch.tensor(hold.labels)
    with torch.no_grad():
        seen = tap(net, pixels, ["", "relu1", "relu2", "relu3", "relu4"])
    right = seen.pop("").argmax(1) == labels
    accuracy = float(right.double().mean())
    assert history.epochs[-1].accuracy == pytest.approx(accuracy)
    assert _row(card, "28")[1].strip() == f"{accuracy:.2%}" and _row(card, "28")[2].strip() == "100.00%"
    assert _row(card, "12")[2].strip() == f"{accuracy:.2%}"
    for label, name in enumerate(CLASSES):
        assert _row(card, name)[1].strip() == f"{float(right[labels == label].double().mean()):.0%}"
    for name, values in seen.items():
        alive = values.reshape(len(hold), values.shape[1], -1).amax((0, 2)) > 0
        dead = 1 - float(alive.double().mean())
        assert _row(card, name)[1].strip() == f"{dead:.1%}"
    assert _row(card, "seed")[1].strip() == "3" and history.machine in card and torch.__version__[:4] in card
    assert re.search(r"\d+ minutes", card) and "Stripes,-drawn-here" in card and "0 could not be read" in card
    assert "42 pictures to learn from, 18 held out" in card and f"{61_706 - 85 * 7:,} parameters, 3 classes" in card


def test_a_card_that_was_removed_is_written_again(
    copied: Path, finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (copied / "card.md").read_text()
    (copied / "card.md").unlink()
    assert command(shell(finished[1], copied, *FINISHED)) == 0
    assert "is finished" in capsys.readouterr().out
    assert (copied / "card.md").read_text() == before


# 10. Several processes.


@dataclass
class Together:
    """What two processes did."""

    process: subprocess.CompletedProcess[str]
    folder: Path
    data: Path
    unreadable: list[str]


def in_two_processes(words: list[str], seconds: float = HANG) -> subprocess.CompletedProcess[str]:
    """Run a command in two processes that share the work; when they hang, end them and fail."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "convscope"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*start, *words], env=environment(), **pipes) as process:
        try:
            out, error = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # it ends the processes that it started
            pytest.fail(f"still running after {seconds} s: {process.communicate()}")
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Together:
    """A run of two processes, three of whose pictures cannot be read."""
    root = tmp_path_factory.mktemp("together")
    unreadable = damaged(root / "data", 3)
    done = in_two_processes(shell(root / "data", root / "run", "--epochs", "2", "--batch", "18", "--seed", "1"))
    return Together(done, root / "run", root / "data", unreadable)


@pytest.mark.slow
def test_two_processes_write_one_run_much_like_that_of_one(together: Together, tmp_path: Path) -> None:
    assert together.process.returncode == 0, together.process.stderr
    told = [line for line in together.process.stdout.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in told] == ["1/2", "2/2"]
    assert together.process.stdout.splitlines().count(str(together.folder)) == 1
    assert sorted(contents(together.folder)) == [
        "card.md",
        CHECKPOINT,
        *(f"epoch-00{n}.safetensors" for n in (1, 2)),
        "history.json",
    ]
    both = read_history(together.folder)
    one = train(asked(together.data, tmp_path / "one", epochs=2, batch=18, seed=1))
    assert (both.settings["processes"], one.settings["processes"]) == (2, 1)
    assert both.epochs[-1].loss == pytest.approx(one.epochs[-1].loss, abs=0.15)
    assert both.epochs[-1].accuracy == pytest.approx(one.epochs[-1].accuracy, abs=0.35)
    torch.manual_seed(1)
    start = recipe(LENET).training_body(LENET, 2).state_dict()
    ends = [load("lenet5", weights=folder).body.state_dict() for folder in (together.folder, tmp_path / "one")]
    moved = [torch.cat([(end[key] - start[key]).flatten() for key in start]) for end in ends]
    assert not moved[0].equal(moved[1])
    assert float(torch.cosine_similarity(*moved, dim=0)) > 0.5


@pytest.mark.slow
def test_two_processes_count_the_unreadable_pictures_of_both(together: Together) -> None:
    assert together.process.returncode == 0, together.process.stderr
    assert read_history(together.folder).unreadable == tuple(sorted(together.unreadable))


@pytest.mark.slow
def test_two_processes_do_not_wait_for_each_other_where_a_picture_is_missing(tmp_path: Path) -> None:
    """With two pictures per process and step, one that cannot be read leaves one."""
    names = damaged(tmp_path / "data", 1)
    done = in_two_processes(shell(tmp_path / "data", tmp_path / "run", "--batch", "4", "--epochs", "2"), 40)
    assert done.returncode == 0, done.stderr
    assert read_history(tmp_path / "run").unreadable == tuple(names)


# 11. The user's own state.


def _surroundings() -> dict[str, Any]:
    cudnn = torch.backends.cudnn
    return {
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "cudnn": (cudnn.deterministic, cudnn.benchmark, cudnn.enabled),
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "type": torch.get_default_dtype(),
    }


@pytest.mark.parametrize("deterministic", [False, True])
def test_training_leaves_the_users_state_alone(
    deterministic: bool, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", deterministic)
    before = _surroundings()
    train(asked(digits, tmp_path / "whole", epochs=1, workers=1))
    assert _surroundings() == before
    begun(asked(digits, tmp_path / "stopped"), 1)
    with pytest.raises(TrainingError):
        train(asked(digits, tmp_path / "nan", rate=1e6))
    assert _surroundings() == before


def test_writing_a_card_leaves_the_users_state_alone(finished: tuple[Path, Path], copied: Path) -> None:
    run = asked(finished[1], copied, seed=3)
    before = _surroundings()
    write_card(run, read_history(copied), load("lenet5", weights=copied))
    assert _surroundings() == before
