"""Ways to change a picture: shifts, scale and rotation, by amounts, with a named way to fill what lies beyond it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import OptionError

Border = Literal["baseline", "edge", "reflect", "wrap"]
BorderOption = Annotated[
    Border,
    "what lies beyond the picture: the baseline, its edge repeated, the picture mirrored, or its other side (wrap)",
]

_SHIFT, _LARGEST = 60 / 224, 1.8
"""How far the paper moves and enlarges: a share of the side, and a factor."""


@dataclass(frozen=True)
class Change:
    """A way to change pictures: its name, the unit of its amounts, and the first and the last of these."""

    name: str
    unit: str
    axis: str
    low: float
    high: float

    def amounts(self, steps: int) -> list[float]:
        """Return evenly spaced amounts."""
        return [self.low + (self.high - self.low) * step / (steps - 1) for step in range(steps)]

    @property
    def identity(self) -> float:
        """The amount that changes nothing."""
        return 1.0 if self.name == "scale" else 0.0

    def far(self, amount: float) -> float:
        """Return how far an amount is from changing nothing; of a rotation by the shorter way round."""
        turned = abs(amount) % 360
        return min(turned, 360 - turned) if self.name == "rotation" else abs(amount - self.identity)

    def shift(self, amount: float) -> tuple[int, int] | None:
        """Return rows and columns by which the picture moves, where it moves by whole ones."""
        if self.name not in ("vertical", "horizontal") or amount != round(amount):
            return None
        return (round(amount), 0) if self.name == "vertical" else (0, round(amount))

    def matrix(self, amount: float, height: int, width: int) -> list[list[float]]:
        """Return where a changed pixel comes from, in coordinates of -1 to 1 (x, y, 1)."""
        if self.name == "scale":
            return [[1 / amount, 0, 0], [0, 1 / amount, 0]]
        if self.name == "rotation":
            turn = amount * pi / 180
            return [[cos(turn), -sin(turn) * height / width, 0], [sin(turn) * width / height, cos(turn), 0]]
        across, down = (amount, 0.0) if self.name == "horizontal" else (0.0, amount)
        return [[1, 0, -2 * across / width], [0, 1, -2 * down / height]]


def changes(height: int, width: int, ranges: Mapping[str, Sequence[float] | None]) -> list[Change]:
    """Return the changes of some names, each in its range, the paper's where it is None; [0] leaves a change out.

    Raises OptionError for what is no range.
    """
    down, across = round(_SHIFT * height), round(_SHIFT * width)
    kinds = (
        Change("vertical", "pixels", "pixels down", -down, down),
        Change("horizontal", "pixels", "pixels to the right", -across, across),
        Change("scale", "times", "factor", 1.0, _LARGEST),
        Change("rotation", "degrees", "degrees", 0.0, 360.0),
    )
    return [made for kind in kinds if (made := _in_range(kind, ranges.get(kind.name))) is not None]


def _in_range(kind: Change, given: Sequence[float] | None) -> Change | None:
    if given is None:
        return kind
    if list(given) == [0]:
        return None
    if len(given) != 2 or not given[0] < given[1] or (kind.name == "scale" and given[0] <= 0):
        least = ", above 0" if kind.name == "scale" else ""
        raise OptionError(
            f"{kind.name} is the first and the last amount, in {kind.unit}{least}, as {kind.low:g},{kind.high:g}, or "
            f"0 to leave it out; not {','.join(f'{value:g}' for value in given)}"
        )
    return Change(kind.name, kind.unit, kind.axis, float(given[0]), float(given[1]))


def changed(pixels: Tensor, change: Change, amounts: Sequence[float], border: Border, replacement: Tensor) -> Tensor:
    """Return pixels (1, c, h, w) changed by each amount, (n, c, h, w): exactly where whole pixels move, or none."""
    return torch.cat([_changed(pixels, change, amount, border, replacement) for amount in amounts])


def _changed(pixels: Tensor, change: Change, amount: float, border: Border, replacement: Tensor) -> Tensor:
    if change.far(amount) == 0:
        return pixels
    shift = change.shift(amount)
    if shift is not None:
        return shifted(pixels, *shift, border, replacement)
    height, width = pixels.shape[2:]
    matrix = torch.tensor([change.matrix(amount, height, width)], dtype=torch.float64)
    grid = F.affine_grid(matrix, [1, 1, height, width], align_corners=False).to(pixels)
    if border == "baseline":  # bilinear sampling of what differs from the baseline: zero beyond the border
        return F.grid_sample(pixels - replacement, grid, align_corners=False) + replacement
    if border == "wrap":
        pixels, grid = _on_torus(pixels, grid)
    mode = "reflection" if border == "reflect" else "border"
    return F.grid_sample(pixels, grid, padding_mode=mode, align_corners=False)


def _on_torus(pixels: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Return pixels with one more around, taken from the other side, and a grid that finds every place in them."""
    sides = torch.tensor([pixels.shape[3], pixels.shape[2]], dtype=grid.dtype, device=grid.device)
    places = (((grid + 1) * sides - 1) / 2) % sides
    return F.pad(pixels, (1, 1, 1, 1), mode="circular"), (2 * (places + 1) + 1) / (sides + 2) - 1


def shifted(pixels: Tensor, down: int, right: int, border: Border, replacement: Tensor) -> Tensor:
    """Return pixels (n, c, h, w) moved by whole pixels: no value is changed."""
    height, width = pixels.shape[2:]
    (rows, in_rows), (columns, in_columns) = _origin(height, down, border), _origin(width, right, border)
    moved = pixels[:, :, rows][:, :, :, columns]
    if border != "baseline":
        return moved
    inside = (in_rows[:, None] & in_columns).to(pixels.device)
    return torch.where(inside, moved, replacement)


def _origin(side: int, shift: int, border: Border) -> tuple[Tensor, Tensor]:
    """Return the row from which each one comes, and whether that lies inside."""
    origin = torch.arange(side) - shift
    inside = (origin >= 0) & (origin < side)
    if border == "wrap":
        return origin % side, inside
    if border == "reflect":
        folded = origin % (2 * side)
        return torch.minimum(folded, 2 * side - 1 - folded), inside
    return origin.clamp(0, side - 1), inside
