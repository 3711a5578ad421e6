"""A definition's layers: of any age in today's schema, and those that its rules admit to the test phase."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from ...errors import NetworkError, nearest
from . import prototxt, upgrade
from .prototxt import Field
from .schema import LayerParameter, NetParameter, V1LayerParameter, chosen

MOST_LAYERS = 5000

DATA = {"Input", "Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "DummyData", "AnnotatedData"}
"""Types of layers that bring pictures and labels in."""

_TRAINING_ONLY = {"Accuracy", "ArgMax", "Silence", "HDF5Output"}


@dataclass(frozen=True)
class Spec:
    """One layer: its type by today's name ("Convolution"), what it reads and makes, and its line in the definition.

    `options` is a LayerParameter of today's schema, with the schema's defaults: `options.convolution_param.group`.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    options: Any
    line: int

    def __str__(self) -> str:
        return f"{self.name!r} ({self.type}, line {self.line})"


def layers_at_test(path: Path, text: str, known: Collection[str] | None) -> tuple[Any, list[Spec]]:
    """Read the definition's message and the layers of its test phase, in today's schema.

    Fields that Caffe's schema does not have are refused in layers that run and are of a type in `known`. Raises
    NetworkError.
    """
    written = prototxt.scan(path, text)
    _check_written(path, written)
    message = prototxt.parse(path, text)
    return message, [spec for spec in _specs(path, message, written, known) if _in_test(path, spec, message.state)]


def only_trains(kind: str) -> bool:
    """Tell whether layers of this type only serve training, or only measure."""
    return kind in _TRAINING_ONLY or kind.endswith("Loss")


def listed(entries: Iterable[str], most: int = 20) -> str:
    """Join entries with commas, the first of very many."""
    entries = list(entries)
    return ", ".join(entries[:most]) + (f" and {len(entries) - most} more" if len(entries) > most else "")


def _check_written(path: Path, written: Field) -> None:
    """Refuse what the parser would skip, or what it would fail on at the first of many."""
    new, old = written.all("layer"), written.all("layers")
    if written.all("base_lr") or (written.all("net") and not new):
        raise NetworkError(f"{path} holds a solver's settings: give the definition that it names")
    if not new and not old:
        raise NetworkError(f"{path} defines no layers: a definition has blocks such as layer {{ name: ... type: ... }}")
    if new and old:
        raise NetworkError(
            f"{path} has both `layer` (line {new[0].line}) and `layers` (line {old[0].line}), of which Caffe reads "
            f"one: write all of them as `layer`"
        )
    if len(new + old) > MOST_LAYERS:
        raise NetworkError(f"{path} has {len(new + old):,} layers, and at most {MOST_LAYERS:,} are read")
    around = Field("", 1, fields=[entry for entry in written.fields if entry.name not in ("layer", "layers")])
    rules = Field("", 1, fields=[rule for block in new + old for rule in block.all("include") + block.all("exclude")])
    _refuse(
        path,
        [
            *prototxt.unknown_fields(around, NetParameter.DESCRIPTOR),
            *prototxt.unknown_fields(rules, LayerParameter.DESCRIPTOR),
        ],
    )
    _check_old_types(path, old)


def _refuse(path: Path, unknown: list[str]) -> None:
    if unknown:
        raise NetworkError(f"{path} has fields that Caffe does not know: {listed(unknown)}")


def _check_old_types(path: Path, blocks: list[Field]) -> None:
    """Refuse types that the schema's list for `layers` does not have."""
    written = [(block.get("type"), block.line) for block in blocks if block.all("type")]
    unknown = [(kind, line) for kind, line in written if kind not in upgrade.V1_TYPES and not kind.isdigit()]
    if unknown:
        said = listed(f"{kind!r} (line {line})" for kind, line in unknown)
        raise NetworkError(
            f"{path} has types that `layers` cannot have: {said}; nearest: {nearest(unknown[0][0], upgrade.V1_TYPES)}; "
            f'newer types are written layer {{ type: "Name" }}'
        )


def _specs(path: Path, message: Any, written: Field, known: Collection[str] | None) -> list[Spec]:
    """Return every layer in today's schema; refuse unknown fields in those that run."""
    blocks = written.all("layer") or written.all("layers")
    layers = list(message.layer) or [upgrade.upgraded(layer) for layer in message.layers]
    if len(layers) != len(blocks):
        raise NetworkError(f"{path} has {len(layers)} layers, but blocks of {len(blocks)} were found")
    schema = (LayerParameter if message.layer else V1LayerParameter).DESCRIPTOR
    unknown = list[str]()
    for layer, block in zip(layers, blocks, strict=True):
        # Of a data layer only what it does to pictures matters.
        read = Field("", block.line, fields=block.all("transform_param")) if layer.type in DATA else block
        if layer.type in DATA or (not only_trains(layer.type) and (known is None or layer.type in known)):
            unknown += prototxt.unknown_fields(read, schema)
    _refuse(path, unknown)
    if message.layers:
        upgrade.absorb_padding(layers)
    specs = [
        Spec(layer.name, layer.type, tuple(layer.bottom), tuple(layer.top), layer, block.line)
        for layer, block in zip(layers, blocks, strict=True)
        if not (message.layers and layer.type == upgrade.PADDING)
    ]
    _check_finite(path, specs)
    return specs


def _check_finite(path: Path, specs: list[Spec]) -> None:
    """Refuse options that are not numbers, which would make every map nothing."""
    for spec in specs:
        for _, options in spec.options.ListFields():
            for field, value in options.ListFields() if isinstance(options, Message) else ():
                numbers = value if isinstance(value, Sequence) else [value]
                if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
                    raise NetworkError(f"{path}: layer {spec} has {field.name}: {value}, which is no finite number")


def _in_test(path: Path, spec: Spec, state: Any) -> bool:
    """Tell whether a layer's rules admit it to the test phase, at level 0, in the definition's own stages."""
    include, exclude = spec.options.include, spec.options.exclude
    if include and exclude:
        raise NetworkError(f"{path}: layer {spec} has rules to include and to exclude it: Caffe takes one of the two")
    if include:
        return any(_admits(rule, state) for rule in include)
    return not any(_admits(rule, state) for rule in exclude)


def _admits(rule: Any, state: Any) -> bool:
    return (
        (not rule.HasField("phase") or chosen(rule, "phase") == "TEST")
        and (not rule.HasField("min_level") or rule.min_level <= 0)
        and (not rule.HasField("max_level") or rule.max_level >= 0)
        and set(rule.stage) <= set(state.stage)
        and not set(rule.not_stage) & set(state.stage)
    )
