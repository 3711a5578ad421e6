"""The boxes of a network's map: layers, with what follows point by point inside the box of its producer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ..net import Net
from ..operations import Backward, Reach, names
from ..tracing import OUTPUT, WHOLE_OUTPUT, Layer
from ..wiring import PICTURE, Span, Step, Wiring

_POINT_BY_POINT = names(
    Reach.POINTWISE, Reach.NOISE, Reach.NORMALISATION, Reach.RESHAPE, Reach.QUERY, Reach.CREATION
) | frozenset("permute transpose instance_norm rms_norm get".split())
"""Functions that leave every number at its place, or all of them in their order."""

_NAMED = (
    names(Backward.RECTIFIER, Backward.ACTIVATION, Reach.NORMALISATION)
    | frozenset("sigmoid hardsigmoid tanh softmax log_softmax local_response_norm glu pixel_shuffle flip roll".split())
) - {"clip"}
"""Functions after a layer that its box names."""

WORDS = {"add": "add", "mul": "multiply", "cat": "concatenate", "sub": "subtract", "div": "divide"}
"""What functions are called, where it is not their own name."""

_CHAINED = frozenset("add cat mul".split())
"""Functions whose chains are one: a + b + c."""


@dataclass(frozen=True)
class Box:
    """One box of the map: a layer or a function, and what follows it point by point.

    `key` names it in the map. `layers` are the layers whose outputs it computes, the first of them its own, and `ends`
    the modules around them whose output is that of this box. `kind` is the class of its layer, or the function;
    `words` name what follows it, `detail` its window. `reads` are the numbers of the boxes that it reads, and `drawn`
    the fewer ones that say the same where it adds to an earlier concatenation. `step` is the distance of its units in
    pixels of the picture, and `sees` what a unit sees of it; both "" where nobody knows. `at` is its place in the order
    of execution; `function` says that it is a function between layers, and `source` what the network is given.
    """

    number: int
    key: str
    kind: str
    shape: tuple[int, ...]
    layers: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    detail: str = ""
    reads: tuple[int, ...] = ()
    drawn: tuple[int, ...] = ()
    step: str = ""
    sees: str = ""
    parameters: int = 0
    at: int = 0
    function: bool = False
    source: bool = False

    @property
    def layer(self) -> str | None:
        """The layer that the box stands for, None where it is a function that ends none."""
        return next(iter((*self.layers, *self.ends)), None)

    @property
    def is_output(self) -> bool:
        """Whether the network's output is that of this box."""
        return OUTPUT in (*self.layers, *self.ends)


def boxes_of(net: Net) -> tuple[Box, ...]:
    """Return the boxes of a network in order of execution, what it is given first."""
    wiring = net.wiring
    gathered = _gathered(wiring.steps)
    heads = sorted(set(gathered.values()))
    if any(not step.reads for step in wiring.steps[1:]):
        heads.insert(1, len(wiring.steps))  # what it is given besides the picture
    place = {head: at for at, head in enumerate(heads)}
    members: dict[int, list[Step]] = {head: [] for head in heads}
    for step in wiring.steps:
        members[gathered[step.number]].append(step)
    ends = _ends(wiring, gathered)
    boxes = [_box(net, place[head], head, members[head], ends.get(head, ())) for head in heads]
    boxes = [replace(box, reads=_reads(box.number, members[heads[box.number]], gathered, place)) for box in boxes]
    return _keyed(_running(boxes), wiring.spans)


def _gathered(steps: Sequence[Step]) -> dict[int, int]:
    """Return for each step the one in whose box it is."""
    readers: dict[int, list[int]] = {}
    for step in steps:
        for read in step.reads:
            readers.setdefault(read, []).append(step.number)
    into = dict[int, int]()
    for step in steps:
        into[step.number] = into[step.reads[0]] if _follows(step, steps) else step.number
    for step in steps:
        only = readers.get(step.number, [])
        if step.layer is None and step.kind in _CHAINED and not step.then and len(step.reads) > 1 and len(only) == 1:
            [reader] = (steps[number] for number in only)
            if reader.layer is None and reader.kind == step.kind and into[reader.number] == reader.number:
                into = {at: reader.number if to == step.number else to for at, to in into.items()}
    return into


def _follows(step: Step, steps: Sequence[Step]) -> bool:
    """Whether a layer goes into the box of what it reads."""
    if step.layer is None or step.opaque or len(step.reads) != 1 or step.reads[0] == PICTURE:
        return False
    before = steps[step.reads[0]]
    normalises = "Norm" in step.kind and step.shape == before.shape
    if not (step.functions <= _POINT_BY_POINT or normalises):
        return False
    # What a function between the two has put together anew is a tensor of its own.
    same = math.prod(step.shape) == math.prod(before.shape) and {*before.then} <= _POINT_BY_POINT
    return sorted(step.shape) == sorted(before.shape) or same


def _ends(wiring: Wiring, gathered: Mapping[int, int]) -> dict[int, tuple[str, ...]]:
    """Return for each box the modules that end with it: whose output it computes, else whose last step it holds."""
    ends: dict[int, tuple[str, ...]] = {}
    for span in wiring.spans:
        given = span.gives is not None and span.first <= span.gives < span.end
        last = span.gives if given and span.gives is not None else max(span.end - 1, span.first)
        head = gathered[min(last, len(wiring.steps) - 1)]
        ends[head] = (*ends.get(head, ()), span.layer)
    return ends


def _reads(
    number: int, members: Sequence[Step], gathered: Mapping[int, int], place: Mapping[int, int]
) -> tuple[int, ...]:
    """Return the boxes that a box reads; those that read nothing else read what the network is given beside it."""
    read = dict.fromkeys(place[gathered[each]] for step in members for each in step.reads)
    read.pop(number, None)
    return tuple(read) if read or not members or members[0].number == PICTURE else (1,)


def _box(net: Net, number: int, at: int, members: Sequence[Step], ends: Sequence[str]) -> Box:
    """Make a box of the steps in it, of which that at `at` comes first; without any it is what else is given."""
    if not members:
        return Box(number, "(given)", "what else it is given", (), source=True)
    layers = net.layers
    ends = tuple(name for name in ends if name in layers)
    head = next(step for step in members if step.number == at)
    if head.number == PICTURE:
        size = (net.channels, *net.size)
        return Box(number, "(picture)", "the picture", size, ends=tuple(ends), words=_words(members), source=True)
    inside = tuple(step.layer for step in members if step.layer is not None)
    told = next((layers[name] for name in (*inside, *ends) if name in layers), None)
    own = layers.get(head.layer) if head.layer is not None else None
    return Box(
        number=number,
        key="",
        kind=head.kind if own is None else own.kind,
        shape=head.shape,
        layers=tuple(inside),
        ends=tuple(ends),
        words=_words(members),
        detail=_window(own),
        step=_step(told),
        sees=_sees(told),
        parameters=sum(layers[name].parameters for name in inside if name in layers),
        at=at,
        function=head.layer is None,
    )


def _words(members: Sequence[Step]) -> tuple[str, ...]:
    """Name what follows the first step of a box, each once in a row."""
    said: list[str] = []
    for step in members:
        kinds = [step.kind] if step is not members[0] and step.layer is not None else []
        said += [*kinds, *(name for name in step.then if name in _NAMED)]
    return tuple(word for before, word in pairwise(["", *said]) if word != before)


def _window(layer: Layer | None) -> str:
    """Say what a layer's window is: "3×3, stride 2"."""
    if layer is None:
        return ""
    parts: list[str] = []
    kernel = _numbers(getattr(layer.module, "kernel_size", None))
    if kernel:
        parts.append("×".join(map(str, kernel * 2 if len(kernel) == 1 and layer.spatial else kernel)))
    for name, word in (("stride", "stride"), ("dilation", "dilation")):
        numbers = _numbers(getattr(layer.module, name, None)) if kernel else ()
        if any(number != 1 for number in numbers):
            parts.append(f"{word} {'×'.join(map(str, numbers if len({*numbers}) > 1 else numbers[:1]))}")
    groups = getattr(layer.module, "groups", 1)
    if type(groups) is int and groups > 1 and layer.shape:
        parts.append("depthwise" if groups == layer.shape[0] else f"{groups} groups")
    return ", ".join(parts)


def _numbers(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(values) if all(type(each) is int for each in values) else ()


def _step(layer: Layer | None) -> str:
    if layer is None or layer.lattice.shared or layer.lattice.moved:
        return ""
    y, x = (f"{abs(each):g}" for each in layer.lattice.step)
    return f"{y} px" if y == x else f"{y} × {x} px"


def _sees(layer: Layer | None) -> str:
    if layer is None or not layer.reads_picture:
        return ""
    if layer.lattice.shared:
        return "the whole picture"
    y, x = (f"{each:g}" for each in layer.lattice.size)
    size = f"{y} px" if y == x else f"{y} × {x} px"
    return f"{size} by windows" if layer.field.shared else size


def _running(boxes: Sequence[Box]) -> list[Box]:
    """Draw a concatenation that adds to an earlier one as reading that one, so that DenseNets are chains."""
    drawn: list[Box] = []
    earlier: list[tuple[Box, set[int]]] = []
    for box in boxes:
        reads = set(box.reads)
        within = [other for other, read in reversed(earlier) if read < reads] if box.kind == "cat" else []
        if within:
            kept = [each for each in box.reads if each not in within[0].reads]
            drawn.append(replace(box, drawn=tuple(dict.fromkeys((within[0].number, *kept)))))
        else:
            drawn.append(replace(box, drawn=box.reads))
        if box.kind == "cat":
            earlier.append((box, reads))
    return drawn


def _keyed(boxes: Sequence[Box], spans: Sequence[Span]) -> tuple[Box, ...]:
    """Give every box a key: its layer's name, or that of the module which calls the function."""
    taken = set[str]()
    keyed: list[Box] = []
    for box in boxes:
        key = box.key or (box.layers[0] or WHOLE_OUTPUT if box.layers else "")
        if not key:
            around = next((span.layer for span in spans if span.first <= box.at < span.end), OUTPUT)
            plain, count = f"{around}({box.kind})", 2
            key = plain
            while key in taken:
                key, count = f"{plain}#{count}", count + 1
        taken.add(key)
        keyed.append(replace(box, key=key))
    return tuple(keyed)
