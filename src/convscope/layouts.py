"""Layouts: pictures as they lie in memory where a pass is quickest.

On most machines that is channels last: the channels of a pixel beside one another. Code that looks at strides, as
`view` does where older networks flatten, refuses it; those networks get the usual layout.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .net import Net

_found: WeakKeyDictionary[Net, torch.memory_format] = WeakKeyDictionary()


def laid_out(net: Net, pixels: Tensor) -> Tensor:
    """Return pixels (n, c, h, w) in the layout that a network runs quickest on."""
    return pixels.contiguous(memory_format=layout_of(net))


def layout_of(net: Net) -> torch.memory_format:
    """Return channels last, unless the network does not run on it; found by one pass of two pictures."""
    if net not in _found:
        pair = torch.zeros(2, net.channels, *net.size, device=net.device)
        try:
            with torch.inference_mode():
                net.run(pair.contiguous(memory_format=torch.channels_last))
            _found[net] = torch.channels_last
        except Exception:  # whatever it raises, the other layout cannot be worse
            _found[net] = torch.contiguous_format
    return _found[net]
