"""Average pooling in place of max pooling, for the length of a block; the network is not touched.

Gatys et al. 2015, arXiv:1508.06576, found it smoother.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..errors import OptionError

Pooling = Literal["max", "average"]


def pooled_by(kind: Pooling) -> AbstractContextManager[Any]:
    """Return a context in which max pooling is "max", as the network has it, or "average"."""
    return _AveragePooling() if kind == "average" else nullcontext()


class _AveragePooling(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func not in (F.max_pool2d, torch.max_pool2d) or options.get("return_indices"):
            return func(*args, **options)
        return _average(*args, **options)


def _average(
    pixels: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    if dilation != 1:
        raise OptionError("this network's max pooling is dilated, and average pooling cannot be: use pooling='max'")
    return F.avg_pool2d(pixels, kernel_size, stride, padding, ceil_mode, count_include_pad=False)
