"""How much memory reading a large picture takes, for each kind of file, in bytes per pixel and channel.

    python benchmarks/reading.py [SRC OF ANOTHER VERSION] [--side 3000]

Each picture is read in a process of its own, from the file to a network's input; what counts is the peak of resident
memory beyond that of a small picture of the same kind, as Linux counts it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

HERE = Path(__file__).parents[1] / "src"
SMALL = 200
READ = """
import re, sys
from pathlib import Path
from convscope.data.images import prepare
from convscope.data.preprocessing import Preprocessing, fit_of
prepare(sys.argv[1], Preprocessing(fit_of(224, 256, "bilinear", "cover"), 3))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))
"""
# What the file holds: a type and a number of channels.
KINDS = {
    "PNG grey": ("png", "uint8", 1), "PNG RGB": ("png", "uint8", 3), "PNG RGBA": ("png", "uint8", 4),
    "PNG 16-bit grey": ("png", "uint16", 1), "JPEG grey": ("jpg", "uint8", 1), "JPEG RGB": ("jpg", "uint8", 3),
    "WebP RGB": ("webp", "uint8", 3), "GIF grey": ("gif", "uint8", 1), "TIFF RGB": ("tif", "uint8", 3),
    "TIFF 16-bit grey": ("tif", "uint16", 1), "TIFF 16-bit RGB": ("tif", "uint16", 3),
    "TIFF float32 grey": ("tif", "float32", 1), "TIFF float64 grey": ("tif", "float64", 1),
    ".npy uint8 RGB": ("npy", "uint8", 3), ".npy uint16 grey": ("npy", "uint16", 1),
    ".npy float64 grey": ("npy", "float64", 1),
}  # fmt: skip


def write(kind: str, side: int, folder: Path) -> Path:
    """Write a square picture of slanted stripes."""
    ending, dtype, channels = KINDS[kind]
    most = 1 if dtype.startswith("float") else np.iinfo(dtype).max
    rows, columns, bands = np.ogrid[:side, :side, :channels]
    values = ((rows + columns * (bands + 1)) % 97 * (most / 97)).astype(dtype)
    values = values[..., 0] if channels == 1 else values
    path = folder / f"{side}.{ending}"
    match ending:
        case "npy":
            np.save(path, values)
        case "tif":
            tifffile.imwrite(path, values, photometric="minisblack" if channels == 1 else "rgb", rowsperstrip=64)
        case _:
            Image.fromarray(values).save(path)
    return path


def peak(path: Path, source: Path) -> int:
    """Return the most memory that a process had which read this picture, in bytes."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "CONVSCOPE_MAX_PIXELS": "1e10"}
    command = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("before", nargs="?", type=Path)
    parser.add_argument("--side", type=int, default=3000)
    options = parser.parse_args()
    sources = [*([options.before] if options.before else []), HERE]
    print("| kind | before | now |\n|---|--:|--:|" if options.before else "| kind | now |\n|---|--:|")
    for kind, (_, _, channels) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            small, large = (write(kind, side, Path(folder)) for side in (SMALL, options.side))
            taken = [(peak(large, source) - peak(small, source)) / options.side**2 / channels for source in sources]
        print(f"| {kind} | {' | '.join(f'{each:.1f}' for each in taken)} |", flush=True)


if __name__ == "__main__":
    main()
