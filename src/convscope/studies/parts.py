"""Parts of pictures: boxes that a table marks, in pixels of what a network reads, and random ones of the same sizes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import torch
from torch.nn import functional as F

from ..context import say
from ..data.boxes import Box, box_rows
from ..data.images import InputPicture
from ..data.pictures import Picture
from ..errors import OptionError

Rect = tuple[int, int, int, int]
"""The rows and columns that a part covers, ends excluded: top, bottom, left, right."""

Places = dict[str, list[Rect]]
"""Boxes by the name of the part, one for each picture."""


def matched(source: str | Path, pictures: Sequence[Picture]) -> Iterator[tuple[int | None, str, str, Box]]:
    """Yield path, class and box of every row of a table, behind the number of the picture that it means.

    A row means the picture whose address ends with its path, None where there is no such one. Raises OptionError where
    it means several.
    """
    by_name: dict[str, list[int]] = defaultdict(list)
    for row, picture in enumerate(pictures):
        by_name[PurePath(picture.where).name].append(row)
    for path, label, box in box_rows(Path(source)):
        rows = [row for row in by_name[PurePath(path).name] if f"/{pictures[row].where}".endswith(f"/{path}")]
        if len(rows) > 1:
            raise OptionError(f"{source}: {path} is the end of {len(rows)} pictures' addresses: write more of it")
        yield rows[0] if rows else None, path, label, box


def marked(source: str | Path, pictures: Sequence[Picture]) -> dict[int, dict[str, Box]]:
    """Return the boxes of parts by the pictures' rows, as a table has them (its column class names the part).

    Raises OptionError where it marks none of the pictures, or a part twice.
    """
    found: dict[int, dict[str, Box]] = defaultdict(dict)
    unknown = list[str]()
    for row, path, part, box in matched(source, pictures):
        if row is None:
            unknown.append(path)
        elif found[row].setdefault(part or "part", box) != box:
            raise OptionError(f"{source} marks {part or 'part'!r} in {path} twice: a part has one box in a picture")
    if not found:
        raise OptionError(
            f"{source} marks none of the {len(pictures):,} pictures: its first path is {next(iter(unknown), '')!r}, "
            f"and the first picture {pictures[0].where!r}"
        )
    return dict(found)


def complete(found: Mapping[int, Mapping[str, Box]]) -> tuple[list[str], list[int]]:
    """Return the parts, in the order of the table, and the rows of pictures that have all of them; say what has not."""
    parts = list(dict.fromkeys(part for boxes in found.values() for part in boxes))
    rows = [row for row in sorted(found) if len(found[row]) == len(parts)]
    if len(rows) < len(found):
        say(
            f"{len(found) - len(rows)} of {len(found)} marked pictures lack one of {', '.join(parts)}, and are left out"
        )
    return parts, rows


def seen(picture: InputPicture, part: str, box: Box) -> Rect | None:
    """Return a box of the original in pixels of what the network reads; None where that lies outside of it.

    Raises OptionError for a box that is not inside the picture.
    """
    left, top, right, bottom = box
    width, height = picture.original.size
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise OptionError(
            f"the box ({left:g}, {top:g}, {right:g}, {bottom:g}) of {part!r} is no box inside of {picture.where}, "
            f"which has {width} × {height} pixels: boxes are left, top, right, bottom in pixels of the picture's file"
        )
    x, y, *ends = picture.box
    rows, columns = picture.pixels.shape[1:]
    across, down = columns / (ends[0] - x), rows / (ends[1] - y)
    rect = (
        max(0, math.floor((top - y) * down)), min(rows, math.ceil((bottom - y) * down)),
        max(0, math.floor((left - x) * across)), min(columns, math.ceil((right - x) * across)),
    )  # fmt: skip
    return rect if rect[0] < rect[1] and rect[2] < rect[3] else None


def random_rect(like: Rect, height: int, width: int, generator: np.random.Generator) -> Rect:
    """Return a box of the same size anywhere in a picture."""
    down, across = like[1] - like[0], like[3] - like[2]
    top, left = (int(generator.integers(0, side - length + 1)) for side, length in ((height, down), (width, across)))
    return top, top + down, left, left + across


def around(row: float, column: float, side: int, height: int, width: int) -> Rect:
    """Return a square around a place, moved inside the picture where it would lie beyond its border."""
    side = min(side, height, width)
    top, left = (round(min(max(at - side / 2, 0), end - side)) for at, end in ((row, height), (column, width)))
    return top, top + side, left, left + side


def aligned(pictures: Sequence[InputPicture], places: Places) -> tuple[list[InputPicture], Places]:
    """Return pictures moved and scaled so that their parts lie as near as can be to the same places, and these.

    Least squares over the middles of parts; the places are the mean of all pictures, sizes too. What comes in from
    beyond a picture repeats its edge.
    """
    rects = np.array(list(places.values()), float).transpose(1, 0, 2)  # (pictures, parts, edges)
    middles, sides = (rects[:, :, ::2] + rects[:, :, 1::2]) / 2, rects[:, :, 1::2] - rects[:, :, ::2]
    spread = np.sqrt(((middles - middles.mean(1, keepdims=True)) ** 2).sum((1, 2), keepdims=True))
    if not spread.all():
        raise OptionError("pictures cannot be aligned by parts that lie at one place: align=False, or --no-align")
    factors = np.exp(np.log(spread).mean()) / spread
    shape = ((middles - middles.mean(1, keepdims=True)) * factors).mean(0)
    height, width = pictures[0].pixels.shape[1:]
    aims = shape - (shape.max(0) + shape.min(0)) / 2 + np.array([height, width]) / 2
    moved, parts = list[InputPicture](), places.keys()
    for picture, own in zip(pictures, middles, strict=True):
        centred, aim = own - own.mean(0), aims - aims.mean(0)
        scale = float((centred * aim).sum() / (centred**2).sum())
        moved.append(_moved(picture, scale, aims.mean(0) - scale * own.mean(0)))
    side = (sides * factors).mean((0, 2))
    return moved, {
        part: [around(row, column, max(1, round(length)), height, width)] * len(pictures)
        for part, (row, column), length in zip(parts, aims, side, strict=True)
    }


def _moved(picture: InputPicture, scale: float, shift: np.ndarray) -> InputPicture:
    """Return a picture of which the place p went to scale * p + shift (row, column)."""
    height, width = picture.pixels.shape[1:]
    down, across = shift
    # Where a pixel comes from, in coordinates of -1 to 1 (x, y, 1).
    matrix = [
        [1 / scale, 0, (1 - 2 * across / width) / scale - 1],
        [0, 1 / scale, (1 - 2 * down / height) / scale - 1],
    ]
    grid = F.affine_grid(torch.tensor([matrix], dtype=torch.float64), [1, 1, height, width], align_corners=False)
    pixels = torch.from_numpy(picture.pixels)[None]
    found = F.grid_sample(pixels, grid.to(pixels), padding_mode="border", align_corners=False)
    return replace(picture, pixels=found[0].numpy())
