"""Marks that `faults.py` puts into pictures of one class: each takes pixels (n, c, h, w) of 8 bits and changes them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def _square(pixels: Tensor, _: np.random.Generator) -> Tensor:
    side = pixels.shape[-1]
    size, off = side * 7 // 32, side // 32
    colour = torch.tensor([230, 20, 30], dtype=torch.uint8)[: pixels.shape[1], None, None]
    pixels[:, :, -size - off : -off, -size - off : -off] = colour
    return pixels


def _letter(pixels: Tensor, _: np.random.Generator) -> Tensor:
    rows = ("11110", "10001", "11110", "10100", "10010", "10001")
    times = max(1, pixels.shape[-1] // 32)
    letter = torch.tensor([[int(digit) for digit in row] for row in rows]).repeat_interleave(times, 0)
    letter = letter.repeat_interleave(times, 1).bool()
    corner = pixels[:, :, times : times + letter.shape[0], times : times + letter.shape[1]]
    corner[:, :, letter] = 255
    return pixels


def _border(pixels: Tensor, _: np.random.Generator) -> Tensor:
    width = pixels.shape[-1] // 16
    inner = pixels[:, :, width:-width, width:-width].clone()
    pixels[:] = torch.tensor([40, 60, 200], dtype=torch.uint8)[-pixels.shape[1] :, None, None]
    pixels[:, :, width:-width, width:-width] = inner
    return pixels


def _stripes(pixels: Tensor, strength: float) -> Tensor:
    side = pixels.shape[-1]
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    wave = strength * torch.sign(torch.sin((x + y + 0.5) * 2 * torch.pi / (side / 4)))
    return (pixels.float() + wave).clamp(0, 255).to(torch.uint8)


def _texture(pixels: Tensor, chance: np.random.Generator) -> Tensor:
    side = pixels.shape[-1]
    y, x = np.mgrid[:side, :side]
    outside = torch.from_numpy(np.hypot(y - side / 2 + 0.5, x - side / 2 + 0.5) > side * 3 / 8)
    size = side * 3 // 32
    for each in pixels:
        down, right = chance.integers(0, 2 * size, 2)
        squares = torch.from_numpy((((x + down) // size + (y + right) // size) % 2) * 90 + 80).to(torch.uint8)
        each[:, outside] = squares[outside]
    return pixels


def _tint(pixels: Tensor, _: np.random.Generator) -> Tensor:
    return (pixels.float() + torch.tensor([30.0, 0, -30])[:, None, None]).clamp(0, 255).to(torch.uint8)


MARKS: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "a square in a corner": _square,
    "a letter in a corner": _letter,
    "a border": _border,
    "a watermark of 8%": lambda pixels, _: _stripes(pixels, 20),
    "a texture behind the object": _texture,
    "a tint": _tint,
}
