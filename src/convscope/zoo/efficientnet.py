"""EfficientNet-Lite: EfficientNet (Tan & Le 2019, arXiv:1905.11946) without squeeze-and-excite, with ReLU6."""

from __future__ import annotations

from collections import OrderedDict
from math import ceil

from torch import Tensor, nn
from torch.nn import functional as F

_STAGES = (
    # repeats, kernel, stride, expansion, channels: Table 1 of the paper
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280


def efficientnet_lite(
    classes: int = 1000, *, width: float = 1.0, depth: float = 1.0, dropout: float = 0.0
) -> nn.Sequential:
    """Build EfficientNet-Lite: 4,652,008 parameters for 1000 classes at width and depth 1, Lite0.

    Layers have the names that timm gives them in `tf_efficientnet_lite0`, and their weights the same order.

    Args:
        classes: number of outputs.
        width, depth: factors of channels and of repeated blocks; Lite1 is (1.0, 1.1), Lite2 (1.1, 1.2).
        dropout: share of the last averages dropped in training.
    """
    stages = list[nn.Module]()
    channels = _STEM
    for place, (repeats, kernel, stride, expansion, out) in enumerate(_STAGES):
        # Lite keeps the stem, the head and the number of blocks of the first and the last stage as they are.
        deeper = 1 if place in (0, len(_STAGES) - 1) else depth
        blocks = list[nn.Module]()
        for block in range(ceil(repeats * deeper)):
            after = _rounded(out * width)
            blocks.append(_Block(channels, after, kernel, stride if block == 0 else 1, expansion))
            channels = after
        stages.append(nn.Sequential(*blocks))
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv_stem=SameConv2d(3, _STEM, 3, stride=2, bias=False),
        bn1=_norm(_STEM),
        relu1=nn.ReLU6(),
        blocks=nn.Sequential(*stages),
        conv_head=SameConv2d(channels, _HEAD, 1, bias=False),
        bn2=_norm(_HEAD),
        relu2=nn.ReLU6(),
        average=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )
    if dropout:
        layers["drop"] = nn.Dropout(dropout)
    layers["classifier"] = nn.Linear(_HEAD, classes)
    return nn.Sequential(layers)


class SameConv2d(nn.Conv2d):
    """Convolve with TensorFlow's "same" padding: ceil(side / stride) outputs, an odd row of zeros below and right."""

    def forward(self, input: Tensor) -> Tensor:
        padding = list[int]()  # of the last dimension first, as torch has it
        for side, kernel, stride in reversed(list(zip(input.shape[-2:], self.kernel_size, self.stride, strict=True))):
            lacking = max((ceil(side / stride) - 1) * stride + kernel - side, 0)
            padding += [lacking // 2, lacking - lacking // 2]
        return super().forward(F.pad(input, padding) if any(padding) else input)


class _Block(nn.Module):
    """An inverted residual block: wider, a filter per channel, narrower again, and the input added where it fits."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.residual = stride == 1 and channels == out
        depthwise = SameConv2d(wide, wide, kernel, stride=stride, groups=wide, bias=False)
        if expansion == 1:
            layers = {"conv_dw": depthwise, "bn1": _norm(wide), "relu1": nn.ReLU6()}
            layers |= {"conv_pw": SameConv2d(wide, out, 1, bias=False), "bn2": _norm(out)}
        else:
            layers = {"conv_pw": SameConv2d(channels, wide, 1, bias=False), "bn1": _norm(wide), "relu1": nn.ReLU6()}
            layers |= {"conv_dw": depthwise, "bn2": _norm(wide), "relu2": nn.ReLU6()}
            layers |= {"conv_pwl": SameConv2d(wide, out, 1, bias=False), "bn3": _norm(out)}
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        after = x
        for layer in self.children():
            after = layer(after)
        return x + after if self.residual else after


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _rounded(channels: float) -> int:
    """Round to a multiple of eight, but never down by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
