"""Occlusion: cover a part of the picture and see what the network loses.

Zeiler and Fergus (arXiv:1311.2901v3, sec. 4.2, Fig. 7): slide a grey square over the picture and watch the question's
score. The map holds, for every pixel, the mean drop of the score over the squares that cover it.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from ..errors import OptionError
from ..net import Net
from ..objectives import Objective
from ..registry import method
from ..reporting import say, track


@method("Occlusion", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, sec. 4.2", signed=True)
def occlusion(
    net: Net,
    pixels: Tensor,
    objective: Objective,
    *,
    patch: Annotated[
        int | None, "side of the square, in pixels of the network's input; by default a seventh of it"
    ] = None,
    stride: Annotated[int | None, "distance between squares, in pixels; by default half the patch"] = None,
    fill: Annotated[
        str, "'mean' (the network's mean colour: what it calls zero), 'grey' (0.5), or a value in [0, 1]"
    ] = "mean",
    batch: Annotated[int, "how many covered pictures go through the network at once"] = 32,
) -> Tensor:
    """Measure how far the score drops when a square covers each part of the picture.

    Pixels (n, c, h, w) in [0, 1] to (n, 1, h, w), in score: positive where covering lowers it. Raises OptionError for
    a patch larger than the picture or a stride below 1.
    """
    height, width = pixels.shape[-2:]
    patch = patch if patch is not None else max(1, round(min(height, width) / 7))
    stride = stride if stride is not None else max(1, patch // 2)
    _check(patch, stride, batch, height, width)
    colour = _colour(net, fill, pixels)
    places = [(y, x) for y in _starts(height, patch, stride) for x in _starts(width, patch, stride)]
    say(f"patch {patch} px, stride {stride} px, {len(places)} places, filled with {fill}")
    with torch.inference_mode():
        base = objective(net, pixels)
        chunks = [places[i : i + batch] for i in range(0, len(places), batch)]
        maps = [pixels.new_zeros(height, width) for _ in pixels]
        count = pixels.new_zeros(height, width)
        for chunk in track(chunks, "occlusion"):
            for y, x in chunk:
                count[y : y + patch, x : x + patch] += 1
            for picture, clean, map_ in zip(pixels, base, maps, strict=True):
                scores = objective(net, _cover(picture, chunk, patch, colour))
                for (y, x), drop in zip(chunk, (clean - scores).to(map_), strict=True):
                    map_[y : y + patch, x : x + patch] += drop
        result = torch.stack(maps)[:, None] / count.clamp(min=1)
    return result.clone()


def _cover(picture: Tensor, places: list[tuple[int, int]], patch: int, colour: Tensor) -> Tensor:
    covered = picture.expand(len(places), *picture.shape).clone()
    for one, (y, x) in zip(covered, places, strict=True):
        one[:, y : y + patch, x : x + patch] = colour
    return covered


def _starts(extent: int, patch: int, stride: int) -> range:
    """Go on until a square reaches the border or beyond."""
    last = stride * math.ceil(max(extent - patch, 0) / stride)
    return range(0, min(last + 1, extent), stride)


def _colour(net: Net, fill: str, pixels: Tensor) -> Tensor:
    if fill == "mean":
        values = net.mean
    elif fill == "grey":
        values = (0.5,) * net.channels
    else:
        try:
            values = (float(fill),) * net.channels
        except ValueError:
            values = (math.nan,)
        if not 0 <= values[0] <= 1:
            raise OptionError(f"fill is 'mean', 'grey' or a value in [0, 1], not {fill!r}")
    return torch.tensor(values, dtype=pixels.dtype, device=pixels.device)[:, None, None]


def _check(patch: int, stride: int, batch: int, height: int, width: int) -> None:
    if not 1 <= patch <= min(height, width):
        raise OptionError(
            f"a patch of {patch} px does not fit a picture of {height}x{width}: give 1 to {min(height, width)}"
        )
    if stride < 1:
        raise OptionError(f"stride is the distance between squares in pixels, at least 1, not {stride}")
    if batch < 1:
        raise OptionError(f"batch is at least 1, not {batch}")
