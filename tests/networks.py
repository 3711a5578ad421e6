"""Networks for tests: small ones that cover every way of writing a rectifier, and CIFAR's ResNets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import Net

SIZE = 20
CLASSES = ("ant", "bee", "cat", "tabby cat", "dog")


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, len(CLASSES)))


class Sequential(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 5, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), head(8),
        )  # fmt: skip


class Functional(nn.Module):
    """Rectifiers as functions and methods: invisible to module hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.a(x)), 2)
        return self.head(self.c(F.relu(self.b(x))).relu().clamp(min=0))


class InPlace(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(0.5), head(8),
        )  # fmt: skip


class Residual(nn.Module):
    """One ReLU module that runs three times, as in a ResNet's block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = (
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.Conv2d(6, 6, 3, padding=1),
        )
        self.bn, self.relu, self.head = nn.BatchNorm2d(6), nn.ReLU(inplace=True), head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        y = self.bn(self.b(self.relu(self.a(x))))
        y += x
        return self.head(self.relu(y))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 3, padding=1)
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(F.relu(self.stem(x)), 2)
        return self.head(torch.cat([F.relu(self.a(x)), torch.relu_(self.b(x))], 1))


class Shared(nn.Module):
    """One convolution and one rectifier used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.relu, self.head = (
            nn.Conv2d(3, 6, 3, stride=2),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.ReLU(),
            head(6),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(2):
            x = self.relu(self.conv(x))
        return self.head(x)


class Six(nn.Sequential):
    """ReLU6, grouped convolutions and local response normalisation."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 3, stride=2), nn.ReLU6(), nn.LocalResponseNorm(3, alpha=0.5),
            nn.Conv2d(6, 6, 3, padding=1, groups=3), nn.ReLU6(inplace=True),
            nn.Conv2d(6, 8, 1), nn.Hardtanh(0, 4), head(8),
        )  # fmt: skip


class BatchStatistics(nn.Module):
    """Batch norm by the statistics of the batch, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, padding=1)
        self.bn, self.relu, self.head = nn.BatchNorm2d(6, track_running_stats=False), nn.ReLU(), head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.b(self.relu(self.bn(self.a(x))))))


class Brightest(Concat):
    """Pictures relative to the largest number of their batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / (4 + x.amax()))


class Standardised(Functional):
    """Pictures by mean and deviation of their batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - x.mean()) / (0.1 + x.std()))


class BesideTheFirst(Concat):
    """Pictures relative to the first of their batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 0.5 * x[:1])


class OnePicture(Concat):
    """Reads one picture at a time."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).view(1, len(CLASSES))


class Noisy(Concat):
    """Dropout that is on in eval mode too, the function's default."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.dropout(x).mean((1, 2, 3))[:, None]


class Jittered(Concat):
    """Adds noise to its pictures."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.05 * torch.rand_like(x))


DEPENDENT: dict[str, Callable[[], nn.Module]] = {
    "batch statistics": BatchStatistics,
    "brightest": Brightest,
    "standardised": Standardised,
    "beside the first": BesideTheFirst,
    "one picture": OnePicture,
}
"""Networks whose answer for a picture depends on its batch, or that take none."""


class TwoStreams(nn.Module):
    """Reads a picture and another with one channel, each by a branch of its own; the second branch comes last."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())
        self.depth = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())
        self.head = nn.Linear(16, len(CLASSES))

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        return self.head(torch.cat([self.rgb(image).mean((2, 3)), self.depth(depth.to(image)).mean((2, 3))], 1))


class Twins(nn.Module):
    """Compares two pictures, both by one trunk, which reads the picture first."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (self.features(first).mean((2, 3)) * self.features(second).mean((2, 3))).sum(1, keepdim=True)


RANDOM: dict[str, Callable[[], nn.Module]] = {"noisy": Noisy, "jittered": Jittered}
"""Networks that draw random numbers in eval mode."""


class Moved(nn.Module):
    """Looks at the picture mirrored, and on its side from the second layer on."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 6, (3, 5), padding=1), nn.Conv2d(6, 8, 3, (1, 2)), head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.a(x.flip(3))), 2)
        return self.head(F.relu(self.b(x.mT)))


MOVED: dict[str, Callable[[], nn.Module]] = {"moved": Moved}
"""Networks inside which pixels move."""

TINY: dict[str, Callable[[], nn.Module]] = {
    "sequential": Sequential,
    "functional": Functional,
    "in-place": InPlace,
    "residual": Residual,
    "concat": Concat,
    "shared": Shared,
    "relu6": Six,
}


def tiny_body(kind: str, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    """Build a tiny network with random weights and, where it has batch norm, random statistics, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = (TINY | MOVED | DEPENDENT | RANDOM)[kind]()
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
                for value in (module.weight, module.bias, module.running_mean, module.running_var):
                    nn.init.uniform_(value, 0.3, 1.3)
    return body.to(dtype).eval()


def tiny(kind: str, **options: object) -> Net:
    """Wrap a tiny network as a Net that normalises, for pictures of 20x20."""
    body = tiny_body(kind, **options)  # type: ignore[arg-type]
    return Net(body, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), size=SIZE, classes=CLASSES, name=kind)


def pictures(
    count: int = 2, *, side: int = SIZE, channels: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Random pictures (count, channels, side, side) in [0, 1]."""
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class BasicBlock(nn.Module):
    """He et al.'s CIFAR block with option-A shortcuts and functional ReLUs."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.more = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for i in (1, 2, 3):
            layer = [
                BasicBlock(widths[i - 1] if b == 0 else widths[i], widths[i], 2 if b == 0 and i > 1 else 1)
                for b in range(blocks)
            ]
            setattr(self, f"layer{i}", nn.Sequential(*layer))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def cifar_resnet(weights: Path) -> Net:
    """Load a CIFAR-10 ResNet-20 or -32 with its real weights."""
    blocks = {"20": 3, "32": 5}[weights.stem[-2:]]
    body = CifarResNet(blocks)
    body.load_state_dict(load_file(weights))
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return Net(body, size=32, classes=names, name=weights.stem, **imagenet)
