"""Measure the peak memory of a large dream, and whether the borders of its tiles can be seen.

    python benchmarks/dreaming.py [--net torchvision:squeezenet1_0 --weights FILE] [--size 4000x3000] [--tiles 192,256]

Memory is the largest resident size of a fresh process that dreams of an enlarged photograph, a few steps in all. Seams
are the mean absolute difference of neighbouring pixels across the borders of tiles over that everywhere else, of what
was added to the picture: with jitter, and without, where borders never move.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from PIL import Image
from skimage.data import chelsea

from convscope import Net, load
from convscope.synthesis.dream import dream
from convscope.synthesis.tiling import TiledGradient


def photograph(width: int, height: int) -> Image.Image:
    """Enlarge the largest part of a photograph that has the aspect asked for."""
    whole = Image.fromarray(chelsea())
    ratio = min(whole.width / width, whole.height / height)
    return whole.resize((width, height), Image.Resampling.BICUBIC, box=(0, 0, width * ratio, height * ratio))


def memory(net: Net, width: int, height: int, tile: int, steps: int) -> dict[str, float]:
    """Dream once; return the resident size before and its peak in GiB, and the seconds that it took."""
    picture = photograph(width, height)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    dream(net, picture, tile=tile, steps=steps)
    seconds = time.perf_counter() - start
    return {"before": before, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "seconds": seconds}


def seams(net: Net, width: int, height: int, tile: int, jitter: int) -> dict[str, float]:
    """Dream once at one octave; return how much the added jumps at borders, over how much it does elsewhere."""
    picture = photograph(width, height)
    made = dream(net, picture, tile=tile, jitter=jitter, octaves=1).numbers()["picture"]
    added = made - np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 255
    cuts = list(TiledGradient(tile).cuts(height, width))
    across, elsewhere = [], []
    for axis in (1, 2):
        jumps = np.moveaxis(np.abs(np.diff(added, axis=axis)).mean(0), axis - 1, 0)
        edges = sorted({cut[axis - 1].start - 1 for cut in cuts} - {-1})
        across.append(jumps[edges].ravel())
        elsewhere.append(np.delete(jumps, edges, 0).ravel())
    return {
        "tile": tile,
        "jitter": jitter,
        "ratio": float(np.concatenate(across).mean() / np.concatenate(elsewhere).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="zfnet64")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--size", default="4000x3000")
    parser.add_argument("--tile", type=int, default=384)
    parser.add_argument("--tiles", default="192,256,384")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", action="store_true", help="only the memory, in this process")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    net = load(given.net, weights=given.weights)
    width, height = map(int, given.size.split("x"))
    if given.one:
        print(json.dumps(memory(net, width, height, given.tile, given.steps)))
        return
    fresh = subprocess.run([sys.executable, *sys.argv, "--one"], capture_output=True, text=True, check=True)
    print(f"{given.size}, tiles of {given.tile}: {fresh.stdout.strip()}")
    for tile in map(int, given.tiles.split(",")):
        for jitter in (0, 32):
            print(json.dumps(seams(net, 900, 600, tile, jitter)))


if __name__ == "__main__":
    main()
