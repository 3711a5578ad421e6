"""Memory and time of RISE as the number of masks grows, each in a fresh process; beside it all masks made at once.

    python benchmarks/rise.py [--masks 400 4000] [--side 64]

Memory is the peak resident set beyond that of the process before it began.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

CODE = """
import json, resource, sys, time
import torch
from convscope import ask, load
from convscope.methods.rise import Masks, rise
from convscope.context import listen

way, masks, side = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
net = load("zfnet64")
pixels = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
objective = ask(net, 1)
rise(net, pixels, objective, masks=64)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, began = peak(), time.perf_counter()
with listen() as remarks:
    if way == "lazy":
        rise(net, pixels, objective, masks=masks)
    else:
        shown = Masks((side, side), 7, 0.5, 0, pixels)[0:masks]
        with torch.inference_mode():
            scores = torch.cat([objective(net, part[:, None] * pixels) for part in shown.split(64)])
        (scores @ shown.flatten(1)).view(side, side)
print(json.dumps([peak() - before, time.perf_counter() - began, remarks]))
"""


def measure(way: str, masks: int, side: int) -> tuple[float, float, list[str]]:
    """Return MiB, seconds and remarks of one run in a process of its own."""
    command = [sys.executable, "-c", CODE, way, str(masks), str(side)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, nargs="+", default=[400, 4000])
    parser.add_argument("--side", type=int, default=64)
    options = parser.parse_args()
    for way, name in (("lazy", "rise"), ("whole", "all masks at once")):
        for masks in options.masks:
            memory, seconds, remarks = measure(way, masks, options.side)
            said = f"; {remarks[1]}" if remarks else ""
            print(f"{name:18} {masks:6} masks: {memory:7.1f} MiB more, {seconds:6.1f} s{said}", flush=True)


if __name__ == "__main__":
    main()
