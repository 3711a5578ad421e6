"""What a layer is planned as, and how it is refused: shapes without the batch, checked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ...errors import NetworkError
from .inputs import MOST_NUMBERS
from .specs import Spec

Shape = tuple[int, ...]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """A layer that fits: the shapes of its tops, and what makes its module.

    `blobs` are the shapes of what it learns as Caffe stores them, in Caffe's order, by the names of the module's
    tensors.
    """

    tops: list[Shape]
    make: Callable[[], nn.Module]
    blobs: dict[str, Shape] = field(default_factory=dict[str, Shape])


def refusal(spec: Spec, reason: str) -> NetworkError:
    """Return the error that says why a layer cannot be."""
    return NetworkError(f"layer {spec} {reason}")


def shown(shape: Sequence[int]) -> str:
    """Write a shape as people do: "96x55x55"."""
    return "x".join(map(str, shape)) or "one number"


def check_size(spec: Spec, what: str, shape: Shape) -> None:
    """Refuse a blob without numbers, or with absurdly many."""
    if min(shape, default=1) < 1:
        raise refusal(spec, f"makes an empty {what} ({shown(shape)}): its bottoms are too small for its window")
    if math.prod(shape) > MOST_NUMBERS:
        raise refusal(
            spec, f"makes {what} of {shown(shape)}: {math.prod(shape):,} numbers are more than {MOST_NUMBERS:,}"
        )


def axis_of(spec: Spec, given: int, shape: Shape) -> int:
    """Return an axis as torch counts it. Refuses the axis of the batch: its pictures are to be told apart."""
    axis = given + len(shape) + 1 if given < 0 else given
    if not 1 <= axis <= len(shape):
        raise refusal(
            spec, f"works along axis {given} of a bottom {shown(shape)}: its axes are 1 to {len(shape)}, 0 is the batch"
        )
    return axis


def picture_of(spec: Spec, shape: Shape) -> tuple[int, int, int]:
    """Return channels, height and width, or refuse what has none."""
    if len(shape) != 3:
        raise refusal(spec, f"reads channels x height x width, but its bottom is {shown(shape)}")
    return shape[0], shape[1], shape[2]


def check_alike(spec: Spec, shapes: list[Shape], *, but: int | None = None) -> None:
    """Refuse bottoms of several shapes; `but` is the axis along which they may differ."""
    kept = [shape if but is None else (*shape[: but - 1], -1, *shape[but:]) for shape in shapes]
    if any(one != kept[0] for one in kept):
        where = "" if but is None else f" but for axis {but}"
        raise refusal(spec, f"needs bottoms of one shape{where}, not {', '.join(map(shown, shapes))}")


def check_outputs(spec: Spec, options: Any) -> None:
    """Refuse a layer without outputs."""
    if options.num_output < 1:
        raise refusal(spec, "needs num_output of at least 1")


def weighed(weight: Shape, options: Any) -> dict[str, Shape]:
    """Return the blobs of a layer with weights and, unless it says otherwise, a bias."""
    return {"weight": weight} | ({"bias": (options.num_output,)} if options.bias_term else {})
