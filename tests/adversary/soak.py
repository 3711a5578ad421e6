"""A soak: thousands of explanations by all methods, of several networks, at changing sizes; does anything grow?

`python tests/adversary/soak.py 10000` prints memory, open files and threads at intervals, and what caches hold. It ends
with 1 where the last fifth has more memory than the second by over 5 %, or more files or threads.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import sys
import threading
import time
from pathlib import Path
from statistics import median

# oneDNN keeps up to 1,024 kernels, one for each shape, and torch as many: what it keeps is not what grows here.
os.environ |= {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "1", "LRU_CACHE_CAPACITY": "1"}

import torch
from torch import nn

import convscope
from convscope import Net, sharing
from convscope.registry import METHODS, load_all

_OPTIONS = {
    "extremal": {"steps": 2}, "rise": {"masks": 10, "batch": 10}, "occlusion": {"patch": 8, "stride": 8},
    "smooth_grad": {"samples": 2}, "integrated_gradients": {"steps": 2},
}  # fmt: skip
_FRESH = 20
"""Every so many explanations the network is wrapped anew, as a service does that loads one for each request."""
_DRAWN = 25
"""Every so many explanations one is drawn, with words that no other has."""


def networks() -> list[Net]:
    """Return four networks: plain, with batch norm and shared rectifier, with strides, and one that ships."""
    plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())
    normed = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3), nn.ReLU())
    strided = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU())
    ends = [
        nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)) for body in (plain, normed, strided)
    ]
    return [*(Net(body.train(), size=32) for body in ends), convscope.load("lenet5")]


def resident() -> float:
    """Return the process's memory in MiB, without what the C library keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    """Explain so many times, print how much there is of everything, and say whether it grew."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    torch.set_num_threads(1)
    load_all()
    nets, draw, rows, began, refused = networks(), random.Random(0), list[tuple[float, int, int]](), time.monotonic(), 0
    names = sorted(METHODS)
    for number in range(1, count + 1):
        at = draw.randrange(len(nets))
        net, name, side = nets[at], names[number % len(names)], draw.randrange(24, 57)
        if number % _FRESH == 0:
            nets[at] = net = net.changed(name=f"net {number}") if draw.random() < 0.5 else net.sized(net.size)
        try:
            drawing = convscope.explain(
                net, torch.rand(net.channels, side, side), name, draw.randrange(5), **_OPTIONS.get(name, {})
            )
            if number % _DRAWN == 0:
                drawing.render()
        except convscope.ConvscopeError:  # LeNet reads one size, and has no rectifiers
            refused += 1
        if number % max(1, count // 20) == 0:
            rows.append((resident(), sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count()))
            kept = sum(len(each._behaviours) for each in nets)
            print(
                f"{number:6} explanations  {rows[-1][0]:7.1f} MiB  {rows[-1][1]} files  {rows[-1][2]} threads  "
                f"{kept} behaviours  {len(sharing._holds)} held  {time.monotonic() - began:.0f} s",
                flush=True,
            )
    early, late = rows[len(rows) // 5 : 2 * len(rows) // 5], rows[-len(rows) // 5 :]
    memory = [median(row[0] for row in part) for part in (early, late)]
    grew = memory[1] > 1.05 * memory[0] or max(row[1:] for row in late) > max(row[1:] for row in early)
    print(f"{count} explanations, {refused} of them refusals: {memory[0]:.1f} to {memory[1]:.1f} MiB; grew: {grew}")
    return int(grew)


if __name__ == "__main__":
    sys.exit(main())
