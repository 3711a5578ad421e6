"""Scans that end before they are done: `python ended_scans.py FOLDER SEED COUNT`.

It prints what came of them as JSON; of a full disk only where it may mount one, as under `unshare -rm`. Processes are
forked, so that each costs a scan and no import of torch.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import convscope
from convscope.atlas.scanning import scan
from convscope.errors import ConvscopeError

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.link", "os.chmod", "shutil.move"}


def written(atlas: Path) -> dict[str, bytes]:
    """Everything in an atlas; where the pictures lie and who has it are no part of it."""
    return {str(path.relative_to(atlas)): path.read_bytes() for path in atlas.rglob("*") if path.is_file()}


def in_child(work: Callable[[], object]) -> int:
    """Do something in a forked process; return how that ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except ConvscopeError as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(2)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count_changes(atlas: Path, then: Callable[[int], None]) -> None:
    """Call a function with the number of each event that reaches a file of the atlas, before it happens."""
    number = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal number
        if event in CHANGES and str(atlas) in str(arguments[0]):
            number += 1
            then(number)

    sys.addaudithook(hook)


def kills(folder: Path, run: Callable[[Path], object], seed: int, count: int) -> dict[str, object]:
    """Kill scans where they touch a file, drawn at random, some of them twice, and let them go on."""
    whole, seen = folder / "whole", folder / "seen"

    def counted() -> None:
        numbers: list[int] = []
        count_changes(whole, numbers.append)
        run(whole)
        seen.write_text(str(len(numbers)))

    assert in_child(counted) == 0
    expected, points = written(whole), int(seen.read_text())
    draw = random.Random(seed)
    killed, differing = 0, []
    for number in range(count):
        atlas = folder / f"atlas{number}"
        for _ in range(draw.choice((1, 1, 2))):
            at = draw.randint(1, points)

            def dying(atlas: Path = atlas, at: int = at) -> None:
                count_changes(atlas, lambda seen: os.kill(os.getpid(), signal.SIGKILL) if seen == at else None)
                run(atlas)

            killed += in_child(dying) == -signal.SIGKILL
        assert in_child(lambda atlas=atlas: run(atlas)) == 0
        if written(atlas) != expected:
            differing.append(number)
    return {"points": points, "killed": killed, "differing": differing}


def disk(whole: Path, atlas: Path, run: Callable[[Path], object]) -> dict[str, object] | None:
    """Scan into a file system that is too small, then into the same when it has become larger."""
    atlas.mkdir()
    size = sum(map(len, written(whole).values()))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", str(atlas)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        return None
    ended = in_child(lambda: run(atlas))
    there = written(atlas)
    kept = sum(name.endswith(".safetensors") for name in there)
    left = [name for name in there if "/.convscope-" in f"/{name}"]
    subprocess.run(["mount", "-o", "remount,size=64m", str(atlas)], check=True)
    assert in_child(lambda: run(atlas)) == 0
    return {"ended": ended, "kept": kept, "left": left, "same": written(atlas) == written(whole)}


def main(folder: Path, seed: int, count: int) -> None:
    """Make pictures and a network, and try."""
    torch.set_num_threads(1)
    net, numbers = convscope.load("lenet5"), np.random.default_rng(0)
    for index in range(14):
        made = folder / "data" / "ab"[index % 2] / f"{index:02d}.png"
        made.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(numbers.integers(0, 256, (28, 28), dtype=np.uint8)).save(made)

    def run(atlas: Path) -> object:
        return scan(net, folder / "data", atlas, layers=["conv1", "output"], k=2, shard=4, sample=10)

    run(folder / "first")  # what only the first in a process takes time for, every child has then
    whole = folder / "whole"
    print(json.dumps(kills(folder, run, seed, count) | {"disk": disk(whole, folder / "small", run)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
