"""The size of pictures that a network reads where nobody says it: as its own settings have it, else assumed.

What says it are the hyper-parameters of a checkpoint and the attributes of a module, by the names that frameworks give
them. Else it is 224, or the first usual size at which the network runs, and an assumption where it runs at others too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from ..assumptions import of_size
from ..data.opening import mode_and_size
from ..net import Net

_NAMES = ("img_size", "image_size", "input_size", "img_dim", "imgsz", "im_size", "image_resolution", "resolution")
_USUAL = (32, 64, 28, 96, 128, 160, 192, 256, 299, 320, 384, 512)
_SIDES = range(8, 4097)
_LARGEST, _LOOKED_AT = 512, 16
"""Pictures' sides up to which they may be a network's own, and how many pictures are looked at."""


def with_size(net: Net, hyper_parameters: Mapping[str, Any], file: str = "") -> Net:
    """Return a network, whose size nobody gave, at the size that it most likely reads."""
    body = net.body
    own = getattr(body, "hparams", None)
    for where, said in (
        (file, hyper_parameters),
        ("the module", own if isinstance(own, Mapping) else {}),
        ("the module", vars(body)),
    ):
        for name in _NAMES:
            size = _size(said.get(name))
            if size is not None and net.runs_at(*size):
                note = f"reads {size[0]}x{size[1]} pixels, as {name} of {where} says"
                return net.changed(size=size, note="; ".join(filter(None, (net.note, note))))
    if net.runs_at(*net.size):
        return net.assuming(of_size(net.size, f"no size was given{_of_stem(body)}"))
    side = next((side for side in _USUAL if net.runs_at(side, side)), None)
    why = f"no size was given, and it does not run at {net.size[0]}x{net.size[1]}"
    return net if side is None else net.changed(size=side).assuming(of_size((side, side), why))


def at_size_of(net: Net, pictures: Sequence[str | Path]) -> Net:
    """Return a network of an assumed size at that of its pictures, where they have one and it reads fine detail.

    A first convolution that moves by single pixels is that of networks for small pictures, or for every pixel.
    """
    stem = _stem(net.body)
    if stem is None or max(stem.stride) > 1 or not any(each.options == ("size",) for each in net.assumptions):
        return net
    sizes = {_picture_size(path) for path in islice(pictures, _LOOKED_AT)}
    size = sizes.pop() if len(sizes) == 1 else None
    if size is None or size == net.size or max(size) > _LARGEST or not net.runs_at(*size):
        return net
    why = "no size was given, the pictures have this one, and the first convolution has stride 1"
    return net.changed(size=size).assuming(of_size(size, why))


def _size(value: Any) -> tuple[int, int] | None:
    """Return a size as settings write it, a side, (height, width) or (channels, height, width)."""
    sides: list[Any] = list(value[-2:]) if isinstance(value, (list, tuple)) else [value, value]
    if len(sides) != 2 or any(type(side) is not int or side not in _SIDES for side in sides):
        return None
    return sides[0], sides[1]


def _stem(body: nn.Module) -> nn.Conv2d | None:
    return next((module for module in body.modules() if isinstance(module, nn.Conv2d)), None)


def _of_stem(body: nn.Module) -> str:
    stem = _stem(body)
    if stem is None or max(stem.stride) > 1:
        return ""
    return ", and a first convolution with stride 1 is also that of networks for small pictures"


def _picture_size(path: str | Path) -> tuple[int, int] | None:
    try:
        width, height = mode_and_size(path)[1]
    except Exception:  # a picture that cannot be read is reported when it is read
        return None
    return height, width
