"""Read a Caffe definition (.prototxt) of any age as the layers that its network has at test time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import NetworkError
from . import inputs, prototxt
from .inputs import InputSource
from .specs import DATA, Spec, layers_at_test, listed, only_trains

__all__ = ["Definition", "Spec", "read_definition"]


@dataclass(frozen=True)
class Definition:
    """A network's layers in order, and the shape of its input without the batch, such as {"data": (3, 227, 227)}.

    `dropped` names what was left out because it only serves training ("loss (SoftmaxWithLoss)"); `transform` is the
    TransformationParameter of the data layer that the input was made from, if there was one, and `resize` the height
    and width to which that layer brings pictures before it cuts the input out of them, if it says so.
    """

    path: Path
    name: str
    inputs: dict[str, tuple[int, ...]]
    layers: tuple[Spec, ...]
    dropped: tuple[str, ...]
    transform: Any
    resize: tuple[int, int] | None


def read_definition(
    path: Path,
    *,
    known: Collection[str] | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
) -> Definition:
    """Read the network of the test phase, without what only serves training.

    `size` and `channels` are those of the pictures, for a definition that does not tell them. Layers of types not in
    `known` are refused, all at once, and so are fields that Caffe's schema does not have. Raises NetworkError.
    """
    message, present = layers_at_test(path, prototxt.read_text(path), known)
    outside = inputs.sources(path, message, present)
    layers, dropped = _without_training(path, [spec for spec in present if spec.type not in DATA], outside)
    _check_types(path, layers, known)
    _check_names(path, layers)
    _check_blobs(path, outside, layers)
    source = inputs.the_input(path, outside, layers)
    return Definition(
        path,
        message.name or path.stem,
        {source.name: inputs.shape_of(path, source, size, channels)},
        tuple(layers),
        tuple(f"{spec.name} ({spec.type})" for spec in dropped),
        source.transform,
        source.resize,
    )


def _without_training(path: Path, specs: list[Spec], sources: list[InputSource]) -> tuple[list[Spec], list[Spec]]:
    """Part the layers that run from those that only serve training: losses, measures, what prepares labels for them."""
    gone = {source.name for source in sources if source.label}
    labels = set(gone)
    kept: list[Spec] = []
    dropped: list[Spec] = []
    for spec in specs:
        if only_trains(spec.type) or gone & set(spec.bottoms):
            dropped.append(spec)
            gone |= set(spec.tops)
            labels |= set(spec.tops) if set(spec.bottoms) <= labels else set()
        else:
            kept.append(spec)
            gone -= set(spec.tops)
    read = {bottom for spec in dropped for bottom in spec.bottoms}
    for spec in dropped:
        if not (only_trains(spec.type) or set(spec.bottoms) <= labels or read & set(spec.tops)):
            raise NetworkError(
                f"{path}: layer {spec} makes an output from {listed(map(repr, gone & set(spec.bottoms)))}, which only "
                f"training has: delete the layer"
            )
    return kept, dropped


def _check_types(path: Path, layers: list[Spec], known: Collection[str] | None) -> None:
    lines: dict[str, list[str]] = {}
    for spec in layers:
        if known is not None and spec.type not in known:
            lines.setdefault(spec.type, []).append(str(spec.line))
    if lines:
        said = listed(f"{kind!r} (line {listed(at)})" for kind, at in lines.items())
        raise NetworkError(f"{path} has layers of unknown types: {said}; known are {', '.join(sorted(known or ()))}")


def _check_names(path: Path, layers: list[Spec]) -> None:
    first: dict[str, Spec] = {}
    for spec in layers:
        if not spec.name:
            raise NetworkError(f'{path}: the {spec.type} layer at line {spec.line} has no name: write name: "..."')
        if spec.name in first:
            raise NetworkError(
                f"{path} has two layers named {spec.name!r}, in lines {first[spec.name].line} and {spec.line}: "
                f"rename one of them"
            )
        first[spec.name] = spec


def _check_blobs(path: Path, outside: list[InputSource], layers: list[Spec]) -> None:
    """Refuse layers that read what no layer before them makes, or make what another has made."""
    made = {source.name: f"the input {source.name!r}" for source in outside if not source.label}
    missing: list[str] = []
    for spec in layers:
        missing += [f"{bottom!r} for layer {spec}" for bottom in spec.bottoms if bottom not in made]
        for position, top in enumerate(spec.tops):
            if top in made and spec.bottoms[position : position + 1] != (top,):
                raise NetworkError(
                    f"{path}: layer {spec} makes {top!r}, which {made[top]} has made: rename one of the two"
                )
            made[top] = f"layer {spec}"
    if missing:
        raise NetworkError(
            f"{path} lacks blobs that no layer makes before they are read: {listed(missing)}; there are "
            f"{listed(map(repr, made), 40)}"
        )
