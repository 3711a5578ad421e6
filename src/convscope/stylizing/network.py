"""The style network: Johnson, Alahi & Fei-Fei 2016, arXiv:1603.08155, as in their code.

    c9s1-32, d64, d128, R128 x 5, u64, u32, c9s1-3

With instance normalisation (Ulyanov et al. 2016, arXiv:1607.08022) and reflection padding. Unlike theirs, u64 and u32
are nearest-neighbour upsampling and convolution: transposed convolutions leave checkerboards (Odena et al., Distill
2016).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import WeightsError
from ..zoo.runs import facts
from ..zoo.weights import fit_weights, read_weights

KIND = "style network"
"""The kind that a style file declares, where other weights files name their network."""

STEP = 4
"""The stride of the inner layers: sides of pictures are multiples of it."""

_REACH = 150 / 255
"""The largest distance of the output from grey, as in Johnson's code: black and white lie within it."""


class ConvBlock(nn.Module):
    """A convolution with reflection padding that keeps, halves or doubles the sides.

    Normalisation and rectifier follow, unless `normalised` or `rectified` is False.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        down: int = 1,
        up: int = 1,
        rectified: bool = True,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.down, self.up, self.rectified = kernel, down, up, rectified
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, down)
        self.norm = nn.InstanceNorm2d(out_channels, affine=True) if normalised else None

    def forward(self, below: Tensor) -> Tensor:
        """Map (n, in_channels, h, w) to (n, out_channels, h up / down, w up / down)."""
        if self.up > 1:
            below = F.interpolate(below, scale_factor=self.up)
        activity = self.conv(F.pad(below, (self.kernel // 2,) * 4, mode="reflect"))
        if self.norm is not None:
            activity = self.norm(activity)
        return activity.relu() if self.rectified else activity


class ResidualBlock(nn.Module):
    """x + f(x), with two convolutions f and no rectifier after the sum (Johnson et al., supplementary material)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvBlock(width, width), ConvBlock(width, width, rectified=False))

    def forward(self, below: Tensor) -> Tensor:
        """Map (n, width, h, w) to the same shape."""
        return below + self.layers(below)


class StyleNet(nn.Module):
    """The style network, with `width` channels at full resolution: 32 in the paper."""

    def __init__(self, width: int = 32, blocks: int = 5) -> None:
        super().__init__()
        self.width = width
        self.down = nn.Sequential(
            ConvBlock(3, width, 9), ConvBlock(width, 2 * width, down=2), ConvBlock(2 * width, 4 * width, down=2)
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(blocks)))
        self.up = nn.Sequential(
            ConvBlock(4 * width, 2 * width, up=2),
            ConvBlock(2 * width, width, up=2),
            ConvBlock(width, 3, 9, rectified=False, normalised=False),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, 3, h, w) in [0, 1], sides multiples of STEP, to as many; nearly in [0, 1]: see `to_pixels`."""
        return to_pixels(self.up(self.blocks(self.down(pixels - 0.5))))


def to_pixels(activity: Tensor) -> Tensor:
    """Return the last layer's activity as pixels, in 0.5 +- 150/255: values outside [0, 1] are clipped in the end."""
    return 0.5 + _REACH * activity.tanh()


def read_style(path: str | Path) -> tuple[StyleNet, dict[str, Any]]:
    """Read a style file: the network, and the record of its training.

    Raises WeightsError for a file that is missing, damaged or not written by `train_style`.
    """
    path = Path(path)
    advice = f"make a style file with convscope train-style STYLE.jpg --data FOLDER -o {path.stem}.safetensors"
    if path.exists() and path.suffix.lower() != ".safetensors":
        raise WeightsError(f"{path} is no style file, which ends in .safetensors: {advice}")
    state, record = read_weights(path), facts(path)
    if record.get("network") != KIND:
        content = f"weights of {record['network']}" if "network" in record else "no style"
        raise WeightsError(f"{path} holds {content}: {advice}")
    net = StyleNet(_count(record, "width", path), _count(record, "blocks", path))
    fit_weights(net, state, network=f"a style network of width {net.width}")
    return net.eval().requires_grad_(False), record


def _count(record: Mapping[str, Any], key: str, path: Path) -> int:
    value = record.get(key)
    if not isinstance(value, int) or not 1 <= value <= 1024:
        raise WeightsError(f"{path} is damaged: its {key} is {value!r}")
    return value


def whole(net: StyleNet, pixels: Tensor) -> Tensor:
    """Paint pixels (n, 3, h, w) at once, without a gradient; sides are multiples of STEP. Returns values in [0, 1]."""
    with torch.inference_mode():
        return net(pixels).clamp(0, 1)
