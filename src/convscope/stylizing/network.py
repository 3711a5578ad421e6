"""The network that paints: Johnson, Alahi & Fei-Fei 2016, arXiv:1603.08155, as in their code.

    c9s1-32, d64, d128, R128 x 5, u64, u32, c9s1-3

With instance normalisation (Ulyanov et al. 2016, arXiv:1607.08022) and padding by reflection. Otherwise than theirs,
u64 and u32 double every value and convolve: transposed convolutions leave a checkerboard (Odena et al., Distill 2016).
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
"""What a style file says that it holds, where other weights files name their network."""

STEP = 4
"""The side of a picture is a multiple of this: the inner layers have a place for every STEP x STEP pixels."""

_REACH = 150 / 255
"""How far from grey the output goes, as in Johnson's code: beyond [0, 1], so that black and white can be reached."""


class Layer(nn.Module):
    """A convolution behind a padding by reflection, which keeps, halves or doubles the picture's sides.

    It is normalised and rectified, unless `rectified` or `normalised` says otherwise.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        kernel: int = 3,
        *,
        down: int = 1,
        up: int = 1,
        rectified: bool = True,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.kernel, self.down, self.up, self.rectified = kernel, down, up, rectified
        self.conv = nn.Conv2d(inside, outside, kernel, down)
        self.norm = nn.InstanceNorm2d(outside, affine=True) if normalised else None

    def forward(self, below: Tensor) -> Tensor:
        """Map (n, inside, h, w) to (n, outside, h up / down, w up / down)."""
        if self.up > 1:
            below = F.interpolate(below, scale_factor=self.up)
        activity = self.conv(F.pad(below, (self.kernel // 2,) * 4, mode="reflect"))
        if self.norm is not None:
            activity = self.norm(activity)
        return activity.relu() if self.rectified else activity


class Block(nn.Module):
    """x + f(x), with two layers f; nothing is rectified after the sum (Johnson et al., supplementary material)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(width, width), Layer(width, width, rectified=False))

    def forward(self, below: Tensor) -> Tensor:
        """Map (n, width, h, w) to the same shape."""
        return below + self.layers(below)


class StyleNet(nn.Module):
    """The network that paints, with `width` channels at full size: 32 in the paper."""

    def __init__(self, width: int = 32, blocks: int = 5) -> None:
        super().__init__()
        self.width = width
        self.down = nn.Sequential(
            Layer(3, width, 9), Layer(width, 2 * width, down=2), Layer(2 * width, 4 * width, down=2)
        )
        self.blocks = nn.Sequential(*(Block(4 * width) for _ in range(blocks)))
        self.up = nn.Sequential(
            Layer(4 * width, 2 * width, up=2),
            Layer(2 * width, width, up=2),
            Layer(width, 3, 9, rectified=False, normalised=False),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (n, 3, h, w) in [0, 1], sides multiples of STEP, to as many; nearly in [0, 1]: see `to_pixels`."""
        return to_pixels(self.up(self.blocks(self.down(pixels - 0.5))))


def to_pixels(activity: Tensor) -> Tensor:
    """Return the last layer's activity as pixels, in 0.5 +- 150/255: what is outside [0, 1] is cut off in the end."""
    return 0.5 + _REACH * activity.tanh()


def read_style(path: str | Path) -> tuple[StyleNet, dict[str, Any]]:
    """Read a style file: the network, and what the file says of how it was trained.

    Raises WeightsError for a file that is missing or damaged, or that `convscope train-style` did not write.
    """
    path = Path(path)
    made = f"a style file is made by convscope train-style STYLE.jpg --data FOLDER -o {path.stem}.safetensors"
    if path.exists() and path.suffix.lower() != ".safetensors":
        raise WeightsError(f"{path} is no style file, which ends in .safetensors: {made}")
    state, told = read_weights(path), facts(path)
    if told.get("network") != KIND:
        held = f"weights of {told['network']}" if "network" in told else "no style"
        raise WeightsError(f"{path} holds {held}: {made}")
    net = StyleNet(_count(told, "width", path), _count(told, "blocks", path))
    fit_weights(net, state, network=f"a style network of width {net.width}")
    return net.eval().requires_grad_(False), told


def _count(told: Mapping[str, Any], key: str, path: Path) -> int:
    value = told.get(key)
    if not isinstance(value, int) or not 1 <= value <= 1024:
        raise WeightsError(f"{path} is damaged: it says that its {key} is {value!r}")
    return value


def whole(net: StyleNet, pixels: Tensor) -> Tensor:
    """Paint pixels (n, 3, h, w) at once, without a gradient; sides are multiples of STEP. Returns values in [0, 1]."""
    with torch.inference_mode():
        return net(pixels).clamp(0, 1)
