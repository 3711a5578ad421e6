"""Objectives: the objective, one number per picture.

    objective  = term { (" + " | " - ") term }
    term      = [ number "*" ] ( "answer" | class | "p(" class ")" | layer ":" channel [ "@" place ] | layer | made )
    class     = index | name, or a part of it that no other name has
    layer     = dotted name | n, the nth convolution
    place     = y "," x | "max" | "mean" | "centre"
    made      = "energy(" layer ")" | "direction(" layer "," file.npy ")" | "diversity(" layer ")"
              | "tv()" | "l1()" | "l2()" | "blur()"

A class is its score before the softmax, p(class) its probability. "answer" is the output of a network that gives one
number per picture. What stands under "made" is in `objective terms.py`; tv, l1,
l2, blur and diversity judge pictures that are being made, and are refused where a picture is explained.

Without a place a channel means its strongest place in projections (Zeiler & Fergus isolate one activation) and its
mean elsewhere; `explain` says which in the caption.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from .errors import ObjectiveError, nearest
from .layers import channelled_layer, output_or_layer
from .net import Net
from .tapping import tap
from .terms import parse_term
from .tracing import OUTPUT

WHOLE_OUTPUT = "answer"

Position = tuple[int, int] | Literal["max", "mean", "centre"] | None


@runtime_checkable
class Term(Protocol):
    """One kind of objective: a layer, and how its activity becomes one number per picture."""

    @property
    def layer(self) -> str:
        """The layer to read, "" for the output; PIXELS for the picture itself."""
        ...

    def read(self, activity: Tensor) -> Tensor:
        """Reduce the layer's activity to one number per picture, shape (n,)."""
        ...

    def title(self, net: Net) -> str:
        """Say in plain words what is asked for."""
        ...


@dataclass(frozen=True)
class Unit:
    """A layer, a channel of it, or one place of that channel."""

    layer: str
    channel: int | None = None
    position: Position = None

    def read(self, activity: Tensor) -> Tensor:
        """Reduce a layer's activity (n, c) or (n, c, h, w) to one number per picture."""
        if self.channel is None:
            return activity.reshape(len(activity), -1).mean(1)
        channel = activity[:, self.channel]
        if channel.ndim == 1:
            return channel
        if isinstance(self.position, tuple):
            return channel[:, self.position[0], self.position[1]]
        if self.position == "centre":
            return channel[:, channel.shape[1] // 2, channel.shape[2] // 2]
        flat = channel.flatten(1)
        if self.position == "max":
            # A maximum by index: the gradient goes to one place, also when several tie.
            return flat.gather(1, flat.argmax(1, keepdim=True))[:, 0]
        return flat.mean(1)

    def __str__(self) -> str:
        if self.channel is None:
            return self.layer or WHOLE_OUTPUT
        if self.layer == OUTPUT and self.position is None:
            return str(self.channel)
        position = ",".join(map(str, self.position)) if isinstance(self.position, tuple) else self.position
        return f"{self.layer}:{self.channel}" + (f"@{position}" if position else "")

    def title(self, net: Net) -> str:
        """Say in plain words what is asked for."""
        if self.channel is None:
            return f"layer {self.layer}" if self.layer else net.answer or "the answer"
        if self.layer == OUTPUT and self.position is None:
            return net.class_name(self.channel)
        where = f" at row {self.position[0]}, column {self.position[1]}" if isinstance(self.position, tuple) else ""
        where = " at the centre" if self.position == "centre" else where
        if self.layer == OUTPUT and self.channel < len(net.classes):
            return f"{net.class_name(self.channel)}{where}"
        return f"channel {self.channel} of {self.layer or 'the output'}{where}"


@dataclass(frozen=True)
class Probability:
    """The probability of a class, which also asks for all other classes to go down."""

    channel: int
    layer: str = OUTPUT

    def read(self, activity: Tensor) -> Tensor:
        """Reduce the output (n, classes) to one probability per picture."""
        return probabilities(activity)[:, self.channel]

    def __str__(self) -> str:
        return f"p({self.channel})"

    def title(self, net: Net) -> str:
        """Say in plain words what is asked for."""
        return f"probability of {net.class_name(self.channel)}"


@dataclass(frozen=True)
class Output:
    """Any function of the network's output that gives one number per picture."""

    function: Callable[[Tensor], Tensor]
    layer: str = OUTPUT

    def read(self, activity: Tensor) -> Tensor:
        score: Any = self.function(activity)
        if not isinstance(score, Tensor) or score.shape != activity.shape[:1]:
            got = f"shape {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
            raise ObjectiveError(
                f"{self} gave {got} for {len(activity)} pictures: expected ({len(activity)},), one number per picture"
            )
        return score

    def __str__(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def title(self, net: Net) -> str:
        return "a function of the answer" if str(self) == "<lambda>" else str(self).replace("_", " ")


def probabilities(output: Tensor) -> Tensor:
    """Return class probabilities (n, classes): the softmax of the output, or the output where it is one already."""
    sums = output.detach().sum(1)
    if output.detach().min() >= 0 and bool(((sums - 1).abs() < 1e-3).all()):
        return output
    return output.softmax(1)


@dataclass(frozen=True)
class Objective:
    """A weighted sum of objectives; add, subtract and multiply objectives to make new ones."""

    terms: tuple[tuple[float, Term], ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that must be read to answer."""
        return tuple(dict.fromkeys(term.layer for _, term in self.terms))

    def score(self, readings: dict[str, Tensor]) -> Tensor:
        """Return one number per picture from the layers that `tap` has read, shape (n,)."""
        scores = [term.read(readings[term.layer]) for _, term in self.terms]
        weighted = [s if w == 1 else w * s for (w, _), s in zip(self.terms, scores, strict=True)]
        total = weighted[0]
        for score in weighted[1:]:
            total = total + score
        return total

    def __call__(self, net: Net, pixels: Tensor) -> Tensor:
        """Return one number per picture, shape (n,), running the network no further than needed."""
        return self.score(tap(net, pixels, self.layers))

    def at(self, position: Position) -> Objective:
        """Settle the place of every channel that was asked for without one."""
        terms = [(w, _settle(term, position)) for w, term in self.terms]
        return Objective(tuple(terms))

    @property
    def class_index(self) -> int | None:
        """The class, when the objective is one class and nothing else."""
        weight, term = self.terms[0]
        if len(self.terms) > 1 or weight != 1 or not isinstance(term, Unit) or term.layer != OUTPUT:
            return None
        return term.channel if term.position is None else None

    def title(self, net: Net) -> str:
        """Say in plain words what is asked for."""
        return _join(self.terms, lambda term: term.title(net))

    def __str__(self) -> str:
        return _join(self.terms, str)

    def __add__(self, other: Objective) -> Objective:
        return Objective(self.terms + other.terms)

    def __mul__(self, factor: float) -> Objective:
        return Objective(tuple((weight * factor, term) for weight, term in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return self * -1.0

    def __sub__(self, other: Objective) -> Objective:
        return self + -other


def _settle(term: Term, position: Position) -> Term:
    if isinstance(term, Unit) and term.layer != OUTPUT and term.channel is not None and term.position is None:
        return replace(term, position=position)
    return term


def _join(terms: tuple[tuple[float, Term], ...], write: Callable[[Any], str]) -> str:
    text = ""
    for weight, term in terms:
        sign = " - " if weight < 0 and text else " + " if text else ""
        factor = abs(weight) if text else weight
        text += sign + ("" if factor == 1 else f"{factor!r}*") + write(term)
    return text


def as_objective(net: Net, of: str | int | Objective | Callable[[Tensor], Tensor]) -> Objective:
    """Turn an objective in any form into an Objective.

    `of` is a class index, a class name (or a part of one, in any case), "p(class)" for its probability,
    "layer:channel", "layer:channel@y,x", a layer, sums and multiples of those ("tabby - 0.5*lynx"), a function of the
    network's output, or an Objective.

    Raises ObjectiveError when it cannot be resolved, with the nearest classes, or the ranges that exist.
    """
    if isinstance(of, Objective):
        return of
    if isinstance(of, int):
        return Objective(((1.0, _class_index(net, of)),))
    if callable(of):
        return Objective(((1.0, Output(of)),))
    text = str(of).strip()
    if not text:
        raise ObjectiveError("the objective is empty: give a class, or layer:channel")
    whole = _exact_class(net, text)
    if whole is not None:
        return Objective(((1.0, whole),))
    pieces = re.split(r"\s+([+-])\s+", text)
    signs = [1.0] + [1.0 if sign == "+" else -1.0 for sign in pieces[1::2]]
    terms = []
    for sign, piece in zip(signs, pieces[::2], strict=True):
        weight, term = _term(net, piece.strip())
        terms.append((sign * weight, term))
    return Objective(tuple(terms))


def _term(net: Net, text: str) -> tuple[float, Term]:
    match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*\s*(.+)", text)
    if match:
        return float(match[1]), _unit(net, match[2].strip())
    return 1.0, _unit(net, text)


def _unit(net: Net, text: str) -> Term:
    found = _exact_class(net, text)
    if found is not None:
        return found
    if text == WHOLE_OUTPUT and not net.output.shape:
        return Unit(OUTPUT)
    match = re.fullmatch(r"(\w+)\((.*)\)", text)
    if match and match[1] == "p":
        return _probability(net, match[2].strip())
    if match:
        return parse_term(net, match[1], match[2].strip())
    if re.fullmatch(r"[+-]?\d+", text):
        return _class_index(net, int(text))
    match = re.fullmatch(r"(.*?):(\d+)(?:@(max|mean|centre|\d+\s*,\s*\d+))?", text)
    if match:
        return _channel(net, match[1], int(match[2]), match[3])
    if ":" in text or "@" in text:
        raise ObjectiveError(
            f"cannot read {text!r}: a unit is layer:channel or layer:channel@row,column, as 'features.8:42@6,6'"
        )
    if text in net.layers:
        return Unit(net.layer(text).name)
    return _class_part(net, text)


def _probability(net: Net, text: str) -> Probability:
    unit = _unit(net, text)
    if not isinstance(unit, Unit) or unit.layer != OUTPUT or unit.channel is None or len(net.output.shape) != 1:
        raise ObjectiveError(f"p({text}) is not the probability of a class: ask as p(281) or p(tabby)")
    return Probability(unit.channel)


def _class_index(net: Net, index: int) -> Unit:
    shape = net.output.shape
    if not shape:
        raise ObjectiveError(
            f"{net.name} gives one number per picture, not classes: ask for {WHOLE_OUTPUT!r}, or give none"
        )
    count = shape[0]
    if not 0 <= index < count:
        raise ObjectiveError(f"{net.name} has {count} classes, 0 to {count - 1}: there is no class {index}")
    return Unit(OUTPUT, index)


def _exact_class(net: Net, text: str) -> Unit | None:
    """Find a class by its whole name; a number that is an index means the index."""
    if re.fullmatch(r"\d+", text) and int(text) < (net.output.shape or (0,))[0]:
        return Unit(OUTPUT, int(text))
    same = [i for i, name in enumerate(net.classes) if name.lower() == text.lower()]
    count = (net.output.shape or (0,))[0]
    if same and same[-1] >= count:
        raise ObjectiveError(f"{net.name} has {len(net.classes)} class names for {count} outputs: give one name each")
    if len(same) > 1:
        raise ObjectiveError(
            f"{net.name} has {len(same)} classes named {text!r}: ask by index, {' or '.join(map(str, same))}"
        )
    return Unit(OUTPUT, same[0]) if same else None


def _class_part(net: Net, text: str) -> Unit:
    if not net.classes:
        raise ObjectiveError(
            f"{net.name} has no class names: ask by index, or name a layer ({nearest(text, net.layers)})"
        )
    found = [i for i, name in enumerate(net.classes) if text.lower() in name.lower()]
    if len(found) == 1:
        return Unit(OUTPUT, found[0])
    if found:
        some = ", ".join(f"{i} {net.classes[i]}" for i in found[:6]) + (", ..." if len(found) > 6 else "")
        raise ObjectiveError(
            f"{text!r} is part of {len(found)} class names of {net.name}: {some}. Ask for one, by name or index"
        )
    raise ObjectiveError(
        f"{net.name} has no class or layer {text!r}; nearest: {nearest(text, (*net.classes, *net.layers))}"
    )


def _channel(net: Net, name: str, channel: int, position: str | None) -> Unit:
    layer = channelled_layer(net, output_or_layer(net, name).name, error=ObjectiveError)
    if channel >= layer.shape[0]:
        raise ObjectiveError(f"layer {layer.name!r} has channels 0 to {layer.shape[0] - 1}: there is no {channel}")
    if position is None or position in ("max", "mean", "centre"):
        return Unit(layer.name, channel, position)
    if not layer.spatial:
        raise ObjectiveError(f"layer {layer.name!r} has no places: ask for '{layer.name}:{channel}'")
    y, x = (int(number) for number in position.split(","))
    height, width = layer.grid
    if y >= height or x >= width:
        raise ObjectiveError(
            f"layer {layer.name!r} has {height} rows and {width} columns for a picture of {net.size[0]}x{net.size[1]}: "
            f"there is no place {y},{x}"
        )
    return Unit(layer.name, channel, (y, x))
