"""ZFNet and the AlexNet it is compared with (Zeiler & Fergus 2013), and zfnet64, the same idea for 64x64 pixels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Literal

from torch import nn


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _lrn() -> nn.LocalResponseNorm:
    # torch divides alpha by the size; the formula of Krizhevsky et al. (2012), sec. 3.3, has alpha = 1e-4 undivided.
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def zfnet(
    classes: int = 1000,
    *,
    first: Literal["7x7/2", "11x11/4"] = "7x7/2",
    middle: tuple[int, int, int] = (384, 384, 256),
    full: int = 4096,
    without: Collection[int] = (),
    dropout: float = 0.5,
) -> nn.Sequential:
    """Build the network of Zeiler & Fergus (2013), Fig. 3: 62,357,608 parameters for 1000 classes of 224x224 pixels.

    Args:
        classes: number of outputs.
        first: "7x7/2" is ZFNet; "11x11/4" is the paper's replication of AlexNet, with dense connections.
        middle: channels of layers 3, 4 and 5; (512, 1024, 512) in Table 3.
        full: width of layers 6 and 7; 2048 and 8192 in Table 3.
        without: layers left out, of 3, 4, 6 and 7, as in Table 3.
        dropout: share of layers 6 and 7 dropped in training.

    Raises ValueError for other layers to leave out. Sizes at 224x224: 110, 55, 26, 13, 13, 13, 13, 6.
    """
    if not set(without) <= {3, 4, 6, 7}:
        raise ValueError(f"layers 3, 4, 6 and 7 can be left out, not {sorted(without)}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if first == "7x7/2":
        # The paper's sizes are cuda-convnet's, which rounds up without padding: in torch that takes a border of one.
        layers["conv1"] = nn.Conv2d(3, 96, 7, stride=2, padding=1)
        second = nn.Conv2d(96, 256, 5, stride=2)
    else:
        layers["conv1"] = nn.Conv2d(3, 96, 11, stride=4, padding=2)
        second = nn.Conv2d(96, 256, 5, padding=2)
    layers |= OrderedDict(relu1=nn.ReLU(), pool1=_pool(), norm1=_lrn())
    layers |= OrderedDict(conv2=second, relu2=nn.ReLU(), pool2=_pool(), norm2=_lrn())
    width = 256
    for number, channels in zip((3, 4, 5), middle, strict=True):
        if number not in without:
            layers[f"conv{number}"] = nn.Conv2d(width, channels, 3, padding=1)
            layers[f"relu{number}"] = nn.ReLU()
            width = channels
    layers |= OrderedDict(pool5=_pool(), flatten=nn.Flatten())
    width *= 6 * 6
    for number in (6, 7):
        if number not in without:
            layers[f"fc{number}"] = nn.Linear(width, full)
            layers[f"relu{number}"] = nn.ReLU()
            layers[f"drop{number}"] = nn.Dropout(dropout)
            width = full
    layers["fc8"] = nn.Linear(width, classes)
    return nn.Sequential(layers)


def zfnet64(
    classes: int = 100,
    *,
    batch_norm: bool = False,
    dropout: float = 0.0,
    without: Collection[int] = (),
    width: float = 1.0,
) -> nn.Sequential:
    """Build ZFNet's idea for 64x64 pixels: convolutions, rectifiers, max pooling, 7x7 first filters; 1.9 M parameters.

    The last maps are averaged over all places, so larger pictures work too.

    Args:
        classes: number of outputs.
        batch_norm: normalise after every convolution, in training; it is folded into the convolutions afterwards.
        dropout: share of the last averages dropped in training.
        without: convolutions left out, with their rectifiers, of 2 to 6; the pooling after the third stays.
        width: factor of all numbers of channels.

    Raises ValueError for other layers to leave out.
    """
    if not set(without) <= {2, 3, 4, 5, 6}:
        raise ValueError(f"layers 2 to 6 can be left out, not {sorted(without)}")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = 3
    for number, (plain, side) in enumerate(((48, 7), (128, 5), (192, 3), (192, 3), (256, 3), (320, 3)), 1):
        if number not in without:
            channels = round(plain * width)
            layers[f"conv{number}"] = nn.Conv2d(
                inputs, channels, side, stride=2 if number == 1 else 1, padding=side // 2, bias=not batch_norm
            )
            if batch_norm:
                layers[f"bn{number}"] = nn.BatchNorm2d(channels)
            layers[f"relu{number}"] = nn.ReLU()
            inputs = channels
        if number in (1, 3):
            layers[f"pool{number}"] = nn.MaxPool2d(3, stride=2, padding=1)
    layers |= OrderedDict(average=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    if dropout:
        layers["drop"] = nn.Dropout(dropout)
    layers["fc"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)
