"""Time and measure `stylize`: a large picture in tiles, in a fresh process, beside the bare network.

    make bench        or        python benchmarks/stylizing.py [--width 4000] [--height 3000] [--channels 32]

Time per megapixel, its ratio to the bare network on pieces of 512 x 512 pixels in the same run, the peak of memory, and
how much neighbours differ across the borders of tiles and elsewhere. Time is the processor's own, so that other work on
the machine does not count.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from convscope import stylize
from convscope.data.samples import photographs
from convscope.stylizing.network import KIND, StyleNet
from convscope.stylizing.tiles import paint
from convscope.zoo.runs import metadata

_PIECE = 512


def picture(width: int, height: int) -> np.ndarray:
    """Enlarge a photograph and add grain, (h, w, 3) in bytes."""
    from PIL import Image

    image = Image.open(photographs()[0]).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).integers(-20, 20, (height, width, 1), dtype=np.int16)
    return (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)


def measure(width: int, height: int, channels: int, tile: int, style: Path | None) -> str:
    """Paint once and say how long it took, how much memory, and what is seen at the borders of tiles."""
    net = StyleNet(channels).eval().requires_grad_(False)
    told = {"network": KIND, "width": channels, "blocks": 5}
    pixels = picture(width, height)
    with tempfile.TemporaryDirectory() as folder:
        if style is None:
            style = Path(folder) / "random.safetensors"
            save_file(net.state_dict(), style, metadata=metadata(told))
        bare = time_bare(net)
        start = time.process_time()
        values = stylize(pixels, style, tile=tile).values
        each = (time.process_time() - start) / (width * height / 1e6)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    side = tile // 4 * 4
    count = -(-height // side)
    borders = [i * height // count for i in range(1, count)]
    steps = values.diff(dim=1).abs().mean((0, 2))
    across = steps[[border - 1 for border in borders]].mean() if borders else torch.nan
    return (
        f"{width} x {height}, {channels} channels, tiles of {tile}: {each:.2f} s per megapixel, {each / bare:.2f} of "
        f"the bare network; peak {peak:.2f} GiB; neighbours differ by {across:.4f} across borders of tiles, by "
        f"{steps.mean():.4f} on average"
    )


def time_bare(net: StyleNet) -> float:
    """Return seconds per megapixel of the network alone, painting pieces one by one."""
    piece = torch.rand(1, 3, _PIECE, _PIECE)
    paint(net, piece, tile=_PIECE)
    start = time.process_time()
    for _ in range(4):
        paint(net, piece, tile=_PIECE)
    return (time.process_time() - start) / 4 / (_PIECE**2 / 1e6)


def main() -> None:
    """Measure small and large tiles, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--style", type=Path)
    asked = parser.parse_args()
    if asked.tile:
        print(measure(asked.width, asked.height, asked.channels, asked.tile, asked.style))
        return
    for tile in (512, 1024):
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--tile", str(tile)], check=True)


if __name__ == "__main__":
    main()
