"""Trained networks with their pictures, of which `faults.py` makes copies with faults."""

from __future__ import annotations

import copy
import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import Net, load

TESTS = Path(__file__).parent.parent / "tests"


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures in memory (n, c, h, w), of 8 bits, with their classes: a data set as `diagnose` reads it."""

    pixels: Tensor
    targets: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        pixels = self.pixels[index].permute(1, 2, 0).numpy()
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), int(self.targets[index])

    @property
    def there(self) -> list[int]:
        """The classes of which there are pictures."""
        return sorted(set(self.targets.tolist()))

    def drawn(self, per_class: int, seed: int) -> Pictures:
        """Return so many of every class, drawn at random."""
        chance = np.random.default_rng(seed)
        members = [(self.targets == number).nonzero().flatten().numpy() for number in self.there]
        rows = torch.from_numpy(np.concatenate([chance.permutation(each)[:per_class] for each in members]))
        return Pictures(self.pixels[rows], self.targets[rows], self.classes)

    def labelled(self, targets: Tensor) -> Pictures:
        """Return the same pictures with other labels."""
        return Pictures(self.pixels, targets, self.classes)


def read(folder: Path, classes: Sequence[str] = (), count: int = 1000, chosen: int = 0) -> Pictures:
    """Read a folder of pictures with a folder for every class: so many of each, of the first classes that are chosen.

    `classes` are the folders in the order of the network's outputs, the sorted ones by default.
    """
    names = tuple(classes) or tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    names_read = names[: chosen or None]
    found = [(path, at) for at, name in enumerate(names_read) for path in sorted((folder / name).iterdir())[:count]]
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in found]))
    return Pictures(pixels.permute(0, 3, 1, 2).contiguous(), torch.tensor([number for _, number in found]), names)


@dataclass(frozen=True)
class Edited:
    """A middle layer by its modules' names: the convolution, what adds its bias, and the layer that alone reads it."""

    layer: str
    bias: str
    after: str


@dataclass
class Ground:
    """What faults are planted in: a trained network and its pictures, of one seed.

    `rate` is the learning rate of more training, `short` how many epochs of it a tenth of what a small network takes.
    """

    name: str
    seed: int
    trained: nn.Module
    learn: Pictures
    hold: Pictures
    options: dict[str, Any]
    edited: Edited
    first: str
    rate: float = 1e-3
    data: Pictures = field(init=False)
    seen: Pictures = field(init=False)

    def __post_init__(self) -> None:
        self.data, self.seen = self.hold.drawn(40, self.seed), self.learn.drawn(40, self.seed)

    @property
    def side(self) -> int:
        """Pixels of a picture's side."""
        return self.hold.pixels.shape[-1]

    def copy(self) -> Any:
        """Return the trained network, to be changed."""
        return copy.deepcopy(self.trained)

    def wrapped(self, body: nn.Module, **options: Any) -> Net:
        """Return a network that reads pictures as it was trained to, unless options say otherwise."""
        return Net(body, **(self.options | {"classes": self.hold.classes, "name": self.name} | options))

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return what the network is given for pixels of 8 bits."""
        mean, std = (
            torch.as_tensor(self.options[key], dtype=torch.float32).reshape(-1, 1, 1) for key in ("mean", "std")
        )
        return (pixels.float() / 255 - mean) / std

    def unit(self, count: int) -> tuple[int, ...]:
        """Draw units of the layer that is edited."""
        of = self.trained.get_submodule(self.edited.layer).weight.shape[0]
        return tuple(np.random.default_rng(self.seed).permutation(of)[:count].tolist())

    def fit(
        self,
        body: Any,
        data: Pictures,
        epochs: int,
        *,
        rate: float | None = None,
        augment: bool = False,
        batch: int = 64,
    ) -> Any:
        """Train a network on pictures, shifted and mirrored where `augment` says so, and return it."""
        generator = torch.Generator().manual_seed(self.seed)
        torch.manual_seed(self.seed)
        rate = rate or self.rate
        optimizer = torch.optim.AdamW(body.parameters(), rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * -(-len(data) // batch) + 1)
        body.train()
        for module in body.modules():  # the statistics of a few pictures are no good
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        for _ in range(epochs):
            for rows in torch.randperm(len(data), generator=generator).split(batch):
                pixels = self.normalised(data.pixels[rows])
                if augment:
                    pixels = _augmented(pixels, generator)
                loss = F.cross_entropy(body(pixels), data.targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        return body.eval()


def _augmented(pixels: Tensor, generator: torch.Generator) -> Tensor:
    side = pixels.shape[-1]
    mirrored = torch.rand(len(pixels), generator=generator) < 0.5
    pixels[mirrored] = pixels[mirrored].flip(3)
    y, x = torch.randint(0, 9, (2,), generator=generator).tolist()
    return F.pad(pixels, (4, 4, 4, 4), mode="reflect")[:, :, y : y + side, x : x + side]


# Networks -----------------------------------------------------------------------------------------------------------


def small(classes: int = 10, *, first: nn.Module | None = None, dropout: float = 0.0) -> nn.Sequential:
    """Build a small convolutional network for 32 x 32 pixels."""
    return nn.Sequential(
        *(first or nn.Conv2d(3, 24, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()),
        *(nn.Linear(64 * 16, 96), nn.ReLU(), nn.Dropout(dropout), nn.Linear(96, classes)),
    )


def _small(seed: int, data: Path, keep: Path | None, dropout: float = 0.0) -> Ground:
    name = "small-dropout" if dropout else "small"
    torch.manual_seed(seed)
    body = small(dropout=dropout)
    options = {"mean": 0.47, "std": 0.25, "size": 32, "head": "softmax"}
    learn, hold = read(data / "cifar" / "train"), read(data / "cifar" / "test")
    ground = Ground(name, seed, body, learn, hold, options, Edited("3", "3", "6"), "0", 2e-3)
    place = None if keep is None else keep / f"{name}-{seed}.safetensors"
    if place is not None and place.exists():
        body.load_state_dict(load_file(place))
        body.eval()
        return ground
    ground.fit(body, learn, 6, rate=2e-3, augment=True)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        save_file(body.state_dict(), place)
    return ground


def _lenet5(seed: int, data: Path, _: Path | None) -> Ground:
    net, (learn, hold) = load("lenet5"), _digits(data / "mnist")
    options = {"mean": net.mean, "std": net.std, "size": 28, "head": "softmax"}
    return Ground("lenet5", seed, net.body.eval(), learn, hold, options, Edited("conv2", "conv2", "conv3"), "conv1")


def _digits(folder: Path) -> tuple[Pictures, Pictures]:
    raw = [gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes()) for name in ("images-idx3", "labels-idx1")]
    pixels = torch.from_numpy(np.frombuffer(raw[0], np.uint8, offset=16).reshape(-1, 1, 28, 28).copy())
    targets = torch.from_numpy(np.frombuffer(raw[1], np.uint8, offset=8).astype(int))
    names = tuple(map(str, range(10)))
    half = len(targets) // 2
    return Pictures(pixels[:half], targets[:half], names), Pictures(pixels[half:], targets[half:], names)


def _resnet20(seed: int, data: Path, _: Path | None) -> Ground:
    source = spec_from_file_location("test_networks", TESTS / "networks.py")
    assert source is not None and source.loader is not None
    source.loader.exec_module(networks := module_from_spec(source))
    net = networks.cifar_resnet(data / "weights" / "cifar_resnet20.safetensors")
    options = {"mean": net.mean, "std": net.std, "size": 32, "head": "softmax"}
    learn, hold = read(data / "cifar" / "train", net.classes), read(data / "cifar" / "test", net.classes)
    edited = Edited("layer2.1.conv1", "layer2.1.bn1", "layer2.1.conv2")
    return Ground("resnet20", seed, net.body.eval(), learn, hold, options, edited, "conv1")


def _zfnet64(seed: int, data: Path, _: Path | None) -> Ground:
    net = load("zfnet64")
    options = {"mean": net.mean, "std": net.std, "size": 64, "head": "softmax"}
    folders = sorted(path.name for path in (data / "tiny" / "train").iterdir())
    # Ten of its hundred classes: more would be trained for hours.
    learn = read(data / "tiny" / "train", folders, 200, 10)
    hold = read(data / "tiny" / "val", folders, 50, 10)
    edited = Edited("conv4", "conv4", "conv5")
    return Ground("zfnet64", seed, net.body.eval(), learn, hold, options, edited, "conv1", 3e-4)


GROUNDS: dict[str, Callable[[int, Path, Path | None], Ground]] = {
    "small": _small,
    "small-dropout": lambda seed, data, keep: _small(seed, data, keep, 0.5),
    "lenet5": _lenet5,
    "resnet20": _resnet20,
    "zfnet64": _zfnet64,
}
"""Networks by name, each of a seed, the folder of data, and where trained networks are kept."""
