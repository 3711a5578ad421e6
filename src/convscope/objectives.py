"""Objectives: the score that a picture is explained by, one number per picture.

    objective = term { (" + " | " - ") term }
    term      = [ number "*" ] ( "output" | class | "p(" class | unit ")" | unit | layer | function )
    class     = index | name, or a part of it that no other name contains
    unit      = layer ":" channel [ "@" position ]
    layer     = dotted name | n, the nth convolution
    position  = row "," column | "max" | "mean" | "centre"
    function  = "energy(" layer ")" | "direction(" layer "," file.npy ")" | "diversity(" layer ")"
              | "tv()" | "l1()" | "l2()" | "blur()"

A class is its score, the output before a softmax or sigmoid; p(class) is its probability, by what the outputs are
(`heads`). "output" is the output of a network that gives one number per picture. The functions are in `terms.py`; tv,
l1, l2, blur and diversity are regularisers for synthesis, and are refused where a given picture is explained.

A channel without a position is its strongest position in projections (Zeiler & Fergus isolate one activation) and its
mean elsewhere; `explain` says which in the caption.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import index as as_index
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from .context import say
from .errors import ObjectiveError, nearest
from .heads import STATE, Head
from .layers import channelled_layer, find_layer, net_at, output_or_layer
from .net import Net
from .tapping import tap
from .terms import parse_term
from .tracing import OUTPUT, WHOLE_OUTPUT

Position = tuple[int, int] | Literal["max", "mean", "centre"] | None


@runtime_checkable
class Term(Protocol):
    """A part of an objective: a layer, and how its activity becomes one number per picture. Hashable."""

    @property
    def layer(self) -> str:
        """The layer to read, "" for the output; PIXELS for the picture itself."""
        ...

    def read(self, activity: Tensor) -> Tensor:
        """Reduce the layer's activity to one number per picture, shape (n,)."""
        ...

    def title(self, net: Net) -> str:
        """Return the words that stand for it in titles and captions."""
        ...


def check_real(values: Tensor, where: str) -> None:
    """Raise ObjectiveError for complex numbers, and for integers, through which no gradient passes."""
    if values.is_floating_point():
        return
    what, way = (
        ("complex numbers", "their magnitude is read by Net(..., output=lambda y: y.abs())")
        if values.is_complex()
        else (
            f"{str(values.dtype).removeprefix('torch.')}, such as the index of a class",
            "give what it is computed from, by Net(..., output=...) or by the name of a layer before",
        )
    )
    raise ObjectiveError(f"{where} holds {what}, and a score is a real number: {way}")


def check_position(position: tuple[int, int], grid: Sequence[int], layer: str, size: Sequence[int] = ()) -> None:
    """Raise ObjectiveError for a row and column that a layer of a grid (rows, columns) lacks for pictures of a size."""
    if not all(0 <= at < extent for at, extent in zip(position, grid, strict=True)):
        picture = f"a picture of {size[0]}x{size[1]}" if size else "this picture"
        raise ObjectiveError(
            f"{_title(layer)} has rows 0 to {grid[0] - 1} and columns 0 to {grid[1] - 1} for {picture}: "
            f"there is no position {position[0]},{position[1]}"
        )


def _title(layer: str) -> str:
    return f"layer {layer!r}" if layer else "the output"


@dataclass(frozen=True)
class Unit:
    """A layer, a channel of it, or one spatial position of that channel."""

    layer: str
    channel: int | None = None
    position: Position = None

    def read(self, activity: Tensor) -> Tensor:
        """Reduce a layer's activity (n, c) or (n, c, h, w) to one number per picture. Raises ObjectiveError."""
        check_real(activity, _title(self.layer))
        if self.channel is None:
            return activity.reshape(len(activity), -1).mean(1)
        channel = activity[:, self.channel]
        if channel.ndim == 1:
            return channel
        if isinstance(self.position, tuple):
            check_position(self.position, channel.shape[1:], self.layer)
            return channel[:, self.position[0], self.position[1]]
        if self.position == "centre":
            return channel[:, channel.shape[1] // 2, channel.shape[2] // 2]
        flat = channel.flatten(1)
        if self.position == "max":
            # A maximum by index: the gradient goes to one position, also when several tie.
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
        """Return the words that stand for it in titles and captions."""
        if self.channel is None:
            return f"layer {self.layer}" if self.layer else net.output_name or "the output"
        if self.layer == OUTPUT and self.position is None:
            return net.class_name(self.channel)
        where = f" at row {self.position[0]}, column {self.position[1]}" if isinstance(self.position, tuple) else ""
        where = " at the centre" if self.position == "centre" else where
        if self.layer == OUTPUT and self.channel < len(net.classes):
            return f"{net.class_name(self.channel)}{where}"
        return f"channel {self.channel} of {self.layer or 'the output'}{where}"


@dataclass(frozen=True)
class Probability:
    """The probability of an output by the network's head; behind a softmax, raising it suppresses the other classes."""

    unit: Unit
    head: Head
    layer: str = OUTPUT

    def read(self, activity: Tensor) -> Tensor:
        """Reduce the output, (n, classes) or (n, classes, h, w), to one probability per picture."""
        return self.unit.read(self.head.read(activity))

    def __str__(self) -> str:
        return f"p({self.unit})"

    def title(self, net: Net) -> str:
        """Return the words that stand for it in titles and captions."""
        return f"{self.head.word} of {self.unit.title(net)}"


@dataclass(frozen=True)
class Output:
    """A function of a layer's activity, by default the network's output, that gives one number per picture."""

    function: Callable[[Tensor], Tensor]
    layer: str = OUTPUT

    def read(self, activity: Tensor) -> Tensor:
        """Call the function. Raises ObjectiveError unless it gives one number per picture."""
        score: Any = self.function(activity)
        if not isinstance(score, Tensor) or score.shape != activity.shape[:1]:
            got = f"shape {tuple(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
            raise ObjectiveError(
                f"{self} gave {got} for {len(activity)} pictures: expected ({len(activity)},), one number per picture"
            )
        check_real(score, f"what {self} gave")
        return score

    def __str__(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def title(self, net: Net) -> str:
        """Return the words that stand for it in titles and captions."""
        return "a function of the output" if str(self) == "<lambda>" else str(self).replace("_", " ")


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms; add, subtract and multiply objectives to make new ones."""

    terms: tuple[tuple[float, Term], ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that must be read for the score."""
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
        """Set the position of every channel of a hidden layer that has none."""
        return Objective(tuple((weight, _at(term, position)) for weight, term in self.terms))

    def rows(self, index: int | slice | Sequence[int]) -> Objective:
        """Return the objective of a pass over these pictures of the batch, repeated or in another order.

        Ask for it wherever the pictures of a pass are not those of the batch, one for one. An index gives that
        picture's own objective, which holds for any number of its copies. An Objective is the same for all pictures;
        in an ObjectiveBatch they differ.
        """
        return self

    @property
    def class_index(self) -> int | None:
        """The class, when the objective is one class and nothing else."""
        weight, term = self.terms[0]
        if len(self.terms) > 1 or weight != 1 or not isinstance(term, Unit) or term.layer != OUTPUT:
            return None
        return term.channel if term.position is None else None

    @property
    def placed(self) -> bool:
        """Whether a term is about one position of a channel."""
        units = [term.unit if isinstance(term, Probability) else term for _, term in self.terms]
        return any(isinstance(unit, Unit) and unit.position not in (None, "mean") for unit in units)

    def title(self, net: Net) -> str:
        """Return the words that stand for it in titles and captions."""
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


@dataclass(frozen=True)
class ObjectiveBatch(Objective):
    """One objective per picture of a batch, in the order of the pictures; `terms` holds those of all.

    Passes over other pictures than those of the batch need the objective's `rows`. Raises ObjectiveError for a pass
    with another number of pictures.
    """

    terms: tuple[tuple[float, Term], ...] = field(init=False, repr=False, compare=False)
    objectives: tuple[Objective, ...]

    def __post_init__(self) -> None:
        if not self.objectives:
            raise ObjectiveError("the list of objectives is empty: give one per picture of the batch")
        terms = tuple(term for objective in self._groups for term in objective.terms)
        object.__setattr__(self, "terms", terms)

    @cached_property
    def _groups(self) -> dict[Objective, list[int]]:
        """The pictures of each distinct objective."""
        groups: dict[Objective, list[int]] = {}
        for row, objective in enumerate(self.objectives):
            groups.setdefault(objective, []).append(row)
        return groups

    @cached_property
    def _classes(self) -> list[int] | None:
        """The class of every picture, when all objectives are one class and nothing else."""
        classes = [objective.class_index for objective in self.objectives]
        return None if None in classes else [index for index in classes if index is not None]

    def score(self, readings: dict[str, Tensor]) -> Tensor:
        """Return every picture's score by its own objective, shape (n,); equal objectives are computed together."""
        first = readings[self.layers[0]]
        if len(first) != len(self.objectives):
            raise ObjectiveError(
                f"{len(self.objectives)} objectives for a pass of {len(first)} pictures: give one per picture; "
                "a method that runs other pictures than those of the batch takes objective.rows(...)"
            )
        if len(self._groups) == 1:
            return self.objectives[0].score(readings)
        if self._classes is not None and first.ndim == 2:
            index = torch.tensor(self._classes, device=first.device)
            return first.gather(1, index[:, None])[:, 0]
        return self._score_by_group(readings)

    def _score_by_group(self, readings: dict[str, Tensor]) -> Tensor:
        order = torch.tensor([row for rows in self._groups.values() for row in rows])
        sizes = [len(rows) for rows in self._groups.values()]
        # Sorted and split rather than indexed by group: the gradient is put together once, not once per group.
        pieces = {name: _take(readings[name], order).split(sizes) for name in self.layers}
        scores = [
            objective.score({name: pieces[name][number] for name in objective.layers})
            for number, objective in enumerate(self._groups)
        ]
        return _take(torch.cat(scores), order.argsort())

    def at(self, position: Position) -> ObjectiveBatch:
        """Set the position of every channel of a hidden layer that has none."""
        return ObjectiveBatch(tuple(objective.at(position) for objective in self.objectives))

    def rows(self, index: int | slice | Sequence[int]) -> Objective:
        """Return the objective of a pass over these pictures of the batch; of one picture, its own objective."""
        if isinstance(index, slice):
            return ObjectiveBatch(self.objectives[index])
        if isinstance(index, Sequence):
            return ObjectiveBatch(tuple(self.objectives[row] for row in index))
        return self.objectives[index]

    @property
    def class_index(self) -> int | None:
        """The class, when it is the same for every picture and nothing else."""
        return self._classes[0] if self._classes and len(self._groups) == 1 else None

    def title(self, net: Net) -> str:
        """Return the titles of all objectives, picture by picture."""
        return "; ".join(objective.title(net) for objective in self.objectives)

    def __str__(self) -> str:
        return "; ".join(map(str, self.objectives))

    def __add__(self, other: Objective) -> ObjectiveBatch:
        count = range(len(self.objectives))
        return ObjectiveBatch(tuple(self.rows(row) + other.rows(row) for row in count))

    __radd__ = __add__

    def __mul__(self, factor: float) -> ObjectiveBatch:
        return ObjectiveBatch(tuple(objective * factor for objective in self.objectives))

    __rmul__ = __mul__


def _take(values: Tensor, order: Tensor) -> Tensor:
    """Reorder along the first axis, without a copy where the order is that already."""
    return values if bool((order.diff() > 0).all()) else values.index_select(0, order.to(values.device))


def _at(term: Term, position: Position) -> Term:
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


ClassIndex = int | np.integer[Any] | np.ndarray[Any, Any] | Tensor
"""An integer, or a tensor or array that holds one."""


def as_objective(net: Net, of: str | ClassIndex | Objective | Callable[[Tensor], Tensor]) -> Objective:
    """Turn an objective in any form into an Objective.

    `of` is a class index (an integer of Python, numpy or torch, also in a tensor or array of one element), a class name
    (or a part of one, in any case), "p(class)" for its probability, "layer:channel", "layer:channel@row,column", a
    layer, sums and multiples of those ("tabby - 0.5*lynx"), a function of the network's output, or an Objective.

    Raises ObjectiveError when it cannot be resolved, with the nearest classes, or the ranges that exist.
    """
    if isinstance(of, Objective):
        return of
    index = _as_index(of)
    if index is not None:
        return Objective(((1.0, _class_index(net, index)),))
    if callable(of):
        return Objective(((1.0, Output(of)),))
    if not isinstance(of, str):
        raise ObjectiveError(
            f"a {type(of).__name__} is no objective: give a class index or name, 'layer:channel', or a function of the "
            "output; a list of objectives is for a batch, attribute(net, pixels, method, of=[...])"
        )
    return _read(net, of.strip())


def objective_for(net: Net, of: str | ClassIndex | Objective | Callable[[Tensor], Tensor], pixels: Tensor) -> Objective:
    """Turn an objective about given pictures (n, c, h, w) into an Objective, units at their strongest position.

    Positions are rows and columns for pictures of this size, which need not be the network's own.
    """
    return as_objective(net_at(net, pixels) if isinstance(of, str) and "@" in of else net, of).at("max")


def _as_index(of: Any) -> int | None:
    """Return a class index given as any kind of integer, None for what is no number. Raises ObjectiveError."""
    if isinstance(of, (Tensor, np.ndarray)):
        count = of.numel() if isinstance(of, Tensor) else of.size
        if count != 1:
            raise ObjectiveError(
                f"an array of shape {tuple(of.shape)} is no class index: give one integer, as int(labels[0])"
            )
        of = of.reshape(-1)[0].item()
    if isinstance(of, (float, np.floating)):
        raise ObjectiveError(f"{of:g} is a floating point number: a class index is an integer, as int(...) gives")
    return as_index(of) if hasattr(type(of), "__index__") else None


def _read(net: Net, text: str) -> Objective:
    if not text:
        raise ObjectiveError("the objective is empty: give a class, or layer:channel")
    whole = _exact_class(net, text)
    if whole is not None:
        return Objective(((1.0, whole),))
    pieces = re.split(r"\s+([+-])\s+", text)
    signs = [1.0] + [1.0 if sign == "+" else -1.0 for sign in pieces[1::2]]
    terms: list[tuple[float, Term]] = []
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
    whole = _exact_class(net, text)
    if whole is not None:
        return whole
    if text == WHOLE_OUTPUT and net.output.shape in ((), (1,)):
        return Unit(OUTPUT, 0 if net.output.shape else None)
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
        return Unit(find_layer(net, text).name)
    return _class_part(net, text)


def _probability(net: Net, text: str) -> Probability:
    unit = _unit(net, text)
    if not isinstance(unit, Unit) or unit.layer != OUTPUT or (unit.channel is None and net.output.shape):
        raise ObjectiveError(f"p({text}) is not the probability of a class: write p(281) or p(tabby)")
    return probability(net, unit)


def probability(net: Net, unit: Unit) -> Probability:
    """Return the probability that a unit of the output stands for; where that is an assumption, a remark says so.

    Raises ObjectiveError where the output's numbers are no probabilities.
    """
    head = net.head
    if head.kind == "value":
        raise ObjectiveError(
            f"p({unit}) is no probability: the output of {net.name} is a {head.word}, of={str(unit)!r}; where it is a "
            "logit say so, as in Net(..., head='sigmoid'), or --head sigmoid"
        )
    if not head.certain:
        say(f"p(...) is the softmax of the output (the output itself where it sums to 1), an assumption: {STATE}")
    return Probability(unit, head)


def _class_index(net: Net, index: int) -> Unit:
    shape = net.output.shape
    if not shape:
        raise ObjectiveError(
            f"{net.name} gives one number per picture, not classes: its objective is {WHOLE_OUTPUT!r}, the default"
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
            f"{net.name} has {len(same)} classes named {text!r}: give an index, {' or '.join(map(str, same))}"
        )
    return Unit(OUTPUT, same[0]) if same else None


def _class_part(net: Net, text: str) -> Unit:
    if not net.classes:
        raise ObjectiveError(
            f"{net.name} has no class names: give an index, or name a layer ({nearest(text, net.layers)})"
        )
    classes = [i for i, name in enumerate(net.classes) if text.lower() in name.lower()]
    if len(classes) == 1:
        return Unit(OUTPUT, classes[0])
    if classes:
        some = ", ".join(f"{i} {net.classes[i]}" for i in classes[:6]) + (", ..." if len(classes) > 6 else "")
        raise ObjectiveError(
            f"{text!r} is part of {len(classes)} class names of {net.name}: {some}. Give one, by name or index"
        )
    raise ObjectiveError(
        f"{net.name} has no class or layer {text!r}; nearest: {nearest(text, (*net.classes, *net.layers))}"
    )


def _channel(net: Net, name: str, channel: int, position: str | None) -> Unit:
    layer = channelled_layer(net, output_or_layer(net, name).name, error=ObjectiveError)
    if channel >= layer.shape[0]:
        last = layer.shape[0] - 1
        there = f"channels 0 to {last}" if last else "one channel, number 0"
        raise ObjectiveError(f"{layer.title} has {there}: there is no {channel}")
    if position is None or position in ("max", "mean", "centre"):
        return Unit(layer.name, channel, position)
    if not layer.spatial:
        raise ObjectiveError(f"{layer.title} has no spatial positions: write '{layer.name}:{channel}'")
    y, x = (int(number) for number in position.split(","))
    check_position((y, x), layer.grid, layer.name, net.size)
    return Unit(layer.name, channel, (y, x))
