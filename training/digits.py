"""Write the digits that lenet5 learns from as a class-per-folder tree of PNG files.

    python training/digits.py --mnist FOLDER_WITH_IDX_FILES -o digits

reads MNIST's test files (10,000 digits) and scikit-learn's `load_digits` (1,797 digits of UCI, 8x8, enlarged), and
writes `train` (8,000 of MNIST, 1,400 of UCI), `val` (2,000 of MNIST) and `uci` (397 of UCI, held out too).
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Digits = tuple[Tensor, Tensor]


def read_mnist(folder: Path) -> Digits:
    """Read MNIST's test files in IDX format: digits (10000, 1, 28, 28) in [0, 1] and labels."""
    contents = [
        gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes()) for name in ("images-idx3", "labels-idx1")
    ]
    images = np.frombuffer(contents[0], np.uint8, offset=16)
    labels = np.frombuffer(contents[1], np.uint8, offset=8)
    return torch.tensor(images.reshape(-1, 1, 28, 28) / 255, dtype=torch.float32), torch.tensor(labels.astype(int))


def read_uci() -> Digits:
    """Enlarge scikit-learn's 8x8 digits to 24x24 within 28x28, in [0, 1]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit("this needs scikit-learn: pip install 'convscope[train]'") from None
    data = load_digits()
    small = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    large = F.interpolate(small, size=(24, 24), mode="bicubic", align_corners=False).clamp(0, 1)
    return F.pad(large, (2, 2, 2, 2)), torch.tensor(data.target, dtype=torch.long)


def split(digits: Digits, held_out: int, generator: torch.Generator) -> tuple[Digits, Digits]:
    """Split digits at random into those to learn from and those held out."""
    order = torch.randperm(len(digits[1]), generator=generator)
    learn, hold = order[:-held_out], order[-held_out:]
    return (digits[0][learn], digits[1][learn]), (digits[0][hold], digits[1][hold])


def save(folder: Path, digits: Digits, prefix: str) -> None:
    """Write every digit into its class's folder."""
    for index, (values, label) in enumerate(zip(*digits, strict=True)):
        path = folder / str(int(label)) / f"{prefix}-{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((values[0] * 255).round().byte().numpy()).save(path)


def main() -> None:
    """Read, split and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True, help="folder with t10k-*-ubyte.gz")
    parser.add_argument("-o", "--out", type=Path, default=Path("digits"))
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    mnist, mnist_held = split(read_mnist(options.mnist), 2000, generator)
    uci, uci_held = split(read_uci(), 397, generator)
    save(options.out / "train", mnist, "mnist")
    save(options.out / "train", uci, "uci")
    save(options.out / "val", mnist_held, "mnist")
    save(options.out / "uci", uci_held, "uci")


if __name__ == "__main__":
    main()
