"""Invariance: how features and the answer change while a picture is shifted, enlarged and rotated.

After Zeiler and Fergus (arXiv:1311.2901v3, Fig. 5): for vertical shifts, scales and rotations the Euclidean distance
between the features of the changed picture and those of the picture itself, in the first layer and in the last before
the classes, and the probability of the class. The paper does not say how features are scaled, nor what lies beyond
the picture's border: here distances are divided by the norm of the picture's own features, and an option decides
what fills the border.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Annotated

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .. import baselines
from ..attribution.occlusion import BaselineOption
from ..batching import in_batches
from ..data.images import InputPicture
from ..drawing import charts
from ..drawing.drawings import Gallery
from ..drawing.layout import Sheet, Tile
from ..drawing.tiles import fitted
from ..layers import before_classes, default_convolutions, find_layer
from ..net import Net
from ..options import Range
from ..predictions import ObjectiveLike
from ..recipes import Recipe
from ..registry import view
from ..tapping import tap
from ..tracing import OUTPUT, Layer
from .inputs import class_asked, stem

_SHIFT, _LARGEST = 60 / 224, 1.8
"""How far the paper moves and enlarges: a share of the height, and a factor."""

_SIDE, _CHART = 78, (230, 178)
_SHOWN = 6
_BATCH = 16


@dataclass(frozen=True)
class _Kind:
    """A way to change pictures: its name, the unit of its amounts, and the least and the largest of these."""

    name: str
    unit: str
    axis: str
    low: float
    high: float

    def amounts(self, steps: int) -> list[float]:
        return [self.low + (self.high - self.low) * step / (steps - 1) for step in range(steps)]

    def matrix(self, amount: float, height: int, width: int) -> list[list[float]]:
        """Return where a changed pixel comes from, in coordinates of -1 to 1 (x, y, 1)."""
        if self.name == "scale":
            return [[1 / amount, 0, 0], [0, 1 / amount, 0]]
        if self.name == "rotation":
            turn = amount * pi / 180
            return [[cos(turn), -sin(turn) * height / width, 0], [sin(turn) * width / height, cos(turn), 0]]
        return [[1, 0, 0], [0, 1, -2 * amount / height]]


def _kinds(height: int) -> tuple[_Kind, ...]:
    reach = round(_SHIFT * height)
    return (
        _Kind("vertical shift", "pixels", "pixels down", -reach, reach),
        _Kind("scale", "times", "factor", 1.0, _LARGEST),
        _Kind("rotation", "degrees", "degrees", 0.0, 360.0),
    )


@view("Invariance", paper="Zeiler & Fergus 2013, arXiv:1311.2901v3, Fig. 5")
def invariance(
    net: Net,
    pictures: list[InputPicture],
    *,
    of: Annotated[ObjectiveLike, "the class whose probability is shown; each picture's top-1 class by default"] = None,
    layers: Annotated[
        list[str] | None,
        "layers whose features are compared; by default the first convolution and the last layer before the classes",
    ] = None,
    steps: Annotated[int, "number of amounts by which pictures are shifted, enlarged and rotated", Range(3)] = 13,
    baseline: BaselineOption = "mean",
) -> Gallery:
    """Show how features and a class's probability change while pictures are shifted, enlarged and rotated.

    The values are `distances` (3 changes, layers, pictures, steps), Euclidean and divided by the norm of the picture's
    own features, `probability` or, where the output is none, `score` (3 changes, pictures, steps), and `amounts`
    (3 changes, steps). Raises LayerError for a layer that there is not, NetworkError where outputs are no
    classes.
    """  # fmt: skip
    targets = [class_asked(net, net.pixels(picture), of) for picture in pictures]
    chosen = [find_layer(net, name) for name in layers] if layers else _two(net)
    names = [layer.name for layer in chosen]
    kinds = _kinds(min(picture.pixels.shape[1] for picture in pictures))
    amounts = torch.tensor([kind.amounts(steps) for kind in kinds])
    measured = [
        _measured(net, net.pixels(picture), target, names, (kinds, amounts), baseline)
        for picture, target in zip(pictures, targets, strict=True)
    ]
    distances = torch.stack([each.distances for each in measured], 2)
    shares = torch.stack([each.shares for each in measured], 1)
    labelled = [
        f"{stem(picture) or number}: {net.class_name(target)}"
        for number, (picture, target) in enumerate(zip(pictures, targets, strict=True), 1)
    ]
    word = "score" if net.head.kind == "value" else "probability"
    rows = _rows(kinds, amounts, measured[0].changed, pictures[0], (distances, shares), labelled)
    sheet = Sheet(
        f"Invariance of {net.name}",
        tuple(rows),
        "Euclidean distance of features to those of the picture itself, divided by their norm · 0: nothing changed · "
        f"baseline {baseline}" + (f" · {labelled[0]}" if len(labelled) == 1 else ""),
        "",
        ("the picture, changed", *(f"distance in {name or 'the output'}" for name in names), f"{word} of its class"),
        (*(kind.name for kind in kinds), *("",) * (len(rows) - len(kinds))),
    )  # fmt: skip
    settled = {"layers": names, "classes": targets}
    return Gallery(sheet, {"distances": distances, word: shares, "amounts": amounts}, Recipe(settled=settled))


def _two(net: Net) -> list[Layer]:
    """Return the paper's layers 1 and 7: the first convolution, and what the classes are read from."""
    return list(dict.fromkeys((default_convolutions(net)[0], before_classes(net))))


@dataclass(frozen=True)
class _Measured:
    """What changes of one picture did: distances (3, layers, steps) and what is said of the class (3, steps)."""

    changed: list[Tensor]
    distances: Tensor
    shares: Tensor


def _measured(
    net: Net,
    pixels: Tensor,
    target: int,
    layers: Sequence[str],
    changes: tuple[Sequence[_Kind], Tensor],
    baseline: str,
) -> _Measured:
    replacement = baselines.baseline_pixels(net, pixels, baseline)
    own = _read(net, pixels, layers)
    changed = [changed_pixels(pixels, replacement, kind, row.tolist()) for kind, row in zip(*changes, strict=True)]
    far, shares = list[Tensor](), list[Tensor]()
    for each in changed:
        parts = list(
            in_batches(lambda piece, each=each: _read(net, each[piece], layers), len(each), _BATCH, "invariance")
        )
        read = {name: torch.cat([part[name] for part in parts]) for name in own}
        far.append(torch.stack([_distance(read[name], own[name]) for name in layers]))
        shares.append(read[OUTPUT][:, target])
    return _Measured(changed, torch.stack(far), torch.stack(shares))


def changed_pixels(pixels: Tensor, replacement: Tensor, kind: _Kind, amounts: Sequence[float]) -> Tensor:
    """Return pixels (1, c, h, w) changed by each amount, (n, c, h, w), with the replacement beyond their border."""
    height, width = pixels.shape[2:]
    matrices = torch.tensor([kind.matrix(amount, height, width) for amount in amounts], dtype=torch.float64)
    grid = F.affine_grid(matrices, [len(amounts), 1, height, width], align_corners=False).to(pixels)
    # Bilinear sampling of what differs from the replacement: zero beyond the border.
    differing = (pixels - replacement).expand(len(amounts), -1, -1, -1)
    return F.grid_sample(differing, grid, align_corners=False) + replacement


def _read(net: Net, pixels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return the features of layers and, under the output's name, what the head says, on the CPU."""
    with torch.inference_mode():
        readings = tap(net, pixels, [*layers, OUTPUT])
    output = readings[OUTPUT].float()
    said = {OUTPUT: net.head.read(output if output.ndim == 2 else output[:, None])}
    return {name: value.float().cpu() for name, value in (readings | said).items()}


def _distance(features: Tensor, own: Tensor) -> Tensor:
    norm = own.flatten(1).norm(dim=1)
    return (features - own).flatten(1).norm(dim=1) / torch.where(norm > 0, norm, 1)


def _rows(
    kinds: Sequence[_Kind],
    amounts: Tensor,
    changed: Sequence[Tensor],
    picture: InputPicture,
    numbers: tuple[Tensor, Tensor],
    labelled: Sequence[str],
) -> list[tuple[Tile | None, ...]]:
    """Lay out, for each change, the first picture changed and a chart per layer and for the class."""
    distances, shares = numbers
    unique = [f"{number} {text}" for number, text in enumerate(labelled, 1)]
    rows = list[tuple[Tile | None, ...]]()
    for i, kind in enumerate(kinds):
        shown = _shown(changed[i], picture)
        low, high = (f"{amount:.3g}".replace("-", "−") for amount in (kind.low, kind.high))
        drawn = [
            charts.lines(
                amounts[i].tolist(),
                dict(zip(unique, values.tolist(), strict=True)),
                (kind.axis, ""),
                _CHART,
                legend=False,
            )
            for values in (*distances[i], shares[i])
        ]
        rows.append((Tile(shown, f"{low} to {high} {kind.unit}"), *map(Tile, drawn)))
    return [*rows, *_legend(labelled, len(rows[0]))] if len(labelled) > 1 else rows


def _legend(labelled: Sequence[str], across: int) -> Iterator[tuple[Tile, ...]]:
    """Name the lines: strips of their colours, with captions, which have room at any size."""
    strips = [
        Tile(Image.new("RGB", (3 * _SIDE, 6), charts.colour(number)), text) for number, text in enumerate(labelled)
    ]
    for start in range(0, len(strips), across):
        yield tuple(strips[start : start + across])


def _shown(changed: Tensor, picture: InputPicture) -> Image.Image:
    """Show a few of the changed pictures, from the least to the largest amount, in two rows."""
    chosen = torch.linspace(0, len(changed) - 1, min(_SHOWN, len(changed))).round().long().tolist()
    frames = [fitted(picture.image(changed[index].float().cpu().numpy()), _SIDE) for index in chosen]
    across = -(-len(frames) // 2)
    whole = Image.new("RGB", (across * _SIDE + 2 * (across - 1), 2 * _SIDE + 2), "white")
    for number, frame in enumerate(frames):
        row, column = divmod(number, across)
        whole.paste(frame.convert("RGB"), (column * (_SIDE + 2), row * (_SIDE + 2)))
    return whole
