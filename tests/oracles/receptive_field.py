"""Receptive fields by experiment: the pixels at which a unit's gradient is not zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Box = tuple[int, int, int, int]


def positive(body: nn.Module, *, seed: int = 0) -> nn.Module:
    """Make every parameter a random positive number, so that rectifiers pass and gradients cannot cancel."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype) + 0.1)
    return body.double().eval()


def supports(forward: Callable[[Tensor], Tensor], shape: tuple[int, int, int], *, inputs: int = 3) -> Tensor:
    """Find which pixels each unit depends on, in any of several random pictures of positive pixels.

    Returns (h, w, height, width) for an output (n, c, h, w); an output of another rank counts as one unit.
    """
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros(())
    for _ in range(inputs):
        picture = torch.rand(1, *shape, generator=generator, dtype=torch.float64) + 0.1
        total = total + _gradients(forward, picture)
    return total > 0


def _gradients(forward: Callable[[Tensor], Tensor], picture: Tensor) -> Tensor:
    """One copy of the picture for each unit, so that one backward pass serves all of them."""
    with torch.no_grad():
        output = forward(picture)
    units = tuple(output.shape[-2:]) if output.ndim == 4 else (1, 1)
    copies = picture.repeat(units[0] * units[1], 1, 1, 1).requires_grad_()
    if output.ndim == 4:
        positions = torch.arange(len(copies))
        numbers = forward(copies).flatten(2)[positions, :, positions]
    else:
        numbers = forward(copies).flatten(1)
    # Channels weigh differently, or those of a softmax would cancel.
    total = (numbers * torch.linspace(1, 2, numbers.shape[1])).sum()
    (gradient,) = torch.autograd.grad(total, copies, allow_unused=True)
    gradient = torch.zeros_like(copies) if gradient is None else gradient
    return gradient.abs().sum(1).view(*units, *picture.shape[2:])


def extent(support: Tensor) -> Box | None:
    """Return the smallest box (top, left, bottom, right) around a support (height, width), None if it is empty."""
    if not support.any():
        return None
    rows, columns = support.any(1).nonzero(), support.any(0).nonzero()
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1
