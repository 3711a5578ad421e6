"""Networks drawn at random: everything a convolutional network is made of, in any order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

Draw = Callable[[Any], Any]
Kind = Callable[[Draw, int], tuple[nn.Module, int]]


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


class Applied(nn.Module):
    """A function of one's own, under its name."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def extra_repr(self) -> str:
        return self.name

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def same_padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's "same": where the padding is odd, one more below and to the right."""
    wide = [max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
    (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in wide)
    return F.pad(x, (left, right, top, bottom))


def unpooled(x: Tensor) -> Tensor:
    pooled, where = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(pooled, where, 2, output_size=x.shape[-2:])


def scattered(x: Tensor) -> Tensor:
    index = torch.arange(x.shape[1]).flip(0).view(1, -1, 1, 1).expand(x.shape)
    return torch.zeros_like(x).scatter(1, index, x)


def assigned(x: Tensor) -> Tensor:
    y = x.clone()
    y[..., -1] = 0
    return y


EDGES: dict[str, Callable[[Tensor], Tensor]] = {
    "a column less": lambda x: x[..., :-1],
    "a row less": lambda x: x[:, :, :-1],
    "cropped": lambda x: x[:, :, 1:-2, :-1],
    "cropped in place": lambda x: F.relu(x[..., :-1, 1:] * 0.9, inplace=True),
    "every other but the last": lambda x: x[:, :, :-1:2, 1:-1:2],
    "two crops": lambda x: x[..., 1:, 1:] - x[..., :-1, :-1],
    "shifted": lambda x: F.pad(x[..., 1:, 1:], (0, 1, 0, 1)),
    "far padding": lambda x: F.pad(x, (0, 1, 0, 1)),
    "far padding, constant": lambda x: F.pad(x, (0, 2, 0, 3), value=0.7),
    "unequal padding": nn.ZeroPad2d((1, 2, 1, 2)),
    "same, pooled": lambda x: F.max_pool2d(same_padded(x, 3, 2), 3, 2),
    "same, averaged": lambda x: F.avg_pool2d(same_padded(x, 2, 3), 2, 3),
    "narrowed": lambda x: x.narrow(2, 0, x.shape[2] - 1),
    "focused": lambda x: x[..., : x.shape[2] // 2 * 2 : 2, :-1] + x[..., 1 : x.shape[2] // 2 * 2 : 2, 1:],
}
MIXING: dict[str, Callable[[Tensor], Tensor]] = {
    "unpooled": unpooled,
    "scattered": scattered,
    "assigned": assigned,
    "nearest-exact": lambda x: F.interpolate(x, size=(9, 11), mode="nearest-exact"),
    "antialias": lambda x: F.interpolate(x, size=(7, 6), mode="bilinear", antialias=True),
    "bicubic": lambda x: F.interpolate(x, scale_factor=1.5, mode="bicubic"),
    "lerp": lambda x: torch.lerp(x, x.square(), 0.3),
    "lerp between positions": lambda x: torch.lerp(x, x.flip(3), torch.sigmoid(x)),
    "frequencies": lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 0.5, s=x.shape[-2:]) + x,
    "circular": lambda x: F.pad(x, (1, 0, 0, 1), mode="circular"),
    "reflected": lambda x: F.pad(x, (0, 1, 1, 0), mode="reflect"),
    "replicated": lambda x: F.pad(x, (0, 2, 0, 1), mode="replicate"),
    "generalised mean": lambda x: F.avg_pool2d(x.clamp(min=1e-6).pow(3), 3, 2).pow(1 / 3),
    "normalised channels": lambda x: F.normalize(x, dim=1),
    "normalised positions": lambda x: F.normalize(x.flatten(2), dim=2).view_as(x) * 5,
    "instance norm, in place": lambda x: F.relu(F.instance_norm(x), inplace=True),
    "standardised": lambda x: x / (x.std((2, 3), keepdim=True) + 1),
    "flipped": lambda x: x.flip(3),
    "rolled": lambda x: torch.roll(x, 2, 3),
    "turned": lambda x: torch.rot90(x, 1, (2, 3)),
    "swapped": lambda x: x.mT,
    "channels last": lambda x: x.permute(0, 2, 3, 1).mul(2).permute(0, 3, 1, 2),
    "two largest": lambda x: x.topk(2, 1).values if x.shape[1] > 1 else x,
    "cumulated": lambda x: x.cumsum(3) / 4,
    "unfolded": lambda x: F.unfold(x[:, :1], 3).view(len(x), 9, x.shape[2] - 2, x.shape[3] - 2),
    "transposed": lambda x: F.conv_transpose2d(x[:, :1], torch.full((1, 2, 3, 3), 0.3, dtype=x.dtype), stride=2),
    "lp": lambda x: F.lp_pool2d(x.abs() + 0.1, 2, 3, 2),
    "a picture's maximum": lambda x: x / (x.abs().amax((1, 2, 3), keepdim=True) + 0.1),
    "rows by position": lambda x: x + torch.linspace(0, 1, x.shape[2], dtype=x.dtype)[:, None],
    "wider": lambda x: torch.cat([x, x.new_zeros(*x.shape[:3], 1)], 3),
    "attention": lambda x: F.scaled_dot_product_attention(*[x.flatten(2).mT] * 3).mT.reshape(x.shape),
}


def _edge(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    name = draw(st.sampled_from(sorted(EDGES)))
    return Applied(name, EDGES[name]), channels


def _mixing(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    name = draw(st.sampled_from(sorted(MIXING)))
    more = {"two largest": min(2, channels), "unfolded": 9, "transposed": 2}
    return Applied(name, MIXING[name]), more.get(name, channels)


class Mirrored(nn.Module):
    """A layer that looks at the mirror image, alone or beside the picture itself, turned back or not."""

    def __init__(self, body: nn.Module, beside: bool, back: bool) -> None:
        super().__init__()
        self.body, self.beside, self.back = body, beside, back

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x.flip(3))
        y = y.flip(3) if self.back else y
        return y + self.body(x) if self.beside else y


def _blocks_in_another_order(x: Tensor) -> Tensor:
    """Patches of the picture shuffled, the same way every time."""
    n, c, h, w = x.shape
    rows, columns = (next(k for k in (4, 3, 2, 1) if side % k == 0) for side in (h, w))
    patches = x.reshape(n, c, rows, h // rows, columns, w // columns).permute(0, 1, 2, 4, 3, 5).flatten(2, 3)
    order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(rows * columns))
    return patches[:, :, order].unflatten(2, (rows, columns)).permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w)


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": lambda x: x.flip(3),
    "flip both": lambda x: torch.flip(x, (2, 3)),
    "roll": lambda x: x.roll((2, -1), (2, 3)),
    "rot90": lambda x: torch.rot90(x, 1, (2, 3)),
    "rot90 backwards": lambda x: x.rot90(3, (2, 3)),
    "mT": lambda x: x.mT,
    "swapaxes": lambda x: x.swapaxes(2, 3),
    "transpose": lambda x: x.transpose(3, 2),
    "permute": lambda x: x.permute(0, 1, 3, 2),
    "columns by index": lambda x: x[..., torch.arange(x.shape[3] - 1, -1, -1)],
    "rows in any order": lambda x: x[:, :, torch.randperm(x.shape[2], generator=torch.Generator().manual_seed(1))],
    "patches": _blocks_in_another_order,
    "cropped": lambda x: x[..., :-1],
    "cropped above": lambda x: x[:, :, 1:],
    "padded at the far edge": lambda x: F.pad(x, (0, 1, 0, 1)),
    "padded at the near edge": lambda x: F.pad(x, (2, 0, 1, 0)),
}


def _moving(draw: Draw, channels: int) -> tuple[nn.Module, int]:
    kind = draw(st.sampled_from([*MOVES, "group norm", "instance norm", "mirrored"]))
    if kind in MOVES:
        return Applied(kind, MOVES[kind]), channels
    if kind == "mirrored":
        body = nn.Conv2d(channels, 2, 3, padding=1)
        return Mirrored(body, draw(st.booleans()), draw(st.booleans())), 2
    return nn.GroupNorm(1, channels) if kind == "group norm" else nn.InstanceNorm2d(channels), channels


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


KINDS = (_conv, _conv, _conv, _pool, _pool, _placewise, _placewise, _joined, _joined, _odd, _edge, _edge, _mixing)

MORE_MOVES = (*KINDS, _moving, _moving, _moving)
"""Layers of which many move pixels."""


@st.composite
def architectures(draw: Draw, kinds: Sequence[Kind] = KINDS) -> tuple[nn.Module, tuple[int, int]]:
    """Draw a network of float64 with random weights and the (height, width) of the pictures it reads."""
    size = draw(st.integers(9, 26)), draw(st.integers(9, 26))
    seed = draw(st.integers(0, 2**16))
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    channels = 3
    x = torch.rand(1, 3, *size)
    for _ in range(draw(st.integers(2, 7))):
        layer, _ = draw(st.sampled_from(kinds))(draw, channels)
        try:
            with torch.no_grad():
                y = layer.eval()(x.clone())
        except RuntimeError:  # a window that does not fit
            continue
        if min(y.shape[2:]) < 1 or y.numel() > 40_000:
            continue
        layers.append(layer)
        x, channels = y, y.shape[1]
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
