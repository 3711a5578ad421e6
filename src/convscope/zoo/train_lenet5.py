"""Train the LeNet-5 that ships with convscope, and draw its sample digits.

    python -m convscope.zoo.train_lenet5 --mnist FOLDER_WITH_IDX_FILES

reads MNIST's test files (10,000 digits; 2,000 of them held out) and scikit-learn's `load_digits` (1,797 digits of UCI,
8x8, enlarged; 397 held out), trains for a few minutes on a CPU, and writes `lenet5.safetensors` and
`digits/0.png` ... `9.png` beside this file. The samples are UCI digits that the network has not seen.
"""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from .lenet import MEAN, STD, lenet5

HERE = Path(__file__).parent
Digits = tuple[Tensor, Tensor]


def read_mnist(folder: Path) -> Digits:
    """Read MNIST's test files in IDX format: digits (10000, 1, 28, 28) in [0, 1] and labels."""
    contents = [
        gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes()) for name in ("images-idx3", "labels-idx1")
    ]
    images = np.frombuffer(contents[0], np.uint8, offset=16)
    labels = np.frombuffer(contents[1], np.uint8, offset=8)
    return torch.tensor(images.reshape(-1, 1, 28, 28) / 255, dtype=torch.float32), torch.tensor(
        labels, dtype=torch.long
    )


def read_uci() -> Digits:
    """Enlarge scikit-learn's 8x8 digits to 24x24 within 28x28, in [0, 1]."""
    try:
        from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SystemExit("training lenet5 needs scikit-learn: pip install 'convscope[train]'") from None

    data: Any = load_digits()
    small = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    large = F.interpolate(small, size=(24, 24), mode="bicubic", align_corners=False).clamp(0, 1)
    return F.pad(large, (2, 2, 2, 2)), torch.tensor(data.target, dtype=torch.long)


def split(digits: Digits, held_out: int, generator: torch.Generator) -> tuple[Digits, Digits]:
    """Split digits at random into those to learn from and those held out."""
    order = torch.randperm(len(digits[1]), generator=generator)
    learn, hold = order[:-held_out], order[-held_out:]
    return (digits[0][learn], digits[1][learn]), (digits[0][hold], digits[1][hold])


def shake(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, scale, slant and shift every digit a little."""
    n = len(x)

    def draw(low: float, high: float) -> Tensor:
        return torch.empty(n).uniform_(low, high, generator=generator)

    angle, scale, slant = draw(-0.2, 0.2), draw(0.85, 1.2), draw(-0.2, 0.2)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack([cos, -sin + slant, draw(-0.15, 0.15), sin, cos, draw(-0.15, 0.15)], 1).view(n, 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def accuracy(body: nn.Module, digits: Digits) -> float:
    """Return the share of digits that are named right."""
    body.eval()
    with torch.inference_mode():
        return float((body((digits[0] - MEAN) / STD).argmax(1) == digits[1]).float().mean())


def train(learn: Digits, *, epochs: int, seed: int) -> nn.Module:
    """Train with AdamW and a one-cycle rate on shaken digits."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    body, size = lenet5(), 128
    optimiser = torch.optim.AdamW(body.parameters(), weight_decay=1e-3)
    steps = -(-len(learn[1]) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=epochs * steps)
    loss = torch.zeros(())
    for epoch in range(epochs):
        body.train()
        for index in torch.randperm(len(learn[1]), generator=generator).split(size):
            loss = F.cross_entropy(body((shake(learn[0][index], generator) - MEAN) / STD), learn[1][index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{epochs}  loss {loss.item():.4f}", flush=True)
    return body


def draw_samples(body: nn.Module, digits: Digits) -> None:
    """Write one held-out digit of each class: the median one in confidence among those named right."""
    (HERE / "digits").mkdir(exist_ok=True)
    with torch.inference_mode():
        p = body((digits[0] - MEAN) / STD).softmax(1)
    for digit in range(10):
        own = ((digits[1] == digit) & (p.argmax(1) == digit)).nonzero()[:, 0]
        chosen = own[p[own, digit].argsort()[len(own) // 2]]
        values = (digits[0][chosen, 0] * 255).round().byte().numpy()
        Image.fromarray(values).save(HERE / "digits" / f"{digit}.png")


def main() -> None:
    """Train, test and write the network and its sample digits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mnist", type=Path, required=True, help="folder with t10k-images-idx3-ubyte.gz and its labels"
    )
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start, generator = time.time(), torch.Generator().manual_seed(options.seed)
    mnist, mnist_held = split(read_mnist(options.mnist), 2000, generator)
    uci, uci_held = split(read_uci(), 397, generator)
    learn = torch.cat([mnist[0], uci[0], uci[0]]), torch.cat([mnist[1], uci[1], uci[1]])
    body = train(learn, epochs=options.epochs, seed=options.seed)
    scores = f"MNIST {accuracy(body, mnist_held):.4f}, UCI {accuracy(body, uci_held):.4f}"
    print(f"held-out accuracy: {scores}; {(time.time() - start) / 60:.1f} minutes")
    save_file(body.state_dict(), HERE / "lenet5.safetensors", metadata={"held-out accuracy": scores})
    draw_samples(body, uci_held)


if __name__ == "__main__":
    main()
