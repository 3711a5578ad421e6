"""Time a scan: pictures a second against a bare loop over the same pictures, and memory over ten times as many.

    python benchmarks/scan.py [--pictures FOLDER] [--count 512] [--rounds 3] [--memory]

SqueezeNet 1.0 with all its convolutions at 224 pixels, and zfnet64 at 64. The bare loop decodes in the same threads and
runs the network in batches of the same size, channels last in memory, and keeps nothing; for `effect` it goes back
to the pixels from the largest score. Contenders run in turn; a figure is the quickest of all rounds.
`--memory` scans the pictures once and ten times over, each in a process of its own, and compares the largest resident
sizes. Without `--pictures` it runs on noise saved as JPEG.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from many import noise
from torchvision.models import squeezenet1_0

import convscope
from convscope.atlas.scanning import scan
from convscope.data.folders import SUFFIXES, find_files
from convscope.data.loading import read_ahead
from convscope.data.pictures import read_pictures

BATCH = 8


def networks() -> dict[str, convscope.Net]:
    """Return the networks, by name."""
    return {
        "squeezenet1_0": convscope.Net(squeezenet1_0(weights=None), name="squeezenet1_0"),
        "zfnet64": convscope.load("zfnet64"),
    }


def bare(net: convscope.Net, paths: list[str], *, back: bool = False) -> None:
    """Decode and run, and keep nothing."""
    waiting: list[torch.Tensor] = []
    with net.held():
        for item in read_ahead(read_pictures(paths), lambda content: net.prepare(content).pixels):
            waiting.append(torch.from_numpy(item.value))
            if len(waiting) < BATCH:
                continue
            pixels = torch.stack(waiting).contiguous(memory_format=torch.channels_last)
            waiting = []
            with torch.set_grad_enabled(back), torch.inference_mode(not back):
                if back:
                    pixels.requires_grad_()
                    torch.autograd.grad(net(pixels).amax(1).sum(), pixels)
                else:
                    net(pixels)


def scanned(net: convscope.Net, paths: list[str], statistics: str, *, effect: bool = False) -> None:
    """Scan into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        scan(net, paths, folder, statistics=statistics, effect=effect, batch_size=BATCH)  # type: ignore[arg-type]


def seconds(contender: Callable[[], None]) -> float:
    start = time.perf_counter()
    contender()
    return time.perf_counter() - start


def speed(paths: list[str], rounds: int) -> None:
    """Print pictures a second and ratios for both networks."""
    for name, net in networks().items():
        contenders: dict[str, Callable[[], None]] = {
            "bare": lambda net=net: bare(net, paths),
            "basic": lambda net=net: scanned(net, paths, "basic"),
            "full": lambda net=net: scanned(net, paths, "full"),
            "bare, there and back": lambda net=net: bare(net, paths, back=True),
            "effect": lambda net=net: scanned(net, paths, "basic", effect=True),
        }
        bare(net, paths[: 4 * BATCH])
        best = dict.fromkeys(contenders, float("inf"))
        for _ in range(rounds):
            for title, contender in contenders.items():
                best[title] = min(best[title], seconds(contender))
        for title, taken in best.items():
            against = best["bare, there and back" if title in ("bare, there and back", "effect") else "bare"]
            print(f"{name:14} {title:22} {len(paths) / taken:8.1f} pictures/s  {against / taken:.2f}")


def memory(folder: Path) -> None:
    """Print the largest resident size of a scan, and of one of ten times as many pictures."""
    for times in (1, 10):
        command = [sys.executable, __file__, "--pictures", str(folder), "--once", str(times)]
        print(f"{times:3} x: {subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--once", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = chosen.pictures or Path(made)
        paths = [
            str(path) for path in (find_files(folder, SUFFIXES) if chosen.pictures else noise(folder, chosen.count))
        ]
        paths = paths[: chosen.count]
        if chosen.once:
            scanned(networks()["zfnet64"], paths * chosen.once, "full")
            print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
        elif chosen.memory:
            memory(folder)
        else:
            speed(paths, chosen.rounds)


if __name__ == "__main__":
    main()
