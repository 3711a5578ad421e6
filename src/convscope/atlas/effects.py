"""Effects: where a unit mattered, its activity times the gradient of the predicted class's score, over positions.

The strongest picture of a unit is not the one where it decides: over pictures a unit's mean activity says next to
nothing of what the score loses without it, and activity times gradient nearly all. One backward pass gives it for all
units; it ends at the first layers that are scanned.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from ..errors import NetworkError
from ..net import Net
from ..tapping import Reduce, tap
from ..tracing import OUTPUT, Layer
from .units import Activity

_RECTIFIER = "ReluBackward0"
"""The node of an output that was rectified in place: activity times gradient is the same before and after."""

Take = Callable[[str, Tensor, slice], None]
"""Takes in a layer's activity times gradient, as (n, rows, columns, units), of some rows of a batch."""


def check_output(net: Net) -> None:
    """Refuse a network that predicts no class. Raises NetworkError."""
    if len(net.output.shape) != 1:
        raise NetworkError(
            f"{net.name} gives outputs of shape {('n', *net.output.shape)}, not (n, classes): it predicts no class of "
            "a picture on which units could have an effect; scan without --effect"
        )


@dataclass
class Effects:
    """Computes the effects of layers' units, batch after batch."""

    net: Net
    layers: dict[str, Layer]
    _copied: set[str] = field(default_factory=set[str])
    _first: set[str] | None = None

    def run(self, pixels: Tensor, reduce: Reduce, take: Take) -> None:
        """Run the network forward on pixels (n, c, h, w), reducing each layer, and back from the largest score."""
        reduced = reduce
        while True:
            watched = _Watched(self.layers, self._copied, reduced)
            with torch.enable_grad():
                tap(self.net, pixels.clone().requires_grad_(), [*self.layers, OUTPUT], reduce=watched.see)
            changed = watched.changed()
            if not changed:
                break
            # What the body writes over is copied from now on; what was reduced of this batch stays.
            self._copied |= changed
            reduced = _nothing
        self._back(watched, take)

    def _back(self, watched: _Watched, take: Take) -> None:
        score = torch.cat(watched.outputs).flatten(1).amax(1).sum()
        if not score.requires_grad:
            raise NetworkError(f"no gradient reaches the layers of {self.net.name}: scan without --effect")
        if self._first is None:
            self._first = watched.first()
        ends: list[tuple[str, _Seen]] = []
        with ExitStack() as watching:
            for name, seen in watched.layers.items():
                for one in seen:
                    if name in self._first:
                        ends.append((name, one))
                    else:
                        watching.enter_context(one.watched(partial(self._taken, name, one, take)))
            # Of where the pass ends, the gradient is returned; its node does not run, and so nothing below it.
            grads = torch.autograd.grad(score, [one.edge for _, one in ends], materialize_grads=True)
        for (name, one), grad in zip(ends, grads, strict=True):
            self._taken(name, one, take, grad)

    def _taken(self, name: str, seen: _Seen, take: Take, grad: Tensor) -> None:
        with torch.no_grad():
            layer = self.layers[name]
            take(name, Activity(layer, seen.values).values * Activity(layer, grad).values, seen.rows)


def _nothing(_: str, output: Tensor) -> Tensor:
    return output.detach()[:, :0]


class _Seen:
    """A layer's output as it was: its values, where it stands in the graph, and whether the body wrote over it."""

    def __init__(self, output: Tensor, rows: slice, *, copied: bool) -> None:
        self.output, self.rows, self.version = output, rows, output._version
        self.edge: GradientEdge = get_gradient_edge(output)
        self.values = output.detach().clone() if copied else output.detach()
        self.copied = copied

    @property
    def is_other(self) -> bool:
        """Whether the values are no longer those that the gradient is about."""
        node = self.output.grad_fn
        return not self.copied and self.output._version != self.version and (node is None or node.name() != _RECTIFIER)

    @contextmanager
    def watched(self, take: Callable[[Tensor], None]) -> Generator[None]:
        """Have the gradient taken once it is known, before anything below, by a backward pass inside the block.

        A hook that stayed would keep the output, and the output the graph with the hook, for ever.
        """

        def taken(grads: tuple[Tensor, ...]) -> None:
            take(grads[self.edge.output_nr])

        handle = self.edge.node.register_prehook(taken)
        try:
            yield
        finally:
            handle.remove()


class _Watched:
    """The layers of one forward pass, or of one for each picture."""

    def __init__(self, names: Container[str], copied: set[str], reduce: Reduce) -> None:
        self.names, self.copied, self.reduce = names, copied, reduce
        self.layers: dict[str, list[_Seen]] = {}
        self.outputs: list[Tensor] = []

    def see(self, name: str, output: Tensor) -> Tensor:
        """Note a layer's output, and reduce it."""
        if name == OUTPUT:
            self.outputs.append(output)
        if name not in self.names:
            return _nothing(name, output)
        if output.requires_grad:
            seen = self.layers.setdefault(name, [])
            start = sum(len(one.values) for one in seen)
            seen.append(_Seen(output, slice(start, start + len(output)), copied=name in self.copied))
        with torch.no_grad():
            return self.reduce(name, output)

    def changed(self) -> set[str]:
        """Return the layers that the body wrote over with something else than their rectified values."""
        return {name for name, seen in self.layers.items() if any(one.is_other for one in seen)}

    def first(self) -> set[str]:
        """Return the layers below which none of the others lies: there the backward pass may end."""
        nodes = {name: seen[0].edge.node for name, seen in self.layers.items()}
        return {name for name, node in nodes.items() if not _reaches(node, {*nodes.values()})}


def _reaches(start: Node, nodes: set[Node]) -> bool:
    """Whether any of the nodes lies below one of them."""
    known: set[Node] = set()
    waiting = [node for node, _ in start.next_functions if node is not None]
    while waiting:
        node = waiting.pop()
        if node in nodes:
            return True
        if node not in known:
            known.add(node)
            waiting += [below for below, _ in node.next_functions if below is not None]
    return False
