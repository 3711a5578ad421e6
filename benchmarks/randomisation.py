"""Test of every registered method whether its maps depend on the weights (Adebayo et al. 2018), as a table.

    python benchmarks/randomisation.py PICTURE... [--weights squeezenet1_0.safetensors] [--stages 4] [--slow 4]

The network is SqueezeNet where its weights are given, else zfnet64 at 128 pixels. The objective is the network's first
choice for each picture. Layers lose their weights from the output down, in as many stages; a method that takes longer
than `--slow` seconds a map is asked about the first picture only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from convscope import explain, load
from convscope.checks import Cascade, cascade
from convscope.commands.progress import progress
from convscope.errors import ConvscopeError
from convscope.registry import METHODS, load_all


def row(name: str, found: list[Cascade]) -> str:
    """Write one line: the score, and the signed rank correlation after each stage, means over pictures."""
    stages = [statistics.mean(one.signed[i] for one in found) for i in range(len(found[0].signed))]
    ssim = statistics.mean(one.ssim[-1] for one in found)
    score = statistics.mean(one.score for one in found)
    signed = " ".join(f"{value:.2f}" for value in stages)
    return f"| `{name}` | {score:.2f} | {signed} | {ssim:.2f} | {len(found)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--slow", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    net = load("torchvision:squeezenet1_0", weights=given.weights) if given.weights else load("zfnet64").sized(128)
    load_all()
    lines: list[tuple[float, str]] = []
    with progress():
        for name in METHODS:
            found: list[Cascade] = []
            for picture in given.pictures:
                start = time.perf_counter()
                try:
                    heatmap = explain(net, picture, name)
                except ConvscopeError as error:
                    print(f"{name} is left out: {error}")
                    break
                slow = time.perf_counter() - start > given.slow
                found.append(cascade(net, heatmap, stages=given.stages))
                if slow:
                    break
            if found:
                lines.append((statistics.mean(one.score for one in found), row(name, found)))
    print("| method | score | signed rank correlation, by stage | SSIM, all random | pictures |\n|---|---|---|---|---|")
    print("\n".join(line for _, line in sorted(lines)))


if __name__ == "__main__":
    main()
