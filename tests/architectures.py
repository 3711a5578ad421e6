"""Networks drawn at random: everything a convolutional network is made of, in any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

Draw = Callable[[Any], Any]


class Drawn(nn.Module):
    """A chain of layers, each of which maps (n, c, h, w) to (n, c', h', w'), and a head."""

    def __init__(self, layers: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(layers), head

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Residual(nn.Module):
    """x + f(x), the sum in place or not."""

    def __init__(self, body: nn.Module, short: nn.Module, in_place: bool) -> None:
        super().__init__()
        self.body, self.short, self.in_place = body, short, in_place

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if self.in_place:
            y += self.short(x)
            return F.relu(y, inplace=True)
        return torch.relu(y + self.short(x))


class Branches(nn.Module):
    """Side by side along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Gate(nn.Module):
    """Squeeze and excite: a global layer in the middle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x.mean((2, 3), keepdim=True)))


class Sliced(nn.Module):
    """Every other place, as option-A shortcuts do, with more channels of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))


class Padded(nn.Module):
    def __init__(self, pads: tuple[int, int, int, int], value: float) -> None:
        super().__init__()
        self.pads, self.value = pads, value

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pads, value=self.value)


class Halves(nn.Module):
    """The channels taken apart and put together in another order, scaled and shifted by constants."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.rand(1, channels, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = (x * self.scale + 0.25) / 1.5
        first, second = x.chunk(2, 1) if x.shape[1] > 1 else (x, x)
        return torch.cat([second, first.abs()], 1)


class Shuffled(nn.Module):
    """Channels shuffled between groups, as ShuffleNet does."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.size()
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class Planes(nn.Module):
    """Single channels taken out, scaled and put together, as GoogLeNet does with its input."""

    def forward(self, x: Tensor) -> Tensor:
        planes = [torch.unsqueeze(x[:, k], 1) * (k + 0.5) - 0.25 for k in range(x.shape[1])]
        return torch.cat(planes, 1) + x.mean(1, keepdim=True)


def _conv(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    groups = draw(st.sampled_from([g for g in (1, 2, 3, channels) if channels % g == 0]))
    out = groups * draw(st.integers(1, 3))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    dilation = draw(st.integers(1, 2))
    same = draw(st.booleans()) and draw(st.booleans())
    options: dict[str, Any] = {"stride": draw(st.integers(1, 3)), "padding": draw(st.integers(0, 3))}
    if same:
        options = {"padding": "same"}
    return nn.Conv2d(channels, out, kernel, groups=groups, dilation=dilation, bias=draw(st.booleans()), **options), out


def _pool(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    kernel, ceil = draw(st.integers(2, 3)), draw(st.booleans())
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, kernel // 2))
    if draw(st.booleans()):
        return nn.MaxPool2d(kernel, stride, padding, dilation=draw(st.integers(1, 2)), ceil_mode=ceil), channels
    include, divisor = draw(st.booleans()), draw(st.sampled_from([None, None, 3]))
    return nn.AvgPool2d(kernel, stride, padding, ceil, include, divisor), channels


def _placewise(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    in_place = draw(st.booleans())
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.ReLU(in_place),
        lambda: nn.BatchNorm2d(channels),
        lambda: nn.LeakyReLU(0.1, in_place),
        lambda: nn.LocalResponseNorm(3, alpha=0.5),
        lambda: nn.Dropout(0.5, in_place),
        lambda: nn.PReLU(channels),
        lambda: nn.Hardswish(in_place),
    ]
    return draw(st.sampled_from(kinds))(), channels


def _joined(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    a, b = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 5]))
    kind = draw(st.sampled_from(["residual", "projected", "branches", "pooled"]))
    if kind == "branches":
        wide = nn.Sequential(nn.Conv2d(channels, a, 1), nn.ReLU(True), nn.Conv2d(a, a, b, padding=b // 2))
        return Branches(nn.Conv2d(channels, 2, 1), wide, nn.MaxPool2d(3, 1, 1)), 2 + a + channels
    if kind == "pooled":
        return Branches(nn.AvgPool2d(3, 2, 1), nn.Conv2d(channels, a, 3, 2, 1)), channels + a
    if kind == "projected":
        body = nn.Sequential(nn.Conv2d(channels, a, 3, 2, 1), nn.BatchNorm2d(a), nn.ReLU(True), nn.Conv2d(a, a, 1))
        return Residual(body, nn.Conv2d(channels, a, 1, 2), draw(st.booleans())), a
    body = nn.Sequential(nn.Conv2d(channels, channels, b, padding=b // 2), nn.BatchNorm2d(channels))
    return Residual(body, nn.Identity(), draw(st.booleans())), channels


def _odd(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    kind = draw(st.sampled_from(["sliced", "padded", "halves", "gate", "adaptive", "upsample", "shuffled", "planes"]))
    if kind == "sliced":
        return Sliced(), channels + 2
    if kind == "padded":
        pads = tuple(draw(st.integers(-1, 2)) for _ in range(4))
        return Padded(pads, draw(st.sampled_from([0.0, 0.5]))), channels  # type: ignore[arg-type]
    if kind == "halves":
        return Halves(channels), channels if channels > 1 else 2
    if kind == "shuffled" and channels % 2 == 0:
        return Shuffled(), channels
    if kind in ("planes", "shuffled"):
        return Planes(), channels
    if kind == "adaptive":
        return nn.AdaptiveAvgPool2d((draw(st.integers(2, 6)), draw(st.integers(2, 6)))), channels
    return (Gate(channels) if kind == "gate" else nn.Upsample(scale_factor=2)), channels


KINDS = (_conv, _conv, _conv, _pool, _pool, _placewise, _placewise, _joined, _joined, _odd)


@st.composite
def architectures(draw: Draw) -> tuple[nn.Module, tuple[int, int]]:
    """Draw a network of float64 with random weights and the (height, width) of the pictures it reads."""
    size = draw(st.integers(9, 26)), draw(st.integers(9, 26))
    seed = draw(st.integers(0, 2**16))
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    channels = 3
    x = torch.rand(1, 3, *size)
    for _ in range(draw(st.integers(2, 7))):
        layer, more = draw(st.sampled_from(KINDS))(draw, channels)
        try:
            with torch.no_grad():
                y = layer.eval()(x.clone())
        except RuntimeError:  # a window that does not fit
            continue
        if min(y.shape[2:]) < 1 or y.numel() > 40_000:
            continue
        layers.append(layer)
        x, channels = y, more
    heads: list[nn.Module] = [
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(channels * x.shape[2] * x.shape[3], 3)),
        nn.Sequential(nn.Conv2d(channels, 3, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
    ]
    network = Drawn(layers, draw(st.sampled_from(heads)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(value, 0.3, 1.3)
    return network.double().eval(), size
