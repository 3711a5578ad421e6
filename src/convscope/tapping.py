"""tap: read layers by name during one forward pass, and stop at the last one needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .errors import LayerError
from .interruptions import orderly
from .net import Net
from .sharing import hooked
from .tracing import OUTPUT, PIXELS

Reduce = Callable[[str, Tensor], Tensor]


class _Enough(BaseException):
    """Leaves the forward pass once every layer has been read; not an Exception, so that no model swallows it."""


@orderly
def tap(
    net: Net,
    pixels: Tensor,
    layers: Iterable[str | int],
    *,
    leaf: str | int | Sequence[str | int] | None = None,
    reduce: Reduce | None = None,
) -> dict[str, Tensor]:
    """Read layers during one forward pass that stops after the last of them.

    Args:
        net: the network.
        pixels: (n, c, h, w) in [0, 1].
        layers: names as in `net.layers`, numbers of convolutions, "" for the output, PIXELS for the pixels themselves.
        leaf: a layer to begin the autograd graph at: it is detached and requires grad, so that a backward pass to it
            costs nothing below it. Of several, one that depends on another stays connected to it.
        reduce: a function of a layer's name and its output (n, ...), called while the pass is there, whose result
            (n, ...) is kept instead of a copy.

    Returns the layers by the names asked for. What is kept is safe from in-place operations that follow.
    Raises LayerError when a layer does not exist, runs several times or is not reached.
    """
    leaves = () if leaf is None else (leaf,) if isinstance(leaf, (str, int)) else tuple(leaf)
    wanted = {str(name): name if name in (OUTPUT, PIXELS) else net.layer(name).name for name in (*layers, *leaves)}
    inside = set(wanted.values()) - {OUTPUT, PIXELS}
    reader = _Reader(inside, {wanted[str(name)] for name in leaves}, OUTPUT in wanted.values(), reduce)
    if inside or reader.whole:
        with net.blaming_the_size(pixels):
            reader.read(net, pixels)
    kept = reader.kept | {PIXELS: pixels}
    missing = [name for name in wanted.values() if name not in kept]
    if missing:
        raise LayerError(f"{net.name} did not run layer {missing[0]!r} in this forward pass")
    return {asked: kept[name] for asked, name in wanted.items()}


class _Reader:
    """Reads layers during one pass, or during as many as there are pictures where each is computed alone."""

    def __init__(self, names: set[str], leaves: set[str], whole: bool, reduce: Reduce | None) -> None:
        self.names, self.leaves, self.whole, self.reduce = names, leaves, whole, reduce
        self.kept: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}
        self.passes, self.done = 1, 0
        self.joined: dict[str, Tensor] = {}

    def read(self, net: Net, pixels: Tensor) -> None:
        passes = net.passes(pixels)
        self.passes = len(passes)
        parts: list[dict[str, Tensor]] = []
        modules = sorted({name.partition("#")[0] for name in self.names})
        with hooked((net.body.get_submodule(module), self._hook(module)) for module in modules):
            for self.done, run in enumerate(passes):
                self.kept, self.calls = {}, {}
                self._read_one(run)
                parts.append(self.kept)
        if len(parts) > 1:
            names = [name for name in parts[0] if all(name in part for part in parts)]
            self.kept = {name: torch.cat([part[name] for part in parts]) for name in names} | self.joined

    def _read_one(self, run: Callable[[], Tensor]) -> None:
        try:
            output = run()
        except _Enough:
            return
        if self.whole:
            self.kept[OUTPUT] = output if self.reduce is None else self.reduce(OUTPUT, output)

    def _hook(self, module: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            self.calls[module] = self.calls.get(module, 0) + 1
            name = module if module in self.names else f"{module}#{self.calls[module]}"
            if name not in self.names:
                return None
            return self._keep(name, output)

        return hook

    def _keep(self, name: str, output: Any) -> Tensor | None:
        if not isinstance(output, Tensor):
            raise LayerError(f"layer {name!r} returns {type(output).__name__}, not a tensor: ask for a layer inside it")
        if name in self.leaves and not (output.is_floating_point() or output.is_complex()):
            raise LayerError(f"layer {name!r} holds whole numbers ({output.dtype}), which have no gradient")
        if output.is_quantized:  # what is kept are the values that it stands for
            output = output.dequantize()
        last = not self.whole and len(self.kept) == len(self.names) - 1
        if name in self.leaves:
            # Also where the body computes this layer without gradients: those above it begin here.
            with torch.inference_mode(False), torch.enable_grad():
                onward = self._begin(name, output)
        elif self.reduce is not None:
            self.kept[name], onward = self.reduce(name, output), None
        else:
            # The copy is kept and the original goes on: whatever works in place later cannot reach what was read.
            self.kept[name] = output if last else output.clone()
            onward = None
        if last:
            raise _Enough
        return onward

    def _begin(self, name: str, output: Tensor) -> Tensor:
        """Keep a leaf, and return what goes on in its place."""
        above = output.requires_grad and not self.leaves.isdisjoint(self.kept)
        self.kept[name] = output.clone() if above else output.detach().clone().requires_grad_()
        onward = self.kept[name].clone()
        return onward if self.passes == 1 else self._join(name, onward if above else onward.detach())

    def _join(self, name: str, value: Tensor) -> Tensor:
        """Put what one pass read into the one leaf of all passes, and return it with the gradient going there too."""
        count = len(value)
        if name not in self.joined:
            self.joined[name] = value.new_empty(self.passes * count, *value.shape[1:]).requires_grad_()
        leaf, rows = self.joined[name], slice(self.done * count, (self.done + 1) * count)
        leaf.data[rows] = value.detach()
        # Of the value there is only the gradient to come: of a leaf below, on which this layer depends.
        return value + (leaf[rows] - leaf[rows].detach()) if value.requires_grad else leaf[rows].clone()
