"""Time occlusion against captum's at its best batch size, and compare peak memory, each in a process of its own.

    python benchmarks/occlusion.py [--threads 2] [--nets alexnet,vgg16] [--patch 32 --stride 8]

224 x 224 pixels, random weights, one class. captum's batch size (`perturbations_per_eval`) is the best of several on
every eighth position; with it captum then covers all positions. "full" is a bare loop over batches of covered pictures.
Peak memory is the process's largest resident size less what it was before the method ran.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from convscope import Net, as_objective, load
from convscope.attribution.occlusion import occlusion
from convscope.incremental.occlusions import Occluder

NETS = ("alexnet", "squeezenet1_0", "resnet18", "googlenet", "vgg16")
SIDE = 224
CLASS = 281


def network(name: str) -> Net:
    """Build a network whose random weights let the signal through."""
    net = load(f"torchvision:{name}", weights=None)
    torch.manual_seed(0)
    for module in net.body.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return net


def ours(net: Net, pixels: torch.Tensor, patch: int, stride: int) -> torch.Tensor:
    return occlusion(net, pixels, as_objective(net, CLASS), patch=patch, stride=stride, baseline="grey")


def captum(net: Net, pixels: torch.Tensor, patch: int, stride: int, batch: int) -> torch.Tensor:
    from captum.attr import Occlusion

    with torch.no_grad():
        return Occlusion(net).attribute(
            pixels,
            sliding_window_shapes=(3, patch, patch),
            strides=(3, stride, stride),
            baselines=torch.full_like(pixels, 0.5),
            target=CLASS,
            perturbations_per_eval=batch,
        )


def full(net: Net, pixels: torch.Tensor, patch: int, stride: int, batch: int) -> None:
    squares = Occluder(SIDE, SIDE, patch, stride)
    count = squares.grid[0] * squares.grid[1]
    with torch.inference_mode():
        for start in range(0, count, batch):
            numbers = range(start, min(start + batch, count))
            covered = pixels.repeat(len(numbers), 1, 1, 1)
            for picture, number in zip(covered, numbers, strict=True):
                picture[:, *squares.box(number)] = 0.5
            net(covered)[:, CLASS]


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def one(contender: str, name: str, patch: int, stride: int, batch: int, threads: int) -> dict[str, float]:
    """Run one contender in this process."""
    torch.set_num_threads(threads)
    net = network(name)
    pixels = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    runs: dict[str, Callable[[int], object]] = {
        "convscope": lambda step: ours(net, pixels, patch, step),
        "captum": lambda step: captum(net, pixels, patch, step, batch),
        "full": lambda step: full(net, pixels, patch, step, batch),
    }
    with torch.inference_mode():
        net(pixels)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = timed(lambda: runs[contender](stride))
    return {"seconds": seconds, "MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def apart(*arguments: object) -> dict[str, float]:
    """Run one contender in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, patch: int, stride: int, batches: list[int], threads: int) -> None:
    # Every eighth position is every position of a wider stride.
    wide = round(stride * 8**0.5)
    batch = batches[0]
    if len(batches) > 1:
        batch = min(batches, key=lambda b: apart("captum", name, patch, wide, b, threads)["seconds"])
    peer = apart("captum", name, patch, stride, batch, threads)
    mine = apart("convscope", name, patch, stride, batch, threads)
    loop = apart("full", name, patch, stride, batch, threads)
    print(
        f"| {name} | {patch} / {stride} | {peer['seconds']:.1f} ({batch}) | {loop['seconds']:.1f} "
        f"| {mine['seconds']:.1f} | {peer['seconds'] / mine['seconds']:.2f} | {loop['seconds'] / mine['seconds']:.2f} "
        f"| {peer['MB']:.0f} | {loop['MB']:.0f} | {mine['MB']:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--patch", type=int, default=32)
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--batches", default="4,8,16,32", help="captum's batch sizes, of which the best counts")
    parser.add_argument("--one", nargs=6, metavar=("CONTENDER", "NET", "PATCH", "STRIDE", "BATCH", "THREADS"))
    given = parser.parse_args()
    if given.one:
        contender, name, *numbers = given.one
        print(json.dumps(one(contender, name, *map(int, numbers))))
        return
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, torch {torch.__version__}")
    heads = ("network", "patch / stride", "captum, s (batch)", "full, s", "convscope, s", "captum / convscope")
    heads += ("full / convscope", "captum, MB", "full, MB", "convscope, MB")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in given.nets.split(","):
        compare(name, given.patch, given.stride, [int(batch) for batch in given.batches.split(",")], given.threads)


if __name__ == "__main__":
    main()
