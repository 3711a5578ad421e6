"""Incremental inference: exact on any network it follows, in full on any other, and never wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import architectures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import Net, ask, load
from convscope.incremental.covering import Covered, Squares, covered_scores
from convscope.incremental.sweep import Sweep
from convscope.incremental.tape import CannotFollow, record

LAYERS = ("",)


def in_full(net: Net, pixels: Tensor, squares: Squares, covering: Tensor) -> Tensor:
    """The oracle: every square is a picture of its own."""
    outputs = []
    for number in range(squares.grid[0] * squares.grid[1]):
        picture = pixels.clone()
        rows, columns = squares.box(number)
        picture[:, :, rows, columns] = covering[:, :, rows, columns]
        with torch.no_grad():
            outputs.append(net(picture))
    return torch.cat(outputs)


def in_parts(net: Net, pixels: Tensor, squares: Squares, covering: Tensor, memory: int = 2**28) -> Tensor:
    sweep = Sweep(record(net, pixels, LAYERS), (squares.rows, squares.columns), memory)
    found = torch.full((squares.grid[0] * squares.grid[1], net.output.shape[0]), torch.nan, dtype=pixels.dtype)
    with torch.no_grad():
        for numbers, readings in sweep.run(covering, ""):
            found[torch.from_numpy(numbers)] = readings[""]
    return found


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(architectures(), st.integers(1, 9), st.integers(1, 7), st.sampled_from([2**28, 2**17]))
def test_equals_full_passes_on_any_architecture(
    drawn: tuple[nn.Module, tuple[int, int]], patch: int, stride: int, memory: int
) -> None:
    """Squares over every border, odd sizes, little memory: the same to 1e-9."""
    body, size = drawn
    net = Net(body, mean=0.4, std=0.3, size=size, channels=3)
    pixels, covering = torch.rand(1, 3, *size, dtype=torch.float64), torch.rand(1, 3, *size, dtype=torch.float64)
    squares = Squares(*size, patch, max(stride, min(size) // 5))
    expected = in_full(net, pixels, squares, covering)
    found = in_parts(net, pixels, squares, covering, memory)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * max(1.0, float(expected.abs().max())))
